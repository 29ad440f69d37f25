"""A capture's target in memory that forgets on a power cut what was not flushed, and fails where a test wants it to.

Stricter than a disk: without a flush nothing survives, neither bytes nor sizes nor names, or (``chance``) any part of
it does. Every call that reaches the "disk" is counted, so that a test can cut the power at each of them.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from rehost_payload.system.capture_target import TargetInfo
from rehost_payload.system.protocol import SystemError_

PAGE = 4096


class PowerCut(BaseException):
    """The machine is dead at this point: nothing catches it."""


@dataclass
class _Node:
    """A file's bytes: what reads see, and what is on the medium."""

    now: bytearray = field(default_factory=bytearray)
    safe: bytes = b""


@dataclass
class MemoryTarget:
    """Implements CaptureTarget. ``fail`` is asked before each call (operation, path, offset); it may raise."""

    info: TargetInfo = field(default_factory=lambda: TargetInfo("memory", "memory", "ntfs"))
    capacity: int = 1 << 40
    fail: Callable[[str, str, int], None] = lambda operation, path, offset: None
    files: dict[str, _Node] = field(default_factory=dict)
    safe_names: dict[str, _Node] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    calls: int = 0
    cut_at: int | None = None
    dead: bool = False
    moving: tuple[str, str] | None = None  # a folder whose new name is not flushed yet
    lock: threading.RLock = field(default_factory=threading.RLock)
    times: dict[str, tuple[int, int]] = field(default_factory=dict)

    def call(self, operation: str, path: str, offset: int = 0) -> None:
        with self.lock:
            if self.dead:
                raise PowerCut
            self.calls += 1
            if self.cut_at is not None and self.calls > self.cut_at:
                self.dead = True
                raise PowerCut
        self.fail(operation, path, offset)

    def restart(self, chance: random.Random | None = None) -> None:
        """Power is back: what was not flushed is gone, or with ``chance`` any page and name of it may have made it."""
        if self.moving is not None:
            old, new = self.moving
            if chance is not None and chance.random() < 0.5:
                self.safe_names = _moved(self.safe_names, old, new)
            else:
                self.files = _moved(self.files, new, old)
            self.moving = None
        names = dict(self.safe_names)
        if chance is not None:
            for path in sorted(self.files.keys() | names.keys()):
                if self.files.get(path) is not names.get(path) and chance.random() < 0.5:
                    if path in self.files:
                        names[path] = self.files[path]
                    else:
                        del names[path]
        for node in {id(n): n for n in [*names.values(), *self.files.values()]}.values():
            node.now = bytearray(self._survivors(node, chance))
            node.safe = bytes(node.now)
        self.files, self.safe_names = names, dict(names)
        self.dead, self.cut_at, self.calls = False, None, 0

    @staticmethod
    def _survivors(node: _Node, chance: random.Random | None) -> bytes:
        if chance is None or bytes(node.now) == node.safe:
            return node.safe
        size = len(node.now) if chance.random() < 0.5 else len(node.safe)
        result = bytearray(node.safe[:size].ljust(size, b"\0"))
        for start in range(0, size, PAGE):
            if chance.random() < 0.5:
                piece = node.now[start : min(size, start + PAGE)]
                result[start : start + len(piece)] = piece
        return bytes(result)

    def content(self, path: str) -> bytes:
        return bytes(self.files[path].now)

    # --- CaptureTarget ---

    def _used(self) -> int:
        return sum(len(node.now) for node in self.files.values())

    def free(self) -> int:
        self.call("free", "")
        return self.capacity - self._used()

    def size(self, path: str) -> int | None:
        self.call("size", path)
        node = self.files.get(path)
        return None if node is None else len(node.now)

    def names(self, folder: str) -> list[str]:
        self.call("names", folder)
        start = f"{folder}/" if folder else ""
        return sorted({p[len(start) :].split("/")[0] for p in self.files if p.startswith(start)})

    def make_folders(self, path: str) -> None:
        self.call("make_folders", path)
        self.folders.add(path)

    def open(self, path: str) -> MemoryFile:
        self.call("open", path)
        assert "/" not in path or path.rpartition("/")[0] in self.folders, "its folder was not made"
        return MemoryFile(self, path, self.files.setdefault(path, _Node()))

    def rename(self, old: str, new: str) -> None:
        self.call("rename", new)
        if old not in self.files:
            self._rename_folder(old, new)
            return
        node = self.files.pop(old)
        self.files[new] = node
        self.call("rename flush", new)
        self.safe_names.pop(old, None)
        self.safe_names[new] = node

    def _rename_folder(self, old: str, new: str) -> None:
        """One entry of the folder above: after a power cut it has the one name or the other."""
        assert not self.names(new), "there is one of this name"
        assert self.names(old), "there is none"
        self.files = _moved(self.files, old, new)
        self.moving = (old, new)
        self.folders = {f for f in self.folders if not f"{f}/".startswith(f"{old}/")}
        self.call("rename flush", new)
        self.safe_names, self.moving = _moved(self.safe_names, old, new), None

    def remove_folder(self, path: str) -> None:
        self.call("remove_folder", path)
        if not self.names(path):
            self.folders.discard(path)

    def remove(self, path: str) -> None:
        self.call("remove", path)
        if self.files.pop(path, None) is not None:
            self.call("remove flush", path)
            self.safe_names.pop(path, None)

    def read(self, path: str) -> bytes:
        self.call("read", path)
        if path not in self.files:
            raise SystemError_("absent", path)
        return self.content(path)

    def replace(self, path: str, data: bytes) -> None:
        self.call("replace", path)
        node = _Node(bytearray(data), data)
        self.files[path] = node
        self.call("replace flush", path)
        self.safe_names[path] = node

    def append(self, path: str, data: bytes) -> None:
        self.call("append", path)
        node = self.files.setdefault(path, _Node())
        node.now += data
        self.call("append flush", path)
        node.safe = bytes(node.now)
        self.safe_names[path] = node


def _moved(files: dict[str, _Node], old: str, new: str) -> dict[str, _Node]:
    start = f"{old}/"
    return {f"{new}/{p[len(start) :]}" if p.startswith(start) else p: node for p, node in files.items()}


@dataclass
class MemoryFile:
    target: MemoryTarget
    path: str
    node: _Node
    unbuffered: bool = True

    def reserve(self, size: int) -> None:
        self.target.call("reserve", self.path)
        if self.target._used() - len(self.node.now) + size > self.target.capacity:
            raise SystemError_("no-space", self.path)
        self.node.now.extend(bytes(max(0, size - len(self.node.now))))

    def write_at(self, offset: int, buffer: memoryview, length: int) -> None:
        assert offset % PAGE == 0
        end = -(-length // PAGE) * PAGE
        assert not any(buffer[length:end]), "the end of the last page is not zeros"
        half = end // 2 // PAGE * PAGE
        for start, stop in ((0, half), (half, end)):  # a write can be torn
            self.target.call("write", self.path, offset + start)
            self.node.now.extend(bytes(max(0, offset + stop - len(self.node.now))))
            self.node.now[offset + start : offset + stop] = buffer[start:stop]

    def read_into(self, offset: int, buffer: memoryview) -> int:
        self.target.call("read_into", self.path, offset)
        piece = self.node.now[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    def flush(self) -> None:
        self.target.call("flush", self.path)
        self.node.safe = bytes(self.node.now)
        self.target.safe_names[self.path] = self.node

    def finish(self, size: int, created: int, modified: int) -> None:
        self.target.call("finish", self.path)
        del self.node.now[size:]
        self.target.times[self.path] = (created, modified)
        self.flush()

    def close(self) -> None:
        pass
