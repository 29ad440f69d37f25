"""Two builds with one cache: the second waits, because apt's lists are one state that is written in place."""

from __future__ import annotations

import io
import threading
from pathlib import Path

from rehost_builder.debian.build import only_build
from rehost_builder.progress import Progress


class Said(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.waiting = threading.Event()

    def write(self, text: str) -> int:
        count = super().write(text)
        if "waiting" in self.getvalue():
            self.waiting.set()
        return count


def test_the_second_build_waits_and_says_so(tmp_path: Path) -> None:
    order: list[str] = []
    said = Said()

    def second() -> None:
        with only_build(tmp_path, Progress({}, stream=said)):
            order.append("second")

    with only_build(tmp_path, Progress({}, quiet=True)):
        thread = threading.Thread(target=second)
        thread.start()
        assert said.waiting.wait(300)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert "another build" in said.getvalue()
