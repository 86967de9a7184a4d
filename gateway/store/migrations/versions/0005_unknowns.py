"""Repeats by an idempotency key, and the attempts that nobody knows the outcome of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_DAYS_3 = 72 * 3_600_000_000


def upgrade() -> None:
    op.add_column(
        "attempts",
        sa.Column(
            "generation",
            sa.SmallInteger(),
            server_default=sa.text("1"),
            nullable=False,
            comment="raised by a deliberate re-send",
        ),
    )
    op.add_column(
        "attempts",
        sa.Column(
            "repeats",
            sa.Text(),
            comment="the attempt that a vendor takes it for, by its key, and whose place it shares",
        ),
    )
    op.create_table(
        "unknowns",
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("look_at", sa.BigInteger(), nullable=False, comment="when the sweeper looks at it next"),
        sa.Column("closes_at", sa.BigInteger(), nullable=False, comment="when nobody listens any more"),
        sa.PrimaryKeyConstraint("message", "attempt"),
        comment=(
            "Attempts that may have been sent, and those that nobody works on any more. A row goes when that is known."
        ),
        postgresql_with={"autovacuum_vacuum_scale_factor": 0.01, "autovacuum_vacuum_threshold": 1000},
    )
    op.create_index("unknowns_look", "unknowns", ["look_at"])
    # Those of before are listened to as well, and closed in their time.
    op.execute(
        "insert into unknowns (message, attempt, provider, since, look_at, closes_at)"
        " select a.message, a.id, a.provider, coalesce(a.ended_at, a.deadline), coalesce(a.ended_at, a.deadline),"
        f" m.expires_at + {_DAYS_3} from attempts a join messages m on m.id = a.message where a.state = 'unknown'"
    )
