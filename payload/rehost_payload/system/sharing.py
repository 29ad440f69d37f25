"""Volumes are mounted once, however many blocks use them at the same time."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass
class _Entry(Generic[V]):
    """``users`` counts the blocks around it."""

    value: V
    stack: ExitStack
    users: int = 0


class Shared(Generic[K, V]):
    """What is open now, by its key."""

    def __init__(self) -> None:
        self._open: dict[K, _Entry[V]] = {}

    @contextmanager
    def use(self, key: K, opened: Callable[[], AbstractContextManager[V]]) -> Iterator[V]:
        """What is open under this key, or what ``opened`` opens; the last of its users closes it."""
        entry = self._open.get(key)
        if entry is None:
            stack = ExitStack()
            with stack:
                value = stack.enter_context(opened())
                entry = self._open[key] = _Entry(value, stack.pop_all())
        entry.users += 1
        try:
            yield entry.value
        finally:
            entry.users -= 1
            if entry.users == 0:
                del self._open[key]
                entry.stack.close()
