"""Loaders that stand in for Microsoft's: compiled from the C files here, for real, by the system's gcc and ld.

Each finds \\sources\\boot.wim in its own way, reads all of it and says on the first serial port what it has read; the
line is that of `line`. Raises AssertionError where there is no compiler: without it nothing would be tested.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
import zlib
from pathlib import Path

_HERE = Path(__file__).parent
_FLAGS = (
    "-std=c11", "-Os", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-stack-protector", "-fno-builtin",
    "-fno-asynchronous-unwind-tables", "-fcf-protection=none",
)  # fmt: skip
ETFSBOOT_SIZE = 4096


def line(loader: str, image: bytes, where: str) -> str:
    """What a loader says of this boot image."""
    images, boot = struct.unpack_from("<I", image, 44)[0], struct.unpack_from("<I", image, 120)[0]
    magic = image[:5].decode("ascii")
    return f"{loader}: {magic} bytes={len(image)} images={images} boot={boot} crc={zlib.crc32(image):x} from {where}"


def etfsboot() -> bytes:
    """The BIOS loader of a disc, as long as Microsoft's."""
    code = _compile("bios_disc.c", 0, "elf_i386", "-m16", "-march=i386", "-fno-pic")
    assert len(code) <= ETFSBOOT_SIZE
    return code.ljust(ETFSBOOT_SIZE, b"\0")


def bootmgr() -> bytes:
    """The BIOS boot manager of a stick."""
    return _compile("bios_stick.c", 0, "elf_i386", "-m16", "-march=i386", "-fno-pic")


def efi_application(name: str) -> bytes:
    """The UEFI loader, which calls itself ``name``: one section, nothing to relocate."""
    code = _compile(
        "efi.c", 0x1000, "elf_x86_64", "-m64", "-fpie", "-fvisibility=hidden", "-mno-red-zone", "-mno-sse",
        f'-DLOADER="{name}"',
    )  # fmt: skip
    section = code.ljust(-(-len(code) // 0x200) * 0x200, b"\0")
    size = -(-len(section) // 0x1000) * 0x1000
    head = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, 1, 0, 0, 0, 240, 0x22E)
    optional = struct.pack("<HBBIIIII", 0x20B, 1, 0, len(section), 0, 0, 0x1000, 0x1000)
    optional += struct.pack("<QIIHHHHHHI", 0, 0x1000, 0x200, 0, 0, 0, 0, 0, 0, 0)
    optional += struct.pack("<IIIHH", 0x1000 + size, 0x200, 0, 10, 0)
    optional += struct.pack("<QQQQII", 1 << 20, 1 << 12, 1 << 20, 1 << 12, 0, 16) + bytes(128)
    assert len(optional) == 240
    table = struct.pack("<8sIIIIIIHHI", b".text", size, 0x1000, len(section), 0x200, 0, 0, 0, 0, 0x60000020)
    image = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + head + optional + table
    return image.ljust(0x200, b"\0") + section


def _compile(source: str, base: int, machine: str, *flags: str) -> bytes:
    for tool in ("gcc", "ld"):
        assert shutil.which(tool), f"{tool} is not installed (tools/setup.sh test)"
    with tempfile.TemporaryDirectory() as folder:
        compiled, linked = Path(folder, "o"), Path(folder, "bin")
        script = ["-T", _HERE / "loader.ld", f"--defsym=BASE={base:#x}", "--oformat", "binary"]
        for command in (
            ["gcc", *_FLAGS, *flags, "-c", "-o", compiled, _HERE / source],
            ["ld", "-m", machine, "--fatal-warnings", *script, "-o", linked, compiled],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        return linked.read_bytes()
