"""Device elements: the measured layouts, and that every byte comes back."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.formats.bcd_devices import (
    LOCATE_BY_ELEMENT,
    LOCATE_BY_PATH,
    BootDevice,
    Device,
    FileDevice,
    GptIdentity,
    Identity,
    LocateDevice,
    MbrIdentity,
    PartitionDevice,
    RamdiskDevice,
    RawIdentity,
    UnknownDevice,
    VhdDevice,
    decode_device,
    describe_device,
    encode_device,
    map_partitions,
    partitions,
    walk_devices,
)

ESP = GptIdentity("c1909b2f-33ff-49f6-9556-08827df9b418", "3f8edfe9-aed1-4489-8c2b-40fbd7f27a67")
OTHER = GptIdentity("1a0fd95a-5e1d-4ab8-b9fd-4369ff7b502f", "776df1f6-7e12-49ce-99f6-ff2e5dfe3933")
ACTIVE = MbrIdentity(0xD7DA5D02, 0x24400000)
OPTIONS = "3ff80524-c741-11e6-a16a-d997adfe933a"

GPT_BYTES = (
    "00000000000000000000000000000000"  # no options
    "06000000 00000000 48000000 00000000"
    "2f9b90c1ff33f649955608827df9b418"  # partition
    "00000000 00000000"  # hard disk, GPT
    "e9df8e3fd1ae89448c2b40fbd7f27a67"  # disk
    "00000000000000000000000000000000"
)
MBR_BYTES = (
    "00000000000000000000000000000000"
    "06000000 00000000 48000000 00000000"
    "0000402400000000 0000000000000000"
    "00000000 01000000"
    "025ddad7 000000000000000000000000"
    "00000000000000000000000000000000"
)
BOOT_BYTES = "00" * 16 + "05000000 00000000 48000000 00000000" + "00" * 56
LOCATE_BYTES = "00" * 16 + "08000000 00000000 1e000000 00000000" + "00000000 02000012 00000000 0000"


@pytest.mark.parametrize(
    ("raw", "device"),
    [
        (GPT_BYTES, PartitionDevice(ESP)),
        (MBR_BYTES, PartitionDevice(ACTIVE)),
        (BOOT_BYTES, BootDevice()),
        (LOCATE_BYTES, LocateDevice(LOCATE_BY_ELEMENT, 0x12000002, "")),
    ],
)
def test_measured_layouts(raw: str, device: Device) -> None:
    assert decode_device(bytes.fromhex(raw)) == device
    assert encode_device(device) == bytes.fromhex(raw)


def test_ramdisk_layout() -> None:
    """As reagentc writes it: 200 bytes, size 0xb8, flags 1, file path of 0x90 bytes."""
    device = RamdiskDevice(
        "\\Recovery\\WindowsRE\\Winre.wim", PartitionDevice(OTHER), options=OPTIONS, flags=1
    )
    raw = encode_device(device)
    assert len(raw) == 200
    assert raw[:16] == uuid.UUID(OPTIONS).bytes_le
    assert raw[16:36] == bytes.fromhex("00000000 01000000 b8000000 00000000 03000000")
    assert raw[56:84] == bytes.fromhex("01000000 90000000 05000000 06000000 00000000 48000000 00000000")
    assert raw[140:].decode("utf-16-le") == "\\Recovery\\WindowsRE\\Winre.wim\0"
    assert decode_device(raw) == device


FILE = FileDevice("\\vm\\disk.vhdx", PartitionDevice(OTHER))
KINDS = [
    PartitionDevice(ESP),
    PartitionDevice(ACTIVE),
    PartitionDevice(RawIdentity(3)),
    PartitionDevice(ESP, flags=4, reserved=9, trailing=b"more"),
    PartitionDevice(ESP, slack=bytes(15) + b"\1"),
    PartitionDevice(ACTIVE, slack=bytes(range(36))),
    BootDevice(slack=bytes(range(56))),
    RamdiskDevice("\\sources\\boot.wim", BootDevice(), base=1, size=2, offset=3, options=OPTIONS, flags=1),
    FILE,
    VhdDevice(OTHER, FILE),
    VhdDevice(ACTIVE, FILE, slack=bytes(range(20))),
    VhdDevice(None, FILE),
    LocateDevice(LOCATE_BY_PATH, 0, "\\Windows"),
    LocateDevice(LOCATE_BY_ELEMENT, 0x22000002, "", VhdDevice(None, FILE)),
]


@pytest.mark.parametrize("device", KINDS, ids=lambda d: describe_device(d)[:40])
def test_every_kind_comes_back(device: Device) -> None:
    raw = encode_device(device)
    assert decode_device(raw) == device
    assert encode_device(decode_device(raw)) == raw
    assert "unknown" not in describe_device(device)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        bytes(16),
        bytes(31),
        bytes.fromhex(GPT_BYTES)[:-1],
        bytes.fromhex(GPT_BYTES) + b"behind the size",
        bytes(16) + bytes.fromhex("02000000 00000000 48000000 00000000") + bytes(56),  # legacy partition
        bytes(16) + bytes.fromhex("06000000 00000000 48000000 00000000") + b"\xff" * 56,
        bytes(16) + bytes.fromhex("06000000 00000000 ffffffff 00000000") + bytes(56),
    ],
)
def test_what_is_not_understood_is_kept(raw: bytes) -> None:
    assert decode_device(raw) == UnknownDevice(raw)
    assert encode_device(decode_device(raw)) == raw


def test_devices_nested_without_end() -> None:
    device: Device = PartitionDevice(ESP)
    for _ in range(30):
        device = FileDevice("\\x", device)
    raw = encode_device(device)
    assert decode_device(raw) == UnknownDevice(raw)


def test_an_unknown_device_inside_keeps_the_outer_readable() -> None:
    inner = bytes.fromhex("04000000 00000000 20000000 00000000") + b"network address!"
    raw = encode_device(RamdiskDevice("\\boot.wim", UnknownDevice(inner), flags=1))
    assert decode_device(raw) == RamdiskDevice("\\boot.wim", UnknownDevice(inner), flags=1)


def test_walking_and_rewriting() -> None:
    device = LocateDevice(LOCATE_BY_ELEMENT, 0x12000002, "", VhdDevice(OTHER, FILE))
    assert [type(d) for d in walk_devices(device)] == [LocateDevice, VhdDevice, FileDevice, PartitionDevice]
    assert list(partitions(device)) == [OTHER]

    new = map_partitions(device, lambda identity: ESP)
    assert list(partitions(new)) == [ESP]
    vhd = list(walk_devices(new))[1]
    assert isinstance(vhd, VhdDevice)
    assert vhd.identity == OTHER, "the partition inside of the virtual disk has moved together with its file"
    assert map_partitions(device, lambda identity: identity) == device
    assert map_partitions(BootDevice(), lambda identity: ESP) == BootDevice()
    assert map_partitions(LocateDevice(1, 0, "\\a"), lambda identity: ESP) == LocateDevice(1, 0, "\\a")
    unknown = UnknownDevice(b"?")
    assert map_partitions(unknown, lambda identity: ESP) is unknown


def test_rewriting_changes_only_the_identity() -> None:
    before = encode_device(RamdiskDevice("\\a.wim", PartitionDevice(ESP), options=OPTIONS, flags=1, size=5))
    after = encode_device(map_partitions(decode_device(before), lambda identity: OTHER))
    assert len(after) == len(before)
    assert [i for i in range(len(before)) if before[i] != after[i]] == [
        i for i in range(84, 124) if before[i] != after[i]
    ]
    assert decode_device(after) == RamdiskDevice(
        "\\a.wim", PartitionDevice(OTHER), options=OPTIONS, flags=1, size=5
    )


def test_garbage_behind_an_identity_goes_with_its_style() -> None:
    """Reserved bytes stay where the style stays, and go where an MBR identity becomes a GPT one."""
    garbage = PartitionDevice(ACTIVE, slack=bytes(range(36)))
    same = map_partitions(garbage, lambda identity: MbrIdentity(1, 2))
    assert same == PartitionDevice(MbrIdentity(1, 2), slack=bytes(range(36)))
    assert map_partitions(garbage, lambda identity: ESP) == PartitionDevice(ESP)


def test_descriptions() -> None:
    assert describe_device(PartitionDevice(ACTIVE)) == "partition=offset 608174080 on disk d7da5d02"
    assert describe_device(BootDevice()) == "boot"
    ramdisk = RamdiskDevice("\\x.wim", BootDevice(), options=OPTIONS)
    assert describe_device(ramdisk) == f"ramdisk=[boot]\\x.wim,{{{OPTIONS}}}"
    assert describe_device(VhdDevice(None, FILE)).startswith("vhd=[{1a0fd95a")
    assert describe_device(UnknownDevice(b"\1\2")) == "unknown=0102"


GUIDS = st.uuids().map(str)
IDENTITIES: st.SearchStrategy[Identity] = st.one_of(
    st.builds(GptIdentity, GUIDS, GUIDS),
    st.builds(MbrIdentity, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)),
    st.builds(RawIdentity, st.integers(0, 2**32 - 1)),
)
PATHS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
PARTITIONS = st.builds(PartitionDevice, IDENTITIES)
FILES = st.builds(FileDevice, PATHS, PARTITIONS)
VHDS = st.builds(VhdDevice, st.none() | IDENTITIES, FILES)
DEVICES: st.SearchStrategy[Device] = st.one_of(
    PARTITIONS,
    st.just(BootDevice()),
    st.builds(
        RamdiskDevice,
        PATHS,
        PARTITIONS | st.just(BootDevice()),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**32 - 1),
        options=GUIDS.filter(lambda g: uuid.UUID(g).int != 0),
        flags=st.integers(0, 7),
    ),
    VHDS,
    st.builds(LocateDevice, st.sampled_from([0, 1]), st.integers(0, 2**32 - 1), PATHS, st.none() | VHDS),
)


@settings(max_examples=300, deadline=None)
@given(DEVICES, IDENTITIES)
def test_random_devices(device: Device, identity: Identity) -> None:
    raw = encode_device(device)
    assert decode_device(raw) == device
    new = decode_device(encode_device(map_partitions(device, lambda old: identity)))
    assert set(partitions(new)) <= {identity}
    assert len(list(partitions(new))) == len(list(partitions(device)))


@settings(max_examples=300, deadline=None)
@given(
    DEVICES, st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6), st.integers(0, 40)
)
def test_mutated_devices_keep_every_byte(device: Device, changes: list[tuple[int, int]], cut: int) -> None:
    raw = bytearray(encode_device(device))
    for at, byte in changes:
        raw[at % len(raw)] = byte
    data = bytes(raw[: len(raw) - cut])
    decoded = decode_device(data)
    assert encode_device(decoded) == data
    assert describe_device(decoded)
    # rewriting what was understood never loses anything else
    assert encode_device(map_partitions(decoded, lambda old: old)) == data
