"""The tables, as prose.

Owns: the schema as SQLAlchemy Core tables. Used by: the other modules of catalog, and the migrations' tests.
Threading: values. Times are nanoseconds since the epoch, sizes are bytes, booleans are 0 and 1.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

# Keys of objects are ordered by their bytes on both databases, as stores list them.
_KEY = String(255).with_variant(String(255, collation="C"), "postgresql")

# One row: what this archive is. `next_ino` is the next unused inode number (they are never used twice); `next_seq` the
# number of the next change, so next_seq - 1 is the state of the archive. `written_by` is the version of Archivia FS that
# made or last migrated the tables, for the message to an older one.
archive = Table(
    "archive",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uuid", String(32), nullable=False),
    Column("next_ino", BigInteger, nullable=False),
    Column("next_seq", BigInteger, nullable=False),
    Column("written_by", String(64), nullable=False),
)

# The immutable bytes of files. `key` is NULL when `stored` is 0; the file reads as zeros from `stored` to `size`. `sha256` (hex)
# and `crc32` are NULL while pending. `released_ns` is NULL while an inode has the revision; from then on gc may
# take the object after its grace period, unless another revision shares its key.
revisions = Table(
    "revisions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("object_key", _KEY),
    Column("size", BigInteger, nullable=False),
    Column("stored", BigInteger, nullable=False),
    Column("sha256", String(64)),
    Column("crc32", BigInteger),
    Column("created_ns", BigInteger, nullable=False),
    Column("released_ns", BigInteger),
    Index("revisions_by_object", "object_key"),
)
# What scrub and gc look for.
PENDING = revisions.c.released_ns.is_(None) & (revisions.c.sha256.is_(None) | revisions.c.crc32.is_(None))
Index("revisions_pending", revisions.c.id, sqlite_where=PENDING, postgresql_where=PENDING)
_released = revisions.c.released_ns.is_not(None)
Index("revisions_released", revisions.c.released_ns, sqlite_where=_released, postgresql_where=_released)

# The parts an object was uploaded in, with their checksums.
revision_parts = Table(
    "revision_parts",
    metadata,
    Column(
        "revision",
        String(64),
        ForeignKey("revisions.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("number", Integer, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("etag", String(255), nullable=False),
    Column("crc32", BigInteger, nullable=False),
)

# Identities. A directory inode is a document. `nlink` counts dentries (for a directory: 2 and its subdirectories); at 0 the
# inode is open somewhere or about to be forgotten. `revision` is NULL for everything without bytes.
inodes = Table(
    "inodes",
    metadata,
    Column("ino", BigInteger, primary_key=True, autoincrement=False),
    Column("mode", Integer, nullable=False),
    Column("nlink", Integer, nullable=False),
    Column("uid", BigInteger, nullable=False),
    Column("gid", BigInteger, nullable=False),
    Column("rdev", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("atime_ns", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("ctime_ns", BigInteger, nullable=False),
    Column("birth_ns", BigInteger, nullable=False),
    Column("revision", String(64), ForeignKey("revisions.id")),
    Column("symlink", Text),
    Index("inodes_by_revision", "revision"),
)
# Few at any time, looked for at every start.
Index("inodes_without_name", inodes.c.ino, sqlite_where=inodes.c.nlink == 0, postgresql_where=inodes.c.nlink == 0)

# Names. `key` is the NFC form that a name is found under, `name` its spelling as it was given.
dentries = Table(
    "dentries",
    metadata,
    Column("parent", BigInteger, ForeignKey("inodes.ino"), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("ino", BigInteger, ForeignKey("inodes.ino"), nullable=False),
    Index("dentries_by_ino", "ino"),
)

# xattrs and WebDAV dead properties. `name` is the xattr's ("user.dc.title") or Clark notation ("{ns}local") without one.
properties = Table(
    "properties",
    metadata,
    Column(
        "ino",
        BigInteger,
        ForeignKey("inodes.ino", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("name", String(512), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

# What is known of pictures; it can all be computed again. `facts` is JSON: camera, dimensions, where the previews inside the
# file are. `object_key` holds three JPEGs of these sizes (NULL: a placeholder is shown, or it is no picture); previews of the
# same bytes share it. `sha256` is the revision's when this was written. The meaning of the rest: PreviewRecord in previews.py.
previews = Table(
    "previews",
    metadata,
    Column("revision", String(64), ForeignKey("revisions.id", ondelete="CASCADE"), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("facts", Text, nullable=False),
    Column("object_key", String(255)),
    Column("size_256", Integer, nullable=False),
    Column("size_512", Integer, nullable=False),
    Column("size_1200", Integer, nullable=False),
    Column("etag", String(64), nullable=False),
    Column("sha256", String(64)),
    Column("reason", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("retry_ns", BigInteger),
    Column("decoder", String(64), nullable=False),
    Column("made_ns", BigInteger, nullable=False),
    Column("failure", String(16), nullable=False, server_default=""),
    Index("previews_by_object", "object_key"),
    Index("previews_by_content", "sha256"),
)
_failed = previews.c.state == "placeholder"
Index("previews_failed", previews.c.made_ns, sqlite_where=_failed, postgresql_where=_failed)

# The journal of multipart uploads: what is stored but not named yet. `origin` is the gateway that sends it ("": nobody any more),
# `target` says for whom, `active_ns` when the last part was noted or the upload changed hands. Parts that the server has copied
# have their `source`, the key of an object, and the offset in it; those that were composed of one made for them their `sha256`.
uploads = Table(
    "uploads",
    metadata,
    Column("id", String(1024), primary_key=True),
    Column("object_key", String(255), nullable=False),
    Column("origin", String(32), nullable=False),
    Column("target", Text, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("active_ns", BigInteger, nullable=False, server_default="0"),
)
upload_parts = Table(
    "upload_parts",
    metadata,
    Column(
        "upload",
        String(1024),
        ForeignKey("uploads.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("number", Integer, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("etag", String(255), nullable=False),
    Column("crc32", BigInteger, nullable=False),
    Column("source", String(255)),
    Column("source_offset", BigInteger),
    Column("sha256", String(64)),
    Index("upload_parts_by_checksum", "crc32", "size"),
)
_copied = upload_parts.c.source.is_not(None)
Index("upload_parts_by_source", upload_parts.c.source, sqlite_where=_copied, postgresql_where=_copied)

# Open catalogs, one per gateway: which process of which machine it is, and when it last said so. `born` is when the process
# started, in clock ticks since the machine did (field 22 of proc_pid_stat(5)), because pids are used again. `reading_ns` is when
# the oldest reading that still goes on there began (NULL without one); gc spares what was in use then.
gateways = Table(
    "gateways",
    metadata,
    Column("origin", String(32), primary_key=True),
    Column("machine", String(255), nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("born", BigInteger, nullable=False),
    Column("seen_ns", BigInteger, nullable=False),
    Column("reading_ns", BigInteger),
)

# Who may log in. `password_hash` is argon2id in PHC form.
users = Table(
    "users",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("password_hash", Text, nullable=False),
    Column("admin", Integer, nullable=False),
    Column("disabled", Integer, nullable=False),
)

# Top-level folders. Their names are their dentries'.
collections = Table(
    "collections",
    metadata,
    Column(
        "ino",
        BigInteger,
        ForeignKey("inodes.ino", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("owner", String(255), nullable=False),
)
grants = Table(
    "grants",
    metadata,
    Column(
        "collection",
        BigInteger,
        ForeignKey("collections.ino", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("user", String(255), primary_key=True),
    Column("right", String(16), nullable=False),
)

# RFC 4918 locks. `depth` is 0 or -1 (infinity); `expires_ns` NULL is never.
locks = Table(
    "locks",
    metadata,
    Column("token", String(255), primary_key=True),
    Column("path", Text, nullable=False),
    Column("user", String(255), nullable=False),
    Column("owner", Text, nullable=False),
    Column("exclusive", Integer, nullable=False),
    Column("depth", Integer, nullable=False),
    Column("timeout_s", BigInteger, nullable=False),
    Column("expires_ns", BigInteger),
)

# The log of committed changes, numbered without gaps in commit order. Old rows are trimmed; who has slept
# longer than the log reaches back drops all that was cached.
changes = Table(
    "changes",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("origin", String(32), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("ino", BigInteger, nullable=False),
    Column("parent", BigInteger),
    Column("name", String(255)),
)
