"""What every medium of ours has in common: an image that is whole, boot entries, and lists of its files."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from rehost_builder.media.iso_reader import BLOCK, BootEntry, IsoFile, Tree
from rehost_builder.verify.described import read_described
from rehost_builder.verify.medium import ImageSource, Medium, some
from rehost_builder.verify.model import Broken, NotSeen
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.fat import FatVolume
from rehost_payload.formats.pe import read_facts
from rehost_payload.formats.source import ByteSource

_SEAL = 16 * BLOCK + 883  # ECMA-119 8.4.32: the primary volume descriptor's field for the application
_MARK = b"REHOST SHA-256 "
SUMS = "SHA256SUMS"
BUILD = "build.json"
EFI_PROGRAM = "EFI/BOOT/BOOTX64.EFI"
_BIOS, _UEFI = 0, 0xEF
_EFI_APPLICATION = 10
_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")


def whole(medium: Medium) -> str:
    image = medium.image
    if medium.cut_off:
        raise Broken(
            f"{image.size:,} bytes, its directories name files up to {image.needed:,}: copy it again"
        )
    return f"{image.size:,} bytes, nothing named lies beyond"


def has_seal(medium: Medium) -> bool:
    return medium.image.read(_SEAL, len(_MARK)) == _MARK


def sealed(medium: Medium, progress: Callable[[float, float], None] | None = None) -> str:
    """Every byte of the image is the builder's: the volume descriptor has the SHA-256 of all others.

    This finds accidents also where no file is (directories, descriptors, gaps). Who changes an image on purpose can
    seal it anew.
    """
    if medium.cut_off:
        raise NotSeen("not all of it is there")
    field = medium.image.read(_SEAL, 512)
    match = re.fullmatch(_MARK + rb"([0-9a-f]{64})\0+", field)
    if match is None:
        raise Broken("the volume descriptor does not have the SHA-256 of the image")
    if medium.hash_image((_SEAL, _SEAL + 512), progress) != match[1].decode():
        raise Broken("bytes of the image have changed since it was built: copy it again, or build it anew")
    return "every byte as it was built"


def trees(medium: Medium) -> str:
    """All ways to see the medium show the same files with the same bytes.

    But for boot images, which ISO 9660 may show besides, and what build.json says is on the UDF side only.
    """
    if medium.image.problems:
        raise Broken(some(medium.image.problems))
    best = medium.image.best
    hidden = set(medium.described.udf_only) if medium.described is not None else set()
    wrong = [text for tree in medium.image.trees[1:] for text in _differences(medium, best, tree, hidden)]
    if wrong:
        raise Broken(some(wrong))
    kinds = [tree.kind for tree in medium.image.trees]
    alike = f", alike in {', '.join(kinds)}" if len(kinds) > 1 else ""
    return f"{len(best.files)} files{alike}" + (f"; {len(hidden)} in UDF alone" if hidden else "")


def _is_boot(medium: Medium, file: IsoFile) -> bool:
    places = {medium.image.catalog, *(e.offset for e in medium.image.boot)}
    return bool(file.pieces) and file.pieces[0][0] in places


def _differences(medium: Medium, best: Tree, tree: Tree, hidden: set[str]) -> list[str]:
    # plain ISO 9660 has capital letters alone
    capitals = tree.kind == "iso9660" and all(p == p.upper() for p in tree.files)
    expected = {(p.upper() if capitals else p): f for p, f in best.files.items() if p not in hidden}
    wrong = [
        f"{p} is only in {tree.kind}"
        for p, f in sorted(tree.files.items())
        if p not in expected and not _is_boot(medium, f)
    ]
    wrong += [f"{p} is not in {tree.kind}" for p in sorted(expected) if p not in tree.files]
    for path, one in sorted(expected.items()):
        other = tree.files.get(path)
        if other is None or one == other:
            continue
        if one.size != other.size or medium.digest(one) != medium.digest(other):
            wrong.append(f"{path} is another file in {tree.kind}")
    return wrong


# --- boot entries


def entry_of(medium: Medium, platform: int) -> BootEntry | None:
    return next((e for e in medium.image.boot if e.platform == platform and e.bootable), None)


def catalog(medium: Medium) -> str:
    entries = [e for e in medium.image.boot if e.bootable]
    if not entries:
        raise Broken("no boot entry: nothing starts from this medium")
    odd = [f"platform {e.platform:#x}" for e in entries if e.platform not in (_BIOS, _UEFI)]
    if odd:
        raise Broken(f"entries for {', '.join(odd)}")
    if any(e.emulation or e.segment not in (0, 0x7C0) for e in entries):
        raise Broken("an entry wants to be loaded as a disk, or to another place")
    outside = [e for e in entries if e.offset >= medium.image.size or e.offset < 16 * BLOCK]
    if outside:
        raise Broken(f"a boot image at byte {outside[0].offset:,}, where none can be")
    names = {_BIOS: "BIOS", _UEFI: "UEFI"}
    return "entries for " + " and ".join(names[e.platform] for e in entries)


def bios_entry(medium: Medium, loader: str, *, isolinux: bool) -> str:
    """The BIOS entry loads ``loader``, with the load size that it needs."""
    entry = _entry(medium, _BIOS)
    file = medium.file(loader)
    data = medium.image.content(file, 1 << 20)
    if isolinux:
        if not file.pieces or entry.offset != file.pieces[0][0]:
            raise Broken(f"the entry leads to byte {entry.offset:,}, where {loader} is not")
        if entry.load != 4:
            raise Broken(f"{entry.load} sectors are loaded, isolinux wants 4")
        _boot_information(entry.offset, data)
        return f"{loader}, its boot information table and checksum are right"
    if medium.image.read(entry.offset, len(data)) != data:
        raise Broken(f"what the entry loads is not {loader}")
    if entry.load * 512 < len(data):
        raise Broken(f"{entry.load} sectors of {loader} are loaded, it has {-(-len(data) // 512)}")
    return f"{loader}, loaded whole"


def _entry(medium: Medium, platform: int) -> BootEntry:
    entry = entry_of(medium, platform)
    if entry is None:
        if medium.cut_off:
            raise NotSeen("the boot catalog cannot be read")
        raise Broken("there is none")
    return entry


def _boot_information(offset: int, data: bytes) -> None:
    """What mkisofs -boot-info-table writes at byte 8: places, length, and the sum of the words from byte 64 on."""
    if len(data) < 64:
        raise Broken("the BIOS loader is too short")
    descriptor, sector, length, checksum = struct.unpack_from("<4I", data, 8)
    if (descriptor, sector, length) != (16, offset // BLOCK, len(data)):
        raise Broken("the loader's boot information table names another place or length")
    padded = data[64:] + bytes(-len(data) % 4)
    if sum(struct.unpack(f"<{len(padded) // 4}I", padded)) & 0xFFFFFFFF != checksum:
        raise Broken("the loader is not what its checksum says")


def uefi_entry(medium: Medium, same: dict[str, str]) -> str:
    """The UEFI entry leads to a FAT image that holds a program for x64.

    ``same``: files in the image -> those on the medium that must have the same bytes.
    """
    volume = efi_volume(medium)
    try:
        program = volume.open(EFI_PROGRAM)
    except (FileNotFoundError, IsADirectoryError):
        raise Broken(f"{EFI_PROGRAM} is not in the FAT image of the entry") from None
    efi_program(program, f"{EFI_PROGRAM} in the FAT image")
    for inside, outside in same.items():
        try:
            found = volume.open(inside)
        except (FileNotFoundError, IsADirectoryError):
            raise Broken(f"{inside} is not in the FAT image of the entry") from None
        if found.read_at(0, found.size) != medium.content(outside):
            raise Broken(f"{inside} in the FAT image is not the {outside} of the medium")
    return f"{volume.kind} image with {EFI_PROGRAM} for x64"


def efi_volume(medium: Medium) -> FatVolume:
    entry = _entry(medium, _UEFI)
    # a load size of 0 or 1 means the whole image, as Microsoft's own media have it
    head = medium.image.read(entry.offset, 512)
    sectors = int.from_bytes(head[19:21], "little") or int.from_bytes(head[32:36], "little")
    length = sectors * int.from_bytes(head[11:13], "little")
    if entry.load > 1 and entry.load * 512 < length:
        raise Broken(f"{entry.load} sectors are loaded of a FAT image of {length // 512}")
    if not length or entry.offset + length > medium.image.size:
        raise FormatError("FAT image", "no boot sector, or it goes beyond the medium", entry.offset)
    return FatVolume(ImageSource(medium.image, entry.offset, length))


def efi_program(source: ByteSource, name: str) -> None:
    try:
        facts = read_facts(source)
    except FormatError as e:
        raise Broken(f"{name} is no program: {e.problem}") from None
    if facts.machine != "x64" or facts.subsystem != _EFI_APPLICATION:
        raise Broken(
            f"{name} is for {facts.machine}, subsystem {facts.subsystem}, not an x64 EFI application"
        )
    if facts.truncated:
        raise Broken(f"{name} is cut off")


def boot_images(medium: Medium) -> str:
    """The boot images, which are no files of the medium, are those that the builder has put there."""
    described = medium.described
    if described is None or not described.boot:
        raise NotSeen(f"{BUILD} does not say what they are")
    for name, platform in (("bios", _BIOS), ("efi", _UEFI)):
        expected, entry = described.boot.get(name), entry_of(medium, platform)
        if expected is None and entry is None:
            continue
        if expected is None or entry is None:
            raise Broken(f"the boot image for {name} is on one side only, in {BUILD} or in the catalog")
        tree = medium.image.tree("iso9660")
        found = [
            f for f in (tree.files.values() if tree else ()) if f.pieces and f.pieces[0][0] == entry.offset
        ]
        if not any(medium.digest(f) == expected for f in found):
            raise Broken(f"the boot image for {name} has other content than {BUILD} says")
    return f"as {BUILD} says"


def hybrid(medium: Medium) -> str:
    """The partition table that makes a stick of the image."""
    sector = medium.image.read(0, 512)
    if sector[510:] != b"\x55\xaa":
        raise Broken("no boot sector: the image does not start from a stick")
    if not any(sector[:432]):
        raise Broken("no code in the boot sector")
    bios, uefi = entry_of(medium, _BIOS), entry_of(medium, _UEFI)
    if bios is not None and struct.unpack_from("<Q", sector, 432)[0] * 512 != bios.offset:
        raise Broken("the boot sector leads to another place than the BIOS entry")
    rows = [struct.unpack_from("<B3xB3xII", sector, 446 + 16 * n) for n in range(4)]
    status, kind, start, count = rows[0]
    if status != 0x80 or not kind or start or count * 512 < medium.image.volume_size:
        raise Broken("the first partition is not active, or not the whole image")
    if count * 512 > medium.image.size:
        raise Broken(f"the first partition has {count * 512:,} bytes, the image {medium.image.size:,}")
    if uefi is not None:
        _, kind, start, count = rows[1]
        if kind != 0xEF or start * 512 != uefi.offset or count < uefi.load:
            raise Broken("the second partition is not the FAT image of the UEFI entry")
    return "partition table and loader's place are right"


# --- lists


def checksums(medium: Medium, exceptions: dict[str, str]) -> str:
    """SHA256SUMS names every file but the exceptions (path -> why), each with its content."""
    listed: dict[str, str] = {}
    try:
        lines = medium.content(SUMS).decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise Broken(f"{SUMS} is no text") from None
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None or match[2] in listed:
            raise Broken(f"{SUMS} has a line that is none, or a file twice: {line[:80]!r}")
        listed[match[2]] = match[1]
    wrong = [text for path, digest in listed.items() if (text := medium.compare(path, digest))]
    files = medium.image.best.files
    allowed = {SUMS, *exceptions}
    wrong += [f"{p} is not in {SUMS}" for p in sorted(files) if p not in listed and p not in allowed]
    if wrong:
        raise Broken(some(wrong))
    if medium.cut_off:
        raise NotSeen("not all files can be read")
    without = [p for p in sorted(exceptions) if p in files]
    left = f"; without {', '.join(f'{p} ({exceptions[p]})' for p in without)}" if without else ""
    return f"{len(listed)} files{left}"


def catalog_files(medium: Medium) -> dict[str, str]:
    """The boot catalog's own names in the directories."""
    return {
        path: "the boot catalog"
        for path, file in medium.image.best.files.items()
        if medium.image.catalog and file.pieces and file.pieces[0][0] == medium.image.catalog
    }


def description(medium: Medium) -> str:
    medium.described = described = read_described(medium.content(BUILD))
    wrong = [t for f in described.medium if (t := medium.compare(f.path, f.sha256))]
    if wrong:
        raise Broken(some(wrong))
    count = f", {len(described.medium)} files of the medium are what it says" if described.medium else ""
    return f"Rehost {described.version} on {described.base}{count}"
