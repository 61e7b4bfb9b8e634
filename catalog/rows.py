"""Rows to values.

Owns: the queries that many modules share, built once. Used by: the other modules of catalog.
Threading: pure but for the connection given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from archivia_fs.types import (
    Change,
    ChangeKind,
    InodeNo,
    Part,
    Revision,
    RevisionId,
    Stat,
)
from catalog.models import changes, inodes, revision_parts, revisions

CHUNK = 500  # values of one IN (...)

INODE_COLUMNS = tuple(inodes.c)
INODE_WIDTH = len(INODE_COLUMNS)
BY_INO = select(*INODE_COLUMNS).where(inodes.c.ino == bindparam("ino"))
BY_INOS = select(*INODE_COLUMNS).where(inodes.c.ino.in_(bindparam("inos", expanding=True)))


def stat_of(row: Row[Any] | Sequence[Any]) -> Stat:
    """The columns of `inodes` in their order."""
    return Stat(*row)


def stats_of(connection: Connection, inos: Iterable[InodeNo]) -> list[Stat]:
    """The rows of these inodes; those that are gone are left out."""
    wanted = list(inos)
    found: list[Stat] = []
    for at in range(0, len(wanted), CHUNK):
        rows = connection.execute(BY_INOS, {"inos": wanted[at : at + CHUNK]})
        found.extend(stat_of(row) for row in rows)
    return found


def change_of(row: Row[Any]) -> Change:
    """A row of `changes`."""
    return Change(
        row.seq,
        row.origin,
        ChangeKind(row.kind),
        InodeNo(row.ino),
        row.parent,
        row.name,
    )


def revision_of(connection: Connection, revision: RevisionId) -> Revision | None:
    """A revision with its parts."""
    row = connection.execute(select(revisions).where(revisions.c.id == revision)).first()
    if row is None:
        return None
    parts = connection.execute(
        select(revision_parts).where(revision_parts.c.revision == revision).order_by(revision_parts.c.number)
    )
    return Revision(
        RevisionId(row.id),
        row.object_key,
        row.size,
        row.stored,
        row.sha256,
        row.crc32,
        row.created_ns,
        tuple(Part(part.number, part.size, part.etag, part.crc32) for part in parts),
    )


__all__ = [
    "BY_INO",
    "INODE_COLUMNS",
    "INODE_WIDTH",
    "change_of",
    "changes",
    "revision_of",
    "stat_of",
    "stats_of",
]
