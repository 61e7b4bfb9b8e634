"""Does the catalog contradict itself? Each rule is one query that finds nothing in a sound catalog.

Owns: the rules. Used by: catalog (for check). Threading: pure but for the connection given. Each reads a table or two whole.
"""

from __future__ import annotations

import stat as stat_module
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, case, exists, func, literal, or_, select

from archivia_fs.types import ROOT_INODE
from catalog.engine import snapshot
from catalog.models import collections, dentries, inodes, properties, revision_parts, revisions

_kind = inodes.c.mode.op("&")(0o170000)  # S_IFMT
_is_dir = _kind == stat_module.S_IFDIR
_is_file = _kind == stat_module.S_IFREG
_child = inodes.alias("child")
_names = select(func.count()).where(dentries.c.ino == inodes.c.ino).scalar_subquery()
_subfolders = (
    select(func.count())
    .select_from(dentries.join(_child, _child.c.ino == dentries.c.ino))
    .where(dentries.c.parent == inodes.c.ino, _child.c.mode.op("&")(0o170000) == stat_module.S_IFDIR)
    .scalar_subquery()
)
_links = case(
    (and_(_is_dir, or_(_names > 0, inodes.c.ino == ROOT_INODE)), 2 + _subfolders),
    else_=_names,
)
_parent = inodes.alias("parent")


def _no_inode(column: Any) -> Any:
    return ~exists().where(inodes.c.ino == column)


# What is wrong, with places for the columns of the rows that show it.
_RULES: Sequence[tuple[str, Select[Any]]] = (
    (
        "inode {} counts {} links and has {}",
        select(inodes.c.ino, inodes.c.nlink, _links).where(inodes.c.nlink != _links),
    ),
    (
        "the folder {} has {} names instead of one",
        select(inodes.c.ino, _names).where(_is_dir, _names > 1),
    ),
    (
        "the name {!r} in folder {} leads to inode {}, which is not there",
        select(dentries.c.name, dentries.c.parent, dentries.c.ino).where(_no_inode(dentries.c.ino)),
    ),
    (
        "the name {!r} is in inode {}, which is no folder",
        select(dentries.c.name, dentries.c.parent)
        .outerjoin(_parent, _parent.c.ino == dentries.c.parent)
        .where(or_(_parent.c.ino.is_(None), _parent.c.mode.op("&")(0o170000) != stat_module.S_IFDIR)),
    ),
    (
        "inode {} has the revision {}, which is not there",
        select(inodes.c.ino, inodes.c.revision).where(
            inodes.c.revision.is_not(None), ~exists().where(revisions.c.id == inodes.c.revision)
        ),
    ),
    (
        "inode {} has {} bytes, and its revision {}",
        select(inodes.c.ino, inodes.c.size, func.coalesce(revisions.c.size, 0))
        .outerjoin(revisions, revisions.c.id == inodes.c.revision)
        .where(_is_file, inodes.c.size != func.coalesce(revisions.c.size, 0)),
    ),
    (
        "inode {} has bytes and is no regular file",
        select(inodes.c.ino).where(inodes.c.revision.is_not(None), ~_is_file),
    ),
    (
        "revision {} is in use and marked as released",
        select(revisions.c.id).where(
            revisions.c.released_ns.is_not(None), exists().where(inodes.c.revision == revisions.c.id)
        ),
    ),
    (
        "revision {} is not in use and not released, so gc never takes it",
        select(revisions.c.id).where(
            revisions.c.released_ns.is_(None), ~exists().where(inodes.c.revision == revisions.c.id)
        ),
    ),
    (
        "revision {} stores {} of {} bytes in object {}",
        select(
            revisions.c.id,
            revisions.c.stored,
            revisions.c.size,
            func.coalesce(revisions.c.object_key, literal("(none)")),
        ).where(
            or_(revisions.c.stored > revisions.c.size, (revisions.c.stored == 0) != revisions.c.object_key.is_(None))
        ),
    ),
    (
        "parts of revision {}, which is not there",
        select(revision_parts.c.revision)
        .distinct()
        .where(~exists().where(revisions.c.id == revision_parts.c.revision)),
    ),
    (
        "properties of inode {}, which is not there",
        select(properties.c.ino).distinct().where(_no_inode(properties.c.ino)),
    ),
    ("inode {} is a collection and not there", select(collections.c.ino).where(_no_inode(collections.c.ino))),
)


def contradictions(connection: Connection, most: int) -> Sequence[str]:
    """What is wrong, in words; up to `most` of each kind."""
    with snapshot(connection):
        return [text.format(*row) for text, query in _RULES for row in connection.execute(query.limit(most))]
