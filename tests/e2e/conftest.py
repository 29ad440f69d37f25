"""Machines that are on within a second, for tests that need many of them."""

from __future__ import annotations

import pytest

from support.lab import Lab, make_lab
from support.product import Product


@pytest.fixture(scope="session")
def uefi_lab(medium: Product, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return make_lab(medium, "uefi", tmp_path_factory.mktemp("uefi-lab"))


@pytest.fixture(scope="session")
def bios_lab(medium: Product, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return make_lab(medium, "bios", tmp_path_factory.mktemp("bios-lab"))
