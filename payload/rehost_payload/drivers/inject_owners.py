"""Whether a service or file that a package would replace is the same driver, or somebody else's.

Windows installs every package into a folder of its own in the driver store, copies the driver over the one of the same
name in System32\\drivers, whatever their versions are ("its files are always installed as a whole": INF CopyFiles
directive), and points the service to it. That is how a vendor's newer arcsas.sys takes the place of the in-box one, and
right. It would do the same to a driver of somebody else that has the same name by chance; here that is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rehost_payload.drivers.hive_edits import find_value
from rehost_payload.drivers.inject_model import STORE, InjectError, ReadWindowsFile
from rehost_payload.drivers.inject_names import DATABASE
from rehost_payload.drivers.inject_package import DRIVERS, Binary, Chosen
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive import REG_EXPAND_SZ, REG_MULTI_SZ, REG_SZ, Hive, Key, fold
from rehost_payload.formats.pe import read_facts
from rehost_payload.formats.source import BytesSource

# parts of Windows that no package brings: their name in a package is a mistake or worse
_WINDOWS_OWN = frozenset(
    f"system32\\drivers\\{name}.sys"
    for name in (
        "storport",
        "scsiport",
        "ataport",
        "classpnp",
        "disk",
        "partmgr",
        "volmgr",
        "ntfs",
        "pci",
        "acpi",
        "fltmgr",
    )
)
_BEFORE_WINDOWS = re.compile(
    r"\\systemroot\\|%systemroot%\\|%windir%\\|(?:\\\?\?\\)?[a-z]:\\windows\\", re.IGNORECASE
)
_VENDOR = re.compile(r"[a-z]+\\ven_[0-9a-f]{4}", re.IGNORECASE)


@dataclass(frozen=True)
class _Owner:
    """A package that a service belongs to, by what the hive says of it. ``store``: its name in the driver store."""

    name: str
    provider: str = ""
    ids: frozenset[str] = frozenset()
    store: str = ""

    @property
    def vendors(self) -> frozenset[str]:
        return _vendors(self.ids)

    @property
    def text(self) -> str:
        return f"{self.name} ({self.provider or 'no provider'})"


def check_owners(hive: Hive, chosen: Chosen, control_sets: Iterable[str], read: ReadWindowsFile) -> None:
    """Refuses to overwrite services and files of other drivers. InjectError("foreign-file").

    A service of the same name is the same driver where its package has the provider, one of the hardware IDs, or the
    devices' manufacturer (VEN_9005) in common: packages change their provider's name when the vendor is sold, and newer
    ones leave old devices out.
    """
    sets = tuple(control_sets)
    users = _users(hive, sets)
    ours = {fold(b.service.name) for b in chosen.binaries}
    owners = {fold(b.service.name): tuple(_owners(hive, b.service.name, sets)) for b in chosen.binaries}
    binaries = {(b.image_path or "").lower() for b in chosen.binaries if b.data is not None}
    for path, data in chosen.copies.items():
        present = read(path)
        if present is None or present == data:
            continue
        if path.lower() in _WINDOWS_OWN:
            raise InjectError("foreign-file", f"{path} is a part of Windows")
        others = sorted(users.get(path.lower(), set()) - ours)
        if others:
            raise InjectError("foreign-file", f"{path} is the driver of {', '.join(others)}")
        if path.lower() in binaries:
            continue
        name = path.rpartition("\\")[2]
        stores = {o.store for several in owners.values() for o in several if o.store and _same(o, chosen)}
        if not any(read(rf"{STORE}\{store}\{name}") == present for store in sorted(stores)):
            raise InjectError(
                "foreign-file", f"{path} is there with other contents and is no driver of this package"
            )
    for binary in chosen.binaries:
        if binary.data is not None:
            _check_service(hive, chosen, binary, sets, owners[fold(binary.service.name)], read)


def replaced(chosen: Chosen, read: ReadWindowsFile) -> Iterator[str]:
    """The files of Windows that the package takes the place of, with both versions, in words."""
    for path, data in chosen.copies.items():
        present = read(path)
        if present is not None and present != data:
            yield f"{path} {_version(data)} takes the place of {_version(present)}"


def _version(data: bytes) -> str:
    try:
        return read_facts(BytesSource(data)).version or "without version"
    except FormatError:
        return "that is no driver"


def _check_service(
    hive: Hive,
    chosen: Chosen,
    binary: Binary,
    control_sets: tuple[str, ...],
    owners: tuple[_Owner, ...],
    read: ReadWindowsFile,
) -> None:
    name = binary.service.name
    keys = [k for s in control_sets if (k := hive.find(s, "Services", name)) is not None]
    if not keys:
        return
    if owners:
        if not any(_same(o, chosen) for o in owners):
            listed = ", ".join(o.text for o in owners)
            raise InjectError("foreign-file", f"the service {name} belongs to {listed}, for other devices")
        return
    # no package says that the service is its own: then its file tells
    for key in keys:
        path = _file_of(key)
        ours = (binary.image_path or binary.in_store or "").lower()
        if path is None or path.rpartition("\\")[2] == ours.rpartition("\\")[2]:
            continue
        if read(path) is not None:
            raise InjectError(
                "foreign-file",
                f"the service {name} is there with another driver, {path}, of no known package",
            )


def _same(owner: _Owner, chosen: Chosen) -> bool:
    ids = frozenset(i.lower() for m in chosen.models for i in m.ids)
    provider = chosen.inf.version.provider
    return bool(
        (provider and fold(owner.provider) == fold(provider))
        or owner.ids & ids
        or owner.vendors & _vendors(ids)
    )


def _vendors(ids: Iterable[str]) -> frozenset[str]:
    return frozenset(m.group(0).lower() for i in ids if (m := _VENDOR.match(i)))


def _users(hive: Hive, control_sets: Iterable[str]) -> Mapping[str, set[str]]:
    """Folded names of the services by the lower-case path of their file below the Windows folder."""
    users: dict[str, set[str]] = {}
    for control_set in control_sets:
        services = hive.find(control_set, "Services")
        for key in services.subkeys() if services is not None else ():
            path = _file_of(key)
            if path is not None:
                users.setdefault(path, set()).add(fold(key.name))
    return users


def _file_of(service: Key) -> str | None:
    """Its file below the Windows folder, in lower case; None for what is no kernel driver."""
    value = service.value("ImagePath")
    if value is not None and value.type in (REG_SZ, REG_EXPAND_SZ) and value.as_string():
        path = value.as_string().lower()
        before = _BEFORE_WINDOWS.match(path)
        return path[before.end() :] if before is not None else path
    kind = service.value("Type")
    if kind is not None and kind.data[:1] in (b"\1", b"\2"):  # what the loader takes without a path
        return f"{DRIVERS}\\{service.name}.sys".lower()
    return None


def _owners(hive: Hive, service: str, control_sets: Iterable[str]) -> Iterator[_Owner]:
    packages = hive.find(DATABASE, "DriverPackages")
    listed = {fold(n) for s in control_sets for n in _listed(hive, s, service)}
    for package in packages.subkeys() if packages is not None else ():
        configurations = package.subkey("Configurations")
        services = {
            _text(c, "Service") for c in (configurations.subkeys() if configurations is not None else ())
        }
        # staged packages have no configurations; then the service's own list of INFs leads to them
        if fold(service) not in services and (_text(package, "") or "") not in listed:
            continue
        provider = package.value("Provider")
        ids = frozenset(_ids_below(package.subkey("Descriptors")))
        name = provider.as_string() if provider is not None and provider.type == REG_SZ else ""
        yield _Owner(package.name, name, ids, package.name)
    for control_set in control_sets:
        devices = hive.find(control_set, "Control", "CriticalDeviceDatabase")
        ids = frozenset(
            k.name.lower().replace("#", "\\")
            for k in (devices.subkeys() if devices is not None else ())
            if _text(k, "Service") == fold(service)
        )
        if ids:
            yield _Owner("CriticalDeviceDatabase", "", ids)


def _listed(hive: Hive, control_set: str, service: str) -> tuple[str, ...]:
    value = find_value(hive, (control_set, "Services", service), "Owners")
    return value.as_strings() if value is not None and value.type in (REG_SZ, REG_MULTI_SZ) else ()


def _text(key: Key, name: str) -> str | None:
    value = key.value(name)
    return fold(value.as_string()) if value is not None and value.type == REG_SZ else None


def _ids_below(descriptors: Key | None) -> Iterator[str]:
    for bus in descriptors.subkeys() if descriptors is not None else ():
        below = [k.name for k in bus.subkeys()]
        yield from (f"{bus.name}\\{name}".lower() for name in below)
        if not below:
            yield bus.name.lower()
