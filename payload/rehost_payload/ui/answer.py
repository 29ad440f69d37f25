"""What to do without anybody at the keyboard: the answer file and the kernel command line.

Answer file: ``rehost.toml`` at the root of a volume labelled REHOST (FAT, exFAT or NTFS)::

    [run]
    mode = "repair"          # "repair", "survey", "undo", "capture" or "menu"
    yes = true               # the consent; without it nothing is written
    language = "de"          # "en" or "de"
    after = "poweroff"       # "reboot", "poweroff" or "menu"
    windows = "disk0p4:\\\\Windows"   # which one, where there are several
    system_volume = "disk0p1"
    engine = "dism"                   # what installs driver packages: "portable" (Rehost itself) or "dism"
    # mode = "capture":
    targets = ["label:BACKUP1", "label:BACKUP2"]   # or "disk1p1"; one or two
    vms = ["web01", "db01"]                        # names or GUIDs; without it: all
    config_only = false                            # true: everything but the disks
    with_iso = false                               # true: ISO images too

Kernel command line: ``rehost.run=repair rehost.yes=1 rehost.lang=de rehost.after=reboot rehost.poweroff=1
rehost.windows=... rehost.system_volume=... rehost.engine=dism rehost.targets=label:BACKUP1,label:BACKUP2 rehost.vms=web01,db01
rehost.config_only=1 rehost.with_iso=1``; what it says goes before the file. Anything that is not understood
stops everything: an order that was misread must not be carried out.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from rehost_payload.ui.texts import LANGUAGES

MODES = ("repair", "survey", "undo", "capture", "menu")
AFTER = ("reboot", "poweroff", "menu")
ENGINES = ("portable", "dism")


class OrdersError(Exception):
    """The orders cannot be understood. ``source`` says which ones, the message what is wrong with them."""

    def __init__(self, source: str, problem: str) -> None:
        self.source = source
        super().__init__(f"{source}: {problem}")


class Orders(NamedTuple):
    """None: not said."""

    mode: str | None = None
    yes: bool | None = None
    language: str | None = None
    after: str | None = None
    windows: str | None = None
    system_volume: str | None = None
    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] | None = None
    vms: tuple[str, ...] | None = None
    config_only: bool | None = None
    with_iso: bool | None = None
    engine: str | None = None

    @property
    def unattended(self) -> bool:
        return self.mode is not None and self.mode != "menu"

    def over(self, other: Orders) -> Orders:
        """These orders, completed by ``other`` where they say nothing."""
        unsaid: dict[str, Any] = {k: v for k, v in other._asdict().items() if getattr(self, k) is None}
        return self._replace(**unsaid, sources=self.sources + other.sources)


# --- the answer file ---------------------------------------------------------------------------------------

_FILE_KEYS: dict[str, type] = {
    "mode": str,
    "yes": bool,
    "language": str,
    "after": str,
    "windows": str,
    "system_volume": str,
    "engine": str,
    "targets": list,
    "vms": list,
    "config_only": bool,
    "with_iso": bool,
}
_KIND_WORDS = {bool: "true or false", str: "a text in quotes", list: 'a list of texts ["...", "..."]'}
_ALLOWED = {"mode": MODES, "after": AFTER, "language": LANGUAGES, "engine": ENGINES}


def parse_answer(data: bytes, source: str) -> Orders:
    """Raises OrdersError for anything that is not in the schema."""
    try:
        # Windows' editor may have put a byte order mark in front
        document = tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as e:
        raise OrdersError(source, "not UTF-8 text") from e
    except tomllib.TOMLDecodeError as e:
        raise OrdersError(source, f"not valid TOML: {e}") from e
    unknown = sorted(set(document) - {"run"})
    if unknown:
        raise OrdersError(source, f"unknown: {', '.join(unknown)} (known: [run])")
    run = document.get("run")
    if not isinstance(run, dict):
        raise OrdersError(source, "the table [run] is missing")
    return _checked(run, source)


def _checked(values: dict[str, Any], source: str) -> Orders:
    for key, value in values.items():
        kind = _FILE_KEYS.get(key)
        if kind is None:
            raise OrdersError(source, f"unknown key '{key}' (known: {', '.join(_FILE_KEYS)})")
        if not isinstance(value, kind):
            raise OrdersError(source, f"'{key}' must be {_KIND_WORDS[kind]}")
        if isinstance(value, list) and not all(isinstance(v, str) and v for v in value):
            raise OrdersError(source, f"'{key}' must be {_KIND_WORDS[list]}")
        allowed = _ALLOWED.get(key)
        if allowed is not None and value not in allowed:
            raise OrdersError(source, f"'{key}' must be one of {', '.join(allowed)}, not '{value}'")
        if value in ("", []):
            raise OrdersError(source, f"'{key}' is empty")
    _check_capture(values, source)
    if "engine" in values and values.get("mode") not in (None, "repair"):
        raise OrdersError(source, f"'engine' belongs to mode 'repair', not to '{values['mode']}'")
    found: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Orders(**found, sources=(source,))


def _check_capture(values: dict[str, Any], source: str) -> None:
    """What belongs to a capture has no meaning elsewhere, and no capture is without targets."""
    mode = values.get("mode")
    for key in ("targets", "vms", "config_only", "with_iso"):
        if key in values and mode not in (None, "capture"):
            raise OrdersError(source, f"'{key}' belongs to mode 'capture', not to '{mode}'")
    if len(values.get("targets", ())) > 2:
        raise OrdersError(source, "'targets' names more than two")


# --- the kernel command line -------------------------------------------------------------------------------

_WORDS = {"run": "mode", "yes": "yes", "lang": "language", "after": "after", "windows": "windows"}
_WORDS |= {"system_volume": "system_volume", "poweroff": "poweroff", "engine": "engine"}
_WORDS |= {"targets": "targets", "vms": "vms", "config_only": "config_only", "with_iso": "with_iso"}
_FLAGS = ("yes", "poweroff", "config_only", "with_iso")
_BOOLEANS = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}
IGNORED = frozenset({"keymap", "medium", "shell"})
"""Words of ours that are meant for the start-up scripts (iso/debian/root) or say what was started."""


def split_command_line(text: str) -> list[str]:
    """The words of /proc/cmdline. Double quotes keep spaces together, as the kernel does it."""
    words, word, quoted = [], "", False
    for c in text:
        if c == '"':
            quoted = not quoted
        elif c.isspace() and not quoted:
            words.append(word)
            word = ""
        else:
            word += c
    return [w for w in [*words, word] if w]


def parse_command_line(text: str, source: str = "kernel command line") -> Orders:
    """Raises OrdersError for a ``rehost.`` word that is not known or has no usable value."""
    values: dict[str, Any] = {}
    for word in split_command_line(text):
        name, equals, value = word.partition("=")
        if not name.startswith("rehost."):
            continue
        name = name.removeprefix("rehost.")
        if name in IGNORED:
            continue
        key = _WORDS.get(name)
        if key is None:
            raise OrdersError(source, f"unknown word 'rehost.{name}'")
        if key in _FLAGS:
            if (value.lower() if equals else "1") not in _BOOLEANS:
                raise OrdersError(source, f"'rehost.{name}' must be 1 or 0, not '{value}'")
            flag = _BOOLEANS[value.lower() if equals else "1"]
            if key != "poweroff":
                values[key] = flag
            elif flag:
                if values.get("after", "poweroff") != "poweroff":
                    raise OrdersError(source, "rehost.poweroff and rehost.after contradict each other")
                values["after"] = "poweroff"
            continue
        parsed: Any = [v for v in value.split(",") if v] if _FILE_KEYS[key] is list else value
        if key in values and values[key] != parsed:
            raise OrdersError(source, f"'rehost.{name}' contradicts another word")
        values[key] = parsed
    if not values:
        return Orders()
    return _checked(values, source)


def command_line_orders(path: Path = Path("/proc/cmdline")) -> Orders:
    """Empty orders where there is no such file (not Linux)."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return Orders()
    return parse_command_line(text)


def keymap(path: Path = Path("/proc/cmdline")) -> str | None:
    """The keyboard layout that was asked for ("de-latin1"): who types German reads it as well."""
    try:
        words = split_command_line(path.read_text(errors="replace"))
    except OSError:
        return None
    return next((w.partition("=")[2] for w in words if w.startswith("rehost.keymap=")), None)
