"""The way back: what the restore scripts need to know (data.py), and the scripts themselves (powershell/)."""
