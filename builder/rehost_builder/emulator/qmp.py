"""A client for the QEMU Machine Protocol: one command at a time, events kept in the order they came."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class QmpError(RuntimeError):
    """QEMU answered a command with an error, or is gone."""


class QmpClient:
    """Connects to the socket ``path``, which QEMU may still be about to create.

    ``timeout`` (seconds) bounds the wait for the socket and for each answer; the wait for the socket ends with
    ``alive`` too: a QEMU that refuses its command line creates the socket first, and nobody answers there.
    Raises `QmpError` where QEMU says no, closes the connection or has ended.
    """

    def __init__(self, path: Path, timeout: float = 30.0, alive: Callable[[], bool] = lambda: True) -> None:
        self._timeout = timeout
        self._buffer = b""
        self.events: list[dict[str, Any]] = []
        self._socket = self._connect(path, timeout, alive)
        greeting = self._message(time.monotonic() + timeout)
        if "QMP" not in greeting:
            raise QmpError(f"no greeting but {greeting}")
        self.command("qmp_capabilities")

    @staticmethod
    def _connect(path: Path, timeout: float, alive: Callable[[], bool]) -> socket.socket:
        deadline = time.monotonic() + timeout
        while True:
            channel = socket.socket(socket.AF_UNIX)
            try:
                channel.connect(str(path))
                return channel
            except OSError as error:
                channel.close()
                if time.monotonic() > deadline or not alive():
                    raise QmpError(f"cannot connect to {path}: {error}") from error
                time.sleep(0.02)

    def _message(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("QMP")
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                raise
            except OSError as error:
                raise QmpError(f"QEMU is gone: {error}") from error
            if not data:
                raise QmpError("QEMU is gone")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def command(self, name: str, **arguments: Any) -> Any:
        """Runs a command and returns its result. Underscores in argument names become hyphens."""
        request: dict[str, Any] = {"execute": name}
        if arguments:
            request["arguments"] = {key.replace("_", "-"): value for key, value in arguments.items()}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise QmpError(f"{name}: QEMU is gone: {error}") from error
        deadline = time.monotonic() + self._timeout
        while True:
            message = self._message(deadline)
            if "event" in message:
                self.events.append(message)
            elif "error" in message:
                raise QmpError(f"{name}: {message['error'].get('desc', message['error'])}")
            else:
                return message["return"]

    def wait_event(self, name: str, timeout: float) -> dict[str, Any]:
        """The first event of that name which has not been taken yet. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while True:
            for index, event in enumerate(self.events):
                if event["event"] == name:
                    return self.events.pop(index)
            message = self._message(deadline)
            if "event" in message:
                self.events.append(message)

    def close(self) -> None:
        self._socket.close()
