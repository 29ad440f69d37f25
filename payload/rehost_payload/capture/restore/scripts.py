"""The restore scripts, which are the same for every capture: nothing of a capture is ever put into their text."""

from __future__ import annotations

from importlib import resources

GUARDIAN = "Export-Guardian.ps1"
"""For the old host while it still runs: it lies on the medium as well."""

NAMES = ("Restore-Host.ps1", "Restore-VM.ps1", GUARDIAN)


def scripts() -> dict[str, bytes]:
    """Each script by its name, in ASCII with the line ends of Windows."""
    folder = resources.files(__package__) / "powershell"
    return {name: _windows((folder / name).read_bytes()) for name in NAMES}


def _windows(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
