"""The lock and the check of the packages against it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from rehost_builder.debian.apt import Candidate
from rehost_builder.debian.lock import Lock, newest_date, read_lock, wrong_packages
from rehost_builder.errors import BuildError


def _package(folder: Path, name: str, date: int) -> Candidate:
    header = (
        b"!<arch>\n"
        + b"debian-binary".ljust(16)
        + str(date).encode().ljust(12)
        + b"0     0     100644  4         `\n2.0\n"
    )
    (folder / f"{name}_1_amd64.deb").write_bytes(header)
    return Candidate(
        name,
        "1",
        "amd64",
        f"{name}_1_amd64.deb",
        len(header),
        hashlib.sha256(header).hexdigest(),
        f"{name} 1",
    )


def test_round_trip(tmp_path: Path) -> None:
    lock = Lock("trixie", "linux-image-6", (_package(tmp_path, "a", 5), _package(tmp_path, "b", 7)))
    (tmp_path / "lock.json").write_text(lock.text())
    assert read_lock(tmp_path / "lock.json") == lock
    assert [p.name for p in lock.only(["b", "c"])] == ["b"]


def test_missing_changed_and_cut_packages_are_found(tmp_path: Path) -> None:
    good, changed, cut, gone = (_package(tmp_path, name, 5) for name in ("good", "changed", "cut", "gone"))
    data = bytearray((tmp_path / changed.file).read_bytes())
    data[-1] ^= 1
    (tmp_path / changed.file).write_bytes(data)
    (tmp_path / cut.file).write_bytes(data[:-2])
    (tmp_path / gone.file).unlink()
    assert wrong_packages([good, changed, cut, gone], tmp_path) == [changed.file, cut.file, gone.file]


def test_the_mediums_date_is_the_newest_packages(tmp_path: Path) -> None:
    packages = [_package(tmp_path, "a", 1_700_000_000), _package(tmp_path, "b", 1_600_000_000)]
    assert newest_date(packages, tmp_path) == 1_700_000_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": 9}',
        '{"format": 1, "suite": "x", "kernel": "k"}',
        '{"format": 1, "packages": [1]}',
    ],
)
def test_what_is_no_lock_is_refused_with_a_way_on(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lock.json"
    path.write_text(text)
    with pytest.raises(BuildError) as error:
        read_lock(path)
    assert "lock" in error.value.message
    assert "online" in error.value.hint


def test_no_lock_at_all(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no package lock"):
        read_lock(tmp_path / "lock.json")


def test_file_names_in_a_lock_stay_in_the_cache(tmp_path: Path) -> None:
    evil = replace(_package(tmp_path, "a", 5), file="../../etc/x.deb")
    path = tmp_path / "lock.json"
    path.write_text(Lock("trixie", "k", (evil,)).text())
    with pytest.raises(BuildError, match="file name"):
        read_lock(path)
    assert json.loads(path.read_text())["packages"]
