"""Races between parts that are each right by themselves."""

from __future__ import annotations

import ipaddress
import wave
from dataclasses import replace
from pathlib import Path

from facts.fact import Kind
from facts.outcome import CountsAs, Verdict, decide
from router.dialers import Dialer
from router.sip.legs import LegBook, Record
from router.sip.port import EventKind
from router.transfer.model import Phase
from tests.memory import Act, Does, Script, leg_event
from tests.world import SECOND_US, World, answers, declines, did, hangs_up, party, plain, rings, secure


def tell(world: World, handle: str, kind: EventKind, **what: object) -> None:
    world.router.on_events([leg_event(handle, kind, world.clock.now_us(), **what)])


def test_a_key_in_the_commit_window_takes_no_call_from_its_winner() -> None:
    world = World([replace(plain(1), accept_key="1"), plain(2)], campaign={"commit_ms": 3_000})
    world.script(party(rings(), answers(500), Act(2_000, Does.PRESS, key="1")), party(rings(100), answers(1_000)))
    world.engine.invite("leads", Script(()))
    world.clock.run_for(1_500_000)
    shell = next(iter(world.router.live.values()))
    assert (shell.state.winner, shell.state.phase) == (2, Phase.TALKING)
    world.clock.run_for(6 * SECOND_US)
    assert shell.state.winner == 2


def test_a_dialer_that_moved_its_end_is_heard() -> None:
    world = World([plain(1)], config={"rtp_timeout_ms": 30_000}).script(party(rings(), answers(1_000)))
    handle = world.engine.invite("leads", Script(()))
    world.clock.run_for(5 * SECOND_US)
    tell(world, handle, EventKind.UNHEARD)
    world.clock.run_for(2 * SECOND_US)
    tell(world, handle, EventKind.MOVED, how="refer")
    tell(world, handle, EventKind.RTP_STARTED)
    world.clock.run_for(60 * SECOND_US)
    assert "talk_reached_15s" in world.kinds()
    assert world.router.live


def test_silence_of_a_winner_that_dropped_is_forgotten() -> None:
    world = World([plain(1), plain(2)], campaign={"commit_ms": 5_000}, config={"rtp_timeout_ms": 30_000})
    world.script(party(answers(1_000), hangs_up(4_000)), party(rings(), answers(6_000)))
    handle = world.engine.invite("leads", Script(()))
    world.clock.run_for(3 * SECOND_US)
    tell(world, handle, EventKind.UNHEARD)
    world.clock.run_for(1_500_000)
    tell(world, handle, EventKind.HEARD)
    world.clock.run_for(60 * SECOND_US)
    assert world.router.live


def test_who_was_dropped_by_us_while_asked_pays_nothing() -> None:
    """The same local end, with a key to press and without: ours both times."""
    for accept_key in ("", "1"):
        world = World([replace(plain(1), accept_key=accept_key)])
        world.script(party(rings(), answers(16_000)))
        world.engine.invite("leads", Script(()))
        world.clock.run_for(16_000_001 if accept_key else 15_999_999)
        if accept_key:
            leg = next(handle for handle in world.engine.live if handle.endswith("-1"))
            world.engine._end(leg)
            tell(world, leg, EventKind.GONE, local=True, code=500)
            world.clock.run_for(60 * SECOND_US)
            outcome = decide(world.journal.facts)
            assert (outcome.verdict, outcome.counts_as) == (Verdict.FAULT, CountsAs.FREE)


def test_each_bridge_has_a_recording_of_its_own() -> None:
    world = World([plain(1), plain(2)], campaign={"commit_ms": 3_000, "record": True})
    log: list[str] = []

    class Recorder:
        def start(self, _shell: object, leg: int) -> None:
            log.append(f"start {leg}")

        def stop(self, _shell: object) -> None:
            log.append("stop")

    world.router.recorder = Recorder()  # type: ignore[assignment]
    world.script(party(answers(1_000), hangs_up(2_000)), party(rings(), answers(4_000)))
    world.engine.invite("leads", Script((hangs_up(30_000),)))
    world.clock.run_for(60 * SECOND_US)
    assert log == ["start 1", "stop", "start 2", "stop"]


