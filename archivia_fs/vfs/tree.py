"""The tree in memory: inodes and dentries as the catalog has committed them.

Owns: the metadata cache. Used by: vfs. Threading: any thread; one leaf lock, never held across a catalog call.

The catalog is the truth and its change feed keeps this cache exact: every committed change (of this process or another)
is applied here in order, before the one who made it gets an answer. A directory is loaded whole, by one query; from
then on it answers lookups, ENOENT included, without the catalog. Changes that are committed while a directory is
being loaded are collected and applied to what the query returned.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from archivia_fs.errors import NotADirectory, NotFound
from archivia_fs.types import Change, ChangeKind, Effects, Entry, InodeNo, Stat, lookup_key
from catalog.catalog import Catalog

ENTRIES_MAX = (
    200_000  # dentries in memory, about 600 bytes each with their inodes; then the longest unused directories go
)


@dataclass(slots=True)
class Directory:
    """A loaded directory: NFC name -> (name as given, inode)."""

    children: dict[str, tuple[str, InodeNo]]
    order: Sequence[tuple[str, InodeNo]] | None = None  # in name order; made when asked for, dropped at a change


@dataclass(slots=True)
class _Load:
    """What was committed while a directory's query ran."""

    changes: list[Change] = field(default_factory=list)
    stats: dict[InodeNo, Stat] = field(default_factory=dict)
    reset: bool = False


