"""Replay of hive logs, old and new: whole entries or nothing, in the right order, never beyond the logs."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive import Hive, needs_replay, replay
from rehost_payload.formats.hive_log import marvin32
from support import regf
from support.regf import K, V

PAGE = regf.PAGE


def state(*texts: str, keys: int = 0, sequence: tuple[int, int] = (1, 1), written: int = 0) -> bytes:
    """A hive whose values tell the states apart; more ``keys`` make it larger."""
    root = K("R", keys=[K(f"key{i:05}", values=[V("v", 3, bytes(500))]) for i in range(keys)])
    root.values = [V(f"v{i}", 1, text.encode("utf-16-le")) for i, text in enumerate(texts)]
    return regf.hive(root, sequence=sequence, written=written)


def shown(data: bytes) -> list[str]:
    return [v.as_string() for v in Hive.parse(data).root.values()]


def bins(data: bytes) -> int:
    return struct.unpack_from("<I", data, 40)[0]


def entry(sequence: int, old: bytes, new: bytes) -> bytes:
    pages = {at: new[PAGE + at : PAGE + at + PAGE] for at in regf.difference(old, new)}
    return regf.entry(sequence, bins(new), pages)


S0, S1, S2, S3 = (state(text, "same") for text in ("zero", "one", "two", "three"))
DIRTY = regf.dirty(S0, (5, 4))


def clean(data: bytes) -> bool:
    return not needs_replay(data) and not Hive.parse(data).dirty


@pytest.mark.parametrize(
    ("data", "hash_"),
    [
        ("", 0x30ED35C100CD3C7D),
        ("af", 0x48E73FC77D75DDC1),
        ("e70f", 0xB5F6E1FC485DBFF8),
        ("37f495", 0xF0B07C789B8CF7E8),
        ("8642dc59", 0x7008F2E87E9CF556),
        ("153fb79826", 0xE6C08C6DA2AFA997),
    ],
)
def test_marvin32_published_vectors(data: str, hash_: int) -> None:
    assert marvin32(bytes.fromhex(data), 0x004FB61A001BDBCC) == hash_


def test_a_clean_hive_ignores_its_logs() -> None:
    log = regf.new_log(5, bins(S1), [entry(5, S0, S1)])
    result = replay(S0, [log])
    assert result.data is S0
    assert (result.applied, result.warnings) == (0, ())


def test_new_log() -> None:
    log = regf.new_log(4, bins(S2), [entry(4, S0, S1), entry(5, S1, S2)])
    result = replay(DIRTY, [log])
    assert shown(result.data) == ["two", "same"]
    assert (result.applied, result.warnings) == (2, ())
    assert clean(result.data)
    # higher than every log entry, so that the log is never applied a second time
    assert Hive.parse(result.data).sequence1 == 6


@pytest.mark.parametrize("swapped", [False, True])
def test_two_logs_that_continue_each_other(swapped: bool) -> None:
    logs = [
        regf.new_log(4, bins(S1), [entry(4, S0, S1)]),
        regf.new_log(5, bins(S2), [entry(5, S1, S2), entry(6, S2, S3)]),
    ]
    result = replay(DIRTY, logs[::-1] if swapped else logs)
    assert shown(result.data) == ["three", "same"]
    assert (result.applied, result.warnings) == (3, ())


def test_a_gap_between_two_logs_stops_before_it() -> None:
    logs = [
        regf.new_log(4, bins(S1), [entry(4, S0, S1)]),
        regf.new_log(6, bins(S3), [entry(6, S2, S3)]),
    ]
    result = replay(DIRTY, logs)
    assert shown(result.data) == ["one", "same"]
    assert result.applied == 1
    assert "5 would be the next" in result.warnings[0]


def test_a_stale_log_is_passed_over() -> None:
    stale = regf.new_log(2, bins(S3), [entry(2, S0, S3)])
    good = regf.new_log(4, bins(S1), [entry(4, S0, S1)])
    result = replay(DIRTY, [stale, good])
    assert shown(result.data) == ["one", "same"]
    assert "older than the hive" in result.warnings[0]
    alone = replay(DIRTY, [stale])
    assert alone.applied == 0
    assert shown(alone.data) == ["zero", "same"]
    assert clean(alone.data)
    assert "no log could be applied" in alone.warnings[-1]


def test_remnants_of_older_entries_end_the_log_silently() -> None:
    log = regf.new_log(4, bins(S1), [entry(4, S0, S1), entry(3, S0, S3)])
    result = replay(DIRTY, [log])
    assert shown(result.data) == ["one", "same"]
    assert result.warnings == ()


def test_a_first_entry_with_another_number() -> None:
    result = replay(DIRTY, [regf.new_log(4, bins(S1), [entry(5, S0, S1)])])
    assert result.applied == 0
    assert "starts with entry 5 instead of 4" in result.warnings[0]


@pytest.mark.parametrize("at", [8, 16, 20, 24, 32, 40, 44, 48, 2000, 4000])
def test_a_damaged_entry_is_not_applied_nor_what_follows(at: int) -> None:
    good, bad = entry(4, S0, S1), bytearray(entry(5, S1, S2))
    bad[at] ^= 0x10
    result = replay(DIRTY, [regf.new_log(4, bins(S3), [good, bytes(bad), entry(6, S2, S3)])])
    assert shown(result.data) == ["one", "same"]
    assert result.applied == 1
    assert "entry 5 is torn or damaged" in result.warnings[0]


def test_an_entry_cut_off_anywhere() -> None:
    log = regf.new_log(4, bins(S2), [entry(4, S0, S1), entry(5, S1, S2)])
    second = 512 + len(entry(4, S0, S1))
    for length in range(second, len(log), 97):
        result = replay(DIRTY, [log[:length]])
        assert shown(result.data) == ["one", "same"], length


def test_the_hive_grows_with_its_log() -> None:
    small, large = state("x"), state("y", keys=40)
    assert bins(large) > bins(small)
    result = replay(regf.dirty(small), [regf.new_log(1, bins(large), [entry(1, small, large)])])
    assert result.applied == 1
    assert shown(result.data) == ["y"]
    assert len(result.data) == len(large)
    assert Hive.parse(result.data).find("key00039") is not None


def test_a_log_cannot_make_the_hive_grow_beyond_its_own_pages() -> None:
    log = regf.new_log(4, 0xFFFFF000, [regf.entry(4, 0xFFFFF000, {0: S1[PAGE : 2 * PAGE]})])
    result = replay(DIRTY, [log])
    assert len(result.data) == len(DIRTY)
    assert result.applied == 0
    assert "claims 0xfffff000 bytes" in result.warnings[0]


def test_pages_outside_of_the_bins_are_refused() -> None:
    bad = regf.entry(4, bins(S1), {bins(S1): bytes(PAGE)})
    result = replay(DIRTY, [regf.new_log(4, bins(S1), [bad])])
    assert result.applied == 0
    assert "torn or damaged" in result.warnings[0]


def test_more_pages_than_the_entry_has() -> None:
    raw = bytearray(regf.entry(4, bins(S1), {0: bytes(PAGE)}))
    struct.pack_into("<I", raw, 20, 0x1FFFFFFF)
    struct.pack_into("<Q", raw, 32, regf.marvin32(bytes(raw[:32])))
    result = replay(DIRTY, [regf.new_log(4, bins(S1), [bytes(raw)])])
    assert result.applied == 0


def test_the_transaction_flag_follows_the_log() -> None:
    pages = {at: S1[PAGE + at : 2 * PAGE + at] for at in regf.difference(S0, S1)}
    locked = replay(DIRTY, [regf.new_log(4, bins(S1), [regf.entry(4, bins(S1), pages, flags=1)])])
    assert struct.unpack_from("<I", locked.data, 144)[0] == 1


@pytest.mark.parametrize("log", [b"", bytes(5000), b"text" * 1000, regf.base_block(4096, file_type=6)[:512]])
def test_what_is_no_log(log: bytes) -> None:
    result = replay(DIRTY, [log])
    assert result.applied == 0
    assert shown(result.data) == ["zero", "same"]


def test_a_log_with_a_damaged_base_block() -> None:
    log = bytearray(regf.new_log(4, bins(S1), [entry(4, S0, S1)]))
    log[100] ^= 1
    result = replay(DIRTY, [bytes(log)])
    assert result.applied == 0
    assert "base block is invalid" in result.warnings[0]


def test_a_damaged_base_block_comes_from_the_latest_log() -> None:
    torn = DIRTY[:200] + b"torn" + DIRTY[204:]
    logs = [
        regf.new_log(4, bins(S1), [entry(4, S0, S1)]),
        regf.new_log(7, bins(S2), [entry(7, S0, S2)]),
    ]
    result = replay(torn, logs)
    assert shown(result.data) == ["two", "same"]
    assert clean(result.data)
    assert "taken from log 2" in result.warnings[0]


def test_a_damaged_base_block_without_logs() -> None:
    torn = DIRTY[:200] + b"torn" + DIRTY[204:]
    with pytest.raises(FormatError, match="no log has a copy"):
        replay(torn, [b"", bytes(600)])
    with pytest.raises(FormatError, match="signature"):
        replay(b"text", [])


# --- old format


def old(new: bytes, before: bytes = S0, **options: int) -> bytes:
    return regf.old_log(new, [at // 512 for at in regf.difference(before, new, 512)], **options)


@pytest.mark.parametrize("cluster", [1, 8])
def test_old_log(cluster: int) -> None:
    result = replay(DIRTY, [old(S1, cluster=cluster, sequence=5)])
    assert shown(result.data) == ["one", "same"]
    assert (result.applied, result.warnings) == (1, ())
    assert clean(result.data)


def test_old_log_with_a_dirty_vector_of_several_sectors() -> None:
    """A 12 MB SYSTEM hive has a vector of 3 KB; not every tool finds the pages behind it."""
    small, large = state("x", keys=6000), state("y", keys=6000)
    assert bins(large) // 512 // 8 > 600
    result = replay(regf.dirty(small), [old(large, small)])
    assert shown(result.data) == ["y"]


def test_the_first_fitting_old_log_is_used() -> None:
    hive = regf.dirty(state("zero", "same", written=50), (5, 4))
    other = old(state("two", "same", written=60), hive, written=60)
    mine = old(state("one", "same", written=50), hive, written=50)
    result = replay(hive, [other, mine])
    assert shown(result.data) == ["one", "same"]
    assert "log 1 belongs to another state" in result.warnings[0]
    neither = replay(hive, [other])
    assert neither.applied == 0
    assert shown(neither.data) == ["zero", "same"]


def test_a_torn_old_log_gives_way_to_the_second() -> None:
    first, second = old(S2), old(S1)
    result = replay(DIRTY, [first[:-100], second])
    assert shown(result.data) == ["one", "same"]
    assert "log 1 is cut off" in result.warnings[0]


def test_an_old_log_that_breaks_the_bins_is_not_applied() -> None:
    broken = S1[:PAGE] + bytes(512) + S1[PAGE + 512 :]
    result = replay(DIRTY, [regf.old_log(broken, [0])])
    assert result.applied == 0
    assert "does not fit" in result.warnings[0]
    assert shown(result.data) == ["zero", "same"]


def test_an_old_log_without_a_vector_or_with_a_huge_one() -> None:
    log = bytearray(old(S1))
    log[512:516] = b"xxxx"
    assert "no dirty vector" in replay(DIRTY, [bytes(log)]).warnings[0]
    huge = regf.base_block(0xFFFFF000, sequence=(5, 5), file_type=1)[:512] + b"DIRT" + bytes(4096)
    assert replay(DIRTY, [huge]).applied == 0


@pytest.mark.parametrize("old_format", [False, True])
def test_a_log_of_another_hive(old_format: bool) -> None:
    """The GUID of the resource manager differs; where one side has none yet, nothing can be said."""

    def marked(data: bytes, guid: bytes) -> bytes:
        block = bytearray(data)
        block[112:128] = guid
        struct.pack_into("<I", block, 508, regf.checksum(block))
        return bytes(block)

    log = old(S1) if old_format else regf.new_log(4, bins(S1), [entry(4, S0, S1)])
    mine, other, none = b"m" * 16, b"o" * 16, bytes(16)
    foreign = replay(marked(DIRTY, mine), [marked(log, other)])
    assert foreign.applied == 0
    assert "belongs to another hive" in foreign.warnings[0]
    for a, b in ((mine, mine), (mine, none), (none, other)):
        assert replay(marked(DIRTY, a), [marked(log, b)]).applied == 1


def test_an_old_log_beside_a_new_one_is_a_left_over() -> None:
    stale = regf.new_log(2, bins(S3), [entry(2, S0, S3)])
    result = replay(DIRTY, [old(S1), stale])
    assert result.applied == 0
    assert shown(result.data) == ["zero", "same"]


def test_an_old_base_block_is_recovered_too() -> None:
    torn = DIRTY[:200] + b"torn" + DIRTY[204:]
    result = replay(torn, [old(S1)])
    assert shown(result.data) == ["one", "same"]
    assert clean(result.data)


# --- a power cut at any instant


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text("abcdef", min_size=1, max_size=30), min_size=2, max_size=6),
    split=st.integers(0, 6),
    torn=st.integers(0, 200),
    new_format=st.booleans(),
)
def test_power_cut_while_the_hive_is_written(
    texts: list[str], split: int, torn: int, new_format: bool
) -> None:
    """The logs are complete, the hive has some of the last state's sectors: replay gives the last state."""
    states = [state(text, keys=i) for i, text in enumerate(texts)]
    first, last = states[0], states[-1]
    sectors = list(regf.difference(first, last, 512))
    written = bytearray(first.ljust(len(last), b"\0"))
    for at in sectors[: torn % (len(sectors) + 1)]:
        written[PAGE + at : PAGE + at + 512] = last[PAGE + at : PAGE + at + 512]
    crashed = regf.dirty(bytes(written), (9, 8))
    if new_format:
        entries = [entry(10 + i, a, b) for i, (a, b) in enumerate(pairwise(states))]
        split = min(split, len(entries))
        logs = [
            regf.new_log(10, bins(last), entries[:split]),
            regf.new_log(10 + split, bins(last), entries[split:]),
        ]
    else:
        logs = [old(last, first, sequence=9)]
    result = replay(crashed, logs)
    assert result.data[PAGE:] == last[PAGE:]
    assert clean(result.data)
    assert shown(result.data) == [texts[-1]]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutated_logs_never_break_anything(data: st.DataObject) -> None:
    """Hostile bytes in log or hive: a clean hive or FormatError, and never more bytes than there were."""
    good = data.draw(
        st.sampled_from([regf.new_log(4, bins(S2), [entry(4, S0, S1), entry(5, S1, S2)]), old(S1)])
    )
    log = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(log), 700) - 1))
        log[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        struct.pack_into("<I", log, 508, regf.checksum(log))
    hive = bytearray(DIRTY)
    hive[data.draw(st.integers(0, 511))] ^= data.draw(st.integers(0, 255))
    try:
        result = replay(bytes(hive), [bytes(log)])
    except FormatError:
        return
    assert not needs_replay(result.data)
    assert len(result.data) <= len(hive) + len(log)
