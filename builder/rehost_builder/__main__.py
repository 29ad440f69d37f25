"""The command ``rehost`` of a workstation, also as ``python -m rehost_builder``."""

from __future__ import annotations

from rehost_payload.interrupts import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _load() -> Callable[[], None]:
    from rehost_builder.cli import main

    return main


def main() -> None:
    run(_load)


if __name__ == "__main__":
    main()
