"""CPython for Windows on a machine that has none: the interpreter that a package on PyPI carries, without its programs.

The wheel of panda3d for win_amd64 (65 MB) holds the official, signed python3xy.dll with its extension modules in
`deploy_libs/`, but neither python.exe nor the standard library. The library is taken from the running Python, whose
minor version selects the wheel; python.exe is made here: 4 imports and the few instructions that call Py_Main. Laid
out as the embeddable package from python.org is, with a `._pth`.
"""

from __future__ import annotations

import os
import py_compile
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

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
            _assemble(_wheel(), made)
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


def _wheel() -> Path:
    known = sorted(cache().glob(f"{WHEEL.replace('==', '-')}-cp{_TAG}-*.whl"))
    if known:
        return known[0]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--platform", "win_amd64", "--python-version", _MINOR]
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        done = subprocess.run(
            [*command, "--dest", folder, WHEEL], capture_output=True, text=True, check=False
        )
        found = sorted(Path(folder).glob("*.whl"))
        if done.returncode or not found:
            last = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise Unavailable(f"{WHEEL} for Windows and Python {_MINOR} could not be downloaded: {last}")
        return Path(shutil.move(found[0], cache() / found[0].name))


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
