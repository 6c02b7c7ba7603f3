"""Whole transfers through the real router on a virtual clock: the worked examples of the domain, and the races."""

from __future__ import annotations

import pytest

from book.model import Buyer, BuyerState, Terms
from facts.answers import Admission
from facts.fact import Kind
from facts.outcome import CountsAs, Reason, Verdict
from tests.memory import Act, Does, Script
from tests.world import World, answers, declines, did, hangs_up, party, plain, rings, secure


def one_secure(*acts: Act) -> World:
    return World([secure()]).script(party(Act(10, Does.TRYING), rings(), *acts))


def test_answers_at_4_s_buyer_hangs_up_at_18_9_s_is_failed() -> None:
    outcome = one_secure(answers(4_000), hangs_up(18_900)).call()
    assert (outcome.verdict, outcome.reason, outcome.talk_ms) == (Verdict.FAILED, Reason.BUYER_ABANDONED, 14_900)
    assert outcome.counts_as is CountsAs.FAILED


@pytest.mark.parametrize("who", ["buyer", "caller"])
def test_answers_at_4_s_anyone_hangs_up_at_19_0_s_is_connected(who: str) -> None:
    buyer = [answers(4_000)] + ([hangs_up(19_000)] if who == "buyer" else [])
    caller = [hangs_up(19_000)] if who == "caller" else []
    outcome = one_secure(*buyer).call(*caller)
    assert (outcome.verdict, outcome.talk_ms, outcome.counts_as) == (Verdict.CONNECTED, 15_000, CountsAs.CONNECTED)


@pytest.mark.parametrize(
    ("at_ms", "verdict", "counts_as"),
    [(14_999, Verdict.WITHIN_BUFFER, CountsAs.FREE), (15_000, Verdict.FAILED, CountsAs.FAILED)],
)
def test_all_decline_at_the_buffer(at_ms: int, verdict: Verdict, counts_as: CountsAs) -> None:
    world = World([secure(1), secure(2), secure(3)])
    world.script(party(declines(3_000)), party(rings(), declines(at_ms)), party(declines(900, 603)))
    outcome = world.call()
    assert (outcome.verdict, outcome.reason, outcome.counts_as) == (verdict, Reason.DECLINED, counts_as)
    assert outcome.attempt_ms == at_ms


def test_the_doubt_of_a_slow_loop_goes_to_the_buyer() -> None:
    world = one_secure(declines(15_004))
    world.clock.doubt_us = 5_000
    assert world.call().verdict is Verdict.WITHIN_BUFFER


def test_rings_30_s_ring_timeout_is_failed() -> None:
    world = one_secure()
    outcome = world.call()
    assert (outcome.verdict, outcome.reason, outcome.attempt_ms) == (Verdict.FAILED, Reason.NO_ANSWER, 30_000)
    assert ("reject", "in1", 480) in world.engine.commands


def test_rings_20_s_caller_hangs_up_is_caller_abandoned() -> None:
    outcome = one_secure().call(Act(20_000, Does.CANCEL))
    assert (outcome.verdict, outcome.counts_as) == (Verdict.CALLER_ABANDONED, CountsAs.FREE)


def test_answers_at_20_s_caller_hangs_up_at_24_s_is_a_short_call() -> None:
    outcome = one_secure(answers(20_000)).call(hangs_up(24_000))
    assert (outcome.verdict, outcome.counts_as) == (Verdict.SHORT_CALL, CountsAs.FREE)


def test_a_plain_did_that_rings_and_declines_after_2_s_is_failed() -> None:
    outcome = World([did()]).script(party(rings(), declines(2_000))).call()
    assert (outcome.verdict, outcome.counts_as, outcome.buffer_ms) == (Verdict.FAILED, CountsAs.FAILED, 0)


def test_own_carrier_answers_503_after_300_ms_is_a_carrier_fault() -> None:
    outcome = World([did()]).script(party(declines(300, 503))).call()
    assert (outcome.verdict, outcome.reason) == (Verdict.FAULT, Reason.CARRIER_FAULT)


PROVISIONAL = (101, 102, 110, 150, 179, 180, 181, 182, 183, 184, 189, 190, 198, 199)
RINGING = (180, 181, 182, 183)  # domain, section 2


@pytest.mark.parametrize("code", PROVISIONAL)
def test_what_a_provisional_answer_of_our_own_carrier_is_before_its_503(code: int) -> None:
    world = World([did()]).script(party(Act(100, Does.RING, code), declines(300, 503)))
    outcome = world.call()
    rang = code in RINGING
    assert outcome.reason is (Reason.DECLINED if rang else Reason.CARRIER_FAULT)
    assert ("ring" in [command[0] for command in world.engine.commands]) is rang, (
        "the caller hears ringing where there is any"
    )
    assert world.kinds().count("ringing") == int(rang)


