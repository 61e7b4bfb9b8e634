"""The journal of multipart uploads: what is in the store but not named yet, and who may go on with it.

Owns: uploads and their parts. Used by: catalog, revisions. Threading: functions on a Connection anywhere, those on a Session on
the writer's thread.

An upload belongs to the gateway that sends it. When that is dead, or has given the upload up, another may claim it; a
gateway that was only frozen finds at its next part, or at the commit, that the upload is not its own any more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, delete, exists, func, insert, or_, select, update

from archivia_fs.errors import CatalogError, NotFound
from archivia_fs.types import Beginning, CopySource, ObjectKey, OpenUpload, Part, UploadId, UploadRecord
from catalog import gateways
from catalog.engine import clock_ns, snapshot
from catalog.models import gateways as gateway_rows
from catalog.models import upload_parts, uploads
from catalog.session import Session

NOBODY = ""  # the origin of an upload that was given up

_ADD = insert(uploads)
_OWN = uploads.c.id == bindparam("b_id"), uploads.c.origin == bindparam("b_origin")
_ACTIVE = update(uploads).where(*_OWN).values(active_ns=bindparam("now"))
_RELEASE = update(uploads).where(*_OWN).values(origin=NOBODY, active_ns=bindparam("now"))
_CLAIM = (
    update(uploads)
    .where(*_OWN)
    .values(origin=bindparam("owner"), target=bindparam("b_target"), active_ns=bindparam("now"))
)
_DROP = delete(uploads).where(*_OWN)
_ADD_PART = insert(upload_parts)
_DROP_PART = delete(upload_parts).where(
    upload_parts.c.upload == bindparam("b_upload"), upload_parts.c.number == bindparam("b_number")
)
_ALL = select(uploads).order_by(uploads.c.created_ns, uploads.c.id)
_ALL_PARTS = select(upload_parts).order_by(upload_parts.c.upload, upload_parts.c.number)
_PARTS = _ALL_PARTS.where(upload_parts.c.upload == bindparam("upload"))

# With the row of their gateway if it has one.
_with_gateway = select(
    uploads, gateway_rows.c.machine, gateway_rows.c.pid, gateway_rows.c.born, gateway_rows.c.seen_ns
).outerjoin_from(uploads, gateway_rows, gateway_rows.c.origin == uploads.c.origin)
_of_others = _with_gateway.where(uploads.c.origin != bindparam("own"))
_first, _sent, _part = upload_parts.alias("first"), upload_parts.alias("sent"), upload_parts.alias("part")
_count = select(func.count()).where(_part.c.upload == uploads.c.id).scalar_subquery()
_any_sent = exists().where(_part.c.upload == uploads.c.id, _part.c.source.is_(None))
_same = _sent.c.size == bindparam("size"), _sent.c.crc32 == bindparam("crc32"), _sent.c.source.is_(None)
_begins = and_(_first.c.upload == uploads.c.id, _first.c.number == 1)
_goes_on = and_(_sent.c.upload == uploads.c.id, _sent.c.number == bindparam("number"))
_LIKE_NEW = (
    _of_others.join(_sent, and_(_sent.c.upload == uploads.c.id, _sent.c.number == 1))
    .where(*_same)
    .order_by(_count.desc(), uploads.c.created_ns, uploads.c.id)
)
# Of an edit that had only come to its copies, these are of use to every other edit of the same bytes.
_LIKE_EDIT = (
    _of_others.join(_first, _begins)
    .outerjoin(_sent, _goes_on)
    .where(_first.c.source == bindparam("source"), or_(and_(*_same), ~_any_sent))
    .order_by(_any_sent.desc(), _count.desc(), uploads.c.created_ns, uploads.c.id)
)
_bytes = select(func.coalesce(func.sum(_part.c.size), 0)).where(_part.c.upload == uploads.c.id).scalar_subquery()
_HOW_FAR = _with_gateway.add_columns(_count.label("parts"), _bytes.label("bytes")).order_by(
    uploads.c.created_ns, uploads.c.id
)
_FOR = _with_gateway.where(uploads.c.target.in_(bindparam("targets", expanding=True)))
_IDLE = _of_others.where(uploads.c.active_ns < bindparam("before")).order_by(uploads.c.active_ns, uploads.c.id)


def begin(session: Session, upload: UploadId, key: ObjectKey, target: str) -> None:
    """Note an upload; whoever looks at it knows that its gateway is alive."""
    gateways.refresh(session)
    row = {"id": upload, "object_key": key, "origin": session.origin, "target": target, "created_ns": session.now}
    session.connection.execute(_ADD, {**row, "active_ns": session.now})


def record_part(session: Session, upload: UploadId, part: Part) -> None:
    """Note a part; a part sent again replaces the first. Raises NotFound for an upload that is not ours any more."""
    if not session.connection.execute(
        _ACTIVE, {"b_id": upload, "b_origin": session.origin, "now": session.now}
    ).rowcount:
        raise NotFound("That upload is not ours any more: it was finished, given up or taken over by another gateway.")
    session.run(_DROP_PART, {"b_upload": upload, "b_number": part.number})
    source, offset = (None, None) if part.source is None else (part.source.key, part.source.offset)
    row = {"upload": upload, "number": part.number, "size": part.size, "etag": part.etag, "crc32": part.crc32}
    session.run(_ADD_PART, {**row, "source": source, "source_offset": offset, "sha256": part.sha256})


def drop(session: Session, upload: UploadId) -> bool:
    """False, and nothing happens, if it is gone or not ours any more."""
    return bool(session.connection.execute(_DROP, {"b_id": upload, "b_origin": session.origin}).rowcount)


def finish(session: Session, upload: UploadId) -> None:
    """Its object gets a name. Raises CatalogError if the upload is not ours any more: whoever has taken it over may have
    sent other parts."""
    if not drop(session, upload):
        raise CatalogError("Another gateway has taken this upload over because it took this one for dead; write again.")


def release(session: Session, upload: UploadId) -> None:
    """We give it up, and whoever sends the same bytes may go on with it. Nothing happens if it is not ours."""
    row = {"b_id": upload, "b_origin": session.origin, "now": session.now}
    session.connection.execute(_RELEASE, row)


def claimable(connection: Connection, origin: str, beginning: Beginning) -> Sequence[UploadRecord]:
    """Uploads without a living owner that begin so, the one with most parts first."""
    values: dict[str, Any] = {"own": origin, "size": beginning.size, "crc32": beginning.crc32}
    alike: Select[Any] = _LIKE_NEW
    if beginning.source is not None:
        alike = _LIKE_EDIT
        values |= {"number": beginning.number, "source": beginning.source}
    return _dead(connection, connection.execute(alike, values).all())


def claim(session: Session, beginning: Beginning, target: str) -> UploadRecord | None:
    """The first of these is ours from now on, and for `target`."""
    gateways.refresh(session)
    for found in claimable(session.connection, session.origin, beginning):
        row = {"b_id": found.upload_id, "b_origin": found.origin, "owner": session.origin, "b_target": target}
        session.connection.execute(_CLAIM, {**row, "now": session.now})
        parts = _parts(session.connection, found.upload_id)
        return replace(found, origin=session.origin, target=target, parts=parts)
    return None


def expired(connection: Connection, origin: str, before_ns: int) -> Sequence[UploadRecord]:
    """Uploads without a living owner that nobody has touched since, longest idle first."""
    found = _dead(connection, connection.execute(_IDLE, {"own": origin, "before": before_ns}).all())
    return [replace(each, parts=_parts(connection, each.upload_id)) for each in found]


def expire(session: Session, record: UploadRecord) -> bool:
    """Drop one of these; False if somebody has claimed it in the meantime."""
    row = {"b_id": record.upload_id, "b_origin": record.origin}
    return bool(session.connection.execute(_DROP, row).rowcount)


def how_far(connection: Connection, origin: str) -> Sequence[OpenUpload]:
    """The whole journal in short, oldest first."""
    rows = connection.execute(_HOW_FAR).all()
    now = clock_ns(connection) if rows else 0
    return [
        OpenUpload(
            row.target, row.origin, row.parts, int(row.bytes), row.created_ns, row.active_ns, _lives(row, origin, now)
        )
        for row in rows
    ]


def is_open_for(connection: Connection, origin: str, targets: Collection[str]) -> bool:
    """Whether a living gateway has an upload for one of these."""
    rows = connection.execute(_FOR, {"targets": list(targets)}).all()
    now = clock_ns(connection) if rows else 0
    return any(_lives(row, origin, now) for row in rows)


def _lives(row: Row[Any], origin: str, now: int) -> bool:
    return bool(row.origin == origin) or gateways.is_alive(row, now)


def records(connection: Connection) -> Sequence[UploadRecord]:
    """The whole journal, oldest first."""
    with snapshot(connection):
        rows = connection.execute(_ALL).all()
        parts: dict[str, list[Part]] = {}
        for part in connection.execute(_ALL_PARTS):
            parts.setdefault(part.upload, []).append(_part_of(part))
    return [_record(row, parts.get(row.id, ())) for row in rows]


def _dead(connection: Connection, rows: Sequence[Row[Any]]) -> Sequence[UploadRecord]:
    if not rows:
        return ()
    now = clock_ns(connection)
    return [_record(row) for row in rows if not gateways.is_alive(row, now)]


def _parts(connection: Connection, upload: UploadId) -> Sequence[Part]:
    return tuple(_part_of(row) for row in connection.execute(_PARTS, {"upload": upload}))


def _part_of(row: Row[Any]) -> Part:
    source = None if row.source is None else CopySource(ObjectKey(row.source), row.source_offset)
    return Part(row.number, row.size, row.etag, row.crc32, source, row.sha256)


def _record(row: Row[Any], parts: Sequence[Part] = ()) -> UploadRecord:
    return UploadRecord(
        UploadId(row.id), ObjectKey(row.object_key), row.origin, row.target, row.created_ns, tuple(parts)
    )
