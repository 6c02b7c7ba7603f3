"""A router under a random engine: events late, doubled, lost and out of order, and what must hold all the same.

One seed is one world of `PER_SEED` transfers on the virtual clock: real Router, shells and machine; parties that throw
dice. A lost ending is found by the engine's sweep within a second, as the real one's is; nothing else is mended. After
everything has settled the facts and the commands of every transfer are held against `violations`. Any seed can be
replayed alone: `python -m tests.proof --seed N`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from book.model import Buyer, BuyerState, Campaign, Endpoint, Strategy, Terms
from facts.answers import Admission
from facts.fact import Fact, Kind
from facts.outcome import Verdict, decide
from router.sip.port import EventKind, LegBridged, LegEvent, LegSignal
from tests.memory import Act, Does, MemoryEngine, Script, leg_event
from tests.world import SECOND_US, World, did, plain, secure

PER_SEED = 200
SPREAD_S = 40  # over which the callers of one world come in
SETTLE_S = 400  # the longest call, the longest ring, and the engine's 40 s of late answers
ENDINGS = (EventKind.BYE, EventKind.CANCELLED, EventKind.FAILED, EventKind.GONE)
WILD = (EventKind.TRYING, EventKind.RINGING, EventKind.ANSWERED, EventKind.BRIDGED, EventKind.FORKED, *ENDINGS)


class ChaosEngine(MemoryEngine):
    """The memory engine with a bad wire between it and the router."""

    dice: random.Random
    chaos = 1.0  # 0: a perfect wire

    def _tell(self, party, kind: EventKind, **what: object) -> None:  # type: ignore[no-untyped-def]
        event = leg_event(party.handle, kind, self.clock.now_us(), self.clock.lag_us(), **what)
        throw = self.dice.random() / self.chaos if self.chaos else 1.0
        if throw < 0.02 and kind not in (EventKind.SENT, EventKind.NOT_SENT):  # lost; an ending is found by the sweep
            if kind in ENDINGS:
                found = EventKind.GONE if party.answered else EventKind.FAILED
                lost = event._replace(kind=found, local=True, code=0)
                self._deliver(lost, self.dice.uniform(0, 1_000))
        elif throw < 0.06:  # late
            self._deliver(event, self.dice.uniform(0, 2_000))
        elif throw < 0.10:  # doubled
            self._deliver(event, 0)
            self._deliver(event, self.dice.uniform(0, 500))
        elif throw < 0.12:  # and something that nobody said
            wild = self._wild(event)
            self._deliver(event, 0)
            if not self._says_what_is_not(wild, party):
                self._deliver(wild, self.dice.uniform(0, 500))
        else:
            self._deliver(event, 0)

    def _wild(self, event: LegEvent) -> LegEvent:
        kind, local = self.dice.choice(WILD), self.dice.random() < 0.5
        if kind is EventKind.BRIDGED:
            return LegBridged(event.handle, event.at_us, event.lag_us, "?")
        code, header = (event.code, event.header) if isinstance(event, LegSignal) else (0, "")
        return LegSignal(event.handle, kind, event.at_us, event.lag_us, code, "?", header, local)

    @staticmethod
    def _says_what_is_not(event: LegEvent, party) -> bool:  # type: ignore[no-untyped-def]
        """An ending of a leg that is up would leave it up for ever in this engine: its own doing, not the router's."""
        return event.kind in ENDINGS and not party.over

    def _deliver(self, event: LegEvent, after_ms: float) -> None:
        def tell() -> None:
            assert self.listener is not None
            self.listener.on_events([event._replace(at_us=self.clock.now_us())])

        if after_ms:
            self.clock.call_at(self.clock.now_us() + round(after_ms * 1000), tell)
        else:
            tell()


