"""Who may read and write which collection.

Owns: the rights in memory. Used by: vfs. Threading: any thread; what is cached is replaced as a whole.
Permission bits are the kernel's business on a mount; collections are the archive's own, for both doors.
"""

from __future__ import annotations

from dataclasses import dataclass

from archivia_fs.errors import AccessDenied, NotFound
from archivia_fs.types import DOCUMENTS_INODE, ROOT_INODE, Caller, ChangeKind, Effects, InodeNo, Right
from archivia_fs.vfs.tree import Tree
from archivia_fs.vfs.view import is_view
from catalog.catalog import Catalog


@dataclass(frozen=True, slots=True)
class _Known:
    generation: int  # of the rights; an older one is not asked
    admins: frozenset[str]
    users: frozenset[str]  # not disabled
    read: frozenset[tuple[str, InodeNo]]
    write: frozenset[tuple[str, InodeNo]]


class Access:
    """Admins may do everything; an owner everything in the own collection; others what they were granted."""

    def __init__(self, catalog: Catalog, tree: Tree) -> None:
        self._catalog = catalog
        self._tree = tree
        self._known: _Known | None = None
        self._generation = 0

    def apply(self, effects: Effects) -> None:
        """The change feed: rights may have changed."""
        for change in effects.changes:
            if change.kind in (ChangeKind.ACCESS, ChangeKind.RESET) or change.parent == DOCUMENTS_INODE:
                self._generation += 1

    def is_admin(self, caller: Caller) -> bool:
        """From memory once known, else by one query."""
        return caller.user in self._rights().admins

    def may(self, caller: Caller, ino: InodeNo, right: Right) -> bool:
        """Whether the caller has the right on an inode of the archive. The drive's top is for all to read."""
        rights = self._rights()
        if caller.user in rights.admins:
            return True
        if caller.user not in rights.users:
            return False
        if ino in (ROOT_INODE, DOCUMENTS_INODE) or is_view(ino):
            return right is Right.READ
        collection = self.collection(ino)
        allowed = rights.write if right is Right.WRITE else rights.read
        return collection is not None and (caller.user, collection) in allowed

    def may_nowait(self, caller: Caller, ino: InodeNo, right: Right) -> bool:
        """As may, from memory; False also if memory cannot tell."""
        known = self._known
        if known is None or known.generation != self._generation:
            return False
        return caller.user in known.admins or (self._in_memory(ino) and self.may(caller, ino, right))

    def check_owner(self, caller: Caller, collection: InodeNo) -> None:
        """Raises AccessDenied unless the caller owns the collection or is an admin."""
        if self.is_admin(caller):
            return
        if not any(each.ino == collection and each.owner == caller.user for each in self._catalog.collections()):
            raise AccessDenied("Only its owner or an admin may rename or remove a collection.")

    def check(self, caller: Caller, ino: InodeNo, right: Right) -> None:
        """Raises AccessDenied."""
        if not self.may(caller, ino, right):
            raise AccessDenied(f"{caller.user} has no right to {right} here; the owner or an admin can grant it.")

    def collection(self, ino: InodeNo) -> InodeNo | None:
        """The collection an inode is in; None for one without a name."""
        at: InodeNo | None = ino
        while at is not None and at != ROOT_INODE:
            try:
                parent = self._tree.parent(at)
            except NotFound:
                return None
            if parent == DOCUMENTS_INODE:
                return at
            at = parent
        return None

    def _in_memory(self, ino: InodeNo) -> bool:
        at: InodeNo | None = ino
        while at is not None and at not in (ROOT_INODE, DOCUMENTS_INODE):
            at = self._tree.parent_nowait(at)
        return at is not None

    def _rights(self) -> _Known:
        known, generation = self._known, self._generation
        if known is None or known.generation != generation:
            users = [user for user in self._catalog.users() if not user.disabled]
            read: set[tuple[str, InodeNo]] = set()
            write: set[tuple[str, InodeNo]] = set()
            for collection in self._catalog.collections():
                write.add((collection.owner, collection.ino))
                write.update((user, collection.ino) for user, right in collection.grants if right is Right.WRITE)
                read.update((user, collection.ino) for user, _ in collection.grants)
            known = self._known = _Known(
                generation,
                frozenset(user.name for user in users if user.admin),
                frozenset(user.name for user in users),
                frozenset(read | write),
                frozenset(write),
            )
        return known
