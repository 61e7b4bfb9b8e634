"""Resource objects: one drive entry each, as wsgidav's machinery (OPTIONS, LOCK) wants to see it.

Owns: which entries WebDAV shows. Folders and regular files; a relative symbolic link that leads to a regular file of the archive is
shown as that file, and written through (removing or moving it means the link); other links, fifos, sockets and devices are
hidden, and a name they hold cannot be written over. Used by: provider, methods, transfer. Threading: one request each.
"""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any
from xml.etree.ElementTree import Element, tostring

from wsgidav import xml_tools
from wsgidav.dav_provider import DAVCollection, DAVNonCollection

from archivia_fs.content import FileObject
from archivia_fs.errors import FsError
from archivia_fs.types import Caller, Stat
from archivia_fs.vfs.vfs import DOCUMENTS, Vfs
from webdav.convert import fail, href, lock_path, media_type
from webdav.locks import discovery

FOLDER_MODE = 0o755
FILE_MODE = 0o644
ARCHIVE = f"/{DOCUMENTS}/"
MEMBERS_AT_ONCE = 100  # whose dead properties, up to 64 KiB each, are in memory

Environ = dict[str, Any]


class Node:
    """What folders and files have in common. `stat` is that of the inode shown; the root's name is empty."""

    path: str
    name: str
    environ: Environ
    provider: Any

    def bind(self, vfs: Vfs, caller: Caller, stat: Stat) -> None:
        self.vfs = vfs
        self.caller = caller
        self.stat = stat

    known: Mapping[str, bytes] | None = None  # dead properties, if they were asked for together with others'

    def properties(self) -> Mapping[str, bytes]:
        """Dead properties as the table has them."""
        return self.vfs.properties(self.stat.ino) if self.known is None else self.known

    def get_ref_url(self) -> str:
        """wsgidav's key for locks."""
        return lock_path(self.path)

    def get_href(self) -> str:
        return href(self.path)

    def get_creation_date(self) -> float:
        return self.stat.birth_ns / 10**9

    def get_last_modified(self) -> float:
        return self.stat.mtime_ns // 10**9

    def get_display_name(self) -> str:
        return self.name

    def get_content_type(self) -> str | None:
        return None

    def get_property_value(self, name: str) -> Any:
        """Only wsgidav's LOCK asks through here; PROPFIND has its own writer."""
        if name != "{DAV:}lockdiscovery":
            fail(HTTPStatus.NOT_FOUND, f"There is no property {name}.")
        element = Element(name)
        element.extend(discovery(self.vfs.locks(), self.path))
        # Of the kind that wsgidav itself uses: lxml's where that is installed.
        return xml_tools.string_to_xml(tostring(element))


class Folder(Node, DAVCollection):
    """A directory."""

    def __init__(self, path: str, environ: Environ, vfs: Vfs, caller: Caller, stat: Stat) -> None:
        super().__init__(path if path.endswith("/") else path + "/", environ)
        self.bind(vfs, caller, stat)

    def members(self) -> Iterator[Node]:
        """All shown children, from one readdir, which is done when this returns. Raises FsError."""
        entries = self.vfs.readdir(self.caller, self.stat.ino)
        nodes = (self.child(entry.name, entry.stat) for entry in entries)
        return (node for node in nodes if node is not None)

    def members_with_properties(self) -> Iterator[Node]:
        """As members; dead properties come with them, in a query for every MEMBERS_AT_ONCE."""
        return self._with_properties(self.members())

    def _with_properties(self, members: Iterator[Node]) -> Iterator[Node]:
        while nodes := list(itertools.islice(members, MEMBERS_AT_ONCE)):
            found = self.vfs.properties_of([node.stat.ino for node in nodes])
            for node in nodes:
                node.known = found.get(node.stat.ino, {})
            yield from nodes

    def get_member_list(self) -> list[Node]:
        return list(self.members())

    def get_member_names(self) -> list[str]:
        return [member.name for member in self.members()]

    def get_member(self, name: str) -> Node | None:
        return self.child(name, self.vfs.lookup(self.caller, self.stat.ino, name))

    def child(self, name: str, stat: Stat) -> Node | None:
        """The resource for an entry of this folder, or None if it is not shown."""
        path = self.path + name
        if stat.is_symlink:
            return self._linked(path, stat.symlink or "")
        if stat.is_dir:
            return Folder(path, self.environ, self.vfs, self.caller, stat)
        return File(path, self.environ, self.vfs, self.caller, stat) if stat.is_file else None

    def _linked(self, path: str, target: str) -> File | None:
        """The regular file one relative link leads to. No chains and no folders: a walk over the drive always ends. Nothing
        computed: to list a folder waits for no preview."""
        real = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if target.startswith("/") or not real.startswith(ARCHIVE):
            return None  # a path of whatever machine made the link, or out of the archive
        try:
            stat = self.vfs.resolve(self.caller, real)
        except FsError:
            return None
        return File(path, self.environ, self.vfs, self.caller, stat, real) if stat.is_file else None

    def create_empty_resource(self, name: str) -> File:
        """For LOCK of an unmapped URL (RFC 4918 7.3). Raises FsError."""
        handle = self.vfs.put(self.caller, self.stat.ino, name, size_hint=0, mode=FILE_MODE, exclusive=True)
        try:
            stat, _ = handle.commit()
        finally:
            handle.abort()
        return File(self.path + name, self.environ, self.vfs, self.caller, stat)


class File(Node, DAVNonCollection):
    """A regular file. `real_path` is where it stands, if `path` is a link to it."""

    def __init__(
        self, path: str, environ: Environ, vfs: Vfs, caller: Caller, stat: Stat, real_path: str | None = None
    ) -> None:
        super().__init__(path.rstrip("/"), environ)
        self.bind(vfs, caller, stat)
        self.real_path = real_path or self.path

    def get_content_length(self) -> int:
        return self.stat.size

    def get_content_type(self) -> str:
        return media_type(self.name)

    def get_content(self) -> FileObject:
        return FileObject(self.vfs.snapshot(self.caller, self.stat.ino))

    def get_etag(self) -> str:
        return self.stat.etag

    def support_etag(self) -> bool:
        return True

    def support_ranges(self) -> bool:
        return True
