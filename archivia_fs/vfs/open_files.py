"""What is open in this process: files, puts, and unlinked inodes that somebody still holds.

Owns: the registry of open files and uploads, the revisions in memory, the sweep of unlinked inodes. Used by: vfs and
handle. Threading: any thread; one lock, never held across the store or the catalog (see vfs.py for the order).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from archivia_fs.errors import FsError
from archivia_fs.types import Entry, InodeNo, OpenFlags, Revision, RevisionId, SetAttr, Stat
from archivia_fs.vfs.handle import FileHandle, OpenFile, writes
from archivia_fs.vfs.put import PutHandle
from archivia_fs.vfs.targets import targets_of
from archivia_fs.vfs.transfers import Transfers, new_revision
from archivia_fs.vfs.tree import Tree
from archivia_fs.vfs.uploader import Draft, Uploader
from archivia_fs.vfs.writer import with_size
from catalog.catalog import Catalog

log = logging.getLogger(__name__)

REVISIONS_MAX = 4096  # revisions remembered, about 500 bytes each
SWEEP_SECONDS = 5.0  # how often unlinked inodes that nobody has open are dropped from the catalog
KEPT_SECONDS = 60.0  # until the next try when another gateway may have them open


class OpenFiles:
    """One per Vfs."""

    def __init__(self, catalog: Catalog, tree: Tree, transfers: Transfers, guard: Callable[[InodeNo], None]) -> None:
        """`guard` raises what forbids to begin writing an inode, though it is open for writing."""
        self._catalog = catalog
        self._tree = tree
        self._transfers = transfers
        self.guard = guard
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._files: dict[InodeNo, OpenFile] = {}
        self._puts: dict[PutHandle, str] = {}  # with their targets
        self._lookups: dict[InodeNo, int] = {}
        self._unlinked: set[InodeNo] = set()
        self._sweep_after = 0.0  # monotonic seconds
        self._revisions: OrderedDict[RevisionId, Revision] = OrderedDict()
        self._closing = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep_forever, name="vfs-sweep", daemon=True)
        self._sweeper.start()

    # --- files and puts ----------------------------------------------------------------------------------------------

    def open(self, ino: InodeNo, flags: OpenFlags) -> FileHandle:
        """A handle on a regular file; TRUNCATE begins new, empty content that the commit will put in place."""
        with self._lock:
            file = self._files.get(ino)
            if file is None:
                file = self._files[ino] = OpenFile(self, self._transfers, ino)
            file.references += 1
            file.writers += writes(flags)
        handle = FileHandle(self, self._transfers, file, flags)
        if flags & OpenFlags.TRUNCATE:
            try:
                file.start_empty()
            except BaseException:
                handle.release()
                raise
        return handle

    def get(self, ino: InodeNo) -> OpenFile | None:
        """The open file of an inode, if it is open here."""
        return self._files.get(ino)

    def release(self, file: OpenFile, flags: OpenFlags) -> None:
        """One handle less; the last one ends the open file."""
        with self._lock:
            file.references -= 1
            file.writers -= writes(flags)
            last = file.references == 0
        if last:
            file.close()
            with self._lock:
                if file.references == 0 and self._files.get(file.ino) is file:
                    del self._files[file.ino]

    def put(self, target: str, size_hint: int | None, commit: Callable[[Draft], tuple[Stat, bool]]) -> PutHandle:
        """New content that `commit` names in the catalog when it is complete."""

        def commit_and_keep(draft: Draft) -> tuple[Stat, bool]:
            result = commit(draft)
            self._keep_revision(draft.revision)
            return result

        handle = PutHandle(Uploader(self._transfers, target, size_hint=size_hint), commit_and_keep, self._close_put)
        with self._lock:
            self._puts[handle] = target
        return handle

    def live(self, stat: Stat) -> Stat:
        """The stat with the uncommitted size, if the file is being written here."""
        file = self._files.get(stat.ino)
        return stat if file is None else file.live(stat)

    def live_entries(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """As live, for a directory."""
        files = self._files
        if not files:
            return entries
        return [Entry(entry.name, self.live(entry.stat)) if entry.stat.ino in files else entry for entry in entries]

    def stat(self, ino: InodeNo) -> Stat:
        """The committed stat."""
        return self._tree.stat(ino)

    def stat_nowait(self, ino: InodeNo) -> Stat | None:
        """The committed stat, if it is in memory."""
        return self._tree.stat_nowait(ino)

    # --- revisions -----------------------------------------------------------------------------------------------------

    def revision_of(self, stat: Stat) -> Revision | None:
        """The revision behind a stat, without its parts; None for an empty file."""
        return None if stat.revision is None else self.revision(stat.revision)

    def revision(self, revision_id: RevisionId) -> Revision:
        """A revision without its parts, also one that no file has any more, until gc takes it. Raises NotFound."""
        with self._lock:
            revision = self._revisions.get(revision_id)
            if revision is not None:
                self._revisions.move_to_end(revision_id)
                return revision
        return self._keep_revision(self._catalog.revision(revision_id))

    def whole_revision_of(self, stat: Stat) -> Revision | None:
        """As revision_of, with its parts."""
        return None if stat.revision is None else self._catalog.revision(stat.revision)

    def commit(self, ino: InodeNo, draft: Draft, mtime_ns: int | None) -> None:
        """Name finished bytes in the catalog: from here on they are the file."""
        revision = draft.revision if draft.revision.size else None
        if revision is not None:
            self._keep_revision(revision)
        self._catalog.commit_revision(ino, revision, mtime_ns=mtime_ns, finish_upload=draft.upload_id)

    def sync(self) -> None:
        """All that the catalog has acknowledged survives a power cut."""
        self._catalog.sync()

    def resize(self, stat: Stat, size: int) -> None:
        """truncate(2): a revision over the same object with another size; no byte moves."""
        old = self.whole_revision_of(stat)
        fresh = new_revision()
        base = Revision(fresh, None, 0, 0, None, 0, 0) if old is None else replace(old, id=fresh)
        self.commit(stat.ino, Draft(replace(with_size(base, size), created_ns=time.time_ns()), None), None)

    def touch(self, ino: InodeNo, mtime_ns: int) -> None:
        """Bytes were written that are as before: none."""
        self._catalog.setattr(ino, SetAttr(mtime_ns=mtime_ns))

    def _keep_revision(self, revision: Revision) -> Revision:
        slim = replace(revision, parts=())  # readers need no parts, and 80 GB have thousands
        with self._lock:
            self._revisions[revision.id] = slim
            while len(self._revisions) > REVISIONS_MAX:
                self._revisions.popitem(last=False)
        return slim

    # --- inodes without a name -------------------------------------------------------------------------------------------

    def remember(self, ino: InodeNo) -> None:
        """The kernel holds one more reference."""
        with self._lock:
            self._lookups[ino] = self._lookups.get(ino, 0) + 1

    def forget(self, ino: InodeNo, count: int) -> None:
        """The kernel lets go of `count` references."""
        with self._lock:
            left = self._lookups.get(ino, 0) - count
            if left > 0:
                self._lookups[ino] = left
            else:
                self._lookups.pop(ino, None)

    def unlinked(self, inos: Iterable[InodeNo]) -> None:
        """These lost their last name; they stay until nobody holds them."""
        with self._lock:
            self._unlinked.update(inos)

    def _sweep_forever(self) -> None:
        while not self._closing.wait(SWEEP_SECONDS):
            self._sweep()
            self._transfers.trim()

    def _sweep(self) -> None:
        with self._lock:
            free = {ino for ino in self._unlinked if ino not in self._files and ino not in self._lookups}
            if not free or time.monotonic() < self._sweep_after:
                return
            self._unlinked -= free
        try:
            kept = self._catalog.forget(sorted(free))
        except FsError as error:
            log.warning("Unlinked files are swept at the next start: %s", error)
            return
        with self._lock:
            self._unlinked.update(kept)
            self._sweep_after = time.monotonic() + KEPT_SECONDS if kept else 0.0
        for ino in free.difference(kept):
            self._tree.forget(ino)

    # --- the end -----------------------------------------------------------------------------------------------------------

    def uploads_changed(self) -> None:
        """An open file became dirty or clean."""
        with self._changed:
            self._changed.notify_all()

    def is_uploading(self, ino: InodeNo) -> bool:
        """Whether anyone writes it, or sends another content for one of its names: here, or by the journal in another process."""
        file = self._files.get(ino)
        if file is not None and file.dirty:
            return True
        targets = targets_of(ino, self._catalog.parents(ino))
        with self._lock:
            if not targets.isdisjoint(self._puts.values()):
                return True
        return self._catalog.is_uploading(targets)

    def open_uploads(self) -> int:
        """Files and puts with uncommitted bytes."""
        with self._lock:
            return sum(file.dirty for file in self._files.values()) + len(self._puts)

    def written(self) -> Sequence[InodeNo]:
        """The inodes that have uncommitted bytes in this process."""
        with self._lock:
            return [file.ino for file in self._files.values() if file.dirty]

    def drain(self, progress: Callable[[int], None] | None, timeout: float | None) -> None:
        """Wait until nothing is uncommitted (or `timeout` seconds); `progress` hears the number left once a second."""
        end = None if timeout is None else time.monotonic() + timeout
        while (left := self.open_uploads()) and (end is None or time.monotonic() < end):
            if progress is not None:
                progress(left)
            with self._changed:
                self._changed.wait(1.0)

    def close(self) -> None:
        """Uncommitted bytes are dropped; the old contents stay."""
        self._closing.set()
        with self._lock:
            puts = list(self._puts)
        for put in puts:
            put.abort()
        self._sweeper.join(10)
        self._sweep()

    def _close_put(self, handle: PutHandle) -> None:
        with self._changed:
            self._puts.pop(handle, None)
            self._changed.notify_all()
