<#
.SYNOPSIS
Gives a freshly installed Hyper-V host the settings of the old one.

.DESCRIPTION
Reads restore.json beside this script. In this order: disks online and writable, drive letters as they were, default
folders, range of MAC addresses, virtual switches of the same names, the host's own addresses on them, and, if asked
for, the certificates of virtual TPMs.

Each change is shown and asked for. What is right already is left alone: after an interruption run it again. Nothing is
formatted, deleted or overwritten. Run it with -WhatIf first, which only shows.

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
$gb = 1073741824

function Write-Left([string] $text) {
    [void] $left.Add($text)
    Write-Warning -Message $text
}

function Write-Right([string] $text) {
    Write-Host -Object "  already right: $text"
}

# --- disks -----------------------------------------------------------------------------------------------------------

function Enable-OldDisk {
    $others = @(Get-Disk | Where-Object { -not $_.IsSystem -and -not $_.IsBoot })
    foreach ($disk in @($others | Where-Object { $_.IsOffline })) {
        $what = 'disk {0} ({1}, {2:N0} GB)' -f $disk.Number, $disk.FriendlyName, ($disk.Size / $gb)
        # Windows takes one of two disks with the same signature offline; online it would get another signature
        if (@('Policy', '1') -notcontains "$($disk.OfflineReason)") {
            Write-Left "$what stays offline, Windows' reason: $($disk.OfflineReason)"
        }
        elseif ($PSCmdlet.ShouldProcess($what, 'Bring online')) {
            Set-Disk -Number $disk.Number -IsOffline $false
        }
    }
    foreach ($disk in @(Get-Disk | Where-Object { -not $_.IsOffline -and $_.IsReadOnly })) {
        $what = 'disk {0} ({1}, {2:N0} GB)' -f $disk.Number, $disk.FriendlyName, ($disk.Size / $gb)
        if ($PSCmdlet.ShouldProcess($what, 'Make writable')) {
            Set-Disk -Number $disk.Number -IsReadOnly $false
        }
    }
}

# --- drive letters ---------------------------------------------------------------------------------------------------

function Find-OldPartition($old) {
    # what Windows itself remembers a letter by: the partition's GUID, or the disk's signature and the offset
    if ($old.partition_guid) {
        return Get-Partition | Where-Object { $_.Guid -eq $old.partition_guid }
    }
    if ($null -ne $old.signature) {
        $numbers = @(Get-Disk | Where-Object { $_.Signature -eq $old.signature } | ForEach-Object { $_.Number })
        return Get-Partition | Where-Object { $numbers -contains $_.DiskNumber -and $_.Offset -eq $old.offset }
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
            Set-Partition -DiskNumber $found[0].DiskNumber -PartitionNumber $found[0].PartitionNumber -NewDriveLetter $old.letter -Confirm:$false
        }
    }
}

# --- settings of the host --------------------------------------------------------------------------------------------

function Test-Drive([string] $path) {
    # an array that is gone must not keep the switches from being made
    $root = [IO.Path]::GetPathRoot($path)
    if (-not [IO.Directory]::Exists($root)) {
        Write-Left "default folder $path : there is no drive $root (yet)"
        return $false
    }
    return $true
}

