"""Which of several packages Windows would take for a device.

Follows "How Windows Ranks Driver Packages", "Identifier Score", "Feature Score" and "Identifiers for PCI Devices": the
rank is 0xSSGGTHHH (signature, feature, kind of match, position in the device's list), and the lowest wins; then the
newer date, then the higher version. The signature is not judged here: the caller knows it or leaves the best score.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from rehost_payload.formats.inf import DriverVersion, Model

SIGNED = 0x00
UNSIGNED_DECORATED = 0x80  # by an install section with an .NT extension
UNSIGNED = 0xC0
_ANY = "[0-9A-Fa-f]"
_COLONS = re.compile(rf"({_ANY}{{4}}):({_ANY}{{4}})(?:[:/]({_ANY}{{4}}):({_ANY}{{4}}))?", re.IGNORECASE)
_PNP = re.compile(
    rf"(?:PCI\\)?VEN_({_ANY}{{4}})&DEV_({_ANY}{{4}})(?:&SUBSYS_({_ANY}{{4}})({_ANY}{{4}}))?"
    rf"(?:&REV_({_ANY}{{2}}))?(?:&CC_({_ANY}{{4}}(?:{_ANY}{{2}})?))?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class PciDevice:
    """A PCI function by its IDs: hex digits in upper case; empty where not known.

    ``subsystem`` is in the order of Windows: device, then vendor ("05529005").
    """

    vendor: str
    device: str
    subsystem: str = ""
    revision: str = ""
    class_code: str = ""  # 4 or 6 digits

    @property
    def hardware_ids(self) -> tuple[str, ...]:
        """From the most to the least specific; those with unknown parts are left out."""
        base = f"PCI\\VEN_{self.vendor}&DEV_{self.device}"
        ids = []
        if self.subsystem and self.revision:
            ids.append(f"{base}&SUBSYS_{self.subsystem}&REV_{self.revision}")
        if self.subsystem:
            ids.append(f"{base}&SUBSYS_{self.subsystem}")
        if self.revision:
            ids.append(f"{base}&REV_{self.revision}")
        return (*ids, base, *(f"{base}&CC_{c}" for c in self._classes))

    @property
    def compatible_ids(self) -> tuple[str, ...]:
        """Windows 10 moves some of the hardware IDs into this list; both lists are searched anyway."""
        base = f"PCI\\VEN_{self.vendor}&DEV_{self.device}"
        ids = [f"{base}&REV_{self.revision}"] if self.revision else []
        ids.append(base)
        ids += [f"PCI\\VEN_{self.vendor}&CC_{c}" for c in self._classes]
        ids.append(f"PCI\\VEN_{self.vendor}")
        return (*ids, *(f"PCI\\CC_{c}" for c in self._classes))

    @property
    def _classes(self) -> tuple[str, ...]:
        return tuple(c for c in dict.fromkeys((self.class_code, self.class_code[:4])) if c)


def parse_pci(text: str) -> PciDevice:
    """From "9005:028D", "9005:028D:9005:0552" (subsystem vendor:device, as lspci prints it) or a hardware ID of
    Windows ("PCI\\\\VEN_9005&DEV_028D&SUBSYS_05529005&REV_01&CC_0104"). ValueError for anything else.
    """
    text = text.strip()
    if match := _COLONS.fullmatch(text):
        vendor, device, sub_vendor, sub_device = (g.upper() if g else "" for g in match.groups())
        return PciDevice(vendor, device, sub_device + sub_vendor)
    if match := _PNP.fullmatch(text):
        vendor, device, sub_device, sub_vendor, revision, code = (
            g.upper() if g else "" for g in match.groups()
        )
        return PciDevice(vendor, device, sub_device + sub_vendor, revision, code)
    raise ValueError(f"{text!r} is no PCI ID; 9005:028D or 9005:028D:9005:0552 would be")


@dataclass(frozen=True)
class IdMatch:
    """``score`` is 0xTHHH; ``device_id`` the ID that both sides have, as the INF writes it."""

    score: int
    device_id: str


def match_ids(model: Model, hardware_ids: Sequence[str], compatible_ids: Sequence[str]) -> IdMatch | None:
    """The best match of a model with a device: hardware with hardware IDs first, compatible with compatible last."""
    theirs = (
        (0x0000, hardware_ids, (model.hardware_id,)),
        (0x1000, hardware_ids, model.compatible_ids),
        (0x2000, compatible_ids, (model.hardware_id,)),
        (0x3000, compatible_ids, model.compatible_ids),
    )
    for kind, device_ids, inf_ids in theirs:
        by_name = {i.lower(): i for i in inf_ids if i}
        for position, device_id in enumerate(device_ids):
            if device_id.lower() in by_name:
                return IdMatch(kind + min(position, 0xFFF), by_name[device_id.lower()])
    return None


def subsystems_wanted(model: Model, device: PciDevice) -> tuple[str, ...]:
    """Subsystems under which the model would match a device of unknown subsystem."""
    if device.subsystem:
        return ()
    found = []
    for text in model.ids:
        match = _PNP.fullmatch(text)
        if match and match.group(3) and match.group(1).upper() == device.vendor:
            if match.group(2).upper() != device.device:
                continue
            found.append((match.group(3) + match.group(4)).upper())
    return tuple(found)


@dataclass(frozen=True)
class Rank:
    """``value`` is 0xSSGGTHHH; sort by `sort_key`, the best first."""

    value: int
    driver: DriverVersion

    @property
    def sort_key(self) -> tuple[int, int, tuple[int, ...]]:
        day = self.driver.date or date.min
        return self.value, -day.toordinal(), tuple(-p for p in self.driver.version or (0, 0, 0, 0))

    @property
    def text(self) -> str:
        return f"{self.value:08X}"


def rank(match: IdMatch, feature_score: int, driver: DriverVersion, signature: int = SIGNED) -> Rank:
    """``signature`` and ``feature_score`` are one byte each, 0 the best."""
    return Rank(
        (signature & 0xFF) << 24 | (feature_score & 0xFF) << 16 | match.score & 0xFFFF,
        driver,
    )
