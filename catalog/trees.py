"""Whole trees: copy, move over and remove in one transaction, a few statements per level.

Owns: WebDAV's COPY, MOVE and DELETE. Used by: catalog. Threading: the writer's thread. Memory grows with the number of inodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update

from archivia_fs.errors import Exists, InvalidArgument, NotFound
from archivia_fs.types import ChangeKind, Effects, InodeNo, RenameFlag, Stat, lookup_key
from catalog.models import dentries, inodes, properties
from catalog.namespace import (
    ADD_DENTRY,
    ADD_INODE,
    LINKS_CHANGED,
    SET_ID,
    Child,
    NewInode,
    add_dentry,
    directory,
    drop_child,
    find,
    get_stat,
    inherited,
    is_within,
    must_find,
    rename,
)
from catalog.rows import CHILDREN, chunks, stat_of
from catalog.session import Session

_CHILDREN_OF_ALL = CHILDREN.where(dentries.c.parent.in_(bindparam("parents", expanding=True)))
_PROPERTIES = select(properties).where(properties.c.ino.in_(bindparam("inos", expanding=True)))
_DROP_DENTRIES = delete(dentries).where(dentries.c.parent == bindparam("b_parent"))
_DROP_LINKS = update(inodes).where(inodes.c.ino == bindparam("b_ino")).values(nlink=0, ctime_ns=bindparam("now"))
PROPERTIES_CHUNK = 100  # inodes; a value has up to 64 KiB


@dataclass(frozen=True, slots=True)
class _Below:
    parent: InodeNo
    name: str
    stat: Stat


@dataclass(frozen=True, slots=True)
class _Place:
    """A directory that gets copies."""

    ino: InodeNo
    mode: int
    gid: int


def _levels(session: Session, top: InodeNo) -> Iterator[list[_Below]]:
    """Everything under a directory, one depth after the other."""
    folders = [top]
    while folders:
        level = [
            _Below(InodeNo(row[0]), row[1], stat_of(row[2:]))
            for chunk in chunks(folders)
            for row in session.connection.execute(_CHILDREN_OF_ALL, {"parents": chunk})
        ]
        if level:
            yield level
        folders = [below.stat.ino for below in level if below.stat.is_dir]


def move_over(session: Session, parent: InodeNo, name: str, new_parent: InodeNo, new_name: str) -> Effects:
    """rename(2), but whatever has the new name goes with all that is in it. Raises NotFound, InvalidArgument (into itself, or
    over a folder it is in)."""
    target = find(session, new_parent, new_name)
    respelled = parent == new_parent and lookup_key(name) == lookup_key(new_name)
    if target is not None and not respelled:
        must_find(session, parent, name)
        _make_room(session, new_parent, target, for_what_is_in=parent)
    return rename(session, parent, name, new_parent, new_name, RenameFlag.NONE)


def copy_over(
    session: Session, source: InodeNo, parent: InodeNo, name: str, new: NewInode, *, recursive: bool
) -> Effects:
    """copy_tree, but whatever has the name goes with all that is in it."""
    target = find(session, parent, name)
    if target is not None:
        _make_room(session, parent, target, for_what_is_in=source)
    return copy_tree(session, source, parent, name, new, recursive=recursive)


def _make_room(session: Session, parent: InodeNo, target: Child, *, for_what_is_in: InodeNo) -> None:
    if is_within(session, for_what_is_in, target.stat.ino):
        raise InvalidArgument("What is in a folder, or the folder itself, cannot take that folder's place.")
    remove_tree(session, parent, target.name)


def copy_tree(
    session: Session, source: InodeNo, parent: InodeNo, name: str, new: NewInode, *, recursive: bool
) -> Effects:
    """Files share their revisions, properties go along, mtime stays; owner and group are `new`'s, as for any new file, and
    set-id bits do not survive. Two names of one file become two files. Raises Exists, NotFound, InvalidArgument (into itself)."""
    folder = directory(session, parent)
    stat = get_stat(session, source)
    if stat.nlink == 0:
        raise NotFound("That was removed.")
    if stat.is_dir and is_within(session, parent, source):
        raise InvalidArgument("A folder cannot be copied into itself.")
    if find(session, parent, name) is not None:
        raise Exists(f"{name!r} is already there.")
    below = [each for level in _levels(session, source) for each in level] if stat.is_dir and recursive else []
    subfolders = Counter(each.parent for each in below if each.stat.is_dir)
    places = {parent: _Place(parent, folder.mode, folder.gid)}
    top = _copy_row(session, _Below(parent, name, stat), places, subfolders, new)
    rows = [top, *(_copy_row(session, each, places, subfolders, new) for each in below)]
    session.connection.execute(ADD_INODE, rows)
    add_dentry(session, parent, name, InodeNo(top["ino"]), is_dir=stat.is_dir)
    _name_copies(session, below, [InodeNo(row["ino"]) for row in rows[1:]], places)
    _copy_properties(
        session, [(old, row["ino"]) for old, row in zip((source, *(b.stat.ino for b in below)), rows, strict=True)]
    )
    return session.effects()


def _copy_row(
    session: Session, old: _Below, places: dict[InodeNo, _Place], subfolders: Counter[InodeNo], new: NewInode
) -> dict[str, Any]:
    """The row of a copy. A directory's becomes a place, for what comes after it."""
    place = places[old.parent]
    mode, gid = inherited(place.mode, place.gid, old.stat.mode & ~SET_ID, new.gid)
    ino = session.new_ino()
    if old.stat.is_dir:
        places[old.stat.ino] = _Place(ino, mode, gid)
    return {
        "ino": ino,
        "mode": mode,
        "nlink": 2 + subfolders[old.stat.ino] if old.stat.is_dir else 1,
        "uid": new.uid,
        "gid": gid,
        "rdev": old.stat.rdev,
        "size": old.stat.size,
        "atime_ns": session.now,
        "mtime_ns": old.stat.mtime_ns,
        "ctime_ns": session.now,
        "birth_ns": session.now,
        "revision": old.stat.revision,
        "symlink": old.stat.symlink,
    }


