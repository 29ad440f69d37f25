"""The writer of WinPE media: one medium in three views, by readers that are not ours; many files, large ones, and one
that changes under its hands.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import resource
import shutil
import struct
import subprocess
from pathlib import Path

import pycdlib
import pytest
from click.testing import CliRunner

from rehost_builder.cli import main
from rehost_builder.media import udf
from rehost_builder.media.iso_reader import open_iso
from rehost_builder.media.udf import BootEntries, udf_only, write_winpe_iso

BOOT = BootEntries(bytes(4096), None)
EPOCH = 1_700_000_000
FILES = {
    "bootmgr": b"b" * 5000,
    "boot/etfsboot.com": b"e" * 4096,
    "boot/de-de/bootmgr.exe.mui": b"m" * 3000,
    "efi/microsoft/boot/efisys_noprompt.bin": b"f" * 9000,
    "sources/boot.wim": bytes(range(256)) * 5000,
    "sources/empty.txt": b"",
    "A name with spaces, and long enough for everybody.txt": b"n",
}
FIRMWARE = BootEntries(FILES["boot/etfsboot.com"], FILES["efi/microsoft/boot/efisys_noprompt.bin"])
CAPITALS = {name.upper(): data for name, data in FILES.items()}


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bridge") / "a.iso"
    write_winpe_iso(path, FILES, FIRMWARE, label="BRIDGE", epoch=EPOCH)
    return path


def tool(name: str, *arguments: str | Path, package: str = "") -> bytes:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed (package {package or name})")
    return subprocess.run([name, *arguments], check=True, capture_output=True).stdout


def unpacked(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


# --- three views


def test_every_byte_is_there_once(bridge: Path) -> None:
    with bridge.open("rb") as f:
        image = open_iso(f)
        assert [t.kind for t in image.trees] == ["udf", "joliet", "iso9660"]
        places = {}
        for tree in image.trees:
            found = {p.upper(): x for p, x in tree.files.items() if p.upper() != "BOOT.CAT"}
            places[tree.kind] = {p: x.pieces for p, x in found.items()}
            assert {p: image.content(x) for p, x in found.items()} == CAPITALS, tree.kind
        assert places["udf"] == places["joliet"] == places["iso9660"]
        # and the firmware is led to the same bytes
        starts = [
            places["udf"][n.upper()][0][0]
            for n in ("boot/etfsboot.com", "efi/microsoft/boot/efisys_noprompt.bin")
        ]
        assert [e.offset for e in image.boot] == starts
    assert bridge.stat().st_size < sum(len(d) for d in FILES.values()) + (1 << 20)


def test_boot_images_that_are_no_files(tmp_path: Path) -> None:
    boot = BootEntries(b"another loader".ljust(2048), b"another image".ljust(4096))
    files = {**FILES, "BIOS.img": b"taken"}
    write_winpe_iso(tmp_path / "a.iso", files, boot, label="X", epoch=EPOCH)
    with (tmp_path / "a.iso").open("rb") as f:
        image = open_iso(f)
        assert [image.read(e.offset, e.load * 512) for e in image.boot] == [boot.bios, boot.efi]
        assert set(image.trees[2].files) - set(image.trees[1].files) >= {"BIOS1.IMG", "EFI.IMG"}
        assert image.content(image.trees[0].files["BIOS.img"]) == b"taken"


def test_names_without_version_and_dot(bridge: Path) -> None:
    """etfsboot.com looks for BOOTMGR, and does not find "BOOTMGR.;1"."""
    data = bridge.read_bytes()
    root = struct.unpack_from("<I", data, 16 * 2048 + 156 + 2)[0] * 2048
    assert b"\x07BOOTMGR" in data[root : root + 2048]  # the length of the name, and the name
    assert b";1" not in data[root : root + 2048]


def test_isoinfo_reads_both_sides(bridge: Path) -> None:
    for options, files in (((), CAPITALS), (("-J",), FILES)):
        for name, data in files.items():
            if data:
                got = tool("isoinfo", *options, "-i", bridge, "-x", f"/{name}", package="genisoimage")
                assert got == data, (options, name)
    listed = tool("isoinfo", "-J", "-f", "-i", bridge, package="genisoimage").decode().split("\n")
    assert {line[1:] for line in listed} >= set(FILES)
    described = tool("isoinfo", "-d", "-i", bridge, package="genisoimage").decode()
    assert "Volume id: BRIDGE" in described
    assert "Joliet with UCS level 3 found" in described


@pytest.mark.parametrize(("kind", "files"), [("udf", FILES), ("iso", FILES)])
def test_7zip_reads_both_sides(bridge: Path, tmp_path: Path, kind: str, files: dict[str, bytes]) -> None:
    tool("7z", "x", "-y", f"-t{kind}", f"-o{tmp_path}", bridge, package="p7zip-full")
    found = unpacked(tmp_path)
    assert {n: d for n, d in found.items() if not n.startswith(("[BOOT]", "boot.cat"))} == files


def test_xorriso_reads_the_joliet_side(bridge: Path, tmp_path: Path) -> None:
    command = ("-no_rc", "-osirrox", "on", "-indev", bridge)
    tool("xorriso", *command, "-extract", "/", tmp_path / "out")
    for folder in (p for p in (tmp_path / "out").rglob("*") if p.is_dir()):
        folder.chmod(0o755)
    found = unpacked(tmp_path / "out")
    assert {n: d for n, d in found.items() if n != "boot.cat"} == FILES
    report = tool("xorriso", "-no_rc", "-indev", bridge, "-report_el_torito", "plain").decode()
    assert re.search(r"img path :\s+1\s+/boot/etfsboot.com", report)
    assert re.search(r"img path :\s+2\s+/efi/microsoft/boot/efisys_noprompt.bin", report)


def test_pycdlib_reads_its_own(bridge: Path) -> None:
    iso = pycdlib.PyCdlib()
    iso.open(str(bridge))
    for view, files in (("udf_path", FILES), ("joliet_path", FILES), ("iso_path", CAPITALS)):
        for name, data in files.items():
            out = io.BytesIO()
            iso.get_file_from_iso_fp(out, **{view: f"/{name}"})
            assert out.getvalue() == data, (view, name)
    iso.close()


@pytest.mark.parametrize("kind", ["udf", "iso9660"])
def test_grub_reads_both_sides(bridge: Path, tmp_path: Path, kind: str) -> None:
    """GRUB's drivers are as strict as those of a kernel, and need no right to mount. They take UDF where it is shown."""
    iso = tmp_path / "a.iso"
    iso.write_bytes(bridge.read_bytes() if kind == "udf" else without_udf(bridge.read_bytes()))
    assert f"Filesystem type {kind}".encode() in grub(iso, "ls", "--", "(loop0)")
    listed = grub(iso, "ls", "(loop0)/sources/").decode().split()
    assert sorted(listed) == ["boot.wim", "empty.txt"]
    for name, data in FILES.items():
        assert grub(iso, "cat", f"(loop0)/{name}") == data, name


