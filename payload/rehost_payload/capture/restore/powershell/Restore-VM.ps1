<#
.SYNOPSIS
Brings captured virtual machines back on this host.

.DESCRIPTION
Reads restore.json beside this script. For each machine: files that are still at their old place stay there, missing
ones are copied back to the same absolute path and compared with their SHA-256; then the machine is registered in
place, with its old identity. A file that is at the old place and differs is never overwritten: the machine is left
alone, and the file is named. Each machine gets the right to its own disks, as Hyper-V gives it.

Each change is shown and asked for. What is done already stays as it is, and a copy that broke off goes on: after an
interruption run it again. Nothing is started and nothing is deleted. Run it with -WhatIf first.

First run Restore-Host.ps1: machines find their switches by name and their files by drive letter.

A machine whose configuration was lost, or is too old for this host, is made anew around its disks. It gets a new
identity: Windows in it finds new network adapters and may ask for activation.

.PARAMETER Name
The machines, by name or identifier; default: all.

.PARAMETER UseSwitch
Other switches for machines whose own is missing: @{ 'LAN' = 'External' }; '' leaves the adapter without one.

.PARAMETER RemoveSavedState
Give up saved states without asking. For the guest that is like pulling the plug.

.PARAMETER NewMachine
Make the machines named with -Name anew around their disks, though their configuration is there.

.PARAMETER UsePresent
Files at their old place count although they differ from the captured ones, for instance because the old host ran once
more after the capture. Without it such a machine is left alone.

.PARAMETER CheckHashes
Compare also the files that are at their old place with the capture (reads all of them).

.PARAMETER Orphans
Copy also those files back to their old places that belong to no machine: virtual disks that none has attached. Each is
asked for; none is attached to anything.

.PARAMETER UpdateVersion
Raise the configuration version to this host's. There is no way back to an older host.

.EXAMPLE
.\Restore-VM.ps1 -WhatIf

.EXAMPLE
.\Restore-VM.ps1 -Name web01, db01 -UseSwitch @{ 'LAN' = 'External' }
#>
#Requires -Version 5.1
#Requires -PSEdition Desktop
#Requires -RunAsAdministrator
#Requires -Modules Hyper-V
[CmdletBinding(SupportsShouldProcess = $true, ConfirmImpact = 'High')]
param(
    [string[]] $Name = @(),
    [hashtable] $UseSwitch = @{},
    [switch] $RemoveSavedState,
    [switch] $NewMachine,
    [switch] $UsePresent,
    [switch] $CheckHashes,
    [switch] $Orphans,
    [switch] $UpdateVersion
)

Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'
$block = 8388608 # bytes read at a time
$mb = 1048576

# --- files -----------------------------------------------------------------------------------------------------------

