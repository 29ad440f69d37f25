"""manifest.json and SHA256SUMS of a captured unit: how they are written, and the manifest read back.

Restore scripts and the resumed copy read a manifest here; `rehost capture verify` judges it with code of its own
(judge.py).
"""

from __future__ import annotations

import json

from rehost_payload import strictjson
from rehost_payload.capture.model import FORMAT, Manifest
from rehost_payload.formats.errors import FormatError

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
_WHAT = "capture manifest"


def to_json(manifest: Manifest) -> str:
    """Indented, ASCII only: names from disks may hold anything, consoles and mail may not."""
    return json.dumps(strictjson.plain(manifest), indent=1) + "\n"


def from_json(text: str | bytes) -> Manifest:
    """Raises FormatError for what is no manifest of this format."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(_WHAT, f"not JSON: {error}") from error
    if not isinstance(data, dict) or "format" not in data:
        raise FormatError(_WHAT, "not a manifest of Rehost")
    if data["format"] != FORMAT:
        raise FormatError(_WHAT, f"format {data['format']!r} is not {FORMAT}, the one understood here")
    manifest = strictjson.read(Manifest, data, _WHAT, "manifest")
    assert isinstance(manifest, Manifest)
    return manifest


def sums_line(digest: str, path: str) -> str:
    """A line as GNU sha256sum writes and checks it; names with a backslash or a line break are escaped."""
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == path else chr(92)}{digest}  {escaped}\n"


def sums(manifest: Manifest, manifest_digest: str) -> bytes:
    """SHA256SUMS: every file of the unit and the manifest itself, for `sha256sum -c SHA256SUMS`."""
    lines = [sums_line(file.sha256, file.path) for file in manifest.files]
    return "".join([*lines, sums_line(manifest_digest, MANIFEST)]).encode("utf-8", "surrogateescape")
