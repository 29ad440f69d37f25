"""The QEMU command line for a medium: the flags that were found to work. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FirmwareKind = Literal["bios", "uefi", "secure-boot"]
Bus = Literal["ahci", "nvme", "virtio-blk", "virtio-scsi", "megasas-gen2", "pvscsi"]

OVMF = Path("/usr/share/OVMF")
FIRMWARE_FILES: dict[FirmwareKind, tuple[str, str]] = {
    "uefi": ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
    "secure-boot": ("OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd"),
}
_SCSI_HOSTS = {"virtio-scsi": "virtio-scsi-pci", "megasas-gen2": "megasas-gen2", "pvscsi": "pvscsi"}


@dataclass(frozen=True)
class DiskImage:
    """A disk of the machine. ``format`` is QEMU's word for it. Without ``keep`` what is written to it is lost."""

    path: Path
    format: str
    bus: Bus = "ahci"
    keep: bool = False


@dataclass(frozen=True)
class MachineOptions:
    """``memory`` in MiB. ``stick``: the medium is a USB stick, not a CD. ``window``: on this desktop's screen."""

    medium: Path
    firmware: FirmwareKind = "bios"
    disks: tuple[DiskImage, ...] = ()
    memory: int = 2048
    cores: int = 2
    stick: bool = False
    window: bool = False


def qemu_command(
    options: MachineOptions, *, accelerator: str, qmp: Path, serial: Path, variables: Path | None
) -> list[str]:
    """The arguments of ``qemu-system-x86_64``.

    No network, and the first serial port goes to the file ``serial``. ``variables`` is the machine's own copy of
    OVMF's variable store, with UEFI. The machine ends where it would restart (-no-reboot): what comes after would
    be another start. ``-cpu host`` cannot be had everywhere (nested hosts lack registers it promises), and
    Nehalem is what Windows' loaders accept and TCG runs fast.
    """
    smm = ",smm=on" if options.firmware == "secure-boot" else ""
    cpu = "host" if accelerator == "kvm" else "Nehalem"
    accel = "tcg,thread=multi" if accelerator == "tcg" else accelerator
    command = ["qemu-system-x86_64", "-name", "rehost", "-machine", f"q35{smm}", "-cpu", cpu, "-accel", accel]
    command += ["-smp", str(options.cores), "-m", str(options.memory), "-nodefaults", "-no-user-config"]
    command += ["-nic", "none", "-vga", "std", "-no-reboot", "-rtc", "base=utc"]
    command += [] if options.window else ["-display", "none"]
    command += ["-qmp", f"unix:{_escaped(qmp)},server=on,wait=off", "-device", "qemu-xhci,id=xhci"]
    command += ["-chardev", f"file,id=serial,path={_escaped(serial)}", "-serial", "chardev:serial"]
    if options.firmware != "bios":
        code, _ = FIRMWARE_FILES[options.firmware]
        command += ["-drive", f"if=pflash,format=raw,readonly=on,file={_escaped(OVMF / code)}"]
        assert variables is not None
        command += ["-drive", f"if=pflash,format=raw,file={_escaped(variables)}"]
    if options.firmware == "secure-boot":
        command += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
    for index, disk in enumerate(options.disks):
        command += _disk(index, disk)
    medium = f"file={_escaped(options.medium)},format=raw,if=none,id=medium"
    if options.stick:
        command += ["-drive", f"{medium},snapshot=on"]
        command += ["-device", "usb-storage,drive=medium,bus=xhci.0,removable=on,bootindex=0"]
    else:
        command += ["-drive", f"{medium},readonly=on", "-device", "ide-cd,drive=medium,bus=ide.5,bootindex=0"]
    return command


def _disk(index: int, disk: DiskImage) -> list[str]:
    drive = f"file={_escaped(disk.path)},format={disk.format},if=none,id=drive{index}"
    drive += "" if disk.keep else ",snapshot=on"
    options = f"drive=drive{index},bootindex={index + 1}"
    arguments = ["-drive", drive]
    if disk.bus == "ahci":
        return [*arguments, "-device", f"ide-hd,{options},bus=ide.{index}"]
    if disk.bus == "nvme":
        return [*arguments, "-device", f"nvme,{options},serial=REHOST{index:02d}"]
    if disk.bus == "virtio-blk":
        return [*arguments, "-device", f"virtio-blk-pci,{options}"]
    host = [f"{_SCSI_HOSTS[disk.bus]},id=host{index}"]
    return [*arguments, "-device", *host, "-device", f"scsi-hd,{options},bus=host{index}.0"]


def _escaped(path: Path) -> str:
    """QEMU's option values end at a comma; one that belongs to a name is doubled."""
    return str(path).replace(",", ",,")


def shown(command: Sequence[str]) -> str:
    """The command for a person to repeat."""
    import shlex

    return shlex.join(command)
