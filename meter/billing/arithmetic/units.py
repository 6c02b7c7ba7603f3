"""Units by percentage without drift, and what they cost (domain, sections 5 and 8).

Connected units are billed as floor(sum of unit x percentage / 100 over all weeks so far) less what was billed before.
The sum is kept as an integer, in hundredths of a unit, so the fraction that a week leaves over is never lost and never
rounded: in whatever weeks, order or pieces the units come, as many are billed in the end. Failed units go the same way
with a sum of their own, at 100 % unless the terms say otherwise.

One sum runs through all percentages: terms that change in mid-week leave one fraction, not two. It runs on whichever
way an order counts, so that a change of `order_counts` finds it right. What orders pay in advance runs by a sum of its
own (decision 076).

A late outcome of a week that was billed is just units of the next; a reversal is negative units at the percentage of
those that it takes back, and may make a week's figure negative. What would take back more than ever was is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

WHOLE = 100  # hundredths of a unit, or per cent
BILLED = "billed"
SENT = "sent"


@dataclass(frozen=True, slots=True)
class RunningUnits:
    """The running totals of one kind of unit of one buyer. Raises ValueError where the two figures cannot be.

    `hundredths`: the sum of unit x percentage of all units so far. `billed`: units billed so far, its whole hundreds.
    """

    hundredths: int = 0
    billed: int = 0

    def __post_init__(self) -> None:
        if self.hundredths < 0:
            raise ValueError(f"{-self.hundredths} hundredths of a unit more were taken back than ever counted")
        if self.hundredths // WHOLE != self.billed:
            raise ValueError(f"{self.billed} units were billed for {self.hundredths} hundredths of a unit")

    @property
    def fraction(self) -> int:
        """Hundredths of a unit that wait for the next week: 0 to 99."""
        return self.hundredths - WHOLE * self.billed


@dataclass(frozen=True, slots=True)
class CarriedUnits:
    """Both kinds of one buyer."""

    connected: RunningUnits = RunningUnits()
    failed: RunningUnits = RunningUnits()


@dataclass(frozen=True, slots=True)
class WeekUnits:
    """Units of one week, late outcomes and reversals of earlier ones included: as sent, and as billed."""

    sent_connected: int = 0
    sent_failed: int = 0
    billed_connected: int = 0
    billed_failed: int = 0

    @property
    def billed(self) -> int:
        return self.billed_connected + self.billed_failed

    def counted(self, counts: str) -> int:
        """As an order counts them. Raises ValueError for a way of counting that is neither `billed` nor `sent`."""
        if counts == BILLED:
            return self.billed
        if counts == SENT:
            return self.sent_connected + self.sent_failed
        raise ValueError(f"an order counts units {BILLED!r} or {SENT!r}, not {counts!r}")


def bill(carried: RunningUnits, units: Mapping[int, int]) -> tuple[int, RunningUnits]:
    """Units to bill now for `units` by the percentage in force at their dial-out, and what is carried on.

    Called once for a week or piece by piece, the pieces add up to the same. Raises ValueError for a percentage outside
    0 to 100 and where more is taken back than ever counted.
    """
    wrong = [percent for percent in units if not 0 <= percent <= WHOLE]
    if wrong:
        raise ValueError(f"{wrong[0]} is no percentage from 0 to {WHOLE}")
    hundredths = carried.hundredths + sum(percent * count for percent, count in units.items())
    after = RunningUnits(hundredths, hundredths // WHOLE)
    return after.billed - carried.billed, after


def bill_week(
    carried: CarriedUnits, connected: Mapping[int, int], failed: Mapping[int, int]
) -> tuple[WeekUnits, CarriedUnits]:
    """Both kinds at once: the week's units by the percentage at their dial-out, late ones and reversals included.

    Raises ValueError like `bill`.
    """
    billed_connected, connected_after = bill(carried.connected, connected)
    billed_failed, failed_after = bill(carried.failed, failed)
    week = WeekUnits(sum(connected.values()), sum(failed.values()), billed_connected, billed_failed)
    return week, CarriedUnits(connected_after, failed_after)


@dataclass(frozen=True, slots=True)
class OrderedUnits:
    """What a buyer's orders that count as sent have come to so far: quantity x percentage, and units paid for."""

    hundredths: int = 0
    units: int = 0


def paid_in_advance(counts: str, quantity: int, percent: int, before: OrderedUnits) -> int:
    """Billed units that an order pays in advance (domain, section 6).

    Of an order stated in billed units as many as it says. Of one that counts as sent: quantity x percentage, floor
    over all orders so far, less what was invoiced before; not below nothing, where one in between was cancelled.
    """
    if counts == BILLED:
        return quantity
    return max(0, (before.hundredths + quantity * percent) // WHOLE - before.units)


def line_minor(units: int, unit_price_minor: int) -> int:
    """The price of a line of billed units, in minor units. Nothing to round: the percentage went into the units."""
    return units * unit_price_minor


def credit_minor(unit_price_minor: int, percent: int) -> int:
    """The credit for one approved unit: its price x the percentage of its dial-out, half-even (domain, section 8).

    A failed unit is at 100 %, so its credit is the price. Where terms bill failed units at less, its percentage is
    theirs: nobody gets back more than the unit cost. Raises ValueError for a percentage outside 0 to 100.
    """
    if not 0 <= percent <= WHOLE:
        raise ValueError(f"{percent} is no percentage from 0 to {WHOLE}")
    return half_even(unit_price_minor * percent, WHOLE)


def half_even(numerator: int, denominator: int) -> int:
    """The nearest integer to a quotient, of two as near the even one (domain, section 5)."""
    return round(Fraction(numerator, denominator))
