"""How far a buyer is behind its order: the figure by which strategy `deficit` ranks buyers. Pure.

An order's pace is the share of its week's open time that has passed. A buyer that has had less than that share of its
units is behind; it is measured by the fraction of the order that is missing, so that small and large orders are served
alike. Whoever is furthest behind comes first; who has no order is neither behind nor ahead.
"""

from __future__ import annotations

from book.hours import open_times
from book.limits import Spans, Usage, make_up_of, order_units
from book.model import Buyer, Order

NO_ORDER = 0.0


def deficit(buyer: Buyer, order: Order | None, usage: Usage, spans: Spans, *, live: int, now_utc_us: int) -> float:
    """Fraction of the order that is missing at `now_utc_us`; negative where the buyer is ahead.

    `usage` is that of the running week, `live` the transfers under way that it does not know yet. The make-up belongs
    to what is to be delivered; the overrun does not.
    """
    wanted = 0 if order is None else order.quantity + make_up_of(buyer.terms, order)
    if not wanted:
        return NO_ORDER
    had = order_units(buyer.terms, order, usage.week_connected, usage.week_failed) + usage.week_live + live
    return share_passed(buyer, spans, now_utc_us) - had / wanted


def share_passed(buyer: Buyer, spans: Spans, now_utc_us: int) -> float:
    """The share of the week's open time before now; of the whole week where the buyer never opens in it."""
    if buyer.hours or buyer.holidays:
        week = open_times(buyer.hours, buyer.holidays, buyer.time_zone, spans.week_us, spans.week_end_us)
        if week.total:
            return week.passed(now_utc_us) / week.total
    return (now_utc_us - spans.week_us) / (spans.week_end_us - spans.week_us)
