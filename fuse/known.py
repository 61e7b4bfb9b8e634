"""What the kernel knows of this mount: inodes it may name, under which names, what it has open, whose pages it may hold.

Owns: lookup counts. Used by: operations, invalidate. Threading: changed on the loop only; `names` and `inodes` take an
atomic copy and may be called from any thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archivia_fs.types import Caller, Entry, InodeNo, RevisionId, Stat
from fuse.bridge import Waiter

if TYPE_CHECKING:
    from archivia_fs.vfs.vfs import AnyHandle

NAMES_MAX = 16  # hard links remembered per inode
OPENED_MAX = 65536  # inodes whose last opened revision is remembered, about 200 bytes each

EntryName = tuple[InodeNo, str]


@dataclass(slots=True, eq=False, kw_only=True)
class OpenedFile(Waiter):
    """One file handle of the kernel's. Who opened it mostly uses it too; requests do not tell who does."""

    handle: AnyHandle
    writes: bool
    failed: bool = False  # a write or an upload: the old bytes are back when the file is released
    family: frozenset[int] = frozenset()  # who may have it, as of the last close: the program, and its children
    cut_short: bool = False  # what closed it last was a signal that ended one of these; another may yet close it


@dataclass(slots=True, eq=False, kw_only=True)
class OpenedDirectory(Waiter):
    """One directory handle of the kernel's."""

    ino: InodeNo
    caller: Caller
    entries: Sequence[Entry] | None = None  # as of the last read from the beginning


class Known:
    """Lookup counts as the kernel keeps them: +1 for each entry replied, -n for each forget.

    The core hears of an inode's first reference and of its last; that is all it needs to keep unlinked inodes.
    """

    def __init__(self, remember: Callable[[InodeNo], None], forget: Callable[[InodeNo], None]) -> None:
        self._remember = remember
        self._forget = forget
        self._counts: dict[InodeNo, int] = {}
        self._names: dict[InodeNo, tuple[EntryName, ...]] = {}

    def __contains__(self, ino: InodeNo) -> bool:
        return ino in self._counts

    def add(self, ino: InodeNo, parent: InodeNo, name: str) -> None:
        """The kernel is being told of `ino` as `name` in `parent`."""
        count = self._counts.get(ino, 0)
        if not count:
            self._remember(ino)
        self._counts[ino] = count + 1
        names = self._names.get(ino, ())
        if (parent, name) not in names:
            self._names[ino] = (*names, (parent, name))[-NAMES_MAX:]

    def drop(self, ino: InodeNo, count: int) -> None:
        """The kernel forgets `count` references (FUSE_FORGET)."""
        left = self._counts.get(ino, 0) - count
        if left > 0:
            self._counts[ino] = left
        elif self._counts.pop(ino, None) is not None:
            self._names.pop(ino, None)
            self._forget(ino)

    def inodes(self) -> Sequence[InodeNo]:
        """All inodes the kernel may name."""
        return list(self._counts)

    def names(self) -> Sequence[EntryName]:
        """All names the kernel may remember."""
        return [name for names in list(self._names.values()) for name in names]

    def clear(self) -> None:
        """The mount is gone; the kernel sends no forgets then."""
        for ino in self.inodes():
            self.drop(ino, self._counts[ino])


class Opened:
    """Which revision of an inode was last opened here: reopened unchanged, its pages in the kernel are still good."""

    def __init__(self, limit: int = OPENED_MAX) -> None:
        self._limit = limit
        self._last: OrderedDict[InodeNo, tuple[RevisionId | None, int, int]] = OrderedDict()

    def again(self, stat: Stat) -> bool:
        """Whether these very bytes were opened before; remembers them."""
        state = (stat.revision, stat.size, stat.mtime_ns)
        same = self._last.get(stat.ino) == state
        self._last[stat.ino] = state
        self._last.move_to_end(stat.ino)
        if len(self._last) > self._limit:
            self._last.popitem(last=False)
        return same
