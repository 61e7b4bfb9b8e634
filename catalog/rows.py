"""Rows to values.

Owns: the queries that many modules share, built once. Used by: the other modules of catalog.
Threading: pure but for the connection given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, bindparam, select

from archivia_fs.types import Change, ChangeKind, InodeNo, Stat
from catalog.models import dentries, inodes

T = TypeVar("T")
CHUNK = 500  # values of one IN (...)
FEW = 6  # as many point reads cost less than one IN, whose SQL depends on the count

INODE_COLUMNS = tuple(inodes.c)
INODE = select(*INODE_COLUMNS).where(inodes.c.ino == bindparam("ino"))
INODES = select(*INODE_COLUMNS).where(inodes.c.ino.in_(bindparam("inos", expanding=True)))
CHILDREN = select(dentries.c.parent, dentries.c.name, *INODE_COLUMNS).join_from(
    dentries, inodes, inodes.c.ino == dentries.c.ino
)
CHILD = CHILDREN.where(dentries.c.parent == bindparam("parent"), dentries.c.key == bindparam("key"))


def stat_of(row: Row[Any] | Sequence[Any]) -> Stat:
    """The columns of `inodes` in their order, which is that of Stat's fields."""
    return Stat(*row)


def stats_of(connection: Connection, inos: Collection[InodeNo]) -> list[Stat]:
    """The rows of these inodes; those that are gone are left out."""
    if len(inos) <= FEW:
        rows = (connection.execute(INODE, {"ino": ino}).first() for ino in inos)
        return [stat_of(row) for row in rows if row is not None]
    return [stat_of(row) for chunk in chunks(inos) for row in connection.execute(INODES, {"inos": chunk})]


def change_of(row: Row[Any]) -> Change:
    """A row of `changes`."""
    return Change(row.seq, row.origin, ChangeKind(row.kind), InodeNo(row.ino), row.parent, row.name)


def chunks(values: Collection[T], size: int = CHUNK) -> Iterator[list[T]]:
    """In pieces that fit one statement."""
    waiting = iter(values)
    while piece := list(islice(waiting, size)):
        yield piece
