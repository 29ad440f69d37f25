"""A volume read through the system's own files: names without case, links, what has no bytes, errors."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from rehost_payload.formats.filesystem import FileStat, UnreadableFile
from rehost_payload.system import win_files
from rehost_payload.system.win32 import VolumeFacts
from rehost_payload.system.win_files import WindowsFiles

FACTS = VolumeFacts("VMs", 0x1A2B3C4D, 0, "ReFS")


class NoRights:
    def security(self, path: str) -> bytes | None:
        return None


@pytest.fixture
def volume(tmp_path: Path) -> WindowsFiles:
    (tmp_path / "VMs").mkdir()
    (tmp_path / "VMs" / "web.vhdx").write_bytes(b"0123456789")
    (tmp_path / "VMs" / "again.vhdx").symlink_to("web.vhdx")
    return WindowsFiles(NoRights(), f"{tmp_path}/", FACTS, "/")


def test_names_are_found_without_case_and_told_as_they_are(volume: WindowsFiles) -> None:
    assert volume.stat("\\vms\\WEB.VHDX") == FileStat("web.vhdx", False, 10)
    assert volume.exact_path("\\vms\\WEB.VHDX") == "\\VMs\\web.vhdx"
    assert volume.stat("\\vms\\none") is None
    assert volume.stat("\\vms\\web.vhdx\\below") is None
    assert volume.is_directory("\\")
    assert (volume.kind, volume.label, volume.serial) == ("refs", "VMs", "1A2B3C4D")


def test_what_is_no_file(volume: WindowsFiles) -> None:
    with pytest.raises(IsADirectoryError):
        volume.open("\\VMs")
    with pytest.raises(NotADirectoryError):
        volume.listdir("\\VMs\\web.vhdx")
    with pytest.raises(FileNotFoundError):
        volume.open("\\VMs\\none")
    assert volume.metadata("\\none") is None


def test_links_are_not_followed(volume: WindowsFiles) -> None:
    assert volume.link_target("\\VMs\\again.vhdx") == "web.vhdx"
    assert volume.link_target("\\VMs\\web.vhdx") is None
    with pytest.raises(UnreadableFile, match="reparse"):
        volume.open("\\VMs\\again.vhdx")
    found = volume.metadata("\\VMs\\again.vhdx")
    assert found is not None
    assert found.unreadable == "reparse"


def test_reading_ends_with_the_file(volume: WindowsFiles) -> None:
    source = volume.open("\\VMs\\web.vhdx")
    assert (source.size, source.read_at(8, 10), source.read_at(10, 1), source.read_at(99, 1)) == (
        10,
        b"89",
        b"",
        b"",
    )


@pytest.mark.parametrize(
    ("windows", "code"),
    [(23, errno.EIO), (1117, errno.EIO), (1167, errno.ENODEV), (21, errno.ENODEV)],  # bad CRC, I/O, unplugged
)
def test_errors_of_windows_are_told_as_what_they_are(
    volume: WindowsFiles, monkeypatch: pytest.MonkeyPatch, windows: int, code: int
) -> None:
    """Python takes the error of a bad sector for a refused permission."""

    class Refused(OSError):
        winerror = windows

    def fail(*_: object) -> bytes:
        raise Refused(errno.EACCES, "as Windows says it")

    source = volume.open("\\VMs\\web.vhdx")
    monkeypatch.setattr(win_files.os, "read", fail)
    with pytest.raises(OSError, match="as Windows says it") as error:
        source.read_at(0, 10)
    assert error.value.errno == code


def test_a_volume_that_is_gone(volume: WindowsFiles, tmp_path: Path) -> None:
    source = volume.open("\\VMs\\web.vhdx")
    (tmp_path / "VMs" / "web.vhdx").unlink()
    with pytest.raises(OSError, match=r"web\.vhdx"):
        source.read_at(0, 1)
