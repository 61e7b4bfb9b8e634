"""The tree /Thumbnails: the folders of /Documents, with `<name>.jpg` for every picture.

Owns: names and nodes. Used by: the Vfs, through the View protocol. Threading: any thread; it has no state.
A listing shows the previews that exist and asks for the others in the background; to look a name up is to make its preview.
A node's id names the bytes it shows, so nobody ever reads another state than the one whose size was told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from archivia_fs.content import BytesContent, Content
from archivia_fs.errors import Changed, InvalidArgument, NotFound, ObjectMissing
from archivia_fs.types import DOCUMENTS_INODE, Caller, Entry, InodeNo, RevisionId, Stat
from archivia_fs.vfs.view import Archive, ViewNode
from archivia_fs.views.thumbnails import SIDES
from archivia_fs.views.thumbnails.background import is_likely
from archivia_fs.views.thumbnails.service import Previews, shown_etag, shown_size
from catalog.previews import PreviewRecord, PreviewState

NAME = "Thumbnails"
SUFFIX = ".jpg"
NAME_BYTES = 255  # NAME_MAX; a name that leaves no room for the suffix has no preview


class ThumbnailsView:
    """`later` is told what a listing has missed (Background.later)."""

    name = NAME

    def __init__(self, previews: Previews, later: Callable[[Iterable[RevisionId]], None] = lambda _: None) -> None:
        self._previews = previews
        self._later = later

    def root(self) -> ViewNode:
        return ViewNode(_folder_id(DOCUMENTS_INODE), NAME, True, 0)

    def entries(self, archive: Archive, caller: Caller, node: ViewNode) -> Sequence[ViewNode]:
        """Folders, and the previews that are there. Raises NotADirectory, AccessDenied, NotFound."""
        children = archive.readdir(caller, _ino(node))
        files = [each for each in children if each.stat.is_file and each.stat.revision and _fits(each.name)]
        known = self._previews.known({each.stat.revision for each in files if each.stat.revision})
        nodes = {each.name: _folder(each) for each in children if each.stat.is_dir}
        for each in files:
            record = known.get(RevisionId(each.stat.etag))
            if record is not None and record.state is not PreviewState.NONE:
                nodes.setdefault(each.name + SUFFIX, _file(each.name, each.stat, record))
        missing = (each for each in files if each.stat.revision not in known and is_likely(each.name))
        self._later(RevisionId(each.stat.etag) for each in missing)
        return [nodes[name] for name in sorted(nodes)]

    def lookup(self, archive: Archive, caller: Caller, node: ViewNode, name: str) -> ViewNode:
        """Raises NotFound for what is no picture, StoreError, Busy."""
        parent = _ino(node)
        try:
            stat = archive.lookup(caller, parent, name)
            if stat.is_dir:
                return _folder(Entry(name, stat))
        except NotFound:
            pass
        original = name.removesuffix(SUFFIX)
        if original in (name, ""):
            raise NotFound(f"There is no {name!r} here; a picture's preview has its name and {SUFFIX!r}.")
        stat = archive.lookup(caller, parent, original)
        if not stat.is_file or stat.revision is None:
            raise NotFound(f"{original!r} holds no picture (yet).")
        record = self._previews.ensure(stat.revision)
        if record.state is PreviewState.NONE:
            raise NotFound(f"{original!r} is no picture.")
        return _file(original, stat, record)

    def open(self, archive: Archive, caller: Caller, node: ViewNode) -> Content:
        """Raises Changed if another preview is shown by now (a grey one has become a real one), NotFound if the picture's bytes are
        gone, StoreError, Busy."""
        ino, revision, side = _parts(node)
        archive.snapshot(caller, ino).close()  # its rights are the picture's
        record = self._previews.ensure(revision)
        if shown_etag(record, side) != node.etag:
            raise Changed("That preview was made again; look it up again.")
        try:
            data = self._previews.read(record, side)
        except ObjectMissing:
            record = self._previews.lost(record)
            if shown_etag(record, side) != node.etag:
                raise Changed("That preview was made again; look it up again.") from None
            data = self._previews.read(record, side)
        return BytesContent(data, node.etag)

    def variant(self, archive: Archive, caller: Caller, node: ViewNode, form: str) -> ViewNode:
        """The same preview with at most `form` pixels a side. Raises InvalidArgument, NotFound."""
        if form not in map(str, SIDES):
            raise InvalidArgument(f"Previews have the sizes {', '.join(map(str, SIDES))}; {form!r} is none of them.")
        ino, revision, _ = _parts(node)
        archive.snapshot(caller, ino).close()  # its rights are the picture's
        stat = archive.getattr(ino)
        return _file(node.name.removesuffix(SUFFIX), stat, self._previews.ensure(revision), revision, int(form))


def _folder_id(ino: InodeNo) -> str:
    return f"folder {ino}"


def _folder(entry: Entry) -> ViewNode:
    return ViewNode(_folder_id(entry.stat.ino), entry.name, True, entry.stat.mtime_ns)


def _ino(node: ViewNode) -> InodeNo:
    return InodeNo(int(node.id.partition(" ")[2]))


def _file(
    name: str, stat: Stat, record: PreviewRecord, revision: RevisionId | None = None, side: int = SIDES[-1]
) -> ViewNode:
    etag = shown_etag(record, side)
    identity = f"{stat.ino} {revision or stat.etag} {side} {etag}"
    return ViewNode(identity, name + SUFFIX, False, stat.mtime_ns, shown_size(record, side), etag)


def _parts(node: ViewNode) -> tuple[InodeNo, RevisionId, int]:
    ino, revision, side, _ = node.id.split(" ")
    return InodeNo(int(ino)), RevisionId(revision), int(side)


def _fits(name: str) -> bool:
    return len(name.encode()) + len(SUFFIX) <= NAME_BYTES
