"""The tables of money, as SQLAlchemy Core, beside those of `meter.store.schema`: ledger, weeks, documents, credits.

What is written once stays: triggers refuse to change or remove a posting, and of a document anything but whether it was
paid and whether it put its buyer on hold. Units of transfers are kept in hundredths of a unit
(`meter.billing.arithmetic.units`),
money in minor units of the contract's currency. Times are integers in microseconds UTC, days ISO dates of the contract.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
    text,
)

from meter.store.guards import KEEP
from meter.store.schema import AutoId, metadata

ledger_heads = Table(  # the end of each buyer's chain; who appends holds its row
    "ledger_heads",
    metadata,
    Column("buyer", String(64), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
)

postings = Table(  # append-only; each moves `amount` of `asset` from the account `credit` to the account `debit`
    "postings",
    metadata,
    Column("buyer", String(64), primary_key=True),
    Column("seq", BigInteger, primary_key=True),  # from 1, without a gap
    Column("key", String(200), nullable=False, unique=True),  # a replay or a restart never charges twice
    Column("rule", String(32), nullable=False),  # meter.ledger.accounts.Rule
    Column("debit", String(32), nullable=False),
    Column("credit", String(32), nullable=False),
    Column("asset", String(16), nullable=False),  # ISO 4217 code; unit: hundredths of one; increment: started ones
    Column("amount", BigInteger, nullable=False),  # never negative
    Column("transfer", String(64)),
    Column("unit", String(16)),  # connected or failed
    Column("units", Integer, nullable=False),  # transfers or increments that this counts for; a reversal takes away
    Column("percent", Integer),  # in force at dial-out
    Column("price_minor", BigInteger),  # of one increment, in force at dial-out
    Column("terms_name", String(64), nullable=False),
    Column("terms_version", Integer, nullable=False),
    Column("dialout_utc_us", BigInteger),
    Column("period", String(10)),  # the service week's Monday, or the month, such as 2026-06
    Column("document", String(32)),  # number of the document that says so
    Column("reverses", String(200)),  # key
    Column("reason", Text, nullable=False),
    Column("by", Text, nullable=False),  # who; empty for the meter itself
    Column("posted_utc_us", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Index(
        "postings_by_dialout",
        "buyer",
        "dialout_utc_us",
        sqlite_where=text("dialout_utc_us IS NOT NULL"),
        postgresql_where=text("dialout_utc_us IS NOT NULL"),
    ),
    Index(
        "postings_by_transfer",
        "transfer",
        sqlite_where=text("transfer IS NOT NULL"),
        postgresql_where=text("transfer IS NOT NULL"),
    ),
    Index(  # balances: few rows beside those of transfers
        "postings_of_money",
        "buyer",
        "asset",
        sqlite_where=text("dialout_utc_us IS NULL"),
        postgresql_where=text("dialout_utc_us IS NULL"),
    ),
    Index(
        "postings_by_document",
        "document",
        sqlite_where=text("document IS NOT NULL"),
        postgresql_where=text("document IS NOT NULL"),
    ),
    sqlite_with_rowid=False,
)

document_series = Table(  # who issues holds its row, so that numbers have no gaps
    "document_series",
    metadata,
    Column("series", String(16), primary_key=True),  # invoice, credit_note, statement
    Column("last", Integer, nullable=False),
)

documents = Table(
    "documents",
    metadata,
    Column("number", String(32), primary_key=True),
    Column("series", String(16), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("key", String(160), nullable=False, unique=True),  # what it is for: no invoice is issued twice
    Column("buyer", String(64), nullable=False),
    Column("kind", String(16), nullable=False),  # order, overage, setup, month, credit_note, week
    Column("period", String(10)),  # as of postings
    Column("currency", String(3), nullable=False),
    Column("issued_utc_us", BigInteger, nullable=False),
    Column("issued_on", String(10), nullable=False),
    Column("due_utc_us", BigInteger),  # null: nothing is asked for
    Column("total_minor", BigInteger, nullable=False),
    Column("applied_minor", BigInteger, nullable=False),  # open credits used
    Column("body", LargeBinary, nullable=False),  # canonical JSON: everything that HTML, PDF and CSV show
    Column("digest", String(64), nullable=False),  # SHA-256 of the body, hex
    Column("settled_utc_us", BigInteger),  # paid in full; null: open
    Column("held_utc_us", BigInteger),  # when it put its buyer on hold
    UniqueConstraint("series", "sequence", name="documents_in_order"),
    Index("documents_by_buyer", "buyer", "issued_utc_us"),
    Index("documents_by_time", "issued_utc_us"),
    Index(
        "documents_open",
        "due_utc_us",
        sqlite_where=text("settled_utc_us IS NULL AND due_utc_us IS NOT NULL"),
        postgresql_where=text("settled_utc_us IS NULL AND due_utc_us IS NOT NULL"),
    ),
)

INVOICE_IS_OPEN = documents.c.settled_utc_us.is_(None) & documents.c.due_utc_us.is_not(None)  # asked for and not paid

document_files = Table(  # as first rendered: what was sent is what is shown
    "document_files",
    metadata,
    Column("number", String(32), primary_key=True),
    Column("format", String(8), primary_key=True),  # html, pdf
    Column("content", LargeBinary, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("made_utc_us", BigInteger, nullable=False),
)

billing_periods = (
    Table(  # a settled service week, or month; a week's remedy is filled in on Tuesday, or once it is paid
        "billing_periods",
        metadata,
        Column("buyer", String(64), primary_key=True),
        Column("period", String(10), primary_key=True),  # a Monday, or a month such as 2026-06
        Column("end_utc_us", BigInteger, nullable=False),
        Column(
            "through_seq", BigInteger, nullable=False
        ),  # units posted up to here with a dial-out before the end are in
        Column("connected_hundredths", BigInteger, nullable=False),  # sum of unit x percentage, of all weeks so far
        Column("failed_hundredths", BigInteger, nullable=False),
        Column("body", LargeBinary, nullable=False),  # canonical JSON: the result with all its figures
        Column("short_counted", Integer, nullable=False, server_default="0"),  # short, as the order counts
        Column("short_units", Integer, nullable=False),  # and in billed units that were paid for
        Column("short_minor", BigInteger, nullable=False),
        Column("awaiting_counted", Integer, nullable=False, server_default="0"),  # short of an order that is not paid
        Column("awaiting_units", Integer, nullable=False),
        Column("awaiting_minor", BigInteger, nullable=False),
        Column("prepaid_units", Integer, nullable=False, server_default="0"),  # paid for, kept for weeks to come
        Column("prepaid_minor", BigInteger, nullable=False, server_default="0"),
        Column("document", String(32), nullable=False),  # the week's statement, the month's invoice
        Column("overage", String(32)),  # the week's invoice, where there is one
        Column("settled_utc_us", BigInteger, nullable=False),
        Column("remedy", String(16)),  # what became of `short_*`; null: nothing yet, or nothing to do
        Column("remedied_utc_us", BigInteger),
        Column("awaited", String(16)),  # the same of `awaiting_*`: a remedy, or cancelled
        Column("awaited_utc_us", BigInteger),
        Index(
            "billing_periods_open",
            "buyer",
            sqlite_where=text("remedied_utc_us IS NULL OR awaited_utc_us IS NULL"),
            postgresql_where=text("remedied_utc_us IS NULL OR awaited_utc_us IS NULL"),
        ),
    )
)

remedies = Table(  # append-only: the buyer's choices
    "remedies",
    metadata,
    Column("id", AutoId, primary_key=True, autoincrement=True),
    Column("buyer", String(64), nullable=False),
    Column("week", String(10)),  # null: the standing choice
    Column("remedy", String(16), nullable=False),
    Column("at_utc_us", BigInteger, nullable=False),
    Column("by", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Index("remedies_by_buyer", "buyer", "id"),
)

payments = Table(
    "payments",
    metadata,
    Column("id", AutoId, primary_key=True, autoincrement=True),
    Column("buyer", String(64), nullable=False),
    Column("document", String(32)),  # the invoice it was meant for; null: the oldest that is open
    Column("reference", String(120), nullable=False),  # of the bank or the cheque: the same one is recorded once
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("received_on", String(10), nullable=False),
    Column("method", String(32), nullable=False),
    Column("note", Text, nullable=False),
    Column("recorded_utc_us", BigInteger, nullable=False),
    Column("by", Text, nullable=False),
    Column("reversed_utc_us", BigInteger),
    Column("reversed_by", Text),
    Column("reversed_why", Text),
    UniqueConstraint("buyer", "reference", name="payments_once"),
)

refunds = Table(  # the operator's worklist of checks to send
    "refunds",
    metadata,
    Column("id", AutoId, primary_key=True, autoincrement=True),
    Column("key", String(160), nullable=False, unique=True),
    Column("buyer", String(64), nullable=False),
    Column("week", String(10)),  # whose shortfall it is; null: open credits that are paid out
    Column("units", Integer, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("due_on", String(10), nullable=False),
    Column("created_utc_us", BigInteger, nullable=False),
    Column("paid_utc_us", BigInteger),
    Column("paid_by", Text),
    Column("reference", Text),  # number of the check
    Index(
        "refunds_due", "due_on", sqlite_where=text("paid_utc_us IS NULL"), postgresql_where=text("paid_utc_us IS NULL")
    ),
)

buyer_states = Table(  # append-only: who held, paused, resumed or cancelled a buyer, and why
    "buyer_states",
    metadata,
    Column("id", AutoId, primary_key=True, autoincrement=True),
    Column("buyer", String(64), nullable=False),
    Column("at_utc_us", BigInteger, nullable=False),
    Column("before", String(16), nullable=False),
    Column("after", String(16), nullable=False),
    Column("by", Text, nullable=False),  # empty: the weekly cycle
    Column("reason", Text, nullable=False),
    Index("buyer_states_by_buyer", "buyer", "id"),
)

buyer_stops = Table(  # why a buyer is not served: a set, of which its state follows
    "buyer_stops",
    metadata,
    Column("buyer", String(64), primary_key=True),
    Column("reason", String(16), primary_key=True),  # unpaid, held, paused, cancelled
    Column("since_utc_us", BigInteger, nullable=False),
    Column("by", Text, nullable=False),  # empty: the weekly cycle
    Column("why", Text, nullable=False),
)

chain_heads = Table(  # the ends of all chains, a day: what was sent out of the store
    "chain_heads",
    metadata,
    Column("day", String(10), primary_key=True),  # UTC
    Column("body", LargeBinary, nullable=False),  # canonical JSON
    Column("digest", String(64), nullable=False),  # SHA-256 of it, hex
    Column("made_utc_us", BigInteger, nullable=False),
)

credit_requests = Table(
    "credit_requests",
    metadata,
    Column("id", AutoId, primary_key=True, autoincrement=True),  # their order is the order of review
    Column("transfer", String(64), nullable=False),
    Column("buyer", String(64), nullable=False),
    Column("level", Integer, nullable=False),  # 1: the request; 2: its re-review
    Column("first", Integer),  # of a re-review: the id of the request
    Column("reason", String(64), nullable=False),
    Column("words", Text, nullable=False),
    Column("asked_utc_us", BigInteger, nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("state", String(16), nullable=False),  # open, approved, declined
    Column("decided_utc_us", BigInteger),
    Column("decided_by", Text),
    Column("explanation", Text),
    Column("amount_minor", BigInteger),
    Column("currency", String(3)),
    Column("posting", String(200)),  # key
    Index(
        "credit_requests_open",
        "transfer",
        unique=True,
        sqlite_where=text("state = 'open'"),
        postgresql_where=text("state = 'open'"),
    ),
    Index("credit_requests_by_buyer", "buyer", "id"),
    UniqueConstraint("transfer", "level", name="credit_requests_once"),
)

interactions = Table(  # of buyers who pay by the minute: calls, e-mails, chats
    "interactions",
    metadata,
    Column("id", String(64), primary_key=True),  # a call's is its transfer
    Column("buyer", String(64), nullable=False),
    Column("kind", String(8), nullable=False),  # call, email, chat
    Column("reference", String(120), nullable=False),  # of who reported it: the same one is kept once
    Column("checksum", String(64), nullable=False),  # SHA-256 of what was reported, hex
    Column("agent", String(64), nullable=False),  # of a call: the endpoint that answered
    Column(
        "customer", Text, nullable=False
    ),  # address or number of who was served; for the link that asks for a rating
    Column("received_utc_us", BigInteger, nullable=False),
    Column("started_utc_us", BigInteger),  # answered, or work begun; null: nobody did
    Column("ended_utc_us", BigInteger),
    Column("handled_ms", BigInteger, nullable=False),
    Column("resolved", Boolean, nullable=False),
    Column("ring_to_answer_ms", Integer),  # of a call: first 18x to the answer; not answered: until the caller left
    Column("longest_hold_ms", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Column("recording", Text, nullable=False),
    Column("increments", Integer, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("created_utc_us", BigInteger, nullable=False),
    UniqueConstraint("buyer", "kind", "reference", name="interactions_once"),
    Index("interactions_by_time", "buyer", "received_utc_us"),
)

ratings = Table(  # append-only: the last of each kind holds
    "ratings",
    metadata,
    Column("id", AutoId, primary_key=True, autoincrement=True),
    Column("interaction", String(64), nullable=False),
    Column("kind", String(8), nullable=False),  # quality or caller
    Column("rating", Integer, nullable=False),  # 1 to 5
    Column("words", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("at_utc_us", BigInteger, nullable=False),
    Index("ratings_by_interaction", "interaction", "id"),
)

reports = Table(  # the daily report, as issued
    "reports",
    metadata,
    Column("buyer", String(64), primary_key=True),
    Column("day", String(10), primary_key=True),  # on which it ends
    Column("from_utc_us", BigInteger, nullable=False),
    Column("until_utc_us", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),  # canonical JSON
    Column("digest", String(64), nullable=False),
    Column("issued_utc_us", BigInteger, nullable=False),
)

mail_bounces = Table(
    "mail_bounces",
    metadata,
    Column("id", AutoId, primary_key=True, autoincrement=True),
    Column("at_utc_us", BigInteger, nullable=False),
    Column("message_id", String(200), nullable=False),  # of the outbox; empty where the report names none of ours
    Column("recipient", Text, nullable=False),
    Column("permanent", Boolean, nullable=False),
    Column("status", String(16), nullable=False),  # RFC 3463
    Column("diagnostic", Text, nullable=False),
    Column("checksum", String(64), nullable=False, unique=True),  # SHA-256 of the report, hex: a repeat is one
    Index("mail_bounces_by_message", "message_id"),
)

for _table in (postings, documents, remedies, buyer_states, ratings):

    @event.listens_for(_table, "after_create")
    def _keep(table: Table, connection: Connection, **_options: object) -> None:
        for statement in KEEP[table.name][connection.dialect.name]:
            connection.exec_driver_sql(statement)
