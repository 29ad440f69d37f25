"""What is wrong inside the boot stores that can be read: devices, paths, the default entry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rehost_payload.formats.bcd import BcdObject, set_element
from rehost_payload.formats.bcd_devices import Device, Identity, PartitionDevice
from rehost_payload.formats.bcd_devices import describe_identity as describe
from rehost_payload.formats.bcd_names import element_name, object_name
from rehost_payload.repair.issue import Issue, Question, StoreFix
from rehost_payload.repair.model import Finding, Severity
from rehost_payload.repair.targets import (
    DEFAULT,
    DEVICE,
    DISPLAY_ORDER,
    OSDEVICE,
    PATH,
    SYSTEMROOT,
    TYPE_FIRMWARE_APPLICATION,
    TYPE_OSLOADER,
    TYPE_RESUME,
    DeviceElement,
    boot_manager,
    default_loader,
    device_elements,
    loader_volumes,
    loaders_of,
    name_of,
    retarget,
)
from rehost_payload.repair.view import View, normal
from rehost_payload.survey.model import (
    BootStore,
    FirmwareMode,
    StoreRole,
    StoreState,
    Volume,
    WindowsInstallation,
)

_READABLE = (StoreState.OK, StoreState.DIRTY)


def rules(view: View) -> Iterator[Issue]:
    for store in view.stores:
        if store.state in _READABLE and store.objects:
            yield from _devices(view, store)
            yield from _missing_devices(view, store)
            yield from _paths(view, store)
            yield from _default(view, store)


def label(obj: BcdObject, element_type: int) -> str:
    """The element as evidence names it: "21000001 (osdevice)"."""
    return f"{element_type:08x} ({element_name(element_type, obj.type)})"


def _set(store: BootStore, obj: BcdObject, element_type: int, value: Device | str) -> StoreFix:
    return StoreFix(store.id, tuple(set_element(obj.guid, element_type, value)))


def _weight(view: View, store: BootStore, obj: BcdObject, element_type: int) -> Severity:
    """Fatal only where the next start needs it: device and osdevice of the entry that the main store starts."""
    default = default_loader(view, store)
    needed = store.role is not StoreRole.EFI_RECOVERY and default is not None and default.guid == obj.guid
    return Severity.FATAL if needed and element_type in (DEVICE, OSDEVICE) else Severity.WARNING


def _params(store: BootStore, obj: BcdObject, element_type: int, **more: str) -> dict[str, str]:
    return {"entry": name_of(obj), "element": label(obj, element_type), "path": store.path, **more}


def _devices(view: View, store: BootStore) -> Iterator[Issue]:
    for group in _by_object(device_elements(view, store)):
        issues = list(_entry_devices(view, store, group))
        stale = [i for i in issues if i.finding.id == "boot.device-stale"]
        yield from (i for i in issues if i not in stale)
        if stale:
            yield _merged(stale)


def _by_object(devices: Sequence[DeviceElement]) -> Iterator[list[DeviceElement]]:
    groups: dict[str, list[DeviceElement]] = {}
    for device in devices:
        groups.setdefault(device.object.guid, []).append(device)
    yield from groups.values()


def _merged(issues: Sequence[Issue]) -> Issue:
    """One finding for all stale elements of an entry: it is one thing that happened to it."""
    first = min((i.finding for i in issues), key=lambda f: list(Severity).index(f.severity))
    params = {**first.params, "element": ", ".join(i.finding.params["element"] for i in issues)}
    evidence = tuple(line for i in issues for line in i.finding.evidence)
    return Issue(replace(first, params=params, evidence=evidence), tuple(f for i in issues for f in i.fixes))


def _entry_devices(view: View, store: BootStore, devices: Sequence[DeviceElement]) -> Iterator[Issue]:
    """Entries of the firmware ("UEFI: USB stick") are Windows' copy of its variables: that one names something
    which is not plugged in is no finding."""
    for device in devices:
        obj, kind = device.object, device.element.type
        weight = _weight(view, store, obj, kind)
        params = _params(store, obj, kind, old=", ".join(describe(i) for i in device.identities))
        where = f"{store.id} {object_name(obj.guid)} {label(obj, kind)}"
        if device.unknown:
            yield _unknown(view, device, weight, params, where)
        elif device.missing:
            if obj.type != TYPE_FIRMWARE_APPLICATION or len(device.wanted) == 1:
                yield _missing(view, device, weight, params, where)
        elif device.stale_disks:
            new = retarget(view, device, None)
            evidence = tuple(
                f"{where}: {describe(i)}; the partition is there, on {view.find(i)[0].disk}"
                for i in device.stale_disks
            )
            fixes = () if new is None else (_set(store, obj, kind, new),)
            yield Issue(
                Finding("boot.disk-guid-stale", Severity.WARNING, store.id, params, evidence, bool(fixes)),
                fixes,
            )


def _unknown(
    view: View, device: DeviceElement, weight: Severity, params: dict[str, str], where: str
) -> Issue:
    """Bytes that are no device. Only a loader's own devices are replaced: what else it may have meant is unknown."""
    obj, kind = device.object, device.element.type
    loader = obj in loaders_of(view, device.store) and kind in (DEVICE, OSDEVICE) and len(device.wanted) == 1
    new = retarget(view, device, device.wanted[0]) if loader else None
    fixes = () if new is None else (_set(device.store, obj, kind, new),)
    params = {**params, "old": device.element.data[:32].hex()}
    evidence = (f"{where}: not a device that is understood: {device.element.data[:32].hex()}",)
    weight = weight if weight is Severity.FATAL else Severity.INFO
    return Issue(
        Finding("boot.device-unresolvable", weight, device.store.id, params, evidence, bool(fixes)), fixes
    )


