"""`rehost capture` over disk images: what it writes, what it refuses, how it ends."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rehost_payload.capture.contents import CaptureContents, read_contents
from rehost_payload.capture.copy_progress import CopyProgress
from rehost_payload.capture.copy_state import (
    UNSEEN,
    CaptureState,
    TargetState,
    UnitCopy,
    UnitState,
    find_captures,
)
from rehost_payload.capture.judge import verify_capture
from rehost_payload.capture.model import (
    CapturePlan,
    HostSettings,
    Letter,
    MachineSummary,
    Manifest,
    ManifestFile,
    Role,
)
from rehost_payload.capture.present import as_it_lies
from rehost_payload.capture.restore.scripts import scripts
from rehost_payload.repair.model import Finding, ResultWord, Severity, Verdict
from rehost_payload.system import folder_target
from rehost_payload.system.directory_target import DirectoryTarget
from rehost_payload.system.folder_target import readable_folder
from rehost_payload.system.images import ImageSystem
from rehost_payload.ui import capture_page, capture_work
from rehost_payload.ui.capture_lines import outcome_lines, progress_text, time_text
from rehost_payload.ui.capture_work import CaptureOrders, CaptureOutcome, prepare, resolve
from rehost_payload.ui.capture_work import run as capture_run
from rehost_payload.ui.cli import rehost, run
from rehost_payload.ui.describe import Names
from rehost_payload.ui.show import Page
from rehost_payload.ui.texts import LANGUAGES, Texts
from support import guardians, hyperv_host
from support.disks import MIB, ntfs_volume
from support.hyperv_host import SECOND, TEST_A, TEST_B, Host, child_of, make_host, vhdx

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return make_host(tmp_path_factory.mktemp("host"))


@pytest.fixture(autouse=True)
def _anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of a test are all on one disk, which Rehost would refuse with good reason."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG", "REHOST_ASCII"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(folder_target, "_mount", lambda device, root: ("ext4", "", frozenset()))


@pytest.fixture
def targets(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return tmp_path / "one", tmp_path / "two"


@pytest.fixture
def call(host: Host, capsys: Capture) -> Callable[..., tuple[int, str]]:
    def do(*arguments: object) -> tuple[int, str]:
        images = [word for image in host.images for word in ("--image", str(image))]
        code = run(rehost, ["capture", *images, *map(str, arguments)])
        return code, capsys.readouterr().out

    return do


def folder_of(target: Path) -> Path:
    (folder,) = target.glob("Rehost-HV01-*")
    return folder


def sha256sum(folder: Path) -> None:
    """The judge that is not ours, as index.html says it."""
    for sums in folder.glob("*/SHA256SUMS"):
        done = subprocess.run(
            ["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=sums.parent, capture_output=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_two_verified_copies(call: Callable[..., Any], targets: tuple[Path, Path], host: Host) -> None:
    one, two = targets
    code, out = call("--to", one, "--to", two, "--yes", "--vm", "web01", "--vm", "DC01")
    assert (code, "2 good copies of 2 virtual machines" in out) == (0, True), out
    assert "Result: captured (0)" in out
    assert "dc01 is saved, not shut down" in out
    assert out.index("dc01 is saved") < out.index("Copying now")
    for target in targets:
        folder = folder_of(target)
        sha256sum(folder)
        assert verify_capture(folder).verdict is Verdict.PASS
        assert {p.name for p in folder.iterdir() if p.is_file()} >= {
            "index.html",
            "restore.json",
            "capture.json",
            *scripts(),
        }
        restore = json.loads((folder / "restore.json").read_text())
        for machine in restore["machines"]:
            assert machine["complete"]
            for file in machine["files"]:
                assert (folder / file["path"]).read_bytes() == host.files[file["original"]]
        assert restore["host"]["name"] == "HV01"


def test_a_machine_with_a_disk_that_is_no_file_is_not_whole(
    call: Callable[..., Any], targets: tuple[Path, Path]
) -> None:
    code, out = call("--to", targets[0], "--yes")
    assert (code, "Result: incomplete (3)" in out) == (3, True)
    assert "1 good copy of 5 virtual machines" in out
    assert "DO NOT ERASE" in out
    sha256sum(folder_of(targets[0]))
    assert "see FATAL and BLOCKED below" in (folder_of(targets[0]) / "index.html").read_text()


def test_the_same_again_goes_on_in_the_same_folder_and_another_choice_does_not(
    call: Callable[..., Any], targets: tuple[Path, Path]
) -> None:
    target = targets[0]
    assert call("--to", target, "--yes", "--vm", "web01")[0] == 0
    first = folder_of(target)
    before = {p: p.stat().st_ino for p in first.rglob("*.vhdx")}
    code, out = call("--to", target, "--yes", "--vm", "web01")
    assert (code, f"an earlier run is there and is continued: {first.name}" in " ".join(out.split())) == (
        0,
        True,
    )
    assert {p: p.stat().st_ino for p in folder_of(target).rglob("*.vhdx")} == before
    code, out = call("--to", target, "--yes", "--vm", "dc01")
    assert (code, f"an earlier capture of this host is there, {first.name}" in " ".join(out.split())) == (
        0,
        True,
    )
    assert sorted(p.name for p in target.iterdir()) == [first.name, f"{first.name}-2"]


def test_a_disk_that_changed_between_two_runs_is_copied_again(
    targets: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ran once more, and its clock was set back: the same capture, with what is on the disks now."""
    (tmp_path / "host").mkdir()
    server = make_host(tmp_path / "host")
    arguments = ["capture", *(w for image in server.images for w in ("--image", str(image)))]
    arguments += ["--to", str(targets[0]), "--yes", "--vm", "web01"]
    assert run(rehost, arguments) == 0
    folder = folder_of(targets[0])
    place = "D:\\VMs\\web01\\Virtual Hard Disks\\web01.vhdx"
    (disk,) = folder.rglob("web01.vhdx")
    others = {p: p.stat().st_ino for p in folder.rglob("*.avhdx")}
    grown = bytearray(server.files[place]) + b"grown" * 200_000
    grown[4 * MIB : 5 * MIB] = bytes(MIB)
    with ntfs_volume(*server.place("D")) as volume:
        volume.write(place[2:], bytes(grown))
    monkeypatch.setattr(capture_work, "now", lambda: "1999-12-31T23:59:59Z")
    assert run(rehost, arguments) == 0
    assert [p.name for p in targets[0].iterdir()] == [folder.name]
    assert disk.read_bytes() == grown
    assert {p: p.stat().st_ino for p in folder.rglob("*.avhdx")} == others
    sha256sum(folder)
    assert verify_capture(folder).verdict is Verdict.PASS


