"""A stand-in for the Debian medium, faults in it, and bytes of any kind: points or one error, never more."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rehost_builder.debian.cpio import Node, write_cpio
from rehost_builder.debian.medium import BIOS_LOADER, EFI_IMAGE, LABEL, BootFiles, medium_files
from rehost_builder.errors import BuildError
from rehost_builder.media.fat import fat_image
from rehost_builder.media.iso9660 import Content, write_iso
from rehost_builder.media.iso_reader import IsoImage, open_iso
from rehost_builder.verify.model import MediumReport, Verdict, report_lines
from rehost_builder.verify.run import verify_medium
from support.pe_image import SUBSYSTEM_EFI, make_pe

EPOCH = 1_700_000_000
REGULAR = 0o100644


def _efi(name: str) -> bytes:
    return make_pe(fill=name.encode(), subsystem=SUBSYSTEM_EFI)


def _kernel() -> bytes:
    data = bytearray(_efi("kernel").ljust(8192, b"\0"))
    data[0x1F1] = 1
    struct.pack_into("<I", data, 0x1F4, (8192 - 1024) // 16)
    data[0x1FE:0x206] = b"\x55\xaaxxHdrS"
    struct.pack_into("<H", data, 0x206, 0x20F)
    return bytes(data)


def _initrd(*, without: str = "") -> bytes:
    squashfs = bytearray(4096)
    squashfs[:4] = b"hsqs"
    struct.pack_into("<H", squashfs, 28, 4)
    struct.pack_into("<Q", squashfs, 40, 4096)
    contents = {"init": b"#!/busybox sh\n", "busybox": b"\x7fELF", "usr.squashfs": bytes(squashfs)}
    out = io.BytesIO()
    write_cpio([Node(n, REGULAR, d) for n, d in contents.items() if n != without], out, EPOCH)
    return out.getvalue()


def make_medium(
    folder: Path, change: Callable[[dict[str, Content]], None] | None = None, **parts: bytes
) -> Path:
    root = folder / "boot"
    for name, data in {
        "usr/lib/ISOLINUX/isolinux.bin": b"\xfb\xc0\x78\x70" + bytes(range(256)) * 100,
        "usr/lib/ISOLINUX/isohdpfx.bin": b"\x33" * 432,
        "usr/lib/syslinux/modules/bios/ldlinux.c32": b"ldlinux",
        "usr/lib/syslinux/modules/bios/libutil.c32": b"libutil",
        "usr/lib/syslinux/modules/bios/menu.c32": b"menu",
        "usr/lib/shim/shimx64.efi.signed": _efi("shim"),
        "usr/lib/shim/mmx64.efi.signed": _efi("mm"),
        "usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed": _efi("grub"),
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (folder / "vmlinuz").write_bytes(parts.get("kernel", _kernel()))
    (folder / "initrd").write_bytes(parts.get("initrd", _initrd()))
    boot = BootFiles(root)
    files = medium_files(
        boot=boot,
        kernel=folder / "vmlinuz",
        image=folder / "initrd",
        build={"format": 1, "product": "Rehost", "version": "1.2.3", "base": "debian"},
        command_line="quiet",
        epoch=EPOCH,
    )
    if change is not None:
        change(files)
    write_iso(
        folder / "a.iso", files, label=LABEL, epoch=EPOCH, bios_loader=BIOS_LOADER, efi_image=EFI_IMAGE,
        hybrid_code=boot.hybrid_code,
    )  # fmt: skip
    return folder / "a.iso"


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_medium(tmp_path_factory.mktemp("debian"))


def failed(report: MediumReport) -> set[str]:
    return {p.name for p in report.points if p.verdict is Verdict.FAIL}


def opened(data: bytes) -> IsoImage:
    return open_iso(io.BytesIO(data))


def test_it_passes(medium: Path) -> None:
    report = verify_medium(medium)
    assert report.passed, report.points
    assert (report.base, report.version) == ("debian", "1.2.3")
    # nothing is in the stand-in's root: whether unsquashfs is here or not, that is not said to be right
    assert {p.name for p in report.points if p.verdict is not Verdict.PASS} == {"payload"}


def test_a_medium_of_somebody_else_is_called_so(medium: Path) -> None:
    points = tuple(
        replace(p, verdict=Verdict.FAIL, reason="build.json is missing") if p.title == "build.json" else p
        for p in verify_medium(medium).points
    )
    report = replace(verify_medium(medium), points=points)
    assert report_lines(report)[-1].startswith(
        "This is no medium of Rehost, or one that has lost its build.json: "
    )


def _listed(files: dict[str, Content], path: str, data: bytes) -> None:
    """Changes a file and its line in SHA256SUMS."""
    sums = files["SHA256SUMS"]
    assert isinstance(sums, bytes)
    lines = [line for line in sums.decode().splitlines() if not line.endswith(f"  {path}")]
    files["SHA256SUMS"] = "".join(
        f"{line}\n" for line in [*lines, f"{hashlib.sha256(data).hexdigest()}  {path}"]
    ).encode()
    files[path] = data


def _text(files: dict[str, Content], path: str) -> str:
    data = files[path]
    assert isinstance(data, bytes)
    return data.decode()


FAULTS: dict[str, tuple[Callable[[dict[str, Content]], None] | None, dict[str, bytes], set[str]]] = {
    "a changed file": (lambda f: f.update({"README.txt": b"other"}), {}, {"checksums"}),
    "a missing file": (lambda f: f.pop("README.txt") and None, {}, {"checksums"}),
    "one file more": (lambda f: f.update({"more": b"x"}), {}, {"checksums"}),
    "a menu that leads to nothing": (
        lambda f: _listed(f, "boot/grub/grub.cfg", _text(f, "boot/grub/grub.cfg").replace("initrd.img", "gone").encode()),
        {}, {"menus"}),
    "a menu of another medium": (
        lambda f: _listed(f, "isolinux/isolinux.cfg", _text(f, "isolinux/isolinux.cfg").replace("medium=", "medium=0").encode()),
        {}, {"menus"}),
    "a FAT image without the program": (
        lambda f: _listed(f, EFI_IMAGE, fat_image({"A.TXT": b"x"}, label="E", epoch=EPOCH, serial=1)), {}, {"uefi-entry"}),
    "another shim beside the FAT image": (lambda f: _listed(f, "EFI/BOOT/BOOTX64.EFI", _efi("other")), {}, {"uefi-entry"}),
    "no build.json of ours": (lambda f: _listed(f, "build.json", b"{}"), {}, {"description", "menus"}),
    "no kernel": (None, {"kernel": b"MZ" + bytes(9000)}, {"kernel"}),
    "a kernel for the BIOS only": (None, {"kernel": b"\0\0" + _kernel()[2:]}, {"kernel"}),
    "no cpio archive": (None, {"initrd": b"x" * 5000}, {"initramfs"}),
    "an initramfs without the root": (None, {"initrd": _initrd(without="usr.squashfs")}, {"initramfs"}),
    "an initramfs that ends too early": (None, {"initrd": _initrd()[:3000]}, {"initramfs"}),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault(tmp_path: Path, fault: str) -> None:
    change, parts, expected = FAULTS[fault]
    report = verify_medium(make_medium(tmp_path, change, **parts))
    assert failed(report) == expected, report.points
    assert not report.passed


def _patched(medium: Path, target: Path, change: Callable[[bytearray, IsoImage], None]) -> MediumReport:
    data = bytearray(medium.read_bytes())
    change(data, opened(bytes(data)))
    target.write_bytes(data)
    return verify_medium(target)


def _swap(data: bytearray, image: IsoImage) -> None:
    at = image.catalog
    bios, uefi = at + 32 + 6, at + 96 + 6
    data[bios : bios + 6], data[uefi : uefi + 6] = data[uefi : uefi + 6], data[bios : bios + 6]


def _checksum_of_loader(data: bytearray, image: IsoImage) -> None:
    data[image.boot[0].offset + 5000] ^= 1


def _no_boot_sector(data: bytearray, image: IsoImage) -> None:
    data[:512] = bytes(512)


def _one_tree_names_another(data: bytearray, image: IsoImage) -> None:
    """In Joliet alone README.txt leads to the place of another file."""
    at = data.index("README.txt".encode("utf-16-be")) - 33
    struct.pack_into("<I", data, at + 2, struct.unpack_from("<I", data, at + 2)[0] + 1)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_swap, {"bios-entry", "uefi-entry", "hybrid"}),
        (_checksum_of_loader, {"bios-entry"}),
        (_no_boot_sector, {"hybrid"}),
        (_one_tree_names_another, {"trees", "checksums"}),
    ],
)
def test_changed_bytes(
    tmp_path: Path, medium: Path, change: Callable[[bytearray, IsoImage], None], expected: set[str]
) -> None:
    assert failed(_patched(medium, tmp_path / "a.iso", change)) == expected


def test_cut_off(tmp_path: Path, medium: Path) -> None:
    data = medium.read_bytes()
    end = opened(data).needed
    (tmp_path / "a.iso").write_bytes(data[: end - 4096])
    report = verify_medium(tmp_path / "a.iso")
    assert {"whole"} <= failed(report) <= {"whole", "hybrid"}


# --- bytes of any kind

CHANGES = st.lists(st.tuples(st.integers(0, 1 << 32), st.integers(0, 255)), min_size=1, max_size=12)


def _changed(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    """Most of an image is content: half of the changes go to the descriptors and directories at its beginning."""
    out = bytearray(data)
    for place, value in changes:
        at = 16 * 2048 + place % (40 * 2048) if place & 1 else place % len(out)
        out[at % len(out)] = value
    return bytes(out)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, end=st.integers(0, 100))
def test_changed_media_never_break_it(
    tmp_path: Path, medium: Path, changes: list[tuple[int, int]], end: int
) -> None:
    data = medium.read_bytes()
    target = tmp_path / "a.iso"
    target.write_bytes(_changed(data, changes)[: len(data) * (100 if end < 60 else end) // 100])
    try:
        report = verify_medium(target)
    except BuildError:  # not even directories are left
        return
    assert all(p.reason.isprintable() for p in report.points)
