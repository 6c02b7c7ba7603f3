"""The ledger in the store: appending to each buyer's chain, and reading it.

A posting's key is unique: appending one that is there does nothing, so a replay or a restart never charges twice, and
the same key with other content is an error, never a second charge. Per buyer the postings are numbered from 1 without a
gap, and each one's digest covers its predecessor's and its own values, as the facts' do.

Who appends holds the row of the buyer's chain: on SQLite the one writer there is, on PostgreSQL by a lock taken in the
order of names. So whoever has read a chain's end in a write transaction knows that nothing comes before it any more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import Any

import orjson
from sqlalchemy import Connection, Dialect, Row, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from facts.fact import CHAIN_START
from meter.journal.rows import execute_bare
from meter.ledger.accounts import Account, Posting, Rule, reversal
from meter.store.money_schema import credit_requests, ledger_heads, postings

OUTCOME_RULES = (Rule.UNIT.value, Rule.MINUTES.value)  # of what the outcome of a transfer posts
_FIELDS = tuple(one.name for one in fields(Posting))
_VALUES = attrgetter(*(column.name for column in postings.columns if column.name not in ("buyer", "seq", "digest")))
_MADE_WHEN = ("posted_utc_us", "by")  # may differ where the same thing is said again


class LedgerError(ValueError):
    """A posting that cannot be: the message names its key."""


def append(connection: Connection, made: Sequence[Posting]) -> list[Posting]:
    """Append what is not there yet, in its order; returns that. In the caller's write transaction.

    Raises LedgerError where a key is there with other content.
    """
    if not made:
        return []
    heads = lock_heads(connection, {one.buyer for one in made})  # first: who comes second has to see what is there
    known = _posted_before(connection, [one.key for one in made])
    fresh: dict[str, Posting] = {}
    for one in made:
        there = known.get(one.key) or fresh.get(one.key)
        if there is None:
            fresh[one.key] = one
        elif not _is_same(there, one):
            raise LedgerError(f"posting {one.key}: was made before, with other content")
    if fresh:
        _append(connection, list(fresh.values()), heads)
    return list(fresh.values())


def _append(connection: Connection, made: list[Posting], heads: dict[str, tuple[int, bytes]]) -> None:
    rows = []
    for one in made:
        seq, previous = heads[one.buyer]
        row = (one.buyer, seq + 1, *_VALUES(one))
        digest = digest_of(previous, row)
        heads[one.buyer] = (seq + 1, digest)
        rows.append((*row, digest))
    insertion, end = _statements(connection.dialect)
    connection.exec_driver_sql(insertion, rows)
    connection.exec_driver_sql(end, [(one, *heads[one]) for one in {posting.buyer for posting in made}])


def digest_of(previous: bytes, row: Sequence[Any]) -> bytes:
    """SHA-256 over the predecessor's digest and the posting's values in the order of the table's columns."""
    return hashlib.sha256(previous + orjson.dumps(list(row))).digest()


def lock_heads(connection: Connection, buyers: Iterable[str]) -> dict[str, tuple[int, bytes]]:
    """Where each buyer's chain ends, (0, zeros) for an empty one; nobody else appends until the transaction ends."""
    names = sorted(buyers)
    query = select(ledger_heads).where(ledger_heads.c.buyer.in_(names)).order_by(ledger_heads.c.buyer)
    if connection.dialect.name != "sqlite":
        empty = [{"buyer": name, "seq": 0, "digest": CHAIN_START} for name in names]
        connection.execute(postgresql.insert(ledger_heads).on_conflict_do_nothing(), empty)
        query = query.with_for_update()
    found = {buyer: (seq, bytes(digest)) for buyer, seq, digest in connection.execute(query)}
    return {name: found.get(name, (0, CHAIN_START)) for name in names}


def read(connection: Connection, keys: Sequence[str]) -> list[Posting]:
    """The postings of these keys that are there."""
    return list(_posted_before(connection, keys).values())


def of_buyer(connection: Connection, buyer: str, rules: Sequence[Rule] = ()) -> list[Posting]:
    """A buyer's postings of money, in their order; with `rules` only those."""
    query = select(postings).where(postings.c.buyer == buyer, postings.c.dialout_utc_us.is_(None))
    if rules:
        query = query.where(postings.c.rule.in_([one.value for one in rules]))
    return [to_posting(row) for row in connection.execute(query.order_by(postings.c.seq))]


def of_transfer(connection: Connection, transfer: str) -> list[Posting]:
    """Everything that was posted for a transfer, in its order."""
    query = select(postings).where(postings.c.transfer == transfer).order_by(postings.c.seq)
    return [to_posting(row) for row in connection.execute(query)]


