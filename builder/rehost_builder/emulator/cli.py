"""``rehost boot``: a medium in a virtual machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import click

from rehost_builder.emulator.command import Bus, DiskImage, FirmwareKind, MachineOptions
from rehost_builder.emulator.start import Watched, start
from rehost_builder.errors import BuildError
from rehost_builder.progress import Progress
from rehost_payload.system.images import image_format
from rehost_payload.ui.paths import InputPath

EXIT_NOT_SEEN = 3
_SIZES = {"M": 1, "G": 1024}


def _memory(ctx: click.Context, parameter: click.Parameter, value: str) -> int:
    """ "2G", "512M" or plain MiB."""
    text = value.strip().upper().removesuffix("B")
    factor = _SIZES.get(text[-1:], 0)
    number = text[:-1] if factor else text
    if not number.isascii() or not number.isdecimal() or not 0 < int(number) * (factor or 1) <= 1 << 20:
        raise click.BadParameter(f"{value}: give it like 2G or 512M")
    return int(number) * (factor or 1)


def _format(path: Path) -> str:
    try:
        with path.open("rb") as f:
            head = f.read(512)
            f.seek(0, 2)
            f.seek(max(0, f.tell() - 512))
            return image_format(head, f.read(512))
    except OSError as error:
        raise BuildError(f"{path}: {error.strerror}") from None


def _check_disc(medium: Path) -> None:
    """A machine starts nothing from a disc without ISO 9660, which leads to its boot catalog (El Torito)."""
    with medium.open("rb") as f:
        f.seek((16 << 11) + 1)
        if f.read(5) != b"CD001":
            raise BuildError(
                f"{medium} is no ISO image: it has no ISO 9660 volume",
                "give the ISO that rehost build wrote; for the image of a stick: --usb",
            )


@click.command()
@click.argument("medium", metavar="ISO", type=InputPath(folders=False, disks=True, exists=True))
@click.option(
    "--disk", "disks", multiple=True, metavar="IMAGE",
    type=InputPath(folders=False, disks=True, exists=True),
    help="A disk of the machine (raw, qcow2, VHDX ...); repeat it for more.",
)  # fmt: skip
@click.option(
    "--bus", type=click.Choice(["ahci", "nvme", "virtio-blk", "virtio-scsi", "megasas-gen2", "pvscsi"]),
    default="ahci", show_default=True, help="What the disks hang on.",
)  # fmt: skip
@click.option("--keep", is_flag=True, help="What is written to the disks stays; else it is lost at the end.")
@click.option("--bios", is_flag=True, help="Start as a BIOS (default).")
@click.option("--uefi", is_flag=True, help="Start as UEFI.")
@click.option("--secure-boot", is_flag=True, help="UEFI with Secure Boot on.")
@click.option("--usb", is_flag=True, help="The medium is a USB stick instead of a CD.")
@click.option("--ram", default="2G", show_default=True, callback=_memory, help="Memory of the machine.")
@click.option("--cores", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option(
    "--accel", type=click.Choice(["auto", "kvm", "tcg"]), default="auto", show_default=True,
    help="Virtualisation or emulation.",
)  # fmt: skip
@click.option("--window", is_flag=True, help="Show the machine's screen in a window.")
@click.option("--until", metavar="TEXT", help="End when this is said on the serial console.")
@click.option("--seconds", type=click.FloatRange(1), help="End after this time.")
@click.option(
    "--logs", type=click.Path(file_okay=False, path_type=Path), default=Path("rehost-boot"), show_default=True,
    help="Folder for serial.log, screen.png and qemu.log.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The result as JSON on standard output.")
@click.pass_context
def boot(
    ctx: click.Context,
    medium: Path,
    disks: tuple[Path, ...],
    bus: str,
    keep: bool,
    bios: bool,
    uefi: bool,
    secure_boot: bool,
    usb: bool,
    ram: int,
    cores: int,
    accel: str,
    window: bool,
    until: str | None,
    seconds: float | None,
    logs: Path,
    as_json: bool,
) -> None:
    """Starts a medium in QEMU: no network, the serial console in a file, a picture of the screen at the end.

    Disks are protected: what the machine writes to them is thrown away, unless --keep is given. Ends when the
    machine switches itself off or restarts, with --until or --seconds, or with Ctrl-C. Exit code 3: the time was
    over before --until was said.

    \b
    Examples:
      rehost boot rehost.iso --window
      rehost boot rehost.iso --uefi --disk server.vhdx --ram 4G --window
      rehost boot rehost.iso --secure-boot --usb --until 'Rehost' --seconds 120
    """
    if bios and (uefi or secure_boot):
        raise click.UsageError("--bios excludes --uefi and --secure-boot")
    firmware: FirmwareKind = "secure-boot" if secure_boot else "uefi" if uefi else "bios"
    if not usb:
        _check_disc(medium)
    images = tuple(DiskImage(d, _format(d), cast("Bus", bus), keep) for d in disks)
    if bus == "ahci" and len(images) > 5:
        raise click.UsageError("ahci takes five disks beside the medium; choose another --bus")
    options = MachineOptions(
        medium=medium,
        firmware=firmware,
        disks=images,
        memory=ram,
        cores=cores,
        stick=usb,
        window=window,
    )
    progress = Progress({}, quiet=as_json)
    last = -10.0

    def tick(now: float, said: int) -> None:
        nonlocal last
        if now - last >= 10:
            last = now
            progress.note(f"running for {now:.0f} s, {said} bytes on the serial console")

    watched = start(
        options, logs, accelerator=accel, until=until, seconds=seconds, tick=None if window else tick
    )
    if as_json:
        click.echo(json.dumps(asdict(watched), default=str, indent=1))
    else:
        click.echo(_sentence(watched, until))
    if watched.end == "crashed":
        raise BuildError(f"QEMU ended by itself: {watched.said}", f"see {logs / 'qemu.log'}")
    if watched.end == "time" and until is not None:
        ctx.exit(EXIT_NOT_SEEN)


def _sentence(watched: Watched, until: str | None) -> str:
    what: dict[str, Any] = {
        "text": f"said {until!r}",
        "off": "switched itself off or restarted",
        "time": "was still running" if until is None else f"had not said {until!r}",
        "crashed": "broke down",
    }
    picture = f", screen in {watched.screen}" if watched.screen else ""
    return (
        f"the machine {what[watched.end]} after {watched.seconds:.0f} s ({watched.accelerator}); "
        f"serial console in {watched.serial}{picture}"
    )
