"""Daily reports in the store: which are due, issuing one, and reading what was issued.

A report is issued once: its row, its body and its e-mail are one transaction, in which the buyer's chain is held, so
that two meters at once issue one. Days that were missed are caught up with in order, at most
`meter.per_minute.reports.MAX_DAYS`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, Row, and_, func, insert, or_, select

from book.model import BuyerState, Rating
from meter.book.sql.contracts import Contract, read_contracts
from meter.ledger.sql.ledger import lock_heads
from meter.outbox.sql import new_row
from meter.per_minute.reports import MAX_DAYS, ReportRows, Span, body_of, day_of, span_of
from meter.per_minute.sql.interactions import Interaction, of_span, with_ratings_at
from meter.store.money_schema import interactions, reports
from meter.store.schema import outbox

KIND = "report"  # of its message
DAY_US = 24 * 3_600 * 1_000_000
_BACK_US = MAX_DAYS * DAY_US  # how long after it came in an interaction may be over, or told of
_RATED_BACK_US = 92 * DAY_US  # how long after it came in its rating still comes into a report
_MARGIN_US = 3_600 * 1_000_000  # between a row's own time and its commit


class UnknownReportError(LookupError):
    """No report of that day was issued to that buyer."""


@dataclass(frozen=True, slots=True)
class DueReport:
    """A report to issue."""

    contract: Contract
    span: Span


@dataclass(frozen=True, slots=True)
class Report:
    """A report as issued. Times in microseconds UTC; `digest` is the SHA-256 of the body's canonical JSON, hex."""

    buyer: str
    day: str
    from_utc_us: int
    until_utc_us: int
    issued_utc_us: int
    digest: str
    body: dict[str, Any]


def due_reports(connection: Connection, now_utc_us: int) -> list[DueReport]:
    """Reports whose span is over and that were not issued, in the order of time."""
    newest = select(reports.c.buyer, func.max(reports.c.day)).group_by(reports.c.buyer)
    last = {buyer: str(day) for buyer, day in connection.execute(newest)}
    found: list[DueReport] = []
    for name, contract in read_contracts(connection).items():
        since = _first_day(connection, contract, last.get(name), now_utc_us)
        spans = [] if since is None else _spans(contract, since, now_utc_us)
        is_over = contract.state is BuyerState.CANCELLED
        found += [DueReport(contract, span) for span in spans if not is_over or _any(connection, name, span)]
    return sorted(found, key=lambda one: (one.span.until_us, one.contract.buyer.name))


def next_end(contracts: Iterable[Contract], after_utc_us: int) -> int | None:
    """The next instant at which the span of somebody's report is over."""
    zones = {contract.terms_at(after_utc_us).time_zone for contract in contracts}
    return min((span_of(day_of(after_utc_us, zone), zone).until_us for zone in zones), default=None)


def issue(connection: Connection, due: DueReport, now_utc_us: int) -> Report | None:
    """Issue a report and queue its e-mail; None where it was issued before."""
    buyer, span = due.contract.buyer, due.span
    lock_heads(connection, [buyer.name])
    this = (reports.c.buyer == buyer.name, reports.c.day == span.day.isoformat())
    if connection.execute(select(reports.c.day).where(*this)).first() is not None:
        return None
    terms = due.contract.terms_at(span.until_us - 1)
    about = {
        "buyer": buyer.name,
        "title": buyer.title,
        "locale": buyer.locale,
        "zone": terms.time_zone,
        "currency": terms.currency,
    }
    raw = orjson.dumps(body_of(span, about, _report_rows(connection, buyer.name, span)), option=orjson.OPT_SORT_KEYS)
    row = {
        "buyer": buyer.name,
        "day": span.day.isoformat(),
        "from_utc_us": span.from_us,
        "until_utc_us": span.until_us,
        "body": raw,
        "digest": hashlib.sha256(raw).hexdigest(),
        "issued_utc_us": now_utc_us,
    }
    connection.execute(insert(reports).values(**row))
    to = buyer.report_emails or buyer.billing_emails or buyer.lead_emails
    if to:
        connection.execute(insert(outbox).values(**_message(buyer.name, str(row["day"]), to, now_utc_us)))
    return read(connection, buyer.name, span.day.isoformat())


def read(connection: Connection, buyer: str, day: str) -> Report:
    """One report. Raises UnknownReportError."""
    row = connection.execute(select(reports).where(reports.c.buyer == buyer, reports.c.day == day)).one_or_none()
    if row is None:
        raise UnknownReportError(f"no report of {day!r} was issued to {buyer!r}")
    return _report(row)


