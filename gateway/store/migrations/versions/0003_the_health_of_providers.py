"""What workers tell each other of their providers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "provider_health",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column(
            "seen",
            sa.Text(),
            nullable=False,
            comment="JSON: what it knows of the provider, instants as their age",
        ),
        sa.Column("written_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("provider", "worker"),
        comment="What each worker tells the others of its providers.",
        postgresql_with={"fillfactor": 70},
    )
