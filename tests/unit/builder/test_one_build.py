"""Two builds with one cache: the second waits, because apt's lists are one state that is written in place."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path

from rehost_builder.debian.build import only_build
from rehost_builder.progress import Progress


def test_the_second_build_waits_and_says_so(tmp_path: Path) -> None:
    order: list[str] = []
    said = io.StringIO()

    def second() -> None:
        with only_build(tmp_path, Progress({}, stream=said)):
            order.append("second")

    with only_build(tmp_path, Progress({}, quiet=True)):
        thread = threading.Thread(target=second)
        thread.start()
        deadline = time.monotonic() + 10
        while "waiting" not in said.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert "another build" in said.getvalue()
