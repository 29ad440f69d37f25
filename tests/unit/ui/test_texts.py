"""English and German say the same things, and there is a text for everything that the repair core can say."""

from __future__ import annotations

import ast
import re
import string
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rehost_payload
from rehost_payload.repair.model import ResultWord, Severity, Verdict
from rehost_payload.survey.model import StoreState
from rehost_payload.ui.registry import CHECKS, ERRORS, FINDINGS, NOTES
from rehost_payload.ui.texts import LANGUAGES, Texts, ascii_fold, clean, language_of

PAYLOAD = Path(rehost_payload.__file__).parent
UMLAUTS = set("äöüßÄÖÜ")


def flat(language: str) -> dict[str, str]:
    data = tomllib.loads((PAYLOAD / "ui" / "texts" / f"{language}.toml").read_text(encoding="utf-8"))

    def walk(prefix: str, node: dict[str, Any]) -> Iterator[tuple[str, str]]:
        for key, value in node.items():
            if isinstance(value, dict):
                yield from walk(f"{prefix}/{key}", value)
            else:
                yield f"{prefix}/{key}", value

    return dict(walk("", data))


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_both_languages_have_the_same_keys() -> None:
    assert flat("en").keys() == flat("de").keys()


def test_both_languages_have_the_same_placeholders() -> None:
    """Where only a word's form depends on a number, a language may have the same form for all numbers."""

    def shown(text: str) -> set[str]:
        parts = string.Formatter().parse(text)
        return {name for _, name, form, _ in parts if name is not None and "|" not in (form or "")}

    en, de = flat("en"), flat("de")
    assert {k: shown(v) for k, v in en.items()} == {k: shown(v) for k, v in de.items()}


