"""`rehost hyperv`: looks at the files of Hyper-V, wherever they lie."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import click

from rehost_payload.ui.exit_codes import FAILED
from rehost_payload.ui.lazy import Lazy
from rehost_payload.ui.paths import InputPath


@dataclass(frozen=True)
class _FileSource:
    file: BinaryIO
    size: int

    def read_at(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        self.file.seek(offset)
        return self.file.read(length)


@click.group()
def hyperv() -> None:
    """Look at a Hyper-V host that is not running, and at its files: configurations, states, virtual disks.

    \b
    Examples:
      rehost hyperv list --image system.img --image array.img
      rehost hyperv show "Virtual Machines/993F7B33-6057-4D1E-A1FE-A1A1D77BE974.vmcx"
    """


hyperv.add_command(
    Lazy("list", "rehost_payload.ui.hyperv_list:list_", "Show the virtual machines on a host's disks.")
)


@hyperv.command(short_help="Print a file of Hyper-V: configuration, state, list of machines, disk.")
@click.argument("file", type=InputPath())
@click.option("--json", "json_", is_flag=True, help="Machine-readable output.")
@click.option("--tree", is_flag=True, help="Every value of a configuration, understood or not.")
def show(file: Path, json_: bool, tree: bool) -> None:
    """Print a configuration (.vmcx, .xml), state (.vmrs), the list data.vmcx or a virtual disk. Nothing is changed.

    What was not written to its place when the host lost power is applied in memory. Virtual disks (.vhdx, .avhdx,
    .vhd, .avhd) are checked, but their contents are not read.

    Exit code 1: the file cannot be read, or it is damaged; what could be read of it is printed all the same.

    \b
    Examples:
      rehost hyperv show data.vmcx
      rehost hyperv show --tree "Snapshots/1B3D1A2C-0000-4000-8000-000000000001.vmcx"
      rehost hyperv show --json disk.avhdx | jq .content.parent
    """
    from rehost_payload.formats.errors import FormatError
    from rehost_payload.ui.hyperv_show import as_json, as_text, plain, read_file

    try:
        with file.open("rb") as opened:
            shown = read_file(str(file), _FileSource(opened, opened.seek(0, os.SEEK_END)))
    except OSError as e:
        click.echo(f"rehost: {plain(str(file))}: {e.strerror or e}", err=True)
        sys.exit(FAILED)
    except FormatError as e:
        click.echo(f"rehost: {plain(f'{file}: {e}')}", err=True)
        sys.exit(FAILED)
    if json_:
        click.echo(json.dumps(as_json(shown, tree), indent=2, ensure_ascii=True, allow_nan=False))
    else:
        # a serial console may know ASCII only: question marks are better than a traceback there
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        for line in as_text(shown, tree):
            click.echo(line.encode(encoding, "replace").decode(encoding))
    if shown.problems:
        sys.exit(FAILED)
