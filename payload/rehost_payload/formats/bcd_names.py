"""Names of boot store objects, elements and object types, as bcdedit prints them.

An element's number is its class (first hex digit: 1 library, 2 application, 3 device, 4 setup template, 5 OEM), its
format (second digit) and a subtype; what an application element means depends on the application of its object.
Numbers without a name are shown as bcdedit shows them: custom:250000aa.
"""

from __future__ import annotations

BOOTMGR = "9dea862c-5cdd-4e70-acc1-f32b344d4795"
FWBOOTMGR = "a5a30fa2-3d06-4e9f-b5f4-a01df9d1fcba"
MEMDIAG = "b2721d73-1db4-4c62-bf78-c548a880142d"
NTLDR = "466f5a88-0af2-4f76-9038-095b170dc21c"
GLOBAL_SETTINGS = "7ea2e1ac-2e61-4728-aaa3-896d9d0a9f0e"
BOOTLOADER_SETTINGS = "6efb52bf-1766-41db-a6b3-0ee5eff72bd7"
RESUMELOADER_SETTINGS = "1afa9c49-16ab-4a5c-901b-212802da9460"
DEBUGGER_SETTINGS = "4636856e-540f-4170-a130-a84776f4c654"
EMS_SETTINGS = "0ce4991b-e6b3-4b16-b23c-5e0d9250e5d9"
BAD_MEMORY = "5189b25c-5558-4bf2-bca4-289b11bd29e2"
HYPERVISOR_SETTINGS = "7ff607e0-4395-11db-b0de-0800200c9a66"
RAMDISK_OPTIONS = "ae5534e0-a924-466c-b836-758539a3ee3a"

WELL_KNOWN = {
    BOOTMGR: "bootmgr",
    FWBOOTMGR: "fwbootmgr",
    MEMDIAG: "memdiag",
    NTLDR: "ntldr",
    GLOBAL_SETTINGS: "globalsettings",
    BOOTLOADER_SETTINGS: "bootloadersettings",
    RESUMELOADER_SETTINGS: "resumeloadersettings",
    DEBUGGER_SETTINGS: "dbgsettings",
    EMS_SETTINGS: "emssettings",
    BAD_MEMORY: "badmemory",
    HYPERVISOR_SETTINGS: "hypervisorsettings",
    RAMDISK_OPTIONS: "ramdiskoptions",
}

# object types (Description\Type)
TYPE_FWBOOTMGR = 0x10100001
TYPE_BOOTMGR = 0x10100002
TYPE_FIRMWARE_APPLICATION = 0x101FFFFF  # a cached Boot#### variable
TYPE_OSLOADER = 0x10200003
TYPE_RESUME = 0x10200004
TYPE_MEMDIAG = 0x10200005
TYPE_INHERIT = 0x20100000
TYPE_INHERIT_OSLOADER = 0x20200003
TYPE_INHERIT_RESUME = 0x20200004
TYPE_DEVICE = 0x30000000

