"""What is known of pictures: the state of each revision's preview, and what the picture says of itself.

Owns: previews. Used by: catalog, which has one Previews. Threading: every method may be called from any thread; all block.
It can all be computed again, so nothing here is a change of the archive, and nothing is told to subscribers.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, or_, select, update

from archivia_fs.types import ObjectKey, RevisionId
from catalog.models import previews, revisions
from catalog.readers import Readers
from catalog.rows import chunks
from catalog.session import Session
from catalog.writer import Writer


class PreviewState(enum.StrEnum):
    EMBEDDED = "embedded"  # from a JPEG inside the file
    DECODED = "decoded"  # from the picture itself
    PLACEHOLDER = "placeholder"  # it could not be made; `reason` says why
    NONE = "none"  # no picture


@dataclass(frozen=True, slots=True)
class PreviewRecord:
    """The preview of one revision. `facts`: JSON, what the picture says of itself. The object `key` (None without one) holds three
    JPEGs behind each other, of `sizes` bytes: at most 256, 512 and 1200 pixels a side. `etag` names these bytes. `reason`: why
    there is none, `failure` the same in one word. `retry_ns`: when a placeholder may be tried again, None for not with this
    `decoder`. `attempts` counts all that failed."""

    revision: RevisionId
    state: PreviewState
    facts: str = ""
    key: ObjectKey | None = None
    sizes: tuple[int, int, int] = (0, 0, 0)
    etag: str = ""
    reason: str = ""
    failure: str = ""
    attempts: int = 0
    retry_ns: int | None = None
    decoder: str = ""
    made_ns: int = 0


_GET = select(previews).where(previews.c.revision == bindparam("id"))
_MANY = select(previews).where(previews.c.revision.in_(bindparam("ids", expanding=True)))
_TWIN = (
    select(previews)
    .join_from(previews, revisions, revisions.c.sha256 == previews.c.sha256)
    .where(revisions.c.id == bindparam("id"), previews.c.revision != bindparam("id"))
    .order_by(previews.c.state == PreviewState.PLACEHOLDER.value, previews.c.made_ns.desc())
    .limit(1)
)
_CONTENT = select(revisions.c.sha256).where(revisions.c.id == bindparam("id"))
_DROP = delete(previews).where(previews.c.revision == bindparam("b_revision"))
_ADD = insert(previews)
_NOTE = update(previews).where(previews.c.revision == bindparam("b_revision")).values(sha256=bindparam("content"))
_COUNT = select(previews.c.state, func.count()).group_by(previews.c.state)
_FAILED = (
    select(previews)
    .where(previews.c.state == PreviewState.PLACEHOLDER.value)
    .order_by(previews.c.made_ns.desc(), previews.c.revision)
    .limit(bindparam("most"))
)
_copies = previews.alias("copies")
_FORGIVE = (
    update(previews)
    .where(previews.c.state == PreviewState.PLACEHOLDER.value)
    .where(
        or_(
            previews.c.revision.in_(bindparam("ids", expanding=True)),
            previews.c.sha256.in_(
                select(_copies.c.sha256).where(_copies.c.revision.in_(bindparam("ids", expanding=True)))
            ),
        )
    )
    .values(retry_ns=0)
)
_KEYS = select(previews.c.object_key).where(previews.c.object_key.in_(bindparam("keys", expanding=True)))


class Previews:
    """The table of previews."""

    def __init__(self, readers: Readers, writer: Writer) -> None:
        self._readers = readers
        self._writer = writer

    def get(self, revision: RevisionId) -> PreviewRecord | None:
        """None: nobody has looked at it yet."""
        return self._readers.read(lambda c: _first(c, _GET, revision))

    def many(self, ids: Collection[RevisionId]) -> Mapping[RevisionId, PreviewRecord]:
        """Those of `ids` that are known."""
        return self._readers.read(
            lambda c: {row.revision: _record(row) for chunk in chunks(ids) for row in c.execute(_MANY, {"ids": chunk})}
        )

    def twin(self, revision: RevisionId) -> PreviewRecord | None:
        """What is known of another revision with the same bytes, by their SHA-256: a preview before a failure, of failures the
        last. None if there is none or it is pending."""
        return self._readers.read(lambda c: _first(c, _TWIN, revision))

    def save(self, record: PreviewRecord) -> None:
        """Instead of what was known of the revision. Nothing happens if the revision is gone."""
        self._writer.submit(lambda s: _save(s, record), durable=False)

    def counts(self) -> Mapping[PreviewState, int]:
        """How many there are of each state."""
        return self._readers.read(lambda c: {PreviewState(state): int(n) for state, n in c.execute(_COUNT)})

    def failed(self, limit: int = 100) -> Sequence[PreviewRecord]:
        """Placeholders, the newest first."""
        return self._readers.read(lambda c: [_record(row) for row in c.execute(_FAILED, {"most": limit})])

    def forgive(self, ids: Collection[RevisionId]) -> None:
        """Placeholders of these, and of copies of their bytes wherever they are, may be tried again at once."""
        self._writer.submit(lambda s: _forgive(s, ids), durable=False)

    def unknown_objects(self, keys: Collection[ObjectKey]) -> set[ObjectKey]:
        """Those of `keys` that no preview has; for gc."""
        return self._readers.read(lambda c: _unknown(c, keys))


def note_content(session: Session, revision: RevisionId, sha256: str | None) -> None:
    """The SHA-256 of a revision is known by now."""
    session.connection.execute(_NOTE, {"b_revision": revision, "content": sha256})


def _forgive(session: Session, ids: Collection[RevisionId]) -> None:
    for chunk in chunks(ids):
        session.connection.execute(_FORGIVE, {"ids": chunk})


def _first(connection: Connection, query: Any, revision: RevisionId) -> PreviewRecord | None:
    row = connection.execute(query, {"id": revision}).first()
    return None if row is None else _record(row)


def _unknown(connection: Connection, keys: Collection[ObjectKey]) -> set[ObjectKey]:
    found = set(keys)
    for chunk in chunks(keys):
        found.difference_update(connection.execute(_KEYS, {"keys": chunk}).scalars())
    return found


def _save(session: Session, record: PreviewRecord) -> None:
    content = session.connection.execute(_CONTENT, {"id": record.revision}).first()
    if content is None:
        return
    session.connection.execute(_DROP, {"b_revision": record.revision})
    small, medium, large = record.sizes
    row = {
        "revision": record.revision, "state": record.state.value, "facts": record.facts, "object_key": record.key,
        "size_256": small, "size_512": medium, "size_1200": large, "etag": record.etag, "sha256": content.sha256,
        "reason": record.reason, "attempts": record.attempts, "retry_ns": record.retry_ns, "decoder": record.decoder,
        "made_ns": record.made_ns, "failure": record.failure,
    }  # fmt: skip
    session.connection.execute(_ADD, row)


def _record(row: Row[Any]) -> PreviewRecord:
    return PreviewRecord(
        RevisionId(row.revision), PreviewState(row.state), row.facts, row.object_key,
        (row.size_256, row.size_512, row.size_1200), row.etag, row.reason, row.failure, row.attempts, row.retry_ns, row.decoder,
        row.made_ns,
    )  # fmt: skip
