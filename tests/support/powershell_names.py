"""What variables and properties in a script are, and the mistakes that a parser does not see.

Each function gives the faults it finds, as "line 12: ...". The types of what comes from a JSON file are followed from
the dataclass that was written there, through assignments, foreach, pipelines and calls of the script's functions, and
so are those of what cmdlets give (properties.txt).
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import tree_sitter

from support.powershell import Script, above, method_of, text_of, walk

_AUTOMATIC = frozenset({"_", "null", "true", "false", "pscmdlet", "psscriptroot", "whatifpreference"})
_OPERATORS = ["logical", "bitwise", "comparison", "additive", "multiplicative", "format", "range"]
_ALONE = frozenset(
    [f"{o}_expression" for o in _OPERATORS]
    + [f"{o}_argument_expression" for o in _OPERATORS]
    + ["pipeline", "pipeline_chain", "array_literal_expression", "unary_expression", "argument_expression"]
    + ["parenthesized_expression", "array_expression", "sub_expression", "left_assignment_expression"]
    + ["statement_list", "script_block_body"]
)
_BRACKETS = frozenset({"(", ")", "@(", "$(", "{", "}"})
_KEEPING = frozenset({"Where-Object", "Sort-Object"})
# methods whose result is nothing: as a statement of its own any other one adds to what its function gives back
_VOID = frozenset(
    {
        "AddAccessRule",
        "Delete",
        "Dispose",
        "Flush",
        "Move",
        "SetAccessControl",
        "SetAttributes",
        "SetLastWriteTimeUtc",
        "SetLength",
        "Write",
    }
)
# operators and options that Windows PowerShell 5.1 does not have
_NEW = re.compile(r"\?\?=?|\?\.|\?\[|&&|\|\||(?<=\s)\?(?=\s)|-Parallel\b|\bclean\s*\{", re.IGNORECASE)
_TEXTS = frozenset({"string_literal", "comment"})


def _at(node: tree_sitter.Node, message: str) -> str:
    return f"line {node.start_point[0] + 1}: {message}"


def _scope(node: tree_sitter.Node) -> tree_sitter.Node | None:
    return next(above(node, "function_statement"), None)


def _name(node: tree_sitter.Node) -> str:
    """The name of a variable in lower case, as Windows compares it."""
    return text_of(node).lstrip("$@").strip("{}").lower()


# --- variables


def _declared(script: Script) -> dict[int | None, dict[str, int]]:
    """By function (its place, None: the script itself) where each variable gets its first value."""
    found: dict[int | None, dict[str, int]] = {None: {}}

    def add(node: tree_sitter.Node) -> None:
        scope = _scope(node)
        names = found.setdefault(None if scope is None else scope.start_byte, {})
        names.setdefault(_name(node), node.start_byte)

    for node in walk(script.root):
        if node.type == "left_assignment_expression":
            inner = _core(node)
            if inner.type == "variable":
                add(inner)
            elif inner.type == "cast_expression":
                add(next(v for v in walk(inner) if v.type == "variable"))
        elif node.type in ("foreach_statement", "script_parameter"):
            add(next(c for c in node.children if c.type == "variable"))
    return found


def unassigned(script: Script) -> list[str]:
    """Variables that are read and never get a value, or only further down in the same function."""
    declared = _declared(script)
    faults = []
    for node in script.nodes("variable"):
        name, scope = _name(node), _scope(node)
        own = declared.get(None if scope is None else scope.start_byte, {})
        if name in _AUTOMATIC or (scope is not None and name in declared[None]):
            continue
        if name not in own or own[name] > node.start_byte:
            faults.append(_at(node, f"${name}"))
    return faults


def shadowed(script: Script) -> list[str]:
    """Variables of functions that hide a parameter of the script: names differ in more than their case."""
    block = next(script.nodes("param_block"), None)
    mine = {_name(next(script.nodes("variable", p))) for p in script.nodes("script_parameter", block)}
    return [
        f"${name}"
        for scope, names in _declared(script).items()
        if scope is not None
        for name in names
        if name in mine
    ]


# --- types


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a cmdlet gives: one object or several, which PowerShell does not tell apart. Names in lower case."""

    name: str
    properties: dict[str, str]  # to the name of a further shape, "" for none

    def of(self, member: str) -> Shape | None:
        kind = self.properties.get(member.lower(), "")
        return shapes()[0][kind] if kind else None


