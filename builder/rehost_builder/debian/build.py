"""Builds the medium of the Debian base: packages -> root -> initramfs -> ISO."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rehost_builder.debian import tree
from rehost_builder.debian.apt import KEYRING, Apt, Candidate, host_acquire_settings, host_sources
from rehost_builder.debian.extract import is_wanted, unpack
from rehost_builder.debian.guest import Guest
from rehost_builder.debian.image import packed_size, write_image
from rehost_builder.debian.lock import Lock, newest_date, read_lock, wrong_packages
from rehost_builder.debian.medium import BIOS_LOADER, EFI_IMAGE, LABEL, BootFiles, medium_files
from rehost_builder.debian.modules import parse_wishes, select_modules
from rehost_builder.debian.packages import (
    BOOT,
    IMAGE,
    KERNEL,
    PRETENDED,
    TOOLS,
    UNPACKED_FOR_BOOT,
    UNPACKED_FOR_TOOLS,
)
from rehost_builder.drivers.bundle import Bundle, collect
from rehost_builder.environment import clear_messages, default_cache, source_date_epoch, workspace
from rehost_builder.errors import BuildError
from rehost_builder.media.iso9660 import write_iso
from rehost_builder.progress import Progress
from rehost_builder.python_files import PACKAGES, install_package, install_payload
from rehost_builder.templates import iso_folder, render

_COMMAND_LINE = "quiet loglevel=3 cryptomgr.notests"
"""Quiet; no self-tests of ciphers that nothing here relies on (a fifth of the start)."""
_SPACE_NEEDED = 500 << 20
DRIVERS = "usr/share/rehost/drivers"
"""Where the driver packages are in the running system, a folder for each."""

STEPS = {
    "drivers": 3.0,
    "package lists": 5.0,
    "packages": 15.0,
    "unpack": 9.0,
    "kernel modules": 4.0,
    "root": 2.0,
    "Python": 4.0,
    "image": 4.0,
    "ISO": 1.0,
}
"""Seconds on two cores and a fast line; the cache remembers what this machine took."""


@dataclass(frozen=True)
class DebianOptions:
    output: Path
    suite: str = "trixie"
    cache: Path | None = None
    """Where packages and the lock are kept; None: `default_cache`."""
    offline: bool = False
    lock: Path | None = None
    sources: Path | None = None
    """An apt .sources file to use instead of the host's mirrors."""
    compression: int = 9
    """zstd level of the image, 1 to 19."""
    append: str = ""
    """Kernel options for every entry of the boot menu ("rehost.run=repair rehost.keymap=de")."""
    boot_files: Path | None = None
    """A folder that gets vmlinuz and initrd.img as well: for PXE, and for starting them directly."""
    drivers: tuple[Path, ...] = ()
    """Folders and archives with driver packages for the medium."""
    allow_unverified_drivers: bool = False
    epoch: int | None = None
    """Seconds since 1970 that date everything; None: SOURCE_DATE_EPOCH, else the newest package's date."""


@dataclass(frozen=True)
class BuildResult:
    iso: Path
    size: int
    sha256: str
    suite: str
    kernel: str
    packages: int
    epoch: int
    seconds: float = 0.0
    drivers: tuple[str, ...] = ()
    """Names of the driver packages on the medium."""
    drivers_size: int = 0
    """Bytes by which they make the medium larger."""
    steps: dict[str, float] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    """ELF files left out because a library they need is not part of the image."""


def cache_of(options: DebianOptions) -> Path:
    """The folder of packages and lock for the release that is built from."""
    return (options.cache or default_cache()).resolve() / "debian" / options.suite


