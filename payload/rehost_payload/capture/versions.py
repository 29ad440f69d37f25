"""Which Windows Server runs machines of which configuration version (Microsoft's table of supported versions)."""

from __future__ import annotations

HOSTS: tuple[tuple[str, int, int], ...] = (
    ("2016", 0x0500, 0x0800),
    ("2019", 0x0500, 0x0900),
    ("2022", 0x0800, 0x0A00),
    ("2025", 0x0800, 0x0C00),
)
"""Release, lowest and highest version (major << 8 | minor). Between 5.0 and 8.0 lie previews only."""


def hosts_for(version: int) -> tuple[str, ...]:
    """The releases of Windows Server that take a machine of this version."""
    return tuple(name for name, low, high in HOSTS if low <= version <= high)


def refused_by(version: int) -> tuple[str, ...]:
    """Those of today's releases that refuse it."""
    return tuple(name for name, low, high in HOSTS if not low <= version <= high and name in ("2022", "2025"))
