"""Where each device element of a boot store should point to.

Every element whose format is "device" is looked at, nested devices too, never a fixed list. Where it points is judged
by the partitions that exist; where it should point, by its role: the boot manager lives on the system partition, a
loader and a resume object on the volume of their Windows, ramdisk options on the volume that holds the .sdi, anything
with a path of its own on the volume that holds that path. An element without a role of its own follows the others:
if they moved a partition identity, it moves along.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rehost_payload.formats.bcd import FORMAT_DEVICE, BcdObject, Element, element_format
from rehost_payload.formats.bcd_devices import (
    BootDevice,
    Device,
    FileDevice,
    Identity,
    PartitionDevice,
    RamdiskDevice,
    UnknownDevice,
    decode_device,
    map_partitions,
    partitions,
    walk_devices,
)
from rehost_payload.formats.bcd_names import object_name
from rehost_payload.repair.view import DEVICE as DEVICE
from rehost_payload.repair.view import OSDEVICE as OSDEVICE
from rehost_payload.repair.view import TYPE_OSLOADER as TYPE_OSLOADER
from rehost_payload.repair.view import View, normal
from rehost_payload.survey.model import BootStore, Volume

BOOTMGR = "9dea862c-5cdd-4e70-acc1-f32b344d4795"
TYPE_BOOTMGR = 0x10100002
TYPE_RESUME = 0x10200004
TYPE_MEMDIAG = 0x10200005
TYPE_FIRMWARE_APPLICATION = 0x101FFFFF
PATH = 0x12000002
DESCRIPTION = 0x12000004
SYSTEMROOT = 0x22000002  # of a loader; "filepath" of a resume object
DEFAULT = 0x23000003  # of the boot manager; "resumeobject" of a loader
DISPLAY_ORDER = 0x24000001
RECOVERY_SEQUENCE = 0x14000008
WINPE = 0x26000022
SDI_DEVICE = 0x31000003
SDI_PATH = 0x32000004


def name_of(obj: BcdObject) -> str:
    """What an operator knows the entry by."""
    return obj.string(DESCRIPTION) or object_name(obj.guid)


def inner_path(what: Device) -> str | None:
    """The file that a ramdisk or a virtual disk lies in. (A locate device looks for its path by itself.)"""
    return next((d.path for d in walk_devices(what) if isinstance(d, RamdiskDevice | FileDevice)), None)


@dataclass(frozen=True)
class DeviceElement:
    """One device element with what is known of it.

    ``missing`` are the identities in it that no partition has, ``stale_disks`` those whose partition exists under
    another disk GUID. ``wanted`` are the volumes that its role allows: one: clear; several: a choice; none: unknown.
    """

    store: BootStore
    object: BcdObject
    element: Element
    identities: tuple[Identity, ...]
    missing: tuple[Identity, ...]
    stale_disks: tuple[Identity, ...]
    points_to: Volume | None  # where it resolves to one volume
    wanted: tuple[Volume, ...]
    unknown: bool = False  # the bytes are no device that we understand

    @property
    def device(self) -> Device:
        return decode_device(self.element.data)


def device_elements(view: View, store: BootStore) -> tuple[DeviceElement, ...]:
    """Every device element of a store, judged. Pure."""
    elements = view.content(store).elements()
    found = [_judge(view, store, o, e) for o, e in elements if element_format(e.type) == FORMAT_DEVICE]
    return tuple(_follow(view, d, found) for d in found)


def _judge(view: View, store: BootStore, obj: BcdObject, e: Element) -> DeviceElement:
    what = decode_device(e.data)
    ids = tuple(partitions(what))
    missing, stale, at = [], [], None
    for identity in ids:
        volumes = view.find(identity, view.volumes[store.volume])
        if not volumes:
            missing.append(identity)
            continue
        at = volumes[0]
        if all(view.identity(v) != identity for v in volumes):
            stale.append(identity)
    if isinstance(what, BootDevice):
        at = view.volumes[store.volume]
    wanted = tuple(dict.fromkeys(_by_role(view, store, obj, e, what)))
    unknown = isinstance(what, UnknownDevice)
    return DeviceElement(store, obj, e, ids, tuple(missing), tuple(stale), at, wanted, unknown)


def _by_role(view: View, store: BootStore, obj: BcdObject, e: Element, what: Device) -> Iterator[Volume]:
    """The volumes that this element may point to, best first."""
    path = inner_path(what)
    own = view.volumes[store.volume]
    if path is not None:  # ramdisk, file and virtual disk name what they want themselves
        yield from _nearest(view, own, view.holders(path))
    elif e.type == SDI_DEVICE:
        sdi = obj.string(SDI_PATH)
        if sdi is not None:
            yield from _nearest(view, own, view.holders(sdi))
    elif obj.type == TYPE_BOOTMGR or obj.guid == BOOTMGR:
        yield own
    elif obj.type == TYPE_MEMDIAG:
        program = obj.string(PATH)
        holding = view.holders(program) if program else ()
        yield from [own] if own in holding or not holding else _nearest(view, own, holding)
    elif obj.type == TYPE_OSLOADER:
        yield from loader_volumes(view, store, obj)
    elif obj.type == TYPE_RESUME:
        loaders = [
            o
            for o in view.content(store).objects.values()
            if o.string(DEFAULT) == obj.guid and o.type == TYPE_OSLOADER
        ]
        for loader in loaders:
            yield from loader_volumes(view, store, loader)
        if not loaders:
            yield from _with_program(view, own, obj)
    elif obj.type != TYPE_FIRMWARE_APPLICATION and e.type == DEVICE:
        yield from _with_program(
            view, own, obj
        )  # boot sector files, tools: whatever has a program of its own


def _with_program(view: View, own: Volume, obj: BcdObject) -> list[Volume]:
    program = obj.string(PATH)
    return _nearest(view, own, view.holders(program)) if program else []


def _nearest(view: View, own: Volume, volumes: tuple[Volume, ...]) -> list[Volume]:
    """Those on the store's own disk if there are any, else all."""
    return [v for v in volumes if v.disk == own.disk] or list(volumes)


