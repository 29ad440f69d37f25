"""Writing sectors and reading them back past the cache, on a file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rehost_payload.system import blockio
from rehost_payload.system.protocol import SystemError_


def test_write_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(64 * 1024))
    blockio.write_sectors(str(path), 512, 1536, b"\xa5" * 1024)
    assert path.read_bytes() == bytes(1536) + b"\xa5" * 1024 + bytes(65536 - 2560)
    for offset, length in ((0, 512), (1500, 100), (65000, 1000), (4096, 8192)):
        assert blockio.read_uncached(str(path), offset, length) == path.read_bytes()[offset : offset + length]


@pytest.mark.parametrize(("offset", "data"), [(1, bytes(512)), (512, b"x"), (0, b"")])
def test_only_whole_sectors(tmp_path: Path, offset: int, data: bytes) -> None:
    with pytest.raises(ValueError, match="whole sectors"):
        blockio.write_sectors(str(tmp_path / "absent"), 512, offset, data)


def test_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemError_) as error:
        blockio.write_sectors(str(tmp_path / "absent"), 512, 0, bytes(512))
    assert error.value.code == "gone"
    path = tmp_path / "disk"
    path.write_bytes(bytes(4096))
    monkeypatch.setattr(blockio, "read_uncached", lambda *arguments: b"\1" * 512)
    with pytest.raises(SystemError_) as error:
        blockio.write_sectors(str(path), 512, 0, bytes(512))
    assert error.value.code == "verify"


def test_where_o_direct_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"\7" * 4096)
    real = os.open

    def refuse(name: str, flags: int, *more: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no O_DIRECT here")
        return real(name, flags, *more)

    monkeypatch.setattr(blockio.os, "open", refuse)
    assert blockio.read_uncached(str(path), 100, 50) == b"\7" * 50
