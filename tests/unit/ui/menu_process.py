"""A program that the tests start on a terminal of their own: the menu over disk images.

usage: menu_process.py ROOT STATE main|other IMAGE...    ROOT is a made-up / with etc/os-release and proc/cmdline.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

TESTS = Path(__file__).parents[2]
sys.path.insert(0, str(TESTS))

from rehost_payload.system.host import Host  # noqa: E402
from rehost_payload.ui.console import Console  # noqa: E402
from rehost_payload.ui.menu import Menu  # noqa: E402
from support.image_system import ImageMachine  # noqa: E402


class RecordingHost(Host):
    """Does not switch the tester's machine off."""

    def power(self, how: str) -> None:
        (self.root / "power").write_text(how)

    def shell(self) -> None:
        (self.root / "shell").write_text(os.environ["REHOST_LANG"])


class PressedConsole(Console):
    """``order``, a file, holds some words: Ctrl-C is pressed when they are to be written, once."""

    order: Path

    def write(self, text: str) -> None:
        if self.order.exists() and self.order.read_text() in text:
            self.order.unlink()
            raise KeyboardInterrupt
        super().write(text)


def main() -> int:
    root, state, role, *images = sys.argv[1:]
    console = PressedConsole()
    console.order = Path(root) / "pressed"

    def fail(what: str, where: str) -> None:
        """ROOT/fail holds "kind path-ending": that write is answered as if Ctrl-C had been pressed."""
        order = Path(root) / "fail"
        kind, _, ending = order.read_text().partition(" ") if order.exists() else ("", "", "")
        if kind and what == kind and where.lower().endswith(ending.lower()):
            order.unlink()
            raise KeyboardInterrupt

    def make_system() -> ImageMachine:
        return ImageMachine([Path(i) for i in images], fail=fail)

    return Menu(
        console, make_system, RecordingHost(Path(root)), folder=Path(state), main=role == "main"
    ).run()


if __name__ == "__main__":
    sys.exit(main())
