"""`rehost capture`: secures the virtual machines of a Hyper-V host, and judges what was secured."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rehost_payload.ui.cli import language_option, texts_of
from rehost_payload.ui.exit_codes import INTERRUPTED
from rehost_payload.ui.paths import InputPath
from rehost_payload.ui.run import EXIT
from rehost_payload.ui.survey_cmd import print_lines

if TYPE_CHECKING:
    from rehost_payload.capture.judge import CaptureVerdict, Fault, UnitVerdict
    from rehost_payload.capture.present import Present
    from rehost_payload.system.protocol import System
    from rehost_payload.ui.capture_work import CaptureOrders, CaptureOutcome, Prepared
    from rehost_payload.ui.texts import Texts
    from rehost_payload.ui.work import Worker

NOT_PASSED = 3
DECLINED = 4
_MOST_EXTRA = 10


@click.group(invoke_without_command=True)
@click.option(
    "--to",
    "targets",
    multiple=True,
    metavar="VOLUME|DIR",
    help='Where to: "disk2p1" or "label:BACKUP1" (rehost survey shows them), or a folder. Once or twice.',
)
@click.option(
    "--vm", "machines", multiple=True, metavar="NAME", help="This machine only (name or GUID); repeatable."
)
@click.option("--config-only", is_flag=True, help="Everything but the disks: for arrays that stay. Seconds.")
@click.option("--with-iso", is_flag=True, help="ISO images that are inserted, too.")
@click.option("--no-orphans", is_flag=True, help="Leave out virtual disks that belong to no machine.")
@click.option("--windows", metavar="ID", help="The host, where several Windows have Hyper-V.")
@click.option(
    "--guardian",
    type=InputPath(files=False),
    metavar="DIR",
    help="What Export-Guardian.ps1 has saved for virtual TPMs, where it is not in \\Guardian of a disk.",
)
@click.option(
    "--image",
    "images",
    multiple=True,
    type=InputPath(folders=False, disks=True),
    metavar="DISK",
    help="Disk images of the host instead of this machine's disks; repeatable. Targets are folders then.",
)
@click.option("--yes", is_flag=True, help="The consent: copy without asking.")
@click.option("--dry-run", is_flag=True, help="Show what would be copied, and write nothing.")
@click.option("--json", "json_", is_flag=True, help="Machine-readable output.")
@language_option
@click.pass_context
def capture(
    ctx: click.Context,
    targets: tuple[str, ...],
    machines: tuple[str, ...],
    config_only: bool,
    with_iso: bool,
    no_orphans: bool,
    windows: str | None,
    guardian: Path | None,
    images: tuple[Path, ...],
    yes: bool,
    dry_run: bool,
    json_: bool,
    language: str | None,
) -> None:
    """Secure the virtual machines and the settings of a Hyper-V host before a reinstall, and verify what was secured.

    The server is read only. Each machine gets a folder of its own on one or two targets; every file is read back
    and compared. What was interrupted goes on where it stopped: give the same command again. Without --to on a
    terminal the targets can be chosen from a list.

    \b
    Examples:
      rehost capture --dry-run
      rehost capture --to label:BACKUP1 --to label:BACKUP2
      rehost capture --to disk2p1 --vm web01 --vm db01 --yes
      rehost capture --to disk2p1 --config-only --yes
      rehost capture --image c.vhdx --image d.vhdx --to /mnt/backup --yes
      rehost capture --to disk2p1 --guardian /mnt/stick/certificates
      rehost capture verify /mnt/backup/Rehost-HV01-2026-03-01

    \b
    Exit codes:
      0    captured (or planned, with --dry-run)
      1    an error; nothing good is on any target
      2    the command line is wrong; nothing was written
      3    not whole: something is missing, was damaged before, or was not verified on every target
      4    not confirmed; nothing was written
      5    a target is refused; nothing was written
      130  interrupted with Ctrl-C; the same command goes on from there
    """
    if ctx.invoked_subcommand is not None:
        if targets or machines or images or guardian:
            raise click.UsageError(f"options of a capture do not go with '{ctx.invoked_subcommand}'")
        return
    from rehost_payload.ui.capture_work import CaptureOrders

    orders = CaptureOrders(
        targets, machines or None, config_only, with_iso, not no_orphans, windows, guardian
    )
    from rehost_payload.ui.cli import require_disks

    with ExitStack() as stack:
        worker = _worker(stack, images, language, quiet=json_)
        if not images:
            require_disks(worker.system)
        worker.attended = not yes
        code = _capture(worker, orders, yes=yes, dry_run=dry_run, json_=json_, volumes=not images)
    ctx.exit(code)


def _worker(stack: ExitStack, images: tuple[Path, ...], language: str | None, quiet: bool) -> Worker:
    from rehost_payload.system.protocol import SystemError_
    from rehost_payload.ui.cli import make_worker

    if not images:
        return make_worker(language, quiet)
    from rehost_payload.system.images import ImageSystem

    try:
        return make_worker(language, quiet, stack.enter_context(ImageSystem(images)))
    except SystemError_ as error:
        raise click.ClickException(error.detail) from error


def _capture(
    worker: Worker, orders: CaptureOrders, *, yes: bool, dry_run: bool, json_: bool, volumes: bool
) -> int:
    from rehost_payload.ui.capture_face import asking, choose_targets, consented, perform, report
    from rehost_payload.ui.capture_lines import bad_orders
    from rehost_payload.ui.capture_work import BadOrders
    from rehost_payload.ui.cli import alone, refusals

    talks = sys.stdin.isatty() and not json_
    # images belong to nobody else: several captures of them may run at a time
    with alone("rehost capture") if volumes else refusals():
        if not orders.targets and not dry_run:
            if not talks or yes or not volumes:
                raise click.UsageError("name a target with --to (or look first, with --dry-run)")
            orders = replace(orders, targets=choose_targets(worker))
            if not orders.targets:
                return DECLINED
        ask = consented if yes else asking(worker) if talks else _declined
        try:
            outcome = perform(worker, orders, ask, dry_run=dry_run, volumes=volumes)
        except BadOrders as error:
            worker.progress.close()
            raise click.UsageError(bad_orders(error, worker.texts)) from error
    if json_:
        click.echo(json.dumps(_plain(outcome), indent=1))
    else:
        report(worker, outcome)
    return INTERRUPTED if outcome.word is None else EXIT[outcome.word]


def _declined(prepared: Prepared) -> bool:
    return False


def _plain(outcome: CaptureOutcome) -> dict[str, object]:
    """What --json prints of a capture."""
    from rehost_payload.strictjson import plain

    refused = None
    if outcome.refused is not None:
        refused = dict(zip(("code", "subject", "detail"), outcome.refused, strict=True))
    plan = outcome.plan
    return {
        "word": "interrupted" if outcome.word is None else outcome.word.value,
        "exit_code": INTERRUPTED if outcome.word is None else EXIT[outcome.word],
        "name": plan.name,
        "host": plan.host,
        "units": [
            {"id": u.id, "name": u.name, "kind": u.kind, "size": u.size, "files": len(u.files)}
            for u in plan.units
        ],
        "findings": plain(outcome.findings),
        "refused": refused,
        "state": plain(outcome.state),
        "troubles": [{"target": name, "reason": reason} for name, reason in outcome.troubles],
    }


@capture.command("list")
@click.argument("folders", nargs=-1, metavar="[DIR]...", type=InputPath(files=False))
@click.option("--json", "json_", is_flag=True, help="Machine-readable output.")
@language_option
def list_(folders: tuple[Path, ...], json_: bool, language: str | None) -> None:
    """List captures on the volumes of this machine, or in folders. Nothing is mounted, nothing is changed.

    Counted is what lies there now: lists and files with their sizes. A disk that is not attached does not count,
    whatever is said of it elsewhere. Contents are compared by `rehost capture verify`.

    \b
    Examples:
      rehost capture list
      rehost capture list /mnt/backup
    """
    from rehost_payload.strictjson import plain
    from rehost_payload.ui.capture_lines import listed
    from rehost_payload.ui.cli import make_worker, refusals, require_disks

    worker = None if folders else make_worker(language, json_)
    if worker is not None:
        require_disks(worker.system)
    texts = texts_of(language)
    with refusals():
        found = list(_present(folders, None if worker is None else worker.system))
    if json_:
        where = dict.fromkeys(entry.where for entry in found)
        groups = [{"where": w, "captures": [plain(e.state) for e in found if e.where == w]} for w in where]
        click.echo(json.dumps(groups, indent=1))
    else:
        print_lines(list(listed(found, texts)) or [texts("capture.none")])


def _present(folders: tuple[Path, ...], system: System | None) -> Iterator[Present]:
    from rehost_payload.capture.copy_state import STATE, find_captures, read_state
    from rehost_payload.capture.on_volumes import present_on_volumes
    from rehost_payload.capture.present import Present, as_it_lies
    from rehost_payload.system.folder_target import readable_folder

    for folder in folders:
        if not folder.is_dir():
            raise click.ClickException(f"{folder}: {os.strerror(errno.ENOENT)}")
        place = folder.resolve()
        if (place / STATE).is_file():  # it is one itself
            target = readable_folder(place.parent)
            own = read_state(target, place.name)
            if own is not None:
                yield Present(str(folder), as_it_lies(own, target, place.name))
            continue
        target = readable_folder(folder)
        for name, state in find_captures(target).items():
            yield Present(str(folder), as_it_lies(state, target, name))
    if system is not None:
        yield from present_on_volumes(system)


@capture.command(short_help="Write the restore scripts and index.html of a capture anew.")
@click.argument("folder", metavar="DIR", type=InputPath(files=False))
@language_option
def scripts(folder: Path, language: str | None) -> None:
    """Write restore.json, the restore scripts and index.html of a capture anew, from its manifests.

    \b
    Examples:
      rehost capture scripts /mnt/backup/Rehost-HV01-2026-03-01
      rehost capture scripts --lang de D:/Rehost-HV01-2026-03-01
    """
    from rehost_payload.capture.contents import read_contents, root_files, write_root
    from rehost_payload.capture.present import as_it_lies
    from rehost_payload.formats.errors import FormatError
    from rehost_payload.system.folder_target import folder_target
    from rehost_payload.system.protocol import SystemError_
    from rehost_payload.ui.capture_page import PAGE, to_html

    texts = texts_of(language)
    try:
        target = folder_target(folder)
        contents = read_contents(target, "")
        if contents is None:
            raise click.ClickException(texts("capturecheck.no-capture", folder=folder, inside=""))
        contents = replace(contents, state=as_it_lies(contents.state, target, ""))
        files = root_files(contents) | {PAGE: to_html(contents, texts.language).encode("utf-8", "replace")}
        write_root(target, "", files)
    except (SystemError_, FormatError) as error:
        raise click.ClickException(str(error)) from error
    for line in contents.unread:
        click.echo(f"rehost: {line}", err=True)
    print_lines([texts("capture.scripts-written", folder=folder, files=", ".join(files))])


@capture.command(short_help="Say whether a capture still is what was captured.")
@click.argument("folder", metavar="DIR", type=InputPath(files=False))
@click.option("--json", "json_", is_flag=True, help="Machine-readable output.")
@language_option
def verify(folder: Path, json_: bool, language: str | None) -> None:
    """Read a whole capture, or one machine's folder of it, and say whether it is what was captured.

    Needs nothing of the old host and works years later, on any computer. Nothing is changed. Every file is hashed
    and compared with the manifest and SHA256SUMS; what is missing, changed, unreadable or was never finished is named.
    `sha256sum -c SHA256SUMS` in each machine's folder checks the same files without Rehost.

    \b
    Examples:
      rehost capture verify /mnt/disk/Rehost-HV01-2026-03-01
      rehost capture verify --json D:/Rehost-HV01-2026-03-01/web01

    \b
    Exit codes:
      0    PASS: every file of every unit is good
      1    the folder cannot be read or holds no capture
      2    the command line is wrong
      3    FAIL or UNKNOWN for at least one unit
      130  interrupted with Ctrl-C
    """
    from rehost_payload.capture.judge import NoCapture, verify_capture
    from rehost_payload.repair.model import Verdict
    from rehost_payload.strictjson import plain
    from rehost_payload.ui.console import speaks_utf8
    from rehost_payload.ui.progress import ProgressLine

    texts = texts_of(language)
    utf8 = speaks_utf8(2, getattr(sys.stderr, "encoding", None))
    progress = ProgressLine(sys.stderr, texts, terminal=sys.stderr.isatty(), utf8=utf8)
    try:
        verdict = verify_capture(folder, progress)
    except NoCapture as error:
        key = "no-capture-inside" if error.inside else "no-capture"
        message = texts(f"capturecheck.{key}", folder=folder, inside=", ".join(error.inside))
        raise click.ClickException(message) from error
    except OSError as error:
        hint = "; a disk is mounted first (ntfs-3g -o ro /dev/sdX1 /mnt), then its folder Rehost-... is named"
        absent = "" if folder.exists() else hint
        raise click.ClickException(f"{folder}: {error.strerror or error}{absent}") from error
    finally:
        progress.close()
    if json_:
        click.echo(json.dumps(plain(verdict), indent=1))
    else:
        print_lines(list(_lines(verdict, texts)))
    click.get_current_context().exit(0 if verdict.verdict is Verdict.PASS else NOT_PASSED)


def _lines(verdict: CaptureVerdict, t: Texts) -> Iterator[str]:
    for unit in verdict.units:
        yield from _unit_lines(unit, t)
    for fault in verdict.faults:
        yield _fault(fault, t)
    yield ""
    yield t("capturecheck.overall", verdict=t(f"verdict.{verdict.verdict.value}"))
    key = {"PASS": "passed", "FAIL": "failed", "UNKNOWN": "unknown"}[verdict.verdict.value]
    yield t(f"capturecheck.{key}")
    if verdict.config_only:
        yield t("capturecheck.config-only")
    if verdict.not_whole:
        yield t("capturecheck.not-whole", names=", ".join(verdict.not_whole))


def _unit_lines(unit: UnitVerdict, t: Texts) -> Iterator[str]:
    from rehost_payload.ui.describe import size

    word = t(f"verdict.{unit.verdict.value}")
    name = unit.name if unit.name == unit.folder else f"{unit.name} ({unit.folder})"
    yield t("capturecheck.unit", verdict=f"{word:<7}", name=name, files=unit.files, size=size(unit.size))
    if unit.earlier:
        yield "         " + t("capturecheck.earlier")
    yield from (f"         {_fault(fault, t)}" for fault in unit.faults)
    yield from ("         " + t("capturecheck.absent", path=path) for path in unit.missing)
    yield from ("         " + t("capturecheck.extra", path=path) for path in unit.extra[:_MOST_EXTRA])
    if len(unit.extra) > _MOST_EXTRA:
        yield "         " + t("show.more", count=len(unit.extra) - _MOST_EXTRA)


def _fault(fault: Fault, t: Texts) -> str:
    text = f"{fault.path}: " if fault.path else ""
    return text + t(f"capturecheck.{fault.code}") + (f" ({fault.detail})" if fault.detail else "")
