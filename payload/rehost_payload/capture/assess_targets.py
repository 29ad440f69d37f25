"""Findings about the disks that a capture would be written to. Pure functions of the plan and the targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rehost_payload.capture.model import CapturePlan
from rehost_payload.capture.words import in_gib
from rehost_payload.repair.model import Finding, Severity, VolumeRef

_FAT = ("fat12", "fat16", "fat32")
_LARGEST_ON_FAT = (4 << 30) - 1
_SPARE = 64 << 20  # manifests, checksums, the journal, the file system's own needs


@dataclass(frozen=True)
class Target:
    """A volume to write to. ``free`` is bytes; ``name`` is what the operator calls it ("E:", "/dev/sdc1")."""

    name: str
    volume: VolumeRef
    free: int | None


def needed_bytes(plan: CapturePlan, cluster: int = 64 << 10) -> int:
    """What a capture takes on a target whose clusters have this size."""
    files = (f for u in plan.units for f in u.files)
    return sum(-(-f.size // cluster) * cluster for f in files) + _SPARE


def assess_targets(plan: CapturePlan, targets: Sequence[Target]) -> tuple[Finding, ...]:
    """What is wrong with the targets; their subject is the target's name."""
    return tuple(f for target in targets for f in _one(plan, target))


def _one(plan: CapturePlan, target: Target) -> Iterator[Finding]:
    name = {"target": target.name}
    files = [f for u in plan.units for f in u.files]
    kind = target.volume.file_system
    if kind in _FAT:
        largest = max((f.size for f in files), default=0)
        lines = (
            f"{target.name}: {kind}; the largest file has {largest} bytes of {_LARGEST_ON_FAT} possible",
        )
        yield Finding("capture.target-fat", Severity.BLOCKER, target.name, {**name, "kind": kind}, lines)
    elif kind == "exfat":
        yield Finding("capture.target-exfat", Severity.INFO, target.name, name, (f"{target.name}: exfat",))
    needed = needed_bytes(plan)
    if target.free is not None and target.free < needed:
        params = {**name, "free": in_gib(target.free), "needed": in_gib(needed)}
        line = f"{target.name}: {target.free} bytes free, {needed} needed"
        yield Finding("capture.target-small", Severity.BLOCKER, target.name, params, (line,))
    sources = {_place(f.source.volume) for f in files}
    if _place(target.volume) in sources:
        yield Finding("capture.target-is-source", Severity.BLOCKER, target.name, name, (f"{target.name}",))
    elif target.volume.disk in {disk for disk, _ in sources}:
        line = f"{target.name}: {target.volume.disk}"
        yield Finding("capture.target-same-disk", Severity.BLOCKER, target.name, name, (line,))


def _place(volume: VolumeRef) -> tuple[str, int]:
    return volume.disk, volume.offset
