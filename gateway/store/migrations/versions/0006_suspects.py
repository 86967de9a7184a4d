"""Which messages may have killed their worker, and which input a process."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "due",
        sa.Column(
            "holder",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="the worker that leased it last",
        ),
    )
    op.add_column(
        "due",
        sa.Column(
            "suspect",
            sa.SmallInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="not 0: its worker vanished while it held it, so it is run alone",
        ),
    )
    op.add_column(
        "due",
        sa.Column(
            "crashes",
            sa.SmallInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="while it was run alone",
        ),
    )
    op.create_index(
        "due_suspects",
        "due",
        ["priority", "due_at"],
        postgresql_where=sa.text("suspect <> 0"),
        sqlite_where=sa.text("suspect <> 0"),
    )
    op.create_table(
        "doubtful",
        sa.Column("hash", sa.Text(), nullable=False, comment="SHA-256 of the body"),
        sa.Column(
            "begun", sa.SmallInteger(), nullable=False, comment="how often it was begun with, alone, and not finished"
        ),
        sa.Column("begun_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hash"),
        comment="Input that the broker delivers again, while it is being handled.",
    )
