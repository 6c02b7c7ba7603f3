"""Minute rating: what a call costs by its talk (domain, section 9).

Each started increment of talk is charged, inbound and outbound alike; buffer, verdict and units play no part. The price
is that of one increment (`minute_price_minor`), so an amount is a product of integers and there is nothing to round.
A call is rated by the terms in force at its dial-out, each for itself: what one leaves unused of its last increment is
not another's.
"""

from __future__ import annotations

from dataclasses import dataclass

from book.model import Terms


@dataclass(frozen=True, slots=True)
class MinuteCharge:
    """One call, rated. `charged_ms` is the time of the increments: what was paid for, at least what was talked."""

    talk_ms: int
    increments: int
    charged_ms: int
    amount_minor: int


def minute_charge(talk_ms: int, terms: Terms) -> MinuteCharge:
    """Rate one call by its talk in ms, rounded down; 0 is a call that nobody answered, and free.

    A call with any talk is charged as one of `minute_minimum_ms` at least. Raises ValueError for a negative talk and
    for terms without an increment.
    """
    if talk_ms < 0:
        raise ValueError(f"talk of {talk_ms} ms")
    if terms.minute_increment_ms <= 0:
        raise ValueError(f"terms {terms.name!r} charge in increments of {terms.minute_increment_ms} ms")
    least_ms = max(talk_ms, terms.minute_minimum_ms) if talk_ms else 0
    increments = -(-least_ms // terms.minute_increment_ms)  # started, so rounded up
    return MinuteCharge(
        talk_ms, increments, increments * terms.minute_increment_ms, increments * terms.minute_price_minor
    )
