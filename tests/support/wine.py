"""Runs the real CPython for Windows under Wine (Debian's package wine64), which CI has too.

`run_python(folder, args)` starts the python.exe of a folder: the runtime of support/windows_python.py, `medium()` with
the payload beside it, or what was taken out of a built boot image.
"""

from __future__ import annotations

import compileall
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from importlib import util
from pathlib import Path

from support import windows_python
from support.windows_python import Unavailable

_WINE = Path("/usr/lib/wine/wine64")
_SERVER = Path("/usr/lib/wine/wineserver64")
_PATIENCE = (
    900.0  # seconds; a folder for Wine is made in about 12, but not by a computer that is slow and busy
)
PAYLOAD = Path(__file__).parents[2] / "payload"
_held: list[subprocess.Popen[bytes]] = []
NEEDED = ("click", "jinja2", "markupsafe")
"""What the payload's ui imports."""


@functools.cache
def missing() -> str | None:
    """Why nothing can be run here, or None."""
    if not _WINE.exists():
        return "Wine is not installed (package wine64; tools/setup.sh test)"
    try:
        windows_python.runtime()
        _prefix()
    except Unavailable as e:
        return str(e)
    return None


def _environment(prefix: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")}
    wine = {"WINEPREFIX": str(prefix), "WINEARCH": "win64", "WINEDEBUG": "-all", "WINESERVER": str(_SERVER)}
    # no windows of installers for what Wine would like to have besides
    return {**kept, **wine, "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe="}


@functools.cache
def _prefix() -> Path:
    """Wine's own folder (registry, C:), made once for each version of Wine. Raises Unavailable."""
    version = subprocess.run([_WINE, "--version"], capture_output=True, text=True, check=False).stdout.split()
    target = windows_python.cache() / f"prefix-{version[0] if version else 'unknown'}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder, "prefix")
            done = subprocess.run(
                [_WINE, "wineboot", "--init"],
                env=_environment(made),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_PATIENCE,
                check=False,
            )
            subprocess.run([_SERVER, "-w"], env=_environment(made), timeout=_PATIENCE, check=False)
            if done.returncode or not (made / "system.reg").exists():
                raise Unavailable(
                    f"Wine could not make its folder: wineboot ended with code {done.returncode}"
                )
            try:
                made.rename(target)
            except OSError:  # another process was quicker
                if not target.is_dir():
                    raise
    _keep_running(target)
    return target


def _keep_running(prefix: Path) -> None:
    """Starts a program that waits for the end of its input, which comes with our own end: as long as one program
    runs, Wine's services run. The first program starts them, and they keep its pipes open."""
    quiet = subprocess.DEVNULL
    _held.append(
        subprocess.Popen(
            [_WINE, "cmd.exe"], env=_environment(prefix), stdin=subprocess.PIPE, stdout=quiet, stderr=quiet
        )
    )
    subprocess.run(
        [_WINE, "cmd.exe", "/c", "exit"],
        env=_environment(prefix),
        stdin=quiet,
        stdout=quiet,
        stderr=quiet,
        timeout=_PATIENCE,
        check=False,
    )


def run(
    program: Path | str,
    args: Sequence[str | Path] = (),
    *,
    stdin: bytes = b"",
    timeout: float = _PATIENCE,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """A Windows program with pipes for its three streams. Paths among ``args`` are given as Windows names them."""
    arguments = [windows_path(a) if isinstance(a, Path) else a for a in args]
    return subprocess.run(
        [_WINE, str(program), *arguments],
        input=stdin,
        capture_output=True,
        timeout=timeout,
        cwd=cwd,
        env={**_environment(_prefix()), **(env or {})},
        check=False,
    )


def run_python(
    folder: Path,
    args: Sequence[str | Path],
    *,
    stdin: bytes = b"",
    timeout: float = _PATIENCE,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """The python.exe in ``folder``, isolated (-I), as the medium starts it."""
    return run(folder / "python.exe", ["-I", *args], stdin=stdin, timeout=timeout, env=env, cwd=folder)


def windows_path(path: Path) -> str:
    """Wine shows the whole machine as drive Z:."""
    return "Z:" + str(path.resolve()).replace("/", "\\")


def drive_c() -> Path:
    return _prefix() / "drive_c"


def medium(target: Path) -> Path:
    """A folder as on the medium: the runtime, the payload, and what it imports, all reached through the `._pth`."""
    shutil.copytree(windows_python.runtime(), target)
    skip = shutil.ignore_patterns("__pycache__", "*.so", "*.pyi")
    shutil.copytree(PAYLOAD / "rehost_payload", target / "rehost_payload", ignore=skip)
    for name in NEEDED:
        spec = util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        shutil.copytree(Path(spec.origin).parent, target / name, ignore=skip)
    for name in ("rehost_payload", *NEEDED):  # compiling under Wine would take most of the time
        compileall.compile_dir(target / name, quiet=1, stripdir=str(target))
    return target
