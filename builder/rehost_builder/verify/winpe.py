"""Points of the medium that is made of Windows PE: boot stores, boot image, what was put into it, Secure Boot."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import zipfile
from dataclasses import dataclass, field
from functools import cache

from rehost_builder.environment import temporary
from rehost_builder.verify import image
from rehost_builder.verify.boot_store import Start, default_start
from rehost_builder.verify.described import Listed
from rehost_builder.verify.imports import BUILT_IN, closure
from rehost_builder.verify.libraries import ApiSets, follow, read_api_sets
from rehost_builder.verify.medium import Medium, opened_file, some
from rehost_builder.verify.model import Broken, NotSeen
from rehost_builder.verify.packages import package_problems
from rehost_builder.wim import resource
from rehost_builder.wim.header import why_unfit
from rehost_builder.wim.reader import Wim
from rehost_builder.wim.tree import NO_HASH, Entry, Tree
from rehost_builder.winpe.bootfiles import read_boot_program
from rehost_payload.formats.authenticode import read_signature
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.pe import read_facts
from rehost_payload.formats.source import BytesSource

_STORES = {"BIOS": "boot/bcd", "UEFI": "efi/microsoft/boot/bcd"}
_LOADER = "boot/etfsboot.com"
_SYSTEM32 = "Windows/System32"
_APP, _PYTHON, _DRIVERS = "Rehost/app/", "Rehost/python/", "Rehost/drivers/"
_START = "\\rehost\\start.cmd"
_ROOTS = (
    "rehost_payload.__main__",
    "rehost_payload.ui.menu",
    "encodings.utf_8",
    "encodings.cp437",
    "encodings.cp850",
)
_SCRIPTS = ("Rehost/start.cmd", "Rehost/drivers.cmd", "Rehost/rehost.cmd")
_FILE_LIMIT = 512 << 20


@dataclass
class _Boot:
    """The boot image, as far as it could be opened, and what was found of ours in it."""

    wim: Wim | None = None
    tree: Tree | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    """Contents of our files that other points look into, by their path in lower case."""


def judge(medium: Medium, *, thorough: bool = False) -> None:
    starts: dict[str, Start] = {}
    boot = _Boot()
    bios = image.entry_of(medium, 0) is not None
    uefi = image.entry_of(medium, 0xEF) is not None
    if bios or not uefi:
        medium.judge("bios-entry", "BIOS entry", lambda: image.bios_entry(medium, _LOADER, isolinux=False))
    if uefi or not bios:
        medium.judge("uefi-entry", "UEFI entry", lambda: image.uefi_entry(medium, {}))
    medium.judge("boot-images", "boot images", lambda: image.boot_images(medium))
    for firmware, there in (("BIOS", bios), ("UEFI", uefi)):
        if there:
            medium.judge(
                f"boot-store-{firmware.lower()}",
                f"boot store for {firmware}",
                lambda f=firmware: _store(medium, f, starts),  # type: ignore[misc]
            )
    usable = medium.judge("boot-image", "boot image", lambda: _image(medium, starts, boot))
    medium.judge("loaders", "Windows loaders", lambda: _loaders(starts, boot))
    medium.judge("start", "start scripts", lambda: _scripts(medium, boot))
    payload = medium.judge("payload", "payload", lambda: _added(medium, boot, _APP + "rehost_payload/"))
    wheels = medium.judge("packages", "Python packages", lambda: _packages(medium, boot, complete=payload))
    runtime = medium.judge("runtime", "Python", lambda: _runtime(medium, boot))
    medium.judge("libraries", "libraries", lambda: _libraries(boot, complete=runtime))
    medium.judge("imports", "imports", lambda: _imports(boot, complete=payload and wheels and runtime))
    medium.judge("drivers", "drivers", lambda: _drivers(medium, boot))
    medium.judge("additions", "other additions", lambda: _others(medium, boot))
    medium.judge("secure-boot", "Secure Boot", lambda: _signers(medium), needed=False)
    if usable and thorough:
        medium.judge("wimlib", "wimlib", lambda: _wimlib(medium, starts), needed=False)


def _store(medium: Medium, firmware: str, starts: dict[str, Start]) -> str:
    name = _STORES[firmware]
    start = default_start(medium.content(name), name)
    missing = [f"{p} is missing" for p in (start.wim, start.sdi) if medium.find(p) is None]
    if missing:
        raise Broken(f"{name} starts what is not there: {some(missing)}")
    with opened_file(medium, medium.file(start.sdi)) as f:
        if f.read(8)[:4] != b"$SDI":
            raise Broken(f"{start.sdi} is no SDI file")
    starts[firmware] = start
    return f"{name} loads {start.wim} with {start.sdi}, then {start.loader}"


def _image(medium: Medium, starts: dict[str, Start], boot: _Boot) -> str:
    described = medium.described
    names = {s.wim.casefold() for s in starts.values()}
    if not names:
        raise NotSeen("no boot store says which file it is")
    if len(names) > 1:
        raise Broken(f"the boot stores load two of them: {', '.join(sorted(names))}")
    name = next(iter(starts.values())).wim
    # stays open as long as the medium's own file
    wim = Wim(opened_file(medium, medium.file(name)))
    unfit = why_unfit(wim.header)
    if unfit:
        raise Broken(f"{name}: {unfit}; the boot manager refuses that")
    index, count = wim.header.boot_index, sum(b.is_metadata for b in wim.blobs)
    if not 0 < index <= count:
        raise Broken(f"{name}: its boot index is {index}, and it has {count} images")
    if wim.header.images != count:
        raise Broken(f"{name}: the header speaks of {wim.header.images} images, and it has {count}")
    if wim.metadata_blob(index).resource != wim.header.boot_metadata:
        raise Broken(f"{name}: the header leads to another image than its boot index {index}")
    tree = wim.tree(index)
    boot.wim, boot.tree = wim, tree
    contents = {h for _, e in tree.root.walk() for h in e.hashes}
    lost = [h for h in contents if wim.blob(h) is None]
    if lost:
        raise Broken(f"{name}: {len(lost)} contents that its files have are not in it")
    end = wim.source.seek(0, 2)
    outside = [b for b in wim.blobs if b.resource.offset + b.resource.stored > end]
    if outside:
        raise Broken(f"{name}: {len(outside)} contents lie beyond its end")
    if described is not None and described.wim and described.wim.casefold() != name.casefold():
        raise Broken(f"the boot stores load {name}, build.json speaks of {described.wim}")
    info = next((i for i in wim.images if i.index == index), None)
    label = f" ({info.name}, {info.version_text})" if info is not None else ""
    return f"{name}, image {index}{label}: {len(contents)} contents, all in it"


def _tree(boot: _Boot) -> Tree:
    if boot.tree is None:
        raise NotSeen("the boot image cannot be read")
    return boot.tree


def _loaders(starts: dict[str, Start], boot: _Boot) -> str:
    tree = _tree(boot)
    found = []
    for firmware, start in starts.items():
        data = _content(boot, tree.find(start.loader), start.loader)
        facts = read_facts(BytesSource(data))
        if facts.machine != "x64" or facts.truncated:
            raise Broken(f"{start.loader} is for {facts.machine}{', cut off' if facts.truncated else ''}")
        found.append(f"{start.loader} {facts.version or ''} ({firmware})")
    return ", ".join(found)


def _content(boot: _Boot, entry: Entry | None, path: str) -> bytes:
    """The content, checked against its SHA-1."""
    if boot.wim is None:
        raise NotSeen("the boot image cannot be read")
    if entry is None or entry.is_folder:
        raise Broken(f"{path} is not in the boot image")
    if entry.sha1 == NO_HASH:
        return b""
    blob = boot.wim.blob(entry.sha1)
    if blob is None:
        raise Broken(f"the content of {path} is not in the boot image")
    data = resource.read(boot.wim.source, boot.wim.header, blob.resource, _FILE_LIMIT)
    if hashlib.sha1(data, usedforsecurity=False).digest() != entry.sha1:
        raise Broken(f"{path} has other bytes than its SHA-1 says")
    return data


# --- what was added


def _check(boot: _Boot, files: list[Listed]) -> list[str]:
    """What is wrong with these files of the boot image; their contents are kept."""
    tree = _tree(boot)
    wrong = []
    for file in files:
        try:
            data = _content(boot, tree.find(file.path), file.path)
        except (Broken, FormatError) as e:
            wrong.append(str(e))
            continue
        boot.files[file.path.casefold()] = data
        if hashlib.sha256(data).hexdigest() != file.sha256 or len(data) != file.size:
            wrong.append(f"{file.path} has other content than build.json says")
    return wrong


def _below(medium: Medium, prefix: str) -> list[Listed]:
    if medium.described is None:
        raise NotSeen("build.json cannot be read")
    return [f for f in medium.described.added if f.path.startswith(prefix)]


def _added(medium: Medium, boot: _Boot, prefix: str) -> str:
    files = _below(medium, prefix)
    wrong = _check(boot, files)
    if not files:
        raise Broken(f"build.json names no file in {prefix}")
    tree = _tree(boot)
    folder = tree.find(prefix)
    listed = {f.path.casefold() for f in files}
    inside = [p for p, e in folder.walk(prefix.strip("/")) if not e.is_folder] if folder is not None else []
    wrong += [f"{p} is in the boot image, not in build.json" for p in inside if p.casefold() not in listed]
    if wrong:
        raise Broken(some(wrong))
    return f"{len(files)} files, each with its SHA-1 and SHA-256"


def _packages(medium: Medium, boot: _Boot, *, complete: bool) -> str:
    files = [f for f in _below(medium, _APP) if not f.path.startswith(f"{_APP}rehost_payload/")]
    wrong = _check(boot, files)
    described = medium.described
    assert described is not None
    expected = {n: d for n, d in described.python.items() if complete or n != "rehost_payload"}
    if not expected:
        raise Broken("build.json names no Python package")
    own = {
        f.path.removeprefix(_APP): boot.files[f.path.casefold()]
        for f in described.added
        if f.path.startswith(_APP) and f.path.casefold() in boot.files
    }
    if not wrong:
        wrong += package_problems(expected, own)
    if wrong:
        raise Broken(some(wrong))
    return f"{', '.join(sorted(expected))}: complete, each file with its SHA-1 and SHA-256"


def _runtime(medium: Medium, boot: _Boot) -> str:
    files = _below(medium, _PYTHON)
    wrong = _check(boot, files)
    names = {f.path.removeprefix(_PYTHON).casefold(): boot.files.get(f.path.casefold(), b"") for f in files}
    dll = next((n for n in names if re.fullmatch(r"python3\d+\.dll", n)), None)
    wanted = ["python.exe", "vcruntime140.dll"]
    wanted += [dll, f"{dll[:-4]}.zip", f"{dll[:-4]}._pth"] if dll is not None else ["python3NN.dll"]
    wrong += [f"{name} is missing" for name in wanted if name not in names]
    for name, data in sorted(names.items()):
        if name.endswith((".exe", ".dll", ".pyd")) and data:
            try:
                facts = read_facts(BytesSource(data))
            except FormatError as e:
                wrong.append(f"{name} is no program: {e.problem}")
                continue
            if facts.machine != "x64" or facts.truncated:
                wrong.append(f"{name} is for {facts.machine}{', cut off' if facts.truncated else ''}")
    if wrong:
        raise Broken(some(wrong))
    assert dll is not None
    lines = names[f"{dll[:-4]}._pth"].decode("ascii", "replace").split()
    if f"{dll[:-4]}.zip" not in lines or "..\\app" not in lines:
        raise Broken("the ._pth does not lead to the standard library and to our modules")
    version = medium.described.runtime if medium.described is not None else ""
    return f"CPython {version}, {len(files)} files, programs for x64, C runtime beside them"


def _libraries(boot: _Boot, *, complete: bool) -> str:
    """Every library that Python's files are linked to is beside them, in System32, or an API set of the image."""
    if not complete:
        raise NotSeen("the runtime is not complete")
    tree = _tree(boot)
    files = {
        path.removeprefix(_PYTHON.casefold()): data
        for path, data in boot.files.items()
        if path.startswith(_PYTHON.casefold()) and path.endswith((".exe", ".dll", ".pyd"))
    }

    def in_system(library: str) -> bool:
        return any(tree.find(f"{_SYSTEM32}/{folder}{library}") for folder in ("", "downlevel/"))

    @cache
    def sets() -> ApiSets:
        path = f"{_SYSTEM32}/apisetschema.dll"
        entry = tree.find(path)
        if entry is None:
            return ApiSets(frozenset(), by_prefix=True)
        try:
            return read_api_sets(_content(boot, entry, path))
        except FormatError as e:
            raise NotSeen(f"{path}: {e.problem}") from None

    try:
        found = follow(files, in_system, sets)
    except FormatError as e:
        raise Broken(f"a file of Python is damaged: {e}") from None
    if found.missing:
        raise Broken(some(list(found.missing)))
    return (
        f"{len(files)} files are linked to {found.beside + found.system + found.sets} libraries: {found.beside} beside "
        f"them, {found.system} in System32, {found.sets} as API sets"
    )


