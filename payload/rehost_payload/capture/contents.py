"""What a capture on a target says of itself, and the files in its root that are made from that: the way back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rehost_payload import strictjson
from rehost_payload.capture.copy_state import CaptureState, UnitState, read_state
from rehost_payload.capture.found import FoundHost
from rehost_payload.capture.guardians import documents as guardian_documents
from rehost_payload.capture.manifest import MANIFEST, SUMS
from rehost_payload.capture.manifest import from_json as manifest_from_json
from rehost_payload.capture.model import CapturePlan, HostSettings, Manifest
from rehost_payload.capture.restore.data import RESTORE, restore_data, to_json
from rehost_payload.capture.restore.scripts import scripts
from rehost_payload.formats.errors import FormatError
from rehost_payload.repair.model import Finding
from rehost_payload.system.capture_target import CaptureTarget
from rehost_payload.system.protocol import SystemError_

HOST_JSON, FINDINGS_JSON = "host.json", "findings.json"
_HOST = "host"


@dataclass(frozen=True)
class CaptureContents:
    """A capture as it lies on one target. ``units`` are the manifests by folder; ``findings`` those that belong to
    no unit; ``unread`` says what could not be read."""

    state: CaptureState
    units: Mapping[str, Manifest] = field(default_factory=dict)
    settings: HostSettings | None = None
    findings: tuple[Finding, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def machines(self) -> list[UnitState]:
        """The units that are virtual machines, finished or not."""
        return [u for u in self.state.units if u.id not in (_HOST, "orphans")]


def host_documents(plan: CapturePlan, found: FoundHost) -> dict[str, dict[str, bytes]]:
    """What is copied with the host's own files: its settings, the findings that belong to no unit, and the certificates
    of virtual TPMs that were saved."""
    documents = {FINDINGS_JSON: _json(strictjson.plain(plan.findings))}
    if found.settings is not None:
        documents[HOST_JSON] = _json(strictjson.plain(found.settings))
    documents |= guardian_documents(found.guardians, found.guardian_files)
    return {_HOST: documents} if any(u.id == _HOST for u in plan.units) else {}


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"


def read_contents(target: CaptureTarget, name: str) -> CaptureContents | None:
    """The capture in folder ``name`` ("" for the target's root); None where there is none. Raises SystemError_."""
    state = read_state(target, name)
    if state is None:
        return None
    units: dict[str, Manifest] = {}
    unread: list[str] = []
    for unit in state.units:
        try:
            units[unit.folder] = manifest_from_json(target.read(f"{name}/{unit.folder}/{MANIFEST}"))
        except FormatError as error:
            unread.append(f"{unit.folder}: {error}")
        except SystemError_ as error:
            if error.code != "absent":  # not finished yet
                raise
    host = next((u.folder for u in state.units if u.id == _HOST), _HOST)
    settings = _document(target, f"{name}/{host}/{HOST_JSON}", HostSettings, unread)
    findings = _document(target, f"{name}/{host}/{FINDINGS_JSON}", tuple[Finding, ...], unread)
    return CaptureContents(state, units, settings, findings or (), tuple(unread))


def _document(target: CaptureTarget, path: str, kind: Any, unread: list[str]) -> Any:
    try:
        return strictjson.read(kind, json.loads(target.read(path)), path, path.rpartition("/")[2])
    except (ValueError, RecursionError, FormatError) as error:
        unread.append(f"{path}: {error}")
    except SystemError_ as error:
        if error.code != "absent":
            raise
    return None


def root_files(contents: CaptureContents) -> dict[str, bytes]:
    """restore.json and the scripts that read it."""
    data = restore_data(contents.units, contents.settings)
    return {RESTORE: to_json(data).encode(), **scripts()}


def write_root(target: CaptureTarget, name: str, files: Mapping[str, bytes]) -> None:
    """Puts files into the capture's root, each old or new, and their hashes beside them. Raises SystemError_."""
    for path, data in files.items():
        target.replace(f"{name}/{path}", data)
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {path}\n" for path, data in sorted(files.items()))
    target.replace(f"{name}/{SUMS}", sums.encode())
