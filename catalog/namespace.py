"""Names: make, link, unlink, rename, copy, remove.

Owns: the rules of dentries and link counts (POSIX, rename(2)). Used by: catalog. Threading: the writer's thread.
Every function is one mutation within the session's transaction and returns its effects. Names are checked by the caller.
"""

from __future__ import annotations

import stat as stat_module
from collections.abc import Iterator
from dataclasses import dataclass, replace

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
from archivia_fs.types import ChangeKind, Effects, InodeNo, RenameFlag, Stat, lookup_key
from catalog.models import collections as collections_table
from catalog.models import dentries, grants, inodes, properties
from catalog.revisions import release
from catalog.rows import BY_INO, stat_of
from catalog.session import Session

_CHILD = select(dentries.c.name, dentries.c.ino).where(
    dentries.c.parent == bindparam("parent"), dentries.c.key == bindparam("key")
)
_CHILDREN = select(dentries.c.name, dentries.c.ino).where(dentries.c.parent == bindparam("parent"))
_ADD_DENTRY = insert(dentries)
_DROP_DENTRY = delete(dentries).where(dentries.c.parent == bindparam("b_parent"), dentries.c.key == bindparam("b_key"))
_ADD_INODE = insert(inodes)
_TOUCH_PARENT = (
    update(inodes)
    .where(inodes.c.ino == bindparam("b_ino"))
    .values(
        mtime_ns=bindparam("now"),
        ctime_ns=bindparam("now"),
        nlink=inodes.c.nlink + bindparam("delta"),
    )
)
_LINKS = (
    update(inodes)
    .where(inodes.c.ino == bindparam("b_ino"))
    .values(ctime_ns=bindparam("now"), nlink=inodes.c.nlink + bindparam("delta"))
)
_PARENT_OF = select(dentries.c.parent).where(dentries.c.ino == bindparam("ino")).limit(1)


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
    row = session.connection.execute(BY_INO, {"ino": ino}).first()
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
    row = session.connection.execute(_CHILD, {"parent": parent, "key": lookup_key(name)}).first()
    return None if row is None else Child(row.name, get_stat(session, row.ino))


def must_find(session: Session, parent: InodeNo, name: str) -> Child:
    """Raises NotFound."""
    child = find(session, parent, name)
    if child is None:
        raise NotFound(f"There is no {name!r} here.")
    return child


