"""Starts a medium in QEMU, to see it work before it is carried to the server."""
