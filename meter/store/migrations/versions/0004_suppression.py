"""Suppression lists with revisions, changes, exemptions, a log and a stamp by which readers learn what is new.

The table of lists is made anew, for SQLite cannot add a column that has neither a default nor NULLs. Lists there are
keep their rows: of numbers, without changes.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_STAMP = 1  # of everything there was before there were stamps
_ADDED = ("revision", "state", "kind", "source", "count", "expires_utc_us", "based_on", "stamp")
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


def upgrade() -> None:
    rows = _take_lists()
    _make_lists()
    _put_lists([_raised(row) for row in rows])
    _make_changes()
    _make_exemptions()
    _make_log()
    op.create_table(
        "suppression_sets",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("first_utc_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    state = op.create_table(
        "suppression_state",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("stamp", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.bulk_insert(state, [{"id": 1, "stamp": _STAMP}])
    stamps = op.create_table(
        "suppression_stamps",
        sa.Column("stamp", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("stamp"),
    )
    op.bulk_insert(stamps, [{"stamp": _STAMP}])


def downgrade() -> None:
    """Without the changes: a list goes back to what is in its file."""
    for name in ("stamps", "state", "sets", "log", "exemptions", "changes"):
        op.drop_table(f"suppression_{name}")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION suppression_log_stays()")
    rows = [{key: value for key, value in row.items() if key not in _ADDED} for row in _take_lists()]
    op.create_table("suppression_lists", *_old_columns(), sa.PrimaryKeyConstraint("name", "version"))
    _put_lists(rows)


def _take_lists() -> list[dict[str, Any]]:
    """Read all lists and drop the table."""
    table = sa.Table("suppression_lists", sa.MetaData(), autoload_with=op.get_bind())
    rows = [dict(row) for row in op.get_bind().execute(sa.select(table)).mappings()]
    op.drop_table("suppression_lists")
    return rows


def _put_lists(rows: list[dict[str, Any]]) -> None:
    table = sa.Table("suppression_lists", sa.MetaData(), autoload_with=op.get_bind())
    op.bulk_insert(table, rows)


def _raised(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **row,
        "revision": 0,
        "state": row["checksum"],
        "kind": "number",
        "source": "",
        "count": row["entries"],
        "expires_utc_us": None,
        "based_on": None,
        "stamp": _STAMP,
    }


def _old_columns() -> list[sa.Column[Any]]:
    return [
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
    ]


def _make_lists() -> None:
    op.create_table(
        "suppression_lists",
        *_old_columns(),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("expires_utc_us", sa.BigInteger(), nullable=True),
        sa.Column("based_on", sa.Integer(), nullable=True),
        sa.Column("stamp", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "version"),
    )
    op.create_index("suppression_lists_by_stamp", "suppression_lists", ["stamp"], unique=False)
    active = sa.text("active")
    op.create_index(
        "suppression_lists_in_force",
        "suppression_lists",
        ["name"],
        unique=True,
        sqlite_where=active,
        postgresql_where=active,
    )


def _make_changes() -> None:
    op.create_table(
        "suppression_changes",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(length=64), nullable=False),
        sa.Column("at_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("stamp", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "version", "revision"),
    )
    op.create_index("suppression_changes_by_stamp", "suppression_changes", ["stamp"], unique=False)


def _make_exemptions() -> None:
    op.create_table(
        "suppression_exemptions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("buyer", sa.String(length=64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("expires_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("added_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("added_by", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("revoked_utc_us", sa.BigInteger(), nullable=True),
        sa.Column("revoked_by", sa.Text(), nullable=True),
        sa.Column("stamp", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("suppression_exemptions_by_stamp", "suppression_exemptions", ["stamp"], unique=False)


def _make_log() -> None:
    op.create_table(
        "suppression_log",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at_utc_us", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=True),
        sa.Column("before", sa.BigInteger(), nullable=True),
        sa.Column("after", sa.BigInteger(), nullable=True),
        sa.Column("detail", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("suppression_log_by_name", "suppression_log", ["name", "id"], unique=False)
    for statement in _LOG_STAYS[op.get_bind().dialect.name]:
        op.execute(statement)
