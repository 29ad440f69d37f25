"""What is where on the Debian base's medium: boot loaders, kernel, image, lists of what it is made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rehost_builder.media.fat import fat_image
from rehost_builder.media.iso9660 import Content
from rehost_builder.templates import render
from rehost_payload.capture.restore.scripts import GUARDIAN, scripts

LABEL = "REHOST-ISO"
"""The volume label of the medium. Plain REHOST is the operator's own, writable volume."""
BIOS_LOADER = "isolinux/isolinux.bin"
EFI_IMAGE = "boot/efi.img"


@dataclass(frozen=True)
class BootFiles:
    """Where the boot loaders lie after unpacking their packages."""

    root: Path

    @property
    def hybrid_code(self) -> bytes:
        return (self.root / "usr/lib/ISOLINUX/isohdpfx.bin").read_bytes()

    def isolinux(self) -> dict[str, bytes]:
        modules = self.root / "usr/lib/syslinux/modules/bios"
        files = {BIOS_LOADER: (self.root / "usr/lib/ISOLINUX/isolinux.bin").read_bytes()}
        for name in ("ldlinux.c32", "libutil.c32", "menu.c32"):
            files[f"isolinux/{name}"] = (modules / name).read_bytes()
        return files

    def efi(self) -> dict[str, bytes]:
        """Signed by Microsoft (shim) and Debian (GRUB for media, MOK manager): Secure Boot stays on."""
        return {
            "EFI/BOOT/BOOTX64.EFI": (self.root / "usr/lib/shim/shimx64.efi.signed").read_bytes(),
            "EFI/BOOT/grubx64.efi": (
                self.root / "usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed"
            ).read_bytes(),
            "EFI/BOOT/mmx64.efi": (self.root / "usr/lib/shim/mmx64.efi.signed").read_bytes(),
        }


def medium_files(
    *, boot: BootFiles, kernel: Path, image: Path, build: Mapping[str, object], command_line: str, epoch: int
) -> dict[str, Content]:
    """Every file of the medium. ``build`` becomes build.json; its digest names the medium for the loaders.

    ``command_line``: kernel options common to all entries of the boot menu.
    """
    build_json = json.dumps(build, indent=1, sort_keys=True).encode() + b"\n"
    identity = hashlib.sha256(build_json).hexdigest()[:16]
    values = {
        "identity": identity,
        "version": build["version"],
        "command_line": f"{command_line} rehost.medium={identity}",
    }
    grub = render("debian/grub.cfg.j2", **values).encode()
    stub = render("debian/grub-stub.cfg.j2", **values).encode()
    efi = boot.efi()
    serial = int(identity[:8], 16)
    efi_files = {**efi, "boot/grub/grub.cfg": stub, "EFI/debian/grub.cfg": stub}
    files: dict[str, Content] = {
        **boot.isolinux(),
        **efi,
        EFI_IMAGE: fat_image(efi_files, label="REHOST-EFI", epoch=epoch, serial=serial),
        "EFI/debian/grub.cfg": stub,
        "boot/vmlinuz": kernel,
        "boot/initrd.img": image,
        "boot/grub/grub.cfg": grub,
        f"boot/{identity}.id": b"The boot loader finds its own medium by this file's name.\n",
        ".disk/info": f"Rehost {build['version']} {identity}\n".encode(),
        "isolinux/isolinux.cfg": render("debian/isolinux.cfg.j2", **values).encode(),
        "README.txt": render("debian/README.txt.j2", **values).replace("\n", "\r\n").encode(),
        GUARDIAN: scripts()[GUARDIAN],
        "build.json": build_json,
    }
    files["SHA256SUMS"] = checksums(files, without=(BIOS_LOADER,))
    return files


def checksums(files: Mapping[str, Content], without: tuple[str, ...] = ()) -> bytes:
    """What sha256sum -c reads. The BIOS loader is left out: the writer puts its place on the medium into it."""
    lines = []
    for path, content in sorted(files.items()):
        if path not in without:
            if isinstance(content, Path):
                with content.open("rb") as f:
                    digest = hashlib.file_digest(f, "sha256").hexdigest()
            else:
                digest = hashlib.sha256(content).hexdigest()
            lines.append(f"{digest}  {path}\n")
    return "".join(lines).encode()
