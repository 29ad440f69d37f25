"""Builds the medium of the WinPE base: the user's media -> boot image with our files -> ISO.

Nothing is unpacked and nothing is compressed again: the boot image is the original with a tail, and is read from the
user's ISO once, while the new one is written.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath

from rehost_builder.content import Content, digest_of
from rehost_builder.drivers.bundle import Bundle, collect
from rehost_builder.environment import (
    check_space,
    clear_messages,
    default_cache,
    named,
    source_date_epoch,
    workspace,
)
from rehost_builder.errors import BuildError
from rehost_builder.media.udf import BootEntries, udf_only, write_winpe_iso
from rehost_builder.output import unfit_output
from rehost_builder.progress import Progress
from rehost_builder.python_files import WHEELS
from rehost_builder.templates import render
from rehost_builder.wim.append import append
from rehost_builder.wim.reader import Wim
from rehost_builder.winpe.image import SYSTEM32
from rehost_builder.winpe.inspect import NEEDED, MediaReport, find_tools, takes_ucrt
from rehost_builder.winpe.keyboards import keyboard_layout
from rehost_builder.winpe.linked import check_runtime
from rehost_builder.winpe.media import Media
from rehost_builder.winpe.opened import damage, opened_media
from rehost_builder.winpe.payload import FOLDER, MENU, Additions, make_additions
from rehost_builder.winpe.plan import Plan, PlannedFile
from rehost_builder.winpe.runtime import SHA256 as PINNED
from rehost_builder.winpe.runtime import Runtime, keep, obtain, read_runtime
from rehost_builder.winpe.scratch import HIVE, hive_with_scratch_space
from rehost_builder.winpe.secureboot import BootChoice, choose_boot_files
from rehost_builder.winpe.ucrt import WHERE, Ucrt, read_ucrt
from rehost_payload.capture.restore.scripts import GUARDIAN, scripts
from rehost_payload.drivers.manifest import MANIFEST
from rehost_payload.formats.inf import parse_inf
from rehost_payload.formats.inf_target import WORKSTATION, Target

LABEL = "REHOST-WINPE"
_WORKSPACE = 64 << 20
_EARLIEST = 946684800  # 2000-01-01: images that carry no date
_MARGIN = 8 << 20
"""Bytes of file system structures on the ISO, generously."""

STEPS = {"media": 3.0, "Python": 1.0, "drivers": 1.0, "boot image": 3.0, "checksums": 2.0, "ISO": 4.0}
"""Seconds on two cores, from media that are not in memory yet."""


@dataclass(frozen=True)
class WinpeOptions:
    media: tuple[Path, ...]
    """An ISO, a folder, the ADK's add-on or a boot image; more where boot image and boot files are apart."""
    output: Path
    drivers: tuple[Path, ...] = ()
    python_embed: str | None = None
    """The embeddable package as a file, or the URL of a mirror."""
    ucrt: Path | None = None
    """A folder, .msu or .cab with the Universal C Runtime, for boot images without one."""
    secure_boot: str = "auto"
    keyboard: str = ""
    """"de", "0407:00000407"; empty: the image's own."""
    prompt: bool = False
    """UEFI asks for a key before it starts from the medium."""
    scratch_space: int = 0
    """MB of writable space in memory; 0: WinPE's own choice."""
    keep_shell: bool = True
    """Another maker's program in the image stays."""
    label: str = LABEL
    allow_unverified: bool = False
    cache: Path | None = None
    offline: bool = False
    epoch: int | None = None
    """Seconds since 1970 that date everything; None: SOURCE_DATE_EPOCH, else the boot image's date."""


@dataclass(frozen=True)
class WinpeResult:
    iso: Path
    size: int
    sha256: str
    product: str
    boot_files: str
    boots_by: tuple[str, ...]
    python: str
    drivers: int
    epoch: int
    notes: tuple[str, ...]
    seconds: float = 0.0
    steps: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """The plan, and the contents that it speaks of. Valid inside of `prepare`."""

    plan: Plan
    tree: Mapping[str, Content]
    boot: BootEntries


def build_winpe_iso(options: WinpeOptions, progress: Progress | None = None) -> WinpeResult:
    """Builds the ISO. Raises BuildError (nothing is left half-done) and KeyboardInterrupt (likewise)."""
    start = time.monotonic()
    progress = progress or Progress(STEPS)
    output = options.output.resolve()
    _check_output(output, options)
    with clear_messages(output, *options.media), prepare(options, progress) as prepared:
        output.parent.mkdir(parents=True, exist_ok=True)
        check_space(output, prepared.plan.size + _MARGIN)
        with progress.step("ISO"):
            plan = prepared.plan
            with named(output):
                write_winpe_iso(
                    output,
                    prepared.tree,
                    prepared.boot,
                    label=plan.label,
                    epoch=plan.epoch,
                    progress=progress.meter(),
                )
            digest, size = digest_of(output)
    return WinpeResult(
        iso=output,
        size=size,
        sha256=digest.hex(),
        product=plan.source.product,
        boot_files=plan.boot_files,
        boots_by=plan.source.boots_by,
        python=plan.runtime["version"],
        drivers=len(plan.drivers.get("packages", [])),
        epoch=plan.epoch,
        notes=plan.notes,
        seconds=time.monotonic() - start,
        steps=dict(progress.measured),
    )


