"""The initramfs archive: read back by cpio itself where it is installed, and by a reader written from the format."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from rehost_builder.debian.cpio import Node, nodes_of, write_cpio


def _read_newc(data: bytes) -> dict[str, tuple[int, int, int, bytes]]:
    """name -> (mode, mtime, uid, content), by Documentation/driver-api/early-userspace/buffer-format.rst."""
    entries: dict[str, tuple[int, int, int, bytes]] = {}
    offset = 0
    while True:
        assert data[offset : offset + 6] == b"070701"
        fields = [int(data[offset + 6 + i * 8 : offset + 14 + i * 8], 16) for i in range(13)]
        name = data[offset + 110 : offset + 110 + fields[11] - 1].decode()
        start = offset + 110 + fields[11]
        start += -start % 4
        if name == "TRAILER!!!":
            return entries
        entries[name] = (fields[1], fields[5], fields[2], data[start : start + fields[6]])
        offset = start + fields[6]
        offset += -offset % 4


def _tree(root: Path) -> None:
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/tool").write_bytes(b"#!/bin/sh\n")
    (root / "usr/bin/tool").chmod(0o700)
    (root / "etc").mkdir()
    (root / "etc/empty").write_bytes(b"")
    (root / "etc/passwd").write_bytes(b"root::0:0\n")
    (root / "etc/passwd").chmod(0o600)
    (root / "bin").symlink_to("usr/bin")


def _archive(root: Path, epoch: int = 1_700_000_000) -> bytes:
    out = io.BytesIO()
    length = write_cpio([*nodes_of(root), Node("dev-null", stat.S_IFCHR | 0o666, device=(1, 3))], out, epoch)
    assert length == len(out.getvalue())
    assert length % 512 == 0
    return out.getvalue()


def test_entries_have_normal_modes_and_the_given_date(tmp_path: Path) -> None:
    _tree(tmp_path)
    entries = _read_newc(_archive(tmp_path))
    assert entries["usr/bin/tool"] == (stat.S_IFREG | 0o755, 1_700_000_000, 0, b"#!/bin/sh\n")
    assert entries["etc/passwd"] == (stat.S_IFREG | 0o644, 1_700_000_000, 0, b"root::0:0\n")
    assert entries["bin"] == (stat.S_IFLNK | 0o777, 1_700_000_000, 0, b"usr/bin")
    assert entries["usr"][0] == stat.S_IFDIR | 0o755
    assert entries["etc/empty"][3] == b""
    assert list(entries)[:-1] == sorted(entries.keys() - {"dev-null"})


def test_same_bytes_whatever_umask_order_and_time(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, umask in ((first, 0o022), (second, 0o077)):
        old = os.umask(umask)
        try:
            folder.mkdir()
            _tree(folder)
        finally:
            os.umask(old)
    os.utime(second / "etc/passwd", (1, 1))
    assert _archive(first) == _archive(second)


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_reads_it(tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    root.mkdir()
    out.mkdir()
    _tree(root)
    data = _archive(root)
    listing = subprocess.run(["cpio", "-t", "--quiet"], input=data, capture_output=True, check=True)
    assert listing.stdout.decode().split() == [
        "bin", "etc", "etc/empty", "etc/passwd", "usr", "usr/bin", "usr/bin/tool", "dev-null",
    ]  # fmt: skip
    subprocess.run(["cpio", "-id", "--quiet", "usr*", "etc*", "bin"], input=data, cwd=out, check=True)
    assert (out / "bin/tool").read_bytes() == b"#!/bin/sh\n"
    assert (out / "etc/passwd").read_bytes() == b"root::0:0\n"


def test_of_the_folder_left_out_only_the_folder_is_packed(tmp_path: Path) -> None:
    _tree(tmp_path)
    names = [node.name for node in nodes_of(tmp_path, without="usr")]
    assert names == ["bin", "etc", "etc/empty", "etc/passwd", "usr"]


def test_a_device_among_the_files_is_refused_instead_of_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe"):
        list(nodes_of(tmp_path))
