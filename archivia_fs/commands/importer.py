"""Copying files and folders from local disk into the drive.

Owns: the walk, the workers, what counts as the same file. Used by: imports. Threading: `Importer.run` in
one thread, which walks and makes folders; WORKERS others copy files, and at most PENDING wait for them.

A file that has the size and mtime it already has in the drive is left alone, so a second run transfers nothing, and a run
that was interrupted goes on where it stopped. A file appears in the drive when all of it is stored, or not at all.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat as stat_module
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from archivia_fs.commands.sources import Source
from archivia_fs.errors import (
    Busy,
    CatalogError,
    Exists,
    FsError,
    InvalidArgument,
    NoSpace,
    NotADirectory,
    StoreError,
)
from archivia_fs.types import Caller, Entry, InodeNo, SetAttr, Stat, lookup_key

if TYPE_CHECKING:
    from archivia_fs.vfs.vfs import Vfs

WORKERS = 4
PENDING = 64  # files that wait for a worker; the walk waits for them
BLOCK = 1 << 20  # bytes read at a time
FAILURES_MAX = (
    10  # of the store or the catalog in a row: then it is down, and every further file would only take its time to fail
)


@dataclass(slots=True)
class Tally:
    """What happened. `copied`, `skipped` (the same already) count files and symbolic links; `bytes` were transferred."""

    copied: int = 0
    skipped: int = 0
    folders: int = 0
    bytes: int = 0
    special: list[str] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)


class Listener:
    """Hears of progress, from several threads at once. This one does not listen."""

    def advanced(self, size: int) -> None:
        """So many bytes are on their way, or need not go."""

    def finished(self, path: str) -> None:
        """A file is in the drive."""

    def skipped(self) -> None:
        """A file was there already."""

    def failed(self, path: str, message: str) -> None:
        """A file or folder could not be copied, or is no file."""


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder of the drive as it was when the walk came to it: its entries by lookup key. `ino` None: not made, a dry run."""

    ino: InodeNo | None
    entries: dict[str, Entry]


@dataclass(frozen=True, slots=True)
class _Step:
    """A folder to copy into `parent` as `name`; `found` None: what is in it goes straight into `parent`."""

    path: str
    found: os.stat_result | None
    name: str
    parent: _Folder


