"""`rehost drivers show`: what a driver package's INF means, as text or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehost_payload.formats.inf import Choice, Inf, Model
from rehost_payload.formats.inf_install import (
    START_NAMES,
    FileCopy,
    Install,
    RegistryEntry,
    Service,
    actual_section,
)
from rehost_payload.formats.inf_target import Target
from rehost_payload.ui.plain import to_plain

_COLUMN = 18
_MOST = 500  # install sections that are shown; no storage driver has a tenth of it
_FEW = 12  # models that are listed without --all
_SERVICE_TYPES = {1: "kernel driver", 2: "file system driver", 0x10: "program", 0x20: "shared program"}
_REG_TYPES = {0: "none", 1: "text", 2: "expandable text", 3: "binary", 4: "dword", 7: "texts", 11: "qword"}
_DIRIDS = {13: "stays in the package", -1: "absolute path", None: "no destination"}


@dataclass(frozen=True)
class LoadedInf:
    path: Path
    size: int
    inf: Inf
    catalog_present: bool | None  # None: it names none


def as_text(loaded: LoadedInf, targets: list[Target], everything: bool) -> Iterator[str]:
    """The lines. ``everything`` lists all models instead of the first few."""
    inf, version = loaded.inf, loaded.inf.version
    yield f"Driver package {loaded.path} ({loaded.size} bytes, {inf.text.encoding})"
    yield _line("class", f"{version.class_name or 'none'} {version.class_guid}")
    yield _line("provider", version.provider or "none")
    yield _line("version", version.driver.text)
    yield _line("catalog", _catalog(loaded))
    if version.extension:
        yield _line("extension", f"{version.extension_id}: adds to another package's driver, is none itself")
    if version.pnp_lockdown:
        yield _line("PnpLockdown", "yes: Windows protects the files against changes")
    for note in inf.notes:
        yield _line("note", note)
    yield ""
    yield "For which Windows"
    for target in targets:
        for i, text in enumerate(_verdicts(inf.choices(target))):
            yield f"  {'' if i else target.name:<40}{text}"
    for install, models in _installs(inf, targets):
        title = f"Install section {install.section}"
        yield from ("", title, "-" * len(title))
        yield from _install(install, models, everything)


def _line(name: str, text: str) -> str:
    return f"  {name:<{_COLUMN}}{text}".rstrip()


def _catalog(loaded: LoadedInf) -> str:
    name = loaded.inf.version.catalog()
    if name is None:
        return "none"
    return f"{name} ({'is beside it; not verified' if loaded.catalog_present else 'is missing'})"


def _verdicts(choices: tuple[Choice, ...]) -> list[str]:
    """One text for each line of [Manufacturer]; those that say the same are one."""
    texts = []
    for choice in choices:
        if choice.chosen is not None:
            count = len(choice.chosen.models)
            texts.append(f"{count} {'model' if count == 1 else 'models'} of [{choice.chosen.name}]")
        else:
            reasons = dict.fromkeys(
                f"[{s.name}] is {why}" if why.startswith("for") else f"[{s.name}] {why}"
                for s, why in choice.refused
            )
            texts.append("no: " + "; ".join(reasons))
    return list(dict.fromkeys(texts)) or ["no: it has no [Manufacturer]"]


def _installs(inf: Inf, targets: list[Target]) -> list[tuple[Install, list[Model]]]:
    """The install sections that the targets use, in the order of the file, each with its models."""
    models: dict[str, dict[int, Model]] = {}
    spelled: dict[str, str] = {}
    for target in targets:
        for model in inf.models(target):
            key = model.install_section.lower()
            spelled.setdefault(key, model.install_section)
            models.setdefault(key, {}).setdefault(model.line, model)
    names = list(models)[:_MOST]
    return [(inf.install(spelled[name]), list(models[name].values())) for name in names]


def _install(install: Install, models: list[Model], everything: bool) -> Iterator[str]:
    shown = models if everything else models[:_FEW]
    for i, model in enumerate(shown):
        yield _line("" if i else "models", f"{', '.join(model.ids) or 'no ID'}  {model.description}")
    if len(shown) < len(models):
        yield _line("", f"and {len(models) - len(shown)} more (--all)")
    for i, one in enumerate(install.exclude_ids):
        yield _line("" if i else "excludes", f"{one}: a device with this ID is not installed by it")
    if install.null_driver:
        yield _line("null driver", "the device is left without a driver on purpose")
    for service in install.services:
        yield _line("service", _service(service))
        for name, value in service.start_override.items():
            yield _line(
                "", f'StartOverride "{name}" = {value}: starts {START_NAMES.get(value, "?")} nevertheless'
            )
        yield from _entries("", service.registry)
    for name, filters in install.filters.items():
        yield _line(name, f"{', '.join(filters)} (of the device)")
    yield from _entries("device settings", install.hardware)
    yield from _entries("registry", install.registry)
    for i, file in enumerate(install.files):
        yield _line("" if i else "files", _file(file))
    if install.feature_score != 0xFF:
        yield _line("feature score", f"{install.feature_score:#04x}")
    if install.includes or install.needs:
        yield _line(
            "needs", f"{', '.join(install.needs) or 'nothing'} of {', '.join(install.includes) or 'this INF'}"
        )
    for need in install.unresolved:
        yield _line("note", f"[{need}] is not in this INF: what it does is not shown")
    for note in install.notes:
        yield _line("note", note)


def _service(service: Service) -> str:
    start = (
        "no start type" if service.start is None else f"{START_NAMES.get(service.start, service.start)} start"
    )
    parts = [
        "function driver" if service.function_driver else "further service",
        start,
        _SERVICE_TYPES.get(service.type or 0, f"type {service.type}"),
        service.image_path or service.binary or "no ServiceBinary",
    ]
    if service.group:
        parts.append(f"group {service.group}")
    if service.dependencies:
        parts.append(f"depends on {', '.join(service.dependencies)}")
    return f"{service.name}: {', '.join(parts)}"


def _entries(title: str, entries: tuple[RegistryEntry, ...]) -> Iterator[str]:
    for i, entry in enumerate(entries):
        yield _line("" if i else title, _entry(entry))


def _entry(entry: RegistryEntry) -> str:
    where = "\\".join(p for p in (entry.root, entry.key) if p)
    if entry.key_only:
        return f"{where} (key)"
    name = f"{where}: {entry.name or '(default)'}"
    if entry.delete:
        return f"{name} is deleted"
    kind = _REG_TYPES.get(entry.type, f"type {entry.type}")
    data = entry.data
    if isinstance(data, int):
        text = str(data) if data < 10 else f"{data} ({data:#x})"
    elif isinstance(data, bytes):
        text = data.hex() or "empty"
    else:
        text = ", ".join(data) if isinstance(data, tuple) else data
    return f"{name} = {text} ({kind})"


def _file(file: FileCopy) -> str:
    where = (
        _DIRIDS.get(file.dirid, f"directory {file.dirid}")
        if file.directory is None
        else f"to {file.directory or 'the Windows folder'}"
    )
    source = "" if file.source == file.name else f" (from {file.source})"
    text = f"{file.name}{source} {where}"
    if not file.listed:
        text += "; not in SourceDisksFiles"
    return f"{text}; REFUSED: {file.problem}" if file.problem else text


def as_json(loaded: LoadedInf, targets: list[Target]) -> dict[str, Any]:
    """The same for programs."""
    inf, version = loaded.inf, loaded.inf.version
    return {
        "path": str(loaded.path),
        "size": loaded.size,
        "encoding": inf.text.encoding,
        "class": version.class_name,
        "class_guid": version.class_guid,
        "provider": version.provider,
        "date": version.driver.date.isoformat() if version.driver.date else None,
        "version": ".".join(map(str, version.driver.version)) if version.driver.version else None,
        "catalog": version.catalog(),
        "catalog_present": loaded.catalog_present,
        "extension": version.extension,
        "extension_id": version.extension_id or None,
        "pnp_lockdown": version.pnp_lockdown,
        "notes": list(inf.notes),
        "windows": [_target_json(inf, target) for target in targets],
        "install_sections": [_install_json(install) for install, _ in _installs(inf, targets)],
    }


def _target_json(inf: Inf, target: Target) -> dict[str, Any]:
    choices = inf.choices(target)
    return {
        "name": target.name,
        "build": target.build,
        "product_type": target.product_type,
        "sections": [c.chosen.name for c in choices if c.chosen is not None],
        "refused": [{"section": s.name, "reason": why} for c in choices for s, why in c.refused],
        "models": [
            {
                "description": m.description,
                "manufacturer": m.manufacturer,
                "install_section": actual_section(inf.text, m.install_section, target.architecture),
                "hardware_id": m.hardware_id,
                "compatible_ids": list(m.compatible_ids),
            }
            for m in inf.models(target)
        ],
    }


def _install_json(install: Install) -> dict[str, Any]:
    plain: dict[str, Any] = to_plain(install)
    plain.pop("driver_ver")
    driver = install.function_driver
    return plain | {"function_driver": driver.name if driver else None, "filters": to_plain(install.filters)}
