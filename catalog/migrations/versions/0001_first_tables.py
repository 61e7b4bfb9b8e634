"""The first tables; their meaning is in catalog/models.py.

Every drive begins with its root (inode 1) and /Documents (inode 2).
"""

import os
import stat
import time
import uuid

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "archive",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uuid", sa.String(length=32), nullable=False),
        sa.Column("next_ino", sa.BigInteger(), nullable=False),
        sa.Column("next_seq", sa.BigInteger(), nullable=False),
        sa.Column("written_by", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "changes",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("origin", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("ino", sa.BigInteger(), nullable=False),
        sa.Column("parent", sa.BigInteger(), nullable=True),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_table(
        "locks",
        sa.Column("token", sa.String(length=255), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("user", sa.String(length=255), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("exclusive", sa.Integer(), nullable=False),
        sa.Column("depth", sa.Integer(), nullable=False),
        sa.Column("timeout_s", sa.BigInteger(), nullable=False),
        sa.Column("expires_ns", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("token"),
    )
    op.create_table(
        "revisions",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("object_key", sa.String(length=255), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("stored", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("crc32", sa.BigInteger(), nullable=True),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("released_ns", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("revisions_by_object", "revisions", ["object_key"], unique=False)
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(length=1024), nullable=False),
        sa.Column("object_key", sa.String(length=255), nullable=False),
        sa.Column("origin", sa.String(length=32), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "users",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("admin", sa.Integer(), nullable=False),
        sa.Column("disabled", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "inodes",
        sa.Column("ino", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("mode", sa.Integer(), nullable=False),
        sa.Column("nlink", sa.Integer(), nullable=False),
        sa.Column("uid", sa.BigInteger(), nullable=False),
        sa.Column("gid", sa.BigInteger(), nullable=False),
        sa.Column("rdev", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("atime_ns", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("ctime_ns", sa.BigInteger(), nullable=False),
        sa.Column("birth_ns", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.String(length=64), nullable=True),
        sa.Column("symlink", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["revision"],
            ["revisions.id"],
        ),
        sa.PrimaryKeyConstraint("ino"),
    )
    op.create_index("inodes_by_revision", "inodes", ["revision"], unique=False)
    nameless = sa.text("nlink = 0")
    op.create_index("inodes_without_name", "inodes", ["ino"], sqlite_where=nameless, postgresql_where=nameless)
    op.create_table(
        "revision_parts",
        sa.Column("revision", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.String(length=255), nullable=False),
        sa.Column("crc32", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["revision"], ["revisions.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("revision", "number"),
    )
    op.create_table(
        "upload_parts",
        sa.Column("upload", sa.String(length=1024), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.String(length=255), nullable=False),
        sa.Column("crc32", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["upload"], ["uploads.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("upload", "number"),
    )
    op.create_table(
        "collections",
        sa.Column("ino", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(["ino"], ["inodes.ino"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("ino"),
    )
    op.create_table(
        "dentries",
        sa.Column("parent", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("ino", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["ino"],
            ["inodes.ino"],
        ),
        sa.ForeignKeyConstraint(
            ["parent"],
            ["inodes.ino"],
        ),
        sa.PrimaryKeyConstraint("parent", "key"),
    )
    op.create_index("dentries_by_ino", "dentries", ["ino"], unique=False)
    op.create_table(
        "properties",
        sa.Column("ino", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=512), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["ino"], ["inodes.ino"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("ino", "name"),
    )
    op.create_table(
        "grants",
        sa.Column("collection", sa.BigInteger(), nullable=False),
        sa.Column("user", sa.String(length=255), nullable=False),
        sa.Column("right", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(["collection"], ["collections.ino"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("collection", "user"),
    )
    _first_rows()


def _first_rows() -> None:
    now = time.time_ns()
    columns = ("id", "uuid", "next_ino", "next_seq", "written_by")
    archive = sa.table("archive", *(sa.column(name) for name in columns))
    row = {"id": 1, "uuid": uuid.uuid4().hex, "next_ino": 16, "next_seq": 1, "written_by": ""}
    op.bulk_insert(archive, [row])
    fields = (
        "ino",
        "mode",
        "nlink",
        "uid",
        "gid",
        "rdev",
        "size",
        "atime_ns",
        "mtime_ns",
        "ctime_ns",
        "birth_ns",
    )
    inodes = sa.table("inodes", *(sa.column(name) for name in fields))
    for ino, nlink in ((1, 3), (2, 2)):
        op.bulk_insert(
            inodes,
            [
                {
                    "ino": ino,
                    "mode": stat.S_IFDIR | 0o755,
                    "nlink": nlink,
                    "uid": os.getuid(),
                    "gid": os.getgid(),
                    "rdev": 0,
                    "size": 0,
                    "atime_ns": now,
                    "mtime_ns": now,
                    "ctime_ns": now,
                    "birth_ns": now,
                }
            ],
        )
    dentries = sa.table("dentries", *(sa.column(name) for name in ("parent", "key", "name", "ino")))
    op.bulk_insert(dentries, [{"parent": 1, "key": "Documents", "name": "Documents", "ino": 2}])
