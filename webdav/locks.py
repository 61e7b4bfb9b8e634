"""RFC 4918 locks: wsgidav's lock manager over the catalog's lock table: every gateway sees them, a restart keeps them.

Owns: the translation between wsgidav's lock dictionaries and `Lock`, DAV:lockdiscovery. Tokens are asked for here; programs on
a mount, which have none, are kept out by the core (archivia_fs/vfs/locks.py). Used by: provider, methods, properties,
resources. Threading: the Vfs is thread-safe; wsgidav's manager serialises check-then-act within this process.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Any
from xml.etree.ElementTree import Element, ParseError, SubElement

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from wsgidav.dav_error import DAVErrorCondition, PRECONDITION_CODE_MissingLockToken
from wsgidav.lock_man.lock_manager import LockManager

from archivia_fs.errors import NotFound
from archivia_fs.types import Lock
from archivia_fs.vfs.vfs import Vfs
from webdav.convert import href, lock_path

LOCK_MAX_S = 7 * 24 * 3600  # for "Infinite" and for no wish too: a client that never comes back must not lock for good

LockDict = dict[str, Any]  # wsgidav's word for a lock

SUPPORTED_LOCK = "".join(
    f"<D:lockentry><D:lockscope><D:{scope}/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>"
    for scope in ("exclusive", "shared")
)


class LockStorage:
    """wsgidav's lock storage protocol over the Vfs. Paths are lock_path() spellings, times of expiry wall clock."""

    def __init__(self, vfs: Vfs) -> None:
        self._vfs = vfs

    def open(self) -> None:
        """Nothing to open."""

    def close(self) -> None:
        """Nothing to close: locks outlive the server."""

    def all(self) -> Sequence[Lock]:
        """Every lock there is, in one question to the catalog."""
        return self._vfs.locks()

    def get(self, token: str) -> LockDict | None:
        lock = self._vfs.lock(token)
        return None if lock is None or _expired(lock) else _to_dict(lock)

    def create(self, path: str, lock: LockDict) -> LockDict:
        seconds = _timeout(lock["timeout"])
        made = Lock(
            token=f"opaquelocktoken:{secrets.token_hex(16)}",
            path=lock_path(path),
            user=lock["principal"],
            owner=bytes(lock["owner"]).decode(),
            exclusive=lock["scope"] == "exclusive",
            depth=-1 if lock["depth"] == "infinity" else 0,
            timeout_s=seconds,
            expires_ns=time.time_ns() + seconds * 10**9,
        )
        self._vfs.add_lock(made)
        lock.update(_to_dict(made))
        return lock

    def refresh(self, token: str, *, timeout: float) -> LockDict:
        seconds = _timeout(timeout)
        return _to_dict(self._vfs.refresh_lock(token, seconds, time.time_ns() + seconds * 10**9))

    def delete(self, token: str) -> bool:
        try:
            self._vfs.remove_lock(token)
        except NotFound:
            return False
        return True

    def get_lock_list(
        self, path: str, *, include_root: bool, include_children: bool, token_only: bool
    ) -> list[LockDict] | list[str]:
        root = lock_path(path)
        locks = self.all()
        found = [lock for lock in locks if include_root and lock.path == root and not _expired(lock)]
        found += _below(locks, root) if include_children else []
        return [lock.token for lock in found] if token_only else [_to_dict(lock) for lock in found]


class Locks(LockManager):
    """wsgidav's rules, plus: the token of a locked member counts for its parent's DELETE or MOVE, and the error names
    the condition that RFC 4918 section 16 has for it."""

    def _get_write_conflicts(self, url: str, depth: str, token_list: list[str], principal: str) -> DAVErrorCondition:
        conflicts = DAVErrorCondition(PRECONDITION_CODE_MissingLockToken)
        locks = self.storage.all()
        guards = [*covering(locks, url), *(_below(locks, url) if depth == "infinity" else ())]
        for lock in guards:
            if lock.user != principal or lock.token not in token_list:
                conflicts.add_href(lock.path)
        return conflicts


def covering(locks: Iterable[Lock], path: str) -> list[Lock]:
    """Those of `locks` that hold for `path`: its own, and depth-infinity ones of the folders above it."""
    here = lock_path(path)
    return [
        lock
        for lock in locks
        if not _expired(lock)
        and (lock.path == here or (lock.depth != 0 and here.startswith(lock.path.rstrip("/") + "/")))
    ]


def _below(locks: Iterable[Lock], path: str) -> list[Lock]:
    inside = lock_path(path).rstrip("/") + "/"
    return [lock for lock in locks if not _expired(lock) and lock.path != "/" and lock.path.startswith(inside)]


def discovery(locks: Iterable[Lock], path: str) -> list[Element]:
    """The DAV:activelock elements of a resource, inherited locks included (RFC 4918 15.8)."""
    return [_active_lock(lock) for lock in covering(locks, path)]


def _active_lock(lock: Lock) -> Element:
    active = Element("{DAV:}activelock")
    SubElement(SubElement(active, "{DAV:}locktype"), "{DAV:}write")
    SubElement(SubElement(active, "{DAV:}lockscope"), "{DAV:}exclusive" if lock.exclusive else "{DAV:}shared")
    SubElement(active, "{DAV:}depth").text = "0" if lock.depth == 0 else "infinity"
    if lock.owner:
        try:
            active.append(fromstring(lock.owner))
        except (ParseError, DefusedXmlException):
            SubElement(active, "{DAV:}owner").text = lock.owner
    left = "Infinite" if lock.expires_ns is None else f"Second-{max(0, (lock.expires_ns - time.time_ns()) // 10**9)}"
    SubElement(active, "{DAV:}timeout").text = left
    SubElement(SubElement(active, "{DAV:}locktoken"), "{DAV:}href").text = lock.token
    SubElement(SubElement(active, "{DAV:}lockroot"), "{DAV:}href").text = href(lock.path)
    return active


def _timeout(seconds: float) -> int:
    return LOCK_MAX_S if seconds < 0 else max(1, min(int(seconds), LOCK_MAX_S))


def _expired(lock: Lock) -> bool:
    return lock.expires_ns is not None and lock.expires_ns <= time.time_ns()


def _to_dict(lock: Lock) -> LockDict:
    return {
        "token": lock.token,
        "root": lock.path,
        "type": "write",
        "scope": "exclusive" if lock.exclusive else "shared",
        "depth": "0" if lock.depth == 0 else "infinity",
        "owner": lock.owner.encode(),
        "principal": lock.user,
        "timeout": lock.timeout_s,
        "expire": time.time() + lock.timeout_s if lock.expires_ns is None else lock.expires_ns / 10**9,
    }
