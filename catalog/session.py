"""One writing transaction: its connection, and what its mutations have changed so far.

Owns: inode and change numbers while the transaction runs. Used by: writer, and every mutation. Threading: the writer's thread.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, insert, select, update
from sqlalchemy.sql.expression import ClauseElement

from archivia_fs.types import Change, ChangeKind, Effects, InodeNo, Stat
from catalog.models import archive, changes
from catalog.rows import FEW, INODE, stat_of, stats_of
from catalog.statements import Cursor, Statements, Values

LOG_KEPT = 100_000  # changes; who has slept longer drops all that was cached
TRIM_EVERY = 1_000  # changes

_NUMBERS = select(archive.c.next_ino, archive.c.next_seq)
_SET_NUMBERS = update(archive).values(next_ino=bindparam("ino"), next_seq=bindparam("seq"))
_LOG = insert(changes)
_TRIM = delete(changes).where(changes.c.seq <= bindparam("last"))


class Session:
    """What mutations work on. The writer calls `begin` before each, and `abandon` when its savepoint is rolled back."""

    def __init__(self, connection: Connection, statements: Statements, origin: str) -> None:
        self.connection = connection
        self._statements = statements
        self.now = time.time_ns()
        self.origin = origin
        ino, seq = self.run(_NUMBERS, {}).fetchone()
        self._next_ino = self._first_ino = int(ino)
        self.first_seq = int(seq)
        self._changes: list[Change] = []
        self._fresh: dict[InodeNo, Stat] = {}  # rows read after their last change
        self._stale: set[InodeNo] = set()
        self._touched: set[InodeNo] = set()  # by the mutation that runs
        self._mark = (0, self._next_ino)

    def run(self, clause: ClauseElement, values: Values) -> Cursor:
        """One of the statements that run often (see statements). Raises DBAPIError."""
        return self._statements.run(self.connection, clause, values)

    def run_many(self, clause: ClauseElement, rows: Sequence[Values]) -> None:
        """As run, for several rows."""
        self._statements.run_many(self.connection, clause, rows)

    def rewrite(self) -> None:
        """Write something, and change nothing."""
        self.run(_SET_NUMBERS, {"ino": self._next_ino, "seq": self.first_seq})

    def new_ino(self) -> InodeNo:
        """A number that no inode ever had."""
        self._next_ino += 1
        return InodeNo(self._next_ino - 1)

    def change(self, kind: ChangeKind, ino: InodeNo, parent: InodeNo | None = None, name: str | None = None) -> None:
        """Note a change; inode and parent are among the effects."""
        seq = self.first_seq + len(self._changes)
        self._changes.append(Change(seq, self.origin, kind, ino, parent, name))
        self.touch(ino)
        if parent is not None:
            self.touch(parent)

    def touch(self, ino: InodeNo) -> None:
        """The inode's row has changed."""
        self._touched.add(ino)
        self._stale.add(ino)
        self._fresh.pop(ino, None)

    def begin(self) -> None:
        """A mutation starts here."""
        self._mark = (len(self._changes), self._next_ino)
        self._touched = set()

    def abandon(self) -> None:
        """The mutation failed: its rows are rolled back, its numbers given to the next."""
        count, self._next_ino = self._mark
        del self._changes[count:]

    def effects(self) -> Effects:
        """What the mutation has done."""
        self._refresh(self._touched)
        stats = tuple(self._fresh[ino] for ino in self._touched if ino in self._fresh)
        return Effects(tuple(self._changes[self._mark[0] :]), stats)

    def finish(self) -> Effects:
        """Write the numbers and the log; all that the transaction does."""
        seq = self.first_seq + len(self._changes)
        if self._changes or self._next_ino != self._first_ino:
            self.run(_SET_NUMBERS, {"ino": self._next_ino, "seq": seq})
        if self._changes:
            rows = [
                {
                    "seq": c.seq,
                    "origin": c.origin,
                    "kind": c.kind.value,
                    "ino": c.ino,
                    "parent": c.parent,
                    "name": c.name,
                }
                for c in self._changes
            ]
            self.run_many(_LOG, rows)
            if seq // TRIM_EVERY != self.first_seq // TRIM_EVERY and seq > LOG_KEPT:
                self.connection.execute(_TRIM, {"last": seq - LOG_KEPT})
            self._refresh(self._stale)
        return Effects(tuple(self._changes), tuple(self._fresh.values()))

    def _refresh(self, inos: set[InodeNo]) -> None:
        wanted = inos & self._stale
        self._stale -= wanted
        if len(wanted) > FEW:
            self._fresh.update((stat.ino, stat) for stat in stats_of(self.connection, wanted))
            return
        for ino in wanted:
            row = self.run(INODE, {"ino": ino}).fetchone()
            if row is not None:
                self._fresh[ino] = stat_of(row)
