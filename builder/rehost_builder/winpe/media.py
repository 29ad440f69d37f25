"""What a medium can be made of: the boot image and the boot files around it, put together from what the user named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rehost_builder.content import Content, open_content, read_content
from rehost_builder.errors import BuildError
from rehost_builder.wim.header import why_unfit
from rehost_builder.wim.reader import Wim
from rehost_builder.winpe.bcd import default_ramdisk
from rehost_builder.winpe.convert import can_convert, convert
from rehost_builder.winpe.image import BootImage, Shell, choose_image, open_image
from rehost_builder.winpe.sources import Kind, Source
from rehost_payload.formats.errors import FormatError

BIOS_BCD, EFI_BCD = "boot/bcd", "efi/microsoft/boot/bcd"
BIOS_BOOT = "boot/etfsboot.com"
EFI_BOOT, EFI_BOOT_PROMPT = "efi/microsoft/boot/efisys_noprompt.bin", "efi/microsoft/boot/efisys.bin"
EFI_PROGRAM = "efi/boot/bootx64.efi"
EFI_STL = "efi/microsoft/boot/boot.stl"
"""Without it boot managers of build 26100 and later start nothing where Secure Boot is on."""
USUAL_WIM = "sources/boot.wim"
_IN_IMAGE = {
    "bootmgr": "PCAT/bootmgr",
    "bootmgr.efi": "EFI/bootmgr.efi",
    EFI_PROGRAM: "EFI/bootmgfw.efi",
    EFI_STL: "EFI/boot.stl",
    BIOS_BCD: "DVD/PCAT/BCD",
    "boot/boot.sdi": "DVD/PCAT/boot.sdi",
    BIOS_BOOT: "DVD/PCAT/etfsboot.com",
    EFI_BCD: "DVD/EFI/BCD",
    EFI_BOOT: "DVD/EFI/en-US/efisys_noprompt.bin",
    EFI_BOOT_PROMPT: "DVD/EFI/en-US/efisys.bin",
}
"""Where a Windows image keeps the files of a medium, below Windows\\Boot."""


@dataclass(frozen=True)
class Media:
    """``files`` by their path on the medium, without the boot image, which lies at ``wim_path``.

    ``bios_boot`` and ``efi_boot`` are the boot images for El Torito, None where the source has none.
    ``wim_source`` and ``boot_source`` are the user's things that image and boot files come from.
    """

    wim_source: Source
    boot_source: Source
    wim: Content
    wim_path: str
    image: BootImage
    files: Mapping[str, Content]
    bios_boot: Content | None
    efi_boot: Content | None
    notes: tuple[str, ...] = ()

    def get(self, path: str) -> Content | None:
        wanted = path.casefold()
        return next((c for n, c in self.files.items() if n.casefold() == wanted), None)


def find_media(
    sources: Sequence[Source], opened: Callable[[Content], Wim], work: Path, *, prompt: bool = False
) -> Media:
    """The first boot image and the first boot files of what the user named, in his order.

    ``opened`` gives the WIM over a content and keeps it open as long as the caller wants; ``work`` is a folder
    for an image that has to be converted. ``prompt``: UEFI asks for a key before it starts from the medium. Raises
    BuildError where something is missing or is for another architecture.
    """
    wim_source, name = _find_wim(sources)
    content = wim_source.files[name]
    place = str(wim_source.place) if wim_source.kind is Kind.WIM else f"{name} on {wim_source.place}"
    try:
        wim = opened(content)
        notes: list[str] = []
        reason = why_unfit(wim.header)
        if reason is not None:
            if not can_convert(wim.header):
                raise BuildError(
                    f"{place} cannot be started from: {reason}",
                    "install wimlib (package wimtools), and it is converted; or: "
                    "wimlib-imagex export FILE 1 boot.wim --compress=LZX --chunk-size=32K --boot",
                )
            content = convert(content, choose_image(wim, place).index, work, place)
            wim = opened(content)
            notes.append(f"the boot image was converted by wimlib: {reason}")
        image = open_image(wim, choose_image(wim, place), place)
        _check_architecture(image.architecture, place)
        boot_source = _find_boot_files(sources, wim_source)
        if boot_source is None:
            boot_source = _inside(wim, image, wim_source)
            notes.append("boot files: taken from inside of the boot image")
    except FormatError as e:
        raise BuildError(f"{place} is damaged: {e}", "check its hash, download or copy it again") from None
    return _together(wim_source, boot_source, content, name, image, notes, prompt)


def _find_wim(sources: Sequence[Source]) -> tuple[Source, str]:
    for source in sources:
        names = boot_wims(source)
        if names:
            return source, _started(source, names)
    raise _no_wim(sources[0])


def boot_wims(source: Source) -> list[str]:
    """Boot images on a source, the usual name first. Installation images are none."""
    usual = [name for path in (USUAL_WIM, "sources/winpe.wim") if (name := source.name_of(path))]
    others = sorted(
        name
        for name in source.files
        if name.casefold().endswith(".wim")
        and name not in usual
        and not PurePosixPath(name).stem.casefold().startswith(("install", "upgrade"))
    )
    if source.kind is Kind.WIM:
        return list(source.files)
    return usual + others


def _started(source: Source, names: list[str]) -> str:
    """The one that the medium's own store starts; the usual one where that cannot be told."""
    for store in (EFI_BCD, BIOS_BCD):
        entry = default_ramdisk(_bytes(source.get(store)))
        name = source.name_of(entry.wim) if entry is not None else None
        if name is not None and name in names:
            return name
    return names[0]