def _missing(
    view: View, device: DeviceElement, weight: Severity, params: dict[str, str], where: str
) -> Issue:
    store, obj, kind = device.store, device.object, device.element.type
    evidence = [f"{where}: {describe(i)}: no such partition" for i in device.missing]
    if len(device.wanted) == 1:
        target = device.wanted[0]
        new = retarget(view, device, target)
        if new is not None:
            evidence.append(f"{where}: belongs to {target.id} ({describe_volume(view, target)})")
            finding = Finding("boot.device-stale", weight, store.id, params, tuple(evidence), True)
            return Issue(finding, (_set(store, obj, kind, new),))
    if len(device.wanted) > 1:
        found = tuple(w.id for w in view.windows if w.volume in [v.id for v in device.wanted])
        names = ", ".join(found or [v.id for v in device.wanted])
        finding = Finding(
            "windows.ambiguous", weight, store.id, {**params, "candidates": names}, tuple(evidence)
        )
        return Issue(finding, (), Question("windows", found) if len(found) > 1 else None)
    return Issue(Finding("boot.device-unresolvable", weight, store.id, params, tuple(evidence)))


def describe_volume(view: View, volume: Volume) -> str:
    identity = view.identity(volume)
    return f"{volume.label or volume.file_system.value}, {describe(identity) if identity else 'no partition'}"


def _missing_devices(view: View, store: BootStore) -> Iterator[Issue]:
    """Loaders without device or osdevice: 0xc0000001 and 0xc0000225."""
    for obj in loaders_of(view, store):
        for kind in (DEVICE, OSDEVICE):
            if kind in obj.elements:
                continue
            volumes = loader_volumes(view, store, obj)
            identity = view.identity(volumes[0]) if len(volumes) == 1 else None
            fixes = _point(store, obj, (kind,), identity)
            evidence = (f"{store.id} {object_name(obj.guid)}: no element {label(obj, kind)}",)
            params = _params(store, obj, kind)
            yield Issue(
                Finding(
                    "boot.device-missing",
                    _weight(view, store, obj, kind),
                    store.id,
                    params,
                    evidence,
                    bool(fixes),
                ),
                fixes,
            )


def _point(
    store: BootStore, obj: BcdObject, kinds: tuple[int, ...], identity: Identity | None
) -> tuple[StoreFix, ...]:
    if identity is None:
        return ()
    return tuple(_set(store, obj, kind, PartitionDevice(identity=identity)) for kind in kinds)


_EFI_NAMES = {"winload.exe": "winload.efi", "winresume.exe": "winresume.efi"}
_BIOS_NAMES = {new: old for old, new in _EFI_NAMES.items()}


