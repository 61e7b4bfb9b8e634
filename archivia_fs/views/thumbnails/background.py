"""Previews before anybody asks: after each commit, those inside the files at once, the slow ones when nothing else waits and
the file has been left alone for a while (who writes with many fsyncs makes many revisions, none of them a whole picture).

Owns: two bounded queues and a thread for each. Used by: app, view. Threading: `on_effects` and `later` from any thread, quickly.
One thread looks at files and makes the quick ones, the other the slow ones, so that these hold up nobody. While one change of this
gateway follows the other, both rest four fifths of the time: copying 500 files took a third longer without that (2026-11).
What does not fit into the queues is forgotten: it is made when somebody opens it.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from archivia_fs.errors import BadPicture, Busy, FsError, StoreError
from archivia_fs.types import ChangeKind, Effects, InodeNo, RevisionId, Stat
from archivia_fs.views.thumbnails.pool import Pool
from archivia_fs.views.thumbnails.service import Previews
from archivia_fs.views.thumbnails.turns import PATIENCE_AHEAD

log = logging.getLogger(__name__)

QUEUE_MAX = 10_000  # files; 2 MB of memory
TRIM_SECONDS = 30.0  # between looks for idle decoders
SETTLE_SECONDS = 5.0
FOREIGN_SECONDS = 30.0  # and up to twice that, so that not all gateways begin at once
CHECK_SECONDS = 3.0
REST_SECONDS = 1.0  # when the store cannot take more
BUSY_SECONDS = 0.5  # after a change of our own, in which the next one may come
REST_FACTOR = 4  # times as long as it worked

# Only whether it is worth a look: on a mount with a source tree nothing is read. What is opened is judged by its content.
_LIKELY = frozenset(
    {
        *(
            "dng",
            "nef",
            "nrw",
            "cr2",
            "cr3",
            "crw",
            "arw",
            "srf",
            "sr2",
            "raf",
            "rw2",
            "raw",
            "rwl",
            "orf",
            "pef",
            "srw",
        ),
        *("x3f", "iiq", "3fr", "fff", "mrw", "kdc", "dcr", "erf", "mef", "mos", "gpr"),
        *("tif", "tiff", "jpg", "jpeg", "jpe", "png", "webp", "heic", "heif", "hif", "avif"),
    }
)


class Inodes(Protocol):
    """What the catalog knows of inodes (catalog.Catalog)."""

    def stat(self, ino: InodeNo) -> Stat: ...
    def parents(self, ino: InodeNo) -> Sequence[tuple[InodeNo, str]]: ...


def is_likely(name: str) -> bool:
    """Whether a file of this name may be a picture."""
    _, dot, extension = name.rpartition(".")
    return bool(dot) and extension.lower() in _LIKELY


@dataclass(frozen=True, slots=True)
class _Item:
    """`ino` None: whoever asks for it knows that it is wanted. `named`: its name is likely. `due`: not before, in seconds of the
    monotonic clock; 0.0: now. `slow`: somebody has looked, and it is."""

    revision: RevisionId
    ino: InodeNo | None = None
    named: bool = True
    due: float = 0.0
    slow: bool = False


class _Queue:
    """Items by when they are due."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Item]] = []
        self._numbers = itertools.count()  # keeps the order of equals

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, item: _Item) -> None:
        heapq.heappush(self._heap, (item.due, next(self._numbers), item))

    def wait(self, now: float) -> float:
        """Seconds until something is due."""
        return max(0.0, self._heap[0][0] - now) if self._heap else TRIM_SECONDS

    def pop(self) -> _Item:
        return heapq.heappop(self._heap)[2]


