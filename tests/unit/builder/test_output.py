"""An ISO replaces neither what it is made from nor what is no file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from rehost_builder.cli import main
from rehost_builder.output import unfit_output


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of media and an archive."""
    folder, archive = tmp_path / "media", tmp_path / "python.zip"
    (folder / "sources").mkdir(parents=True)
    (folder / "sources" / "boot.wim").write_bytes(b"the boot image")
    archive.write_bytes(b"the archive")
    return folder, archive


def test_what_is_read_is_not_replaced(tmp_path: Path, inputs: tuple[Path, Path]) -> None:
    folder, archive = inputs
    hard, soft = tmp_path / "hard.iso", tmp_path / "soft.iso"
    hard.hardlink_to(archive)
    soft.symlink_to(archive)
    for output in (archive, hard, soft):
        assert "is the source itself" in (unfit_output(output, inputs) or ""), output
    assert "is a file of the source" in (unfit_output(folder / "sources" / "boot.wim", inputs) or "")


def test_other_files_may_be_replaced(tmp_path: Path, inputs: tuple[Path, Path]) -> None:
    folder, _ = inputs
    other = tmp_path / "old.iso"
    other.write_bytes(b"of last week")
    earlier = folder / "rehost.iso"
    earlier.write_bytes(bytes(16 * 2048 + 40) + b"REHOST-WINPE".ljust(2048))
    for output in (other, tmp_path / "new.iso", folder / "new.iso", earlier):
        assert unfit_output(output, (*inputs, tmp_path / "absent")) is None, output


def test_a_device_is_no_place_for_an_iso(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "rehost usb" in (unfit_output(pipe, ()) or "")
    assert "is a device" in (unfit_output(Path(os.devnull), ()) or "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--media", "{media}", "-o", "{media}/sources/boot.wim"),
        ("--media", "{media}", "--python-embed", "{archive}", "-o", "{archive}"),
        ("--media", "{media}", "--drivers", "{archive}", "-o", "{archive}"),
        ("--drivers", "{archive}", "-o", "{archive}"),
        ("--offline", "-o", "{pipe}"),
    ],
)
def test_the_command_refuses_before_it_begins(
    tmp_path: Path, inputs: tuple[Path, Path], arguments: tuple[str, ...]
) -> None:
    folder, archive = inputs
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    before = sorted(tmp_path.rglob("*"))
    words = [word.format(media=folder, archive=archive, pipe=pipe) for word in arguments]

    result = CliRunner().invoke(main, ["build", "--cache", str(tmp_path / "cache"), *words])

    assert result.exit_code == 2, result.output
    assert "Invalid value for -o" in result.output
    assert sorted(tmp_path.rglob("*")) == before
    assert pipe.is_fifo()
    assert archive.read_bytes() == b"the archive"
    assert (folder / "sources" / "boot.wim").read_bytes() == b"the boot image"
