<#
.SYNOPSIS
Gives a freshly installed Hyper-V host the settings of the old one.

.DESCRIPTION
Reads restore.json beside this script. In this order: disks online and writable, drive letters as they were, default
folders, range of MAC addresses, virtual switches of the same names, the host's own addresses on them, and, if asked
for, the certificates of virtual TPMs.

Each change is shown and asked for. What is right already is left alone: after an interruption run it again. Nothing is
formatted, deleted or overwritten. Run it with -WhatIf first, which only shows. A step that fails does not keep the others
from being done; the end of the output names what failed and what is left to do by hand.

Exit codes: 0 all is as it was, 1 a step failed, 3 something is left to do by hand.

Drive letters belong to partitions that are still there. A new array has to be partitioned, formatted and given its old
letter by hand before Restore-VM.ps1.

Creating an external switch interrupts the network of its adapter: work at the console, not over that network.

.PARAMETER Uplink
The physical adapters of external switches, by the switch's name: @{ 'LAN' = 'Ethernet 2'; 'SAN' = 'NIC3', 'NIC4' }.
Several adapters make a switch with embedded teaming (SET). A switch that is not named here is asked for.

.PARAMETER GuardianFolder
The folder that Export-Guardian.ps1 has written on the old host.

.PARAMETER SkipDisks
Do not bring disks online (hosts with shared storage).

.PARAMETER SkipAddresses
Do not give the host's virtual adapters their old addresses (for instance while the old host still runs).

.EXAMPLE
.\Restore-Host.ps1 -WhatIf

.EXAMPLE
.\Restore-Host.ps1 -Uplink @{ 'LAN' = 'Ethernet 2' }
#>
#Requires -Version 5.1
#Requires -PSEdition Desktop
#Requires -RunAsAdministrator
#Requires -Modules Hyper-V
[CmdletBinding(SupportsShouldProcess = $true, ConfirmImpact = 'High')]
param(
    [hashtable] $Uplink = @{},
    [string] $GuardianFolder = '',
    [switch] $SkipDisks,
    [switch] $SkipAddresses
)

Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'
$left = New-Object System.Collections.ArrayList
$failed = New-Object System.Collections.ArrayList
$gb = 1073741824

function Write-Left([string] $text) {
    [void] $left.Add($text)
    Write-Warning -Message $text
}

function Write-Failed([string] $what, $problem) {
    [void] $failed.Add("$what : $($problem.Exception.Message)")
    Write-Warning -Message "FAILED: $what : $($problem.Exception.Message)"
}

function Write-Right([string] $text) {
    Write-Host -Object "  already right: $text"
}

# --- disks -----------------------------------------------------------------------------------------------------------
# The cmdlets for disks and the network are functions of modules, which do not see this script's preference for errors:
# each is told to stop on its own.

function Enable-OldDisk {
    $others = @(Get-Disk -ErrorAction Stop | Where-Object { -not $_.IsSystem -and -not $_.IsBoot })
    foreach ($disk in @($others | Where-Object { $_.IsOffline })) {
        $what = 'disk {0} ({1}, {2:N0} GB)' -f $disk.Number, $disk.FriendlyName, ($disk.Size / $gb)
        # Windows takes one of two disks with the same signature offline; online it would get another signature
        if (@('Policy', '1') -notcontains "$($disk.OfflineReason)") {
            Write-Left "$what stays offline, Windows' reason: $($disk.OfflineReason)"
        }
        elseif ($PSCmdlet.ShouldProcess($what, 'Bring online')) {
            try {
                Set-Disk -Number $disk.Number -IsOffline $false -ErrorAction Stop
            }
            catch {
                Write-Failed "$what, bring online" $_
            }
        }
    }
    foreach ($disk in @(Get-Disk -ErrorAction Stop | Where-Object { -not $_.IsOffline -and $_.IsReadOnly })) {
        $what = 'disk {0} ({1}, {2:N0} GB)' -f $disk.Number, $disk.FriendlyName, ($disk.Size / $gb)
        if ($PSCmdlet.ShouldProcess($what, 'Make writable')) {
            try {
                Set-Disk -Number $disk.Number -IsReadOnly $false -ErrorAction Stop
            }
            catch {
                Write-Failed "$what, make writable" $_
            }
        }
    }
}

# --- drive letters ---------------------------------------------------------------------------------------------------

