"""Open files: the uncommitted bytes that all handles of one inode share, and the handles themselves.

Owns: the life of a write from open to close. Used by: open_files, and through FileHandle the doors. Threading: any thread.

Each OpenFile has a *turn*, a lock that one reader or writer of uncommitted bytes holds at a time. It is the only lock
of the core that may be held while the store or the catalog works, and it guards nothing but this file's own
bytes: metadata (lookup, getattr, rename, ...) never takes it, so a hanging store does not stop `ls`. Lock order: turn,
then the registry's lock, then the tree's.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

from typing_extensions import Buffer

from archivia_fs.errors import BadHandle, CatalogError, FsError, StoreError
from archivia_fs.types import InodeNo, OpenFlags, Revision, Stat
from archivia_fs.vfs.reader import RevisionContent
from archivia_fs.vfs.targets import target_of
from archivia_fs.vfs.transfers import Transfers
from archivia_fs.vfs.uploader import Draft
from archivia_fs.vfs.writer import Writer

log = logging.getLogger(__name__)


class Files(Protocol):
    """What an open file asks of the registry it is in (see open_files)."""

    @property
    def guard(self) -> Callable[[InodeNo], None]: ...
    def stat(self, ino: InodeNo) -> Stat: ...
    def stat_nowait(self, ino: InodeNo) -> Stat | None: ...
    def live(self, stat: Stat) -> Stat: ...
    def revision_of(self, stat: Stat) -> Revision | None: ...
    def whole_revision_of(self, stat: Stat) -> Revision | None: ...
    def commit(self, ino: InodeNo, draft: Draft, mtime_ns: int | None) -> None: ...
    def resize(self, stat: Stat, size: int) -> None: ...
    def touch(self, ino: InodeNo, mtime_ns: int) -> None: ...
    def release(self, file: OpenFile, flags: OpenFlags) -> None: ...
    def uploads_changed(self) -> None: ...
    def sync(self) -> None: ...


def writes(flags: OpenFlags) -> bool:
    """Whether a handle may begin uncommitted bytes."""
    return bool(flags & (OpenFlags.WRITE | OpenFlags.TRUNCATE))


class OpenFile:
    """An inode that is open in this process; one for all its handles.

    When an upload fails, its bytes are dropped at once and everybody reads the old content again. Who had the file open for
    writing then is told by each flush until the end, and writes no more; who opens it afterwards begins anew.
    """

    def __init__(self, files: Files, transfers: Transfers, ino: InodeNo) -> None:
        self.ino = ino
        self.turn = threading.Lock()
        self.references = 0
        self.writers = 0  # of these
        self._files = files
        self._transfers = transfers
        self._writer: Writer | None = None
        self._failures = 0  # of uploads
        self._failure: FsError | None = None  # the last one
        self._mtime_ns = 0

    @property
    def only_emptied(self) -> bool:
        """Whether all that is uncommitted is an O_TRUNC, and nothing was written since. Takes no lock."""
        writer = self._writer
        return writer is not None and writer.untouched and writer.size == 0

    @property
    def dirty(self) -> bool:
        """Whether there are uncommitted bytes."""
        return self._writer is not None

    @property
    def failures(self) -> int:
        """How many uploads have failed. Who opens the file remembers it (`since`), to be told of later ones only."""
        return self._failures

    def live(self, stat: Stat) -> Stat:
        """`stat` with the uncommitted size and mtime. Takes no lock."""
        writer = self._writer
        if writer is None:
            return stat
        return replace(stat, size=writer.size, mtime_ns=self._mtime_ns, ctime_ns=max(stat.ctime_ns, self._mtime_ns))

    def set_mtime(self, mtime_ns: int) -> None:
        """utimensat(2) on a file being written: the commit must not undo it."""
        self._mtime_ns = mtime_ns

    def read_uncommitted(self, offset: int, size: int) -> Buffer | None:
        """Uncommitted bytes; None if there are none and the committed ones are to be read."""
        if self._writer is None:
            return None
        with self.turn:
            if self._writer is None:
                return None
            with self._failing():  # it may have to send what is read back
                return self._writer.pread(offset, size)

    def write(self, offset: int | None, data: Buffer, since: int) -> None:
        """pwrite(2); `offset` None appends."""
        with self.turn:
            self._check(since)
            writer = self._ensure_writer()
            with self._failing():
                writer.pwrite(writer.size if offset is None else offset, data)
            self._mtime_ns = time.time_ns()

    def write_nowait(self, offset: int | None, data: Buffer, since: int) -> bool:
        """As write, if that needs no waiting; False (nothing written) if it does."""
        if not self.turn.acquire(blocking=False):
            return False
        try:
            self._check(since)
            writer = self._writer
            if writer is None:
                return False
            with self._failing():
                if not writer.pwrite_nowait(writer.size if offset is None else offset, data):
                    return False
            self._mtime_ns = time.time_ns()
            return True
        finally:
            self.turn.release()

    def truncate(self, size: int, since: int) -> None:
        """ftruncate(2): becomes visible to others when the handle is flushed."""
        with self.turn:
            self._check(since)
            if self._writer is None and size == self._files.stat(self.ino).size:
                return  # rsync --inplace ends so; not worth a revision
            writer = self._writer or self._start(empty=size == 0)
            with self._failing():
                writer.truncate(size)
            self._mtime_ns = time.time_ns()

    def resize(self, size: int) -> None:
        """truncate(2): one transaction; if somebody writes the file, part of what that one commits."""
        with self.turn:
            if self._writer is not None:
                with self._failing():
                    self._writer.truncate(size)
                self._mtime_ns = time.time_ns()
                return
            stat = self._files.stat(self.ino)
            if size != stat.size:
                self._files.resize(stat, size)

    def start_empty(self) -> None:
        """O_TRUNC: the new content begins empty; the old one stays until the commit."""
        with self.turn:
            if self._writer is not None:
                if self._writer.size:
                    self._writer.truncate(0)
            elif self._files.stat(self.ino).size:
                self._start(empty=True)
            else:
                self._files.touch(self.ino, time.time_ns())
            self._mtime_ns = time.time_ns()

    def settled(self, since: int) -> bool:
        """Whether there is nothing to store, and no failure to tell. Takes no lock."""
        return self._writer is None and self._failures == since

    def commit(self, since: int) -> None:
        """Store, verify and name the uncommitted bytes. Raises what went wrong, again each time it is asked."""
        if self.settled(since):
            return
        with self.turn:
            self._check(since)
            self._commit()

    def close(self) -> None:
        """The last handle is gone, unless the file was opened again meanwhile. What mmap wrote after close(2) is committed here;
        its error can only be logged."""
        if self._writer is None:
            return
        with self.turn:
            if self.references or self._writer is None:
                return
            try:
                self._commit()
            except FsError as error:
                log.error("Bytes written to inode %d after its close() are lost: %s", self.ino, error)  # noqa: TRY400

    def discard(self) -> None:
        """Of the only writer: the old content is the file again. Parts that were sent wait for who sends the same bytes again."""
        with self.turn:
            if self.writers == 1:  # who opens it now waits for this turn before the first byte
                self._drop(keep_draft=False)

    def _commit(self) -> None:
        if self._writer is None:
            return
        with self._failing():
            draft = self._writer.finish()
            self._files.commit(self.ino, draft, self._mtime_ns)
        self._writer.committed()
        self._writer = None
        self._files.uploads_changed()

    def _check(self, since: int) -> None:
        if self._failures != since:
            assert self._failure is not None
            raise self._failure

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Whatever goes wrong here is the end of these uncommitted bytes: with one write missing they must never be named."""
        try:
            yield
        except FsError as error:
            self._fail(error)
            raise
        except Exception as error:
            log.exception("Writing inode %d failed", self.ino)
            own = StoreError(f"The bytes could not be kept ({error}); the old content stays.")
            self._fail(own)
            raise own from error

    def _fail(self, error: FsError) -> None:
        self._failure = error
        self._failures += 1
        self._drop(keep_draft=isinstance(error, CatalogError))

    def _drop(self, *, keep_draft: bool) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.fail(keep_draft=keep_draft)
            self._files.uploads_changed()

    def _ensure_writer(self) -> Writer:
        return self._writer or self._start(empty=False)

    def _start(self, *, empty: bool) -> Writer:
        base: Revision | None = None
        if not empty:
            base = self._files.whole_revision_of(self._files.stat(self.ino))
        self._writer = writer = Writer(self._transfers, base, target_of(self.ino))
        try:  # now that it shows as being written: of this and a new WebDAV lock, one sees the other
            self._files.guard(self.ino)
        except BaseException:
            self._writer = None
            writer.fail(keep_draft=False)
            raise
        self._mtime_ns = time.time_ns()
        self._files.uploads_changed()
        return writer


