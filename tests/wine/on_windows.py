"""Runs on CPython for Windows, under Wine: the backend's real calls, against what Wine has. Prints JSON for the test.

usage: python -I on_windows.py CHECK FOLDER
"""

from __future__ import annotations

import json
import sys
import time
import winreg
from pathlib import Path

from rehost_payload.formats.sddl import to_sddl
from rehost_payload.system.capture_target import AlignedBuffer, TargetInfo
from rehost_payload.system.here import this_machine
from rehost_payload.system.protocol import SystemError_
from rehost_payload.system.win32 import GENERIC_READ, GENERIC_WRITE, NO_BUFFERING, WRITE_THROUGH, Win32Error
from rehost_payload.system.win32_calls import Calls
from rehost_payload.system.win_dism import Dism
from rehost_payload.system.win_files import WindowsFiles
from rehost_payload.system.win_target import WindowsTarget
from rehost_payload.system.win_volume import WindowsVolume

_HIVE = 'WINE REGISTRY Version 2\n;; All keys relative to \\\\Machine\n\n[Control] 1\n"old"="value"\n'


def code_of(call: object, *arguments: object) -> int | str | None:
    try:
        call(*arguments)  # type: ignore[operator]
    except Win32Error as error:
        return error.code
    except SystemError_ as error:
        return error.code
    return None


def sectors(folder: Path) -> dict[str, object]:
    """Unbuffered access at positions, on a file in place of a disk."""
    calls, path = Calls(), folder / "sectors"
    path.write_bytes(bytes(range(256)) * 64)
    handle = calls.open(str(path), GENERIC_READ | GENERIC_WRITE, NO_BUFFERING | WRITE_THROUGH)
    try:
        read = calls.read(handle, 512, 1024).hex()
        written = calls.write(handle, 4096, b"\xab" * 512)
        calls.flush(handle)
        return {
            "read": read,
            "written": written,
            "back": calls.read(handle, 4096, 512).hex(),
            "end": len(calls.read(handle, 16384 - 512, 4096)),
            "behind": len(calls.read(handle, 1 << 30, 512)),
            "absent": code_of(calls.open, str(folder / "absent"), GENERIC_READ),
        }
    finally:
        calls.close(handle)


def volume(folder: Path) -> dict[str, object]:
    """A real volume of Windows' own, in a folder of it: files replaced by MoveFileExW."""
    calls = Calls()
    there = WindowsVolume(calls, str(folder) + "\\")
    there.make_directory("\\EFI")
    there.replace("\\EFI\\BCD", b"old")
    before = there.read("\\efi\\bcd")
    (folder / "EFI" / "BCD").chmod(0o444)  # read-only, as boot files are
    there.replace("\\EFI\\BCD", b"new")
    there.append("\\EFI\\journal", b"1")
    there.append("\\EFI\\journal", b"2")
    big = bytes(3 << 20)
    there.replace("\\EFI\\big", big)
    there.append("\\EFI\\big", b"more")
    result: dict[str, object] = {
        "before": before.decode(),
        "after": there.read("\\EFI\\BCD").decode(),
        "journal": there.read("\\EFI\\journal").decode(),
        "big": len(there.read("\\EFI\\big")),
        "list": there.listdir("\\EFI"),
        "directory": [there.is_directory("\\EFI"), there.is_directory("\\EFI\\BCD")],
        "absent": [there.exists("\\EFI\\x"), there.exists("\\x\\y"), code_of(there.read, "\\x\\y")],
        "onto a folder": code_of(there.replace, "\\EFI", b""),
        "not empty": code_of(there.remove_directory, "\\EFI"),
        "left": sorted(p.name for p in (folder / "EFI").iterdir()),
        "free": there.free() > 0,
    }
    for name in there.listdir("\\EFI"):
        there.remove("\\EFI\\" + name)
    there.remove_directory("\\EFI")
    result["gone"] = there.listdir("\\")
    return result


