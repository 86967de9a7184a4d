"""The queues of webhooks, and which of them want no more."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "webhook_queue",
        sa.Column("webhook", sa.Text(), nullable=False, comment="its name"),
        sa.Column(
            "sequence", sa.BigInteger(), nullable=False, comment="the event's number, of when it was in the outbox"
        ),
        sa.Column("event", sa.Text(), nullable=False, comment="its id"),
        sa.Column("body", sa.Text(), nullable=False, comment="as it is sent"),
        sa.Column("queued_at", sa.BigInteger(), nullable=False),
        sa.Column("tries", sa.SmallInteger(), server_default=sa.text("0"), nullable=False, comment="calls that failed"),
        sa.Column("due_at", sa.BigInteger(), comment="when it is to be called with it; null: given up"),
        sa.Column("error", sa.Text(), comment="of the last call"),
        sa.PrimaryKeyConstraint("webhook", "sequence"),
        comment="Events on their way to webhooks. A row goes when it is taken, or long after it was given up.",
        postgresql_with={"autovacuum_vacuum_scale_factor": 0.01, "autovacuum_vacuum_threshold": 1000},
    )
    op.create_index("webhook_queue_due", "webhook_queue", ["webhook", "due_at", "sequence"])
    op.create_table(
        "disabled_webhooks",
        sa.Column("webhook", sa.Text(), nullable=False, comment="its name"),
        sa.Column("url", sa.Text(), nullable=False, comment="SHA-256 of its URL then: with another one it is enabled"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("disabled_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("webhook"),
        comment="Webhooks that want no more events. A row goes when somebody enables it.",
    )
