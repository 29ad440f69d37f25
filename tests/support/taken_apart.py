"""A finished medium of Windows PE taken apart, changed, and put together again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rehost_builder.content import read_content
from rehost_builder.media.iso_reader import open_iso
from rehost_builder.media.udf import BootEntries, write_winpe_iso
from rehost_builder.wim.append import append
from rehost_builder.wim.reader import Wim


class Parts:
    """The files of a medium, to be changed. `write` makes lists and image fit again, so that only the change is wrong."""

    def __init__(self, iso: Path) -> None:
        with iso.open("rb") as f:
            image = open_iso(f)
            self.files = {p: image.content(x) for p, x in image.best.files.items() if p != "boot.cat"}
            entries = [image.read(e.offset, e.load * 512) for e in image.boot]
        self.bios, self.efi = entries
        self.build: dict[str, Any] = json.loads(self.files["build.json"])
        self.wim = "sources/boot.wim"

    def write(self, target: Path, *, listed: bool = True) -> Path:
        if listed:
            old = {f["path"]: f for f in self.build["medium"]}
            own = {"build.json", "README.txt", "Export-Guardian.ps1", "SHA256SUMS"}
            self.build["medium"] = [
                {**old.get(p, {"origin": "media"}), "path": p, "size": len(d), "sha256": digest(d)}
                for p, d in sorted(self.files.items()) if p not in own
            ]  # fmt: skip
            self.build["boot_images"] = {"bios": digest(self.bios), "efi": digest(self.efi)}
            self.files["build.json"] = json.dumps(self.build).encode()
            self.files["SHA256SUMS"] = "".join(
                f"{digest(d)}  {p}\n" for p, d in sorted(self.files.items()) if p != "SHA256SUMS"
            ).encode()
        write_winpe_iso(
            target, self.files, BootEntries(self.bios, self.efi), label="REHOST", epoch=1_700_000_000
        )
        return target

    def change_image(self, work: Path, add: Mapping[str, bytes], remove: tuple[str, ...] = ()) -> None:
        path = work / "old.wim"
        path.write_bytes(self.files[self.wim])
        with path.open("rb") as f:
            changed = append(Wim(f), path, 1, dict(add), epoch=1_700_000_000, remove=remove)
            self.files[self.wim] = read_content(changed.content)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
