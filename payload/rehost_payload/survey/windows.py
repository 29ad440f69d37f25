"""Windows installations: a folder in a volume's root with System32\\config\\SYSTEM, whatever it is called."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import FileSystemReader, UnreadableFile
from rehost_payload.formats.hive import Hive, Key, bad_bin, is_hive, needs_replay, replay
from rehost_payload.survey.bootfiles import boot_file
from rehost_payload.survey.drivers import SystemHive, install_restrictions, survey_drivers
from rehost_payload.survey.languages import tag_of
from rehost_payload.survey.model import Controller, HiveState, Problem, SourceFile, WindowsInstallation
from rehost_payload.survey.values import number, string, sub
from rehost_payload.survey.volumes import OpenVolume

_CONFIG = "\\System32\\config\\"
_VERSION = ("Microsoft", "Windows NT", "CurrentVersion")
_SYSTEM_LIMIT = 128 << 20
_SOFTWARE_LIMIT = 256 << 20
_LOG_LIMIT = 64 << 20
_SOURCE_DEPTH = 3  # Boot\EFI\de-DE
_SOURCE_FILES = 5000
_ARCHITECTURES = {"amd64": "x64", "x86": "x86", "arm64": "arm64"}


_LOGS = (".LOG", ".LOG1", ".LOG2")


def survey_windows(
    opened: OpenVolume, problems: list[Problem], controllers: Sequence[Controller] = ()
) -> list[WindowsInstallation]:
    """The installations on one volume. Only NTFS is looked at: Windows starts from nothing else (and ReFS,
    which cannot be read). What each has for these ``controllers`` is part of it."""
    reader = opened.reader
    if reader is None or reader.kind != "ntfs":
        return []
    found: list[WindowsInstallation] = []
    try:
        folders = [
            entry.name for entry in reader.listdir("\\") if entry.is_directory and not entry.reparse_tag
        ]
        roots = [f"\\{name}" for name in folders if _is_root(reader, f"\\{name}")]
    except (FormatError, OSError) as error:
        problems.append(Problem("damaged", opened.volume.id, str(error)))
        return []
    for root in roots:
        found.append(_installation(reader, opened.volume.id, root, problems, controllers))
    return found


def _is_root(reader: FileSystemReader, root: str) -> bool:
    """A SYSTEM hive in its place; or, where that is lost, loader and kernel beside an empty place for it."""
    if reader.exists(root + _CONFIG + "SYSTEM"):
        return True
    loader = any(reader.exists(f"{root}\\System32\\winload.{kind}") for kind in ("efi", "exe"))
    return loader and reader.exists(f"{root}\\System32\\ntoskrnl.exe")


def _installation(
    reader: FileSystemReader,
    volume: str,
    root: str,
    problems: list[Problem],
    controllers: Sequence[Controller],
) -> WindowsInstallation:
    place = f"{volume}:{root}"
    loaders = {}
    for kind in ("efi", "exe"):
        try:
            loaders[kind] = boot_file(reader, f"{root}\\System32\\winload.{kind}", image=True, digest=False)
        except (FormatError, OSError) as error:
            problems.append(Problem("damaged", f"{place}\\System32\\winload.{kind}", str(error)))
    installation = WindowsInstallation(
        id=place,
        volume=volume,
        root=root,
        winload_efi=loaders.get("efi"),
        winload_exe=loaders.get("exe"),
        source_files=tuple(_sources(reader, root, place, problems)),
    )
    system = open_system(reader, root, place, problems)
    installation = _with_system(replace(installation, system_hive=system.state), system.hive, place, problems)
    installation = _with_drivers(installation, system, reader, place, controllers, problems)
    del system  # two large hives at once are too much for a small machine
    software = open_software(reader, root, place, problems)
    installation = replace(installation, software_hive=software.state)
    installation = _with_software(installation, software.hive, place, problems)
    machines = [loader.machine for loader in loaders.values() if loader is not None and loader.machine]
    return replace(installation, architecture=machines[0]) if machines else installation


# --- hives
# ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OpenedHive:
    state: HiveState
    hive: Hive | None = field(default=None)
    sha256: str = ""  # of the file as it is stored


def open_system(reader: FileSystemReader, root: str, place: str, problems: list[Problem]) -> OpenedHive:
    """The SYSTEM hive of the installation in ``root``; ``place`` names the installation in ``problems``."""
    return _open_hive(reader, root, "SYSTEM", _SYSTEM_LIMIT, place, problems)


def open_software(
    reader: FileSystemReader, root: str, place: str, problems: list[Problem], *, complete: bool = False
) -> OpenedHive:
    """The SOFTWARE hive, likewise; without its logs where the version can be read without them, unless ``complete``."""
    return _open_hive(reader, root, "SOFTWARE", _SOFTWARE_LIMIT, place, problems, complete=complete)


def _open_hive(
    reader: FileSystemReader,
    root: str,
    name: str,
    limit: int,
    place: str,
    problems: list[Problem],
    *,
    complete: bool = False,
) -> OpenedHive:
    """A hive with its logs replayed in memory where it is dirty.

    SOFTWARE is read as it stands as long as it shows the version: replaying takes three times its size in
    memory, which a small machine does not have for 100 MB, and logs hardly ever hold a change of the
    version.
    """
    path = f"{root}{_CONFIG}{name}"
    where = f"{place}{_CONFIG}{name}"
    try:
        if not reader.exists(path):
            return OpenedHive(HiveState.MISSING)
        data = reader.read(path, limit)
    except (UnreadableFile, OSError) as error:
        problems.append(Problem("unreadable", where, str(error)))
        return OpenedHive(HiveState.UNREADABLE)
    except FormatError as error:
        problems.append(Problem("damaged", where, str(error)))
        return OpenedHive(HiveState.UNREADABLE)
    try:
        if not is_hive(data):
            raise FormatError(name, "not a registry hive")
        sha256 = hashlib.sha256(data).hexdigest() if name == "SYSTEM" else ""
        dirty = needs_replay(data)
        if dirty and name == "SOFTWARE" and not complete and _shows_version(data):
            return OpenedHive(HiveState.DIRTY, Hive.parse(data))
        if dirty:
            result = replay(data, [_log(reader, path + suffix) for suffix in (".LOG1", ".LOG2")])
            data = result.data
            if not result.applied:
                problems.append(Problem("logs-not-applied", where, "; ".join(result.warnings)))
        hive = Hive.parse(data)
        bad = bad_bin(data)
        if bad is not None:
            raise FormatError(name, "no hive bin where one has to follow", bad)
        return OpenedHive(HiveState.DIRTY if dirty else HiveState.OK, hive, sha256)
    except FormatError as error:
        problems.append(Problem("damaged", where, str(error)))
        return OpenedHive(HiveState.DAMAGED)


def _shows_version(data: bytes) -> bool:
    try:
        return _build(Hive.parse(data)) is not None
    except FormatError:
        return False


def _build(hive: Hive) -> int | None:
    key = hive.find(*_VERSION)
    build = string(key, "CurrentBuildNumber") or string(key, "CurrentBuild")
    return int(build) if build.isascii() and build.isdecimal() else None


def _log(reader: FileSystemReader, path: str) -> bytes:
    try:
        return reader.read(path, _LOG_LIMIT)
    except (FormatError, OSError):
        return b""


def _with_system(
    installation: WindowsInstallation, hive: Hive | None, place: str, problems: list[Problem]
) -> WindowsInstallation:
    if hive is None:
        return installation
    try:
        sets = sorted(
            int(key.name[10:])
            for key in hive.root.subkeys()
            if key.name.lower().startswith("controlset") and key.name[10:].isdecimal()
        )
        select = hive.find("Select")
        current, default = number(select, "Current"), number(select, "Default")
        # at a start the boot loader takes Default and writes it to Current
        chosen = next((n for n in (default, current, *sets) if n in sets), None)
        installation = replace(
            installation,
            control_sets=tuple(sets),
            current_control_set=current,
            default_control_set=default,
        )
        if chosen is None:
            problems.append(Problem("damaged", place + _CONFIG + "SYSTEM", "it has no control set"))
            return replace(installation, system_hive=HiveState.DAMAGED)
        control = hive.find(f"ControlSet{chosen:03d}", "Control")
        services = hive.find(f"ControlSet{chosen:03d}", "Services")
        environment = sub(control, "Session Manager", "Environment")
        architecture = string(environment, "PROCESSOR_ARCHITECTURE").lower()
        return replace(
            installation,
            computer_name=string(sub(control, "ComputerName", "ComputerName"), "ComputerName"),
            locale=_locale(control),
            architecture=_ARCHITECTURES.get(architecture),
            hyperv_host=services is not None and services.subkey("vmms") is not None,
        )
    except FormatError as error:
        problems.append(Problem("damaged", place + _CONFIG + "SYSTEM", str(error)))
        return replace(installation, system_hive=HiveState.DAMAGED)


def _with_drivers(
    installation: WindowsInstallation,
    system: OpenedHive,
    reader: FileSystemReader,
    place: str,
    controllers: Sequence[Controller],
    problems: list[Problem],
) -> WindowsInstallation:
    usable = (HiveState.OK, HiveState.DIRTY)
    if system.hive is None or installation.system_hive not in usable:
        return installation
    path = f"{installation.root}{_CONFIG}SYSTEM"
    try:
        logs = tuple(path + suffix for suffix in _LOGS if reader.exists(path + suffix))
    except (FormatError, OSError) as error:
        problems.append(Problem("damaged", place + _CONFIG + "SYSTEM", str(error)))
        return installation
    sets = installation.control_sets
    first = (installation.default_control_set, installation.current_control_set, *sets)
    default = next(n for n in first if n in sets)
    opened = SystemHive(
        system.hive, path, system.sha256, logs, system.state is HiveState.DIRTY, sets, default
    )
    found = survey_drivers(opened, reader, installation.root, place, controllers, problems)
    return replace(installation, drivers=found)


def _locale(control: Key | None) -> str:
    """The display language: the only one installed; else the preferred one; else the one of the
    installation."""
    languages = sub(control, "MUI", "UILanguages")
    installed = [key.name for key in languages.subkeys()] if languages is not None else []
    if len(installed) == 1:
        return installed[0]
    settings = sub(control, "MUI", "Settings")
    preferred = settings.value("PreferredUILanguages") if settings is not None else None
    if preferred is not None:
        try:
            names = preferred.as_strings()
        except FormatError:
            names = ()
        if names and names[0]:
            return names[0]
    language = sub(control, "Nls", "Language")
    tag = tag_of(string(language, "InstallLanguage")) or tag_of(string(language, "Default"))
    return tag or (installed[0] if installed else "")


def _with_software(
    installation: WindowsInstallation, hive: Hive | None, place: str, problems: list[Problem]
) -> WindowsInstallation:
    if hive is None:
        return installation
    try:
        key = hive.find(*_VERSION)
        drivers = installation.drivers
        if drivers is not None:
            drivers = replace(
                drivers,
                restrictions=install_restrictions(hive),
                system_root=string(key, "SystemRoot"),
            )
        return replace(
            installation,
            drivers=drivers,
            product_name=string(key, "ProductName"),
            edition=string(key, "EditionID"),
            installation_type=string(key, "InstallationType"),
            build=_build(hive),
            revision=number(key, "UBR"),
            display_version=string(key, "DisplayVersion") or string(key, "ReleaseId"),
        )
    except FormatError as error:
        problems.append(Problem("damaged", place + _CONFIG + "SOFTWARE", str(error)))
        return replace(installation, software_hive=HiveState.DAMAGED)


# --- what a boot environment is rebuilt from ----------------------------------------------------------------


def _sources(
    reader: FileSystemReader, root: str, place: str, problems: list[Problem]
) -> Iterator[SourceFile]:
    """The files below <root>\\Boot, at most three levels deep."""
    waiting = [(f"{root}\\Boot", 0)]
    count = 0
    while waiting:
        folder, depth = waiting.pop(0)
        try:
            if depth == 0 and not reader.is_directory(folder):
                return
            entries = reader.listdir(folder)
        except (FormatError, OSError) as error:
            problems.append(Problem("damaged", f"{place}{folder.removeprefix(root)}", str(error)))
            continue
        for entry in entries:
            path = f"{folder}\\{entry.name}"
            if entry.is_directory:
                if depth < _SOURCE_DEPTH and not entry.reparse_tag:
                    waiting.append((path, depth + 1))
                continue
            count += 1
            if count > _SOURCE_FILES:
                problems.append(Problem("too-many", place, f"more than {_SOURCE_FILES} files below Boot"))
                return
            yield SourceFile(path, entry.size)
