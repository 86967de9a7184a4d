"""How far each provider's pace is booked, and which workers share it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "paces",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False, comment="until when all is spoken for"),
        sa.Column(
            "critical_at", sa.BigInteger(), nullable=False, comment="the same, were there only critical messages"
        ),
        sa.PrimaryKeyConstraint("provider"),
        comment="How far each provider's pace is booked, by all workers together.",
        postgresql_with={"fillfactor": 70},
    )
    op.create_table(
        "pace_shares",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("demand", sa.BigInteger(), nullable=False, comment="messages it could take at once: its weight"),
        sa.Column("next_at", sa.BigInteger(), nullable=False, comment="until when its own part is spoken for"),
        sa.Column(
            "lapses_at",
            sa.BigInteger(),
            nullable=False,
            comment="when its part is the others', unless it asks again",
        ),
        sa.PrimaryKeyConstraint("provider", "worker"),
        comment="Which workers share a provider's pace.",
        postgresql_with={"fillfactor": 70},
    )
