"""Labels and addresses on the ledger, opt-outs of topics and addresses, the policy of a due row, activations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ROWID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column(
        "due",
        sa.Column(
            "policy",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="the version it was last decided by",
        ),
    )
    op.add_column("contacts", sa.Column("labels", sa.Text(), comment="JSON; null: none"))
    op.add_column(
        "contacts",
        sa.Column("address", sa.Text(), comment="its fingerprint, where the category limits what one address may get"),
    )
    op.add_column(
        "contacts",
        sa.Column(
            "counts",
            sa.SmallInteger(),
            server_default=sa.text("1"),
            nullable=False,
            comment="0: for the address alone",
        ),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.drop_index("contacts_person", "contacts")
        op.create_index(
            "contacts_person",
            "contacts",
            ["person", "begun_at"],
            postgresql_include=["ended_at", "channel", "category", "campaign", "zone", "message", "labels"],
            postgresql_where=sa.text("counts = 1"),
        )
        op.execute(
            "alter table contacts reset (fillfactor),"
            " set (autovacuum_vacuum_insert_scale_factor = 0.01, autovacuum_vacuum_scale_factor = 0.02)"
        )
    op.create_index(
        "contacts_address",
        "contacts",
        ["address", "begun_at"],
        postgresql_where=sa.text("address IS NOT NULL"),
        sqlite_where=sa.text("address IS NOT NULL"),
    )
    op.create_table(
        "addresses",
        sa.Column("address", sa.Text(), nullable=False, comment="its fingerprint"),
        sa.Column("used_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("address"),
        comment="Addresses with a limit of their own. The row is what a decision locks.",
        postgresql_with={"fillfactor": 70},
    )
    op.create_table(
        "activations",
        sa.Column("id", _ROWID, sa.Identity(always=False), nullable=False),
        sa.Column("policy", sa.Integer(), nullable=False, comment="its number"),
        sa.Column("worker", sa.Text(), nullable=False, comment="the process in which it came into force"),
        sa.Column("activated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        comment="Which policy came into force where and when.",
    )
    _opt_outs_by_more()
    if op.get_bind().dialect.name == "postgresql":  # SQLite keeps no comments
        op.alter_column("due", "line", comment="hash of all that rules look at; 0: bound by no rule")
        op.alter_column(
            "due",
            "held",
            comment="1: a place that frees may let it go; 2: behind another of its line; 3: by clocks alone",
        )


def _opt_outs_by_more() -> None:
    """A key cannot be widened in place on SQLite."""
    op.rename_table("optouts", "optouts_before")
    op.create_table(
        "optouts",
        sa.Column("person", sa.Text(), nullable=False, comment="empty: whoever has the address"),
        sa.Column("address", sa.Text(), nullable=False, comment="its fingerprint; empty: any of the person's"),
        sa.Column("channel", sa.Text(), nullable=False, comment="empty: all"),
        sa.Column("category", sa.Text(), nullable=False, comment="empty: all"),
        sa.Column("topic", sa.Text(), nullable=False, comment="empty: all"),
        sa.Column("via", sa.Text(), nullable=False),
        sa.Column("opted_out_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("person", "address", "channel", "category", "topic", name="optouts_said"),
        comment="Who said no to what.",
    )
    op.create_index("optouts_address", "optouts", ["address"])
    op.execute(
        "insert into optouts (person, address, channel, category, topic, via, opted_out_at)"
        " select person, '', channel, category, '', via, opted_out_at from optouts_before"
    )
    op.drop_table("optouts_before")
