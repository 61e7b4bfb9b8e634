"""Parts of uploads that were composed, so that an interrupted upload of several 100 GiB can be resumed."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("upload_parts", sa.Column("sha256", sa.String(length=64)))
