"""Leads that are posted before their call."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "leads",
        sa.Column("lead_id", sa.String(length=64), nullable=False),
        sa.Column("dialer", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=True),
        sa.Column("checksum", sa.String(length=64), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("created_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_utc_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("lead_id"),
        sa.UniqueConstraint("dialer", "key", name="leads_once"),
    )
    op.create_index("leads_by_expiry", "leads", ["expires_utc_us"], unique=False)


def downgrade() -> None:
    op.drop_table("leads")
