"""Which authority the medium's boot files are signed under, and the files of the other one where the image has them.

Follows Microsoft's Make2023BootableMedia.ps1 (secureboot_objects 1.4, 2026-03): serviced boot images carry a second set
of boot files in Windows\\Boot\\*_EX. One medium cannot serve every firmware; it is a choice, and the report says it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rehost_builder.content import Content, read_content
from rehost_builder.errors import BuildError
from rehost_builder.wim.reader import Wim
from rehost_builder.winpe.bootfiles import BootProgram, read_boot_program
from rehost_builder.winpe.inspect import EX_FILES
from rehost_builder.winpe.media import EFI_PROGRAM, EFI_STL, Media
from rehost_payload.formats.errors import FormatError

_FONTS = "Windows/Boot/FONTS_EX"
_OLD = {EFI_PROGRAM: "Windows/Boot/EFI/bootmgfw.efi", "bootmgr.efi": "Windows/Boot/EFI/bootmgr.efi"}


@dataclass(frozen=True)
class BootChoice:
    """Files that replace or join those of the medium, the boot image for UEFI, and what was chosen, in a sentence."""

    files: Mapping[str, Content]
    efi_boot: Content | None
    text: str


def choose_boot_files(media: Media, wim: Wim, authority: str, *, prompt: bool = False) -> BootChoice:
    """``authority`` is "auto" (as the source has it), "2011" or "2023". Raises BuildError where that is not to be had."""
    if media.efi_boot is None:
        if authority != "auto":
            raise BuildError(
                f"--secure-boot-ca {authority}: this medium does not start by UEFI at all",
                "give media with efi/boot/bootx64.efi and efisys.bin",
            )
        return BootChoice({}, None, "no UEFI start, so no Secure Boot")
    have = _program(media)
    if authority == "auto" or have.year == authority:
        return BootChoice(_list_of_revoked(media, wim), media.efi_boot, _sentence(have))
    if authority == "2023":
        return _younger(media, wim, prompt)
    return _older(media, wim, have)


def _list_of_revoked(media: Media, wim: Wim) -> dict[str, Content]:
    """boot.stl of the image, where the media have none; older boot managers do not look for it."""
    if media.get(EFI_STL) is not None:
        return {}
    found = wim.read_file(media.image.tree, "Windows/Boot/EFI/boot.stl")
    return {} if found is None else {EFI_STL: found}


def _program(media: Media) -> BootProgram:
    content = media.get(EFI_PROGRAM)
    try:
        return read_boot_program(EFI_PROGRAM, read_content(content or b""))
    except FormatError as e:
        raise BuildError(f"{EFI_PROGRAM} on the media is damaged: {e}", "give unchanged media") from None


def _sentence(program: BootProgram) -> str:
    svn = f", SVN {program.svn}" if program.svn else ""
    if not program.authority:
        return f"{program.path} {program.version} is not signed: Secure Boot must be off"
    return f"{program.path} {program.version}, signed under {program.authority}{svn}"


def _younger(media: Media, wim: Wim, prompt: bool) -> BootChoice:
    tree = media.image.tree
    found = {target: wim.read_file(tree, path) for target, path in EX_FILES.items()}
    program = found[EFI_PROGRAM]
    images = [found["efi/microsoft/boot/efisys_ex.bin"], found["efi/microsoft/boot/efisys_noprompt_ex.bin"]]
    efi_boot = next((image for image in (images if prompt else reversed(images)) if image), None)
    if program is None or efi_boot is None:
        what = "bootmgfw_EX.efi" if program is None else "efisys_EX.bin"
        raise BuildError(
            f"--secure-boot-ca 2023: {what} is not inside of the boot image (build {media.image.info.version_text})",
            "take media serviced since April 2024, or Windows 11 25H2 / Server 2025 media; "
            "or build without the option: the medium then starts where the 2011 authority is still trusted",
        )
    files: dict[str, Content] = {target: data for target, data in found.items() if data is not None}
    fonts = tree.find(_FONTS)
    for entry in fonts.children if fonts is not None else []:
        data = wim.read_file(tree, f"{_FONTS}/{entry.name}")
        if data is not None:
            name = entry.name.lower().replace("_ex.ttf", ".ttf")
            files[f"efi/microsoft/boot/fonts/{name}"] = data
    files |= _list_of_revoked(media, wim)
    chosen = read_boot_program(EFI_PROGRAM, program)
    if chosen.year != "2023":
        raise BuildError(
            f"--secure-boot-ca 2023: bootmgfw_EX.efi in the image is signed under {chosen.authority or 'nobody'}",
            "the image was changed; take the media from Microsoft",
        )
    return BootChoice(files, efi_boot, _sentence(chosen))


def _older(media: Media, wim: Wim, have: BootProgram) -> BootChoice:
    files = _list_of_revoked(media, wim)
    for target, path in _OLD.items():
        data = wim.read_file(media.image.tree, path)
        if data is not None:
            files[target] = data
    program = files.get(EFI_PROGRAM)
    chosen = read_boot_program(EFI_PROGRAM, program) if isinstance(program, bytes) else have
    efisys = wim.read_file(media.image.tree, "Windows/Boot/DVD/EFI/en-US/efisys_noprompt.bin")
    if chosen.year != "2011" or efisys is None:
        raise BuildError(
            f"--secure-boot-ca 2011: the media's boot files are signed under {have.authority or 'nobody'}, "
            "and the image has no others",
            "take older media",
        )
    return BootChoice(files, efisys, _sentence(chosen))