def registry(folder: Path) -> dict[str, object]:
    """Load, edit, unload. (The hive is one of Wine's: it does not read those of Windows.)"""
    calls, path = Calls(), folder / "hive"
    path.write_text(_HIVE, encoding="ascii", newline="")
    calls.load("rehost-test", str(path))
    old = calls.value("rehost-test\\Control", "old")
    key = calls.open_key("rehost-test\\Control\\a\\b", True)
    calls.set_value(key, "text", 1, "ä".encode("utf-16-le"))  # without a NUL, and it stays so
    calls.set_value(key, "odd", 0xFFFF0012, b"\1\2")
    calls.set_value(key, "", 3, b"")
    calls.flush_key(key)
    found = []
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, "rehost-test\\Control\\a\\b") as opened:
        for i in range(winreg.QueryInfoKey(opened)[1]):
            name, _, kind = winreg.EnumValue(opened, i)
            data = calls.value("rehost-test\\Control\\a\\b", name) or b""
            found.append([name, kind & 0xFFFFFFFF, data.hex()])
    calls.delete_value(key, "odd")
    again = code_of(calls.delete_value, key, "odd")
    calls.close_key(key)
    key = calls.open_key("rehost-test\\Control")
    calls.delete_tree(key, "a")
    tree_again = code_of(calls.delete_tree, key, "a")
    calls.close_key(key)
    gone = code_of(calls.open_key, "rehost-test\\Control\\a")
    calls.unload("rehost-test")
    return {
        "old": (old or b"").decode("utf-16-le"),
        "found": sorted(found),
        "again": [again, tree_again, gone],
        "unloaded": calls.value("rehost-test\\Control", "old") is None,
        "twice": code_of(calls.unload, "rehost-test"),
    }


def machine(folder: Path) -> dict[str, object]:
    """What the system says of Wine's machine; questions that Wine does not know are no errors."""
    calls, system = Calls(), this_machine()
    opened = system.disks()
    for disk in opened:
        disk.close()
    volumes = calls.volumes()
    return {
        "name": system.name,
        "firmware": system.firmware().mode.value,
        "controllers": len(system.controllers()),
        "disks": [d.info.path for d in opened],
        "volumes": [name for name in volumes if not name.startswith("\\\\?\\Volume{")],
        "points": sorted(point for name in volumes for point in calls.mount_points(name)),
        "flags": all(calls.volume_facts(name).flags >= 0 for name in volumes),
        "letters": bin(calls.drive_letters())[-3],
    }


def target(folder: Path) -> dict[str, object]:
    """A capture's target: files past the cache, cut to their size, with their times."""
    calls = Calls()
    info = TargetInfo("t", "t", "ntfs")
    there = WindowsTarget(calls, WindowsVolume(calls, str(folder) + "\\"), info, lambda: False)
    there.make_folders("VM/disks")
    there.make_folders("VM/disks")
    buffer = AlignedBuffer(8192)
    buffer.view[:] = bytes(range(256)) * 32
    file = there.open("VM/disks/a.vhdx.part")
    file.reserve(1 << 20)
    file.write_at(0, buffer.view, 8192)
    file.write_at(8192, buffer.view, 5000)
    file.flush()
    back = AlignedBuffer(16384)
    got = file.read_into(0, back.view)
    same = bytes(back.view[:8192]) == bytes(buffer.view)
    modified = 132_000_000_000_000_000
    file.finish(8192 + 5000, 131_000_000_000_000_000, modified)
    file.close()
    there.rename("VM/disks/a.vhdx.part", "VM/disks/a.vhdx")
    state = (folder / "VM" / "disks" / "a.vhdx").stat()
    there.replace("VM/m.json", b"{}")
    there.append("VM/m.json", b" ")
    result: dict[str, object] = {
        "unbuffered": file.unbuffered,
        "got": got,
        "same": same,
        "size": [there.size("VM/disks/a.vhdx"), there.size("VM/absent")],
        "modified": state.st_mtime_ns // 100 + 116444736000000000 == modified,
        "names": [there.names("VM"), there.names("absent")],
        "small": there.read("VM/m.json").decode(),
        "free": there.free() > 0,
        "absent": code_of(there.read, "VM/absent"),
    }
    there.remove("VM/m.json")
    there.remove("VM/m.json")
    result["left"] = there.names("VM")
    buffer.close()
    back.close()
    return result


