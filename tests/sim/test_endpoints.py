"""Whole transfers on the virtual clock: acceptance, whisper, commit window, patience, early answer, offering on."""

from __future__ import annotations

import wave
from dataclasses import replace
from pathlib import Path

import pytest

from book.model import Buyer, MenuChoice, Terms
from facts.answers import Admission
from facts.fact import EndCause, Kind
from facts.outcome import CountsAs, Reason, Verdict, decide
from tests.memory import Act, Does, Script
from tests.world import SECOND_US, World, answers, declines, hangs_up, party, plain, rings, secure


def presses(at_ms: float, key: str = "1") -> Act:
    return Act(at_ms, Does.PRESS, key=key)


def accepting(number: int = 1, **more: object):
    return replace(secure(number), accept_key="1", **more)  # type: ignore[arg-type]


def wav(folder: Path, name: str, ms: int) -> str:
    path = folder / f"{name}.wav"
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(b"\0\0" * (8 * ms))
    return str(path)


# --- press 1 ---


def test_talk_of_an_accepted_call_runs_from_the_bridge() -> None:
    world = World([accepting()]).script(party(rings(), answers(2_000), presses(7_000), hangs_up(21_999)))
    outcome = world.call()
    assert (outcome.verdict, outcome.talk_ms) == (Verdict.FAILED, 14_999)
    assert world.kinds().index("answered") < world.kinds().index("accepted") < world.kinds().index("bridged")
    longer = World([accepting()]).script(party(rings(), answers(2_000), presses(7_000), hangs_up(22_000)))
    assert longer.call().verdict is Verdict.CONNECTED


def test_answered_but_not_accepted_counts_as_declined() -> None:
    world = World([accepting(accept_timeout_ms=10_000)]).script(party(rings(), answers(6_000), presses(8_000, "2")))
    outcome = world.call()
    assert (outcome.verdict, outcome.reason, outcome.attempt_ms) == (Verdict.FAILED, Reason.DECLINED, 16_000)
    assert outcome.talk_ms == 0
    assert ("reject", "in1", 480) in world.engine.commands


def test_a_voicemail_that_presses_nothing_does_not_beat_a_person() -> None:
    world = World([accepting(1), accepting(2)])
    world.script(party(rings(), answers(300)), party(rings(), answers(4_000), presses(6_000)))
    outcome = world.call(hangs_up(30_000))
    assert outcome.verdict is Verdict.CONNECTED
    assert [fact.leg for fact in world.journal.facts if fact.kind is Kind.BRIDGED] == [2]
    assert [fact.leg for fact in world.journal.facts if fact.kind is Kind.ANSWERED] == [1, 2]


def test_who_needs_no_key_wins_while_another_is_being_asked() -> None:
    world = World([accepting(1), secure(2)])
    world.script(party(rings(), answers(300), presses(3_000)), party(rings(), answers(2_000)))
    outcome = world.call(hangs_up(20_000))
    assert (outcome.verdict, outcome.talk_ms) == (Verdict.CONNECTED, 18_000)
    assert [fact.leg for fact in world.journal.facts if fact.kind is Kind.BRIDGED] == [2]


def test_the_ring_timeout_waits_for_who_is_being_asked() -> None:
    world = World([accepting(1), secure(2)], ring_timeout_ms=5_000)
    world.script(party(rings(), answers(4_000), presses(9_000), hangs_up(40_000)), party(rings()))
    outcome = world.call()
    assert outcome.verdict is Verdict.CONNECTED
    ended = [fact for fact in world.journal.facts if fact.kind is Kind.LEG_ENDED and fact.leg == 2]
    assert ended[0].mono_us - world.journal.facts[0].mono_us == 5 * SECOND_US


def test_a_caller_who_leaves_while_a_key_is_waited_for_has_given_up() -> None:
    world = World([accepting()]).script(party(rings(), answers(16_000)))
    outcome = world.call(Act(18_000, Does.CANCEL))
    assert (outcome.verdict, outcome.counts_as) == (Verdict.CALLER_ABANDONED, CountsAs.FREE)


# --- whisper ---


