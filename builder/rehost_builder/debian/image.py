"""Packs the root into the initramfs.

One file that the boot loader reads, so that the medium may go away afterwards (slow virtual media, sticks
pulled out). /usr is in it as a compressed squashfs, from which only what is used gets unpacked, when it is
used: unpacking everything into memory at every start takes a third longer until the menu, and three times the
memory.
"""

from __future__ import annotations

import stat
from pathlib import Path

from rehost_builder.debian.cpio import Node, nodes_of, write_cpio
from rehost_builder.debian.elf import modinfo
from rehost_builder.debian.guest import Guest
from rehost_builder.errors import BuildError

_EARLY_MODULES = ("drivers/block/loop", "fs/squashfs/squashfs")


def write_image(root: Path, image: Path, *, release: str, compression: int, epoch: int, guest: Guest) -> None:
    """Writes the initramfs of ``root``. ``compression``: zstd level. ``epoch``: seconds since 1970.

    busybox and what mounts the squashfs are outside of it: /busybox, /early/*.ko in the order of loading.
    """
    busybox = root / "usr/bin/busybox"
    outside = [
        Node("busybox", stat.S_IFREG | 0o755, busybox.read_bytes()),
        Node("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
        Node("dev/null", stat.S_IFCHR | 0o666, device=(1, 3)),
        Node("early", stat.S_IFDIR | 0o755),
    ]
    for number, name in enumerate(_EARLY_MODULES):
        module = root / "usr/lib/modules" / release / "kernel" / f"{name}.ko"
        data = module.read_bytes()
        if any(modinfo(data).get("depends", [])):
            raise BuildError(f"this kernel's module {module.name} needs others", "use --suite trixie")
        outside.append(Node(f"early/{number}-{module.name}", stat.S_IFREG | 0o644, data))
    busybox.unlink()
    busybox.symlink_to("/busybox")
    _same_modes(root / "usr")
    squashfs = image.with_name("usr.squashfs")
    _squash(root / "usr", squashfs, compression, epoch, guest)
    outside.append(Node("usr.squashfs", stat.S_IFREG | 0o644, squashfs))
    with image.open("wb") as out:
        write_cpio([*nodes_of(root, without="usr"), *outside], out, epoch)
    squashfs.unlink()


def packed_size(folder: Path, *, compression: int, guest: Guest) -> int:
    """Bytes that a folder takes in the image: by this much it grows, give or take some KB."""
    squashfs = folder.with_name(f"{folder.name}.squashfs")
    _squash(folder, squashfs, compression, 0, guest)
    size = squashfs.stat().st_size
    squashfs.unlink()
    return size


def _squash(folder: Path, squashfs: Path, compression: int, epoch: int, guest: Guest) -> None:
    guest.run(
        "usr/bin/mksquashfs", folder, squashfs, "-quiet", "-no-progress", "-noappend",
        "-comp", "zstd", "-Xcompression-level", str(compression),
        "-all-root", "-no-xattrs", "-all-time", str(epoch), "-mkfs-time", str(epoch),
        "-processors", "2",
        env={"SOURCE_DATE_EPOCH": None},
        what="the image cannot be packed",
    )  # fmt: skip


def _same_modes(folder: Path) -> None:
    """755 and 644 whatever the caller's umask was."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            program = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if program else 0o644)
