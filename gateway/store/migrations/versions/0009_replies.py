"""Which answers of people have been heard."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "replies",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False, comment="the provider, and its vendor's id of the answer"),
        sa.PrimaryKeyConstraint("id"),
        comment="Answers of people that were heard, so that a repeat of an old one undoes nothing.",
    )
    op.create_index("replies_key", "replies", ["key"], unique=True)
