"""Names: make, link, unlink, rmdir, rename, and what an inode is besides its bytes.

Owns: the rules of dentries and link counts (POSIX, rename(2)). Used by: catalog, trees, revisions, users.
Threading: the writer's thread. A function that returns Effects is a whole mutation. Names are checked by the caller.
"""

from __future__ import annotations

import stat as stat_module
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, insert, select, update

from archivia_fs.errors import (
    Exists,
    InvalidArgument,
    IsADirectory,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
)
from archivia_fs.types import (
    DOCUMENTS_INODE,
    ChangeKind,
    Effects,
    InodeNo,
    RenameFlag,
    SetAttr,
    Stat,
    lookup_key,
)
from catalog.models import collections, dentries, inodes
from catalog.rows import CHILD, INODE, stat_of
from catalog.session import Session

SET_ID = stat_module.S_ISUID | stat_module.S_ISGID

_ANY_CHILD = select(dentries.c.ino).where(dentries.c.parent == bindparam("parent")).limit(1)
_PARENT_OF = select(dentries.c.parent).where(dentries.c.ino == bindparam("ino")).limit(1)
ADD_DENTRY = insert(dentries)
_DROP_DENTRY = delete(dentries).where(dentries.c.parent == bindparam("b_parent"), dentries.c.key == bindparam("b_key"))
ADD_INODE = insert(inodes)
_ENTRIES_CHANGED = (
    update(inodes)
    .where(inodes.c.ino == bindparam("b_ino"))
    .values(mtime_ns=bindparam("now"), ctime_ns=bindparam("now"), nlink=inodes.c.nlink + bindparam("delta"))
)
LINKS_CHANGED = (
    update(inodes)
    .where(inodes.c.ino == bindparam("b_ino"))
    .values(ctime_ns=bindparam("now"), nlink=inodes.c.nlink + bindparam("delta"))
)
_SET_ATTRIBUTES = (
    update(inodes)
    .where(inodes.c.ino == bindparam("b_ino"))
    .values({name: bindparam(name) for name in ("mode", "uid", "gid", "atime_ns", "mtime_ns", "ctime_ns")})
)
_DROP_COLLECTION = delete(collections).where(collections.c.ino == bindparam("b_ino"))


@dataclass(frozen=True, slots=True)
class NewInode:
    """What create, mkdir, mknod and symlink make. `mode` with S_IFMT bits."""

    mode: int
    uid: int
    gid: int
    rdev: int = 0
    symlink: str | None = None


@dataclass(frozen=True, slots=True)
class Child:
    name: str
    stat: Stat


def get_stat(session: Session, ino: InodeNo) -> Stat:
    """Raises NotFound."""
    row = session.run(INODE, {"ino": ino}).fetchone()
    if row is None:
        raise NotFound(f"There is no inode {ino}.")
    return stat_of(row)


def directory(session: Session, ino: InodeNo) -> Stat:
    """The stat of a directory that still has a name. Raises NotFound, NotADirectory."""
    stat = get_stat(session, ino)
    if not stat.is_dir:
        raise NotADirectory("That is not a folder.")
    if stat.nlink == 0:
        raise NotFound("That folder was removed.")
    return stat


def find(session: Session, parent: InodeNo, name: str) -> Child | None:
    """The child under a name, if there is one."""
    row = session.run(CHILD, {"parent": parent, "key": lookup_key(name)}).fetchone()
    return None if row is None else Child(row[1], stat_of(row[2:]))


def must_find(session: Session, parent: InodeNo, name: str) -> Child:
    """Raises NotFound."""
    child = find(session, parent, name)
    if child is None:
        raise NotFound(f"There is no {name!r} here.")
    return child


def inherited(parent_mode: int, parent_gid: int, mode: int, gid: int) -> tuple[int, int]:
    """(mode, gid) of a new inode, mkdir(2): in a folder with the set-group-ID bit the group is the folder's, and folders
    pass the bit on."""
    if not parent_mode & stat_module.S_ISGID:
        return mode, gid
    return mode | (stat_module.S_ISGID if stat_module.S_ISDIR(mode) else 0), parent_gid


