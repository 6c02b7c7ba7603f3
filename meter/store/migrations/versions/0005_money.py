"""The tables of money: ledger, weeks, documents, payments, credits.

The postings of units that are there become the first links of their buyers' chains, in the order in which they were
posted: the table is made anew, and each row moves its hundredths of a unit from `delivered` to what is not billed yet.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
import sqlalchemy as sa
from alembic import op

from meter.store.guards import KEEP

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_PAGE = 500
_TABLES = (
    "postings",
    "billing_periods",
    "buyer_states",
    "credit_requests",
    "document_files",
    "document_series",
    "documents",
    "ledger_heads",
    "payments",
    "refunds",
    "remedies",
)
_OF_ORDERS = (
    "make_up_minor",
    "invoice",
    "price_minor",
    "order_counts",
    "overrun_percent",
    "terms_name",
    "terms_version",
)
_OLD = (
    "key",
    "transfer",
    "buyer",
    "unit",
    "units",
    "percent",
    "terms_name",
    "terms_version",
    "dialout_utc_us",
    "posted_utc_us",
)


def upgrade() -> None:
    rows = _take_postings()
    op.add_column("orders", sa.Column("make_up_minor", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("orders", sa.Column("invoice", sa.String(length=32), nullable=True))
    op.add_column("orders", sa.Column("price_minor", sa.BigInteger(), nullable=True))
    op.add_column("orders", sa.Column("order_counts", sa.String(length=8), nullable=True))
    op.add_column("orders", sa.Column("overrun_percent", sa.Integer(), nullable=True))
    op.add_column("orders", sa.Column("terms_name", sa.String(length=64), nullable=True))
    op.add_column("orders", sa.Column("terms_version", sa.Integer(), nullable=True))
    _make_postings()
    _make_more()
    _chain(rows)
    dialect = op.get_bind().dialect.name
    for table in ("postings", "documents", "remedies", "buyer_states"):
        for statement in KEEP[table][dialect]:
            op.execute(statement)


def downgrade() -> None:
    """Only units can go back: where there is money the ledger would be lost."""
    bind = op.get_bind()
    money = "SELECT 1 FROM postings WHERE rule <> 'unit' UNION ALL SELECT 1 FROM documents LIMIT 1"
    if bind.execute(sa.text(money)).first() is not None:
        raise RuntimeError("the ledger holds money, which an older Baton would lose: restore a backup instead")
    kept = ", ".join(_OLD)
    rows = [dict(row) for row in bind.execute(sa.text(f"SELECT {kept} FROM postings")).mappings()]  # noqa: S608
    for name in _TABLES:
        op.drop_table(name)
    with op.batch_alter_table("orders") as batch:
        for name in _OF_ORDERS:
            batch.drop_column(name)
    columns = (
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
    )
    table = op.create_table("postings", *columns, sa.PrimaryKeyConstraint("key"))
    op.create_index("postings_by_buyer", "postings", ["buyer", "dialout_utc_us"], unique=False)
    if table is not None:
        for at in range(0, len(rows), _PAGE):
            op.bulk_insert(table, rows[at : at + _PAGE])


def _take_postings() -> list[dict[str, Any]]:
    """The rows there are, and the table gone: their key's index has no name by which it could be dropped."""
    query = "SELECT * FROM postings ORDER BY buyer, posted_utc_us, dialout_utc_us, key"
    rows = [dict(row) for row in op.get_bind().execute(sa.text(query)).mappings()]
    op.drop_table("postings")
    return rows


def _chain(rows: list[dict[str, Any]]) -> None:
    columns = [one["name"] for one in sa.inspect(op.get_bind()).get_columns("postings")]
    table = sa.table("postings", *(sa.column(name) for name in columns))
    heads: dict[str, tuple[int, bytes]] = {}
    made = []
    for row in rows:
        seq, previous = heads.get(row["buyer"], (0, bytes(32)))
        whole: dict[str, Any] = dict.fromkeys(columns) | row
        whole |= {"seq": seq + 1, "rule": "unit", "debit": f"unbilled_{row['unit']}", "credit": "delivered"}
        whole |= {"asset": "unit", "amount": row["percent"] * row["units"], "reason": "", "by": ""}
        said = orjson.dumps([whole[name] for name in columns if name != "digest"])
        whole["digest"] = hashlib.sha256(previous + said).digest()
        heads[row["buyer"]] = (seq + 1, whole["digest"])
        made.append(whole)
    for at in range(0, len(made), _PAGE):
        op.bulk_insert(table, made[at : at + _PAGE])
    ends = sa.table("ledger_heads", sa.column("buyer"), sa.column("seq"), sa.column("digest"))
    op.bulk_insert(ends, [{"buyer": buyer, "seq": seq, "digest": digest} for buyer, (seq, digest) in heads.items()])


