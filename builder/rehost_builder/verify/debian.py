"""Points of the medium that is made of Debian packages: kernel, initramfs, boot menus, the payload inside."""

from __future__ import annotations

import hashlib
import re
import shutil
import stat
import struct
import subprocess
from pathlib import Path, PurePosixPath

from rehost_builder.environment import temporary
from rehost_builder.media.iso_reader import IsoFile
from rehost_builder.verify import image
from rehost_builder.verify.medium import Medium, opened_file, some
from rehost_builder.verify.model import Broken, NotSeen
from rehost_builder.verify.packages import package_problems
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.source import BytesSource

_LOADER, _EFI_IMAGE = "isolinux/isolinux.bin", "boot/efi.img"
_KERNEL, _INITRD = "boot/vmlinuz", "boot/initrd.img"
_ISOLINUX, _GRUB, _STUB = "isolinux/isolinux.cfg", "boot/grub/grub.cfg", "EFI/debian/grub.cfg"
_ROOT = "usr.squashfs"
_NEEDED = ("init", "busybox", _ROOT)
_MODULES = "usr/lib/python3/dist-packages"
_DRIVERS = "usr/share/rehost/drivers"
_CPIO = b"070701"
_LIMIT = 1 << 20


def judge(medium: Medium) -> None:
    medium.judge("bios-entry", "BIOS entry", lambda: bios_entry(medium))
    same = {
        name: name for name in ("EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/GRUBX64.EFI", "EFI/BOOT/MMX64.EFI", _STUB)
    }
    medium.judge("uefi-entry", "UEFI entry", lambda: image.uefi_entry(medium, same))
    medium.judge("hybrid", "USB stick", lambda: image.hybrid(medium))
    medium.judge("kernel", "kernel", lambda: _kernel(medium))
    medium.judge("menus", "boot menus", lambda: _menus(medium))
    found: dict[str, tuple[int, int]] = {}
    whole = medium.judge("initramfs", "initramfs", lambda: _initramfs(medium, found))
    medium.judge("payload", "payload", lambda: _payload(medium, found if whole else {}), needed=False)


def bios_entry(medium: Medium) -> str:
    return image.bios_entry(medium, _LOADER, isolinux=True)


def exceptions() -> dict[str, str]:
    return {_LOADER: "it holds its own place on the medium, see BIOS entry"}


def _kernel(medium: Medium) -> str:
    """Boot protocol of Linux (Documentation/arch/x86/boot.rst), and the EFI stub."""
    data = medium.content(_KERNEL)
    if data[0x1FE:0x200] != b"\x55\xaa" or data[0x202:0x206] != b"HdrS":
        raise Broken(f"{_KERNEL} is no Linux kernel")
    (protocol,) = struct.unpack_from("<H", data, 0x206)
    (blocks,) = struct.unpack_from("<I", data, 0x1F4)
    setup = (data[0x1F1] or 4) + 1
    if setup * 512 + blocks * 16 > len(data):
        raise Broken(f"{_KERNEL} is cut off: {len(data):,} bytes of {setup * 512 + blocks * 16:,}")
    image.efi_program(BytesSource(data), _KERNEL)
    return f"Linux, boot protocol {protocol >> 8}.{protocol & 0xFF:02}, starts by BIOS and UEFI"


def _menus(medium: Medium) -> str:
    texts = {name: medium.content(name).decode("utf-8", "replace") for name in (_ISOLINUX, _GRUB, _STUB)}
    wanted: set[str] = set()
    for key, name in re.findall(r"^\s*(KERNEL|INITRD|UI)\s+(\S+)", texts[_ISOLINUX], re.M | re.I):
        wanted.add(f"isolinux/{name}" if key.upper() == "UI" and "/" not in name else name)
    wanted |= {name for _, name in re.findall(r"^\s*(linux|initrd)\s+(\S+)", texts[_GRUB], re.M)}
    identities = set(re.findall(r"--file\s+(\S+)", texts[_STUB]))
    wanted |= identities
    missing = [f"{name} is missing" for name in sorted(wanted) if medium.find(name.lstrip("/")) is None]
    if missing:
        raise Broken(some(missing))
    if not {f"/{_KERNEL}", f"/{_INITRD}"} <= wanted:
        raise Broken("a menu does not start the kernel with the initramfs")
    identity = hashlib.sha256(medium.content(image.BUILD)).hexdigest()[:16]
    named = {PurePosixPath(name).stem for name in identities}
    named |= set(re.findall(r"rehost\.medium=(\S+)", texts[_ISOLINUX] + texts[_GRUB]))
    if named != {identity}:
        raise Broken(
            f"the menus look for the medium {', '.join(sorted(named)) or 'of no name'}, this is {identity}"
        )
    return f"{len(wanted)} files named, all there; identity {identity}"


