"""What a source of media is, and what it lacks for our use: a plain description, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rehost_builder.content import read_content, size_of
from rehost_builder.wim.reader import Wim
from rehost_builder.winpe.bootfiles import CA_2023, BootProgram, read_boot_program
from rehost_builder.winpe.image import SYSTEM32, Shell
from rehost_builder.winpe.media import EFI_PROGRAM, Media, windows_editions
from rehost_builder.winpe.ucrt import WHERE
from rehost_payload.formats.errors import FormatError

PRODUCTS = {
    9200: "Windows 8 / Server 2012",
    9600: "Windows 8.1 / Server 2012 R2",
    10240: "Windows 10 1507",
    10586: "Windows 10 1511",
    14393: "Windows 10 1607 / Server 2016",
    15063: "Windows 10 1703",
    16299: "Windows 10 1709",
    17134: "Windows 10 1803",
    17763: "Windows 10 1809 / Server 2019",
    18362: "Windows 10 1903",
    19041: "Windows 10 2004 to 22H2",
    20348: "Server 2022",
    22000: "Windows 11 21H2",
    22621: "Windows 11 22H2",
    25398: "Server 23H2",
    26100: "Windows 11 24H2 / Server 2025",
    26200: "Windows 11 25H2",
}

TOOLS = {
    "cmd": "cmd.exe",
    "wpeinit": "wpeinit.exe",
    "wpeutil": "wpeutil.exe",
    "drvload": "drvload.exe",
    "dism": "dism.exe",
    "bcdboot": "bcdboot.exe",
    "bcdedit": "bcdedit.exe",
    "diskpart": "diskpart.exe",
    "reg": "reg.exe",
    "bootsect": "bootsect.exe",
    "manage-bde": "manage-bde.exe",
    "ucrtbase": "ucrtbase.dll",
    "WMI": "wbem/wbemcore.dll",
    "PowerShell": "WindowsPowerShell/v1.0/powershell.exe",
}
"""By what they are called here: the file below System32 that says whether they are there."""

NEEDED = {
    "cmd": "nothing of ours can be started without it",
    "ucrtbase": "Python does not start without the Universal C Runtime; boot images of Windows 10 / Server 2016 and later have it",
}
TAKES_UCRT = (6, 3)
"""Boot images in which Python runs with the C runtime beside it: Windows 8.1 / Server 2012 R2. It wants this Windows, and
later ones take their own in any case.
"""
USEFUL = {
    "wpeinit": "devices and network are not set up by us",
    "drvload": "drivers that are added cannot be loaded",
    "dism": "drivers are put into the restored Windows by Rehost's own engine alone",
    "bcdboot": "boot files can be written anew by Rehost's own code alone",
    "bootsect": "boot code of BIOS disks cannot be written",
    "reg": "the console's settings are not changed",
}
EX_FILES = {
    EFI_PROGRAM: "Windows/Boot/EFI_EX/bootmgfw_EX.efi",
    "bootmgr.efi": "Windows/Boot/EFI_EX/bootmgr_EX.efi",
    "efi/microsoft/boot/efisys_ex.bin": "Windows/Boot/DVD_EX/EFI/en-US/efisys_EX.bin",
    "efi/microsoft/boot/efisys_noprompt_ex.bin": "Windows/Boot/DVD_EX/EFI/en-US/efisys_noprompt_EX.bin",
}
"""Boot files signed under the 2023 authority: where they go on the medium, where a serviced boot image has them."""
_PROGRAMS = (
    "bootmgr.efi",
    EFI_PROGRAM,
    "efi/microsoft/boot/cdboot.efi",
    "efi/microsoft/boot/cdboot_noprompt.efi",
)


@dataclass(frozen=True)
class ImageLine:
    index: int
    name: str
    flags: str
    files: int
    size: int
    chosen: bool


@dataclass(frozen=True)
class MediaReport:
    """``build`` is major.minor.build.revision; ``tools`` say what is inside; ``missing`` in sentences.

    ``can_2023``: boot files for the 2023 authority are there, on the medium or inside of the image.
    """

    place: str
    kind: str
    read_by: str
    label: str
    product: str
    editions: tuple[str, ...]
    build: str
    architecture: str
    languages: tuple[str, ...]
    wim: str
    wim_size: int
    compression: str
    images: tuple[ImageLine, ...]
    shell: str
    starts: str
    tools: dict[str, bool]
    boot_programs: tuple[BootProgram, ...]
    boots_by: tuple[str, ...]
    files_2023: tuple[str, ...]
    can_2023: bool
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    usable: bool
    usable_with_ucrt: bool
    """Whether it would be, were the C runtime given (`rehost build --ucrt`)."""


def inspect_media(media: Media, wim: Wim) -> MediaReport:
    """Reads what is needed for the report and nothing else. FormatError for a damaged image."""
    image = media.image
    info = image.info
    tools = find_tools(media)
    programs = tuple(_programs(media))
    files_2023 = tuple(path for path in EX_FILES.values() if image.has(path))
    on_medium = any(p.authority == CA_2023 for p in programs if p.path.casefold() == EFI_PROGRAM)
    missing = [f"{name}: {why_needed(name, media)}" for name in NEEDED if not tools[name]]
    missing += [f"{name}: {why}" for name, why in USEFUL.items() if not tools[name]]
    boots = [
        name for name, there in (("BIOS", media.bios_boot), ("UEFI", media.efi_boot)) if there is not None
    ]
    return MediaReport(
        place=str(media.wim_source.place),
        kind=media.wim_source.kind.value,
        read_by=media.wim_source.read_by,
        label=media.wim_source.label,
        product=product_name(info.build),
        editions=tuple(windows_editions(media.wim_source)),
        build=info.version_text,
        architecture=image.architecture,
        languages=info.languages,
        wim=media.wim_path,
        wim_size=size_of(media.wim),
        compression=wim.header.compression.value,
        images=tuple(
            ImageLine(i.index, i.name, i.flags, i.files, i.size, i.index == info.index) for i in wim.images
        ),
        shell=image.shell.value,
        starts=image.starts,
        tools=tools,
        boot_programs=programs,
        boots_by=tuple(boots),
        files_2023=files_2023,
        can_2023=on_medium or EX_FILES[EFI_PROGRAM] in files_2023,
        missing=tuple(missing),
        notes=media.notes,
        usable=all(tools[name] for name in NEEDED) and bool(boots),
        usable_with_ucrt=takes_ucrt(media)
        and all(tools[name] for name in NEEDED if name != "ucrtbase")
        and bool(boots),
    )


def takes_ucrt(media: Media) -> bool:
    """Whether a C runtime put beside Python is what the boot image needs, and enough."""
    return not find_tools(media)["ucrtbase"] and media.image.info.build[:2] == TAKES_UCRT


def why_needed(name: str, media: Media) -> str:
    """Why the image must have it, and the way out where there is one."""
    if name == "ucrtbase" and takes_ucrt(media):
        return f"{NEEDED[name]}; for this one give it with --ucrt: {WHERE}"
    return NEEDED[name]


def product_name(build: tuple[int, ...]) -> str:
    """Names for the build of a boot image, which is shared by client and server; "" where it says none."""
    if len(build) < 3:
        return ""
    known = PRODUCTS.get(build[2])
    return f"{known} (build {build[2]})" if known else f"build {build[2]}"


def find_tools(media: Media) -> dict[str, bool]:
    tools = {name: media.image.has(f"{SYSTEM32}/{path}") for name, path in TOOLS.items()}
    tools["ucrtbase"] = tools["ucrtbase"] or media.image.has(f"{SYSTEM32}/downlevel/ucrtbase.dll")
    tools["bootsect"] = tools["bootsect"] or media.get("boot/bootsect.exe") is not None
    return tools


def _programs(media: Media) -> Iterator[BootProgram]:
    for path in _PROGRAMS:
        content = media.get(path)
        if content is None:
            continue
        try:
            yield read_boot_program(path, read_content(content))
        except FormatError:
            yield BootProgram(path, "no program", "", "", "")


def report_lines(report: MediaReport) -> Iterator[str]:
    """The report for people."""
    yield f"{report.place}: {report.kind}, read as {report.read_by}" + (
        f", label {report.label}" if report.label else ""
    )
    yield f"  product       {report.product or 'unknown'}" + (f", {report.build}" if report.build else "")
    for edition in report.editions:
        yield f"                {edition}"
    yield f"  architecture  {report.architecture}"
    yield f"  languages     {', '.join(report.languages) or 'not named'}"
    yield f"  boot image    {report.wim}, {report.wim_size / 1e6:,.0f} MB, {report.compression}"
    for image in report.images:
        mark = "*" if image.chosen else " "
        flags = f", flags {image.flags}" if image.flags else ""
        yield f"    {mark} {image.index}: {image.name or 'no name'}{flags}, {image.files:,} files, {image.size / 1e6:,.0f} MB"
    yield f"  starts        {report.shell}" + (
        f": {report.starts}" if report.shell != Shell.PROMPT.value else ""
    )
    inside = [name for name, there in report.tools.items() if there]
    absent = [name for name, there in report.tools.items() if not there]
    yield f"  inside        {', '.join(inside) or 'nothing that we look for'}"
    if absent:
        yield f"  not inside    {', '.join(absent)}"
    yield f"  starts by     {', '.join(report.boots_by)}"
    for program in report.boot_programs:
        yield f"    {program_line(program)}"
    if report.files_2023:
        yield f"  CA 2023       boot files inside: {', '.join(report.files_2023)}"
    elif report.can_2023:
        yield "  CA 2023       the medium's boot files are signed for it"
    else:
        yield "  CA 2023       no boot files for it (media serviced since April 2024 have them)"
    for text in report.missing:
        yield f"  missing       {text}"
    for text in report.notes:
        yield f"  note          {text}"
    answer = "with --ucrt" if report.usable_with_ucrt else "no"
    yield f"  usable        {'yes' if report.usable else answer}"


def program_line(program: BootProgram) -> str:
    parts = [program.path, program.machine, program.version or "no version"]
    parts.append(f"signed under {program.authority}" if program.authority else "not signed")
    if program.svn:
        parts.append(f"SVN {program.svn}")
    return ", ".join(parts)
