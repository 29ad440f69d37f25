"""What is said when something failed that nobody foresaw."""

from __future__ import annotations

from pathlib import Path

from rehost_payload.ui.texts import Texts

LOG = "error.log"


def fault(error: BaseException, texts: Texts, folder: Path) -> list[str]:
    """Lines for the operator. Refusals of the operating system have a text; for the rest there is a log."""
    from rehost_payload.system.protocol import SystemError_

    if isinstance(error, SystemError_):
        key = f"error.{error.code}"
        return [texts("menu.failed", reason=texts(key) if texts.has(key) else error.code), error.detail]
    lines = [texts("menu.failed", reason=f"{type(error).__name__}: {error}"), texts("error.internal")]
    import traceback

    try:
        with (folder / LOG).open("a") as file:
            traceback.print_exception(error, file=file)
        lines.append(str(folder / LOG))
    except OSError:
        pass
    return lines
