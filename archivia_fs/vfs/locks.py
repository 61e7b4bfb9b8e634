"""Where WebDAV's locks and the locks of programs on a mount meet: each binds the other door too.

Owns: the RFC 4918 locks in memory, the ways to ask mounts what programs there hold (flock(2), fcntl(2)). Used by: permits, vfs,
open_files (through its guard). Threading: any thread; what is cached is replaced as a whole.

A WebDAV lock is kept from programs, which have no token to show: they may read what it covers and get EBUSY for the rest. A
lock of a program is kept from WebDAV clients: 423. Whether a WebDAV client may do what it asks is the WebDAV door's business,
which knows tokens; between programs the kernel knows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence, Set

from archivia_fs.errors import Locked
from archivia_fs.types import ROOT_INODE, ChangeKind, Effects, InodeNo, Lock, lookup_key
from catalog.catalog import Catalog

Held = Callable[[], Set[InodeNo]]  # the inodes that programs on a mount have locked

_PROGRAM = "A program on a mount {}; wait until it is done."


class Locks:
    """One per Vfs."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._known: Sequence[Lock] | None = None
        self._generation = 0
        self._mounts: tuple[Held, ...] = ()
        self._mounts_lock = threading.Lock()

    def apply(self, effects: Effects) -> None:
        """The change feed: locks may have come or gone."""
        if any(change.kind in (ChangeKind.LOCKS, ChangeKind.RESET) for change in effects.changes):
            self._generation += 1
            self._known = None

    def none_nowait(self) -> bool:
        """Whether there is certainly no WebDAV lock at all; False also if memory cannot tell."""
        known = self._known
        return known is not None and not known

    def watch(self, held: Held) -> Callable[[], None]:
        """Ask `held` for the inodes that programs on a mount have locked. Returns the way to stop that."""
        with self._mounts_lock:
            self._mounts = (*self._mounts, held)

        def stop() -> None:
            with self._mounts_lock:
                self._mounts = tuple(each for each in self._mounts if each is not held)

        return stop

    def check_inode(self, ino: InodeNo) -> None:
        """For a program that would change an inode. Raises Locked if a WebDAV lock covers one of its names."""
        if locks := self._alive():
            for path in self.paths(ino):
                _refuse(lock for lock in locks if covers(lock, path))

    def check_name(self, parent: InodeNo, name: str) -> None:
        """For a program that would add, replace or take away a name. Raises Locked if a WebDAV lock covers it, its folder (RFC 4918
        7.4), or anything below it."""
        if locks := self._alive():
            for folder in self.paths(parent):
                at = f"{folder.rstrip('/')}/{name}"
                _refuse(lock for lock in locks if covers(lock, folder) or covers(lock, at) or is_below(lock.path, at))

    def check_programs(self, ino: InodeNo) -> None:
        """For a WebDAV client that would change an inode. Raises Locked if a program on a mount has it locked."""
        if ino in self._held():
            raise Locked(_PROGRAM.format("has locked that file"))

    def check_programs_at(self, parent: InodeNo, name: str) -> None:
        """For a WebDAV client that would replace or take away a name. Raises Locked if a program on a mount has locked what is
        there, or anything below it."""
        if held := self._held():
            targets = [f"{folder.rstrip('/')}/{name}" for folder in self.paths(parent)]
            for path in (path for ino in held for path in self.paths(ino)):
                if any(lookup_key(path) == lookup_key(target) or is_below(path, target) for target in targets):
                    raise Locked(_PROGRAM.format(f"has locked {path}"))

    def check_new(self, lock: Lock, written: Iterable[InodeNo]) -> None:
        """For a WebDAV lock that has just been made. Raises Locked if programs on a mount use what it covers: they have locked
        it, or bytes `written` to it are not committed."""
        for inos, what in ((self._held(), "has locked"), (written, "is writing")):
            for path in (path for ino in inos for path in self.paths(ino)):
                if covers(lock, path):
                    raise Locked(_PROGRAM.format(f"{what} {path}"))

    def paths(self, ino: InodeNo) -> Sequence[str]:
        """All paths of an inode, from "/": of a file one for each name it has."""
        if ino == ROOT_INODE:
            return ["/"]
        return [
            f"{folder.rstrip('/')}/{name}"
            for parent, name in self._catalog.parents(ino)
            for folder in self.paths(parent)
        ]

    def _held(self) -> Set[InodeNo]:
        return frozenset().union(*(held() for held in self._mounts))

    def _alive(self) -> Sequence[Lock]:
        known = self._known
        if known is None:
            generation = self._generation
            known = self._catalog.locks()
            if generation == self._generation:
                self._known = known
        now = time.time_ns()
        if any(lock.expires_ns is not None and lock.expires_ns <= now for lock in known):
            self._known = None  # asked again: the catalog names none that has expired
            return [lock for lock in known if lock.expires_ns is None or lock.expires_ns > now]
        return known


def covers(lock: Lock, path: str) -> bool:
    """Whether the lock holds for a path: its root, and with depth infinity all that is below."""
    key = lookup_key(path)
    return key == lock.path or (lock.depth != 0 and is_below(key, lock.path))


def is_below(path: str, folder: str) -> bool:
    """Whether `path` is under `folder`."""
    return lookup_key(path).startswith(lookup_key(folder).rstrip("/") + "/")


def _refuse(found: Iterable[Lock]) -> None:
    for lock in found:
        raise Locked(f"{lock.user} has locked {lock.path} over WebDAV; wait, or end it: archivia-fs locks remove.")
