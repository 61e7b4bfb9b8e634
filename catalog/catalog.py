"""The catalog: what the archive is, in short named transactions.

Owns: the database. Used by: vfs, maintenance, app. Threading: every method may be called from any thread; all block.
Reads take one of a few held connections; mutations go through the one writer (see writer.py) and return when they are durable and
every subscriber knows. Errors are FsErrors only: CatalogError, CatalogBusy and NoSpace may come from every method.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set

from archivia_fs.types import (
    Beginning,
    Change,
    Collection,
    Effects,
    Entry,
    InodeNo,
    Lock,
    ObjectKey,
    OpenUpload,
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
)
from catalog import (
    consistency,
    documents,
    journal,
    locks,
    namespace,
    properties,
    reads,
    revisions,
    trees,
    upkeep,
    users,
)
from catalog.documents import Below, DocumentState
from catalog.engine import BUSY_TIMEOUT, open_engine
from catalog.feed import Feed, last_seq
from catalog.gateways import Presence
from catalog.namespace import NewInode
from catalog.previews import Previews
from catalog.readers import Readers
from catalog.reads import Counts, Listing
from catalog.schema import migrate
from catalog.session import Session
from catalog.upkeep import Freed
from catalog.writer import Writer

__all__ = ["Below", "Catalog", "Counts", "DocumentState", "Freed", "Listing", "NewInode"]

STATFS_SECONDS = 30.0  # how long the sums are remembered
ORPHAN_SECONDS = 3600  # inodes without a name that are older belong to no living gateway
HELD_SECONDS = 24 * 3600  # so long other gateways can use an unlinked file they have open; gc keeps bytes as long


class Catalog:
    """Open with `Catalog.open(url)`. `origin` is this process in the changes it commits; `previews`: what is known of
    pictures."""

    def __init__(self, url: str, poll_interval: float, busy_timeout: float) -> None:
        self.origin = secrets.token_hex(8)
        self._engine = open_engine(url, busy_timeout)
        migrate(self._engine)
        self._feed = Feed(self._engine, poll_interval)
        self._writer = Writer(self._engine, self._feed, self.origin)
        self._presence = Presence(self._writer)
        self._readers = Readers(self._engine)
        self.previews = Previews(self._readers, self._writer)
        self._statfs_lock = threading.Lock()
        self._statfs: tuple[float, tuple[int, int]] | None = None
        self._writer.start()
        self._feed.start()
        self._presence.start()

    @classmethod
    def open(cls, url: str, *, poll_interval: float = 0.1, busy_timeout: float = BUSY_TIMEOUT) -> Catalog:
        """Open and, if it is empty or older, migrate. `poll_interval` (seconds): how soon other processes' changes are noticed;
        `busy_timeout` (seconds): how long to wait for another writer. Raises CatalogError, CatalogTooNew, CatalogBusy."""
        return cls(url, poll_interval, busy_timeout)

    def close(self) -> None:
        """Commit what is queued and let go. Idempotent."""
        self._presence.close()
        self._writer.close()
        self._feed.close()
        self._readers.close()
        self._engine.dispose()

    def sync(self) -> None:
        """Names, attributes and properties that were changed survive a power cut too, when this returns (without it, after a
        second). Commits of bytes, collections and users always do. Costs nothing if all is on disk. Raises CatalogError."""
        self._writer.sync()

    # --- the change feed ---------------------------------------------------------------------------------------------

    def subscribe(self, listener: Callable[[Effects], None], settle: Callable[[], None] | None = None) -> None:
        """Every committed group from now on, ours and foreign ones, in order and once; ours before the mutation returns. Called
        from catalog threads: it returns quickly and calls no mutation. RESET means: changes were missed, forget all.
        `settle` is called by each thread that has changed something, before its mutation returns: it may wait, but bounded."""
        self._feed.subscribe(listener, settle)

    def current_seq(self) -> int:
        """The number of the last change."""
        return self._readers.read(last_seq)

    def changes_after(self, seq: int, limit: int = 1000) -> Sequence[Change]:
        """The log after `seq`, oldest first; it keeps the last 100,000 changes."""
        return self._readers.read(lambda c: reads.changes_after(c, seq, limit))

    # --- reads ---------------------------------------------------------------------------------------------------------

    def stat(self, ino: InodeNo) -> Stat:
        """Raises NotFound."""
        return self._readers.read(lambda c: reads.stat(c, ino))

    def lookup(self, parent: InodeNo, name: str) -> Entry:
        """By NFC key. Raises NotFound."""
        return self._readers.read(lambda c: reads.lookup(c, parent, name))

    def listing(self, ino: InodeNo) -> Listing:
        """All of a directory and the change number, in one query. Raises NotFound, NotADirectory."""
        return self._readers.read(lambda c: reads.listing(c, ino))

    def parents(self, ino: InodeNo) -> Sequence[tuple[InodeNo, str]]:
        """All names of an inode."""
        return self._readers.read(lambda c: reads.parents(c, ino))

    def revision(self, revision_id: RevisionId) -> Revision:
        """With its parts. Raises NotFound."""
        return self._readers.read(lambda c: revisions.get(c, revision_id))

    def document(self, ino: InodeNo, each: Callable[[Below], None]) -> DocumentState:
        """A folder with everything under it, in one snapshot: `each` gets it, folders first. Raises NotFound."""
        return self._readers.read(lambda c: documents.read(c, ino, each))

    def folders_around(self, inos: Set[InodeNo]) -> set[InodeNo]:
        """These inodes, and all folders they are in, at any depth and by any of their names."""
        return self._readers.read(lambda c: documents.around(c, inos))

    def statfs(self) -> tuple[int, int]:
        """(bytes stored in revisions in use, number of inodes), at most 30 seconds old."""
        with self._statfs_lock:
            now = time.monotonic()
            if self._statfs is None or now - self._statfs[0] > STATFS_SECONDS:
                self._statfs = now, self._readers.read(reads.sums)
            return self._statfs[1]

    def counts(self) -> Counts:
        """What `status` shows; as of now."""
        return self._readers.read(reads.counts)

    # --- names -----------------------------------------------------------------------------------------------------------

    def make(self, parent: InodeNo, name: str, new: NewInode) -> Effects:
        """create, mkdir, mknod, symlink; `changes[0].ino` is the new inode. Raises Exists, NotFound, NotADirectory."""
        return self._writer.submit(lambda s: namespace.make(s, parent, name, new), durable=False)

    def link(self, ino: InodeNo, parent: InodeNo, name: str) -> Effects:
        """link(2). Raises Exists, NotFound, NotPermitted for a directory."""
        return self._writer.submit(lambda s: namespace.link(s, ino, parent, name), durable=False)

    def unlink(self, parent: InodeNo, name: str) -> Effects:
        """unlink(2); at nlink 0 the inode stays until `forget`. Raises NotFound, IsADirectory."""
        return self._writer.submit(lambda s: namespace.unlink(s, parent, name), durable=False)

    def rmdir(self, parent: InodeNo, name: str) -> Effects:
        """rmdir(2). Raises NotFound, NotADirectory, NotEmpty."""
        return self._writer.submit(lambda s: namespace.rmdir(s, parent, name), durable=False)

    def rename(
        self, parent: InodeNo, name: str, new_parent: InodeNo, new_name: str, flags: RenameFlag = RenameFlag.NONE
    ) -> Effects:
        """renameat2(2). Raises what it says."""
        return self._writer.submit(
            lambda s: namespace.rename(s, parent, name, new_parent, new_name, flags), durable=False
        )

    def setattr(self, ino: InodeNo, change: SetAttr) -> Effects:
        """chmod, chown, utimensat. Raises NotFound."""
        return self._writer.submit(lambda s: namespace.setattr(s, ino, change), durable=False)

    def move_over(self, parent: InodeNo, name: str, new_parent: InodeNo, new_name: str) -> Effects:
        """WebDAV MOVE with Overwrite: as rename, but what was there goes with all that is in it."""
        return self._writer.submit(lambda s: trees.move_over(s, parent, name, new_parent, new_name), durable=False)

    def copy_tree(
        self, source: InodeNo, parent: InodeNo, name: str, new: NewInode, *, recursive: bool, over: bool = False
    ) -> Effects:
        """WebDAV COPY without moving a byte; with `over` what was there goes. Raises Exists (if not), NotFound, InvalidArgument."""
        copy = trees.copy_over if over else trees.copy_tree
        return self._writer.submit(lambda s: copy(s, source, parent, name, new, recursive=recursive))

    def remove_tree(self, parent: InodeNo, name: str) -> Effects:
        """WebDAV DELETE: a name and everything under it. Raises NotFound."""
        return self._writer.submit(lambda s: trees.remove_tree(s, parent, name))

    # --- bytes -----------------------------------------------------------------------------------------------------------

    def commit_revision(
        self, ino: InodeNo, revision: Revision | None, *, mtime_ns: int | None, finish_upload: UploadId | None = None
    ) -> Effects:
        """The bytes of `ino` are now `revision` (None: it is empty); mtime is now if None; the upload leaves the journal.
        Raises NotFound, InvalidArgument for what has no bytes, CatalogError if another gateway has claimed the upload."""
        return self._writer.submit(lambda s: revisions.commit(s, ino, revision, mtime_ns, finish_upload))

    def put_file(
        self, parent: InodeNo, name: str, revision: Revision | None, new: NewInode, *, mtime_ns: int | None,
        finish_upload: UploadId | None = None, exclusive: bool = False, if_etags: Set[str] | None = None,
    ) -> Effects:  # fmt: skip
        """Create a file, or give the one that is there new bytes (it keeps its inode). Raises Exists (`exclusive`), IsADirectory,
        InvalidArgument (a symlink or special file is there), NotFound, CatalogError as commit_revision; and Changed if `if_etags`
        is given and no file is there that has one of these ETags (`Stat.etag`)."""

        def put(session: Session) -> Effects:
            return revisions.put_file(
                session, parent, name, revision, new, mtime_ns, finish_upload, exclusive=exclusive, if_etags=if_etags
            )

        return self._writer.submit(put)

    def fill_checksums(self, revision_id: RevisionId, sha256: str | None, crc32: int | None) -> None:
        """Fill in what is pending; None leaves it. No change is told: the bytes are as they were. Raises NotFound, and CatalogError
        if another value is known already (nothing is changed then)."""
        self._writer.submit(lambda s: revisions.fill_checksums(s, revision_id, sha256, crc32))

    def forget(self, inos: Sequence[InodeNo]) -> Sequence[InodeNo]:
        """Drop inodes without a name that nobody here holds; others are left alone. Returns those that have to stay for now:
        another gateway is alive, where somebody may have them open, for a day at most."""
        return self._writer.submit(lambda s: revisions.forget(s, inos, HELD_SECONDS * 10**9), durable=False)

    def forget_orphans(self) -> int:
        """Drop inodes that have had no name for an hour (while another gateway is alive, for a day); returns how many. A crash
        leaves them, or a gateway that could not drop them itself. For the start, and gc."""
        return self._writer.submit(
            lambda s: revisions.forget_orphans(s, ORPHAN_SECONDS * 10**9, HELD_SECONDS * 10**9), durable=False
        )

    # --- for maintenance ---------------------------------------------------------------------------------------------------

    def revisions_in_use(
        self, limit: int = 1000, after: str = "", *, pending: bool = False, below: InodeNo | None = None
    ) -> Sequence[Revision]:
        """By id, those after the id `after`, without their parts. `pending`: only those whose SHA-256 or CRC-32 is; `below`: only
        those of a file, or of all files in a folder."""
        return self._readers.read(lambda c: upkeep.in_use(c, after, limit, pending=pending, below=below))

    def pending_revisions(self, limit: int = 1000, after: str = "") -> Sequence[Revision]:
        """Those in use whose SHA-256 or CRC-32 is pending; as revisions_in_use."""
        return self.revisions_in_use(limit, after, pending=True)

    def totals_in_use(self, after: str = "", *, pending: bool = False, below: InodeNo | None = None) -> tuple[int, int]:
        """(number, bytes) of what revisions_in_use gives."""
        return self._readers.read(lambda c: upkeep.totals(c, after, pending=pending, below=below))

    def objects_in_use(self, limit: int = 1000, after: tuple[str, str] = ("", "")) -> Sequence[Revision]:
        """Revisions in use that have an object, in the order in which stores list keys, those after (key, id); without parts."""
        return self._readers.read(lambda c: upkeep.with_objects(c, after, limit))

    def revision_paths(self, revision_id: RevisionId, limit: int = 100) -> Sequence[str]:
        """All paths that show a revision's bytes."""
        return self._readers.read(lambda c: upkeep.paths(c, revision_id, limit))

    def releasable(self, before_ns: int) -> Sequence[Freed]:
        """What drop_released would forget, all in all."""
        return self._readers.read(lambda c: tuple(upkeep.releasable(c, before_ns)))

    def reading(self) -> Callable[[], None]:
        """Until what this returns is called, drop_released (here and in other processes) spares what is in use now: for who reads
        one state of the archive for long. Costs nothing. A week at most."""
        return self._presence.reading()

    def drop_released(self, before_ns: int, limit: int = 200) -> Sequence[Freed]:
        """Forget up to `limit` revisions that no inode has had since then, and no `reading` needs. What has a `key` can be deleted
        from the store."""
        return self._writer.submit(lambda s: upkeep.drop_released(s, before_ns, limit))

    def unknown_objects(self, keys: Set[ObjectKey]) -> set[ObjectKey]:
        """Those of `keys` that neither a revision nor an upload has."""
        return self._readers.read(lambda c: upkeep.unknown_objects(c, keys))

    def unknown_uploads(self, ids: Set[UploadId]) -> set[UploadId]:
        """Those of `ids` that are not in the journal."""
        return self._readers.read(lambda c: upkeep.unknown_uploads(c, ids))

    def contradictions(self, limit: int = 100) -> Sequence[str]:
        """Where the catalog contradicts itself, in words, up to `limit` of each kind; nothing if it is sound."""
        return self._readers.read(lambda c: consistency.contradictions(c, limit))

    # --- properties --------------------------------------------------------------------------------------------------------

    def properties(self, ino: InodeNo) -> Mapping[str, bytes]:
        """xattrs and dead properties by name: "user.dc.title", or "{ns}local" for those that are no xattr."""
        return self._readers.read(lambda c: properties.get(c, ino))

    def properties_of(self, inos: Sequence[InodeNo]) -> Mapping[InodeNo, Mapping[str, bytes]]:
        """As properties, of many at once; inodes that have none are left out. Values have up to 64 KiB: ask for a hundred or so."""
        return self._readers.read(lambda c: properties.get_all(c, inos))

    def set_properties(self, ino: InodeNo, changes: Mapping[str, bytes | None]) -> Effects:
        """Set (None: remove) several at once. Raises NotFound, NoAttribute if the only one to remove is not there."""
        return self._writer.submit(lambda s: properties.change(s, ino, changes), durable=False)

    # --- the journal of uploads --------------------------------------------------------------------------------------------

    def begin_upload(self, upload_id: UploadId, key: ObjectKey, target: str) -> None:
        """Note a multipart upload before its first part is sent or copied. It is ours."""
        self._writer.submit(lambda s: journal.begin(s, upload_id, key, target), durable=False)

    def record_part(self, upload_id: UploadId, part: Part) -> None:
        """Note a part that the store has. Raises NotFound for an upload that is not ours (any more)."""
        self._writer.submit(lambda s: journal.record_part(s, upload_id, part), durable=False)

    def drop_upload(self, upload_id: UploadId) -> bool:
        """Our upload leads to nothing; False if it is not ours (any more): then others may do with it what they like."""
        return self._writer.submit(lambda s: journal.drop(s, upload_id), durable=False)

    def release_upload(self, upload_id: UploadId) -> None:
        """We give the upload up, but whoever sends the same bytes may claim it: it has no owner any more (origin "")."""
        self._writer.submit(lambda s: journal.release(s, upload_id), durable=False)

    def claim_upload(self, beginning: Beginning, target: str) -> UploadRecord | None:
        """Of those without a living owner, the upload with most parts that begins so; from now on it is ours, and for `target`. One
        read if there is none."""
        if not self._readers.read(lambda c: journal.claimable(c, self.origin, beginning)):
            return None
        return self._writer.submit(lambda s: journal.claim(s, beginning, target))

    def expired_uploads(self, before_ns: int) -> Sequence[UploadRecord]:
        """Those without a living owner that nobody has touched since then; for gc."""
        return self._readers.read(lambda c: journal.expired(c, self.origin, before_ns))

    def expire_upload(self, record: UploadRecord) -> bool:
        """Take one of these out of the journal, before it is aborted at the store; False if somebody has claimed it since."""
        return self._writer.submit(lambda s: journal.expire(s, record))

    def open_uploads(self) -> Sequence[OpenUpload]:
        """The whole journal in short, oldest first: what is uploaded, and what was interrupted."""
        return self._readers.read(lambda c: journal.how_far(c, self.origin))

    def is_uploading(self, targets: Set[str]) -> bool:
        """Whether a living gateway, this one or another, has an upload for one of these."""
        return self._readers.read(lambda c: journal.is_open_for(c, self.origin, targets))

    def uploads(self) -> Sequence[UploadRecord]:
        """The whole journal, oldest first."""
        return self._readers.read(journal.records)

    # --- users and collections ---------------------------------------------------------------------------------------------

    def users(self) -> Sequence[User]:
        """By name."""
        return self._readers.read(users.everyone)

    def password_hash(self, name: str) -> str | None:
        """None: no such user, or disabled."""
        return self._readers.read(lambda c: users.password_hash(c, name))

    def add_user(self, name: str, password_hash: str, *, admin: bool = False) -> None:
        """Raises Exists."""
        self._writer.submit(lambda s: users.add(s, name, password_hash, admin=admin))

    def set_password(self, name: str, password_hash: str) -> None:
        """Raises NotFound."""
        self._writer.submit(lambda s: users.set_password(s, name, password_hash))

    def set_disabled(self, name: str, disabled: bool) -> None:
        """Raises NotFound."""
        self._writer.submit(lambda s: users.set_disabled(s, name, disabled))

    def collections(self) -> Sequence[Collection]:
        """By name."""
        return self._readers.read(users.every_collection)

    def add_collection(self, name: str, owner: str, new: NewInode) -> Effects:
        """A directory under /Documents and whose it is. Raises Exists, NotFound (the owner)."""
        return self._writer.submit(lambda s: users.add_collection(s, name, owner, new))

    def grant(self, collection: str, user: str, right: Right) -> None:
        """Instead of the right the user has. Raises NotFound."""
        self._writer.submit(lambda s: users.grant(s, collection, user, right))

    def revoke(self, collection: str, user: str) -> None:
        """Raises NotFound."""
        self._writer.submit(lambda s: users.grant(s, collection, user, None))

    # --- locks -------------------------------------------------------------------------------------------------------------

    def add_lock(self, lock: Lock) -> None:
        """Raises Exists for a token that is in use, Locked if it and one that is there exclude each other (RFC 4918 7)."""
        self._writer.submit(lambda s: locks.add(s, lock), durable=False)

    def lock(self, token: str) -> Lock | None:
        """None if there is none, or it has expired."""
        return self._readers.read(lambda c: locks.get(c, token))

    def locks(self) -> Sequence[Lock]:
        """All that have not expired."""
        return self._readers.read(locks.everything)

    def refresh_lock(self, token: str, timeout_s: int, expires_ns: int | None) -> Lock:
        """Raises NotFound, also for one that has expired."""
        return self._writer.submit(lambda s: locks.refresh(s, token, timeout_s, expires_ns), durable=False)

    def remove_lock(self, token: str) -> None:
        """Nothing happens if it is gone."""
        self._writer.submit(lambda s: locks.remove(s, token), durable=False)