def test_a_whisper_is_heard_before_the_bridge_and_talk_runs_from_there(tmp_path: Path) -> None:
    file = wav(tmp_path, "whisper", 3_000)
    world = World([replace(secure(1), whisper_file=file), secure(2)])
    world.script(party(rings(), answers(4_000), hangs_up(21_999)), party(rings()))
    outcome = world.call()
    assert (outcome.verdict, outcome.talk_ms) == (Verdict.FAILED, 14_999)
    played = [command for command in world.engine.commands if command[0] == f"play {file}"]
    assert len(played) == 1
    assert played[0][1].endswith("-1")
    loser = next(fact for fact in world.journal.facts if fact.kind is Kind.LEG_ENDED and fact.leg == 2)
    answered = next(fact for fact in world.journal.facts if fact.kind is Kind.ANSWERED)
    assert loser.mono_us == answered.mono_us, "the others are cancelled at the 2xx, not after the whisper"


def test_hanging_up_on_the_whisper_counts_as_declined(tmp_path: Path) -> None:
    world = World([replace(plain(1), whisper_file=wav(tmp_path, "whisper", 3_000))])
    world.script(party(rings(), answers(4_000), hangs_up(5_000)))
    outcome = world.call()
    assert (outcome.verdict, outcome.reason, outcome.talk_ms) == (Verdict.FAILED, Reason.DECLINED, 0)


def test_a_whisper_that_cannot_be_read_keeps_nobody_waiting(tmp_path: Path) -> None:
    world = World([replace(plain(1), whisper_file=str(tmp_path / "nothing.wav"))])
    world.script(party(rings(), answers(4_000), hangs_up(24_000)))
    outcome = world.call()
    assert outcome.verdict is Verdict.CONNECTED
    assert outcome.talk_ms == 19_999


# --- commit window ---


def window(*scripts: Script, commit_ms: int = 300) -> World:
    world = World([secure(n + 1) for n in range(len(scripts))], campaign={"commit_ms": commit_ms})
    return world.script(*scripts)


def test_in_the_commit_window_the_others_ring_on_and_take_over() -> None:
    world = window(party(rings(), answers(1_000), hangs_up(1_200)), party(rings(), answers(5_000)))
    outcome = world.call(hangs_up(25_000))
    assert (outcome.verdict, outcome.talk_ms) == (Verdict.CONNECTED, 20_000)
    kinds = world.kinds()
    assert kinds.index("answered") < kinds.index("ringing_resumed")
    assert kinds.count("answered") == 2
    assert world.engine.commands.count(("answer", "in1", 200)) == 1, "the dialer gets one 200"


def test_a_winner_that_left_in_the_window_and_nobody_after_it_is_no_answer() -> None:
    world = window(party(rings(), answers(1_000), hangs_up(1_200)), party(rings()))
    outcome = world.call()
    assert (outcome.verdict, outcome.reason, outcome.talk_ms) == (Verdict.FAILED, Reason.DECLINED, 0)
    assert outcome.attempt_ms == 30_000


def test_who_was_being_asked_when_a_winner_dropped_may_still_accept() -> None:
    world = World([accepting(1), secure(2)], campaign={"commit_ms": 2_000})
    world.script(
        party(rings(), answers(1_000), presses(5_000), hangs_up(15_000)), party(answers(1_500), hangs_up(2_000))
    )
    outcome = world.call()
    assert (outcome.verdict, outcome.reason, outcome.talk_ms) == (Verdict.FAILED, Reason.BUYER_ABANDONED, 10_000)


@pytest.mark.parametrize("event", ["rtp", "time"])
def test_after_the_window_the_winner_is_alone(event: str) -> None:
    speaks = [Act(1_100, Does.SPEAK)] if event == "rtp" else []
    leaves_ms = 1_200 if event == "rtp" else 1_301
    world = window(party(rings(), answers(1_000), *speaks, hangs_up(leaves_ms)), party(rings(), answers(5_000)))
    outcome = world.call()
    assert (outcome.verdict, outcome.reason) == (Verdict.WITHIN_BUFFER, Reason.BUYER_ABANDONED)
    assert "ringing_resumed" not in world.kinds()


def test_a_second_answer_in_the_window_is_late() -> None:
    world = window(party(rings(), answers(1_000)), party(rings(), answers(1_100)))
    outcome = world.call(hangs_up(20_000))
    assert outcome.verdict is Verdict.CONNECTED
    assert "answered_late" in world.kinds()


