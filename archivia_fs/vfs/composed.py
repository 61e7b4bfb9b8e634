"""A part that is too large for memory: its bytes become a temporary object, which the server then copies into the part.

Owns: the way of these bytes. Used by: uploader. Threading: as its uploader.

Where an interrupted upload had such a part, they wait in the spill area first, one part of a file at a time: at its end it is
known whether they are the same, and if so nothing is sent. Otherwise, or if the spill area is full, they are sent after all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

from archivia_fs.errors import NoSpace
from archivia_fs.types import Part
from archivia_fs.vfs.spill import SpillArea, SpillFile

STEP = 1024**2  # bytes read at once from the spill area


class Sender(Protocol):
    """Makes the temporary object (an Uploader)."""

    def append(self, data: memoryview, timeout: float) -> int: ...
    def append_all(self, data: memoryview) -> None: ...


class ComposedPart:
    """`held`: the part as the store has it already, perhaps with these bytes. `send` begins the temporary object."""

    def __init__(self, held: Part | None, spill: SpillArea, send: Callable[[], Sender]) -> None:
        self._held = held
        self._area = spill
        self._send = send
        self._sending: Sender | None = None
        self._waiting: SpillFile | None = None
        self._sha = hashlib.sha256()
        self._size = 0

    def append(self, piece: memoryview, timeout: float) -> int:
        """Take bytes (at most 1 MiB); returns how many. Raises StoreError."""
        if self._held is not None and self._keep(piece, self._held):
            return len(piece)
        return self._sender().append(piece, timeout)

    def held(self) -> Part | None:
        """At the end: the part, if the store has it with exactly these bytes; else all is on its way to the temporary object."""
        held = self._held
        if held is not None and (self._size, self._sha.hexdigest()) == (held.size, held.sha256):
            return held
        self._sender()
        return None

    def close(self) -> None:
        """Nothing waits any more."""
        if self._waiting is not None:
            self._waiting.close()
            self._waiting = None

    def _keep(self, piece: memoryview, held: Part) -> bool:
        if self._size + len(piece) > held.size:
            return False
        try:
            if self._waiting is None:
                self._waiting = self._area.open()
            self._waiting.pwrite(self._size, piece)
        except NoSpace:
            return False
        self._sha.update(piece)
        self._size += len(piece)
        return True

    def _sender(self) -> Sender:
        """Everything that waits is sent first."""
        if self._sending is None:
            self._held = None
            self._sending = self._send()
            if self._waiting is not None:
                for at in range(0, self._size, STEP):
                    buffer = memoryview(bytearray(min(STEP, self._size - at)))
                    self._waiting.pread_into(at, buffer)
                    self._sending.append_all(buffer)
                self.close()
        return self._sending
