"""Installations around the real SYSTEM hives of the corpus: everything else of them is made by the tests."""

from __future__ import annotations

import struct

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


def clean_hive(name: str) -> bytes:
    """With its logs applied."""
    files = real_tree(name)
    logs = [files.get(f"{_CONFIG}/SYSTEM.LOG{i}", b"") for i in (1, 2)]
    return replay(files[f"{_CONFIG}/SYSTEM"], logs).data


def real_tree(name: str) -> dict[str, bytes]:
    """An installation with this hive, its logs, and a file for every driver that a service names."""
    folder = corpus("hives")
    machine = "x86" if name.endswith("x86") else "x64"
    files = {
        f"{_CONFIG}/SYSTEM": system_hive(name),
        f"{_CONFIG}/SOFTWARE": windows.software_hive(HIVES[name]),
        "Windows/System32/winload.efi": make_pe(machine),
        "Windows/System32/winload.exe": make_pe(machine),
        "Windows/System32/ntoskrnl.exe": make_pe(machine, subsystem=1),
    }
    logs = []
    for i in (1, 2):
        path = folder / f"{name}.SYSTEM.LOG{i}.xz"
        if path.exists():
            files[f"{_CONFIG}/SYSTEM.LOG{i}"] = read(path)
            logs.append(files[f"{_CONFIG}/SYSTEM.LOG{i}"])
    image = make_pe(machine, subsystem=1)
    hive = Hive.parse(replay(files[f"{_CONFIG}/SYSTEM"], logs).data)
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
