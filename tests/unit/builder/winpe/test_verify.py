"""A medium that `rehost build` has made passes; with one fault it fails at the point that the fault belongs to."""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rehost_builder import environment
from rehost_builder.cli import main
from rehost_builder.errors import BuildError
from rehost_builder.verify.model import MediumReport, Verdict
from rehost_builder.verify.run import verify_medium
from support import windows_media as media
from support.taken_apart import Parts, digest


def failed(report: MediumReport) -> list[str]:
    return [p.name for p in report.points if p.verdict is Verdict.FAIL]


def verdicts(report: MediumReport) -> dict[str, str]:
    return {p.name: p.verdict.value for p in report.points}


def test_what_was_built_passes(finished: Path) -> None:
    report = verify_medium(finished, thorough=True)
    assert report.passed, [p for p in report.points if p.verdict is not Verdict.PASS]
    found = verdicts(report)
    # the stand-ins' signatures sign nothing
    assert found.pop("secure-boot") == "UNKNOWN"
    assert set(found.values()) == {"PASS"}
    assert {
        "uefi-entry",
        "bios-entry",
        "boot-store-bios",
        "boot-store-uefi",
        "imports",
        "drivers",
        "wimlib",
    } <= set(found)
    assert next(p.reason for p in report.points if p.name == "secure-boot").count(media.PCA_2011) == 3
    assert (report.base, report.size) == ("winpe", finished.stat().st_size)


def test_taken_apart_and_put_together_it_still_passes(tmp_path: Path, finished: Path) -> None:
    assert failed(verify_medium(Parts(finished).write(tmp_path / "a.iso"))) == []


# --- one fault each


def _flip(parts: Parts, path: str, at: int = 100) -> None:
    data = bytearray(parts.files[path])
    data[at] ^= 1
    parts.files[path] = bytes(data)


def _boot_index_0(parts: Parts) -> None:
    data = bytearray(parts.files[parts.wim])
    data[0x78:0x7C] = bytes(4)
    parts.files[parts.wim] = bytes(data)


def _store(name: str, **options: str) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        loader = "winload.exe" if name == "boot/bcd" else "winload.efi"
        parts.files[name] = media.boot_store(**{"loader": loader, **options})

    return change


def _no_efi_program(parts: Parts) -> None:
    parts.efi = media.fat_image({"EFI/BOOT/OTHER.EFI": b"MZ"}, label="E", epoch=1, serial=1)


def _no_fat(parts: Parts) -> None:
    parts.efi = bytes(len(parts.efi))


def _swapped(parts: Parts) -> None:
    parts.bios, parts.efi = parts.efi[:4096], parts.bios


def _without(name: str) -> Callable[[Parts], None]:
    return lambda parts: parts.files.pop(name) and None


