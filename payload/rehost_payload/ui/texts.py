"""What Rehost says, in the operator's language: loads texts/<language>.toml and fills in parameters."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from rehost_payload.system.here import this_host

LANGUAGES = ("en", "de")
DEFAULT = "en"
CHOSEN = "REHOST_LANG"
"""The variable that tells the commands of the menu's shell which language was chosen in the menu."""
_FOLDER = Path(__file__).parent / "texts"


class _Value(str):
    """A parameter. Two forms besides the plain one, so that sentences are right for every value:

    ``{count:file|files}`` is the first word where it is 1, else the second; ``{maker:?not known}`` is what follows the
    question mark where it is not known ("?"), else the value itself.
    """

    def __format__(self, form: str) -> str:
        one, choice, many = form.partition("|")
        if choice:
            return one if self == "1" else many
        if form.startswith("?"):
            return form[1:] if self == "?" else str(self)
        return super().__format__(form)


class _Params(dict[str, _Value]):
    """A parameter that the caller did not give shows as "?": a text is never lost for want of a detail."""

    def __missing__(self, key: str) -> _Value:
        return _Value("?")


@cache
def _load(language: str) -> dict[str, dict[str, Any]]:
    with (_FOLDER / f"{language}.toml").open("rb") as f:
        return tomllib.load(f)


class Texts:
    """The texts of one language. A key that does not exist comes back as itself, never as an exception."""

    def __init__(self, language: str = DEFAULT) -> None:
        self.language = language

    def __call__(self, key: str, /, **params: object) -> str:
        """``key`` is "section.name"."""
        section, _, name = key.partition(".")
        template = _load(self.language).get(section, {}).get(name)
        return key if not isinstance(template, str) else _fill(template, params)

    def part(
        self, section: str, name: str, part: str, params: Mapping[str, object] | None = None
    ) -> str | None:
        """A part of a text with several, ("finding", "boot.device-stale", "title"); None if it has none."""
        template = _load(self.language).get(section, {}).get(name, {}).get(part)
        return _fill(template, params or {}) if isinstance(template, str) else None

    def has(self, key: str) -> bool:
        section, _, name = key.partition(".")
        return isinstance(_load(self.language).get(section, {}).get(name), str)


def _fill(template: str, params: Mapping[str, object]) -> str:
    return template.format_map(_Params({k: _Value(v) for k, v in params.items()}))


def language_of(*wishes: str | None, environment: Mapping[str, str] | None = None) -> str:
    """The first wish that we have ("de", "de-DE", "de_DE.UTF-8"), else the locale of the environment or of Windows,
    else English. What was chosen in the menu (`CHOSEN`) goes before all but the first wish, which is the command's own."""
    env = os.environ if environment is None else environment
    # as the locale's own order goes: the first that is set counts, even if it is "C"
    locale = env.get("LC_ALL") or env.get("LC_MESSAGES") or env.get("LANG")
    if not locale and environment is None:
        locale = this_host().language()
    for wish in (*wishes[:1], env.get(CHOSEN), *wishes[1:], locale):
        if wish and (language := wish[:2].lower()) in LANGUAGES and not wish[2:3].isalpha():
            return language
    return DEFAULT


_FOLD = {"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss"}


def ascii_fold(text: str) -> str:
    """The text in ASCII, for consoles that have nothing else: ä is ae, é is e, what has no likeness is "?"."""
    if text.isascii():
        return text
    import unicodedata

    out = []
    for index, c in enumerate(text):
        if c.isascii():
            out.append(c)
        elif c in _FOLD:
            before, after = text[max(0, index - 1) : index], text[index + 1 : index + 2]
            among_capitals = c.isupper() and (after.isupper() or (before.isupper() and not after.islower()))
            out.append(_FOLD[c].upper() if among_capitals else _FOLD[c])
        else:
            base = unicodedata.normalize("NFKD", c).encode("ascii", "ignore").decode()
            out.append(base or "?")
    return "".join(out)


# C0 and C1 controls could move the cursor or reprogram a terminal; the others reorder or hide what is read
_UNSAFE = [*range(0x20), *range(0x7F, 0xA0), 0xAD, *range(0x200B, 0x2010), *range(0x2028, 0x202F)]
_UNSAFE += [*range(0x2060, 0x2070), 0xFEFF, *range(0xFFF0, 0xFFFC), *range(0xD800, 0xE000)]
_CLEAN = dict.fromkeys(_UNSAFE, "?") | {9: " ", 10: "\n"}


def clean(text: str) -> str:
    """The text without anything that a terminal would obey: names on a foreign disk are not to be trusted."""
    return text.translate(_CLEAN)