@pytest.mark.parametrize("code", PROVISIONAL)
def test_whoever_gives_any_provisional_answer_is_reached(code: int) -> None:
    outcome = World([plain()]).script(party(Act(100, Does.RING, code))).call()
    assert (outcome.verdict, outcome.reason) == (Verdict.FAILED, Reason.NO_ANSWER)


@pytest.mark.parametrize("provisionals", [0, 1, 20])
def test_provisional_replies_never_move_the_clock(provisionals: int) -> None:
    acts = [Act(100 + 500 * n, Does.RING, 180 + n % 4) for n in range(provisionals)]
    outcome = one_secure(*acts, declines(15_000)).call()
    assert (outcome.attempt_ms, outcome.verdict) == (15_000, Verdict.FAILED)


def test_one_endpoints_refusal_ends_that_leg_only() -> None:
    world = World([plain(1), plain(2)]).script(party(declines(100, 603)), party(rings(), answers(5_000)))
    assert world.call(hangs_up(40_000)).verdict is Verdict.CONNECTED


def test_the_first_2xx_wins_and_the_second_is_noted_and_hung_up() -> None:
    world = World([plain(1), plain(2), plain(3)])
    world.script(party(rings(), answers(2_000)), party(rings(), answers(2_010), late_ms=5), party(rings()))
    outcome = world.call(hangs_up(30_000))
    assert outcome.verdict is Verdict.CONNECTED
    late = [fact for fact in world.journal.facts if fact.kind is Kind.ANSWERED_LATE]
    assert [fact.leg for fact in late] == [2]
    assert world.kinds().count("answered") == 1
    assert [command for command in world.engine.commands if command[0] == "bridge"] == [
        ("bridge", late[0].transfer + "-1", 0)
    ]


def test_a_2xx_after_the_caller_left_connects_nobody() -> None:
    world = World([plain()]).script(party(rings(), late_ms=20))
    outcome = world.call(Act(3_000, Does.CANCEL))
    assert outcome.verdict is Verdict.CALLER_ABANDONED
    assert world.kinds()[-1] == "answered_late"


def test_both_hang_up_in_one_batch_is_the_callers() -> None:
    world = World([plain()]).script(party(rings(), answers(1_000)))
    world.engine.invite("leads", Script())
    world.clock.run_for(5_000_000)
    shell = next(iter(world.router.live.values()))
    from router.sip.port import EventKind, LegSignal

    now = world.clock.now_us()
    world.router.on_events([LegSignal(shell.leg_handle(1), EventKind.BYE, now), LegSignal("in1", EventKind.BYE, now)])
    assert shell.outcome is not None
    assert shell.outcome.verdict is Verdict.SHORT_CALL


def test_a_caller_who_leaves_while_the_disk_is_busy_rings_nobody() -> None:
    world = World([plain()]).script(party(rings()))
    world.admit_after_us = 50_000
    outcome = world.call(Act(20, Does.CANCEL))
    assert (outcome.verdict, outcome.reason) == (Verdict.NOT_ATTEMPTED, Reason.CALLER_GONE)
    assert not [command for command in world.engine.commands if command[0] == "dial"]


def test_a_hold_seen_in_the_commit_rings_nobody() -> None:
    world = World([plain()])
    world.admission = Admission("on_hold")
    outcome = world.call()
    assert (outcome.verdict, outcome.reason) == (Verdict.NOT_ATTEMPTED, Reason.ON_HOLD)


def test_a_store_that_refuses_rings_nobody() -> None:
    world = World([plain()])
    world.admission = None
    outcome = world.call()
    assert (outcome.verdict, outcome.reason) == (Verdict.NOT_ATTEMPTED, Reason.FAULT)
    assert ("reject", "in1", 500) in world.engine.commands


def test_a_suppressed_number_is_never_dialled() -> None:
    world = World([plain()])
    world.lists.numbers.add("+12125550123")
    outcome = world.call()
    assert (outcome.verdict, outcome.reason) == (Verdict.NOT_ATTEMPTED, Reason.SUPPRESSED)
    assert ("reject", "in1", 603) in world.engine.commands


def test_suppression_fails_closed() -> None:
    world = World([plain()])
    world.lists.down = True
    assert world.call().reason is Reason.SUPPRESSION_UNAVAILABLE


