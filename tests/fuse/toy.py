"""A Vfs in memory with the core's API, for tests of the FUSE door alone. Real data runs in the functional suite."""

from __future__ import annotations

import stat as stat_module
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace

from archivia_fs import errors
from archivia_fs.types import (
    Caller,
    Change,
    ChangeKind,
    Effects,
    Entry,
    InodeNo,
    OpenFlags,
    RenameFlag,
    RevisionId,
    SetAttr,
    Stat,
    StatFs,
    lookup_key,
)

SELF = Caller("admin", 0, 0)
ROOT = InodeNo(1)


class Handle:
    only_emptied = False

    def __init__(self, vfs: ToyVfs, ino: InodeNo, flags: OpenFlags) -> None:
        self.vfs, self.ino, self.flags = vfs, ino, flags
        self.released = False
        vfs.handles.add(self)
        if flags & OpenFlags.TRUNCATE:
            self.truncate(0)

    def wait(self) -> None:
        """As long as the store hangs."""
        if self.vfs.slow_data is not None:
            self.vfs.slow_data.wait(30)
        assert not self.released, "used after its end"

    def pread_nowait(self, offset: int, size: int) -> memoryview | None:
        return None if self.vfs.slow_data is not None else self._pread(offset, size)

    def pread(self, offset: int, size: int) -> memoryview:
        self.wait()
        return self._pread(offset, size)

    def _pread(self, offset: int, size: int) -> memoryview:
        self.vfs.calls["pread"] += 1
        data = self.vfs.dirty.get(self.ino, self.vfs.data[self.ino])
        return memoryview(bytes(data[offset : offset + size]))

    def pwrite_nowait(self, offset: int, data: bytes) -> int | None:
        return None if self.vfs.slow_data is not None else self.pwrite(offset, data)

    def pwrite(self, offset: int, data: bytes) -> int:
        self.wait()
        if self.vfs.fail_write is not None:
            raise self.vfs.fail_write
        content = self.vfs.dirty.setdefault(self.ino, bytearray(self.vfs.data[self.ino]))
        if len(content) < offset:
            content.extend(bytes(offset - len(content)))
        content[offset : offset + len(data)] = data
        self.vfs.touch(self.ino)
        return len(data)

    def truncate(self, size: int) -> None:
        self.wait()
        content = self.vfs.dirty.setdefault(self.ino, bytearray(self.vfs.data[self.ino]))
        del content[size:]
        content.extend(bytes(size - len(content)))
        self.vfs.touch(self.ino)

    def flush(self) -> None:
        if self.vfs.slow_flush is not None:
            self.vfs.slow_flush.wait(30)
        if self.ino in self.vfs.dirty:
            if self.vfs.fail_flush is not None:
                raise self.vfs.fail_flush
            self.vfs.commit(self.ino, bytes(self.vfs.dirty.pop(self.ino)))

    fsync = flush

    def flush_nowait(self) -> bool:
        return False

    def release_nowait(self) -> bool:
        return False

    def release(self) -> None:
        self.vfs.calls["release"] += 1
        if self.vfs.fail_flush is not None:
            self.vfs.dirty.pop(self.ino, None)
        if not any(other.ino == self.ino for other in self.vfs.handles - {self}):
            self.flush()
        self._end()

    def discard(self) -> None:
        others = self.vfs.handles - {self}
        if not any(other.ino == self.ino and other.flags & OpenFlags.WRITE for other in others):
            self.vfs.dirty.pop(self.ino, None)
        self._end()

    def _end(self) -> None:
        self.released = True
        self.vfs.handles.discard(self)