# elements that other modules name
DEVICE = 0x11000001
PATH = 0x12000002
DESCRIPTION = 0x12000004
LOCALE = 0x12000005
INHERIT = 0x14000006
RECOVERY_SEQUENCE = 0x14000008
DISPLAY_MESSAGE = 0x15000065
DEBUG_TYPE = 0x15000011
RECOVERY_ENABLED = 0x16000009
BAD_MEMORY_ACCESS = 0x1600000B
BOOT_EMS = 0x16000020
GRAPHICS_MODE_DISABLED = 0x16000046
ISOLATED_CONTEXT = 0x16000060
ALLOWED_IN_MEMORY_SETTINGS = 0x17000077
BOOTMGR_DEFAULT = 0x23000003
BOOTMGR_RESUME_OBJECT = 0x23000006
BOOTMGR_DISPLAY_ORDER = 0x24000001
BOOTMGR_BOOT_SEQUENCE = 0x24000002
BOOTMGR_TOOLS_DISPLAY_ORDER = 0x24000010
BOOTMGR_TIMEOUT = 0x25000004
OSLOADER_OS_DEVICE = 0x21000001
OSLOADER_SYSTEM_ROOT = 0x22000002
OSLOADER_RESUME_OBJECT = 0x23000003
OSLOADER_NX = 0x25000020
OSLOADER_WINPE = 0x26000022
OSLOADER_BOOT_MENU_POLICY = 0x250000C2
OSLOADER_BOOT_STATUS_POLICY = 0x250000E0
OSLOADER_HYPERVISOR_LAUNCH_TYPE = 0x250000F0
OSLOADER_HYPERVISOR_DEBUG_TYPE = 0x250000F3
OSLOADER_HYPERVISOR_DEBUG_PORT = 0x250000F4
OSLOADER_HYPERVISOR_BAUDRATE = 0x250000F5
RESUME_FILE_DEVICE = 0x21000001
RESUME_FILE_PATH = 0x22000002
RESUME_BOOT_MENU_POLICY = 0x25000008
RESUME_DEBUG_OPTION_ENABLED = 0x26000006
RAMDISK_SDI_DEVICE = 0x31000003
RAMDISK_SDI_PATH = 0x32000004
RECOVERY_OS = 0x46000010

_APPLICATIONS = {
    1: "fwbootmgr",
    2: "bootmgr",
    3: "osloader",
    4: "resume",
    5: "memdiag",
    6: "ntldr",
    7: "setupldr",
    8: "bootsector",
    9: "startup",
    10: "bootapp",
    0xFFFFF: "firmware",
}
_OBJECT_TITLES = {
    "fwbootmgr": "Firmware Boot Manager",
    "bootmgr": "Windows Boot Manager",
    "osloader": "Windows Boot Loader",
    "resume": "Resume from Hibernate",
    "memdiag": "Windows Memory Tester",
    "ntldr": "Windows Legacy OS Loader",
    "setupldr": "Windows Setup Loader",
    "bootsector": "Real-mode Boot Sector",
    "startup": "Real-mode Application",
    "bootapp": "Boot Application",
    "firmware": "Firmware Application",
}

