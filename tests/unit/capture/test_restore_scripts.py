"""The restore scripts, read with a grammar of PowerShell: that they parse, what they call, and that they ask."""

from __future__ import annotations

import re

import pytest

from rehost_payload.capture.restore.scripts import NAMES, scripts
from support.powershell import COMMON, Script, known_cmdlets

SCRIPTS = {name: Script(text) for name, text in scripts().items()}
each_script = pytest.mark.parametrize("name", NAMES)


@each_script
def test_the_grammar_understands_every_line(name: str) -> None:
    assert SCRIPTS[name].faults == []
    assert len(SCRIPTS[name].commands) > 5


def test_the_grammar_notices_faults() -> None:
    """A grammar that takes everything would prove nothing."""
    text = scripts()["Restore-VM.ps1"]
    unclosed = text.rpartition(b"}")[0]
    for broken in (text.replace(b"param(", b"param", 1), unclosed, text + b"\r\n'open"):
        assert Script(broken).faults


@each_script
def test_windows_reads_the_file_as_it_is_meant(name: str) -> None:
    """Windows PowerShell 5.1 takes a file without byte order mark for one in the code page of the country."""
    text = scripts()[name]
    assert text.isascii()
    assert b"\t" not in text
    assert re.search(rb"[^\r]\n|\r[^\n]", text) is None
    assert text.endswith(b"\r\n")


@each_script
def test_only_known_cmdlets_are_called(name: str) -> None:
    script = SCRIPTS[name]
    called = {c.name for c in script.commands} - script.functions
    assert called <= known_cmdlets().keys()


@each_script
def test_every_parameter_exists(name: str) -> None:
    for command in SCRIPTS[name].commands:
        known = known_cmdlets().get(command.name)
        if known is None:
            continue  # a function of the script
        assert command.unknown_splats == (), command.text
        given = {p for p in (*command.parameters, *command.splatted) if p not in COMMON}
        assert given <= known, f"line {command.line}: {command.text}"


@each_script
def test_nothing_changes_without_being_asked_for(name: str) -> None:
    script = SCRIPTS[name]
    assert [f"line {c.line}: {c.text}" for c in script.changing if not c.guarded] == []
    assert [(m, line) for m, line, guarded in script.changing_methods if not guarded] == []
    assert script.changing


@each_script
def test_a_question_is_asked_once(name: str) -> None:
    """Cmdlets inside our own question do not ask again, and those that cannot ask are not told not to."""
    for command in SCRIPTS[name].changing:
        asks = "Confirm" in known_cmdlets()[command.name]
        assert ("Confirm" in (*command.parameters, *command.splatted)) is asks, command.text


def test_an_unguarded_change_is_noticed() -> None:
    """The check above can fail."""
    unguarded = Script(b"if ($x) {\r\n    Set-VMHost -MacAddressMinimum $a\r\n}\r\n")
    assert [c.guarded for c in unguarded.changing] == [False]
    other_branch = Script(
        b"if ($PSCmdlet.ShouldProcess('a')) { 1 } else { Set-Disk -Number 1 -IsOffline $false }"
    )
    assert [c.guarded for c in other_branch.changing] == [False]
    asked = Script(b"if ($a -and $PSCmdlet.ShouldProcess('a')) { Set-Disk -Number 1 -IsOffline $false }")
    assert [c.guarded for c in asked.changing] == [True]


@each_script
def test_whatif_and_confirm_are_offered_and_errors_stop(name: str) -> None:
    text = scripts()[name].decode()
    assert "[CmdletBinding(SupportsShouldProcess = $true" in text
    assert "$ErrorActionPreference = 'Stop'" in text
    assert "Set-StrictMode -Version" in text
    assert "#Requires -Version 5.1" in text
    assert "#Requires -RunAsAdministrator" in text


