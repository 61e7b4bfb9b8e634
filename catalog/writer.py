"""The one writer: group commit and the change feed.

Owns: the thread that writes, the thread that notices other processes, the order of changes. Used by: catalog.
Threading: `submit` from any thread. Listeners are called by one of the two threads, one group at a time, in order.

Mutations queue up; the writer takes all that wait and commits them in one transaction, each in its savepoint when there is
more than one. Before a mutation returns, its group is durable and every listener has applied it.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine, func, select

from archivia_fs.errors import CatalogError, FsError
from archivia_fs.types import Change, ChangeKind, Effects, InodeNo
from catalog.engine import begin_read, begin_write, is_sqlite, translated
from catalog.models import archive, changes
from catalog.rows import change_of, stats_of
from catalog.session import Session

log = logging.getLogger(__name__)

T = TypeVar("T")
QUEUE_MAX = 1024  # mutations that wait; more wait to get in
GROUP_MAX = 128  # mutations in one transaction
LOG_KEPT = 100_000  # changes
TRIM_EVERY = 10_000  # changes
REPLAY_MAX = 10_000  # foreign changes replayed one by one; beyond, caches are dropped


@dataclass(slots=True)
class _Job(Generic[T]):
    work: Callable[[Session], T]
    result: Future[T]


class Writer:
    """`origin` marks the changes of this process."""

    def __init__(self, engine: Engine, origin: str, poll_interval: float) -> None:
        self._engine = engine
        self._origin = origin
        self._poll_interval = poll_interval
        self._jobs: queue.Queue[_Job[Any] | None] = queue.Queue(QUEUE_MAX)
        self._listeners: list[Callable[[Effects], None]] = []
        self._deliver = threading.Lock()  # guards _seen and the order of delivery; may be held while the log is read
        self._closing = threading.Event()
        with translated(engine), engine.connect() as connection:
            self._seen = int(connection.scalar(select(archive.c.next_seq)) or 1) - 1
        self._thread = threading.Thread(target=self._run, name="catalog-writer", daemon=True)
        self._poller = threading.Thread(target=self._poll, name="catalog-poll", daemon=True)
        self._thread.start()
        self._poller.start()

    def subscribe(self, listener: Callable[[Effects], None]) -> None:
        with self._deliver:
            self._listeners.append(listener)

    def submit(self, work: Callable[[Session], T]) -> T:
        """Run `work` in the next transaction; returns when it is committed. Raises what it raises, CatalogError."""
        if self._closing.is_set():
            raise CatalogError("The catalog is closed.")
        job = _Job(work, Future())
        self._jobs.put(job)
        return job.result.result()

    def close(self) -> None:
        self._closing.set()
        self._jobs.put(None)
        self._thread.join(30)
        self._poller.join(30)

    # --- writing -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        stop = False
        while not stop:
            group: list[_Job[Any]] = []
            first = self._jobs.get()
            while True:
                if first is None:
                    stop = True
                else:
                    group.append(first)
                if stop or len(group) >= GROUP_MAX:
                    break
                try:
                    first = self._jobs.get_nowait()
                except queue.Empty:
                    break
            if group:
                self._commit(group)
        while True:
            try:
                left = self._jobs.get_nowait()
            except queue.Empty:
                return
            if left is not None:
                left.result.set_exception(CatalogError("The catalog is closed."))

    def _commit(self, group: Sequence[_Job[Any]]) -> None:
        done: list[tuple[_Job[Any], Any]] = []
        failed: list[tuple[_Job[Any], BaseException]] = []
        made: list[Change] = []
        try:
            with (
                translated(self._engine),
                self._engine.connect() as connection,
                begin_write(connection),
            ):
                session = Session(connection, self._origin)
                for job in group:
                    try:
                        result = self._one(session, job, alone=len(group) == 1)
                    except FsError as error:
                        failed.append((job, error))
                        if len(group) == 1:
                            raise
                    else:
                        done.append((job, result))
                made = session.finish()
                fresh = session.touched_stats()
        except BaseException as error:
            own = error if isinstance(error, FsError) else CatalogError(f"The catalog failed: {error!r}")
            for job in group:
                if not job.result.done():
                    job.result.set_exception(next((e for j, e in failed if j is job), own))
            if not isinstance(error, FsError):
                log.exception("A catalog transaction failed")
            return
        self._deliver_own(made, Effects(tuple(made), tuple(fresh)))
        for job, reason in failed:
            job.result.set_exception(reason)
        for job, result in done:
            job.result.set_result(result)

    def _one(self, session: Session, job: _Job[T], *, alone: bool) -> T:
        if alone:
            return job.work(session)
        mark = session.mark()
        savepoint = session.connection.begin_nested()
        try:
            result = job.work(session)
        except BaseException:
            savepoint.rollback()
            session.back_to(mark)
            raise
        savepoint.commit()
        return result

    # --- the feed --------------------------------------------------------------------------------------------------

    def _deliver_own(self, made: Sequence[Change], effects: Effects) -> None:
        if not made:
            return
        with self._deliver:
            if made[0].seq > self._seen + 1:
                self._replay(until=made[0].seq - 1)
            self._tell(effects)
            self._seen = made[-1].seq
        if made[-1].seq // TRIM_EVERY != (made[0].seq - 1) // TRIM_EVERY:
            self._trim(made[-1].seq - LOG_KEPT)

    def _poll(self) -> None:
        version = -1
        while not self._closing.wait(self._poll_interval):
            try:
                with translated(self._engine), self._engine.connect() as connection:
                    while not self._closing.wait(self._poll_interval):
                        now = self._version(connection)
                        if now != version:
                            version = now
                            self._catch_up()
            except FsError as error:
                log.warning("The catalog cannot be watched now: %s", error)
                self._closing.wait(1.0)

    def _version(self, connection: Connection) -> int:
        """Something that changes when another process commits: cheap to ask."""
        if is_sqlite(connection):
            return int(connection.exec_driver_sql("PRAGMA data_version").scalar() or 0)
        with connection.begin():
            return int(connection.scalar(select(archive.c.next_seq)) or 0)

    def _catch_up(self) -> None:
        with self._deliver:
            self._replay(until=None)

    def _replay(self, until: int | None) -> None:
        """Deliver what others committed after what was delivered last, up to `until`."""
        with (
            translated(self._engine),
            self._engine.connect() as connection,
            begin_read(connection),
        ):
            query = select(changes).where(changes.c.seq > self._seen).order_by(changes.c.seq).limit(REPLAY_MAX)
            if until is not None:
                query = query.where(changes.c.seq <= until)
            found = [change_of(row) for row in connection.execute(query)]
            last = int(connection.scalar(select(func.max(changes.c.seq))) or 0) if until is None else until
            fresh = stats_of(connection, {change.ino for change in found})
        # Our own groups are delivered by the writer, which may just be about to: leave them to it.
        foreign: list[Change] = []
        for change in found:
            if change.origin == self._origin and until is None:
                last = change.seq - 1
                break
            foreign.append(change)
        if not found and last <= self._seen:
            return
        if (foreign and foreign[0].seq != self._seen + 1) or (foreign and foreign[-1].seq < last):
            reset = Change(last, "", ChangeKind.RESET, InodeNo(1))
            self._tell(Effects((reset,), ()))
            self._seen = last
        elif foreign:
            self._tell(Effects(tuple(foreign), tuple(fresh)))
            self._seen = foreign[-1].seq

    def _tell(self, effects: Effects) -> None:
        for listener in self._listeners:
            try:
                listener(effects)
            except Exception:
                log.exception("A listener of changes failed")

    def _trim(self, below: int) -> None:
        if below > 0:
            with (
                translated(self._engine),
                self._engine.connect() as connection,
                begin_write(connection),
            ):
                connection.execute(changes.delete().where(changes.c.seq <= below))
