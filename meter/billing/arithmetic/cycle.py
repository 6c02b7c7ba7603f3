"""The result of a service week: overage, shortfall, and the amount of each remedy (domain, section 6).

An order is stated in what it counts: live transfers as sent, or billed units. So are its overrun, overage and
shortfall; what they come to is always reckoned in billed units (decision 076):

    overage   = delivered beyond quantity + make-up                 (in what the order counts)
    shortfall = what is missing of these, settled by the buyer's choice: refund, credit or make-up; credit where none
    excess    = billed units - units that were paid in advance - units that came with the make-up

An excess takes prepaid units kept from weeks before; the rest is invoiced on Monday at the order's price. What is left
of the prepaid units is what the shortfall is worth; where nothing is short it is kept. Stated in billed units, an order
pays for as many as it says, so both are the same.

Make-up counts as paid. Domain 6 calls it free, puts it "on top of the week" and speaks of "the paid quantity": it was
paid for in the week that fell short, and is free only in that nobody pays again. So it is no overage; and what is not
delivered of it is still owed. On top means last: the order is delivered first, then the make-up. What is left of it is
worth what the buyer once gave for it, at the price of that week: the money that its `Prepaid` names. That is 0 for a
present of the operator's; it can be made up for again, but there is no money in it.

An order that is not paid has no paid quantity, so nothing that it is short of is owed yet: no check and no credit for
money that never came. That is `awaiting`, and settled like a shortfall once the payment is recorded. What is delivered
all the same is on the order's own invoice and no overage. A make-up short in such a week is owed at once, for it was
paid for before. Whether a hold caused the shortfall makes no difference, and so is not asked.

What is beyond the overrun limit is invoiced like any overage, since it was delivered, and told apart in
`beyond_units`. The routers admit none (decision 041), but judge a week by itself: a fraction carried in or a late
outcome may go beyond.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from book.limits import make_up_of, order_most
from book.model import Order, Terms
from meter.billing.arithmetic.calendar import Week
from meter.billing.arithmetic.units import SENT, WHOLE, WeekUnits, half_even, line_minor


class Remedy(StrEnum):
    """The buyer's standing choice for what a week falls short of."""

    REFUND = "refund"  # a check
    CREDIT = "credit"  # less on the next order's invoice
    MAKE_UP = "make_up"  # as many units on top of the next order


DEFAULT_REMEDY = Remedy.CREDIT  # domain 6: not chosen


@dataclass(frozen=True, slots=True)
class Line:
    """A part of a week: billed units and what they come to in minor units, and how much the order counts it as."""

    units: int = 0
    amount_minor: int = 0
    counted: int = 0

    def __bool__(self) -> bool:
        """Whether there is anything to settle: what is short may be worth nothing, and is short all the same."""
        return bool(self.units or self.counted)


@dataclass(frozen=True, slots=True)
class Prepaid:
    """Billed units that are paid for and not delivered yet, and what was paid for them."""

    units: int = 0
    amount_minor: int = 0


@dataclass(frozen=True, slots=True)
class WeekOrder:
    """An order as its week is held against it. `make_up`: what came with it; `paid`: its invoice is paid in full."""

    order: Order
    paid_units: int
    make_up: Prepaid
    paid: bool


@dataclass(frozen=True, slots=True)
class WeekResult:
    """A closed week. `counted`, `quantity` and `make_up` are in what the order counts, late outcomes included."""

    week: Week
    counts: str  # billed or sent
    counted: int
    quantity: int
    make_up: int
    paid_units: int
    came_with: Prepaid  # with the make-up
    overage: Line  # its units are what is charged: prepaid units are used first
    shortfall: Line  # owed now
    awaiting: Line  # owed once the order's invoice is paid
    beyond_units: int  # of the overage: past the order's overrun limit, in what the order counts
    kept_before: Prepaid  # prepaid units that weeks before left over
    kept: Prepaid  # and what is left of them, with what this week leaves over

    @property
    def prepaid_used(self) -> int:
        """Prepaid units of weeks before that this week used."""
        return max(0, self.kept_before.units - self.kept.units)

    def earned_minor(self, price_minor: int) -> int:
        """What was prepaid for the week, or used in it, and is neither short, waiting for its payment, nor kept."""
        prepaid = self.paid_units * price_minor + self.came_with.amount_minor + self.kept_before.amount_minor
        owed = self.shortfall.amount_minor + self.awaiting.amount_minor
        return prepaid - owed - self.kept.amount_minor

    @property
    def remedies(self) -> dict[Remedy, ShortfallRemedy]:
        """The remedy of the shortfall by each choice."""
        return {choice: remedy(choice, self.shortfall, self.week) for choice in Remedy}


