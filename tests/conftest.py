"""Makes `support` (tests/support) importable from every test, and gives the fixtures that several folders share.

REHOST_ISO     an ISO to test instead of a newly built one
REHOST_MSBOOT  Microsoft's boot files, see tests/msboot/README.md
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support import examples, msboot, product, qemu, tables
from support.tables import Table

examples.load_profiles()
# Wine, mtools and xorriso take the encoding of names from here, and a program under test its language
for _name in ("LC_ALL", "LC_CTYPE", "LC_MESSAGES", "LANGUAGE"):
    os.environ.pop(_name, None)
os.environ["LANG"] = "C.UTF-8"
# a shell's background job and nohup ignore these, and every program under test would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(_number, signal.SIG_DFL)


@pytest.fixture(scope="session")
def medium(tmp_path_factory: pytest.TempPathFactory) -> product.Product:
    """The ISO, built once for all tests that boot it."""
    missing = qemu.missing_tools()
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (tools/setup.sh test)")
    base = tmp_path_factory.getbasetemp()  # a worker process has its own below that of the run
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return product.provide(tmp_path_factory.mktemp("medium"), shared)


@pytest.fixture
def our_authority() -> Iterator[None]:
    """The tests' own authority stands for Microsoft's issuers: what it has signed is a sound package."""
    from rehost_payload.formats import pkcs7
    from support.packages import OURS

    with pytest.MonkeyPatch.context() as own:  # not the test's, which may undo it in its middle
        own.setattr(pkcs7, "MICROSOFT", OURS)
        yield


@pytest.fixture(scope="session")
def microsoft() -> msboot.Files:
    """Microsoft's boot files; the test is skipped, and says so, where they are absent."""
    found, why = msboot.files()
    if found is None:
        pytest.skip(why)
    return found


@pytest.fixture(scope="session")
def verdicts() -> Table:
    return tables.VERDICTS


@pytest.fixture(scope="session")
def runs() -> Table:
    return tables.RUNS


@pytest.fixture(scope="session")
def cuts() -> Table:
    return tables.CUTS


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker process hands its rows to the process that prints."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["tables"] = [table.rows[1:] for table in tables.ALL]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes over the rows of a worker process (pytest-xdist)."""
    for table, rows in zip(tables.ALL, getattr(node, "workeroutput", {}).get("tables", ()), strict=False):
        for row in rows:
            table.add(*row)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for table in tables.ALL:
        if not table.empty:
            terminalreporter.section(table.title)
            for line in table.lines():
                terminalreporter.write_line(line)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that boot machines are marked by the folder they lie in, and run after all others."""
    for item in items:
        for name in ("e2e", "msboot"):
            if f"/tests/{name}/" in item.path.as_posix():
                item.add_marker(name)
    slow = ("e2e", "msboot")
    items.sort(key=lambda item: any(item.get_closest_marker(name) for name in slow))
