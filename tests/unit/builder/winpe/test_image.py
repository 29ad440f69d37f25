"""Which image is taken, and what it starts by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from rehost_builder.wim.reader import Wim
from rehost_builder.winpe.image import Shell, choose_image, launch_commands, open_image, startnet_commands
from support.windows_media import WimImage, make_wim, winpe_tree

PE = {"Windows/System32/Boot/winload.efi": b"MZ", "Windows/System32/wpeinit.exe": b"MZ"}


@pytest.mark.parametrize(
    ("images", "boot", "chosen"),
    [
        ([("Microsoft Windows Setup (x64)", "2"), ("Microsoft Windows PE (x64)", "9")], 1, 2),
        ([("Setup", ""), ("Windows PE", "")], 1, 2),
        ([("One", ""), ("Two", "")], 2, 2),
        ([("Setup one", ""), ("Two", "")], 1, 2),
        ([("Microsoft Windows Setup (x64)", "2")], 1, 1),
    ],
)
def test_choice(tmp_path: Path, images: list[tuple[str, str]], boot: int, chosen: int) -> None:
    wim = make_wim(tmp_path / "x.wim", *(WimImage(PE, name, flags) for name, flags in images), boot=boot)
    with wim.open("rb") as f:
        assert choose_image(Wim(f), "x").index == chosen


SETUP = {"setup.exe": b"MZ", "sources/setup.exe": b"MZ"}


@pytest.mark.parametrize(
    ("more", "name", "command", "shell", "starts"),
    [
        ({}, "PE", "winpeshl.exe", Shell.PROMPT, "cmd.exe"),
        ({"Windows/System32/startnet.cmd": None}, "PE", "", Shell.PROMPT, "cmd.exe"),
        (
            {"Windows/System32/winpeshl.ini": b"[LaunchApp]\r\nAppPath=X:\\sources\\recovery\\recenv.exe\r\n"},
            "WinRE", "winpeshl.exe", Shell.WINRE, "X:\\sources\\recovery\\recenv.exe",
        ),
        (
            {"Windows/System32/winpeshl.ini": b"[LaunchApps]\r\n; ours\r\n%SYSTEMDRIVE%\\Acme\\rescue.exe, -x\r\n"},
            "PE", "winpeshl.exe", Shell.VENDOR, "%SYSTEMDRIVE%\\Acme\\rescue.exe, -x",
        ),
        (
            {"Windows/System32/startnet.cmd": b"@echo off\r\nwpeinit\r\nrem go\r\nX:\\Acme\\rescue.exe\r\n"},
            "PE", "winpeshl.exe", Shell.VENDOR, "X:\\Acme\\rescue.exe",
        ),
        (
            {"Windows/System32/startnet.cmd": "wpeinit\r\nX:\\Acme\\Rückholer.exe\r\n".encode("utf-16")},
            "PE", "winpeshl.exe", Shell.VENDOR, "X:\\Acme\\Rückholer.exe",
        ),
        ({}, "PE", "X:\\Acme\\rescue.exe", Shell.VENDOR, "X:\\Acme\\rescue.exe (by the registry)"),
        (SETUP, "Microsoft Windows Setup (x64)", "winpeshl.exe", Shell.SETUP, "setup.exe"),
    ],
)  # fmt: skip
def test_shells(
    tmp_path: Path, more: dict[str, bytes | None], name: str, command: str, shell: Shell, starts: str
) -> None:
    wim_path = make_wim(tmp_path / "x.wim", WimImage(winpe_tree(command=command, more=more), name, ""))
    with wim_path.open("rb") as f:
        wim = Wim(f)
        image = open_image(wim, choose_image(wim, "x"), "x")
    assert (image.shell, image.starts) == (shell, starts)
    assert image.architecture == "amd64"


def test_texts_of_odd_shapes() -> None:
    assert launch_commands("") == []
    assert launch_commands("AppPath=x\r\n[Other]\r\nAppPath=y\r\n") == []
    assert launch_commands("[LAUNCHAPP]\n apppath = a b.exe \n[launchapps]\nc, d\n") == ["a b.exe", "c, d"]
    assert startnet_commands("@echo off\r\n:: x\r\nREM y\r\n@wpeinit\r\n:label\r\ncall z\r\n") == [
        "wpeinit",
        "call z",
    ]
