"""Runs in the machine: writes to the volume at OFFSET of the disk that is DISK-SIZE bytes large, as a repair does.

python3 rights_driver.py DISK-SIZE OFFSET SIZE
"""

from __future__ import annotations

import sys
from pathlib import Path

from rehost_payload.system.linux import LinuxSystem

disk_size, offset, size = map(int, sys.argv[1:])
system = LinuxSystem()
(disk,) = [d for d in system.disks() if d.info.size == disk_size]
with system.writable(disk.info.path, offset, size) as volume:
    (driver,) = [
        line.split()[2] for line in Path("/proc/mounts").read_text().splitlines() if "rehost-mount" in line
    ]
    volume.replace("\\drivers\\new.sys", b"new")
    volume.make_directory("\\drivers\\store")
    volume.replace("\\drivers\\store\\new.inf", b"new")
    volume.replace("\\drivers\\kept.sys", b"newer")
    volume.append("\\drivers\\kept.sys", b", and more")
print(f"MOUNTED {driver}", flush=True)
