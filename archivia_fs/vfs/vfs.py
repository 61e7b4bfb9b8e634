"""The Vfs: the one core that both doors call.

Owns: names, rights, open files. Used by: fuse, webdav, the app. Threading: every method may be called from any thread;
all block but the `*_nowait` ones, which answer from memory and may run on an event loop. Lock order: a file's turn
(handle.py), the registry's lock here, the tree's lock. No lock but a file's turn is held across the store or the catalog.

What is promised is in SEMANTICS.md beside this file. Metadata is answered from the Tree; a mutation is one catalog
transaction, and the change feed has updated the Tree before it returns.
"""

from __future__ import annotations

import logging
import stat as stat_module
import threading
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from archivia_fs.content import BytesContent, Content
from archivia_fs.errors import (
    CrossDevice,
    Exists,
    FileTooBig,
    InvalidArgument,
    IsADirectory,
    Locked,
    NotADirectory,
    NotFound,
    NotPermitted,
    ReadOnly,
)
from archivia_fs.store.base import ObjectStore
from archivia_fs.types import (
    DOCUMENTS_INODE,
    ROOT_INODE,
    SIZE_MAX,
    Caller,
    ChangeKind,
    Effects,
    Entry,
    InodeNo,
    Lock,
    OpenFlags,
    RenameFlag,
    RevisionId,
    Right,
    SetAttr,
    Stat,
    StatFs,
)
from archivia_fs.vfs.access import Access
from archivia_fs.vfs.handle import FileHandle
from archivia_fs.vfs.locks import Held, Locks
from archivia_fs.vfs.names import check_name, check_target
from archivia_fs.vfs.open_files import OpenFiles
from archivia_fs.vfs.passwords import Passwords
from archivia_fs.vfs.permits import Permits
from archivia_fs.vfs.put import PutHandle
from archivia_fs.vfs.reader import RevisionContent
from archivia_fs.vfs.safety import FileState, state_of
from archivia_fs.vfs.targets import target_of_entry
from archivia_fs.vfs.transfers import Transfers
from archivia_fs.vfs.tree import Tree
from archivia_fs.vfs.upload_plan import UploadPlan
from archivia_fs.vfs.uploader import Draft
from archivia_fs.vfs.view import View, Views, is_view
from archivia_fs.vfs.view_handle import ViewHandle
from catalog.catalog import Catalog
from catalog.namespace import NewInode

log = logging.getLogger(__name__)

DOCUMENTS = "Documents"
TOTAL_BYTES = 1 << 50  # 1 PiB: a bucket has no size; df shows what is used out of this
TOTAL_INODES = 1 << 40

AnyHandle = FileHandle | ViewHandle


@dataclass(frozen=True, slots=True)
class VfsOptions:
    """`memory`: bytes for all buffers and caches of data. `spill_limit`: bytes of disk in `spill_dir`. `plan`: part
    sizes; tests take small ones."""

    spill_dir: Path
    memory: int = 256 * 1024**2
    spill_limit: int = 64 * 1024**3
    plan: UploadPlan = UploadPlan()  # noqa: RUF009 - frozen


@dataclass(frozen=True, slots=True)
class Subscriber:
    """Who hears of changes; by identity, for the same may subscribe twice."""

    listener: Callable[[Effects], None]
    settle: Callable[[], None] | None


