"""Who may log in, whose the collections are, and who may do what in them.

Owns: users, collections, grants. Used by: catalog. Threading: functions on a Connection anywhere, on a Session on the writer's
thread. Every change is told as ACCESS, so that nobody goes on with rights that were taken.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from archivia_fs.errors import Exists, NotFound
from archivia_fs.types import DOCUMENTS_INODE, ChangeKind, Collection, Effects, InodeNo, Right, User
from catalog.engine import snapshot
from catalog.models import collections, dentries, grants, users
from catalog.namespace import NewInode, do_make, find
from catalog.session import Session

_ALL = select(users.c.name, users.c.admin, users.c.disabled)
_HASH = select(users.c.password_hash).where(users.c.name == bindparam("name"), users.c.disabled == 0)
_KNOWN = select(users.c.name).where(users.c.name == bindparam("name"))
_ADD = insert(users)
_SET_PASSWORD = update(users).where(users.c.name == bindparam("b_name")).values(password_hash=bindparam("value"))
_SET_DISABLED = update(users).where(users.c.name == bindparam("b_name")).values(disabled=bindparam("value"))
_COLLECTIONS = (
    select(collections.c.ino, collections.c.owner, dentries.c.name)
    .join(dentries, dentries.c.ino == collections.c.ino)
    .where(dentries.c.parent == DOCUMENTS_INODE)
)
_IS_COLLECTION = select(collections.c.ino).where(collections.c.ino == bindparam("ino"))
_ADD_COLLECTION = insert(collections)
_ADD_GRANT = insert(grants)
_DROP_GRANT = delete(grants).where(
    grants.c.collection == bindparam("b_collection"), grants.c.user == bindparam("b_user")
)


def everyone(connection: Connection) -> Sequence[User]:
    """By name."""
    return sorted(
        (User(name, bool(admin), bool(disabled)) for name, admin, disabled in connection.execute(_ALL)),
        key=lambda user: user.name,
    )


def password_hash(connection: Connection, name: str) -> str | None:
    """None: no such user, or disabled."""
    found: str | None = connection.execute(_HASH, {"name": name}).scalar()
    return found


def add(session: Session, name: str, hashed: str, *, admin: bool) -> None:
    """Raises Exists."""
    if session.connection.execute(_KNOWN, {"name": name}).first() is not None:
        raise Exists(f"There is already a user {name!r}.")
    session.connection.execute(_ADD, {"name": name, "password_hash": hashed, "admin": int(admin), "disabled": 0})
    session.change(ChangeKind.ACCESS, DOCUMENTS_INODE)


def set_password(session: Session, name: str, hashed: str) -> None:
    """Raises NotFound."""
    _must_be_user(session, name)
    session.connection.execute(_SET_PASSWORD, {"b_name": name, "value": hashed})
    session.change(ChangeKind.ACCESS, DOCUMENTS_INODE)


def set_disabled(session: Session, name: str, disabled: bool) -> None:
    """Raises NotFound."""
    _must_be_user(session, name)
    session.connection.execute(_SET_DISABLED, {"b_name": name, "value": int(disabled)})
    session.change(ChangeKind.ACCESS, DOCUMENTS_INODE)


def every_collection(connection: Connection) -> Sequence[Collection]:
    """By name."""
    with snapshot(connection):
        rows = connection.execute(_COLLECTIONS).all()
        given: dict[int, list[tuple[str, Right]]] = {}
        for collection, user, right in connection.execute(select(grants)):
            given.setdefault(collection, []).append((user, Right(right)))
    found = (Collection(InodeNo(r.ino), r.name, r.owner, tuple(sorted(given.get(r.ino, ())))) for r in rows)
    return sorted(found, key=lambda collection: collection.name)


def add_collection(session: Session, name: str, owner: str, new: NewInode) -> Effects:
    """A directory under /Documents and whose it is. Raises Exists, NotFound (the owner)."""
    _must_be_user(session, owner)
    ino = do_make(session, DOCUMENTS_INODE, name, new)
    session.connection.execute(_ADD_COLLECTION, {"ino": ino, "owner": owner})
    session.change(ChangeKind.ACCESS, ino)
    return session.effects()


def grant(session: Session, name: str, user: str, right: Right | None) -> None:
    """Give a right in a collection instead of the one the user has; None: no right. Raises NotFound."""
    _must_be_user(session, user)
    child = find(session, DOCUMENTS_INODE, name)
    if child is None or session.connection.execute(_IS_COLLECTION, {"ino": child.stat.ino}).first() is None:
        raise NotFound(f"There is no collection {name!r}; `archivia-fs collection list` shows them.")
    session.connection.execute(_DROP_GRANT, {"b_collection": child.stat.ino, "b_user": user})
    if right is not None:
        session.connection.execute(_ADD_GRANT, {"collection": child.stat.ino, "user": user, "right": right.value})
    session.change(ChangeKind.ACCESS, child.stat.ino)


def _must_be_user(session: Session, name: str) -> None:
    if session.connection.execute(_KNOWN, {"name": name}).first() is None:
        raise NotFound(f"There is no user {name!r}; `archivia-fs user list` shows who there is.")
