"""Where driver packages are looked for."""

from __future__ import annotations

import os
from pathlib import Path

from rehost_payload.system.folders import MEDIUM, driver_folders
from rehost_payload.system.winpe import WinPeSystem
from support.win32_machine import Machine


def test_the_variable_comes_before_the_mediums_own(tmp_path: Path) -> None:
    (tmp_path / MEDIUM).mkdir(parents=True)
    assert driver_folders(tmp_path, {}) == (tmp_path / MEDIUM,)
    named = {"REHOST_DRIVERS": os.pathsep.join(["/a", "", str(tmp_path)])}
    # one that is not there is named as well: whoever misspelled it is told so
    assert driver_folders(tmp_path, named) == (Path("/a"), tmp_path)
    assert driver_folders(None, {}) == ()
    assert driver_folders(tmp_path / "no-medium", {}) == ()


def test_a_medium_of_windows_pe_without_packages_has_no_folder_to_miss(tmp_path: Path) -> None:
    """Its start script sets the variable whether or not there are packages."""
    drive = str(tmp_path / "X")  # without a colon, which separates folders here
    own = Path(drive + "\\", "Rehost", "drivers")
    environment = {"SystemDrive": drive, "REHOST_DRIVERS": str(own)}
    assert WinPeSystem(Machine({}), environment).driver_folders() == ()
    own.mkdir(parents=True)
    assert list(WinPeSystem(Machine({}), environment).driver_folders()) == [own]
    other = environment | {"REHOST_DRIVERS": "/nothing"}
    assert list(WinPeSystem(Machine({}), other).driver_folders()) == [Path("/nothing")]