def test_a_folder_that_changes_after_it_was_looked_at(targets: tuple[Path, Path], tmp_path: Path) -> None:
    """One disk grows, one vanishes: the first is copied as it is now, the second is named, the rest is good."""
    (tmp_path / "host").mkdir()
    server = make_host(tmp_path / "host")
    place = "D:\\VMs\\web01\\Virtual Hard Disks\\web01.vhdx"
    grown = server.files[place] + b"grown" * 500_000

    def change(measure: object) -> None:
        with ntfs_volume(*server.place("D")) as volume:
            volume.write(place[2:], grown)
            volume.delete("\\Disks\\sql-os.vhdx")

    orders = CaptureOrders((str(targets[0]),), ("web01", "sql"))
    with ImageSystem(server.images) as system:
        prepared = prepare(system, orders, resolve(orders.targets, None), lambda *_: None)
        outcome = capture_run(prepared, system, "en", starting=change)
    assert outcome.word is ResultWord.INCOMPLETE
    assert {u.name: u.good_copies for u in outcome.machines} == {"web01": 1, "sql": 0}
    folder = folder_of(targets[0])
    (disk,) = folder.rglob("web01.vhdx")
    assert disk.read_bytes() == grown
    sha256sum(folder)
    verdicts = {unit.folder: unit.verdict for unit in verify_capture(folder).units}
    assert verdicts == {"web01": Verdict.PASS, "host": Verdict.PASS, "sql": Verdict.FAIL}
    shown = " ".join(" ".join(outcome_lines(outcome, Page(Names(None, Texts("en")), 79))).split())
    assert "sql has no good copy" in shown
    assert "sql-os.vhdx is not there any more" in shown


def test_images_that_are_inserted_on_request(
    call: Callable[..., Any], targets: tuple[Path, Path], host: Host
) -> None:
    call("--to", targets[0], "--yes", "--vm", "sql", "--config-only")
    assert not list(targets[0].rglob("*.iso"))
    call("--to", targets[1], "--yes", "--vm", "sql", "--with-iso")
    (image,) = targets[1].rglob("*.iso")
    assert image.read_bytes() == host.files["D:\\ISO\\setup.iso"]
    assert image.parent.name == "Images"


def test_rings_of_disks_are_captured_as_they_are(targets: tuple[Path, Path], tmp_path: Path) -> None:
    """Nothing on the way follows a chain for ever: not the copy, the lists, the scripts' data, or the judge."""
    folder, name = "D:\\VMs\\web01\\Virtual Hard Disks", f"web01_{SECOND.upper()}.avhdx"
    more = {
        f"{folder}\\web01.vhdx": vhdx("web01", child_of("web01 2", f".\\{name}")),
        "D:\\Golden\\base.vhdx": vhdx("golden", child_of("golden", ".\\base.vhdx")),
    }
    (tmp_path / "host").mkdir()
    server = make_host(tmp_path / "host", more=more)
    arguments = ["capture", *(w for image in server.images for w in ("--image", str(image)))]
    wishes = ["--vm", "web01", "--vm", TEST_A, "--vm", TEST_B]
    assert run(rehost, [*arguments, "--to", str(targets[0]), "--yes", *wishes]) == 3
    made = folder_of(targets[0])
    sha256sum(made)
    assert verify_capture(made).verdict is Verdict.PASS
    (disk,) = made.rglob("base.vhdx")
    assert disk.read_bytes() == server.files["D:\\Golden\\base.vhdx"]
    (state,) = [
        as_it_lies(s, readable_folder(targets[0]), n)
        for n, s in find_captures(readable_folder(targets[0])).items()
    ]
    assert state.good_copies == 1


