"""The suite's own promise: the examples of its property tests depend on nothing but the test."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

Drawn = list[tuple[int, bytes]]


def drawn() -> Drawn:
    seen: Drawn = []

    @given(st.integers(), st.binary())
    def look(number: int, data: bytes) -> None:
        seen.append((number, data))

    look()
    return seen


@pytest.mark.skipif(not settings.default.derandomize, reason="new examples were asked for")
def test_examples_are_the_same_whatever_was_loaded_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = drawn()
    assert len(before) == 100
    lines = (f"n{n} = {n * 7919 + 70001}, {b'constant %d' % n}\n" for n in range(500))
    (tmp_path / "some_constants.py").write_text("".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("some_constants")
    assert drawn() == before


def test_no_example_is_timed() -> None:
    assert settings.default.deadline is None