def _callee(dice: random.Random) -> Script:  # noqa: C901 - a die for each thing a party may do
    at = 0.0
    acts: list[Act] = []
    if dice.random() < 0.7:
        acts.append(Act(dice.uniform(0, 200), Does.TRYING))
    for _ in range(dice.choice((0, 1, 1, 1, 2, 20))):
        at += dice.uniform(0, 500)
        acts.append(Act(at, Does.RING, dice.choice((101, 180, 181, 182, 183, 199))))
    what = dice.random()
    at += dice.choice((dice.uniform(0, 50), dice.uniform(0, 5_000), dice.uniform(0, 40_000)))
    if what < 0.35:
        acts.append(Act(at, Does.ANSWER))
        if dice.random() < 0.3:
            acts.append(Act(at + dice.uniform(0, 12_000), Does.PRESS, key=dice.choice("12")))
        if dice.random() < 0.4:
            acts.append(Act(at + dice.uniform(0, 400), Does.SPEAK))
        if dice.random() < 0.2:
            acts.append(Act(at + dice.uniform(0, 20_000), Does.HOLD))
            acts.append(Act(at + dice.uniform(20_000, 40_000), Does.RETRIEVE))
        if dice.random() < 0.2:
            acts.append(Act(at + dice.uniform(0, 20_000), Does.FALL_SILENT))
            if dice.random() < 0.5:
                acts.append(Act(at + dice.uniform(20_000, 50_000), Does.SPEAK_AGAIN))
        acts.append(
            Act(at + dice.choice((dice.uniform(0, 500), dice.uniform(0, 90_000))), dice.choice((Does.BYE, Does.VANISH)))
        )
    elif what < 0.7:
        acts.append(Act(at, Does.DECLINE, dice.choice((302, 404, 408, 480, 486, 500, 503, 600, 603))))
    elif what < 0.8:
        acts.append(Act(at, Does.VANISH))
    late = dice.uniform(0, 5_000) if dice.random() < 0.2 else -1
    return Script(tuple(acts), late, refuses_to_send=dice.random() < 0.05)


def _caller(dice: random.Random) -> Script:
    """Everybody hangs up in the end; most long after an answer, some while it rings, some at once."""
    at = dice.choice(
        (dice.uniform(0, 20), dice.uniform(0, 3_000), dice.uniform(0, 40_000), dice.uniform(40_000, 120_000))
    )
    acts = [Act(at, dice.choice((Does.CANCEL, Does.BYE)))]
    if dice.random() < 0.1:
        acts.append(Act(at / 2, Does.FALL_SILENT))
    return Script(tuple(acts))


def _endpoint(dice: random.Random, number: int) -> Endpoint:
    one = dice.choice((secure, secure, plain, did))(number)
    if dice.random() < 0.15:
        one = replace(one, accept_key="1", accept_timeout_ms=dice.choice((2_000, 10_000)))
    elif dice.random() < 0.1:
        one = replace(one, whisper_file="/nonexistent/whisper.wav")
    return replace(one, ring_timeout_ms=dice.choice((3_000, 30_000, 30_000)))


def build(seed: int, *, chaos: float = 1.0) -> World:
    """The world of a seed: up to three buyers, up to five endpoints each."""
    dice = random.Random(seed)
    world = World([secure()], config={"rtp_timeout_ms": 30_000, "fast_answer_ms": 1_000})
    engine = ChaosEngine(world.clock, ceiling=100_000)
    engine.dice, engine.chaos = dice, chaos
    engine.listener = world.router
    world.engine = engine
    world.router.engine = engine
    world.router.new_seed = lambda: dice.getrandbits(32)
    world.router.configure(world.router.config)
    buyers = {}
    for name in ("acme", "bolt", "coda")[: dice.randint(1, 3)]:
        endpoints = [
            replace(_endpoint(dice, number), name=f"e{number}", uri=f"sip:{name}{number}@x.invalid")
            if (one := _endpoint(dice, number)).kind == "trunk"
            else replace(one, name=f"e{number}")
            for number in range(1, dice.randint(1, 5) + 1)
        ]
        state = BuyerState.PAUSED if dice.random() < 0.05 else BuyerState.ACTIVE
        buyers[name] = Buyer(name, name, Terms("westlake-fulfillment"), tuple(endpoints), state)
    campaign = Campaign(
        "leads",
        tuple(buyers),
        ring_timeout_ms=dice.choice((5_000, 30_000)),
        strategy=dice.choice(list(Strategy)),
        max_offers=dice.randint(1, 3),
        commit_ms=dice.choice((0, 0, 300, 2_000)),
        early_answer=dice.random() < 0.2,
    )
    world.book.book.buyers.clear()
    world.book.book.buyers.update(buyers)
    world.book.book.campaigns["leads"] = campaign
    return world


