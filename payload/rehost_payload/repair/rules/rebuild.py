"""A boot environment that is missing, damaged or incomplete is made anew from the installation, as bcdboot would.

Sources are the files below <Windows>\\Boot; nothing comes from elsewhere. Files that stand on the system partition
already are left alone unless they are damaged. A store that can be read is never replaced: rules/elements.py mends it.
"""

from __future__ import annotations

from collections.abc import Iterator

from rehost_payload.repair.bootstore import new_main_store, new_recovery_store
from rehost_payload.repair.issue import Issue, Question, SettleFix
from rehost_payload.repair.model import Action, CopyFile, CreateStore, Finding, Severity
from rehost_payload.repair.targets import boot_manager, loaders_of
from rehost_payload.repair.view import View, normal
from rehost_payload.survey.model import (
    BootFile,
    BootStore,
    FirmwareMode,
    StoreRole,
    StoreState,
    Volume,
    WindowsInstallation,
)

EFI_FOLDER = "\\EFI\\Microsoft\\Boot"
EFI_STORE = EFI_FOLDER + "\\BCD"
EFI_RECOVERY_STORE = "\\EFI\\Microsoft\\Recovery\\BCD"
BIOS_STORE = "\\Boot\\BCD"
BOOTMGFW = EFI_FOLDER + "\\bootmgfw.efi"
BOOT_STL = EFI_FOLDER + "\\boot.stl"
_STL_SINCE = 26100
"""Boot managers from this build on (Server 2025) end with 0xc000000f under Secure Boot where boot.stl is not beside them:
26100.30215, 27954.300 and 28000.322 do, 22621.4890 and 19041.5369 do not."""
FALLBACK_NAMES = {"x64": "bootx64.efi", "x86": "bootia32.efi", "arm64": "bootaa64.efi"}
_FINDINGS = {
    StoreState.MISSING: "boot.store-missing",
    StoreState.EMPTY: "boot.store-empty",
    StoreState.NOT_A_HIVE: "boot.store-damaged",
    StoreState.DAMAGED: "boot.store-damaged",
}


def rules(view: View) -> Iterator[Issue]:
    yield from _efi(view)
    for disk in view.bios_starts:
        system = view.bios_system_volume(disk)
        if system is not None:
            yield from _bios(view, system)
    for store in view.stores:
        if store.state is StoreState.DIRTY and store.objects:
            yield _dirty(view, store)
        elif store.role is StoreRole.EFI_RECOVERY and store.state in _FINDINGS:
            yield from _recovery_store(view, store)


def _store(view: View, volume: Volume, role: StoreRole) -> BootStore | None:
    return next((s for s in view.survey.boot_stores if s.volume == volume.id and s.role is role), None)


def _usable(view: View, store: BootStore | None) -> bool:
    return (
        store is not None
        and store.state in (StoreState.OK, StoreState.DIRTY)
        and bool(loaders_of(view, store))
        and boot_manager(view, store) is not None
    )


def _dirty(view: View, store: BootStore) -> Issue:
    logs = ", ".join(store.logs) or "no log beside it"
    evidence = (
        f"{store.id}: sequence numbers differ; {logs}; " + ("replayed" if store.replayed else "not replayed"),
    )
    weight = Severity.WARNING if store.role is StoreRole.EFI_RECOVERY else Severity.FATAL
    finding = Finding("boot.store-dirty", weight, store.id, {"path": store.path}, evidence, True)
    return Issue(finding, (SettleFix(store.id),))


def installation_for(view: View, system: Volume, mode: FirmwareMode) -> tuple[WindowsInstallation, ...]:
    """The installations that a new store on ``system`` could start: one: clear; several: a choice."""
    fitting = [w for w in view.candidates if view.mode(view.disk_of(w.volume)) is mode]
    return tuple([w for w in fitting if view.volumes[w.volume].disk == system.disk] or fitting)


# --- UEFI --------------------------------------------------------------------------------------------------