_LIBRARY = """
11000001 device                 12000002 path                    12000004 description
12000005 locale                 14000006 inherit                 15000007 truncatememory
14000008 recoverysequence       16000009 recoveryenabled         1700000a badmemorylist
1600000b badmemoryaccess        1500000c firstmegabytepolicy     1500000d relocatephysical
1500000e avoidlowmemory         1600000f traditionalkseg         16000010 bootdebug
15000011 debugtype              15000012 debugaddress            15000013 debugport
15000014 baudrate               15000015 channel                 12000016 targetname
16000017 noumex                 15000018 debugstart              12000019 busparams
1500001a hostip                 1500001b port                    1600001c dhcp
1200001d key                    1600001e vm                      16000020 bootems
15000022 emsport                15000023 emsbaudrate             12000030 loadoptions
16000031 attemptnonbcdstart     16000040 advancedoptions         16000041 optionsedit
15000042 keyringaddress         11000043 bootstatdevice          12000044 bootstatfilepath
16000045 preservebootstat       16000046 graphicsmodedisabled    15000047 configaccesspolicy
16000048 nointegritychecks      16000049 testsigning             1200004a fontpath
1500004b integrityservices      1500004c volumebandid            16000050 extendedinput
15000051 initialconsoleinput    15000052 graphicsresolution      16000053 restartonfailure
16000054 highestmode            16000060 isolatedcontext         15000065 displaymessage
15000066 displaymessageoverride 16000067 nobootuxlogo            16000068 nobootuxtext
16000069 nobootuxprogress       1600006a nobootuxfade            1600006c bootuxdisabled
16000071 bootuxnologo           16000072 nokeyboard              16000074 bootshutdowndisabled
15000075 performancefrequency   15000076 securebootrawpolicy     17000077 allowedinmemorysettings
15000079 bootuxtransitiontime   1600007a mobilegraphics          1600007b forcefipscrypto
1500007d booterrorux            1600007e flightsigning           1500007f measuredbootlogformat
15000080 displayrotation        15000081 logcontrol              16000082 nofirmwaresync
11000084 windowssyspart         16000087 numlock
"""
_BOOTMGR = """
24000001 displayorder           24000002 bootsequence            23000003 default
25000004 timeout                26000005 resume                  23000006 resumeobject
24000007 startupsequence        24000010 toolsdisplayorder       26000020 displaybootmenu
26000021 noerrordisplay         21000022 bcddevice               22000023 bcdfilepath
26000028 processcustomactionsfirst 27000030 customactions        26000031 persistbootsequence
26000032 skipstartupsequence
"""
_OSLOADER = """
21000001 osdevice               22000002 systemroot              23000003 resumeobject
26000004 stampdisks             26000010 detecthal               22000011 kernel
22000012 hal                    22000013 dbgtransport            25000020 nx
25000021 pae                    26000022 winpe                   26000024 nocrashautoreboot
26000025 lastknowngood          26000026 oslnointegritychecks    26000027 osltestsigning
26000030 nolowmem               25000031 removememory            25000032 increaseuserva
25000033 perfmem                26000040 vga                     26000041 quietboot
26000042 novesa                 26000043 novga                   25000050 clustermodeaddressing
26000051 usephysicaldestination 25000052 restrictapicluster      22000053 evstore
26000054 uselegacyapicmode      26000060 onecpu                  25000061 numproc
26000062 maxproc                25000063 configflags             26000064 maxgroup
26000065 groupaware             25000066 groupsize               26000070 usefirmwarepcisettings
25000071 msi                    25000072 pciexpress              25000080 safeboot
26000081 safebootalternateshell 26000090 bootlog                 26000091 sos
260000a0 debug                  260000a1 halbreakpoint           260000a2 useplatformclock
260000a3 forcelegacyplatform    260000a4 useplatformtick         260000a5 disabledynamictick
250000a6 tscsyncpolicy          260000b0 ems                     250000c0 forcefailure
250000c1 driverloadfailurepolicy 250000c2 bootmenupolicy         260000c3 onetimeadvancedoptions
260000c4 onetimeoptionsedit     250000e0 bootstatuspolicy        260000e1 disableelamdrivers
250000f0 hypervisorlaunchtype   220000f1 hypervisorpath          260000f2 hypervisordebug
250000f3 hypervisordebugtype    250000f4 hypervisordebugport     250000f5 hypervisorbaudrate
250000f6 hypervisorchannel      250000f7 bootux                  260000f8 hypervisordisableslat
220000f9 hypervisorbusparams    250000fa hypervisornumproc       250000fb hypervisorrootprocpernode
260000fc hypervisoruselargevtlb 250000fd hypervisorhostip        250000fe hypervisorhostport
250000ff hypervisordebugpages   25000100 tpmbootentropy          22000110 hypervisorusekey
22000112 hypervisorproductskutype 25000113 hypervisorrootproc    26000114 hypervisordhcp
25000115 hypervisoriommupolicy  26000116 hypervisorusevapic      22000117 hypervisorloadoptions
25000118 hypervisormsrfilterpolicy 25000119 hypervisormmionxpolicy 2500011a hypervisorschedulertype
25000120 xsavepolicy            25000125 xsaveaddfeature0        25000129 xsaveremovefeature
2500012a xsaveprocessorsmask    2500012b xsavedisable            25000130 claimedtpmcounter
"""
_RESUME = """
21000001 filedevice             22000002 filepath                26000003 customsettings
26000004 pae                    21000005 associatedosdevice      26000006 debugoptionenabled
25000007 bootux                 25000008 bootmenupolicy          26000024 hormenabled
"""
_MEMDIAG = """
25000001 passcount              25000002 testmix                 25000003 failurecount
26000003 cacheenable            25000004 testtofail              26000004 failuresenabled
25000005 strideminimum          26000005 cacheenable             25000006 invcoff
25000007 stridemaximum          25000008 chckrfailcount          25000009 randomseed
"""
_NTLDR = "22000001 bpbstring"
_DEVICE = """
35000001 ramdiskimageoffset     35000002 ramdisktftpclientport   31000003 ramdisksdidevice
32000004 ramdisksdipath         35000005 ramdiskimagelength      36000006 exportascd
35000007 ramdisktftpblocksize   35000008 ramdisktftpwindowsize   36000009 ramdiskmcenabled
3600000a ramdiskmctftpfallback  3600000b ramdisktftpvarwindow    45000001 devicetype
42000002 applicationrelativepath 42000003 ramdiskdevicerelativepath 46000004 omitosloaderelements
47000006 elementstomigrate      46000010 recoveryos
"""

