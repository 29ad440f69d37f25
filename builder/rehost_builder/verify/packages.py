"""The Python packages of a medium against build.json, which has one digest for the files of each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def package_problems(expected: Mapping[str, str], files: Mapping[str, bytes]) -> list[str]:
    """``files`` by their path below the folder of packages. Byte code is passed over: it is made anew anywhere."""
    problems = []
    for name, digest in sorted(expected.items()):
        own = {p: d for p, d in files.items() if _belongs(p, name) and not p.endswith(".pyc")}
        lines = "".join(f"{p}\0{hashlib.sha256(d).hexdigest()}\n" for p, d in sorted(own.items()))
        if not own:
            problems.append(f"the package {name} is missing")
        elif hashlib.sha256(lines.encode()).hexdigest() != digest:
            problems.append(f"the package {name} has missing, additional or changed files")
    return problems


def _belongs(path: str, package: str) -> bool:
    top = path.partition("/")[0].casefold()
    return top == package or (top.endswith(".dist-info") and top.startswith(f"{package}-"))
