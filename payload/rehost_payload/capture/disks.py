"""Virtual disks and their chains: each file is read once, each parent found as Hyper-V finds it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from rehost_payload.capture.found import Chain, ChainFault, FoundDisk, FoundFile
from rehost_payload.capture.places import Place, Places
from rehost_payload.formats.disk_chain import (
    MAX_DEPTH,
    Link,
    check_link,
    identity,
    parent_paths,
    wanted_parents,
)
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive_base import filetime
from rehost_payload.formats.source import ByteSource
from rehost_payload.formats.vhd import Vhd, is_vhd, parse_vhd
from rehost_payload.formats.vhdx import Vhdx, is_vhdx, parse_vhdx


class Disks:
    """The virtual disks of a host. ``scanned`` are all that were found, for parents that have moved."""

    def __init__(self, places: Places, scanned: Iterable[Place] = ()) -> None:
        self._places = places
        self._scanned = tuple(scanned)
        self._read: dict[tuple[str, str], FoundDisk | None] = {}
        self._by_identity: dict[str, list[FoundDisk]] | None = None

    def disk(self, place: Place) -> FoundDisk | None:
        """The disk at a place, read once; None where no file is there."""
        key = (place.volume, place.path.lower())
        if key not in self._read:
            file = self._places.file(place)
            self._read[key] = None if file is None else self._parse(place, file)
        return self._read[key]

    def _parse(self, place: Place, file: FoundFile) -> FoundDisk:
        if file.unreadable:
            return FoundDisk(file, None, f"stored in a way that cannot be read here ({file.unreadable})")
        if file.path.lower().endswith(".vhds"):
            return FoundDisk(file, None)  # the description of a shared disk; its contents are in .avhdx files
        try:
            source = self._places.reader(place.volume).open(place.path)
            return FoundDisk(file, _virtual_disk(file, source))
        except (FormatError, OSError) as error:
            return FoundDisk(file, None, str(error))

    def all(self) -> list[FoundDisk]:
        found = (self.disk(place) for place in self._scanned)
        return [d for d in found if d is not None]

    def chain(self, place: Place) -> Chain:
        """The chain that begins here; ends at its base, or with a fault."""
        disks: list[FoundDisk] = []
        faults: list[ChainFault] = []
        warnings: list[str] = []
        seen: set[str] = set()
        current = self.disk(place)
        while current is not None:
            original = current.file.original
            if original.lower() in seen:
                faults.append(
                    ChainFault("ring", disks[-1].file.original, original, "it is in the chain already")
                )
                break
            if len(disks) >= MAX_DEPTH:
                faults.append(ChainFault("depth", original, "", f"more than {MAX_DEPTH} disks"))
                break
            seen.add(original.lower())
            disks.append(current)
            if current.problem:
                faults.append(ChainFault("unreadable", original, "", current.problem))
            if current.disk is None or not current.differencing:
                break
            current = self._parent(current, faults, warnings)
        return Chain(tuple(disks), tuple(faults), tuple(warnings))

    def _parent(self, child: FoundDisk, faults: list[ChainFault], warnings: list[str]) -> FoundDisk | None:
        assert child.disk is not None
        original = child.file.original
        wanted = parent_paths(child.disk, original)
        candidates: list[FoundDisk] = []
        for path in wanted:
            place = self._places.resolve(path)
            found = None if place is None else self.disk(place)
            if found is not None and found not in candidates:
                candidates.append(found)
        links = [(c, self._link(child, c)) for c in candidates]
        good = next(((c, link) for c, link in links if link.ok), None)
        if good is None:
            moved = self._by_link(child)
            if moved is not None:
                faults.append(
                    ChainFault(
                        "moved", original, moved.file.original, f"the child looks for it at {_listed(wanted)}"
                    )
                )
                good = moved, self._link(child, moved)
        if good is not None:
            warnings += [f"{original}: {text}" for text in good[1].warnings]
            return good[0]
        if not links:
            faults.append(
                ChainFault(
                    "missing", original, wanted[0] if wanted else "?", f"looked for at {_listed(wanted)}"
                )
            )
            return None
        parent, link = links[0]
        if parent.disk is not None:  # what cannot be read is said of the disk itself
            faults.append(ChainFault("linkage", original, parent.file.original, "; ".join(link.problems)))
        return parent

    def _link(self, child: FoundDisk, parent: FoundDisk) -> Link:
        if child.disk is None or parent.disk is None:
            return Link((parent.problem or "unreadable",))
        modified: datetime | None = filetime(parent.file.modified)
        return check_link(child.disk, parent.disk, modified)

    def _by_link(self, child: FoundDisk) -> FoundDisk | None:
        """The one disk found anywhere that the child's link fits."""
        if self._by_identity is None:
            self._by_identity = {}
            for disk in self.all():
                if disk.disk is not None:
                    self._by_identity.setdefault(identity(disk.disk), []).append(disk)
        wanted = wanted_parents(child.disk) if child.disk is not None else ()
        found = [d for i in wanted for d in self._by_identity.get(i, ()) if d is not child]
        return found[0] if len(found) == 1 else None


def _virtual_disk(file: FoundFile, source: ByteSource) -> Vhd | Vhdx:
    """By its content, as either may have any name; where that is neither, the name says what is missing in it."""
    named_vhdx = file.path.lower().endswith("vhdx") and not is_vhd(source)
    return parse_vhdx(source) if named_vhdx or is_vhdx(source) else parse_vhd(source)


def _listed(paths: tuple[str, ...]) -> str:
    return ", ".join(paths) or "no path at all"
