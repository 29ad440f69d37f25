"""Rehost's payload: runs on the server from the recovery medium, and on a workstation against disk images."""

__version__ = "0.1.0"