def test_configuration_only(call: Callable[..., Any], targets: tuple[Path, Path], capsys: Capture) -> None:
    code, out = call("--to", targets[0], "--yes", "--vm", "web01", "--config-only")
    folder = folder_of(targets[0])
    assert code == 0
    # nobody may take it for a copy of the machines, wherever he looks
    said = "Configurations only, without the disks: 1 good copy of 1 virtual machine"
    assert said in " ".join(out.split())
    assert said in (folder / "index.html").read_text()
    assert run(rehost, ["capture", "list", str(targets[0])]) == 0
    assert said in capsys.readouterr().out
    assert run(rehost, ["capture", "verify", str(folder)]) == 0
    assert "the machines' disks were left out and are not in it" in capsys.readouterr().out
    assert not list(folder.rglob("*vhdx"))
    (web,) = json.loads((folder / "restore.json").read_text())["machines"]
    assert len(web["not_captured"]) == 3
    assert "own arrays, under their old letters" in (folder / "index.html").read_text()
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < 2 << 20


def test_a_machine_that_is_not_whole_is_named_wherever_copies_are_counted(
    call: Callable[..., Any], targets: tuple[Path, Path], capsys: Capture
) -> None:
    """sql has a disk that is no file: "good copies" alone would be believed by whoever erases the server."""
    _, out = call("--to", targets[0], "--yes", "--no-orphans", "--vm", "sql", "--vm", "web01")
    said = "1 good copy of 2 virtual machines. Not whole (damaged on the server already, not all of it within"
    assert said in " ".join(out.split())
    assert max(len(line) for line in out.splitlines()) <= 79
    assert said in (folder_of(targets[0]) / "index.html").read_text()
    run(rehost, ["capture", "list", str(targets[0])])
    assert re.search(
        rf"{re.escape(said)} reach, or something must be done first\): sql$", capsys.readouterr().out, re.M
    )
    assert run(rehost, ["capture", "verify", str(folder_of(targets[0]))]) == 0
    assert "index.html says what): sql" in capsys.readouterr().out


