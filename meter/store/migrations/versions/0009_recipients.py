"""Of e-mails: how each recipient stands, and for whose addresses a message waits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mail_recipients",
        sa.Column("message_id", sa.String(length=200), nullable=False),
        sa.Column("address", sa.String(length=320), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("at_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("next_try_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("code", sa.Integer(), nullable=False),
        sa.Column("said", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("message_id", "address"),
    )
    op.add_column("outbox", sa.Column("waits_for", sa.String(length=160), nullable=True))
    waiting = sa.text("state = 'waiting'")
    op.create_index("outbox_waiting", "outbox", ["waits_for"], sqlite_where=waiting, postgresql_where=waiting)


def downgrade() -> None:
    op.drop_index("outbox_waiting", table_name="outbox")
    op.execute("UPDATE outbox SET state = 'dead' WHERE state = 'waiting'")
    op.drop_column("outbox", "waits_for")
    op.drop_table("mail_recipients")