function Set-OldSetting {
    $now = Get-VMHost
    $old = $data.host
    if ($old.machine_path -and (Test-Drive $old.machine_path) -and $now.VirtualMachinePath -ne $old.machine_path) {
        if ($PSCmdlet.ShouldProcess($old.machine_path, 'Default folder of virtual machines')) {
            [void] [IO.Directory]::CreateDirectory($old.machine_path)
            Set-VMHost -VirtualMachinePath $old.machine_path -Confirm:$false
        }
    }
    if ($old.disk_path -and (Test-Drive $old.disk_path) -and $now.VirtualHardDiskPath -ne $old.disk_path) {
        if ($PSCmdlet.ShouldProcess($old.disk_path, 'Default folder of virtual hard disks')) {
            [void] [IO.Directory]::CreateDirectory($old.disk_path)
            Set-VMHost -VirtualHardDiskPath $old.disk_path -Confirm:$false
        }
    }
    # machines keep the addresses they have; a second host with the same range would give them out again
    $range = "$($old.mac_minimum) - $($old.mac_maximum)"
    if ($old.mac_minimum -and "$($now.MacAddressMinimum) - $($now.MacAddressMaximum)" -ne $range) {
        if ($PSCmdlet.ShouldProcess($range, 'Range of MAC addresses')) {
            Set-VMHost -MacAddressMinimum $old.mac_minimum -MacAddressMaximum $old.mac_maximum -Confirm:$false
        }
    }
    if ($null -ne $old.numa_spanning -and $now.NumaSpanningEnabled -ne $old.numa_spanning) {
        if ($PSCmdlet.ShouldProcess("$($old.numa_spanning)", 'NUMA spanning (from the next start of the service on)')) {
            Set-VMHost -NumaSpanningEnabled $old.numa_spanning -Confirm:$false
        }
    }
    if ($null -ne $old.enhanced_session -and $now.EnableEnhancedSessionMode -ne $old.enhanced_session) {
        if ($PSCmdlet.ShouldProcess("$($old.enhanced_session)", 'Enhanced session mode')) {
            Set-VMHost -EnableEnhancedSessionMode $old.enhanced_session -Confirm:$false
        }
    }
    if ($null -ne $old.live_migrations -and $now.MaximumVirtualMachineMigrations -ne $old.live_migrations) {
        if ($PSCmdlet.ShouldProcess("$($old.live_migrations)", 'Live migrations at a time')) {
            Set-VMHost -MaximumVirtualMachineMigrations $old.live_migrations -Confirm:$false
        }
    }
    if ($null -ne $old.storage_migrations -and $now.MaximumStorageMigrations -ne $old.storage_migrations) {
        if ($PSCmdlet.ShouldProcess("$($old.storage_migrations)", 'Storage migrations at a time')) {
            Set-VMHost -MaximumStorageMigrations $old.storage_migrations -Confirm:$false
        }
    }
}

# --- switches --------------------------------------------------------------------------------------------------------

