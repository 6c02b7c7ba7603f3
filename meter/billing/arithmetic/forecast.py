"""Forecast of a running week: the expected overage or shortfall of an order, with its range, and the remedies.

What the order counts is taken to come at a steady rate per open hour of the buyer. What is known of that rate, from
the weeks before and from the hours so far, is a gamma distribution; what is still to come is then negative binomial.
The weeks before weigh as much as a day of open hours does: on Wednesday they steady a slow start, on Friday the week
speaks for itself. The range holds four weeks of five, if nothing changes. It is an estimate, so it may use floating
point; the amounts are those of the week closed so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from book.limits import midnight_us
from meter.billing.arithmetic.calendar import Week
from meter.billing.arithmetic.cycle import Remedy, WeekResult

LOW, HIGH = 0.1, 0.9
FIRST_DAY = 2  # Wednesday: there are two days to go by
_PRIOR_SHARE = 1 / 7  # of a week's open hours, that the weeks before weigh
_VAGUE_UNITS = 0.5  # where there were none before: next to nothing
_MOST_STEPS = 10_000_000
_TAIL = 12.0  # standard deviations, after which a quantile is given up


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a week. Open times in microseconds; `earlier` units of the weeks before, newest first."""

    counted: int
    passed_us: int
    open_us: int
    earlier: Sequence[int] = ()
    most: int | None = None  # units after which the routers admit no more; None: nothing limits them


@dataclass(frozen=True, slots=True)
class ForecastCase:
    """One end of the range: what is delivered in the end, and what that makes of the order.

    `units` and `*_counted` are in what the order counts, `*_units` billed units; amounts in minor units.
    """

    units: int
    overage_counted: int
    overage_units: int
    overage_minor: int
    shortfall_counted: int
    shortfall_units: int
    shortfall_minor: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """A week foreseen: the low end, what is expected, the high end."""

    counted: int
    covered: int
    low: ForecastCase
    expected: ForecastCase
    high: ForecastCase

    @property
    def remedies(self) -> dict[Remedy, tuple[int, int]]:
        """The expected amount of each remedy: units made up for, or the amount of a check or credit."""
        short = self.expected
        return {
            Remedy.REFUND: (0, short.shortfall_minor),
            Remedy.CREDIT: (0, short.shortfall_minor),
            Remedy.MAKE_UP: (short.shortfall_counted, 0),
        }


def is_foreseeable(week: Week, now_utc_us: int) -> bool:
    """From Wednesday 00:00 of the week until its end."""
    return midnight_us(week.monday + timedelta(days=FIRST_DAY), week.zone) <= now_utc_us < week.end_us


def foresee(progress: Progress, covered: int, close: Callable[[int], WeekResult]) -> Forecast:
    """The forecast of a week. `close` holds a week against its order, given how much more is delivered than so far.

    Raises ValueError where more time has passed than there is.
    """
    if not 0 <= progress.passed_us <= progress.open_us:
        raise ValueError(f"{progress.passed_us} of {progress.open_us} us have passed")
    left_us = progress.open_us - progress.passed_us
    shape, time_us = _rate(progress)
    mean = shape * left_us / time_us if time_us else 0.0
    cases = []
    for more in (_quantile(shape, time_us, left_us, LOW), round(mean), _quantile(shape, time_us, left_us, HIGH)):
        end = progress.counted + more
        if progress.most is not None:
            end = max(progress.counted, min(end, progress.most))
        cases.append(_case(close(end - progress.counted)))
    return Forecast(progress.counted, covered, *cases)


def _rate(progress: Progress) -> tuple[float, float]:
    """Units, and the open time in which they came: those of this week, and what the weeks before count for."""
    prior_us = progress.open_us * _PRIOR_SHARE
    prior = sum(progress.earlier) / len(progress.earlier) * _PRIOR_SHARE if progress.earlier else 0.0
    if not progress.earlier:
        prior_us = 0.0
    return max(0, progress.counted) + max(prior, _VAGUE_UNITS), max(1.0, progress.passed_us + prior_us)


def _quantile(shape: float, time_us: float, left_us: int, share: float) -> int:
    """The least count that is not exceeded with that probability, of a negative binomial distribution."""
    if not left_us:
        return 0
    chance = time_us / (time_us + left_us)
    mean = shape * (1 - chance) / chance
    spread = math.sqrt(mean / chance)
    start = max(0, int(mean - _TAIL * spread))
    log = math.lgamma(shape + start) - math.lgamma(shape) - math.lgamma(start + 1)
    term = math.exp(log + shape * math.log(chance) + start * math.log1p(-chance))
    total, count = term, start
    while total < share and count - start < min(_MOST_STEPS, int(2 * _TAIL * spread) + 2):
        term *= (shape + count) / (count + 1) * (1 - chance)
        count += 1
        total += term
    return count


def _case(result: WeekResult) -> ForecastCase:
    over, short = result.overage, result.shortfall
    return ForecastCase(
        units=result.counted,
        overage_counted=over.counted,
        overage_units=over.units,
        overage_minor=over.amount_minor,
        shortfall_counted=short.counted,
        shortfall_units=short.units,
        shortfall_minor=short.amount_minor,
    )
