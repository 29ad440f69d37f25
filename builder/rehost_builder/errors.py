"""The one error the builder shows to the administrator."""

from __future__ import annotations


class BuildError(Exception):
    """Nothing was built. ``message`` names the cause in one sentence, ``hint`` the next step."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(message)
