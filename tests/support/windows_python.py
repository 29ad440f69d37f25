"""CPython for Windows on a machine that has none: the interpreter that a package on PyPI carries, without its programs.

The wheel of panda3d for win_amd64 (65 MB) holds the official, signed python3xy.dll with its extension modules in
`deploy_libs/`, but neither python.exe nor the standard library. The library is taken from the running Python, whose
minor version selects the wheel; python.exe is made here: 4 imports and the few instructions that call Py_Main. Laid
out as the embeddable package from python.org is, with a `._pth`.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import py_compile
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pefile

from support.pe_image import export_directory

WHEEL = "panda3d==1.10.16"
_MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
_TAG = _MINOR.replace(".", "")
_LEFT_OUT = ("tcl86t.dll", "tk86t.dll", "_tkinter.pyd")
# of the standard library: what the embeddable package does not have either, and what only a build of it needs
_NO_LIBRARY = {
    "site-packages",
    "dist-packages",
    "__pycache__",
    "test",
    "tests",
    "idlelib",
    "idle_test",
    "turtledemo",
    "tkinter",
    "ensurepip",
    "lib2to3",
    "lib-dynload",
    f"config-{_MINOR}-x86_64-linux-gnu",
}


class Unavailable(Exception):
    """No such Python could be had; the message says why."""


def cache() -> Path:
    """Where downloads, the runtime and Wine's own folder stay between runs."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("REHOST_TEST_CACHE") or Path(home) / "rehost-tests")


def runtime() -> Path:
    """A folder with python.exe, made once. Raises Unavailable."""
    target = cache() / f"python-{_TAG}-{WHEEL.partition('==')[2]}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder, "python")
            _assemble(wheel(WHEEL, f"cp{_TAG}-"), made)
            try:
                made.rename(target)
            except OSError:  # another process was quicker
                if not target.is_dir():
                    raise
    return target


def embeddable_zip(target: Path) -> Path:
    """The runtime as a zip archive, as the embeddable package of python.org is one."""
    folder = runtime()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return target


def wheel(requirement: str, tag: str = "") -> Path:
    """A wheel for Windows ("name==1.0"), from the cache or PyPI. Raises Unavailable."""
    known = sorted(cache().glob(f"{requirement.replace('==', '-')}-{tag}*.whl"))
    return known[0] if known else wheels([requirement])[0]


