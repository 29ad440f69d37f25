"""Tables that are printed together after all tests: what was measured or judged."""

from __future__ import annotations

from collections.abc import Iterator


class Table:
    """Rows of text under a title; the first row names the columns."""

    def __init__(self, title: str, columns: tuple[str, ...]) -> None:
        self.title = title
        self.rows: list[tuple[str, ...]] = [columns]

    def add(self, *cells: object) -> None:
        """Raises ValueError where the number of cells is not that of the columns."""
        if len(cells) != len(self.rows[0]):
            raise ValueError(f"{len(cells)} cells for {len(self.rows[0])} columns")
        self.rows.append(tuple(str(cell) for cell in cells))

    @property
    def empty(self) -> bool:
        return len(self.rows) == 1

    def lines(self) -> Iterator[str]:
        widths = [max(len(row[i]) for row in self.rows) for i in range(len(self.rows[0]))]
        for row in self.rows:
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


VERDICTS = Table(
    "what Microsoft's boot manager says", ("boot manager", "case", "before", "after repair", "s")
)
RUNS = Table("unattended runs", ("case", "result", "to start s", "to result s", "to off s"))
CUTS = Table("power cuts", ("case", "cuts", "found", "window s"))
DRIVERS = Table(
    "boot disk behind another controller, in real SYSTEM hives",
    ("hive", "controller", "before", "finding", "what was done", "after", "driver"),
)
ALL = (RUNS, CUTS, VERDICTS, DRIVERS)
"""In the order in which they are printed."""
