"""The writer of WinPE media: many files, and a file that changes under its hands."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from rehost_builder.media import udf
from rehost_builder.media.iso_reader import open_iso
from rehost_builder.media.udf import BootEntries, write_winpe_iso

BOOT = BootEntries(bytes(4096), None)


def test_more_files_than_may_be_open(tmp_path: Path) -> None:
    files = {f"folder{n % 7}/file{n}": tmp_path / f"file{n}" for n in range(400)}
    for number, path in enumerate(files.values()):
        path.write_bytes(number.to_bytes(2, "little") * number)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        write_winpe_iso(tmp_path / "a.iso", dict(files), BOOT, label="MANY", epoch=1_700_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with (tmp_path / "a.iso").open("rb") as f:
        image = open_iso(f)
        found = {p: image.content(x) for p, x in image.best.files.items() if p != "boot.cat"}
    assert found == {name: path.read_bytes() for name, path in files.items()}


def test_a_file_that_becomes_shorter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "boot.wim"
    source.write_bytes(bytes(5 << 20))
    real = udf.open_content

    def shrink(content: object) -> object:
        source.write_bytes(bytes(1 << 20))
        return real(content)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(udf, "open_content", lambda c: shrink(c) if c == source else real(c))
        with pytest.raises(OSError, match="shorter"):
            write_winpe_iso(tmp_path / "a.iso", {"boot.wim": source}, BOOT, label="X", epoch=1_700_000_000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["boot.wim"]