FAULTS: dict[str, tuple[Callable[[Parts], None], set[str]]] = {
    "a boot store for BIOS that leads to nothing": (_store("boot/bcd", wim="\\sources\\gone.wim"), {"boot-store-bios"}),
    "a boot store for UEFI that leads to nothing": (
        _store("efi/microsoft/boot/bcd", wim="\\sources\\gone.wim"), {"boot-store-uefi"}),
    "a boot store that is none": (lambda p: p.files.update({"boot/bcd": b"regf" + bytes(5000)}), {"boot-store-bios"}),
    "no boot.sdi": (_without("boot/boot.sdi"), {"boot-store-bios", "boot-store-uefi"}),
    "a loader that is not in the image": (
        _store("efi/microsoft/boot/bcd", loader="winlaod.efi"), {"loaders"}),
    "boot index 0": (_boot_index_0, {"boot-image"}),
    "no BIOS loader": (_without("boot/etfsboot.com"), {"bios-entry"}),
    "a FAT image without the program": (_no_efi_program, {"uefi-entry"}),
    "no FAT image": (_no_fat, {"uefi-entry"}),
    "swapped boot entries": (_swapped, {"bios-entry", "uefi-entry"}),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_medium(tmp_path: Path, finished: Path, fault: str) -> None:
    change, expected = FAULTS[fault]
    parts = Parts(finished)
    change(parts)
    report = verify_medium(parts.write(tmp_path / "a.iso"))
    assert set(failed(report)) == expected, report.points
    assert not report.passed


def test_a_flipped_byte(tmp_path: Path, finished: Path) -> None:
    parts = Parts(finished)
    for path, points in (
        ("README.txt", {"checksums"}),
        ("bootmgr", {"checksums", "description"}),
    ):
        changed = Parts(finished)
        _flip(changed, path)
        assert set(failed(verify_medium(changed.write(tmp_path / "a.iso", listed=False)))) == points
    parts.efi = parts.efi[:-1] + b"x"
    assert failed(verify_medium(parts.write(tmp_path / "a.iso", listed=False))) == ["boot-images"]


def test_missing_and_additional_files(tmp_path: Path, finished: Path) -> None:
    parts = Parts(finished)
    del parts.files["README.txt"]
    report = verify_medium(parts.write(tmp_path / "a.iso", listed=False))
    assert failed(report) == ["checksums"]
    assert "README.txt is missing" in next(p.reason for p in report.points if p.name == "checksums")
    parts = Parts(finished)
    parts.files["autounattend.xml"] = b"<unattend/>"
    report = verify_medium(parts.write(tmp_path / "a.iso", listed=False))
    assert failed(report) == ["checksums"]
    assert "autounattend.xml is not in SHA256SUMS" in next(
        p.reason for p in report.points if p.name == "checksums"
    )


def test_an_image_that_is_cut_off(tmp_path: Path, finished: Path) -> None:
    target = tmp_path / "a.iso"
    data = finished.read_bytes()
    target.write_bytes(data[: len(data) * 9 // 10])
    report = verify_medium(target)
    assert failed(report) == ["whole"]
    assert not report.passed
    target.write_bytes(data[:40_000])
    with pytest.raises(BuildError, match="no ISO image, or is cut off"):
        verify_medium(target)


def _app(name: str) -> str:
    return f"Rehost/app/{name}"


@pytest.mark.parametrize(
    ("gone", "points"),
    [
        (_app("rehost_payload/formats/hive.py"), {"payload"}),
        (_app("click/core.py"), {"packages"}),
        ("Rehost/python/vcruntime140.dll", {"runtime"}),
        ("Rehost/start.cmd", {"start", "additions"}),
    ],
)
def test_what_is_missing_in_the_boot_image(
    tmp_path: Path, finished: Path, gone: str, points: set[str]
) -> None:
    parts = Parts(finished)
    parts.change_image(tmp_path, {}, (gone,))
    report = verify_medium(parts.write(tmp_path / "a.iso"))
    assert set(failed(report)) == points
    assert verdicts(report)["imports"] == ("PASS" if "start" in points else "UNKNOWN")


def _forget(parts: Parts, work: Path, gone: str) -> None:
    """As if the builder had never known the file: it is in no list, and the digest of its package is without it."""
    parts.change_image(work, {}, (gone,))
    parts.build["added"] = [f for f in parts.build["added"] if f["path"] != gone]
    for package in parts.build["python"]:
        name = package["name"]
        own = {
            f["path"].removeprefix("Rehost/app/"): f["sha256"] for f in parts.build["added"]
            if f["path"].startswith((f"Rehost/app/{name}/", f"Rehost/app/{name}-"))
        }  # fmt: skip
        package["sha256"] = digest("".join(f"{p}\0{d}\n" for p, d in sorted(own.items())).encode())


@pytest.mark.parametrize(
    ("gone", "module"),
    [
        (_app("rehost_payload/formats/hive.py"), "rehost_payload.formats.hive"),
        (_app("jinja2/lexer.py"), "jinja2.lexer"),
        ("Rehost/python/_ctypes.pyd", "_ctypes"),
    ],
)
def test_a_module_that_nobody_thought_of(tmp_path: Path, finished: Path, gone: str, module: str) -> None:
    parts = Parts(finished)
    _forget(parts, tmp_path, gone)
    report = verify_medium(parts.write(tmp_path / "a.iso"))
    assert failed(report) == ["imports"]
    assert f"{module}, which " in next(p.reason for p in report.points if p.name == "imports")


def test_start_files_with_line_feeds_alone(tmp_path: Path, finished: Path) -> None:
    parts = Parts(finished)
    data = b"wpeinit\ncall X:\\Rehost\\start.cmd\n"
    parts.change_image(tmp_path, {"Windows/System32/startnet.cmd": data})
    for file in parts.build["added"]:
        if file["path"] == "Windows/System32/startnet.cmd":
            file |= {"size": len(data), "sha256": digest(data)}
    report = verify_medium(parts.write(tmp_path / "a.iso"))
    assert failed(report) == ["start"]
    parts.change_image(
        tmp_path, {"Windows/System32/winpeshl.ini": b"[LaunchApp]\r\nAppPath=X:\\setup.exe\r\n"}
    )
    report = verify_medium(parts.write(tmp_path / "a.iso"))
    assert "does not start rehost" in next(p.reason for p in report.points if p.name == "start")


def test_a_driver_file_that_was_changed(tmp_path: Path, finished: Path) -> None:
    parts = Parts(finished)
    file = next(f for f in parts.build["added"] if f["path"].endswith("exraid.inf"))
    parts.change_image(tmp_path, {file["path"]: b"; nothing\r\n"})
    assert failed(verify_medium(parts.write(tmp_path / "a.iso"))) == ["drivers"]


def test_a_stream_that_was_changed_on_the_medium(tmp_path: Path, finished: Path) -> None:
    """Bytes changed in the finished image, behind every list's back but SHA256SUMS."""
    data = bytearray(finished.read_bytes())
    at = data.index(b"What happens between the start of Windows PE")
    data[at] ^= 0x20
    (tmp_path / "a.iso").write_bytes(data)
    report = verify_medium(tmp_path / "a.iso", thorough=True)
    assert set(failed(report)) == {"sealed", "checksums", "description", "start", "additions", "wimlib"}


def test_a_temporary_folder_that_is_full(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage("/")._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    done = run(finished, "--thorough", "-q")
    assert done.exit_code == 1
    assert tempfile.gettempdir() in done.output
    assert "TMPDIR" in done.output
    assert "--cache" not in done.output


def test_a_temporary_folder_that_becomes_full() -> None:
    with pytest.raises(BuildError) as caught, environment.temporary(0, "verify"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert tempfile.gettempdir() in caught.value.message
    assert "TMPDIR" in caught.value.hint


# --- the command


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(main, ["verify", *map(str, arguments)])


def test_the_command(tmp_path: Path, finished: Path) -> None:
    done = run(finished, "-q")
    assert done.exit_code == 0, done.output
    assert done.output.endswith("(1 of these not needed).\n")
    done = run(finished, "--json")
    found = json.loads(done.stdout)
    assert found["exit_code"] == 0
    assert {p["verdict"] for p in found["verification"]["points"]} == {"PASS", "UNKNOWN"}
    parts = Parts(finished)
    _boot_index_0(parts)
    assert run(parts.write(tmp_path / "a.iso"), "-q").exit_code == 3
    (tmp_path / "b.iso").write_bytes(b"no image")
    done = run(tmp_path / "b.iso", "-q")
    assert done.exit_code == 1
    assert "rehost verify --image" in done.output
    done = run(finished, "--image", finished)
    assert done.exit_code == 2
    assert "--image is for the disk of a server" in done.output
    assert run("--thorough").exit_code == 2


def test_disks_are_still_judged(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    done = run("--image", tmp_path / "disk.img", "--json")
    assert done.exit_code == 3
    assert "verification" in json.loads(done.stdout)
