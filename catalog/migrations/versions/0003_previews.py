"""What is known of pictures, and where their previews are."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "previews",
        sa.Column("revision", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("object_key", sa.String(length=255)),
        sa.Column("size_256", sa.Integer(), nullable=False),
        sa.Column("size_512", sa.Integer(), nullable=False),
        sa.Column("size_1200", sa.Integer(), nullable=False),
        sa.Column("etag", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64)),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("retry_ns", sa.BigInteger()),
        sa.Column("decoder", sa.String(length=64), nullable=False),
        sa.Column("made_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["revision"], ["revisions.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("revision"),
    )
    op.create_index("previews_by_object", "previews", ["object_key"])
    op.create_index("previews_by_content", "previews", ["sha256"])
    failed = sa.text("state = 'placeholder'")
    op.create_index("previews_failed", "previews", ["made_ns"], sqlite_where=failed, postgresql_where=failed)