def outcomes_posted(connection: Connection, transfers: Sequence[str]) -> dict[str, list[Posting]]:
    """The postings of the outcomes of these transfers, by transfer: units and minutes, not what was taken back."""
    found: dict[str, list[Posting]] = {}
    query = select(postings).where(postings.c.transfer.in_(transfers), postings.c.rule.in_(OUTCOME_RULES))
    for row in connection.execute(query.order_by(postings.c.seq)):
        found.setdefault(row.transfer, []).append(to_posting(row))
    return found


def reverse_transfer(connection: Connection, key: str, *, reason: str, by: str, now_utc_us: int) -> Posting:
    """Take back a transfer's unit or minutes; the reversal.

    Raises LedgerError where there is no such posting, it is one of money, it was taken back before, or a credit was
    asked for or given for its transfer: that would give it back twice.
    """
    if not reason.strip():
        raise LedgerError("reason: a reversal says why")
    found = read(connection, [key])
    if not found:
        raise LedgerError(f"posting {key}: there is none of that key")
    [posting] = found
    if posting.rule not in (Rule.UNIT, Rule.MINUTES) or posting.transfer is None:
        raise LedgerError(f"posting {key}: is no unit and no minutes of a transfer; money is taken back by a document")
    lock_heads(connection, [posting.buyer])
    made = of_transfer(connection, posting.transfer)
    if any(one.reverses == key for one in made):
        raise LedgerError(f"posting {key}: was taken back before")
    refused = credit_requests.c.state == "declined"
    query = select(credit_requests.c.id).where(credit_requests.c.transfer == posting.transfer, ~refused)
    if connection.execute(query).first() is not None:
        raise LedgerError(f"posting {key}: a credit for its transfer is open or was approved")
    taken_back = reversal(posting, f"{key}:reversal", reason, by, now_utc_us)
    append(connection, [taken_back])
    return taken_back


def balance(connection: Connection, buyer: str, account: Account, asset: str) -> int:
    """The balance of an account of money: debits less credits, in minor units."""
    return balances(connection, buyer, asset).get(account, 0)


def balances(connection: Connection, buyer: str, asset: str) -> dict[Account, int]:
    """All accounts of one currency that were ever moved."""
    money = (postings.c.buyer == buyer, postings.c.asset == asset, postings.c.dialout_utc_us.is_(None))
    found: dict[Account, int] = {}
    for side, sign in ((postings.c.debit, 1), (postings.c.credit, -1)):
        query = select(side, func.sum(postings.c.amount)).where(*money).group_by(side)
        for account, amount in connection.execute(query):
            found[Account(account)] = found.get(Account(account), 0) + sign * int(amount)
    return found


def quantity(connection: Connection, buyer: str, account: Account, asset: str) -> int:
    """What an account of units or increments holds, the postings of transfers included: debits less credits."""
    mine = (postings.c.buyer == buyer, postings.c.asset == asset)
    sides = ((postings.c.debit, 1), (postings.c.credit, -1))
    sums = [select(func.sum(sign * postings.c.amount)).where(*mine, side == account) for side, sign in sides]
    return sum(int(connection.execute(query).scalar() or 0) for query in sums)


def to_posting(row: Row[Any]) -> Posting:
    """A row of the table as a value."""
    values = {name: getattr(row, name) for name in _FIELDS}
    return Posting(**{**values, "rule": Rule(row.rule), "debit": Account(row.debit), "credit": Account(row.credit)})


def _posted_before(connection: Connection, keys: Sequence[str]) -> dict[str, Posting]:
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(keys))
        text = f"SELECT key FROM postings WHERE key IN ({marks})"  # noqa: S608 - question marks only
        keys = [key for (key,) in execute_bare(connection, text, list(keys))]
    if not keys:
        return {}
    found = connection.execute(select(postings).where(postings.c.key.in_(keys)))
    return {row.key: to_posting(row) for row in found}


def _is_same(kept: Posting, posting: Posting) -> bool:
    return all(getattr(kept, name) == getattr(posting, name) for name in _FIELDS if name not in _MADE_WHEN)


@cache
def _statements(dialect: Dialect) -> tuple[str, str]:
    """An insertion of a posting, and one of a chain's end or its move; values in the order of the columns."""
    maker = sqlite.insert if dialect.name == "sqlite" else postgresql.insert
    end = maker(ledger_heads)
    moved = {name: end.excluded[name] for name in ("seq", "digest")}
    end = end.on_conflict_do_update(index_elements=["buyer"], set_=moved)
    return str(insert(postings).compile(dialect=dialect)), str(end.compile(dialect=dialect))