@contextmanager
def prepare(options: WinpeOptions, progress: Progress) -> Iterator[Prepared]:
    """Reads everything, decides everything, writes nothing outside of a temporary folder and the cache."""
    version = importlib.metadata.version("rehost")
    cache = (options.cache or default_cache()).resolve() / "winpe"
    with (
        workspace(_WORKSPACE) as work,
        opened_media(options.media, work, prompt=options.prompt, progress=progress) as (
            media,
            wim,
            report,
        ),
    ):
        with progress.step("Python"):
            ucrt = _ucrt(options, media)
            _check_tools(media, ucrt)
            runtime = _runtime(options, cache, media, wim, ucrt, progress)
        with progress.step("drivers"):
            bundle, load = _drivers(options, work / "drivers", media)
        for text in bundle.notes():
            progress.note(text)
        with progress.step("boot image"), damage(report.place):
            choice = choose_boot_files(media, wim, options.secure_boot, prompt=options.prompt)
            epoch = _epoch(options, media)
            keyboard = keyboard_layout(options.keyboard, media.image, wim)
            additions = make_additions(
                media.image,
                runtime,
                _driver_files(bundle),
                load,
                version=version,
                keyboard=keyboard,
                keep_shell=options.keep_shell,
            )
            if options.scratch_space:
                hive = hive_with_scratch_space(options.scratch_space, media.image, wim)
                additions = replace(additions, files={**additions.files, HIVE: hive})
            changed = append(
                wim, media.wim, media.image.info.index, additions.files, epoch=epoch, remove=additions.remove
            )
        with progress.step("checksums"):
            tree = _tree(media, choice, changed.content)
            plan = Plan(
                version=version,
                source=report,
                boot_files=choice.text,
                runtime={"version": runtime.version, "sha256": runtime.sha256, "pinned": runtime.pinned},
                ucrt=ucrt.described() if ucrt is not None else {},
                python=tuple(asdict(p) for p in additions.python),
                drivers=bundle.described(),
                loaded=tuple(load),
                starts=additions.text,
                settings={
                    "keyboard": keyboard,
                    "prompt": options.prompt,
                    "keep_shell": options.keep_shell,
                    "scratch_space": options.scratch_space,
                    "secure_boot_ca": options.secure_boot,
                },
                wim_added=changed.added,
                added=_planned(additions.files, "added"),
                removed=additions.remove,
                medium=_planned(
                    tree, "media", {media.wim_path: "boot image with additions"} | _origins(choice)
                ),
                label=options.label,
                boot_images={
                    name: digest_of(content)[0].hex()
                    for name, content in (("bios", media.bios_boot), ("efi", choice.efi_boot))
                    if content is not None
                },
                udf_only=tuple(udf_only(tree)),
                epoch=epoch,
                notes=_notes(report, runtime, ucrt, options, additions, media),
            )
            own = _own_files(plan)
            tree |= own
        medium = tuple(sorted((*plan.medium, *_planned(own, "made by the builder")), key=lambda f: f.path))
        boot = BootEntries(media.bios_boot, choice.efi_boot)
        yield Prepared(replace(plan, medium=medium), tree, boot)


def _check_output(output: Path, options: WinpeOptions) -> None:
    embedded = () if options.python_embed is None else (Path(options.python_embed),)
    given = () if options.ucrt is None else (options.ucrt,)
    refusal = unfit_output(output, (*options.media, *options.drivers, *embedded, *given))
    if refusal is not None:
        raise BuildError(refusal, "name another file with -o")


def _ucrt(options: WinpeOptions, media: Media) -> Ucrt | None:
    """The C runtime that was given, where the boot image wants one."""
    return read_ucrt(options.ucrt) if options.ucrt is not None and takes_ucrt(media) else None


def _check_tools(media: Media, ucrt: Ucrt | None) -> None:
    """Refuses an image that Python or our scripts cannot run in."""
    tools = find_tools(media)
    for name in NEEDED:
        if not tools[name] and (name != "ucrtbase" or ucrt is None):
            build = media.image.info.version_text or "unknown build"
            newer = "take the media of a newer Windows: a newer WinPE repairs older servers as well"
            given = name == "ucrtbase" and takes_ucrt(media)
            raise BuildError(
                f"the boot image ({build}) lacks {name}: {NEEDED[name]}",
                f"give it with --ucrt ({WHERE}), or {newer}" if given else newer,
            )


def _runtime(
    options: WinpeOptions, cache: Path, media: Media, wim: Wim, ucrt: Ucrt | None, progress: Progress
) -> Runtime:
    """Python, with the C runtime beside it where one was given."""
    package = obtain(options.python_embed, cache, offline=options.offline, progress=progress.update)
    runtime = read_runtime(package)
    files = ucrt.files if ucrt is not None else {}
    with damage(str(media.wim_source.place)):
        problems = check_runtime(runtime, media.image, wim, files)
    if problems:
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise BuildError(
            f"Python {runtime.version} would not run in this boot image: {'; '.join(problems[:4])}{more}",
            "boot images of Windows 10 / Server 2016 and later fit the pinned package for amd64"
            + (
                f"; with --ucrt, complete, those of Windows 8.1 / Server 2012 R2 do: {WHERE}" if files else ""
            ),
        )
    if runtime.sha256 == PINNED and options.python_embed:
        keep(cache, package)
    return replace(runtime, files={**runtime.files, **files})


