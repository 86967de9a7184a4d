"""What was done with messages, short links, and attempts by their address."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("attempts_address", "attempts", ["address", "begun_at"])
    op.create_table(
        "acts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False, comment="what is told twice under one key is one act"),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False, comment="human or machine"),
        sa.Column("done_at", sa.BigInteger(), nullable=False),
        sa.Column("message", sa.Text(), comment="null: it belongs to none"),
        sa.Column("attempt", sa.Text(), comment="null: it is not known which"),
        sa.Column("channel", sa.Text()),
        sa.Column("category", sa.Text()),
        sa.Column("stage", sa.Text(), comment="of a conversion: how far the person came"),
        sa.Column("link", sa.SmallInteger(), comment="of a click: which of the message's links"),
        sa.Column("via", sa.Text(), nullable=False, comment="how we heard of it"),
        sa.Column("why", sa.Text(), comment="of a machine: how it is known to be one"),
        sa.Column("band", sa.Text(), comment="of who leaves: how many contacts there were in the week before"),
        sa.PrimaryKeyConstraint("id"),
        comment="What was done with messages, and by whom.",
    )
    op.create_index("acts_key", "acts", ["key"], unique=True)
    op.create_index("acts_message", "acts", ["message"])
    op.create_index("acts_done", "acts", ["done_at"])
    op.create_table(
        "links",
        sa.Column("code", sa.Text(), nullable=False, comment="the path of the short link"),
        sa.Column("attempt", sa.Text(), nullable=False),
        sa.Column("link", sa.SmallInteger(), nullable=False, comment="which of the message's links, from 1"),
        sa.PrimaryKeyConstraint("code"),
        comment="Short links in what was sent. Where they lead stands in the message.",
    )
    op.create_index("links_attempt", "links", ["attempt"])
