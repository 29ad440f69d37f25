"""Drivers for storage controllers: the catalogue of controllers, packages in folders, and which one a server needs.

The catalogue is data/controllers.toml; users' packages are folders that the operator names. Standard library only.
"""