def test_a_disk_that_was_damaged_before_is_a_true_copy_of_a_machine_that_is_not_whole(
    targets: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    """Bytes are equal and the machine will not start from them: the operator must know before the server is gone."""
    path = "D:\\VMs\\web01\\Virtual Hard Disks\\web01.vhdx"
    before = vhdx("web01")
    broken = before[: 64 << 10] + bytes(128 << 10) + before[192 << 10 :]  # neither header is left
    (tmp_path / "host").mkdir()
    server = make_host(tmp_path / "host", more={path: broken})
    arguments = ["capture", *(w for image in server.images for w in ("--image", str(image)))]
    arguments += ["--vm", "web01", "--vm", TEST_A, "--to", str(targets[0]), "--yes"]
    assert run(rehost, arguments) == 3
    out = " ".join(capsys.readouterr().out.split())
    folder = folder_of(targets[0])
    assert next(folder.rglob("web01.vhdx")).read_bytes() == broken
    said = "1 good copy of 2 virtual machines. Not whole (damaged on the server already,"
    assert said in out
    assert f"the headers of a disk cannot be read: {path}" in out
    assert "FATAL" in out
    assert "it was damaged on the server already. A copy has the same bytes and the same damage." in out
    assert said in (folder / "index.html").read_text()
    assert run(rehost, ["capture", "verify", str(folder)]) == 0  # what lies there is what was captured
    assert "index.html says what): web01" in capsys.readouterr().out
    assert run(rehost, [*arguments, "--json"]) == 3
    result = json.loads(capsys.readouterr().out)
    assert (result["word"], result["exit_code"]) == ("incomplete", 3)
    weights = {f["id"]: f["severity"] for f in result["findings"] if f["subject"] == hyperv_host.WEB}
    assert weights["capture.disk-unread"] == "fatal"


def test_a_virtual_tpm_whose_certificates_were_saved_is_captured_with_them(
    targets: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    """Without them the result is "incomplete"; put beside, or named, they are copied, and the same capture is whole. It
    stays so when the folder is gone: they are in the capture."""
    (tmp_path / "host").mkdir()
    server = guardians.host_with_tpm(tmp_path / "host")
    common = ["capture", *(w for image in server.images for w in ("--image", str(image))), "--json", "--yes"]
    common += ["--vm", "dc01", "--to", str(targets[0])]

    def do(*more: str) -> tuple[int, dict[str, str]]:
        code = run(rehost, [*common, *more])
        result = json.loads(capsys.readouterr().out)
        return code, {f["id"]: f["severity"] for f in result["findings"]}

    code, found = do()
    assert (code, found["capture.tpm"]) == (3, "blocker")
    page = (folder_of(targets[0]) / "index.html").read_text()
    assert "Export-Guardian.ps1 -Folder" in page
    assert "-GuardianFolder E:\\Guardian" in page
    saved = tmp_path / "elsewhere"
    saved.mkdir()
    for one in guardians.guardian():
        (saved / f"{guardians.thumbprint(one)}.pfx").write_bytes(guardians.exported(one))
    code, found = do("--guardian", str(saved))
    assert (code, found["capture.tpm-saved"], "capture.tpm" in found) == (0, "warning", False)
    folder = folder_of(targets[0])  # still the one capture
    kept = {p.name: p.read_bytes() for p in (folder / "host" / "Guardian").iterdir()}
    assert kept == {p.name: p.read_bytes() for p in saved.iterdir()}
    sha256sum(folder)
    page = (folder / "index.html").read_text()
    assert "Export-Guardian.ps1 -Folder" not in page
    assert "Restore-Host.ps1 -GuardianFolder .\\host\\Guardian" in page
    code, found = do()
    assert (code, "capture.tpm-saved" in found) == (0, True)
    verdict = verify_capture(folder)
    assert (verdict.verdict, [u.extra for u in verdict.units if u.folder == "host"]) == (Verdict.PASS, [()])
    # in a folder of the target itself they need no name; an empty folder that is named is an error
    saved.rename(targets[1] / "Guardian")
    common[common.index(str(targets[0]))] = str(targets[1])
    assert do()[0] == 0
    assert run(rehost, [*common, "--guardian", str(targets[0])]) == 2
    assert "no saved certificates" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("free", "words", "renamed"),
    [
        (1 << 40, "its earlier copy is kept until the new one is complete: web01", True),
        (
            22 << 20,
            "no room to keep the earlier copy until the new one is complete; it is replaced: web01",
            False,
        ),
    ],
)
def test_a_checkpoint_between_two_runs_is_no_new_capture(
    free: int,
    words: str,
    renamed: bool,
    targets: tuple[Path, Path],
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The old host ran once more, as Rehost itself advises: the capture goes on, and says before what becomes of whose
    earlier copy."""
    (tmp_path / "host").mkdir()
    server = make_host(tmp_path / "host")
    arguments = ["capture", *(w for image in server.images for w in ("--image", str(image)))]
    arguments += ["--vm", "web01", "--vm", "dc01", "--to", str(targets[0]), "--yes"]
    assert run(rehost, arguments) == 0
    assert "is continued" not in capsys.readouterr().out
    newer = vhdx("newer", child_of("web01 2", f".\\web01_{SECOND.upper()}.avhdx"))
    with ntfs_volume(*server.place("D")) as volume:
        volume.write("VMs\\web01\\Virtual Hard Disks\\newer.avhdx", newer)
    names: list[str] = []
    rename = DirectoryTarget.rename

    def renames(self: DirectoryTarget, old: str, new: str) -> None:
        names.append(new)
        rename(self, old, new)

    monkeypatch.setattr(DirectoryTarget, "rename", renames)
    monkeypatch.setattr(DirectoryTarget, "free", lambda self: free)
    monkeypatch.setattr(capture_work, "_SPARE", 0)
    assert run(rehost, arguments) == 0
    said = " ".join(capsys.readouterr().out.split())
    folder = folder_of(targets[0])  # one only
    assert any("/web01 (earlier " in name for name in names) == renamed
    assert f"an earlier run is there and is continued: {folder.name}" in said
    assert re.search(r"all of it is copied anew: web01 (?!,)", said)
    assert said.index(words) < said.index("Copying now")
    assert not any("earlier" in place.name for place in folder.iterdir())
    assert next(folder.rglob("newer.avhdx")).read_bytes() == newer
    sha256sum(folder)
    assert verify_capture(folder).verdict is Verdict.PASS


def test_the_captures_own_files_are_verified(
    call: Callable[..., Any], targets: tuple[Path, Path], capsys: Capture
) -> None:
    """What the restore scripts read, and the scripts, are as worth of trust as the disks."""
    call("--to", targets[0], "--yes", "--vm", "web01", "--config-only")
    folder = folder_of(targets[0])
    assert verify_capture(folder).faults == ()
    for name in ("restore.json", "Restore-VM.ps1", "index.html"):
        before = (folder / name).read_bytes()
        for harm in (before + b" ", before[:-1], None):
            (folder / name).unlink()
            if harm is not None:
                (folder / name).write_bytes(harm)
            verdict = verify_capture(folder)
            assert (verdict.verdict, [(f.code, f.path) for f in verdict.faults]) == (
                Verdict.FAIL,
                [("root", name)],
            )
            (folder / name).write_bytes(before)
    (folder / "restore.json").write_text("{}")
    assert run(rehost, ["capture", "verify", str(folder)]) == 3
    assert "restore.json: is not as it was written: 'rehost capture scripts'" in capsys.readouterr().out
    assert run(rehost, ["capture", "scripts", str(folder)]) == 0
    assert verify_capture(folder).verdict is Verdict.PASS
    (folder / "SHA256SUMS").unlink()
    verdict = verify_capture(folder)
    assert (verdict.verdict, [f.code for f in verdict.faults]) == (Verdict.UNKNOWN, ["no-root"])
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  ../../etc/passwd\n")
    assert [f.code for f in verify_capture(folder).faults] == ["root"]


def test_a_machine_may_be_called_like_the_captures_own_files(
    targets: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "host").mkdir()
    more = {}
    names = (
        "capture.json",
        "Capture.Journal",
        "restore.json",
        "Restore-VM.ps1",
        "index.html",
        "SHA256SUMS",
        "Host",
    )
    for name in names:
        identifier = hyperv_host.guid(name)
        disk = f"D:\\odd\\{identifier}.vhdx"
        vm = hyperv_host.Vm(identifier, name, [("SCSI", 0, 0, "VHD", disk)])
        more[f"D:\\odd\\Virtual Machines\\{identifier}.vmcx"] = hyperv_host.vmcx(
            hyperv_host.configuration(vm)
        )
        more[disk] = hyperv_host.vhd(name)
    server = hyperv_host.make_host(tmp_path / "host", more=more)
    words = [word for image in server.images for word in ("--image", str(image))]
    words += [word for name in names for word in ("--vm", name)]
    assert run(rehost, ["capture", *words, "--to", str(targets[0]), "--yes", "--config-only"]) == 0
    assert verify_capture(folder_of(targets[0])).verdict is Verdict.PASS


def test_without_anything_to_capture_nothing_is_written(
    targets: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "empty.img").write_bytes(bytes(1 << 20))
    images = ["--image", str(tmp_path / "empty.img")]
    assert run(rehost, ["capture", *images, "--to", str(targets[0]), "--yes"]) == 5
    assert "Nothing was found on the disks that could be captured" in " ".join(
        capsys.readouterr().out.split()
    )
    assert list(targets[0].iterdir()) == []


def test_a_list_of_what_is_no_folder_or_a_capture_itself(
    call: Callable[..., Any], targets: tuple[Path, Path], capsys: Capture
) -> None:
    assert run(rehost, ["capture", "list", str(targets[0] / "absent")]) == 1
    assert "absent: No such file or directory" in capsys.readouterr().err
    call("--to", targets[0], "--yes", "--vm", "web01", "--config-only")
    assert run(rehost, ["capture", "list", str(folder_of(targets[0]))]) == 0
    assert "1 of 1 machine good" in capsys.readouterr().out


def test_a_dry_run_writes_nothing(call: Callable[..., Any], targets: tuple[Path, Path]) -> None:
    for more in ((), ("--to", targets[0])):
        code, out = call("--dry-run", *more)
        assert (code, "Result: planned (0)" in out) == (0, True)
        assert "web01" in out
    assert list(targets[0].iterdir()) == []


def test_without_a_yes_nothing_is_written(call: Callable[..., Any], targets: tuple[Path, Path]) -> None:
    code, out = call("--to", targets[0])
    assert (code, "Result: declined (4)" in out) == (4, True)
    assert list(targets[0].iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--yes"], "name a target"),
        (["--to", "TARGET", "--vm", "nobody", "--yes"], "no such machine: nobody (there are: dc01, sql"),
        (
            ["--to", "TARGET", "--windows", "disk7p1:\\X", "--yes"],
            "with Hyper-V: disk7p1:\\X (there are: disk1p3:",
        ),
        (["--to", "label:NONE", "--yes"], "no such target: label:NONE"),
        (["--to", "TARGET", "--to", "TARGET", "--to", "TARGET", "--yes"], "cannot be used"),
        (["verify", "TARGET"], "do not go with 'verify'"),
    ],
)
def test_wrong_orders(
    arguments: list[str],
    message: str,
    host: Host,
    targets: tuple[Path, Path],
    capsys: Capture,
) -> None:
    arguments = [str(targets[0]) if a == "TARGET" else a for a in arguments]
    assert run(rehost, ["capture", "--image", str(host.images[1]), *_rest(host), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(targets[0].iterdir()) == []


def _rest(host: Host) -> list[str]:
    return [word for image in (host.images[0], host.images[2]) for word in ("--image", str(image))]


def test_the_command_of_page_and_readme_checks_everything(
    call: Callable[..., Any], targets: tuple[Path, Path]
) -> None:
    call("--to", targets[0], "--yes", "--no-orphans", "--vm", "web01", "--vm", "dc01")
    folder = folder_of(targets[0])
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    (line,) = re.findall(r"^ +(for d in .*)$", readme, re.M)
    page = (folder / "index.html").read_text()
    assert f"<pre>{line}</pre>".replace("&&", "&amp;&amp;") in page

    def said() -> list[str]:
        return subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True).stdout.split(
            "\n"
        )

    assert said() == ["./ OK", "dc01/ OK", "host/ OK", "web01/ OK", ""]
    disk = next(folder.glob("dc01/**/*.vhd"))
    data = bytearray(disk.read_bytes())
    data[100] ^= 1
    disk.write_bytes(data)
    (folder / "web01/SHA256SUMS").unlink()
    (folder / "restore.json").write_bytes((folder / "restore.json").read_bytes().replace(b"D:", b"E:"))
    assert [text for text in said() if text.endswith("OK")] == ["host/ OK"]


@pytest.mark.parametrize(
    ("place", "cause", "evidence", "following"),
    [
        ("images", "holds a disk image that is to be captured", "disk0.img lies in", "Next: Name a folder"),
        ("inside", "part of a capture that exists already", "web01 is a capture, or", "Next: Name the disk"),
        ("twice", "worth as much as one", "is named twice", "Next: Connect a second disk"),
        ("nested", "worth as much as one", "lies in", "Next: Connect a second disk"),
    ],
)
def test_folders_that_take_no_copy(
    place: str,
    cause: str,
    evidence: str,
    following: str,
    call: Callable[..., Any],
    targets: tuple[Path, Path],
    host: Host,
) -> None:
    """Cause, evidence and next step, without a question, and before a word of copying."""
    one, two = targets
    inside = two / "web01"
    inside.mkdir()
    for name in ("manifest.json", "SHA256SUMS"):
        (inside / name).touch()
    (one / "below").mkdir()
    names: dict[str, list[Path]] = {
        "images": [host.images[0].parent],
        "inside": [one, inside],
        "twice": [one, one],
        "nested": [one, one / "below"],
    }
    before = sorted(p for t in targets for p in t.rglob("*"))
    for more in (["--yes"], ["--dry-run"]):
        code, out = call(*(word for name in names[place] for word in ("--to", name)), *more)
        text = " ".join(out.split())
        assert (code, "Result: blocked (5)" in text) == (5, True)
        assert text.index(cause) < text.index(evidence) < text.index(following)
        assert "Copying now" not in text
    assert sorted(p for t in targets for p in t.rglob("*")) == before


def test_a_folder_beside_the_images_is_warned_of(
    call: Callable[..., Any], targets: tuple[Path, Path]
) -> None:
    code, out = call("--to", targets[0], "--dry-run", "--vm", "web01")
    assert (code, "is on a disk that holds machines as well" in " ".join(out.split())) == (0, True)


def test_what_is_not_whole_is_explained_where_the_result_stands(
    call: Callable[..., Any], targets: tuple[Path, Path]
) -> None:
    _, out = call("--to", targets[0], "--yes", "--no-orphans", "--vm", "sql", "--vm", "web01")
    result = " ".join(out[out.index("Result: incomplete (3)") :].split())
    assert "not all of it can be copied from here: - sql uses physical disks: SCSI 0:2" in result
    assert "Why: A pass-through disk is no file" in result
    assert "What you can do: Keep the disk" in result
    assert "The copies are good" in result
    _, out = call("--to", targets[0], "--yes", "--no-orphans", "--vm", "sql", "--vm", "web01", "--lang", "de")
    german = out[out.index("Ergebnis") :]
    assert "Ergebnis: unvollständig (3)" in german
    assert "LÖSCHEN" in german
    assert not re.search(r"\b(FATAL|incomplete|ERASE)\b", out)


def test_a_target_that_failed_is_explained_where_the_result_stands() -> None:
    outcome = CaptureOutcome(
        ResultWord.INCOMPLETE,
        CapturePlan("Rehost-HV-1", "HV", ()),
        _state(("complete", "unfinished"), "gone"),
    )
    shown = " ".join(" ".join(outcome_lines(outcome, Page(Names(None, Texts("en")), 79))).split())
    assert "web01 (vm) has a good copy on disk a, and on no other target" in shown
    assert "On disk a: Rehost-HV-1 (index.html there" in shown  # the other has none
    assert "Why: disk b: why" in shown
    assert "What you can do: Connect it again and start the same capture again." in shown
    assert "DO NOT ERASE THE SERVER" in shown
    failed = replace(outcome, state=_state(("incomplete", "incomplete"), ""))
    shown = " ".join(" ".join(outcome_lines(failed, Page(Names(None, Texts("en")), 79))).split())
    assert "web01 (vm) has no good copy." in shown
    assert "a failing source disk" in shown


def _state(copies: tuple[str, str], code: str) -> CaptureState:
    state = contents(copies=copies).state
    return replace(state, targets=(state.targets[0], replace(state.targets[1], code=code)))


def test_the_next_step_after_a_planned_or_declined_capture_is_a_capture(
    call: Callable[..., Any], targets: tuple[Path, Path]
) -> None:
    """The same words end a repair, which has another next step."""
    for language, repair, capture in (
        ("en", "repair", "rehost capture --to"),
        ("de", "eparier", "rehost capture --to"),
    ):
        code, out = call("--dry-run", "--lang", language)
        following = " ".join(out[out.rindex(Texts(language)("show.next")) :].split())
        assert (code, capture in following, repair in following) == (0, True, False)
    for language, repair, capture in (("en", "Repair", "same capture"), ("de", "eparier", "Sicherung")):
        code, out = call("--to", targets[0], "--lang", language)
        following = " ".join(out[out.rindex(Texts(language)("show.next")) :].split())
        assert (code, capture in following, repair in following) == (4, True, False)


def test_two_targets_on_one_disk_are_refused(
    call: Callable[..., Any], targets: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_target, "_mount", lambda device, root: ("ext4", "/dev/sdz", frozenset()))
    code, out = call("--to", targets[0], "--to", targets[1], "--yes")
    assert (code, "Result: blocked (5)" in out) == (5, True)
    assert "worth as much as one" in " ".join(out.split())
    assert [list(t.iterdir()) for t in targets] == [[], []]


def test_a_target_on_a_disk_that_is_captured_is_refused(
    call: Callable[..., Any], targets: tuple[Path, Path], host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        folder_target, "_mount", lambda device, root: ("ntfs3", str(host.images[1]), frozenset())
    )
    assert call("--to", targets[0], "--yes")[0] == 5


def test_fat_is_refused(
    call: Callable[..., Any], targets: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_target, "_mount", lambda device, root: ("vfat", "", frozenset()))
    code, out = call("--to", targets[0], "--yes")
    assert (code, "FAT cannot hold large files" in " ".join(out.split())) == (5, True)


def test_as_json(call: Callable[..., Any], targets: tuple[Path, Path]) -> None:
    code, out = call("--to", targets[0], "--yes", "--json", "--vm", "web01")
    data = json.loads(out)
    assert (code, data["exit_code"], data["word"]) == (0, 0, "captured")
    assert [u["name"] for u in data["units"]] == ["web01", "HV01"]
    assert data["state"]["units"][0]["copies"][0]["state"] == "complete"
    assert "capture.checkpoint-state" in [f["id"] for f in data["findings"]]


def test_pages_are_made_again(call: Callable[..., Any], targets: tuple[Path, Path], capsys: Capture) -> None:
    call("--to", targets[0], "--yes", "--vm", "web01")
    folder = folder_of(targets[0])
    names = ["index.html", "restore.json", *scripts()]
    before = {name: (folder / name).read_bytes() for name in names}
    for name in names:
        (folder / name).unlink()
    assert run(rehost, ["capture", "scripts", str(folder)]) == 0
    assert {name: (folder / name).read_bytes() for name in names} == before
    assert run(rehost, ["capture", "scripts", str(targets[1])]) == 1
    assert "no capture" in capsys.readouterr().err
    assert run(rehost, ["capture", "list", str(targets[0])]) == 0
    assert "1 good copy of 1 virtual machine" in capsys.readouterr().out
    assert run(rehost, ["capture", "list", str(targets[1])]) == 0
    assert "no captures" in capsys.readouterr().out


def test_a_damaged_manifest_costs_its_machine_only(
    call: Callable[..., Any], targets: tuple[Path, Path], capsys: Capture
) -> None:
    call("--to", targets[0], "--yes", "--vm", "web01", "--vm", "dc01")
    folder = folder_of(targets[0])
    (folder / "web01" / "manifest.json").write_text("{")
    assert run(rehost, ["capture", "scripts", str(folder)]) == 0
    assert "web01" in capsys.readouterr().err
    assert [m["name"] for m in json.loads((folder / "restore.json").read_text())["machines"]] == ["dc01"]


# --- the page


def contents(
    name: str = "web01", copies: tuple[str, ...] = ("complete", "complete"), **more: Any
) -> CaptureContents:
    names = ("a", "b")[: len(copies)]
    unit = UnitState(
        "1", name, "vm", 1 << 30, tuple(UnitCopy(t, s, ("why",)) for t, s in zip(names, copies, strict=True))
    )
    state = CaptureState(
        1,
        "0",
        "Rehost-HV-1",
        "x",
        "HV",
        "then",
        "now",
        "a",
        tuple(TargetState(t, f"disk {t}") for t in names),
        (unit,),
    )
    machine = MachineSummary("1", name, 2, "9.0", "D:\\x.vmcx", tpm=True, memory_mb=2048)
    manifest = Manifest(1, "0", "1", name, "machine", "HV", "", 64 << 20, True, (), machine)
    return CaptureContents(state, {"vm": replace(manifest, **more)})


@pytest.mark.parametrize("first", LANGUAGES)
def test_the_page_has_both_languages_and_needs_no_network(first: str) -> None:
    page = capture_page.to_html(contents(), first)
    for language in LANGUAGES:
        assert Texts(language)("capturepage.title", host="HV") in page
        assert f'<main lang="{language}">' in page
    assert re.search(rf'id="choose-{first}" checked', page)
    assert not re.search(r"<script|src=|https?:|url\(|@import", page)
    assert "Export-Guardian.ps1 -Folder" in page  # there is a virtual TPM
    assert "sha256sum" in page


def test_the_page_names_the_letters_and_the_disks_of_no_machine() -> None:
    letters = (
        Letter("D:", label="Data <1>", size=4 << 40, file_system="NTFS", holds_machines=True),
        Letter("E:", label="Other"),
    )
    settings = HostSettings(1, "0", "", "HV", "Windows Server 2016", 14393, "de-DE", letters=letters)
    given = contents()
    assert "-Orphans" not in capture_page.to_html(given, "en")
    orphan = ManifestFile("a.vhdx", "D:\\a.vhdx", Role.DISK, 1, "0" * 64, ("0" * 64,))
    orphans = Manifest(1, "0", "orphans", "o", "orphans", "HV", "", 1, True, (orphan,))
    page = capture_page.to_html(
        replace(given, settings=settings, units={**given.units, "orphans": orphans}), "en"
    )
    assert page.count("<li>D: Data &lt;1&gt;, NTFS, 4") == 2  # in both languages
    assert "Other" not in page
    assert page.count("\n<pre>.\\Restore-VM.ps1 -Orphans</pre>") == 2


@pytest.mark.parametrize(
    ("copies", "text"),
    [
        (("complete", "complete"), "2 good copies of 1 virtual machine"),
        (("complete", "unfinished"), "1 good copy of 1 virtual machine"),
        (("incomplete", "unfinished"), "A good copy of 0 of 1 virtual machine"),
    ],
)
def test_the_page_says_how_good_the_copies_are(copies: tuple[str, ...], text: str) -> None:
    page = capture_page.to_html(contents(copies=copies), "en")
    assert text in page
    assert ("DO NOT ERASE THE SERVER" in page) == ("complete" not in copies)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_names_what_is_not_good_and_which_disk_does_not_count(language: str) -> None:
    made = contents("sql", copies=("incomplete", "unfinished"))
    gone, old = (
        replace(made.state.targets[1], code="gone", detail="pulled"),
        TargetState("c", "OLD", UNSEEN, "2026"),
    )
    unit = made.state.units[0]
    unit = replace(unit, copies=(*unit.copies, UnitCopy("c", UNSEEN)))
    state = replace(made.state, targets=(made.state.targets[0], gone, old), units=(unit,))
    page = capture_page.to_html(replace(made, state=state), language)
    t = Texts(language)
    assert t("capturepage.means-bad", names="sql") in page
    assert t("capture.unseen", name="OLD") in page
    assert f"disk b: {t.part('capturerefused', 'gone', 'title')} (pulled)" in page
    assert t("capture.state-unseen") in page
    assert 'data-label="disk a"' in page  # in a narrow window the columns stand below each other


def test_a_target_that_is_away_does_not_make_a_whole_capture_less() -> None:
    made = contents(copies=("complete", UNSEEN))
    state = replace(made.state, targets=(made.state.targets[0], replace(made.state.targets[1], code=UNSEEN)))
    page = capture_page.to_html(replace(made, state=state), "en")
    assert "1 good copy of 1" in page
    assert Texts("en")("capturepage.means-good") in page


def test_names_from_the_disk_do_nothing_on_the_page() -> None:
    name = "<script>alert(1)</script>\u202e\x1b[2J"
    findings = (
        Finding("capture.saved-state", Severity.WARNING, "1", {"machine": name, "maker": "?"}, (name,)),
    )
    page = capture_page.to_html(contents(name, findings=findings, missing=(name,)), "de")
    assert "<script" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_capture_without_manifests_has_a_page_too(tmp_path: Path) -> None:
    page = capture_page.to_html(replace(contents(copies=("unfinished",)), units={}), "en")
    assert "not finished" in page
    assert read_contents(folder_target.readable_folder(tmp_path), "") is None


# --- progress


def test_progress_in_words() -> None:
    t = Texts("en")
    now = CopyProgress("copy", "1", "web01", "web01/x", 1 << 30, 4 << 30, 3 << 30, 8 << 30, 130e6, 3000.0)
    assert progress_text(now, t) == "1.5 GiB of 4 GiB  web01: copying 25%  130 MB/s  50 min left"
    assert progress_text(replace(now, rate=0.0), t) == "1.5 GiB of 4 GiB  web01: copying 25%"
    assert progress_text(replace(now, phase="verify", eta=20.0), Texts("de")).endswith(
        "liest zurück 25%  130 MB/s  noch 20 s"
    )
    assert [time_text(s, t) for s in (0, 89, 91, 5400, 36000)] == [
        "1 s",
        "89 s",
        "2 min",
        "1 h 30 min",
        "10 h 0 min",
    ]
