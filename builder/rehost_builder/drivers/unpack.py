"""Archives as vendors deliver drivers, unpacked into a private folder that is removed afterwards.

ZIP is read here. CAB, MSI, 7z and self-extracting EXE need a program (7-Zip, cabextract, msitools), which runs with
limits on what it may write; nothing of an EXE is ever started. Whoever unpacked, the result is looked at before anybody
else does: files and folders only, no links, no devices, nothing outside, neither too much nor too many.
"""

from __future__ import annotations

import errno
import lzma
import os
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rehost_builder.errors import BuildError
from rehost_builder.run import last_words
from rehost_payload.drivers.packages import archives_in

if sys.platform != "win32":
    import resource


class NotAnArchiveError(BuildError):
    """Nothing could be unpacked: what is called so may be anything, a program for instance."""


@dataclass(frozen=True)
class Limits:
    """What an archive may come to. Bytes; seconds. The largest driver packages of storage vendors have 300 MB."""

    total: int = 1 << 30
    file: int = 256 << 20
    count: int = 20_000
    ratio: int = 300  # of unpacked to packed size, for more than `ratio_from` bytes
    ratio_from: int = 64 << 20
    seconds: float = 180
    depth: int = 2  # archives in archives


LIMITS = Limits()
PROGRAMS = (".exe", ".msi")
_NESTED_AT_MOST = 12
_MAX_NAME = 240
_RESERVED = re.compile(r'[<>:"|?*\x00-\x1f]')


@contextmanager
def opened(place: Path, limits: Limits = LIMITS) -> Iterator[Path]:
    """The folder with the packages of ``place``: itself, or a private one with what the archive holds.

    Raises BuildError for an archive that cannot or must not be unpacked; OSError where ``place`` cannot be read.
    """
    if stat.S_ISFIFO(place.stat().st_mode):  # to open one is to wait for ever
        raise BuildError(f"{place.name} is a named pipe", "give a folder, an INF or an archive")
    if place.is_dir() or place.suffix.lower() == ".inf":
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="rehost-drivers-") as name:
        folder = Path(name) / "out"
        folder.mkdir()
        _unpack(place, folder, limits, place.name)
        _nested(folder, limits, limits.depth, place.name)
        yield folder


def with_archives(place: Path) -> list[Path]:
    """A place, and after it the archives that lie in it or below if it is a folder."""
    return [place, *archives_in(place, LIMITS.count)] if place.is_dir() else [place]


def may_be_none(archive: Path, given: Path) -> bool:
    """Whether ``archive`` was not meant by whoever gave ``given``: any program is called .exe, and vendors' folders hold more
    than drivers. What is wrong with it is said then, and is no error.
    """
    if archive == given:
        return False
    return archive.parent != given or archive.suffix.lower() in PROGRAMS


def _nested(folder: Path, limits: Limits, depth: int, shown: str) -> None:
    """Where an archive holds no INF but other archives, those are unpacked as well, each into a folder of its own."""
    files = [Path(f, n) for f, _, names in os.walk(folder) for n in sorted(names)]
    if depth == 0 or any(f.suffix.lower() == ".inf" for f in files):
        return
    inner = [f for f in files if _kind(f) in ("zip", "cab", "msi", "7z")]
    # a setup program beside others of its kind: only those that are archives for certain come first
    inner = inner or [f for f in files if _kind(f) == "exe"]
    for path in inner[:_NESTED_AT_MOST]:
        target = path.with_name(f"{path.name}.unpacked")
        target.mkdir()
        _unpack(path, target, limits, f"{shown}, {path.name} in it")
        _nested(target, limits, depth - 1, f"{shown}, {path.name} in it")
    _inspect(folder, limits, shown)


