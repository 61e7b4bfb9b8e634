"""The DAV provider: a path of the drive to its resource, asked from the Vfs every time.

Owns: nothing but the way from path to resource. Used by: server, methods, transfer. Threading: shared by all
worker threads, without state of its own.
"""

from __future__ import annotations

from wsgidav.dav_provider import DAVProvider

from archivia_fs.errors import Exists, NotADirectory, NotFound
from archivia_fs.types import Caller, Stat
from archivia_fs.vfs.vfs import Vfs
from archivia_fs.vfs.view import is_view
from webdav.connection import TAKE_SLOT
from webdav.convert import split_path
from webdav.locks import Locks, LockStorage
from webdav.resources import Environ, Folder, Node

CALLER = "archivia.caller"  # where a request's Caller stands in its environ


class VfsProvider(DAVProvider):
    """wsgidav's seam to the drive."""

    def __init__(self, vfs: Vfs) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.vfs = vfs
        self.verbose = 1  # wsgidav prints above that
        self.locks = Locks(LockStorage(vfs))  # type: ignore[no-untyped-call]

    def get_resource_inst(self, path: str, environ: Environ) -> Node | None:
        """The resource at `path`, or None where nothing is shown. Raises FsError, also for names that cannot be."""
        caller: Caller = environ[CALLER]
        parent_path, name = split_path(path)
        if not name:
            return Folder("/", environ, self.vfs, caller, self.vfs.resolve(caller, "/"))
        folder = self.folder(parent_path, environ)
        if folder is None:
            return None
        if is_view(folder.stat.ino) and not path.endswith("/"):
            environ[
                TAKE_SLOT
            ]()  # to look at a preview is to make it; who says "/" wants a folder, and those cost nothing
        try:
            return folder.get_member(name)
        except NotFound:
            return None

    def folder(self, path: str, environ: Environ) -> Folder | None:
        """The folder at `path`, or None if there is none. Raises FsError."""
        caller: Caller = environ[CALLER]
        try:
            stat: Stat = self.vfs.resolve(caller, path)
        except (NotFound, NotADirectory):
            return None
        return Folder(path, environ, self.vfs, caller, stat) if stat.is_dir else None

    def refuse_hidden(self, folder: Folder, name: str) -> None:
        """Raise Exists if the name belongs to something this door does not show."""
        try:
            self.vfs.lookup(folder.caller, folder.stat.ino, name)
        except NotFound:
            return
        raise Exists(f"{name!r} is a link, fifo or device that WebDAV does not show; remove it on the mount first.")

    def ref_url_to_path(self, ref_url: str) -> str:
        """Lock roots are plain paths already."""
        return ref_url

    def is_collection(self, path: str, environ: Environ) -> bool:
        return self.folder(path, environ) is not None
