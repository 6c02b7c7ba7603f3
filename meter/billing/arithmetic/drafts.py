"""Drafts of documents, before they have a number: invoices, credit notes, the statement of a week.

Pure: figures in, a draft out. The body is plain data, frozen as canonical JSON when the document is issued; HTML, PDF
and CSV are made of it and of nothing else, so that they cannot differ and never change. A line that counts units says
of which service week or month they are (`opens`): its transfers are found by that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from book.limits import make_up_of, order_overrun
from book.model import Buyer, Terms
from meter.billing.arithmetic.calendar import Week
from meter.billing.arithmetic.cycle import Line, Remedy, ShortfallRemedy, WeekOrder, WeekResult
from meter.billing.arithmetic.units import SENT, WeekUnits, line_minor

SCHEMA = 1  # of the body
COUNTED = {
    "billed": "billed units, after the percentage",
    "sent": "live transfers as sent, connected and failed, before the percentage",
}
COUNTED_IN = {"billed": "units", "sent": "live transfers"}


class Series(StrEnum):
    """Documents that are numbered together."""

    INVOICE = "invoice"
    CREDIT_NOTE = "credit_note"
    STATEMENT = "statement"


class DocumentKind(StrEnum):
    """The kinds of documents."""

    ORDER = "order"
    OVERAGE = "overage"
    SETUP = "setup"
    MONTH = "month"
    CREDIT_NOTE = "credit_note"
    WEEK = "week"


SERIES = {
    DocumentKind.ORDER: Series.INVOICE,
    DocumentKind.OVERAGE: Series.INVOICE,
    DocumentKind.SETUP: Series.INVOICE,
    DocumentKind.MONTH: Series.INVOICE,
    DocumentKind.CREDIT_NOTE: Series.CREDIT_NOTE,
    DocumentKind.WEEK: Series.STATEMENT,
}


@dataclass(frozen=True, slots=True)
class DraftLine:
    """One line. `amount_minor` is `units` x `price_minor` but where the line says otherwise in its text."""

    text: str
    units: int
    price_minor: int
    amount_minor: int
    opens: str = ""  # Monday or month of the transfers behind it; empty: there are none yet


@dataclass(frozen=True, slots=True)
class Draft:
    """A document to issue. `key` says what it is for: another of the same key is never issued."""

    key: str
    kind: DocumentKind
    buyer: Buyer
    terms: Terms
    period: str
    lines: tuple[DraftLine, ...]
    notes: tuple[str, ...] = ()
    due_us: int | None = None
    uses_credits: bool = False
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def total_minor(self) -> int:
        return sum(line.amount_minor for line in self.lines)


@dataclass(frozen=True, slots=True)
class Issuer:
    """The operator as its documents show it, and how it numbers them."""

    name: str = "The operator"
    address: tuple[str, ...] = ()
    tax_id: str = ""
    email: str = ""
    phone: str = ""
    pay_to: tuple[str, ...] = ()
    prefixes: Mapping[str, str] = field(
        default_factory=lambda: {"invoice": "INV-", "credit_note": "CN-", "statement": "ST-"}
    )


@dataclass(frozen=True, slots=True)
class IssueStamp:
    """The values that issuing adds to a draft. Days are ISO dates of the contract; `applied_minor`: credits used."""

    number: str
    issued_on: str
    issued_at: str
    due_on: str | None
    due_at: str | None
    applied_minor: int


def body_of(draft: Draft, issuer: Issuer, stamp: IssueStamp) -> dict[str, Any]:
    """The body: everything that is shown."""
    buyer, terms = draft.buyer, draft.terms
    total = draft.total_minor
    return {
        "schema": SCHEMA,
        "number": stamp.number,
        "kind": draft.kind.value,
        "issued_on": stamp.issued_on,
        "issued_at": stamp.issued_at,
        "due_on": stamp.due_on,
        "due_at": stamp.due_at,
        "time_zone": terms.time_zone,
        "currency": terms.currency,
        "locale": buyer.locale,
        "issuer": {
            "name": issuer.name,
            "address": list(issuer.address),
            "tax_id": issuer.tax_id,
            "email": issuer.email,
            "phone": issuer.phone,
            "pay_to": list(issuer.pay_to),
        },
        "buyer": {
            "name": buyer.name,
            "title": buyer.title,
            "address": list(buyer.address),
            "reference": buyer.reference,
        },
        "terms": {
            "name": terms.name,
            "version": terms.version,
            "connected_percent": terms.connected_percent,
            "failed_percent": terms.failed_percent,
            "order_counts": terms.order_counts,
            "overrun_percent": terms.overrun_percent,
            "overage_uses_credits": terms.overage_uses_credits,
        },
        "period": draft.period,
        "lines": [
            {
                "text": line.text,
                "units": line.units,
                "price_minor": line.price_minor,
                "amount_minor": line.amount_minor,
                "opens": line.opens,
            }
            for line in draft.lines
        ],
        "total_minor": total,
        "applied_minor": stamp.applied_minor,
        "asked_minor": total - stamp.applied_minor,
        "notes": list(draft.notes),
        "figures": dict(draft.figures),
    }


def order_draft(
    key: str, buyer: Buyer, terms: Terms, *, week: Week, bought: WeekOrder, due_us: int, notes: Sequence[str]
) -> Draft:
    """Tuesday's invoice for a week's order (domain, section 6). `terms` with the price that holds for it."""
    price, order, units = terms.unit_price_minor, bought.order, bought.paid_units
    make_up = make_up_of(terms, order)
    text = f"Live transfers, service week of {week}"
    if terms.order_counts == SENT:
        text = f"{order.quantity} live transfers, service week of {week}, at {terms.connected_percent} %"
    lines = [DraftLine(text, units, price, line_minor(units, price))]
    if make_up:
        lines.append(_make_up_line(terms, make_up, bought.make_up.units))
    order_notes = (
        f"The order counts {COUNTED[terms.order_counts]}.",
        f"The week runs from Monday {week} 00:00 to Monday {week.later(1)} 00:00, {week.zone}.",
        f"It may run over by {order_overrun(terms, order)} {COUNTED_IN[terms.order_counts]}, which are then invoiced.",
        *notes,
    )
    figures = {
        "quantity": order.quantity,
        "make_up": make_up,
        "order_counts": terms.order_counts,
        "paid_units": units,
        "connected_percent": terms.connected_percent,
    }
    return Draft(
        key=key,
        kind=DocumentKind.ORDER,
        buyer=buyer,
        terms=terms,
        period=str(week),
        lines=tuple(lines),
        notes=order_notes,
        due_us=due_us,
        uses_credits=True,
        figures=figures,
    )


def _make_up_line(terms: Terms, make_up: int, came_with: int) -> DraftLine:
    """What comes on top: in the column of units always units, never what the order counts instead."""
    if terms.order_counts != SENT:
        return DraftLine("Make-up for an earlier week, paid for then", make_up, 0, 0)
    how = "paid for then" if came_with else "charged as delivered, for no unit is left of it"
    return DraftLine(f"{make_up} live transfers of make-up for an earlier week, {how}", came_with, 0, 0)


def overage_draft(key: str, buyer: Buyer, terms: Terms, *, result: WeekResult, units: WeekUnits, due_us: int) -> Draft:
    """Monday's invoice for what a week had beyond what was paid for (domain, section 6)."""
    over = result.overage
    week = str(result.week)
    line = DraftLine(_beyond(result, units), over.units, terms.unit_price_minor, over.amount_minor, week)
    return Draft(
        key=key,
        kind=DocumentKind.OVERAGE,
        buyer=buyer,
        terms=terms,
        period=week,
        lines=(line,),
        notes=how_counted(result, units, terms),
        due_us=due_us,
        uses_credits=terms.overage_uses_credits,
        figures=week_figures(result, units),
    )