def _efi(view: View) -> Iterator[Issue]:
    esp = view.esp
    if esp is None:
        for disk in view.our_disks:
            if view.mode(disk) is FirmwareMode.UEFI and view.installations_on(disk):
                evidence = tuple(
                    f"{p.id}: {p.type_name or p.type}, {p.size} bytes" for p in disk.table.partitions
                )
                yield Issue(Finding("esp.missing", Severity.FATAL, disk.id, {"disk": disk.path}, evidence))
        return
    if len(view.esps) > 1:
        params = {"count": str(len(view.esps)), "used": esp.id}
        yield Issue(Finding("esp.several", Severity.INFO, esp.id, params, tuple(v.id for v in view.esps)))
    installations = installation_for(view, esp, FirmwareMode.UEFI)
    if not installations:
        return
    store = _store(view, esp, StoreRole.EFI_SYSTEM)
    windows = _started_by(view, store, installations) if _usable(view, store) else None
    if windows is None:
        if len(installations) > 1:
            yield _store_issue(view, esp, EFI_STORE, store, (), installations)
            return
        windows = installations[0]
        actions: tuple[Action, ...] = (
            *efi_files(view, windows, esp),
            new_main_store(view, FirmwareMode.UEFI, esp, windows, EFI_STORE, store),
        )
        recovery = _store(view, esp, StoreRole.EFI_RECOVERY)
        if recovery is None or recovery.state in _FINDINGS:
            made = new_recovery_store(view, esp, windows, EFI_RECOVERY_STORE, recovery)
            actions += (made,) if made else ()
        yield _store_issue(view, esp, EFI_STORE, store, actions, installations)
    yield from _efi_files(view, esp, windows)


def _started_by(
    view: View, store: BootStore | None, installations: tuple[WindowsInstallation, ...]
) -> WindowsInstallation:
    """Whose boot files belong on the system partition: the only installation, or the newest (boot managers start
    older systems, not newer ones)."""
    return max(installations, key=lambda w: (w.build or 0, w.revision or 0))


def _store_issue(
    view: View,
    system: Volume,
    path: str,
    store: BootStore | None,
    actions: tuple[Action, ...],
    installations: tuple[WindowsInstallation, ...],
) -> Issue:
    if store is None:
        code, detail = "boot.store-missing", "no such file"
    elif store.state in _FINDINGS:
        code, detail = _FINDINGS[store.state], store.detail or store.state.value
    else:
        code, detail = "boot.no-osloader", "no boot manager object or no entry that starts a Windows"
    params = {"path": path, "volume": system.id, "detail": detail}
    evidence = (f"{system.id} {path}: {detail}",)
    sources = any(isinstance(a, CreateStore) for a in actions)
    finding = Finding(code, Severity.FATAL, store.id if store else system.id, params, evidence, sources)
    question = Question("windows", tuple(w.id for w in installations)) if not actions else None
    return Issue(finding, actions, question)


def _mapped(windows: WindowsInstallation, folders: dict[str, str]) -> Iterator[tuple[str, str, int]]:
    """(source path, target path, size) for every source file below one of ``folders`` (of <Windows>\\Boot)."""
    base = normal(windows.root) + "\\boot\\"
    for f in windows.source_files:
        relative = normal(f.path)
        if not relative.startswith(base):
            continue
        own = f.path.strip("\\").split("\\")[2:]  # behind <Windows>\Boot, in its own spelling
        target = folders.get(own[0].lower())
        if target is not None and len(own) > 1:
            yield f.path, target + "\\" + "\\".join(own[1:]), f.size


def efi_files(view: View, windows: WindowsInstallation, esp: Volume) -> tuple[CopyFile, ...]:
    """Everything that bcdboot copies to the ESP, and the fallback loader."""
    folders = {"efi": EFI_FOLDER, "fonts": EFI_FOLDER + "\\Fonts", "resources": EFI_FOLDER + "\\Resources"}
    return tuple(
        _copy(view, windows, esp, source, target, size, "boot.files-missing")
        for source, target, size in _mapped(windows, folders)
    ) + _fallback(view, windows, esp, replace=False)