def test_without_a_window_the_losers_are_cancelled_at_once() -> None:
    world = window(party(rings(), answers(1_000), hangs_up(1_200)), party(rings(), answers(5_000)), commit_ms=0)
    assert world.call().reason is Reason.BUYER_ABANDONED


# --- patience of one endpoint ---


def test_each_endpoint_rings_for_its_own_time() -> None:
    world = World([replace(secure(1), ring_timeout_ms=5_000), secure(2)])
    world.script(party(rings()), party(rings(), declines(17_000)))
    outcome = world.call()
    assert (outcome.verdict, outcome.reason, outcome.attempt_ms) == (Verdict.FAILED, Reason.DECLINED, 17_000)
    first = next(fact for fact in world.journal.facts if fact.kind is Kind.LEG_ENDED and fact.leg == 1)
    assert (first.payload["by"], first.payload["local"]) == ("router", True)


def test_when_the_last_endpoint_rings_out_nobody_answered() -> None:
    world = World([replace(secure(n), ring_timeout_ms=ms) for n, ms in ((1, 5_000), (2, 16_000))])
    world.script(party(rings()), party(rings()))
    outcome = world.call()
    assert (outcome.verdict, outcome.reason, outcome.attempt_ms) == (Verdict.FAILED, Reason.NO_ANSWER, 16_000)


def test_an_answer_within_a_second_is_flagged() -> None:
    world = World([secure()], config={"fast_answer_ms": 1_000}).script(party(answers(400)))
    world.call(hangs_up(20_000))
    answered = next(fact for fact in world.journal.facts if fact.kind is Kind.ANSWERED)
    assert answered.payload.get("fast") is True


# --- the caller's side ---


def test_early_answer_gives_the_dialer_its_200_before_anybody_rings() -> None:
    world = World([secure()], campaign={"early_answer": True, "music_file": "music.wav"})
    world.script(party(rings(), declines(16_000)))
    outcome = world.call()
    assert (outcome.verdict, outcome.reason) == (Verdict.FAILED, Reason.DECLINED)
    names = [command[0] for command in world.engine.commands]
    assert names.index("answer") < names.index("dial")
    assert "play music.wav" in names
    assert "reject" not in names
    assert [command[1] for command in world.engine.commands if command[0] == "hang_up"] == ["in1"]


def test_a_caller_who_hangs_up_after_an_early_answer_has_given_up() -> None:
    world = World([secure()], campaign={"early_answer": True}).script(party(rings()))
    outcome = world.call(hangs_up(20_000))
    assert (outcome.verdict, outcome.reason) == (Verdict.CALLER_ABANDONED, Reason.CALLER_GONE)


def greeted(folder: Path, *, menu: bool = True) -> World:
    campaign: dict[str, object] = {"greeting_file": wav(folder, "hello", 4_000)}
    if menu:
        campaign |= {"menu": (MenuChoice("1", ("acme",)),), "menu_timeout_ms": 2_000, "menu_tries": 2}
    return World([secure()], campaign=campaign).script(party(rings(), answers(1_000)))


def test_a_key_in_the_greeting_leads_on_at_once(tmp_path: Path) -> None:
    world = greeted(tmp_path)
    outcome = world.call(presses(1_500), hangs_up(30_000))
    assert outcome.verdict is Verdict.CONNECTED
    started = world.journal.facts[0]
    assert started.payload["key"] == "1"
    dialed = next(fact for fact in world.journal.facts if fact.kind is Kind.DIALED)
    assert dialed.mono_us - started.mono_us == 1_500_000


def test_without_a_key_the_greeting_is_repeated_and_then_anybody_will_do(tmp_path: Path) -> None:
    world = greeted(tmp_path)
    outcome = world.call(presses(1_500, "9"), hangs_up(60_000))
    assert outcome.verdict is Verdict.CONNECTED
    assert [command[0] for command in world.engine.commands].count(f"play {tmp_path}/hello.wav") == 2
    dialed = next(fact for fact in world.journal.facts if fact.kind is Kind.DIALED)
    assert dialed.mono_us - world.journal.facts[0].mono_us == 12_000_000


def test_a_caller_who_leaves_the_greeting_is_on_the_record(tmp_path: Path) -> None:
    world = greeted(tmp_path, menu=False)
    outcome = world.call(hangs_up(2_000))
    assert (outcome.verdict, outcome.reason) == (Verdict.NOT_ATTEMPTED, Reason.CALLER_GONE)


