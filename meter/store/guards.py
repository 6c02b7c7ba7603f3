"""Triggers that keep what was written: nothing is removed, and of each table only the named columns ever change."""

from __future__ import annotations

_MAY_CHANGE = {
    "postings": (),
    "documents": ("settled_utc_us", "held_utc_us"),
    "remedies": (),
    "buyer_states": (),
    "ratings": (),
}
_COLUMNS = {
    "documents": "number series sequence key buyer kind period currency issued_utc_us issued_on due_utc_us total_minor"
    " applied_minor body digest"
}


def _sqlite(table: str) -> list[str]:
    refuse = f"BEGIN SELECT RAISE(ABORT, '{table}: what was written stays'); END"
    of = f" OF {', '.join(_COLUMNS[table].split())}" if _MAY_CHANGE[table] else ""
    return [
        f"CREATE TRIGGER {table}_no_update BEFORE UPDATE{of} ON {table} {refuse}",
        f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} {refuse}",
    ]


def _postgresql(table: str) -> list[str]:
    of = f" OF {', '.join(_COLUMNS[table].split())}" if _MAY_CHANGE[table] else ""
    raised = f"$$ BEGIN RAISE EXCEPTION '{table}: what was written stays'; END $$"
    stays = f"EXECUTE FUNCTION {table}_stays()"
    return [
        f"CREATE OR REPLACE FUNCTION {table}_stays() RETURNS trigger LANGUAGE plpgsql AS {raised}",
        f"CREATE TRIGGER {table}_stays BEFORE UPDATE{of} ON {table} FOR EACH ROW {stays}",
        f"CREATE TRIGGER {table}_remain BEFORE DELETE OR TRUNCATE ON {table} {stays}",
    ]


KEEP = {table: {"sqlite": _sqlite(table), "postgresql": _postgresql(table)} for table in _MAY_CHANGE}
"""Statements by table and dialect."""
