"""Chooses the kernel modules of the medium and everything they depend on."""

from __future__ import annotations

import fnmatch
import lzma
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rehost_builder.debian.elf import modinfo
from rehost_builder.errors import BuildError


@dataclass(frozen=True)
class Wish:
    """A line of modules.txt: a module's name, or (with a slash) a pattern on the path below kernel/."""

    pattern: str
    optional: bool


def parse_wishes(text: str) -> list[Wish]:
    """Raises ValueError for a line that is neither comment nor "name" nor "name ?"."""
    wishes = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        if len(words) > 2 or (len(words) == 2 and words[1] != "?"):
            raise ValueError(f"line {number}: {line.strip()!r}")
        wishes.append(Wish(words[0], len(words) == 2))
    return wishes


def canonical(name: str) -> str:
    """The kernel treats - and _ in module names alike."""
    return name.replace("-", "_")


def choose(wishes: Iterable[Wish], available: Mapping[str, str], builtin: Iterable[str]) -> list[str]:
    """The canonical names of the wished modules, sorted.

    ``available``: canonical name -> path below kernel/ without suffix. ``builtin``: names compiled into the
    kernel. Raises BuildError naming every wish that nothing fulfils.
    """
    inside = {canonical(name) for name in builtin}
    chosen: set[str] = set()
    missing = []
    for wish in wishes:
        if "/" in wish.pattern:
            hits = {name for name, path in available.items() if fnmatch.fnmatchcase(path, wish.pattern)}
        else:
            name = canonical(wish.pattern)
            hits = {name} & available.keys()
            if not hits and name in inside:
                continue
        if not hits and not wish.optional:
            missing.append(wish.pattern)
        chosen |= hits
    if missing:
        raise BuildError(
            f"this kernel has no {', '.join(missing)}",
            "another --suite, or take the name out of iso/debian/modules.txt",
        )
    return sorted(chosen)


def closure(chosen: Iterable[str], depends: Mapping[str, Iterable[str]]) -> list[str]:
    """``chosen`` and all that they depend on, sorted. Raises KeyError for a dependency that is unknown."""
    todo, done = list(chosen), set[str]()
    while todo:
        name = todo.pop()
        if name not in done:
            done.add(name)
            todo += depends[name]
    return sorted(done)


def select_modules(source: Path, target: Path, wishes: Iterable[Wish]) -> list[str]:
    """Unpacks the wished modules of ``source`` (usr/lib/modules/VERSION of the package) to ``target``.

    They are stored uncompressed (the signature at their end stays) because the image is compressed as a
    whole. Returns the names. Soft dependencies ("pre:" and "post:") are taken where the kernel has them.
    """
    paths = {canonical(_stem(p)): p for p in sorted((source / "kernel").rglob("*.ko*"))}
    relative = {n: str(p.relative_to(source / "kernel").parent / _stem(p)) for n, p in paths.items()}
    builtin = [Path(line).name.removesuffix(".ko") for line in _lines(source / "modules.builtin")]
    unpacked: dict[str, bytes] = {}
    depends: dict[str, list[str]] = {}
    todo = choose(wishes, relative, builtin)
    with ThreadPoolExecutor(2) as pool:
        while todo:
            for name, data in zip(todo, pool.map(lambda n: _unpack(paths[n]), todo), strict=True):
                info = modinfo(data)
                hard = [canonical(n) for value in info.get("depends", []) for n in value.split(",") if n]
                for n in hard:
                    if n not in paths:
                        raise BuildError(f"the kernel module {name} needs {n}, which its package lacks")
                unpacked[name] = data
                depends[name] = hard + [n for n in soft_dependencies(info) if n in paths]
            todo = sorted({n for name in todo for n in depends[name]} - unpacked.keys())
    names = closure(unpacked, depends)
    for name in names:
        path = target / "kernel" / f"{relative[name]}.ko"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(unpacked[name])
    order = {f"kernel/{relative[name]}.ko" for name in names}
    kept = [line for line in _lines(source / "modules.order") if line in order]
    (target / "modules.order").write_text("".join(f"{line}\n" for line in kept))
    for name in ("modules.builtin", "modules.builtin.modinfo"):
        (target / name).write_bytes((source / name).read_bytes())
    return names


def soft_dependencies(info: Mapping[str, list[str]]) -> list[str]:
    """The modules named in "softdep=pre: a b post: c" texts."""
    words = [word for value in info.get("softdep", []) for word in value.split()]
    return [canonical(word) for word in words if not word.endswith(":")]


def _stem(path: Path) -> str:
    return path.name.partition(".ko")[0]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _unpack(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".ko":
        return data
    raise BuildError(f"the kernel module {path.name} is packed in a way unknown here", "use --suite trixie")
