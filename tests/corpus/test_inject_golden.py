"""Records made from the in-box INFs of Windows 8.1 against those that Windows itself made of them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from rehost_payload.drivers.inject_names import DATABASE
from rehost_payload.drivers.inject_records import Names, database_records
from rehost_payload.formats.hive import Hive, HiveEdit, Key, SetValue
from rehost_payload.formats.inf import parse_inf
from rehost_payload.formats.inf_target import Target
from support.corpus import corpus, read

FOLDER = corpus("inf") / "inbox-win81"
WIN81 = Target(6, 3, 9600, 1)
IN_BOX = sorted(FOLDER.glob("*.inf"))
# score and state of the in-box package; the records of an OEM package have values of their own for them
NOT_FROM_THE_INF = {"SignerScore", "StatusFlags"}
Values = dict[tuple[str, str], tuple[int, bytes]]


@pytest.fixture(scope="module")
def hive() -> Hive:
    return Hive.parse(read(corpus("hives") / "win81-x64.SYSTEM.xz"))


def below(key: Key, path: str) -> Values:
    result = {(path.lower(), v.name): (v.type, v.data) for v in key.values()}
    for sub in key.subkeys():
        result |= below(sub, f"{path}\\{sub.name}")
    return result


def stored(hive: Hive, inf: str, package: str) -> Values:
    """Everything that the database has of a package: three keys, and its values in DeviceIds."""
    result: Values = {}
    for path in ((DATABASE, "DriverPackages", package), (DATABASE, "DriverInfFiles", inf)):
        key = hive.find(*path)
        assert key is not None
        result |= below(key, "\\".join(path))
    ids = hive.find(DATABASE, "DeviceIds")
    assert ids is not None
    found = below(ids, f"{DATABASE}\\DeviceIds")
    return result | {(path, name): value for (path, name), value in found.items() if name == inf}


def made(edits: Iterable[HiveEdit]) -> Values:
    result: Values = {}
    for edit in edits:
        assert isinstance(edit, SetValue)
        result["\\".join(edit.key).lower(), edit.name] = (edit.type, edit.data)
    return result


@pytest.mark.parametrize("path", IN_BOX, ids=lambda p: p.stem)
def test_every_record_is_the_one_windows_made(hive: Hive, path) -> None:  # type: ignore[no-untyped-def]
    inf, name = parse_inf(path.read_bytes()), path.name.lower()
    packages = hive.find(DATABASE, "DriverPackages")
    assert packages is not None
    (package,) = (k.name for k in packages.subkeys() if k.name.lower().startswith(f"{name}_amd64_"))
    models = tuple(inf.models(WIN81))
    installs = {m.install_section.lower(): inf.install(m.install_section) for m in models}
    names = Names(package, name, path.name, "", in_box=True)
    ours = made(database_records(inf, models, installs, installs, names, WIN81, None))
    theirs = stored(hive, name, package)
    assert {k for k in theirs if k[1] in NOT_FROM_THE_INF} == theirs.keys() - ours.keys()
    assert ours.keys() - theirs.keys() == set()
    assert {k: v for k, v in ours.items() if theirs[k] != v} == {}


def test_how_many_there_are(hive: Hive) -> None:
    """103 descriptors of PCI devices, each with its value in DeviceIds."""
    descriptors = values = 0
    for path in IN_BOX:
        inf, name = parse_inf(path.read_bytes()), path.name.lower()
        models = tuple(inf.models(WIN81))
        installs = {m.install_section.lower(): inf.install(m.install_section) for m in models}
        names = Names("p", name, path.name, "", in_box=True)
        for edit in database_records(inf, models, installs, installs, names, WIN81, None):
            assert isinstance(edit, SetValue)
            descriptors += edit.key[3:5] == ("Descriptors", "PCI") and edit.name == "Configuration"
            values += edit.key[1:3] == ("DeviceIds", "PCI")
    assert (descriptors, values) == (103, 103)
