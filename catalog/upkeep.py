"""What maintenance asks of the catalog: what should be in the store, what nobody needs any more, what contradicts itself.

Owns: the queries of gc, scrub and check, in pages so that memory does not grow with the archive. Used by: catalog.
Threading: functions on a Connection anywhere, those on a Session on the writer's thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    tuple_,
)

from archivia_fs.types import ROOT_INODE, InodeNo, ObjectKey, Revision, RevisionId, UploadId
from catalog import gateways
from catalog.models import PENDING, dentries, inodes, revisions, uploads
from catalog.revisions import revision_of
from catalog.rows import chunks
from catalog.session import Session

DEPTH_MAX = 10_000  # folders above a name, before it is taken for a circle
LOST = "(lost)"  # where the way to the top breaks off


@dataclass(frozen=True, slots=True)
class Freed:
    """A revision that is forgotten. `key` is its object if no other revision has that, so its bytes can go; `stored` its size."""

    id: RevisionId
    key: ObjectKey | None
    stored: int


_other = revisions.alias("other")
_in_use = revisions.c.released_ns.is_(None)
_is_held = exists().where(inodes.c.revision == revisions.c.id)
_LIVING = (
    select(revisions)
    .where(
        _in_use,
        revisions.c.object_key.is_not(None),
        tuple_(revisions.c.object_key, revisions.c.id) > tuple_(bindparam("key"), bindparam("id")),
    )
    .order_by(revisions.c.object_key, revisions.c.id)
    .limit(bindparam("most"))
)
_RELEASED = (
    select(revisions.c.id, revisions.c.object_key, revisions.c.stored, revisions.c.released_ns)
    .where(
        revisions.c.released_ns < bindparam("before"),
        tuple_(revisions.c.released_ns, revisions.c.id) > tuple_(bindparam("at"), bindparam("id")),
        ~_is_held,
    )
    .order_by(revisions.c.released_ns, revisions.c.id)
    .limit(bindparam("most"))
)
# Who else keeps an object: a revision that is not released long enough, or one that comes later in the order of _RELEASED.
_KEPT = select(_other.c.object_key).where(
    _other.c.object_key == bindparam("key"),
    _other.c.id != bindparam("id"),
    or_(
        _other.c.released_ns.is_(None),
        tuple_(_other.c.released_ns, _other.c.id) > tuple_(bindparam("at"), bindparam("id")),
        exists().where(inodes.c.revision == _other.c.id),
    ),
)
_FORGET = delete(revisions).where(revisions.c.id == bindparam("b_id"))
_NAMED_KEYS = select(revisions.c.object_key).where(revisions.c.object_key.in_(bindparam("keys", expanding=True)))
_SENT_KEYS = select(uploads.c.object_key).where(uploads.c.object_key.in_(bindparam("keys", expanding=True)))
_JOURNALLED = select(uploads.c.id).where(uploads.c.id.in_(bindparam("ids", expanding=True)))
_NAMES = (
    select(dentries.c.parent, dentries.c.name)
    .join(inodes, inodes.c.ino == dentries.c.ino)
    .where(inodes.c.revision == bindparam("id"))
    .order_by(dentries.c.parent, dentries.c.key)
    .limit(bindparam("most"))
)
_UP = select(dentries.c.parent, dentries.c.name).where(dentries.c.ino == bindparam("ino")).limit(1)


def _scope(*, pending: bool, below: InodeNo | None) -> ColumnElement[bool]:
    wanted = PENDING if pending else _in_use
    if below is None:
        return wanted
    tree = select(inodes.c.ino).where(inodes.c.ino == bindparam("below")).cte("tree", recursive=True)
    tree = tree.union(select(dentries.c.ino).join(tree, dentries.c.parent == tree.c.ino))
    return and_(wanted, revisions.c.id.in_(select(inodes.c.revision).join(tree, inodes.c.ino == tree.c.ino)))


def in_use(
    connection: Connection, after: str, most: int, *, pending: bool, below: InodeNo | None
) -> Sequence[Revision]:
    """By id, without their parts; `pending`: only those without SHA-256 or CRC-32; `below`: of a file, or of a folder's files."""
    query = select(revisions).where(_scope(pending=pending, below=below), revisions.c.id > bindparam("after"))
    query = query.order_by(revisions.c.id).limit(bindparam("most"))
    return [revision_of(row) for row in connection.execute(query, {"after": after, "most": most, **_below(below)})]


