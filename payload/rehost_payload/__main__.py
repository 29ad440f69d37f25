"""``python -m rehost_payload``: on the recovery medium this is the command ``rehost``."""

from __future__ import annotations

import sys


def main() -> None:
    if sys.argv[1:] == ["menu"]:  # the start of the server: without click, half a second sooner
        from rehost_payload.ui.menu import start

        sys.exit(start())
    from rehost_payload.ui.cli import main as rehost

    rehost()


if __name__ == "__main__":
    main()
