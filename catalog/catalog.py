"""The catalog: what the archive is, in short named transactions.

Owns: the database. Used by: vfs, maintenance, app. Threading: every method may be called from any thread; all block.
Reads take a pooled connection; mutations go through the one writer (see writer.py) and return when they are durable and every
subscriber knows. Errors are FsErrors only.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from archivia_fs.errors import (
    Exists,
    InvalidArgument,
    IsADirectory,
    NoAttribute,
    NotADirectory,
    NotFound,
)
from archivia_fs.types import (
    DOCUMENTS_INODE,
    Change,
    ChangeKind,
    Collection,
    Effects,
    Entry,
    InodeNo,
    Lock,
    ObjectKey,
    Part,
    RenameFlag,
    Revision,
    RevisionId,
    Right,
    SetAttr,
    Stat,
    UploadId,
    UploadRecord,
    User,
    lookup_key,
)
from catalog import namespace, revisions
from catalog.engine import begin_read, migrate, open_engine, translated
from catalog.models import (
    archive,
    changes,
    collections,
    dentries,
    grants,
    inodes,
    locks,
    properties,
    upload_parts,
    uploads,
    users,
)
from catalog.models import revisions as revisions_table
from catalog.namespace import NewInode
from catalog.rows import BY_INO, INODE_COLUMNS, change_of, revision_of, stat_of
from catalog.session import Session
from catalog.writer import Writer

T = TypeVar("T")
STATFS_SECONDS = 10.0  # how long the sums are remembered
ORPHAN_SECONDS = 3600  # inodes without a name that are older belong to no living gateway

_LISTING = (
    select(dentries.c.name, *INODE_COLUMNS)
    .join(inodes, inodes.c.ino == dentries.c.ino)
    .where(dentries.c.parent == bindparam("parent"))
)
_LOOKUP = _LISTING.where(dentries.c.key == bindparam("key"))
_PARENTS = select(dentries.c.parent, dentries.c.name).where(dentries.c.ino == bindparam("ino"))


@dataclass(frozen=True, slots=True)
class Listing:
    """A directory as of change number `seq` (read in the same snapshot)."""

    seq: int
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Counts:
    """What `status` shows."""

    files: int
    directories: int
    bytes: int
    uploads: int
    checksums_pending: int


class Catalog:
    """Open with `Catalog.open(url)`."""

    def __init__(self, url: str, poll_interval: float) -> None:
        self._engine = open_engine(url)
        migrate(self._engine)
        self.origin = secrets.token_hex(8)
        self._writer = Writer(self._engine, self.origin, poll_interval)
        self._statfs: tuple[float, tuple[int, int]] = (0.0, (0, 0))
        self._statfs_lock = threading.Lock()

    @classmethod
    def open(cls, url: str, *, poll_interval: float = 0.1) -> Catalog:
        """Open and, if it is older, migrate. `poll_interval` in seconds: how soon other processes' changes are noticed.
        Raises CatalogError, CatalogTooNew, CatalogBusy."""
        return cls(url, poll_interval)

    def close(self) -> None:
        """Commit what is queued and let go."""
        self._writer.close()
        self._engine.dispose()

    # --- the change feed ---------------------------------------------------------------------------------------------

    def subscribe(self, listener: Callable[[Effects], None]) -> None:
        """Every committed group from now on, ours and foreign ones, in order and once. Called from catalog threads."""
        self._writer.subscribe(listener)

    def current_seq(self) -> int:
        """The number of the last change."""
        with self._read() as connection:
            return int(connection.scalar(select(archive.c.next_seq)) or 1) - 1

    def changes_after(self, seq: int, limit: int = 1000) -> Sequence[Change]:
        """The log after `seq`, oldest first."""
        with self._read() as connection:
            rows = connection.execute(select(changes).where(changes.c.seq > seq).order_by(changes.c.seq).limit(limit))
            return [change_of(row) for row in rows]

    # --- reads ---------------------------------------------------------------------------------------------------------

    def stat(self, ino: InodeNo) -> Stat:
        """Raises NotFound."""
        with self._read() as connection:
            row = connection.execute(BY_INO, {"ino": ino}).first()
        if row is None:
            raise NotFound(f"There is no inode {ino}.")
        return stat_of(row)

    def lookup(self, parent: InodeNo, name: str) -> Entry:
        """Raises NotFound."""
        with self._read() as connection:
            row = connection.execute(_LOOKUP, {"parent": parent, "key": lookup_key(name)}).first()
        if row is None:
            raise NotFound(f"There is no {name!r} here.")
        return Entry(row[0], stat_of(row[1:]))

    def listing(self, ino: InodeNo) -> Listing:
        """All of a directory in one query. Raises NotFound, NotADirectory."""
        if not self.stat(ino).is_dir:
            raise NotADirectory("That is not a folder.")
        with self._read(snapshot=True) as connection:
            seq = int(connection.scalar(select(archive.c.next_seq)) or 1) - 1
            rows = connection.execute(_LISTING, {"parent": ino}).all()
        return Listing(seq, [Entry(row[0], stat_of(row[1:])) for row in rows])

    def parents(self, ino: InodeNo) -> Sequence[tuple[InodeNo, str]]:
        """All names of an inode."""
        with self._read() as connection:
            return [(InodeNo(row.parent), row.name) for row in connection.execute(_PARENTS, {"ino": ino})]

    def revision(self, revision_id: RevisionId) -> Revision:
        """With its parts. Raises NotFound."""
        with self._read() as connection:
            found = revision_of(connection, revision_id)
        if found is None:
            raise NotFound(f"There is no revision {revision_id}.")
        return found

    def statfs(self) -> tuple[int, int]:
        """(bytes in files, number of inodes), at most ten seconds old."""
        with self._statfs_lock:
            when, known = self._statfs
        if time.monotonic() - when < STATFS_SECONDS:
            return known
        with self._read() as connection:
            row = connection.execute(select(func.coalesce(func.sum(inodes.c.size), 0), func.count())).one()
        known = int(row[0]), int(row[1])
        with self._statfs_lock:
            self._statfs = time.monotonic(), known
        return known

    def counts(self) -> Counts:
        """What `status` shows."""
        kind = inodes.c.mode.op("&")(0o170000)
        with self._read(snapshot=True) as connection:
            by_kind = {
                int(row[0]): (int(row[1]), int(row[2]))
                for row in connection.execute(
                    select(kind, func.count(), func.coalesce(func.sum(inodes.c.size), 0)).group_by(kind)
                )
            }
            open_uploads = int(connection.scalar(select(func.count()).select_from(uploads)) or 0)
            pending = int(
                connection.scalar(
                    select(func.count())
                    .select_from(revisions_table)
                    .where(
                        revisions_table.c.sha256.is_(None),
                        revisions_table.c.released_ns.is_(None),
                    )
                )
                or 0
            )
        files, size = by_kind.get(0o100000, (0, 0))
        return Counts(files, by_kind.get(0o040000, (0, 0))[0], size, open_uploads, pending)

    # --- names -----------------------------------------------------------------------------------------------------------

    def make(self, parent: InodeNo, name: str, new: NewInode) -> Effects:
        """create, mkdir, mknod, symlink. Raises Exists, NotFound, NotADirectory."""
        return self._writer.submit(lambda s: namespace.make(s, parent, name, new))

    def link(self, ino: InodeNo, parent: InodeNo, name: str) -> Effects:
        """link(2)."""
        return self._writer.submit(lambda s: namespace.link(s, ino, parent, name))

    def unlink(self, parent: InodeNo, name: str) -> Effects:
        """unlink(2); at nlink 0 the inode stays until `forget`."""
        return self._writer.submit(lambda s: namespace.unlink(s, parent, name))

    def rmdir(self, parent: InodeNo, name: str) -> Effects:
        """rmdir(2)."""
        return self._writer.submit(lambda s: namespace.rmdir(s, parent, name))

    def rename(
        self,
        parent: InodeNo,
        name: str,
        new_parent: InodeNo,
        new_name: str,
        flags: RenameFlag = RenameFlag.NONE,
    ) -> Effects:
        """renameat2(2)."""
        return self._writer.submit(lambda s: namespace.rename(s, parent, name, new_parent, new_name, flags))

    def copy_tree(
        self,
        source: InodeNo,
        parent: InodeNo,
        name: str,
        new: NewInode,
        *,
        recursive: bool,
    ) -> Effects:
        """COPY without moving a byte."""
        return self._writer.submit(lambda s: namespace.copy_tree(s, source, parent, name, new, recursive=recursive))

    def remove_tree(self, parent: InodeNo, name: str) -> Effects:
        """DELETE with everything under it."""
        return self._writer.submit(lambda s: namespace.remove_tree(s, parent, name))

    def setattr(self, ino: InodeNo, change: SetAttr) -> Effects:
        """chmod, chown, utimensat. Raises NotFound."""

        def work(session: Session) -> Effects:
            mark = session.mark()
            stat = namespace.get_stat(session, ino)
            values: dict[str, int] = {"ctime_ns": session.now}
            for field in ("uid", "gid", "atime_ns", "mtime_ns"):
                value = getattr(change, field)
                if value is not None:
                    values[field] = value
            if change.mode is not None:
                values["mode"] = stat.mode & 0o170000 | change.mode & 0o7777
            session.connection.execute(update(inodes).where(inodes.c.ino == ino).values(values))
            session.change(ChangeKind.ATTRIBUTES, ino)
            return session.effects(mark)

        return self._writer.submit(work)

    # --- bytes -----------------------------------------------------------------------------------------------------------

    def commit_revision(
        self,
        ino: InodeNo,
        revision: Revision | None,
        *,
        mtime_ns: int | None,
        finish_upload: UploadId | None = None,
    ) -> Effects:
        """The bytes of `ino` are now `revision` (None: it is empty); mtime is now if None."""
        return self._writer.submit(lambda s: revisions.commit(s, ino, revision, mtime_ns, finish_upload))

    def put_file(
        self,
        parent: InodeNo,
        name: str,
        revision: Revision | None,
        new: NewInode,
        *,
        mtime_ns: int | None,
        finish_upload: UploadId | None = None,
        exclusive: bool = False,
    ) -> Effects:
        """Create a file or give the one that is there new bytes. Raises Exists (`exclusive`), InvalidArgument, NotFound."""

        def work(session: Session) -> Effects:
            mark = session.mark()
            namespace.directory(session, parent)
            child = namespace.find(session, parent, name)
            if child is None:
                ino = namespace.make_inode(session, parent, name, new)
                stat = namespace.get_stat(session, ino)
            elif exclusive:
                raise Exists(f"{name!r} is already there.")
            else:
                stat = child.stat
                if stat.is_dir:
                    raise IsADirectory(f"{name!r} is a folder.")
                if not stat.is_file:
                    raise InvalidArgument(f"{name!r} is not a regular file.")
            revisions.set_bytes(session, stat, revision, mtime_ns, finish_upload)
            return session.effects(mark)

        return self._writer.submit(work)

    def forget(self, inos: Sequence[InodeNo]) -> None:
        """Drop inodes without a name that nobody here holds."""
        self._writer.submit(lambda s: revisions.forget(s, inos))

    def forget_orphans(self) -> int:
        """Drop nameless inodes that a crashed gateway left behind; returns how many."""
        before = time.time_ns() - ORPHAN_SECONDS * 10**9
        with self._read() as connection:
            found = connection.scalars(
                select(inodes.c.ino).where(inodes.c.nlink == 0, inodes.c.ctime_ns < before)
            ).all()
        if found:
            self.forget([InodeNo(ino) for ino in found])
        return len(found)

    # --- properties --------------------------------------------------------------------------------------------------------

    def properties(self, ino: InodeNo) -> Mapping[str, bytes]:
        """All of an inode, by name."""
        with self._read() as connection:
            rows = connection.execute(select(properties.c.name, properties.c.value).where(properties.c.ino == ino))
            return {row.name: bytes(row.value) for row in rows}

    def set_properties(self, ino: InodeNo, wanted: Mapping[str, bytes | None]) -> Effects:
        """Set (or, for None, remove) several at once. Raises NoAttribute if the only one to remove is not there."""

        def work(session: Session) -> Effects:
            mark = session.mark()
            namespace.get_stat(session, ino)
            removed = 0
            for name, value in wanted.items():
                where = (properties.c.ino == ino) & (properties.c.name == name)
                removed += session.connection.execute(delete(properties).where(where)).rowcount
                if value is not None:
                    session.connection.execute(insert(properties).values(ino=ino, name=name, value=value))
            if not removed and len(wanted) == 1 and next(iter(wanted.values())) is None:
                raise NoAttribute("There is no such property.")
            session.connection.execute(update(inodes).where(inodes.c.ino == ino).values(ctime_ns=session.now))
            session.change(ChangeKind.PROPERTIES, ino)
            return session.effects(mark)

        return self._writer.submit(work)

    # --- the journal of uploads ----------------------------------------------------------------------------------------------

    def begin_upload(self, upload_id: UploadId, key: ObjectKey, target: str) -> None:
        """Note a multipart upload before its first part is sent."""
        self._execute(
            insert(uploads).values(
                id=upload_id,
                object_key=key,
                origin=self.origin,
                target=target,
                created_ns=time.time_ns(),
            )
        )

    def record_part(self, upload_id: UploadId, part: Part) -> None:
        """Note a part that the store has."""

        def work(session: Session) -> None:
            where = (upload_parts.c.upload == upload_id) & (upload_parts.c.number == part.number)
            session.connection.execute(delete(upload_parts).where(where))
            session.connection.execute(
                insert(upload_parts).values(
                    upload=upload_id,
                    number=part.number,
                    size=part.size,
                    etag=part.etag,
                    crc32=part.crc32,
                )
            )

        self._writer.submit(work)

    def drop_upload(self, upload_id: UploadId) -> None:
        """The upload is complete or given up."""
        self._execute(delete(uploads).where(uploads.c.id == upload_id))

    def uploads(self) -> Sequence[UploadRecord]:
        """The whole journal, oldest first."""
        with self._read(snapshot=True) as connection:
            parts: dict[str, list[Part]] = {}
            for row in connection.execute(select(upload_parts).order_by(upload_parts.c.number)):
                parts.setdefault(row.upload, []).append(Part(row.number, row.size, row.etag, row.crc32))
            return [
                UploadRecord(
                    UploadId(row.id), ObjectKey(row.object_key), row.origin, row.target, row.created_ns,
                    tuple(parts.get(row.id, ())),
                )
                for row in connection.execute(select(uploads).order_by(uploads.c.created_ns))
            ]  # fmt: skip

    # --- users and collections -------------------------------------------------------------------------------------------------

    def users(self) -> Sequence[User]:
        """By name."""
        with self._read() as connection:
            rows = connection.execute(select(users).order_by(users.c.name))
            return [User(row.name, bool(row.admin), bool(row.disabled)) for row in rows]

    def password_hash(self, name: str) -> str | None:
        """None: no such user, or disabled."""
        with self._read() as connection:
            query = select(users.c.password_hash).where(users.c.name == name, users.c.disabled == 0)
            found: str | None = connection.scalar(query)
            return found

    def add_user(self, name: str, password_hash: str, *, admin: bool = False) -> None:
        """Raises Exists."""

        def work(session: Session) -> None:
            if session.connection.execute(select(users.c.name).where(users.c.name == name)).first() is not None:
                raise Exists(f"There is already a user {name!r}.")
            session.connection.execute(
                insert(users).values(name=name, password_hash=password_hash, admin=int(admin), disabled=0)
            )
            session.change(ChangeKind.ACCESS, DOCUMENTS_INODE)

        self._writer.submit(work)

    def set_password(self, name: str, password_hash: str) -> None:
        """Raises NotFound."""
        self._change_user(name, password_hash=password_hash)

    def set_disabled(self, name: str, disabled: bool) -> None:
        """Raises NotFound."""
        self._change_user(name, disabled=int(disabled))

    def collections(self) -> Sequence[Collection]:
        """By name."""
        with self._read(snapshot=True) as connection:
            given: dict[int, list[tuple[str, Right]]] = {}
            for row in connection.execute(select(grants).order_by(grants.c.user)):
                given.setdefault(row.collection, []).append((row.user, Right(row.right)))
            rows = connection.execute(
                select(collections.c.ino, collections.c.owner, dentries.c.name)
                .join(dentries, dentries.c.ino == collections.c.ino)
                .order_by(dentries.c.name)
            )
            return [Collection(InodeNo(r.ino), r.name, r.owner, tuple(given.get(r.ino, ()))) for r in rows]

    def add_collection(self, name: str, owner: str, new: NewInode) -> Effects:
        """A folder under /Documents and whose it is. Raises Exists, NotFound (the owner)."""

        def work(session: Session) -> Effects:
            mark = session.mark()
            self._must_be_user(session, owner)
            ino = namespace.make_inode(session, DOCUMENTS_INODE, name, new)
            session.connection.execute(insert(collections).values(ino=ino, owner=owner))
            session.change(ChangeKind.ACCESS, ino)
            return session.effects(mark)

        return self._writer.submit(work)

    def grant(self, collection: str, user: str, right: Right) -> None:
        """Raises NotFound."""
        self._grant(collection, user, right)

    def revoke(self, collection: str, user: str) -> None:
        """Raises NotFound."""
        self._grant(collection, user, None)

    # --- locks ------------------------------------------------------------------------------------------------------------------

    def add_lock(self, lock: Lock) -> None:
        """Expired ones are swept on the way. Raises Exists."""

        def work(session: Session) -> None:
            session.connection.execute(delete(locks).where(locks.c.expires_ns < session.now))
            if session.connection.execute(select(locks.c.token).where(locks.c.token == lock.token)).first():
                raise Exists("There is a lock with that token.")
            session.connection.execute(
                insert(locks).values(
                    token=lock.token,
                    path=lock.path,
                    user=lock.user,
                    owner=lock.owner,
                    exclusive=int(lock.exclusive),
                    depth=lock.depth,
                    timeout_s=lock.timeout_s,
                    expires_ns=lock.expires_ns,
                )
            )

        self._writer.submit(work)

    def lock(self, token: str) -> Lock | None:
        """None if there is none, or it has expired."""
        return next((lock for lock in self.locks() if lock.token == token), None)

    def locks(self) -> Sequence[Lock]:
        """All that have not expired."""
        now = time.time_ns()
        with self._read() as connection:
            rows = connection.execute(select(locks).where(locks.c.expires_ns.is_(None) | (locks.c.expires_ns >= now)))
            return [
                Lock(
                    r.token,
                    r.path,
                    r.user,
                    r.owner,
                    bool(r.exclusive),
                    r.depth,
                    r.timeout_s,
                    r.expires_ns,
                )
                for r in rows
            ]

    def refresh_lock(self, token: str, timeout_s: int, expires_ns: int | None) -> Lock:
        """Raises NotFound."""
        self._execute(update(locks).where(locks.c.token == token).values(timeout_s=timeout_s, expires_ns=expires_ns))
        found = self.lock(token)
        if found is None:
            raise NotFound("There is no such lock.")
        return found

    def remove_lock(self, token: str) -> None:
        """Nothing happens if it is gone."""
        self._execute(delete(locks).where(locks.c.token == token))

    # --- inside ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _read(self, *, snapshot: bool = False) -> Iterator[Connection]:
        """A connection to read with; `snapshot` makes several queries see one state."""
        with translated(self._engine), self._engine.connect() as connection:
            if snapshot:
                with begin_read(connection):
                    yield connection
            else:
                yield connection

    def _execute(self, statement: object) -> None:
        self._writer.submit(lambda session: session.connection.execute(statement) and None)  # type: ignore[call-overload]

    def _change_user(self, name: str, **values: object) -> None:
        def work(session: Session) -> None:
            self._must_be_user(session, name)
            session.connection.execute(update(users).where(users.c.name == name).values(**values))
            session.change(ChangeKind.ACCESS, DOCUMENTS_INODE)

        self._writer.submit(work)

    def _must_be_user(self, session: Session, name: str) -> None:
        if session.connection.execute(select(users.c.name).where(users.c.name == name)).first() is None:
            raise NotFound(f"There is no user {name!r}; `archivia-fs user list` shows who there is.")

    def _grant(self, collection: str, user: str, right: Right | None) -> None:
        def work(session: Session) -> None:
            self._must_be_user(session, user)
            found = namespace.find(session, DOCUMENTS_INODE, collection)
            if found is None:
                raise NotFound(f"There is no collection {collection!r}; `archivia-fs collection list` shows them.")
            ino = found.stat.ino
            session.connection.execute(delete(grants).where(grants.c.collection == ino, grants.c.user == user))
            if right is not None:
                session.connection.execute(insert(grants).values(collection=ino, user=user, right=right.value))
            session.change(ChangeKind.ACCESS, ino)

        self._writer.submit(work)
