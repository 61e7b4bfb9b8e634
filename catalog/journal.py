"""The journal of multipart uploads: what is in the store but not named yet.

Owns: uploads and their parts. Used by: catalog. Threading: `uploads` anywhere, the rest on the writer's thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, insert, select

from archivia_fs.errors import NotFound
from archivia_fs.types import ObjectKey, Part, UploadId, UploadRecord
from catalog.engine import snapshot
from catalog.models import upload_parts, uploads
from catalog.session import Session

_KNOWN = select(uploads.c.id).where(uploads.c.id == bindparam("id"))
_ADD = insert(uploads)
_DROP = delete(uploads).where(uploads.c.id == bindparam("id"))
_ADD_PART = insert(upload_parts)
_DROP_PART = delete(upload_parts).where(
    upload_parts.c.upload == bindparam("b_upload"), upload_parts.c.number == bindparam("b_number")
)
_ALL = select(uploads).order_by(uploads.c.created_ns, uploads.c.id)
_ALL_PARTS = select(upload_parts).order_by(upload_parts.c.upload, upload_parts.c.number)


def begin(session: Session, origin: str, upload: UploadId, key: ObjectKey, target: str) -> None:
    """Note an upload."""
    row = {"id": upload, "object_key": key, "origin": origin, "target": target, "created_ns": session.now}
    session.connection.execute(_ADD, row)


def record_part(session: Session, upload: UploadId, part: Part) -> None:
    """Note a part; a part sent again replaces the first. Raises NotFound for an upload that is finished or dropped."""
    if session.connection.execute(_KNOWN, {"id": upload}).first() is None:
        raise NotFound("That upload is not in the journal: it was finished or given up.")
    session.connection.execute(_DROP_PART, {"b_upload": upload, "b_number": part.number})
    row = {"upload": upload, "number": part.number, "size": part.size, "etag": part.etag, "crc32": part.crc32}
    session.connection.execute(_ADD_PART, row)


def drop(session: Session, upload: UploadId) -> None:
    """Nothing happens if it is gone."""
    session.connection.execute(_DROP, {"id": upload})


def records(connection: Connection) -> Sequence[UploadRecord]:
    """The whole journal, oldest first."""
    with snapshot(connection):
        rows = connection.execute(_ALL).all()
        parts: dict[str, list[Part]] = {}
        for part in connection.execute(_ALL_PARTS):
            parts.setdefault(part.upload, []).append(Part(part.number, part.size, part.etag, part.crc32))
    return [
        UploadRecord(
            UploadId(row.id), ObjectKey(row.object_key), row.origin, row.target, row.created_ns,
            tuple(parts.get(row.id, ())),
        )
        for row in rows
    ]  # fmt: skip