def _name_copies(
    session: Session, old: Sequence[_Below], inos: Sequence[InodeNo], places: dict[InodeNo, _Place]
) -> None:
    if not old:
        return
    rows = [
        {"parent": places[each.parent].ino, "key": lookup_key(each.name), "name": each.name, "ino": ino}
        for each, ino in zip(old, inos, strict=True)
    ]
    session.connection.execute(ADD_DENTRY, rows)
    for each, ino in zip(old, inos, strict=True):
        session.change(ChangeKind.ENTRY_ADDED, ino, places[each.parent].ino, each.name)


def _copy_properties(session: Session, pairs: Sequence[tuple[InodeNo, InodeNo]]) -> None:
    for chunk in chunks(pairs, PROPERTIES_CHUNK):
        found: dict[InodeNo, list[tuple[str, bytes]]] = {}
        for ino, name, value in session.connection.execute(_PROPERTIES, {"inos": [old for old, _ in chunk]}):
            found.setdefault(ino, []).append((name, value))
        rows = [{"ino": new, "name": name, "value": value} for old, new in chunk for name, value in found.get(old, ())]
        if rows:
            session.connection.execute(insert(properties), rows)


def remove_tree(session: Session, parent: InodeNo, name: str) -> Effects:
    """A file, or a directory with everything under it; inodes stay until they are forgotten, and files that have names
    elsewhere stay under these. Raises NotFound."""
    directory(session, parent)
    top = must_find(session, parent, name)
    below = [each for level in _levels(session, top.stat.ino) for each in level] if top.stat.is_dir else []
    for each in reversed(below):  # as if each had been removed by itself: children first
        session.change(ChangeKind.ENTRY_REMOVED, each.stat.ino, each.parent, each.name)
    folders = [each.stat.ino for each in below if each.stat.is_dir]
    names = Counter(each.stat.ino for each in below if not each.stat.is_dir)
    execute = session.connection.execute
    if below:
        execute(_DROP_DENTRIES, [{"b_parent": ino} for ino in (top.stat.ino, *folders)])
    if folders:
        execute(_DROP_LINKS, [{"b_ino": ino, "now": session.now} for ino in folders])
    if names:
        execute(LINKS_CHANGED, [{"b_ino": ino, "now": session.now, "delta": -n} for ino, n in names.items()])
    drop_child(session, parent, top)
    return session.effects()
