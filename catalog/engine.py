"""Databases: how a connection is opened, how a transaction begins, and what may go wrong.

Owns: engines, pragmas, and the table from database errors to ours. Used by: the other modules of catalog.
Threading: engines are thread-safe; a connection belongs to one thread at a time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, Engine, RootTransaction, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from archivia_fs.errors import CatalogBusy, CatalogError, FsError, NoSpace

BUSY_TIMEOUT = 10.0  # seconds a writer waits for another process
CONNECT_TIMEOUT = 10  # seconds for a PostgreSQL server to answer
CONNECTIONS = 8  # kept open; as many more for a moment
ADVISORY_LOCK = 0x41524348  # "ARCH": one writing transaction at a time on PostgreSQL
FULL_BYTES = 1 << 20  # an I/O error with less than this free means: the disk is full

# One round trip. Our changes are numbered by who holds the lock; a durable commit is on disk whatever the server's default.
_POSTGRES_BEGIN = text(
    "SELECT set_config('lock_timeout', :timeout, true), set_config('synchronous_commit', :durable, true), "
    "pg_advisory_xact_lock(:key)"
)
_POSTGRES_CLOCK = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint"
_PRAGMAS = (
    "journal_mode=WAL",
    "foreign_keys=ON",
    "temp_store=MEMORY",
    "mmap_size=268435456",  # bytes of address space; pages are shared with the page cache, unlike cache_size
)


def open_engine(url: str, busy_timeout: float = BUSY_TIMEOUT) -> Engine:
    """An engine with our settings (SQLite: WAL, synchronous=FULL). Raises CatalogError for an unusable URL."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise CatalogError(
            "ARCHIVIA_CATALOG_URL is no database URL; it looks like sqlite:////path/catalog.db or "
            "postgresql+psycopg://user:password@host/database."
        ) from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return _sqlite(parsed, busy_timeout)
    if backend == "postgresql":
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_size=CONNECTIONS,
            max_overflow=CONNECTIONS,
            pool_pre_ping=True,
            isolation_level="READ COMMITTED",  # so that what is read after the lock is what its last holder committed
            connect_args={"connect_timeout": CONNECT_TIMEOUT},
            execution_options={"lock_timeout_ms": str(int(busy_timeout * 1000))},
        )
    raise CatalogError(f"ARCHIVIA_CATALOG_URL: {backend} is neither sqlite nor postgresql.")


def _sqlite(url: URL, busy_timeout: float) -> Engine:
    if url.database in (None, "", ":memory:"):
        raise CatalogError("ARCHIVIA_CATALOG_URL: an SQLite catalog needs a file, as in sqlite:////path/catalog.db.")
    with contextlib.suppress(OSError):  # only we may read it: it holds password hashes; SQLite says what is wrong
        os.close(os.open(str(url.database), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=CONNECTIONS,
        max_overflow=CONNECTIONS,
        # isolation_level None: the driver begins nothing, we say BEGIN ourselves
        connect_args={"timeout": busy_timeout, "check_same_thread": False, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def _settings(connection: sqlite3.Connection, _record: object) -> None:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    return engine


def is_sqlite(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"


def begin_write(connection: Connection, *, durable: bool = True) -> RootTransaction:
    """A transaction that is alone in writing, on either database; so change numbers follow commit order.

    `durable`: the commit survives a power cut. Otherwise it survives a crash of this process only, until the next durable one
    (SQLite in WAL mode with synchronous=NORMAL; PostgreSQL's asynchronous commit, which is on disk within 0.6 s); order is kept.
    """
    transaction = connection.begin()
    if is_sqlite(connection):
        connection.exec_driver_sql("PRAGMA synchronous=FULL" if durable else "PRAGMA synchronous=NORMAL")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        timeout = connection.get_execution_options()["lock_timeout_ms"]
        values = {"key": ADVISORY_LOCK, "timeout": timeout, "durable": "on" if durable else "off"}
        connection.execute(_POSTGRES_BEGIN, values)
    return transaction


def flush(engine: Engine) -> None:
    """What was committed without being durable is now. Raises OSError."""
    if engine.dialect.name != "sqlite":
        return  # the server does it by itself, three times wal_writer_delay (0.2 s) after the commit at the latest
    descriptor = os.open(f"{engine.url.database}-wal", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """Several reads of one state, on a connection of `reading_engine`."""
    connection.exec_driver_sql("BEGIN" if is_sqlite(connection) else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        yield
    except BaseException:
        with contextlib.suppress(SQLAlchemyError):
            connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")


def clock_ns(connection: Connection) -> int:
    """Nanoseconds since the epoch by a clock that all gateways share: the PostgreSQL server's, or this machine's."""
    return time.time_ns() if is_sqlite(connection) else int(connection.exec_driver_sql(_POSTGRES_CLOCK).scalar_one())


def reading_engine(engine: Engine) -> Engine:
    """The same pool, for connections that only read: one statement is one transaction, one round trip."""
    return engine if engine.dialect.name == "sqlite" else engine.execution_options(isolation_level="AUTOCOMMIT")


@contextlib.contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turns database errors into ours. Nothing of SQLAlchemy leaves this package."""
    try:
        yield
    except SQLAlchemyError as error:
        raise ours(engine, error) from error


def ours(engine: Engine, error: SQLAlchemyError) -> FsError:
    """What to tell a person about a database error; the password of the URL is not in it."""
    where = engine.url.set(query={}).render_as_string(hide_password=True)
    original = error.orig if isinstance(error, DBAPIError) else error
    reason = (str(original).splitlines() or [type(original).__name__])[0]
    if isinstance(original, sqlite3.Error):
        return _from_sqlite(where, Path(str(engine.url.database)), original, reason)
    state = str(getattr(original, "sqlstate", None) or "")
    if state == "55P03":  # lock_not_available
        return CatalogBusy(f"Another process keeps the catalog {where} locked; end it, or try again.")
    if state == "53100":  # disk_full
        return NoSpace(f"The disk of the catalog {where} is full; make room there.")
    if isinstance(error, OperationalError) or state.startswith(("08", "28", "3D", "57P")):
        return CatalogError(
            f"The catalog {where} cannot be reached: {reason}. "
            "Check that the server runs, and ARCHIVIA_CATALOG_URL (host, database, user, password)."
        )
    return CatalogError(f"The catalog {where} refused: {reason}. If it persists, check ARCHIVIA_CATALOG_URL.")


def _from_sqlite(where: str, path: Path, error: sqlite3.Error, reason: str) -> FsError:
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF  # the primary of an extended code
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return CatalogBusy(f"Another process keeps the catalog {where} locked; end it, or try again.")
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_full(path)):
        return NoSpace(f"The disk of the catalog {where} is full; make room there.")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return CatalogError(
            f"The catalog {where} cannot be written: {reason}. Check that its folder exists and is writable for you "
            "(ARCHIVIA_HOME, ARCHIVIA_CATALOG_URL)."
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return CatalogError(f"The catalog {where} is damaged or no catalog: {reason}. Restore it from a backup.")
    return CatalogError(f"The catalog {where} cannot be used: {reason}. Check ARCHIVIA_CATALOG_URL.")


def _is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < FULL_BYTES
    except OSError:
        return False