def add_inode(session: Session, parent: Stat, new: NewInode) -> InodeNo:
    """A new inode with the links its first name will give it."""
    ino = session.new_ino()
    mode, gid = inherited(parent.mode, parent.gid, new.mode, new.gid)
    session.run(
        ADD_INODE,
        {
            "ino": ino,
            "mode": mode,
            "nlink": 2 if stat_module.S_ISDIR(mode) else 1,
            "uid": new.uid,
            "gid": gid,
            "rdev": new.rdev,
            "size": len(new.symlink.encode()) if new.symlink is not None else 0,
            "atime_ns": session.now,
            "mtime_ns": session.now,
            "ctime_ns": session.now,
            "birth_ns": session.now,
            "revision": None,
            "symlink": new.symlink,
        },
    )
    return ino


def add_dentry(session: Session, parent: InodeNo, name: str, ino: InodeNo, *, is_dir: bool) -> None:
    """Name an inode; its own link count is the caller's."""
    session.run(
        ADD_DENTRY,
        {"parent": parent, "key": lookup_key(name), "name": name, "ino": ino},
    )
    session.run(_ENTRIES_CHANGED, {"b_ino": parent, "now": session.now, "delta": int(is_dir)})
    session.change(ChangeKind.ENTRY_ADDED, ino, parent, name)


def drop_dentry(session: Session, parent: InodeNo, child: Child) -> None:
    """Unname an inode; its own link count is the caller's."""
    session.run(_DROP_DENTRY, {"b_parent": parent, "b_key": lookup_key(child.name)})
    session.run(
        _ENTRIES_CHANGED,
        {"b_ino": parent, "now": session.now, "delta": -int(child.stat.is_dir)},
    )
    session.change(ChangeKind.ENTRY_REMOVED, child.stat.ino, parent, child.name)


def change_links(session: Session, ino: InodeNo, delta: int) -> None:
    """Count names; ctime is now, also if `delta` is 0 (a rename)."""
    session.run(LINKS_CHANGED, {"b_ino": ino, "now": session.now, "delta": delta})
    session.touch(ino)


def drop_child(session: Session, parent: InodeNo, child: Child) -> None:
    """Unname an inode and take its link; a directory loses both of its own. Nobody has rights in a removed collection."""
    drop_dentry(session, parent, child)
    change_links(session, child.stat.ino, -child.stat.nlink if child.stat.is_dir else -1)
    if parent == DOCUMENTS_INODE and session.run(_DROP_COLLECTION, {"b_ino": child.stat.ino}).rowcount:
        session.change(ChangeKind.ACCESS, child.stat.ino)


def is_empty(session: Session, ino: InodeNo) -> bool:
    return session.run(_ANY_CHILD, {"parent": ino}).fetchone() is None


def make(session: Session, parent: InodeNo, name: str, new: NewInode) -> Effects:
    """create, mkdir, mknod, symlink. Raises Exists, NotFound, NotADirectory."""
    do_make(session, parent, name, new)
    return session.effects()


def do_make(session: Session, parent: InodeNo, name: str, new: NewInode) -> InodeNo:
    """As make, for mutations that go on."""
    folder = directory(session, parent)
    if find(session, parent, name) is not None:
        raise Exists(f"{name!r} is already there.")
    ino = add_inode(session, folder, new)
    add_dentry(session, parent, name, ino, is_dir=stat_module.S_ISDIR(new.mode))
    return ino


def link(session: Session, ino: InodeNo, parent: InodeNo, name: str) -> Effects:
    """link(2). Raises Exists, NotPermitted for folders."""
    directory(session, parent)
    stat = get_stat(session, ino)
    if stat.is_dir:
        raise NotPermitted("A folder has exactly one name.")
    if stat.nlink == 0:
        raise NotFound("That file was removed.")
    if find(session, parent, name) is not None:
        raise Exists(f"{name!r} is already there.")
    change_links(session, ino, 1)
    add_dentry(session, parent, name, ino, is_dir=False)
    return session.effects()


def unlink(session: Session, parent: InodeNo, name: str) -> Effects:
    """unlink(2); the inode's row stays until it is forgotten. Raises NotFound, IsADirectory."""
    directory(session, parent)
    child = must_find(session, parent, name)
    if child.stat.is_dir:
        raise IsADirectory(f"{name!r} is a folder.")
    drop_child(session, parent, child)
    return session.effects()


def rmdir(session: Session, parent: InodeNo, name: str) -> Effects:
    """rmdir(2). Raises NotFound, NotADirectory, NotEmpty."""
    directory(session, parent)
    child = must_find(session, parent, name)
    if not child.stat.is_dir:
        raise NotADirectory(f"{name!r} is not a folder.")
    if not is_empty(session, child.stat.ino):
        raise NotEmpty(f"The folder {name!r} is not empty.")
    drop_child(session, parent, child)
    return session.effects()


