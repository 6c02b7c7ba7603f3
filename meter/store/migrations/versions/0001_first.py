"""The first tables: what `meter.store.schema` holds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _make_book_version()
    _make_boots()
    _make_buyers()
    _make_campaigns()
    _make_endpoints()
    _make_facts()
    _make_meter_cursors()
    _make_outbox()
    _make_outcomes()
    _make_postings()
    _make_suppression_lists()
    _make_terms()


def downgrade() -> None:
    op.drop_table("terms")
    op.drop_table("suppression_lists")
    op.drop_table("postings")
    op.drop_table("outcomes")
    op.drop_table("outbox")
    op.drop_table("meter_cursors")
    op.drop_table("facts")
    op.drop_table("endpoints")
    op.drop_table("campaigns")
    op.drop_table("buyers")
    op.drop_table("boots")
    op.drop_table("book_version")


def _make_book_version() -> None:
    op.create_table(
        "book_version",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def _make_boots() -> None:
    op.create_table(
        "boots",
        sa.Column("router", sa.String(length=64), nullable=False),
        sa.Column("boot", sa.String(length=64), nullable=False),
        sa.Column("started_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("recovered_utc_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("router", "boot"),
    )


def _make_buyers() -> None:
    op.create_table(
        "buyers",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("terms_name", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def _make_campaigns() -> None:
    op.create_table(
        "campaigns",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def _make_endpoints() -> None:
    op.create_table(
        "endpoints",
        sa.Column("buyer", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("buyer", "name"),
    )


def _make_facts() -> None:
    op.create_table(
        "facts",
        sa.Column("router", sa.String(length=64), nullable=False),
        sa.Column("boot", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("transfer", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("utc_us", sa.BigInteger(), nullable=False),
        sa.Column("mono_us", sa.BigInteger(), nullable=False),
        sa.Column("lag_us", sa.BigInteger(), nullable=False),
        sa.Column("origin", sa.String(length=32), nullable=False),
        sa.Column("leg", sa.Integer(), nullable=True),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("router", "boot", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_index("facts_by_transfer", "facts", ["transfer"], unique=False)
    op.create_index(
        "facts_closing",
        "facts",
        ["router", "boot", "seq"],
        unique=False,
        sqlite_where=sa.text("kind = 'transfer_closed'"),
        postgresql_where=sa.text("kind = 'transfer_closed'"),
    )
    op.create_index(
        "facts_started",
        "facts",
        ["router", "boot", "utc_us"],
        unique=False,
        sqlite_where=sa.text("kind = 'transfer_started'"),
        postgresql_where=sa.text("kind = 'transfer_started'"),
    )


def _make_meter_cursors() -> None:
    op.create_table(
        "meter_cursors",
        sa.Column("router", sa.String(length=64), nullable=False),
        sa.Column("boot", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("router", "boot"),
    )


def _make_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=160), nullable=False),
        sa.Column("message_id", sa.String(length=200), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("next_try_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("done_utc_us", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("channel", "message_id", name="outbox_once"),
    )
    op.create_index("outbox_due", "outbox", ["channel", "state", "next_try_utc_us", "created_utc_us"], unique=False)
    op.create_index(
        "outbox_order",
        "outbox",
        ["channel", "key", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )


def _make_outcomes() -> None:
    op.create_table(
        "outcomes",
        sa.Column("transfer", sa.String(length=64), nullable=False),
        sa.Column("router", sa.String(length=64), nullable=False),
        sa.Column("boot", sa.String(length=64), nullable=False),
        sa.Column("call_id", sa.String(length=64), nullable=False),
        sa.Column("sip_call_id", sa.Text(), nullable=False),
        sa.Column("dialer", sa.String(length=64), nullable=False),
        sa.Column("campaign", sa.String(length=64), nullable=False),
        sa.Column("buyer", sa.String(length=64), nullable=False),
        sa.Column("phone", sa.String(length=32), nullable=False),
        sa.Column("started_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("dialout_utc_us", sa.BigInteger(), nullable=True),
        sa.Column("closed_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("verdict", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=False),
        sa.Column("counts_as", sa.String(length=16), nullable=False),
        sa.Column("table_row", sa.Integer(), nullable=False),
        sa.Column("attempt_ms", sa.BigInteger(), nullable=False),
        sa.Column("talk_ms", sa.BigInteger(), nullable=False),
        sa.Column("buffer_ms", sa.BigInteger(), nullable=False),
        sa.Column("evidence", sa.LargeBinary(), nullable=False),
        sa.Column("terms_name", sa.String(length=64), nullable=False),
        sa.Column("terms_version", sa.Integer(), nullable=False),
        sa.Column("agreed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("transfer"),
    )
    op.create_index("outcomes_by_buyer", "outcomes", ["buyer", "started_utc_us"], unique=False)
    op.create_index("outcomes_by_time", "outcomes", ["started_utc_us"], unique=False)


def _make_postings() -> None:
    op.create_table(
        "postings",
        sa.Column("key", sa.String(length=160), nullable=False),
        sa.Column("transfer", sa.String(length=64), nullable=False),
        sa.Column("buyer", sa.String(length=64), nullable=False),
        sa.Column("unit", sa.String(length=16), nullable=False),
        sa.Column("units", sa.Integer(), nullable=False),
        sa.Column("percent", sa.Integer(), nullable=False),
        sa.Column("terms_name", sa.String(length=64), nullable=False),
        sa.Column("terms_version", sa.Integer(), nullable=False),
        sa.Column("dialout_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("posted_utc_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("postings_by_buyer", "postings", ["buyer", "dialout_utc_us"], unique=False)


def _make_suppression_lists() -> None:
    op.create_table(
        "suppression_lists",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("buyer", sa.String(length=64), nullable=True),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("checksum", sa.String(length=64), nullable=False),
        sa.Column("source_checksum", sa.String(length=64), nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("imported_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("imported_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", "version"),
    )


def _make_terms() -> None:
    op.create_table(
        "terms",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("effective_from", sa.String(length=10), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", "version"),
    )