def test_greetings_of_one_dialer_do_not_fill_anothers_lines(tmp_path: Path) -> None:
    greeting = tmp_path / "hello.wav"
    with wave.open(str(greeting), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(b"\0" * 160_000)
    world = World([plain(1)], campaign={"greeting_file": str(greeting)})
    dialers = (
        Dialer("a", (ipaddress.ip_network("127.0.0.1/32"),)),
        Dialer("b", (ipaddress.ip_network("127.0.0.2/32"),), max_calls=2),
    )
    world.router.configure(replace(world.router.config, dialers=dialers))
    for source in ("127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2", "127.0.0.2"):
        world.engine.invite("leads", Script(()), source=source)
    assert [handle for command, handle, _ in world.engine.commands if command == "reject"] == ["in5"]


def test_a_reload_takes_no_carrier_from_a_transfer_that_has_begun() -> None:
    world = World([did(1), did(2)]).script(party(rings()), party(rings()))
    world.admit_after_us = 50_000
    world.engine.invite("leads", Script(()))
    world.router.configure(replace(world.router.config, carriers={}))
    world.clock.run_for(SECOND_US)
    assert world.kinds().count("dialed") == 2


def record(at_us: int, method: str, status: int = 0, *, received: bool = True, tag: str = "") -> Record:
    return Record(at_us, 0, received, method, status, "T-1", "ours", tag, "", "")


def test_a_refusal_counts_before_a_bye_that_cannot_be() -> None:
    book = LegBook()
    book.add("T-1", call_id="T-1", tag="ours", slot=1)
    for one in (record(0, "INVITE", received=False), record(300_000, "BYE"), record(4_000_000, "INVITE", 486)):
        book.note(one)
    book.ended("T-1", 4_000_100, 0, 486)
    assert (book.events[-1].kind, book.events[-1].at_us) == (EventKind.FAILED, 4_000_000)


def test_an_endpoint_cancels_nothing_and_its_bye_is_seen() -> None:
    book = LegBook()
    book.add("T-1", call_id="T-1", tag="ours", slot=1)
    for one in (
        record(0, "INVITE", received=False),
        record(1_000_000, "CANCEL"),
        record(2_000_000, "INVITE", 200, tag="x"),
        record(9_000_000, "BYE", tag="x"),
    ):
        book.note(one)
    book.ended("T-1", 9_000_100, 0, 200)
    assert (book.events[-1].kind, book.events[-1].at_us) == (EventKind.BYE, 9_000_000)


def test_provisional_answers_by_kind() -> None:
    """Ringing is 180, 181, 182 or 183. Of the others the first is told, beside the first 100; repeats are not."""
    for code in range(101, 200):
        book = LegBook()
        book.add("T-1", call_id="T-1", tag="ours", slot=1)
        for status in (code, 100, code, 100, 199, 183):
            book.note(record(status, "INVITE", status))
        rings = code in {180, 181, 182, 183}
        told = [(one.kind, one.code) for one in book.events]
        first = (EventKind.RINGING if rings else EventKind.TRYING, code)
        assert told[:2] == [first, (EventKind.TRYING, 100)]
        assert told[2:] == ([(EventKind.TRYING, 199)] if rings else [(EventKind.RINGING, 183)])


def test_a_leg_that_was_never_sent_says_so() -> None:
    book = LegBook()
    book.add("T-1", call_id="T-1", tag="ours", slot=1)
    book.ended("T-1", 5, 0, 502)
    assert book.events[-1].kind is EventKind.NOT_SENT
    world = World([secure(1)]).script(Script(refuses_to_send=True))
    world.engine.invite("leads", Script(()))
    world.clock.run_for(SECOND_US)
    assert Kind.DIALED.value not in world.kinds()


def test_an_endpoint_that_we_could_not_dial_makes_the_attempt_ours() -> None:
    """The one that was never rung might have answered: nobody pays for a port that this machine was short of."""
    for ours, counts_as in ((True, CountsAs.FREE), (False, CountsAs.FAILED)):
        world = World([plain(1), plain(2)]).script(Script(), party(rings(), declines(20_000)))
        world.engine.invite("leads", Script(()))
        world.clock.run_for(1_000)
        leg = next(handle for handle in world.engine.live if handle.endswith("-1"))
        world.engine._end(leg)
        world.journal.facts[:] = [one for one in world.journal.facts if not (one.kind is Kind.DIALED and one.leg == 1)]
        tell(world, leg, EventKind.NOT_SENT, why="Address already in use", ours=ours)
        shell = next(iter(world.router.live.values()))
        shell.facts[:] = [one for one in shell.facts if not (one.kind is Kind.DIALED and one.leg == 1)]
        world.clock.run_for(60 * SECOND_US)
        assert decide(world.journal.facts).counts_as is counts_as
