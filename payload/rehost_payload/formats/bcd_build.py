"""New boot stores as bcdboot and reagentc write them, as edits on an empty hive (`hive.minimal_hive`).

There is no specification of what bcdboot writes. These stores follow real ones, element by element:

* main store, UEFI: Windows 10 1607 (14393.447), 19041 and 26100 installations on GPT disks
* main store, BIOS: Windows 10 on MBR disks, one of them fresh from bcdboot, and Windows 7
* \\EFI\\Microsoft\\Recovery\\BCD: eight stores, of which four have no recovery environment yet

and differ from them on purpose in this: object GUIDs are derived from ``seed`` instead of time and MAC address, so
that a plan made twice is the same plan; {fwbootmgr} and the cached firmware entries are left out, which Windows
makes itself from the firmware's variables; recovery strings have one terminating NUL where reagentc writes two.
The boot manager starts Windows from much less (facts: default, displayorder and a loader with six elements), the
rest is what bcdedit, Windows Update and reagentc expect to find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID, uuid5

from rehost_payload.formats import bcd_names as n
from rehost_payload.formats.bcd import ElementValue, create_object, set_element
from rehost_payload.formats.bcd_devices import Identity, PartitionDevice, RamdiskDevice
from rehost_payload.formats.hive import REG_DWORD, REG_SZ, CreateKey, HiveEdit, SetValue, encode_string

Firmware = Literal["uefi", "bios"]

SYSTEM_STORE = "BCD00000000"  # Description\\KeyName of the store that the running Windows loads
OTHER_STORE = "BCD00000001"

NX_OPT_IN = 0  # the default on clients
NX_OPT_OUT = 1  # the default on servers

_ALLOWED_IN_MEMORY = (0x15000075,)  # performancefrequency, in every store since Windows 8
_BAUDRATE = 115200
_DEBUG_LOCAL = 4
_IDENTIFIER_UNSPECIFIED = 1  # device flag that all real ramdisks have

Elements = dict[int, ElementValue | Sequence[str] | Sequence[int]]


@dataclass(frozen=True)
class Recovery:
    """A Windows recovery environment: where its image and its boot.sdi lie."""

    partition: Identity
    image: str = "\\Recovery\\WindowsRE\\Winre.wim"
    sdi: str = "\\Recovery\\WindowsRE\\boot.sdi"


@dataclass(frozen=True)
class StoreGuids:
    """The GUIDs of the objects that are not well known, for one seed."""

    loader: str
    resume: str
    recovery: str
    recovery_options: str


def store_guids(seed: UUID) -> StoreGuids:
    """Which GUIDs the builders of this module give the objects."""
    loader, resume, recovery, options = (
        str(uuid5(seed, name)) for name in ("osloader", "resume", "recovery", "recovery options")
    )
    return StoreGuids(loader, resume, recovery, options)


def bcdboot_store(
    *,
    firmware: Firmware,
    system: Identity,
    windows: Identity,
    seed: UUID,
    locale: str = "en-US",
    description: str = "Windows Server",
    windows_root: str = "\\Windows",
    nx: int = NX_OPT_OUT,
    hypervisor: bool = False,
    timeout: int = 30,
    recovery: Recovery | None = None,
) -> list[HiveEdit]:
    """A main store that starts one Windows, for \\EFI\\Microsoft\\Boot\\BCD or \\Boot\\BCD.

    ``system`` is the EFI system or the active partition, ``windows`` the one with ``windows_root`` (as on the
    volume, "\\Windows"). ``hypervisor`` sets hypervisorlaunchtype to Auto: without it a Hyper-V host starts, but
    none of its virtual machines does. ``timeout`` is in seconds.
    """
    guids = store_guids(seed)
    system_device, windows_device = PartitionDevice(system), PartitionDevice(windows)
    uefi = firmware == "uefi"
    loaders = windows_root.rstrip("\\") + "\\system32\\"
    suffix = "efi" if uefi else "exe"
    boot_folder = "\\EFI\\Microsoft\\Boot" if uefi else "\\boot"
    isolated: Elements = {n.ISOLATED_CONTEXT: True} if uefi else {}
    to_recovery: Elements = {}
    if recovery is not None:
        to_recovery = {n.RECOVERY_SEQUENCE: (guids.recovery,), n.RECOVERY_ENABLED: True}

    edits = _description(system=True)
    edits += _settings()
    boot_path: Elements = {n.PATH: f"{boot_folder}\\bootmgfw.efi"} if uefi else {}
    edits += _object(
        n.BOOTMGR,
        n.TYPE_BOOTMGR,
        {
            n.DEVICE: system_device,
            **boot_path,
            n.DESCRIPTION: "Windows Boot Manager",
            n.LOCALE: locale,
            n.INHERIT: (n.GLOBAL_SETTINGS,),
            n.BOOTMGR_DEFAULT: guids.loader,
            n.BOOTMGR_RESUME_OBJECT: guids.resume,
            n.BOOTMGR_DISPLAY_ORDER: (guids.loader,),
            n.BOOTMGR_TOOLS_DISPLAY_ORDER: (n.MEMDIAG,),
            n.BOOTMGR_TIMEOUT: timeout,
        },
    )
    hypervisor_elements: Elements = {n.OSLOADER_HYPERVISOR_LAUNCH_TYPE: 1} if hypervisor else {}
    edits += _object(
        guids.loader,
        n.TYPE_OSLOADER,
        {
            n.DEVICE: windows_device,
            n.PATH: f"{loaders}winload.{suffix}",
            n.DESCRIPTION: description,
            n.LOCALE: locale,
            n.INHERIT: (n.BOOTLOADER_SETTINGS,),
            **to_recovery,
            **isolated,
            n.ALLOWED_IN_MEMORY_SETTINGS: _ALLOWED_IN_MEMORY,
            n.OSLOADER_OS_DEVICE: windows_device,
            n.OSLOADER_SYSTEM_ROOT: windows_root.rstrip("\\"),
            n.OSLOADER_RESUME_OBJECT: guids.resume,
            n.OSLOADER_NX: nx,
            n.OSLOADER_BOOT_MENU_POLICY: 1,
            **hypervisor_elements,
        },
    )
    edits += _object(
        guids.resume,
        n.TYPE_RESUME,
        {
            n.DEVICE: windows_device,
            n.PATH: f"{loaders}winresume.{suffix}",
            n.DESCRIPTION: "Windows Resume Application",
            n.LOCALE: locale,
            n.INHERIT: (n.RESUMELOADER_SETTINGS,),
            **to_recovery,
            **isolated,
            n.ALLOWED_IN_MEMORY_SETTINGS: _ALLOWED_IN_MEMORY,
            n.RESUME_FILE_DEVICE: windows_device,
            n.RESUME_FILE_PATH: "\\hiberfil.sys",
            n.RESUME_BOOT_MENU_POLICY: 1,
            n.RESUME_DEBUG_OPTION_ENABLED: False,
        },
    )
    edits += _object(
        n.MEMDIAG,
        n.TYPE_MEMDIAG,
        {
            n.DEVICE: system_device,
            n.PATH: f"{boot_folder}\\memtest.{suffix}",
            n.DESCRIPTION: "Windows Memory Diagnostic",
            n.LOCALE: locale,
            n.INHERIT: (n.GLOBAL_SETTINGS,),
            n.BAD_MEMORY_ACCESS: True,
        },
    )
    if recovery is not None:
        edits += recovery_objects(recovery, seed=seed, firmware=firmware, locale=locale)
    return edits


def recovery_store(
    *, system: Identity, seed: UUID, locale: str = "en-US", recovery: Recovery | None = None
) -> list[HiveEdit]:
    """\\EFI\\Microsoft\\Recovery\\BCD, which the boot manager takes when the main store is unreadable.

    Its one entry is the recovery environment; without one it has none, as on a system where none is set up.
    """
    guids = store_guids(seed)
    entry: Elements = {}
    if recovery is not None:
        entry = {n.BOOTMGR_DEFAULT: guids.recovery, n.BOOTMGR_DISPLAY_ORDER: (guids.recovery,)}
    edits = _description(system=False)
    edits += _settings()
    edits += _object(
        n.BOOTMGR,
        n.TYPE_BOOTMGR,
        {
            n.DEVICE: PartitionDevice(system),
            n.PATH: "\\EFI\\Microsoft\\Boot\\bootmgfw.efi",
            n.DESCRIPTION: "Windows Boot Manager",
            n.LOCALE: locale,
            n.INHERIT: (n.GLOBAL_SETTINGS,),
            **entry,
            n.BOOTMGR_TIMEOUT: 30,
        },
    )
    if recovery is not None:
        edits += recovery_objects(recovery, seed=seed, firmware="uefi", locale=locale)
    return edits


def recovery_objects(
    recovery: Recovery, *, seed: UUID, firmware: Firmware, locale: str = "en-US"
) -> list[HiveEdit]:
    """The loader of a recovery environment and its ramdisk options, as reagentc registers them."""
    guids = store_guids(seed)
    partition = PartitionDevice(recovery.partition)
    ramdisk = RamdiskDevice(
        recovery.image, partition, options=guids.recovery_options, flags=_IDENTIFIER_UNSPECIFIED
    )
    edits = _object(
        guids.recovery,
        n.TYPE_OSLOADER,
        {
            n.DEVICE: ramdisk,
            n.PATH: f"\\windows\\system32\\winload.{'efi' if firmware == 'uefi' else 'exe'}",
            n.DESCRIPTION: "Windows Recovery Environment",
            n.LOCALE: locale,
            n.INHERIT: (n.BOOTLOADER_SETTINGS,),
            n.DISPLAY_MESSAGE: 3,  # recovery
            n.OSLOADER_OS_DEVICE: ramdisk,
            n.OSLOADER_SYSTEM_ROOT: "\\windows",
            n.OSLOADER_NX: NX_OPT_IN,
            n.OSLOADER_BOOT_MENU_POLICY: 1,
            n.OSLOADER_WINPE: True,
            n.RECOVERY_OS: True,
        },
    )
    return edits + _object(
        guids.recovery_options,
        n.TYPE_DEVICE,
        {
            n.DESCRIPTION: "Windows Recovery",
            n.RAMDISK_SDI_DEVICE: partition,
            n.RAMDISK_SDI_PATH: recovery.sdi,
        },
    )


def _description(*, system: bool) -> list[HiveEdit]:
    key = ("Description",)
    flags = ("System", "TreatAsSystem") if system else ("FirmwareModified",)
    name = encode_string(SYSTEM_STORE if system else OTHER_STORE)
    return [
        SetValue(key, "KeyName", REG_SZ, name),
        *(SetValue(key, flag, REG_DWORD, (1).to_bytes(4, "little")) for flag in flags),
        CreateKey(("Objects",)),
    ]


def _settings() -> list[HiveEdit]:
    """The objects that others inherit from; the same in all real stores."""
    return [
        *_object(n.EMS_SETTINGS, n.TYPE_INHERIT, {n.BOOT_EMS: False}),
        *_object(n.RESUMELOADER_SETTINGS, n.TYPE_INHERIT_RESUME, {n.INHERIT: (n.GLOBAL_SETTINGS,)}),
        *_object(n.DEBUGGER_SETTINGS, n.TYPE_INHERIT, {n.DEBUG_TYPE: _DEBUG_LOCAL}),
        *_object(n.BAD_MEMORY, n.TYPE_INHERIT, {}),
        *_object(
            n.BOOTLOADER_SETTINGS,
            n.TYPE_INHERIT_OSLOADER,
            {n.INHERIT: (n.GLOBAL_SETTINGS, n.HYPERVISOR_SETTINGS)},
        ),
        *_object(
            n.GLOBAL_SETTINGS,
            n.TYPE_INHERIT,
            {n.INHERIT: (n.DEBUGGER_SETTINGS, n.EMS_SETTINGS, n.BAD_MEMORY)},
        ),
        *_object(
            n.HYPERVISOR_SETTINGS,
            n.TYPE_INHERIT_OSLOADER,
            {
                n.OSLOADER_HYPERVISOR_DEBUG_TYPE: 0,
                n.OSLOADER_HYPERVISOR_DEBUG_PORT: 1,
                n.OSLOADER_HYPERVISOR_BAUDRATE: _BAUDRATE,
            },
        ),
    ]


def _object(guid: str, object_type: int, elements: Elements) -> list[HiveEdit]:
    edits = create_object(guid, object_type)
    for element_type, value in elements.items():
        edits += set_element(guid, element_type, value)
    return edits