NUMBERS = "count|files|copies|volumes|expected"
SEVERAL = re.compile(
    # what is told only where there are two or more, and "1 of 5", "1 to 5", "1 more"
    r"/finding/(esp\.several|windows\.several|capture\.(common-folder|same-id|scattered))/title|/show/more"
)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_follows_a_number_has_a_form_for_one(language: str) -> None:
    """ "1 virtual disks belong to no machine" is read by somebody who counts his disks."""
    noun = re.compile(rf"\{{({NUMBERS})\}} (?!of |von |eingeben)[A-Za-zÄÖÜäöü]")
    assert not {k for k, v in flat(language).items() if noun.search(v) and not SEVERAL.fullmatch(k)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_forms_are_two_and_differ(language: str) -> None:
    for key, text in flat(language).items():
        for _, name, form, _ in string.Formatter().parse(text):
            one, choice, many = (form or "").partition("|")
            assert not choice or (name and one and many and one != many and "|" not in many), key
            assert choice or not form or (form.startswith("?") and len(form) > 2), key


def test_forms_for_one_for_many_and_for_what_is_not_known() -> None:
    assert Texts("en")("capture.copies", copies=1, count=2) == "1 good copy of 2 virtual machines"
    assert Texts("en")("capture.copies", copies="2", count="1") == "2 good copies of 1 virtual machine"
    assert Texts("de")("capture.copies", copies=0, count=1) == "0 gute Kopien von 1 virtuellen Maschine"
    assert Texts("en")("capture.checkpoints") == "? checkpoints"
    for maker, said in (("Intel", "(hier: Intel)"), ("?", "(hier: nicht bekannt)")):
        text = Texts("de").part("finding", "capture.saved-state", "explain", {"maker": maker})
        assert text is not None
        assert said in text


def test_no_text_is_empty_and_placeholders_are_plain_names() -> None:
    for language in LANGUAGES:
        for key, text in flat(language).items():
            assert text.strip(), key
            assert all(re.fullmatch("[a-z]+", name) for name in placeholders(text)), key


def test_characters_are_those_that_consoles_have() -> None:
    assert not {k for k, v in flat("en").items() if not v.isascii()}
    assert not {k for k, v in flat("de").items() if any(not c.isascii() and c not in UMLAUTS for c in v)}


def test_german_is_written_with_umlauts() -> None:
    """A word like "fuer" means that somebody typed the ASCII form by hand; folding is the console's business."""
    suspicious = re.compile(r"\b(fuer|ueber|koenn\w*|muess\w*|loesch\w*|aender\w*|pruef\w*|oeffn\w*)", re.I)
    assert not {k for k, v in flat("de").items() if suspicious.search(v)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_finding_has_its_texts(language: str) -> None:
    t = Texts(language)
    for finding, params in FINDINGS.items():
        for part in ("title", "explain", "manual"):
            assert t.part("finding", finding, part), f"{finding}: {part}"
        for part in ("title", "explain", "repair", "manual", "manual-winpe"):
            text = flat(language).get(f"/finding/{finding}/{part}", "")
            assert placeholders(text) <= params, f"{finding}: {part}"
    listed = {k.split("/")[2] for k in flat(language) if k.startswith("/finding/")}
    assert listed == set(FINDINGS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_check_error_word_and_state_has_its_texts(language: str) -> None:
    t = Texts(language)
    for check in CHECKS:
        assert t.part("check", check, "title"), check
        assert t.part("check", check, "explain"), check
    for error in ERRORS | {"rolled-back", "not-rolled-back", "nothing-written"}:
        assert t.has(f"error.{error}"), error
    for word in ResultWord:
        assert t.part("result", word.value, "title"), word
        assert t.part("result", word.value, "next"), word
    assert all(t.has(f"severity.{s.value}") for s in Severity)
    assert all(t.has(f"verdict.{v.value}") for v in Verdict)
    assert all(t.has(f"store.{s.value}") for s in StoreState)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_note_has_its_text(language: str) -> None:
    texts = {k.split("/")[2]: v for k, v in flat(language).items() if k.startswith("/note/")}
    assert set(texts) == set(NOTES)
    for note, params in NOTES.items():
        assert placeholders(texts[note]) == params, note
    used = {node.value for _, node in constants("repair") if NOTE_ID.fullmatch(node.value)}
    assert used | {f"dism-{word}" for word in REFUSALS} == set(NOTES)


def constants(folder: str) -> Iterator[tuple[Path, ast.Constant]]:
    for path in sorted((PAYLOAD / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield path, node


FINDING_ID = re.compile(r"(boot|firmware|esp|bios|disk|driver|volume|windows)\.[a-z][a-z-]+")
NOTE_ID = re.compile(r"dism-[a-z]+")
REFUSALS = ("platform", "absent", "older", "database", "folder")
CHECK_ID = re.compile(r"verify\.[a-z][a-z-]+")


def test_every_id_in_the_repair_core_is_in_the_registry() -> None:
    unknown = {
        f"{path.name}:{node.lineno}: {node.value}"
        for path, node in constants("repair")
        if (FINDING_ID.fullmatch(node.value) and node.value not in FINDINGS)
        or (CHECK_ID.fullmatch(node.value) and node.value not in CHECKS)
    }
    assert not unknown


def test_every_apply_error_code_has_a_text() -> None:
    unknown = set()
    for path in sorted((PAYLOAD / "repair").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ApplyError" and node.args:
                code = node.args[0]
                if isinstance(code, ast.Constant) and code.value not in ERRORS:
                    unknown.add(f"{path.name}:{node.lineno}: {code.value}")
    assert not unknown


def test_every_text_that_the_interface_asks_for_exists() -> None:
    """t("menu.title") with a typing error would show "menu.titel" to the operator."""
    missing = set()
    for path in sorted((PAYLOAD / "ui").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                section = node.value.partition(".")[0]
                known = (
                    "show",
                    "survey",
                    "menu",
                    "unattended",
                    "report",
                    "progress",
                    "action",
                    "change",
                    "error",
                )
                if section in known and re.fullmatch(r"[a-z]+\.[a-z][a-z-]*[a-z]", node.value):
                    if node.value.endswith((".html", ".json", ".log")):
                        continue
                    if not Texts("en").has(node.value):
                        missing.add(f"{path.name}:{node.lineno}: {node.value}")
    assert not missing


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_written_without_wrapping_fits_a_line(language: str) -> None:
    """Prompts and menu items go to the console as they are, also to one of 80 columns."""
    texts = {k: v for k, v in flat(language).items() if k.startswith("/menu/")}
    prompts = [k for k, v in texts.items() if v.endswith(" ")]
    items = [
        "survey",
        "repair",
        "undo",
        "capture",
        "language",
        "shell",
        "reboot",
        "poweroff",
        "quit",
        "title",
    ]
    assert prompts
    for key in prompts + [f"/menu/{name}" for name in items]:
        room = 75 if key in prompts else 79 - len("  1  s  ")
        assert len(ascii_fold(texts[key])) <= room, key


def test_a_missing_parameter_or_key_is_no_exception() -> None:
    t = Texts("en")
    assert "?" in (t.part("finding", "boot.store-missing", "title", {}) or "")
    assert t("menu.no-such-text") == "menu.no-such-text"
    assert t.part("finding", "boot.no-such", "title") is None


def test_parameters_are_not_formatted_again() -> None:
    assert Texts("en")("menu.failed", reason="{0.__class__} {x}") == "That did not work: {0.__class__} {x}"


@pytest.mark.parametrize(
    ("wishes", "environment", "language"),
    [
        (("de",), {}, "de"),
        ((None, "de-DE"), {}, "de"),
        ((), {"LANG": "de_AT.UTF-8"}, "de"),
        ((), {"LC_ALL": "C", "LANG": "de_DE.UTF-8"}, "en"),
        (("fr",), {"LANG": "de_DE"}, "de"),
        (("den",), {}, "en"),
        # what was chosen in the menu: over all but what the command itself was told
        ((None, "en"), {"REHOST_LANG": "de", "LANG": "C"}, "de"),
        (("en",), {"REHOST_LANG": "de"}, "en"),
        ((), {}, "en"),
    ],
)
def test_language(wishes: tuple[str | None, ...], environment: dict[str, str], language: str) -> None:
    assert language_of(*wishes, environment=environment) == language


def test_folding() -> None:
    assert ascii_fold("Größe ändern: Ä é Å") == "Groesse aendern: Ae e A"
    assert ascii_fold("NICHTS LÖSCHEN, ÄNDERN: MENÜ. Über Öl") == "NICHTS LOESCHEN, AENDERN: MENUE. Ueber Oel"
    assert ascii_fold("日本") == "??"


@given(st.text())
def test_what_goes_to_a_console_cannot_control_it(text: str) -> None:
    shown = clean(text)
    assert all(c == "\n" or c.isprintable() or c.isspace() or ord(c) > 0x7F for c in shown)
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert ascii_fold(shown).isascii()