def _beyond(result: WeekResult, units: WeekUnits) -> str:
    """What Monday's line is for: transfers beyond the order, or units beyond those paid in advance, and why."""
    ordered, week = result.quantity + result.make_up, f"service week of {result.week}"
    if result.counts != SENT:
        return f"Live transfers beyond the {ordered} of the order, {week}"
    why = "failed transfers, in full" if units.sent_failed else "with the part of a unit carried in"
    if not result.overage.counted:
        return f"Units beyond the {result.paid_units + result.came_with.units} paid in advance, {week} ({why})"
    text = f"{result.overage.counted} live transfers beyond the {ordered} of the order, {week}"
    return f"{text} (failed transfers, in full)" if units.sent_failed else text


def week_draft(
    key: str, buyer: Buyer, terms: Terms, *, result: WeekResult, units: WeekUnits, overage: str | None
) -> Draft:
    """The statement of a closed week: what was delivered, what it came to, and what happens next."""
    week, price = str(result.week), terms.unit_price_minor
    lines = [
        DraftLine("Connected transfers, billed", units.billed_connected, 0, 0, week),
        DraftLine("Failed transfers, billed", units.billed_failed, 0, 0, week),
    ]
    notes = list(how_counted(result, units, terms))
    if overage:
        notes.append(f"{_amount_of(result.overage, result)} are beyond what was paid for: see invoice {overage}.")
    elif result.overage.counted:
        notes.append(f"{_amount_of(result.overage, result)} are beyond the order: there is nothing to invoice.")
    if result.shortfall.counted and not result.shortfall.units:
        notes.append(
            f"{result.shortfall.counted} {COUNTED_IN[result.counts]} fall short of it. Nothing that was paid for is"
            " left, so they are worth nothing."
        )
    elif result.shortfall:
        notes.append(
            f"{_amount_of(result.shortfall, result)} fall short of it. They are settled as you choose, until"
            f" Tuesday {result.week.overage_due_on.isoformat()} noon: refund, credit or make-up; a credit where"
            " nothing is chosen."
        )
    if result.awaiting:
        remainder = _amount_of(result.awaiting, result)
        notes.append(f"{remainder} fall short of an order that is not paid: settled once it is.")
    figures = week_figures(result, units) | {"price_minor": price, "overage_invoice": overage}
    return Draft(
        key=key,
        kind=DocumentKind.WEEK,
        buyer=buyer,
        terms=terms,
        period=week,
        lines=tuple(lines),
        notes=tuple(notes),
        figures=figures,
    )