# --- offering on ---


def two_buyers(first: Script, second: Script, **campaign: object) -> World:
    world = World([secure(1)], campaign={"max_offers": 2, **campaign})
    other = replace(secure(2), name="trunk2")
    buyer = Buyer("bolt", "Bolt", Terms("westlake-fulfillment"), (other,))
    book = world.book.book
    book.buyers["bolt"] = buyer
    old = book.campaigns["leads"]
    from book.model import Strategy

    book.campaigns["leads"] = replace(old, buyers=("acme", "bolt"), strategy=Strategy.PRIORITY)
    world.script(first)
    world.engine.scripts[other.uri] = second
    return world


def transfers(world: World) -> list[str]:
    return list(dict.fromkeys(fact.transfer for fact in world.journal.facts))


def run(world: World, *acts: Act) -> list[Verdict]:
    world.engine.invite("leads", Script(acts))
    world.clock.run_for(120 * SECOND_US)
    assert not world.engine.live
    assert not world.router.live
    return [decide(world.journal.of(one)).verdict for one in transfers(world)]


def test_after_a_free_decline_the_next_buyer_is_rung_under_one_call_id() -> None:
    world = two_buyers(party(rings(), declines(3_000)), party(rings(), answers(2_000)))
    assert run(world, hangs_up(40_000)) == [Verdict.WITHIN_BUFFER, Verdict.CONNECTED]
    first, second = (world.journal.of(one)[0].payload for one in transfers(world))
    assert first["call_id"] == second["call_id"]
    assert (first["buyer"], second["buyer"], second["offer"]) == ("acme", "bolt", 2)
    assert not [command for command in world.engine.commands if command[0] == "reject"]


def test_a_failed_transfer_belongs_to_who_pays_for_it() -> None:
    world = two_buyers(party(rings(), declines(16_000)), party(rings(), answers(2_000)))
    assert run(world) == [Verdict.FAILED]


def test_who_offers_on_no_more_says_why() -> None:
    world = two_buyers(party(rings(), declines(3_000)), party(rings(), declines(2_000, 600)))
    assert run(world) == [Verdict.WITHIN_BUFFER, Verdict.WITHIN_BUFFER]
    assert ("reject", "in1", 486) in world.engine.commands


def test_a_caller_who_left_is_offered_to_nobody() -> None:
    world = two_buyers(party(rings()), party(rings(), answers(2_000)))
    assert run(world, Act(3_000, Does.CANCEL)) == [Verdict.WITHIN_BUFFER]


def test_what_the_store_refuses_goes_to_the_next_buyer() -> None:
    world = two_buyers(party(rings(), answers(1_000)), party(rings(), answers(2_000)), max_offers=1)
    answers_of_store = [Admission("duplicate"), Admission()]
    world.admit = lambda answer: world.clock.call_at(  # type: ignore[method-assign]
        world.clock.now_us(), lambda: answer(answers_of_store.pop(0))
    )
    assert run(world, hangs_up(40_000)) == [Verdict.NOT_ATTEMPTED, Verdict.CONNECTED]


def test_the_dialers_bye_after_offering_on_ends_the_second_transfer() -> None:
    world = two_buyers(party(rings(), declines(3_000)), party(rings(), answers(2_000)), early_answer=True)
    assert run(world, hangs_up(10_000)) == [Verdict.WITHIN_BUFFER, Verdict.WITHIN_BUFFER]
    assert decide(world.journal.of(transfers(world)[1])).reason is Reason.CALLER_ENDED


# --- both hang up ---


@pytest.mark.parametrize(
    ("crossing_ms", "verdict"),
    [
        (0, Verdict.SHORT_CALL),
        (80, Verdict.SHORT_CALL),
        (290, Verdict.SHORT_CALL),
        (310, Verdict.FAILED),
        (-1, Verdict.FAILED),
    ],
)
def test_a_bye_from_both_at_once_is_the_callers(crossing_ms: float, verdict: Verdict) -> None:
    world = World([secure()]).script(party(rings(), answers(10_000), hangs_up(20_000)))
    world.engine.invite("leads", Script((), crossing_ms=crossing_ms))
    world.clock.run_for(60 * SECOND_US)
    outcome = decide(world.journal.facts)
    assert (outcome.verdict, outcome.talk_ms, outcome.attempt_ms) == (verdict, 10_000, 20_000)
    assert not world.router.live
    closing = world.journal.facts[-1]
    assert closing.kind is Kind.TRANSFER_CLOSED
    assert closing.payload == outcome.as_payload()


