"""Runs programs of the image (or of the tool packages) on the host, with the image's own C library.

So the host needs no depmod, no mksquashfs and no equal Python, and every host makes the same bytes.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from rehost_builder.errors import BuildError
from rehost_builder.run import run

_LIBRARIES = "usr/lib/x86_64-linux-gnu"


class Guest:
    def __init__(self, root: Path, tools: Path) -> None:
        if platform.machine() not in ("x86_64", "AMD64"):
            raise BuildError(
                f"the Debian base is put together by amd64 programs, and this machine is {platform.machine()}",
                "build on an amd64 machine",
            )
        self._root = root
        self._tools = tools

    def run(
        self,
        program: str,
        *arguments: str | Path,
        name: str = "",
        env: Mapping[str, str | None] | None = None,
        what: str,
        stdout: Path | None = None,
    ) -> str:
        """Runs ``program`` (a path below the root or the tools), called ``name`` if that matters to it.

        Returns its standard output unless that goes to the file ``stdout``. Raises BuildError if it fails.
        """
        path = self._root / program
        if not path.exists():
            path = self._tools / program
        loader = self._root / _LIBRARIES / "ld-linux-x86-64.so.2"
        libraries = f"{self._root / _LIBRARIES}:{self._tools / _LIBRARIES}"
        argv = [loader, "--argv0", name or program, "--library-path", libraries, path, *arguments]
        return run(argv, env=env, what=what, stdout=stdout)