def _kind(path: Path) -> str:
    """By the first bytes, whatever it is called."""
    with path.open("rb") as file:
        head = file.read(8)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[:4] == b"MSCF":
        return "cab"
    if head == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        return "msi"
    if head[:6] == b"7z\xbc\xaf\x27\x1c":
        return "7z"
    return "exe" if head[:2] == b"MZ" else ""


def _unpack(path: Path, folder: Path, limits: Limits, shown: str) -> None:
    kind = _kind(path)
    if not kind:
        raise NotAnArchiveError(
            f"{shown} is no archive that is known (ZIP, CAB, MSI, 7z, self-extracting EXE)",
            "unpack it yourself and give the folder",
        )
    if kind == "zip" or (kind == "exe" and zipfile.is_zipfile(path)):
        _unzip(path, folder, limits, shown)
    else:
        _extract(kind, path, folder, limits, shown)
    _inspect(folder, limits, shown)


# --- ZIP, read here ------------------------------------------------------------------------------------------


def _unzip(path: Path, folder: Path, limits: Limits, shown: str) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _judge(members, path.stat().st_size, limits, shown)
            for member in members:
                _write(archive, member, folder, limits, shown)
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        ValueError,
        struct.error,
        MemoryError,
    ) as e:
        raise BuildError(f"{shown} is damaged: {e or type(e).__name__}", "download it again") from None
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES):
            raise
        # a place before the file's beginning, a file where a folder has to be
        raise BuildError(f"{shown} is damaged: {e.strerror or e}", "download it again") from None
    except (NotImplementedError, RuntimeError) as e:
        # a method of compression that Python does not have, or a password
        raise BuildError(
            f"{shown} cannot be unpacked: {e}", "unpack it yourself and give the folder"
        ) from None


def _judge(members: Sequence[zipfile.ZipInfo], packed: int, limits: Limits, shown: str) -> None:
    """Everything that can be said before a byte is unpacked."""
    total = sum(m.file_size for m in members)
    _bounds(len(members), total, limits, shown)
    if total > limits.ratio_from and total > packed * limits.ratio:
        raise BuildError(
            f"{shown} would grow from {packed >> 10} KB to {total >> 20} MB: no driver package does that",
            "check where the file comes from",
        )
    seen: set[str] = set()
    for member in members:
        name = member.filename.replace("\\", "/")
        reason = _bad_name(name)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if reason is None and kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            reason = "is a link or a device"
        if reason is None and member.flag_bits & 1:
            reason = "is encrypted"
        if reason is None and member.file_size > limits.file:
            reason = f"is larger than {limits.file >> 20} MB"
        key = name.rstrip("/").lower()
        if reason is None and key in seen and not name.endswith("/"):
            reason = "is there twice"
        if reason is not None:
            raise BuildError(f"{shown}: {name!r} {reason}", "check where the file comes from")
        seen.add(key)


def _write(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path, limits: Limits, shown: str
) -> None:
    name = member.filename.replace("\\", "/")
    target = folder / name
    if name.endswith("/"):
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    done = 0
    with archive.open(member) as source, target.open("xb") as out:
        while block := source.read(1 << 20):
            done += len(block)
            # what the directory announces is not what the data comes to in a forged archive
            if done > min(member.file_size, limits.file):
                raise BuildError(f"{shown}: {name!r} is longer than announced", "download it again")
            out.write(block)


def _bad_name(name: str) -> str | None:
    parts = name.rstrip("/").split("/")
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "has an absolute name"
    if any(p.strip(" .") == "" for p in parts):
        return "has a name that leads out of its folder"
    if any(_RESERVED.search(p) for p in parts) or len(name) > _MAX_NAME:
        return "has a name that Windows does not allow"
    return None


# --- other archives, unpacked by programs --------------------------------------------------------------------

_SEVEN_ZIP = (("7zz", "7z", "7za"), "7zip")
_PROGRAMS = {
    "cab": ((("cabextract",), "cabextract"), _SEVEN_ZIP, (("bsdtar",), "libarchive-tools")),
    "msi": ((("msiextract",), "msitools"),),
    "7z": (_SEVEN_ZIP, (("bsdtar",), "libarchive-tools")),
    "exe": (_SEVEN_ZIP,),
}


def _extract(kind: str, path: Path, folder: Path, limits: Limits, shown: str) -> None:
    program = next(
        (found for names, _ in _PROGRAMS[kind] for n in names if (found := shutil.which(n)) is not None), None
    )
    if program is None:
        names, package = _PROGRAMS[kind][0]
        how = "install 7-Zip, or unpack it yourself" if os.name == "nt" else f"apt-get install {package}"
        raise NotAnArchiveError(f"{shown} cannot be unpacked without the program {names[0]}", how)
    source = str(path.resolve())
    argv = {
        "cabextract": [program, "-q", "-d", str(folder), source],
        "msiextract": [program, "-C", str(folder), source],
        "bsdtar": [
            program,
            "-x",
            "--no-same-owner",
            "--no-same-permissions",
            "-C",
            str(folder),
            "-f",
            source,
        ],
    }.get(Path(program).stem.lower(), [program, "x", "-y", "-bd", f"-o{folder}", "--", source])
    _run_limited(argv, folder, limits, shown)


def _run_limited(argv: list[str], folder: Path, limits: Limits, shown: str) -> None:
    """Runs an unpacking program and ends it as soon as it has written too much or takes too long."""

    environment = {**os.environ, "LC_ALL": "C", "LANGUAGE": "C", "HOME": str(folder)}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            preexec_fn=None if sys.platform == "win32" else lambda: _restrict(limits),
        )
        try:
            deadline = time.monotonic() + limits.seconds
            while True:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
                    break
                _bounds(*_size(folder), limits, shown)
                if time.monotonic() > deadline:
                    raise BuildError(
                        f"{shown} was not unpacked within {limits.seconds:.0f} s", "unpack it yourself"
                    )
        finally:
            if process.poll() is None:
                _end(process)
        errors.seek(0)
        said = errors.read(65536)
    if process.returncode:
        raise NotAnArchiveError(
            f"{shown} cannot be unpacked: {Path(argv[0]).name}: {last_words(said, process.returncode)}",
            "is it complete? Otherwise unpack it yourself and give the folder",
        )


def _restrict(limits: Limits) -> None:
    """In the process that becomes the program. Windows has no such limits; what is written is watched there as well."""
    if sys.platform != "win32":
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file, limits.file))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _end(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        process.kill()
    else:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _size(folder: Path) -> tuple[int, int]:
    """Number of files and their bytes, while somebody is writing them."""
    count = total = 0
    for top, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(top, name)).st_size  # noqa: PTH118
                count += 1
    return count, total


def _bounds(count: int, total: int, limits: Limits, shown: str) -> None:
    if count > limits.count:
        raise BuildError(f"{shown} holds more than {limits.count} files", "is it a driver package?")
    if total > limits.total:
        raise BuildError(f"{shown} unpacks to more than {limits.total >> 20} MB", "is it a driver package?")


def _inspect(folder: Path, limits: Limits, shown: str) -> None:
    """Nothing but plain files and folders, inside the folder, within the limits."""
    outside = [p.name for p in folder.parent.iterdir() if p != folder] if folder.name == "out" else []
    if outside:
        raise BuildError(f"{shown} writes outside of its folder: {outside[0]!r}", "do not use this archive")
    count = total = 0
    for top, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(top, name)
            status = path.lstat()
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                raise BuildError(f"{shown}: {name!r} is a link or a device", "do not use this archive")
            if stat.S_ISREG(status.st_mode):
                if status.st_nlink > 1:
                    raise BuildError(f"{shown}: {name!r} is a link or a device", "do not use this archive")
                count += 1
                total += status.st_size
                path.chmod(0o600)
            else:
                path.chmod(0o700)
    _bounds(count, total, limits, shown)