function Get-Long([string] $path) {
    # beyond 260 characters Windows wants this form
    if ($path.Length -lt 248 -or $path.StartsWith('\\?\')) {
        return $path
    }
    if ($path.StartsWith('\\')) {
        return '\\?\UNC\' + $path.Substring(2)
    }
    return '\\?\' + $path
}

function Get-Sha256([string] $path) {
    $sha = [Security.Cryptography.SHA256]::Create()
    $stream = New-Object IO.FileStream((Get-Long $path), 'Open', 'Read', 'Read')
    try {
        $buffer = New-Object byte[] $block
        while (($count = $stream.Read($buffer, 0, $block)) -gt 0) {
            [void] $sha.TransformBlock($buffer, 0, $count, $null, 0)
            Write-Progress -Activity "Checking $path" -PercentComplete (100 * $stream.Position / $stream.Length)
        }
        Write-Progress -Activity "Checking $path" -Completed
        [void] $sha.TransformFinalBlock($buffer, 0, 0)
        return ([BitConverter]::ToString($sha.Hash) -replace '-', '').ToLowerInvariant()
    }
    finally {
        $stream.Dispose()
        $sha.Dispose()
    }
}

function Get-PartialSize([string] $path) {
    # what an interrupted run has copied already needs no room any more
    $info = New-Object IO.FileInfo((Get-Long "$path.rehost-part"))
    if ($info.Exists) {
        return $info.Length
    }
    return 0
}

function Test-Present($file) {
    # 'missing', 'same' or 'differs'
    $info = New-Object IO.FileInfo((Get-Long $file.original))
    if (-not $info.Exists) {
        return 'missing'
    }
    if ($info.Length -ne $file.size) {
        return 'differs'
    }
    # the time counts in steps of 100 ns; some file systems keep it to 2 s
    $apart = [Math]::Abs($info.LastWriteTimeUtc.ToFileTimeUtc() - $file.modified)
    if ($apart -le 20000000 -and -not $CheckHashes) {
        return 'same'
    }
    if ((Get-Sha256 $file.original) -eq $file.sha256) {
        return 'same'
    }
    return 'differs'
}

function Copy-Back($file) {
    if ($PSCmdlet.ShouldProcess($file.original, ('Copy back ({0:N0} MB)' -f ($file.size / $mb)))) {
        $source = [IO.Path]::Combine($PSScriptRoot, ($file.path -replace '/', '\'))
        $partial = $file.original + '.rehost-part'
        [void] [IO.Directory]::CreateDirectory([IO.Path]::GetDirectoryName((Get-Long $file.original)))
        $in = New-Object IO.FileStream((Get-Long $source), 'Open', 'Read', 'Read')
        try {
            $out = New-Object IO.FileStream((Get-Long $partial), 'OpenOrCreate', 'ReadWrite', 'None')
            try {
                # what an interrupted run has copied stays; the comparison at the end covers it as well
                $done = [Math]::Floor($out.Length / $block) * $block
                if ($done -gt $in.Length) {
                    $done = 0
                }
                $out.SetLength($done)
                $out.Position = $done
                $in.Position = $done
                $buffer = New-Object byte[] $block
                while (($count = $in.Read($buffer, 0, $block)) -gt 0) {
                    $out.Write($buffer, 0, $count)
                    Write-Progress -Activity "Copying $($file.original)" -PercentComplete (100 * $in.Position / $in.Length)
                }
                Write-Progress -Activity "Copying $($file.original)" -Completed
                $out.Flush($true)
            }
            finally {
                $out.Dispose()
            }
        }
        finally {
            $in.Dispose()
        }
        if ((Get-Sha256 $partial) -ne $file.sha256) {
            # our own temporary file: the next run begins it anew
            [IO.File]::Delete((Get-Long $partial))
            throw "$($file.original): what was copied is not what was captured. Check this disk (SHA256SUMS) or use the other copy."
        }
        if ($file.modified -gt 0) {
            # a differencing VHD knows its parent by this time
            [IO.File]::SetLastWriteTimeUtc((Get-Long $partial), [DateTime]::FromFileTimeUtc($file.modified))
        }
        [IO.File]::Move((Get-Long $partial), (Get-Long $file.original))
        if ($file.read_only) {
            [IO.File]::SetAttributes((Get-Long $file.original), 'ReadOnly')
        }
    }
}

function Find-Volume([string] $path) {
    # by letter, by folder or by its GUID, whichever is nearest; a volume without letter is no drive
    $all = Get-CimInstance -ClassName Win32_Volume
    foreach ($volume in @($all | Sort-Object -Property { "$($_.Name)".Length } -Descending)) {
        foreach ($start in @("$($volume.Name)", "$($volume.DeviceID)")) {
            if ($start -and $path.StartsWith($start, [StringComparison]::OrdinalIgnoreCase)) {
                return $volume
            }
        }
    }
}

function Restore-File($files, $expected) {
    # throws before anything is copied when something is in the way
    $missing = New-Object System.Collections.ArrayList
    $need = @{}
    $free = @{}
    foreach ($file in $files) {
        $state = Test-Present $file
        if ($state -eq 'differs' -and -not $UsePresent) {
            throw "$($file.original) is there and differs from the captured one. Decide which one counts: move it away for the captured one, or take the present one with -UsePresent."
        }
        if ($state -eq 'differs') {
            Write-Warning -Message "$($file.original) differs from the captured one; it stays as it is."
        }
        if ($state -eq 'missing') {
            [void] $missing.Add($file)
        }
    }
    foreach ($path in $expected) {
        if (-not [IO.File]::Exists((Get-Long $path))) {
            throw "$path is needed, is not in this capture and is not there. Connect its array and run Restore-Host.ps1 for the drive letters."
        }
    }
    foreach ($file in $missing) {
        $volume = Find-Volume $file.original
        if ($null -eq $volume) {
            throw "There is no volume for $($file.original). Run Restore-Host.ps1, or give a new volume this letter."
        }
        $root = "$($volume.Name)"
        if ($null -eq $volume.FreeSpace) {
            throw "$root cannot be read (not formatted, or locked by BitLocker). See to that, then run this again."
        }
        if (-not $need.ContainsKey($root)) {
            $need[$root] = [long] 0
            $free[$root] = $volume.FreeSpace
        }
        $need[$root] += [Math]::Max([long] 0, [long] ($file.size - (Get-PartialSize $file.original)))
    }
    foreach ($root in @($need.Keys)) {
        if ($free[$root] -lt $need[$root]) {
            throw ('{0} has {1:N0} MB free, {2:N0} MB are needed.' -f $root, ($free[$root] / $mb), ($need[$root] / $mb))
        }
    }
    foreach ($file in $missing) {
        Copy-Back $file
    }
}

# --- rights ----------------------------------------------------------------------------------------------------------

function Test-Right($acl, $sid, $rights) {
    foreach ($rule in $acl.GetAccessRules($true, $true, [Security.Principal.SecurityIdentifier])) {
        $mine = $rule.IdentityReference.Value -eq $sid.Value -and $rule.AccessControlType -eq 'Allow'
        if ($mine -and ($rule.FileSystemRights -band $rights) -eq $rights) {
            return $true
        }
    }
    return $false
}

function Grant-Machine($machine) {
    # a machine runs under an account of its own; without a right to its disks it does not start ("access denied").
    # Import-VM gives that right. Where it has not, this adds it; all other rights stay as they are.
    if (-not $machine.sid) {
        return
    }
    $sid = New-Object Security.Principal.SecurityIdentifier($machine.sid)
    $lacking = New-Object System.Collections.ArrayList
    foreach ($file in $machine.files) {
        if ($file.rights -and [IO.File]::Exists((Get-Long $file.original))) {
            $acl = [IO.File]::GetAccessControl((Get-Long $file.original), 'Access')
            if (-not (Test-Right $acl $sid ([Security.AccessControl.FileSystemRights] $file.rights))) {
                [void] $lacking.Add($file)
            }
        }
    }
    if (-not $lacking.Count) {
        return
    }
    $names = @($lacking | ForEach-Object { $_.original }) -join ', '
    if ($PSCmdlet.ShouldProcess($names, "Give the machine '$($machine.name)' the right to its files")) {
        foreach ($file in $lacking) {
            $acl = [IO.File]::GetAccessControl((Get-Long $file.original), 'Access')
            $rights = [Security.AccessControl.FileSystemRights] $file.rights
            $acl.AddAccessRule((New-Object Security.AccessControl.FileSystemAccessRule($sid, $rights, 'Allow')))
            [IO.File]::SetAccessControl((Get-Long $file.original), $acl)
        }
    }
}

# --- questions -------------------------------------------------------------------------------------------------------

function Confirm-Word([string] $question) {
    # only the word in full is a yes
    return (Read-Host -Prompt "$question Type yes for it") -eq 'yes'
}

function Select-Switch([string] $wanted) {
    if ($UseSwitch.ContainsKey($wanted)) {
        return "$($UseSwitch[$wanted])"
    }
    $names = @(Get-VMSwitch | ForEach-Object { $_.Name })
    if ($names -contains $wanted) {
        return $wanted
    }
    if ($wanted) {
        Write-Host -Object "Switch '$wanted' is not there."
    }
    Write-Host -Object "There are these switches: $($names -join ', ')"
    $answer = Read-Host -Prompt 'Name of the switch to use instead (empty: none)'
    if ($answer -and $names -notcontains $answer) {
        throw "There is no switch '$answer'."
    }
    return $answer
}

# --- register a machine with its own configuration -------------------------------------------------------------------

function Resolve-Problem($machine, $problem) {
    $source = $problem.Source
    if ($null -eq $source) {
        return # nothing that could be changed: the second comparison names it
    }
    $kind = $source.GetType().Name
    if ($problem.MessageId -eq 33012 -or $kind -eq 'VMNetworkAdapter') {
        if ($PSCmdlet.ShouldProcess($machine.name, $problem.Message)) {
            # its switch is missing; for what the message names, the captured adapters say the name
            # (adapters may have one name and different switches: then the message tells)
            $known = @($machine.adapters | Where-Object { $_.name -eq $source.Name -and $_.switch } | ForEach-Object { $_.switch })
            $said = @($known | Where-Object { "$($problem.Message)".Contains($_) } | Sort-Object -Property Length -Descending)
            $wanted = ''
            if ($said.Count) {
                $wanted = $said[0]
            }
            elseif ($known.Count) {
                $wanted = $known[0]
            }
            $chosen = Select-Switch $wanted
            if ($chosen) {
                Connect-VMNetworkAdapter -VMNetworkAdapter $source -SwitchName $chosen -Confirm:$false
            }
            else {
                Disconnect-VMNetworkAdapter -VMNetworkAdapter $source -Confirm:$false
            }
        }
    }
    elseif ($kind -eq 'DvdDrive') {
        # an image that is not there any more: the drive stays, empty
        if ($PSCmdlet.ShouldProcess("$($machine.name): $($source.Path)", 'Take the image out of the DVD drive')) {
            Set-VMDvdDrive -VMDvdDrive $source -Path $null -Confirm:$false
        }
    }
    elseif ($machine.saved_state -and @('VirtualMachine', 'VMSnapshot') -contains $kind) {
        Write-Host -Object "  $($problem.Message)"
        $question = "Give up the saved state of '$($source.Name)'? For the guest that is like pulling the plug."
        if (($RemoveSavedState -or (Confirm-Word $question)) -and $PSCmdlet.ShouldProcess($source.Name, 'Remove the saved state')) {
            if ($kind -eq 'VMSnapshot') {
                Remove-VMSavedState -VMSnapshot $source -Confirm:$false
            }
            else {
                Remove-VMSavedState -VM $source -Confirm:$false
            }
        }
    }
}

function Get-Problem($report) {
    # a report without problems may hold nothing at all instead of an empty list
    $report.Incompatibilities | Where-Object { $null -ne $_ }
}

function Register-Machine($machine) {
    if ($PSCmdlet.ShouldProcess($machine.name, "Register $($machine.configuration)")) {
        $report = Compare-VM -Path $machine.configuration -Register -Confirm:$false
        $problems = @(Get-Problem $report)
        if ($problems.Count) {
            foreach ($problem in $problems) {
                Resolve-Problem $machine $problem
            }
            # Microsoft's example shows the report itself changed; what is given back, if anything is, counts before it
            $again = @(Compare-VM -CompatibilityReport $report -Confirm:$false)
            if ($again.Count) {
                $report = $again[0]
            }
            $problems = @(Get-Problem $report)
        }
        if ($problems.Count) {
            $lines = @($problems | ForEach-Object { "  $($_.MessageId): $($_.Message)" })
            $text = $lines -join "`r`n"
            throw "Windows refuses this machine, so it was not registered:`r`n$text`r`n  -NewMachine makes a new one around its disks."
        }
        [void] (Import-VM -CompatibilityReport $report -Confirm:$false)
    }
}

# --- make a machine anew around its disks ----------------------------------------------------------------------------

function Add-OldDisk($vm, $machine, $generation) {
    $first = $true
    foreach ($disk in $machine.disks) {
        if ($PSCmdlet.ShouldProcess($machine.name, "Attach $($disk.path)")) {
            $controller = $disk.controller
            if ($first -and $null -eq $machine.generation -and $generation -eq 1) {
                $controller = 'IDE' # where the disks were is not known, and generation 1 starts from IDE only
            }
            while ($controller -eq 'SCSI' -and @(Get-VMScsiController -VM $vm).Count -le $disk.number) {
                Add-VMScsiController -VM $vm -Confirm:$false
            }
            # generation 1 is made with a DVD drive at IDE 1:0, where the old machine may have had a disk
            Get-VMDvdDrive -VM $vm | Where-Object {
                $controller -eq 'IDE' -and $_.ControllerNumber -eq $disk.number -and $_.ControllerLocation -eq $disk.slot
            } | Remove-VMDvdDrive -Confirm:$false
            $place = @{
                VM = $vm
                ControllerType = $controller
                ControllerNumber = $disk.number
                ControllerLocation = $disk.slot
                Path = $disk.path
                Confirm = $false
            }
            Add-VMHardDiskDrive @place
        }
        $first = $false
    }
}

function Add-OldAdapter($vm, $machine, $generation) {
    foreach ($adapter in $machine.adapters) {
        if ($PSCmdlet.ShouldProcess($machine.name, "Add network adapter '$($adapter.name)'")) {
            $new = @{ VM = $vm; Name = $adapter.name; Confirm = $false }
            if ($adapter.switch) {
                $chosen = Select-Switch $adapter.switch
                if ($chosen) {
                    $new.SwitchName = $chosen
                }
            }
            if ($adapter.mac) {
                $new.StaticMacAddress = $adapter.mac
            }
            if ($generation -eq 1) {
                $new.IsLegacy = $adapter.legacy
            }
            $made = Add-VMNetworkAdapter @new -Passthru
            if ($null -ne $adapter.vlan) {
                Write-Host -Object "  network adapter '$($adapter.name)': VLAN $($adapter.vlan)"
                Set-VMNetworkAdapterVlan -VMNetworkAdapter $made -Access -VlanId $adapter.vlan -Confirm:$false
            }
            if ($adapter.vlan_by_hand) {
                Write-Warning -Message "Network adapter '$($adapter.name)', to be set by hand: $($adapter.vlan_by_hand)"
            }
        }
    }
}

function New-Machine($machine) {
    $generation = $machine.generation
    if ($null -eq $generation -and -not $WhatIfPreference) {
        $answer = Read-Host -Prompt "Generation of '$($machine.name)' is not known. 1 (BIOS) or 2 (UEFI)"
        if (@('1', '2') -notcontains $answer) {
            throw "'$answer' is neither 1 nor 2."
        }
        $generation = [int] $answer
    }
    $same = @(Get-VM | Where-Object { $_.Name -eq $machine.name })
    if ($same.Count) {
        throw "There is another machine with this name. Rename or remove it first (its disks stay)."
    }
    $what = "New machine, generation $generation, {0:N0} MB, $($machine.processors) processors" -f ($machine.memory / $mb)
    if ($PSCmdlet.ShouldProcess($machine.name, $what)) {
        $vm = New-VM -Name $machine.name -Generation $generation -MemoryStartupBytes $machine.memory -NoVHD -Confirm:$false
        try {
            Set-VMProcessor -VM $vm -Count $machine.processors -Confirm:$false
            if ($machine.dynamic_memory) {
                Set-VMMemory -VM $vm -DynamicMemoryEnabled $true -MinimumBytes $machine.memory_minimum -MaximumBytes $machine.memory_maximum -Confirm:$false
            }
            Get-VMNetworkAdapter -VM $vm | Remove-VMNetworkAdapter -Confirm:$false
            Add-OldDisk $vm $machine $generation
            Add-OldAdapter $vm $machine $generation
            if ($generation -eq 2) {
                if ($machine.secure_boot -eq $false) {
                    Set-VMFirmware -VM $vm -EnableSecureBoot Off -Confirm:$false
                }
                elseif ($machine.secure_boot_template) {
                    Set-VMFirmware -VM $vm -EnableSecureBoot On -SecureBootTemplateId $machine.secure_boot_template -Confirm:$false
                }
                $drives = @(Get-VMHardDiskDrive -VM $vm)
                if ($drives.Count) {
                    Set-VMFirmware -VM $vm -FirstBootDevice $drives[0] -Confirm:$false
                }
            }
            # the old identifier: by it the next run knows this machine
            Set-VM -VM $vm -Notes "$($machine.notes)`r`nRehost: $($machine.id)" -Confirm:$false
            if ($machine.start_action) {
                Set-VM -VM $vm -AutomaticStartAction $machine.start_action -Confirm:$false
            }
            if ($machine.stop_action) {
                Set-VM -VM $vm -AutomaticStopAction $machine.stop_action -Confirm:$false
            }
        }
        catch {
            # only the machine that was begun a moment ago; files of disks are never deleted by this
            Remove-VM -VM $vm -Force -Confirm:$false
            throw
        }
    }
}

# --- one machine after the other -------------------------------------------------------------------------------------

function Find-Machine($machine) {
    # under its own identifier, or made anew by an earlier run
    Get-VM | Where-Object { "$($_.Id)" -eq $machine.id -or "$($_.Notes)".EndsWith("Rehost: $($machine.id)") }
}

function Grant-Own($machine) {
    # one that was made anew has another account; Hyper-V has given that the right when the disks were attached
    if (@(Find-Machine $machine | Where-Object { "$($_.Id)" -eq $machine.id }).Count) {
        Grant-Machine $machine
    }
}

function Restore-Machine($machine) {
    if (@(Find-Machine $machine).Count) {
        Grant-Own $machine
        return 'was there already'
    }
    if (-not $machine.complete) {
        Write-Warning -Message "$($machine.name) is not complete in this capture: see index.html. The other disk may have it whole."
    }
    foreach ($path in $machine.lost) {
        Write-Warning -Message "$path was not found or not readable when the host was captured."
    }
    foreach ($path in $machine.physical) {
        Write-Warning -Message "It used a physical disk or drive ($path): attach it by hand."
    }
    Restore-File $machine.files $machine.not_captured
    $known = @(Get-VMHostSupportedVersion | ForEach-Object { '{0}.{1}' -f $_.Version.Major, $_.Version.Minor })
    $anew = $NewMachine -or -not $machine.configuration
    if (-not $anew -and $machine.version -and $known -notcontains $machine.version) {
        Write-Host -Object "  Configuration version $($machine.version); this host takes: $($known -join ', ')"
        if (-not $WhatIfPreference -and -not (Confirm-Word 'Make a new machine around its disks instead?')) {
            return 'left out: its configuration version does not fit this host'
        }
        $anew = $true
    }
    if ($anew) {
        New-Machine $machine
    }
    else {
        Register-Machine $machine
    }
    if ($WhatIfPreference) {
        return 'was only looked at'
    }
    if (-not @(Find-Machine $machine).Count) {
        return 'not done'
    }
    Grant-Own $machine
    if ($machine.saved_state -and -not $anew) {
        Write-Warning -Message 'It had a saved state. One that is still there resumes on a processor of the same maker only; else: Remove-VMSavedState.'
    }
    if ($machine.tpm) {
        Write-Warning -Message "It has a virtual TPM: it starts only with the old host's certificates (Restore-Host.ps1 -GuardianFolder)."
    }
    if ($machine.highly_available) {
        Write-Warning -Message 'It was a role of a cluster: add it to the new one by hand.'
    }
    if ($machine.replica) {
        Write-Warning -Message 'It was replicated: set the replication up anew.'
    }
    return 'is there'
}

function Update-Machine($machine) {
    foreach ($vm in @(Find-Machine $machine)) {
        if ($PSCmdlet.ShouldProcess($machine.name, "Raise its configuration version $($vm.Version); there is no way back")) {
            Update-VMVersion -VM $vm -Force -Confirm:$false
        }
    }
}

$text = Get-Content -LiteralPath (Join-Path -Path $PSScriptRoot -ChildPath 'restore.json') -Raw -Encoding UTF8
$data = $text | ConvertFrom-Json
if ($data.format -ne 1) {
    throw "restore.json is of format $($data.format); this script knows format 1."
}
$machines = @($data.machines | Where-Object { -not $Name.Count -or $Name -contains $_.name -or $Name -contains $_.id })
foreach ($wanted in $Name) {
    if (-not @($machines | Where-Object { $_.name -eq $wanted -or $_.id -eq $wanted }).Count) {
        throw "There is no machine '$wanted' in this capture. There are: $(@($data.machines | ForEach-Object { $_.name }) -join ', ')"
    }
}
if ($NewMachine -and -not $Name.Count) {
    throw '-NewMachine is meant for single machines: name them with -Name.'
}

$results = New-Object System.Collections.ArrayList
$failed = 0
foreach ($machine in $machines) {
    Write-Host -Object ''
    Write-Host -Object "$($machine.name) ($($machine.id))"
    try {
        $result = Restore-Machine $machine
        if ($UpdateVersion) {
            Update-Machine $machine
        }
    }
    catch {
        $result = "FAILED: $($_.Exception.Message)"
        $failed++
    }
    [void] $results.Add("$($machine.name): $result")
    Write-Host -Object "  $result"
}
if ($Orphans) {
    foreach ($file in $data.orphans) {
        try {
            Restore-File @($file) @()
            $result = 'not done'
            if ((Test-Present $file) -eq 'same') {
                $result = 'is at its old place'
            }
        }
        catch {
            $result = "FAILED: $($_.Exception.Message)"
            $failed++
        }
        [void] $results.Add("$($file.original): $result")
    }
}
elseif ($data.orphans.Count) {
    [void] $results.Add("$($data.orphans.Count) files belong to no machine; -Orphans copies them back as well")
}
Write-Host -Object ''
$results | ForEach-Object { Write-Host -Object $_ }
Write-Host -Object ''
Write-Host -Object 'Start one machine, look at it, then the next. Of a domain controller only one copy may ever run.'
if ($failed) {
    exit 1
}
