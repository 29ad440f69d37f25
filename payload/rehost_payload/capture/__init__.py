"""Secures the virtual machines and the settings of a Hyper-V host before it is installed afresh."""
