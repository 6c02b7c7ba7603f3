"""Orders, and the admissions that are counted against them and against caps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_UNITS = sa.text("state <> 'free'")
_LIVE = sa.text("state = 'live'")


def upgrade() -> None:
    op.create_table(
        "orders",
        sa.Column("buyer", sa.String(length=64), nullable=False),
        sa.Column("week", sa.String(length=10), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("make_up", sa.Integer(), nullable=False),
        sa.Column("updated_utc_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("buyer", "week"),
    )
    op.create_table(
        "admissions",
        sa.Column("transfer", sa.String(length=64), nullable=False),
        sa.Column("router", sa.String(length=64), nullable=False),
        sa.Column("boot", sa.String(length=64), nullable=False),
        sa.Column("buyer", sa.String(length=64), nullable=False),
        sa.Column("phone", sa.String(length=32), nullable=False),
        sa.Column("admitted_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("settled_utc_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("transfer"),
    )
    _index("admissions_by_time", ["buyer", "admitted_utc_us", "state"], _UNITS)
    _index("admissions_by_phone", ["buyer", "phone", "admitted_utc_us"], _UNITS)
    _index("admissions_live", ["buyer"], _LIVE)
    _index("admissions_settled", ["settled_utc_us"], _UNITS)


def downgrade() -> None:
    op.drop_table("admissions")
    op.drop_table("orders")


def _index(name: str, columns: list[str], where: sa.TextClause) -> None:
    op.create_index(name, "admissions", columns, unique=False, sqlite_where=where, postgresql_where=where)
