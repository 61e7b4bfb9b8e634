"""Bytes: which revision an inode has.

Owns: revisions, their parts, and when one is released. Used by: catalog, trees. Threading: mutations on the writer's thread.
A revision is in use while any inode has it, named or not; from `released_ns` on gc may take its object.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from archivia_fs.errors import CatalogError, Changed, Exists, InvalidArgument, IsADirectory, NotFound
from archivia_fs.types import ChangeKind, Effects, InodeNo, Part, Revision, RevisionId, Stat, UploadId
from catalog import gateways, journal, previews
from catalog.models import inodes, revision_parts, revisions
from catalog.namespace import SET_ID, NewInode, directory, do_make, find, get_stat
from catalog.rows import stat_of
from catalog.session import Session

_GET = select(revisions).where(revisions.c.id == bindparam("id"))
_RELEASED = select(revisions.c.released_ns).where(revisions.c.id == bindparam("id"))
_PARTS = select(revision_parts).where(revision_parts.c.revision == bindparam("id")).order_by(revision_parts.c.number)
_USED = select(inodes.c.ino).where(inodes.c.revision == bindparam("id")).limit(1)
_SET_RELEASED = update(revisions).where(revisions.c.id == bindparam("b_id")).values(released_ns=bindparam("at"))
_FILL = (
    update(revisions)
    .where(revisions.c.id == bindparam("b_id"))
    .values(sha256=bindparam("sha256"), crc32=bindparam("crc32"))
)
_ADD = insert(revisions)
_ADD_PARTS = insert(revision_parts)
_SET_BYTES = (
    update(inodes)
    .where(inodes.c.ino == bindparam("b_ino"))
    .values({name: bindparam(name) for name in ("size", "revision", "mode", "mtime_ns", "ctime_ns")})
)
_FORGET = delete(inodes).where(inodes.c.ino == bindparam("ino"))
_ORPHANS = select(*inodes.c).where(inodes.c.nlink == 0, inodes.c.ctime_ns < bindparam("before"))


def get(connection: Connection, revision: RevisionId) -> Revision:
    """With its parts. Raises NotFound."""
    row = connection.execute(_GET, {"id": revision}).first()
    if row is None:
        raise NotFound(f"There is no revision {revision}.")
    parts = connection.execute(_PARTS, {"id": revision})
    return revision_of(row, tuple(Part(part.number, part.size, part.etag, part.crc32) for part in parts))


def revision_of(row: Row[Any], parts: Sequence[Part] = ()) -> Revision:
    """A row of `revisions`."""
    return Revision(
        RevisionId(row.id), row.object_key, row.size, row.stored, row.sha256, row.crc32, row.created_ns, parts
    )


def fill_checksums(session: Session, revision: RevisionId, sha256: str | None, crc32: int | None) -> None:
    """Fill in what is pending. Raises NotFound, CatalogError for another value than the known one."""
    row = session.connection.execute(_GET, {"id": revision}).first()
    if row is None:
        raise NotFound(f"There is no revision {revision}.")
    for known, found in ((row.sha256, sha256), (row.crc32, crc32)):
        if known is not None and found is not None and known != found:
            raise CatalogError(
                f"Revision {revision} has the checksum {known}, not {found}; run scrub to find out which."
            )
    values = {"sha256": row.sha256 or sha256, "crc32": crc32 if row.crc32 is None else row.crc32}
    session.connection.execute(_FILL, {"b_id": revision, **values})
    previews.note_content(session, revision, row.sha256 or sha256)


def commit(
    session: Session, ino: InodeNo, revision: Revision | None, mtime_ns: int | None, upload: UploadId | None
) -> Effects:
    """The bytes of `ino` are now `revision` (None: it is empty), also if it has no name any more. Raises NotFound.

    Its set-id bits stay: the kernel takes them at write(2), from whom it must; `tar -p` and `cp -a` set them after that, before
    close(2)."""
    _set_bytes(session, get_stat(session, ino), revision, mtime_ns, upload)
    return session.effects()


def put_file(
    session: Session,
    parent: InodeNo,
    name: str,
    revision: Revision | None,
    new: NewInode,
    mtime_ns: int | None,
    upload: UploadId | None,
    *,
    exclusive: bool,
    if_etags: Set[str] | None,
) -> Effects:
    """Raises Exists (`exclusive`), Changed (`if_etags`), IsADirectory, InvalidArgument (a symlink or special file), NotFound."""
    directory(session, parent)
    child = find(session, parent, name)
    if if_etags is not None and (child is None or child.stat.etag not in if_etags):
        raise Changed(f"{name!r} is not the one that was to be replaced; look at it again.")
    if child is None:
        stat = get_stat(session, do_make(session, parent, name, new))
    elif exclusive:
        raise Exists(f"{name!r} is already there.")
    elif child.stat.is_dir:
        raise IsADirectory(f"{name!r} is a folder.")
    elif not child.stat.is_file:
        raise InvalidArgument(f"{name!r} is not a regular file.")
    else:
        stat = replace(child.stat, mode=child.stat.mode & ~SET_ID)  # they do not survive new bytes
    _set_bytes(session, stat, revision, mtime_ns, upload)
    return session.effects()


def _set_bytes(
    session: Session, stat: Stat, revision: Revision | None, mtime_ns: int | None, upload: UploadId | None
) -> None:
    if not stat.is_file:
        raise InvalidArgument("Only a regular file has bytes.")
    if revision is not None:
        _add(session, revision)
    session.run(
        _SET_BYTES,
        {
            "b_ino": stat.ino,
            "size": 0 if revision is None else revision.size,
            "revision": None if revision is None else revision.id,
            "mode": stat.mode,
            "mtime_ns": session.now if mtime_ns is None else mtime_ns,
            "ctime_ns": session.now,
        },
    )
    if stat.revision is not None:
        _release_unused(session, stat.revision)
    if upload is not None:
        journal.finish(session, upload)
    session.change(ChangeKind.DATA, stat.ino)


def _add(session: Session, revision: Revision) -> None:
    """A revision that is known already is shared, and in use again if it was released."""
    known = session.run(_RELEASED, {"id": revision.id}).fetchone()
    if known is not None:
        if known[0] is not None:
            session.run(_SET_RELEASED, {"b_id": revision.id, "at": None})
        return
    session.run(
        _ADD,
        {
            "id": revision.id,
            "object_key": revision.key,
            "size": revision.size,
            "stored": revision.stored,
            "sha256": revision.sha256,
            "crc32": revision.crc32,
            "created_ns": revision.created_ns,
            "released_ns": None,
        },
    )
    if revision.parts:
        rows = [
            {"revision": revision.id, "number": p.number, "size": p.size, "etag": p.etag, "crc32": p.crc32}
            for p in revision.parts
        ]
        session.run_many(_ADD_PARTS, rows)


def _release_unused(session: Session, revision: RevisionId) -> None:
    if session.run(_USED, {"id": revision}).fetchone() is None:
        session.run(_SET_RELEASED, {"b_id": revision, "at": session.now})


def forget(session: Session, inos: Sequence[InodeNo], held_ns: int) -> Sequence[InodeNo]:
    """Drop those without a name, with their properties; revisions that nobody else has are released. While another gateway is
    alive somebody there may have them open: then those that lost their last name within `held_ns` stay, and are returned."""
    before = session.now - (held_ns if gateways.others_alive(session) else 0)
    kept = []
    for stat in (get_stat_or_none(session, ino) for ino in inos):
        if stat is not None and stat.nlink == 0:
            if stat.ctime_ns <= before:
                _drop(session, stat)
            else:
                kept.append(stat.ino)
    return kept


def forget_orphans(session: Session, age_ns: int, held_ns: int) -> int:
    """As forget, for all that lost their last name longer ago than `age_ns`; returns how many."""
    age_ns = max(age_ns, held_ns) if gateways.others_alive(session) else age_ns
    orphans = [stat_of(row) for row in session.connection.execute(_ORPHANS, {"before": session.now - age_ns})]
    for stat in orphans:
        _drop(session, stat)
    return len(orphans)


def get_stat_or_none(session: Session, ino: InodeNo) -> Stat | None:
    try:
        return get_stat(session, ino)
    except NotFound:
        return None


def _drop(session: Session, stat: Stat) -> None:
    session.connection.execute(_FORGET, {"ino": stat.ino})
    if stat.revision is not None:
        _release_unused(session, stat.revision)
