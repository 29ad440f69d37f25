"""How a run ends for the shell: a word, and the exit code that scripts see."""

from __future__ import annotations

from rehost_payload.repair.model import Diagnosis, ResultWord, Severity, Verdict

EXIT: dict[ResultWord, int] = {
    ResultWord.HEALTHY: 0,
    ResultWord.REPAIRED: 0,
    ResultWord.PLANNED: 0,
    ResultWord.UNDONE: 0,
    ResultWord.FAILED: 1,
    ResultWord.NOT_REPAIRED: 3,
    ResultWord.DECLINED: 4,
    ResultWord.CHOICE_NEEDED: 4,
    ResultWord.BLOCKED: 5,
}
FAILED = 1
USAGE = 2
INTERRUPTED = 130

EXIT_HELP = """\b
Exit codes:
  0    healthy, repaired, planned or undone
  1    an error stopped the run; what was written was taken back
  2    the command line or the answer file is wrong; nothing was run
  3    findings remain, or the verification did not pass
  4    not confirmed, or a choice is needed; nothing was written
  5    blocked (hibernated, BitLocker, ...); nothing was written
  130  interrupted with Ctrl-C
"""


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
