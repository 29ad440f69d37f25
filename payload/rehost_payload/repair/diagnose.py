"""diagnose: what is wrong with the boot of a machine. A pure function of a survey and the operator's choices."""

from __future__ import annotations

from rehost_payload.repair.assess import assess
from rehost_payload.repair.model import Choices, Diagnosis, Severity
from rehost_payload.survey.model import Survey


def diagnose(survey: Survey, choices: Choices | None = None) -> Diagnosis:
    """The findings, worst first. ``question`` names a choice that a repair of something fatal waits for."""
    assessment = assess(survey, choices)
    findings = tuple(i.finding for i in assessment.issues)
    asked = [i.question for i in assessment.issues if i.question and i.finding.severity is Severity.FATAL]
    grave = (Severity.FATAL, Severity.BLOCKER)
    healthy = not any(f.repairable or f.undecided or f.severity in grave for f in findings)
    return Diagnosis(
        findings,
        healthy,
        asked[0].what if asked else None,
        asked[0].candidates if asked else (),
    )
