"""`rehost capture verify`: a good capture passes, and whatever is changed in it is noticed."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rehost_payload.capture import manifest as manifests
from rehost_payload.capture.judge import NoCapture, UnitVerdict, verify_capture
from rehost_payload.capture.model import BadRange, FailedFile, Manifest, ManifestFile, Role
from rehost_payload.formats.errors import FormatError
from rehost_payload.repair.model import Verdict
from rehost_payload.ui.capture_cmd import capture

CHUNK = 1000


def file(path: str, data: bytes, parent: str | None = None, bad: int = 0) -> ManifestFile:
    chunks = tuple(hashlib.sha256(data[i : i + CHUNK]).hexdigest() for i in range(0, len(data), CHUNK))
    bad_ranges = (BadRange(0, bad, "EIO"),) if bad else ()
    digest = hashlib.sha256(data).hexdigest()
    return ManifestFile(
        path, f"D:\\{path}", Role.DISK, len(data), digest, chunks, parent=parent, bad_ranges=bad_ranges
    )


def unit(
    folder: Path,
    files: dict[str, bytes],
    *,
    parents: dict[str, str] | None = None,
    complete: bool = True,
    **more: object,
) -> None:
    listed = tuple(file(path, data, (parents or {}).get(path)) for path, data in files.items())
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    write(
        folder,
        Manifest(1, "1", folder.name, folder.name, "machine", "HV", "", CHUNK, complete, listed),
        **more,
    )


def write(folder: Path, manifest: Manifest, **more: object) -> None:
    from dataclasses import replace

    text = manifests.to_json(replace(manifest, **more)).encode()  # type: ignore[arg-type]
    (folder / "manifest.json").write_bytes(text)
    (folder / "SHA256SUMS").write_bytes(manifests.sums(manifest, hashlib.sha256(text).hexdigest()))


def state(folder: Path, units: dict[str, str]) -> None:
    listed = [
        {
            "folder": f,
            "name": f,
            "copies": [{"target": "t0", "state": s, "reasons": ["stick unplugged"] * (s != "complete")}],
        }
        for f, s in units.items()
    ]
    (folder / "capture.json").write_text(json.dumps({"format": 1, "here": "t0", "units": listed}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two machines; the second's disk has its parent in the first's folder."""
    base = tmp_path / "Rehost-HV-1"
    unit(
        base / "web",
        {"disk/web.vhdx": bytes(range(256)) * 10, "web.vmcx": b"x" * 1000, "empty": b"", "ä n": b"1"},
    )
    unit(base / "db", {"db.avhdx": b"child"}, parents={"db.avhdx": "../web/disk/web.vhdx"})
    state(base, {"web": "complete", "db": "complete"})
    return base


def of(folder: Path, name: str) -> UnitVerdict:
    return next(u for u in verify_capture(folder).units if u.folder == name)


def codes(folder: Path, name: str) -> list[str]:
    return [fault.code for fault in of(folder, name).faults]


