"""A mount, from before it is there until after it is gone.

Owns: the pyfuse3 session and its loop. Used by: the app. Threading: `run` blocks its thread and runs the trio loop in it;
`mount` and `unmount` may be called from any other thread. pyfuse3 knows one session per process, so there is one mount at a time.
Signals are the app's business.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyfuse3
import trio

from archivia_fs.errors import Busy, FsError, MountError, NotADirectory
from archivia_fs.types import Caller, InodeNo
from fuse import mountpoint as mp
from fuse.advisory import locked_inodes
from fuse.bridge import Bridge
from fuse.convert import RootMap
from fuse.invalidate import Invalidator, Kernel
from fuse.known import Known
from fuse.operations import Operations

if TYPE_CHECKING:
    from archivia_fs.vfs.vfs import Vfs

log = logging.getLogger(__name__)

MIN_TASKS = 4  # idle handlers kept; each has a request buffer of 1 MiB, touched as far as requests fill it
MAX_TASKS = 512  # requests in work; those that wait for the object store must not use them up
# The kernel's default of 128 KiB makes it ask for 256 KiB at a time, two at once. A cold read of 1 GiB took 1.74 s with 128, 1.62 s
# with 512, 1.47 s with 1024 and 2048, 1.65 s with 4096; of our processor time 1.3 s with 128, 0.87 s with 2048 (medians, 2026-11).
READ_AHEAD_KIB = 2048
MAX_BACKGROUND = 64  # READs in flight; the kernel's default is 12
CONGESTION_THRESHOLD = 48
UNMOUNT_SECONDS = 60.0

_session = threading.Lock()  # held while this process has a mount: pyfuse3's session is a global of its own


@dataclass(frozen=True, slots=True)
class MountOptions:
    """`user`: the archive's user the mount acts as. `subtree`: the directory of the drive that becomes the root."""

    user: str
    subtree: str = "/"
    read_only: bool = False
    allow_other: bool = False
    xattr: bool = False
    fsname: str = "archivia-fs"


