"""``python -m rehost_payload``: on the recovery medium this is the command ``rehost``."""

from __future__ import annotations

import sys

from rehost_payload.interrupts import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _load() -> Callable[[], int]:
    if sys.argv[1:] == ["menu"]:  # the start of the server: without click, half a second sooner
        from rehost_payload.ui.menu import start

        return start
    from rehost_payload.ui.cli import main

    return main


def main() -> None:
    # the menu takes Ctrl-C for "back", but must end with its terminal
    run(_load, polite=sys.argv[1:2] not in ([], ["menu"]))


if __name__ == "__main__":
    main()
