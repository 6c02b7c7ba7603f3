"""What documents say: the column of units holds billed units, whatever the order counts, and no word promises money."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from book.model import Buyer, Order
from book.terms import presets
from meter.billing.arithmetic.calendar import Week
from meter.billing.arithmetic.cycle import Line, Prepaid, Remedy, WeekOrder, remedy, week_result
from meter.billing.arithmetic.drafts import Issuer, IssueStamp, body_of, order_draft, remedy_text, week_draft
from meter.billing.arithmetic.units import WeekUnits
from meter.billing.documents import shown

SENT = replace(presets()["westlake-fulfillment"], unit_price_minor=4_500)
WEEK = Week(date(2026, 6, 8), SENT.time_zone)


@pytest.mark.parametrize("counts", ["sent", "billed"])
@pytest.mark.parametrize(
    ("transfers", "units", "worth"), [(0, 0, 0), (10, 9, 40_500), (8, 8, 36_000), (7, 0, 0), (1, 18, 81_000)]
)
def test_the_units_of_an_orders_invoice_are_those_that_it_brings(
    counts: str, transfers: int, units: int, worth: int
) -> None:
    terms = replace(SENT, order_counts=counts)
    order = Order("acme", str(WEEK), 200, transfers, transfers, units)
    bought = WeekOrder(order, 200 if counts == "billed" else 186, Prepaid(units, worth), paid=False)
    draft = order_draft("", Buyer("acme", "Acme", terms), terms, week=WEEK, bought=bought, due_us=0, notes=())
    assert sum(line.units for line in draft.lines) == bought.paid_units + units
    assert draft.total_minor == bought.paid_units * 4_500
    on_top = [line.text for line in draft.lines[1:]]
    if counts == "sent" and transfers:
        assert f"{transfers} live transfers of make-up" in on_top[0]
        assert ("paid for" in on_top[0]) == bool(units), "what brings no units is charged as it is delivered"


@pytest.mark.parametrize("counts", ["sent", "billed"])
@pytest.mark.parametrize("choice", list(Remedy))
@pytest.mark.parametrize("short", [Line(8, 36_000, 8), Line(2, 0, 1), Line(0, 0, 8)])
def test_no_check_and_no_credit_is_promised_of_nothing(counts: str, choice: Remedy, short: Line) -> None:
    text = remedy_text(remedy(choice, short, WEEK), str(WEEK), counts)
    assert f"{short.counted} " in text
    promises = "a check is due" in text or "credited" in text
    assert promises == (bool(short.amount_minor) and choice is not Remedy.MAKE_UP), text
    assert ("made up for" in text) == (choice is Remedy.MAKE_UP)


@pytest.mark.parametrize("figure", ["counted", "quantity", "make_up", "overage_counted", "shortfall_counted"])
def test_no_number_of_transfers_stands_in_a_statement_as_units(figure: str) -> None:
    """Each figure that an order counts as it was sent, by a value of its own: its row says that it is transfers."""
    bought = WeekOrder(Order("acme", str(WEEK), 200, 10, 10, 9), 186, Prepaid(9, 40_500), paid=True)
    units = WeekUnits(190, 1, 176, 1)
    result = week_result(WEEK, SENT, bought, units)
    draft = week_draft("", Buyer("acme", "Acme", SENT), SENT, result=result, units=units, overage=None)
    stamp = IssueStamp("ST-000001", "2026-06-15", "2026-06-15T01:00:00-04:00", None, None, 0)
    body = body_of(draft, Issuer(), stamp)
    body["figures"] |= {figure: 7_777}
    rows = [text for text, number, _ in shown(body)["week"] if number == "7,777"]
    assert rows
    assert all("live transfers" in text and "units" not in text for text in rows), rows
    assert ("Came with the make-up, billed units", "9", "") in shown(body)["week"]
