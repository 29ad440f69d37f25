"""The files of drivers: what they are, and whether this Windows has what they import."""

from __future__ import annotations

from dataclasses import replace

from rehost_payload.formats import pe
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.filesystem import FileSystemReader, UnreadableFile
from rehost_payload.formats.pe_symbols import read_symbols
from rehost_payload.formats.source import ByteSource
from rehost_payload.survey.drivers_model import BinaryFacts

_SHOWN = 10
_FOLDERS = ("System32", "System32\\drivers")
# names that stand for whatever module has the functions in this Windows: not files
_API_SETS = ("api-ms-", "ext-ms-")


class Binaries:
    """The modules of one installation. Remembers what it exports, since many drivers ask the same modules."""

    def __init__(self, reader: FileSystemReader, root: str) -> None:
        self._reader = reader
        self._root = root
        self._exports: dict[str, frozenset[str] | None] = {}  # None: there, but cannot be read
        self._absent: set[str] = set()

    def facts(self, path: str, *, look: bool, compare: bool) -> BinaryFacts:
        """``look`` into its headers, and ``compare`` its imports. Damage goes into ``problem``; OSError."""
        try:
            found = self._reader.stat(path)
            if found is None or found.is_directory:
                return BinaryFacts(path, False)
            facts = BinaryFacts(path, True, found.size)
            if not look:
                return facts
            return self.examined(facts, self._reader.open(path), compare=compare)
        except UnreadableFile as error:
            return BinaryFacts(path, True, unreadable=error.code)
        except FormatError as error:
            return BinaryFacts(path, True, problem=str(error))

    def examined(self, facts: BinaryFacts, source: ByteSource, *, compare: bool) -> BinaryFacts:
        """``facts`` with those of the image in ``source``, which need not be one of this installation."""
        facts = replace(facts, examined=True)
        if facts.size == 0:
            return replace(facts, problem="empty")
        try:
            head = pe.read_facts(source)
            facts = replace(
                facts,
                machine=head.machine,
                subsystem=head.subsystem,
                version=head.version,
                signature=head.signature,
            )
            if head.truncated:
                return replace(facts, problem="truncated")
            return self._compared(facts, source) if compare else facts
        except UnreadableFile as error:
            return replace(facts, examined=False, unreadable=error.code)
        except FormatError as error:
            return replace(facts, problem=str(error))

    def _compared(self, facts: BinaryFacts, source: ByteSource) -> BinaryFacts:
        modules = read_symbols(source).modules
        missing_modules: list[str] = []
        missing: list[str] = []
        complete = True
        for module, names in modules:
            exports = self._of(module.lower())
            if exports is None:
                if module.lower() in self._absent:
                    missing_modules.append(module)
                else:
                    complete = False
                continue
            missing += [f"{module}!{name}" for name in names if name not in exports]
        return replace(
            facts,
            imports=tuple(module for module, _ in modules),
            missing_modules=tuple(missing_modules[:_SHOWN]),
            missing_symbols=tuple(missing[:_SHOWN]),
            imports_compared=complete,
        )

    def _of(self, module: str) -> frozenset[str] | None:
        """The exports of a module of this Windows; None where it is absent or cannot be read."""
        if module not in self._exports:
            self._exports[module] = self._read(module)
        return self._exports[module]

    def _read(self, module: str) -> frozenset[str] | None:
        if module.startswith(_API_SETS) or "\\" in module or "/" in module or not module:
            return None
        for folder in _FOLDERS:
            path = f"{self._root}\\{folder}\\{module}"
            try:
                found = self._reader.stat(path)
                if found is not None and not found.is_directory:
                    return read_symbols(self._reader.open(path), exports=True).exports
            except FormatError:
                return None
        self._absent.add(module)
        return None
