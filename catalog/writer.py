"""The one writer: group commit.

Owns: the queue of mutations and the thread that commits them. Used by: catalog. Threading: `submit` from any thread.

Mutations queue up; the writer takes all that wait and commits them in one transaction, each in a savepoint when there is
more than one. Before a mutation returns, its group is committed and every listener of the feed has been told.

A mutation is durable (it survives a power cut) if it acknowledges data. Others, such as a chmod, survive a crash of this process
at once, and a power cut after FLUSH_SECONDS or `sync`: fsync(2) costs more than all the rest of them. Order is kept in any case.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from archivia_fs.errors import CatalogError, FsError
from catalog.engine import begin_write, flush, ours
from catalog.feed import Feed
from catalog.session import Session

log = logging.getLogger(__name__)

T = TypeVar("T")
QUEUE_MAX = 1024  # mutations that wait; more wait to get in
GROUP_MAX = 128  # mutations in one transaction
FLUSH_SECONDS = 1.0  # ext4 takes 5 by default


@dataclass(slots=True)
class _Job(Generic[T]):
    work: Callable[[Session], T]
    durable: bool
    result: Future[T] = field(default_factory=Future)
    value: T | None = None  # handed over when the group is durable
    failure: FsError | None = None


class Writer:
    """`origin` marks the changes of this process."""

    def __init__(self, engine: Engine, feed: Feed, origin: str) -> None:
        self._engine = engine
        self._feed = feed
        self._origin = origin
        self._jobs: deque[_Job[Any]] = deque()
        self._end: str | None = None  # why no more mutations are taken
        self._unflushed: float | None = None  # since when (monotonic) there are commits that are not durable
        self._lock = threading.Lock()  # guards _jobs and _end
        self._not_empty = threading.Condition(self._lock)
        self._not_full = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._run, name="catalog-writer", daemon=True)

    def start(self) -> None:
        """Begin to commit."""
        self._thread.start()

    def submit(self, work: Callable[[Session], T], *, durable: bool = True) -> T:
        """Run `work` in the next transaction; returns when it is committed. Raises what it raises, CatalogError."""
        job = _Job(work, durable)
        with self._lock:
            while len(self._jobs) >= QUEUE_MAX and self._end is None:
                self._not_full.wait()
            if self._end is not None:
                raise CatalogError(self._end)
            self._jobs.append(job)
            self._not_empty.notify()
        return job.result.result()

    def sync(self) -> None:
        """All that has returned is durable. Costs nothing if it is already. Raises CatalogError."""
        if self._unflushed is not None:
            self.submit(lambda _: None)

    def close(self) -> None:
        """Commit what is queued and take nothing more."""
        self._stop("The catalog is closed.")
        self._thread.join()
        self._flush()

    def _stop(self, reason: str) -> None:
        with self._lock:
            self._end = self._end or reason
            self._not_empty.notify_all()
            self._not_full.notify_all()

    def _run(self) -> None:
        try:
            while (group := self._take()) is not None:
                if group:
                    self._commit(group)
                else:
                    self._flush()
        except BaseException:
            log.exception("The catalog's writer has failed; start Archivia FS again")
        finally:
            self._stop("The catalog's writer has failed; the log tells why. Start Archivia FS again.")
            with self._lock:
                left = list(self._jobs)
                self._jobs.clear()
            for job in left:
                job.result.set_exception(CatalogError(str(self._end)))

    def _take(self) -> list[_Job[Any]] | None:
        """What waits; nothing when it is time to flush; None at the end."""
        with self._lock:
            while not self._jobs:
                if self._end is not None:
                    return None
                if self._unflushed is None:
                    self._not_empty.wait()
                elif not self._not_empty.wait(max(0.0, self._unflushed + FLUSH_SECONDS - time.monotonic())):
                    return []
            group = [self._jobs.popleft() for _ in range(min(GROUP_MAX, len(self._jobs)))]
            self._not_full.notify(len(group))
        return group

    def _commit(self, group: list[_Job[Any]]) -> None:
        """One transaction. Every job of the group has its result or its error afterwards, whatever happens."""
        lost: BaseException | None = None
        try:
            with self._engine.connect() as connection:
                self._transact(connection, group)
        except BaseException as error:
            lost = error
            if not isinstance(error, Exception):
                raise
            if not isinstance(error, FsError | SQLAlchemyError):
                log.exception("A catalog transaction failed")
        finally:
            for job in group:
                if job.failure is not None:
                    job.result.set_exception(job.failure)
                elif lost is not None:
                    job.result.set_exception(self._failure(lost))
                else:
                    job.result.set_result(job.value)

    def _transact(self, connection: Connection, group: list[_Job[Any]]) -> None:
        durable = any(job.durable for job in group)
        overdue = self._unflushed is not None and time.monotonic() > self._unflushed + FLUSH_SECONDS
        transaction = begin_write(connection, durable=durable or overdue)
        session = Session(connection, self._origin)
        for job in group:
            self._do(session, job, alone=len(group) == 1)
        effects = session.finish()
        if not effects.changes:
            if durable and self._unflushed is not None:
                session.rewrite()  # PostgreSQL flushes nothing for a commit that wrote nothing
            transaction.commit()
            self._committed(durable=False)
            if durable:
                self._flush()  # SQLite writes nothing, so flushes nothing, for a row that is as before
            return
        with self._feed.order:
            foreign = self._feed.missed(connection, session.first_seq - 1)
            transaction.commit()
            if foreign is not None:
                self._feed.tell(foreign)
            self._feed.tell(effects)
        self._committed(durable=durable or overdue)

    def _committed(self, *, durable: bool) -> None:
        if durable:
            self._unflushed = None
        elif self._unflushed is None:
            self._unflushed = time.monotonic()

    def _flush(self) -> None:
        if self._unflushed is None:
            return
        self._unflushed = None
        try:
            flush(self._engine)
        except OSError as error:
            raise CatalogError(f"The catalog's disk does not take what was written: {error.strerror}.") from error

    def _do(self, session: Session, job: _Job[Any], *, alone: bool) -> None:
        """A mutation's own failure is the job's; one that ends the transaction is raised."""
        session.begin()
        if not alone:
            session.connection.exec_driver_sql("SAVEPOINT mutation")
        try:
            job.value = job.work(session)
        except Exception as error:
            if not isinstance(error, FsError | SQLAlchemyError):
                log.exception("A mutation of the catalog failed")
            job.failure = self._failure(error)
            if alone:
                raise
            session.connection.exec_driver_sql("ROLLBACK TO SAVEPOINT mutation")
            session.abandon()
        if not alone:
            session.connection.exec_driver_sql("RELEASE SAVEPOINT mutation")

    def _failure(self, error: BaseException) -> FsError:
        if isinstance(error, FsError):
            return error
        own: FsError
        if isinstance(error, SQLAlchemyError):
            own = ours(self._engine, error)
        else:
            own = CatalogError(f"The catalog failed ({error!r}); nothing was changed. Please report this.")
        own.__cause__ = error
        return own