def grub(iso: Path, *command: str | Path) -> bytes:
    return tool("grub-fstest", iso, *command, package="grub-common")


def without_udf(data: bytes) -> bytes:
    """Without the descriptor that says that UDF is there (ECMA-167, 3/9.1)."""
    changed = bytearray(data)
    places = [s * 2048 + 1 for s in range(16, 32) if data[s * 2048 + 1 : s * 2048 + 6] == b"NSR02"]
    assert len(places) == 1
    changed[places[0] : places[0] + 5] = b"NONE0"
    return bytes(changed)


@pytest.mark.parametrize(
    ("kind", "options"), [("udf", "ro"), ("iso9660", "ro"), ("iso9660", "ro,nojoliet,map=off")]
)
def test_the_kernel_reads_it(bridge: Path, tmp_path: Path, kind: str, options: str) -> None:
    if kind not in Path("/proc/filesystems").read_text().split() or os.geteuid():
        pytest.skip(f"this kernel has no {kind}, or mounting is not allowed")
    if subprocess.run(["mount", "-o", f"loop,{options}", "-t", kind, bridge, tmp_path]).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        found = unpacked(tmp_path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    expected = CAPITALS if "nojoliet" in options else FILES
    assert {n: d for n, d in found.items() if n.casefold() != "boot.cat"} == expected


def test_names_that_only_udf_has(tmp_path: Path) -> None:
    hidden = [
        "Grüße/an alle.txt",
        "a" * 65 + "/x",
        "README",
        "semi;colon",
        "/".join(["folder"] * 40),
        "dot./x",
    ]
    files = {**FILES, **dict.fromkeys(hidden, b"hidden"), "readme": b"shown, since it comes later"}
    assert udf_only(files) == sorted([*(set(hidden) - {"README"}), "readme"])
    write_winpe_iso(tmp_path / "a.iso", files, FIRMWARE, label="X", epoch=EPOCH)
    with (tmp_path / "a.iso").open("rb") as f:
        image = open_iso(f)
        udf, joliet, iso = ({p for p in t.files if p.upper() != "BOOT.CAT"} for t in image.trees)
        assert udf == set(files)
        assert joliet == {*FILES, "README"}
        assert iso == {*CAPITALS, "README"}
        assert not any("Gr" in folder for tree in image.trees[1:] for folder in tree.folders)


# --- 4 GiB


@pytest.mark.skipif(
    not os.environ.get("REHOST_LARGE"), reason="writes 4.3 GB in half a minute; REHOST_LARGE=1 asks for it"
)
def test_a_file_of_more_than_4_gib(tmp_path: Path) -> None:
    """ISO 9660 has it in two pieces, and every reader puts them together."""
    size = (4 << 30) + 5000
    source = tmp_path / "big.wim"
    with source.open("wb") as f:
        f.truncate(size)
        for at in (0, 0xFFFFF800 - 7, (1 << 30) - 7, (4 << 30) - 7, size - 14):
            f.seek(at)
            f.write(b"mark %9d" % (at % 10**9))
    files = {**FILES, "sources/big.wim": source}
    target = tmp_path / "a.iso"
    write_winpe_iso(target, files, FIRMWARE, label="LARGE", epoch=EPOCH)
    with source.open("rb") as f:
        expected = hashlib.file_digest(f, "sha256").hexdigest()
    with target.open("rb") as f:
        image = open_iso(f)
        assert image.problems == []
        for tree in image.trees:
            found = next(x for p, x in tree.files.items() if p.upper() == "SOURCES/BIG.WIM")
            assert (found.size, len(found.pieces)) == (size, 1), tree.kind
        digest = hashlib.sha256()
        for block in image.blocks(found):
            digest.update(block)
        assert digest.hexdigest() == expected
    for kind in ("udf", "iso"):
        if shutil.which("7z"):
            tool("7z", "x", "-y", f"-t{kind}", f"-o{tmp_path / kind}", target, "sources/big.wim")
            with (tmp_path / kind / "sources/big.wim").open("rb") as f:
                assert hashlib.file_digest(f, "sha256").hexdigest() == expected, kind
            shutil.rmtree(tmp_path / kind)
    if shutil.which("grub-fstest"):
        grub(
            target, "cmp", "(loop0)/sources/big.wim", source
        )  # by UDF; it ends with an error where they differ
    if shutil.which("xorriso"):
        listed = tool("xorriso", "-no_rc", "-indev", target, "-lsl", "/sources/big.wim").decode()
        assert f" {size} " in listed
    done = CliRunner().invoke(
        main, ["usb", str(target), str(stick(tmp_path / "stick.img", 6 << 30)), "--yes"]
    )
    assert done.exit_code == 1
    assert "sources/big.wim has 4.3 GB, and a stick for UEFI is FAT32" in done.stderr


def stick(path: Path, size: int) -> Path:
    path.touch()
    os.truncate(path, size)
    return path


def test_more_files_than_may_be_open(tmp_path: Path) -> None:
    files = {f"folder{n % 7}/file{n}": tmp_path / f"file{n}" for n in range(400)}
    for number, path in enumerate(files.values()):
        path.write_bytes(number.to_bytes(2, "little") * number)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        write_winpe_iso(tmp_path / "a.iso", dict(files), BOOT, label="MANY", epoch=1_700_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with (tmp_path / "a.iso").open("rb") as f:
        image = open_iso(f)
        found = {p: image.content(x) for p, x in image.best.files.items() if p != "boot.cat"}
    assert found == {name: path.read_bytes() for name, path in files.items()}


def test_a_file_that_becomes_shorter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "boot.wim"
    source.write_bytes(bytes(5 << 20))
    real = udf.open_content

    def shrink(content: object) -> object:
        source.write_bytes(bytes(1 << 20))
        return real(content)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(udf, "open_content", lambda c: shrink(c) if c == source else real(c))
        with pytest.raises(OSError, match="shorter"):
            write_winpe_iso(tmp_path / "a.iso", {"boot.wim": source}, BOOT, label="X", epoch=1_700_000_000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["boot.wim"]
