"""The judge of a repair shares no code with what finds faults, plans and writes: a fault in one would hide in the other."""

from __future__ import annotations

import ast
from pathlib import Path

import rehost_payload

PAYLOAD = Path(rehost_payload.__file__).parent
JUDGE = "rehost_payload.repair.verify"
MAY_NOT = (
    "drivers",
    "repair.rules",
    "repair.driver_match",
    "repair.diagnose",
    "repair.plan",
    "repair.apply",
    "system",
)


def place(module: str) -> Path | None:
    path = PAYLOAD.joinpath(*module.split(".")[1:])
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def imports(module: str) -> set[str]:
    """Modules of the payload that ``module`` imports itself, wherever in its text."""
    path = place(module)
    assert path is not None, module
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
    return {m for m in found if m.startswith("rehost_payload.") and place(m) is not None}


def closure(module: str) -> set[str]:
    seen, todo = set(), {module}
    while todo:
        seen |= todo
        todo = set().union(*(imports(m) for m in todo)) - seen
    return seen


def test_the_judge_shares_no_code_with_what_writes() -> None:
    reached = {m.removeprefix("rehost_payload.") for m in closure(JUDGE)}
    assert {"repair.verify_drivers", "survey.drivers_model"} <= reached
    assert {m for m in reached if any(m == b or m.startswith(f"{b}.") for b in MAY_NOT)} == set()


def test_what_is_forbidden_exists() -> None:
    """So that a module which is renamed does not get out of sight."""
    assert [m for m in MAY_NOT if place(f"rehost_payload.{m}") is None] == []
