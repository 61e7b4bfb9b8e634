"""Databases: how a connection is opened, and what may go wrong with one.

Owns: engines, pragmas, migrations at open, and the table from database errors to ours. Used by: catalog, writer, feed.
Threading: engines are thread-safe; a connection belongs to one thread at a time.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import alembic.script
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from archivia_fs.errors import (
    CatalogBusy,
    CatalogError,
    CatalogTooNew,
    FsError,
    NoSpace,
)

BUSY_TIMEOUT = 10.0  # seconds a writer waits for another process
ADVISORY_LOCK = 0x41524348  # "ARCH": one writing transaction at a time on PostgreSQL
MIGRATIONS = Path(__file__).parent / "migrations"


def open_engine(url: str) -> Engine:
    """An engine with our settings. SQLite: WAL, synchronous=FULL. Raises CatalogError for an unusable URL."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise CatalogError(
            "ARCHIVIA_CATALOG_URL is no database URL; it looks like sqlite:////path/catalog.db or "
            "postgresql+psycopg://user:password@host/database."
        ) from error
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(
            parsed,
            poolclass=QueuePool,
            pool_size=16,
            max_overflow=32,
            connect_args={"timeout": BUSY_TIMEOUT, "check_same_thread": False},
        )
        event.listen(engine, "connect", _sqlite_pragmas)
        return engine
    if parsed.get_backend_name() == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
        return create_engine(
            parsed,
            pool_size=16,
            max_overflow=32,
            pool_pre_ping=True,
            connect_args={"connect_timeout": 10},
        )
    raise CatalogError(f"ARCHIVIA_CATALOG_URL: {parsed.get_backend_name()} is neither sqlite nor postgresql.")


def _sqlite_pragmas(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = (
        None  # we say BEGIN ourselves (SQLAlchemy manual, "Serializable isolation / Savepoints")
    )
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "temp_store=MEMORY",
        "cache_size=-16384",
        "mmap_size=268435456",
    ):
        connection.execute(f"PRAGMA {pragma}")


def is_sqlite(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"


@contextlib.contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turns database errors into ours. Nothing of SQLAlchemy leaves this package."""
    try:
        yield
    except SQLAlchemyError as error:
        raise _ours(engine, error) from error


def _ours(engine: Engine, error: SQLAlchemyError) -> FsError:
    where = engine.url.render_as_string(hide_password=True)
    reason = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    reason = reason.splitlines()[0] if reason else type(error).__name__
    if "locked" in reason or "lock timeout" in reason:
        return CatalogBusy(f"Another process keeps the catalog {where} locked; end it, or try again.")
    if "disk is full" in reason or "No space left" in reason:
        return NoSpace(f"The disk of the catalog {where} is full; make room there.")
    return CatalogError(
        f"The catalog {where} cannot be used: {reason}. Check ARCHIVIA_CATALOG_URL and that it is writable."
    )


@contextlib.contextmanager
def begin_write(connection: Connection) -> Iterator[None]:
    """A transaction that is alone in writing, on either database; so change numbers follow commit order."""
    if is_sqlite(connection):
        with connection.begin():
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield
    else:
        with connection.begin():
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
            yield


@contextlib.contextmanager
def begin_read(connection: Connection) -> Iterator[None]:
    """One snapshot for several queries."""
    with connection.begin():
        if is_sqlite(connection):
            connection.exec_driver_sql("BEGIN")
        else:
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


def migrate(engine: Engine) -> None:
    """Bring the schema up to date. Raises CatalogTooNew for one that a newer Archivia FS wrote."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    script = alembic.script.ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    with translated(engine), engine.connect() as connection, begin_write(connection):
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current not in known:
            raise CatalogTooNew(
                f"The catalog has schema {current}, which this version does not know: a newer Archivia FS wrote it. "
                "Install that version again, or restore an older backup of the catalog."
            )
        if current != script.get_current_head():
            attributes: dict[str, Any] = config.attributes
            attributes["connection"] = connection
            alembic.command.upgrade(config, "head")
