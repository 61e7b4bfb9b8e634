"""A document with all that is under it, in one state of the catalog.

Owns: the queries behind downloads. Used by: catalog. Threading: pure but for the connection given.
One statement per depth of folders.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, select

from archivia_fs.errors import NotFound
from archivia_fs.types import ROOT_INODE, InodeNo, RevisionId, Stat
from catalog.engine import snapshot
from catalog.models import archive, dentries, inodes, previews, properties, revisions
from catalog.reads import parents, stat
from catalog.rows import chunks

DEPTH_MAX = 10_000  # folders above a document, before it is taken for a circle

_SEQ = select(archive.c.next_seq - 1)
_BELOW: Any = (
    select(
        dentries.c.parent, dentries.c.name, inodes.c.ino, inodes.c.mode, inodes.c.size, inodes.c.mtime_ns,
        inodes.c.revision, revisions.c.sha256, revisions.c.crc32, previews.c.facts,
    )
    .join_from(dentries, inodes, inodes.c.ino == dentries.c.ino)
    .outerjoin(revisions, revisions.c.id == inodes.c.revision)
    .outerjoin(previews, previews.c.revision == inodes.c.revision)
    .where(dentries.c.parent.in_(bindparam("parents", expanding=True)))
)  # fmt: skip
_PROPERTIES = select(properties).where(
    properties.c.ino.in_(bindparam("inos", expanding=True)), properties.c.name.startswith("user.dc.", autoescape=True)
)
_OWN = select(properties.c.name, properties.c.value).where(properties.c.ino == bindparam("ino"))
_inos: Any = bindparam("inos", expanding=True)
_parents = select(dentries.c.parent).where(dentries.c.ino.in_(_inos)).cte("around", recursive=True)
_AROUND = select(_parents.union(select(dentries.c.parent).join(_parents, dentries.c.ino == _parents.c.parent)).c.parent)


@dataclass(frozen=True, slots=True)
class Below:
    """One name under a document. `sha256` and `crc32` None: pending, or without bytes. `facts`: JSON, what is known
    of a picture; None if nobody has looked yet."""

    parent: InodeNo
    name: str
    ino: InodeNo
    mode: int
    size: int
    mtime_ns: int
    revision: RevisionId | None
    sha256: str | None
    crc32: int | None
    facts: str | None


@dataclass(frozen=True, slots=True)
class DocumentState:
    """A document as of change number `seq`. `path`: its folders from the top of the drive, itself last; `properties`: its own;
    `described`: the Dublin Core properties of what is under it, by inode."""

    seq: int
    stat: Stat
    path: Sequence[tuple[InodeNo, str]]
    properties: Mapping[str, bytes]
    described: Mapping[InodeNo, Mapping[str, bytes]]


def read(connection: Connection, ino: InodeNo, each: Callable[[Below], None]) -> DocumentState:
    """Gives everything under the folder to `each`, folders before what is in them, in no other order. Raises NotFound."""
    with snapshot(connection):
        seq = int(connection.execute(_SEQ).scalar_one())
        top = stat(connection, ino)
        path = _path(connection, ino)
        described: dict[InodeNo, dict[str, bytes]] = {}
        folders = [ino]
        while folders:
            found: list[InodeNo] = []
            inos: list[InodeNo] = []
            for chunk in chunks(folders):
                for row in connection.execute(_BELOW, {"parents": chunk}):
                    below = Below(*row)
                    each(below)
                    inos.append(below.ino)
                    if below.mode & 0o170000 == 0o040000:  # S_IFMT, S_IFDIR
                        found.append(below.ino)
            for chunk in chunks(inos):
                for row in connection.execute(_PROPERTIES, {"inos": chunk}):
                    described.setdefault(InodeNo(row.ino), {})[row.name] = bytes(row.value)
            folders = found
        own = {name: bytes(value) for name, value in connection.execute(_OWN, {"ino": ino})}
    return DocumentState(seq, top, path, own, described)


def around(connection: Connection, inos: Collection[InodeNo]) -> set[InodeNo]:
    """These, and all folders they are in, at any depth and by any of their names."""
    found = set(inos)
    for chunk in chunks(inos):
        found.update(connection.execute(_AROUND, {"inos": chunk}).scalars())
    return found


def _path(connection: Connection, ino: InodeNo) -> Sequence[tuple[InodeNo, str]]:
    path: list[tuple[InodeNo, str]] = []
    while ino != ROOT_INODE:
        named = parents(connection, ino)
        if not named or len(path) > DEPTH_MAX:
            raise NotFound("That document was removed.")
        path.append((ino, named[0][1]))
        ino = named[0][0]
    return path[::-1]
