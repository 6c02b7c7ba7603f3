"""Followers of the journal, retained topics, commands, trunks as routers see them, webhooks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("holder", sa.String(length=200), nullable=False),
        sa.Column("until_utc_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "streams",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("since_utc_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "stream_cursors",
        sa.Column("stream", sa.String(length=32), nullable=False),
        sa.Column("router", sa.String(length=64), nullable=False),
        sa.Column("boot", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("stream", "router", "boot"),
    )
    op.create_table(
        "topics",
        sa.Column("topic", sa.String(length=200), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("changed_utc_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("topic"),
    )
    op.create_table(
        "commands",
        sa.Column("by", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("command", sa.String(length=32), nullable=False),
        sa.Column("reply", sa.LargeBinary(), nullable=False),
        sa.Column("at_utc_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("by", "id"),
    )
    op.create_index("commands_by_time", "commands", ["at_utc_us"], unique=False)
    op.create_table(
        "trunk_states",
        sa.Column("router", sa.String(length=64), nullable=False),
        sa.Column("trunk", sa.String(length=140), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("since_utc_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("router", "trunk"),
    )
    op.create_table(
        "webhooks",
        sa.Column("buyer", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("secrets", sa.LargeBinary(), nullable=False),
        sa.Column("created_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("changed_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("failing_since_utc_us", sa.BigInteger(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("next_try_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("disabled_utc_us", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("buyer", "name"),
    )


def downgrade() -> None:
    for name in ("webhooks", "trunk_states", "commands", "topics", "stream_cursors", "streams", "leases"):
        op.drop_table(name)