def _imports(boot: _Boot, *, complete: bool) -> str:
    """Every module that the payload imports is in the image. Sources are read, nothing is run."""
    if not complete:
        raise NotSeen("payload, packages or runtime are not complete")
    sources: dict[str, bytes] = {}
    others: set[str] = set(BUILT_IN)
    for path, data in boot.files.items():
        if path.startswith(_APP.casefold()) and path.endswith(".py"):
            sources[path.removeprefix(_APP.casefold())[:-3].replace("/", ".")] = data
        elif path.startswith(_PYTHON.casefold()) and path.endswith(".pyd"):
            others.add(path.rpartition("/")[2].partition(".")[0])
        elif re.fullmatch(r"rehost/python/python3\d+\.zip", path):
            others |= _modules(data)
    # Windows does not tell the cases of names apart, Python does
    tree = _tree(boot).find(_APP)
    spelled = [p.removeprefix(_APP) for p, e in tree.walk(_APP.strip("/")) if not e.is_folder] if tree else []
    sources = {
        p[:-3].replace("/", "."): sources[p[:-3].replace("/", ".").casefold()]
        for p in spelled
        if p.endswith(".py") and p[:-3].replace("/", ".").casefold() in sources
    }
    found = closure(sources, others, _ROOTS)
    if found.damaged:
        raise Broken(f"no Python: {some(list(found.damaged))}")
    if found.missing:
        raise Broken(
            some([f"{m.module}, which {m.user} imports, is nowhere in the image" for m in found.missing])
        )
    return f"{found.wanted} modules from {found.seen} sources, each is in the image"


