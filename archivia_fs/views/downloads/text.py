"""Computed files as they wait in memory: METS and CSV of 10,000 files are 15 MB, packed half a megabyte.

Owns: the packing. Used by: mets, table, plans, content. Threading: a Text is immutable; a Packer belongs to one thread.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import Buffer

BLOCK = 256 * 1024  # bytes that are packed and unpacked at once


@dataclass(frozen=True, slots=True)
class Text:
    """A Content. `blocks`: BLOCK bytes each but the last, deflated; `sha256` in hex."""

    blocks: Sequence[bytes]
    size: int
    crc32: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Text:
        packer = Packer()
        packer.write(data)
        return packer.text()

    @property
    def etag(self) -> str:
        return self.sha256[:40]

    @property
    def memory(self) -> int:
        """Bytes, packed."""
        return sum(map(len, self.blocks))

    def data(self) -> bytes:
        """All of it."""
        return b"".join(map(zlib.decompress, self.blocks))

    def pread(self, offset: int, size: int) -> Buffer:
        """Up to `size` bytes from `offset`; shorter only at the end."""
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        first = offset // BLOCK
        data = b"".join(map(zlib.decompress, self.blocks[first : -(-end // BLOCK)]))
        return memoryview(data)[offset - first * BLOCK : end - first * BLOCK]

    def expect(self, start: int, end: int) -> None:
        """They are here."""

    def close(self) -> None:
        """Nothing is held."""


class Packer:
    """A file to write to; `text()` at the end."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._blocks: list[bytes] = []
        self._size = self._crc = 0
        self._sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._size += len(data)
        self._waiting += data
        while len(self._waiting) >= BLOCK:
            self._pack(bytes(self._waiting[:BLOCK]))
            del self._waiting[:BLOCK]
        return len(data)

    def flush(self) -> None:
        """Nothing can be said before the end."""

    def text(self) -> Text:
        """What was written. Writing afterwards is an error."""
        self._pack(bytes(self._waiting))
        return Text(tuple(self._blocks), self._size, self._crc, self._sha256.hexdigest())

    def _pack(self, data: bytes) -> None:
        if data:
            self._crc = zlib.crc32(data, self._crc)
            self._sha256.update(data)
            self._blocks.append(zlib.compress(data, 1))