@pytest.mark.parametrize(
    ("user", "more", "reason", "code"),
    [
        ("nobody", {}, Reason.NO_BUYER, 404),
        ("leads", {"source": "192.0.2.1"}, Reason.REJECTED, 403),
        ("leads", {"source": "not an address"}, Reason.REJECTED, 403),
    ],
)
def test_who_may_not_call_is_told_why(user: str, more: dict[str, str], reason: Reason, code: int) -> None:
    world = World([plain()])
    assert world.call(user=user, **more).reason is reason
    assert ("reject", "in1", code) in world.engine.commands


@pytest.mark.parametrize(
    ("state", "reason"), [(BuyerState.PAUSED, Reason.PAUSED), (BuyerState.ON_HOLD, Reason.ON_HOLD)]
)
def test_a_buyer_that_takes_no_transfers_is_a_reason(state: BuyerState, reason: Reason) -> None:
    world = World([plain()])
    buyer = world.book.book.buyers["acme"]
    world.book.book.buyers["acme"] = Buyer(buyer.name, buyer.title, buyer.terms, buyer.endpoints, state)
    assert world.call().reason is reason


def test_a_draining_router_says_503() -> None:
    world = World([plain()])
    world.router.draining = True
    assert world.call().reason is Reason.DRAINING
    assert ("reject", "in1", 503) in world.engine.commands


def test_silence_from_every_endpoint_is_unreachable() -> None:
    outcome = World([plain(1), plain(2)]).script(party(), party(Act(500, Does.VANISH))).call()
    assert (outcome.verdict, outcome.counts_as) == (Verdict.UNREACHABLE, CountsAs.FREE)


def test_silence_counts_where_the_terms_say_so() -> None:
    terms = Terms("own", unreachable="failed")
    assert World([plain()], terms).script(party()).call().counts_as is CountsAs.FAILED


def test_what_could_not_be_sent_is_no_attempt() -> None:
    world = World([plain()]).script(Script(refuses_to_send=True))
    outcome = world.call()
    assert (outcome.verdict, outcome.reason) == (Verdict.NOT_ATTEMPTED, Reason.FAULT)


def test_shutdown_is_our_fault_and_free() -> None:
    world = World([plain()]).script(party(rings(), answers(1_000)))
    world.engine.invite("leads", Script())
    world.clock.run_for(5_000_000)
    world.router.end_all()
    closing = world.journal.facts[-1]
    assert (closing.payload["verdict"], closing.payload["counts_as"]) == ("fault", "free")
    assert not world.engine.live


def test_long_talk_leaves_durable_minutes() -> None:
    world = World([plain()]).script(party(rings(), answers(1_000)))
    outcome = world.call(hangs_up(200_000), run_s=300)
    minutes = [fact.payload["minutes"] for fact in world.journal.facts if fact.kind is Kind.TALK_MINUTE]
    assert (minutes, outcome.talk_ms) == ([1, 2, 3], 199_000)
    assert world.kinds().count("talk_reached_15s") == 1


def test_a_full_journal_says_503_and_writes_nothing() -> None:
    world = World([plain()])
    world.journal.full = True
    world.engine.invite("leads", Script())
    assert world.journal.facts == []
    assert ("reject", "in1", 503) in world.engine.commands


def test_the_lead_always_has_the_prospects_number() -> None:
    world = World([plain()]).script(party(declines(10)))
    world.call(headers={"x-lead-first-name": ["Ada"]})
    assert world.journal.facts[0].payload["lead"] == {"phone": "+12125550123", "first_name": "Ada"}


@pytest.mark.parametrize("command", ["dial", "ring", "answer", "bridge"])
def test_a_fault_of_ours_ends_that_transfer_as_ours_and_no_other(command: str) -> None:
    world = World([plain()]).script(party(rings(), answers(2_000)))
    sound = getattr(world.engine, command)
    world.engine.invite("leads", Script((hangs_up(40_000),)))
    calls = 0

    def broken(handle: str, *rest: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("a fault on purpose")
        sound(handle, *rest)

    setattr(world.engine, command, broken)
    world.clock.run_for(5_000_000)
    world.engine.invite("leads", Script((hangs_up(40_000),)))
    world.clock.run_for(120_000_000)
    verdicts = [f.payload["verdict"] for f in world.journal.facts if f.kind is Kind.TRANSFER_CLOSED]
    assert sorted(verdicts) == sorted(["connected", "not_attempted" if command == "dial" else "fault"])
    assert not world.engine.live
