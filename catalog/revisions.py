"""Bytes: which revision an inode has.

Owns: revisions, their parts, and when one is released. Used by: catalog, namespace. Threading: the writer's thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, insert, select, update

from archivia_fs.errors import NotFound
from archivia_fs.types import (
    ChangeKind,
    Effects,
    InodeNo,
    Revision,
    RevisionId,
    Stat,
    UploadId,
)
from catalog.models import inodes, revision_parts, revisions, uploads
from catalog.rows import BY_INO, stat_of
from catalog.session import Session

_USED = select(inodes.c.ino).where(inodes.c.revision == bindparam("revision")).limit(1)
_SET_BYTES = (
    update(inodes)
    .where(inodes.c.ino == bindparam("b_ino"))
    .values(
        size=bindparam("b_size"),
        revision=bindparam("b_revision"),
        mode=bindparam("b_mode"),
        mtime_ns=bindparam("b_mtime"),
        ctime_ns=bindparam("b_ctime"),
    )
)
_ADD = insert(revisions)
_ADD_PARTS = insert(revision_parts)
_DROP_UPLOAD = delete(uploads).where(uploads.c.id == bindparam("b_id"))


def commit(
    session: Session,
    ino: InodeNo,
    revision: Revision | None,
    mtime_ns: int | None,
    upload: UploadId | None,
) -> Effects:
    """The bytes of `ino` are now `revision`; None: it is empty. Raises NotFound."""
    mark = session.mark()
    row = session.connection.execute(BY_INO, {"ino": ino}).first()
    if row is None:
        raise NotFound(f"There is no inode {ino}.")
    set_bytes(session, stat_of(row), revision, mtime_ns, upload)
    return session.effects(mark)


def set_bytes(
    session: Session,
    stat: Stat,
    revision: Revision | None,
    mtime_ns: int | None,
    upload: UploadId | None,
) -> None:
    """As commit, for mutations that go on."""
    if revision is not None:
        _add(session, revision)
    session.connection.execute(
        _SET_BYTES,
        {
            "b_ino": stat.ino,
            "b_size": 0 if revision is None else revision.size,
            "b_revision": None if revision is None else revision.id,
            "b_mode": stat.mode & ~0o6000,  # chown(2), write(2): set-id bits do not survive new bytes
            "b_mtime": session.now if mtime_ns is None else mtime_ns,
            "b_ctime": session.now,
        },
    )
    if upload is not None:
        session.connection.execute(_DROP_UPLOAD, {"b_id": upload})
    for each in {stat.revision, None if revision is None else revision.id} - {None}:
        release(session, RevisionId(str(each)))
    session.change(ChangeKind.DATA, stat.ino)


def release(session: Session, revision: RevisionId) -> None:
    """Note whether an inode still has the revision."""
    used = session.connection.execute(_USED, {"revision": revision}).first() is not None
    session.connection.execute(
        update(revisions).where(revisions.c.id == revision).values(released_ns=None if used else session.now)
    )


def forget(session: Session, inos: Sequence[InodeNo]) -> None:
    """Drop inodes without a name; their revisions are released."""
    for ino in inos:
        row = session.connection.execute(BY_INO, {"ino": ino}).first()
        if row is None or stat_of(row).nlink > 0:
            continue
        session.connection.execute(delete(inodes).where(inodes.c.ino == ino))
        revision = stat_of(row).revision
        if revision is not None:
            release(session, revision)


def _add(session: Session, revision: Revision) -> None:
    known = session.connection.execute(select(revisions.c.id).where(revisions.c.id == revision.id)).first()
    if known is not None:
        return
    session.connection.execute(
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
        session.connection.execute(
            _ADD_PARTS,
            [
                {
                    "revision": revision.id,
                    "number": p.number,
                    "size": p.size,
                    "etag": p.etag,
                    "crc32": p.crc32,
                }
                for p in revision.parts
            ],
        )