def _make_postings() -> None:
    op.create_table(
        "postings",
        sa.Column("buyer", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("rule", sa.String(length=32), nullable=False),
        sa.Column("debit", sa.String(length=32), nullable=False),
        sa.Column("credit", sa.String(length=32), nullable=False),
        sa.Column("asset", sa.String(length=16), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("transfer", sa.String(length=64), nullable=True),
        sa.Column("unit", sa.String(length=16), nullable=True),
        sa.Column("units", sa.Integer(), nullable=False),
        sa.Column("percent", sa.Integer(), nullable=True),
        sa.Column("price_minor", sa.BigInteger(), nullable=True),
        sa.Column("terms_name", sa.String(length=64), nullable=False),
        sa.Column("terms_version", sa.Integer(), nullable=False),
        sa.Column("dialout_utc_us", sa.BigInteger(), nullable=True),
        sa.Column("period", sa.String(length=10), nullable=True),
        sa.Column("document", sa.String(length=32), nullable=True),
        sa.Column("reverses", sa.String(length=200), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("posted_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("buyer", "seq"),
        sa.UniqueConstraint("key"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "postings_by_dialout",
        "postings",
        ["buyer", "dialout_utc_us"],
        unique=False,
        sqlite_where=sa.text("dialout_utc_us IS NOT NULL"),
        postgresql_where=sa.text("dialout_utc_us IS NOT NULL"),
    )
    op.create_index(
        "postings_by_document",
        "postings",
        ["document"],
        unique=False,
        sqlite_where=sa.text("document IS NOT NULL"),
        postgresql_where=sa.text("document IS NOT NULL"),
    )
    op.create_index(
        "postings_by_transfer",
        "postings",
        ["transfer"],
        unique=False,
        sqlite_where=sa.text("transfer IS NOT NULL"),
        postgresql_where=sa.text("transfer IS NOT NULL"),
    )
    op.create_index(
        "postings_of_money",
        "postings",
        ["buyer", "asset"],
        unique=False,
        sqlite_where=sa.text("dialout_utc_us IS NULL"),
        postgresql_where=sa.text("dialout_utc_us IS NULL"),
    )


def _make_more() -> None:
    op.create_table(
        "billing_periods",
        sa.Column("buyer", sa.String(length=64), nullable=False),
        sa.Column("period", sa.String(length=10), nullable=False),
        sa.Column("end_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("through_seq", sa.BigInteger(), nullable=False),
        sa.Column("connected_hundredths", sa.BigInteger(), nullable=False),
        sa.Column("failed_hundredths", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("short_units", sa.Integer(), nullable=False),
        sa.Column("short_minor", sa.BigInteger(), nullable=False),
        sa.Column("awaiting_units", sa.Integer(), nullable=False),
        sa.Column("awaiting_minor", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.String(length=32), nullable=False),
        sa.Column("overage", sa.String(length=32), nullable=True),
        sa.Column("settled_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("remedy", sa.String(length=16), nullable=True),
        sa.Column("remedied_utc_us", sa.BigInteger(), nullable=True),
        sa.Column("awaited", sa.String(length=16), nullable=True),
        sa.Column("awaited_utc_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("buyer", "period"),
    )
    op.create_index(
        "billing_periods_open",
        "billing_periods",
        ["buyer"],
        unique=False,
        sqlite_where=sa.text("remedied_utc_us IS NULL OR awaited_utc_us IS NULL"),
        postgresql_where=sa.text("remedied_utc_us IS NULL OR awaited_utc_us IS NULL"),
    )
    op.create_table(
        "buyer_states",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("buyer", sa.String(length=64), nullable=False),
        sa.Column("at_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("before", sa.String(length=16), nullable=False),
        sa.Column("after", sa.String(length=16), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("buyer_states_by_buyer", "buyer_states", ["buyer", "id"], unique=False)
    op.create_table(
        "credit_requests",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("transfer", sa.String(length=64), nullable=False),
        sa.Column("buyer", sa.String(length=64), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("first", sa.Integer(), nullable=True),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("words", sa.Text(), nullable=False),
        sa.Column("asked_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("decided_utc_us", sa.BigInteger(), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("explanation", sa.Text(), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.String(length=3), nullable=True),
        sa.Column("posting", sa.String(length=200), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("transfer", "level", name="credit_requests_once"),
    )
    op.create_index("credit_requests_by_buyer", "credit_requests", ["buyer", "id"], unique=False)
    op.create_index(
        "credit_requests_open",
        "credit_requests",
        ["transfer"],
        unique=True,
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_table(
        "document_files",
        sa.Column("number", sa.String(length=32), nullable=False),
        sa.Column("format", sa.String(length=8), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("made_utc_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", "format"),
    )
    op.create_table(
        "document_series",
        sa.Column("series", sa.String(length=16), nullable=False),
        sa.Column("last", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("series"),
    )
    op.create_table(
        "documents",
        sa.Column("number", sa.String(length=32), nullable=False),
        sa.Column("series", sa.String(length=16), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=160), nullable=False),
        sa.Column("buyer", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("period", sa.String(length=10), nullable=True),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("issued_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("issued_on", sa.String(length=10), nullable=False),
        sa.Column("due_utc_us", sa.BigInteger(), nullable=True),
        sa.Column("total_minor", sa.BigInteger(), nullable=False),
        sa.Column("applied_minor", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("settled_utc_us", sa.BigInteger(), nullable=True),
        sa.Column("held_utc_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("key"),
        sa.UniqueConstraint("series", "sequence", name="documents_in_order"),
    )
    op.create_index("documents_by_time", "documents", ["issued_utc_us"], unique=False)
    op.create_index("documents_by_buyer", "documents", ["buyer", "issued_utc_us"], unique=False)
    op.create_index(
        "documents_open",
        "documents",
        ["due_utc_us"],
        unique=False,
        sqlite_where=sa.text("settled_utc_us IS NULL AND due_utc_us IS NOT NULL"),
        postgresql_where=sa.text("settled_utc_us IS NULL AND due_utc_us IS NOT NULL"),
    )
    op.create_table(
        "ledger_heads",
        sa.Column("buyer", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("buyer"),
    )
    op.create_table(
        "payments",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("buyer", sa.String(length=64), nullable=False),
        sa.Column("document", sa.String(length=32), nullable=True),
        sa.Column("reference", sa.String(length=120), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("received_on", sa.String(length=10), nullable=False),
        sa.Column("method", sa.String(length=32), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("recorded_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("reversed_utc_us", sa.BigInteger(), nullable=True),
        sa.Column("reversed_by", sa.Text(), nullable=True),
        sa.Column("reversed_why", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("buyer", "reference", name="payments_once"),
    )
    op.create_table(
        "refunds",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("key", sa.String(length=160), nullable=False),
        sa.Column("buyer", sa.String(length=64), nullable=False),
        sa.Column("week", sa.String(length=10), nullable=True),
        sa.Column("units", sa.Integer(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("due_on", sa.String(length=10), nullable=False),
        sa.Column("created_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("paid_utc_us", sa.BigInteger(), nullable=True),
        sa.Column("paid_by", sa.Text(), nullable=True),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
    )
    op.create_index(
        "refunds_due",
        "refunds",
        ["due_on"],
        unique=False,
        sqlite_where=sa.text("paid_utc_us IS NULL"),
        postgresql_where=sa.text("paid_utc_us IS NULL"),
    )
    op.create_table(
        "remedies",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("buyer", sa.String(length=64), nullable=False),
        sa.Column("week", sa.String(length=10), nullable=True),
        sa.Column("remedy", sa.String(length=16), nullable=False),
        sa.Column("at_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("remedies_by_buyer", "remedies", ["buyer", "id"], unique=False)
