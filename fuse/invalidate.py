"""Push committed changes into the kernel, which may otherwise keep names, attributes and pages for an hour.

Owns: every notification to the kernel. Used by: operations, mount. Threading: `on_effects` runs on catalog threads and
never waits for the kernel; two threads of our own make the notifications that may wait.

Three kinds, by what they wait for (fuse_reverse_inval_* in the kernel's fs/fuse):
- attributes: for nothing. Sent at once, before the mutation returns, so a committed size is visible to the next stat,
  and with it the bytes (the kernel compares mtime and size before each read).
- names: for the directory's lock, that is for requests in that directory. Thread "names".
- pages: for READs in flight of that inode, that is for the object store. Thread "pages", so that a
  hanging store does not hold up names. Needed for mmap and for bytes that changed under the same mtime and size.
Nothing is held while waiting but a place in the queue; the loop goes on answering. Who committed through another door waits in
`settle`, for a bounded time, until the kernel knows. A thread that serves a request of the kernel never does: the kernel may hold
that directory's lock until it is answered.

What this mount did itself the kernel knows already. Pushing it would drop the dentry of a directory just made (getcwd
in it would fail) and the pages just written. `own_names` and `own_data` bracket such requests: changes committed
meanwhile that fit what the kernel will believe are not pushed; if anything else was committed too, it is.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import pyfuse3

from archivia_fs.types import Change, ChangeKind, Effects, InodeNo, lookup_key
from fuse.convert import RootMap, spellings
from fuse.known import EntryName, Known
from fuse.push_queue import PushQueue

log = logging.getLogger(__name__)

QUEUE_MAX = 65536  # changes waiting to be pushed; beyond that all that the kernel knows is invalidated instead
SETTLE_SECONDS = 0.5  # usually 100 us; longer when the kernel waits for a READ that waits for the store
JOIN_SECONDS = 10.0  # a notification may wait that long for its request when the mount ends


class Kernel:
    """pyfuse3's notifications, as one seam for tests. What the kernel does not know is not an error."""

    def attributes(self, inode: pyfuse3.InodeT) -> None:
        _ignoring_unknown(lambda: pyfuse3.invalidate_inode(inode, attr_only=True))

    def pages(self, inode: pyfuse3.InodeT) -> None:
        _ignoring_unknown(lambda: pyfuse3.invalidate_inode(inode, attr_only=False))

    def name(self, parent: pyfuse3.InodeT, name: str) -> None:
        _ignoring_unknown(lambda: pyfuse3.invalidate_entry(parent, pyfuse3.FileNameT(name.encode())))


def _ignoring_unknown(notify: Callable[[], None]) -> None:
    try:
        notify()
    except OSError as error:  # ENOENT: not cached; ENOTDIR, ENOTEMPTY: in use, its timeout is reset all the same
        log.debug("invalidation: %s", error)


@dataclass(slots=True)
class NameWatch:
    """A mutation of names that this mount is making. `believe` says what the kernel will hold for true after the reply."""

    names: Sequence[EntryName]
    tainted: bool
    changes: list[Change] = field(default_factory=list)
    beliefs: dict[EntryName, InodeNo | None] = field(default_factory=dict)

    def believe(self, parent: InodeNo, name: str, ino: InodeNo | None) -> None:
        """After a successful reply the kernel takes `name` for `ino` (None: for absent)."""
        self.beliefs[parent, name] = ino

    def moved(self, old: EntryName, new: EntryName) -> None:
        """After a successful rename the kernel takes `new` for what `old` was."""
        source = next((c.ino for c in self._of(old) if c.kind is ChangeKind.ENTRY_REMOVED), None)
        self.beliefs[old] = None
        self.beliefs[new] = source

    def holds(self, name: EntryName) -> bool:
        """Whether what was committed meanwhile leaves the name as the kernel believes it to be."""
        changes = self._of(name)
        if not changes:
            return not self.tainted
        last = changes[-1]
        state = last.ino if last.kind is ChangeKind.ENTRY_ADDED else None
        return not self.tainted and name in self.beliefs and self.beliefs[name] == state

    def _of(self, name: EntryName) -> list[Change]:
        key = _key(*name)
        return [
            c for c in self.changes if c.parent is not None and c.name is not None and _key(c.parent, c.name) == key
        ]