class Importer:
    """One import. `state` is the archive's own folder, which is never imported into itself."""

    def __init__(self, vfs: Vfs, caller: Caller, listener: Listener, *, state: Path, dry_run: bool = False) -> None:
        self.tally = Tally()
        self._vfs = vfs
        self._caller = caller
        self._listener = listener
        self._state = state
        self._dry_run = dry_run
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._in_a_row = 0
        self._fatal: FsError | None = None
        self._pool = ThreadPoolExecutor(WORKERS, "import")
        self._pending: set[Future[None]] = set()
        self._times: list[tuple[InodeNo, int]] = []

    def run(self, sources: Sequence[Source], folder: InodeNo | None) -> None:
        """Copy; `folder` None is one that a dry run would make. Raises StoreError, CatalogError or NoSpace if going on makes no
        sense; what fails for one file is in the tally."""
        try:
            for source in sources:
                self._drain_before(source)
                self._add(source, self._known(folder))
            self._drain()
            self._set_times()
            self._vfs.sync()  # folders, links and times too survive a power cut when we say that they are there
        finally:
            self._stop.set()
            self._pool.shutdown(wait=False, cancel_futures=True)
        if self._fatal is not None:
            raise self._fatal

    def _set_times(self) -> None:
        for ino, mtime_ns in self._times:
            if self._vfs.getattr(ino).mtime_ns != mtime_ns:
                self._vfs.setattr(self._caller, ino, SetAttr(mtime_ns=mtime_ns))

    # --- the walk ------------------------------------------------------------------------------------------------------

    def _add(self, source: Source, folder: _Folder) -> None:
        path = str(source.path)
        with self._reporting(path):
            if source.name is None:
                self._walk([_Step(path, None, "", folder)])
                return
            found = os.lstat(path)
            if stat_module.S_ISDIR(found.st_mode):
                self._walk([_Step(path, found, source.name, folder)])
            else:
                self._submit(path, found, source.name, folder)

    def _walk(self, steps: list[_Step]) -> None:
        """Folders in the order of their names, of each its files first. PATH_MAX allows 2,000 levels, so nothing recurs."""
        while steps and not self._stop.is_set():
            step = steps.pop()
            with self._reporting(step.path):
                steps += reversed(self._enter(step))

    def _enter(self, step: _Step) -> list[_Step]:
        """Make the folder, submit its files, and return the folders in it."""
        folder = step.parent if step.found is None else self._make_folder(step.found, step.name, step.parent)
        names: set[str] = set()
        inner = []
        with os.scandir(step.path) as found:
            children = sorted(found, key=lambda child: child.name)
        for child in children:
            if self._stop.is_set():
                break
            with self._reporting(child.path):
                key = lookup_key(child.name)
                if key in names:
                    raise Exists("Another file here has the same name in another Unicode spelling; rename one of them.")
                names.add(key)
                status = child.stat(follow_symlinks=False)
                if not stat_module.S_ISDIR(status.st_mode):
                    self._submit(child.path, status, child.name, folder)
                elif self._is_state(status):
                    raise InvalidArgument("That is the archive's own state; it is left out.")
                else:
                    inner.append(_Step(child.path, status, child.name, folder))
        return inner

    def _make_folder(self, found: os.stat_result, name: str, folder: _Folder) -> _Folder:
        from archivia_fs.vfs.names import check_name

        check_name(name)
        entry = folder.entries.get(lookup_key(name))
        mode = stat_module.S_IMODE(found.st_mode)
        if entry is not None and not entry.stat.is_dir:
            raise NotADirectory("In the drive that name is a file; rename or remove it there first.")
        if entry is not None:
            self._change_mode(entry.stat, mode)
            self._time_later(entry.stat, found)
            return self._known(entry.stat.ino)
        self.tally.folders += 1
        if folder.ino is None or self._dry_run:
            return _Folder(None, {})
        made = self._vfs.mkdir(self._caller, folder.ino, name, mode)
        self._time_later(made, found)
        return _Folder(made.ino, {})

    def _time_later(self, stat: Stat, found: os.stat_result) -> None:
        """When nothing is added to the folder any more."""
        if not self._dry_run:
            self._times.append((stat.ino, found.st_mtime_ns))

    def _known(self, folder: InodeNo | None) -> _Folder:
        if folder is None:
            return _Folder(None, {})
        entries = self._vfs.readdir(self._caller, folder)
        return _Folder(folder, {lookup_key(entry.name): entry for entry in entries})

    def _is_state(self, found: os.stat_result) -> bool:
        with contextlib.suppress(OSError):
            return os.path.samestat(found, self._state.stat())
        return False

    def _submit(self, path: str, found: os.stat_result, name: str, folder: _Folder) -> None:
        from archivia_fs.vfs.names import check_name

        check_name(name)
        existing = folder.entries.get(lookup_key(name))
        if stat_module.S_ISLNK(found.st_mode):
            self._link(path, found, name, folder, existing)
            return
        if not stat_module.S_ISREG(found.st_mode):
            self.tally.special.append(path)
            self._listener.failed(path, "It is neither a file nor a folder nor a symbolic link; skipped.")
            return
        if existing is not None and not existing.stat.is_file:
            raise Exists("In the drive that name is not a file; rename or remove it there first.")
        if existing is not None and _same(existing.stat, found):
            self._change_mode(existing.stat, stat_module.S_IMODE(found.st_mode))
            self._skip(found.st_size)
        elif folder.ino is None or self._dry_run:
            self._done(path, found.st_size)
            self._listener.advanced(found.st_size)
        else:
            while len(self._pending) >= PENDING:
                self._reap(wait(self._pending, return_when=FIRST_COMPLETED).done)
            self._pending.add(self._pool.submit(self._copy, path, folder.ino, name, existing))

    # --- one file --------------------------------------------------------------------------------------------------------

    def _copy(self, path: str, parent: InodeNo, name: str, existing: Entry | None) -> None:
        """In a worker."""
        if self._stop.is_set():
            return
        with self._reporting(path):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # it may have become a fifo meanwhile
            descriptor = os.open(path, flags)
            try:
                found = os.fstat(descriptor)
                if not stat_module.S_ISREG(found.st_mode):
                    raise Busy("It is not a regular file any more.")
                self._transfer(descriptor, found, parent, name, existing)
            finally:
                os.close(descriptor)
            self._done(path, found.st_size)

    def _transfer(
        self, descriptor: int, found: os.stat_result, parent: InodeNo, name: str, existing: Entry | None
    ) -> None:
        mode = stat_module.S_IMODE(found.st_mode)
        put = self._vfs.put(self._caller, parent, name, size_hint=found.st_size, mtime_ns=found.st_mtime_ns, mode=mode)
        try:
            left = found.st_size
            while left:
                data = os.read(descriptor, min(BLOCK, left))
                if not data or self._stop.is_set():
                    break
                put.write(data)
                left -= len(data)
                self._listener.advanced(len(data))
            if self._stop.is_set():
                raise InvalidArgument("The import was stopped before this file was complete.")
            if left or not _unchanged(found, os.fstat(descriptor)):
                raise Busy("It changed while it was read; import it again when nobody writes to it.")
            stat, _ = put.commit()
        finally:
            put.abort()  # nothing, after a commit
        if existing is not None:
            self._change_mode(stat, mode)

    def _link(self, path: str, found: os.stat_result, name: str, folder: _Folder, existing: Entry | None) -> None:
        target = os.readlink(path)  # noqa: PTH115 - a str, and not normalised
        if existing is not None and not existing.stat.is_symlink:
            raise Exists("In the drive that name is not a symbolic link; rename or remove it there first.")
        if existing is not None and existing.stat.symlink == target:
            self._skip(0)
            return
        if folder.ino is not None and not self._dry_run:
            made_as = name if existing is None else f".import-{secrets.token_hex(8)}"
            stat = self._vfs.symlink(self._caller, folder.ino, made_as, target)
            self._vfs.setattr(self._caller, stat.ino, SetAttr(mtime_ns=found.st_mtime_ns))
            if existing is not None:
                self._vfs.rename(self._caller, folder.ino, made_as, folder.ino, name)
        self._done(path, 0)

    def _change_mode(self, stat: Stat, mode: int) -> None:
        if stat_module.S_IMODE(stat.mode) != mode and not self._dry_run:
            self._vfs.setattr(self._caller, stat.ino, SetAttr(mode=mode))

    # --- counting ----------------------------------------------------------------------------------------------------------

    def _done(self, path: str, size: int) -> None:
        with self._lock:
            self._in_a_row = 0
            self.tally.copied += 1
            self.tally.bytes += size
        self._listener.finished(path)

    def _skip(self, size: int) -> None:
        self.tally.skipped += 1
        self._listener.advanced(size)
        self._listener.skipped()

    @contextlib.contextmanager
    def _reporting(self, path: str) -> Iterator[None]:
        """What goes wrong inside is told of this path, and ends nothing else; unless it will go wrong for all others too."""
        try:
            yield
        except OSError as error:
            self._failed(path, error, f"It cannot be read: {error.strerror}.")
        except FsError as error:
            self._failed(path, error, str(error))

    def _failed(self, path: str, error: Exception, message: str) -> None:
        with self._lock:
            if self._stop.is_set():
                return  # a consequence of stopping
            self.tally.errors.append((path, message))
            if isinstance(error, StoreError | CatalogError | NoSpace):
                self._in_a_row += 1
                if isinstance(error, NoSpace) or self._in_a_row >= FAILURES_MAX:
                    self._fatal = error
                    self._stop.set()
        self._listener.failed(path, message)

    def _drain_before(self, source: Source) -> None:
        """The contents of a second folder may have names of the first: they meet as if imported one after the other."""
        if source.name is None:
            self._drain()

    def _drain(self) -> None:
        self._reap(wait(self._pending).done)

    def _reap(self, done: set[Future[None]]) -> None:
        self._pending -= done
        for each in done:
            each.result()


def _same(stat: Stat, found: os.stat_result) -> bool:
    return stat.size == found.st_size and stat.mtime_ns == found.st_mtime_ns


def _unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_size, after.st_mtime_ns, after.st_ctime_ns
    )  # fmt: skip