@each_script
def test_help_names_every_parameter(name: str) -> None:
    script, text = SCRIPTS[name], scripts()[name].decode()
    block = next(script.nodes("param_block"))
    parameters = re.findall(r"\] \$(\w+)", (block.text or b"").decode())
    assert sorted(re.findall(r"^\.PARAMETER (\w+)", text, re.MULTILINE)) == sorted(parameters)
    assert text.startswith("<#\r\n.SYNOPSIS\r\n")
    assert ".EXAMPLE" in text


@each_script
def test_no_text_becomes_code(name: str) -> None:
    """Names and paths are data: nothing in the scripts evaluates a text."""
    script, text = SCRIPTS[name], scripts()[name].decode()
    assert not re.search(
        r"Invoke-Expression|\biex\b|ScriptBlock\]|Add-Type|-EncodedCommand|\.Invoke\(", text, re.I
    )
    assert list(script.nodes("command_invokation_operator")) == []


@each_script
def test_paths_are_taken_literally(name: str) -> None:
    """[ and ] are legal in names and wildcards to -Path."""
    for command in SCRIPTS[name].commands:
        if command.name in ("Get-Content", "Get-ChildItem", "Test-Path"):
            assert "LiteralPath" in command.parameters, command.text
        if command.name in ("Get-VM", "Get-VMSwitch"):
            assert "Name" not in command.parameters, command.text


def test_nothing_is_started_or_deleted() -> None:
    """The one Remove-VM takes a machine back that was begun a moment ago; the one Delete is of our temporary file."""
    names = [c.name for script in SCRIPTS.values() for c in script.commands]
    removed = {n for n in names if n.startswith(("Remove-", "Clear-", "Format-", "Start-", "Dismount-"))}
    assert removed == {
        "Remove-VM",
        "Remove-VMSavedState",
        "Remove-VMNetworkAdapter",
        "Remove-VMDvdDrive",
        "Clear-Letter",
    }
    assert names.count("Remove-VM") == 1
    deleted = [m for script in SCRIPTS.values() for m, _, _ in script.changing_methods if m == "Delete"]
    assert deleted == ["Delete"]
    assert b"[IO.File]::Delete((Get-Long $partial))" in scripts()["Restore-VM.ps1"]


def function(name: str, of: str) -> str:
    """The text of one function of a script."""
    found = re.search(
        rf"^function {re.escape(of)}\b.*?^}}", scripts()[name].decode(), re.DOTALL | re.MULTILINE
    )
    assert found is not None
    return found[0]


def test_what_an_interrupted_copy_has_written_needs_no_room_again() -> None:
    """Else a disk that takes the machine once, and no more, refuses the second run."""
    text = function("Restore-VM.ps1", "Restore-File")
    assert "$file.size - (Get-PartialSize $file.original)" in text
    assert "Measure-Object" not in text
    assert "$path.rehost-part" in function("Restore-VM.ps1", "Get-PartialSize")


def test_folders_of_long_paths_are_made_in_the_long_form() -> None:
    text = function("Restore-VM.ps1", "Copy-Back")
    assert "[IO.Path]::GetDirectoryName((Get-Long $file.original))" in text


def test_a_disk_goes_where_windows_has_put_a_dvd_drive() -> None:
    """New-VM gives generation 1 a DVD drive at IDE 1:0; it makes way before the disk is attached, not afterwards."""
    text = function("Restore-VM.ps1", "Add-OldDisk")
    assert text.index("ShouldProcess") < text.index("Remove-VMDvdDrive") < text.index("Add-VMHardDiskDrive")


def test_a_default_folder_on_a_drive_that_is_gone_ends_nothing() -> None:
    text = function("Restore-Host.ps1", "Set-OldSetting")
    for path in ("machine_path", "disk_path"):
        assert text.index(f"(Test-Drive $old.{path})") < text.index(f"CreateDirectory($old.{path})")
    assert "Write-Left" in function("Restore-Host.ps1", "Test-Drive")


def test_a_problem_without_a_source_is_left_to_the_second_comparison() -> None:
    text = function("Restore-VM.ps1", "Resolve-Problem")
    assert text.index("$null -eq $source") < text.index("$source.GetType()")