def run(seed: int, *, transfers: int = PER_SEED, chaos: float = 1.0) -> tuple[World, list[str]]:
    """Play a seed to its end; what did not hold, in words."""
    world = build(seed, chaos=chaos)
    dice = world.engine.dice  # type: ignore[attr-defined]
    world.admit_after_us = dice.choice((0, 300, 5_000))
    refusals = [Admission(), Admission(), Admission(), Admission("cap_reached"), None]

    def admit(answer) -> None:  # type: ignore[no-untyped-def]
        told = dice.choice(refusals) if dice.random() < 0.1 else Admission()
        world.clock.call_at(world.clock.now_us() + dice.randint(0, 5_000), lambda: answer(told))

    world.admit = admit  # type: ignore[method-assign]

    def arrive() -> None:
        for buyer in world.book.book.buyers.values():
            for one in buyer.endpoints:
                uri = f"sip:{one.uri}@carrier.invalid" if one.kind == "did" else one.uri
                world.engine.scripts[uri] = _callee(dice)
        world.engine.invite("leads", _caller(dice))

    for _ in range(transfers):
        world.clock.call_at(world.clock.now_us() + dice.randint(0, SPREAD_S * SECOND_US), arrive)
    world.clock.run_for(SETTLE_S * SECOND_US)
    return world, violations(world)


def violations(world: World) -> list[str]:
    """Everything that did not hold."""
    found: list[str] = []
    if world.router.live:
        found.append(f"live after settling: {sorted(world.router.live)}")
    if world.engine.live:
        found.append(f"legs up after settling: {sorted(world.engine.live)}")
    by_transfer: dict[str, list[Fact]] = {}
    for fact in world.journal.facts:
        by_transfer.setdefault(fact.transfer, []).append(fact)
    hung_up = {handle for command, handle, _ in world.engine.commands if command == "hang_up"}
    for transfer, facts in by_transfer.items():
        found += [f"{transfer}: {what}" for what in _of_one(transfer, facts, hung_up)]
    return found


def _of_one(transfer: str, facts: Sequence[Fact], hung_up: set[str]) -> list[str]:  # noqa: C901 - one check each
    found: list[str] = []
    kinds = Counter(fact.kind for fact in facts)
    if kinds[Kind.TRANSFER_CLOSED] != 1:
        found.append(f"{kinds[Kind.TRANSFER_CLOSED]} closing facts")
        return found
    if kinds[Kind.ENDED] + kinds[Kind.REFUSED] != 1:
        found.append(f"{kinds[Kind.ENDED]} ends and {kinds[Kind.REFUSED]} refusals")
    winners: list[int | None] = []
    for fact in facts:
        if fact.kind is Kind.RESUMED:
            winners.clear()
        elif fact.kind is Kind.BRIDGED or (fact.kind is Kind.ANSWERED and not fact.payload.get("must_accept")):
            winners.append(fact.leg)
        if len(set(winners)) > 1:
            found.append(f"two winners at once: {winners}")
            break
    dialed = [fact.leg for fact in facts if fact.kind is Kind.DIALED]
    if len(dialed) != len(set(dialed)):
        found.append(f"a leg dialled twice: {dialed}")
    ended = {fact.leg for fact in facts if fact.kind is Kind.LEG_ENDED}
    left = [leg for leg in dialed if leg not in ended and f"{transfer}-{leg}" not in hung_up]
    found += [f"leg {leg} was never ended" for leg in left]
    closing = next(fact for fact in facts if fact.kind is Kind.TRANSFER_CLOSED)
    outcome = decide(facts)
    if closing.payload != outcome.as_payload():
        found.append("the meter and the router disagree")
    if outcome.verdict is Verdict.INDETERMINATE:
        found.append("indeterminate")
    if kinds[Kind.TALK_REACHED_15S] and outcome.verdict is not Verdict.CONNECTED:
        found.append("talk reached 15 s and it is not connected")
    return found
