"""The change feed: every committed change reaches every listener, in order, once, whoever committed it.

Owns: how far the listeners have been told, and the thread that notices other processes. Used by: writer, catalog.
Threading: `order` is held by the writer from its commit until its group is delivered, and by the poller while it delivers: nobody
ever sees one of our changes in the log that is still to be delivered. Listeners run under it: they return quickly and
never call a mutation. Lock order: the database's write lock, then `order`; the poller only reads.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sqlalchemy import Connection, Engine, bindparam, select

from archivia_fs.errors import FsError
from archivia_fs.types import ROOT_INODE, Change, ChangeKind, Effects
from catalog.engine import is_sqlite, reading_engine, snapshot, translated
from catalog.models import archive, changes
from catalog.rows import change_of, stats_of

log = logging.getLogger(__name__)

REPLAY_MAX = 10_000  # foreign changes replayed at once; after more the listeners drop what they know
RETRY_SECONDS = 1.0  # when the catalog cannot be read

_LAST = select(archive.c.next_seq - 1)
_BETWEEN = (
    select(changes)
    .where(changes.c.seq > bindparam("after"), changes.c.seq <= bindparam("until"))
    .order_by(changes.c.seq)
    .limit(REPLAY_MAX + 1)
)


def last_seq(connection: Connection) -> int:
    """The number of the last committed change."""
    return int(connection.execute(_LAST).scalar_one())


class Feed:
    """Begin with `start`; who needs all changes subscribes before it reads anything."""

    def __init__(self, engine: Engine, poll_interval: float) -> None:
        self.order = threading.Lock()
        self._engine = reading_engine(engine)
        self._poll_interval = poll_interval
        self._listeners: list[Callable[[Effects], None]] = []
        self._settlers: tuple[Callable[[], None], ...] = ()
        self._closing = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="catalog-feed", daemon=True)
        with translated(engine), self._engine.connect() as connection:
            self._told = last_seq(connection)

    def start(self) -> None:
        """Notice others' changes from now on."""
        self._poller.start()

    def close(self) -> None:
        """Tell nothing more."""
        self._closing.set()
        self._poller.join()

    def subscribe(self, listener: Callable[[Effects], None], settle: Callable[[], None] | None = None) -> None:
        """Call it with every group that is committed from now on; and `settle` in each thread that has committed, before its
        mutation returns, with no lock held."""
        with self.order:
            self._listeners.append(listener)
            if settle is not None:
                self._settlers = (*self._settlers, settle)

    def settle(self) -> None:
        """What was told has arrived. Hold nothing."""
        for settle in self._settlers:
            settle()

    def missed(self, connection: Connection, until: int) -> Effects | None:
        """What others committed after the last group told; as RESET if the log does not reach back. Hold `order`."""
        if until == self._told:
            return None
        rows = connection.execute(_BETWEEN, {"after": self._told, "until": until}).all()
        if len(rows) != until - self._told:  # trimmed, too many, or an older catalog was restored under us
            return Effects((Change(until, "", ChangeKind.RESET, ROOT_INODE),), ())
        found = tuple(change_of(row) for row in rows)
        named = {ino for c in found for ino in (c.ino, c.parent) if ino is not None}
        return Effects(found, tuple(stats_of(connection, named)))

    def tell(self, effects: Effects) -> None:
        """Deliver the next group. Hold `order`."""
        self._told = effects.changes[-1].seq
        interrupt: BaseException | None = None
        for listener in self._listeners:
            try:
                listener(effects)
            except Exception:
                log.exception("A listener of changes failed")
            except BaseException as error:  # noqa: BLE001 - Ctrl-C; the others must hear of the change first
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def _poll(self) -> None:
        failing = False
        while not self._closing.is_set():
            try:
                with translated(self._engine), self._engine.connect() as connection:
                    self._watch(connection)
            except FsError as error:
                if not failing:
                    log.warning("Changes of other processes are not seen for now: %s", error)
                failing = True
                self._closing.wait(RETRY_SECONDS)
            else:
                failing = False

    def _watch(self, connection: Connection) -> None:
        known: int | None = None
        while not self._closing.wait(self._poll_interval):
            with self.order:
                version = self._version(connection)
                if version == (known if is_sqlite(connection) else self._told):
                    continue
                with snapshot(connection):
                    foreign = self.missed(connection, last_seq(connection))
                known = version
                if foreign is not None:
                    self.tell(foreign)

    def _version(self, connection: Connection) -> int:
        """What tells whether to look. SQLite: a number that is another one after somebody else committed, for microseconds.
        PostgreSQL: the last change, to be compared with the last one told, for an older catalog may have been restored to the very
        number that this thread saw before."""
        if is_sqlite(connection):
            return int(connection.exec_driver_sql("PRAGMA data_version").scalar_one())
        return last_seq(connection)
