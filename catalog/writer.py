"""The one writer: group commit.

Owns: the queue of mutations, the turn to commit them, and a thread for what is left. Used by: catalog. Threading: `submit` from
any thread. Mutations run one at a time, in the thread that has the turn: the one that submits if nobody else commits (to
hand over to another costs 0.1 ms), else the writer's own thread, for all that queued up meanwhile.

A group is committed in one transaction, each mutation in a savepoint when there is more than one. Before a mutation returns, its
group is committed and every listener of the feed has been told.

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

from sqlalchemy import Connection, Engine, RootTransaction
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from archivia_fs.errors import CatalogError, FsError
from archivia_fs.types import Effects
from catalog.engine import begin_write, flush, ours
from catalog.feed import Feed
from catalog.session import Session
from catalog.statements import Statements

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
        self._statements = Statements(engine.dialect)
        self._feed = feed
        self._origin = origin
        self._jobs: deque[_Job[Any]] = deque()
        self._end: str | None = None  # why no more mutations are taken
        self._unflushed: float | None = None  # since when (monotonic) there are commits that are not durable
        self._turn = threading.Lock()  # held by who commits
        self._connection: Connection | None = None  # of who has the turn
        self._is_committed = False  # the group of who has the turn
        self._lock = threading.Lock()  # guards _jobs, _end and _idle; a leaf
        self._wake = threading.Condition(self._lock)
        self._idle = False  # the thread sleeps without a limit
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
        if self._turn.acquire(blocking=False):
            try:
                self._work()
            finally:
                self._turn.release()
        self._leave_rest()
        result = job.result.result()
        if isinstance(result, Effects) and result.changes:
            self._feed.settle()
        return result

    def sync(self) -> None:
        """All that has returned is durable. Costs nothing if it is already. Raises CatalogError."""
        if self._unflushed is not None:
            self.submit(lambda _: None)

    def close(self) -> None:
        """Commit what is queued and take nothing more."""
        self._stop("The catalog is closed.")
        self._thread.join()
        with self._turn:
            self._flush()
            self._let_go()

    def _stop(self, reason: str) -> None:
        with self._lock:
            self._end = self._end or reason
            self._wake.notify_all()
            self._not_full.notify_all()

    def _work(self) -> None:
        """Commit one group, if any waits. Hold `_turn`."""
        with self._lock:
            group = [self._jobs.popleft() for _ in range(min(GROUP_MAX, len(self._jobs)))]
            self._not_full.notify(len(group))
        if group:
            self._commit(group)

    def _leave_rest(self) -> None:
        """What came meanwhile, and the flush later, are for the writer's thread."""
        with self._lock:
            if self._jobs or (self._unflushed is not None and self._idle):
                self._wake.notify()

    def _run(self) -> None:
        try:
            while self._await_work():
                with self._turn:
                    self._work()
                    if self._is_overdue():
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

    def _await_work(self) -> bool:
        """Wait until mutations queue up or a flush is due; False at the end, when nothing is queued any more."""
        with self._lock:
            while not self._jobs and not self._is_overdue():
                if self._end is not None:
                    return False
                self._idle = self._unflushed is None
                self._wake.wait(None if self._idle else FLUSH_SECONDS / 4)
                self._idle = False
        return True

    def _is_overdue(self) -> bool:
        return self._unflushed is not None and time.monotonic() > self._unflushed + FLUSH_SECONDS

    def _commit(self, group: list[_Job[Any]]) -> None:
        """One transaction. Every job of the group has its result or its error afterwards, whatever happens."""
        lost: BaseException | None = None
        self._is_committed = False
        try:
            self._transact(group)
        except BaseException as error:
            self._undo(error)
            lost = error
            if not isinstance(error, Exception):
                raise
            if not isinstance(error, FsError | SQLAlchemyError):
                log.exception("A catalog transaction failed")
        finally:
            for job in group:
                if job.failure is not None:
                    job.result.set_exception(job.failure)
                elif lost is not None and not self._is_committed:
                    job.result.set_exception(self._failure(lost))
                else:
                    job.result.set_result(job.value)

    def _begin(self, *, durable: bool) -> tuple[Connection, RootTransaction]:
        """On the connection that is held; on a new one if the server has dropped it meanwhile."""
        if self._connection is not None:
            try:
                return self._connection, begin_write(self._connection, durable=durable)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                self._let_go()
        self._connection = self._engine.connect()
        return self._connection, begin_write(self._connection, durable=durable)

    def _undo(self, error: BaseException) -> None:
        """A mutation that says no, alone in its transaction, is no reason to connect anew."""
        if isinstance(error, FsError) and self._connection is not None:
            try:
                self._connection.rollback()
            except SQLAlchemyError:
                self._let_go()
        else:
            self._let_go()

    def _let_go(self) -> None:
        """Close the connection; what its transaction has not committed is undone."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except SQLAlchemyError as error:
                log.debug("The writer's connection was broken: %s", error)

    def _transact(self, group: list[_Job[Any]]) -> None:
        durable = any(job.durable for job in group)
        overdue = self._is_overdue()
        connection, transaction = self._begin(durable=durable or overdue)
        session = Session(connection, self._statements, self._origin)
        for job in group:
            self._do(session, job, alone=len(group) == 1)
        effects = session.finish()
        if not effects.changes:
            if durable and self._unflushed is not None:
                session.rewrite()  # PostgreSQL flushes nothing for a commit that wrote nothing
            transaction.commit()
            self._is_committed = True
            self._committed(durable=False)
            if durable and self._unflushed is not None:
                self._flush()  # SQLite writes nothing, so flushes nothing, for a row that is as before
            return
        with self._feed.order:
            foreign = self._feed.missed(connection, session.first_seq - 1)
            transaction.commit()
            self._is_committed = True
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
        """Hold `_turn`. A disk that does not take it is asked again after a while."""
        if self._unflushed is None:
            return
        self._unflushed = None
        try:
            flush(self._engine)
        except OSError as error:
            self._unflushed = time.monotonic()
            log.error("The catalog's disk does not take what was written: %s", error)  # noqa: TRY400

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
