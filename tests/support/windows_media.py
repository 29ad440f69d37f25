"""Windows media made by code: boot files that look like Microsoft's to whoever reads them, and a boot.wim by wimlib.

Nothing in them runs. The boot stores are real hives that load sources\\boot.wim from memory, as those of Windows do.
"""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pycdlib
from asn1crypto import algos, cms, x509

from rehost_builder.media.fat import fat_image
from rehost_payload.formats.bcd import encode_value
from rehost_payload.formats.bcd_devices import BootDevice, RamdiskDevice
from support import hives
from support.hives import Value, dword, sz
from support.pe_image import make_pe
from support.wim_files import capture, wimlib, write_files

PCA_2011 = "Microsoft Windows Production PCA 2011"
CA_2023 = "Windows UEFI CA 2023"
SYSTEM32 = "Windows/System32"
PROGRAMS = (
    "cmd.exe", "wpeinit.exe", "winpeshl.exe", "wpeutil.exe", "drvload.exe", "dism.exe", "bcdboot.exe", "bcdedit.exe",
    "diskpart.exe", "reg.exe", "wbem/wbemcore.dll",
)  # fmt: skip
LIBRARIES = (
    "kernel32.dll", "advapi32.dll", "bcrypt.dll", "version.dll", "ws2_32.dll", "ole32.dll", "oleaut32.dll",
    "iphlpapi.dll", "rpcrt4.dll", "crypt32.dll", "user32.dll", "shell32.dll", "ucrtbase.dll",
)  # fmt: skip
API_SETS = (
    *(f"api-ms-win-crt-{n}-l1-1-0" for n in (
        "conio", "convert", "environment", "filesystem", "heap", "locale", "math", "process", "runtime", "stdio",
        "string", "time", "utility",
    )),
    "api-ms-win-core-path-l1-1-0",
)  # fmt: skip
_BOOTMGR, _LOADER = "{9dea862c-5cdd-4e70-acc1-f32b344d4795}", "{7619dcc9-fafe-11d9-b411-000476eba25f}"
_OPTIONS = "7619dcc8-fafe-11d9-b411-000476eba25f"


def boot_store(wim: str = "\\sources\\boot.wim", loader: str = "winload.efi") -> bytes:
    """The store of a medium: one entry, from memory."""

    def element(number: int, value: object) -> dict[str, Value]:
        kind, data = encode_value(number, value)  # type: ignore[arg-type]
        return {"Element": (kind, data)}

    ramdisk = RamdiskDevice(wim, BootDevice(), options=_OPTIONS, flags=1)
    objects: dict[str, tuple[int, dict[int, object]]] = {
        _BOOTMGR: (0x10100002, {0x23000003: _LOADER, 0x24000001: (_LOADER,), 0x25000004: 30}),
        _LOADER: (
            0x10200003,
            {
                0x11000001: ramdisk,
                0x12000002: f"\\windows\\system32\\boot\\{loader}",
                0x12000004: "Windows Setup",
                0x21000001: ramdisk,
                0x22000002: "\\windows",
                0x26000022: True,
            },
        ),
        "{" + _OPTIONS + "}": (0x30000000, {0x31000003: BootDevice(), 0x32000004: "\\boot\\boot.sdi"}),
    }
    keys: dict[str, dict[str, Value]] = {"Description": {"KeyName": sz("BCD00000001")}}
    for guid, (kind, elements) in objects.items():
        keys[f"Objects\\{guid}\\Description"] = {"Type": dword(kind)}
        for number, value in elements.items():
            keys[f"Objects\\{guid}\\Elements\\{number:08x}"] = element(number, value)
    return hives.make_hive(keys, name="BCD")


