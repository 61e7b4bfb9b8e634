"""A drive in a dictionary: the Vfs API that the WebDAV door calls, for tests of the door alone.

No store, no catalog, no rights but "alice" and "bob"; what it shares with the real Vfs is the contract. Threading: one lock.
"""

from __future__ import annotations

import itertools
import stat as stat_module
import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace

from typing_extensions import Buffer

from archivia_fs import errors
from archivia_fs.content import BytesContent, Content
from archivia_fs.types import (
    NAME_MAX,
    ROOT_INODE,
    Caller,
    Effects,
    Entry,
    InodeNo,
    Lock,
    RenameFlag,
    RevisionId,
    SetAttr,
    Stat,
    StatFs,
    lookup_key,
)

USERS = {"alice": "secret", "bob": "päss:wörd"}


class ToyPut:
    def __init__(self, commit: Callable[[bytes], tuple[Stat, bool]]) -> None:
        self._commit = commit
        self._data = bytearray()
        self.aborted = False

    def write(self, data: Buffer) -> None:
        self._data += data

    def commit(self) -> tuple[Stat, bool]:
        return self._commit(bytes(self._data))

    def abort(self) -> None:
        self.aborted = True


class ToyVfs:
    """`fail_put` is raised by the first write of every put; `open_contents` counts snapshots not closed."""

    def __init__(self) -> None:
        self._turn = threading.RLock()
        self._ids = itertools.count(100)
        self._stats: dict[InodeNo, Stat] = {}
        self._children: dict[InodeNo, dict[str, tuple[str, InodeNo]]] = {}
        self._data: dict[InodeNo, bytes] = {}
        self._properties: dict[InodeNo, dict[str, bytes]] = {}
        self._locks: dict[str, Lock] = {}
        self.fail_put: errors.FsError | None = None
        self.fail_read_at: int | None = None
        self.open_contents = 0
        self.authentications = 0
        self._stats[ROOT_INODE] = self._new(stat_module.S_IFDIR | 0o755, ROOT_INODE)
        self._children[ROOT_INODE] = {}
        self._add(ROOT_INODE, "Documents", stat_module.S_IFDIR | 0o755)

    def _new(self, mode: int, ino: InodeNo | None = None, **more: object) -> Stat:
        now = time.time_ns()
        number = InodeNo(next(self._ids)) if ino is None else ino
        return Stat(number, mode, 1, 0, 0, 0, 0, now, now, now, now, **more)  # type: ignore[arg-type]

    def _add(self, parent: InodeNo, name: str, mode: int, **more: object) -> Stat:
        if not name or len(name.encode()) > NAME_MAX:
            raise errors.NameTooLong(f"{name[:20]!r}… is longer than {NAME_MAX} bytes; shorten it.")
        if lookup_key(name) in self._children[parent]:
            raise errors.Exists(f"{name!r} is there already.")
        stat = self._new(mode, **more)
        self._stats[stat.ino] = stat
        if stat.is_dir:
            self._children[stat.ino] = {}
        self._children[parent][lookup_key(name)] = (name, stat.ino)
        return stat

    def lookup(self, caller: Caller, parent: InodeNo, name: str) -> Stat:
        try:
            return self._stats[self._children[parent][lookup_key(name)][1]]
        except KeyError:
            raise errors.NotFound(f"There is no {name!r}.") from None

    def resolve(self, caller: Caller, path: str) -> Stat:
        stat = self._stats[ROOT_INODE]
        for name in filter(None, path.split("/")):
            if not stat.is_dir:
                raise errors.NotADirectory(f"{name!r} is below a file.")
            stat = self.lookup(caller, stat.ino, name)
        return stat

    def readdir(self, caller: Caller, ino: InodeNo) -> Sequence[Entry]:
        return [Entry(name, self._stats[child]) for name, child in sorted(self._children[ino].values())]

    def sync(self) -> None:
        """All is in memory."""

    def setattr(self, caller: Caller, ino: InodeNo, change: SetAttr) -> Stat:
        old = self._stats[ino]
        mtime = old.mtime_ns if change.mtime_ns is None else change.mtime_ns
        atime = old.atime_ns if change.atime_ns is None else change.atime_ns
        self._stats[ino] = replace(old, mtime_ns=mtime, atime_ns=atime)
        return self._stats[ino]

    def mkdir(self, caller: Caller, parent: InodeNo, name: str, mode: int) -> Stat:
        self._writable(parent)
        return self._add(parent, name, stat_module.S_IFDIR | mode)

    def mknod(self, caller: Caller, parent: InodeNo, name: str, mode: int, rdev: int) -> Stat:
        return self._add(parent, name, mode)

    def symlink(self, caller: Caller, parent: InodeNo, name: str, target: str) -> Stat:
        return self._add(parent, name, stat_module.S_IFLNK | 0o777, symlink=target)

    def rename(
        self, caller: Caller, parent: InodeNo, name: str, new_parent: InodeNo, new_name: str,
        flags: RenameFlag = RenameFlag.NONE,
    ) -> None:  # fmt: skip
        with self._turn:
            self._writable(new_parent)
            stat = self.lookup(caller, parent, name)
            there = self._children[new_parent].get(lookup_key(new_name))
            if flags & RenameFlag.EXCHANGE:
                assert there is not None
                self._children[parent][lookup_key(name)] = (name, there[1])
            else:
                if there is not None and (flags & RenameFlag.NOREPLACE or self._stats[there[1]].is_dir):
                    raise errors.Exists(f"{new_name!r} is there already.")
                del self._children[parent][lookup_key(name)]
            self._children[new_parent][lookup_key(new_name)] = (new_name, stat.ino)

    def move_over(self, caller: Caller, parent: InodeNo, name: str, new_parent: InodeNo, new_name: str) -> None:
        with self._turn:
            self._children[new_parent].pop(lookup_key(new_name), None)
            self.rename(caller, parent, name, new_parent, new_name)

    def copy(
        self, caller: Caller, ino: InodeNo, parent: InodeNo, name: str, *, recursive: bool = True, over: bool = False
    ) -> Stat:
        with self._turn:
            self._writable(parent)
            if over:
                self._children[parent].pop(lookup_key(name), None)
            source = self._stats[ino]
            stat = self._add(parent, name, source.mode, revision=source.revision)
            self._stats[stat.ino] = replace(stat, size=source.size, mtime_ns=source.mtime_ns)
            self._properties[stat.ino] = dict(self._properties.get(ino, {}))
            if source.is_dir and recursive:
                for child_name, child in list(self._children[ino].values()):
                    self.copy(caller, child, stat.ino, child_name)
            elif not source.is_dir:
                self._data[stat.ino] = self._data.get(ino, b"")
            return self._stats[stat.ino]

    def remove(self, caller: Caller, parent: InodeNo, name: str) -> None:
        with self._turn:
            self._writable(parent)
            self.lookup(caller, parent, name)
            del self._children[parent][lookup_key(name)]

    def put(
        self, caller: Caller, parent: InodeNo, name: str, *, size_hint: int | None = None, mtime_ns: int | None = None,
        mode: int = 0o644, exclusive: bool = False, if_etags: Set[str] | None = None,
    ) -> ToyPut:  # fmt: skip
        self._writable(parent)

        def commit(data: bytes) -> tuple[Stat, bool]:
            if self.fail_put is not None and data:
                raise self.fail_put
            with self._turn:
                there = self._children[parent].get(lookup_key(name))
                if there is not None and exclusive:
                    raise errors.Exists(f"{name!r} is there already.")
                if if_etags is not None and (there is None or self._stats[there[1]].etag not in if_etags):
                    raise errors.Changed(f"{name!r} is another one.")
                old = self._add(parent, name, stat_module.S_IFREG | mode) if there is None else self._stats[there[1]]
                revision = RevisionId(f"r{next(self._ids)}") if data else None
                mtime = time.time_ns() if mtime_ns is None else mtime_ns
                self._data[old.ino] = data
                self._stats[old.ino] = replace(old, size=len(data), revision=revision, mtime_ns=mtime)
                return self._stats[old.ino], there is None

        handle = ToyPut(commit)
        if self.fail_put is not None:
            failure = self.fail_put

            def broken(data: Buffer) -> None:
                raise failure

            handle.write = broken  # type: ignore[method-assign]
        return handle

    def snapshot(self, caller: Caller, ino: InodeNo) -> Content:
        stat = self._stats[ino]
        self.open_contents += 1
        return _ToyContent(self, self._data.get(ino, b""), stat.etag)

    def statfs(self) -> StatFs:
        return StatFs(2**40, 2**39, 2**20, 2**19)

    def properties(self, ino: InodeNo) -> Mapping[str, bytes]:
        return dict(self._properties.get(ino, {}))

    def properties_of(self, inos: Sequence[InodeNo]) -> Mapping[InodeNo, Mapping[str, bytes]]:
        return {ino: dict(self._properties[ino]) for ino in inos if self._properties.get(ino)}

    def set_properties(self, caller: Caller, ino: InodeNo, changes: Mapping[str, bytes | None]) -> None:
        table = self._properties.setdefault(ino, {})
        for key, value in changes.items():
            if value is None:
                del table[key]
            else:
                table[key] = value

    def check_writable(self, caller: Caller, ino: InodeNo) -> None:
        """Everybody may."""

    def add_lock(self, lock: Lock) -> None:
        self._locks[lock.token] = lock

    def lock(self, token: str) -> Lock | None:
        return self._locks.get(token)

    def locks(self) -> Sequence[Lock]:
        return list(self._locks.values())

    def refresh_lock(self, token: str, timeout_s: int, expires_ns: int | None) -> Lock:
        if token not in self._locks:
            raise errors.NotFound("There is no such lock.")
        self._locks[token] = replace(self._locks[token], timeout_s=timeout_s, expires_ns=expires_ns)
        return self._locks[token]

    def remove_lock(self, token: str) -> None:
        self._locks.pop(token, None)

    def authenticate(self, user: str, password: str) -> bool:
        self.authentications += 1
        return USERS.get(user) == password

    def subscribe(self, listener: Callable[[Effects], None]) -> Callable[[], None]:
        return lambda: None

    def _writable(self, parent: InodeNo) -> None:
        if parent == ROOT_INODE:
            raise errors.ReadOnly("The top of the drive is fixed; write under /Documents.")


class _ToyContent(BytesContent):
    def __init__(self, vfs: ToyVfs, data: bytes, etag: str) -> None:
        super().__init__(data, etag)
        self._vfs = vfs

    def pread(self, offset: int, size: int) -> Buffer:
        if self._vfs.fail_read_at is not None and offset >= self._vfs.fail_read_at:
            raise errors.StoreUnavailable("The store is away.")
        return super().pread(offset, size)

    def close(self) -> None:
        self._vfs.open_contents -= 1