def loader_volumes(view: View, store: BootStore, obj: BcdObject) -> tuple[Volume, ...]:
    """The volumes whose Windows this loader may start.

    An installation that another entry of the store starts already is not offered to a second one; the chosen
    installation goes first; after that those on the store's own disk.
    """
    found = obj.device(OSDEVICE) or obj.device(DEVICE)
    if isinstance(found, RamdiskDevice):
        path = inner_path(found)
        return tuple(_nearest(view, view.volumes[store.volume], view.holders(path))) if path else ()
    root = obj.string(SYSTEMROOT) or "\\Windows"
    fitting = [w for w in view.windows if normal(w.root) == normal(root)]
    current = _resolved(view, store, obj)
    taken = {
        v.id
        for o in view.content(store).objects.values()
        if o.type == TYPE_OSLOADER and o.guid != obj.guid and (v := _resolved(view, store, o)) is not None
    }
    if current is not None and any(w.volume == current.id for w in fitting):
        return (current,)
    free = [w for w in fitting if w.volume not in taken] or fitting
    if view.choices.windows is not None:  # the choice is about the entry that starts; the others get the rest
        free = [w for w in free if (w in view.candidates) == _is_default(view, store, obj)] or free
    if len(free) > 1:
        title = (obj.string(DESCRIPTION) or "").lower()
        named = [w for w in free if title and w.product_name.lower().startswith(title)]
        free = named or free
    volumes = tuple(view.volumes[w.volume] for w in free)
    return tuple(_nearest(view, view.volumes[store.volume], volumes))


def boot_manager(view: View, store: BootStore) -> BcdObject | None:
    objects = view.content(store).objects
    return objects.get(BOOTMGR) or next((o for o in objects.values() if o.type == TYPE_BOOTMGR), None)


def loaders_of(view: View, store: BootStore) -> tuple[BcdObject, ...]:
    """The store's osloader objects that start an installation (not one from a ramdisk), as the menu orders them."""
    manager = boot_manager(view, store)
    order = manager.objects(DISPLAY_ORDER) if manager else ()
    loaders = [
        o for o in view.content(store).objects.values() if o.type == TYPE_OSLOADER and not from_ramdisk(o)
    ]
    return tuple(sorted(loaders, key=lambda o: order.index(o.guid) if o.guid in order else len(order)))


def from_ramdisk(obj: BcdObject) -> bool:
    return isinstance(obj.device(OSDEVICE) or obj.device(DEVICE), RamdiskDevice)


def default_loader(view: View, store: BootStore) -> BcdObject | None:
    """The entry that starts by itself: the default; where that is dangling, the first of the menu."""
    manager = boot_manager(view, store)
    default = view.content(store).get(manager.string(DEFAULT) or "") if manager else None
    if default is not None:
        return default
    loaders = loaders_of(view, store)
    return loaders[0] if loaders else None


def _is_default(view: View, store: BootStore, obj: BcdObject) -> bool:
    default = default_loader(view, store)
    return default is not None and default.guid == obj.guid


def _resolved(view: View, store: BootStore, obj: BcdObject) -> Volume | None:
    """The volume that a loader's osdevice points to today, if it does."""
    osdevice = obj.device(OSDEVICE)
    if osdevice is None:
        return None
    found = [v for i in partitions(osdevice) for v in view.find(i, view.volumes[store.volume])]
    return found[0] if found else None


def _follow(view: View, this: DeviceElement, others: list[DeviceElement]) -> DeviceElement:
    """An element that its role does not place follows those that shared its partition with it."""
    if this.wanted or not this.missing:
        return this  # placed by its role, or nothing to place
    wanted: list[Volume] = []
    for other in others:
        if set(other.missing) & set(this.missing) and len(other.wanted) == 1:
            wanted += [v for v in other.wanted if v not in wanted]
    return replace(this, wanted=tuple(wanted))


def retarget(view: View, this: DeviceElement, volume: Volume | None) -> Device | None:
    """The device with every missing identity replaced by that of ``volume``, every stale one by its own.

    A device that is not understood becomes one that simply names the partition of ``volume``. None where the
    volume has no identity that a store could name (it is no partition).
    """
    new = view.identity(volume) if volume is not None else None
    if this.unknown:
        return PartitionDevice(identity=new) if new is not None else None
    mapping: dict[Identity, Identity] = {}
    for identity in this.stale_disks:
        own = view.identity(view.find(identity, view.volumes[this.store.volume])[0])
        if own is not None:
            mapping[identity] = own
    if this.missing:
        if new is None:
            return None
        mapping.update(dict.fromkeys(this.missing, new))
    return map_partitions(this.device, lambda i: mapping.get(i, i))