def build_debian_iso(options: DebianOptions, progress: Progress | None = None) -> BuildResult:
    """Builds the ISO. Raises BuildError (nothing is left half-done) and KeyboardInterrupt (likewise)."""
    start = time.monotonic()
    cache = cache_of(options)
    output = options.output.resolve()
    with clear_messages(output, cache):
        cache.mkdir(parents=True, exist_ok=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        progress = progress or Progress(expected_steps(options))
        with only_build(cache, progress), tempfile.TemporaryDirectory(prefix="rehost-drivers-") as drivers:
            # first: it is what most often is not as it should be
            bundle = _drivers(options, Path(drivers) / "drivers", progress)
            lock, archives = _packages(options, cache, progress)
            with workspace(_SPACE_NEEDED) as work:
                result = _assemble(options, lock, archives, bundle, output, work, progress)
    with suppress(OSError):
        (cache / "timings.json").write_text(json.dumps(progress.measured))
    return replace(result, seconds=time.monotonic() - start, steps=dict(progress.measured))


@contextmanager
def only_build(cache: Path, progress: Progress) -> Iterator[None]:
    """Waits until no other build uses this cache: apt's lists and packages are one state, written in place."""
    with (cache / "in-use").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.note("another build uses the package cache; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def expected_steps(options: DebianOptions) -> dict[str, float]:
    """How long each step took last time with this cache; where that is unknown, `STEPS`."""
    cache = cache_of(options)
    left_out = {"package lists", "packages"} if options.offline or options.lock is not None else set()
    if not options.drivers:
        left_out.add("drivers")
    steps = {t: s for t, s in STEPS.items() if t not in left_out}
    try:
        known = json.loads((cache / "timings.json").read_text())
        return {title: float(known.get(title, seconds)) for title, seconds in steps.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return steps


def _drivers(options: DebianOptions, place: Path, progress: Progress) -> Bundle:
    if not options.drivers:
        return Bundle(place)
    with progress.step("drivers"):
        bundle = collect(options.drivers, place, allow_unverified=options.allow_unverified_drivers)
    for text in bundle.notes():
        progress.note(text)
    return bundle


def _packages(options: DebianOptions, cache: Path, progress: Progress) -> tuple[Lock, Path]:
    """The lock to build from, with all of its packages present and checked."""
    archives = cache / "apt" / "archives"
    own_lock = cache / "lock.json"
    if options.offline or options.lock:
        lock = read_lock(options.lock or own_lock)
        if lock.suite != options.suite:
            raise BuildError(f"the package lock is for {lock.suite}", f"add --suite {lock.suite}")
        missing = wrong_packages(lock.packages, archives)
        if missing and not options.offline:
            _fetch_locked(options, cache, lock, missing, progress)
            missing = wrong_packages(lock.packages, archives)
        if missing:
            shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            raise BuildError(
                f"in the cache {archives} is missing or damaged: {shown}",
                "build once without --offline and --lock; replaced packages leave the mirrors, "
                "so keep the cache together with its lock",
            )
        return lock, archives

    apt = _apt(options, cache)
    with progress.step("package lists"):
        try:
            apt.update()
        except BuildError as e:
            if not own_lock.exists() or wrong_packages(read_lock(own_lock).packages, archives):
                raise
            progress.note(f"{e.message}; going on with the packages of the last build")
            return read_lock(own_lock), archives
        kernel = apt.kernel(KERNEL)
        wanted = [kernel, *IMAGE, *BOOT, *TOOLS]
        lock = Lock(options.suite, kernel, tuple(apt.resolve(wanted, PRETENDED)))
    with progress.step("packages"):
        wrong = wrong_packages(lock.packages, archives)
        for file in wrong:
            (archives / file).unlink(missing_ok=True)
        if wrong:
            fetch = sum(p.size for p in lock.packages if p.file in wrong)
            meter = progress.meter()
            apt.download(wanted, lambda percent: meter(fetch * percent / 100, fetch))
        wrong = wrong_packages(lock.packages, archives)
        if wrong:
            raise BuildError(
                f"the downloaded {wrong[0]} is not what the archive announced",
                "run it again; check the mirror",
            )
    _replace_text(own_lock, lock.text())
    return lock, archives


def _apt(options: DebianOptions, cache: Path) -> Apt:
    if options.sources:
        sources = options.sources.read_text(encoding="utf-8")
    else:
        sources = host_sources(options.suite)
        if not KEYRING.exists():
            raise BuildError(
                f"the keys of the Debian archive ({KEYRING}) are missing",
                "apt-get install debian-archive-keyring",
            )
    return Apt(cache / "apt", sources, host_acquire_settings())


def _fetch_locked(
    options: DebianOptions, cache: Path, lock: Lock, missing: list[str], progress: Progress
) -> None:
    """Tries to get the exact versions of a kept lock from the mirror."""
    apt = _apt(options, cache)
    with progress.step("package lists"):
        apt.update()
    with progress.step("packages"):
        apt.download_exact([p for p in lock.packages if p.file in missing])


def _assemble(
    options: DebianOptions,
    lock: Lock,
    archives: Path,
    bundle: Bundle,
    output: Path,
    work: Path,
    progress: Progress,
) -> BuildResult:
    root, boot, tools, kernel_tree = (work / name for name in ("root", "boot", "tools", "kernel"))
    for folder in (root, boot, tools, kernel_tree):
        folder.mkdir()
    epoch = _epoch(options, lock, archives)
    guest = Guest(root, tools)
    version = importlib.metadata.version("rehost")

    with progress.step("unpack"):
        _unpack_all(lock, archives, root, boot, tools, kernel_tree)
    release = _kernel_release(kernel_tree)
    with progress.step("kernel modules"):
        wishes = parse_wishes((iso_folder() / "debian/modules.txt").read_text(encoding="utf-8"))
        target = root / "usr/lib/modules" / release
        target.mkdir(parents=True)
        modules = select_modules(kernel_tree / "usr/lib/modules" / release, target, wishes)
        tree.link_folders(root)
        tree.index_modules(root, release, guest)
    with progress.step("root"):
        dropped = tree.drop_broken(root)
        tree.link_applets(root)
        keymaps = tree.write_keymaps(root, tools, guest)
        _write_own_files(root, version)
        drivers_size = 0
        if bundle.packages:
            shutil.copytree(bundle.place, root / DRIVERS)
            drivers_size = packed_size(bundle.place, compression=options.compression, guest=guest)
    with progress.step("Python"):
        python = [install_package(name, root) for name in PACKAGES]
        python.append(install_payload(root, version))
        tree.compile_python(root, guest)
        tree.check_imports(root, guest)
    with progress.step("image"):
        image = work / "initrd.img"
        write_image(root, image, release=release, compression=options.compression, epoch=epoch, guest=guest)
    with progress.step("ISO"):
        build = {
            "format": 1,
            "product": "Rehost",
            "version": version,
            "base": "debian",
            "suite": lock.suite,
            "kernel": release,
            "epoch": epoch,
            "command_line": _command_line(options),
            "compression": options.compression,
            "drivers": bundle.described(),
            "packages": [asdict(p) for p in lock.packages],
            "python": [asdict(p) for p in python],
            "texts": _text_digests(),
            "modules": modules,
            "keymaps": keymaps,
            "left_out": dropped,
        }
        kernel = kernel_tree / f"boot/vmlinuz-{release}"
        files = medium_files(
            boot=BootFiles(boot),
            kernel=kernel,
            image=image,
            build=build,
            command_line=_command_line(options),
            epoch=epoch,
        )
        write_iso(
            output,
            files,
            label=LABEL,
            epoch=epoch,
            bios_loader=BIOS_LOADER,
            efi_image=EFI_IMAGE,
            hybrid_code=BootFiles(boot).hybrid_code,
        )
        if options.boot_files:
            options.boot_files.mkdir(parents=True, exist_ok=True)
            for source, name in ((kernel, "vmlinuz"), (image, "initrd.img")):
                _copy(source, options.boot_files / name)
        with output.open("rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
    return BuildResult(
        iso=output,
        size=output.stat().st_size,
        sha256=digest,
        suite=lock.suite,
        kernel=release,
        packages=len(lock.packages),
        epoch=epoch,
        drivers=tuple(p.folder for p in bundle.packages),
        drivers_size=drivers_size,
        dropped=tuple(dropped),
    )


def _command_line(options: DebianOptions) -> str:
    if any(c in options.append for c in "\n\r"):
        raise BuildError("--append has a line break in it", "give the kernel options in one line")
    return f"{_COMMAND_LINE} {options.append}".strip()


def _epoch(options: DebianOptions, lock: Lock, archives: Path) -> int:
    if options.epoch is not None:
        return options.epoch
    fixed = source_date_epoch()
    if fixed is not None:
        return fixed
    return newest_date(lock.packages, archives)


def _unpack_all(lock: Lock, archives: Path, root: Path, boot: Path, tools: Path, kernel: Path) -> None:
    def one(package: Candidate) -> None:
        path = archives / package.file
        if package.name == lock.kernel:
            unpack(path, kernel, _kernel_wanted)
            unpack(path, root, lambda name: name.startswith("usr/share/doc/") and is_wanted(name))
        elif package.name in UNPACKED_FOR_BOOT:
            unpack(path, boot, lambda name: not name.startswith("usr/share/man"))
            unpack(path, root, lambda name: name.startswith("usr/share/doc/") and is_wanted(name))
        elif package.name in UNPACKED_FOR_TOOLS:
            unpack(path, tools, lambda name: not name.startswith(("usr/share/man", "usr/share/locale")))
        else:
            unpack(path, root)

    # The kernel is by far the largest and is begun first.
    order = sorted(lock.packages, key=lambda p: -p.size)
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(one, order):
            pass


def _kernel_wanted(name: str) -> bool:
    skipped = ("drivers/gpu/", "drivers/media/", "drivers/net/wireless/", "drivers/staging/", "sound/")
    _, found, module = name.partition("/kernel/")
    return not (found and module.startswith(skipped)) and not name.startswith(
        ("boot/System.map", "boot/config")
    )


def _kernel_release(kernel: Path) -> str:
    names = [p.name.removeprefix("vmlinuz-") for p in (kernel / "boot").glob("vmlinuz-*")]
    if len(names) != 1:
        raise BuildError("the kernel package holds no kernel", "is the --suite a Debian release?")
    return names[0]


def _write_own_files(root: Path, version: str) -> None:
    texts = iso_folder() / "debian" / "root"
    for path in sorted(texts.rglob("*")):
        if path.is_file():
            target = root / path.relative_to(texts)
            if target.suffix == ".j2":
                target = target.with_suffix("")
                data = render(f"debian/root/{path.relative_to(texts).as_posix()}", version=version).encode()
            else:
                data = path.read_bytes()
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            target.chmod(0o755 if data.startswith(b"#!") else 0o644)


def _text_digests() -> dict[str, str]:
    folder = iso_folder() / "debian"
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _replace_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _copy(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.part")
    try:
        shutil.copyfile(source, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
