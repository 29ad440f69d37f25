"""The payload on CPython for Windows, under Wine. Skipped, saying so, where there is no Wine."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import wine


@pytest.fixture(scope="session")
def medium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runtime and payload in one folder, as on the medium."""
    if why := wine.missing():
        pytest.skip(why)
    return wine.medium(tmp_path_factory.mktemp("medium") / "rehost")