def _modules(archive: bytes) -> set[str]:
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as z:
            names = z.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError) as e:
        raise Broken(f"the standard library is no ZIP file: {e}") from None
    stems = [re.sub(r"\.pyc?$", "", n).replace("/", ".") for n in names if n.endswith((".py", ".pyc"))]
    return {s.removesuffix(".__init__") for s in stems}


def _drivers(medium: Medium, boot: _Boot) -> str:
    files = _below(medium, _DRIVERS)
    described = medium.described
    assert described is not None
    wrong = _check(boot, files)
    listed = {f.path.removeprefix(_DRIVERS): f for f in files}
    for file in described.drivers:
        other = listed.get(file.path)
        if other is None or other.sha256 != file.sha256:
            wrong.append(f"{file.path} of the driver packages is not in the boot image's list with its hash")
    wrong += [f"{p} is to be loaded and is not there" for p in described.loaded if p not in listed]
    if described.loaded and not wrong:
        script = _content(boot, _tree(boot).find(_SCRIPTS[1]), _SCRIPTS[1]).decode("ascii", "replace")
        wrong += [
            f"drivers.cmd does not load {p}" for p in described.loaded if p.replace("/", "\\") not in script
        ]
    if wrong:
        raise Broken(some(wrong))
    return (
        f"{len(files)} files by their hashes, {len(described.loaded)} loaded at the start"
        if files
        else "none"
    )


