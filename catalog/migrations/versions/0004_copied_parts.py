"""Parts of uploads that the server has copied, so that an interrupted edit can be resumed; uploads by whom they are for."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("upload_parts", sa.Column("source", sa.String(length=255)))
    op.add_column("upload_parts", sa.Column("source_offset", sa.BigInteger()))
    copied = sa.text("source IS NOT NULL")
    op.create_index("upload_parts_by_source", "upload_parts", ["source"], sqlite_where=copied, postgresql_where=copied)
