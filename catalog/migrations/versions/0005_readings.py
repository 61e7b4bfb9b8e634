"""Since when each gateway has been reading, for gc."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("gateways", sa.Column("reading_ns", sa.BigInteger()))
