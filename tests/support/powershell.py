"""Looks at PowerShell with a real grammar (tree-sitter), since no PowerShell is there to run it.

script = Script(text)
script.faults          places that the grammar does not understand
script.commands        every command with its parameters, splatted ones included
script.functions       the functions with their parameters

What is said of variables and properties is in powershell_names.py.
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
    {
        "CreateDirectory",
        "Delete",
        "Move",
        "SetLength",
        "SetLastWriteTimeUtc",
        "Write",
        "Copy",
        "SetAccessControl",
        "SetAttributes",
    }
)


@dataclass(frozen=True)
class ParameterSet:
    names: frozenset[str]
    mandatory: frozenset[str]


@cache
def known_cmdlets() -> dict[str, dict[str, ParameterSet]]:
    """Cmdlets that the scripts may use, with their parameter sets by name."""
    found: dict[str, dict[str, list[str]]] = {}
    name = part = ""
    for line in Path(__file__).with_name("cmdlets.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        if not line.startswith(" "):
            name = line
            continue
        if line[4] != " ":
            part, _, line = line.strip().partition(": ")
        found.setdefault(name, {}).setdefault(part, []).extend(line.split())
    return {
        cmdlet: {
            part: ParameterSet(
                frozenset(w.lstrip("!") for w in words), frozenset(w[1:] for w in words if w[0] == "!")
            )
            for part, words in sets.items()
        }
        for cmdlet, sets in found.items()
    }


@dataclass(frozen=True)
class Command:
    """``parameters`` without the dash, ``splatted`` the keys of hash tables that are passed as parameters.

    ``positional`` are arguments without a name in front of them that are not certainly the value of one.
    """

    name: str
    parameters: tuple[str, ...]
    splatted: tuple[str, ...]
    line: int
    guarded: bool  # inside an "if" that asks ShouldProcess
    text: str
    unknown_splats: tuple[str, ...] = ()
    positional: tuple[tree_sitter.Node, ...] = ()
    piped: bool = False  # something comes in through a pipeline

    @property
    def given(self) -> frozenset[str]:
        return frozenset(p for p in (*self.parameters, *self.splatted) if p not in COMMON)

    def fitting(self, sets: dict[str, ParameterSet]) -> list[str]:
        """The sets that take all that is given and lack nothing that must be given.

        Positional arguments and a pipeline stand for one mandatory parameter each.
        """
        spare = len(self.positional) + self.piped
        return [
            name
            for name, one in sets.items()
            if self.given <= one.names and len(one.mandatory - self.given) <= spare
        ]


@dataclass(frozen=True)
class Function:
    name: str
    parameters: dict[str, str]  # with their type in brackets, "" where it has none
    node: tree_sitter.Node


@dataclass
class Script:
    text: bytes
    root: tree_sitter.Node = field(init=False)

    def __post_init__(self) -> None:
        parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))
        self.root = parser.parse(self.text).root_node

    def nodes(self, kind: str, below: tree_sitter.Node | None = None) -> Iterator[tree_sitter.Node]:
        return (node for node in walk(below or self.root) if node.type == kind)

    @cached_property
    def faults(self) -> list[str]:
        return [
            f"line {n.start_point[0] + 1}: {text_of(n)[:60]!r}"
            for n in walk(self.root)
            if n.is_error or n.is_missing
        ]

    @cached_property
    def functions(self) -> dict[str, Function]:
        found = {}
        for node in self.nodes("function_statement"):
            name = text_of(next(c for c in node.children if c.type == "function_name"))
            declared = next((c for c in node.children if c.type == "function_parameter_declaration"), None)
            parameters = {}
            for one in self.nodes("script_parameter", declared) if declared is not None else ():
                variable = next(c for c in one.children if c.type == "variable")
                kind = next((text_of(c) for c in one.children if c.type == "attribute_list"), "")
                parameters[text_of(variable).lstrip("$")] = kind
            found[name] = Function(name, parameters, node)
        return found

    @cached_property
    def commands(self) -> list[Command]:
        return [self._command(node) for node in self.nodes("command")]

    @property
    def changing(self) -> list[Command]:
        """Commands that change the computer, going by their verbs."""
        return [
            c
            for c in self.commands
            if _CHANGING.match(c.name) and c.name not in _HARMLESS | self.functions.keys()
        ]

    @cached_property
    def changing_methods(self) -> list[tuple[str, int, bool]]:
        """Calls of .NET methods that change files: name, line, guarded."""
        return [
            (name, node.start_point[0] + 1, _guarded(node))
            for node in self.nodes("invokation_expression")
            if (name := method_of(node)) in _CHANGING_METHODS
        ]

    def _command(self, node: tree_sitter.Node) -> Command:
        name = next((text_of(c) for c in node.children if c.type == "command_name"), "")
        elements = [
            c
            for part in node.children
            if part.type == "command_elements"
            for c in part.children
            if c.type != "command_argument_sep"
        ]
        parameters = [text_of(e).lstrip("-").rstrip(":") for e in elements if e.type == "command_parameter"]
        splats = [m[1] for e in elements if (m := re.fullmatch(r"@(\w+)", text_of(e)))]
        positional = [
            e
            for before, e in zip([None, *elements], elements, strict=False)
            if e.type != "command_parameter"
            and not re.fullmatch(r"@\w+", text_of(e))
            and (before is None or before.type != "command_parameter")
        ]
        keys, unknown = [], []
        for splat in splats:
            found = list(self._keys(node, splat))
            keys += found
            if not found:
                unknown.append(splat)
        before = node.prev_sibling
        return Command(
            name,
            tuple(parameters),
            tuple(keys),
            node.start_point[0] + 1,
            _guarded(node),
            text_of(node),
            tuple(unknown),
            tuple(positional),
            before is not None and before.type == "|",
        )

    def _keys(self, command: tree_sitter.Node, variable: str) -> Iterator[str]:
        """Keys that a hash table gets in the function of the command, or by those who call that function."""
        function = next(above(command, "function_statement"), None)
        for node in self.nodes("assignment_expression", function):
            left, _, _ = text_of(node).partition("=")
            left = left.strip()
            if left == f"${variable}":
                yield from self._hash_keys(node)
            elif left.startswith(f"${variable}."):
                yield left.partition(".")[2]
        if function is None:
            return
        name = text_of(next(c for c in function.children if c.type == "function_name"))
        parameters = list(self.functions[name].parameters)
        if variable in parameters:
            place = parameters.index(variable)
            for call in self.nodes("command"):
                if any(c.type == "command_name" and text_of(c) == name for c in call.children):
                    yield from self._hash_keys(self._command(call).positional[place])

    def _hash_keys(self, node: tree_sitter.Node) -> Iterator[str]:
        table = next(self.nodes("hash_literal_expression", node), None)
        for entry in self.nodes("hash_entry", table) if table is not None else ():
            yield text_of(entry).partition("=")[0].strip()


def text_of(node: tree_sitter.Node) -> str:
    return (node.text or b"").decode()


def walk(node: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    """The node and everything in it, in the order of the text."""
    waiting = [node]
    while waiting:
        current = waiting.pop()
        yield current
        waiting += reversed(current.children)


def above(node: tree_sitter.Node, kind: str) -> Iterator[tree_sitter.Node]:
    parent = node.parent
    while parent is not None:
        if parent.type == kind:
            yield parent
        parent = parent.parent


def method_of(node: tree_sitter.Node) -> str:
    """The name of the method that an invocation calls."""
    return next((text_of(c) for c in node.children if c.type == "member_name"), "")


def _guarded(node: tree_sitter.Node) -> bool:
    """Whether the nearest way to this place leads through the yes-branch of an "if ($PSCmdlet.ShouldProcess(...))"."""
    child, parent = node, node.parent
    while parent is not None:
        if child.type == "statement_block" and parent.type in ("if_statement", "elseif_clause"):
            condition = parent.child_by_field_name("condition")
            if condition is not None and "$PSCmdlet.ShouldProcess(" in text_of(condition):
                return "-or $PSCmdlet.ShouldProcess" not in text_of(condition)
        child, parent = parent, parent.parent
    return False