def _no_wim(source: Source) -> BuildError:
    place = source.place
    if _hidden_by_udf(source):
        return BuildError(
            f"{place}: its files are on a UDF side that cannot be read",
            "check its hash, download it again; or unpack the ISO into a folder and give that",
        )
    if any("/install." in f"/{name.casefold()}" for name in source.files):
        return BuildError(
            f"{place} has an installation image but no sources/boot.wim",
            "give the original ISO of Windows Server or Windows",
        )
    known = {
        "casper": "Ubuntu", "live": "a live Linux", "isolinux": "Linux", "dists": "Debian", "images": "Linux",
    }  # fmt: skip
    folders = {name.casefold().split("/")[0] for name in source.files}
    guess = next((f" It looks like {what}." for name, what in known.items() if name in folders), "")
    return BuildError(
        f"{place} is no Windows medium: there is no boot image (sources/boot.wim or another .wim) on it.{guess}",
        "give the ISO of Windows Server 2016 to 2025 or Windows 10/11, the ADK's WinPE add-on, or a boot.wim",
    )


def _hidden_by_udf(source: Source) -> bool:
    """Only the text is seen that Microsoft's media have beside their UDF side."""
    names = [name.casefold() for name in source.files]
    if source.kind is not Kind.ISO or source.read_by == "UDF" or names != ["readme.txt"]:
        return False
    with source.place.open("rb") as f:
        f.seek(32 << 10)  # the volume recognition sequence: ECMA-167 2/8.3
        return b"NSR0" in f.read(32 << 10)


def _check_architecture(architecture: str, place: str) -> None:
    if architecture not in ("amd64", ""):
        raise BuildError(
            f"{place} is for {architecture}; Rehost's medium is for 64-bit x86 servers (amd64)",
            "give the x64 edition",
        )
    if not architecture:
        raise BuildError(f"{place} does not say which architecture it is for", "give an unchanged boot.wim")


def _find_boot_files(sources: Sequence[Source], wim_source: Source) -> Source | None:
    """The source of the image if it has boot files, else the first that has."""
    for source in (wim_source, *sources):
        if source.get(BIOS_BCD) is not None or source.get(EFI_BCD) is not None:
            return source
    return None