def totals(connection: Connection, after: str, *, pending: bool, below: InodeNo | None) -> tuple[int, int]:
    """How many of these there are, and their bytes."""
    query: Select[Any] = select(func.count(), func.coalesce(func.sum(revisions.c.size), 0)).where(
        _scope(pending=pending, below=below), revisions.c.id > bindparam("after")
    )
    count, size = connection.execute(query, {"after": after, **_below(below)}).one()
    return int(count), int(size)


def _below(below: InodeNo | None) -> dict[str, int]:
    return {} if below is None else {"below": below}


def with_objects(connection: Connection, after: tuple[str, str], most: int) -> Sequence[Revision]:
    """Revisions in use that have an object, in the order of their keys' bytes, after (key, id); without their parts."""
    found = connection.execute(_LIVING, {"key": after[0], "id": after[1], "most": most})
    return [revision_of(row) for row in found]


def paths(connection: Connection, revision: RevisionId, most: int) -> Sequence[str]:
    """Where a revision's bytes can be seen: all names of all inodes that have it."""
    named = connection.execute(_NAMES, {"id": revision, "most": most}).all()
    return [_path(connection, InodeNo(parent), name) for parent, name in named]


def _path(connection: Connection, parent: InodeNo, name: str) -> str:
    names = [name]
    at = parent
    while at != ROOT_INODE:
        row = connection.execute(_UP, {"ino": at}).first()
        if row is None or len(names) > DEPTH_MAX:
            return "/".join([LOST, *reversed(names)])
        at = InodeNo(row.parent)
        names.append(row.name)
    return "/" + "/".join(reversed(names))


def releasable(connection: Connection, before_ns: int) -> Iterator[Freed]:
    """What `drop_released` would forget in the end, an object with the last of the revisions that have it."""
    before_ns = _unread(connection, before_ns)
    at, last = -1, ""
    while rows := connection.execute(_RELEASED, {"before": before_ns, "at": at, "id": last, "most": 500}).all():
        for row in rows:
            yield _freed(connection, row)
        at, last = rows[-1].released_ns, rows[-1].id


def drop_released(session: Session, before_ns: int, most: int) -> Sequence[Freed]:
    """Forget up to `most` revisions that nothing has had since then, and that nobody reads who began earlier, oldest first."""
    values = {"before": _unread(session.connection, before_ns), "at": -1, "id": "", "most": most}
    rows = session.connection.execute(_RELEASED, values).all()
    freed = [_freed(session.connection, row) for row in rows]
    for row in rows:
        session.connection.execute(_FORGET, {"b_id": row.id})
    return freed


def _unread(connection: Connection, before_ns: int) -> int:
    """Nobody reads what was released before then."""
    oldest = gateways.oldest_reading(connection)
    return before_ns if oldest is None else min(before_ns, oldest)


def _freed(connection: Connection, row: Row[*tuple[Any, ...]]) -> Freed:
    values = {"key": row.object_key, "id": row.id, "at": row.released_ns}
    kept = row.object_key is None or connection.execute(_KEPT, values).first() is not None
    return Freed(RevisionId(row.id), None if kept else ObjectKey(row.object_key), row.stored)


def unknown_objects(connection: Connection, keys: Collection[ObjectKey]) -> set[ObjectKey]:
    """Those of `keys` that neither a revision nor an upload in the journal has."""
    found = set(keys)
    for chunk in chunks(keys):
        for query in (_NAMED_KEYS, _SENT_KEYS):
            found.difference_update(connection.execute(query, {"keys": chunk}).scalars())
    return found


def unknown_uploads(connection: Connection, ids: Collection[UploadId]) -> set[UploadId]:
    """Those of `ids` that are not in the journal."""
    found = set(ids)
    for chunk in chunks(ids):
        found.difference_update(connection.execute(_JOURNALLED, {"ids": chunk}).scalars())
    return found