def _copy(
    view: View,
    windows: WindowsInstallation,
    system: Volume,
    source: str,
    target: str,
    size: int,
    finding: str,
    replace: bool = False,
) -> CopyFile:
    origin = view.ref(view.volumes[windows.volume])
    return CopyFile(origin, source, view.ref(system), target, size, finding, replace)


def _source(windows: WindowsInstallation, relative: str) -> tuple[str, int] | None:
    wanted = normal(windows.root) + "\\boot\\" + relative.lower()
    return next(((f.path, f.size) for f in windows.source_files if normal(f.path) == wanted), None)


def _fallback(view: View, windows: WindowsInstallation, esp: Volume, replace: bool) -> tuple[CopyFile, ...]:
    found = _source(windows, "efi\\bootmgfw.efi")
    name = FALLBACK_NAMES.get(windows.architecture or "x64")
    if found is None or name is None:
        return ()
    target = "\\EFI\\Boot\\" + name
    return (
        _copy(view, windows, esp, *(found[0], target, found[1]), "boot.fallback-loader-missing", replace),
    )


def _efi_files(view: View, esp: Volume, windows: WindowsInstallation) -> Iterator[Issue]:
    """The files beside the store."""
    arch = windows.architecture or "x64"
    fallback_path = "\\EFI\\Boot\\" + FALLBACK_NAMES.get(arch, "bootx64.efi")
    fallback = view.boot_file(esp, fallback_path)
    loader = view.boot_file(esp, BOOTMGFW)
    if loader is None:
        files = efi_files(view, windows, esp)
        sources = any(normal(f.path) == normal(BOOTMGFW) for f in files)
        weight = Severity.FATAL if fallback is None else Severity.WARNING
        params = {"volume": esp.id, "files": BOOTMGFW}
        finding = Finding(
            "boot.files-missing", weight, esp.id, params, (f"{esp.id}: no {BOOTMGFW}",), repairable=sources
        )
        yield Issue(finding, files if sources else ())
        if not sources:
            yield _no_source(windows, "\\Boot\\EFI\\bootmgfw.efi")
        return
    if loader.problem is not None or loader.machine not in (None, arch):
        yield _damaged(
            view, esp, windows, BOOTMGFW, loader.problem or f"made for {loader.machine}", Severity.FATAL
        )
    if fallback is None:
        copies = _fallback(view, windows, esp, replace=False)
        finding = Finding(
            "boot.fallback-loader-missing",
            Severity.WARNING,
            esp.id,
            {"volume": esp.id},
            (f"{esp.id}: no {fallback_path}",),
            bool(copies),
        )
        yield Issue(finding, copies)
    elif fallback.problem is not None:
        yield _damaged(view, esp, windows, fallback_path, fallback.problem, Severity.WARNING)
    yield from _stl(view, esp, windows, loader)


def _stl(view: View, esp: Volume, windows: WindowsInstallation, loader: BootFile) -> Iterator[Issue]:
    """The list of revoked signatures, of which the boot manager makes a condition where Secure Boot is on."""
    version = (loader.version or "").split(".")
    build = int(version[2]) if len(version) == 4 and version[2].isdecimal() else 0
    there = view.boot_file(esp, BOOT_STL)
    if build < _STL_SINCE or (there is not None and there.problem is None):
        return
    on = view.survey.firmware.secure_boot
    found = _source(windows, "efi\\boot.stl")
    if found is None and not on:
        return
    copies: tuple[CopyFile, ...] = ()
    if found is not None:
        target = there.path if there else BOOT_STL
        copies = (
            _copy(view, windows, esp, found[0], target, found[1], "boot.stl-missing", there is not None),
        )
    what = there.problem if there is not None else "missing"
    evidence = f"{esp.id} {BOOT_STL}: {what}; {loader.path} {loader.version}"
    weight = Severity.FATAL if on else Severity.WARNING
    finding = Finding("boot.stl-missing", weight, esp.id, {"volume": esp.id}, (evidence,), bool(copies))
    yield Issue(finding, copies)


