"""Rehost's builder: runs on the administrator's workstation and assembles the recovery medium."""
