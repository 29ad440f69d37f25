"""Unpacks what is wanted of Debian packages into a folder: files only, nothing is run, nobody need be root."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, cast

from rehost_builder.errors import BuildError
from rehost_builder.run import require

MERGED = ("bin", "sbin", "lib", "lib64")
"""In the root these are links into usr; packages may still name files by the old paths."""

_UNWANTED = re.compile(
    r"""
    usr/share/doc/(?!.*/copyright$) | usr/share/(man|info|locale|lintian|bug|doc-base|initramfs-tools|gcc|gdb|
    bash-completion|zsh|pixmaps|applications|metainfo|polkit-1|python3/debian_defaults|python3/runtime\.d|
    icons|perl5|menu|apport|fish|readline|util-linux|misc|terminfo/[^lvxd]) | usr/include/ |
    usr/lib/(systemd|udev|tmpfiles\.d|sysusers\.d|initramfs-tools|lsb|pkgconfig|valgrind|modprobe\.d|
    modules-load\.d|mime|dracut) |
    etc/(init\.d|cron|default|logrotate|pam\.d|grub\.d|kernel|apparmor|systemd|dhcp|udev|profile\.d|python3) |
    usr/lib/x86_64-linux-gnu/(perl|pkgconfig|audit|libmvec|ossl-modules|engines|e2fsprogs|systemd|security|
        gconv/(?!UTF-|ISO8859-1\.so|CP1252|IBM437|IBM850|gconv-modules))  |
    usr/lib/python3(\.\d+)?/(test/|idlelib|tkinter|turtle|ensurepip|lib2to3|pydoc|config-|sqlite3|unittest|
        venv|wsgiref|xmlrpc|_pyrepl|dbm/|mailbox|imaplib|smtplib|poplib|ftplib|antigravity|this\.py|
        lib-dynload/(_ssl|_ctypes_test|_test|xx|_xx)) |
    usr/s?bin/(ls(cpu|ipc|mem|ns|locks|irq|clocks)|ipc|chmem|zramctl|uclampset|setarch|wdctl|nsenter|unshare|
        blkzone|mkswap|swap|cgdisk|fixparts|lowntfs|integritysetup|veritysetup|choom|chrt|ionice|taskset|
        irqtop|mcookie|namei|prlimit|renice|rename|rev|rtcwake|setpgid|setpriv|script|utmpdump|whereis|
        ctrlaltdel|cryptdisks|fsck\.(cramfs|minix)|mkfs\.(bfs|cramfs|minix)|pivot_root|ldattach|py3|pydoc|
        pygettext|pdb3|runuser|sulogin|agetty|chcpu|coresched|bits|lsfd|getopt|hardlink|mesg|wall|write|
        x86_64|i386|linux32|linux64|readprofile|tunelp|isosize|fincore|pipesz|scriptreplay|hexdump|exch) |
    usr/share/(python3|binfmts|libgcrypt20|keyrings)/ | usr/lib/binfmt\.d |
    usr/lib/x86_64-linux-gnu/lib(c_malloc_debug|thread_db|nsl|nss_|expatw|form|menu|panel|memusage|pcprofile|
        SegFault)  |
    boot/(config|System\.map) | .*\.(a|la|h|pc)$ | var/ | .*/__pycache__/
    """,
    re.VERBOSE,
)


def is_wanted(path: str) -> bool:
    """Whether the image keeps this file of a package (path without leading slash)."""
    return not _UNWANTED.match(path)


def merged(path: str) -> str:
    """The path below usr, as a root with merged /usr has it. Raises ValueError for a path that climbs out."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise ValueError(f"path leads out of the root: {path!r}")
    parts = pure.parts
    if parts and parts[0] in MERGED:
        parts = ("usr", *parts)
    return "/".join(parts)


def unpack(package: Path, root: Path, wanted: Callable[[str], bool] = is_wanted) -> None:
    """Unpacks the wanted files of a .deb below ``root``. Modes are 755 or 644; devices are an error.

    Raises BuildError for a package that is damaged or does not fit on the disk.
    """
    with subprocess.Popen(
        [require("dpkg-deb", "dpkg"), "--fsys-tarfile", str(package)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            with tarfile.open(fileobj=cast(IO[bytes], process.stdout), mode="r|") as archive:
                for member in archive:
                    _unpack_member(archive, member, root, wanted)
        except (tarfile.TarError, ValueError) as e:
            process.kill()
            raise BuildError(
                f"the package {package.name} is damaged: {e}", "delete it and build online"
            ) from None
        except BaseException:
            process.kill()
            raise


def _unpack_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, root: Path, wanted: Callable[[str], bool]
) -> None:
    name = merged(member.name.removeprefix("./"))
    if not name or member.isdir() or not wanted(name):
        return
    target = root / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.parent.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{name} would be written through a link out of the root")
    if target.is_symlink() or target.is_file():
        target.unlink()
    if member.issym():
        target.symlink_to(member.linkname)
    elif member.islnk():
        # A second name of the same file: a link, since the image would hold the bytes twice.
        first = root / merged(member.linkname.removeprefix("./"))
        target.symlink_to(os.path.relpath(first, target.parent))
    elif member.isfile():
        content = archive.extractfile(member)
        assert content is not None
        with target.open("wb") as out:
            while chunk := content.read(1 << 20):
                out.write(chunk)
        target.chmod(0o755 if member.mode & 0o100 else 0o644)
    else:
        raise ValueError(f"{name} is neither file nor link")
