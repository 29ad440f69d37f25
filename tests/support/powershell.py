"""Looks at PowerShell with a real grammar (tree-sitter), since no PowerShell is there to run it.

script = Script(text)
script.faults          places that the grammar does not understand
script.commands        every command with its parameters, splatted ones included
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import tree_sitter
import tree_sitter_powershell

COMMON = frozenset(
    [
        "Verbose",
        "Debug",
        "ErrorAction",
        "WarningAction",
        "InformationAction",
        "ErrorVariable",
        "WarningVariable",
        "InformationVariable",
        "OutVariable",
        "OutBuffer",
        "PipelineVariable",
    ]
)
_CHANGING = re.compile(r"(Add|Connect|Disconnect|Export|Import|New|Remove|Set|Update|Compare|Start|Stop)-")
_HARMLESS = frozenset({"New-Object", "Set-StrictMode"})
_CHANGING_METHODS = frozenset(
    {"CreateDirectory", "Delete", "Move", "SetLength", "SetLastWriteTimeUtc", "Write", "Copy"}
)


@cache
def known_cmdlets() -> dict[str, frozenset[str]]:
    """Cmdlets that the scripts may use, with their parameters."""
    found: dict[str, frozenset[str]] = {}
    name = ""
    for line in Path(__file__).with_name("cmdlets.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        if not line.startswith(" "):
            name, _, line = line.partition(":")
        found[name] = found.get(name, frozenset()) | set(line.split())
    return found


@dataclass(frozen=True)
class Command:
    """``parameters`` without the dash, ``splatted`` the keys of hash tables that are passed as parameters."""

    name: str
    parameters: tuple[str, ...]
    splatted: tuple[str, ...]
    line: int
    guarded: bool  # inside an "if" that asks ShouldProcess
    text: str
    unknown_splats: tuple[str, ...] = ()


@dataclass
class Script:
    text: bytes
    root: tree_sitter.Node = field(init=False)

    def __post_init__(self) -> None:
        parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))
        self.root = parser.parse(self.text).root_node

    def nodes(self, kind: str, below: tree_sitter.Node | None = None) -> Iterator[tree_sitter.Node]:
        return (node for node in _walk(below or self.root) if node.type == kind)

    @cached_property
    def faults(self) -> list[str]:
        return [
            f"line {n.start_point[0] + 1}: {_text(n)[:60]!r}"
            for n in _walk(self.root)
            if n.is_error or n.is_missing
        ]

    @cached_property
    def functions(self) -> frozenset[str]:
        return frozenset(_text(n) for n in self.nodes("function_name"))

    @cached_property
    def commands(self) -> list[Command]:
        return [self._command(node) for node in self.nodes("command")]

    @property
    def changing(self) -> list[Command]:
        """Commands that change the computer, going by their verbs."""
        return [
            c for c in self.commands if _CHANGING.match(c.name) and c.name not in _HARMLESS | self.functions
        ]

    @cached_property
    def changing_methods(self) -> list[tuple[str, int, bool]]:
        """Calls of .NET methods that change files: name, line, guarded."""
        return [
            (name, node.start_point[0] + 1, _guarded(node))
            for node in self.nodes("invokation_expression")
            if (name := self._method(node)) in _CHANGING_METHODS
        ]

    @staticmethod
    def _method(node: tree_sitter.Node) -> str:
        return next((_text(c) for c in node.children if c.type == "member_name"), "")

    def _command(self, node: tree_sitter.Node) -> Command:
        name = next((_text(c) for c in node.children if c.type == "command_name"), "")
        elements = [c for part in node.children if part.type == "command_elements" for c in part.children]
        parameters = [_text(e).lstrip("-").rstrip(":") for e in elements if e.type == "command_parameter"]
        splats = [m[1] for e in elements if (m := re.fullmatch(r"@(\w+)", _text(e)))]
        keys, unknown = [], []
        for splat in splats:
            found = list(self._keys(node, splat))
            keys += found
            if not found:
                unknown.append(splat)
        return Command(
            name,
            tuple(parameters),
            tuple(keys),
            node.start_point[0] + 1,
            _guarded(node),
            _text(node),
            tuple(unknown),
        )

    def _keys(self, command: tree_sitter.Node, variable: str) -> Iterator[str]:
        """Keys that a hash table gets in the function of the command."""
        scope = next(_above(command, "function_statement"), self.root)
        for node in self.nodes("assignment_expression", scope):
            left, _, _ = _text(node).partition("=")
            left = left.strip()
            if left == f"${variable}":
                table = next(self.nodes("hash_literal_expression", node), None)
                for entry in self.nodes("hash_entry", table) if table is not None else ():
                    yield _text(entry).partition("=")[0].strip()
            elif left.startswith(f"${variable}."):
                yield left.partition(".")[2]


def _text(node: tree_sitter.Node) -> str:
    return (node.text or b"").decode()


def _walk(node: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _above(node: tree_sitter.Node, kind: str) -> Iterator[tree_sitter.Node]:
    parent = node.parent
    while parent is not None:
        if parent.type == kind:
            yield parent
        parent = parent.parent


def _guarded(node: tree_sitter.Node) -> bool:
    """Whether the nearest way to this place leads through the yes-branch of an "if ($PSCmdlet.ShouldProcess(...))"."""
    child, parent = node, node.parent
    while parent is not None:
        if child.type == "statement_block" and parent.type in ("if_statement", "elseif_clause"):
            condition = parent.child_by_field_name("condition")
            if condition is not None and "$PSCmdlet.ShouldProcess(" in _text(condition):
                return "-or $PSCmdlet.ShouldProcess" not in _text(condition)
        child, parent = parent, parent.parent
    return False
