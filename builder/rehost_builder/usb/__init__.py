"""Writes a medium to a USB stick that starts by BIOS and UEFI and has room for reports."""
