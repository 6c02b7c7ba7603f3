"""Interactions in the store: e-mails and chats kept and charged once, and all of them read back with their ratings.

A call's row comes with its outcome (`meter.settling.sql.settlement`); what is reported comes here. A report is known
by buyer,
kind and reference: the same again changes nothing, the same with other content is refused. Its row, its posting and the
question to the customer are one transaction, in which the buyer's chain is held, so that two at once are one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import orjson
from sqlalchemy import Connection, Row, Select, and_, func, insert, or_, select

from book.model import Channel
from book.model import Rating as RatedBy
from facts.disclosure import Claim
from meter.billing.arithmetic.minutes import minute_charge
from meter.book.sql.book import UnknownBuyerError
from meter.book.sql.contracts import Contract, read_contract
from meter.ledger.accounts import INCREMENT, Account, Posting, Rule
from meter.ledger.sql.ledger import append, lock_heads
from meter.outbox.sql import new_row
from meter.per_minute.interactions import (
    Charged,
    InteractionError,
    InteractionRefusal,
    RatingKind,
    Reported,
    mail_address,
)
from meter.store.money_schema import interactions, ratings
from meter.store.schema import buyers, outbox, outcomes

RATING = "rating"  # kind of the message that asks for one
MAX_LISTED = 5_000  # rows in one answer


@dataclass(frozen=True, slots=True)
class RatingRow:
    """One rating, 1 to 5."""

    interaction: str
    kind: RatingKind
    rating: int
    words: str
    by: str
    at_utc_us: int


@dataclass(frozen=True, slots=True)
class Interaction:
    """One interaction. Times in microseconds UTC; ratings oldest first."""

    id: str
    buyer: str
    kind: Channel
    reference: str
    agent: str
    customer: str
    received_utc_us: int
    started_utc_us: int | None
    ended_utc_us: int | None
    handled_ms: int
    resolved: bool
    ring_to_answer_ms: int | None
    longest_hold_ms: int
    text: str
    recording: str
    increments: int
    amount_minor: int
    currency: str
    created_utc_us: int
    counts_as: str = ""  # of a call
    ratings: tuple[RatingRow, ...] = ()

    @property
    def claim(self) -> Claim:
        """The buyer's to who was served; who wrote has written to the buyer."""
        return Claim(self.counts_as, self.kind is not Channel.CALL or self.started_utc_us is not None, by_minute=True)

    @property
    def at_utc_us(self) -> int:
        """When it was over; by this it belongs to a day."""
        return self.received_utc_us if self.ended_utc_us is None else self.ended_utc_us

    def last(self, kind: RatingKind) -> RatingRow | None:
        """The rating of this kind that holds."""
        return next((one for one in reversed(self.ratings) if one.kind is kind), None)

    @property
    def rating(self) -> RatingRow | None:
        """The rating that holds: quality control's, else the caller's."""
        return self.last(RatingKind.QUALITY) or self.last(RatingKind.CALLER)


@dataclass(frozen=True, slots=True)
class InteractionFilter:
    """Which interactions of a buyer: by when they came in, from `from_us` to before `to_us`, the newest first.

    `before`: after which one the page begins, as (received, id) of the last one seen.
    """

    buyer: str
    kind: Channel | None = None
    from_us: int | None = None
    to_us: int | None = None
    before: tuple[int, str] | None = None
    limit: int = 100


def add(connection: Connection, report: Reported, now_utc_us: int, *, ask: bool) -> tuple[Interaction, bool]:
    """Keep and charge a report; whether it is new. `ask`: the customer may be asked for a rating.

    Raises InteractionError: another content under this reference, no such buyer, or terms that are not by the minute.
    """
    try:
        contract = read_contract(connection, report.buyer)
    except UnknownBuyerError as error:
        raise InteractionError("buyer", str(error)) from error
    lock_heads(connection, [report.buyer])
    table = interactions.c
    this = and_(table.buyer == report.buyer, table.kind == report.kind.value, table.reference == report.reference)
    there = connection.execute(select(table.id, table.checksum).where(this)).one_or_none()
    if there is not None:
        if there.checksum != report.checksum:
            raise InteractionError("reference", "was reported before, with other content", InteractionRefusal.CONFLICT)
        return find(connection, there.id), False
    charged, posting = _charge(contract, report, now_utc_us)
    connection.execute(insert(interactions).values(**_row(report, charged, now_utc_us)))
    if posting is not None:
        append(connection, [posting])
    to = mail_address(report.customer) if ask and contract.buyer.ask_rating else ""
    if to:
        connection.execute(insert(outbox).values(**ask_message(report.id, to, now_utc_us)))
    return find(connection, report.id), True


def find(connection: Connection, interaction: str, buyer: str = "") -> Interaction:
    """One interaction; with `buyer` only where it is that one's. Raises InteractionError."""
    query = _interactions().where(interactions.c.id == interaction)
    row = connection.execute(query.where(interactions.c.buyer == buyer) if buyer else query).one_or_none()
    if row is None:
        raise InteractionError("id", "there is no such interaction", InteractionRefusal.UNKNOWN)
    return _with_ratings(connection, [row])[0]


def find_all(connection: Connection, wanted: InteractionFilter) -> list[Interaction]:
    """The interactions that are wanted, at most `MAX_LISTED`."""
    table = interactions.c
    query = _interactions().where(table.buyer == wanted.buyer)
    if wanted.kind is not None:
        query = query.where(table.kind == wanted.kind.value)
    if wanted.from_us is not None:
        query = query.where(table.received_utc_us >= wanted.from_us)
    if wanted.to_us is not None:
        query = query.where(table.received_utc_us < wanted.to_us)
    if wanted.before is not None:
        at, name = wanted.before
        query = query.where(
            or_(table.received_utc_us < at, and_(table.received_utc_us == at, table.id < name)),
            table.received_utc_us <= at,
        )
    query = query.order_by(table.received_utc_us.desc(), table.id.desc())
    rows = connection.execute(query.limit(max(1, min(wanted.limit, MAX_LISTED)))).all()
    return _with_ratings(connection, rows)


