r"""A DISM that adds a driver package to the disk images of a made-up Windows (win32_machine.py).

It reads its own command line, reaches the volume by its drive letter, and leaves what the real one is known to leave:
the package in the driver store under a name of its own choice, its INF and catalog as oemNN, the driver file, records in
SYSTEM and DRIVERS, lines in setupapi.offline.log, logs beside the hives. What it does not do, as far as is known, is left
out: other control sets than the first, StartOverride.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rehost_payload.drivers.inject import CATALOGS, STORE, inject
from rehost_payload.drivers.inject_package import read_package
from rehost_payload.formats.hive import DeleteKey, Hive, HiveEdit, SetValue, needs_replay, replay
from rehost_payload.formats.inf import parse_inf
from rehost_payload.formats.inf_target import target_of
from rehost_payload.system.hivex_edit import edit_hive
from rehost_payload.system.win_tools import ToolError
from support.hives import make_hive, sz
from support.image_system import ImageVolume
from support.win32_machine import Machine

CONFIG = r"\Windows\System32\config"
SYSTEM = rf"{CONFIG}\SYSTEM"
SETUP_LOG = r"\Windows\INF\setupapi.offline.log"
_FIRST_NUMBER = 41


class _Loaded:
    """A hive of the volume in the registry of the running system."""

    def commit(self, _: object) -> None:
        pass


@dataclass
class MadeUpDism:
    """``how``: "works", "half" (fails in the middle), "nothing" (says that all is well), "staged" (the package is in the
    store, not configured), "no-ids" (the database does not know its devices), "hangs" (is ended in the middle).

    ``fail`` is called before every write, and may raise. ``code`` is the exit code where it fails.
    """

    machine: Machine
    how: str = "works"
    code: int = 50
    fail: Callable[[str, str], None] = lambda what, where: None
    only: str = ""  # the way above applies to this INF alone; the others work
    commands: list[Sequence[str]] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)

    def __call__(
        self, command: Sequence[str], log: Path | None, limit: float, waiting: Callable[[], None]
    ) -> int:
        self.commands.append(command)
        self.limits.append(limit)
        options = dict(o[1:].partition(":")[::2] for o in command[1:])
        image, inf = options["Image"], Path(options["Driver"])
        assert "Add-Driver" in options
        how = self.how if self.only in ("", inf.name) else "works"
        waiting()
        assert log is not None
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"Deployment Image Servicing and Management tool\r\n")
        if how == "nothing":
            return 0
        hive = f"{{bf1a281b-ad7b-4476-ac95-f47682990ce7}}{image}Windows/System32/config/SYSTEM"
        volume = self._volume(image)
        writes = list(self._writes(volume, inf, how))
        if how in ("half", "hangs"):
            writes = writes[: len(writes) // 2]
            writes.append((rf"{CONFIG}\SYSTEM.LOG2", b"half of it"))
        for path, data in writes:
            self._write(volume, path, data)
        if how == "hangs":
            self.machine.hives[hive] = _Loaded()  # what ends a program does not unload its hives
            raise ToolError(f"{command[0]}: it did not end within {limit:g} seconds and was stopped")
        return self.code if how == "half" else 0

    def _volume(self, image: str) -> ImageVolume:
        name = self.machine.letters[image]
        for number, part, known in self.machine._parts():
            if known == name:
                return ImageVolume(self.machine.disks[number].image, part.offset, part.size, self.fail)
        raise AssertionError(image)

    def _write(self, volume: ImageVolume, path: str, data: bytes) -> None:
        parts = path.strip("\\").split("\\")
        for n in range(1, len(parts)):
            folder = "\\" + "\\".join(parts[:n])
            if not volume.exists(folder):
                volume.make_directory(folder)
        volume.replace(path, data)

    def _writes(self, volume: ImageVolume, inf: Path, how: str) -> Iterator[tuple[str, bytes]]:
        def read(path: str) -> bytes | None:
            full = rf"\Windows\{path}"
            return volume.read(full) if volume.exists(full) else None

        package = read_package(inf.parent, inf.name)
        target = target_of("14393", 3)
        found = package.find(inf.name)
        assert found is not None
        ids = [i for m in parse_inf(found[1]).models(target) for i in m.ids]
        old = volume.read(SYSTEM)
        if needs_replay(old):
            logs = (rf"{SYSTEM}.LOG{n}" for n in (1, 2))
            old = replay(old, [volume.read(log) for log in logs if volume.exists(log)]).data
        made = inject(package, ids, target, Hive.parse(old), read, range(_FIRST_NUMBER))
        name = made.name[:-16] + made.name[-1:-17:-1]  # its own sixteen digits
        edits = [
            e
            for e in _renamed(made.edits, made.name, name)
            if e.key[0] not in ("ControlSet002", "ControlSet003") and not isinstance(e, DeleteKey)
        ]
        if how == "staged":
            edits = [e for e in edits if "Configurations" not in e.key and "Services" not in e.key]
        if how == "no-ids":
            edits = [e for e in edits if "DeviceIds" not in e.key]
        for file in made.files:
            yield rf"\Windows\{file.path}".replace(made.name, name), file.data
        yield rf"\Windows\INF\{made.published[:-4]}.PNF", b"precompiled"
        before = volume.read(SETUP_LOG) if volume.exists(SETUP_LOG) else b""
        yield SETUP_LOG, before + f">>>  [Import Driver Package - {inf}]\r\n".encode("utf-16-le")
        drivers = volume.read(rf"{CONFIG}\DRIVERS")
        key = rf"DriverDatabase\DriverPackages\{name}"
        yield rf"{CONFIG}\DRIVERS", make_hive({key: {"": sz(made.published)}}, drivers)
        yield rf"{SYSTEM}.LOG1", b"regf" + bytes(508)
        yield SYSTEM, edit_hive(old, edits)


def _renamed(edits: Sequence[HiveEdit], old: str, new: str) -> Iterator[HiveEdit]:
    for edit in edits:
        more: dict[str, Any] = {"key": tuple(new if part == old else part for part in edit.key)}
        if isinstance(edit, SetValue):
            more["data"] = edit.data.replace(old.encode("utf-16-le"), new.encode("utf-16-le"))
        yield replace(edit, **more)


__all__ = ["CATALOGS", "CONFIG", "SETUP_LOG", "STORE", "SYSTEM", "MadeUpDism"]
