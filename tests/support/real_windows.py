"""Installations around the real SYSTEM hives of the corpus: everything else of them is made by the tests."""

from __future__ import annotations

import struct
from functools import cache

from rehost_payload.formats.hive import Hive, replay
from support import windows
from support.corpus import corpus, read
from support.pe_image import make_pe
from support.windows import Release

HIVES = {
    "win7-x86": Release("Windows 7 Professional", 7601, 17514, ""),
    "win81-x64": Release("Windows 8.1 Pro", 9600, 17415, ""),
    "win10-1709-x64": Release("Windows 10 Pro", 16299, 125, "1709"),
}
_CONFIG = "Windows/System32/config"


def system_hive(name: str) -> bytes:
    """As it is in the file, without its logs."""
    return read(corpus("hives") / f"{name}.SYSTEM.xz")


@cache
def clean_hive(name: str) -> bytes:
    """With its logs applied."""
    return replay(system_hive(name), logs(name)).data


def logs(name: str) -> list[bytes]:
    places = [corpus("hives") / f"{name}.SYSTEM.LOG{i}.xz" for i in (1, 2)]
    return [read(p) for p in places if p.exists()]


def real_tree(name: str, *, clean: bool = False) -> dict[str, bytes]:
    """An installation with this hive, its logs, and a file for every driver that a service names.

    Its files are for x64 also where the hive is from a 32-bit Windows 7: what it holds of drivers is the same in a
    Server 2008 R2, which there is for x64 only. ``clean``: the logs are in the hive already.
    """
    files = {
        f"{_CONFIG}/SYSTEM": clean_hive(name) if clean else system_hive(name),
        f"{_CONFIG}/SOFTWARE": windows.software_hive(HIVES[name]),
        "Windows/System32/winload.efi": make_pe(),
        "Windows/System32/winload.exe": make_pe(),
        "Windows/System32/ntoskrnl.exe": make_pe(subsystem=1),
    }
    if not clean:
        files |= {f"{_CONFIG}/SYSTEM.LOG{i}": log for i, log in enumerate(logs(name), 1)}
    image = make_pe(subsystem=1)
    hive = Hive.parse(clean_hive(name))
    select = hive.find("Select")
    current = select.value("Current") if select else None
    number = struct.unpack("<I", current.data)[0] if current else 1
    services = hive.find(f"ControlSet{number:03d}", "Services")
    assert services is not None
    for key in services.subkeys():
        value = key.value("ImagePath")
        path_ = value.as_string() if value is not None else f"System32\\drivers\\{key.name}.sys"
        lower = path_.lower().removeprefix("\\systemroot\\")
        if lower.startswith("system32\\") and lower.endswith(".sys"):
            files["Windows/" + path_[len(path_) - len(lower) :].replace("\\", "/")] = image
    return files


@cache
def mounted(name: str) -> bytes:
    """What the hive says of C: the partition that this Windows was on."""
    key = Hive.parse(clean_hive(name)).find("MountedDevices")
    value = key.value("\\DosDevices\\C:") if key is not None else None
    assert value is not None
    return value.data