function Find-OldPartition($old) {
    # what Windows itself remembers a letter by: the partition's GUID, or the disk's signature and the offset
    if ($old.partition_guid) {
        return Get-Partition -ErrorAction Stop | Where-Object { $_.Guid -eq $old.partition_guid }
    }
    if ($null -ne $old.signature) {
        $numbers = @(Get-Disk -ErrorAction Stop | Where-Object { $_.Signature -eq $old.signature } | ForEach-Object { $_.Number })
        return Get-Partition -ErrorAction Stop | Where-Object { $numbers -contains $_.DiskNumber -and $_.Offset -eq $old.offset }
    }
}

function Get-FreeLetter {
    $used = @(Get-CimInstance -ClassName Win32_LogicalDisk | ForEach-Object { $_.DeviceID.Substring(0, 1) })
    $used += @($data.host.letters | ForEach-Object { $_.letter })
    foreach ($letter in 'ZYXWVUTSRQPONMLKJIHGFED'.ToCharArray()) {
        if ($used -notcontains "$letter") {
            return "$letter"
        }
    }
    throw 'No drive letter is free.'
}

function Clear-Letter([string] $letter) {
    # true when nothing has the letter (any more)
    $volume = Get-CimInstance -ClassName Win32_Volume | Where-Object { $_.DriveLetter -eq "${letter}:" }
    if ($null -eq $volume) {
        return $true
    }
    if ($volume.BootVolume -or $volume.SystemVolume -or $volume.PageFilePresent) {
        return $false
    }
    $free = Get-FreeLetter
    if ($PSCmdlet.ShouldProcess("${letter}: ($($volume.Label))", "Move to ${free}:")) {
        Set-CimInstance -InputObject $volume -Property @{ DriveLetter = "${free}:" } -Confirm:$false
        if ($PSScriptRoot.StartsWith("${letter}:", [StringComparison]::OrdinalIgnoreCase)) {
            Write-Warning -Message "This script lies on the volume that is now ${free}: - go on from there."
        }
        return $true
    }
    return [bool] $WhatIfPreference
}

function Set-OldLetter {
    foreach ($old in $data.host.letters) {
        $name = "$($old.letter): ($($old.label))"
        try {
            $found = @(Find-OldPartition $old)
            if ($found.Count -ne 1) {
                Write-Left "$name : $($found.Count) partitions are its old one (a new array has to get the letter by hand)"
            }
            elseif ("$($found[0].DriveLetter)" -eq $old.letter) {
                Write-Right $name
            }
            elseif (-not (Clear-Letter $old.letter)) {
                Write-Left "$name : the letter is taken"
            }
            elseif ($PSCmdlet.ShouldProcess($name, 'Give the partition its old letter')) {
                Set-Partition -DiskNumber $found[0].DiskNumber -PartitionNumber $found[0].PartitionNumber -NewDriveLetter $old.letter -Confirm:$false -ErrorAction Stop
            }
        }
        catch {
            Write-Failed "drive letter $name" $_
        }
    }
}

# --- settings of the host --------------------------------------------------------------------------------------------

