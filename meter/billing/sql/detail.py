"""The transfers behind a line: which units a service week or a month counted, as CSV.

A period's units are those with a dial-out in it that were posted before it was closed, and those of earlier periods
that were posted too late for them: `adjusts` names their week. Of a period that is not closed yet they are those so
far. Rows follow from the ledger and the outcomes alone, both of which never change.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, literal_column, or_, select

from meter.billing.arithmetic.months import Month
from meter.book.sql.contracts import read_contract
from meter.ledger.accounts import INCREMENT, UNIT
from meter.ledger.sql import periods
from meter.store.money_schema import interactions, postings
from meter.store.schema import outcomes
from meter.text.hostile import csv_cell

COLUMNS = (
    "transfer", "call_id", "dialout", "campaign", "phone", "verdict", "reason", "counts_as", "unit", "units", "percent",
    "attempt_ms", "talk_ms", "buffer_ms", "terms", "adjusts", "reversal", "interaction", "reference",
)  # fmt: skip
_PAGE = 5_000  # rows fetched at a time
_CACHED = 4_096
_PHONE = "+"
_MINUTE_US = 60_000_000
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # no cell that a spreadsheet runs


class Sink(Protocol):
    """Where text goes."""

    def write(self, text: str, /) -> object:
        """Take some text."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Which units are in a period: (dial-out from, to), and (posted after, up to) in the buyer's chain."""

    zone: str
    start_us: int
    end_us: int
    after_seq: int
    through_seq: int | None
    since_us: int


def write_detail(connection: Connection, buyer: str, period: str, sink: Sink) -> int:
    """Write the CSV of a period's transfers with a heading line; how many there are.

    Raises UnknownBuyerError, and ValueError where `period` is neither a Monday nor a month.
    """
    bounds = bounds_of(connection, buyer, period)
    writer = csv.writer(sink, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    count = 0
    for page in _pages(connection, _query(buyer, period, bounds)):
        writer.writerows(_cells(row, bounds) for row in page)
        count += len(page)
    return count


def bounds_of(connection: Connection, buyer: str, period: str) -> Bounds:
    """Where a period of a buyer begins and ends, in time and in its chain."""
    contract = read_contract(connection, buyer)
    kind = periods.kind_of(period)
    if kind == periods.MONTH:
        month = Month(period, contract.versions[-1].time_zone)
        zone, start_us, end_us = month.zone, month.start_us, month.end_us
    else:
        week = contract.week_from(period)
        zone, start_us, end_us = week.zone, week.start_us, week.end_us
    own = periods.find(connection, buyer, period)
    before = periods.last(connection, buyer, kind, before_us=own.end_utc_us if own else end_us)
    return Bounds(
        zone=zone,
        start_us=start_us,
        end_us=own.end_utc_us if own else end_us,
        after_seq=before.through_seq if before else 0,
        through_seq=own.through_seq if own else None,
        since_us=before.end_utc_us if before else 0,
    )


def within(buyer: str, bounds: Bounds) -> list[ColumnElement[bool]]:
    """The conditions for the postings of a period: those of its time, and those that were late for the ones before."""
    at, seq = postings.c.dialout_utc_us, postings.c.seq
    newer = and_(at >= bounds.since_us, at < bounds.end_us)
    late = and_(seq > bounds.after_seq, at < bounds.since_us)
    found = [postings.c.buyer == buyer, at.is_not(None), or_(newer, late) if bounds.since_us else newer]
    return found if bounds.through_seq is None else [*found, seq <= bounds.through_seq]


def _query(buyer: str, period: str, bounds: Bounds) -> Select[Any]:
    at, seq = postings.c.dialout_utc_us, postings.c.seq
    asset = INCREMENT if periods.kind_of(period) == periods.MONTH else UNIT
    columns = (
        postings.c.transfer, outcomes.c.call_id, at, outcomes.c.campaign, outcomes.c.phone, outcomes.c.verdict,
        outcomes.c.reason, outcomes.c.counts_as, postings.c.unit, postings.c.units, postings.c.percent,
        outcomes.c.attempt_ms, outcomes.c.talk_ms, outcomes.c.buffer_ms, postings.c.terms_name,
        postings.c.terms_version, postings.c.reverses, interactions.c.id, interactions.c.reference,
    )  # fmt: skip
    query = select(*columns).outerjoin_from(postings, outcomes, outcomes.c.transfer == postings.c.transfer)
    is_other = and_(
        postings.c.transfer.is_(None), interactions.c.id == func.substr(postings.c.key, len("interaction:") + 1)
    )
    if periods.kind_of(period) == periods.MONTH:
        query = query.outerjoin(interactions, is_other)  # e-mails and chats have no transfer
    else:
        query = query.outerjoin(interactions, literal_column("1 = 0"))
    return query.where(postings.c.asset == asset, *within(buyer, bounds)).order_by(at, seq)


def _pages(connection: Connection, query: Select[Any]) -> Iterator[list[Row[Any]]]:
    found = connection.execution_options(yield_per=_PAGE).execute(query)
    for page in found.partitions(_PAGE):
        yield list(page)


def _cells(row: Row[Any], bounds: Bounds) -> tuple[Any, ...]:
    transfer, call_id, at, campaign, phone, verdict, reason, counts_as, unit, units, percent, *rest = tuple(row)
    attempt_ms, talk_ms, buffer_ms, terms_name, terms_version, reverses, interaction, reference = rest
    return (
        transfer,
        call_id if not call_id or _PLAIN.fullmatch(call_id) else csv_cell(call_id),
        _local(at, bounds.zone),
        _safe(campaign or ""),
        phone if phone and phone[0] == _PHONE and phone[1:].isdigit() else csv_cell(phone or ""),
        verdict,
        reason,
        counts_as,
        unit,
        units,
        percent,
        attempt_ms,
        talk_ms,
        buffer_ms,
        f"{terms_name} v{terms_version}",
        "" if at >= bounds.start_us else _local(at, bounds.zone)[:10],
        reverses or "",
        interaction or "",
        csv_cell(reference) if reference else "",
    )


@lru_cache(maxsize=_CACHED)
def _safe(text: str) -> str:
    return csv_cell(text)


def _local(utc_us: int, zone: str) -> str:
    """ISO 8601 to the millisecond, with the offset that the zone's clock has then."""
    minute, rest_us = divmod(utc_us, _MINUTE_US)
    until_seconds, offset = _minute(minute, zone)
    return f"{until_seconds}{rest_us // 1_000_000:02d}.{rest_us // 1000 % 1000:03d}{offset}"


@lru_cache(maxsize=_CACHED)
def _minute(minute: int, zone: str) -> tuple[str, str]:
    """What stands before the seconds and after them: rows come in the order of time, so a minute comes often."""
    local = datetime.fromtimestamp(minute * 60, ZoneInfo(zone)).isoformat()
    return local[: len("2026-06-10T11:00:")], local[len("2026-06-10T11:00:00") :]
