"""Makes a bootable root out of unpacked packages: links, ELF check, module index, Python, our own files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from rehost_builder.debian.elf import is_elf, needed
from rehost_builder.debian.extract import MERGED
from rehost_builder.debian.guest import Guest
from rehost_builder.debian.packages import REQUIRED_PROGRAMS
from rehost_builder.errors import BuildError
from rehost_builder.run import run

_LIBRARY_FOLDERS = ("usr/lib/x86_64-linux-gnu", "usr/lib", "usr/lib64")
KEYMAPS = {
    "us": "i386/qwerty/us",
    "de": "i386/qwertz/de-latin1-nodeadkeys",
    "ch": "i386/qwertz/sg-latin1",
    "fr": "i386/azerty/fr-latin9",
    "uk": "i386/qwerty/uk",
    "es": "i386/qwerty/es",
    "it": "i386/qwerty/it",
    "se": "i386/qwerty/se-latin1",
}
"""Keyboard layouts for the screen console: name on the kernel command line -> file of console-data."""


def link_folders(root: Path) -> None:
    """/bin -> usr/bin and so on, and the empty folders that the first process mounts on."""
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    for name in ("dev", "proc", "sys", "run", "tmp", "mnt", "root", "etc", "var/tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for link, target in (("etc/mtab", "/proc/self/mounts"), ("var/run", "/run")):
        if not (root / link).is_symlink():
            (root / link).symlink_to(target)


def link_applets(root: Path) -> None:
    """Links each of busybox's commands that no package brings better."""
    listing = run([root / "usr/bin/busybox", "--list-full"], what="busybox cannot list its commands")
    for path in listing.split():
        link = root / (path if path.startswith("usr/") else f"usr/{path}")
        twins = [root / "usr" / folder / link.name for folder in ("bin", "sbin")]
        if link.parent.name in ("bin", "sbin") and not any(t.is_symlink() or t.exists() for t in twins):
            link.symlink_to("/usr/bin/busybox")


def drop_broken(root: Path) -> list[str]:
    """Removes ELF files that need a library which is not here, and returns their paths.

    Repeats until nothing changes, since a removed library breaks those that need it. Raises BuildError if a
    program the product counts on is missing or among them.
    """
    dropped: list[str] = []
    wants = {path: needed(data) for path, data in _elf_files(root)}
    while True:
        present = {
            p.name
            for folder in _LIBRARY_FOLDERS
            if (root / folder).is_dir()
            for p in (root / folder).iterdir()
        }
        broken = [path for path, names in wants.items() if not present.issuperset(names)]
        if not broken:
            break
        for path in broken:
            lacking = sorted(set(wants.pop(path)) - present)
            (root / path).unlink()
            dropped.append(f"{path} ({', '.join(lacking)})")
    _drop_dangling(root)
    for program in REQUIRED_PROGRAMS:
        if not (root / program).exists():
            why = next(
                (d for d in dropped if Path(d.partition(" ")[0]).name == Path(program).name),
                "not in any package",
            )
            raise BuildError(f"the recovery system would lack {program}: {why}", "see debian/packages.py")
    return sorted(dropped)


def _elf_files(root: Path) -> Iterable[tuple[str, bytes]]:
    for folder, _, files in os.walk(root / "usr"):
        for name in files:
            path = Path(folder, name)
            if path.is_symlink() or path.suffix in (".py", ".ko"):
                continue
            with path.open("rb") as f:
                head = f.read(64)
                if is_elf(head):
                    yield str(path.relative_to(root)), head + f.read()


def _drop_dangling(root: Path) -> None:
    """Removes links below usr that lead nowhere (to pruned or dropped files)."""
    for folder, folders, files in os.walk(root / "usr"):
        for name in [*folders, *files]:
            path = Path(folder, name)
            if path.is_symlink():
                target = path.readlink()
                real = root / target.relative_to("/") if target.is_absolute() else path.parent / target
                if not real.exists() and not real.is_symlink():
                    path.unlink()


def index_modules(root: Path, release: str, guest: Guest) -> None:
    """Writes modules.dep.bin and its like with the image's own depmod."""
    # -w is not known to every kmod; errors about symbols show up as a failed build instead of a failed boot
    guest.run("usr/bin/kmod", "-b", root, "-e", "-F", "/dev/null", release, name="depmod", what="depmod")


def compile_python(root: Path, guest: Guest) -> None:
    """Byte-compiles with the image's own Python. The result names no host path and no time.

    Of the standard library only the byte code stays (a tenth of the image less to unpack at every start);
    ours and what it uses keep their sources, so that tracebacks show the lines.
    """
    python = python_folder(root)

    def compile_folder(folder: Path, *options: str) -> None:
        # One worker: several would be started anew with the host's C library.
        guest.run(
            f"usr/bin/{python}", "-S", "-s", "-m", "compileall", "-q", "-j", "1", *options,
            "--invalidation-mode", "unchecked-hash", "-s", root, "-p", "/", folder,
            env=_python_environment(root),
            what="the image's Python cannot compile its library",
        )  # fmt: skip

    library = root / "usr/lib" / python
    compile_folder(root / "usr/lib/python3/dist-packages")
    compile_folder(library, "-b")
    for source in sorted(library.rglob("*.py")):
        if source.with_suffix(".pyc").exists():
            source.unlink()


def python_folder(root: Path) -> str:
    """ "python3.13": the version of the release's Python."""
    names = sorted(p.name for p in (root / "usr/lib").glob("python3.*") if (p / "lib-dynload").is_dir())
    if len(names) != 1:
        raise BuildError(f"the packages hold {len(names)} Pythons: {names}")
    return names[0]


def write_keymaps(root: Path, tools: Path, guest: Guest) -> list[str]:
    """Compiles the keyboard layouts to what busybox's loadkmap reads (some 2.5 KB each)."""
    target = root / "usr/share/rehost/keymaps"
    target.mkdir(parents=True, exist_ok=True)
    maps = tools / "usr/share/keymaps"
    include = ":".join(str(maps / f) for f in ("i386/include", "include", "i386/qwerty", "i386/qwertz"))
    for name, file in KEYMAPS.items():
        guest.run(
            "usr/bin/loadkeys", "-q", "-b", "-u", maps / f"{file}.kmap.gz",
            env={"LOADKEYS_KEYMAP_PATH": include},
            what=f"the keyboard layout {name} cannot be compiled",
            stdout=target / f"{name}.bmap",
        )  # fmt: skip
    return sorted(KEYMAPS)


def check_imports(root: Path, guest: Guest) -> None:
    """Imports in the image's Python what the payload needs: a missing module must fail here, not on the server."""
    python = python_folder(root)
    code = "import ctypes, hashlib, hivex, lzma, uuid, zlib, click, jinja2, rehost_payload"
    guest.run(
        f"usr/bin/{python}", "-S", "-s", "-c", f"import sys; sys.path.append(sys.argv[1]); {code}",
        root / "usr/lib/python3/dist-packages",
        env=_python_environment(root),
        what="the image's Python lacks something",
    )  # fmt: skip


def _python_environment(root: Path) -> dict[str, str]:
    """Nothing of the host's Python gets in, and no byte code is written on the way."""
    return {"PYTHONHOME": str(root / "usr"), "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