function Set-HostSetting([string] $what, $now, $old, [hashtable] $new) {
    if ($null -eq $old -or "$old" -eq '') {
        return # the old host had Windows' own default
    }
    if ("$now".TrimEnd('\') -eq "$old".TrimEnd('\')) {
        Write-Right $what
    }
    elseif ($PSCmdlet.ShouldProcess("$old", "$what (now $now)")) {
        try {
            Set-VMHost @new -Confirm:$false
        }
        catch {
            Write-Failed $what $_
        }
    }
}

function Test-Drive([string] $path) {
    return $path -and [IO.Directory]::Exists([IO.Path]::GetPathRoot($path))
}

function New-DefaultFolder([string] $path) {
    # an array that is gone must not keep the switches from being made
    if (-not $path -or [IO.Directory]::Exists($path)) {
        return
    }
    if (-not (Test-Drive $path)) {
        Write-Left "default folder $path : its drive is not there (yet)"
    }
    elseif ($PSCmdlet.ShouldProcess($path, 'Create this default folder')) {
        try {
            [void] [IO.Directory]::CreateDirectory($path)
        }
        catch {
            Write-Failed "default folder $path" $_
        }
    }
}

function Set-OldSetting {
    $now = Get-VMHost
    $old = $data.host
    foreach ($path in @($old.machine_path, $old.disk_path)) {
        New-DefaultFolder $path
    }
    if (Test-Drive $old.machine_path) {
        Set-HostSetting 'Default folder of virtual machines' $now.VirtualMachinePath $old.machine_path @{ VirtualMachinePath = $old.machine_path }
    }
    if (Test-Drive $old.disk_path) {
        Set-HostSetting 'Default folder of virtual hard disks' $now.VirtualHardDiskPath $old.disk_path @{ VirtualHardDiskPath = $old.disk_path }
    }
    # machines keep the addresses they have; a second host with the same range would give them out again
    if ($old.mac_minimum) {
        $range = "$($now.MacAddressMinimum) - $($now.MacAddressMaximum)"
        Set-HostSetting 'Range of MAC addresses' $range "$($old.mac_minimum) - $($old.mac_maximum)" @{ MacAddressMinimum = $old.mac_minimum; MacAddressMaximum = $old.mac_maximum }
    }
    Set-HostSetting 'NUMA spanning (from the next start of the service on)' $now.NumaSpanningEnabled $old.numa_spanning @{ NumaSpanningEnabled = $old.numa_spanning }
    Set-HostSetting 'Enhanced session mode' $now.EnableEnhancedSessionMode $old.enhanced_session @{ EnableEnhancedSessionMode = $old.enhanced_session }
    Set-HostSetting 'Live migrations at a time' $now.MaximumVirtualMachineMigrations $old.live_migrations @{ MaximumVirtualMachineMigrations = $old.live_migrations }
    Set-HostSetting 'Storage migrations at a time' $now.MaximumStorageMigrations $old.storage_migrations @{ MaximumStorageMigrations = $old.storage_migrations }
}

# --- switches --------------------------------------------------------------------------------------------------------

function Find-Uplink($old, $free) {
    # the old server's own adapters: by an address set by hand, or the same device (for PCI cards with a serial number
    # the identifier holds it; for others it names model and slot). Nothing unless every one is found.
    $found = New-Object System.Collections.ArrayList
    foreach ($card in $old.uplinks) {
        $same = @($free | Where-Object { $card.mac -and $_.MacAddress -eq $card.mac })
        if (-not $same.Count) {
            $same = @($free | Where-Object { $card.pnp_id -and $_.PnPDeviceID -eq $card.pnp_id })
        }
        if ($same.Count -eq 1 -and $found -notcontains $same[0].Name) {
            [void] $found.Add($same[0].Name)
        }
    }
    if ($found.Count -eq $old.uplinks.Count) {
        $found
    }
}

function Select-Uplink($old) {
    if ($Uplink.ContainsKey($old.name)) {
        return $Uplink[$old.name]
    }
    $taken = @(Get-VMSwitch | ForEach-Object { $_.NetAdapterInterfaceDescriptions })
    $free = @(Get-NetAdapter -Physical -ErrorAction Stop | Where-Object { $taken -notcontains $_.InterfaceDescription })
    $known = @(Find-Uplink $old $free)
    if ($known.Count) {
        Write-Host -Object "Switch '$($old.name)' was on the device that is now: $($known -join ', ')"
        return $known
    }
    Write-Host -Object "Switch '$($old.name)' was on:"
    foreach ($card in $old.uplinks) {
        Write-Host -Object "  $($card.text)"
    }
    Write-Host -Object 'Physical adapters of this host that have no switch:'
    for ($i = 0; $i -lt $free.Count; $i++) {
        $nic = $free[$i]
        $line = '  {0}  {1}  {2}  {3}  {4}  {5}' -f ($i + 1), $nic.Name, $nic.InterfaceDescription, $nic.Status, $nic.MacAddress, $nic.PnPDeviceID
        Write-Host -Object $line
    }
    if ($WhatIfPreference) {
        return '(adapter that you will choose)'
    }
    $answer = Read-Host -Prompt "Number of its adapter (several with commas: a team; empty: leave this switch out)"
    foreach ($word in $answer.Split(',')) {
        $number = 0
        if ([int]::TryParse($word.Trim(), [ref] $number) -and $number -ge 1 -and $number -le $free.Count) {
            $free[$number - 1].Name
        }
    }
}

function New-OldSwitch($old) {
    $existing = @(Get-VMSwitch | Where-Object { $_.Name -eq $old.name })
    if ($existing.Count -and "$($existing[0].SwitchType)" -ne $old.kind) {
        Write-Left "switch '$($old.name)' is there, but $($existing[0].SwitchType) instead of $($old.kind)"
    }
    elseif ($existing.Count) {
        Write-Right "switch '$($old.name)'"
    }
    elseif ($old.kind -ne 'External') {
        if ($PSCmdlet.ShouldProcess($old.name, "Create switch ($($old.kind))")) {
            [void] (New-VMSwitch -Name $old.name -SwitchType $old.kind -Notes $old.notes -Confirm:$false)
        }
    }
    else {
        $adapters = @(Select-Uplink $old)
        $what = "Create switch (External) on $($adapters -join ', '); its network is interrupted"
        if (-not $adapters.Count) {
            Write-Left "switch '$($old.name)' was left out: no adapter chosen"
        }
        elseif ($PSCmdlet.ShouldProcess($old.name, $what)) {
            # the management adapter of a shared switch is made with it; further ones follow below
            $new = @{
                Name = $old.name
                NetAdapterName = $adapters
                AllowManagementOS = $old.host_adapter
                EnableEmbeddedTeaming = ($old.set -or $adapters.Count -gt 1)
                EnableIov = $old.sriov
                MinimumBandwidthMode = $old.bandwidth_mode
                Notes = $old.notes
                Confirm = $false
            }
            [void] (New-VMSwitch @new)
        }
    }
}

function Set-OldSwitch {
    foreach ($old in $data.host.switches) {
        try {
            New-OldSwitch $old
        }
        catch {
            Write-Failed "switch '$($old.name)'" $_
        }
    }
}

# --- addresses of the host -------------------------------------------------------------------------------------------

function Get-HostAdapter($old) {
    Get-VMNetworkAdapter -ManagementOS | Where-Object { $_.Name -eq $old.name -and $_.SwitchName -eq $old.switch }
}

function Set-HostAdapter($old) {
    $what = "adapter '$($old.name)' on switch '$($old.switch)'"
    if (-not @(Get-VMSwitch | Where-Object { $_.Name -eq $old.switch }).Count) {
        if ($WhatIfPreference) {
            Write-Host -Object "  $what : its addresses, when the switch is there"
        }
        else {
            Write-Left "$what : there is no such switch (yet)"
        }
        return
    }
    if (-not @(Get-HostAdapter $old).Count) {
        if ($PSCmdlet.ShouldProcess($what, 'Add to the host')) {
            Add-VMNetworkAdapter -ManagementOS -Name $old.name -SwitchName $old.switch -Confirm:$false
        }
    }
    $virtual = @(Get-HostAdapter $old)
    if (-not $virtual.Count) {
        return
    }
    # the uplink may have the same MAC address: it is hardware
    $mac = $virtual[0].MacAddress
    $nic = @(Get-NetAdapter -ErrorAction Stop | Where-Object { -not $_.HardwareInterface -and ($_.MacAddress -replace '-', '') -eq $mac })
    if ($nic.Count -ne 1) {
        Write-Left "$what : Windows does not show it yet. Run this again, or set by hand: $(@($old.addresses | ForEach-Object { $_.address }) -join ', ')"
        return
    }
    $index = $nic[0].InterfaceIndex
    $present = @(Get-NetIPAddress -InterfaceIndex $index -ErrorAction SilentlyContinue | ForEach-Object { $_.IPAddress })
    foreach ($address in $old.addresses) {
        if ($present -contains $address.address) {
            Write-Right "$what, $($address.address)"
        }
        elseif ($PSCmdlet.ShouldProcess($what, "Address $($address.address)/$($address.prefix)")) {
            Set-NetIPInterface -InterfaceIndex $index -AddressFamily $address.family -Dhcp Disabled -Confirm:$false -ErrorAction Stop
            [void] (New-NetIPAddress -InterfaceIndex $index -IPAddress $address.address -PrefixLength $address.prefix -Confirm:$false -ErrorAction Stop)
        }
    }
    $routes = @(Get-NetRoute -InterfaceIndex $index -ErrorAction SilentlyContinue | ForEach-Object { $_.NextHop })
    foreach ($gateway in $old.gateways) {
        if ($routes -notcontains $gateway.address -and $PSCmdlet.ShouldProcess($what, "Gateway $($gateway.address)")) {
            [void] (New-NetRoute -InterfaceIndex $index -DestinationPrefix $gateway.destination -NextHop $gateway.address -Confirm:$false -ErrorAction Stop)
        }
    }
    $servers = @(Get-DnsClientServerAddress -InterfaceIndex $index -ErrorAction Stop | ForEach-Object { $_.ServerAddresses })
    $missing = @($old.dns | Where-Object { $servers -notcontains $_ })
    if ($missing.Count -and $PSCmdlet.ShouldProcess($what, "DNS servers $($old.dns -join ', ')")) {
        Set-DnsClientServerAddress -InterfaceIndex $index -ServerAddresses $old.dns -Confirm:$false -ErrorAction Stop
    }
}

function Set-OldAddress {
    foreach ($old in $data.host.adapters) {
        try {
            Set-HostAdapter $old
        }
        catch {
            Write-Failed "adapter '$($old.name)'" $_
        }
    }
}

# --- certificates of virtual TPMs ------------------------------------------------------------------------------------

function Import-Guardian {
    # the store comes into being with the host's first guardian
    $store = 'Cert:\LocalMachine\Shielded VM Local Certificates'
    if (-not (Test-Path -LiteralPath $store)) {
        if ($PSCmdlet.ShouldProcess('UntrustedGuardian', "Create the host's own guardian")) {
            [void] (New-HgsGuardian -Name 'UntrustedGuardian' -GenerateCertificates -Confirm:$false -ErrorAction Stop)
        }
    }
    $files = @(Get-ChildItem -LiteralPath $GuardianFolder -Filter '*.pfx')
    if (-not $files.Count) {
        Write-Left "no certificates (*.pfx) in $GuardianFolder"
        return
    }
    $password = $null
    foreach ($file in $files) {
        $thumbprint = $file.BaseName
        if (Test-Path -LiteralPath "$store\$thumbprint") {
            Write-Right "certificate $thumbprint"
        }
        elseif ($PSCmdlet.ShouldProcess($file.Name, 'Import the certificate with its private key')) {
            if ($null -eq $password) {
                $password = Read-Host -Prompt 'Password of the certificates' -AsSecureString
            }
            try {
                [void] (Import-PfxCertificate -FilePath $file.FullName -CertStoreLocation $store -Password $password -Exportable -Confirm:$false)
            }
            catch {
                Write-Failed "certificate $thumbprint" $_
                $password = $null # it may have been the wrong one: ask again for the next
            }
        }
    }
}

# --- in this order ---------------------------------------------------------------------------------------------------

$text = Get-Content -LiteralPath (Join-Path -Path $PSScriptRoot -ChildPath 'restore.json') -Raw -Encoding UTF8
$data = $text | ConvertFrom-Json
if ($data.format -ne 1) {
    throw "restore.json is of format $($data.format); this script knows format 1."
}
if ($null -eq $data.host) {
    throw 'The settings of the host were not captured. Virtual machines can be put back all the same: Restore-VM.ps1'
}
Write-Host -Object "Settings of $($data.host.name), captured by Rehost $($data.rehost)"

function Restore-Part([string] $what) {
    # one part that fails does not keep the others from being done
    try {
        switch ($what) {
            'disks' { Enable-OldDisk }
            'drive letters' { Set-OldLetter }
            'settings of Hyper-V' { Set-OldSetting }
            'switches' { Set-OldSwitch }
            'addresses' { Set-OldAddress }
            'certificates' { Import-Guardian }
        }
    }
    catch {
        Write-Failed $what $_
    }
}

if (-not $SkipDisks) {
    Restore-Part 'disks'
}
Restore-Part 'drive letters'
Restore-Part 'settings of Hyper-V'
Restore-Part 'switches'
if (-not $SkipAddresses) {
    Restore-Part 'addresses'
}
if ($GuardianFolder) {
    Restore-Part 'certificates'
}

Write-Host -Object ''
if ($failed.Count) {
    Write-Host -Object "$($failed.Count) steps failed:"
    $failed | ForEach-Object { Write-Host -Object "  - $_" }
}
if ($left.Count) {
    Write-Host -Object "$($left.Count) things are left to do by hand:"
    $left | ForEach-Object { Write-Host -Object "  - $_" }
}
if ($WhatIfPreference) {
    Write-Host -Object 'Nothing was changed. Run it without -WhatIf to change it; each step is asked for.'
}
else {
    Write-Host -Object 'Next: .\Restore-VM.ps1 -WhatIf'
}
if ($failed.Count) {
    exit 1
}
if ($left.Count) {
    exit 3
}
