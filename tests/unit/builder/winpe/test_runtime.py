"""CPython's package: where it comes from, and whether it would run in the boot image."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from rehost_builder.errors import BuildError
from rehost_builder.wim.reader import Wim
from rehost_builder.winpe import runtime
from rehost_builder.winpe.image import open_image
from rehost_builder.winpe.linked import check_runtime
from rehost_builder.winpe.runtime import obtain, read_runtime
from support import windows_media as media
from support.pe_image import make_pe
from support.windows_media import WimImage, embeddable, make_wim, winpe_tree


@pytest.fixture
def pinned(python: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runtime, "SHA256", hashlib.sha256(python.read_bytes()).hexdigest())
    return python


def test_a_download_is_kept(tmp_path: Path, pinned: Path) -> None:
    cache = tmp_path / "cache"
    told: list[str] = []
    first = obtain(pinned.as_uri(), cache, offline=False, progress=told.append)
    assert first.read_bytes() == pinned.read_bytes()
    assert told
    assert obtain(None, cache, offline=True) == first
    first.write_bytes(b"damaged")
    assert obtain(pinned.as_uri(), cache, offline=False).read_bytes() == pinned.read_bytes()
    assert [p.name for p in cache.iterdir()] == [first.name]


def test_a_download_with_another_hash(tmp_path: Path, python: Path) -> None:
    with pytest.raises(BuildError, match="instead of 4acbed6d") as caught:
        obtain(python.as_uri(), tmp_path / "cache", offline=False)
    assert "--python-embed" in caught.value.hint
    assert list((tmp_path / "cache").iterdir()) == []


def test_no_network(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot be downloaded"):
        obtain("http://127.0.0.1:9/python.zip", tmp_path, offline=False)
    with pytest.raises(BuildError, match="not in the cache"):
        obtain(None, tmp_path, offline=True)
    with pytest.raises(BuildError, match="no such file"):
        obtain(str(tmp_path / "absent.zip"), tmp_path, offline=True)


def test_what_is_left_out(python: Path) -> None:
    found = read_runtime(python)
    assert found.tag == "312"
    assert not found.pinned
    assert {"python.exe", "python312.dll", "python312.zip", "_ctypes.pyd"} <= set(found.files)
    assert not {"_wmi.pyd", "pythonw.exe", "python312._pth"} & set(found.files)
    assert found.path_file("..\\app") == ("python312._pth", b"python312.zip\r\n.\r\n..\\app\r\n")


def test_packages_that_are_none(tmp_path: Path, python: Path) -> None:
    (tmp_path / "text.zip").write_bytes(b"hello")
    (tmp_path / "short.zip").write_bytes(python.read_bytes()[:3000])
    for name in ("text.zip", "short.zip"):
        with pytest.raises(BuildError, match="no complete ZIP"):
            read_runtime(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(BuildError, match="not the embeddable package"):
        read_runtime(tmp_path / "other.zip")
    with pytest.raises(BuildError, match="or newer"):
        read_runtime(embeddable(tmp_path / "old.zip", tag="38"))
    damaged = bytearray(python.read_bytes())
    damaged[200] ^= 0xFF
    (tmp_path / "crc.zip").write_bytes(damaged)
    with pytest.raises(BuildError, match="no complete ZIP"):
        read_runtime(tmp_path / "crc.zip")


def problems(tmp_path: Path, package: Path, image: WimImage) -> list[str]:
    path = make_wim(tmp_path / "x.wim", image)
    with path.open("rb") as f:
        wim = Wim(f)
        found = check_runtime(read_runtime(package), open_image(wim, wim.images[0], "x"), wim)
    path.unlink()
    return found


def test_it_fits(tmp_path: Path, python: Path) -> None:
    assert problems(tmp_path, python, WimImage(winpe_tree())) == []
    more: dict[str, bytes | None] = {
        "Windows/System32/apisetschema.dll": None,
        **{f"Windows/System32/downlevel/{name}.dll": make_pe() for name in media.API_SETS},
    }
    assert problems(tmp_path, python, WimImage(winpe_tree(more=more))) == []


def test_another_architecture(tmp_path: Path) -> None:
    package = embeddable(tmp_path / "arm.zip", machine="arm64")
    assert any("another architecture" in p for p in problems(tmp_path, package, WimImage(winpe_tree())))


def test_a_library_that_is_nowhere(tmp_path: Path, python: Path) -> None:
    found = problems(tmp_path, python, WimImage(winpe_tree(more={"Windows/System32/ole32.dll": None})))
    assert found == ["ole32.dll is missing, which _ctypes.pyd need"]
    found = problems(tmp_path, python, WimImage(winpe_tree(more={"Windows/System32/apisetschema.dll": None})))
    assert any("api-ms-win-crt-runtime-l1-1-0.dll is missing" in p for p in found)
    found = problems(tmp_path, python, WimImage(winpe_tree(more={"Windows/System32/ucrtbase.dll": None})))
    assert any("api-ms-win-crt-runtime-l1-1-0.dll is missing" in p for p in found)
    assert not any("api-ms-win-core-path" in p for p in found)


def test_no_visual_c_runtime(tmp_path: Path, python: Path) -> None:
    package = tmp_path / "novc.zip"
    with zipfile.ZipFile(python) as old, zipfile.ZipFile(package, "w") as new:
        for name in old.namelist():
            if name != "vcruntime140.dll":
                new.writestr(name, old.read(name))
    found = problems(tmp_path, package, WimImage(winpe_tree()))
    assert len(found) == 1
    assert found[0].startswith("the Visual C++ runtime vcruntime140.dll is missing")


def test_a_newer_windows_is_wanted(tmp_path: Path) -> None:
    package = embeddable(tmp_path / "new.zip", more={"_new.pyd": make_pe(minimum_os=(10, 0))})
    found = problems(tmp_path, package, WimImage(winpe_tree(), version=(6, 3, 9600, 1)))
    assert "_new.pyd wants Windows 10.0, the boot image is 6.3" in found
    package = embeddable(tmp_path / "bad.zip", more={"_bad.pyd": b"MZ no more"})
    assert any("_bad.pyd is damaged" in p for p in problems(tmp_path, package, WimImage(winpe_tree())))
