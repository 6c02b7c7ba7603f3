"""The service levels of per-minute service (domain, section 9), each as the count that met it and the count in all.

    calls    answered before the third ring: within 12 s of the first 18x, two full cycles of 6 s
    hold     no hold above 10 s, of the calls that were answered
    e-mails  answered within 6 hours of coming in

Bounds are inclusive. A call that nobody answered missed its level, unless its caller left before it had rung for 12 s:
then nobody can say, and it counts for neither. An e-mail is answered when the work on it ended. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from book.model import Channel
from facts.fact import HOLD_MS
from meter.billing.arithmetic.units import half_even

RING_MS = 12_000  # domain 9: two full 6 s cycles
EMAIL_US = 6 * 3_600 * 1_000_000  # domain 9: within 6 hours


class ServedInteraction(Protocol):
    """The fields of an interaction that the levels read."""

    @property
    def kind(self) -> Channel: ...
    @property
    def received_utc_us(self) -> int: ...
    @property
    def started_utc_us(self) -> int | None: ...
    @property
    def ended_utc_us(self) -> int | None: ...
    @property
    def ring_to_answer_ms(self) -> int | None: ...
    @property
    def longest_hold_ms(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Level:
    """How many of how many met one level. `name` is the key in stored reports."""

    name: str
    met: int
    of: int

    @property
    def percent_x10(self) -> int | None:
        """Tenths of a percent, rounded half-even; None of none."""
        return half_even(self.met * 1_000, self.of) if self.of else None


def answered_in_time(interaction: ServedInteraction) -> bool | None:
    """Before the third ring; None: not a call, or its caller left before that could be said."""
    if interaction.kind is not Channel.CALL:
        return None
    if interaction.started_utc_us is not None:
        return interaction.ring_to_answer_ms is not None and interaction.ring_to_answer_ms <= RING_MS
    left_early = interaction.ring_to_answer_ms is not None and interaction.ring_to_answer_ms < RING_MS
    return None if left_early else False


def held_briefly(interaction: ServedInteraction) -> bool | None:
    """No hold above 10 s; None: not a call that was answered."""
    if interaction.kind is not Channel.CALL or interaction.started_utc_us is None:
        return None
    return interaction.longest_hold_ms <= HOLD_MS


def mail_in_time(interaction: ServedInteraction) -> bool | None:
    """Answered within 6 hours; None: not an e-mail."""
    if interaction.kind is not Channel.EMAIL:
        return None
    return interaction.ended_utc_us is not None and interaction.ended_utc_us - interaction.received_utc_us <= EMAIL_US


_LEVELS: tuple[tuple[str, Callable[[ServedInteraction], bool | None]], ...] = (
    ("answered_before_third_ring", answered_in_time),
    ("no_hold_above_10_s", held_briefly),
    ("email_within_6_h", mail_in_time),
)


def levels_of(interactions: Iterable[ServedInteraction]) -> tuple[Level, ...]:
    """Every level over these interactions."""
    listed = list(interactions)
    made = []
    for name, met in _LEVELS:
        said = [one for one in map(met, listed) if one is not None]
        made.append(Level(name, sum(said), len(said)))
    return tuple(made)
