"""What a service week comes to: overage, shortfall, and what each remedy would be (domain, section 6).

    covered   = quantity + make-up
    overage   = units beyond what is covered, invoiced on Monday at the order's price
    shortfall = units below it, settled by the buyer's choice: refund, credit or make-up; credit where none was made

Make-up units count as paid. Domain 6 calls them free, puts them "on top of the week" and speaks of "the paid quantity":
they were paid for in the week that fell short, and are free only in that nobody pays again. So they are no overage; and
one that is not delivered is still owed. Were shortfall held against the quantity alone, a buyer short once more would
lose what it paid for. On top means last: units go to the order first, then to the make-up.

Hence a make-up not delivered is worth what the buyer once gave for it, at the price of that week: `make_up_minor`. It
is 0 for units that the operator gave as a present; they can be made up for again, but there is no money in them.

An order that is not paid has no paid quantity, so nothing that it is short of is owed yet: no check and no credit for
money that never came. Such units are `awaiting`, and are settled like a shortfall once the payment is recorded. Units
delivered all the same are on the order's own invoice and no overage. A make-up short in such a week is owed at once,
for it was paid for before. Whether a hold caused the shortfall makes no difference, and so is not asked.

Units beyond the overrun limit are invoiced like any overage, since they were delivered, and told apart in
`beyond_units`. The routers admit none (decision 041), but judge a week by itself: a fraction carried in, a late
outcome, or an order that limits nothing may go beyond.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from config.book import Order, Terms
from config.limits import order_most
from meter.billing.calendar import Week
from meter.billing.units import WeekUnits, half_even, line_minor


class Remedy(StrEnum):
    """The buyer's standing choice for what a week falls short of."""

    REFUND = "refund"  # a check
    CREDIT = "credit"  # less on the next order's invoice
    MAKE_UP = "make_up"  # as many units on top of the next order


DEFAULT_REMEDY = Remedy.CREDIT  # domain 6: not chosen


@dataclass(frozen=True, slots=True)
class Line:
    """Units and what they come to, in minor units of the contract's currency. Neither is negative."""

    units: int = 0
    amount_minor: int = 0


@dataclass(frozen=True, slots=True)
class WeekResult:
    """A settled week. `counted` is in units as the order counts them, late outcomes and reversals included."""

    week: Week
    counts: str  # billed or sent
    counted: int
    quantity: int
    make_up: int
    overage: Line
    shortfall: Line  # owed now
    awaiting: Line  # owed once the order's invoice is paid
    beyond_units: int  # of the overage: past the order's overrun limit

    def earned_minor(self, price_minor: int, make_up_minor: int) -> int:
        """What was prepaid for the week and is neither short nor waiting for its payment."""
        prepaid = self.quantity * price_minor + make_up_minor
        return prepaid - self.shortfall.amount_minor - self.awaiting.amount_minor

    @property
    def remedies(self) -> dict[Remedy, Settlement]:
        """What each choice would make of the shortfall."""
        return {choice: remedy(choice, self.shortfall, self.week) for choice in Remedy}


@dataclass(frozen=True, slots=True)
class Settlement:
    """A shortfall, remedied.

    `amount_minor`: the check; the credit; or what the made-up units are worth, which is paid to nobody but is what they
    bring with them as `make_up_minor` of `order_week`. `due_on`: the day by which the check is to be out, or that of
    the invoice with the credit or the make-up. `order_week`: the week which that invoice is for.
    """

    remedy: Remedy
    units: int
    amount_minor: int
    due_on: date
    order_week: Week


def settle_week(
    week: Week, terms: Terms, order: Order | None, units: WeekUnits, *, paid: bool, make_up_minor: int
) -> WeekResult:
    """Hold a week's units against its order. Pure; domain, section 6.

    `terms` and `order` as the order was invoiced: the price and the way of counting are the order's, whatever terms
    came into force in mid-week. Without an order every unit is overage. `paid`: its invoice is settled in full, credits
    included. `make_up_minor`: what was paid for its make-up units, in the weeks that they come from.

    Raises ValueError for an order of another week, a negative figure, an amount for no make-up, and an unknown way of
    counting.
    """
    quantity, make_up = (order.quantity, order.make_up) if order else (0, 0)
    if order is not None and order.week != str(week):
        raise ValueError(f"the order is of the week of {order.week}, not of {week}")
    if min(quantity, make_up, make_up_minor) < 0:
        raise ValueError(f"an order of {quantity}, make-up {make_up} worth {make_up_minor}: none may be negative")
    if make_up_minor and not make_up:
        raise ValueError(f"{make_up_minor} was paid for make-up, but the order has none")
    price = terms.unit_price_minor
    counted = units.counted(terms.order_counts)
    over = max(0, counted - quantity - make_up)
    short = max(0, quantity + make_up - counted)
    short_make_up = min(make_up, short)
    waiting = 0 if paid else min(quantity, max(0, quantity - counted))
    owed = short - short_make_up - waiting  # of the order, or taken back from weeks before
    worth = half_even(make_up_minor * short_make_up, make_up) if make_up else 0
    return WeekResult(
        week=week,
        counts=terms.order_counts,
        counted=counted,
        quantity=quantity,
        make_up=make_up,
        overage=Line(over, line_minor(over, price)),
        shortfall=Line(owed + short_make_up, line_minor(owed, price) + worth),
        awaiting=Line(waiting, line_minor(waiting, price)),
        beyond_units=max(0, counted - order_most(terms, order)),
    )


def remedy(choice: Remedy | None, short: Line, week: Week) -> Settlement:
    """What a choice makes of a shortfall, settled on the Tuesday after `week`.

    That is the week which fell short, or a later one where the shortfall had to await its payment. None: not chosen.
    """
    chosen = choice or DEFAULT_REMEDY
    due_on = week.check_due_on if chosen is Remedy.REFUND else week.make_up_week.order_invoice_on
    return Settlement(chosen, short.units, short.amount_minor, due_on, week.make_up_week)
