"""What was said no to; and when webhooks were called that did not take it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_FAILED = sa.text("called_at IS NOT NULL AND due_at IS NOT NULL")


def upgrade() -> None:
    op.add_column("acts", sa.Column("refused", sa.Text(), comment="JSON; of an opt-out: what was said no to"))
    op.add_column(
        "webhook_queue",
        sa.Column("called_at", sa.BigInteger(), comment="the last call, which failed; null: there was none"),
    )
    op.create_index(
        "webhook_queue_called",
        "webhook_queue",
        ["webhook", "called_at"],
        sqlite_where=_FAILED,
        postgresql_where=_FAILED,
    )