# what bcdedit prints instead of an integer; by application, "" for library elements
_INTEGERS: dict[tuple[str, int], tuple[str, ...]] = {
    ("", 0x15000011): ("Serial", "1394", "USB", "NET", "Local"),
    ("", 0x15000065): ("Default", "Resume", "HyperV", "Recovery", "StartupRepair"),
    ("", 0x15000066): ("Default", "Resume", "HyperV", "Recovery", "StartupRepair"),
    ("osloader", 0x25000020): ("OptIn", "OptOut", "AlwaysOff", "AlwaysOn"),
    ("osloader", 0x25000021): ("Default", "ForceEnable", "ForceDisable"),
    ("osloader", 0x25000080): ("Minimal", "Network", "DsRepair"),
    ("osloader", 0x250000C2): ("Legacy", "Standard"),
    ("osloader", 0x250000E0): (
        "DisplayAllFailures",
        "IgnoreAllFailures",
        "IgnoreShutdownFailures",
        "IgnoreBootFailures",
    ),
    ("osloader", 0x250000F0): ("Off", "Auto"),
    ("osloader", 0x250000F3): ("Serial", "1394", "None", "NET"),
    ("resume", 0x25000008): ("Legacy", "Standard"),
}


def _table(text: str) -> dict[int, str]:
    words = text.split()
    return {int(number, 16): name for number, name in zip(words[::2], words[1::2], strict=True)}


_COMMON_NAMES = _table(_LIBRARY) | _table(_DEVICE)
_APPLICATION_NAMES = {
    "fwbootmgr": _table(_BOOTMGR),
    "bootmgr": _table(_BOOTMGR),
    "osloader": _table(_OSLOADER),
    "resume": _table(_RESUME),
    "memdiag": _table(_MEMDIAG),
    "ntldr": _table(_NTLDR),
}


def application(object_type: int | None) -> str | None:
    """ "bootmgr", "osloader", ... of an application or inherit object; None for others and for unknown ones."""
    if object_type is None or object_type >> 28 not in (1, 2):
        return None
    return _APPLICATIONS.get(object_type & 0xFFFFF)


def object_type_title(object_type: int | None) -> str:
    """What bcdedit prints above an object: "Windows Boot Loader", "Inherit osloader", "Device options"."""
    if object_type is None:
        return "Object without type"
    kind = application(object_type)
    if object_type >> 28 == 1 and kind is not None:
        return _OBJECT_TITLES[kind]
    if object_type >> 28 == 2:
        return "Settings" if kind is None else f"Settings for {kind}"
    if object_type >> 28 == 3:
        return "Device options"
    return f"Object of type {object_type:08x}"


def object_name(guid: str) -> str:
    """ "{bootmgr}" for a well-known object, else the GUID in braces."""
    return f"{{{WELL_KNOWN.get(guid, guid)}}}"


def element_name(element_type: int, object_type: int | None = None) -> str:
    """bcdedit's name of an element of an object of this type, or custom:%08x."""
    name = _COMMON_NAMES.get(element_type)
    if name is None:
        name = _APPLICATION_NAMES.get(application(object_type) or "", {}).get(element_type)
    return name or f"custom:{element_type:08x}"


def integer_name(element_type: int, value: int, object_type: int | None = None) -> str | None:
    """bcdedit's word for an integer of an enumeration ("OptOut"), None where it prints the number."""
    for kind in ("", application(object_type) or ""):
        words = _INTEGERS.get((kind, element_type), ())
        if value < len(words):
            return words[value]
    return None
