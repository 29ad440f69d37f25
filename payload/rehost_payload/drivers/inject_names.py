"""Names of an injected package: in the driver store, and as oemNN.inf."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping

from rehost_payload.drivers.inject_model import InjectError
from rehost_payload.formats.hive import REG_BINARY, Hive, Key

_OEM = re.compile(r"oem([0-9]{1,4})\.inf", re.IGNORECASE)
MAX_OEM = 9999
DATABASE = "DriverDatabase"


def store_name(inf_name: str, files: Mapping[str, bytes]) -> str:
    """ "arcsas.inf_amd64_0123456789abcdef": the form that Windows gives it.

    How Windows computes the sixteen digits is not known, and it does not check them; here they are a digest of the
    package's contents, so that the same package has the same name and another one does not.
    """
    digest = hashlib.sha256()
    for path in sorted(files, key=str.lower):
        digest.update(path.lower().encode() + b"\0" + hashlib.sha256(files[path]).digest())
    return f"{inf_name.lower()}_amd64_{digest.hexdigest()[:16]}"


def oem_number(name: str) -> int | None:
    """NN of "oemNN.inf", None for other names."""
    match = _OEM.fullmatch(name)
    return int(match.group(1)) if match else None


def published_as(system: Hive, name: str) -> str | None:
    """The oemNN.inf under which a package of this name is in the database already."""
    key = system.find(DATABASE, "DriverPackages", name)
    value = key.value("") if key is not None else None
    if value is None or oem_number(value.as_string()) is None:
        return None
    return value.as_string()


def taken_numbers(system: Hive) -> set[int]:
    """Numbers that SYSTEM knows: in OemInfMap (one bit each, the most significant one first) and by name."""
    database = system.find(DATABASE)
    if database is None:
        return set()
    found = set(_map_numbers(oem_map(database)))
    files = database.subkey("DriverInfFiles")
    for key in files.subkeys() if files is not None else ():
        if (number := oem_number(key.name)) is not None:
            found.add(number)
    packages = database.subkey("DriverPackages")
    for package in packages.subkeys() if packages is not None else ():
        value = package.value("")
        if value is not None and value.type == 1 and (n := oem_number(value.as_string())) is not None:
            found.add(n)
    return found


def free_number(taken: Collection[int]) -> int:
    """The smallest number that is not taken. InjectError("no-number")."""
    number = next((n for n in range(MAX_OEM + 1) if n not in taken), None)
    if number is None:
        raise InjectError("no-number", f"all of oem0.inf to oem{MAX_OEM}.inf are taken")
    return number


def oem_map(database: Key) -> bytes:
    """OemInfMap as stored; empty where it is absent or no binary value."""
    value = database.value("OemInfMap")
    return value.data if value is not None and value.type == REG_BINARY else b""


def with_number(stored: bytes, number: int) -> bytes:
    """OemInfMap with the bit of this number set, longer where it has to be."""
    bits = bytearray(stored)
    bits += bytes(max(0, number // 8 + 1 - len(bits)))
    bits[number // 8] |= 0x80 >> number % 8
    return bytes(bits)


def _map_numbers(bits: bytes) -> Iterator[int]:
    for index, byte in enumerate(bits[: MAX_OEM // 8 + 1]):
        yield from (index * 8 + bit for bit in range(8) if byte & 0x80 >> bit)
