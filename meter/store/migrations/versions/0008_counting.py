"""Orders that count what was sent, with what they paid in advance and keep; why a buyer is not served."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_NONE = "0"
_HELD = "SELECT 1 FROM documents d WHERE d.buyer = b.name AND d.held_utc_us IS NOT NULL AND d.settled_utc_us IS NULL"
_LAST = "SELECT max(id) FROM buyer_states s WHERE s.buyer = b.name AND s.after = b.state"


def upgrade() -> None:
    op.add_column("orders", sa.Column("paid_units", sa.Integer(), nullable=True))
    op.add_column("orders", sa.Column("connected_percent", sa.Integer(), nullable=True))
    for name in ("make_up_owed", "make_up_units"):
        op.add_column("orders", sa.Column(name, sa.Integer(), nullable=False, server_default=_NONE))
    for name in ("short_counted", "awaiting_counted", "prepaid_units"):
        op.add_column("billing_periods", sa.Column(name, sa.Integer(), nullable=False, server_default=_NONE))
    column = sa.Column("prepaid_minor", sa.BigInteger(), nullable=False, server_default=_NONE)
    op.add_column("billing_periods", column)
    # what was invoiced is frozen: an order of before paid for as many units as it says, whatever it counts
    op.execute("UPDATE orders SET paid_units = quantity WHERE invoice IS NOT NULL")
    op.execute("UPDATE orders SET make_up_owed = make_up, make_up_units = make_up WHERE make_up_minor > 0")
    op.execute("UPDATE billing_periods SET short_counted = short_units, awaiting_counted = awaiting_units")
    op.create_table(
        "buyer_stops",
        sa.Column("buyer", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("since_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("buyer", "reason"),
    )
    _stops()


def _stops() -> None:
    """One reason for each state that stops a buyer; who has an unpaid invoice that has held is `unpaid` besides."""
    by_hand = f"(coalesce(l.\"by\", '') <> '' OR NOT EXISTS ({_HELD}))"
    of_the_cycle = "l.before = 'paused' AND coalesce(l.\"by\", '') = ''"
    _insert("paused", "b.state = 'paused'")
    _insert("cancelled", "b.state = 'cancelled'")
    _insert("held", f"b.state = 'on_hold' AND {by_hand}")
    _insert("unpaid", f"EXISTS ({_HELD})")
    _insert("paused", f"b.state = 'on_hold' AND {of_the_cycle}")
    op.execute(
        "UPDATE buyers SET state = 'on_hold' WHERE state IN ('active', 'paused') AND name IN"
        " (SELECT buyer FROM buyer_stops WHERE reason = 'unpaid')"
    )


def _insert(reason: str, where: str) -> None:
    """For every buyer of which that holds: with who did it, when and why, as its last change of state says."""
    values = "b.name, :reason, coalesce(l.at_utc_us, 0), coalesce(l.\"by\", ''), coalesce(l.reason, '')"
    source = f"buyers b LEFT JOIN buyer_states l ON l.id = ({_LAST})"
    into = 'INSERT INTO buyer_stops (buyer, reason, since_utc_us, "by", why)'
    statement = sa.text(f"{into} SELECT {values} FROM {source} WHERE {where}")  # noqa: S608 - constants of this file
    op.get_bind().execute(statement, {"reason": reason})


def downgrade() -> None:
    op.drop_table("buyer_stops")
    for name in ("prepaid_minor", "prepaid_units", "awaiting_counted", "short_counted"):
        op.drop_column("billing_periods", name)
    for name in ("make_up_units", "make_up_owed", "connected_percent", "paid_units"):
        op.drop_column("orders", name)
