"""How a run ends for the shell: a word, and the exit code that scripts see."""

from __future__ import annotations

from rehost_payload.repair.model import Diagnosis, ResultWord, Severity, Verdict

EXIT: dict[ResultWord, int] = {
    ResultWord.HEALTHY: 0,
    ResultWord.REPAIRED: 0,
    ResultWord.PLANNED: 0,
    ResultWord.UNDONE: 0,
    ResultWord.CAPTURED: 0,
    ResultWord.FAILED: 1,
    ResultWord.NOT_REPAIRED: 3,
    ResultWord.INCOMPLETE: 3,
    ResultWord.DECLINED: 4,
    ResultWord.CHOICE_NEEDED: 4,
    ResultWord.BLOCKED: 5,
}


def word_of(diagnosis: Diagnosis) -> ResultWord:
    """The word for a diagnosis after which nothing is done."""
    if diagnosis.healthy:
        return ResultWord.HEALTHY
    if diagnosis.question:
        return ResultWord.CHOICE_NEEDED
    if any(f.severity is Severity.BLOCKER for f in diagnosis.findings):
        return ResultWord.BLOCKED
    return ResultWord.NOT_REPAIRED


def exit_of_verdict(verdict: Verdict) -> int:
    """Only PASS is success: UNKNOWN means that nobody has seen it work."""
    return 0 if verdict is Verdict.PASS else EXIT[ResultWord.NOT_REPAIRED]