@dataclass(frozen=True, slots=True)
class ShortfallRemedy:
    """A shortfall, remedied.

    `amount_minor`: the check; the credit; or what the made-up units are worth, which is paid to nobody but is what they
    bring with them to `order_week`. `counted`: what is added to that week's make-up. `due_on`: the day by which the
    check is to be out, or that of the invoice with the credit or the make-up. `order_week`: the week of that invoice.
    """

    remedy: Remedy
    units: int
    amount_minor: int
    counted: int
    due_on: date
    order_week: Week


def week_result(
    week: Week, terms: Terms, bought: WeekOrder | None, units: WeekUnits, kept: Prepaid = Prepaid()
) -> WeekResult:
    """Hold a week's units against its order. Pure; domain, section 6.

    `terms` and the order as it was invoiced: the price and the way of counting are the order's, whatever terms came
    into force in mid-week. Without an order everything is overage. `kept`: prepaid units that weeks before left over.

    Raises ValueError for an order of another week, a negative figure, an amount for no make-up, and an unknown way of
    counting.
    """
    _check(week, bought, kept)
    price, counted = terms.unit_price_minor, units.counted(terms.order_counts)
    order = bought.order if bought else None
    quantity, make_up = (order.quantity, make_up_of(terms, order)) if order else (0, 0)
    paid_units, came_with = (bought.paid_units, bought.make_up) if bought else (0, Prepaid())
    over, short = max(0, counted - quantity - make_up), max(0, quantity + make_up - counted)
    excess = units.billed - paid_units - came_with.units
    used = min(kept.units, max(0, excess))
    charged = max(0, excess) - used
    after = Prepaid(kept.units - used, kept.amount_minor - _share(kept, used))
    shortfall, awaiting = Line(), Line()
    left = max(0, -excess)
    of_make_up = min(came_with.units, left)
    of_order = left - of_make_up  # or taken back from weeks before
    worth = _share(came_with, of_make_up)
    if short:
        is_waiting = bought is not None and not bought.paid
        waits = min(quantity, max(0, quantity - counted)) if is_waiting else 0
        waiting = min(paid_units, of_order) if is_waiting else 0
        awaiting = Line(waiting, line_minor(waiting, price), waits)
        owed = of_order - waiting
        shortfall = Line(of_make_up + owed, worth + line_minor(owed, price), short - waits)
    elif left:
        after = Prepaid(after.units + left, after.amount_minor + worth + line_minor(of_order, price))
    return WeekResult(
        week=week,
        counts=terms.order_counts,
        counted=counted,
        quantity=quantity,
        make_up=make_up,
        paid_units=paid_units,
        came_with=came_with,
        overage=Line(charged, line_minor(charged, price), over),
        shortfall=shortfall,
        awaiting=awaiting,
        beyond_units=max(0, counted - order_most(terms, order)),
        kept_before=kept,
        kept=after,
    )


def make_up_units(order: Order, terms: Terms) -> int:
    """Billed units that come with an order's make-up: those of weeks that fell short, and what a present is worth.

    A present is free, so it brings whole units for all its transfers; the part of a unit too many is the buyer's.
    """
    present = order.make_up - order.make_up_owed
    if terms.order_counts == SENT:
        present = -(-present * terms.connected_percent // WHOLE)
    return order.make_up_units + present


def _check(week: Week, bought: WeekOrder | None, kept: Prepaid) -> None:
    figures = [kept.units, kept.amount_minor]
    if bought is not None:
        order, make_up = bought.order, bought.make_up
        if order.week != str(week):
            raise ValueError(f"the order is of the week of {order.week}, not of {week}")
        figures += [order.quantity, order.make_up, bought.paid_units, make_up.units, make_up.amount_minor]
        if make_up.amount_minor and not make_up.units:
            raise ValueError(f"{make_up.amount_minor} was paid for make-up, but the order has none")
    if min(figures) < 0:
        raise ValueError(f"figures of an order {figures}: none may be negative")


def _share(prepaid: Prepaid, units: int) -> int:
    """What some of these units were paid with, half-even."""
    return half_even(prepaid.amount_minor * units, prepaid.units) if prepaid.units else 0


def remedy(choice: Remedy | None, short: Line, week: Week) -> ShortfallRemedy:
    """The remedy of a shortfall by a choice, carried out on the Tuesday after `week`.

    That is the week which fell short, or a later one where the shortfall had to await its payment. None: not chosen.
    """
    chosen = choice or DEFAULT_REMEDY
    due_on = week.check_due_on if chosen is Remedy.REFUND else week.make_up_week.order_invoice_on
    return ShortfallRemedy(
        remedy=chosen,
        units=short.units,
        amount_minor=short.amount_minor,
        counted=short.counted,
        due_on=due_on,
        order_week=week.make_up_week,
    )
