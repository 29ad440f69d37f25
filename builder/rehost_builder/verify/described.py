"""build.json of a medium as data, checked: it may have been changed, or be another program's."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from rehost_payload.formats.errors import FormatError

WHAT = "build.json"
_FORMAT = 1


@dataclass(frozen=True)
class Listed:
    """A file that the builder has put somewhere. ``size`` in bytes, None where it is not said; ``sha256`` in hex."""

    path: str
    size: int | None
    sha256: str


@dataclass(frozen=True)
class Described:
    """``medium`` and ``added`` are the files on the medium and in the boot image; ``python`` package -> digest;
    ``drivers`` are paths below the drivers' folder; ``boot`` are digests of the boot images ("bios", "efi"); ``udf_only`` are files that only UDF shows."""

    base: str
    version: str
    medium: tuple[Listed, ...] = ()
    added: tuple[Listed, ...] = ()
    removed: tuple[str, ...] = ()
    python: dict[str, str] = field(default_factory=dict)
    drivers: tuple[Listed, ...] = ()
    loaded: tuple[str, ...] = ()
    boot: dict[str, str] = field(default_factory=dict)
    udf_only: tuple[str, ...] = ()
    wim: str = ""
    runtime: str = ""


def read_described(data: bytes) -> Described:
    """FormatError for what is no build.json of ours."""
    try:
        found = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as e:
        raise FormatError(WHAT, f"no JSON: {type(e).__name__}") from None
    top = _dict(found, "it")
    if top.get("product") != "Rehost" or top.get("format") != _FORMAT:
        raise FormatError(WHAT, f"not of Rehost, or of another format ({str(top.get('format'))[:20]})")
    base = _text(top.get("base"), "base")
    if base not in ("debian", "winpe"):
        raise FormatError(WHAT, f"an unknown base {base[:40]!r}")
    source = _dict(top.get("source", {}), "source")
    return Described(
        base=base,
        version=_text(top.get("version"), "version"),
        medium=_files(top.get("medium", []), "medium"),
        added=_files(top.get("added", []), "added"),
        removed=tuple(_text(p, "removed") for p in _list(top.get("removed", []), "removed")),
        python=_digests(top.get("python", [])),
        drivers=_drivers(_dict(top.get("drivers", {}), "drivers")),
        loaded=tuple(_text(p, "loaded") for p in _list(top.get("loaded", []), "loaded")),
        boot={
            k: _text(v, "boot_images") for k, v in _dict(top.get("boot_images", {}), "boot_images").items()
        },
        udf_only=tuple(_text(p, "udf_only") for p in _list(top.get("udf_only", []), "udf_only")),
        wim=_text(source.get("wim", ""), "source.wim"),
        runtime=_text(_dict(top.get("runtime", {}), "runtime").get("version", ""), "runtime.version"),
    )


def _files(value: Any, where: str, below: str = "") -> tuple[Listed, ...]:
    found = []
    for item in _list(value, where):
        entry = _dict(item, where)
        size = entry.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise FormatError(WHAT, f"{where} has a size that is none")
        path = _text(entry.get("path"), where)
        found.append(Listed(below + path, size, _text(entry.get("sha256"), where)))
    return tuple(found)


def _drivers(drivers: dict[str, Any]) -> tuple[Listed, ...]:
    found: list[Listed] = []
    for item in _list(drivers.get("packages", []), "drivers"):
        package = _dict(item, "drivers")
        folder = _text(package.get("folder"), "drivers")
        found += _files(package.get("files", []), "drivers", f"{folder}/")
    return tuple(found)


def _digests(value: Any) -> dict[str, str]:
    found = {}
    for item in _list(value, "python"):
        entry = _dict(item, "python")
        found[_text(entry.get("name"), "python")] = _text(entry.get("sha256"), "python")
    return found


def _dict(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FormatError(WHAT, f"{where} is no object")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise FormatError(WHAT, f"{where} is no list")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise FormatError(WHAT, f"{where} has something other than a text")
    return value
