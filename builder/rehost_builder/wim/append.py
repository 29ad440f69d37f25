"""Adds files to an image by appending: new contents, new metadata, a new look-up table, a new header.

Nothing that is in the file is moved or compressed again, and what is added is not compressed: the boot manager reads
such files (iPXE's wimboot has made them since 2014), and a build takes a second instead of a minute.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

from rehost_builder.content import Content, Extent, Joined, digest_of, open_content, part_of, size_of
from rehost_builder.wim.header import METADATA, NOTHING, SIZE, Resource
from rehost_builder.wim.info import change_counts, image_element, pack_xml
from rehost_builder.wim.integrity import make_integrity, parse_integrity
from rehost_builder.wim.reader import Wim
from rehost_builder.wim.table import Blob, pack_table
from rehost_builder.wim.tree import NO_HASH, Entry, Tree, new_entry, pack_tree, split_path
from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.hive_base import UNIX_EPOCH

_INTEGRITY_LIMIT = 16 << 20


@dataclass(frozen=True)
class Appended:
    """``content`` is the whole new file; ``added`` the bytes by which it is longer than the old one."""

    content: Joined
    added: int


def append(
    wim: Wim,
    original: Content,
    image: int,
    files: Mapping[str, Content],
    *,
    epoch: int,
    remove: Collection[str] = (),
) -> Appended:
    """The file ``original`` (open as ``wim``) with ``files`` put into ``image``, which is booted from then on.

    ``files`` maps paths (either slash) to contents; folders are made, files of the same name (in any case) replaced,
    ``remove`` names files that go. ``epoch`` (seconds since 1970, UTC) dates what is new. The same input gives the
    same bytes. Raises FormatError for a WIM that is damaged or cannot be added to, ValueError for a name that Windows
    does not allow or that is a folder in the image.
    """
    header = wim.header
    if header.pipable or header.esd or header.parts != 1:
        raise FormatError("WIM file", "files cannot be added to a pipable, solid or split one")
    filetime = epoch * 10_000_000 + UNIX_EPOCH
    old_metadata = wim.metadata_blob(image)
    change = _Change(wim, wim.tree(image), filetime)
    tail = _Tail(size_of(original))

    for path in sorted(remove):
        change.remove(path)
    new: dict[bytes, Blob] = {}
    for path in sorted(files):
        digest, length = digest_of(files[path], "sha1")
        change.put(path, digest, length)
        if length and wim.blob(digest) is None and digest not in new:
            new[digest] = Blob(tail.add(files[path], length), 1, 0, digest)

    packed = pack_tree(change.tree)
    metadata = replace(tail.add(packed, len(packed)), flags=METADATA)
    table = []
    for blob in [*wim.blobs, *new.values()]:
        if blob is old_metadata:
            sha1 = hashlib.sha1(packed, usedforsecurity=False).digest()
            table.append(Blob(metadata, 1, 1, sha1))
        elif blob.is_metadata:
            table.append(blob)
        else:
            references = blob.references + change.references[blob.sha1]
            if references > 0:
                table.append(replace(blob, references=references))
    raw_table = pack_table(table)
    new_header = header.with_changes(
        table=tail.add(raw_table, len(raw_table)),
        boot_index=image,
        boot_metadata=metadata,
        integrity=NOTHING,
    )
    covered = tail.end

    xml = deepcopy(wim.xml)
    element = image_element(xml, image)
    if element is not None:
        change_counts(
            element,
            files=change.files,
            folders=change.folders,
            size=change.size,
            hard_links=change.hard_links,
            filetime=filetime,
        )
    total = xml.find("TOTALBYTES")
    if total is not None:
        total.text = str(covered)
    raw_xml = pack_xml(xml)
    new_header = new_header.with_changes(xml=tail.add(raw_xml, len(raw_xml)))

    if header.integrity.stored:
        table_bytes = _new_integrity(
            wim, Joined((*part_of(original, 0, size_of(original)), *tail.parts)), covered
        )
        new_header = new_header.with_changes(integrity=tail.add(table_bytes, len(table_bytes)))
    body = part_of(original, SIZE, size_of(original) - SIZE)
    return Appended(Joined((new_header.pack(), *body, *tail.parts)), tail.end - size_of(original))


class _Change:
    """The tree while it changes, and what that does to the counts."""

    def __init__(self, wim: Wim, tree: Tree, filetime: int) -> None:
        self.tree = tree
        self.references: Counter[bytes] = Counter()
        self.files = self.folders = self.size = self.hard_links = 0
        self._wim = wim
        self._filetime = filetime

    def put(self, path: str, sha1: bytes, length: int) -> None:
        *folders, name = split_path(path)
        where = self.tree.root
        for folder in folders:
            found = where.child(folder)
            if found is None:
                found = new_entry(folder, sha1=None, filetime=self._filetime)
                where.add(found)
                self.folders += 1
            elif not found.is_folder:
                raise ValueError(f"{folder} in {path} is a file in the image")
            where = found
        old = where.child(name)
        if old is not None:
            if old.is_folder:
                raise ValueError(f"{path} is a folder in the image")
            self._drop(where, old)
        where.add(
            new_entry(old.name if old else name, sha1=sha1 if length else NO_HASH, filetime=self._filetime)
        )
        self.files += 1
        self.size += length
        if length:
            self.references[sha1] += 1

    def remove(self, path: str) -> None:
        *folders, name = split_path(path)
        where = self.tree.find("/".join(folders))
        old = where.child(name) if where is not None else None
        if where is not None and old is not None and not old.is_folder:
            self._drop(where, old)

    def _drop(self, where: Entry, old: Entry) -> None:
        where.remove(old)
        self.files -= 1
        length = sum(self._wim.size_of(h) for h in old.hashes)
        self.size -= length
        if old.hard_link_group:
            self.hard_links -= length
        for sha1 in old.hashes:
            self.references[sha1] -= 1


class _Tail:
    """What comes after the end of the original."""

    def __init__(self, start: int) -> None:
        self.end = start
        self.parts: list[bytes | Extent] = []

    def add(self, content: Content, length: int) -> Resource:
        place = Resource(length, 0, self.end, length)
        self.parts += part_of(content, 0, length)
        self.end += length
        return place


def _new_integrity(wim: Wim, whole: Joined, covered: int) -> bytes:
    """The old table's hashes of what has not changed, and new ones from there on."""
    chunk, hashes = parse_integrity(wim.read(wim.header.integrity, _INTEGRITY_LIMIT))
    old_end = wim.header.table.offset + wim.header.table.stored
    unchanged = min(max(old_end - SIZE, 0) // chunk, len(hashes))
    with open_content(whole) as f:
        return make_integrity(f, covered, chunk, tuple(hashes[:unchanged]))
