"""The live view: what a person sees of calls that are up, on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from facts.fact import Kind
from router.live import Deadline, LegView, TransferView, arrival_view, arrivals_of, is_empty, router_view, transfer_view
from telemetry.logs import mask
from tests.memory import Script
from tests.world import World, answers, declines, hangs_up, party, plain, rings


def _world() -> World:
    world = World([plain(1), plain(2), plain(3)])
    world.script(party(rings(200), answers(4_000)), party(declines(1_000)), party())
    world.engine.invite("leads", Script((hangs_up(60_000),)), headers={"x-call-id": ["c-9"]})
    return world


def _view(world: World, at_ms: int) -> TransferView:
    """The one transfer, `at_ms` after the INVITE."""
    (shell,) = world.router.live.values()
    world.clock.run(shell.start.invite.at_us + at_ms * 1000)
    return transfer_view(shell, world.clock.now_us(), mask)


def test_a_ringing_transfer_shows_each_leg_and_the_ring_timeout() -> None:
    world = _world()
    one = _view(world, 2_500)
    assert (one.campaign, one.buyer, one.dialer, one.call_id) == ("leads", "acme", "local", "c-9")
    assert (one.caller, one.phase, one.age_ms, one.dialout_ms) == ("***0123", "ringing", 2_500, 2_500)
    assert one.legs == (
        LegView(0, "caller", "ringing", 2_500),
        LegView(1, "trunk1", "ringing", 2_300),
        LegView(2, "trunk2", "ended", 1_500),
        LegView(3, "trunk3", "dialed", 2_500),
    )
    assert one.next == Deadline("ring", 0, 27_500)


def test_a_talking_transfer_waits_for_the_threshold_then_for_the_minute() -> None:
    world = _world()
    assert _view(world, 5_000).next == Deadline("talk", 0, 14_000)
    one = _view(world, 19_500)
    assert (one.phase, one.legs[0].phase, one.legs[1]) == ("talking", "answered", LegView(1, "trunk1", "won", 15_500))
    assert one.next == Deadline("minute", 0, 44_500)


def test_deadlines_and_timers_are_the_same_ones_until_the_end() -> None:
    world = _world()
    (shell,) = world.router.live.values()
    for at_ms in range(0, 70_000, 500):
        world.clock.run(shell.start.invite.at_us + at_ms * 1000)
        assert shell.deadlines.keys() == shell.timers.keys(), at_ms
    assert shell.closed
    assert not shell.deadlines


def test_a_transfer_before_dial_out_has_no_dial_out_yet() -> None:
    world = World([plain()])
    world.admit_after_us = 50_000
    world.engine.invite("leads", Script())
    one = _view(world, 30)
    assert (one.phase, one.dialout_ms, one.next) == ("admitting", None, None)
    assert one.legs == (LegView(0, "caller", "waiting", 30), LegView(1, "trunk1", "planned", None))


def test_a_call_whose_lead_is_looked_up_is_arriving() -> None:
    class Slow:
        def fetch(self, lead_id: str, dialer: str, answer: Callable[[bytes | None], None]) -> None:
            world.clock.call_at(world.clock.now_us() + 300_000, lambda: answer(b'{"phone": "+12125550199"}'))

    world = World([plain()])
    world.script(party(declines(1_000)))
    world.router.leads = Slow()
    world.engine.invite("leads", Script(), headers={"x-lead-id": ["L1"]})
    world.clock.run_for(100_000)
    (arrival,) = arrivals_of(world.router)
    shown = arrival_view(arrival, world.clock.now_us(), mask)
    assert (shown.campaign, shown.caller, shown.stage, shown.age_ms) == ("leads", "***0123", "lead", 100)
    view = router_view(world.router)
    assert (view.transfers, view.arrivals, view.draining) == (0, 1, False)
    assert not is_empty(world.router)
    world.clock.run_for(60_000_000)
    assert is_empty(world.router)
    started = world.journal.facts[0].payload
    assert (started["phone"], "lead_problems" in started) == ("+12125550199", False)


@pytest.mark.parametrize(
    ("ids", "posted", "reason"),
    [
        (["L1"], None, "bad_number"),  # nobody posted it, or it has expired
        (["L1"], b"", "suppression_unavailable"),  # the store is slow: come back
        (["L1"], b"{", "bad_number"),
        (["L1"], b'{"phone": "+12125550199", "phone": "+12125550198"}', "bad_number"),
        (["L1"], b'{"phone": "call me"}', "bad_number"),
        (["L1", "L2"], b'{"phone": "+12125550199"}', "bad_number"),
        (["L1, L2"], b'{"phone": "+12125550199"}', "bad_number"),
        (["L" * 65], b'{"phone": "+12125550199"}', "bad_number"),
        ([""], b'{"phone": "+12125550199"}', "bad_number"),
        (["L1", "L1 "], b'{"phone": "+12125550199"}', ""),
        (["L1"], b'{"phone": "+12125550199"}', ""),
    ],
)
@pytest.mark.parametrize("own", [{}, {"x-lead-phone": ["+12125550199"]}])
def test_a_lead_by_reference_that_cannot_be_had_refuses_whatever_number_the_invite_has(
    ids: list[str], posted: bytes | None, reason: str, own: dict[str, list[str]]
) -> None:
    class Posted:
        def fetch(self, lead_id: str, dialer: str, answer: Callable[[bytes | None], None]) -> None:
            assert lead_id == "L1"
            world.clock.call_at(world.clock.now_us(), lambda: answer(posted))

    world = World([plain()])
    world.script(party(declines(1_000)))
    world.router.leads = Posted()
    world.engine.invite("leads", Script(), headers={"x-lead-id": ids, **own})
    world.clock.run_for(60_000_000)
    started = world.journal.facts[0].payload
    refused = [one.payload["reason"] for one in world.journal.facts if one.kind is Kind.REFUSED]
    assert refused == ([reason] if reason else [])
    assert started["phone"] == ("" if reason else "+12125550199")
    assert ("lead_problems" in started) is bool(reason)


def test_a_router_that_keeps_no_leads_refuses_a_lead_by_reference() -> None:
    world = World([plain()])
    world.router.leads = None
    world.engine.invite("leads", Script(), headers={"x-lead-id": ["L1"]})
    world.clock.run_for(60_000_000)
    refused = [one.payload["reason"] for one in world.journal.facts if one.kind is Kind.REFUSED]
    assert refused == ["bad_number"]
