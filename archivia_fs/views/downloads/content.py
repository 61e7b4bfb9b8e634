"""A ZIP as random-access bytes: headers from its layout, the rest from the revisions it was laid out over.

Owns: the open members of one reader. Used by: view. Threading: any thread; one lock for the members, never held across the store.
Whatever happens to the files, an open ZIP shows the revisions of its layout, so one download never mixes two states.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from typing_extensions import Buffer

from archivia_fs.content import BytesContent, Content
from archivia_fs.errors import BadHandle, CorruptData, FsError
from archivia_fs.types import RevisionId
from archivia_fs.views.downloads.layout import FileRange, Layout
from archivia_fs.views.downloads.text import Text

MEMBERS_MAX = (
    8  # idle open members of one reader: parallel ranges of neighbours, and what is read next, find theirs open
)
AHEAD_MEMBERS = 4  # begun to be fetched before they are read, so that small files are not fetched one after the other
AHEAD = 8 * 1024**2  # bytes in which these begin; a larger member is not fetched before it is nearly its turn
SLACK = 4 * 1024**2  # bytes; the kernel's READs of one reader come slightly out of order
LARGE = 256 * 1024  # bytes; who begins with so large a read wants all of it

Source = RevisionId | Text | None  # None: a folder or an empty file


@dataclass(slots=True)
class _Open:
    content: Content
    readers: int


class ZipContent:
    """A Content over a layout and the bytes of its members by index; `open_revision` opens those of a revision. `on_close`
    is called once."""

    def __init__(
        self, layout: Layout, sources: Sequence[Source], open_revision: Callable[[RevisionId], Content],
        on_close: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._layout = layout
        self._sources = sources
        self._open_revision = open_revision
        self._on_close = on_close
        self._lock = threading.Lock()
        self._members: OrderedDict[int, _Open] = OrderedDict()
        self._closed = False
        self._next = 0  # where a reader in order goes on, about
        self._until = 0  # where it ends; 0: nobody reads in order
        self._begun = -1  # the last member that was begun to be fetched

    @property
    def size(self) -> int:
        return self._layout.size

    @property
    def etag(self) -> str:
        return self._layout.etag

    def pread(self, offset: int, size: int) -> Buffer:
        """Up to `size` bytes from `offset`; shorter only at the end. Raises StoreError, BadHandle after `close`."""
        self._note(offset, size)
        pieces: list[Buffer] = []
        for piece in self._layout.pieces(offset, size):
            if isinstance(piece, FileRange):
                self._fetch_ahead(offset)
                pieces.extend(self._range(piece))
                offset += piece.size
            else:
                pieces.append(piece)
                offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def expect(self, start: int, end: int) -> None:
        """These bytes will be read in order: the first of them are fetched from now on."""
        with self._lock:
            self._next, self._until, self._begun = start, end, -1
        self._fetch_ahead(start)

    def close(self) -> None:
        with self._lock:
            was_closed, self._closed = self._closed, True
            idle = [member for member in self._members.values() if not member.readers]
            self._members = OrderedDict((key, each) for key, each in self._members.items() if each.readers)
        for member in idle:
            member.content.close()
        if not was_closed:
            self._on_close()

    def _note(self, offset: int, size: int) -> None:
        """Is this a reader in order?"""
        with self._lock:
            if offset == 0 and size >= LARGE and not self._until:
                self._next, self._until, self._begun = 0, self.size, -1
            if abs(offset - self._next) > SLACK:
                self._until = 0
            self._next = max(self._next, offset + size)

    def _fetch_ahead(self, offset: int) -> None:
        """For a reader in order, begin to fetch the members that follow."""
        with self._lock:
            if not self._until:
                return
            ahead = [each for each in islice(self._following(offset), AHEAD_MEMBERS) if each[0] > self._begun]
            if ahead:
                self._begun = ahead[-1][0]
        with contextlib.suppress(FsError):  # whoever reads it will hear of it
            for index, start, end in ahead:
                with self._member(index) as content:
                    content.expect(start, end)

    def _following(self, offset: int) -> Iterator[tuple[int, int, int]]:
        """Members that begin or go on within AHEAD bytes from `offset`: index, and which bytes are wanted."""
        for piece in self._layout.pieces(offset, min(AHEAD, self._until - offset)):
            if isinstance(piece, FileRange):
                begins = offset - piece.offset
                yield piece.member, piece.offset, min(self._layout.size_of(piece.member), self._until - begins)
                offset += piece.size
            else:
                offset += len(piece)

    def _range(self, piece: FileRange) -> Iterator[Buffer]:
        with self._member(piece.member) as content:
            offset, left = piece.offset, piece.size
            while left:
                data = content.pread(offset, left)
                count = memoryview(data).nbytes
                if not count:
                    raise CorruptData(
                        "A file in the ZIP is shorter than the catalog says; `archivia-fs scrub` finds which."
                    )
                yield data
                offset += count
                left -= count

    @contextlib.contextmanager
    def _member(self, index: int) -> Iterator[Content]:
        """The member, kept open while it is used and, of the last few, afterwards."""
        with self._lock:
            if self._closed:
                raise BadHandle("The ZIP is closed.")
            member = self._members.get(index)
            if member is None:
                member = self._members[index] = _Open(self._content(index), 0)
            member.readers += 1
            self._members.move_to_end(index)
        try:
            yield member.content
        finally:
            with self._lock:
                member.readers -= 1
                idle = self._surplus()
            for each in idle:
                each.content.close()

    def _surplus(self) -> list[_Open]:
        """Take out the oldest idle members that are too many."""
        most = 0 if self._closed else MEMBERS_MAX
        idle = [key for key, each in self._members.items() if not each.readers]
        return [self._members.pop(key) for key in idle[: max(0, len(self._members) - most)]]

    def _content(self, index: int) -> Content:
        source = self._sources[index]
        if isinstance(source, Text):
            return source
        return BytesContent(b"", "") if source is None else self._open_revision(source)
