"""The calls for which credits are requested: the amount billed, its price, and the deadline for a request.

A credit gives back what the unit cost: at the price of the order of the week of dial-out, or where nothing was ordered
by the terms in force as that week begins. The window follows from the terms in force at dial-out.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from book.model import Terms
from meter.billing.arithmetic.units import credit_minor
from meter.billing.sql import weeks
from meter.book.sql.book import read_stored
from meter.book.sql.contracts import Contract, read_contract
from meter.credits.rules import CreditError, CreditRefusal, Window, window_of
from meter.ledger.accounts import Posting, Rule
from meter.ledger.sql.ledger import to_posting
from meter.store.money_schema import postings
from meter.text.hostile import one_line


@dataclass(frozen=True, slots=True)
class Call:
    """A billed call: one unit that was posted and not taken back, and what a credit for it comes to."""

    transfer: str
    buyer: str
    category: str
    unit: str  # connected or failed
    percent: int
    dialout_utc_us: int
    week: str  # the Monday
    price_minor: int
    currency: str
    amount_minor: int
    window: Window
    terms_name: str
    terms_version: int


def billed_call(connection: Connection, transfer: str, buyer: str = "") -> Call:
    """The call that a buyer was billed for; any buyer's where none is named. Raises CreditError."""
    query = select(postings).where(postings.c.transfer == transfer).order_by(postings.c.seq)
    made = [to_posting(row) for row in connection.execute(query)]
    taken_back = {one.reverses for one in made}
    units = [one for one in made if one.rule is Rule.UNIT and one.units > 0 and one.key not in taken_back]
    mine = [one for one in units if buyer in ("", one.buyer)]
    if not mine:
        raise CreditError(CreditRefusal.NOT_BILLED, transfer=one_line(transfer, 64))
    return _call(connection, mine[0])


def dialout_of(connection: Connection, transfer: str) -> int | None:
    """The dial-out of a call that was billed once, taken back or not."""
    unit = (postings.c.transfer == transfer, postings.c.rule == Rule.UNIT.value)
    return connection.execute(select(postings.c.dialout_utc_us).where(*unit)).scalars().first()


def credit_of(connection: Connection, transfer: str) -> str | None:
    """The key of a credit for this call that stands, a request's or a goodwill one."""
    rows = connection.execute(select(postings).where(postings.c.transfer == transfer)).all()
    taken_back = {row.reverses for row in rows}
    return next((row.key for row in rows if row.rule == Rule.CREDIT.value and row.key not in taken_back), None)


def _call(connection: Connection, unit: Posting) -> Call:
    contract = read_contract(connection, unit.buyer)
    dialout = unit.dialout_utc_us or 0
    at_dialout = _terms_at_dialout(connection, contract, unit)
    week = contract.week_at(dialout)
    frozen = weeks.frozen_order(connection, contract, week)
    billed = weeks.terms_of(connection, contract, week, frozen)
    percent = unit.percent if unit.percent is not None else 100
    return Call(
        transfer=str(unit.transfer),
        buyer=unit.buyer,
        category=contract.buyer.category,
        unit=str(unit.unit),
        percent=percent,
        dialout_utc_us=dialout,
        week=str(week),
        price_minor=billed.unit_price_minor,
        currency=billed.currency,
        amount_minor=credit_minor(billed.unit_price_minor, percent),
        window=window_of(dialout, at_dialout),
        terms_name=unit.terms_name,
        terms_version=unit.terms_version,
    )


def _terms_at_dialout(connection: Connection, contract: Contract, unit: Posting) -> Terms:
    """Those that the unit names, also where the buyer has another profile by now."""
    wanted = (unit.terms_name, unit.terms_version)
    for one in contract.versions:
        if (one.name, one.version) == wanted:
            return one
    return read_stored(connection)[0].terms.get(wanted) or contract.terms_at(unit.dialout_utc_us or 0)