def add_inode(session: Session, parent: Stat, new: NewInode) -> InodeNo:
    """A new inode with the links its first name will give it."""
    ino = session.new_ino()
    is_dir = stat_module.S_ISDIR(new.mode)
    mode, gid = new.mode, new.gid
    if parent.mode & stat_module.S_ISGID:  # mkdir(2): the group is the parent's, and folders pass the bit on
        gid = parent.gid
        mode |= stat_module.S_ISGID if is_dir else 0
    session.connection.execute(
        _ADD_INODE,
        {
            "ino": ino,
            "mode": mode,
            "nlink": 2 if is_dir else 1,
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
    session.connection.execute(
        _ADD_DENTRY,
        {"parent": parent, "key": lookup_key(name), "name": name, "ino": ino},
    )
    session.connection.execute(_TOUCH_PARENT, {"b_ino": parent, "now": session.now, "delta": int(is_dir)})
    session.change(ChangeKind.ENTRY_ADDED, ino, parent, name)


def drop_dentry(session: Session, parent: InodeNo, child: Child) -> None:
    """Unname an inode; its own link count is the caller's."""
    session.connection.execute(_DROP_DENTRY, {"b_parent": parent, "b_key": lookup_key(child.name)})
    session.connection.execute(
        _TOUCH_PARENT,
        {"b_ino": parent, "now": session.now, "delta": -int(child.stat.is_dir)},
    )
    session.change(ChangeKind.ENTRY_REMOVED, child.stat.ino, parent, child.name)


def change_links(session: Session, ino: InodeNo, delta: int) -> None:
    session.connection.execute(_LINKS, {"b_ino": ino, "now": session.now, "delta": delta})
    session.touch(ino)


def drop_child(session: Session, parent: InodeNo, child: Child) -> None:
    """Unname an inode and take its link; a directory loses both of its own."""
    drop_dentry(session, parent, child)
    change_links(session, child.stat.ino, -child.stat.nlink if child.stat.is_dir else -1)
    if child.stat.is_dir:
        session.connection.execute(delete(grants).where(grants.c.collection == child.stat.ino))
        session.connection.execute(delete(collections_table).where(collections_table.c.ino == child.stat.ino))


def is_empty(session: Session, ino: InodeNo) -> bool:
    return session.connection.execute(_CHILDREN, {"parent": ino}).first() is None


def make(session: Session, parent: InodeNo, name: str, new: NewInode) -> Effects:
    """create, mkdir, mknod, symlink. Raises Exists, NotFound, NotADirectory."""
    mark = session.mark()
    ino = make_inode(session, parent, name, new)
    del ino
    return session.effects(mark)


def make_inode(session: Session, parent: InodeNo, name: str, new: NewInode) -> InodeNo:
    """As make, for mutations that go on."""
    folder = directory(session, parent)
    if find(session, parent, name) is not None:
        raise Exists(f"{name!r} is already there.")
    ino = add_inode(session, folder, new)
    add_dentry(session, parent, name, ino, is_dir=stat_module.S_ISDIR(new.mode))
    return ino


def link(session: Session, ino: InodeNo, parent: InodeNo, name: str) -> Effects:
    """link(2). Raises Exists, NotPermitted for folders."""
    mark = session.mark()
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
    return session.effects(mark)


def unlink(session: Session, parent: InodeNo, name: str) -> Effects:
    """unlink(2); the inode's row stays until it is forgotten. Raises NotFound, IsADirectory."""
    mark = session.mark()
    directory(session, parent)
    child = must_find(session, parent, name)
    if child.stat.is_dir:
        raise IsADirectory(f"{name!r} is a folder.")
    drop_child(session, parent, child)
    return session.effects(mark)


def rmdir(session: Session, parent: InodeNo, name: str) -> Effects:
    """rmdir(2). Raises NotFound, NotADirectory, NotEmpty."""
    mark = session.mark()
    directory(session, parent)
    child = must_find(session, parent, name)
    if not child.stat.is_dir:
        raise NotADirectory(f"{name!r} is not a folder.")
    if not is_empty(session, child.stat.ino):
        raise NotEmpty(f"The folder {name!r} is not empty.")
    drop_child(session, parent, child)
    return session.effects(mark)


def rename(
    session: Session,
    parent: InodeNo,
    name: str,
    new_parent: InodeNo,
    new_name: str,
    flags: RenameFlag,
) -> Effects:
    """renameat2(2)."""
    mark = session.mark()
    if flags & ~(RenameFlag.NOREPLACE | RenameFlag.EXCHANGE) or flags == RenameFlag.NOREPLACE | RenameFlag.EXCHANGE:
        raise InvalidArgument("Of renameat2's flags NOREPLACE or EXCHANGE can be used, one at a time.")
    directory(session, parent)
    directory(session, new_parent)
    source = must_find(session, parent, name)
    target = find(session, new_parent, new_name)
    same_name = parent == new_parent and lookup_key(name) == lookup_key(new_name)
    if same_name and source.name == new_name:
        if flags & RenameFlag.NOREPLACE:
            raise Exists(f"{new_name!r} is already there.")
        return session.effects(mark)
    if source.stat.is_dir and _is_within(session, new_parent, source.stat.ino):
        raise InvalidArgument("A folder cannot be moved into itself.")
    if same_name:  # only the spelling changes
        drop_dentry(session, parent, source)
        add_dentry(session, parent, new_name, source.stat.ino, is_dir=source.stat.is_dir)
        change_links(session, source.stat.ino, 0)
        return session.effects(mark)
    if flags & RenameFlag.EXCHANGE:
        if target is None:
            raise NotFound(f"There is no {new_name!r} to exchange with.")
        if target.stat.is_dir and _is_within(session, parent, target.stat.ino):
            raise InvalidArgument("A folder cannot be exchanged with what is in it.")
        drop_dentry(session, parent, source)
        drop_dentry(session, new_parent, target)
        add_dentry(session, parent, source.name, target.stat.ino, is_dir=target.stat.is_dir)
        add_dentry(session, new_parent, target.name, source.stat.ino, is_dir=source.stat.is_dir)
        change_links(session, source.stat.ino, 0)
        change_links(session, target.stat.ino, 0)
        return session.effects(mark)
    if target is not None:
        if flags & RenameFlag.NOREPLACE:
            raise Exists(f"{new_name!r} is already there.")
        if target.stat.ino == source.stat.ino:  # rename(2): two names of one file, nothing happens
            return session.effects(mark)
        if source.stat.is_dir and not target.stat.is_dir:
            raise NotADirectory(f"{new_name!r} is not a folder.")
        if target.stat.is_dir and not source.stat.is_dir:
            raise IsADirectory(f"{new_name!r} is a folder.")
        if target.stat.is_dir and not is_empty(session, target.stat.ino):
            raise NotEmpty(f"The folder {new_name!r} is not empty.")
        drop_child(session, new_parent, target)
    drop_dentry(session, parent, source)
    add_dentry(session, new_parent, new_name, source.stat.ino, is_dir=source.stat.is_dir)
    change_links(session, source.stat.ino, 0)
    return session.effects(mark)


def copy_tree(
    session: Session,
    source: InodeNo,
    parent: InodeNo,
    name: str,
    new: NewInode,
    *,
    recursive: bool,
) -> Effects:
    """COPY: files share their revisions, properties go along. Raises Exists, InvalidArgument (into itself)."""
    mark = session.mark()
    stat = get_stat(session, source)
    if stat.is_dir and _is_within(session, parent, source):
        raise InvalidArgument("A folder cannot be copied into itself.")
    waiting = [(stat, parent, name)]
    while waiting:
        old, into, called = waiting.pop()
        ino = make_inode(
            session,
            into,
            called,
            replace(new, mode=old.mode, rdev=old.rdev, symlink=old.symlink),
        )
        session.connection.execute(
            update(inodes)
            .where(inodes.c.ino == ino)
            .values(size=old.size, revision=old.revision, mtime_ns=old.mtime_ns)
        )
        if old.revision is not None:
            release(session, old.revision)
        session.connection.execute(
            insert(properties).from_select(
                ["ino", "name", "value"],
                select(
                    bindparam("copy", ino, type_=inodes.c.ino.type),
                    properties.c.name,
                    properties.c.value,
                ).where(properties.c.ino == old.ino),
            )
        )
        if old.is_dir and recursive:
            waiting.extend((child.stat, ino, child.name) for child in _children(session, old.ino))
    return session.effects(mark)


def remove_tree(session: Session, parent: InodeNo, name: str) -> Effects:
    """DELETE: everything under a name, in this transaction. Raises NotFound."""
    mark = session.mark()
    directory(session, parent)
    top = must_find(session, parent, name)
    order = [(parent, top)]
    for _, child in order:  # grows while it is walked
        if child.stat.is_dir:
            order.extend((child.stat.ino, below) for below in _children(session, child.stat.ino))
    for folder, child in reversed(order):
        drop_child(session, folder, Child(child.name, get_stat(session, child.stat.ino)))
    return session.effects(mark)


def _children(session: Session, ino: InodeNo) -> Iterator[Child]:
    for row in session.connection.execute(_CHILDREN, {"parent": ino}).all():
        yield Child(row.name, get_stat(session, row.ino))


def _is_within(session: Session, ino: InodeNo, ancestor: InodeNo) -> bool:
    """Whether a directory is `ancestor` or under it."""
    at: InodeNo | None = ino
    while at is not None:
        if at == ancestor:
            return True
        at = session.connection.scalar(_PARENT_OF, {"ino": at})
    return False