def rewrite(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Edits a manifest and makes SHA256SUMS agree with its new text."""
    data = json.loads((folder / "manifest.json").read_text())
    change(data)
    old = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(data))
    new = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    (folder / "SHA256SUMS").write_text((folder / "SHA256SUMS").read_text().replace(old, new))


def test_a_good_capture(folder: Path) -> None:
    steps: list[tuple[int, int]] = []
    verdict = verify_capture(folder, lambda what, done, total: steps.append((done, total)))
    assert verdict.verdict is Verdict.PASS
    assert [(u.folder, u.verdict, u.faults, u.extra) for u in verdict.units] == [
        ("db", Verdict.PASS, (), ()),
        ("web", Verdict.PASS, (), ()),
    ]
    assert verdict.units[1].files == 4
    assert steps[-1] == (3566, 3566)


@pytest.mark.parametrize("name", ["web", "db"])
def test_sha256sum_agrees(folder: Path, name: str) -> None:
    def check() -> int:
        done = subprocess.run(
            ["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=folder / name, capture_output=True
        )
        return done.returncode

    assert check() == 0
    victim = folder / name / ("web.vmcx" if name == "web" else "db.avhdx")
    victim.write_bytes(b"!" + victim.read_bytes()[1:])
    assert check() == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_every_flipped_bit_is_found(folder: Path, data: st.DataObject) -> None:
    """In any file of the capture, the lists themselves included."""
    victims = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size and p.parent != folder)
    victim = data.draw(st.sampled_from(victims))
    good = victim.read_bytes()
    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(good) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        victim.write_bytes(bad)
        assert verify_capture(folder).verdict is not Verdict.PASS
    finally:
        victim.write_bytes(good)


def test_a_changed_chunk_is_named(folder: Path) -> None:
    victim = folder / "web/disk/web.vhdx"
    victim.write_bytes(victim.read_bytes()[:1500] + b"\xff" + victim.read_bytes()[1501:])
    (fault,) = of(folder, "web").faults
    assert (fault.code, fault.path, fault.detail) == (
        "content",
        "disk/web.vhdx",
        "1 of 3 chunks differ, at 0x3e8",
    )
    assert codes(folder, "db") == ["parent"]


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (lambda f: (f / "web.vmcx").unlink(), "missing"),
        (lambda f: (f / "web.vmcx").write_bytes(b"x" * 999), "size"),
        (lambda f: (f / "SHA256SUMS").unlink(), "sums"),
        (lambda f: (f / "SHA256SUMS").write_bytes(b"rubbish"), "sums"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest"),
        (lambda f: (f / "manifest.json").write_text("[" * 100000), "manifest"),
        (lambda f: rewrite(f, lambda m: m.update(format=2)), "format"),
        (lambda f: rewrite(f, lambda m: m.update(complete=False)), "incomplete"),
        (lambda f: rewrite(f, lambda m: m.update(chunk_size=0)), "manifest"),
        (lambda f: rewrite(f, lambda m: m["files"].append(m["files"][0])), "manifest"),
        (lambda f: rewrite(f, lambda m: m["files"][0].update(path="../db/db.avhdx")), "manifest"),
        (lambda f: rewrite(f, lambda m: m["files"][0].update(path="/etc/passwd")), "manifest"),
        (lambda f: rewrite(f, lambda m: m["files"][0].update(chunks=[])), "manifest"),
        (lambda f: rewrite(f, lambda m: m["files"][0].update(bad_ranges=[{}])), "bad-range"),
        (lambda f: rewrite(f, lambda m: m.update(failed=[{"path": "x", "reason": "dedup"}])), "not-copied"),
        (lambda f: rewrite(f, lambda m: m["files"][1].update(parent="../gone/x")), "parent"),
        (lambda f: ((f / "web.vmcx").unlink(), (f / "web.vmcx").symlink_to("/etc/passwd")), "missing"),
    ],
)
def test_harm(folder: Path, harm: Callable[[Path], object], code: str) -> None:
    harm(folder / "web")
    assert code in codes(folder, "web")
    expected = Verdict.UNKNOWN if code == "format" else Verdict.FAIL
    assert of(folder, "web").verdict is expected
    assert verify_capture(folder).verdict is Verdict.FAIL  # the other's parent is not good any more


def test_more_and_less_than_captured(folder: Path) -> None:
    (folder / "web/Thumbs.db").write_bytes(b"")
    (folder / "stranger").mkdir()
    state(folder, {"web": "complete", "db": "complete", "mail": "unplugged"})
    assert of(folder, "web").extra == ("Thumbs.db",)
    assert of(folder, "web").verdict is Verdict.PASS
    assert (of(folder, "stranger").verdict, codes(folder, "stranger")) == (Verdict.UNKNOWN, ["no-manifest"])
    (fault,) = of(folder, "mail").faults
    assert (fault.code, fault.detail) == ("unfinished", "stick unplugged")
    assert verify_capture(folder).verdict is Verdict.FAIL
    shutil.rmtree(folder / "db")  # it was complete
    (fault,) = of(folder, "db").faults
    assert (fault.code, fault.path) == ("missing", "db/manifest.json")


def test_without_its_state_nobody_knows_what_should_be_there(folder: Path) -> None:
    (folder / "capture.json").unlink()
    verdict = verify_capture(folder)
    assert verdict.verdict is Verdict.UNKNOWN
    assert {u.verdict for u in verdict.units} == {Verdict.PASS}
    (folder / "capture.json").write_text('{"format": 9}')
    assert verify_capture(folder).verdict is Verdict.UNKNOWN


def test_one_unit_alone(folder: Path) -> None:
    assert verify_capture(folder / "web").verdict is Verdict.PASS
    assert [f.code for f in verify_capture(folder / "db").units[0].faults] == ["parent-unseen"]


def test_no_capture(folder: Path) -> None:
    with pytest.raises(NoCapture) as error:
        verify_capture(folder.parent)
    assert error.value.inside == ("Rehost-HV-1",)
    shutil.rmtree(folder)
    with pytest.raises(NoCapture):
        verify_capture(folder.parent)


def test_manifest_there_and_back(folder: Path) -> None:
    text = (folder / "web/manifest.json").read_text()
    manifest = manifests.from_json(text)
    assert manifests.to_json(manifest) == text
    with_failed = Manifest(
        1, "1", "u", "n", "host", "h", "", 1, False, (), failed=(FailedFile("a", "b", "c"),)
    )
    assert manifests.from_json(manifests.to_json(with_failed)) == with_failed
    for bad in ("", "[]", "{}", text.replace('"format": 1', '"format": 2'), text.replace('"kind"', '"k"')):
        with pytest.raises(FormatError):
            manifests.from_json(bad)


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(capture, ["verify", *map(str, arguments)])


def test_the_command(folder: Path) -> None:
    good = command(folder, "--lang", "en")
    assert good.exit_code == 0
    assert "PASS     web: 4 files, 3.5 KiB" in good.output
    (folder / "web/web.vmcx").unlink()
    bad = command(folder, "--lang", "de")
    assert bad.exit_code == 3
    assert "FAIL     web: 4 Dateien" in bad.output
    assert "web.vmcx: fehlt" in bad.output
    as_json = json.loads(command(folder, "--json").stdout)
    assert as_json["verdict"] == "FAIL"
    assert {u["folder"]: u["verdict"] for u in as_json["units"]} == {"db": "PASS", "web": "FAIL"}
    nothing = command(folder.parent, "--lang", "en")
    assert nothing.exit_code == 1
    assert "Rehost-HV-1" in nothing.output
    assert command(folder / "absent").exit_code == 1


def test_odd_names_are_escaped_as_sha256sum_wants_them(tmp_path: Path) -> None:
    names = ["a\\b", "line\nbreak", "return\r", " blank ", "ü"]
    lines = []
    for name in names:
        (tmp_path / name).write_text(name)
        lines.append(manifests.sums_line(hashlib.sha256(name.encode()).hexdigest(), name))
    (tmp_path / "SHA256SUMS").write_text("".join(lines))
    done = subprocess.run(
        ["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.count(": OK")) == (0, len(names)), done
