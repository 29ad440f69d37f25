"""plan: the writes that would remedy what was diagnosed. A pure function of a survey and the operator's choices."""

from __future__ import annotations

from rehost_payload.repair.assess import assess
from rehost_payload.repair.model import Choices, Plan
from rehost_payload.survey.model import Survey


def plan(survey: Survey, choices: Choices | None = None) -> Plan:
    """What a repair would write, in order. Nothing while something blocks (hibernation, BitLocker, no room)."""
    assessment = assess(survey, choices)
    return Plan((), ()) if assessment.blocked else assessment.plan
