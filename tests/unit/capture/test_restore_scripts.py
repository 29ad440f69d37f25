"""The restore scripts, read with a grammar of PowerShell: that they parse, what they call, and that they ask."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable

import pytest
import tree_sitter

from rehost_payload.capture.restore.data import RestoreData
from rehost_payload.capture.restore.scripts import NAMES, scripts
from support import powershell_names as names
from support.powershell import Script, known_cmdlets

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
    called = {c.name for c in script.commands} - script.functions.keys()
    assert called <= known_cmdlets().keys()


@each_script
def test_every_call_fits_one_parameter_set(name: str) -> None:
    """Parameters that exist, but not together, end a script as well as those that do not exist."""
    for command in SCRIPTS[name].commands:
        sets = known_cmdlets().get(command.name)
        if sets is None:
            continue  # a function of the script
        assert command.unknown_splats == (), command.text
        assert command.fitting(sets), f"line {command.line}: {command.text}"


def test_a_call_that_fits_no_set_is_noticed() -> None:
    def fits(text: str) -> bool:
        (command,) = (c for c in Script(text.encode()).commands if "-V" in c.name or c.name == "Set-Disk")
        return bool(command.fitting(known_cmdlets()[command.name]))

    assert fits("Remove-VMDvdDrive -VMName a -ControllerNumber 1 -ControllerLocation 0")
    assert not fits("Remove-VMDvdDrive -VMName a -ControllerNumber 1")  # something is missing
    assert not fits("Remove-VMDvdDrive -VMDvdDrive $a -ControllerNumber 1")  # of two sets
    assert fits("$a | Remove-VMDvdDrive -Confirm:$false")
    assert not fits("Remove-VMDvdDrive -Confirm:$false")
    assert not fits("Set-Disk -Number 1 -IsOffline $false -IsReadOnly $false")
    assert not fits("Set-VMHost -VirtualMachineFolder a")
    assert fits("function F($a) { Set-VMHost @a }; F @{ VirtualMachinePath = 1 }")
    assert not fits("function F($a) { Set-VMHost @a }; F @{ VirtualMachinePaths = 1 }")


# Storage, NetAdapter, NetTCPIP, DnsClient and HgsClient: made of CDXML
_FUNCTIONS_OF_MODULES = re.compile(r"\w+-(Disk|Partition|Net\w+|DnsClient\w+|Hgs\w+)")


@each_script
def test_functions_of_modules_are_told_what_to_do_with_errors(name: str) -> None:
    """They do not see $ErrorActionPreference of a script: their errors would be shown, and the script went on."""
    for command in SCRIPTS[name].commands:
        if _FUNCTIONS_OF_MODULES.fullmatch(command.name):
            assert "ErrorAction" in command.parameters, f"line {command.line}: {command.text}"


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
        asks = any("Confirm" in one.names for one in known_cmdlets()[command.name].values())
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


# --- mistakes that a parser does not see


def is_list(script: Script) -> Callable[[tree_sitter.Node], bool]:
    types = names.Types(script, "data", RestoreData)
    return lambda node: typing.get_origin(types.of(node)) is tuple


CHECKS: dict[str, Callable[[Script], list[str]]] = {
    "variables that get no value": names.unassigned,
    "variables that hide a parameter of the script": names.shadowed,
    "counts of what may be no list": lambda script: names.counted(script, is_list(script)),
    "calls with another number of arguments": names.calls,
    "functions that come too late": names.late,
    "functions that nothing calls": lambda script: sorted(names.uncalled(script)),
    "formats with another number of values": names.formats,
    "properties in a text without brackets": names.interpolations,
    "jumps out of the block of a cmdlet": names.jumps,
    "results that nobody asked for": names.leaks,
    "PowerShell 7": names.newer,
    "here-strings": names.here_strings,
}

MISTAKES = {
    "variables that get no value": [
        ("$need.ContainsKey", "$needs.ContainsKey"),
        (
            "$missing = New-Object System.Collections.ArrayList",
            "$gone = New-Object System.Collections.ArrayList",
        ),
        ("Get-Sha256 $partial", "Get-Sha256 $part"),
        ('"$path.rehost-part"', '"$pathname.rehost-part"'),
        ("$state = Test-Present $file\r\n", ""),
    ],
    "variables that hide a parameter of the script": [("foreach ($start in @(", "foreach ($name in @(")],
    "counts of what may be no list": [
        ("$names = @(Get-VMSwitch | ForEach-Object { $_.Name })", "$names = 1; $x = $names.Count"),
        ("$problems = @(Get-Problem $report)", "$problems = Get-Problem $report"),
        ("$data.orphans.Count", "$data.format.Count"),
    ],
    "calls with another number of arguments": [
        ("Add-OldDisk $vm $machine $generation", "Add-OldDisk $vm $machine"),
        ("Add-OldDisk $vm $machine $generation", "Add-OldDisk($vm, $machine, $generation)"),
        ("Grant-Machine $machine", "Grant-Machine $machine $true"),
        ("Copy-Back $file", "Copy-Back($file, 1)"),
    ],
    "functions that come too late": [("Set-StrictMode -Version 2.0", "Confirm-Word 'x'")],
    "functions that nothing calls": [("Grant-Own $machine\r\n", "\r\n")],
    "formats with another number of values": [
        ("{0} has {1:N0} MB free, {2:N0} MB", "{0} has {1:N0} MB free, {3:N0} MB"),
        ("'{0}.{1}' -f", "'{0}' -f"),
        ("'Copy back ({0:N0} MB)' -f", "'Copy back ({1:N0} MB)' -f"),
    ],
    "properties in a text without brackets": [
        ('"Checking $path" -Completed', '"Checking $file.path" -Completed'),
        ('"Attach $($disk.path)"', '"Attach $disk.path"'),
        ('"$path is needed', '"$path: is needed'),
    ],
    "jumps out of the block of a cmdlet": [("{ $_.Name })", "{ continue; $_.Name })")],
    "results that nobody asked for": [("[void] $missing.Add($file)", "$missing.Add($file)")],
    "PowerShell 7": [
        ("$wanted = ''", "$wanted = $known ?? ''"),
        ("$wanted = ''", "$wanted = $known ? 1 : 2"),
        ("Restore-File @($file) @()", "Restore-File @($file) @() && $true"),
        ("ForEach-Object { $_.switch }", "ForEach-Object -Parallel { $_.switch }"),
    ],
    "here-strings": [("$wanted = ''", "$wanted = @'\r\na\r\n'@")],
}


@each_script
@pytest.mark.parametrize("check", CHECKS)
def test_mistakes_that_a_parser_does_not_see(name: str, check: str) -> None:
    assert CHECKS[check](SCRIPTS[name]) == []


@pytest.mark.parametrize(("check", "right", "wrong"), [(c, *m) for c, ms in MISTAKES.items() for m in ms])
def test_each_check_notices_its_mistake(check: str, right: str, wrong: str) -> None:
    text = scripts()["Restore-VM.ps1"]
    assert right.encode() in text
    assert CHECKS[check](Script(text.replace(right.encode(), wrong.encode())))


def test_every_check_is_shown_to_work() -> None:
    assert MISTAKES.keys() == CHECKS.keys()


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
    text = function("Restore-Host.ps1", "New-DefaultFolder")
    assert text.index("(Test-Drive $path)") < text.index("Write-Left") < text.index("CreateDirectory($path)")
    text = function("Restore-Host.ps1", "Set-OldSetting")
    for path in ("machine_path", "disk_path"):
        assert f"if (Test-Drive $old.{path})" in text


def test_one_step_that_fails_does_not_end_the_others() -> None:
    """Each disk, letter, setting, switch and adapter stands in a try of its own."""
    script = SCRIPTS["Restore-Host.ps1"]
    for command in script.changing:
        holders = [n for n in above_all(script, command.line) if n.type == "try_statement"]
        if command.name == "Add-VMNetworkAdapter" or command.name in ("New-VMSwitch", "Set-CimInstance"):
            continue  # in functions that are called inside a try
        if re.match("(Set|New)-(Net|Dns)", command.name) or command.name == "New-HgsGuardian":
            continue
        assert holders, command.text
    for name, called in (
        ("Set-OldSwitch", "New-OldSwitch $old"),
        ("Set-OldAddress", "Set-HostAdapter $old"),
        ("Set-OldLetter", "Clear-Letter $old.letter"),
        ("Restore-Part", "Import-Guardian"),
    ):
        text = function("Restore-Host.ps1", name)
        assert text.index("try {") < text.index(called) < text.index("catch {") < text.index("Write-Failed")


def above_all(script: Script, line: int) -> list[tree_sitter.Node]:
    """Everything that is around a command on this line."""
    found = []
    node = next(n for n in script.nodes("command") if n.start_point[0] + 1 == line)
    parent = node.parent
    while parent is not None:
        found.append(parent)
        parent = parent.parent
    return found


def test_exit_codes_say_what_is_left() -> None:
    text = scripts()["Restore-Host.ps1"].decode()
    end = text[text.rindex("if ($failed.Count)") :]
    assert re.sub(r"\s+", " ", end).strip() == "if ($failed.Count) { exit 1 } if ($left.Count) { exit 3 }"


def test_a_file_that_differs_is_never_overwritten() -> None:
    text = function("Restore-VM.ps1", "Restore-File")
    assert text.index("-eq 'differs' -and -not $UsePresent") < text.index('throw "') < text.index("Copy-Back")
    taken = text[text.index("-eq 'missing'") : text.index("foreach ($path in $expected)")]
    assert text.count("$missing.Add(") == taken.count("$missing.Add(") == 1
    # the one place that writes to a place of old: from our own file, by a move that overwrites nothing
    assert function("Restore-VM.ps1", "Copy-Back").count("[IO.File]::Move((Get-Long $partial)") == 1


def test_files_of_no_machine_are_copied_back_on_request_only_and_attached_to_nothing() -> None:
    text = scripts()["Restore-VM.ps1"].decode()
    part = text[text.index("if ($Orphans) {") :]
    assert part.index("foreach ($file in $data.orphans)") < part.index("Restore-File @($file) @()")
    assert not re.search("Add-VMHardDiskDrive|Grant-|Register-", part)
    assert text.count("$data.orphans") == part.count("$data.orphans")


def test_rights_are_added_and_none_is_taken_away() -> None:
    text = function("Restore-VM.ps1", "Grant-Machine")
    assert text.index("Test-Right") < text.index("ShouldProcess") < text.index("$acl.AddAccessRule")
    assert not re.search(
        r"\.(Set|Remove|Purge|Reset)Access(?!Control)|SetAccessRuleProtection|SetOwner", text
    )


def test_a_report_without_problems_has_none() -> None:
    """In Microsoft's example of Compare-VM the list is empty to the point of not being there, and @($null) counts 1."""
    text = function("Restore-VM.ps1", "Register-Machine")
    assert text.count("@(Get-Problem $report)") == 2
    assert "Incompatibilities" not in text
    assert "Where-Object { $null -ne $_ }" in function("Restore-VM.ps1", "Get-Problem")


def test_a_problem_without_a_source_is_left_to_the_second_comparison() -> None:
    text = function("Restore-VM.ps1", "Resolve-Problem")
    assert text.index("$null -eq $source") < text.index("$source.GetType()")
