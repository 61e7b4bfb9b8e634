"""Which documents have changed since when.

Owns: what the change feed told, folder by folder. Used by: plans.
Threading: any thread; who asks may wait for the catalog, the feed never does.

A change names an inode or a folder; which documents that is in, the catalog is asked when somebody wants to know, once for
all changes since the last time. So a change costs the same however many documents are known, and a document costs
nothing, however many files it has.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from archivia_fs.types import ChangeKind, Effects, InodeNo
from catalog.catalog import Catalog

INODES_MAX = 50_000  # remembered of each kind, about 100 bytes each; beyond that everything counts as changed

_OF_RIGHTS = (ChangeKind.LOCKS, ChangeKind.ACCESS)  # they make no other bytes


class Touched:
    """Hears of changes by `on_effects`, in their order."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._asking = threading.Lock()  # before _lock; held while the catalog is asked
        self._lock = threading.Lock()
        self._last = 0  # the last change
        self._anywhere = 0  # the last change of which it is not known any more where it was
        self._resets = 0
        self._waiting: set[InodeNo] = set()  # changed; in which folders they are, nobody has asked yet
        self._within: dict[InodeNo, int] = {}  # folder -> the last change of it, or of anything in it at any depth
        self._placed: dict[InodeNo, int] = {}  # folder -> when it got its name

    def on_effects(self, effects: Effects) -> None:
        """For Catalog.subscribe. Quick."""
        files = {stat.ino for stat in effects.stats if stat.is_file}
        with self._lock:
            for change in effects.changes:
                self._last = change.seq
                if change.kind is ChangeKind.RESET:
                    self._resets += 1
                    self._forget()
                elif change.kind not in _OF_RIGHTS:
                    self._waiting.add(change.ino if change.parent is None else change.parent)
                    if change.kind is ChangeKind.ENTRY_ADDED and change.ino not in files:
                        self._placed[change.ino] = change.seq
            if max(len(self._waiting), len(self._placed)) > INODES_MAX:
                self._forget()

    def since(self, seq: int, path: Sequence[InodeNo]) -> bool:
        """Whether something after change number `seq` may have made other bytes of a document. `path`: the folders it is in, and
        itself at the end. Raises CatalogError."""
        self._ask()
        with self._lock:
            if seq < self._anywhere or self._within.get(path[-1], 0) > seq:
                return True
            return any(self._placed.get(folder, 0) > seq for folder in path)

    def _ask(self) -> None:
        """One at a time: what somebody asks for just now has changed too."""
        with self._asking:
            with self._lock:
                waiting, last, resets = self._waiting, self._last, self._resets
                self._waiting = set()
            if not waiting:
                return
            try:
                found = self._catalog.folders_around(waiting)
            except BaseException:
                with self._lock:
                    self._waiting |= waiting
                raise
            with self._lock:
                if resets == self._resets:
                    self._within.update(dict.fromkeys(found, last))
                    if len(self._within) > INODES_MAX:
                        self._forget()

    def _forget(self) -> None:
        self._anywhere = self._last
        self._waiting = set()
        self._within.clear()
        self._placed.clear()
