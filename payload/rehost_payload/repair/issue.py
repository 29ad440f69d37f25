"""A finding together with what would remedy it: what rules yield, and what diagnose and plan are made from."""

from __future__ import annotations

from dataclasses import dataclass

from rehost_payload.formats.hive import HiveEdit
from rehost_payload.repair.model import Action, Finding


@dataclass(frozen=True)
class StoreFix:
    """Elements of a store get new values; everything else in it stays as it is."""

    store: str
    edits: tuple[HiveEdit, ...]


@dataclass(frozen=True)
class SettleFix:
    """The store is made clean: its logs are applied and go, or it had none and only its header is put right."""

    store: str


@dataclass(frozen=True)
class Question:
    """The operator must say which one is meant, before the finding it belongs to can be remedied."""

    what: str  # "windows" or "system-volume"
    candidates: tuple[str, ...]


Fix = StoreFix | SettleFix | Action


@dataclass(frozen=True)
class Issue:
    finding: Finding
    fixes: tuple[Fix, ...] = ()
    question: Question | None = None
