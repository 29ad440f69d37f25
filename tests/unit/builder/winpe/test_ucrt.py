"""The C runtime beside Python, for boot images of Windows 8.1 / Server 2012 R2."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from rehost_builder.cli import main
from rehost_builder.errors import BuildError
from rehost_builder.progress import Progress
from rehost_builder.verify.libraries import follow, read_api_sets
from rehost_builder.verify.model import Verdict
from rehost_builder.verify.run import verify_medium
from rehost_builder.wim.reader import Wim
from rehost_builder.winpe.build import WinpeOptions, build_winpe_iso
from rehost_builder.winpe.image import open_image
from rehost_builder.winpe.linked import check_runtime
from rehost_builder.winpe.runtime import read_runtime
from rehost_builder.winpe.ucrt import Ucrt, read_ucrt
from rehost_payload.formats.errors import FormatError
from support import signing, windows_media
from support.cabs import stored_cab
from support.pe_image import make_pe
from support.taken_apart import Parts
from support.windows_media import SYSTEM32, WimImage, api_set_schema, make_wim, old_tree, ucrt_files

OLD = (6, 3, 9600, 17415)
HEAP = "api-ms-win-core-heap-l1-1-0.dll"
FIBERS = "api-ms-win-core-fibers-l1-1-1.dll"
RUNTIME = "api-ms-win-crt-runtime-l1-1-0.dll"
Judge = Callable[..., list[str]]


def put(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def old_media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("old")
    wim = make_wim(work / "boot.wim", WimImage(old_tree(), version=OLD))
    return windows_media.media_folder(work / "media", wim)


@pytest.fixture
def judge(tmp_path: Path, python: Path) -> Judge:
    """What keeps the runtime, with these files of a C runtime beside it, from loading in an image."""

    def run(
        files: Mapping[str, bytes],
        tree: dict[str, bytes] | None = None,
        version: tuple[int, int, int, int] = OLD,
        package: Path = python,
    ) -> list[str]:
        path = make_wim(tmp_path / "x.wim", WimImage(tree or old_tree(), version=version))
        with path.open("rb") as f:
            wim = Wim(f)
            found = check_runtime(read_runtime(package), open_image(wim, wim.images[0], "x"), wim, files)
        path.unlink()
        return found

    return run


def options(media: Path, work: Path, package: Path, **more: Any) -> WinpeOptions:
    return WinpeOptions(
        media=(media,), output=work / "rehost.iso", python_embed=str(package), cache=work / "cache",
        epoch=1_700_000_000, **more,
    )  # fmt: skip


# --- a whole build


def test_a_medium_of_old_media_with_it(tmp_path: Path, old_media: Path, python_with_library: Path) -> None:
    signer = signing.vendor()
    files = {name: signing.with_signature(data, signer) for name, data in ucrt_files().items()}
    place = put(tmp_path / "Redist" / "ucrt", files)
    wanted = options(old_media, tmp_path, python_with_library, ucrt=place)
    result = build_winpe_iso(wanted, Progress({}, quiet=True))
    assert "the C runtime 10.0.26100.1742 of ucrt lies beside Python" in result.notes
    assert not any("ucrtbase" in note for note in result.notes)
    parts = Parts(result.iso)
    described = json.loads(parts.files["build.json"])
    assert described["ucrt"]["source"] == "ucrt"
    assert {f["signed_by"] for f in described["ucrt"]["files"]} == {"Example Vendor, Inc."}
    added = {f["path"]: f["sha256"] for f in described["added"]}
    for file in described["ucrt"]["files"]:
        assert added[f"Rehost/python/{file['name']}"] == file["sha256"]
    report = verify_medium(result.iso)
    verdicts = {p.name: p for p in report.points}
    assert verdicts["libraries"].verdict is Verdict.PASS
    assert "beside" in verdicts["libraries"].reason
    assert report.passed, [p for p in report.points if p.verdict is Verdict.FAIL]


def test_verify_misses_a_library(tmp_path: Path, old_media: Path, python_with_library: Path) -> None:
    """Built as before, with a C runtime of which the builder was told that it is complete."""
    files = ucrt_files()
    wanted = options(old_media, tmp_path, python_with_library, ucrt=put(tmp_path / "u", files))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("rehost_builder.winpe.build.check_runtime", lambda *_: [])
        (tmp_path / "u" / FIBERS).unlink()
        build_winpe_iso(wanted, Progress({}, quiet=True))
    report = verify_medium(tmp_path / "rehost.iso")
    assert [p.name for p in report.points if p.verdict is Verdict.FAIL] == ["libraries"]
    reason = next(p.reason for p in report.points if p.name == "libraries")
    assert f"{FIBERS} is nowhere, which ucrtbase.dll is linked to" in reason


def test_without_it_the_way_out_is_named(tmp_path: Path, old_media: Path, python: Path) -> None:
    with pytest.raises(BuildError) as caught:
        build_winpe_iso(options(old_media, tmp_path, python), Progress({}, quiet=True))
    assert "6.3.9600.17415" in caught.value.message
    for word in ("--ucrt", "Redist\\<version>\\ucrt\\DLLs\\x64", "KB2999226", "newer WinPE"):
        assert word in caught.value.hint
    assert not (tmp_path / "rehost.iso").exists()
    done = CliRunner().invoke(main, ["media", "inspect", str(old_media)])
    assert done.exit_code == 3
    assert "usable        with --ucrt" in done.output
    assert "give it with --ucrt: the folder Redist" in done.output
    plain = json.loads(CliRunner().invoke(main, ["media", "inspect", "--json", str(old_media)]).output)
    assert (plain["usable"], plain["usable_with_ucrt"]) == (False, True)


@pytest.mark.parametrize("version", [(6, 2, 9200, 1), (10, 0, 14393, 1)])
def test_where_it_does_not_help(tmp_path: Path, python: Path, version: tuple[int, int, int, int]) -> None:
    """Python wants 8.1, and Windows 10 takes its own C runtime, also where somebody has taken it away."""
    wim = make_wim(tmp_path / "boot.wim", WimImage(old_tree(), version=version))
    place = windows_media.media_folder(tmp_path / "m", wim)
    wanted = options(place, tmp_path, python, ucrt=put(tmp_path / "u", ucrt_files()))
    with pytest.raises(BuildError, match="lacks ucrtbase") as caught:
        build_winpe_iso(wanted, Progress({}, quiet=True))
    assert "--ucrt" not in caught.value.hint
    done = CliRunner().invoke(main, ["media", "inspect", str(place)])
    assert "usable        no" in done.output


def test_newer_media_do_not_take_it(tmp_path: Path, iso: Path, python: Path) -> None:
    wanted = options(iso, tmp_path, python, ucrt=put(tmp_path / "u", ucrt_files()))
    result = build_winpe_iso(wanted, Progress({}, quiet=True))
    assert any("--ucrt was not needed" in note for note in result.notes)
    parts = Parts(result.iso)
    assert json.loads(parts.files["build.json"])["ucrt"] == {}
    assert b"ucrtbase.dll" not in parts.files["build.json"]


def test_the_option_is_for_windows_pe(tmp_path: Path) -> None:
    place = put(tmp_path / "u", ucrt_files())
    done = CliRunner().invoke(main, ["build", "--ucrt", str(place), "-o", str(tmp_path / "x.iso")])
    assert done.exit_code == 2
    assert "--ucrt is for the winpe base" in done.output


# --- what is given


def names(found: Ucrt) -> set[str]:
    return set(found.files)


def test_an_sdk_holds_several(tmp_path: Path) -> None:
    for version, machine in (("10.0.17763.1", "x64"), ("10.0.22621.1", "x64"), ("10.0.26100.1", "x86")):
        folder = tmp_path / "Redist" / version / "ucrt/DLLs" / machine
        put(folder, ucrt_files(version, machine) | {"ucrtbased.dll": make_pe()})
    found = read_ucrt(tmp_path / "Redist")
    assert found.version == "10.0.22621.1"
    assert {part.version for part in found.parts} == {"10.0.22621.1"}
    assert names(found) == set(ucrt_files())


@pytest.mark.skipif(
    not any(shutil.which(p) for p in ("cabextract", "7zz", "7z", "bsdtar")), reason="needs cabextract"
)
def test_the_update(tmp_path: Path) -> None:
    """An .msu: a cabinet with a cabinet, in which every component has a folder."""
    component = "amd64_microsoft-windows-ucrt_31bf3856ad364e35_6.3.9600.18053_none_1"
    other = "amd64_microsoft-windows-ucrt-more_31bf3856ad364e35_6.3.9600.18053_none_2"
    files = ucrt_files("10.0.10240.16390")
    inner = {f"{other if n == RUNTIME else component}\\{n}": d for n, d in files.items()}
    inner |= {f"x86_{component[6:]}\\{n}": d for n, d in ucrt_files("10.0.10240.16390", "x86").items()}
    inner["update.mum"] = b"<xml/>"
    msu = tmp_path / "Windows8.1-KB2999226-x64.msu"
    msu.write_bytes(
        stored_cab(
            {"WSUSSCAN.cab": stored_cab({"a.txt": b"a"}), "Windows8.1-KB2999226-x64.cab": stored_cab(inner)}
        )
    )
    found = read_ucrt(msu)
    assert (found.source, found.version) == (msu.name, "10.0.10240.16390")
    assert dict(found.files) == files
    (tmp_path / "inner.cab").write_bytes(stored_cab(inner))
    assert dict(read_ucrt(tmp_path / "inner.cab").files) == files


def refused(place: Path) -> BuildError:
    with pytest.raises(BuildError) as caught:
        read_ucrt(place)
    assert caught.value.hint
    return caught.value


def test_what_is_no_c_runtime(tmp_path: Path) -> None:
    assert "holds no ucrtbase.dll" in refused(put(tmp_path / "a", {"x.dll": make_pe()})).message
    assert "not for x64" in refused(put(tmp_path / "b", ucrt_files(machine="x86"))).message
    alone = {"ucrtbase.dll": ucrt_files()["ucrtbase.dll"]}
    assert "without the api-ms-win-crt" in refused(put(tmp_path / "c", alone)).message
    (tmp_path / "text.msu").write_bytes(b"hello")
    assert "no archive" in refused(tmp_path / "text.msu").message


def test_damaged_files(tmp_path: Path) -> None:
    good = ucrt_files()
    for number, (name, data, said) in enumerate(
        (
            ("ucrtbase.dll", b"MZ no more", "damaged"),
            (RUNTIME, good[RUNTIME][:600], "cut off"),
            (RUNTIME, ucrt_files(machine="x86")[RUNTIME], "is for x86"),
        )
    ):
        assert said in refused(put(tmp_path / str(number), good | {name: data})).message
    signed = signing.with_signature(good[HEAP], signing.vendor())
    changed = signed.replace(b"HeapAlloc", b"HeapAllot")
    assert changed != signed
    assert "changed after it was signed" in refused(put(tmp_path / "s", good | {HEAP: changed})).message
    unsigned = read_ucrt(put(tmp_path / "u", good))
    assert any(note.startswith("not signed: api-ms-win") for note in unsigned.notes())


# --- whether it suffices


def test_it_suffices(judge: Judge) -> None:
    assert judge(ucrt_files()) == []


def test_api_sets_of_windows_8_1_are_known_by_their_whole_name(judge: Judge, tmp_path: Path) -> None:
    tree = old_tree({f"{SYSTEM32}/apisetschema.dll": api_set_schema(("api-ms-win-core-path-l1-1-1",), 4)})
    assert judge(ucrt_files(), tree) == [
        "api-ms-win-core-path-l1-1-0.dll is missing, which python312.dll need"
    ]
    package = windows_media.embeddable(tmp_path / "p.zip", tag="313")
    newer = windows_media.winpe_tree(
        more={
            f"{SYSTEM32}/apisetschema.dll": api_set_schema(
                [*windows_media.API_SETS, "api-ms-win-core-path-l1-1-9"]
            )
        }
    )
    assert judge({}, newer, (10, 0, 20348, 1), package) == []


def test_something_is_missing_in_it(judge: Judge) -> None:
    without = {n: d for n, d in ucrt_files().items() if n != FIBERS}
    assert judge(without) == [f"{FIBERS} is missing, which ucrtbase.dll need"]
    without = {n: d for n, d in ucrt_files().items() if n != RUNTIME}
    assert f"{RUNTIME} is missing" in judge(without)[0]
    # Windows has this set of its own
    assert judge({n: d for n, d in ucrt_files().items() if n != HEAP}) == []


def test_two_versions_put_together(judge: Judge) -> None:
    older = make_pe(exports={"_initterm": ""}, minimum_os=(5, 2))
    found = judge(ucrt_files() | {"ucrtbase.dll": older})
    assert len(found) == 1
    assert found[0].startswith(f"{RUNTIME} has no exit (for ")
    old_set = make_pe(exports={"_initterm": "ucrtbase._initterm"})
    assert any(f"{RUNTIME} has no exit" in p for p in judge(ucrt_files() | {RUNTIME: old_set}))


def test_it_asks_more_of_windows_than_this_one_has(judge: Judge) -> None:
    kernel = make_pe(exports={"HeapAlloc": ""}, version="6.3.9600.1")
    found = judge(ucrt_files(), old_tree({f"{SYSTEM32}/kernel32.dll": kernel}))
    assert found == [f"{FIBERS} has no IsThreadAFiber (for ucrtbase.dll)"]
    newer = make_pe(
        imports={FIBERS: ("IsThreadAFiber",)}, minimum_os=(10, 0),
        exports={f: "" for fs in windows_media.UCRT_FUNCTIONS.values() for f in fs},
    )  # fmt: skip
    found = judge(ucrt_files() | {"ucrtbase.dll": newer})
    assert found == ["ucrtbase.dll wants Windows 10.0, the boot image is 6.3"]


def test_pythons_that_want_a_newer_windows(judge: Judge, tmp_path: Path) -> None:
    package = windows_media.embeddable(tmp_path / "p.zip", tag="313")
    assert judge(ucrt_files(), package=package) == [
        "Python 3.13 needs Windows 10 / Server 2016 or newer, the boot image is 6.3"
    ]
    assert "Python 3.12 needs Windows 8.1 / Server 2012 R2 or newer, the boot image is 6.2" in judge(
        ucrt_files(), version=(6, 2, 9200, 1)
    )


# --- API sets, as verify reads them


@pytest.mark.parametrize("version", [2, 4, 6])
def test_the_schema_is_read(version: int) -> None:
    found = read_api_sets(api_set_schema(("api-ms-win-core-path-l1-1-0", "ext-ms-win-x-y-l1-1-2"), version))
    assert found.know("api-ms-win-core-path-l1-1-0.dll")
    assert found.know("ext-ms-win-x-y-l1-1-2.dll")
    assert found.know("api-ms-win-core-path-l1-1-7.dll") == (version == 6)
    assert not found.know("api-ms-win-core-heap-l1-1-0.dll")
    assert not found.know("kernel32.dll")


@settings(max_examples=60)
@given(st.integers(0, 700), st.binary(min_size=1, max_size=8), st.integers(0, 1500))
def test_a_changed_schema_is_an_error_or_none(at: int, data: bytes, length: int) -> None:
    good = bytearray(api_set_schema(("api-ms-win-core-path-l1-1-0",), 4))
    place = 0x80 if at < 0x180 else 512
    good[place + at % 400 : place + at % 400 + len(data)] = data
    with contextlib.suppress(FormatError):
        read_api_sets(bytes(good[: max(length, 64)]))


def test_a_schema_of_a_kind_that_is_not_known() -> None:
    schema = bytearray(api_set_schema())
    schema[512] = 9
    with pytest.raises(FormatError, match="version 9"):
        read_api_sets(bytes(schema))
    with pytest.raises(FormatError, match="no section"):
        read_api_sets(make_pe())


def test_functions_are_followed_by_name() -> None:
    files = {
        "python.exe": make_pe(imports={"python312.dll": ("Py_Main", "Py_Gone"), "KERNEL32.dll": ()}),
        "python312.dll": make_pe(exports={"Py_Main": ""}, imports={RUNTIME: ()}),
    }
    schema = read_api_sets(api_set_schema())
    found = follow(files, {"kernel32.dll"}.__contains__, lambda: schema)
    assert (found.beside, found.system, found.sets) == (1, 1, 1)
    assert found.missing == (
        f"{RUNTIME} leads to ucrtbase.dll, which is not in System32",
        "python312.dll has no Py_Gone, which python.exe takes from it",
    )
