"""Disk images of all formats, through a qemu-nbd that never outlives its handle."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import struct
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from rehost_payload.survey import survey_images
from rehost_payload.survey.model import Survey
from rehost_payload.system import images as images_module
from rehost_payload.system.images import ImageSystem, NbdDisk, image_format, open_image
from rehost_payload.system.nbd import NbdClient, NbdError
from rehost_payload.system.protocol import SystemError_
from support import windows
from support.disks import DiskLayout

needs_qemu = pytest.mark.skipif(
    not (shutil.which("qemu-nbd") and shutil.which("qemu-img")), reason="qemu-utils is not installed"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> DiskLayout:
    return windows.gpt_server(tmp_path_factory.mktemp("images") / "server.img")


def convert(server: DiskLayout, target: Path, kind: str, *options: str) -> Path:
    command = ["qemu-img", "convert", "-O", kind, *options, str(server.path), str(target)]
    subprocess.run(command, check=True, capture_output=True)
    return target


def plain(survey: Survey) -> Survey:
    """Without what must differ between two images of one disk."""
    disks = tuple(dataclasses.replace(d, path="", size=0) for d in survey.disks)
    return dataclasses.replace(survey, taken="", disks=disks)


def children() -> set[str]:
    """The processes that this one has started and not yet waited for."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@needs_qemu
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("qcow2", ("-c",)),
        ("vhdx", ()),
        ("vmdk", ()),
        ("vdi", ()),
        ("vpc", ("-o", "force_size=on")),
        ("vpc", ("-o", "subformat=fixed,force_size=on")),
    ],
)
def test_every_format_gives_the_same_survey(
    server: DiskLayout, tmp_path: Path, kind: str, options: tuple[str, ...]
) -> None:
    before = children()
    image = convert(server, tmp_path / f"disk.{kind}", kind, *options)
    assert plain(survey_images([image])) == plain(survey_images([server.path]))
    assert not children() - before
    assert list(tmp_path.glob("rehost-*")) == []


@needs_qemu
def test_reading_across_requests(server: DiskLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rehost_payload.system.nbd._PIECE", 1000)
    disk = open_image(convert(server, tmp_path / "d.qcow2", "qcow2"))
    try:
        with server.path.open("rb") as file:
            for offset, length in ((0, 5000), (1 << 20, 1), (server.size - 3, 10), (server.size + 5, 10)):
                file.seek(offset)
                assert disk.read_at(offset, length) == file.read(length)
    finally:
        disk.close()


@needs_qemu
def test_processes_end_whatever_happens(server: DiskLayout, tmp_path: Path) -> None:
    image = convert(server, tmp_path / "d.qcow2", "qcow2")
    before = children()

    def interrupted() -> None:
        with ImageSystem([image, image]) as system:
            assert len(system.disks()) == 2
            assert len(children() - before) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not children() - before


@needs_qemu
def test_damaged_images_say_so(tmp_path: Path) -> None:
    before = children()
    image = tmp_path / "bad.qcow2"
    image.write_bytes(b"QFI\xfb" + b"\xff" * 4096)
    with pytest.raises(SystemError_) as error:
        survey_images([image])
    assert error.value.code == "image"
    assert str(image) in error.value.detail
    assert not children() - before


def test_missing_tool_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "d.qcow2"
    image.write_bytes(b"QFI\xfb" + bytes(4096))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemError_, match="install qemu-nbd") as error:
        survey_images([image])
    assert error.value.code == "tool-missing"


def test_a_silent_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "qemu-nbd"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(images_module, "_START_SECONDS", 0.3)
    before = children()
    with pytest.raises(SystemError_, match="does not answer"):
        NbdDisk(tmp_path / "x", "qcow2")
    assert not children() - before


@pytest.mark.parametrize("kind", ["absent", "folder", "short"])
def test_what_is_no_image(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "short":
        path.write_bytes(b"x" * 100)
    with pytest.raises(SystemError_) as error:
        survey_images([path])
    assert error.value.code == "image"


def test_one_bad_image_of_two_is_a_problem(server: DiskLayout, tmp_path: Path) -> None:
    found = survey_images([tmp_path / "absent", server.path])
    assert [d.path for d in found.disks] == [str(server.path)]
    assert [(p.code, p.where) for p in found.problems] == [("disk", str(tmp_path / "absent"))]


def test_formats_by_their_magic() -> None:
    blank = bytes(512)
    assert image_format(b"QFI\xfb", blank) == "qcow2"
    assert image_format(b"vhdxfile", blank) == "vhdx"
    assert image_format(b"KDMV", blank) == "vmdk"
    assert image_format(blank, b"conectix") == "vpc"
    assert image_format(bytes(64) + b"\x7f\x10\xda\xbe", blank) == "vdi"
    assert image_format(blank, blank) == "raw"


def test_images_are_never_written(server: DiskLayout) -> None:
    system = ImageSystem([server.path])
    for action in (
        lambda: system.writable(str(server.path), 0, 512),
        lambda: system.write_sectors(str(server.path), 0, bytes(512)),
        lambda: system.write_boot_code(str(server.path), 0, 512, master=True),
        lambda: system.edit_hive(b"", []),
        lambda: system.set_firmware_variable("BootOrder", None),
    ):
        with pytest.raises(SystemError_) as error:
            action()
        assert error.value.code == "read-only"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request",
        struct.pack(">QQH", 0x4E42444D41474943, 0x49484156454F5054, 0),
        struct.pack(">QQH", 0x4E42444D41474943, 0x49484156454F5054, 3) + b"\xff" * 40,
        struct.pack(">QQH", 0x4E42444D41474943, 0x49484156454F5054, 3)
        + struct.pack(">QIII", 0x3E889045565A9, 7, 1, 0),
    ],
)
def test_a_broken_nbd_server_is_an_error(tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "s"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                while connection.recv(1024):
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        with pytest.raises(NbdError):
            NbdClient(path)
    finally:
        thread.join()
        server.close()