class FileHandle:
    """One open(2)."""

    def __init__(self, files: Files, transfers: Transfers, file: OpenFile, flags: OpenFlags) -> None:
        self.ino = file.ino
        self.flags = flags
        self._files = files
        self._transfers = transfers
        self._file = file
        self._since = file.failures
        self._content: RevisionContent | None = None
        self._content_lock = threading.Lock()  # a leaf; the kernel sends several READs at once
        self._released = False
        self._owes_commit = False

    def stat(self) -> Stat:
        """With the uncommitted size."""
        return self._files.live(self._files.stat(self.ino))

    def pread(self, offset: int, size: int) -> Buffer:
        """Up to `size` bytes from `offset`; shorter only at the end of the file. Raises StoreError, BadHandle."""
        self._need(OpenFlags.READ)
        uncommitted = self._file.read_uncommitted(offset, size)
        if uncommitted is not None:
            return uncommitted
        content = self._latest(self._files.stat(self.ino))
        return b"" if content is None else content.pread(offset, size)

    def pread_nowait(self, offset: int, size: int) -> Buffer | None:
        """As pread if memory has the answer; None if it would wait."""
        self._need(OpenFlags.READ)
        if self._file.dirty:
            return None
        stat = self._files.stat_nowait(self.ino)
        if stat is None:
            return None
        if stat.size == 0:
            return b""
        content = self._content
        if content is None or content.revision.id != stat.revision:
            return None
        return content.pread_nowait(offset, size)

    def pwrite(self, offset: int, data: Buffer) -> int:
        """Write all of `data`. Bytes are durable only after flush or fsync. Raises NoSpace, FileTooBig, StoreError."""
        self._need(OpenFlags.WRITE)
        self._file.write(None if self.flags & OpenFlags.APPEND else offset, data, self._since)
        return memoryview(data).nbytes

    def pwrite_nowait(self, offset: int, data: Buffer) -> int | None:
        """As pwrite if it needs no waiting; None (and nothing written) if it does."""
        self._need(OpenFlags.WRITE)
        done = self._file.write_nowait(None if self.flags & OpenFlags.APPEND else offset, data, self._since)
        return memoryview(data).nbytes if done else None

    def truncate(self, size: int) -> None:
        """ftruncate(2); committed by flush."""
        self._need(OpenFlags.WRITE)
        self._file.truncate(size, self._since)

    def resize(self, size: int) -> None:
        """truncate(2) by name: in the catalog when this returns, or with what is being written."""
        self._need(OpenFlags.WRITE)
        self._file.resize(size)

    def flush(self) -> None:
        """close(2): when this returns, what was written is stored, verified and in the catalog. Raises what went wrong."""
        if self.flags & OpenFlags.WRITE:
            self._file.commit(self._since)

    @property
    def only_emptied(self) -> bool:
        """Whether flush would replace the old content by an empty file only because O_TRUNC asked for it."""
        return self._file.only_emptied

    def postpone(self) -> None:
        """Instead of flush, when the file is only emptied and is going to be written: the old content stays until the next flush.
        If there is none, `release` commits, and logs what goes wrong."""
        self._owes_commit = True

    def flush_nowait(self) -> bool:
        """As flush, if there is nothing to store and nothing to tell; else False, and nothing has happened."""
        return self._file.settled(self._since)

    def fsync(self) -> None:
        """fsync(2): as flush, and with nothing to flush the attributes are on the disk too; the handle stays usable."""
        self._file.commit(self._since if self.flags & OpenFlags.WRITE else self._file.failures)
        self._files.sync()

    def release(self) -> None:
        """The last reference to this handle is gone."""
        if not self._released:
            self._released = True
            if self._owes_commit:
                self._commit_late()
            with self._content_lock:
                content, self._content = self._content, None
            if content is not None:
                content.close()
            self._files.release(self._file, self.flags)

    def discard(self) -> None:
        """As release, for who was ended in the middle of writing: what is uncommitted is not half committed, but the old content
        stays. If others write the file too, they commit it all."""
        if not self._released:
            self._owes_commit = False
            self._file.discard()
        self.release()

    def release_nowait(self) -> bool:
        """As release, if nothing is uncommitted; else False, and nothing has happened."""
        if self._file.dirty:
            return False
        self.release()
        return True

    def _commit_late(self) -> None:
        try:
            self.flush()
        except FsError as error:
            log.error("Inode %d was not emptied, its old content stays: %s", self.ino, error)  # noqa: TRY400

    def _need(self, flag: OpenFlags) -> None:
        if self._released or not self.flags & flag:
            raise BadHandle("The file is not open for that.")

    def _latest(self, stat: Stat) -> RevisionContent | None:
        """The content as the catalog has it now: handles follow commits, as on a local filesystem."""
        content = self._content
        if content is not None and content.revision.id == stat.revision:
            return content
        revision = self._files.revision_of(stat)
        if revision is None:
            return None
        with self._content_lock:
            content = self._content
            if content is None or content.revision.id != revision.id:
                if content is not None:
                    content.close()
                content = self._content = RevisionContent(self._transfers, revision)
        return content
