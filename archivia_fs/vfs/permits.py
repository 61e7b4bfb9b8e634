"""What may be changed at all, and by whom: the rules of the drive's fixed top, of views, and of collections.

Owns: nothing; it asks access for rights. Used by: vfs, before every change. Threading: any thread.
"""

from __future__ import annotations

from archivia_fs.errors import NotPermitted, ReadOnly
from archivia_fs.types import DOCUMENTS_INODE, ROOT_INODE, Caller, InodeNo, Right
from archivia_fs.vfs.access import Access
from archivia_fs.vfs.tree import Tree
from archivia_fs.vfs.view import is_view


class Permits:
    """Each method returns if it may be done, or raises what is in the way."""

    def __init__(self, access: Access, tree: Tree) -> None:
        self._access = access
        self._tree = tree

    def archive_only(self, ino: InodeNo) -> None:
        """Raises ReadOnly for what a view computes."""
        if is_view(ino):
            raise ReadOnly("Views are computed; write under /Documents.")

    def writable(self, caller: Caller, ino: InodeNo) -> None:
        """An inode's attributes, bytes and properties. Raises ReadOnly, NotPermitted, AccessDenied."""
        self.archive_only(ino)
        if ino in (ROOT_INODE, DOCUMENTS_INODE):
            self.admin(caller, "change the drive's top folders")
        self._access.check(caller, ino, Right.WRITE)

    def parent(self, caller: Caller, parent: InodeNo, *, removing: str | None = None) -> None:
        """Names in a folder: to add one, or to take out `removing`. Raises ReadOnly, NotPermitted, AccessDenied."""
        self.archive_only(parent)
        if parent == ROOT_INODE:
            raise ReadOnly("The top of the drive is fixed; write under /Documents.")
        if parent == DOCUMENTS_INODE:
            if removing is None:
                raise NotPermitted("Only collections (folders) stand directly under /Documents; make one with mkdir.")
            self._access.check_owner(caller, self._tree.lookup(DOCUMENTS_INODE, removing).ino)
            return
        self._access.check(caller, parent, Right.WRITE)

    def admin(self, caller: Caller, what: str) -> None:
        """Raises NotPermitted for others."""
        if not self._access.is_admin(caller):
            raise NotPermitted(f"Only admins may {what}; {caller.user} is none.")
