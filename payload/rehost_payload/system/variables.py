"""What Linux and Windows do alike with UEFI variables: names, and the description of a machine started by UEFI."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from rehost_payload.formats.efi import parse_boot_order, parse_load_option
from rehost_payload.formats.errors import FormatError
from rehost_payload.survey.model import Firmware, FirmwareBootEntry, FirmwareMode
from rehost_payload.system.protocol import SystemError_

GLOBAL_GUID = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
ATTRIBUTES = 7  # non-volatile, boot service access, runtime access
_NAME = re.compile(r"[A-Za-z0-9]{1,64}")


def checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise SystemError_("firmware", f"{name!r} is no name of a variable")
    return name


def uefi(read: Callable[[str], bytes | None], numbers: Iterable[int], writable: bool) -> Firmware:
    """What the survey says. ``numbers`` are those of the Boot#### variables that may exist; those that the boot
    order and the firmware name are looked at as well."""

    def quiet(name: str) -> bytes | None:
        try:
            return read(name)
        except SystemError_:
            return None

    order, current, secure = quiet("BootOrder"), quiet("BootCurrent"), quiet("SecureBoot")
    boot_order = parse_boot_order(order) if order else ()
    boot_current = int.from_bytes(current[:2], "little") if current and len(current) >= 2 else None
    named = {*numbers, *boot_order, *(() if boot_current is None else (boot_current,))}
    found = ((number, quiet(f"Boot{number:04X}")) for number in sorted(named))
    return Firmware(
        FirmwareMode.UEFI,
        secure_boot=None if not secure else secure[0] == 1,
        variables_writable=writable,
        boot_entries=tuple(_entry(number, data) for number, data in found if data is not None),
        boot_order=boot_order,
        boot_current=boot_current,
    )


def _entry(number: int, data: bytes) -> FirmwareBootEntry:
    """A variable that is no load option is shown by its bytes alone."""
    try:
        option = parse_load_option(data)
    except FormatError:
        return FirmwareBootEntry(number, "", False, None, None, data.hex())
    return FirmwareBootEntry(
        *(number, option.description, option.active, option.partition_guid, option.path, data.hex())
    )
