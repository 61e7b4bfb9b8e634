"""The kernel's requests, one method each: unpack, one core call, reply.

Owns: the open files of a mount. Used by: mount. Threading: all methods run on the trio loop; what memory can answer is answered
there, the rest goes through the bridge.

A program that a signal ends (SIGKILL, Ctrl-C of `cp`, a crash) is not one that closes its files: the kernel does it. What it has
written since the last close or fsync is perhaps half of what it meant to write, so it is not committed.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import pyfuse3
import trio
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    XAttrNameT,
)

from archivia_fs.errors import FsError, NotFound
from archivia_fs.types import FIRST_VIEW_INODE, Caller, InodeNo, OpenFlags, RenameFlag, Stat
from fuse.bridge import Bridge, Waiter, handler
from fuse.callers import closed_by_signal, family, holds, program_of
from fuse.convert import (
    RootMap,
    absent,
    caller_of,
    decode_name,
    decode_target,
    open_flags,
    rename_flags,
    set_attr,
    statvfs,
)
from fuse.directories import Directories
from fuse.invalidate import Invalidator
from fuse.known import Known, Opened, OpenedFile
from fuse.replies import Replies
from fuse.xattrs import Xattrs

if TYPE_CHECKING:
    from archivia_fs.vfs.vfs import AnyHandle, Vfs

log = logging.getLogger(__name__)

NOBODY = Waiter(0)


class Operations(pyfuse3.Operations):
    """pyfuse3 calls its methods; a reply that is not an answer is an errno (see `bridge.handler`)."""

    supports_dot_lookup = False
    enable_writeback_cache = False  # the kernel would own size and mtime and not show other doors' changes
    enable_acl = False

    def __init__(
        self, vfs: Vfs, bridge: Bridge, root: RootMap, known: Known, invalidator: Invalidator, *, user: str, xattr: bool
    ) -> None:
        super().__init__()
        self.listening = trio.Event()  # the kernel has been greeted
        self._vfs = vfs
        self._bridge = bridge
        self._root = root
        self._known = known
        self._push = invalidator
        self._user = user
        self._replies = Replies(vfs, bridge, root, known)
        self._directories = Directories(vfs, bridge, known, self._replies)
        self._xattrs = Xattrs(vfs, bridge, enabled=xattr)
        self._opened = Opened()
        self._handles = itertools.count(1)
        self._files: dict[FileHandleT, OpenedFile] = {}
        self._writers: dict[InodeNo, int] = {}

    def init(self) -> None:
        self.listening.set()

    def close(self) -> None:
        """The mount is gone. Files still open for writing were never closed by who wrote them: they keep their old bytes."""
        for file in self._files.values():
            if file.writes:
                log.warning(
                    "Inode %d was open for writing when the mount ended; it keeps its old content", file.handle.ino
                )
            else:
                file.handle.release()
        self._files.clear()
        self._known.clear()

    # --- names and attributes --------------------------------------------------------------------------------------------

    @handler
    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        parent, text, caller = self._root.inward(parent_inode), decode_name(name), self._caller(ctx)
        try:
            stat = self._vfs.lookup_nowait(caller, parent, text)
            if stat is None:
                lane = self._bridge.data if parent >= FIRST_VIEW_INODE else self._bridge.metadata  # a view may compute
                stat = await lane(Waiter(ctx.pid), self._vfs.lookup, caller, parent, text)
        except NotFound:
            return absent()
        return self._replies.entry(stat, parent, text)

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Has no reply, so nothing to fail with."""
        for inode, count in inode_list:
            try:
                self._known.drop(self._root.inward(inode), count)
            except Exception:
                log.exception("forget of inode %d failed", inode)

    @handler
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return await self._replies.current(Waiter(ctx.pid), self._root.inward(inode))

    @handler
    async def setattr(
        self, inode: InodeT, attr: EntryAttributes, fields: SetattrFields, fh: FileHandleT | None, ctx: RequestContext
    ) -> EntryAttributes:
        ino, caller, waiter = self._root.inward(inode), self._caller(ctx), Waiter(ctx.pid)
        change = set_attr(attr, fields)
        if fields.update_size and fh is not None:
            await self._bridge.data(self._files[fh], self._files[fh].handle.truncate, attr.st_size)
        elif fields.update_size:
            with self._push.own_data(ino):
                await self._bridge.data(waiter, self._vfs.truncate, caller, ino, attr.st_size)
        if change is not None:
            await self._bridge.metadata(waiter, self._vfs.setattr, caller, ino, change)
        return await self._replies.current(waiter, ino)

    @handler
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        target = await self._bridge.metadata(Waiter(ctx.pid), self._vfs.readlink, self._root.inward(inode))
        return FileNameT(target.encode())

    @handler
    async def mkdir(self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext) -> EntryAttributes:
        caller, masked = self._caller(ctx), mode & ~ctx.umask
        return await self._make(
            ctx, parent_inode, name, lambda parent, text: self._vfs.mkdir(caller, parent, text, masked)
        )

    @handler
    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        caller, masked = self._caller(ctx), mode & ~ctx.umask
        return await self._make(
            ctx, parent_inode, name, lambda parent, text: self._vfs.mknod(caller, parent, text, masked, rdev)
        )

    @handler
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        caller, link = self._caller(ctx), decode_target(target)
        return await self._make(
            ctx, parent_inode, name, lambda parent, text: self._vfs.symlink(caller, parent, text, link)
        )

    @handler
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        caller, ino = self._caller(ctx), self._root.inward(inode)
        return await self._make(
            ctx, new_parent_inode, new_name, lambda parent, text: self._vfs.link(caller, ino, parent, text)
        )

    async def _make(
        self, ctx: RequestContext, parent_inode: InodeT, name: FileNameT, call: Callable[[InodeNo, str], Stat]
    ) -> EntryAttributes:
        parent, text = self._root.inward(parent_inode), decode_name(name)
        with self._push.own_names((parent, text)) as watch:
            stat = await self._bridge.metadata(Waiter(ctx.pid), call, parent, text)
            watch.believe(parent, text, stat.ino)
        return self._replies.entry(stat, parent, text)

    @handler
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._remove(self._vfs.unlink, parent_inode, name, ctx)

    @handler
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._remove(self._vfs.rmdir, parent_inode, name, ctx)

    async def _remove(
        self, call: Callable[[Caller, InodeNo, str], None], parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> None:
        parent, text = self._root.inward(parent_inode), decode_name(name)
        with self._push.own_names((parent, text)) as watch:
            await self._bridge.metadata(Waiter(ctx.pid), call, self._caller(ctx), parent, text)
            watch.believe(parent, text, None)

    @handler
    async def rename(
        self, parent_inode_old: InodeT, name_old: FileNameT, parent_inode_new: InodeT, name_new: FileNameT, flags: FlagT,
        ctx: RequestContext,
    ) -> None:  # fmt: skip
        old = self._root.inward(parent_inode_old), decode_name(name_old)
        new = self._root.inward(parent_inode_new), decode_name(name_new)
        how = rename_flags(flags)
        with self._push.own_names(old, new) as watch:
            await self._bridge.metadata(Waiter(ctx.pid), self._vfs.rename, self._caller(ctx), *old, *new, how)
            if not how & RenameFlag.EXCHANGE:
                watch.moved(old, new)

    @handler
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        return statvfs(await self._bridge.metadata(Waiter(ctx.pid), self._vfs.statfs))

    # --- directories -----------------------------------------------------------------------------------------------------

    @handler
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        fh = FileHandleT(next(self._handles))
        self._directories.open(fh, self._root.inward(inode), self._caller(ctx), program_of(ctx.pid))
        return fh

    @handler
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        await self._directories.read(fh, start_id, token)

    @handler
    async def releasedir(self, fh: FileHandleT) -> None:
        self._directories.close(fh)

    @handler
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        await self._directories.sync(fh)

    # --- bytes -----------------------------------------------------------------------------------------------------------

    @handler
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        ino, how, caller = self._root.inward(inode), open_flags(flags), self._caller(ctx)
        handle = self._vfs.open_nowait(caller, ino, how)
        if handle is not None:
            return self._open(handle, how, ctx.pid)
        waits = how & OpenFlags.TRUNCATE or ino >= FIRST_VIEW_INODE  # for writers; for what a view has to compute
        lane = self._bridge.data if waits else self._bridge.metadata
        handle = await lane(Waiter(ctx.pid), self._vfs.open, caller, ino, how, leftover=lambda unused: unused.discard())
        return self._open(handle, how, ctx.pid)

    @handler
    async def create(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        parent, text, caller, how = (
            self._root.inward(parent_inode),
            decode_name(name),
            self._caller(ctx),
            open_flags(flags),
        )
        exclusive = bool(flags & os.O_EXCL)
        with self._push.own_names((parent, text)) as watch:
            stat, handle = await self._bridge.metadata(
                Waiter(ctx.pid),
                lambda: self._vfs.create(caller, parent, text, mode & ~ctx.umask, how, exclusive=exclusive),
                leftover=lambda unused: unused[1].discard(),
            )
            watch.believe(parent, text, stat.ino)
        return self._open(handle, how, ctx.pid), self._replies.entry(stat, parent, text)

    def _open(self, handle: AnyHandle, how: OpenFlags, pid: int) -> FileInfo:
        fh = FileHandleT(next(self._handles))
        writes = bool(how & OpenFlags.WRITE)
        self._files[fh] = OpenedFile(program=program_of(pid), handle=handle, writes=writes)
        if writes:
            self._writers[handle.ino] = self._writers.get(handle.ino, 0) + 1
        stat = self._replies.fresh(handle.ino)
        unchanged = stat is not None and self._opened.again(stat)
        return FileInfo(fh=fh, keep_cache=unchanged and handle.ino not in self._writers)

    @handler
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        file = self._files[fh]
        data = file.handle.pread_nowait(off, size)
        if data is None:
            data = await self._bridge.data(file, file.handle.pread, off, size)
        return cast(bytes, data)  # pyfuse3 takes any buffer

    @handler
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        file = self._files[fh]
        try:
            written = file.handle.pwrite_nowait(off, buf)
            if written is None:
                written = await self._bridge.data(file, file.handle.pwrite, off, buf)
        except FsError:
            file.failed = True
            raise
        return written

    @handler
    async def flush(self, fh: FileHandleT) -> None:
        """close(2): returns the upload's error. Also the kernel's close for a program that ends."""
        file = self._files[fh]
        if not file.writes or file.handle.flush_nowait():
            return
        file.family = family(file.family | {file.program})
        file.cut_short = await closed_by_signal(file.program, file.family) or (
            file.cut_short and file.handle.only_emptied
        )
        if file.cut_short:
            raise pyfuse3.FUSEError(errno.EINTR)  # to nobody
        # A shell opens `command > file` with O_TRUNC, copies the descriptor, and closes the first one before the command begins.
        if file.handle.only_emptied and await self._bridge.metadata(file, holds, file.family, file.handle.ino):
            file.handle.postpone()
            return
        await self._commit(file)

    @handler
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        await self._commit(self._files[fh])

    async def _commit(self, file: OpenedFile) -> None:
        try:
            with self._push.own_data(file.handle.ino):
                await self._bridge.data(file, file.handle.flush if file.writes else file.handle.fsync)
        except FsError:
            file.failed = True
            raise

    @handler
    async def release(self, fh: FileHandleT) -> None:
        """Nobody waits for it. What mmap wrote after close(2) is committed here, whoever is the last to let go of the file."""
        file = self._files.pop(fh)
        ino = file.handle.ino
        if file.writes:
            self._writers[ino] -= 1
            if not self._writers[ino]:
                del self._writers[ino]
        await file.settled()
        if not file.failed and file.handle.release_nowait():
            return
        if file.cut_short:
            log.warning("Inode %d keeps its old content: a signal ended the program that wrote it", ino)
        with self._push.own_data(ino):
            await self._bridge.data(NOBODY, file.handle.discard if file.cut_short else file.handle.release)
        if file.failed or file.cut_short:
            self._push.content(ino)

    # --- extended attributes -----------------------------------------------------------------------------------------------

    @handler
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        return await self._xattrs.get(Waiter(ctx.pid), self._caller(ctx), self._root.inward(inode), name)

    @handler
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        return await self._xattrs.names(Waiter(ctx.pid), self._root.inward(inode))

    @handler
    async def setxattr(self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext) -> None:
        await self._xattrs.set(Waiter(ctx.pid), self._caller(ctx), self._root.inward(inode), name, value)

    @handler
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        await self._xattrs.set(Waiter(ctx.pid), self._caller(ctx), self._root.inward(inode), name, None)

    # --- replies -------------------------------------------------------------------------------------------------------------

    def _caller(self, ctx: RequestContext) -> Caller:
        return caller_of(self._user, ctx)
