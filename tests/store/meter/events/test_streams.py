"""Following the journal: everything once it is durable, outcomes once they are settled, and again after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from facts.disclosure import masked
from facts.fact import EndCause, Kind, Party
from meter.events.follower import BatchResult, HandOverError, Stream
from meter.events.model import Event, EventKind, Events
from meter.events.sql.streams import Boot, begin, cursors
from meter.journal.sql.recovery import recover
from meter.settling.follower import Follower
from meter.store.clerk import Clerk
from meter.store.leases import LEASE_US, give_back, holder, take
from tests.facts_builder import UTC_0, Story, connected_story, failed_story
from tests.store.journal_tools import open_journal, store, write


class Taker:
    """Takes what is handed over; `refuse` makes it fail so many times first."""

    def __init__(self, refuse: int = 0) -> None:
        self.ids: list[str] = []
        self.refuse = refuse

    async def __call__(self, events: Sequence[Event], _ends: dict[Boot, int]) -> BatchResult:
        if self.refuse:
            self.refuse -= 1
            self.ids += [f"refused {event.id}" for event in events[:1]]
            raise HandOverError("not now")
        self.ids += [event.id for event in events]
        return BatchResult.SOON


async def settle(engine: AsyncEngine) -> None:
    follower = Follower(engine)
    await follower.catch_up()
    await follower.close()


async def catch_up(engine: AsyncEngine, taker: Taker, name: str = "test") -> int:
    stream = Stream(engine, name, taker)
    try:
        return await stream.catch_up()
    finally:
        await stream._clerk.close()


async def begun(engine: AsyncEngine, name: str = "test") -> None:
    clerk = Clerk(engine)
    await clerk.write(begin, name, UTC_0)
    await clerk.close()


async def test_an_outcome_is_told_once_it_is_settled_and_never_before(engine: AsyncEngine) -> None:
    await begun(engine)
    await store(engine, connected_story("t-1"), connected_story("t-2"))
    taker = Taker()
    await catch_up(engine, taker)
    assert taker.ids == ["t-1.started", "t-1.dialed", "t-1.ringing", "t-1.answered.1"]
    await settle(engine)
    await catch_up(engine, taker)
    assert taker.ids[4:] == [
        "t-1.outcome",
        *(f"t-2.{what}" for what in ("started", "dialed", "ringing", "answered.1", "outcome")),
    ]
    await catch_up(engine, taker)
    assert len(taker.ids) == 10


async def test_what_was_not_taken_is_handed_over_again(engine: AsyncEngine) -> None:
    await begun(engine)
    await store(engine, failed_story("t-1"))
    await settle(engine)
    taker = Taker(refuse=1)
    with pytest.raises(HandOverError):
        await catch_up(engine, taker)
    await catch_up(engine, taker)
    assert taker.ids == ["refused t-1.started", "t-1.started", "t-1.dialed", "t-1.ringing", "t-1.outcome"]


async def test_a_follower_that_runs_outlives_refusals_and_stops(engine: AsyncEngine) -> None:
    await begun(engine)
    journal = await open_journal(engine, linger_ms=1)
    taker, stop = Taker(refuse=2), asyncio.Event()
    stream = Stream(engine, "test", taker, poll_ms=10)
    running = asyncio.create_task(stream.run(stop))
    write(journal, failed_story("t-1"))
    await journal.close()
    await settle(engine)
    async with asyncio.timeout(20):
        while "t-1.outcome" not in taker.ids:
            await asyncio.sleep(0.02)
    stop.set()
    async with asyncio.timeout(5):
        await running
    assert [one for one in taker.ids if not one.startswith("refused")] == [
        f"t-1.{what}" for what in ("started", "dialed", "ringing", "outcome")
    ]


async def test_a_boot_that_came_between_two_looks_is_seen_though_nothing_changes_any_more(engine: AsyncEngine) -> None:
    await begun(engine)
    taker, stop = Taker(), asyncio.Event()
    stream = Stream(engine, "test", taker, poll_ms=10)
    running = asyncio.create_task(stream.run(stop))
    async with asyncio.timeout(20):
        await store(engine, failed_story("t-1"))
        await settle(engine)
        while "t-1.outcome" not in taker.ids:
            await asyncio.sleep(0.02)
        await store(engine, failed_story("t-2"), boot="boot-2")  # right after the boots were read
        await settle(engine)
        while "t-2.outcome" not in taker.ids:
            await asyncio.sleep(0.02)
    stop.set()
    await running


async def test_who_stood_by_goes_on_where_the_other_one_was(engine: AsyncEngine) -> None:
    await begun(engine)
    go, stop, taker = asyncio.Event(), asyncio.Event(), Taker()

    async def ready() -> None:
        await go.wait()

    standby = Stream(engine, "test", taker, poll_ms=10, ready=ready)
    running = asyncio.create_task(standby.run(stop))
    await asyncio.sleep(0.1)
    await store(engine, failed_story("t-1"))
    await settle(engine)
    await catch_up(engine, Taker())  # the other one tells it
    go.set()
    await store(engine, failed_story("t-2"), boot="boot-2")
    await settle(engine)
    async with asyncio.timeout(20):
        while "t-2.outcome" not in taker.ids:
            await asyncio.sleep(0.02)
    stop.set()
    await running
    assert {one.partition(".")[0] for one in taker.ids} == {"t-2"}


async def test_what_later_events_need_is_read_again_after_a_restart(engine: AsyncEngine) -> None:
    """The cursor stands in the middle of a transfer: its later events name the buyer and the dial-out all the same."""
    await begun(engine)
    story = connected_story("t-1")
    journal = await open_journal(engine, linger_ms=1)
    part = Story("t-1")
    part.facts = story.facts[:3]  # started, dialed, ringing or trying
    write(journal, part)
    await asyncio.sleep(0.1)
    first, second = Taker(), []
    await catch_up(engine, first)

    async def keep(events: Sequence[Event], _ends: dict[Boot, int]) -> BatchResult:
        second.extend(events)
        return BatchResult.SOON

    rest = Story("t-1")
    rest.facts = story.facts[3:]
    write(journal, rest)
    await journal.close()
    await settle(engine)
    stream = Stream(engine, "test", keep)
    await stream.catch_up()
    await stream._clerk.close()
    told = {event.kind: event.fields for event in second}
    assert told[EventKind.ANSWERED]["buyer"] == "acme"
    assert told[EventKind.ANSWERED]["after_dialout_ms"] > 0
    assert told[EventKind.ANSWERED]["endpoint"] == "desk-1"
    assert len({*first.ids, *(event.id for event in second)}) == len(first.ids) + len(second)


async def test_a_new_follower_begins_at_the_end_and_a_new_boot_at_its_beginning(engine: AsyncEngine) -> None:
    await store(engine, failed_story("old"))
    await settle(engine)
    taker = Taker()
    assert await catch_up(engine, taker) == 0
    await store(engine, failed_story("new"), boot="boot-2")
    await settle(engine)
    await catch_up(engine, taker)
    assert taker.ids[0] == "new.started"


async def test_two_followers_do_not_know_of_each_other(engine: AsyncEngine) -> None:
    await begun(engine, "one")
    await begun(engine, "two")
    await store(engine, failed_story("t-1"))
    await settle(engine)
    one, two = Taker(), Taker()
    await catch_up(engine, one, "one")
    await catch_up(engine, two, "two")
    assert one.ids == two.ids != []


async def test_a_boot_that_recovery_closed_is_told_to_its_end(engine: AsyncEngine) -> None:
    await begun(engine)
    story = connected_story("t-1")
    story.facts = story.facts[:4]
    await store(engine, story)
    taker = Taker()
    await catch_up(engine, taker)
    await recover(engine, "r1", now_utc_us=UTC_0 + 10**9)
    await settle(engine)
    await catch_up(engine, taker)
    assert taker.ids[-1] == "t-1.outcome"


async def test_the_lag_counts_what_is_still_to_be_read(engine: AsyncEngine) -> None:
    from telemetry import metrics

    await begun(engine)
    written = await store(engine, failed_story("t-1"))
    stream = Stream(engine, "test", Taker())
    await stream.show_lag()  # it has not begun: nothing to say
    await stream.begin()
    await stream.show_lag()
    assert metrics.STREAM_LAG_FACTS.labels("test")._value.get() == len(written)
    assert metrics.STREAM_LAG.labels("test")._value.get() > 0
    await settle(engine)
    await stream.catch_up()
    await stream.show_lag()
    assert metrics.STREAM_LAG_FACTS.labels("test")._value.get() == 0
    assert metrics.STREAM_LAG.labels("test")._value.get() == 0
    await stream._clerk.close()


async def test_many_facts_of_no_interest_move_the_cursor_too(engine: AsyncEngine) -> None:
    await begun(engine)
    journal = await open_journal(engine)
    started = Story("t-1").start()
    write(journal, started)
    for number in range(2_500):
        journal.append("t-1", Kind.TALK_MINUTE, utc_us=UTC_0, mono_us=number, payload={"minutes": number})
    await journal.close()
    await catch_up(engine, Taker())
    clerk = Clerk(engine)
    assert (await clerk.read(cursors, "test"))["r1", "boot-1"] == 2_501
    await clerk.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["facts", "stop"])), max_size=12), st.data())
def test_the_fold_says_the_same_wherever_it_is_cut(cuts: list[tuple[int, str]], data: st.DataObject) -> None:
    """Events made in one go, and made with a restart at any fact (earlier facts recalled), are the same."""
    stories = [connected_story("t-1"), failed_story("t-2"), connected_story("t-3")]
    order = data.draw(st.permutations([index for index, story in enumerate(stories) for _ in story.facts]))
    queues = [list(story.facts) for story in stories]
    facts = [queues[index].pop(0) for index in order]
    outcome = {"buyer": "acme", "evidence": b"", "phone": ""}
    whole = Events()
    wanted = [event for fact in facts if (event := whole.fold(fact, outcome)) is not None]
    cut = data.draw(st.integers(0, len(facts)))
    first, second = Events(), Events()
    made = [event for fact in facts[:cut] if (event := first.fold(fact, outcome)) is not None]
    later = {fact.transfer for fact in facts[cut:]}
    second.recall({name: [fact for fact in facts[:cut] if fact.transfer == name] for name in later})
    made += [event for fact in facts[cut:] if (event := second.fold(fact, outcome)) is not None]
    assert made == wanted
    assert whole.transfers == set()


def test_a_payload_of_hostile_shape_makes_an_event_all_the_same() -> None:
    events = Events()
    story = Story("t-1").add(Kind.TRANSFER_STARTED, buyer=7, endpoints={"leg": 1}, phone=None, buffer_ms="x")
    story.add(Kind.DIALED, leg=1).add(Kind.RINGING, leg=1, code="180").add(Kind.ANSWERED, leg=None)
    made = [events.fold(fact, None) for fact in story.facts]
    assert [event.kind for event in made if event] == ["started", "dialed", "ringing", "answered"]
    assert made[0] is not None
    assert made[0].fields["endpoints"] == []


def test_a_provisional_answer_that_is_no_ringing_makes_no_event() -> None:
    story = Story().start(legs=2).dial(1, 2).ring(1, 0.5, 199).ring(2, 0.7, 101).ring(2, 0.9, 183)
    events = Events()
    told = [one for fact in story.facts if (one := events.fold(fact, None)) and one.kind is EventKind.RINGING]
    assert [(one.fields["code"], one.fields["after_dialout_ms"]) for one in told] == [(183, 900)]


def test_the_winner_that_left_and_the_next_one_have_events_of_their_own() -> None:
    events = Events()
    story = Story("t-1").start(legs=2).add(Kind.DIALED, leg=1).add(Kind.DIALED, leg=2)
    story.add(Kind.ANSWERED, 1.0, leg=1).add(Kind.RESUMED, 1.2).add(Kind.ANSWERED, 2.0, leg=2)
    story.end(30, Party.CALLER, EndCause.BYE)
    ids = [event.id for fact in story.facts if (event := events.fold(fact, None)) is not None]
    assert ids == ["t-1.started", "t-1.dialed", "t-1.answered.1", "t-1.answered.2"]


def test_masking_keeps_four_digits_and_leaves_an_empty_number() -> None:
    assert masked({"phone": "+12125550123"})["phone"] == "***0123"
    assert masked({"phone": "", "a": 1}) == {"phone": "", "a": 1}


async def test_a_lease_is_one_holders_until_it_runs_out_is_given_back_or_its_process_dies(engine: AsyncEngine) -> None:
    clerk = Clerk(engine)

    async def takes(who: str, now_us: int) -> BatchResult:
        return await clerk.write(take, "x", who, now_us)

    assert await takes("elsewhere/1/1", 1)
    assert await takes("elsewhere/1/1", 2)
    assert not await takes("other/2/2", 3)
    assert await takes("other/2/2", 2 + LEASE_US)
    await clerk.write(give_back, "x", "elsewhere/1/1")  # not its own any more
    assert not await takes("elsewhere/1/1", 3 + LEASE_US)
    await clerk.write(give_back, "x", "other/2/2")
    machine, pid, started = holder().split("/")
    dead = await asyncio.create_subprocess_exec("true")
    await dead.wait()
    assert await takes(f"{machine}/{dead.pid}/{started}", 1)
    assert await takes(holder(), 2)
    assert not await takes("elsewhere/1/1", 3)
    assert holder().split("/")[1] == pid
    await clerk.close()