def wanted_path(path: str, mode: FirmwareMode) -> str:
    """The path with the loader's name that this firmware mode starts; unchanged where it is right already."""
    folder, _, name = path.rpartition("\\")
    names = _EFI_NAMES if mode is FirmwareMode.UEFI else _BIOS_NAMES
    new = names.get(name.lower())
    return path if new is None else f"{folder}\\{new}"


def _target(view: View, store: BootStore, obj: BcdObject) -> Volume | None:
    """Where a loader will be looked for once its devices are right."""
    for device in device_elements(view, store):
        if device.object.guid == obj.guid and device.element.type == DEVICE:
            if not device.missing and device.points_to is not None:
                return device.points_to
            return device.wanted[0] if len(device.wanted) == 1 else None
    volumes = loader_volumes(view, store, obj) if obj.type == TYPE_OSLOADER else ()
    return volumes[0] if len(volumes) == 1 else None


def _paths(view: View, store: BootStore) -> Iterator[Issue]:
    mode = view.store_mode(store)
    for obj in view.content(store).objects.values():
        if obj.type not in (TYPE_OSLOADER, TYPE_RESUME):
            continue
        path = obj.string(PATH)
        if not path:
            continue
        wanted = wanted_path(path, mode)
        weight = _weight(view, store, obj, DEVICE)
        params = _params(store, obj, PATH, path=path, wanted=wanted)
        if wanted != path:
            evidence = (
                f"{store.id} {object_name(obj.guid)} 12000002: {path}; the store is one for {mode.value}",
            )
            fix = _set(store, obj, PATH, wanted)
            yield Issue(
                Finding("boot.path-firmware-mismatch", weight, store.id, params, evidence, True), (fix,)
            )
        target = _target(view, store, obj)
        if obj not in loaders_of(view, store) or target is None or target.unreadable:
            continue
        yield from _loader_file(view, store, obj, target, wanted, weight)


def _loader_file(
    view: View, store: BootStore, obj: BcdObject, target: Volume, path: str, weight: Severity
) -> Iterator[Issue]:
    """The partition exists: does it hold the loader and the Windows that the entry names?"""
    root = obj.string(SYSTEMROOT) or "\\Windows"
    installation = view.installation_at(target, root)
    if installation is not None and _has_loader(installation, path):
        return
    if view.holds(target, path) and installation is not None:
        return
    params = _params(store, obj, PATH, path=path, volume=target.id)
    if installation is not None:
        evidence = (f"{target.id}: {root} is there, {path} is not",)
        yield Issue(
            Finding(
                "windows.files-missing",
                weight,
                installation.id,
                {"windows": installation.id, "files": path},
                evidence,
            )
        )
        return
    evidence = (
        f"{store.id} {object_name(obj.guid)}: points to {target.id}, which holds no {root} with {path}",
    )
    others = [w for w in view.candidates if normal(w.root) == normal(root) and w.volume != target.id]
    identity = view.identity(view.volumes[others[0].volume]) if len(others) == 1 else None
    fixes = _point(store, obj, (DEVICE, OSDEVICE), identity)
    yield Issue(Finding("boot.path-missing", weight, store.id, params, evidence, bool(fixes)), fixes)


def _has_loader(installation: WindowsInstallation, path: str) -> bool:
    found = installation.winload_efi if path.lower().endswith(".efi") else installation.winload_exe
    return found is not None and normal(found.path) == normal(path)


def _default(view: View, store: BootStore) -> Iterator[Issue]:
    objects = view.content(store).objects
    manager, loaders = boot_manager(view, store), loaders_of(view, store)
    if manager is None or not loaders:
        return  # rules/rebuild.py: such a store is made anew
    default = manager.string(DEFAULT)
    if default is None or default in objects:
        return
    evidence = (f"{store.id} {{bootmgr}} {label(manager, DEFAULT)}: {{{default}}} is not in the store",)
    listed = any(g in objects for g in manager.objects(DISPLAY_ORDER))
    weight = Severity.WARNING if listed or store.role is StoreRole.EFI_RECOVERY else Severity.FATAL
    params = {"default": "{" + default + "}", "path": store.path}
    fix = _set(store, manager, DEFAULT, loaders[0].guid)
    yield Issue(Finding("boot.default-dangling", weight, store.id, params, evidence, True), (fix,))
