"""New content for a name, invisible until it is complete: WebDAV PUT and import.

Owns: one such upload. Used by: vfs; through PutHandle the doors. Threading: one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable

from typing_extensions import Buffer

from archivia_fs.errors import BadHandle, CatalogError, FsError
from archivia_fs.types import Stat
from archivia_fs.vfs.uploader import Draft, Uploader


class PutHandle:
    """`commit_draft` names the finished object in the catalog and returns (stat, created?)."""

    def __init__(
        self,
        uploader: Uploader,
        commit_draft: Callable[[Draft], tuple[Stat, bool]],
        closed: Callable[[PutHandle], None],
    ) -> None:
        self._uploader: Uploader | None = uploader
        self._commit_draft = commit_draft
        self._closed = closed

    def write(self, data: Buffer) -> None:
        """Append a copy; waits while memory is full. Raises StoreError, FileTooBig."""
        self._open().append_all(memoryview(data).cast("B"))

    def commit(self) -> tuple[Stat, bool]:
        """Store, verify, name. Afterwards the handle is closed; after an error nothing happened to the name."""
        uploader = self._open()
        try:
            draft = uploader.finish()
        except BaseException:
            self.abort()
            raise
        try:
            return self._commit_draft(draft)
        except FsError as error:
            # Where the catalog's answer was lost the object may be named: gc finds out.
            if not isinstance(error, CatalogError):
                uploader.discard()
            raise
        finally:
            self._uploader = None
            self._closed(self)

    def abort(self) -> None:
        """Nothing happened. Parts that were sent are left to whoever sends the same bytes again, until gc takes them.
        May be called at any time, also after commit."""
        uploader, self._uploader = self._uploader, None
        if uploader is not None:
            uploader.suspend()
            self._closed(self)

    def _open(self) -> Uploader:
        if self._uploader is None:
            raise BadHandle("This upload is closed.")
        return self._uploader
