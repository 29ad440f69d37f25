"""Runs in the machine: captures \\VMs of the disk SOURCE to the targets named, with everything small enough to be quick.

python3 capture_driver.py TARGET-LABEL...          prints one line of JSON at the end
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from rehost_payload.capture.copy import run_copy
from rehost_payload.capture.copy_pipeline import CopySettings
from rehost_payload.capture.copy_progress import CopyProgress
from rehost_payload.capture.copy_volumes import VolumeOpener
from rehost_payload.capture.model import CaptureFile, CapturePlan, CaptureUnit, Role, SourceRef
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.partitions import read_table
from rehost_payload.formats.source import SliceSource
from rehost_payload.repair.model import VolumeRef
from rehost_payload.survey.filesystems import open_filesystem
from rehost_payload.system.direct import DirectSource
from rehost_payload.system.linux import LinuxSystem
from rehost_payload.system.protocol import DiskHandle, SystemError_

MIB = 1 << 20
SETTINGS = CopySettings(chunk_size=4 * MIB, block_size=MIB, buffers=8, flush_every=16 * MIB)


def volume(disk: DiskHandle) -> VolumeRef:
    table = read_table(disk, disk.info.sector_size).gpt
    assert table is not None
    entry = table.entries[0]
    sector = disk.info.sector_size
    size = (entry.last_lba - entry.first_lba + 1) * sector
    return VolumeRef(disk.info.path, entry.first_lba * sector, size, "ntfs", partition_guid=entry.unique_guid)


def labelled(disk: DiskHandle) -> list[tuple[str, VolumeRef]]:
    """The volume of a disk with its label; USB sticks show no serial number by which to tell them."""
    try:
        ref = volume(disk)
        return [(open_filesystem(SliceSource(disk, ref.offset, ref.size)).label, ref)]
    except (AssertionError, FormatError, OSError):
        return []


def plan_of(disk: DiskHandle) -> CapturePlan:
    ref = volume(disk)
    reader = open_filesystem(SliceSource(disk, ref.offset, ref.size))
    units = []
    for folder in reader.listdir("\\VMs"):
        files = []
        for entry in reader.listdir(f"\\VMs\\{folder.name}"):
            path = f"\\VMs\\{folder.name}\\{entry.name}"
            metadata = reader.metadata(path)
            assert metadata is not None
            files.append(
                CaptureFile(
                    SourceRef(ref, path),
                    f"D:{path}",
                    f"{folder.name}/{entry.name}",
                    Role.DISK,
                    entry.size,
                    modified=metadata.modified,
                )
            )
        units.append(CaptureUnit(folder.name, folder.name, folder.name, "machine", tuple(files)))
    return CapturePlan("Rehost-HV-1", "HV", tuple(units))


def say(progress: CopyProgress) -> None:
    print(f"PROGRESS {progress.phase} {progress.done} {progress.total} {progress.file}", flush=True)


def main() -> None:
    system = LinuxSystem()
    opened = system.disks()
    volumes = {label: (disk, ref) for disk in opened for label, ref in labelled(disk)}
    source = volumes["SOURCE"][0]
    started = time.monotonic()
    with ExitStack() as stack:
        places = [volumes[label][1] for label in sys.argv[1:]]
        try:
            targets = [stack.enter_context(system.capture_target(p.disk, p.offset, p.size)) for p in places]
        except SystemError_ as error:
            print(f"RESULT {json.dumps({'refused': error.code, 'detail': error.detail})}", flush=True)
            return
        print(f"TARGETS {[t.info for t in targets]}", flush=True)
        result = run_copy(
            plan_of(source), VolumeOpener(opened, DirectSource), targets, settings=SETTINGS, progress=say
        )
        state = result.state
    told = {
        "seconds": round(time.monotonic() - started, 1),
        "good": state.good_copies,
        "targets": [[t.id, t.code, t.detail, t.unbuffered] for t in state.targets],
        "units": [[u.name, [[c.state, *c.reasons] for c in u.copies]] for u in state.units],
        "mounts": [line for line in Path("/proc/mounts").read_text().splitlines() if "rehost-mount" in line],
    }
    print(f"RESULT {json.dumps(told)}", flush=True)


main()
