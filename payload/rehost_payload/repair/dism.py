"""Driver packages installed by Windows' own tool (DISM), so that it can be undone like everything else.

What the tool may change is saved and announced before it starts; afterwards the installation is looked at, and what is
left to be done is computed by the engine of ours. Whatever goes wrong, the folders are put back and our engine installs
the package instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from glob import escape
from pathlib import Path
from typing import cast

from rehost_payload.drivers.inject import CATALOGS, PUBLISHED, STORE
from rehost_payload.drivers.inject_model import InjectError
from rehost_payload.formats.errors import FormatError
from rehost_payload.repair.errors import ApplyError
from rehost_payload.repair.hives import prepare_hive, surveyed_package
from rehost_payload.repair.journal import Journal, TreeStep
from rehost_payload.repair.locate import locate_volume, reading
from rehost_payload.repair.model import Change, Engine, InjectDriver, Note, Plan
from rehost_payload.repair.prepared import HiveAction, PreparedFile
from rehost_payload.repair.tree import Watched, read_record, save_tree, tree_after, tree_changes
from rehost_payload.repair.undo import put_back
from rehost_payload.repair.writing import Mounts
from rehost_payload.system.protocol import DriverTool, System, SystemError_

_HIVES = ("system", "software", "drivers", "components", "sam", "security", "default")
_EVENT_LOGS = (r"System32\winevt\Logs\System.evtx", r"System32\winevt\Logs\Security.evtx")
_HIVE_ENDINGS = ("{}.*", "{}{{*")  # logs, and what a transaction needs


class DismError(Exception):
    """The tool did not do it; everything is as it was before it. The message is technical."""


def chosen_tool(plan: Plan, system: System, engine: Engine) -> tuple[DriverTool | None, tuple[Note, ...]]:
    """The tool, where it was asked for, there is a package to be installed and the tool may do it; else why not."""
    packages = [a for a in plan.actions if isinstance(a, InjectDriver)]
    if engine is not Engine.DISM or not packages:
        return None, ()
    if not hasattr(system, "install_driver"):
        return None, (Note("dism-platform"),)
    tool = cast("DriverTool", system)
    for action in packages:
        refusal = tool.driver_tool_refusal(action.build, action.root)
        if refusal is not None:
            word, params = refusal
            return None, (Note(f"dism-{word}", params),)
    return tool, (Note("dism-chosen"),)


def install(
    group: Sequence[HiveAction],
    system: System,
    tool: DriverTool,
    journal: Journal,
    waiting: Callable[[], None],
) -> tuple[list[PreparedFile], list[Change]]:
    """Lets the tool install the packages of one hive's actions. Returns what is left to be written, and what it changed.

    Raises DismError; ApplyError, SystemError_ or OSError where its doings could not be taken back.
    """
    packages = [a for a in group if isinstance(a, InjectDriver)]
    volume = packages[0].volume
    place = locate_volume(system, volume)
    try:
        with reading(system, volume) as reader:
            watched = [w for a in packages for w in _watched(a)]
            signs = [rf"{packages[0].root}\{log}" for log in _EVENT_LOGS]
            name, digest = save_tree(reader, _once(watched), journal, signs)
        step = TreeStep(volume, "dism", name, digest)
        record = read_record(journal, step)
    except (ApplyError, InjectError, SystemError_, FormatError, OSError) as e:
        raise DismError(str(e)) from e
    seq = journal.begin(step)
    try:
        try:
            for action in packages:
                inf = Path(action.package, action.inf)
                tool.install_driver(place.disk, place.offset, place.size, action.root, inf, waiting)
        finally:
            _keep_log(tool, journal)
        files = prepare_hive(group, system, installed=True)
        with reading(system, volume) as reader:
            after = tree_after(reader, record)
        journal.done(seq, asdict(after))
    except (ApplyError, SystemError_, FormatError, OSError) as e:
        with ExitStack() as stack:
            mounts = Mounts(system, stack)
            put_back(step, journal, mounts, system)
            mounts.close()
        journal.undone(seq)
        raise DismError(str(e)) from e
    return files, list(tree_changes(record, after))


def _keep_log(tool: DriverTool, journal: Journal) -> None:
    """Windows PE forgets it at the restart."""
    with suppress(SystemError_):
        if words := tool.driver_tool_log():
            journal.volume.replace(f"{journal.folder}\\dism.log", words)


def _once(watched: Sequence[Watched]) -> list[Watched]:
    """Several packages: what any of them may add to or change in a folder."""
    merged: dict[str, list[Watched]] = {}
    for w in watched:
        merged.setdefault(w.path.lower(), []).append(w)
    return [
        Watched(
            same[0].path,
            tuple(dict.fromkeys(p for w in same for p in w.removable)),
            _any(same),
            tuple(dict.fromkeys(p for w in same for p in w.deep)),
        )
        for same in merged.values()
    ]


def _any(watched: Sequence[Watched]) -> Callable[[str], bool]:
    return lambda name: any(w.saved(name) for w in watched)


def _watched(action: InjectDriver) -> list[Watched]:
    """Where DISM works when it adds a package: hives (it loads them all), driver store, INF, catalogs, driver files."""
    root, above = action.root, action.root.rpartition("\\")[0]
    package = surveyed_package(action)
    names = {path.rpartition("\\")[2].lower() for path in package.files}
    stored = f"{escape(action.inf.lower())}_*"
    files = tuple(escape(name) for name in sorted(names))
    return [
        _hives(rf"{root}\System32\config", _HIVES, lambda name: True),
        _hives(rf"{root}\System32\SMI\Store\Machine", ("schema.dat",), lambda name: True),
        _hives(rf"{above}\Users\Default", ("ntuser.dat",), lambda name: name.startswith("ntuser.dat")),
        Watched(
            rf"{root}\{PUBLISHED}",
            ("oem*.inf", "*.pnf", "setupapi*.log"),
            # the INFs of Windows itself are read only
            lambda name: not name.endswith(".inf") or name.startswith("oem"),
        ),
        Watched(rf"{root}\System32\DriverStore", ("*.dat", "temp"), lambda name: True),
        Watched(rf"{root}\System32\DriverStore\Temp", ("*",)),
        Watched(rf"{root}\{STORE}", (stored,), deep=(stored,)),
        Watched(rf"{root}\{CATALOGS}", ("oem*.cat",), lambda name: name.startswith("oem")),
        Watched(rf"{root}\System32\drivers", files, lambda name: name in names),
        Watched(rf"{root}\System32", files, lambda name: name in names),
    ]


def _hives(path: str, names: Sequence[str], saved: Callable[[str], bool]) -> Watched:
    return Watched(path, tuple(e.format(name) for name in names for e in _HIVE_ENDINGS), saved)