def credit_note_draft(
    key: str, buyer: Buyer, terms: Terms, *, period: str, lines: Sequence[DraftLine], reason: str, of: str
) -> Draft:
    """A credit note: its lines are what is taken back, so its total is positive and is owed to the buyer."""
    notes = (f"Credit note to {of}. {reason}" if of else reason,)
    return Draft(
        key=key,
        kind=DocumentKind.CREDIT_NOTE,
        buyer=buyer,
        terms=terms,
        period=period,
        lines=tuple(lines),
        notes=notes,
        figures={"of": of},
    )


def how_counted(result: WeekResult, units: WeekUnits, terms: Terms) -> tuple[str, ...]:
    """How the week's units were counted, in sentences that can be checked."""
    counted = units.counted(result.counts)
    connected = (
        f"{units.sent_connected} connected transfers at {terms.connected_percent} % are {units.billed_connected} billed"
        " units, the fraction of a unit of earlier weeks included; what is left over is carried on."
    )
    rows = (
        connected,
        f"{units.sent_failed} failed transfers at {terms.failed_percent} % are {units.billed_failed} billed units.",
        f"The order counts {COUNTED[result.counts]}: {counted} of {result.quantity}"
        + (f" and {result.make_up} of make-up." if result.make_up else "."),
        *_how_paid(result, units),
    )
    return tuple(rows)


def _how_paid(result: WeekResult, units: WeekUnits) -> list[str]:
    """How the units that were paid for stand against those billed, where they are not what the order says."""
    rows = []
    if result.counts == SENT:
        came = f", and {result.came_with.units} came with the make-up" if result.came_with.units else ""
        rows.append(f"{result.paid_units} units were paid in advance{came}; {units.billed} are billed.")
    if result.prepaid_used:
        rows.append(f"{result.prepaid_used} of them are prepaid units that earlier weeks left over.")
    if result.kept.units:
        rows.append(f"{result.kept.units} prepaid units stay with you, for weeks that need more than they paid for.")
    return rows


def _amount_of(line: Line, result: WeekResult) -> str:
    """A part of a week in words, as the order counts it, and what it comes to."""
    if result.counts != SENT:
        return f"{line.counted} units" if line.counted == line.units else f"{line.counted} units ({line.units} charged)"
    return f"{line.counted} live transfers, {line.units} units," if line.counted else f"{line.units} units"


def week_figures(result: WeekResult, units: WeekUnits) -> dict[str, Any]:
    """The result of a week as plain data."""
    return {
        "week": str(result.week),
        "counts": result.counts,
        "counted": result.counted,
        "quantity": result.quantity,
        "make_up": result.make_up,
        "sent_connected": units.sent_connected,
        "sent_failed": units.sent_failed,
        "billed_connected": units.billed_connected,
        "billed_failed": units.billed_failed,
        "paid_units": result.paid_units,
        "make_up_units": result.came_with.units,
        "overage_counted": result.overage.counted,
        "overage_units": result.overage.units,
        "overage_minor": result.overage.amount_minor,
        "shortfall_counted": result.shortfall.counted,
        "shortfall_units": result.shortfall.units,
        "shortfall_minor": result.shortfall.amount_minor,
        "awaiting_counted": result.awaiting.counted,
        "awaiting_units": result.awaiting.units,
        "awaiting_minor": result.awaiting.amount_minor,
        "prepaid_used": result.prepaid_used,
        "prepaid_units": result.kept.units,
        "prepaid_minor": result.kept.amount_minor,
        "beyond_units": result.beyond_units,
    }


def remedy_text(settlement: ShortfallRemedy, week: str, counts: str) -> str:
    """The remedy of a shortfall in one line; `counts`: how the order of the week that fell short counted.

    Where nothing was paid for what is short, nothing is paid back: it is then no credit, and no check is made out.
    """
    said = {
        Remedy.REFUND: f"a check is due on {settlement.due_on.isoformat()}",
        Remedy.CREDIT: "credited",
        Remedy.MAKE_UP: f"made up for in the week of {settlement.order_week}",
    }
    worth = f", worth {settlement.units} units" if counts == SENT else ""
    short = f"{settlement.counted} {COUNTED_IN[counts]} short{worth}"
    if not settlement.amount_minor and settlement.remedy is not Remedy.MAKE_UP:
        return f"Service week of {week}: {short}; nothing was paid for that, so nothing is given back"
    return f"Service week of {week}: {short}, {said[settlement.remedy]}"