def files(folder: Path) -> dict[str, object]:
    """A folder read as a volume that only Windows itself reads."""
    calls = Calls()
    facts = calls.volume_facts(str(folder)[:3])
    (folder / "VMs" / "Größe").mkdir(parents=True)
    disk = folder / "VMs" / "Größe" / "Disk.vhdx"
    disk.write_bytes(bytes(range(256)) * 4096)
    there = WindowsFiles(calls, str(folder) + "\\", facts)
    described = there.metadata("\\vms\\GRÖSSE".replace("SS", "ß") + "\\disk.VHDX")
    source = there.open("\\VMs\\Größe\\Disk.vhdx")
    problems: list[str] = []
    return {
        "root": [f.name for f in there.listdir("\\")],
        "found": list(there.find_files(frozenset({".vhdx"}), problems)),
        "problems": problems,
        "name": described and described.name,
        "size": described and described.size,
        "modified": described and described.modified == disk.stat().st_mtime_ns // 100 + 116444736000000000,
        "attributes": bool(described and described.attributes),
        "rights": bool(described and described.security and to_sddl(described.security)),
        "bytes": source.read_at(255, 3).hex(),
        "end": source.read_at(source.size - 2, 10).hex(),
        "beyond": source.read_at(source.size + 5, 10).hex(),
        "absent": there.stat("\\VMs\\nothing") is None,
        "system": facts.file_system,
    }


def dism(folder: Path) -> dict[str, object]:
    """A stand-in for dism.exe, started as the real one would be; it says what it was given."""
    place = folder / "Windows PE für Server"
    inf = place / "Treiber (neu)" / "ä b.inf"
    tool = Dism(Calls(), {"SystemRoot": str(place), "SystemDrive": str(place)}, limit=900)
    tool.install("S:", "\\Windows", inf, lambda: None)
    given = json.loads((place / "System32" / "given.json").read_text(encoding="utf-8"))
    (place / "System32" / "code").write_text("50")
    refused = ""
    try:
        tool.install("S:", "\\Windows", inf, lambda: None)
    except SystemError_ as error:
        refused = error.detail
    return {
        "given": given,
        "expected": [f"/Driver:{inf}", f"/LogPath:{place}\\Rehost\\logs\\dism.log"],
        "refused": refused.partition(";")[0],
        "said": "Fehler: ü" in tool.log().decode(),
        "refusal": tool.refusal(99999, "\\Windows"),
        "keys": "SOFTWARE" in [name.upper() for name in Calls().loaded()],
    }


def hang(folder: Path) -> dict[str, object]:
    """What hangs is ended with what it has started."""
    place = folder / "Windows PE für Server"
    (place / "System32" / "code").write_text("hang")
    beats = place / "System32" / "beats"
    tool = Dism(Calls(), {"SystemRoot": str(place), "SystemDrive": str(place)}, limit=3600)

    def waiting() -> None:
        if beats.exists() and beats.stat().st_size:
            raise KeyboardInterrupt

    ended = False
    try:
        tool.install("S:", "\\Windows", place / "x.inf", waiting)
    except KeyboardInterrupt:
        ended = True

    def quiet() -> bool:
        size = beats.stat().st_size
        time.sleep(3)
        return beats.stat().st_size == size

    # what was being written when it was ended may still come
    return {"ended": ended, "quiet": any(quiet() for _ in range(10))}


CHECKS = {f.__name__: f for f in (sectors, volume, registry, machine, target, dism, hang, files)}

if __name__ == "__main__":
    print(json.dumps(CHECKS[sys.argv[1]](Path(sys.argv[2]))))