def _signature(issuer: str) -> bytes:
    """A certificate table that names ``issuer`` and signs nothing; firmware would refuse it."""
    name = x509.Name.build({"common_name": issuer, "organization_name": "Microsoft Corporation"})
    signer = cms.SignerInfo(
        {
            "version": "v1",
            "sid": cms.SignerIdentifier({"issuer_and_serial_number": {"issuer": name, "serial_number": 1}}),
            "digest_algorithm": algos.DigestAlgorithm({"algorithm": "sha256"}),
            "signature_algorithm": algos.SignedDigestAlgorithm({"algorithm": "rsassa_pkcs1v15"}),
            "signature": b"no signature",
        }
    )
    data = cms.SignedData(
        {
            "version": "v1",
            "digest_algorithms": [algos.DigestAlgorithm({"algorithm": "sha256"})],
            "encap_content_info": {"content_type": "data", "content": b""},
            "signer_infos": [signer],
        }
    )
    blob: bytes = cms.ContentInfo({"content_type": "signed_data", "content": data}).dump()
    table = struct.pack("<IHH", 8 + len(blob), 0x200, 2) + blob  # WIN_CERTIFICATE, aligned to 8 bytes
    return table.ljust(-(-len(table) // 8) * 8, b"\0")


def boot_program(
    version: str,
    issuer: str = PCA_2011,
    *,
    machine: str = "x64",
    fill: bytes = b"",
    svn: tuple[int, int] | None = None,
) -> bytes:
    return make_pe(machine, version, fill=fill, signature=_signature(issuer), svn=svn)


def efi_image(program: bytes, serial: int = 1) -> bytes:
    return fat_image({"EFI/BOOT/BOOTX64.EFI": program}, label="EFISECTOR", epoch=1_600_000_000, serial=serial)


def boot_files(version: str = "10.0.20348.1", issuer: str = PCA_2011) -> dict[str, bytes]:
    """Everything around the boot image."""
    rng = random.Random(version)
    manager = boot_program(version, issuer)
    return {
        "bootmgr": b"\xeb\x00" + rng.randbytes(40_000),
        "bootmgr.efi": manager,
        "boot/etfsboot.com": rng.randbytes(4096),
        "boot/bcd": boot_store(loader="winload.exe"),
        "boot/boot.sdi": b"$SDI0001" + bytes(100_000),
        "boot/bootsect.exe": make_pe(version=version),
        "boot/fonts/wgl4_boot.ttf": rng.randbytes(4000),
        "boot/resources/bootres.dll": make_pe(version=version),
        "efi/boot/bootx64.efi": manager,
        "efi/microsoft/boot/bcd": boot_store(),
        "efi/microsoft/boot/efisys.bin": efi_image(boot_program(version, issuer, fill=b"press a key")),
        "efi/microsoft/boot/efisys_noprompt.bin": efi_image(
            boot_program(version, issuer, fill=b"no prompt"), 2
        ),
        "efi/microsoft/boot/fonts/wgl4_boot.ttf": rng.randbytes(4000),
        "setup.exe": make_pe(version=version),
        "autorun.inf": b"[autorun]\r\n",
    }


def system_hive(command: str = "winpeshl.exe") -> bytes:
    layouts = "ControlSet001\\Control\\Keyboard Layouts"
    return hives.make_hive(
        {
            "Setup": {"CmdLine": sz(command), "SystemSetupInProgress": dword(1)},
            "ControlSet001\\Services\\FBWF": {"WinPECacheThreshold": dword(512)},
            f"{layouts}\\00000409": {"Layout File": sz("KBDUS.DLL")},
            f"{layouts}\\00000407": {"Layout File": sz("KBDGR.DLL")},
            f"{layouts}\\0000040c": {"Layout File": sz("KBDFR.DLL")},
        },
        name="SYSTEM",
    )


def api_set_schema(names: Sequence[str] = API_SETS, version: int = 6) -> bytes:
    """apisetschema.dll, the names without what they lead to: of Windows 10 (6), 8.1 (4) or 7 and 8 (2)."""
    step = 12 if version == 2 else 24
    head = {2: 8, 4: 16, 6: 28}[version]
    at = head + step * len(names)
    entries, texts = b"", b""
    for name in sorted(names):
        text = (name if version == 6 else name[4:]).encode("utf-16-le")
        counts = len(name.rpartition("-")[0]) * 2
        place = at + len(texts)
        texts += text
        entries += {
            2: struct.pack("<3I", place, len(text), 0),
            4: struct.pack("<6I", 0, place, len(text), place, len(text), 0),
            6: struct.pack("<6I", 0, place, len(text), counts, 0, 0),
        }[version]
    size = at + len(texts)
    begin = {
        2: struct.pack("<2I", 2, len(names)),
        4: struct.pack("<4I", 4, size, 0, len(names)),
        6: struct.pack("<7I", 6, size, 0, len(names), head, 0, 31),
    }[version]
    return make_pe(code=begin + entries + texts, section_name=b".apiset")


UCRT_FUNCTIONS = {
    "api-ms-win-crt-runtime-l1-1-0.dll": ("_initterm", "exit"),
    "api-ms-win-crt-heap-l1-1-0.dll": ("malloc", "free"),
    "api-ms-win-crt-stdio-l1-1-0.dll": ("fopen",),
}


def ucrt_files(version: str = "10.0.26100.1742", machine: str = "x64") -> dict[str, bytes]:
    """A C runtime as in a Windows SDK: forwarders for 10.0, and what they lead to for 5.2, which they lead from as well."""
    core = {
        "api-ms-win-core-heap-l1-1-0.dll": {"HeapAlloc": "kernel32.HeapAlloc"},
        "api-ms-win-core-fibers-l1-1-1.dll": {"IsThreadAFiber": "kernel32.IsThreadAFiber"},
    }
    crt = {
        name: {function: f"ucrtbase.{function}" for function in functions}
        for name, functions in UCRT_FUNCTIONS.items()
    }
    files = {
        name: make_pe(machine, version, exports=exports, minimum_os=(10, 0))
        for name, exports in (core | crt).items()
    }
    own = {function: "" for functions in UCRT_FUNCTIONS.values() for function in functions}
    takes = {name: tuple(exports) for name, exports in core.items()} if machine == "x64" else {}
    files["ucrtbase.dll"] = make_pe(machine, version, imports=takes, exports=own, minimum_os=(5, 2))
    return files


def old_tree(more: Mapping[str, bytes | None] | None = None) -> dict[str, bytes]:
    """The image of Server 2012 R2, whose Windows has no C runtime for Python."""
    sets = ("api-ms-win-core-heap-l1-1-0", "api-ms-win-core-path-l1-1-0")
    kernel = make_pe(exports=dict.fromkeys(("HeapAlloc", "IsThreadAFiber"), ""), version="6.3.9600.17415")
    changed: dict[str, bytes | None] = {
        f"{SYSTEM32}/ucrtbase.dll": None,
        f"{SYSTEM32}/kernel32.dll": kernel,
        f"{SYSTEM32}/apisetschema.dll": api_set_schema(sets, 4),
    }
    return winpe_tree("6.3.9600.17415", more=changed | dict(more or {}))


def winpe_tree(
    version: str = "10.0.20348.1",
    *,
    machine: str = "x64",
    command: str = "winpeshl.exe",
    more: Mapping[str, bytes | None] | None = None,
) -> dict[str, bytes]:
    """Files of a WinPE image; ``more`` adds some, or takes them away (None)."""
    tree: dict[str, bytes] = {
        f"{SYSTEM32}/{name}": make_pe(machine, version, fill=name.encode()) for name in PROGRAMS
    }
    tree |= {f"{SYSTEM32}/{name}": make_pe(machine, version, fill=name.encode()) for name in LIBRARIES}
    tree |= {
        f"{SYSTEM32}/Boot/winload.exe": make_pe(machine, version, fill=b"bios"),
        f"{SYSTEM32}/Boot/winload.efi": make_pe(machine, version, fill=b"uefi"),
        f"{SYSTEM32}/winload.exe": make_pe(machine, version, fill=b"bios"),
        f"{SYSTEM32}/startnet.cmd": b"wpeinit\r\n",
        f"{SYSTEM32}/apisetschema.dll": api_set_schema(),
        f"{SYSTEM32}/KBDUS.DLL": make_pe(machine, version, fill=b"us"),
        f"{SYSTEM32}/KBDGR.DLL": make_pe(machine, version, fill=b"gr"),
        f"{SYSTEM32}/config/SYSTEM": system_hive(command),
        "Windows/win.ini": b"; for 16-bit app support\r\n",
    }
    for path, data in (more or {}).items():
        tree.pop(path, None)
        if data is not None:
            tree[path] = data
    return tree


def files_2023(version: str = "10.0.20348.9999") -> dict[str, bytes]:
    """What a serviced boot image has for the younger authority."""
    program = boot_program(version, CA_2023, fill=b"2023")
    return {
        "Windows/Boot/EFI_EX/bootmgfw_EX.efi": program,
        "Windows/Boot/EFI_EX/bootmgr_EX.efi": program,
        "Windows/Boot/DVD_EX/EFI/en-US/efisys_EX.bin": efi_image(program, 3),
        "Windows/Boot/DVD_EX/EFI/en-US/efisys_noprompt_EX.bin": efi_image(program, 4),
        "Windows/Boot/FONTS_EX/wgl4_boot_EX.ttf": b"font of 2023",
        "Windows/Boot/EFI/boot.stl": b"list of 2023",
    }


def files_inside(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Boot files as an image carries them in Windows\\Boot."""
    places = {
        "bootmgr": "PCAT/bootmgr",
        "bootmgr.efi": "EFI/bootmgr.efi",
        "efi/boot/bootx64.efi": "EFI/bootmgfw.efi",
        "boot/bcd": "DVD/PCAT/BCD",
        "boot/boot.sdi": "DVD/PCAT/boot.sdi",
        "boot/etfsboot.com": "DVD/PCAT/etfsboot.com",
        "efi/microsoft/boot/bcd": "DVD/EFI/BCD",
        "efi/microsoft/boot/efisys_noprompt.bin": "DVD/EFI/en-US/efisys_noprompt.bin",
        "boot/fonts/wgl4_boot.ttf": "Fonts/wgl4_boot.ttf",
    }
    return {f"Windows/Boot/{place}": files[name] for name, place in places.items()}


@dataclass(frozen=True)
class WimImage:
    """An image for `make_wim`."""

    files: Mapping[str, bytes]
    name: str = "Microsoft Windows PE (x64)"
    flags: str = "9"
    architecture: int = 9
    version: tuple[int, int, int, int] = (10, 0, 20348, 1)
    options: tuple[str, ...] = field(default=())


def make_wim(target: Path, *images: WimImage, boot: int = 0) -> Path:
    """A WIM file with these images, and what XML says about them in Microsoft's."""
    for number, image in enumerate(images, 1):
        folder = target.with_name(f"{target.name}.{number}")
        write_files(folder, dict(image.files))
        flags = (f"--flags={image.flags}",) if image.flags else ("--flags=",)
        capture(target, folder, image.name, *flags, *image.options)
        shutil.rmtree(folder)
        major, minor, build, revision = image.version
        wimlib(
            "info", target, str(number),
            f"--image-property=WINDOWS/ARCH={image.architecture}",
            f"--image-property=WINDOWS/VERSION/MAJOR={major}",
            f"--image-property=WINDOWS/VERSION/MINOR={minor}",
            f"--image-property=WINDOWS/VERSION/BUILD={build}",
            f"--image-property=WINDOWS/VERSION/SPBUILD={revision}",
            "--image-property=WINDOWS/LANGUAGES/LANGUAGE=de-DE",
            "--image-property=WINDOWS/LANGUAGES/DEFAULT=de-DE",
            "--image-property=LASTMODIFICATIONTIME/HIGHPART=0x01D80000",
            "--image-property=LASTMODIFICATIONTIME/LOWPART=0x00000000",
        )  # fmt: skip
    if boot:
        wimlib("info", target, str(boot), "--boot")
    return target


def make_boot_wim(target: Path, more: Mapping[str, bytes | None] | None = None, **options: object) -> Path:
    """boot.wim as on Windows media: WinPE first, Setup second, which is the one that is booted."""
    version = str(options.get("version", "10.0.20348.1"))
    numbers = [int(n) for n in version.split(".")]
    build = (numbers[0], numbers[1], numbers[2], numbers[3])
    pe = WimImage(winpe_tree(version, more=more), version=build)
    setup = WimImage(
        winpe_tree(version, more={"setup.exe": make_pe(), "sources/setup.exe": make_pe()}),
        "Microsoft Windows Setup (x64)", "2", version=build,
    )  # fmt: skip
    return make_wim(target, pe, setup, boot=2)


def media_folder(folder: Path, wim: Path, files: Mapping[str, bytes] | None = None) -> Path:
    write_files(folder, dict(boot_files() if files is None else files))
    (folder / "sources").mkdir(exist_ok=True)
    shutil.copy(wim, folder / "sources/boot.wim")
    return folder


def media_iso(target: Path, folder: Path, *, side: str = "udf", label: str = "SSS_X64FRE_DE") -> Path:
    """An ISO of a folder: ``side`` "udf" (as Microsoft's: a text on the ISO 9660 side), "joliet" or "iso"."""
    iso = pycdlib.PyCdlib()
    options = {"udf": {"udf": "2.60"}, "joliet": {"joliet": 3}, "iso": {}}[side]
    iso.new(interchange_level=4, vol_ident=label, **options)
    made: set[Path] = set()

    def names(path: Path, *, is_file: bool) -> dict[str, str]:
        text = f"/{path.as_posix()}"
        found = {"udf": {"udf_path": text}, "joliet": {"joliet_path": text}, "iso": {}}[side]
        if side != "udf":
            found["iso_path"] = text.upper()
        return found

    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        relative = path.relative_to(folder)
        for parent in reversed(relative.parents):
            if parent != Path() and parent not in made:
                made.add(parent)
                iso.add_directory(**names(parent, is_file=False))
        iso.add_file(str(path), **names(relative, is_file=True))
    if side == "udf":
        iso.add_fp(*_text(b"This disc contains a UDF file system.\r\n"), iso_path="/README.TXT;1")
    for number, (name, options_) in enumerate(
        (
            ("boot/etfsboot.com", {"boot_load_size": 8, "platform_id": 0}),
            ("efi/microsoft/boot/efisys.bin", {"platform_id": 0xEF, "efi": True, "boot_load_size": 1}),
        )
    ):
        if (folder / name).is_file():
            place = f"/BOOT{number}.IMG;1"
            iso.add_file(str(folder / name), iso_path=place)
            iso.add_eltorito(place, bootcatfile="/BOOT.CAT;1", **options_)
    iso.write(str(target))
    iso.close()
    return target


def _text(data: bytes) -> tuple[object, int]:
    import io

    return io.BytesIO(data), len(data)


def embeddable(
    target: Path, *, machine: str = "x64", tag: str = "312", more: Mapping[str, bytes] | None = None
) -> Path:
    """A stand-in for CPython's embeddable package: the right names, programs that run nowhere."""
    crt = {"api-ms-win-crt-runtime-l1-1-0.dll": ("exit",), "vcruntime140.dll": (), "kernel32.dll": ()}

    def program(name: str, *imports: str) -> bytes:
        taken = crt | dict.fromkeys(imports, ()) if machine != "x86" else {}
        return make_pe(machine, "3.12.10.0", fill=name.encode(), imports=taken, minimum_os=(6, 0))

    files: dict[str, bytes] = {
        "python.exe": program("python", f"python{tag}.dll"),
        "pythonw.exe": program("pythonw", f"python{tag}.dll"),
        f"python{tag}.dll": program("dll", "advapi32.dll", "api-ms-win-core-path-l1-1-0.dll"),
        f"python{tag}.zip": _zip({"os.pyc": b"x"}),
        f"python{tag}._pth": b"python312.zip\r\n.\r\n",
        "vcruntime140.dll": make_pe(machine, imports=("kernel32.dll",), minimum_os=(6, 0)),
        "_ctypes.pyd": program("_ctypes", "libffi-8.dll", "ole32.dll", "oleaut32.dll"),
        "_wmi.pyd": program("_wmi", "propsys.dll"),
        "libffi-8.dll": make_pe(machine, imports=("kernel32.dll",), minimum_os=(6, 0)),
        "LICENSE.txt": b"PSF LICENSE AGREEMENT",
    } | dict(more or {})
    target.write_bytes(_zip(files))
    return target


def _zip(files: Mapping[str, bytes]) -> bytes:
    import io

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2025, 4, 8, 12, 0, 0)), data)
    return out.getvalue()


def seven_zip() -> str | None:
    return next((p for name in ("7z", "7zz") if (p := shutil.which(name))), None)


def iso_files(iso: Path, target: Path) -> dict[str, bytes]:
    """The files of an ISO as 7-Zip sees them."""
    program = seven_zip()
    assert program is not None
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run([program, "x", "-y", f"-o{target}", str(iso)], check=True, capture_output=True)
    return {
        p.relative_to(target).as_posix(): p.read_bytes() for p in sorted(target.rglob("*")) if p.is_file()
    }
