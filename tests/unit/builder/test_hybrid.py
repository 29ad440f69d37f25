"""The boot sector that makes the ISO start from USB: byte layout, and how other programs read it."""

from __future__ import annotations

import struct

import pytest

from rehost_builder.media.hybrid import hybrid_boot_sector

CODE = bytes(range(256)) + bytes(range(176))


def _sector(**changes: int) -> bytes:
    values = {
        "image_size": 50 << 20,
        "loader_offset": 2048 * 100,
        "efi_offset": 2048 * 2000,
        "efi_size": 4 << 20,
        "disk_id": 0x11223344,
    }
    return hybrid_boot_sector(CODE, **{**values, **changes})


def test_layout() -> None:
    sector = _sector()
    assert len(sector) == 512
    assert sector[:432] == CODE[:432]
    assert struct.unpack_from("<Q", sector, 432)[0] == 400  # isolinux.bin in 512-byte sectors
    assert struct.unpack_from("<I", sector, 440)[0] == 0x11223344
    assert sector[446] == 0x80
    assert sector[450] == 0x17
    assert struct.unpack_from("<II", sector, 454) == (0, 50 * 2048)
    assert sector[462] == 0
    assert sector[466] == 0xEF
    assert struct.unpack_from("<II", sector, 470) == (8000, 8192)
    assert sector[478:510] == bytes(32)
    assert sector[510:] == b"\x55\xaa"


def test_geometry_of_64_heads_and_32_sectors() -> None:
    sector = _sector()
    head, number, cylinder = sector[451:454]  # end of the first partition: the last sector of cylinder 49
    assert (cylinder | (number & 0xC0) << 2, head, number & 0x3F) == (49, 63, 32)
    head, number, cylinder = sector[463:466]
    assert (cylinder, head, number & 0x3F) == (3, 8000 % 2048 // 32, 8000 % 32 + 1)


def test_sizes_beyond_the_geometry_are_capped() -> None:
    assert _sector(image_size=4 << 30)[451:454] == bytes((63, 0xC0 | 32, 0xFF))


@pytest.mark.parametrize(
    "wrong",
    [
        {"loader_offset": 100},
        {"image_size": 0},
        {"efi_offset": 49 << 20},
        {"loader_offset": 60 << 20},
        {"image_size": 4 << 40},
    ],
)
def test_places_that_do_not_fit_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"disk|outside"):
        _sector(**wrong)


def test_other_code_is_refused() -> None:
    with pytest.raises(ValueError, match="isohdpfx"):
        hybrid_boot_sector(b"x", image_size=512, loader_offset=512, efi_offset=512, efi_size=512, disk_id=1)