def _scripts(medium: Medium, boot: _Boot) -> str:
    """What Windows PE runs first leads to our start: winpeshl.ini where there is one, else startnet.cmd."""
    tree = _tree(boot)
    launch, startnet = f"{_SYSTEM32}/winpeshl.ini", f"{_SYSTEM32}/startnet.cmd"
    first = launch if tree.find(launch) is not None else startnet
    texts = {path: _content(boot, tree.find(path), path) for path in (first, *_SCRIPTS)}
    if _START not in texts[first].decode("cp1252", "replace").casefold():
        raise Broken(f"{first} does not start {_START[1:]}")
    for path, data in texts.items():
        if re.search(rb"[^\r]\n|\r(?!\n)|^\n", data):
            raise Broken(f"{path} has lines that do not end with CR LF")
        if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe")):
            raise Broken(f"{path} begins with a byte order mark")
    if medium.described is not None:
        left = [p for p in medium.described.removed if tree.find(p) is not None]
        if left:
            raise Broken(f"{some(left)} should not be in the boot image any more")
    return f"{first} starts Rehost, all with CR LF"


def _others(medium: Medium, boot: _Boot) -> str:
    files = [f for f in _below(medium, "") if not f.path.startswith((_APP, _PYTHON, _DRIVERS))]
    wrong = _check(boot, files)
    if wrong:
        raise Broken(some(wrong))
    return f"{len(files)} files, each with its SHA-1 and SHA-256"