def read_all(
    connection: Connection, buyer: str = "", limit: int = 100, before: str = "", after: tuple[str, str] | None = None
) -> list[Report]:
    """Reports, the newest first; with `before` those of days before that one, with `after` those past (day, buyer)."""
    query = select(reports).order_by(reports.c.day.desc(), reports.c.buyer).limit(max(1, min(limit, 1_001)))
    if buyer:
        query = query.where(reports.c.buyer == buyer)
    if before:
        query = query.where(reports.c.day < before)
    if after is not None:
        day, last = after
        query = query.where(or_(reports.c.day < day, and_(reports.c.day == day, reports.c.buyer > last)))
    return [_report(row) for row in connection.execute(query)]


def issued_since(connection: Connection, since_us: int) -> list[tuple[str, str]]:
    """(buyer, day) of the reports whose span ended since then."""
    query = select(reports.c.buyer, reports.c.day).where(reports.c.until_utc_us >= since_us)
    return [(buyer, day) for buyer, day in connection.execute(query.order_by(reports.c.day, reports.c.buyer))]


def _first_day(connection: Connection, contract: Contract, last: str | None, now_utc_us: int) -> date | None:
    """After the last report; else the day of the first interaction, or of an active buyer without one the last day."""
    if last is not None:
        return date.fromisoformat(last) + timedelta(days=1)
    if all(one.rating is not Rating.MINUTE for one in contract.versions):
        return None
    zone = contract.terms_at(now_utc_us).time_zone
    at = interactions.c.received_utc_us
    query = select(at).where(interactions.c.buyer == contract.buyer.name).order_by(at).limit(1)
    first_us = connection.execute(query).scalar_one_or_none()
    if first_us is not None:
        return day_of(first_us, zone)
    return _newest(zone, now_utc_us) if contract.state is BuyerState.ACTIVE else None


def _newest(zone: str, now_utc_us: int) -> date:
    """The last day whose span is over."""
    return day_of(now_utc_us, zone) - timedelta(days=1)


def _spans(contract: Contract, since: date, now_utc_us: int) -> list[Span]:
    """The spans since then that are over and at whose end the buyer paid by the minute."""
    zone = contract.terms_at(now_utc_us).time_zone
    newest = _newest(zone, now_utc_us)
    first = max(since, newest - timedelta(days=MAX_DAYS - 1))
    spans = [span_of(first + timedelta(days=more), zone) for more in range((newest - first).days + 1)]
    return [one for one in spans if contract.terms_at(one.until_us - 1).rating is Rating.MINUTE]


def _any(connection: Connection, buyer: str, span: Span) -> bool:
    at = func.coalesce(interactions.c.ended_utc_us, interactions.c.received_utc_us)
    mine = (interactions.c.buyer == buyer, interactions.c.received_utc_us >= span.from_us - _BACK_US)
    query = select(interactions.c.id).where(*mine, at >= span.from_us, at < span.until_us)
    return connection.execute(query.limit(1)).first() is not None


def _report_rows(connection: Connection, buyer: str, span: Span) -> ReportRows:
    """What was over in the span; what was over before it and told of since the report before; what was rated in it."""
    known = of_span(connection, buyer, span.from_us - _BACK_US, span.until_us)
    rated = with_ratings_at(connection, buyer, (span.from_us, span.until_us), span.from_us - _RATED_BACK_US)
    over = [one for one in known if span.from_us <= one.at_utc_us < span.until_us]
    return ReportRows(over, _late(connection, buyer, span, known), rated)


def _late(connection: Connection, buyer: str, span: Span, known: list[Interaction]) -> list[Interaction]:
    """A row may be older than its commit, so what is near the issue of the report before is held against lists."""
    mine = (reports.c.buyer == buyer, reports.c.until_utc_us <= span.from_us)
    query = select(reports.c.issued_utc_us).where(*mine).order_by(reports.c.until_utc_us.desc()).limit(1)
    issued = connection.execute(query).scalar_one_or_none()
    if issued is None:
        return []
    since = issued - _MARGIN_US
    rows = connection.execute(select(reports.c.body).where(*mine, reports.c.issued_utc_us >= since)).scalars()
    listed = {one["id"] for body in rows for one in orjson.loads(body)["list"]}
    early = (one for one in known if one.at_utc_us < span.from_us and one.created_utc_us >= since)
    return [one for one in early if one.id not in listed]


def _message(buyer: str, day: str, to: tuple[str, ...], now_utc_us: int) -> dict[str, Any]:
    said = {"kind": KIND, "buyer": buyer, "day": day, "to": list(to)}
    return new_row("mail", f"{KIND}:{buyer}", f"{KIND}-{buyer}-{day}.{KIND}", said, now_utc_us)


def _report(row: Row[Any]) -> Report:
    times = (row.from_utc_us, row.until_utc_us, row.issued_utc_us)
    return Report(row.buyer, row.day, *times, row.digest, orjson.loads(row.body))