def _damaged(
    view: View, esp: Volume, windows: WindowsInstallation, path: str, detail: str, weight: Severity
) -> Issue:
    found = _source(windows, "efi\\bootmgfw.efi")
    copies = (
        (_copy(view, windows, esp, *(found[0], path, found[1]), "boot.file-damaged", True),) if found else ()
    )
    finding = Finding(
        "boot.file-damaged",
        weight,
        esp.id,
        {"path": path, "detail": detail},
        (f"{esp.id} {path}: {detail}",),
        bool(copies),
    )
    return Issue(finding, copies)


def _no_source(windows: WindowsInstallation, relative: str) -> Issue:
    path = windows.root + relative
    return Issue(
        Finding(
            "windows.files-missing",
            Severity.FATAL,
            windows.id,
            {"windows": windows.id, "files": path},
            (f"{windows.volume}: no {path}",),
        )
    )


def _recovery_store(view: View, store: BootStore) -> Iterator[Issue]:
    """A fallback store that is there but cannot be used. (One that is simply not there is no fault.)"""
    esp = view.volumes[store.volume]
    if store.state is StoreState.MISSING or (view.esp is not None and esp.id != view.esp.id):
        return
    main = _store(view, esp, StoreRole.EFI_SYSTEM)
    if not _usable(view, main):
        return  # made anew together with the main store
    installations = installation_for(view, esp, FirmwareMode.UEFI)
    made = (
        new_recovery_store(view, esp, installations[0], store.path, store)
        if len(installations) == 1
        else None
    )
    params = {"path": store.path, "volume": esp.id, "detail": store.detail or store.state.value}
    finding = Finding(
        _FINDINGS[store.state],
        Severity.WARNING,
        store.id,
        params,
        (f"{store.id}: {params['detail']}",),
        bool(made),
    )
    yield Issue(finding, (made,) if made else ())


# --- BIOS --------------------------------------------------------------------------------------------------


def _bios(view: View, system: Volume) -> Iterator[Issue]:
    installations = installation_for(view, system, FirmwareMode.BIOS)
    if not installations:
        return
    store = _store(view, system, StoreRole.BIOS_SYSTEM)
    windows = _started_by(view, store, installations)
    files = _bios_copies(view, windows, system)
    if not _usable(view, store):
        if len(installations) > 1:
            yield _store_issue(view, system, BIOS_STORE, store, (), installations)
        else:
            made = new_main_store(view, FirmwareMode.BIOS, system, windows, BIOS_STORE, store)
            yield _store_issue(view, system, BIOS_STORE, store, (*files, made), installations)
    if view.boot_file(system, "\\bootmgr") is None:
        sources = any(normal(f.path) == "\\bootmgr" for f in files)
        params = {"volume": system.id}
        yield Issue(
            Finding(
                "bios.bootmgr-missing",
                Severity.FATAL,
                system.id,
                params,
                (f"{system.id}: no \\bootmgr",),
                sources,
            ),
            files if sources else (),
        )
        if not sources:
            yield _no_source(windows, "\\Boot\\PCAT\\bootmgr")


def _bios_copies(view: View, windows: WindowsInstallation, system: Volume) -> tuple[CopyFile, ...]:
    copies = []
    at_root = {"bootmgr": "\\bootmgr", "bootnxt": "\\BOOTNXT"}
    folders = {"pcat": "\\Boot", "fonts": "\\Boot\\Fonts", "resources": "\\Boot\\Resources"}
    for source, target, size in _mapped(windows, folders):
        place = at_root.get(normal(target).removeprefix("\\boot\\"), target)
        copies.append(_copy(view, windows, system, source, place, size, "bios.bootmgr-missing"))
    return tuple(copies)
