"""Which attempts were sent with links of ours."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "attempts",
        sa.Column(
            "tracked",
            sa.SmallInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="1: with links of ours in place of its own",
        ),
    )
