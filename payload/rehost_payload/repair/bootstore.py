"""New boot stores for an installation: what formats/bcd_build.py builds, filled from a survey."""

from __future__ import annotations

from uuid import UUID, uuid5

from rehost_payload.formats.bcd_build import NX_OPT_IN, NX_OPT_OUT, Recovery, bcdboot_store, recovery_store
from rehost_payload.repair.model import CreateStore
from rehost_payload.repair.view import View
from rehost_payload.survey.model import BootStore, FirmwareMode, StoreState, Volume, WindowsInstallation

# the name space of the object GUIDs that we derive from the identity of the partition and the store's path
_SEEDS = UUID("6f0a4b52-2b0f-5b4e-9c55-5d3f6e1c7a10")
_IMAGE = "\\Recovery\\WindowsRE\\winre.wim"
_SDI = "\\Recovery\\WindowsRE\\boot.sdi"


def new_main_store(
    view: View,
    mode: FirmwareMode,
    system: Volume,
    windows: WindowsInstallation,
    path: str,
    old: BootStore | None,
) -> CreateStore:
    """The store that bcdboot would write for ``windows`` on ``system``, with its WinRE where that is found.

    A Hyper-V host gets ``hypervisorlaunchtype Auto``, without which none of its VMs would start.
    """
    volume = view.volumes[windows.volume]
    own, target = view.identity(system), view.identity(volume)
    if own is None or target is None:
        raise ValueError("a boot store names partitions; these volumes are none")
    edits = bcdboot_store(
        firmware="uefi" if mode is FirmwareMode.UEFI else "bios",
        system=own,
        windows=target,
        seed=_seed(view, volume, path),
        locale=windows.locale or "en-US",
        description=_description(windows),
        windows_root=windows.root,
        nx=NX_OPT_IN if windows.installation_type == "Client" else NX_OPT_OUT,
        hypervisor=bool(windows.hyperv_host),
        recovery=_recovery(view, volume),
    )
    return CreateStore(view.ref(system), path, _hash(old), tuple(edits), "boot.store-missing", _logs(old))


def new_recovery_store(
    view: View, esp: Volume, windows: WindowsInstallation, path: str, old: BootStore | None
) -> CreateStore | None:
    """The fallback store; None where there is no WinRE that it could start."""
    volume = view.volumes[windows.volume]
    own, recovery = view.identity(esp), _recovery(view, volume)
    if own is None or recovery is None:
        return None
    edits = recovery_store(
        system=own, seed=_seed(view, volume, path), recovery=recovery, locale=windows.locale or "en-US"
    )
    return CreateStore(
        view.ref(esp), path, _hash(old), tuple(edits), "boot.recovery-store-missing", _logs(old)
    )


def _seed(view: View, volume: Volume, path: str) -> UUID:
    return uuid5(_SEEDS, f"{view.identity(volume)} {path}")


def _description(windows: WindowsInstallation) -> str:
    """ "Windows Server 2016 Standard" is "Windows Server 2016" in Microsoft's own menus."""
    words = windows.product_name.split()
    for edition in ("Standard", "Datacenter", "Essentials", "Evaluation"):
        if edition in words and "Server" in words:
            words = words[: words.index(edition)]
    return " ".join(words) or "Windows"


def _recovery(view: View, windows: Volume) -> Recovery | None:
    """The recovery environment nearest to the installation: a volume with both image and SDI file."""
    found = [
        v
        for v in view.survey.volumes
        if view.ours(v.id) and view.boot_file(v, _IMAGE) and view.boot_file(v, _SDI) and view.identity(v)
    ]
    ranked = sorted(found, key=lambda v: (v.disk != windows.disk, v.id == windows.id))
    identity = view.identity(ranked[0]) if ranked else None
    return Recovery(identity) if identity is not None else None


def _hash(old: BootStore | None) -> str | None:
    return None if old is None or old.state is StoreState.MISSING else old.sha256


def _logs(old: BootStore | None) -> tuple[str, ...]:
    return old.logs if old is not None else ()
