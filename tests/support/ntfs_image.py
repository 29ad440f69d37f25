"""NTFS volumes in plain files, by libntfs-3g through ctypes: no mount, no root.

Paths are absolute and written with / or \\. `NtfsImage` works on a file that holds one volume and nothing
else; tests/support/disks.py cuts it out of a disk and puts it back.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
import os
import stat
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

_RDONLY = 0x1
_FORENSIC = 0x04000000
_RECOVER = 0x10000000
_IGNORE_HIBERFILE = 0x20000000
_AT_DATA = 0x80
_ATTR_COMPRESSED = 0x800
_ATTR_ROOT = 0x6  # hidden, system
VOLUME_IS_DIRTY = 0x0001
_SERIALS = itertools.count(0x5245484F53540001)


def _load() -> ctypes.CDLL:
    names = [ctypes.util.find_library("ntfs-3g")]
    for folder in ("/lib", "/usr/lib"):
        names += [str(p) for p in Path(folder).glob("*/libntfs-3g.so.*")]
    for name in names:
        if name:
            library = ctypes.CDLL(name, use_errno=True)
            break
    else:
        raise FileNotFoundError("libntfs-3g is not installed")
    pointer, signed64 = ctypes.c_void_p, ctypes.c_int64
    signatures: dict[str, tuple[object, list[object]]] = {
        "ntfs_mount": (pointer, [ctypes.c_char_p, ctypes.c_ulong]),
        "ntfs_umount": (ctypes.c_int, [pointer, ctypes.c_int]),
        "ntfs_pathname_to_inode": (pointer, [pointer, pointer, ctypes.c_char_p]),
        "ntfs_inode_open": (pointer, [pointer, ctypes.c_uint64]),
        "ntfs_inode_close": (ctypes.c_int, [pointer]),
        "ntfs_create": (pointer, [pointer, ctypes.c_uint32, ctypes.c_char_p, ctypes.c_uint8, ctypes.c_uint]),
        "ntfs_delete": (
            ctypes.c_int,
            [pointer, ctypes.c_char_p, pointer, pointer, ctypes.c_char_p, ctypes.c_uint8],
        ),
        "ntfs_attr_open": (pointer, [pointer, ctypes.c_uint32, pointer, ctypes.c_uint32]),
        "ntfs_attr_close": (None, [pointer]),
        "ntfs_attr_truncate": (ctypes.c_int, [pointer, signed64]),
        "ntfs_attr_pwrite": (signed64, [pointer, signed64, signed64, ctypes.c_char_p]),
        "ntfs_attr_pread": (signed64, [pointer, signed64, signed64, pointer]),
        "ntfs_attr_pclose": (ctypes.c_int, [pointer]),
        "ntfs_volume_write_flags": (ctypes.c_int, [pointer, ctypes.c_uint16]),
        "ntfs_set_ntfs_attrib": (ctypes.c_int, [pointer, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]),
        "ntfs_inode_set_times": (ctypes.c_int, [pointer, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]),
        "ntfs_set_ntfs_reparse_data": (
            ctypes.c_int,
            [pointer, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int],
        ),
        "ntfs_log_set_handler": (None, [pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.ntfs_log_set_handler(ctypes.cast(library.ntfs_log_handler_null, ctypes.c_void_p))
    return library


_library: ctypes.CDLL | None = None


def _ntfs() -> ctypes.CDLL:
    global _library
    if _library is None:
        _library = _load()
    return _library


def _parts(path: str) -> list[str]:
    return [p for p in path.replace("\\", "/").split("/") if p]


class NtfsImage:
    """One mounted volume file. Use as a context manager; changes are on disk when it ends."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        flags = _RDONLY | _FORENSIC if read_only else _RECOVER
        self._volume = _ntfs().ntfs_mount(str(path).encode(), flags | _IGNORE_HIBERFILE)
        if not self._volume:
            self._fail(f"cannot mount {path}")
        self._unnamed = ctypes.addressof(ctypes.c_uint16.in_dll(_ntfs(), "AT_UNNAMED"))
        self._flags: int | None = None

    def __enter__(self) -> NtfsImage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _ntfs().ntfs_umount(self._volume, 0):
            self._fail("cannot unmount")

    def _fail(self, what: str) -> None:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")

    def _inode(self, path: str) -> int:
        inode = _ntfs().ntfs_pathname_to_inode(self._volume, None, "/".join(_parts(path)).encode() or b"/")
        if not inode:
            raise FileNotFoundError(path)
        return int(inode)

    def exists(self, path: str) -> bool:
        try:
            inode = self._inode(path)
        except FileNotFoundError:
            return False
        _ntfs().ntfs_inode_close(inode)
        return True

    def _create(self, path: str, kind: int) -> None:
        *parents, name = _parts(path)
        folder = self._inode("/".join(parents))
        encoded = name.encode("utf-16-le")
        inode = _ntfs().ntfs_create(folder, 0, encoded, len(encoded) // 2, kind)
        if not inode:
            _ntfs().ntfs_inode_close(folder)
            self._fail(f"cannot create {path}")
        _ntfs().ntfs_inode_close(inode)
        _ntfs().ntfs_inode_close(folder)

    def make_directories(self, path: str) -> None:
        done: list[str] = []
        for part in _parts(path):
            done.append(part)
            if not self.exists("/".join(done)):
                self._create("/".join(done), stat.S_IFDIR)

    def write(
        self, path: str, data: bytes, *, compressed: bool = False, sparse_size: int | None = None
    ) -> None:
        """Makes or replaces a file. ``sparse_size`` extends it by a hole up to that size."""
        self.make_directories("/".join(_parts(path)[:-1]))
        folder = "/".join(_parts(path)[:-1])
        if compressed:
            # libntfs-3g compresses only what inherits it from its folder; boot sectors refuse to read such
            # files, so nothing else may inherit it
            self._set_attributes(folder, _ATTR_COMPRESSED)
        if not self.exists(path):
            self._create(path, stat.S_IFREG)
        if compressed:
            self._set_attributes(folder, 0 if folder else _ATTR_ROOT)
        inode = self._inode(path)
        try:
            self._write_data(inode, path, data, sparse_size)
        finally:
            _ntfs().ntfs_inode_close(inode)

    def _set_attributes(self, path: str, attributes: int) -> None:
        inode = self._inode(path)
        try:
            if _ntfs().ntfs_set_ntfs_attrib(inode, struct.pack("<I", attributes), 4, 0):
                self._fail(f"cannot set the attributes of {path}")
        finally:
            _ntfs().ntfs_inode_close(inode)

    def _write_data(self, inode: int, path: str, data: bytes, size: int | None = None) -> None:
        attribute = _ntfs().ntfs_attr_open(inode, _AT_DATA, self._unnamed, 0)
        if not attribute:
            self._fail(f"no data attribute in {path}")
        try:
            if _ntfs().ntfs_attr_truncate(attribute, 0):
                self._fail(f"cannot truncate {path}")
            position = 0
            while position < len(data):
                piece = data[position : position + (1 << 20)]
                count = _ntfs().ntfs_attr_pwrite(attribute, position, len(piece), piece)
                if count <= 0:
                    self._fail(f"cannot write {path}")
                position += count
            _ntfs().ntfs_attr_pclose(attribute)
            if size is not None and _ntfs().ntfs_attr_truncate(attribute, size):
                self._fail(f"cannot extend {path}")
        finally:
            _ntfs().ntfs_attr_close(attribute)

    def set_times(self, path: str, created: int, modified: int) -> None:
        """FILETIME, as a program sets them; that the file was changed is noted with the time of now."""
        inode = self._inode(path)
        try:
            if _ntfs().ntfs_inode_set_times(inode, struct.pack("<QQ", created, modified), 16, 0):
                self._fail(f"cannot set the times of {path}")
        finally:
            _ntfs().ntfs_inode_close(inode)

    def write_pieces(self, path: str, pieces: Mapping[int, bytes]) -> None:
        """Writes at the given offsets of an existing file; what lies between stays a hole."""
        inode = self._inode(path)
        attribute = _ntfs().ntfs_attr_open(inode, _AT_DATA, self._unnamed, 0)
        try:
            for position, data in pieces.items():
                if _ntfs().ntfs_attr_pwrite(attribute, position, len(data), data) != len(data):
                    self._fail(f"cannot write {path}")
        finally:
            _ntfs().ntfs_attr_close(attribute)
            _ntfs().ntfs_inode_close(inode)

    def read(self, path: str) -> bytes:
        inode = self._inode(path)
        try:
            return self._read_data(inode, path)
        finally:
            _ntfs().ntfs_inode_close(inode)

    def _read_data(self, inode: int, path: str) -> bytes:
        attribute = _ntfs().ntfs_attr_open(inode, _AT_DATA, self._unnamed, 0)
        if not attribute:
            self._fail(f"no data attribute in {path}")
        pieces: list[bytes] = []
        buffer = ctypes.create_string_buffer(1 << 20)
        try:
            position = 0
            while True:
                count = _ntfs().ntfs_attr_pread(attribute, position, len(buffer), ctypes.addressof(buffer))
                if count < 0:
                    self._fail(f"cannot read {path}")
                if count == 0:
                    return b"".join(pieces)
                pieces.append(buffer.raw[:count])
                position += count
        finally:
            _ntfs().ntfs_attr_close(attribute)

    def delete(self, path: str) -> None:
        *parents, name = _parts(path)
        inode, folder = self._inode(path), self._inode("/".join(parents))
        encoded = name.encode("utf-16-le")
        # closes both inodes, also when it fails
        if _ntfs().ntfs_delete(self._volume, None, inode, folder, encoded, len(encoded) // 2):
            self._fail(f"cannot delete {path}")

    def set_reparse(self, path: str, tag: int, data: bytes) -> None:
        inode = self._inode(path)
        try:
            value = struct.pack("<IHH", tag, len(data), 0) + data
            if _ntfs().ntfs_set_ntfs_reparse_data(inode, value, len(value), 0):
                self._fail(f"cannot set a reparse point on {path}")
        finally:
            _ntfs().ntfs_inode_close(inode)

    def set_volume_flags(self, flags: int) -> None:
        if _ntfs().ntfs_volume_write_flags(self._volume, flags):
            self._fail("cannot set the volume flags")

    def set_journal_open(self) -> None:
        """Makes $LogFile look as a running Windows leaves it at a power cut: a client, no clean bit."""
        inode = _ntfs().ntfs_inode_open(self._volume, 2)
        if not inode:
            self._fail("cannot open $LogFile")
        try:
            attribute = _ntfs().ntfs_attr_open(inode, _AT_DATA, self._unnamed, 0)
            page = restart_page(clean=False)
            for position in (0, len(page)):
                if _ntfs().ntfs_attr_pwrite(attribute, position, len(page), page) != len(page):
                    self._fail("cannot write $LogFile")
            _ntfs().ntfs_attr_close(attribute)
        finally:
            _ntfs().ntfs_inode_close(inode)


def restart_page(*, clean: bool, lsn: int = 0x100000) -> bytes:
    """A 4096-byte restart page of $LogFile with one open client and the given clean bit."""
    page = bytearray(4096)
    usa_offset, usa_count, restart = 0x1E, 9, 0x30
    struct.pack_into("<4sHHQIIHhh", page, 0, b"RSTR", usa_offset, usa_count, 0, 4096, 4096, restart, 1, 1)
    client = 0xFFFF if clean else 0
    struct.pack_into(
        "<QHHHHIHHQIHHII",
        page,
        restart,
        *(lsn, 1, 0xFFFF, client, 2 if clean else 0, 0x2D, 0xE0, 0x40, 2 << 20, 0, 0x30, 0x40, 1, 0),
    )
    for index in range(1, usa_count):
        tail = index * 512 - 2
        page[usa_offset + 2 * index : usa_offset + 2 * index + 2] = page[tail : tail + 2]
        page[tail : tail + 2] = b"\x01\x00"
    page[usa_offset : usa_offset + 2] = b"\x01\x00"
    return bytes(page)


def make_volume(
    path: Path,
    files: Mapping[str, bytes],
    *,
    label: str = "",
    start_sector: int = 0,
    sector_size: int = 512,
    cluster_size: int = 4096,
) -> None:
    """Formats the existing file ``path`` and writes the tree. ``start_sector`` becomes the hidden sectors."""
    command = ["mkntfs", "-F", "-Q", "-q", "-s", str(sector_size), "-c", str(cluster_size)]
    command += ["-p", str(start_sector), "-H", "255", "-S", "63", "-L", label, str(path)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PATH": _sbin_path()})
    _number(path, sector_size, next(_SERIALS))
    with NtfsImage(path) as volume:
        for name, data in files.items():
            if name.endswith(("/", "\\")):
                volume.make_directories(name)
            else:
                volume.write(name, data)


def _number(path: Path, sector_size: int, serial: int) -> None:
    """Its serial number, in the boot sector and the copy at the end: mkntfs makes it of the time in seconds, so that
    two volumes would be one for Rehost whenever they were made in the same second."""
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        for sector in (0, end - sector_size):
            file.seek(sector)
            if file.read(8)[3:] == b"NTFS ":
                file.seek(sector + 0x48)
                file.write(struct.pack("<Q", serial))


def _sbin_path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
