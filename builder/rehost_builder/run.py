"""The one place where the builder starts other programs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from rehost_builder.errors import BuildError


def require(program: str, package: str) -> str:
    """The path of a host program; raises BuildError naming the package that has it."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    found = shutil.which(program, path=path)
    if found is None:
        raise BuildError(f"the program {program} is missing on this machine", f"apt-get install {package}")
    return found


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str | None] | None = None,
    what: str,
    hint: str = "",
    stdout: Path | None = None,
    cwd: Path | None = None,
) -> str:
    """Runs a program to its end and returns its standard output (nothing, if it goes to a file).

    ``env`` is added to the environment, which is otherwise the caller's with messages in English; a variable
    that is None is taken out.
    Raises BuildError "``what``: <the program's last words>" when it fails. Ctrl-C ends the program too.
    """
    changed = {**os.environ, "LC_ALL": "C", "LANGUAGE": "C", **(env or {})}
    environment = {name: value for name, value in changed.items() if value is not None}
    try:
        if stdout is None:
            done = subprocess.run(
                [str(a) for a in argv],
                env=environment,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                capture_output=True,
            )
        else:
            with stdout.open("wb") as out:
                done = subprocess.run(
                    [str(a) for a in argv],
                    env=environment,
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.PIPE,
                )
    except OSError as e:
        raise BuildError(f"{what}: {argv[0]} cannot be started: {e.strerror}", hint) from None
    if done.returncode:
        raise BuildError(f"{what}: {last_words(done.stderr, done.returncode)}", hint)
    return (done.stdout or b"").decode("utf-8", "replace")


_ECHOES = ("Some index files failed", "Exiting with error code")
"""What apt and wimlib say after the cause."""


def last_words(stderr: bytes, returncode: int) -> str:
    """The lines of a failed program that say why: its errors if it marks them, else its last three lines."""
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    marked = [line for line in lines if line.startswith(("E:", "Err:", "error", "ERROR", "[ERROR]"))]
    marked = [line for line in marked if not any(echo in line for echo in _ECHOES)]
    chosen = list(dict.fromkeys(marked))[:2] or lines[-3:]
    return "; ".join(chosen) if chosen else f"ended with code {returncode} and said nothing"
