"""RFC 4918 locks, shared by all gateways. An expired lock is no lock, whether or not it is swept already.

Owns: the table of locks, and which two cannot be at once. Used by: catalog. Threading: functions on a
Connection anywhere, those on a Session on the writer's thread.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from archivia_fs.errors import Exists, Locked, NotFound
from archivia_fs.types import ROOT_INODE, ChangeKind, Lock
from catalog.models import locks
from catalog.session import Session

_ALIVE = select(locks).where(locks.c.expires_ns.is_(None) | (locks.c.expires_ns > bindparam("now")))
_ONE = _ALIVE.where(locks.c.token == bindparam("token"))
_ADD = insert(locks)
_SWEEP = delete(locks).where(locks.c.expires_ns <= bindparam("now"))
_DROP = delete(locks).where(locks.c.token == bindparam("token"))
_REFRESH = (
    update(locks)
    .where(locks.c.token == bindparam("b_token"))
    .values(timeout_s=bindparam("timeout"), expires_ns=bindparam("expires"))
)


def _lock(row: Row[Any]) -> Lock:
    return Lock(
        row.token, row.path, row.user, row.owner, bool(row.exclusive), row.depth, row.timeout_s, row.expires_ns
    )  # fmt: skip


def everything(connection: Connection) -> Sequence[Lock]:
    """All that have not expired."""
    return [_lock(row) for row in connection.execute(_ALIVE, {"now": time.time_ns()})]


def get(connection: Connection, token: str) -> Lock | None:
    """None if there is none, or it has expired."""
    row = connection.execute(_ONE, {"token": token, "now": time.time_ns()}).first()
    return None if row is None else _lock(row)


def add(session: Session, lock: Lock) -> None:
    """Sweeps the expired ones. Raises Exists for a token that is in use, Locked if another lock is in the way."""
    session.connection.execute(_SWEEP, {"now": session.now})
    for other in everything(session.connection):
        if other.token == lock.token:
            raise Exists("There is a lock with that token.")
        if conflict(lock, other):
            raise Locked(f"{other.user} has locked {other.path}; wait until it is unlocked.")
    session.connection.execute(
        _ADD,
        {
            "token": lock.token,
            "path": lock.path,
            "user": lock.user,
            "owner": lock.owner,
            "exclusive": int(lock.exclusive),
            "depth": lock.depth,
            "timeout_s": lock.timeout_s,
            "expires_ns": lock.expires_ns,
        },
    )
    session.change(ChangeKind.LOCKS, ROOT_INODE)


def conflict(one: Lock, other: Lock) -> bool:
    """Whether two locks exclude each other (RFC 4918 6.2, 7.4): something is covered by both, and one is exclusive."""
    return (one.exclusive or other.exclusive) and (_covers(one, other.path) or _covers(other, one.path))


def _covers(lock: Lock, path: str) -> bool:
    """Its root, and with depth infinity all that is under it."""
    return path == lock.path or (lock.depth != 0 and path.startswith(lock.path.rstrip("/") + "/"))


def refresh(session: Session, token: str, timeout_s: int, expires_ns: int | None) -> Lock:
    """Raises NotFound, also for a lock that has expired."""
    if get(session.connection, token) is None:
        raise NotFound("There is no such lock; it may have expired.")
    session.connection.execute(_REFRESH, {"b_token": token, "timeout": timeout_s, "expires": expires_ns})
    session.change(ChangeKind.LOCKS, ROOT_INODE)
    row = session.connection.execute(select(locks).where(locks.c.token == token)).one()
    return _lock(row)


def remove(session: Session, token: str) -> None:
    """Nothing happens if it is gone."""
    if session.connection.execute(_DROP, {"token": token}).rowcount:
        session.change(ChangeKind.LOCKS, ROOT_INODE)
