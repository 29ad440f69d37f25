"""A medium that `rehost build --media` makes of real Windows media: Microsoft's boot managers must load winload out of it.

The boot image holds little but winload and a SYSTEM hive that cannot be read: whoever complains of that file has
found boot store, RAM disk image, its boot index and winload in our medium, with a valid signature. Each medium is
started as disc and as stick, by BIOS, by UEFI and with Secure Boot on.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import msboot, product, stores, windows, windows_media
from support.msboot import NoVerdict, Verdict
from support.qemu import Firmware, Machine
from support.tables import Table

SYSTEM = "Windows/System32/config/SYSTEM"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "media" in metafunc.fixturenames:
        files, why = msboot.files()
        found = files.media_versions() if files else []
        skip = pytest.mark.skip(reason=why or "no media/<version> in REHOST_MSBOOT")
        metafunc.parametrize("media", found or [pytest.param("none", marks=skip)], scope="module")


@pytest.fixture(scope="module")
def iso(microsoft: msboot.Files, media: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("winpe")
    folder = work / "media"
    shutil.copytree(microsoft.root / "media" / media, folder, dirs_exist_ok=True)
    for path in folder.rglob("*"):
        if path.name.lower() == "bcd":
            path.write_bytes(speak_text(path.read_bytes()))
    boot = windows_media.winpe_tree(more={SYSTEM: windows.noise("sentinel", 8192)})
    for name in ("winload.efi", "winload.exe"):
        program = microsoft.read(f"winload/{name}")
        boot |= {f"Windows/System32/Boot/{name}": program, f"Windows/System32/{name}": program}
    if (
        microsoft.root / "boot.stl"
    ).is_file():  # which the medium must get from here, where the media lack it
        boot["Windows/Boot/EFI/boot.stl"] = microsoft.read("boot.stl")
    (folder / "sources").mkdir(exist_ok=True)
    windows_media.make_wim(folder / "sources/boot.wim", windows_media.WimImage(boot), boot=1)
    windows_media.embeddable(work / "python.zip")
    rehost(
        "build",
        "-q",
        "--media",
        folder,
        "--python-embed",
        work / "python.zip",
        "--no-drivers",
        "-o",
        work / "a.iso",
    )
    return work / "a.iso"


def speak_text(store: bytes) -> bytes:
    """The media's own store, with nothing changed but that messages come as text."""
    kinds = stores.object_types(store)

    def change(handle: Any) -> None:
        for guid, kind in kinds.items():
            if kind == 0x10200003 or guid == stores.BOOTMGR:
                stores.set_element(handle, guid, 0x16000046, stores.boolean(True))

    return stores.changed(store, change)


def rehost(*arguments: str | Path) -> None:
    program = Path(sys.executable).with_name("rehost")
    result = subprocess.run([program, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.fixture(scope="module")
def stick(iso: Path) -> Path:
    return product.usb_stick(iso.parent / "stick.img", iso, {}).path


Says = Callable[..., Verdict]


@pytest.fixture
def says(media: str, verdicts: Table, tmp_path: Path) -> Says:
    def watched(how: str, firmware: Firmware, **options: Any) -> Verdict:
        with Machine(tmp_path, firmware=firmware, cpu="Nehalem", memory=2048, name="judge", **options) as vm:
            try:
                verdict = msboot.watch(vm, 60)
            except NoVerdict:
                verdicts.add(media, f"WinPE {how}, {firmware}", "-", "nothing", "60")
                raise
        verdicts.add(media, f"WinPE {how}, {firmware}", "-", verdict, f"{verdict.seconds:.0f}")
        return verdict

    return watched


@pytest.mark.parametrize("firmware", ["bios", "uefi", "secure-boot"])
def test_disc(iso: Path, says: Says, firmware: Firmware) -> None:
    verdict = says("disc", firmware, cdrom=iso)
    assert verdict.reached_windows, verdict.text


@pytest.mark.parametrize("firmware", ["bios", "uefi", "secure-boot"])
def test_stick(stick: Path, says: Says, firmware: Firmware) -> None:
    verdict = says("stick", firmware, usb_stick=stick)
    assert verdict.reached_windows, verdict.text