@cache
def shapes() -> tuple[dict[str, Shape], dict[str, Shape]]:
    """By their own name, and by the cmdlets that give them."""
    by_name: dict[str, Shape] = {}
    by_cmdlet: dict[str, Shape] = {}
    shape = Shape("", {})
    for line in Path(__file__).with_name("properties.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        if line.startswith(" "):
            for word in line.split():
                name, _, kind = word.partition(":")
                shape.properties[name.lower()] = kind
            continue
        name, _, cmdlets = line.rstrip("]").partition(" [")
        shape = by_name[name] = Shape(name, {})
        by_cmdlet |= dict.fromkeys(cmdlets.split(), shape)
    return by_name, by_cmdlet


class Types:
    """Follows a dataclass through a script; ``root`` is the variable that holds it."""

    def __init__(self, script: Script, root: str, kind: type) -> None:
        self._script = script
        self._known: dict[tuple[int | None, str], Any] = {(None, root): kind}
        self._given: dict[str, Any] = {}  # by the script's functions
        for _ in range(6):  # calls of calls of calls
            before = len(self._known) + len(self._given)
            self._follow()
            if len(self._known) + len(self._given) == before:
                break

    def _follow(self) -> None:
        for node in walk(self._script.root):
            if node.type == "foreach_statement":
                variable = next(c for c in node.children if c.type == "variable")
                self._learn(
                    variable, _element(self.of(next(c for c in node.children if c.type == "pipeline")))
                )
            elif node.type == "assignment_expression":
                left, right = _core(node.children[0]), node.children[-1]
                if left.type == "variable":
                    self._learn(left, self.of(right))
            elif node.type == "invokation_expression" and method_of(node) == "Add":
                inner = _core(node.children[0])
                item = next((c for c in walk(node) if c.type == "argument_expression"), None)
                kind = None if item is None else self.of(item)
                if inner.type == "variable" and kind is not None:
                    self._learn(inner, kind if isinstance(kind, Shape) else tuple[kind, ...])  # type: ignore[valid-type]
            elif node.type == "pipeline" and _gives(node):
                function = _scope(node)
                kind = self.of(node)
                if function is not None and isinstance(kind, Shape):
                    name = next(text_of(c) for c in function.children if c.type == "function_name")
                    self._given.setdefault(name, kind)
        for command in self._script.commands:
            function = self._script.functions.get(command.name)
            for name, value in zip(function.parameters if function else (), command.positional, strict=False):
                kind = self.of(value)
                if kind is not None and function is not None:
                    self._known.setdefault((function.node.start_byte, name.lower()), kind)

    def _learn(self, variable: tree_sitter.Node, kind: Any) -> None:
        if kind is not None:
            scope = _scope(variable)
            self._known.setdefault((None if scope is None else scope.start_byte, _name(variable)), kind)

    def of(self, node: tree_sitter.Node) -> Any:
        """The type of an expression; None where it is not of the data."""
        node = _core(node)
        if node.type == "variable":
            if _name(node) == "_":
                return self._piped(node)
            scope = _scope(node)
            own = (None if scope is None else scope.start_byte, _name(node))
            return self._known.get(own, self._known.get((None, _name(node))))
        if node.type == "member_access":
            kind = _bare(self.of(node.children[0]))
            member = text_of(node.children[-1])
            if isinstance(kind, Shape):
                return kind.of(member)
            if dataclasses.is_dataclass(kind):
                return typing.get_type_hints(kind).get(member)
            return None
        if node.type == "command":
            return self._result(node)
        if node.type == "element_access":
            return _element(self.of(node.children[0]))
        if node.type == "pipeline_chain":  # with several parts
            parts = [c for c in node.children if c.type != "|"]
            if all(text_of(p.children[0]) in _KEEPING for p in parts[1:] if p.type == "command"):
                return self.of(parts[0])
        return None

    def _result(self, command: tree_sitter.Node) -> Any:
        name = text_of(command.children[0])
        if name == "Get-CimInstance":
            found = re.search(r"-ClassName (\w+)", text_of(command))
            return shapes()[0][found[1]] if found else None
        return self._given.get(name, shapes()[1].get(name))

    def _piped(self, node: tree_sitter.Node) -> Any:
        block = next(above(node, "script_block_expression"), None)
        command = None if block is None else next(above(block, "command"), None)
        if command is None or command.parent is None:
            return None
        before = []
        for part in command.parent.children:
            if part.start_byte >= command.start_byte:
                break
            if part.type != "|":
                before.append(part)
        if not before or any(text_of(p.children[0]) not in _KEEPING for p in before[1:]):
            return None
        kind = self.of(before[0])
        return _element(kind) or kind

    def faults(self) -> list[str]:
        """Properties that the dataclasses do not have. Those of the data are in lower case, those of Windows are not."""
        found = []
        for node in self._script.nodes("member_access"):
            member, kind = text_of(node.children[-1]), _bare(self.of(node.children[0]))
            of_data = re.fullmatch("[a-z][a-z0-9_]*", member) is not None
            if isinstance(kind, Shape):
                if member.lower() not in kind.properties and member != "Count":
                    found.append(_at(node, f"{text_of(node)}: {kind.name} has no {member}"))
            elif dataclasses.is_dataclass(kind):
                if member not in typing.get_type_hints(kind):
                    found.append(_at(node, f"{text_of(node)}: {kind} has no {member}"))
            elif of_data:
                found.append(_at(node, f"{text_of(node)}: of {kind or 'what is not known'}"))
        return found

    def read(self) -> set[tuple[str, str]]:
        """Dataclass and field, or class of Windows and property, of all that is read."""
        found = set()
        for node in self._script.nodes("member_access"):
            kind = _bare(self.of(node.children[0]))
            if isinstance(kind, Shape):
                found.add((kind.name, text_of(node.children[-1])))
            elif dataclasses.is_dataclass(kind):
                found.add((getattr(kind, "__name__", ""), text_of(node.children[-1])))
        return found


def _gives(pipeline: tree_sitter.Node) -> bool:
    """Whether a function gives back what this pipeline gives."""
    parent = pipeline.parent
    if parent is None or _nearest(pipeline) == "script_block_expression":
        return False
    holder = parent.parent
    return parent.type == "flow_control_statement" or (
        parent.type == "statement_list"
        and holder is not None
        and holder.type not in ("array_expression", "sub_expression")
    )


def _bare(kind: Any) -> Any:
    """Without "or None"."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return next(k for k in typing.get_args(kind) if k is not type(None))
    return kind


def _element(kind: Any) -> Any:
    kind = _bare(kind)
    if isinstance(kind, Shape):
        return kind
    return typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else None


def _core(node: tree_sitter.Node) -> tree_sitter.Node:
    """The one thing that brackets and the grammar's levels of operators are around."""
    while node.type in _ALONE:
        inner = [c for c in node.children if c.type not in _BRACKETS]
        if len(inner) != 1:
            break
        node = inner[0]
    return node


# --- what strict mode and Windows PowerShell 5.1 stumble over


def counted(script: Script, is_list: Callable[[tree_sitter.Node], bool]) -> list[str]:
    """.Count of what may be one thing or nothing: in strict mode that is an error. ``is_list`` knows the data."""
    faults = []
    for node in script.nodes("member_access"):
        if text_of(node.children[-1]) != "Count":
            continue
        of = node.children[0]
        if any(c.type == "array_expression" for c in (of, *of.children)) or is_list(of):
            continue
        if _core(of).type != "variable" or not _always_list(script, _core(of)):
            faults.append(_at(node, text_of(node)))
    return faults


def _always_list(script: Script, variable: tree_sitter.Node) -> bool:
    name, scope = _name(variable), _scope(variable)
    for where in (scope, None):
        values = []
        for node in script.nodes("assignment_expression", where):
            left = _core(node.children[0])
            if left.type == "variable" and _name(left) == name and _scope(left) == where:
                values.append(text_of(node.children[-1]))
        kinds = [
            text_of(p)
            for p in script.nodes("script_parameter", where)
            if _name(next(script.nodes("variable", p))) == name and _scope(p) == where
        ]
        if values or kinds:
            lists = r"@\(|New-Object System\.Collections\.ArrayList|\$\w+ \+ @\("
            return all(re.match(lists, v) for v in values) and all("[]]" in k for k in kinds)
    return False


def calls(script: Script) -> list[str]:
    """Calls of the script's functions with more or fewer arguments than they have parameters: nothing else says so."""
    faults = []
    for command in script.commands:
        function = script.functions.get(command.name)
        if function is not None and (
            command.parameters or len(command.positional) != len(function.parameters)
        ):
            faults.append(f"line {command.line}: {command.text}")
        if function is not None and len(command.positional) == 1 and len(function.parameters) == 1:
            (argument,) = command.positional
            if any(
                c.type == "," for c in walk(argument) if c.parent is not None and _is_list_of(c, argument)
            ):
                faults.append(f"line {command.line}: one list instead of arguments: {command.text}")
    return faults


def _is_list_of(comma: tree_sitter.Node, argument: tree_sitter.Node) -> bool:
    core = _core(argument)
    return comma.parent == core and core.type == "array_literal_expression"


def late(script: Script) -> list[str]:
    """Functions that begin after the script has called its first one: until then they do not exist."""
    first = min(
        (
            node.start_byte
            for node in script.nodes("command")
            if _scope(node) is None and text_of(node.children[0]) in script.functions
        ),
        default=len(script.text),
    )
    return [f.name for f in script.functions.values() if f.node.start_byte > first]


def uncalled(script: Script) -> set[str]:
    return set(script.functions) - {c.name for c in script.commands}


def formats(script: Script) -> list[str]:
    """-f with more places than values, or values without a place."""
    faults = []
    for node in walk(script.root):
        if node.type not in ("format_expression", "format_argument_expression"):
            continue
        operator = next((i for i, c in enumerate(node.children) if c.type == "format_operator"), None)
        if operator is None:
            continue
        left, right = node.children[operator - 1], _core(node.children[operator + 1])
        places = [int(m) for m in re.findall(r"(?<!\{)\{(\d+)[^{}]*\}", text_of(left))]
        values = sum(c.type != "," for c in right.children) if right.type == "array_literal_expression" else 1
        if not places or set(places) != set(range(values)):
            faults.append(_at(node, text_of(node)))
    return faults


def interpolations(script: Script) -> list[str]:
    """Texts in which a variable is followed by what looks like a property ("$a.name" is $a and then ".name"), or by a
    colon, which makes it a drive ("$a: x")."""
    faults = []
    for node in script.nodes("expandable_string_literal"):
        for variable in node.children:
            if variable.type != "variable" or "{" in text_of(variable):
                continue
            kind = _declared_type(script, variable)
            after = (script.text[variable.end_byte : variable.end_byte + 2]).decode("ascii", "replace")
            if re.match(r"\.[A-Za-z]|\[", after) and kind != "[string]":
                faults.append(_at(node, text_of(node)))
        if re.search(r"(?<!`)\$\w+:", re.sub(r"\$\([^()]*(\([^()]*\))*[^()]*\)", "", text_of(node))):
            faults.append(_at(node, text_of(node)))
    return faults


def _declared_type(script: Script, variable: tree_sitter.Node) -> str:
    scope = _scope(variable)
    for function in script.functions.values():
        if function.node == scope:
            return {k.lower(): v for k, v in function.parameters.items()}.get(_name(variable), "")
    return ""


def jumps(script: Script) -> list[str]:
    """break and continue inside the block of a cmdlet: they leave a loop around it, or the script."""
    return [
        _at(node, text_of(node))
        for node in walk(script.root)
        if re.fullmatch(r"(break|continue)\b.*", text_of(node)) and node.type == "flow_control_statement"
        if _nearest(node) == "script_block_expression"
    ]


def _nearest(node: tree_sitter.Node) -> str:
    loops = ("foreach_statement", "for_statement", "while_statement", "do_statement", "switch_statement")
    parent = node.parent
    while parent is not None and parent.type not in (*loops, "script_block_expression", "function_statement"):
        parent = parent.parent
    return "" if parent is None else parent.type


def leaks(script: Script) -> list[str]:
    """Statements that call a method and let its result become a result of the function."""
    faults = []
    for node in script.nodes("invokation_expression"):
        statement: tree_sitter.Node | None = node
        while statement is not None and statement.type in (*_ALONE, "invokation_expression"):
            if statement.type == "pipeline":
                break
            statement = statement.parent
        alone = statement is not None and statement.type == "pipeline" and _core(statement) == node
        inside = statement.parent if alone and statement is not None else None
        if inside is None or inside.type != "statement_list":
            continue
        holder = inside.parent
        if holder is not None and holder.type in ("array_expression", "sub_expression"):
            continue
        if (
            method_of(node) not in _VOID
            and _scope(node) is not None
            and _nearest(node) != "script_block_expression"
        ):
            faults.append(_at(node, text_of(node)))
    return faults


def newer(script: Script) -> list[str]:
    """What only PowerShell 7 understands. Texts and comments are left out."""
    code = bytearray(script.text)
    for node in walk(script.root):
        if node.type in _TEXTS:
            code[node.start_byte : node.end_byte] = b" " * (node.end_byte - node.start_byte)
    text = code.decode("ascii", "replace")
    return [f"line {text.count(chr(10), 0, m.start()) + 1}: {m[0]}" for m in _NEW.finditer(text)]


def here_strings(script: Script) -> list[str]:
    return [
        _at(n, text_of(n)[:40]) for n in walk(script.root) if "here_string" in n.type and n.child_count == 0
    ]