def askers(connection: Connection, names: Collection[str]) -> set[str]:
    """Which of these buyers want their callers asked for a rating."""
    if not names:
        return set()
    query = select(buyers.c.name, buyers.c.document).where(buyers.c.name.in_(sorted(names)))
    return {name for name, document in connection.execute(query) if _asks(document)}


def ask_message(interaction: str, to: str, now_utc_us: int) -> dict[str, Any]:
    """The outbox row of the question how it was."""
    said = {"kind": RATING, "id": interaction, "to": [to]}
    return new_row("mail", f"{RATING}:{interaction}", f"{interaction}.{RATING}", said, now_utc_us)


def _asks(document: bytes) -> bool:
    try:
        found = orjson.loads(document)
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, dict) and found.get("ask_rating") is True


def _charge(contract: Contract, report: Reported, now_utc_us: int) -> tuple[Charged, Posting | None]:
    """By the terms in force when the work began. Raises InteractionError where these are not by the minute."""
    terms = contract.terms_at(report.started_us)
    if terms.rating is not RatedBy.MINUTE:
        raise InteractionError("buyer", f"does not pay by the minute under terms {terms.name!r}, then in force")
    rated = minute_charge((report.ended_us - report.started_us) // 1000, terms)
    charged = Charged(rated.increments, rated.amount_minor, terms.currency)
    if not rated.increments:
        return charged, None
    return charged, Posting(
        key=f"interaction:{report.id}",
        buyer=report.buyer,
        rule=Rule.MINUTES,
        debit=Account.UNBILLED_MINUTES,
        credit=Account.DELIVERED,
        asset=INCREMENT,
        amount=rated.increments,
        unit=report.kind.value,
        units=rated.increments,
        price_minor=terms.minute_price_minor,
        terms_name=terms.name,
        terms_version=terms.version,
        dialout_utc_us=report.started_us,
        posted_utc_us=now_utc_us,
    )


def _row(report: Reported, charged: Charged, now_utc_us: int) -> dict[str, Any]:
    return {
        "id": report.id,
        "buyer": report.buyer,
        "kind": report.kind.value,
        "reference": report.reference,
        "checksum": report.checksum,
        "agent": report.agent,
        "customer": report.customer,
        "received_utc_us": report.received_us,
        "started_utc_us": report.started_us,
        "ended_utc_us": report.ended_us,
        "handled_ms": (report.ended_us - report.started_us) // 1000,
        "resolved": report.resolved,
        "ring_to_answer_ms": None,
        "longest_hold_ms": 0,
        "text": report.text,
        "recording": "",
        "increments": charged.increments,
        "amount_minor": charged.amount_minor,
        "currency": charged.currency,
        "created_utc_us": now_utc_us,
    }


def _interactions() -> Select[Any]:
    """Interactions, and what a call counts as."""
    counts_as = select(outcomes.c.counts_as).where(outcomes.c.transfer == interactions.c.id)
    return select(interactions, func.coalesce(counts_as.scalar_subquery(), "").label("counts_as"))


_PLAIN = tuple(one.name for one in fields(Interaction) if one.name not in ("kind", "ratings"))
_AT_ONCE = 500  # ids of one query: SQLite's bound for parameters


def _with_ratings(connection: Connection, rows: Sequence[Row[Any]]) -> list[Interaction]:
    made = [_interaction(row) for row in rows]
    rated: dict[str, list[RatingRow]] = {}
    names = [one.id for one in made]
    for start in range(0, len(names), _AT_ONCE):
        query = select(ratings).where(ratings.c.interaction.in_(names[start : start + _AT_ONCE]))
        for row in connection.execute(query.order_by(ratings.c.id)):
            one = RatingRow(
                interaction=row.interaction,
                kind=RatingKind(row.kind),
                rating=row.rating,
                words=row.words,
                by=row.by,
                at_utc_us=row.at_utc_us,
            )
            rated.setdefault(row.interaction, []).append(one)
    return [replace(one, ratings=tuple(rated[one.id])) if one.id in rated else one for one in made]


def _interaction(row: Row[Any]) -> Interaction:
    return Interaction(**{name: getattr(row, name) for name in _PLAIN}, kind=Channel(row.kind))


def with_ratings_at(connection: Connection, buyer: str, span: tuple[int, int], since_us: int) -> list[Interaction]:
    """The buyer's interactions since `since_us` that were rated from the one instant to before the other."""
    rated = select(ratings.c.interaction).where(ratings.c.interaction == interactions.c.id)
    rated = rated.where(ratings.c.at_utc_us >= span[0], ratings.c.at_utc_us < span[1])
    mine = (interactions.c.buyer == buyer, interactions.c.received_utc_us >= since_us)
    query = _interactions().where(*mine, rated.exists()).order_by(interactions.c.received_utc_us)
    return _with_ratings(connection, connection.execute(query).all())


def of_span(connection: Connection, buyer: str, from_us: int, to_us: int) -> list[Interaction]:
    """The buyer's interactions that came in from the one instant to before the other, oldest first."""
    at = interactions.c.received_utc_us
    query = _interactions().where(interactions.c.buyer == buyer, at >= from_us, at < to_us)
    return _with_ratings(connection, connection.execute(query.order_by(at, interactions.c.id)).all())