class FuseMount:
    """`mount()`, then `run()` until someone unmounts.

    ready: set when the mount answers. finished: set when it is gone and everything is released.
    """

    def __init__(self, vfs: Vfs, mountpoint: Path, options: MountOptions) -> None:
        self.path = mp.absolute(mountpoint)
        self.options = options
        self.ready = threading.Event()
        self.finished = threading.Event()
        self._vfs = vfs
        self._bridge = Bridge()
        self._mounted = False
        self._made = False
        self._running = False
        self._operations: Operations | None = None
        self._invalidator: Invalidator | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._unwatch: Callable[[], None] = lambda: None

    def mount(self) -> None:
        """Attach. Requests wait until `run()`. Raises MountError, Busy, and what looking up the subtree raises."""
        if not _session.acquire(blocking=False):
            raise Busy("This process has a mount already; start another `archivia-fs mount` for a second one.")
        try:
            self._mount()
        except BaseException:
            self._remove_made()
            _session.release()
            raise

    def _mount(self) -> None:
        root = RootMap(self._find_root())
        mp.check_host(allow_other=self.options.allow_other)
        self._made = mp.prepare(self.path)
        known = Known(self._vfs.remember, self._vfs.forget)
        invalidator = Invalidator(root, known, Kernel(), self._bridge.is_serving)
        operations = Operations(
            self._vfs, self._bridge, root, known, invalidator, user=self.options.user, xattr=self.options.xattr
        )
        try:
            pyfuse3.init(operations, str(self.path), self._kernel_options())
        except (RuntimeError, OSError) as error:
            raise MountError(
                f"The kernel refused to mount at {self.path} (the line above says why). As root it needs the capability "
                "SYS_ADMIN (containers: `--cap-add SYS_ADMIN`); as another user you must own the directory."
            ) from error
        self._operations, self._invalidator, self._mounted = operations, invalidator, True
        self._unsubscribe = self._vfs.subscribe(invalidator.on_effects, invalidator.settle)
        if (at := mp.mount_at(self.path)) is not None:
            device = at.device
            self._unwatch = self._vfs.watch_locks(
                lambda: frozenset(root.inward(inode) for inode in locked_inodes(device))
            )
        invalidator.start()

    def _find_root(self) -> InodeNo:
        caller = Caller(self.options.user, os.getuid(), os.getgid())
        try:
            stat = self._vfs.resolve(caller, self.options.subtree)
        except FsError as error:
            raise MountError(f"{self.options.subtree} cannot be mounted: {error}") from error
        if not stat.is_dir:
            raise NotADirectory(f"{self.options.subtree} is a file; mount the folder it is in.")
        return stat.ino

    def _kernel_options(self) -> set[str]:
        options = {"default_permissions", f"fsname={self.options.fsname}", f"subtype={mp.SUBTYPE}"}
        if self.options.read_only:
            options.add("ro")
        if self.options.allow_other:
            options.add("allow_other")
        return options

    def run(self) -> None:
        """Serve until unmounted, by us or anyone. Mounts first if `mount()` was not called. Blocks."""
        if not self._mounted:
            self.mount()
        self._running = True
        try:
            self._bridge.serve(trio.run, self._serve)
        finally:
            self._close()

    async def _serve(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._announce)
            nursery.start_soon(self._bridge.watch)
            await pyfuse3.main(min_tasks=MIN_TASKS, max_tasks=MAX_TASKS)
            nursery.cancel_scope.cancel()

    async def _announce(self) -> None:
        """Nothing here may touch our own mount: a thread waiting for an answer of its own process cannot be killed, and then
        neither can the process."""
        assert self._operations is not None
        await (
            self._operations.listening.wait()
        )  # the step that set it also answered FUSE_INIT, which would undo the tuning
        tune(self.path)
        self.ready.set()

    def unmount(self, *, force: bool = False, timeout: float = UNMOUNT_SECONDS) -> None:
        """End the mount and wait until it is gone, from any thread but the one in `run`. Raises Busy, naming who, if files are
        open; `force` then detaches it: what is not closed by now keeps its old content."""
        if not self._mounted or self.finished.is_set():
            return
        if not self._running:
            self._close()
            return
        if mp.mount_at(self.path) is not None:
            mp.detach(self.path, lazy=force)
        token = pyfuse3.trio_token
        if force and token is not None:
            try:
                token.run_sync_soon(pyfuse3.terminate)
            except trio.RunFinishedError:
                log.debug("the loop ended meanwhile")
        if not self.finished.wait(timeout):
            raise Busy(f"The mount at {self.path} is still finishing uploads after {timeout:.0f} s; try again.")

    def _close(self) -> None:
        assert self._operations is not None
        assert self._invalidator is not None
        self._unsubscribe()
        self._unwatch()
        try:
            if self._invalidator.close():
                pyfuse3.close(unmount=mp.mount_at(self.path) is not None)
            else:  # a thread is inside the session: freeing it would crash us
                log.error("A notification to the kernel hangs; the mount at %s ends with this process", self.path)
                mp.detach(self.path, lazy=True)
            self._operations.close()
        finally:
            self._remove_made()
            self._mounted = False
            _session.release()
            self.finished.set()

    def _remove_made(self) -> None:
        if self._made:
            try:
                self.path.rmdir()
            except OSError as error:
                log.warning("%s, made for the mount, stays: %s", self.path, error)


def tune(path: Path) -> None:
    """Larger read-ahead and more READs in flight, as far as we may (root may). The defaults are for local daemons."""
    mount = mp.mount_at(path)
    if mount is None:
        return
    minor = mount.device.partition(":")[2]
    settings = {
        Path(f"/sys/class/bdi/{mount.device}/read_ahead_kb"): READ_AHEAD_KIB,
        Path(f"/sys/fs/fuse/connections/{minor}/max_background"): MAX_BACKGROUND,
        Path(f"/sys/fs/fuse/connections/{minor}/congestion_threshold"): CONGESTION_THRESHOLD,
    }
    for file, value in settings.items():
        try:
            file.write_text(str(value))
        except OSError as error:
            log.debug("%s stays as it is: %s", file, error)
