"""``rehost usb``: a medium on a stick."""

from __future__ import annotations

import json
import os
import stat
import sys
from contextlib import ExitStack
from pathlib import Path

import click

from rehost_builder.environment import workspace
from rehost_builder.errors import BlockedError, BuildError, DeclinedError
from rehost_builder.media.fat32 import Source, needed
from rehost_builder.media.iso_reader import IsoImage, open_iso
from rehost_builder.progress import Progress
from rehost_builder.usb.device import Stick, describe
from rehost_builder.usb.large import check_large, in_parts, too_large
from rehost_builder.usb.layout import StickLayout, is_extendable, is_hybrid, layout
from rehost_builder.usb.write import FromIso, write_stick
from rehost_builder.verify.image import BUILD
from rehost_builder.verify.intact import intact, is_ours
from rehost_builder.verify.model import Broken
from rehost_payload.formats.errors import FormatError
from rehost_payload.ui.paths import InputPath

_CLUSTER = 32 << 10  # an upper bound: what the files take in the largest clusters used here
_BIOS_LOADER, _UEFI_LOADER = "bootmgr", "efi/boot/bootx64.efi"


@click.command()
@click.argument("medium", metavar="ISO", type=InputPath(folders=False, disks=True, exists=True))
@click.argument("device", metavar="DEVICE", type=click.Path(path_type=Path, readable=False))
@click.option("--yes", is_flag=True, help="The consent: do not ask.")
@click.option("--fixed", is_flag=True, help="Allow a disk that is not removable and not on USB.")
@click.option(
    "--discard-journals", is_flag=True,
    help="Allow a stick that holds the originals of an earlier repair (folder \\Rehost).",
)  # fmt: skip
@click.option("--foreign", is_flag=True, help="Allow an ISO that `rehost build` has not made.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON on standard output.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def usb(
    medium: Path,
    device: Path,
    yes: bool,
    fixed: bool,
    discard_journals: bool,
    foreign: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Writes a medium to a USB stick: it starts by BIOS and UEFI, and the rest becomes a volume labelled REHOST.

    Everything on the stick is lost. Disks in use and damaged media are refused, and what was written is read back. DEVICE is a whole
    disk, or an image file of the stick's size that exists already.

    An ISO that is none of Rehost's (an installation medium of Windows or Linux, say) takes --foreign: nothing of Rehost is
    on the stick then. One with a partition table is copied as it is; of another one the files are copied, which is enough
    for Windows to start.

    \b
    Examples:
      rehost usb out/rehost.iso /dev/sdX
      rehost usb out/rehost.iso /dev/sdX --yes --json
      truncate -s 8G stick.img && rehost usb out/rehost.iso stick.img --yes

    \b
    Exit codes:
      0    written and read back, or with --dry-run: could be written
      1    an error: the medium is none or damaged, or the stick failed (it starts nothing then)
      2    the command line is wrong
      4    not confirmed, or no terminal to ask on and no --yes; nothing was written
      5    blocked: the stick is in use, too small, a built-in disk; the ISO none of Rehost's; nothing was written
      130  interrupted with Ctrl-C; the stick starts nothing if it was being written
    """
    if _is_same(medium, device):
        raise BlockedError(f"{device} is the medium itself", "give the stick as the second name")
    with ExitStack() as opened:
        file = opened.enter_context(medium.open("rb"))
        try:
            image = open_iso(file)
            first = image.read(0, 512)
            hybrid, ours = is_hybrid(first), is_ours(image)
        except FormatError as error:
            raise BuildError(f"{medium} is no ISO image that can be read: {error}") from None
        if image.needed > image.size:
            raise BuildError(
                f"{medium} is cut off: {image.size} bytes, {image.needed} belong to it",
                "build or copy it again",
            )
        files: dict[str, Source] = {
            path: FromIso(image, found)
            for path, found in image.best.files.items()
            if not image.catalog or found.pieces[:1] != ((image.catalog, found.size),)
        }
        if not ours and not foreign:
            raise BlockedError(
                f"{medium} was not made by Rehost: there is no {BUILD} of it in it",
                f"of Windows media `rehost build --media {medium}` makes a medium; to write this ISO as it is: --foreign",
            )
        stick = describe(device)
        if not stick.removable and not fixed:
            raise BlockedError(
                f"{stick.path} ({stick.name}) is a built-in disk",
                "if it really is to be overwritten: --fixed",
            )
        if stick.journals and not discard_journals:
            raise BlockedError(
                f"{stick.path} holds the originals of an earlier repair ({', '.join(stick.journals)}: \\Rehost)",
                "copy the folder away first, or give --discard-journals",
            )
        if not hybrid:
            _check_start(medium, image)
            check_large(files)
        shown = _Shown(Progress({"checking": 0, "writing": 0, "reading back": 0}, quiet=quiet or as_json))
        if ours:
            _check(medium, image, shown)
        else:
            click.echo(
                f"rehost: {medium} was not made by Rehost: whether it is damaged, and starts from a stick, is not known",
                err=True,
            )
        if not hybrid and too_large(files):
            if not as_json:
                click.echo(f"Splitting {', '.join(too_large(files))} ...", err=True)
            files = in_parts(files, opened.enter_context(workspace(0)))
        try:
            size = 0 if hybrid else needed(files, _CLUSTER)
            plan = layout(stick.size, image.size, hybrid, size, extend=is_extendable(first))
        except ValueError as error:
            raise BlockedError(f"{stick.path} is too small: {error}", "take a larger stick") from None
        if not as_json or not (yes or dry_run):
            for line in _described(medium, image, stick, plan):
                click.echo(line, err=True)
        if dry_run:
            _end(medium, stick, plan, as_json, checked=ours, written=False)
            return
        if not yes and not _consent(stick):
            raise DeclinedError("nothing was written")
        write_stick(image, stick, plan, files, _epoch(medium), shown)
    _end(medium, stick, plan, as_json, checked=ours, written=True)


class _Shown:
    """Progress of a step, with the time that is left."""

    def __init__(self, progress: Progress) -> None:
        import time

        self._progress = progress
        self._clock = time.monotonic
        self._step = ""
        self._began = 0.0

    def __call__(self, step: str, done: int, total: int) -> None:
        now = self._clock()
        if step != self._step:
            self._step, self._began = step, now
            self._progress.note(f"{step} {total / 1e6:.0f} MB")
        took = now - self._began
        if took < 1 or not done:
            return
        rate = done / took
        left = (total - done) / rate
        self._progress.update(f"{100 * done // max(1, total)} %, {rate / 1e6:.0f} MB/s, {left:.0f} s to go")


def _check(medium: Path, image: IsoImage, shown: _Shown) -> None:
    """BuildError where a medium of ours is damaged."""
    try:
        intact(image, lambda done, total: shown("checking", int(done), int(total)))
    except (Broken, FormatError) as error:
        raise BuildError(f"{medium} is damaged: {error}", f"copy it again; rehost verify {medium}") from None


def _check_start(medium: Path, image: IsoImage) -> None:
    """BlockedError where the files of a medium would start nothing from a stick."""
    if not _ways(image):
        raise BlockedError(
            f"{medium} would not start from a stick: neither {_BIOS_LOADER} (BIOS) nor {_UEFI_LOADER} (UEFI) is on it",
            "start the ISO itself: as virtual media of the server's management controller, or a DVD",
        )


def _ways(image: IsoImage) -> list[str]:
    """How the files of a medium start, where they lie on a FAT32 volume."""
    names = {p.casefold() for p in image.best.files}
    return [w for w, f in (("BIOS", _BIOS_LOADER), ("UEFI", _UEFI_LOADER)) if f in names]


def _is_same(medium: Path, device: Path) -> bool:
    """One file or one disk by two names: a link, or two nodes of the same number."""
    try:
        one, other = medium.stat(), device.stat()
    except OSError:  # `describe` says it
        return False
    disks = stat.S_ISBLK(one.st_mode) and stat.S_ISBLK(other.st_mode)
    return os.path.samestat(one, other) or (disks and one.st_rdev == other.st_rdev)


def _consent(stick: Stick) -> bool:
    if not sys.stdin.isatty():
        raise DeclinedError("there is no terminal to ask on", "--yes is the consent")
    answer = click.prompt(
        f"Type yes to overwrite all of {stick.path}", default="", show_default=False, err=True
    )
    return bool(answer.strip().casefold() == "yes")


def _described(medium: Path, image: IsoImage, stick: Stick, plan: StickLayout) -> list[str]:
    lines = [
        f"Medium: {medium}, {image.size / 1e6:.1f} MB, {image.best.label}",
        f"Stick:  {stick.path}, {stick.size / 1e9:.1f} GB, {stick.name}",
    ]
    lines += [f"        will be lost: {v}" for v in stick.volumes] or [
        "        nothing that could be read is on it"
    ]
    if plan.kind == "files":
        lines.append(f"Starts: {' and '.join(_ways(image))}")
    if plan.kind == "image" and not is_extendable(image.read(0, 512)):
        lines.append("Data:   no volume labelled REHOST: the image's own partition table cannot take one")
    elif plan.data is None:
        lines.append("Data:   no room for a volume labelled REHOST")
    else:
        lines.append(f"Data:   {plan.data.size / 1e9:.2f} GB, a volume labelled REHOST")
    return lines


def _epoch(medium: Path) -> int:
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(text) if text.isdigit() else int(medium.stat().st_mtime)


def _end(
    medium: Path, stick: Stick, plan: StickLayout, as_json: bool, *, checked: bool, written: bool
) -> None:
    if as_json:
        value = {
            "medium": str(medium),
            "device": str(stick.path),
            "model": stick.model,
            "serial": stick.serial,
            "size": stick.size,
            "kind": plan.kind,
            "data_bytes": plan.data.size if plan.data else 0,
            "medium_checked": checked,
            "written": written,
            "verified": written,
        }
        click.echo(json.dumps(value, indent=1))
    elif written:
        click.echo(f"{stick.path}: written and read back")