class Background:
    """`origin`: this gateway in the changes it commits; those of others are left to them for some time, in which they may end
    (`import` does). `settle`: seconds that a file is left alone before its picture is decoded."""

    def __init__(
        self, previews: Previews, pool: Pool, inodes: Inodes, origin: str, *, queue_max: int = QUEUE_MAX,
        settle: float = SETTLE_SECONDS, foreign: float = FOREIGN_SECONDS,
    ) -> None:  # fmt: skip
        self._previews = previews
        self._pool = pool
        self._inodes = inodes
        self._origin = origin
        self._queue_max = queue_max
        self._settle = settle
        self._foreign = foreign
        self._changed = threading.Condition()
        self._quick, self._slow = _Queue(), _Queue()
        self._waiting: dict[RevisionId, float] = {}  # when they are due
        self._working = 0
        self._changed_at = 0.0  # when something was last changed by this gateway, in seconds of the monotonic clock
        self._closing = False
        self._threads = [
            threading.Thread(target=self._look_at_files, name="thumbnails", daemon=True),
            threading.Thread(target=self._serve, args=(self._slow, self._decode), name="thumbnails-slow", daemon=True),
        ]

    def start(self) -> None:
        """Begin. Soon a decoder is started, which says whether it can."""
        for thread in self._threads:
            thread.start()

    def on_effects(self, effects: Effects) -> None:
        """For Vfs.subscribe."""
        if effects.changes and effects.changes[0].origin == self._origin:
            self._changed_at = time.monotonic()
        revisions = {stat.ino: stat.revision for stat in effects.stats if stat.is_file}
        for change in effects.changes:
            if change.kind in (ChangeKind.DATA, ChangeKind.ENTRY_ADDED):
                revision = revisions.get(change.ino)
                if revision is not None and (change.name is None or is_likely(change.name)):
                    due = 0.0 if change.origin == self._origin else self._foreign_due()
                    self._put(_Item(revision, change.ino, change.name is not None, due))

    def _foreign_due(self) -> float:
        return time.monotonic() + self._foreign * random.uniform(1, 2)  # noqa: S311 - no secret

    def later(self, revisions: Iterable[RevisionId]) -> None:
        """Make these when there is time."""
        for revision in revisions:
            self._put(_Item(revision))

    def wait(self, timeout: float) -> bool:
        """Whether all that was asked for is done, within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._quick or self._slow or self._working), timeout)

    def close(self) -> None:
        """Finish what is being made (its owner closes the pool before, so that this is quick), forget the others."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _put(self, item: _Item) -> None:
        with self._changed:
            due = self._waiting.get(item.revision)
            if due is None or item.due < due:
                self._queue(item)

    def _queue(self, item: _Item) -> None:
        if self._closing or len(self._quick) + len(self._slow) >= self._queue_max:
            return
        self._waiting[item.revision] = item.due
        (self._slow if item.slow else self._quick).put(item)
        self._changed.notify_all()

    def _look_at_files(self) -> None:
        with self._changed:  # a command that is done in a moment starts no process
            self._changed.wait_for(lambda: self._quick or self._closing, CHECK_SECONDS)
        try:
            if not self._closing:
                hello = self._pool.check()
                if hello.no_raw:
                    log.error("%s Pictures without a preview inside them are shown grey.", hello.no_raw)
                self._pool.trim(0)  # 40 MiB; where nobody looks at pictures, copies have more use for them
        except BadPicture as error:
            log.warning("No picture can be decoded, grey ones are shown: %s", error)
        except Busy:  # we are closing
            pass
        self._serve(self._quick, self._look)

    def _serve(self, queue: _Queue, work: Callable[[_Item], None]) -> None:
        while (item := self._next(queue)) is not None:
            begun = time.monotonic()
            try:
                work(item)
            except Busy as error:
                log.debug("No preview of revision %s for now: %s", item.revision, error)
                with self._changed:
                    self._queue(replace(item, due=time.monotonic() + self._settle))
            except FsError as error:
                log.debug("No preview of revision %s for now: %s", item.revision, error)
                if isinstance(error, StoreError):
                    self._rest()
            except Exception:
                log.exception("A preview could not be made; it will be tried when somebody opens it")
            self._make_way(time.monotonic() - begun)
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    def _next(self, queue: _Queue) -> _Item | None:
        """Waits for the next; None at the end."""
        with self._changed:
            while not self._closing:
                seconds = queue.wait(time.monotonic())
                if queue and not seconds:
                    item = queue.pop()
                    self._waiting.pop(item.revision, None)
                    self._working += 1
                    return item
                if not self._changed.wait(min(seconds, TRIM_SECONDS)):
                    self._pool.trim()
        return None

    def _make_way(self, worked: float) -> None:
        """For those who change something, if anybody does."""
        if time.monotonic() - self._changed_at < BUSY_SECONDS:
            with self._changed:
                self._changed.wait_for(lambda: self._closing, min(worked * REST_FACTOR, REST_SECONDS))

    def _look(self, item: _Item) -> None:
        if not self._is_likely(item) or self._is_done(item):
            return
        look = self._previews.look(item.revision)
        if look.quick:
            self._previews.ensure(item.revision, look, urgent=False, patience=PATIENCE_AHEAD)
            return
        due = item.due or time.monotonic() + self._settle
        with self._changed:
            if item.revision not in self._waiting:
                self._queue(replace(item, due=due, slow=True))

    def _decode(self, item: _Item) -> None:
        if not self._is_done(item):
            self._previews.ensure(item.revision, urgent=False, patience=PATIENCE_AHEAD)

    def _is_done(self, item: _Item) -> bool:
        """Or not wanted any more: somebody wrote on, and that is waiting too."""
        if item.due and item.ino is not None and self._inodes.stat(item.ino).revision != item.revision:
            return True
        return self._previews.is_settled(item.revision)

    def _is_likely(self, item: _Item) -> bool:
        if item.named or item.ino is None:
            return True
        return any(is_likely(name) for _, name in self._inodes.parents(item.ino))

    def _rest(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing, REST_SECONDS)
