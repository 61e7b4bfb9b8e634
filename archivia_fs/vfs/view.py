"""Views: computed, read-only trees beside the archive.

Owns: the View protocol and the numbering of its nodes. Used by: vfs, and the views that implement it.
Threading: views are called from any thread; they keep their own order.

A view is one top-level folder. It sees the archive through `Archive`, the read-only half of the Vfs, and describes its
tree in ViewNodes; the Vfs gives them inode numbers, stats and handles, so both doors serve it unchanged.
"""

from __future__ import annotations

import hashlib
import stat as stat_module
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from archivia_fs.content import Content
from archivia_fs.errors import IsADirectory, NotADirectory, NotFound
from archivia_fs.types import FIRST_VIEW_INODE, Caller, Entry, InodeNo, RevisionId, Stat

KNOWN_MAX = 200_000  # view nodes whose numbers are remembered; about 300 bytes each


@dataclass(frozen=True, slots=True)
class ViewNode:
    """One file or folder of a view. `id` is stable and unique within the view; `etag` names the bytes of a file."""

    id: str
    name: str
    directory: bool
    mtime_ns: int
    size: int = 0
    etag: str = ""


class Archive(Protocol):
    """What a view may ask of the archive, with the rights of whoever looks."""

    def lookup(self, caller: Caller, parent: InodeNo, name: str) -> Stat: ...
    def getattr(self, ino: InodeNo) -> Stat: ...
    def readdir(self, caller: Caller, ino: InodeNo) -> Sequence[Entry]: ...
    def snapshot(self, caller: Caller, ino: InodeNo) -> Content: ...
    def revision(self, revision_id: RevisionId) -> Content: ...


class View(Protocol):
    """A read-only tree under `/<name>`."""

    @property
    def name(self) -> str: ...

    def root(self) -> ViewNode: ...

    def entries(self, archive: Archive, caller: Caller, node: ViewNode) -> Sequence[ViewNode]: ...

    def lookup(self, archive: Archive, caller: Caller, node: ViewNode, name: str) -> ViewNode:
        """Raises NotFound."""
        ...

    def open(self, archive: Archive, caller: Caller, node: ViewNode) -> Content:
        """The bytes of a file: exactly `node.size` of them, under `node.etag`."""
        ...


@runtime_checkable
class Forms(Protocol):
    """A view whose files have other forms too, such as smaller ones."""

    def variant(self, archive: Archive, caller: Caller, node: ViewNode, form: str) -> ViewNode:
        """Raises InvalidArgument for a form that there is not."""
        ...


class Views:
    """The views of a gateway and the inode numbers of their nodes.

    A number is a hash of view and node id, so every gateway gives the same one and it survives a restart.
    """

    def __init__(self, views: Sequence[View]) -> None:
        self._views = {view.name: view for view in views}
        self._lock = threading.Lock()
        self._nodes: OrderedDict[InodeNo, tuple[View, ViewNode]] = OrderedDict()
        self._roots = {view.name: self._number(view, view.root()) for view in views}

    def roots(self) -> Sequence[Entry]:
        """The top-level folders of all views."""
        return [Entry(name, self.getattr(ino)) for name, ino in self._roots.items()]

    def root(self, name: str) -> Stat:
        """Raises NotFound."""
        if name not in self._roots:
            raise NotFound(f"There is no {name!r} here.")
        return self.getattr(self._roots[name])

    def getattr(self, ino: InodeNo) -> Stat:
        """Raises NotFound."""
        view, node = self._node(ino)
        return self._stat(view, node)

    def lookup(self, archive: Archive, caller: Caller, ino: InodeNo, name: str) -> Stat:
        """Raises NotFound, NotADirectory."""
        view, node = self._node(ino, directory=True)
        return self._stat(view, view.lookup(archive, caller, node, name))

    def readdir(self, archive: Archive, caller: Caller, ino: InodeNo) -> Sequence[Entry]:
        """In the order the view gives. Raises NotADirectory."""
        view, node = self._node(ino, directory=True)
        return [Entry(child.name, self._stat(view, child)) for child in view.entries(archive, caller, node)]

    def variant(self, archive: Archive, caller: Caller, ino: InodeNo, form: str) -> Stat:
        """Another form of a file; the file itself where there are none. Raises InvalidArgument."""
        view, node = self._node(ino)
        if isinstance(view, Forms) and not node.directory:
            node = view.variant(archive, caller, node, form)
        return self._stat(view, node)

    def open(self, archive: Archive, caller: Caller, ino: InodeNo) -> Content:
        """The bytes of a file of a view. Raises IsADirectory."""
        view, node = self._node(ino, directory=False)
        return view.open(archive, caller, node)

    def _node(self, ino: InodeNo, *, directory: bool | None = None) -> tuple[View, ViewNode]:
        with self._lock:
            found = self._nodes.get(ino)
        if found is None:
            raise NotFound("That computed file is not known any more; look it up again.")
        if directory is True and not found[1].directory:
            raise NotADirectory(f"{found[1].name!r} is not a folder.")
        if directory is False and found[1].directory:
            raise IsADirectory(f"{found[1].name!r} is a folder.")
        return found

    def _number(self, view: View, node: ViewNode) -> InodeNo:
        digest = hashlib.blake2b(f"{view.name}\0{node.id}".encode(), digest_size=8).digest()
        ino = InodeNo(FIRST_VIEW_INODE | int.from_bytes(digest, "big") >> 2)
        with self._lock:
            self._nodes[ino] = view, node
            self._nodes.move_to_end(ino)
            while len(self._nodes) > KNOWN_MAX:
                self._nodes.popitem(last=False)
        return ino

    def _stat(self, view: View, node: ViewNode) -> Stat:
        kind = stat_module.S_IFDIR | 0o555 if node.directory else stat_module.S_IFREG | 0o444
        times = node.mtime_ns
        return Stat(
            self._number(view, node), kind, 2 if node.directory else 1, 0, 0, 0, node.size, times, times, times, times,
            RevisionId(node.etag) if node.etag else None,
        )  # fmt: skip


def is_view(ino: InodeNo) -> bool:
    """Whether the number belongs to a view rather than to the archive."""
    return ino >= FIRST_VIEW_INODE