class Tree:
    """The cache. `apply` is the change feed's listener."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lock = threading.Lock()
        self._stats: dict[InodeNo, Stat] = {}
        self._parents: dict[InodeNo, InodeNo] = {}  # a directory that names the inode (of a hard link: one of them)
        self._directories: OrderedDict[InodeNo, Directory] = OrderedDict()
        self._entries = 0
        self._loads: dict[InodeNo, list[_Load]] = {}

    # --- reading ---------------------------------------------------------------------------------------------------

    def stat_nowait(self, ino: InodeNo) -> Stat | None:
        """The inode if it is in memory."""
        return self._stats.get(ino)

    def stat(self, ino: InodeNo) -> Stat:
        """The inode. Raises NotFound."""
        stat = self._stats.get(ino)
        return stat if stat is not None else self._catalog.stat(ino)

    def lookup_nowait(self, parent: InodeNo, name: str) -> Stat | None:
        """The inode under a name; None if memory cannot tell. Raises NotFound if there certainly is none."""
        directory = self._directories.get(parent)
        if directory is None:
            return None
        child = directory.children.get(lookup_key(name))
        if child is None:
            raise NotFound(f"There is no {name!r} here.")
        return self._stats.get(child[1])

    def lookup(self, parent: InodeNo, name: str) -> Stat:
        """The inode under a name. Raises NotFound, NotADirectory."""
        stat = self.lookup_nowait(parent, name)
        if stat is not None:
            return stat
        self._load(parent)
        stat = self.lookup_nowait(parent, name)
        return stat if stat is not None else self._catalog.lookup(parent, name).stat

    def readdir_nowait(self, ino: InodeNo) -> Sequence[Entry] | None:
        """All entries in name order if the directory is in memory."""
        with self._lock:
            directory = self._directories.get(ino)
            if directory is None:
                return None
            self._directories.move_to_end(ino)
            if directory.order is None:
                directory.order = sorted(directory.children.values())
            try:
                return [Entry(name, self._stats[child]) for name, child in directory.order]
            except KeyError:  # an inode that changed in a way that only the catalog knows
                return None

    def readdir(self, ino: InodeNo) -> Sequence[Entry]:
        """All entries in name order. Raises NotFound, NotADirectory."""
        ready = self.readdir_nowait(ino)
        return ready if ready is not None else self._load(ino)

    def parent(self, ino: InodeNo) -> InodeNo | None:
        """A directory that names the inode; None for one without a name."""
        parent = self._parents.get(ino)
        if parent is None:
            named = self._catalog.parents(ino)
            parent = named[0][0] if named else None
        return parent

    def parent_nowait(self, ino: InodeNo) -> InodeNo | None:
        """As parent, from memory; None if it is not there."""
        return self._parents.get(ino)

    # --- loading -----------------------------------------------------------------------------------------------------

    def _load(self, ino: InodeNo) -> Sequence[Entry]:
        load = _Load()
        with self._lock:
            self._loads.setdefault(ino, []).append(load)
        try:
            stat = self.stat(ino)
            if not stat.is_dir:
                raise NotADirectory("That is not a directory.")
            listing = self._catalog.listing(ino)
        finally:
            with self._lock:
                self._loads[ino].remove(load)
                if not self._loads[ino]:
                    del self._loads[ino]
        entries = {lookup_key(entry.name): entry for entry in listing.entries}
        with self._lock:
            if load.reset:
                return sorted(entries.values(), key=lambda entry: entry.name)
            directory = Directory({key: (entry.name, entry.stat.ino) for key, entry in entries.items()})
            for entry in entries.values():
                self._stats.setdefault(entry.stat.ino, load.stats.get(entry.stat.ino, entry.stat))
                self._parents[entry.stat.ino] = ino
            self._drop(ino)
            self._stats.setdefault(ino, load.stats.get(ino, stat))
            self._directories[ino] = directory
            self._entries += len(directory.children)
            self._apply_entries([change for change in load.changes if change.seq > listing.seq], load.stats)
            self._evict(keep=ino)
        ready = self.readdir_nowait(ino)
        return ready if ready is not None else sorted(entries.values(), key=lambda entry: entry.name)

    # --- changes -------------------------------------------------------------------------------------------------------

    def apply(self, effects: Effects) -> None:
        """Bring the cache to the state after a committed group."""
        fresh = {stat.ino: stat for stat in effects.stats}
        with self._lock:
            if any(change.kind is ChangeKind.RESET for change in effects.changes):
                self._reset()
                return
            for loads in self._loads.values():
                for load in loads:
                    load.changes.extend(effects.changes)
                    load.stats.update(fresh)
            for ino, stat in fresh.items():
                if ino in self._stats:
                    self._stats[ino] = stat
            for change in effects.changes:
                if change.ino not in fresh and change.kind in (ChangeKind.ATTRIBUTES, ChangeKind.DATA):
                    self._stats.pop(change.ino, None)
            self._apply_entries(effects.changes, fresh)

    def _apply_entries(self, changes: Sequence[Change], fresh: dict[InodeNo, Stat]) -> None:
        """A name that is replaced is the old inode's until it is the new one's: lookups take no lock and must never find none."""
        added = {
            (change.parent, lookup_key(change.name or "")): change.seq
            for change in changes
            if change.kind is ChangeKind.ENTRY_ADDED
        }
        for change in changes:
            if change.kind in (ChangeKind.ENTRY_ADDED, ChangeKind.ENTRY_REMOVED):
                last_added = added.get((change.parent, lookup_key(change.name or "")), -1)
                self._apply_entry(change, fresh, replaced=change.seq < last_added)

    def _apply_entry(self, change: Change, fresh: dict[InodeNo, Stat], *, replaced: bool) -> None:
        assert change.parent is not None
        assert change.name is not None
        directory = self._directories.get(change.parent)
        key = lookup_key(change.name)
        if change.kind is ChangeKind.ENTRY_ADDED:
            self._parents[change.ino] = change.parent
            stat = fresh.get(change.ino) or self._stats.get(change.ino)
            if directory is None:
                return
            if stat is None:  # it is gone again, or changed later: what is loaded next tells
                self._drop(change.parent)
                return
            if key not in directory.children:
                self._entries += 1
            directory.children[key] = (change.name, change.ino)
            directory.order = None
            self._stats[change.ino] = stat
        else:
            if directory is not None and not replaced and directory.children.get(key, (None, None))[1] == change.ino:
                del directory.children[key]
                directory.order = None
                self._entries -= 1
            if self._parents.get(change.ino) == change.parent:
                del self._parents[change.ino]
            stat = fresh.get(change.ino)
            if stat is None or stat.nlink == 0:
                self._drop(change.ino)

    def forget(self, ino: InodeNo) -> None:
        """An inode without a name is not open any more."""
        with self._lock:
            self._stats.pop(ino, None)
            self._parents.pop(ino, None)

    def _drop(self, ino: InodeNo) -> None:
        directory = self._directories.pop(ino, None)
        if directory is not None:
            self._entries -= len(directory.children)

    def _evict(self, keep: InodeNo) -> None:
        while self._entries > ENTRIES_MAX and len(self._directories) > 1:
            oldest = next(iter(self._directories))
            if oldest == keep:
                self._directories.move_to_end(oldest)
                continue
            directory = self._directories[oldest]
            self._drop(oldest)
            for _, child in directory.children.values():
                if child not in self._directories:
                    self._stats.pop(child, None)
                    self._parents.pop(child, None)

    def _reset(self) -> None:
        self._stats.clear()
        self._parents.clear()
        self._directories.clear()
        self._entries = 0
        for loads in self._loads.values():
            for load in loads:
                load.reset = True
