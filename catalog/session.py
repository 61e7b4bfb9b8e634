"""One writing transaction: its connection, and what it has changed so far.

Owns: inode and change numbers while the transaction runs. Used by: writer, and every mutation. Threading: the writer's thread.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, insert, select, update

from archivia_fs.types import Change, ChangeKind, Effects, InodeNo, Stat
from catalog.models import archive, changes
from catalog.rows import stats_of

_NUMBERS = select(archive.c.next_ino, archive.c.next_seq)
_SET_NUMBERS = update(archive).values(next_ino=bindparam("ino"), next_seq=bindparam("seq"))
_INSERT = insert(changes)


@dataclass(frozen=True, slots=True)
class Mark:
    """A point to measure the effects from, or to go back to."""

    changes: int
    ino: int


class Session:
    """What mutations work on."""

    def __init__(self, connection: Connection, origin: str) -> None:
        self.connection = connection
        self.now = time.time_ns()
        self._origin = origin
        ino, seq = connection.execute(_NUMBERS).one()
        self._next_ino = self._first_ino = int(ino)
        self._first_seq = int(seq)
        self._changes: list[Change] = []
        self._touched: set[InodeNo] = set()  # since the last mark
        self._touched_before: set[InodeNo] = set()

    def new_ino(self) -> InodeNo:
        """A number that no inode ever had."""
        self._next_ino += 1
        return InodeNo(self._next_ino - 1)

    def change(
        self,
        kind: ChangeKind,
        ino: InodeNo,
        parent: InodeNo | None = None,
        name: str | None = None,
    ) -> None:
        """Note a change; inode and parent are among the effects."""
        seq = self._first_seq + len(self._changes)
        self._changes.append(Change(seq, self._origin, kind, ino, parent, name))
        self.touch(ino)
        if parent is not None:
            self.touch(parent)

    def touch(self, ino: InodeNo) -> None:
        """The inode's row has changed."""
        self._touched.add(ino)

    def mark(self) -> Mark:
        """Begin a mutation."""
        self._touched_before |= self._touched
        self._touched = set()
        return Mark(len(self._changes), self._next_ino)

    def back_to(self, mark: Mark) -> None:
        """Forget what came after the mark: its savepoint is rolled back."""
        del self._changes[mark.changes :]
        self._next_ino = mark.ino
        self._touched = set()

    def effects(self, mark: Mark) -> Effects:
        """What was done since the mark."""
        return Effects(
            tuple(self._changes[mark.changes :]),
            tuple(stats_of(self.connection, self._touched)),
        )

    def finish(self) -> list[Change]:
        """Write the numbers and the log."""
        if self._changes or self._next_ino != self._first_ino:
            self.connection.execute(
                _SET_NUMBERS,
                {"ino": self._next_ino, "seq": self._first_seq + len(self._changes)},
            )
        if self._changes:
            self.connection.execute(
                _INSERT,
                [
                    {
                        "seq": c.seq,
                        "origin": c.origin,
                        "kind": c.kind.value,
                        "ino": c.ino,
                        "parent": c.parent,
                        "name": c.name,
                    }
                    for c in self._changes
                ],
            )
        return self._changes

    def touched_stats(self) -> list[Stat]:
        """All inodes of the transaction as they are now."""
        return stats_of(self.connection, self._touched_before | self._touched)
