"""The error of everything in repair that writes."""

from __future__ import annotations

from rehost_payload.repair.model import Note


class ApplyError(Exception):
    """Nothing more is written. ``code`` is a stable word for the texts, ``detail`` what happened.

    ``rolled_back`` is True when everything is as it was before; otherwise the journal still holds the
    originals. ``journal`` says where it is, in words for the operator, once there is one. ``notes`` are those of the run.
    """

    journal: str | None = None
    notes: tuple[Note, ...] = ()

    def __init__(self, code: str, detail: str, rolled_back: bool = True) -> None:
        self.code = code
        self.detail = detail
        self.rolled_back = rolled_back
        super().__init__(f"{code}: {detail}")