def _initramfs(medium: Medium, found: dict[str, tuple[int, int]]) -> str:
    """A cpio archive ("newc") that ends as it should and holds what the kernel starts."""
    file = medium.file(_INITRD)
    with opened_file(medium, file) as f:
        at = 0
        while True:
            f.seek(at)
            head = f.read(110)
            if len(head) < 110 or head[:6] != _CPIO:
                raise FormatError("initramfs", "no cpio header", at)
            try:
                fields = [int(head[6 + 8 * n : 14 + 8 * n], 16) for n in range(13)]
            except ValueError:
                raise FormatError("initramfs", "a damaged cpio header", at) from None
            mode, size, name_size = fields[1], fields[6], fields[11]
            if not 0 < name_size <= 4096:
                raise FormatError("initramfs", f"a name of {name_size} bytes", at)
            name = f.read(name_size).rstrip(b"\0").decode("utf-8", "replace")
            start = at + (110 + name_size + 3) // 4 * 4
            if start + size > file.size:
                raise FormatError("initramfs", f"{name} goes beyond its end", at)
            if name == "TRAILER!!!":
                break
            if len(found) > _LIMIT:
                raise FormatError("initramfs", "too many entries", at)
            if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
                found[name] = (start, size)
            at = start + (size + 3) // 4 * 4
        missing = [name for name in _NEEDED if name not in found]
        if missing:
            raise Broken(f"{', '.join(missing)} is not in it")
        place, size = found[_ROOT]
        f.seek(place)
        head = f.read(96)
    # superblock of squashfs 4.0 (Linux fs/squashfs/squashfs_fs.h)
    if len(head) < 96 or head[:4] != b"hsqs" or struct.unpack_from("<H", head, 28)[0] != 4:
        raise Broken(f"{_ROOT} in it is no squashfs 4")
    (used,) = struct.unpack_from("<Q", head, 40)
    if not 96 <= used <= size:
        raise Broken(f"{_ROOT} in it is cut off")
    return f"{len(found)} files, {_ROOT} of {used / 1e6:.1f} MB among them"


def _payload(medium: Medium, found: dict[str, tuple[int, int]]) -> str:
    """The Python packages and drivers in the compressed root, unpacked by unsquashfs where that is installed."""
    described = medium.described
    if described is None or _ROOT not in found:
        raise NotSeen("the initramfs or build.json is not as it should be")
    program = shutil.which("unsquashfs")
    if program is None:
        raise NotSeen(
            f"{_ROOT} is compressed; unsquashfs, which unpacks it, is not installed (squashfs-tools)"
        )
    with temporary(0, "verify") as work:
        packed, root = work / _ROOT, work / "root"
        _copy(medium, medium.file(_INITRD), found[_ROOT], packed)
        parts = [p.removeprefix("usr/") for p in (_MODULES, _DRIVERS)]
        done = subprocess.run(
            [program, "-no-progress", "-no-xattrs", "-d", str(root), str(packed), *parts],
            stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=300,
        )  # fmt: skip
        if done.returncode:
            raise Broken(f"unsquashfs cannot unpack {_ROOT}: it ended with {done.returncode}")
        files = _files(root / parts[0])
        wrong = package_problems(described.python, files)
        drivers = {p: hashlib.sha256(d).hexdigest() for p, d in _files(root / parts[1]).items()}
        wrong += [
            f"driver file {f.path} is missing or changed"
            for f in described.drivers
            if drivers.get(f.path) != f.sha256
        ]
    if wrong:
        raise Broken(some(wrong))
    return f"{', '.join(sorted(described.python))}: each file is there; {len(described.drivers)} files of drivers"


def _copy(medium: Medium, file: IsoFile, place: tuple[int, int], target: Path) -> None:
    with opened_file(medium, file) as source, target.open("wb") as out:
        source.seek(place[0])
        left = place[1]
        while left and (data := source.read(min(left, 1 << 20))):
            out.write(data)
            left -= len(data)


def _files(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and not p.is_symlink()
    }
