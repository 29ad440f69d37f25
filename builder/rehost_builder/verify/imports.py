"""Which modules a program needs when it runs on Windows, from its sources alone: nothing is run.

Imports under `if sys.platform != "win32"`, after `if os.name == "nt": return`, under `if TYPE_CHECKING`, and inside
`try ... except ImportError` are passed over; those inside functions count. Modules of the standard library are compiled
and not looked into, but what they cannot do without is known (`_EXTENSIONS`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

BUILT_IN = frozenset(
    (
        "_abc", "_ast", "_bisect", "_blake2", "_codecs", "_codecs_cn", "_codecs_hk",
        "_codecs_iso2022", "_codecs_jp", "_codecs_kr", "_codecs_tw", "_collections", "_contextvars",
        "_csv", "_datetime", "_functools", "_heapq", "_imp", "_io", "_json", "_locale", "_lsprof",
        "_md5", "_multibytecodec", "_opcode", "_operator", "_pickle", "_random", "_sha1", "_sha2",
        "_sha3", "_signal", "_sre", "_stat", "_statistics", "_string", "_struct", "_symtable",
        "_thread", "_tokenize", "_tracemalloc", "_typing", "_warnings", "_weakref", "_winapi",
        "array", "atexit", "binascii", "builtins", "cmath", "errno", "faulthandler", "gc",
        "itertools", "marshal", "math", "mmap", "msvcrt", "nt", "sys", "time", "winreg", "zlib",
    )
)  # fmt: skip
"""Modules inside of python3NN.dll (CPython, PC/config.c of 3.11 to 3.13)."""
_EXTENSIONS = {
    "ctypes": ("_ctypes",),
    "socket": ("_socket", "select"),
    "selectors": ("select",),
    "asyncio": ("_overlapped", "_socket", "select"),
    "ssl": ("_ssl",),
    "bz2": ("_bz2",),
    "lzma": ("_lzma",),
    "sqlite3": ("_sqlite3",),
    "multiprocessing": ("_multiprocessing",),
    "xml.parsers.expat": ("pyexpat",),
    "xml.etree.ElementTree": ("pyexpat",),
    "urllib.request": ("_socket", "select"),
    "http": ("_socket", "select"),
    "tkinter": ("_tkinter",),
}
_LAZY = re.compile(r"(?:[a-z_]\w*)(?:\.[a-z_]\w*)+:[A-Za-z_]\w*")
"""A command that is imported when it is called: "package.module:attribute"."""


@dataclass(frozen=True)
class Missing:
    """``module`` is imported by ``user`` and is nowhere."""

    module: str
    user: str


@dataclass(frozen=True)
class Closure:
    """``seen`` counts the modules that were looked into, ``wanted`` all that are imported."""

    seen: int
    wanted: int
    missing: tuple[Missing, ...]
    damaged: tuple[str, ...]


def closure(sources: Mapping[str, bytes], others: Collection[str], roots: Collection[str]) -> Closure:
    """Follows the imports from ``roots``.

    ``sources`` are modules by their dotted name (packages as "a.__init__"), ``others`` the dotted names of modules
    without source: compiled, extensions, built in. ``damaged`` are sources that are no Python.
    """
    known = {*others, *BUILT_IN}
    waiting = [(root, "the start") for root in sorted(roots)]
    seen: set[str] = set()
    wanted: set[str] = set()
    missing: list[Missing] = []
    damaged: list[str] = []
    while waiting:
        module, user = waiting.pop()
        if module in wanted:
            continue
        wanted.add(module)
        parent = module.rpartition(".")[0]
        if parent and parent not in wanted:
            waiting.append((parent, user))
        if module in known:
            waiting += [(extension, module) for extension in _EXTENSIONS.get(module, ())]
            continue
        name = f"{module}.__init__" if f"{module}.__init__" in sources else module
        if name not in sources:
            missing.append(Missing(module, user))
            continue
        seen.add(module)
        try:
            tree = ast.parse(sources[name])
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            damaged.append(module)
            continue
        for found in imported(tree, module, is_package=name.endswith(".__init__")):
            target = _module(found, sources, known)
            if target is not None:
                waiting.append((target, module))
    missing.sort(key=lambda m: (m.module, m.user))
    return Closure(len(seen), len(wanted), tuple(missing), tuple(sorted(damaged)))


def _module(found: tuple[str, str], sources: Mapping[str, bytes], known: Collection[str]) -> str | None:
    """`from a import b`: the module a.b where there is one, else a. For a lazy command None where it is no module."""
    module, name = found
    both = f"{module}.{name}"
    if name and (both in known or both in sources or f"{both}.__init__" in sources):
        return both
    return module


def imported(tree: ast.Module, module: str, *, is_package: bool) -> Iterator[tuple[str, str]]:
    """(module, name) of every import that happens on Windows; name "" for `import module`."""
    package = module if is_package else module.rpartition(".")[0]
    for node in _reached(tree.body):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                yield base, "" if alias.name == "*" else alias.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _LAZY.fullmatch(node.value):
            yield node.value.partition(":")[0], ""


def _reached(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """The nodes below these statements that can be reached on Windows and whose failure is not caught."""
    for statement in body:
        if isinstance(statement, ast.If):
            known = _condition(statement.test)
            yield from _expressions(statement.test)
            if known is not False:
                yield from _reached(statement.body)
            if known is not True:
                yield from _reached(statement.orelse)
            if known is not None and _leaves(statement.body if known else statement.orelse):
                return
        elif isinstance(statement, ast.Try | ast.TryStar):
            if not any(_catches_import(h) for h in statement.handlers):
                yield from _reached(statement.body)
            for handler in statement.handlers:
                yield from _reached(handler.body)
            yield from _reached(statement.orelse)
            yield from _reached(statement.finalbody)
        elif isinstance(statement, ast.Assert):
            if _condition(statement.test) is False:
                return
        else:
            yield statement
            for name, value in ast.iter_fields(statement):
                if name in ("body", "orelse") and isinstance(value, list):
                    yield from _reached(value)
                elif name == "cases":
                    for case in value:
                        yield from _reached(case.body)
                else:
                    yield from _expressions(*(value if isinstance(value, list) else [value]))


def _expressions(*values: object) -> Iterator[ast.AST]:
    for value in values:
        if isinstance(value, ast.AST):
            yield from ast.walk(value)


def _leaves(body: list[ast.stmt]) -> bool:
    return bool(body) and isinstance(body[-1], ast.Return | ast.Raise | ast.Continue | ast.Break)


def _catches_import(handler: ast.ExceptHandler) -> bool:
    names = (
        {n.id for n in ast.walk(handler.type) if isinstance(n, ast.Name)} if handler.type else {"Exception"}
    )
    return bool(names & {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


_WINDOWS = {"sys.platform": "win32", "os.name": "nt", "platform.system": "Windows"}


def _condition(test: ast.expr) -> bool | None:
    """What a condition is on Windows, None where that is not known from here."""
    if isinstance(test, ast.Name | ast.Attribute):
        name = test.id if isinstance(test, ast.Name) else test.attr
        return False if name == "TYPE_CHECKING" else None
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        inner = _condition(test.operand)
        return None if inner is None else not inner
    if isinstance(test, ast.BoolOp):
        values = [_condition(v) for v in test.values]
        decisive = isinstance(test.op, ast.Or)
        if decisive in values:
            return decisive
        return None if None in values else not decisive
    if isinstance(test, ast.Call) and isinstance(test.func, ast.Attribute) and test.func.attr == "startswith":
        have = _WINDOWS.get(ast.unparse(test.func.value))
        given = test.args[0] if test.args else None
        if have is not None and isinstance(given, ast.Constant) and isinstance(given.value, str):
            return have.startswith(given.value)
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        have = _WINDOWS.get(ast.unparse(test.left))
        given = test.comparators[0]
        if have is not None and isinstance(given, ast.Constant):
            if isinstance(test.ops[0], ast.Eq):
                return have == given.value
            if isinstance(test.ops[0], ast.NotEq):
                return have != given.value
    return None
