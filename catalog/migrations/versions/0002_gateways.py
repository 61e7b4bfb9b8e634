"""Who is alive, so that uploads of those who are not can be claimed; what gc and scrub look for.

Keys of objects are ordered by their bytes on PostgreSQL too, as a store lists them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "gateways",
        sa.Column("origin", sa.String(length=32), nullable=False),
        sa.Column("machine", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("born", sa.BigInteger(), nullable=False),
        sa.Column("seen_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("origin"),
    )
    op.add_column("uploads", sa.Column("active_ns", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute("UPDATE uploads SET active_ns = created_ns")
    op.create_index("upload_parts_by_checksum", "upload_parts", ["crc32", "size"])
    pending = sa.text("released_ns IS NULL AND (sha256 IS NULL OR crc32 IS NULL)")
    op.create_index("revisions_pending", "revisions", ["id"], sqlite_where=pending, postgresql_where=pending)
    gone = sa.text("released_ns IS NOT NULL")
    op.create_index("revisions_released", "revisions", ["released_ns"], sqlite_where=gone, postgresql_where=gone)
    if op.get_bind().dialect.name == "postgresql":
        op.execute('ALTER TABLE revisions ALTER COLUMN object_key TYPE varchar(255) COLLATE "C"')
