"""Which Debian packages make the recovery system, and which are said to be there already."""

from __future__ import annotations

KERNEL = "linux-image-amd64"
"""A name that always depends on the newest kernel; the image with the version in its name is taken."""

IMAGE = (
    "busybox-static",
    "kmod",
    "python3",
    "python3-hivex",
    "ntfs-3g",
    "wimtools",
    "util-linux",
    "mount",
    "dosfstools",
    "exfatprogs",
    "gdisk",
    "efibootmgr",
    "cryptsetup-bin",
)
"""What the running system consists of; apt adds what they depend on."""

BOOT = (
    "isolinux",
    "syslinux-common",
    "shim-signed",
    "shim-helpers-amd64-signed",
    "grub-efi-amd64-signed",
)
"""Boot loaders. Only files of these go on the medium, beside the image, not into it."""

TOOLS = ("squashfs-tools", "kbd", "console-data")
"""Used while building, with the image's own C library, so that every host makes the same bytes."""

UNPACKED_FOR_BOOT = (*BOOT, "shim-unsigned")
UNPACKED_FOR_TOOLS = (*TOOLS, "liblz4-1", "liblzo2-2")

PRETENDED = (
    "adduser",
    "base-files",
    "base-passwd",
    "bash",
    "console-setup",
    "coreutils",
    "dash",
    "debconf",
    "debianutils",
    "dpkg",
    "findutils",
    "fuse3",
    "gcc-14-base",
    "grep",
    "grub-common",
    "grub-efi-amd64-bin",
    "grub2-common",
    "gzip",
    "init-system-helpers",
    "initramfs-tools",
    "libaudit-common",
    "libaudit1",
    "libc-bin",
    "libcap-ng0",
    "libdb5.3t64",
    "libgnutls30t64",
    "liblastlog2-2",
    "libpam-modules",
    "libpam-runtime",
    "libpam0g",
    "libreadline8t64",
    "libsqlite3-0",
    "libsystemd0",
    "linux-base",
    "login",
    "login.defs",
    "media-types",
    "mokutil",
    "netbase",
    "openssl",
    "openssl-provider-legacy",
    "passwd",
    "perl",
    "perl-base",
    "readline-common",
    "sed",
    "shim-signed-common",
    "systemd",
    "systemd-boot",
    "tar",
    "tzdata",
    "udev",
    "util-linux-extra",
)
"""Packages that apt is told are installed, so that its resolver leaves them and all behind them out.

They serve maintainer scripts, logins and services, none of which exist here. Whether a program that we want
needs a library of theirs is checked afterwards by reading every ELF file (elf.py, tree.py).
"""

REQUIRED_PROGRAMS = (
    "usr/bin/busybox",
    "usr/bin/kmod",
    "usr/bin/python3",
    "usr/bin/mount",
    "usr/bin/umount",
    "usr/bin/lsblk",
    "usr/bin/ntfs-3g",
    "usr/bin/wimlib-imagex",
    "usr/bin/efibootmgr",
    "usr/sbin/blkid",
    "usr/sbin/cryptsetup",
    "usr/sbin/mkfs.exfat",
    "usr/sbin/mkfs.vfat",
    "usr/sbin/sgdisk",
)
"""The build fails if one of these is missing or lacks a library: the payload and the operator count on them."""
