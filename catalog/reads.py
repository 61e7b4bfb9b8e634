"""Questions about the tree, nearly all of one statement (so one snapshot).

Owns: the queries behind lookup, listing and the sums. Used by: catalog. Threading: pure but for the connection given.
"""

from __future__ import annotations

import stat as stat_module
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, bindparam, func, select, true

from archivia_fs.errors import NotADirectory, NotFound
from archivia_fs.types import Change, Entry, InodeNo, Stat, lookup_key
from catalog.engine import snapshot
from catalog.models import archive, changes, dentries, inodes, revisions, uploads
from catalog.rows import CHILD, INODE, INODE_COLUMNS, change_of, stat_of

_directory = inodes.alias("directory")
_LISTING = (
    select(archive.c.next_seq - 1, _directory.c.mode, _directory.c.nlink, dentries.c.name, *INODE_COLUMNS)
    .select_from(archive)
    .join(_directory, true())
    .outerjoin(dentries, dentries.c.parent == _directory.c.ino)
    .outerjoin(inodes, inodes.c.ino == dentries.c.ino)
    .where(_directory.c.ino == bindparam("ino"))
)
_PARENTS = select(dentries.c.parent, dentries.c.name).where(dentries.c.ino == bindparam("ino"))
_AFTER = select(changes).where(changes.c.seq > bindparam("after")).order_by(changes.c.seq).limit(bindparam("most"))

_used = revisions.c.released_ns.is_(None)
_SUMS = select(
    select(func.coalesce(func.sum(revisions.c.stored), 0)).where(_used).scalar_subquery(),
    select(func.count()).select_from(inodes).scalar_subquery(),
)
_kind = inodes.c.mode.op("&")(0o170000)  # S_IFMT
_KINDS = select(_kind, func.count(), func.coalesce(func.sum(inodes.c.size), 0)).group_by(_kind)
_PENDING = select(
    select(func.count()).select_from(uploads).scalar_subquery(),
    select(func.count())
    .select_from(revisions)
    .where(and_(_used, revisions.c.sha256.is_(None) | revisions.c.crc32.is_(None)))
    .scalar_subquery(),
)


@dataclass(frozen=True, slots=True)
class Listing:
    """A directory as of change number `seq` (read in the same snapshot); entries in no order."""

    seq: int
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Counts:
    """What `status` shows: `bytes` as users see them (a file with two names counts once), uploads not yet finished,
    revisions in use whose SHA-256 or CRC-32 is still to be computed."""

    files: int
    directories: int
    bytes: int
    uploads: int
    checksums_pending: int


def stat(connection: Connection, ino: InodeNo) -> Stat:
    """Raises NotFound."""
    row = connection.execute(INODE, {"ino": ino}).first()
    if row is None:
        raise NotFound(f"There is no inode {ino}.")
    return stat_of(row)


def lookup(connection: Connection, parent: InodeNo, name: str) -> Entry:
    """Raises NotFound."""
    row = connection.execute(CHILD, {"parent": parent, "key": lookup_key(name)}).first()
    if row is None:
        raise NotFound(f"There is no {name!r} here.")
    return Entry(row[1], stat_of(row[2:]))


def listing(connection: Connection, ino: InodeNo) -> Listing:
    """Raises NotFound, NotADirectory."""
    rows = connection.execute(_LISTING, {"ino": ino}).all()
    if not rows or rows[0][2] == 0:
        raise NotFound(f"There is no folder {ino}.")
    seq, mode = rows[0][:2]
    if not stat_module.S_ISDIR(mode):
        raise NotADirectory("That is not a folder.")
    return Listing(seq, [Entry(row[3], stat_of(row[4:])) for row in rows if row[3] is not None])


def parents(connection: Connection, ino: InodeNo) -> Sequence[tuple[InodeNo, str]]:
    """All names of an inode."""
    return [(InodeNo(parent), name) for parent, name in connection.execute(_PARENTS, {"ino": ino})]


def changes_after(connection: Connection, seq: int, most: int) -> Sequence[Change]:
    """The log, oldest first."""
    return [change_of(row) for row in connection.execute(_AFTER, {"after": seq, "most": most})]


def sums(connection: Connection) -> tuple[int, int]:
    """Bytes in revisions that are in use, number of inodes; reads both tables whole."""
    size, count = connection.execute(_SUMS).one()
    return int(size), int(count)


def counts(connection: Connection) -> Counts:
    """Reads the table of inodes whole."""
    with snapshot(connection):
        kinds = {int(kind): (int(number), int(size)) for kind, number, size in connection.execute(_KINDS)}
        waiting, pending = connection.execute(_PENDING).one()
    files, size = kinds.get(stat_module.S_IFREG, (0, 0))
    return Counts(files, kinds.get(stat_module.S_IFDIR, (0, 0))[0], size, int(waiting), int(pending))