# --- signatures


def _signers(medium: Medium) -> str:
    """Who signed the programs that UEFI firmware starts, and that they are still what was signed."""
    programs: dict[str, bytes] = {}
    for path in ("efi/boot/bootx64.efi", "bootmgr.efi"):
        if medium.find(path) is not None:
            programs[path] = medium.content(path)
    if image.entry_of(medium, 0xEF) is not None:
        try:
            inside = image.efi_volume(medium).open(image.EFI_PROGRAM)
            programs["the UEFI entry's program"] = inside.read_at(0, inside.size)
        except (FileNotFoundError, IsADirectoryError, Broken, FormatError):
            pass  # said by the point about the entry
    if not programs:
        raise NotSeen("no UEFI start")
    said, broken, unclear = [], [], []
    for path, data in programs.items():
        program = read_boot_program(path, data)
        svn = f", SVN {program.svn}" if program.svn else ""
        said.append(f"{path} {program.version} under {program.authority or 'nobody'}{svn}")
        try:
            signature = read_signature(data)
        except FormatError as e:
            unclear.append(f"{path}: {e.problem}")
            continue
        if signature is None:
            unclear.append(f"{path} is not signed")
        elif signature.problem:
            broken.append(f"{path}: {signature.problem}")
    if broken:
        raise Broken(f"{some(broken)} ({'; '.join(said)})")
    if unclear:
        raise NotSeen(f"{some(unclear)} ({'; '.join(said)})")
    return "; ".join(said)


def _wimlib(medium: Medium, starts: dict[str, Start]) -> str:
    program = shutil.which("wimlib-imagex")
    if program is None:
        raise NotSeen("wimlib-imagex, which reads every file in the boot image, is not installed (wimtools)")
    name = next(iter(starts.values())).wim
    file = medium.file(name)
    with temporary(file.size, "verify --thorough") as folder:
        target = folder / "boot.wim"
        with target.open("wb") as out:
            for data in medium.image.blocks(file):
                out.write(data)
        done = subprocess.run([program, "verify", str(target)], capture_output=True, check=False)
    if done.returncode:
        raise Broken(f"wimlib-imagex verify ended with {done.returncode}")
    return "every file of every image has the bytes that its hash says"
