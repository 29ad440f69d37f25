"""Unpacking packages: what is kept, where it goes, and that nothing gets out of the root."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from rehost_builder.debian.extract import is_wanted, merged, unpack
from rehost_builder.errors import BuildError

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")


def _deb(path: Path, members: list[tuple[str, bytes | str | None, int]]) -> Path:
    """A package with these (name, content, mode): bytes a file, str a link's target, None a folder."""

    def tar(entries: list[tuple[str, bytes | str | None, int]]) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            for name, content, mode in entries:
                info = tarfile.TarInfo(name)
                info.mode = mode
                if isinstance(content, bytes):
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
                else:
                    info.type = tarfile.DIRTYPE if content is None else tarfile.SYMTYPE
                    if content is not None and content.startswith("hard:"):
                        info.type, content = tarfile.LNKTYPE, content[5:]
                    info.linkname = content or ""
                    archive.addfile(info)
        return out.getvalue()

    control = b"Package: x\nVersion: 1\nArchitecture: amd64\nMaintainer: x\nDescription: x\n"
    data = b"!<arch>\n"
    for name, content in (
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", tar([("./control", control, 0o644)])),
        ("data.tar.gz", tar(members)),
    ):
        data += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content
        data += b"\n" * (len(data) % 2)
    path.write_bytes(data)
    return path


def test_files_links_and_modes(tmp_path: Path) -> None:
    package = _deb(
        tmp_path / "x.deb",
        [
            ("./", None, 0o755),
            ("./bin/", None, 0o755),
            ("./bin/mount", b"program", 0o4755),
            ("./usr/bin/wiminfo", b"wim", 0o755),
            ("./usr/bin/wimdir", "hard:./usr/bin/wiminfo", 0o755),
            ("./etc/conf", b"conf", 0o600),
            ("./usr/lib/libx.so", "libx.so.1", 0o777),
            ("./usr/share/doc/x/copyright", b"GPL", 0o644),
            ("./usr/share/doc/x/changelog.gz", b"no", 0o644),
            ("./usr/share/man/man1/x.1", b"no", 0o644),
        ],
    )
    old = os.umask(0o077)
    try:
        unpack(package, tmp_path / "root")
    finally:
        os.umask(old)
    root = tmp_path / "root"
    names = sorted(str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir())
    assert names == [
        "etc/conf", "usr/bin/mount", "usr/bin/wimdir", "usr/bin/wiminfo", "usr/lib/libx.so",
        "usr/share/doc/x/copyright",
    ]  # fmt: skip
    assert (root / "usr/bin/mount").stat().st_mode & 0o7777 == 0o755
    assert (root / "etc/conf").stat().st_mode & 0o7777 == 0o644
    assert (root / "usr/bin/wimdir").readlink() == Path("wiminfo")
    assert (root / "usr/lib/libx.so").readlink() == Path("libx.so.1")


@pytest.mark.parametrize("name", ["./../outside", "./usr/../../outside", "/../outside"])
def test_paths_that_climb_out_are_refused(tmp_path: Path, name: str) -> None:
    package = _deb(tmp_path / "x.deb", [(name, b"evil", 0o644)])
    with pytest.raises(BuildError, match="damaged"):
        unpack(package, tmp_path / "root")
    assert not (tmp_path / "outside").exists()


def test_a_link_out_of_the_root_is_not_written_through(tmp_path: Path) -> None:
    package = _deb(
        tmp_path / "x.deb",
        [("./etc", str(tmp_path / "host"), 0o777), ("./etc/passwd", b"evil", 0o644)],
    )
    (tmp_path / "host").mkdir()
    with pytest.raises(BuildError, match="damaged"):
        unpack(package, tmp_path / "root")
    assert list((tmp_path / "host").iterdir()) == []


def test_a_cut_package_is_named(tmp_path: Path) -> None:
    package = _deb(tmp_path / "x.deb", [("./etc/conf", os.urandom(50_000), 0o644)])
    package.write_bytes(package.read_bytes()[:20_000])
    with pytest.raises(BuildError, match=r"x\.deb"):
        unpack(package, tmp_path / "root")


def test_what_the_image_keeps() -> None:
    kept = [
        "usr/bin/lsblk", "usr/lib/x86_64-linux-gnu/gconv/UTF-16.so", "usr/lib/x86_64-linux-gnu/libc.so.6",
        "usr/lib/python3.13/json/decoder.py", "usr/share/doc/linux-image/copyright", "usr/sbin/sgdisk",
        "usr/lib/python3.13/lib-dynload/_ctypes.cpython-313-x86_64-linux-gnu.so",
    ]  # fmt: skip
    left_out = [
        "usr/lib/x86_64-linux-gnu/gconv/EUC-KR.so", "usr/lib/python3.13/test/test_x.py", "usr/bin/lscpu",
        "usr/share/locale/de/x.mo", "etc/init.d/x", "usr/lib/systemd/system/x.service",
    ]  # fmt: skip
    assert [name for name in kept if not is_wanted(name)] == []
    assert [name for name in left_out if is_wanted(name)] == []


def test_merged_usr() -> None:
    assert merged("lib64/ld-linux-x86-64.so.2") == "usr/lib64/ld-linux-x86-64.so.2"
    assert merged("etc/x") == "etc/x"
