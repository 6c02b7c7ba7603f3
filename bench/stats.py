"""The few statistics that the measurements need: order statistics, and an interval that asks for no distribution."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

RESAMPLES = 10_000
_SEED = 20_260_101  # the interval of the same numbers is the same interval


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all values do not exceed (nearest rank). NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float:
    """NaN of nothing."""
    return statistics.median(values) if values else math.nan


def bootstrap(values: Sequence[float], percent: float = 95.0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Interval of the median by the percentile bootstrap. Of fewer than five values it is little but a range."""
    if not values:
        return math.nan, math.nan
    dice = random.Random(_SEED)
    medians = [statistics.median(dice.choices(values, k=len(values))) for _ in range(resamples)]
    tail = (100 - percent) / 2
    return percentile(medians, tail), percentile(medians, 100 - tail)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Least squares: how much y grows by one of x. 0 where there are not two different x."""
    if len({x for x, _ in points}) < 2:
        return 0.0
    return statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope
