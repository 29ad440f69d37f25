"""CPython for the boot image: python.org's embeddable package.

The SHA-256 of the pinned package is the one of python.org's bill of materials and Sigstore bundle beside the download
(python-3.12.10-embed-amd64.zip.spdx.json, .sigstore), as public records quote it that pin the same URL, looked up again on
2026-11-27: Schmonzo/Offline360Studio (tools/release/build-release.ps1: "verified against the artifact's python.org Sigstore
bundle"), Peter-S-Shi/glyphcue, and anomalia0287-ai/modori (scripts/office_research_memory_kit.py, with the length
11,133,606), independent of each other, all on GitHub; seven more agree, and none was found that differs. 3.12.10 is the last
release of 3.12 with programs for Windows.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pefile

from rehost_builder.environment import named
from rehost_builder.errors import BuildError

VERSION = "3.12.10"
URL = f"https://www.python.org/ftp/python/{VERSION}/python-{VERSION}-embed-amd64.zip"
SHA256 = "4acbed6dd1c744b0376e3b1cf57ce906f9dc9e95e68824584c8099a63025a3c3"
SIZE = 11_133_606

LEFT_OUT = {
    "_wmi.pyd": "platform.platform() asks WMI through it, which ends the interpreter where WMI is not there",
    "_msi.pyd": "needs msi.dll",
    "winsound.pyd": "needs winmm.dll",
    "_sqlite3.pyd": "not used",
    "sqlite3.dll": "not used",
    "_ssl.pyd": "not used: no network",
    "libssl-3.dll": "not used: no network",
    "pythonw.exe": "no windows",
    "python.cat": "a catalog of the installer",
}
_LIMIT = 200 << 20


@dataclass(frozen=True)
class Runtime:
    """``files`` as they go into one folder. ``tag`` is "312"; ``pinned`` whether it is the package named above."""

    version: str
    tag: str
    sha256: str
    pinned: bool
    files: Mapping[str, bytes]

    def path_file(self, *folders: str) -> tuple[str, bytes]:
        """Name and content of the ._pth: modules come from there and from nowhere else (no registry, no site)."""
        lines = (f"python{self.tag}.zip", ".", *folders)
        return f"python{self.tag}._pth", "".join(f"{line}\r\n" for line in lines).encode("ascii")


def obtain(
    given: str | None, cache: Path, *, offline: bool, progress: Callable[[str], None] | None = None
) -> Path:
    """The package as a file: the one given, the cached one, or a download that has the pinned hash.

    ``given`` is a path, or a URL of a mirror (http, https, file) that must serve the pinned package.
    """
    if given and not re.match(r"(https?|file)://", given):
        path = Path(given)
        if not path.is_file():
            raise BuildError(f"--python-embed {given}: there is no such file", f"download it from {URL}")
        return path
    cached = cache / PurePosixPath(URL).name
    if cached.is_file() and _sha256(cached) == SHA256:
        return cached
    if offline:
        raise BuildError(
            f"Python {VERSION} for Windows is not in the cache {cache}",
            f"build once without --offline, or download {URL} and give it with --python-embed",
        )
    _download(given or URL, cached, progress)
    return cached


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _download(url: str, target: Path, progress: Callable[[str], None] | None) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    hint = f"download {URL} on another machine and give it with --python-embed"
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    temporary = Path(name)
    try:
        digest = hashlib.sha256()
        done = 0
        with named(target), os.fdopen(handle, "wb") as out, urllib.request.urlopen(url, timeout=30) as answer:
            while data := answer.read(1 << 18):
                done += len(data)
                if done > _LIMIT:
                    raise BuildError(f"{url} sends more than {_LIMIT >> 20} MB", hint)
                digest.update(data)
                out.write(data)
                if progress is not None:
                    progress(f"{done / 1e6:.1f} of {SIZE / 1e6:.1f} MB")
            out.flush()
            os.fsync(out.fileno())
        if digest.hexdigest() != SHA256:
            raise BuildError(
                f"{url} sent a file with the SHA-256 {digest.hexdigest()} instead of {SHA256}",
                "a proxy or mirror has changed it; " + hint,
            )
        temporary.replace(target)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as e:
        reason = getattr(e, "reason", e)
        raise BuildError(f"Python cannot be downloaded from {url}: {reason}", hint) from None
    finally:
        temporary.unlink(missing_ok=True)


def read_runtime(package: Path) -> Runtime:
    """Opens a package. Raises BuildError for what is no embeddable CPython for amd64, or is damaged."""
    digest = _sha256(package)
    hint = f"give the file {PurePosixPath(URL).name} of {URL}"
    files: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(package) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
            if sum(m.file_size for m in members) > _LIMIT:
                raise BuildError(f"{package} unpacks to more than {_LIMIT >> 20} MB", hint)
            for member in members:
                if PurePosixPath(member.filename).parent == PurePosixPath("."):
                    files[member.filename] = archive.read(member)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as e:
        raise BuildError(f"{package} is no complete ZIP file: {e}", hint) from None
    dll = next(
        (n for n in files if re.fullmatch(r"python3\d{1,2}\.dll", n, re.I) and n.lower() != "python3.dll"),
        None,
    )
    if dll is None or "python.exe" not in {n.lower() for n in files}:
        raise BuildError(
            f"{package} is not the embeddable package of CPython (python.exe and python3NN.dll)", hint
        )
    tag = dll.lower().removeprefix("python").removesuffix(".dll")
    if int(tag[1:]) < 11:
        raise BuildError(f"{package} holds Python 3.{tag[1:]}; Rehost needs 3.11 or newer", hint)
    if f"python{tag}.zip" not in files:
        raise BuildError(f"{package} lacks the standard library python{tag}.zip", hint)
    kept = {n: d for n, d in files.items() if n.lower() not in LEFT_OUT and not n.lower().endswith("._pth")}
    return Runtime(_file_version(files[dll]) or f"3.{tag[1:]}", tag, digest, digest == SHA256, kept)


def _file_version(data: bytes) -> str:
    try:
        pe = pefile.PE(data=data, fast_load=True)
        pe.parse_data_directories([2])
        for table in getattr(pe, "FileInfo", [[]])[0]:
            for strings in getattr(table, "StringTable", []):
                value = strings.entries.get(b"ProductVersion", b"").decode("ascii", "replace").strip()
                if value:
                    return str(value)
    except (pefile.PEFormatError, AttributeError, IndexError, ValueError, TypeError):
        pass
    return ""


def keep(cache: Path, package: Path) -> None:
    """Keeps a given package that is the pinned one, so that it need not be given again."""
    target = cache / PurePosixPath(URL).name
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.part")
        try:
            with named(target):
                shutil.copyfile(package, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
