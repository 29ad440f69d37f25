"""Real SYSTEM hives: clean, dirty with and without logs, damaged. hivex and regipy are asked as well."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive import Hive, Key, SetValue, needs_replay, replay
from rehost_payload.system.hivex_edit import edit_hive
from rehost_payload.system.protocol import SystemError_
from support.corpus import corpus, read
from support.effort import at_most
from support.hives import values as as_hivex_sees_it

FOLDER = corpus("hives")
WIN7, WIN81, WIN10, DAMAGED = (
    f"{name}.SYSTEM.xz" for name in ("win7-x86", "win81-x64", "win10-1709-x64", "damaged")
)


def load(name: str) -> bytes:
    return read(FOLDER / name)


def logs() -> list[bytes]:
    return [load(f"win10-1709-x64.SYSTEM.LOG{i}.xz") for i in (1, 2)]


def dump(hive: Hive) -> dict[tuple[str, str], tuple[int, bytes]]:
    """Every value by key path and name; keys without the nameless value have an empty entry of that name."""
    result: dict[tuple[str, str], tuple[int, bytes]] = {}
    pending: list[tuple[Key, str]] = [(hive.root, "")]
    while pending:
        key, path = pending.pop()
        if path:
            result.setdefault((path, ""), (0, b""))
        for value in key.values():
            result[path, value.name] = (value.type, value.data)
        pending += [(child, f"{path}\\{child.name}".lstrip("\\")) for child in key.subkeys()]
    return result


@pytest.mark.parametrize("name", [WIN7, WIN81])
def test_hivex_reads_the_same(name: str) -> None:
    data = load(name)
    theirs = as_hivex_sees_it(data)
    ours = dump(Hive.parse(data))
    assert len(ours) > 60_000
    assert ours == theirs


@pytest.mark.parametrize(("name", "dirty"), [(WIN7, False), (WIN81, True), (WIN10, True)])
def test_state_and_control_sets(name: str, dirty: bool) -> None:
    data = load(name)
    hive = Hive.parse(data)
    assert hive.dirty is dirty is needs_replay(data)
    select = hive.key("Select")
    assert select is not None
    number = select.value("Current")
    assert number is not None
    assert hive.find(f"ControlSet{number.as_int():03}", "Services", "disk") is not None


def test_the_windows_10_hive_is_replayed_as_regipy_does_it(tmp_path: Path) -> None:
    """24 entries with 315 pages, first those of LOG1, then those of LOG2, which continues it.

    regipy applies what it is given as the "secondary" log first, so LOG1 goes there; in the order of its
    documentation the older log overwrites the newer. It also leaves the old checksum, which hivex refuses.
    """
    from regipy.recovery import apply_transaction_logs

    data = load(WIN10)
    with at_most(30_000):
        result = replay(data, logs())
    assert result.applied == 24
    assert result.warnings == ()
    for name, content in (("hive", data), ("log1", logs()[0]), ("log2", logs()[1])):
        (tmp_path / name).write_bytes(content)
    _, pages = apply_transaction_logs(
        str(tmp_path / "hive"),
        str(tmp_path / "log2"),
        str(tmp_path / "log1"),
        restored_hive_path=str(tmp_path / "restored"),
    )
    theirs = (tmp_path / "restored").read_bytes()
    assert pages == 315
    assert theirs[4096:] == result.data[4096:]
    assert theirs[36:44] == result.data[36:44]
    assert replay(data, logs()[::-1]).data == result.data


def test_the_replayed_hive_is_clean_and_whole() -> None:
    result = replay(load(WIN10), logs())
    hive = Hive.parse(result.data)
    assert not hive.dirty
    assert hive.sequence1 == 2131  # the last entry has 2130
    ours = dump(hive)
    assert ours == as_hivex_sees_it(result.data)
    # what Windows had done since: 2472 keys more than in the hive without its logs
    assert len([k for k in ours if k[1] == ""]) > len(
        [k for k in dump(Hive.parse(load(WIN10))) if k[1] == ""]
    )


def test_torn_and_missing_logs_of_the_windows_10_hive() -> None:
    data, (first, second) = load(WIN10), logs()
    only_first = replay(data, [first])
    assert only_first.applied == 4
    torn = replay(data, [first, second[:0x60000]])
    assert torn.applied == 4 + 4
    assert "torn" in torn.warnings[0]
    for result in (only_first, torn):
        assert not needs_replay(result.data)
    # a base block that was torn comes back from the log
    broken = data[:100] + bytes(4) + b"x" + data[105:]
    with pytest.raises(FormatError, match="checksum"):
        Hive.parse(broken)
    assert replay(broken, [first, second]).applied == 20


def test_a_dirty_hive_without_logs() -> None:
    result = replay(load(WIN81), [])
    assert result.applied == 0
    assert "no log could be applied" in result.warnings[0]
    assert not Hive.parse(result.data).dirty
    assert result.data[4096:] == load(WIN81)[4096:]


def test_the_damaged_hive_is_reported_where_it_is_damaged() -> None:
    hive = Hive.parse(load(DAMAGED))
    with pytest.raises(FormatError, match=r"at byte 0x"):
        dump(hive)
    # what is not damaged is still there
    assert hive.find("Select") is not None


def test_dirty_hives_are_not_edited() -> None:
    edit = SetValue(("Select",), "Default", 4, struct.pack("<I", 1))
    for name in (WIN81, WIN10):
        with pytest.raises(SystemError_) as error:
            edit_hive(load(name), [edit])
        assert error.value.code == "dirty"


def test_a_replayed_hive_is_edited() -> None:
    """One value in 79,000: the whole hive is compared."""
    data = replay(load(WIN10), logs()).data
    path = ("ControlSet001", "Services", "stornvme")
    after = edit_hive(data, [SetValue(path, "Start", 4, struct.pack("<I", 0))])
    old, new = as_hivex_sees_it(data), as_hivex_sees_it(after)
    changed = {k for k in old.keys() | new.keys() if old.get(k) != new.get(k)}
    assert changed <= {("ControlSet001\\Services\\stornvme", "Start")}
    assert new["ControlSet001\\Services\\stornvme", "Start"] == (4, bytes(4))


def test_looking_up_a_path_is_cheap() -> None:
    """The survey does this for every service and control set."""
    data = load(WIN7)
    with at_most(150_000):
        hive = Hive.parse(data)
        for _ in range(1000):
            assert hive.find("ControlSet001", "Services", "msahci") is not None
