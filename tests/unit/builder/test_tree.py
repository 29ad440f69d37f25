"""Checks of the root before it is packed."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from rehost_builder.debian import tree
from rehost_builder.errors import BuildError
from rehost_builder.python_files import (
    PACKAGES,
    TARGET,
    WHEELS,
    files_digest,
    install_package,
    install_payload,
    package_files,
    plain,
    taken,
)
from support import windows_python

from .elf_files import program


def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tree, "REQUIRED_PROGRAMS", ("usr/bin/needed",))
    root = tmp_path / "root"
    tree.link_folders(root)
    libraries = root / "usr/lib/x86_64-linux-gnu"
    libraries.mkdir()
    (libraries / "libc.so.6").write_bytes(program([]))
    (libraries / "libhalf.so.1").write_bytes(program(["libc.so.6", "libabsent.so.2"]))
    (root / "usr/bin/needed").write_bytes(program(["libc.so.6"]))
    (root / "usr/bin/broken").write_bytes(program(["libhalf.so.1"]))
    (root / "usr/bin/alias").symlink_to("broken")
    (root / "usr/bin/script").write_text("#!/bin/sh\n")
    return root


def test_programs_without_their_libraries_go_with_what_needs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = _root(tmp_path, monkeypatch)
    assert tree.drop_broken(root) == [
        "usr/bin/broken (libhalf.so.1)",
        "usr/lib/x86_64-linux-gnu/libhalf.so.1 (libabsent.so.2)",
    ]
    assert sorted(p.name for p in (root / "usr/bin").iterdir()) == ["needed", "script"]


def test_a_program_that_is_counted_on_must_be_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _root(tmp_path, monkeypatch)
    (root / "usr/bin/needed").write_bytes(program(["libabsent.so.2"]))
    with pytest.raises(BuildError, match=r"needed.*libabsent\.so\.2"):
        tree.drop_broken(root)
    (root / "usr/bin/needed").unlink(missing_ok=True)
    with pytest.raises(BuildError, match="not in any package"):
        tree.drop_broken(root)


def test_old_folders_lead_to_usr(tmp_path: Path) -> None:
    tree.link_folders(tmp_path)
    (tmp_path / "usr/bin/x").write_text("x")
    assert (tmp_path / "bin/x").read_text() == "x"
    assert (tmp_path / "lib64").readlink() == Path("usr/lib64")
    tree.link_folders(tmp_path)  # a second time changes nothing


def test_python_packages_are_those_of_the_builder(tmp_path: Path) -> None:
    package = install_package("click", tmp_path)
    import click

    installed = tmp_path / TARGET / "click/core.py"
    assert installed.read_bytes() == (Path(click.__file__).parent / "core.py").read_bytes()
    assert package.version
    assert len(package.sha256) == 64
    assert list(tmp_path.rglob("*icense*")), "the licence must come along"
    assert not list(tmp_path.rglob("*.pyc"))


def test_a_changed_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: real(self) + b"#" * (self.name == "core.py"))
    with pytest.raises(BuildError, match=r"click/core\.py of click was changed"):
        install_package("click", tmp_path)


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no-such-package"):
        install_package("no-such-package", tmp_path)


def test_the_payload_goes_in_with_its_data_and_without_byte_code(tmp_path: Path) -> None:
    first = install_payload(tmp_path / "a", "1")
    names = {
        p.relative_to(tmp_path / "a" / TARGET).as_posix()
        for p in (tmp_path / "a" / TARGET).rglob("*")
        if p.is_file()
    }
    assert "rehost_payload/survey/model.py" in names
    assert any(name.endswith(".toml") for name in names)
    assert not any("__pycache__" in name for name in names)
    assert b"Apache License" in (tmp_path / "a/usr/share/doc/rehost/copyright").read_bytes()
    assert install_payload(tmp_path / "b", "1") == first


@pytest.mark.parametrize("name", PACKAGES)
def test_what_is_installed_is_what_is_in_the_pinned_wheel(name: str) -> None:
    package, _ = package_files(name)
    assert package.wheel == WHEELS[name].file
    assert package.wheel.startswith(f"{name}-{package.version}-")


def test_the_pinned_wheels(tmp_path: Path) -> None:
    """From PyPI: they have the hashes that are pinned, and in them is what our digests were made of."""
    try:
        found = windows_python.wheels([f"{n}=={package_files(n)[0].version}" for n in PACKAGES], "3.12")
    except windows_python.Unavailable as why:
        pytest.skip(str(why))
    for name, wheel in WHEELS.items():
        path = next(p for p in found if p.name == wheel.file)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == wheel.sha256
        with zipfile.ZipFile(path) as archive:
            inside = {i: plain(archive.read(i)) for i in archive.namelist() if taken(PurePosixPath(i))}
        assert files_digest(inside) == wheel.content, name
