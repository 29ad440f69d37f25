"""What the firmware knows: its mode, and its entry for the Windows boot manager."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator

from rehost_payload.repair.issue import Issue
from rehost_payload.repair.model import Finding, SetFirmwareVariable, Severity
from rehost_payload.repair.rules.rebuild import BOOTMGFW, FALLBACK_NAMES
from rehost_payload.repair.view import View, normal
from rehost_payload.survey.model import FirmwareMode, TableStyle, Volume

_ACTIVE = 1


def rules(view: View) -> Iterator[Issue]:
    firmware = view.survey.firmware
    if firmware.mode is FirmwareMode.UNKNOWN:
        return
    for disk in view.our_disks:
        needed = view.mode(disk)
        if view.installations_on(disk) and needed is not firmware.mode:
            params = {"firmware": firmware.mode.value, "needed": needed.value, "disk": disk.path}
            evidence = (f"{disk.path}: {disk.table.style.value}; started in {firmware.mode.value} mode",)
            yield Issue(Finding("firmware.mode-mismatch", Severity.WARNING, disk.id, params, evidence))
    if firmware.mode is FirmwareMode.UEFI and view.esp is not None and view.windows:
        yield from _entry(view, view.esp)


def _entry(view: View, esp: Volume) -> Iterator[Issue]:
    firmware, partition = view.survey.firmware, view.partition_of(esp)
    if partition is None:
        return
    for e in firmware.boot_entries:
        right = partition.unique_guid is None or e.partition_guid == partition.unique_guid
        if e.active and e.id in firmware.boot_order and right and normal(e.path or "") == normal(BOOTMGFW):
            return
    fallback = any(view.boot_file(esp, "\\EFI\\Boot\\" + name) for name in FALLBACK_NAMES.values())
    weight = Severity.WARNING if fallback else Severity.FATAL
    evidence = tuple(
        f"Boot{e.id:04X} {e.description}: {' '.join(filter(None, where)) or 'starts no file of a disk'}"
        for e in firmware.boot_entries
        for where in [(e.partition_guid, e.path)]
    )
    params = {"volume": esp.id}
    fixes = _new_entry(view, esp) if firmware.variables_writable else ()
    yield Issue(
        Finding("firmware.entry-missing", weight, esp.id, params, evidence or ("no entries",), bool(fixes)),
        fixes,
    )
    if not fixes:
        yield Issue(Finding("firmware.variables-readonly", Severity.INFO, esp.id, params, ()))


def _new_entry(view: View, esp: Volume) -> tuple[SetFirmwareVariable, ...]:
    """A Boot#### for the boot manager, first in BootOrder."""
    firmware, disk, partition = view.survey.firmware, view.disks[esp.disk], view.partition_of(esp)
    if partition is None:
        return ()
    used = {e.id for e in firmware.boot_entries}
    number = next(n for n in range(0x10000) if n not in used)
    gpt = disk.table.style is TableStyle.GPT
    if gpt and partition.unique_guid:
        signature, form = uuid.UUID(partition.unique_guid).bytes_le, (2, 2)
    elif disk.table.signature is not None:
        signature, form = struct.pack("<I12x", disk.table.signature), (1, 1)
    else:
        return ()
    option = load_option(
        "Windows Boot Manager",
        partition.number,
        partition.offset // disk.sector_size,
        partition.size // disk.sector_size,
        signature,
        form,
    )
    before = (
        struct.pack(f"<{len(firmware.boot_order)}H", *firmware.boot_order) if firmware.boot_order else None
    )
    after = struct.pack(f"<{len(firmware.boot_order) + 1}H", number, *firmware.boot_order)
    finding = "firmware.entry-missing"
    return (
        SetFirmwareVariable(f"Boot{number:04X}", None, option.hex(), finding),
        SetFirmwareVariable("BootOrder", before.hex() if before else None, after.hex(), finding),
    )


def load_option(
    description: str, number: int, first_lba: int, sectors: int, signature: bytes, form: tuple[int, int]
) -> bytes:
    """An EFI_LOAD_OPTION with HD() and file path nodes (UEFI 2.10, 3.1.3 and 10.3).

    ``signature`` is the 16-byte partition signature field, ``form`` its (partition format, signature type).
    """
    hd = struct.pack("<BBHIQQ16sBB", 4, 1, 42, number, first_lba, sectors, signature, *form)
    path = (BOOTMGFW + "\0").encode("utf-16-le")
    file = struct.pack("<BBH", 4, 4, 4 + len(path)) + path
    nodes = hd + file + struct.pack("<BBH", 0x7F, 0xFF, 4)
    return struct.pack("<IH", _ACTIVE, len(nodes)) + (description + "\0").encode("utf-16-le") + nodes