def rename(
    session: Session, parent: InodeNo, name: str, new_parent: InodeNo, new_name: str, flags: RenameFlag
) -> Effects:
    """renameat2(2). A name that differs from the old one only in spelling (same NFC key) renames the dentry itself."""
    if flags not in (RenameFlag.NONE, RenameFlag.NOREPLACE, RenameFlag.EXCHANGE):
        raise InvalidArgument("Of renameat2's flags NOREPLACE or EXCHANGE can be used, one at a time.")
    directory(session, parent)
    directory(session, new_parent)
    source = must_find(session, parent, name)
    target = find(session, new_parent, new_name)
    respelled = parent == new_parent and lookup_key(name) == lookup_key(new_name) and source.name != new_name
    if target is None:
        if flags == RenameFlag.EXCHANGE:
            raise NotFound(f"There is no {new_name!r} to exchange with.")
    elif flags == RenameFlag.NOREPLACE and not respelled:
        raise Exists(f"{new_name!r} is already there.")
    elif target.stat.ino == source.stat.ino and (flags == RenameFlag.EXCHANGE or not respelled):
        return session.effects()  # rename(2): two names of one file, nothing happens
    if source.stat.is_dir and is_within(session, new_parent, source.stat.ino):
        raise InvalidArgument("A folder cannot be moved into itself.")
    if target is None or respelled:
        _move(session, parent, source, new_parent, new_name)
    elif flags == RenameFlag.EXCHANGE:
        _exchange(session, parent, source, new_parent, target)
    else:
        _replace(session, parent, source, new_parent, target, new_name)
    return session.effects()


def _move(session: Session, parent: InodeNo, source: Child, new_parent: InodeNo, new_name: str) -> None:
    drop_dentry(session, parent, source)
    add_dentry(session, new_parent, new_name, source.stat.ino, is_dir=source.stat.is_dir)
    change_links(session, source.stat.ino, 0)


def _exchange(session: Session, parent: InodeNo, source: Child, new_parent: InodeNo, target: Child) -> None:
    if target.stat.is_dir and is_within(session, parent, target.stat.ino):
        raise InvalidArgument("A folder cannot be exchanged with what is in it.")
    drop_dentry(session, parent, source)
    drop_dentry(session, new_parent, target)
    add_dentry(session, parent, source.name, target.stat.ino, is_dir=target.stat.is_dir)
    add_dentry(session, new_parent, target.name, source.stat.ino, is_dir=source.stat.is_dir)
    change_links(session, source.stat.ino, 0)
    change_links(session, target.stat.ino, 0)


def _replace(
    session: Session, parent: InodeNo, source: Child, new_parent: InodeNo, target: Child, new_name: str
) -> None:
    if source.stat.is_dir and not target.stat.is_dir:
        raise NotADirectory(f"{new_name!r} is not a folder.")
    if target.stat.is_dir and not source.stat.is_dir:
        raise IsADirectory(f"{new_name!r} is a folder.")
    if target.stat.is_dir and not is_empty(session, target.stat.ino):
        raise NotEmpty(f"The folder {new_name!r} is not empty.")
    drop_child(session, new_parent, target)
    _move(session, parent, source, new_parent, new_name)


def setattr(session: Session, ino: InodeNo, change: SetAttr) -> Effects:  # noqa: A001 - the field's word
    """chmod, chown, utimensat. Raises NotFound."""
    stat = get_stat(session, ino)
    values = {"b_ino": ino, "ctime_ns": session.now, "mode": stat.mode}
    for field in ("uid", "gid", "atime_ns", "mtime_ns"):
        wanted = getattr(change, field)
        values[field] = getattr(stat, field) if wanted is None else wanted
    if change.mode is not None:
        values["mode"] = stat_module.S_IFMT(stat.mode) | stat_module.S_IMODE(change.mode)
    session.run(_SET_ATTRIBUTES, values)
    session.change(ChangeKind.ATTRIBUTES, ino)
    return session.effects()


def is_within(session: Session, ino: InodeNo, ancestor: InodeNo) -> bool:
    """Whether a directory is `ancestor` or under it."""
    at: InodeNo | None = ino
    while at is not None:
        if at == ancestor:
            return True
        row = session.run(_PARENT_OF, {"ino": at}).fetchone()
        at = None if row is None else row[0]
    return False