def _drivers(options: WinpeOptions, place: Path, media: Media) -> tuple[Bundle, list[str]]:
    """The packages, and the INFs among them that this WinPE itself can load."""
    if not options.drivers:
        return Bundle(place), []
    with named(place):
        bundle = collect(options.drivers, place, allow_unverified=options.allow_unverified)
    build = media.image.info.build
    load = []
    for package in bundle.packages:
        path = f"{package.folder}/{package.inf}"
        inf = parse_inf((place / path).read_bytes())
        # WinPE of client and server media are the same system, which counts as a workstation
        target = Target(build[0], build[1], build[2], product_type=WORKSTATION) if len(build) >= 3 else None
        if target is None or next(inf.models(target), None) is not None:
            load.append(path)
    return bundle, load


def _driver_files(bundle: Bundle) -> dict[str, Content]:
    files: dict[str, Content] = {
        f"{package.folder}/{file.path}": bundle.place / package.folder / file.path
        for package in bundle.packages
        for file in package.files
    }
    return files | ({MANIFEST: bundle.place / MANIFEST} if files else {})


def _tree(media: Media, choice: BootChoice, wim: Content) -> dict[str, Content]:
    """The medium without what the builder writes itself. Names keep the spelling of the source."""
    tree: dict[str, Content] = dict(media.files)
    spelled = {name.casefold(): name for name in tree}
    for name, content in choice.files.items():
        tree[spelled.get(name.casefold(), name)] = content
    tree[media.wim_path] = wim
    return tree


def _origins(choice: BootChoice) -> dict[str, str]:
    return dict.fromkeys(choice.files, "boot image")


def _planned(
    files: Mapping[str, Content], origin: str, known: Mapping[str, str] | None = None
) -> tuple[PlannedFile, ...]:
    planned = []
    for path, content in sorted(files.items()):
        digest, size = digest_of(content)
        planned.append(PlannedFile(path, size, digest.hex(), (known or {}).get(path, origin)))
    return tuple(planned)


def _own_files(plan: Plan) -> dict[str, Content]:
    """build.json, the text and the checksums. No path of this machine is in them."""
    report = asdict(plan.source) | {"place": PurePosixPath(Path(plan.source.place).name).as_posix()}
    build = asdict(plan) | {"format": 1, "product": "Rehost", "base": "winpe", "source": report}
    build_json = json.dumps(build, indent=1, sort_keys=True, default=str).encode() + b"\n"
    readme = render(
        "winpe/README.txt.j2",
        version=plan.version,
        identity=hashlib.sha256(build_json).hexdigest()[:16],
        source=report["place"],
        product=plan.source.product or "unknown product",
        boots_by=" and ".join(plan.source.boots_by),
        boot_files=plan.boot_files,
        beside=plan.starts != MENU,
    )
    own: dict[str, Content] = {
        "build.json": build_json,
        "README.txt": readme.replace("\n", "\r\n").encode(),
        GUARDIAN: scripts()[GUARDIAN],
    }
    sums = {f.path: f.sha256 for f in plan.medium} | {
        path: digest_of(content)[0].hex() for path, content in own.items()
    }
    own["SHA256SUMS"] = "".join(f"{digest}  {path}\n" for path, digest in sorted(sums.items())).encode()
    return own


def _epoch(options: WinpeOptions, media: Media) -> int:
    if options.epoch is not None:
        return options.epoch
    fixed = source_date_epoch()
    if fixed is not None:
        return fixed
    return media.image.info.modified or _EARLIEST


def _notes(
    report: MediaReport,
    runtime: Runtime,
    ucrt: Ucrt | None,
    options: WinpeOptions,
    additions: Additions,
    media: Media,
) -> tuple[str, ...]:
    missing = [t for t in report.missing if ucrt is None or not t.startswith("ucrtbase:")]
    notes = [*report.notes, *(f"not in the boot image: {text}" for text in missing)]
    if ucrt is not None:
        notes += ucrt.notes()
    elif options.ucrt is not None:
        notes.append("--ucrt was not needed: the boot image has a C runtime of its own, which Windows takes")
    if not runtime.pinned:
        notes.append(f"the Python package given is not the pinned one: SHA-256 {runtime.sha256}")
    others = [f"{p.name} {p.version}" for p in additions.python if p.name in WHEELS and not p.wheel]
    if others:
        notes.append(f"{', '.join(others)}: as installed here, other files than those of the pinned wheels")
    if not media.image.has(f"{SYSTEM32}/drvload.exe") and any(
        f"{FOLDER}/drivers/" in p for p in additions.files
    ):
        notes.append(
            "the drivers cannot be loaded by this medium itself; they are there for the restored Windows"
        )
    return tuple(notes)