class Invalidator:
    """One per mount. `start()` when the kernel listens; `close()` before the session ends."""

    def __init__(
        self,
        root: RootMap,
        known: Known,
        kernel: Kernel,
        is_serving: Callable[[], bool],
        *,
        queue_max: int = QUEUE_MAX,
    ) -> None:
        """`is_serving`: whether the thread that asks serves a request of the kernel."""
        self._root = root
        self._known = known
        self._kernel = kernel
        self._is_serving = is_serving
        self._names: PushQueue[EntryName] = PushQueue(queue_max)
        self._pages: PushQueue[InodeNo] = PushQueue(queue_max)
        self._lock = threading.Lock()  # guards the watches
        self._name_watches: dict[EntryName, list[NameWatch]] = {}
        self._data_watches: dict[InodeNo, list[list[Change]]] = {}
        self._session = threading.Lock()  # held while attributes are sent from a catalog thread, which never waits
        self._open = False
        self._threads = (
            threading.Thread(target=self._run_names, name="fuse-names", daemon=True),
            threading.Thread(target=self._run_pages, name="fuse-pages", daemon=True),
        )

    def start(self) -> None:
        """From here on changes are pushed."""
        self._open = True
        for thread in self._threads:
            thread.start()

    def close(self) -> bool:
        """No notification is made after this. False if one still waits in the kernel; the session must then stay."""
        with self._session:
            was_open, self._open = self._open, False
        self._names.close()
        self._pages.close()
        if was_open:
            for thread in self._threads:
                thread.join(JOIN_SECONDS)
        return not any(thread.is_alive() for thread in self._threads)

    # --- the change feed -----------------------------------------------------------------------------------------------

    def on_effects(self, effects: Effects) -> None:
        """The listener for `Vfs.subscribe`."""
        if any(change.kind is ChangeKind.RESET for change in effects.changes):
            self.everything()
            return
        touched = {stat.ino for stat in effects.stats}
        for change in effects.changes:
            touched.add(change.ino)
            if change.parent is not None:
                touched.add(change.parent)
        self._send_attributes(touched)
        for change in effects.changes:
            if change.kind in (ChangeKind.ENTRY_ADDED, ChangeKind.ENTRY_REMOVED):
                self._on_entry(change)
            elif change.kind is ChangeKind.DATA:
                self._on_data(change)
            elif change.kind is ChangeKind.ACCESS:
                self._names.put_all()  # what was visible may be forbidden now: look everything up again

    def settle(self) -> None:
        """The settler for `Vfs.subscribe`: what was committed before now, the kernel knows."""
        if self._open and not self._is_serving():
            self._names.settle(SETTLE_SECONDS)
            self._pages.settle(SETTLE_SECONDS)

    def everything(self) -> None:
        """Forget all: changes were missed."""
        self._send_attributes(set(self._known.inodes()))
        self._names.put_all()
        self._pages.put_all()

    def content(self, ino: InodeNo) -> None:
        """What the kernel holds of this inode is not what is stored: an upload failed, the old bytes are back."""
        self._send_attributes({ino})
        self._pages.put(ino)

    def _is_known(self, ino: InodeNo) -> bool:
        return ino in self._known or ino == self._root.root

    def _send_attributes(self, inos: set[InodeNo]) -> None:
        with self._session:
            if self._open:
                for ino in inos:
                    if self._is_known(ino):
                        self._kernel.attributes(self._root.outward(ino))

    def _on_entry(self, change: Change) -> None:
        assert change.parent is not None
        assert change.name is not None
        with self._lock:
            watches = self._name_watches.get(_key(change.parent, change.name), ())
            for watch in watches:
                watch.changes.append(change)
        if not watches:
            self._put_name(change.parent, change.name)

    def _put_name(self, parent: InodeNo, name: str, *, but: str | None = None) -> None:
        if not self._is_known(parent):
            return
        for spelling in spellings(name):
            if spelling != but:
                self._names.put((parent, spelling))

    def _on_data(self, change: Change) -> None:
        with self._lock:
            watches = self._data_watches.get(change.ino, ())
            for watch in watches:
                watch.append(change)
        if not watches and self._is_known(change.ino):
            self._pages.put(change.ino)

    # --- what this mount does itself ---------------------------------------------------------------------------------------

    @contextmanager
    def own_names(self, *names: EntryName) -> Iterator[NameWatch]:
        """Around a request that changes these names. At the end pushes what the kernel would get wrong."""
        watch = NameWatch(names, tainted=not self._names.idle)
        with self._lock:
            for name in names:
                self._name_watches.setdefault(_key(*name), []).append(watch)
        try:
            yield watch
        finally:
            with self._lock:
                for name in names:
                    _remove(self._name_watches, _key(*name), watch)
            for name in names:
                self._put_name(*name, but=name[1] if watch.holds(name) else None)

    @contextmanager
    def own_data(self, ino: InodeNo) -> Iterator[None]:
        """Around a request that commits bytes the kernel wrote. Pushes if it failed or someone else committed too."""
        watch: list[Change] = []
        failed = True
        with self._lock:
            self._data_watches.setdefault(ino, []).append(watch)
        try:
            yield
            failed = False
        finally:
            with self._lock:
                _remove(self._data_watches, ino, watch)
            if failed or len(watch) > 1:
                self.content(ino)

    # --- the threads ---------------------------------------------------------------------------------------------------------

    def _run_names(self) -> None:
        self._names.run(lambda item: self._kernel.name(self._root.outward(item[0]), item[1]), self._known.names)

    def _run_pages(self) -> None:
        self._pages.run(lambda ino: self._kernel.pages(self._root.outward(ino)), self._known.inodes)


def _key(parent: InodeNo, name: str) -> EntryName:
    return parent, lookup_key(name)


K = TypeVar("K")
W = TypeVar("W")


def _remove(watches: dict[K, list[W]], key: K, watch: W) -> None:
    """By identity: two watches may be equal."""
    rest = [other for other in watches[key] if other is not watch]
    if rest:
        watches[key] = rest
    else:
        del watches[key]
