"""SQL that runs often: compiled once, then handed to the driver itself.

Owns: the compiled text of statements. Used by: session. Threading: the writer's thread.

Measured: SQLAlchemy's execution of a cached statement costs 60 us of Python, the driver's 8; a mutation has about ten (2026-11).
Rows are plain tuples in the order of the columns. Errors are SQLAlchemy's, so one table translates them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Connection, Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.expression import ClauseElement

Values = Mapping[str, Any]


class Cursor(Protocol):
    """What DB-API cursors have in common (PEP 249)."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class _Text:
    """`order`: the names of the values by position, None where the driver takes them by name. `constants`: values of its own."""

    sql: str
    order: Sequence[str] | None
    constants: Values

    def ordered(self, values: Values) -> Any:
        if self.constants:
            values = {**self.constants, **values}
        return values if self.order is None else [values[name] for name in self.order]


class Statements:
    """For one dialect. A statement is known by its identity, so it is built once, when its module is loaded; it names every value
    with a bindparam, and has no IN (...)."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._compiled: dict[ClauseElement, _Text] = {}

    def run(self, connection: Connection, clause: ClauseElement, values: Values) -> Cursor:
        """Raises DBAPIError."""
        text = self._text(clause)
        raw: Any = connection.connection.dbapi_connection
        try:
            found: Cursor = raw.execute(text.sql, text.ordered(values))
        except self._dialect.loaded_dbapi.Error as error:
            raise self._ours(text.sql, error) from error
        return found

    def run_many(self, connection: Connection, clause: ClauseElement, rows: Sequence[Values]) -> None:
        """Once for each of `rows`. Raises DBAPIError."""
        text = self._text(clause)
        cursor: Any = connection.connection.cursor()
        try:
            cursor.executemany(text.sql, [text.ordered(row) for row in rows])
        except self._dialect.loaded_dbapi.Error as error:
            raise self._ours(text.sql, error) from error
        finally:
            cursor.close()

    def _text(self, clause: ClauseElement) -> _Text:
        known = self._compiled.get(clause)
        if known is None:
            compiled: Any = clause.compile(dialect=self._dialect)
            constants = {name: value for name, value in compiled.params.items() if value is not None}
            known = self._compiled[clause] = _Text(str(compiled), compiled.positiontup, constants)
        return known

    def _ours(self, sql: str, error: Exception) -> Exception:
        base = self._dialect.loaded_dbapi.Error
        return DBAPIError.instance(sql, None, error, base, hide_parameters=True, dialect=self._dialect)
