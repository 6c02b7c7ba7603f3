"""Reads credit requests: a single one, a page of them, the queue for review, and how long reviews take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, literal_column, select

from facts.fact import Fact, Kind
from facts.start_payload import buyer as buyer_of
from meter.book.sql.contracts import Contract, read_contract
from meter.credits.rules import LATE_US, TARGET_US, Ages, CreditError, CreditRefusal, State
from meter.credits.sql.calls import Call, billed_call, dialout_of
from meter.journal.sql.reading import facts_of
from meter.store.money_schema import credit_requests
from meter.store.schema import outcomes

MAX_LISTED = 5_000  # rows in one answer
LEVELS = 2  # the request and its re-review

# A literal, not a parameter: SQLite uses a partial index only where the statement itself says its condition.
IS_OPEN = credit_requests.c.state == literal_column("'open'")


@dataclass(frozen=True, slots=True)
class Request:
    """A request or a re-review (`level` 2, of request `first`). Amounts in minor units, negative where taken back.

    `place` in the line counts from 1; 0 where it is decided. `call_id` and `phone` are empty where the outcome is gone.
    """

    id: int
    transfer: str
    buyer: str
    level: int
    first: int | None
    reason: str
    words: str
    asked_utc_us: int
    asked_by: str
    origin: str
    state: State
    decided_utc_us: int | None
    decided_by: str | None
    explanation: str | None
    amount_minor: int | None
    currency: str | None
    posting: str | None
    call_id: str
    phone: str
    place: int


@dataclass(frozen=True, slots=True)
class CreditFilter:
    """Which requests; empty words do not restrict. `phone` in E.164. `beyond`: the page begins after that id."""

    buyer: str = ""
    state: str = ""
    transfer: str = ""
    call_id: str = ""
    phone: str = ""
    limit: int = 100
    beyond: int | None = None


@dataclass(frozen=True, slots=True)
class CreditCandidate:
    """A call as its buyer sees it who may ask for a credit. `call` is None where it is not billed, or not any more."""

    contract: Contract
    call: Call | None
    facts: list[Fact]
    requests: list[Request]  # oldest first


@dataclass(frozen=True, slots=True)
class LetterSubject:
    """A request with what a letter about it needs."""

    request: Request
    contract: Contract
    dialout_utc_us: int


def find(connection: Connection, request: int) -> Request:
    """A request by its id. Raises CreditError."""
    row = connection.execute(_requests().where(credit_requests.c.id == request)).one_or_none()
    if row is None:
        raise CreditError(CreditRefusal.UNKNOWN_REQUEST, id=request)
    return _request(row)


def find_all(connection: Connection, wanted: CreditFilter) -> list[Request]:
    """Requests that are wanted, at most `MAX_LISTED`: open ones in the order of the line, all others newest first."""
    query = _requests()
    for name in ("buyer", "state", "transfer"):
        if getattr(wanted, name):
            query = query.where(credit_requests.c[name] == getattr(wanted, name))
    for name in ("call_id", "phone"):
        if getattr(wanted, name):
            query = query.where(outcomes.c[name] == getattr(wanted, name))
    number = credit_requests.c.id
    is_line = wanted.state == State.OPEN.value
    if wanted.beyond is not None:
        query = query.where(number > wanted.beyond if is_line else number < wanted.beyond)
    order = number if is_line else number.desc()
    rows = connection.execute(query.order_by(order).limit(max(1, min(wanted.limit, MAX_LISTED))))
    return [_request(row) for row in rows]


def next_open(connection: Connection) -> Request | None:
    """The request that is decided next; None where none is open."""
    first = first_open(connection)
    return None if first is None else find(connection, first)


def find_decided(connection: Connection, wanted: CreditFilter) -> Request:
    """The one request that can be re-reviewed, by call id or caller id. Raises CreditError where none or several fit.

    Where none of those that fit is to be re-reviewed any more, or yet, it is the newest: `re_review` then says so.
    """
    fit = [one for one in find_all(connection, wanted) if one.level == 1]
    if not fit:
        raise CreditError(CreditRefusal.UNKNOWN_REQUEST, id="for that call or caller")
    decided = [one for one in fit if one.state is not State.OPEN]
    left = [one for one in decided if of_level(connection, one.transfer, LEVELS) is None]
    if len(left) > 1:
        ids = ", ".join(f"{one.id} (transfer {one.transfer}, {one.buyer})" for one in left)
        raise CreditError(CreditRefusal.AMBIGUOUS, ids=ids)
    return left[0] if left else fit[0]


def ages(connection: Connection, now_utc_us: int, since_utc_us: int = 0) -> Ages:
    """The line as it is, and how long the reviews took that were decided since then."""
    table = credit_requests.c
    count, oldest = connection.execute(select(func.count(), func.min(table.asked_utc_us)).where(IS_OPEN)).one()
    late = select(func.count()).where(IS_OPEN, table.asked_utc_us < now_utc_us - LATE_US)
    took = table.decided_utc_us - table.asked_utc_us
    query = select(func.count(), func.max(took)).where(table.decided_utc_us >= since_utc_us)
    decided, slowest = connection.execute(query).one()
    within = [
        int(connection.execute(query.where(took <= most)).one()[0]) if decided else 0 for most in (TARGET_US, LATE_US)
    ]
    return Ages(
        open=int(count),
        oldest_utc_us=None if oldest is None else int(oldest),
        open_late=int(connection.execute(late).scalar_one()),
        decided=int(decided),
        decided_in_24h=within[0],
        decided_in_48h=within[1],
        slowest_us=int(slowest or 0),
    )


def see(connection: Connection, transfer: str, buyer: str) -> CreditCandidate:
    """A call, with what was asked about it; nothing of another buyer's. Raises UnknownBuyerError."""
    contract = read_contract(connection, buyer)
    facts = facts_of(connection, transfer)
    is_theirs = any(one.kind is Kind.TRANSFER_STARTED and buyer_of(one) == buyer for one in facts)
    try:
        call = billed_call(connection, transfer, buyer)
    except CreditError:
        call = None
    found = find_all(connection, CreditFilter(buyer=buyer, transfer=transfer))
    return CreditCandidate(contract, call, facts if is_theirs else [], found[::-1])