def wheels(requirements: Sequence[str], minor: str = _MINOR, *, alone: bool = True) -> list[Path]:
    """Wheels for Windows from PyPI, ``alone`` or with what they need; kept in the cache. Raises Unavailable."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--only-binary=:all:", "--platform", "win_amd64", "--python-version", minor]
    command += ["--no-deps"] if alone else []
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        done = subprocess.run(
            [*command, "--dest", folder, *requirements], capture_output=True, text=True, check=False
        )
        found = sorted(Path(folder).glob("*.whl"))
        if done.returncode or not found:
            last = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            what = ", ".join(requirements)
            raise Unavailable(f"{what} for Windows and Python {minor} could not be downloaded: {last}")
        return [Path(shutil.move(path, cache() / path.name)) for path in found]


def builder(target: Path) -> Path:
    """The runtime with all that the builder needs on Windows: its pinned packages, and the builder itself.

    python3.dll is in the embeddable package, not in the wheel that stands for it; Wine 8 has no
    bcryptprimitives.dll. cryptography wants both.
    """
    shutil.copytree(runtime(), target)
    root = Path(__file__).parents[2]
    needed = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    key = hashlib.sha256("\n".join(sorted(needed)).encode()).hexdigest()[:16]
    packages = cache() / f"packages-{_TAG}-{key}"
    if not packages.is_dir():
        found = wheels(needed, alone=False)
        with tempfile.TemporaryDirectory(dir=cache()) as folder:
            for wheel in found:
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(Path(folder, "packages"))
            compileall.compile_dir(Path(folder, "packages"), quiet=2, stripdir=folder)
            with suppress(OSError):  # another process was quicker
                Path(folder, "packages").rename(packages)
    own = metadata.distribution("rehost").locate_file(f"rehost-{metadata.version('rehost')}.dist-info")
    shutil.copytree(Path(str(own)), target / "own" / Path(str(own)).name)
    paths = (packages, target / "own", root / "builder", root / "payload")
    lines = [f"python{_TAG}.zip", ".", *("Z:" + str(p.resolve()).replace("/", "\\") for p in paths)]
    (target / f"python{_TAG}._pth").write_text("".join(f"{line}\r\n" for line in lines), newline="")
    pe = pefile.PE(str(target / f"python{_TAG}.dll"), fast_load=True)
    pe.parse_data_directories([0])
    exports = [e.name.decode() for e in pe.DIRECTORY_ENTRY_EXPORT.symbols if e.name]
    stable = forwarder("python3.dll", {name: f"python{_TAG}.{name}" for name in exports})
    (target / "python3.dll").write_bytes(stable)
    random = forwarder("bcryptprimitives.dll", {"ProcessPrng": "advapi32.SystemFunction036"})
    (target / "bcryptprimitives.dll").write_bytes(random)
    return target


def _assemble(wheel: Path, folder: Path) -> None:
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            base = name.rpartition("/")[2]
            if name.startswith("deploy_libs/") and base and base not in _LEFT_OUT:
                (folder / base).write_bytes(archive.read(name))
    (folder / "python.exe").write_bytes(launcher(f"python{_TAG}.dll"))
    library = Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix}))
    with zipfile.ZipFile(folder / f"python{_TAG}.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(library.rglob("*.py")):
            relative = path.relative_to(library)
            if not _NO_LIBRARY.intersection(relative.parts):
                # compiled, as in the embeddable package: all 3.11 (3.12, ...) share one bytecode
                compiled = folder / "module.pyc"
                py_compile.compile(str(path), str(compiled), str(relative), doraise=True)
                archive.write(compiled, relative.with_suffix(".pyc").as_posix())
                compiled.unlink()
    (folder / f"python{_TAG}._pth").write_text(f"python{_TAG}.zip\r\n.\r\n", newline="")


def launcher(library: str) -> bytes:
    """A console program for x64 that does what python.exe does: Py_Main with the command line.

    Microsoft's "PE Format": headers, one section with the import table, its names and the code.
    """
    rva = 0x1000
    imports = {
        "KERNEL32.dll": ("GetCommandLineW", "ExitProcess"),
        "SHELL32.dll": ("CommandLineToArgvW",),
        library: ("Py_Main",),
    }
    body = bytearray(20 * (len(imports) + 1))  # the import directory, filled in below
    slots: dict[str, int] = {}

    def put(data: bytes) -> int:
        body.extend(bytes(-len(body) % 8))
        place = rva + len(body)
        body.extend(data)
        return place

    for number, (module, names) in enumerate(imports.items()):
        hints = [put(b"\0\0" + name.encode() + b"\0") for name in names]
        thunks = b"".join(struct.pack("<Q", hint) for hint in hints) + bytes(8)
        lookup, addresses, module_name = put(thunks), put(thunks), put(module.encode() + b"\0")
        slots.update({name: addresses + 8 * i for i, name in enumerate(names)})
        struct.pack_into("<5I", body, 20 * number, lookup, 0, 0, module_name, addresses)

    entry = put(b"")
    code = bytearray()

    def call(name: str) -> None:
        # call [rip + distance]; the distance counts from the end of this instruction
        code.extend(b"\xff\x15" + struct.pack("<i", slots[name] - (entry + len(code) + 6)))

    code += b"\x48\x83\xec\x38"  # sub rsp, 0x38: room for the callees' four arguments, and argc
    call("GetCommandLineW")
    code += b"\x48\x89\xc1"  # mov rcx, rax
    code += b"\x48\x8d\x54\x24\x28"  # lea rdx, [rsp + 0x28]
    call("CommandLineToArgvW")
    code += b"\x8b\x4c\x24\x28"  # mov ecx, [rsp + 0x28]
    code += b"\x48\x89\xc2"  # mov rdx, rax
    call("Py_Main")
    code += b"\x89\xc1"  # mov ecx, eax
    call("ExitProcess")
    body += code

    raw = bytes(body).ljust(-(-len(body) // 512) * 512, b"\0")
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    coff = struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 240, 0x22)
    optional = struct.pack("<HBBIIIII", 0x20B, 14, 0, len(raw), 0, 0, entry, rva)
    optional += struct.pack("<QIIHHHHHHI", 0x140000000, 0x1000, 512, 6, 0, 0, 0, 6, 0, 0)
    optional += struct.pack("<IIIHH", rva + 0x1000, 512, 0, 3, 0x8100)  # 3: a console program
    optional += struct.pack("<4QII", 0x1E8480, 0x1000, 0x100000, 0x1000, 0, 16)
    optional += struct.pack("<4I", 0, 0, rva, 20 * (len(imports) + 1)) + bytes(14 * 8)
    section = struct.pack("<8sIIIIIIHHI", b".text", len(body), rva, len(raw), 512, 0, 0, 0, 0, 0xE0000020)
    return (dos + b"PE\0\0" + coff + optional + section).ljust(512, b"\0") + raw


def forwarder(name: str, exports: Mapping[str, str]) -> bytes:
    """A library without code whose functions are those of other libraries: name -> "library.function".

    For what extension modules are linked to and a machine with Wine lacks.
    """
    rva = 0x1000
    body = export_directory(name, exports, rva)
    raw = body.ljust(-(-len(body) // 512) * 512, b"\0")
    size = -(-len(raw) // 0x1000) * 0x1000
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    coff = struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 240, 0x2022)  # a library
    optional = struct.pack("<HBBIIIII", 0x20B, 14, 0, 0, len(raw), 0, 0, rva)
    optional += struct.pack("<QIIHHHHHHI", 0x180000000, 0x1000, 512, 6, 0, 0, 0, 6, 0, 0)
    optional += struct.pack("<IIIHH", rva + size, 512, 0, 2, 0x100)
    optional += struct.pack("<4QII", 0x100000, 0x1000, 0x100000, 0x1000, 0, 16)
    optional += struct.pack("<2I", rva, len(body)) + bytes(15 * 8)
    section = struct.pack("<8sIIIIIIHHI", b".rdata", len(body), rva, len(raw), 512, 0, 0, 0, 0, 0x40000040)
    return (dos + b"PE\0\0" + coff + optional + section).ljust(512, b"\0") + raw