class Vfs:
    """One per process. `close()` it: that commits nothing, it only lets go (drain first)."""

    def __init__(self, catalog: Catalog, store: ObjectStore, options: VfsOptions, views: Sequence[View] = ()) -> None:
        self._catalog = catalog
        self._transfers = Transfers(
            store,
            catalog,
            memory=options.memory,
            spill_dir=options.spill_dir,
            spill_limit=options.spill_limit,
            plan=options.plan,
        )
        self._tree = Tree(catalog)
        self._access = Access(catalog, self._tree)
        self._locks = Locks(catalog)
        self._permits = Permits(self._access, self._tree, self._locks)
        self._views = Views(views)
        self._passwords = Passwords(catalog)
        self._files = OpenFiles(catalog, self._tree, self._transfers, self._locks.check_inode)
        self._listeners: tuple[Subscriber, ...] = ()
        self._listeners_lock = threading.Lock()
        catalog.subscribe(self._on_effects, self._settle)

    # --- lookup and attributes ---------------------------------------------------------------------------------------

    def lookup(self, caller: Caller, parent: InodeNo, name: str) -> Stat:
        """Raises NotFound, NotADirectory, NameTooLong, InvalidName, AccessDenied."""
        check_name(name)
        if is_view(parent):
            return self._views.lookup(self, caller, parent, name)
        if parent == ROOT_INODE and name != DOCUMENTS:
            return self._views.root(name)
        stat = self._tree.lookup(parent, name)
        self._access.check(caller, stat.ino, Right.READ)
        return stat

    def lookup_nowait(self, caller: Caller, parent: InodeNo, name: str) -> Stat | None:
        """As lookup, from memory; None if memory cannot tell. Raises NotFound for a name that is certainly not there."""
        check_name(name)
        if is_view(parent) or parent == ROOT_INODE:
            return None
        stat = self._tree.lookup_nowait(parent, name)
        if stat is None or not self._access.may_nowait(caller, stat.ino, Right.READ):
            return None
        return stat

    def getattr(self, ino: InodeNo, *, live: bool = False) -> Stat:
        """The inode as committed; `live` shows the uncommitted size of a file this process has open. Raises NotFound."""
        if is_view(ino):
            return self._views.getattr(ino)
        return self._files.live(self._tree.stat(ino)) if live else self._tree.stat(ino)

    def getattr_nowait(self, ino: InodeNo, *, live: bool = False) -> Stat | None:
        """As getattr, from memory; None if it is not there."""
        if is_view(ino):
            return self._views.getattr(ino)
        stat = self._tree.stat_nowait(ino)
        return self._files.live(stat) if live and stat is not None else stat

    def setattr(self, caller: Caller, ino: InodeNo, change: SetAttr) -> Stat:
        """chmod, chown, utimensat: one transaction. Returns the live stat."""
        self._permits.writable(caller, ino)
        stat = self._catalog.setattr(ino, change).stat(ino)
        file = self._files.get(ino)
        if file is not None and change.mtime_ns is not None:
            file.set_mtime(change.mtime_ns)
        return self._files.live(stat)

    def truncate(self, caller: Caller, ino: InodeNo, size: int) -> Stat:
        """truncate(2): a new revision over the same object, so no byte moves. Raises IsADirectory, FileTooBig."""
        if size > SIZE_MAX:
            raise FileTooBig("A file holds at most 5 TiB, the largest S3 object.")
        self._permits.writable(caller, ino)
        self._regular(ino)
        handle = self._files.open(ino, OpenFlags.WRITE)
        try:
            handle.resize(size)
        finally:
            handle.release()
        return self.getattr(ino, live=True)

    def readdir(self, caller: Caller, ino: InodeNo) -> Sequence[Entry]:
        """All entries in name order, without "." and "..". Raises NotADirectory."""
        if is_view(ino):
            return self._views.readdir(self, caller, ino)
        self._access.check(caller, ino, Right.READ)
        if ino == ROOT_INODE:
            return [Entry(DOCUMENTS, self._tree.stat(DOCUMENTS_INODE)), *self._views.roots()]
        entries = self._tree.readdir(ino)
        if ino == DOCUMENTS_INODE:
            entries = [entry for entry in entries if self._access.may(caller, entry.stat.ino, Right.READ)]
        return self._files.live_entries(entries)

    def readdir_nowait(self, caller: Caller, ino: InodeNo) -> Sequence[Entry] | None:
        """As readdir, from memory; None if it is not there."""
        if is_view(ino) or ino in (ROOT_INODE, DOCUMENTS_INODE):
            return None
        if not self._access.may_nowait(caller, ino, Right.READ):
            return None
        entries = self._tree.readdir_nowait(ino)
        return None if entries is None else self._files.live_entries(entries)

    def readlink(self, ino: InodeNo) -> str:
        """The target of a symbolic link. Raises InvalidArgument for anything else."""
        target = self._tree.stat(ino).symlink
        if target is None:
            raise InvalidArgument("That is not a symbolic link.")
        return target

    def resolve(self, caller: Caller, path: str) -> Stat:
        """Walk a path from "/" by repeated lookup; symbolic links are not followed. Raises NotFound, NotADirectory."""
        stat = self._tree.stat(ROOT_INODE)
        for name in path.split("/"):
            if name:
                if not stat.is_dir:
                    raise NotADirectory(f"{name!r} is below something that is not a folder.")
                stat = self.lookup(caller, stat.ino, name)
        return stat

    def statfs(self) -> StatFs:
        """What is used is what live revisions hold; a bucket itself has no size."""
        used, inodes = self._catalog.statfs()
        total = max(TOTAL_BYTES, 2 * used)
        return StatFs(total, total - used, TOTAL_INODES, TOTAL_INODES - inodes)

    # --- names -------------------------------------------------------------------------------------------------------

    def mkdir(self, caller: Caller, parent: InodeNo, name: str, mode: int) -> Stat:
        """A folder; directly under /Documents a new collection, which only admins may make."""
        check_name(name)
        new = NewInode(stat_module.S_IFDIR | mode & 0o7777, caller.uid, caller.gid)
        if parent == DOCUMENTS_INODE:
            self._permits.admin(caller, "make a collection")
            return self._made(self._catalog.add_collection(name, caller.user, new), name)
        return self._make(caller, parent, name, new)

    def mknod(self, caller: Caller, parent: InodeNo, name: str, mode: int, rdev: int) -> Stat:
        """A regular file, fifo, socket or device node."""
        return self._make(caller, parent, name, NewInode(mode, caller.uid, caller.gid, rdev))

    def symlink(self, caller: Caller, parent: InodeNo, name: str, target: str) -> Stat:
        """Raises NameTooLong for a target over 4,095 bytes."""
        check_target(target)
        mode = stat_module.S_IFLNK | 0o777
        return self._make(caller, parent, name, NewInode(mode, caller.uid, caller.gid, symlink=target))

    def link(self, caller: Caller, ino: InodeNo, parent: InodeNo, name: str) -> Stat:
        """Another name for a file, in any document. Raises NotPermitted for folders."""
        check_name(name)
        self._permits.writable(caller, ino)
        self._permits.entry(caller, parent, name)
        return self._files.live(self._catalog.link(ino, parent, name).stat(ino))

    def unlink(self, caller: Caller, parent: InodeNo, name: str) -> None:
        """Raises IsADirectory. Whoever has the file open goes on reading and writing it."""
        check_name(name)
        self._permits.entry(caller, parent, name)
        self._gone(self._catalog.unlink(parent, name))

    def rmdir(self, caller: Caller, parent: InodeNo, name: str) -> None:
        """Raises NotEmpty, NotADirectory. A collection goes only at the hand of its owner or an admin."""
        check_name(name)
        self._permits.entry(caller, parent, name, removing=True)
        self._gone(self._catalog.rmdir(parent, name))

    def rename(
        self, caller: Caller, parent: InodeNo, name: str, new_parent: InodeNo, new_name: str,
        flags: RenameFlag = RenameFlag.NONE,
    ) -> None:  # fmt: skip
        """renameat2(2) with NOREPLACE and EXCHANGE: one transaction, no S3 call, whatever the size."""
        self._may_rename(caller, parent, name, new_parent, new_name)
        self._gone(self._catalog.rename(parent, name, new_parent, new_name, flags))

    def move_over(self, caller: Caller, parent: InodeNo, name: str, new_parent: InodeNo, new_name: str) -> None:
        """As rename, but what has the new name, also a folder with all that is in it, goes in the same transaction."""
        self._may_rename(caller, parent, name, new_parent, new_name)
        self._gone(self._catalog.move_over(parent, name, new_parent, new_name))

    def _may_rename(self, caller: Caller, parent: InodeNo, name: str, new_parent: InodeNo, new_name: str) -> None:
        check_name(name)
        check_name(new_name)
        if is_view(parent) != is_view(new_parent):
            raise CrossDevice("Files cannot be moved between the archive and a view; copy them.")
        self._permits.entry(caller, parent, name, removing=True)
        if new_parent == DOCUMENTS_INODE and parent != DOCUMENTS_INODE:
            raise NotPermitted(
                "Only collections stand directly under /Documents; make one with mkdir, then move into it."
            )
        if parent == DOCUMENTS_INODE and new_parent != DOCUMENTS_INODE:
            raise NotPermitted("A collection cannot be moved into another; move what is in it.")
        if new_parent != DOCUMENTS_INODE:
            self._permits.entry(caller, new_parent, new_name)
        else:
            self._permits.absent_or_own(caller, new_name)

    def copy(
        self, caller: Caller, ino: InodeNo, parent: InodeNo, name: str, *, recursive: bool = True, over: bool = False
    ) -> Stat:
        """Copy a file, or a folder with (`recursive`) all that is in it, in the catalog alone: revisions are shared, no byte
        moves. Raises Exists if the name is taken; with `over` what has it goes in the same transaction."""
        check_name(name)
        self._access.check(caller, ino, Right.READ)
        self._permits.archive_only(ino)
        self._permits.entry(caller, parent, name)
        stat = self._tree.stat(ino)
        new = NewInode(stat.mode, caller.uid, caller.gid)
        effects = self._catalog.copy_tree(ino, parent, name, new, recursive=recursive, over=over)
        self._gone(effects)
        return self._made(effects, name)

    def remove(self, caller: Caller, parent: InodeNo, name: str) -> None:
        """A file, or a folder with all that is in it, in one transaction."""
        check_name(name)
        self._permits.entry(caller, parent, name, removing=True)
        self._gone(self._catalog.remove_tree(parent, name))

    def sync(self) -> None:
        """fsync(2) of a directory: all changes of names, attributes and properties that have returned survive a power cut when this
        returns (without it, a second later). Committed bytes always do."""
        self._catalog.sync()

    # --- bytes -------------------------------------------------------------------------------------------------------

    def open(self, caller: Caller, ino: InodeNo, flags: OpenFlags) -> AnyHandle:
        """open(2). Raises IsADirectory, AccessDenied, ReadOnly (a view)."""
        if is_view(ino):
            if flags & OpenFlags.WRITE:
                raise ReadOnly("Views are computed; write under /Documents.")
            return ViewHandle(self._views.getattr(ino), self._views.open(self, caller, ino))
        if flags & (OpenFlags.WRITE | OpenFlags.TRUNCATE):
            self._permits.writable(caller, ino)
        else:
            self._access.check(caller, ino, Right.READ)
        self._regular(ino)
        return self._files.open(ino, flags)

    def open_nowait(self, caller: Caller, ino: InodeNo, flags: OpenFlags) -> AnyHandle | None:
        """As open if memory can tell that it is allowed, and nothing has to be computed or cut off; else None."""
        if is_view(ino) or flags & OpenFlags.TRUNCATE or ino in (ROOT_INODE, DOCUMENTS_INODE):
            return None
        right = Right.WRITE if flags & OpenFlags.WRITE else Right.READ
        stat = self._tree.stat_nowait(ino)
        if stat is None or not stat.is_file or not self._access.may_nowait(caller, ino, right):
            return None
        if right is Right.WRITE and not self._locks.none_nowait():
            return None
        return self._files.open(ino, flags)

    def create(
        self, caller: Caller, parent: InodeNo, name: str, mode: int, flags: OpenFlags, *, exclusive: bool = True
    ) -> tuple[Stat, AnyHandle]:
        """open(2) with O_CREAT: the new file is there, empty, when this returns. Raises Exists if `exclusive`."""
        new = NewInode(stat_module.S_IFREG | mode & 0o7777, caller.uid, caller.gid)
        try:
            stat = self._make(caller, parent, name, new)
            flags &= ~OpenFlags.TRUNCATE  # it is empty
        except Exists:
            if exclusive:
                raise
            stat = self.lookup(caller, parent, name)
        return stat, self.open(caller, stat.ino, flags)

    def put(
        self, caller: Caller, parent: InodeNo, name: str, *, size_hint: int | None = None, mtime_ns: int | None = None,
        mode: int = 0o644, exclusive: bool = False, if_etags: Set[str] | None = None,
    ) -> PutHandle:  # fmt: skip
        """New content for a name, which appears (or changes) only at `commit()`, in one transaction; that raises Exists if the name
        is taken (`exclusive`), Changed if no file with one of `if_etags` is there then."""
        check_name(name)
        self._permits.entry(caller, parent, name)
        if size_hint is not None and size_hint > SIZE_MAX:
            raise FileTooBig("A file holds at most 5 TiB, the largest S3 object.")
        new = NewInode(stat_module.S_IFREG | mode & 0o7777, caller.uid, caller.gid)

        def commit(draft: Draft) -> tuple[Stat, bool]:
            self._permits.entry(caller, parent, name)  # again: 80 GB take a while
            revision = draft.revision if draft.revision.size else None
            effects = self._catalog.put_file(
                parent, name, revision, new, mtime_ns=mtime_ns, finish_upload=draft.upload_id, exclusive=exclusive,
                if_etags=if_etags,
            )  # fmt: skip
            named = [c for c in effects.changes if c.kind in (ChangeKind.ENTRY_ADDED, ChangeKind.DATA)]
            return effects.stat(named[0].ino), any(c.kind is ChangeKind.ENTRY_ADDED for c in named)

        return self._files.put(target_of_entry(parent, name), size_hint, commit)

    def snapshot(self, caller: Caller, ino: InodeNo) -> Content:
        """The committed bytes as they are now; later changes do not show, and gc spares them. Close it. Raises IsADirectory."""
        if is_view(ino):
            return self._views.open(self, caller, ino)
        self._access.check(caller, ino, Right.READ)
        stat = self._regular(ino)
        done = self._catalog.reading()
        try:
            revision = self._files.revision_of(stat)
        except BaseException:
            done()
            raise
        if revision is None:
            done()
            return BytesContent(b"", stat.etag)
        return RevisionContent(self._transfers, revision, on_close=done)

    def revision(self, revision_id: RevisionId) -> Content:
        """The bytes of a revision, whatever has become of its file, until gc takes them; for views, which know who may see
        them. Close it. Raises NotFound."""
        return RevisionContent(self._transfers, self._files.revision(revision_id))

    def variant(self, caller: Caller, ino: InodeNo, form: str) -> Stat:
        """Another form of a file that a view shows, such as a preview of 256 pixels; what is in the archive has none and stays
        itself. Raises InvalidArgument."""
        return self._views.variant(self, caller, ino, form) if is_view(ino) else self._tree.stat(ino)

    def state(self, caller: Caller, ino: InodeNo) -> FileState:
        """Is it safe yet? Costs a few small queries. Raises IsADirectory, InvalidArgument for what has no bytes."""
        self._permits.archive_only(ino)
        self._access.check(caller, ino, Right.READ)
        stat = self._regular(ino)
        revision = self._files.whole_revision_of(stat)
        return state_of(stat, revision, uploading=self._files.is_uploading(ino))

    # --- properties, locks, passwords ---------------------------------------------------------------------------------

    def properties(self, ino: InodeNo) -> Mapping[str, bytes]:
        """xattrs and WebDAV dead properties: one table (see `catalog`)."""
        return {} if is_view(ino) else self._catalog.properties(ino)

    def properties_of(self, inos: Sequence[InodeNo]) -> Mapping[InodeNo, Mapping[str, bytes]]:
        """As properties, of many inodes in one query (a hundred or so); those that have none are left out."""
        return self._catalog.properties_of([ino for ino in inos if not is_view(ino)])

    def set_properties(self, caller: Caller, ino: InodeNo, changes: Mapping[str, bytes | None]) -> None:
        """None removes. Raises NoAttribute if the only one to remove is not there."""
        self._permits.writable(caller, ino)
        self._catalog.set_properties(ino, changes)

    def check_writable(self, caller: Caller, ino: InodeNo) -> None:
        """For who changes nothing yet, but wants to keep others from it. Raises ReadOnly, NotPermitted, AccessDenied, Locked."""
        self._permits.writable(caller, ino)

    def add_lock(self, lock: Lock) -> None:
        """An RFC 4918 lock. Raises Locked if another one excludes it, or a program on a mount of this process has locked what it
        would cover, or is writing it."""
        self._catalog.add_lock(lock)
        try:
            self._locks.check_new(lock, self._files.written())
        except Locked:
            self._catalog.remove_lock(lock.token)
            raise

    def lock(self, token: str) -> Lock | None:
        return self._catalog.lock(token)

    def locks(self) -> Sequence[Lock]:
        return self._catalog.locks()

    def refresh_lock(self, token: str, timeout_s: int, expires_ns: int | None) -> Lock:
        return self._catalog.refresh_lock(token, timeout_s, expires_ns)

    def remove_lock(self, token: str) -> None:
        """Nothing happens if it is gone."""
        self._catalog.remove_lock(token)

    def watch_locks(self, held: Held) -> Callable[[], None]:
        """WebDAV clients are kept from the inodes that `held` names: what programs on a mount have locked. It is called often, from
        any thread. Returns the way to stop."""
        return self._locks.watch(held)

    def authenticate(self, user: str, password: str) -> bool:
        """Whether the password is the user's. Costs one argon2id (about 50 ms) the first time, then microseconds."""
        return self._passwords.verify(user, password)

    # --- the kernel's bookkeeping, changes, the end --------------------------------------------------------------------

    def remember(self, ino: InodeNo) -> None:
        """The kernel holds one more reference: an unlinked inode is kept until they are forgotten."""
        self._files.remember(ino)

    def forget(self, ino: InodeNo, count: int = 1) -> None:
        """The kernel lets go of `count` references."""
        self._files.forget(ino, count)

    def subscribe(
        self, listener: Callable[[Effects], None], settle: Callable[[], None] | None = None
    ) -> Callable[[], None]:
        """Every committed change, of every door and process, after the core's memory is updated. Called from catalog threads: must
        be quick and must not call the Vfs. `settle` is called by each thread that has changed something, before its call returns,
        and may wait a bounded time until the listener's work is done. Returns the way to unsubscribe."""
        subscriber = Subscriber(listener, settle)
        with self._listeners_lock:
            self._listeners = (*self._listeners, subscriber)

        def unsubscribe() -> None:
            with self._listeners_lock:
                self._listeners = tuple(each for each in self._listeners if each is not subscriber)

        return unsubscribe

    def open_uploads(self) -> int:
        """Files and puts with uncommitted bytes."""
        return self._files.open_uploads()

    def written(self) -> Sequence[InodeNo]:
        """The files with uncommitted bytes, without puts."""
        return self._files.written()

    def drain(self, progress: Callable[[int], None] | None = None, timeout: float | None = None) -> None:
        """Wait until nothing is uncommitted (or `timeout` seconds); `progress` hears the number left once a second."""
        self._files.drain(progress, timeout)

    def close(self) -> None:
        """Stop the workers. Uncommitted bytes are dropped; the old contents stay."""
        self._files.close()
        self._transfers.close()

    def path(self, ino: InodeNo) -> str:
        """A path of the inode, for people: of several hard links any one."""
        names: list[str] = []
        at = ino
        while at != ROOT_INODE:
            named = self._catalog.parents(at)
            if not named:
                return f"(unnamed inode {ino})"
            at, name = named[0]
            names.append(name)
        return "/" + "/".join(reversed(names))

    # --- inside -----------------------------------------------------------------------------------------------------------

    def _on_effects(self, effects: Effects) -> None:
        self._tree.apply(effects)
        self._access.apply(effects)
        self._locks.apply(effects)
        self._passwords.apply(effects)
        for subscriber in self._listeners:
            try:
                subscriber.listener(effects)
            except Exception:
                log.exception("A listener of changes failed")

    def _settle(self) -> None:
        for subscriber in self._listeners:
            if subscriber.settle is not None:
                subscriber.settle()

    def _regular(self, ino: InodeNo) -> Stat:
        stat = self._tree.stat(ino)
        if stat.is_dir:
            raise IsADirectory("That is a folder.")
        if not stat.is_file:
            raise InvalidArgument("That is not a regular file.")
        return stat

    def _make(self, caller: Caller, parent: InodeNo, name: str, new: NewInode) -> Stat:
        check_name(name)
        self._permits.entry(caller, parent, name)
        return self._made(self._catalog.make(parent, name, new), name)

    def _made(self, effects: Effects, name: str) -> Stat:
        for change in effects.changes:
            if change.kind is ChangeKind.ENTRY_ADDED and change.name == name:
                return effects.stat(change.ino)
        raise NotFound(f"{name!r} vanished.")

    def _gone(self, effects: Effects) -> None:
        self._files.unlinked(stat.ino for stat in effects.stats if stat.nlink == 0)
