"""The dates of a service week: when it is invoiced, due, closed and made up for (domain, section 6).

    Tue   Thu     Mon             Mon   Tue   Wed           Mon
    -6    -4       0 ............. +7    +8    +9           +14
    order order    the week       over-  over- check        the week that
    in-   due                     age    age   due          a make-up
    voice 17:00                   in-    due                goes to
    12:00                         voice  17:00;
                                         remedy closes 12:00

Weeks begin and end where the routers' limits say that they do (`book.limits`): Monday's first instant, so that a
week is of 167 or 169 hours where the clock changes. Where the clock leaves out midnight, the week begins with the jump;
where midnight comes twice, with the first.

A deadline is the last instant at which the wall clock shows its time, so of a time that comes twice it is the second:
the doubt goes to the buyer. Where the clock leaves the time out, it is the jump.

Instants are integers in microseconds UTC, days are dates in the zone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from book.hours import QUARTER_US, offsets
from book.limits import midnight_us, spans_of

NOON = time(12)  # domain 6: a remedy can be changed until Tuesday noon; then the invoice runs
END_OF_BUSINESS = time(17)  # domain 2, unless configured

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# days from the week's Monday; domain 6, "Dates by example"
_ORDER_INVOICE = -6  # Tuesday of the week before
_ORDER_DUE = -4  # Thursday of the week before
_END = 7  # Monday: the week is over, its overage is invoiced
_TUESDAY_AFTER = 8  # overage due; the remedy closes and the invoice with the credit or the make-up runs
_CHECK_DUE = 9  # Wednesday
_MAKE_UP_WEEKS = 2  # that Tuesday's invoice is for the week that begins six days later


@dataclass(frozen=True, slots=True, order=True)
class Week:
    """One service week in the zone of the terms. Raises ValueError where `monday` is none."""

    monday: date
    zone: str
    end_of_business: time = END_OF_BUSINESS

    def __post_init__(self) -> None:
        if self.monday.weekday() != 0:
            raise ValueError(f"{self.monday} is not a Monday, on which every service week begins")

    def __str__(self) -> str:
        """As an order names it (`book.model.Order.week`)."""
        return self.monday.isoformat()

    def later(self, weeks: int) -> Week:
        """The week so many weeks after this one; before it where `weeks` is negative."""
        return replace(self, monday=self.monday + timedelta(weeks=weeks))

    @property
    def start_us(self) -> int:
        return midnight_us(self.monday, self.zone)

    @property
    def end_us(self) -> int:
        """The first instant of the next week. Its overage is invoiced from then on."""
        return midnight_us(self._day(_END), self.zone)

    @property
    def order_invoice_on(self) -> date:
        return self._day(_ORDER_INVOICE)

    @property
    def order_invoice_at(self) -> int:
        """When the run that invoices this week's order is due: the noon that closes the remedies of two weeks before.

        At that instant remedies are closed; the run is to come after them.
        """
        return deadline_us(self.order_invoice_on, NOON, self.zone)

    @property
    def order_due_on(self) -> date:
        return self._day(_ORDER_DUE)

    @property
    def order_due_at(self) -> int:
        return deadline_us(self.order_due_on, self.end_of_business, self.zone)

    @property
    def overage_invoice_on(self) -> date:
        return self._day(_END)

    @property
    def overage_due_on(self) -> date:
        return self._day(_TUESDAY_AFTER)

    @property
    def overage_due_at(self) -> int:
        return deadline_us(self.overage_due_on, self.end_of_business, self.zone)

    @property
    def remedy_closes_at(self) -> int:
        """A choice made before this instant counts for this week's shortfall; one made at it does not."""
        return deadline_us(self._day(_TUESDAY_AFTER), NOON, self.zone)

    @property
    def check_due_on(self) -> date:
        return self._day(_CHECK_DUE)

    @property
    def make_up_week(self) -> Week:
        """The week whose order is invoiced as this week's remedy closes: it gets the credit or the make-up."""
        return self.later(_MAKE_UP_WEEKS)

    def _day(self, days: int) -> date:
        return self.monday + timedelta(days=days)


def week_of(at_us: int, zone: str, end_of_business: time = END_OF_BUSINESS) -> Week:
    """The week that an instant falls in: a transfer's by its dial-out (domain, section 5)."""
    spans = spans_of(zone, zone, at_us // QUARTER_US)
    return Week(date.fromisoformat(spans.week), zone, end_of_business)


def local_day(at_us: int, zone: str) -> date:
    """The day that a zone's calendar shows at an instant."""
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).astimezone(ZoneInfo(zone)).date()


def deadline_us(day: date, at: time, zone: str) -> int:
    """The last instant at which the clock of `zone` shows `at` on `day`; where it never does, the jump over it."""
    first, second = (_utc_us(datetime.combine(day, at.replace(fold=fold), ZoneInfo(zone))) for fold in (0, 1))
    if first <= second:  # the same, or a time that comes twice (PEP 495)
        return second
    return offsets(zone, second, first)[0][1]  # a time left out: read by either offset, it is around the jump


def _utc_us(local: datetime) -> int:
    return (local.astimezone(UTC) - _EPOCH) // _MICROSECOND