def test_the_end_of_a_long_talk_waits_for_nobody() -> None:
    world = World([secure()]).script(party(rings(), answers(1_000), hangs_up(20_000)))
    world.engine.invite("leads", Script((), crossing_ms=50))
    world.clock.run_for(20_000_001)
    assert not world.router.live
    assert decide(world.journal.facts).verdict is Verdict.CONNECTED


# --- hold and silence ---


def test_a_hold_of_more_than_ten_seconds_is_a_fact() -> None:
    world = World([secure()])
    hold = [Act(5_000, Does.HOLD), Act(17_500, Does.RETRIEVE), Act(20_000, Does.HOLD), Act(25_000, Does.RETRIEVE)]
    world.script(party(rings(), answers(1_000), *hold))
    assert world.call(hangs_up(30_000)).verdict is Verdict.CONNECTED
    held = [fact for fact in world.journal.facts if fact.kind in (Kind.HELD, Kind.RETRIEVED)]
    assert [fact.kind for fact in held] == [Kind.HELD, Kind.RETRIEVED]
    assert held[0].mono_us - world.journal.facts[0].mono_us == 15 * SECOND_US
    assert held[1].payload == {"held_ms": 12_500}


@pytest.mark.parametrize(
    ("who", "verdict", "reason"),
    [("buyer", Verdict.FAILED, Reason.BUYER_ABANDONED), ("caller", Verdict.SHORT_CALL, Reason.CALLER_ENDED)],
)
def test_a_party_that_vanished_left_at_its_last_packet(who: str, verdict: Verdict, reason: Reason) -> None:
    silence = Act(21_000, Does.FALL_SILENT)
    world = World([secure()], config={"rtp_timeout_ms": 30_000})
    world.script(party(rings(), answers(16_000), *([silence] if who == "buyer" else [])))
    outcome = world.call(*([silence] if who == "caller" else []))
    assert (outcome.verdict, outcome.reason, outcome.talk_ms) == (verdict, reason, 5_000)
    ended = next(fact for fact in world.journal.facts if fact.kind is Kind.ENDED)
    assert ended.payload["cause"] == EndCause.VANISHED
    assert "talk_reached_15s" not in world.kinds(), "nothing is earned by silence"


def test_who_is_heard_again_was_there_all_along() -> None:
    world = World([secure()], config={"rtp_timeout_ms": 30_000})
    world.script(party(rings(), answers(1_000), Act(6_000, Does.FALL_SILENT), Act(20_000, Does.SPEAK_AGAIN)))
    outcome = world.call(hangs_up(22_000))
    assert (outcome.verdict, outcome.talk_ms) == (Verdict.CONNECTED, 21_000)
    assert "talk_reached_15s" in world.kinds()


def test_records_are_asked_for_where_the_campaign_wants_them() -> None:
    world = World([secure()], campaign={"record": True}).script(party(rings(), answers(1_000)))
    assert world.call(hangs_up(20_000)).verdict is Verdict.CONNECTED, "without a folder the call goes on"


def test_a_second_dialog_of_one_invite_is_on_the_record_and_wins_nothing() -> None:
    from router.sip.port import EventKind, LegSignal

    world = World([secure()]).script(party(rings(), answers(1_000)))
    world.engine.invite("leads", Script((hangs_up(20_000),)))
    world.clock.run_for(2 * SECOND_US)
    leg = next(handle for handle in world.engine.live if handle.endswith("-1"))
    world.router.on_events([LegSignal(leg, EventKind.FORKED, world.clock.now_us(), code=200, phrase="OK")])
    world.clock.run_for(60 * SECOND_US)
    late = [fact for fact in world.journal.facts if fact.kind is Kind.ANSWERED_LATE]
    assert [fact.payload.get("forked") for fact in late] == [True]
    assert decide(world.journal.of(transfers(world)[0])).verdict is Verdict.CONNECTED
