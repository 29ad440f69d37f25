"""Driver packages made by the tests: INF texts in the shapes that vendors use."""

from __future__ import annotations

STRINGS = """
[Strings]
Vendor = "Example Storage, Inc."
Disk = "Installation disk"
Card.DeviceDesc = "Example RAID 8000; 8 ports"
SPSVCINST_ASSOCSERVICE = 0x00000002
SERVICE_KERNEL_DRIVER = 1
SERVICE_BOOT_START = 0
SERVICE_ERROR_NORMAL = 1
REG_DWORD = 0x00010001
"""

SERVICE = r"""
[Card_Inst.Services]
AddService = exraid, %SPSVCINST_ASSOCSERVICE%, Card_Service, Card_Log

[Card_Service]
DisplayName    = %Card.DeviceDesc%
ServiceType    = %SERVICE_KERNEL_DRIVER%
StartType      = %SERVICE_BOOT_START%   ; at boot
ErrorControl   = %SERVICE_ERROR_NORMAL%
ServiceBinary  = %12%\exraid.sys
LoadOrderGroup = "SCSI Miniport"
AddReg         = Card_Parameters

[Card_Parameters]
HKR, "Parameters\PnpInterface", "5", %REG_DWORD%, 1
HKR, "Parameters", "BusType", %REG_DWORD%, 0x00000008

[Card_Log]
AddReg = Card_Log_Reg
[Card_Log_Reg]
HKR,,EventMessageFile,0x00020000,"%%SystemRoot%%\System32\IoLogMsg.dll"
HKR,,TypesSupported,0x00010001,7
"""


def package(
    *,
    decoration: str = "NTamd64",
    models: str = r"%Card.DeviceDesc% = Card_Inst, PCI\VEN_9005&DEV_028F",
    version: str = "01/02/2020,1.2.3.4",
    extra_version: str = "",
    install: str = "CopyFiles = @exraid.sys",
    service: str = SERVICE,
    more: str = "",
) -> str:
    """The text of a RAID driver's INF; every part can be replaced."""
    section = f"Models.{decoration}" if decoration else "Models"
    return f"""; made by a test
[Version]
Signature   = "$Windows NT$"
Class       = SCSIAdapter
ClassGuid   = {{4D36E97B-E325-11CE-BFC1-08002BE10318}}
Provider    = %Vendor%
CatalogFile = exraid.cat
DriverVer   = {version}
{extra_version}
[SourceDisksNames]
1 = %Disk%,,,
[SourceDisksFiles]
exraid.sys = 1
[DestinationDirs]
DefaultDestDir = 12
[Manufacturer]
%Vendor% = Models{"," + decoration if decoration else ""}
[{section}]
{models}
[Card_Inst]
{install}
{service}
{more}
{STRINGS}"""


def encoded(text: str, encoding: str = "utf-16") -> bytes:
    """With CRLF, as on a vendor's disk; "utf-16" and "utf-8-sig" come with a byte order mark."""
    return text.replace("\n", "\r\n").encode(encoding)
