"""Why a picture has no preview, in one word."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("previews", sa.Column("failure", sa.String(length=16), nullable=False, server_default=""))
