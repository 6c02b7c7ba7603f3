"""A thousandth of `make proof`, and proof that the proof can fail."""

from __future__ import annotations

import pytest

from facts.fact import Kind
from router.transfer import legs as steps_legs
from router.transfer.model import HangUp
from tests.proof.chaos import run, violations


@pytest.mark.parametrize("seed", range(1, 7))
def test_no_order_of_events_breaks_a_transfer(seed: int) -> None:
    world, wrong = run(seed)
    assert not wrong, f"python -m tests.proof --seed {seed}"
    assert len({fact.transfer for fact in world.journal.facts}) >= 200


def test_a_machine_that_forgets_its_losers_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(state, numbers, reason):  # type: ignore[no-untyped-def]
        after, effects = original(state, numbers, reason)
        return after, [effect for effect in effects if not isinstance(effect, HangUp)]

    original = steps_legs.end_legs
    monkeypatch.setattr(steps_legs, "end_legs", careless)
    _, wrong = run(3)
    assert any("legs up" in what for what in wrong)


def test_a_second_closing_fact_is_found_out() -> None:
    world, wrong = run(2, transfers=20)
    assert not wrong
    closing = next(fact for fact in world.journal.facts if fact.kind is Kind.TRANSFER_CLOSED)
    world.journal.facts.append(closing)
    assert any("2 closing facts" in what for what in violations(world))
