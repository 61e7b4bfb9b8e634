"""What may be changed at all, and by whom: the rules of the drive's fixed top, of views, of collections and of locks.

Owns: nothing; it asks access for rights and locks for locks. Used by: vfs, before every change. Threading: any thread.
"""

from __future__ import annotations

import contextlib

from archivia_fs.errors import NotFound, NotPermitted, ReadOnly
from archivia_fs.types import DOCUMENTS_INODE, ROOT_INODE, Caller, InodeNo, Right
from archivia_fs.vfs.access import Access
from archivia_fs.vfs.locks import Locks
from archivia_fs.vfs.tree import Tree
from archivia_fs.vfs.view import is_view


class Permits:
    """Each method returns if it may be done, or raises what is in the way."""

    def __init__(self, access: Access, tree: Tree, locks: Locks) -> None:
        self._access = access
        self._tree = tree
        self._locks = locks

    def archive_only(self, ino: InodeNo) -> None:
        """Raises ReadOnly for what a view computes."""
        if is_view(ino):
            raise ReadOnly("Views are computed; write under /Documents.")

    def writable(self, caller: Caller, ino: InodeNo) -> None:
        """An inode's attributes, bytes and properties. Raises ReadOnly, NotPermitted, AccessDenied, Locked."""
        self.archive_only(ino)
        if ino in (ROOT_INODE, DOCUMENTS_INODE):
            self.admin(caller, "change the drive's top folders")
        self._access.check(caller, ino, Right.WRITE)
        if caller.has_tokens:
            self._locks.check_programs(ino)
        else:
            self._locks.check_inode(ino)

    def entry(self, caller: Caller, parent: InodeNo, name: str, *, removing: bool = False) -> None:
        """A name in a folder: to add or replace it, or to take it out. Raises ReadOnly, NotPermitted, AccessDenied, Locked."""
        self.archive_only(parent)
        if parent == ROOT_INODE:
            raise ReadOnly("The top of the drive is fixed; write under /Documents.")
        if parent == DOCUMENTS_INODE:
            if not removing:
                raise NotPermitted("Only collections (folders) stand directly under /Documents; make one with mkdir.")
            self._access.check_owner(caller, self._tree.lookup(DOCUMENTS_INODE, name).ino)
        else:
            self._access.check(caller, parent, Right.WRITE)
        if caller.has_tokens:
            self._locks.check_programs_at(parent, name)
        else:
            self._locks.check_name(parent, name)

    def absent_or_own(self, caller: Caller, name: str) -> None:
        """A collection that another is to replace or to be exchanged with, if there is one of that name. Raises AccessDenied,
        Locked."""
        with contextlib.suppress(NotFound):
            self.entry(caller, DOCUMENTS_INODE, name, removing=True)

    def admin(self, caller: Caller, what: str) -> None:
        """Raises NotPermitted for others."""
        if not self._access.is_admin(caller):
            raise NotPermitted(f"Only admins may {what}; {caller.user} is none.")
