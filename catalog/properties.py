"""xattrs and WebDAV dead properties: one table.

Owns: properties of inodes. Used by: catalog. Threading: `get` anywhere, `change` on the writer's thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from archivia_fs.errors import NoAttribute
from archivia_fs.types import ChangeKind, Effects, InodeNo
from catalog.models import inodes, properties
from catalog.namespace import get_stat
from catalog.rows import chunks
from catalog.session import Session

_GET = select(properties.c.name, properties.c.value).where(properties.c.ino == bindparam("ino"))
_GET_ALL = select(properties).where(properties.c.ino.in_(bindparam("inos", expanding=True)))
_ADD = insert(properties)
_DROP = delete(properties).where(properties.c.ino == bindparam("b_ino"), properties.c.name == bindparam("b_name"))
_CHANGED = update(inodes).where(inodes.c.ino == bindparam("b_ino")).values(ctime_ns=bindparam("now"))


def get(connection: Connection, ino: InodeNo) -> Mapping[str, bytes]:
    """All of an inode, by name."""
    return {name: bytes(value) for name, value in connection.execute(_GET, {"ino": ino})}


def get_all(connection: Connection, inos: Sequence[InodeNo]) -> Mapping[InodeNo, Mapping[str, bytes]]:
    """Of many inodes; those that have none are left out."""
    found: dict[InodeNo, dict[str, bytes]] = {}
    for chunk in chunks(inos):
        for ino, name, value in connection.execute(_GET_ALL, {"inos": chunk}):
            found.setdefault(InodeNo(ino), {})[name] = bytes(value)
    return found


def change(session: Session, ino: InodeNo, wanted: Mapping[str, bytes | None]) -> Effects:
    """Set (None: remove) all of `wanted`. Raises NotFound, NoAttribute if the only one to remove is not there (removexattr(2));
    among several a missing one is no error (RFC 4918 9.2)."""
    get_stat(session, ino)
    for name, value in wanted.items():
        removed = session.connection.execute(_DROP, {"b_ino": ino, "b_name": name}).rowcount
        if value is not None:
            session.connection.execute(_ADD, {"ino": ino, "name": name, "value": bytes(value)})
        elif not removed and len(wanted) == 1:
            raise NoAttribute(f"There is no property {name!r}.")
    session.connection.execute(_CHANGED, {"b_ino": ino, "now": session.now})
    session.change(ChangeKind.PROPERTIES, ino)
    return session.effects()
