"""Imports and exports by name: pefile is asked as well, and nothing but FormatError comes of garbage."""

from __future__ import annotations

from contextlib import suppress

import pefile  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.pe_symbols import read_symbols
from rehost_payload.formats.source import BytesSource
from support.driver_image import make_driver
from support.pe_image import make_pe

IMAGE = make_driver({"ntoskrnl.exe": ["IoA", "IoB"], "STORPORT.sys": ["StorX", "#12"]}, ["Zeta", "Alpha"])


def test_pefile_sees_the_same() -> None:
    theirs = pefile.PE(data=IMAGE)
    modules = read_symbols(BytesSource(IMAGE)).modules
    assert modules == tuple(
        (e.dll.decode(), tuple(i.name.decode() for i in e.imports if i.name))
        for e in theirs.DIRECTORY_ENTRY_IMPORT
    )
    assert modules == (("ntoskrnl.exe", ("IoA", "IoB")), ("STORPORT.sys", ("StorX",)))
    exports = read_symbols(BytesSource(IMAGE), exports=True).exports
    assert exports == {s.name.decode() for s in theirs.DIRECTORY_ENTRY_EXPORT.symbols} == {"Alpha", "Zeta"}


@pytest.mark.parametrize("machine", ["x64", "x86"])
def test_an_image_without_tables(machine: str) -> None:
    image = BytesSource(make_pe(machine))
    assert read_symbols(image).modules == ()
    assert read_symbols(image, exports=True).exports == frozenset()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(IMAGE) - 1), st.binary(min_size=1, max_size=8)), max_size=6))
def test_garbage(changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(IMAGE)
    for at, patch in changes:
        data[at : at + len(patch)] = patch
    for exports in (False, True):
        with suppress(FormatError):
            read_symbols(BytesSource(bytes(data)), exports=exports)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, len(IMAGE)))
def test_cut_off(length: int) -> None:
    for exports in (False, True):
        with suppress(FormatError):
            read_symbols(BytesSource(IMAGE[:length]), exports=exports)