def _inside(wim: Wim, image: BootImage, source: Source) -> Source:
    """The boot files that an image carries in Windows\\Boot, as a source."""
    files: dict[str, Content] = {}
    for name, path in _IN_IMAGE.items():
        data = wim.read_file(image.tree, f"Windows/Boot/{path}")
        if data is not None:
            files[name] = data
    fonts = image.tree.find("Windows/Boot/Fonts")
    for entry in fonts.children if fonts is not None else []:
        data = wim.read_file(image.tree, f"Windows/Boot/Fonts/{entry.name}")
        if data is not None:
            files[f"boot/fonts/{entry.name.lower()}"] = files[
                f"efi/microsoft/boot/fonts/{entry.name.lower()}"
            ] = data
    if BIOS_BCD not in files and EFI_BCD not in files:
        raise BuildError(
            f"{source.place} is a boot image alone, and carries no boot files (boot store, boot.sdi) in Windows\\Boot",
            "name also what has them: --media boot.wim --media SERVER.iso (or a folder of a medium)",
        )
    if "boot/boot.sdi" not in files and (sdi := wim.read_file(image.tree, "Windows/Boot/DVD/EFI/boot.sdi")):
        files["boot/boot.sdi"] = sdi
    return Source(Kind.WIM, source.place, files, "boot image")


def _together(
    wim_source: Source,
    boot_source: Source,
    wim: Content,
    wim_name: str,
    image: BootImage,
    notes: list[str],
    prompt: bool,
) -> Media:
    entries = [default_ramdisk(_bytes(boot_source.get(store))) for store in (EFI_BCD, BIOS_BCD)]
    entry = next((e for e in entries if e is not None), None)
    if entry is None:
        raise BuildError(
            f"the boot stores of {boot_source.place} start no boot image from memory",
            "give media whose boot/bcd is unchanged",
        )
    wanted = {e.wim.casefold() for e in entries if e is not None}
    if len(wanted) > 1:
        notes.append(f"the stores for BIOS and UEFI start different images ({', '.join(sorted(wanted))})")
    wim_path = entry.wim
    if boot_source is wim_source:
        wim_path = wim_source.name_of(entry.wim) or entry.wim
    vendor = image.shell is Shell.VENDOR and boot_source is wim_source
    files: dict[str, Content] = {}
    for name, content in boot_source.files.items():
        if (name == wim_name and boot_source is wim_source) or name.casefold() == wim_path.casefold():
            continue
        if vendor or _is_boot_file(name):
            files[name] = content
    if entry.sdi and boot_source.name_of(entry.sdi) is None:
        raise BuildError(
            f"{boot_source.place} lacks {entry.sdi}, which its boot store needs to load the boot image",
            "give complete media",
        )
    first = (EFI_BOOT_PROMPT, EFI_BOOT) if prompt else (EFI_BOOT, EFI_BOOT_PROMPT)
    efi_boot = next((c for path in first if (c := boot_source.get(path)) is not None), None)
    bios_boot = boot_source.get(BIOS_BOOT)
    if vendor or efi_boot is None:
        efi_boot = boot_source.efi_boot or efi_boot
    if vendor or bios_boot is None:
        bios_boot = boot_source.bios_boot or bios_boot
    if boot_source.get(EFI_BCD) is None or boot_source.get(EFI_PROGRAM) is None:
        efi_boot = None
    if boot_source.get(BIOS_BCD) is None or boot_source.get("bootmgr") is None:
        bios_boot = None
    if bios_boot is None and efi_boot is None:
        raise BuildError(
            f"{boot_source.place} has neither etfsboot.com nor efisys.bin: nothing that starts a disc",
            "for the ADK install the Deployment Tools beside the WinPE add-on; or add --media SERVER.iso",
        )
    if bios_boot is None:
        notes.append("starts by UEFI only: the source has no boot image for BIOS (boot/etfsboot.com)")
    if efi_boot is None:
        notes.append("starts by BIOS only: the source has no boot image for UEFI (efisys.bin)")
    return Media(wim_source, boot_source, wim, wim_path, image, files, bios_boot, efi_boot, tuple(notes))


def _is_boot_file(name: str) -> bool:
    low = name.casefold()
    return low in ("bootmgr", "bootmgr.efi") or low.startswith(("boot/", "efi/"))


def _bytes(content: Content | None) -> bytes | None:
    return None if content is None else read_content(content)


def windows_editions(source: Source) -> list[str]:
    """What can be installed from a source, as its installation image names it; empty where there is none."""
    for name in ("sources/install.wim", "sources/install.esd", "sources/install.swm"):
        content = source.get(name)
        if not content:
            continue
        try:
            with open_content(content) as f:
                return [i.name for i in Wim(f).images if i.name]
        except (FormatError, OSError):
            return []
    return []
