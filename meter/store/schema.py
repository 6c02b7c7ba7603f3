"""The tables, as SQLAlchemy Core. SQLite by default; types are chosen so that PostgreSQL takes them unchanged.

Times are integers in microseconds UTC (`_utc_us`) or of a boot's monotonic clock (`_mono_us`). Documents are JSON
bytes. Migrations in `meter/store/migrations` make these; a test compares the two.
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
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
    text,
)

metadata = MetaData()

# SQLite gives only INTEGER PRIMARY KEY its own row id.
AutoId = BigInteger().with_variant(Integer(), "sqlite")

boots = Table(
    "boots",
    metadata,
    Column("router", String(64), primary_key=True),
    Column("boot", String(64), primary_key=True),
    Column("started_utc_us", BigInteger, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("recovered_utc_us", BigInteger),  # set once the boot is over and its open transfers are closed
)

facts = Table(
    "facts",
    metadata,
    Column("router", String(64), primary_key=True),
    Column("boot", String(64), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("transfer", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("utc_us", BigInteger, nullable=False),
    Column("mono_us", BigInteger, nullable=False),
    Column("lag_us", BigInteger, nullable=False),
    Column("origin", String(32), nullable=False),
    Column("leg", Integer),
    Column("payload", LargeBinary, nullable=False),  # canonical JSON
    Column("digest", LargeBinary, nullable=False),
    Index("facts_by_transfer", "transfer"),
    Index(
        "facts_closing",
        "router",
        "boot",
        "seq",
        sqlite_where=text("kind = 'transfer_closed'"),
        postgresql_where=text("kind = 'transfer_closed'"),
    ),
    Index(  # recovery and the list of open transfers find what was started without reading every fact
        "facts_started",
        "router",
        "boot",
        "utc_us",
        sqlite_where=text("kind = 'transfer_started'"),
        postgresql_where=text("kind = 'transfer_started'"),
    ),
    sqlite_with_rowid=False,
)

meter_cursors = Table(
    "meter_cursors",
    metadata,
    Column("router", String(64), primary_key=True),
    Column("boot", String(64), primary_key=True),
    Column("seq", BigInteger, nullable=False),  # the last closing fact that was settled
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("transfer", String(64), primary_key=True),
    Column("router", String(64), nullable=False),
    Column("boot", String(64), nullable=False),
    Column("call_id", String(64), nullable=False),  # shared by the transfers of one prospect
    Column("sip_call_id", Text, nullable=False),  # Call-ID of the dialer's INVITE
    Column("dialer", String(64), nullable=False),
    Column("campaign", String(64), nullable=False),
    Column("buyer", String(64), nullable=False),  # empty where none was found
    Column("phone", String(32), nullable=False),  # the prospect's, E.164; empty where none was given
    Column("started_utc_us", BigInteger, nullable=False),
    Column("dialout_utc_us", BigInteger),  # null where no INVITE left
    Column("closed_utc_us", BigInteger, nullable=False),
    Column("verdict", String(32), nullable=False),
    Column("reason", String(32), nullable=False),
    Column("counts_as", String(16), nullable=False),
    Column("table_row", Integer, nullable=False),
    Column("attempt_ms", BigInteger, nullable=False),
    Column("talk_ms", BigInteger, nullable=False),
    Column("buffer_ms", BigInteger, nullable=False),
    Column("evidence", LargeBinary, nullable=False),  # JSON list of sequence numbers
    Column("terms_name", String(64), nullable=False),
    Column("terms_version", Integer, nullable=False),
    Column("agreed", Boolean, nullable=False),  # the router's verdict in the closing fact was the same
    Index("outcomes_by_buyer", "buyer", "started_utc_us"),
    Index("outcomes_by_time", "started_utc_us"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", AutoId, primary_key=True, autoincrement=True),
    Column("channel", String(16), nullable=False),  # mail, mqtt
    Column("key", String(160), nullable=False),  # order is kept per key
    Column("message_id", String(200), nullable=False),  # stable: a repeat is recognised by it
    Column("payload", LargeBinary, nullable=False),
    Column("state", String(16), nullable=False),  # pending, done, dead, waiting
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("created_utc_us", BigInteger, nullable=False),
    Column("next_try_utc_us", BigInteger, nullable=False),
    Column("done_utc_us", BigInteger),
    Column("error", Text),
    Column("waits_for", String(160)),  # of an e-mail without anybody to go to: which addresses, of which buyer
    UniqueConstraint("channel", "message_id", name="outbox_once"),
    Index("outbox_due", "channel", "state", "next_try_utc_us", "created_utc_us"),  # the last for the age of the oldest
    Index(  # the head of each key's queue
        "outbox_order",
        "channel",
        "key",
        "id",
        sqlite_where=text("state = 'pending'"),
        postgresql_where=text("state = 'pending'"),
    ),
    Index(
        "outbox_waiting",
        "waits_for",
        sqlite_where=text("state = 'waiting'"),
        postgresql_where=text("state = 'waiting'"),
    ),
)

mail_recipients = Table(  # how each address of an e-mail stands that was tried once or more
    "mail_recipients",
    metadata,
    Column("message_id", String(200), primary_key=True),  # of the outbox
    Column("address", String(320), primary_key=True),  # as the message names it
    Column("state", String(16), nullable=False),  # taken, retried, refused; handed, of no address
    Column("attempts", Integer, nullable=False),
    Column("at_utc_us", BigInteger, nullable=False),  # of the last attempt
    Column("next_try_utc_us", BigInteger, nullable=False),  # while it is retried
    Column("code", Integer, nullable=False),  # of the server's last reply; 0: it was none of its
    Column("said", Text, nullable=False),
)

buyers = Table(
    "buyers",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("document", LargeBinary, nullable=False),  # book.model.Buyer less state, terms and endpoints
    Column("terms_name", String(64), nullable=False),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("buyer", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("document", LargeBinary, nullable=False),  # book.model.Endpoint
)

campaigns = Table(
    "campaigns",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("document", LargeBinary, nullable=False),  # book.model.Campaign
)

terms = Table(
    "terms",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("effective_from", String(10), nullable=False),  # ISO date in the terms' time zone
    Column("document", LargeBinary, nullable=False),  # book.model.Terms
)

book_version = Table(
    "book_version",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1
    Column("version", BigInteger, nullable=False),
)

suppression_lists = Table(
    "suppression_lists",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("revision", Integer, nullable=False),  # changes made to it by hand since; 0: none
    Column("state", String(64), nullable=False),  # SHA-256, hex: the checksum, or the last change's state
    Column("buyer", String(64)),  # null: global
    Column("kind", String(16), nullable=False),  # what the entries are: number, md5, sha1, sha256
    Column("file", Text, nullable=False),  # relative to the data folder
    Column("checksum", String(64), nullable=False),  # SHA-256 of the file, hex
    Column("source", Text, nullable=False),  # name of what was imported; empty where that was not kept
    Column("source_checksum", String(64), nullable=False),
    Column("entries", BigInteger, nullable=False),  # in the file
    Column("count", BigInteger, nullable=False),  # with the changes
    Column("active", Boolean, nullable=False),
    Column("expires_utc_us", BigInteger),  # the whole list; null: never
    Column("imported_utc_us", BigInteger, nullable=False),
    Column("imported_by", Text, nullable=False),
    Column("based_on", Integer),  # the version it was made of, with its changes; null: it stands for itself
    Column("stamp", BigInteger, nullable=False),
    Index("suppression_lists_by_stamp", "stamp"),
    Index(  # one version in force per list
        "suppression_lists_in_force",
        "name",
        unique=True,
        sqlite_where=text("active"),
        postgresql_where=text("active"),
    ),
)

suppression_changes = Table(
    "suppression_changes",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("document", LargeBinary, nullable=False),  # suppression.changes
    Column("state", String(64), nullable=False),  # SHA-256, hex: of the state before, a newline, the document
    Column("at_utc_us", BigInteger, nullable=False),
    Column("by", Text, nullable=False),
    Column("origin", Text, nullable=False),  # cli:HOST, api:ADDRESS, meter
    Column("stamp", BigInteger, nullable=False),
    Index("suppression_changes_by_stamp", "stamp"),
)

suppression_exemptions = Table(  # who is on a global list and may be transferred all the same
    "suppression_exemptions",
    metadata,
    Column("id", AutoId, primary_key=True, autoincrement=True),
    Column("name", String(64), nullable=False),  # the global list
    Column("number", BigInteger, nullable=False),  # E.164 digits
    Column("buyer", String(64)),  # null: for every buyer
    Column("reason", Text, nullable=False),
    Column("expires_utc_us", BigInteger, nullable=False),
    Column("added_utc_us", BigInteger, nullable=False),
    Column("added_by", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("revoked_utc_us", BigInteger),
    Column("revoked_by", Text),
    Column("stamp", BigInteger, nullable=False),
    Index("suppression_exemptions_by_stamp", "stamp"),
)

suppression_sets = Table(  # which lists a scrub consulted; facts name them by digest
    "suppression_sets",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256 of the document, hex
    Column("document", LargeBinary, nullable=False),
    Column("first_utc_us", BigInteger, nullable=False),
)

suppression_log = Table(  # append-only: triggers refuse everything else
    "suppression_log",
    metadata,
    Column("id", AutoId, primary_key=True, autoincrement=True),
    Column("at_utc_us", BigInteger, nullable=False),
    Column("name", Text, nullable=False),  # as it was given: of a refused list it may be no list's name
    Column("action", String(32), nullable=False),
    Column("by", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("version", Integer),
    Column("revision", Integer),
    Column("before", BigInteger),  # entries in force
    Column("after", BigInteger),
    Column("detail", LargeBinary, nullable=False),  # JSON object
    Index("suppression_log_by_name", "name", "id"),
)

suppression_state = Table(
    "suppression_state",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1
    Column("stamp", BigInteger, nullable=False),  # of the last transaction that changed anything above but the log
)

suppression_stamps = Table(  # all there were: a store that lacks one that was seen was restored from a copy
    "suppression_stamps",
    metadata,
    Column("stamp", BigInteger, primary_key=True, autoincrement=False),
)

_REFUSE = "BEGIN SELECT RAISE(ABORT, 'suppression_log is append-only'); END"
_IS_THERE = "EXISTS (SELECT 1 FROM suppression_log WHERE id = NEW.id)"
_RAISE = "$$ BEGIN RAISE EXCEPTION 'suppression_log is append-only'; END $$"
_CHANGED = "UPDATE OR DELETE OR TRUNCATE ON suppression_log"
_LOG_STAYS = {
    "sqlite": (
        f"CREATE TRIGGER suppression_log_no_update BEFORE UPDATE ON suppression_log {_REFUSE}",
        f"CREATE TRIGGER suppression_log_no_delete BEFORE DELETE ON suppression_log {_REFUSE}",
        # INSERT OR REPLACE deletes without asking the trigger above
        f"CREATE TRIGGER suppression_log_no_replace BEFORE INSERT ON suppression_log WHEN {_IS_THERE} {_REFUSE}",
    ),
    "postgresql": (
        f"CREATE OR REPLACE FUNCTION suppression_log_stays() RETURNS trigger LANGUAGE plpgsql AS {_RAISE}",
        f"CREATE TRIGGER suppression_log_stays BEFORE {_CHANGED} EXECUTE FUNCTION suppression_log_stays()",
    ),
}


@event.listens_for(suppression_log, "after_create")
def _keep_log(_table: Table, connection: Connection, **_options: object) -> None:
    for statement in _LOG_STAYS[connection.dialect.name]:
        connection.exec_driver_sql(statement)


orders = Table(
    "orders",
    metadata,
    Column("buyer", String(64), primary_key=True),
    Column("week", String(10), primary_key=True),  # ISO date of the Monday on which it begins, in the terms' zone
    Column("quantity", Integer, nullable=False),  # as the order counts: live transfers as sent, or billed units
    Column("make_up", Integer, nullable=False),  # free on top
    Column("make_up_owed", Integer, nullable=False, server_default="0"),  # of these: short in weeks before, no presents
    Column("make_up_units", Integer, nullable=False, server_default="0"),  # billed units that these were worth
    Column("make_up_minor", BigInteger, nullable=False, server_default="0"),  # what was paid for these, weeks before
    Column("updated_utc_us", BigInteger, nullable=False),
    Column("invoice", String(32)),  # its number; from then on the order stays as it is, and what follows holds
    Column("price_minor", BigInteger),
    Column("paid_units", Integer),  # billed units paid in advance
    Column("connected_percent", Integer),  # by which they were reckoned; null of orders before revision 0008
    Column("order_counts", String(8)),  # billed or sent
    Column("overrun_percent", Integer),
    Column("terms_name", String(64)),
    Column("terms_version", Integer),
)

admissions = Table(  # transfers of buyers that have a limit or an order; the others have no row
    "admissions",
    metadata,
    Column("transfer", String(64), primary_key=True),
    Column("router", String(64), nullable=False),
    Column("boot", String(64), nullable=False),
    Column("buyer", String(64), nullable=False),
    Column("phone", String(32), nullable=False),  # the prospect's, E.164; empty where none was given
    Column("admitted_utc_us", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),  # live; then, for good, connected, failed or free
    Column("settled_utc_us", BigInteger),  # when the state was written; null while it is live
    Index(  # caps and orders: what is free is no unit
        "admissions_by_time",
        "buyer",
        "admitted_utc_us",
        "state",
        sqlite_where=text("state <> 'free'"),
        postgresql_where=text("state <> 'free'"),
    ),
    Index(
        "admissions_by_phone",
        "buyer",
        "phone",
        "admitted_utc_us",
        sqlite_where=text("state <> 'free'"),
        postgresql_where=text("state <> 'free'"),
    ),
    Index(
        "admissions_live",
        "buyer",
        sqlite_where=text("state = 'live'"),
        postgresql_where=text("state = 'live'"),
    ),
    Index(  # what was settled since a snapshot was taken
        "admissions_settled",
        "settled_utc_us",
        sqlite_where=text("state <> 'free'"),
        postgresql_where=text("state <> 'free'"),
    ),
)

leads = Table(  # posted before their call; gone once they have expired
    "leads",
    metadata,
    Column("lead_id", String(64), primary_key=True),
    Column("dialer", String(64), nullable=False),  # whose token posted it
    Column("key", String(200)),  # Idempotency-Key; null where none was given
    Column("checksum", String(64), nullable=False),  # SHA-256 of the document, hex; the same key with another: no
    Column("document", LargeBinary, nullable=False),  # JSON object of the lead's fields
    Column("created_utc_us", BigInteger, nullable=False),
    Column("expires_utc_us", BigInteger, nullable=False),
    UniqueConstraint("dialer", "key", name="leads_once"),
    Index("leads_by_expiry", "expires_utc_us"),
)
