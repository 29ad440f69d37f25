"""Every identifier that diagnose, verify, apply and survey may hand to the operator, with its parameters.

The texts (texts/*.toml) must have an entry for each; tests compare this list, the texts and repair's source.
"""

from __future__ import annotations

from rehost_payload.drivers.inject_model import CODES


def _params(names: str) -> frozenset[str]:
    return frozenset(names.split())


_DRIVER = _params("windows controller disks service package download")

FINDINGS: dict[str, frozenset[str]] = {
    "boot.store-missing": _params("path volume"),
    "boot.store-empty": _params("path volume"),
    "boot.store-damaged": _params("path volume detail"),
    "boot.store-dirty": _params("path volume"),
    "boot.device-stale": _params("entry element old"),
    "boot.disk-guid-stale": _params("entry element"),
    "boot.device-missing": _params("entry element"),
    "boot.device-unresolvable": _params("entry element old"),
    "boot.path-firmware-mismatch": _params("entry path wanted"),
    "boot.path-missing": _params("entry path"),
    "boot.default-dangling": _params("default"),
    "boot.no-osloader": _params("path"),
    "boot.files-missing": _params("volume files"),
    "boot.file-damaged": _params("path detail"),
    "boot.fallback-loader-missing": _params("volume"),
    "boot.stl-missing": _params("volume"),
    "boot.winre-unavailable": _params("entry path"),
    "boot.recovery-store-missing": _params("volume"),
    "firmware.entry-missing": _params("volume"),
    "firmware.mode-mismatch": _params("firmware needed disk"),
    "firmware.variables-readonly": _params(""),
    "esp.missing": _params("disk"),
    "esp.several": _params("count used"),
    "esp.full": _params("volume free needed"),
    "bios.no-active-partition": _params("disk partition"),
    "bios.several-active": _params("disk"),
    "bios.bootmgr-missing": _params("volume"),
    "bios.boot-code-missing": _params("disk"),
    "bios.boot-code-foreign": _params("disk code"),
    "bios.volume-code-missing": _params("volume"),
    "bios.volume-code-foreign": _params("volume code"),
    "bios.hidden-sectors-wrong": _params("volume found expected"),
    "disk.duplicate-signature": _params("disks signature"),
    "disk.duplicate-guid": _params("disks guid"),
    "disk.raid-member": _params("disk kind"),
    "disk.gpt-primary-damaged": _params("disk"),
    "disk.gpt-backup-damaged": _params("disk"),
    "disk.read-only": _params("disk"),
    "volume.hibernated": _params("volume"),
    "volume.bitlocker": _params("volume"),
    "volume.dirty": _params("volume"),
    "volume.mirrored": _params("volume other"),
    "volume.unreadable": _params("volume reason"),
    "windows.none": _params(""),
    "windows.several": _params("count candidates"),
    "windows.ambiguous": _params("entry candidates"),
    "windows.hive-damaged": _params("windows hive"),
    "windows.files-missing": _params("windows files"),
    "capture.no-host": _params(""),
    "capture.several-hosts": _params("used candidates"),
    "capture.cluster-host": _params(""),
    "capture.settings-unread": _params("count"),
    "capture.no-machines": _params(""),
    "capture.machine-lost": _params("id path"),
    "capture.volume-unreadable": _params("volume reason size"),
    "capture.refs-mounted": _params("volume"),
    "capture.disk-unreadable": _params("where detail"),
    "capture.list-damaged": _params("where detail"),
    "capture.read-problems": _params("count"),
    "capture.search-incomplete": _params("where"),
    "capture.common-folder": _params("folder machines count"),
    "capture.raid-array": _params("disks"),
    "capture.left-out": _params("count"),
    "capture.orphan-disks": _params("count"),
    "capture.domain-controllers": _params(""),
    "capture.configuration-unread": _params("machine path detail"),
    "capture.configuration-damaged": _params("machine path count"),
    "capture.checkpoint-unread": _params("machine count"),
    "capture.not-registered": _params("machine path"),
    "capture.same-id": _params("machine count id"),
    "capture.saved-state": _params("machine maker"),
    "capture.checkpoint-state": _params("machine count"),
    "capture.tpm": _params("machine what"),
    "capture.tpm-saved": _params("machine guardians"),
    "capture.pass-through": _params("machine disks"),
    "capture.shared-disk": _params("machine disks"),
    "capture.clustered": _params("machine"),
    "capture.replica": _params("machine"),
    "capture.host-devices": _params("machine devices"),
    "capture.version": _params("machine version refused accepted"),
    "capture.scattered": _params("machine count volumes"),
    "capture.image-missing": _params("machine images"),
    "capture.disk-dirty": _params("machine path"),
    "capture.disk-damaged": _params("machine path detail"),
    "capture.disk-unread": _params("machine path detail"),
    "capture.merge-pending": _params("machine"),
    "capture.stray-disk": _params("machine disks"),
    "capture.parent-moved": _params("machine child parent detail"),
    "capture.parent-missing": _params("machine child parent detail"),
    "capture.chain-broken": _params("machine child parent detail"),
    "capture.chain-warnings": _params("machine count"),
    "capture.file-missing": _params("machine files"),
    "capture.file-remote": _params("machine files"),
    "capture.file-locked": _params("machine files"),
    "capture.file-unreadable": _params("machine path reason"),
    "capture.target-fat": _params("target kind"),
    "capture.target-exfat": _params("target"),
    "capture.target-small": _params("target free needed"),
    "capture.target-is-source": _params("target"),
    "capture.target-same-disk": _params("target"),
    "windows.pending-servicing": _params("windows"),
    "windows.device-policy": _params("windows"),
    "windows.letter-elsewhere": _params("windows letter volume"),
    "disk.san-policy": _params("windows disks"),
    "windows.crash-reboot": _params("windows"),
    "driver.missing": _DRIVER,
    "driver.missing-data": _DRIVER,
    "driver.card-unknown": _DRIVER,
    "driver.not-at-boot": _DRIVER,
    "driver.file-missing": _DRIVER,
    "driver.file-missing-data": _DRIVER,
    "driver.better-package": _DRIVER,
    "driver.package-unverified": _params("windows service package"),
    "driver.package-conflict": _params("windows service package"),
    "driver.packages-left-out": _params("count"),
    "driver.chain-broken": _params("windows service"),
    "driver.filter-dangling": _params("windows service"),
    "driver.boot-file-missing": _params("windows service file"),
}

CHECKS: frozenset[str] = _params(
    "verify.firmware-entry verify.boot-file verify.active-partition verify.boot-code verify.volume-code "
    "verify.store-readable verify.default-entry verify.device verify.loader verify.osdevice verify.system-hive verify.winre "
    "verify.fallback-store verify.storage-driver verify.driver-record verify.driver-service verify.driver-file verify.driver-signature "
    "verify.driver-chain verify.driver-filters"
)

NOTES: dict[str, frozenset[str]] = {
    "dism-chosen": _params(""),
    "dism-used": _params(""),
    "dism-platform": _params(""),
    "dism-absent": _params(""),
    "dism-older": _params("running target"),
    "dism-database": _params("target"),
    "dism-folder": _params("folder"),
    "dism-failed": _params("detail"),
    "dism-judged": _params("detail"),
}

# ApplyError's codes, then those that only this package uses
ERRORS: frozenset[str] = _params(
    "stale-survey volume-gone no-space journal write hive dirty read-only hibernated verify-write firmware "
    "conflict mount boot-code file-system busy disks interrupted report internal other"
) | {f"driver-{code}" for code in CODES}
