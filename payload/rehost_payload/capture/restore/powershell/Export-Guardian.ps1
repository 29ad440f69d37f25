<#
.SYNOPSIS
Saves the certificates with which virtual TPMs and shielded machines of this host are locked.

.DESCRIPTION
Run this on the OLD host while it still starts, before it is installed afresh. Without these certificates and their
private keys a machine with a virtual TPM does not start on any other installation, and the keys cannot be taken from
the disk of a host that does not run.

Each certificate goes into a file of its own (<thumbprint>.pfx) under a password that you choose. Keep folder and
password apart: who has both can open the machines' TPMs. Put them back with Restore-Host.ps1 -GuardianFolder.

Exit codes: 0 all certificates are in the folder, or there are none; 3 not all of them.

.PARAMETER Folder
Where the files go, for instance on the external disk. It is made if it is not there.

.EXAMPLE
.\Export-Guardian.ps1 -Folder E:\Guardian
#>
#Requires -Version 5.1
#Requires -RunAsAdministrator
[CmdletBinding(SupportsShouldProcess = $true, ConfirmImpact = 'Medium')]
param(
    [string] $Folder = (Join-Path -Path $PSScriptRoot -ChildPath 'Guardian')
)

Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'

$store = 'Cert:\LocalMachine\Shielded VM Local Certificates'
if (-not (Test-Path -LiteralPath $store)) {
    Write-Host -Object 'This host has no such certificates: no machine on it has a virtual TPM. Nothing has to be saved.'
    return
}
$certificates = @(Get-ChildItem -LiteralPath $store)
$locked = @($certificates | Where-Object { -not $_.HasPrivateKey })
foreach ($certificate in $locked) {
    Write-Warning -Message "$($certificate.Subject): its private key is not on this host, so it cannot be saved here."
}
$saved = 0
$password = $null
foreach ($certificate in @($certificates | Where-Object { $_.HasPrivateKey })) {
    $file = Join-Path -Path $Folder -ChildPath "$($certificate.Thumbprint).pfx"
    if (Test-Path -LiteralPath $file) {
        Write-Host -Object "  already there: $file"
        $saved++
    }
    elseif ($PSCmdlet.ShouldProcess($certificate.Subject, "Save with its private key as $file")) {
        if ($null -eq $password) {
            $password = Read-Host -Prompt 'Choose a password for the certificates' -AsSecureString
            $again = Read-Host -Prompt 'The same again' -AsSecureString
            $one = (New-Object System.Net.NetworkCredential('', $password)).Password
            if (-not $one -or $one -cne (New-Object System.Net.NetworkCredential('', $again)).Password) {
                throw 'The two are empty or not the same. Nothing was saved.'
            }
        }
        [void] [IO.Directory]::CreateDirectory($Folder)
        [void] (Export-PfxCertificate -Cert $certificate -FilePath $file -Password $password -NoClobber -Confirm:$false)
        $saved++
    }
}
Write-Host -Object "$saved of $($certificates.Count) certificates are in $Folder"
if ($saved -lt $certificates.Count) {
    exit 3
}