function Select-Uplink($old) {
    if ($Uplink.ContainsKey($old.name)) {
        return $Uplink[$old.name]
    }
    $taken = @(Get-VMSwitch | ForEach-Object { $_.NetAdapterInterfaceDescriptions })
    $free = @(Get-NetAdapter -Physical | Where-Object { $taken -notcontains $_.InterfaceDescription })
    $same = @($free | Where-Object { $old.uplink_macs -contains $_.MacAddress })
    if ($same.Count -and $same.Count -eq @($old.uplink_macs).Count) {
        return $same | ForEach-Object { $_.Name } # the old server's own adapters
    }
    Write-Host -Object "Switch '$($old.name)' was on: $(@($old.uplinks) -join '; ')"
    for ($i = 0; $i -lt $free.Count; $i++) {
        $nic = $free[$i]
        $line = '  {0}  {1}  {2}  {3}  {4}' -f ($i + 1), $nic.Name, $nic.InterfaceDescription, $nic.Status, $nic.MacAddress
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

function New-OldSwitch {
    foreach ($old in $data.host.switches) {
        $existing = @(Get-VMSwitch | Where-Object { $_.Name -eq $old.name })
        if ($existing.Count -and "$($existing[0].SwitchType)" -ne $old.kind) {
            Write-Left "switch '$($old.name)' is there, but $($existing[0].SwitchType) instead of $($old.kind)"
            continue
        }
        if ($existing.Count) {
            Write-Right "switch '$($old.name)'"
            continue
        }
        if ($old.kind -ne 'External') {
            if ($PSCmdlet.ShouldProcess($old.name, "Create switch ($($old.kind))")) {
                [void] (New-VMSwitch -Name $old.name -SwitchType $old.kind -Notes $old.notes -Confirm:$false)
            }
            continue
        }
        $adapters = @(Select-Uplink $old)
        if (-not $adapters.Count) {
            Write-Left "switch '$($old.name)' was left out: no adapter chosen"
            continue
        }
        $what = "Create switch (External) on $($adapters -join ', '); its network is interrupted"
        if ($PSCmdlet.ShouldProcess($old.name, $what)) {
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

# --- addresses of the host -------------------------------------------------------------------------------------------

function Get-HostAdapter($old) {
    Get-VMNetworkAdapter -ManagementOS | Where-Object { $_.Name -eq $old.name -and $_.SwitchName -eq $old.switch }
}

function Set-OldAddress {
    foreach ($old in $data.host.adapters) {
        $what = "adapter '$($old.name)' on switch '$($old.switch)'"
        if (-not @(Get-VMSwitch | Where-Object { $_.Name -eq $old.switch }).Count) {
            Write-Left "$what : there is no such switch (yet)"
            continue
        }
        if (-not @(Get-HostAdapter $old).Count) {
            if ($PSCmdlet.ShouldProcess($what, 'Add to the host')) {
                Add-VMNetworkAdapter -ManagementOS -Name $old.name -SwitchName $old.switch -Confirm:$false
            }
        }
        $virtual = @(Get-HostAdapter $old)
        if (-not $virtual.Count) {
            continue
        }
        if ($null -ne $old.vlan -and $PSCmdlet.ShouldProcess($what, "VLAN $($old.vlan)")) {
            Set-VMNetworkAdapterVlan -VMNetworkAdapter $virtual[0] -Access -VlanId $old.vlan -Confirm:$false
        }
        # the uplink may have the same MAC address: it is hardware
        $mac = $virtual[0].MacAddress
        $nic = @(Get-NetAdapter | Where-Object { -not $_.HardwareInterface -and ($_.MacAddress -replace '-', '') -eq $mac })
        if ($nic.Count -ne 1) {
            Write-Left "$what : its addresses have to be set by hand: $(@($old.addresses | ForEach-Object { $_.address }) -join ', ')"
            continue
        }
        $index = $nic[0].InterfaceIndex
        $present = @(Get-NetIPAddress -InterfaceIndex $index -ErrorAction SilentlyContinue | ForEach-Object { $_.IPAddress })
        foreach ($address in $old.addresses) {
            if ($present -contains $address.address) {
                Write-Right "$what, $($address.address)"
            }
            elseif ($PSCmdlet.ShouldProcess($what, "Address $($address.address)/$($address.prefix)")) {
                Set-NetIPInterface -InterfaceIndex $index -Dhcp Disabled -Confirm:$false
                [void] (New-NetIPAddress -InterfaceIndex $index -IPAddress $address.address -PrefixLength $address.prefix -Confirm:$false)
            }
        }
        $routes = @(Get-NetRoute -InterfaceIndex $index -ErrorAction SilentlyContinue | ForEach-Object { $_.NextHop })
        foreach ($gateway in $old.gateways) {
            if ($routes -notcontains $gateway.address -and $PSCmdlet.ShouldProcess($what, "Gateway $($gateway.address)")) {
                [void] (New-NetRoute -InterfaceIndex $index -DestinationPrefix $gateway.destination -NextHop $gateway.address -Confirm:$false)
            }
        }
        $servers = @(Get-DnsClientServerAddress -InterfaceIndex $index | ForEach-Object { $_.ServerAddresses })
        $missing = @($old.dns | Where-Object { $servers -notcontains $_ })
        if ($missing.Count -and $PSCmdlet.ShouldProcess($what, "DNS servers $($old.dns -join ', ')")) {
            Set-DnsClientServerAddress -InterfaceIndex $index -ServerAddresses $old.dns -Confirm:$false
        }
    }
}

# --- certificates of virtual TPMs ------------------------------------------------------------------------------------

function Import-Guardian {
    # the store comes into being with the host's first guardian
    $store = 'Cert:\LocalMachine\Shielded VM Local Certificates'
    if (-not (Test-Path -LiteralPath $store)) {
        if ($PSCmdlet.ShouldProcess('UntrustedGuardian', "Create the host's own guardian")) {
            [void] (New-HgsGuardian -Name 'UntrustedGuardian' -GenerateCertificates -Confirm:$false)
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
            [void] (Import-PfxCertificate -FilePath $file.FullName -CertStoreLocation $store -Password $password -Exportable -Confirm:$false)
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

if (-not $SkipDisks) {
    Enable-OldDisk
}
Set-OldLetter
Set-OldSetting
New-OldSwitch
if (-not $SkipAddresses) {
    Set-OldAddress
}
if ($GuardianFolder) {
    Import-Guardian
}

Write-Host -Object ''
if ($left.Count) {
    Write-Host -Object "$($left.Count) things are left to do:"
    $left | ForEach-Object { Write-Host -Object "  - $_" }
}
elseif ($WhatIfPreference) {
    Write-Host -Object 'Nothing was changed. Run it without -WhatIf to change it; each step is asked for.'
}
else {
    Write-Host -Object 'Done. Next: .\Restore-VM.ps1 -WhatIf'
}
