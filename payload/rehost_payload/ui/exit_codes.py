"""The exit codes that belong to no result word, and all of them in words. Imports nothing: --help needs it."""

from __future__ import annotations

FAILED = 1
USAGE = 2
INTERRUPTED = 130

EXIT_HELP = """\b
Exit codes:
  0    healthy, repaired, planned, undone or captured
  1    an error stopped the run; what was written was taken back
  2    the command line or the answer file is wrong; nothing was run
  3    findings remain, the verification did not pass, or a capture is not whole
  4    not confirmed, or a choice is needed; nothing was written
  5    blocked (hibernated, BitLocker, ...); nothing was written
  130  interrupted with Ctrl-C
"""
