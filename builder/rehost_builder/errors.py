"""The one error the builder shows to the administrator."""

from __future__ import annotations


class BuildError(Exception):
    """Nothing was built. ``message`` names the cause in one sentence, ``hint`` the next step."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(message)


class DeclinedError(BuildError):
    """Nobody has confirmed; nothing was written."""

    exit_code = 4


class BlockedError(BuildError):
    """The target is not fit, or is in use; nothing was written."""

    exit_code = 5
