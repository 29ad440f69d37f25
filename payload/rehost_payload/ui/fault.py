"""What is said when something failed that nobody foresaw."""

from __future__ import annotations

import textwrap
from pathlib import Path

from rehost_payload.ui.texts import Texts

LOG = "error.log"
_WIDTH = 76  # columns, with room for a few umlauts that a serial line writes as two letters


def fault(error: BaseException, texts: Texts, folder: Path) -> list[str]:
    """Lines for the operator. Refusals of the operating system have a text; for the rest there is a log."""
    from rehost_payload.system.protocol import SystemError_

    if isinstance(error, SystemError_):
        key = f"error.{error.code}"
        reason = texts(key) if texts.has(key) else error.code
        return _wrapped(texts("menu.failed", reason=reason), error.detail)
    lines = _wrapped(texts("menu.failed", reason=f"{type(error).__name__}: {error}"), texts("error.internal"))
    import traceback

    try:
        with (folder / LOG).open("a") as file:
            traceback.print_exception(error, file=file)
        lines.append(str(folder / LOG))
    except OSError:
        pass
    return lines


def _wrapped(*texts: str) -> list[str]:
    return [line for text in texts for line in textwrap.wrap(text, _WIDTH, break_on_hyphens=False)]
