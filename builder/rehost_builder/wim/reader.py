"""Looks into a WIM file: its images, their files, and the content of single files."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET
from functools import cached_property
from typing import BinaryIO

from rehost_builder.wim import resource
from rehost_builder.wim.header import Header, Resource, read_header
from rehost_builder.wim.info import ImageInfo, image_infos, parse_xml
from rehost_builder.wim.table import Blob, parse_table
from rehost_builder.wim.tree import NO_HASH, Tree, parse_tree
from rehost_payload.formats.errors import FormatError

WHAT = "WIM file"
_XML_LIMIT, _TABLE_LIMIT, _METADATA_LIMIT = 16 << 20, 128 << 20, 256 << 20
FILE_LIMIT = 64 << 20


class Wim:
    """A WIM file over an open, seekable source. Everything raises FormatError for bytes that are not right."""

    def __init__(self, source: BinaryIO) -> None:
        self.source = source
        self.header: Header = read_header(source)

    @cached_property
    def blobs(self) -> list[Blob]:
        return parse_table(self.read(self.header.table, _TABLE_LIMIT))

    @cached_property
    def xml(self) -> ET.Element:
        return parse_xml(self.read(self.header.xml, _XML_LIMIT))

    @cached_property
    def images(self) -> list[ImageInfo]:
        return image_infos(self.xml)

    @cached_property
    def _by_hash(self) -> dict[bytes, Blob]:
        return {b.sha1: b for b in self.blobs if not b.is_metadata}

    def blob(self, sha1: bytes) -> Blob | None:
        return self._by_hash.get(sha1)

    def metadata_blob(self, index: int) -> Blob:
        found = [b for b in self.blobs if b.is_metadata]
        if not 0 < index <= len(found):
            raise FormatError(WHAT, f"there is no image {index}; it has {len(found)}")
        return found[index - 1]

    def tree(self, index: int) -> Tree:
        """The files of image ``index`` (from 1), checked against the hash of the metadata."""
        blob = self.metadata_blob(index)
        data = self.read(blob.resource, _METADATA_LIMIT)
        if blob.sha1 != NO_HASH and hashlib.sha1(data, usedforsecurity=False).digest() != blob.sha1:
            raise FormatError(WHAT, f"the metadata of image {index} is damaged", blob.resource.offset)
        return parse_tree(data)

    def read_file(self, tree: Tree, path: str, limit: int = FILE_LIMIT) -> bytes | None:
        """The content of a file, checked against its hash; None where it is not there."""
        entry = tree.find(path)
        if entry is None or entry.is_folder:
            return None
        if entry.sha1 == NO_HASH:
            return b""
        blob = self.blob(entry.sha1)
        if blob is None:
            raise FormatError(WHAT, f"the content of {path} is not in the file")
        data = self.read(blob.resource, limit)
        if hashlib.sha1(data, usedforsecurity=False).digest() != entry.sha1:
            raise FormatError(WHAT, f"the content of {path} is damaged", blob.resource.offset)
        return data

    def size_of(self, sha1: bytes) -> int:
        """Bytes of a content; 0 where there is none."""
        blob = self.blob(sha1)
        return blob.resource.size if blob else 0

    def read(self, where: Resource, limit: int) -> bytes:
        return resource.read(self.source, self.header, where, limit)
