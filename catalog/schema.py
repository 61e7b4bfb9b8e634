"""The schema's version: an empty or older database is migrated at open, a newer one is refused.

Owns: the way from a database to current tables. Used by: catalog. Threading: any; two processes that open at once take turns.
"""

from __future__ import annotations

import importlib.metadata
import time
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text, update
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from archivia_fs.errors import CatalogBusy, CatalogTooNew
from catalog.engine import BUSY_TIMEOUT, begin_write, open_engine, translated
from catalog.models import archive

MIGRATIONS = Path(__file__).parent / "migrations"
HEAD = "0007"  # the newest migration; a test compares it with the folder
FIRST_OPEN_SECONDS = 10.0  # for others who make the same new file (switching to WAL does not wait by itself)


def look(url: str, busy_timeout: float = BUSY_TIMEOUT) -> tuple[str | None, str]:
    """(the schema that the database at `url` has, None if it has none yet; the one this version makes). Changes nothing, and
    makes no file. Raises CatalogTooNew, CatalogError, CatalogBusy."""
    file = url.partition(":///")[2].partition("?")[0] if url.startswith("sqlite") else ""
    if file and Path(file).parent.is_dir() and not Path(file).exists():
        return None, HEAD  # opening would make it
    engine = open_engine(url, busy_timeout)
    try:
        with translated(engine), engine.connect() as connection:
            found = _version(connection)
            if found is not None and not list(MIGRATIONS.glob(f"versions/{found}_*.py")):
                raise _too_new(connection, found)
            return found, HEAD
    finally:
        engine.dispose()


def migrate(engine: Engine) -> None:
    """Bring the schema up to date. Raises CatalogTooNew for one that a newer Archivia FS wrote, CatalogError."""
    deadline = time.monotonic() + FIRST_OPEN_SECONDS
    while True:
        try:
            with translated(engine), engine.connect() as connection:
                if _version(connection) == HEAD:
                    return  # the usual case takes no lock, and no time to import Alembic
                connection.rollback()
                _upgrade(connection)
                return
        except CatalogBusy as error:
            switching = isinstance(error.__cause__, OperationalError) and error.__cause__.statement is None
            if not switching or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _upgrade(connection: Connection) -> None:
    import alembic.command
    import alembic.config
    import alembic.script

    config = alembic.config.Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    script = alembic.script.ScriptDirectory.from_config(config)
    with begin_write(connection):
        current = _version(connection)  # again: another process may have been faster
        if current is not None and current not in {revision.revision for revision in script.walk_revisions()}:
            raise _too_new(connection, current)
        if current != HEAD:
            config.attributes["connection"] = connection  # env.py migrates in this transaction
            alembic.command.upgrade(config, "head")
            connection.execute(update(archive).values(written_by=_program_version()))


def _too_new(connection: Connection, found: str) -> CatalogTooNew:
    return CatalogTooNew(
        f"The catalog has schema {found}{_writer(connection)}, and this version knows only {HEAD}. "
        "Install that version again, or restore an older backup of the catalog."
    )


def _writer(connection: Connection) -> str:
    try:
        written_by = connection.scalar(text("SELECT written_by FROM archive"))
    except SQLAlchemyError:  # a newer schema may look quite different
        return ""
    return f", written by Archivia FS {written_by}" if written_by else ""


def _program_version() -> str:
    try:
        return importlib.metadata.version("archivia-fs")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return ""
