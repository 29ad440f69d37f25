"""Writes what firmware and boot loaders read: ISO 9660, the hybrid boot sector, FAT."""