class ToyVfs:
    """Directories are dicts. Everything is in memory, so the *_nowait methods always answer, unless told to be slow."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.stats: dict[InodeNo, Stat] = {}
        self.children: dict[InodeNo, dict[str, tuple[str, InodeNo]]] = {}
        self.data: dict[InodeNo, bytes] = {}
        self.dirty: dict[InodeNo, bytearray] = {}
        self.xattrs: dict[InodeNo, dict[str, bytes]] = {}
        self.remembered: set[InodeNo] = set()
        self.handles: set[Handle] = set()  # not released
        self.listeners: list[Callable[[Effects], None]] = []
        self.calls: Counter[str] = Counter()
        self.slow_data: threading.Event | None = None  # preads, pwrites and truncates wait for it
        self.slow_flush: threading.Event | None = None  # flushes wait for it
        self.slow_names: threading.Event | None = None  # what makes names waits for it
        self.fail_write: Exception | None = None
        self.fail_flush: Exception | None = None
        self.fail_getattr: Exception | None = None
        self.between: Callable[[], None] | None = None  # runs once inside the next mutation, before it is answered
        self.seq = 0
        self._new(stat_module.S_IFDIR | 0o755, SELF)

    # --- changes
    def _new(self, mode: int, caller: Caller, rdev: int = 0, symlink: str | None = None) -> Stat:
        ino, now = InodeNo(len(self.stats) + 1), time.time_ns()
        size = 0 if symlink is None else len(symlink.encode())
        stat = Stat(ino, mode, 1, caller.uid, caller.gid, rdev, size, now, now, now, now, symlink=symlink)
        self.stats[ino] = stat
        if stat.is_dir:
            self.children[ino] = {}
        self.data[ino] = b""
        return stat

    def emit(self, *changes: tuple[ChangeKind, InodeNo, InodeNo | None, str | None]) -> None:
        rows = []
        for kind, ino, parent, name in changes:
            self.seq += 1
            rows.append(Change(self.seq, "toy", kind, ino, parent, name))
            if parent is not None:
                now = time.time_ns()
                self.stats[parent] = replace(self.stats[parent], mtime_ns=now, ctime_ns=now)
        stats = [self.stats[ino] for ino in {i for row in rows for i in (row.ino, row.parent) if i in self.stats}]
        for listener in list(self.listeners):
            listener(Effects(rows, stats))
        between, self.between = self.between, None
        if between is not None:
            between()

    def touch(self, ino: InodeNo) -> None:
        now = time.time_ns()
        self.stats[ino] = replace(self.stats[ino], mtime_ns=now, ctime_ns=now)

    def commit(self, ino: InodeNo, data: bytes, mtime_ns: int | None = None) -> None:
        with self.lock:
            self.data[ino] = data
            old, revision = self.stats[ino], RevisionId(f"r{self.seq}")
            mtime = mtime_ns or time.time_ns()
            self.stats[ino] = replace(old, size=len(data), mtime_ns=mtime, revision=revision)
            self.emit((ChangeKind.DATA, ino, None, None))

    def subscribe(
        self, listener: Callable[[Effects], None], settle: Callable[[], None] | None = None
    ) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def watch_locks(self, held: Callable[[], Set[InodeNo]]) -> Callable[[], None]:
        return lambda: None

    # --- reading
    def lookup_nowait(self, caller: Caller, parent: InodeNo, name: str) -> Stat:
        self.calls["lookup"] += 1
        try:
            return self.stats[self.children[parent][lookup_key(name)][1]]
        except KeyError:
            raise errors.NotFound(name) from None

    lookup = lookup_nowait

    def resolve(self, caller: Caller, path: str) -> Stat:
        stat = self.stats[ROOT]
        for name in filter(None, path.split("/")):
            stat = self.lookup(caller, stat.ino, name)
        return stat

    def getattr_nowait(self, ino: InodeNo, *, live: bool = False) -> Stat:
        self.calls["getattr"] += 1
        if self.fail_getattr is not None and ino != ROOT:
            raise self.fail_getattr
        stat = self.stats[ino]
        return replace(stat, size=len(self.dirty[ino])) if live and ino in self.dirty else stat

    getattr = getattr_nowait

    def readdir_nowait(self, caller: Caller, ino: InodeNo) -> Sequence[Entry]:
        self.calls["readdir"] += 1
        return [Entry(name, self.stats[child]) for name, child in sorted(self.children[ino].values())]

    readdir = readdir_nowait

    def readlink(self, ino: InodeNo) -> str:
        return self.stats[ino].symlink or ""

    def statfs(self) -> StatFs:
        return StatFs(1 << 40, 1 << 39, 1000, 900)

    def properties(self, ino: InodeNo) -> Mapping[str, bytes]:
        return self.xattrs.get(ino, {})

    # --- changing
    def sync(self) -> None:
        """All is in memory."""

    def setattr(self, caller: Caller, ino: InodeNo, change: SetAttr) -> Stat:
        fields = {f: getattr(change, f) for f in ("mode", "uid", "gid", "atime_ns", "mtime_ns")}
        stat = self.stats[ino]
        if change.mode is not None:
            fields["mode"] = stat_module.S_IFMT(stat.mode) | change.mode
        self.stats[ino] = replace(stat, **{key: value for key, value in fields.items() if value is not None})
        self.emit((ChangeKind.ATTRIBUTES, ino, None, None))
        return self.stats[ino]

    def truncate(self, caller: Caller, ino: InodeNo, size: int) -> Stat:
        if self.slow_data is not None:
            self.slow_data.wait(30)
        self.commit(ino, self.data[ino][:size].ljust(size, b"\0"))
        return self.stats[ino]

    def set_properties(self, caller: Caller, ino: InodeNo, changes: Mapping[str, bytes | None]) -> None:
        for key, value in changes.items():
            if value is not None:
                self.xattrs.setdefault(ino, {})[key] = value
            elif self.xattrs.get(ino, {}).pop(key, None) is None:
                raise errors.NoAttribute(key)

    def _make(
        self, caller: Caller, parent: InodeNo, name: str, mode: int, rdev: int = 0, symlink: str | None = None
    ) -> Stat:
        if self.slow_names is not None:
            self.slow_names.wait(30)
        with self.lock:
            if lookup_key(name) in self.children[parent]:
                raise errors.Exists(name)
            stat = self._new(mode, caller, rdev, symlink)
            self.children[parent][lookup_key(name)] = (name, stat.ino)
            self.emit((ChangeKind.ENTRY_ADDED, stat.ino, parent, name))
            return stat

    def mkdir(self, caller: Caller, parent: InodeNo, name: str, mode: int) -> Stat:
        return self._make(caller, parent, name, stat_module.S_IFDIR | mode & 0o7777)

    def mknod(self, caller: Caller, parent: InodeNo, name: str, mode: int, rdev: int) -> Stat:
        return self._make(caller, parent, name, mode, rdev)

    def symlink(self, caller: Caller, parent: InodeNo, name: str, target: str) -> Stat:
        return self._make(caller, parent, name, stat_module.S_IFLNK | 0o777, symlink=target)

    def link(self, caller: Caller, ino: InodeNo, parent: InodeNo, name: str) -> Stat:
        self.children[parent][lookup_key(name)] = (name, ino)
        self.stats[ino] = replace(self.stats[ino], nlink=self.stats[ino].nlink + 1)
        self.emit((ChangeKind.ENTRY_ADDED, ino, parent, name))
        return self.stats[ino]

    def unlink(self, caller: Caller, parent: InodeNo, name: str) -> None:
        with self.lock:
            stat = self.lookup(caller, parent, name)
            stored = self.children[parent].pop(lookup_key(name))[0]
            self.stats[stat.ino] = replace(stat, nlink=stat.nlink - 1)
            self.emit((ChangeKind.ENTRY_REMOVED, stat.ino, parent, stored))

    def rmdir(self, caller: Caller, parent: InodeNo, name: str) -> None:
        if self.children[self.lookup(caller, parent, name).ino]:
            raise errors.NotEmpty(name)
        self.unlink(caller, parent, name)

    def rename(
        self, caller: Caller, parent: InodeNo, name: str, new_parent: InodeNo, new_name: str, flags: RenameFlag
    ) -> None:
        with self.lock:
            ino = self.lookup(caller, parent, name).ino
            there = self.children[new_parent].get(lookup_key(new_name))
            if flags & RenameFlag.NOREPLACE and there:
                raise errors.Exists(new_name)
            changes = [
                (ChangeKind.ENTRY_REMOVED, ino, parent, name),
                (ChangeKind.ENTRY_ADDED, ino, new_parent, new_name),
            ]
            del self.children[parent][lookup_key(name)]
            self.children[new_parent][lookup_key(new_name)] = (new_name, ino)
            if flags & RenameFlag.EXCHANGE and there:
                self.children[parent][lookup_key(name)] = (name, there[1])
                changes.append((ChangeKind.ENTRY_ADDED, there[1], parent, name))
            self.emit(*changes)

    def open_nowait(self, caller: Caller, ino: InodeNo, flags: OpenFlags) -> Handle | None:
        return None

    def open(self, caller: Caller, ino: InodeNo, flags: OpenFlags) -> Handle:
        self.calls["open"] += 1
        return Handle(self, ino, flags)

    def create(
        self, caller: Caller, parent: InodeNo, name: str, mode: int, flags: OpenFlags, *, exclusive: bool = True
    ) -> tuple[Stat, Handle]:
        stat = self._make(caller, parent, name, stat_module.S_IFREG | mode & 0o7777)
        return stat, self.open(caller, stat.ino, flags)

    # --- bookkeeping
    def remember(self, ino: InodeNo) -> None:
        self.calls["remember"] += 1
        self.remembered.add(ino)

    def forget(self, ino: InodeNo, count: int = 1) -> None:
        self.remembered.discard(ino)

    # --- for tests
    def add(self, path: str, data: bytes | None = None) -> InodeNo:
        """A file (or with None a directory), as another door would make it."""
        parent, _, name = path.rpartition("/")
        where = self.resolve(SELF, parent).ino
        if data is None:
            return self.mkdir(SELF, where, name, 0o755).ino
        ino = self.mknod(SELF, where, name, stat_module.S_IFREG | 0o644, 0).ino
        self.commit(ino, data)
        return ino

    @contextmanager
    def hanging_store(self) -> Iterator[None]:
        """Data calls wait inside."""
        self.slow_data = threading.Event()
        try:
            yield
        finally:
            self.slow_data.set()
            self.slow_data = None

    @contextmanager
    def hanging_catalog(self) -> Iterator[None]:
        """What makes names waits inside."""
        self.slow_names = threading.Event()
        try:
            yield
        finally:
            self.slow_names.set()
            self.slow_names = None