def read_told(connection: Connection, request: int) -> LetterSubject:
    """Raises CreditError, UnknownBuyerError."""
    found = find(connection, request)
    contract = read_contract(connection, found.buyer)
    return LetterSubject(found, contract, dialout_of(connection, found.transfer) or 0)


def of_level(connection: Connection, transfer: str, level: int) -> Row[Any, Any] | None:
    """Id and state of the request for a transfer, or of its re-review."""
    table = credit_requests.c
    query = select(table.id, table.state).where(table.transfer == transfer, table.level == level)
    return connection.execute(query).one_or_none()


def first_open(connection: Connection) -> int | None:
    """The id of the request that is decided next."""
    return connection.execute(select(func.min(credit_requests.c.id)).where(IS_OPEN)).scalar_one_or_none()


def _requests() -> Select[Any]:
    before = credit_requests.alias()
    open_before = and_(before.c.state == literal_column("'open'"), before.c.id <= credit_requests.c.id)
    place = select(func.count()).select_from(before).where(open_before, IS_OPEN).correlate(credit_requests)
    return select(
        credit_requests,
        func.coalesce(outcomes.c.call_id, "").label("call_id"),
        func.coalesce(outcomes.c.phone, "").label("phone"),
        place.scalar_subquery().label("place"),
    ).outerjoin_from(credit_requests, outcomes, outcomes.c.transfer == credit_requests.c.transfer)


def _request(row: Row[Any]) -> Request:
    values = {name: getattr(row, name) for name in Request.__slots__}
    return Request(**{**values, "state": State(row.state)})
