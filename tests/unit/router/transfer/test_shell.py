"""The shell of one transfer: what it performs of the machine's decisions, to the header, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from book.model import Buyer, Campaign, Endpoint, Terms
from facts.answers import Admission, ScrubResult
from facts.fact import CALLER_LEG, Fact, Kind
from facts.outcome import Outcome, Reason, Verdict, decide
from facts.payloads import Answered
from router.lead import Lead
from router.ports import Journal
from router.routing.selection import Selection
from router.sip.port import Clock, EventKind, Invite, SipEngine, Target
from router.transfer import model as m
from router.transfer.planning import start_of
from router.transfer.shell import RETRY, Start, TransferShell
from tests.memory import MemoryEngine, VirtualClock, leg_event
from tests.world import ListJournal, plain

MS_US = 1_000
CALLER = "in1"
Headers = Sequence[tuple[str, str]]


class HeaderEngine(MemoryEngine):
    """The scripted engine without scripts; every message to a party as it was asked for, with its headers."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self.messages: list[tuple[str, str, int, dict[str, str]]] = []

    def dial(self, handle: str, target: Target) -> None:
        self.commands.append((f"dial {target.uri}", handle, 0))

    def answer(self, handle: str, headers: Headers = (), codec_of: str = "") -> None:
        self.messages.append((f"answer like {codec_of}", handle, 200, dict(headers)))

    def reject(self, handle: str, code: int, headers: Headers = ()) -> None:
        self.messages.append(("reject", handle, code, dict(headers)))

    def hang_up(self, handle: str, headers: Headers = ()) -> None:
        self.messages.append(("hang_up", handle, 0, dict(headers)))


class Host:
    """`router.transfer.shell.Host` for one shell: what it was asked is in `calls`."""

    def __init__(self) -> None:
        self.virtual = VirtualClock()
        self.clock: Clock = self.virtual
        self.spoken = HeaderEngine(self.virtual)
        self.engine: SipEngine = self.spoken
        self.journal: Journal = ListJournal()
        self.offers = False
        self.offered: list[Outcome] = []
        self.calls: list[tuple[object, ...]] = []
        self.events: list[m.Event] = []

    def admit(self, shell: TransferShell, fact: Fact) -> None:
        self.calls.append(("admit", shell.transfer, fact.kind))

    def feed(self, shell: TransferShell, event: m.Event) -> None:
        self.events.append(event)
        shell.feed(event)

    def target_for(self, shell: TransferShell, endpoint: Endpoint) -> Target:
        assert endpoint in shell.start.endpoints
        return Target(uri=endpoint.uri)

    def offers_on(self, shell: TransferShell, outcome: Outcome) -> bool:
        assert not shell.closed
        self.offered.append(outcome)
        return self.offers

    def start_recording(self, shell: TransferShell, leg: int) -> None:
        self.calls.append(("start_recording", shell.transfer, leg))

    def stop_recording(self, shell: TransferShell) -> None:
        self.calls.append(("stop_recording", shell.transfer))

    def closed(self, shell: TransferShell, outcome: Outcome) -> None:
        self.calls.append(("closed", shell.transfer, outcome))


def start(
    *endpoints: Endpoint,
    campaign: dict[str, Any] | None = None,
    scrub: ScrubResult | None = None,
    **more: Any,
) -> Start:
    """Of a transfer `t1` for `acme`, whose endpoints are as given; `more` overrides what `start_of` takes."""
    buyer = Buyer("acme", "Acme", Terms("westlake-fulfillment"), endpoints or (plain(1),))
    selection = Selection(
        campaign=Campaign("leads", ("acme",), **(campaign or {})),
        buyer=buyer,
        endpoints=buyer.endpoints,
        scrub=scrub,
    )
    invite = Invite(CALLER, VirtualClock().now_us(), 0, "127.0.0.1", 5060, "in1@dialer", "leads", "+12125550123")
    given: dict[str, Any] = {
        "dialer": "local",
        "refusal": "",
        "limits": None,
        "plan_limits": (0, 0),
        "carriers": {},
        "sign": lambda scrub, buyer: f"signed.{buyer}.{scrub.reason or 'pass'}",
        **more,
    }
    return start_of("t1", invite, Lead("+12125550123"), selection, **given)


class Stage:
    """A shell on its host, and the few steps that every test takes."""

    def __init__(self, given: Start | None = None) -> None:
        self.host = Host()
        self.shell = TransferShell(self.host, given or start())
        self.now_us = self.host.clock.now_us()

    def admitted(self, refusal: str = "") -> Stage:
        self.shell.begin()
        self.shell.on_admission(Admission(refusal))
        return self

    def not_stored(self) -> Stage:
        self.shell.begin()
        self.shell.on_admission(None)
        return self

    def leg(self, number: int, kind: EventKind, after_ms: int, **more: Any) -> Stage:
        at_us = self.now_us + after_ms * MS_US
        self.host.virtual.run(at_us)
        self.shell.feed(m.OnLeg(number, leg_event(self.shell.leg_handle(number), kind, at_us, **more)))
        return self

    def talking(self) -> Stage:
        """Leg 1 was dialled at 100 ms, answered at 2,600 and bridged at once."""
        self.admitted().leg(1, EventKind.SENT, 100).leg(1, EventKind.ANSWERED, 2_600, code=200)
        return self.leg(1, EventKind.BRIDGED, 2_601)

    @property
    def to_caller(self) -> list[tuple[str, int, dict[str, str]]]:
        """What the dialer was told: command, code, headers."""
        return [
            (command, code, headers) for command, handle, code, headers in self.host.spoken.messages if handle == CALLER
        ]

    @property
    def kinds(self) -> list[Kind]:
        return [fact.kind for fact in self.shell.facts]

    def perform(self, *effects: m.Effect, event: m.Event | None = None) -> Stage:
        """Effects as the machine would give them, through the shell's own step."""
        state = self.shell.state
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("router.transfer.machine.step", lambda _state, _event: (state, list(effects)))
            self.shell.feed(event or m.Shutdown(self.host.clock.now_us()))
        return self


# --- facts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "at_us", "wall_back_us"),
    [
        ("heard this moment", 0, 0),
        ("heard late: wall time goes back by as much as the event waited", -250_000, 250_000),
        ("dated ahead of our clock: wall time never runs ahead of now", 40_000, 0),
    ],
)
def test_a_fact_is_dated_when_it_was_heard_on_both_clocks(what: str, at_us: int, wall_back_us: int) -> None:
    stage = Stage()
    stage.perform(m.Emit(Kind.DIALED, 1), event=m.Rang(stage.now_us + at_us, m.Timer.RING, lag_us=7))
    (fact,) = stage.shell.facts
    assert (fact.mono_us, fact.lag_us) == (stage.now_us + at_us, 7), what
    assert fact.utc_us == stage.host.clock.utc_us() - wall_back_us, what


@pytest.mark.parametrize(
    ("emit", "at_us", "lag_us"),
    [
        (m.Emit(Kind.ENDED), 5_000, 300),  # the event's own
        (m.Emit(Kind.ENDED, at_us=1_234), 1_234, 300),  # when the party was last heard
        (m.Emit(Kind.ENDED, at_us=1_234, lag_us=9), 1_234, 9),
        (m.Emit(Kind.ENDED, lag_us=0), 5_000, 0),  # certain, where the event is not
    ],
)
def test_an_effect_may_say_when_it_was_and_with_what_doubt(emit: m.Emit, at_us: int, lag_us: int) -> None:
    stage = Stage().perform(emit, event=m.Shutdown(5_000, lag_us=300))
    assert [(fact.mono_us, fact.lag_us) for fact in stage.shell.facts] == [(at_us, lag_us)]


def test_the_first_fact_has_the_time_of_the_invite_and_the_store_is_asked_about_it_alone() -> None:
    given = start()
    stage = Stage(replace(given, invite=replace(given.invite, at_us=given.invite.at_us - 8_000, lag_us=3_000)))
    stage.shell.begin()
    (started,) = stage.shell.facts
    assert (started.kind, started.leg, started.payload) == (Kind.TRANSFER_STARTED, None, given.payload)
    assert (started.mono_us, started.lag_us) == (stage.now_us - 8_000, 3_000)
    assert stage.host.calls == [("admit", "t1", Kind.TRANSFER_STARTED)]
    assert (stage.host.spoken.commands, stage.host.spoken.messages) == ([], [])  # nothing rings before the disk has it


# --- the last message to the dialer ----------------------------------------------------------------------------------


def test_a_refused_transfer_asks_no_store_and_says_why_in_the_final_answer() -> None:
    stage = Stage(start(refusal=Reason.PAUSED))
    stage.shell.begin()
    assert stage.host.spoken.messages == [
        (
            "reject",
            CALLER,
            480,
            {
                "X-Baton-Transfer": "t1",
                "X-Baton-Verdict": "not_attempted",
                "X-Baton-Reason": "paused",
                "X-Baton-Counts-As": "free",
            },
        )
    ]
    assert stage.kinds == [Kind.TRANSFER_STARTED, Kind.REFUSED, Kind.TRANSFER_CLOSED]
    assert [call for call in stage.host.calls if call[0] == "admit"] == []
    assert stage.host.spoken.commands == []


def _refused(reason: Reason) -> Stage:
    stage = Stage(start(refusal=reason))
    stage.shell.begin()
    return stage


def _declined(code: int) -> Stage:
    return Stage().admitted().leg(1, EventKind.SENT, 10).leg(1, EventKind.FAILED, 900, code=code)


@pytest.mark.parametrize(
    ("what", "stage", "code", "retry"),
    [
        ("we are full: come again", lambda: _refused(Reason.NO_CAPACITY), 503, dict(RETRY)),
        ("the lists cannot be asked: come again", lambda: _refused(Reason.SUPPRESSION_UNAVAILABLE), 503, dict(RETRY)),
        ("refused for good", lambda: _refused(Reason.SUPPRESSED), 603, {}),
        ("the trunk's 503 is the callee's, no promise of ours", lambda: _declined(503), 503, {}),
        ("the store is down", lambda: Stage().not_stored(), 500, {}),
    ],
)
def test_only_our_own_503_says_when_to_come_again(
    what: str, stage: Callable[[], Stage], code: int, retry: dict[str, str]
) -> None:
    ((command, handle, given, headers),) = stage().host.spoken.messages
    assert (command, handle, given) == ("reject", CALLER, code), what
    assert {name: value for name, value in headers.items() if not name.startswith("X-Baton-")} == retry, what


def test_a_dialer_with_its_200_is_told_by_bye_what_the_final_answer_would_have_been() -> None:
    stage = Stage(start(answered=True)).admitted(Reason.DUPLICATE)
    ((command, handle, _, headers),) = stage.host.spoken.messages
    assert (command, handle) == ("hang_up", CALLER)
    assert (headers["Reason"], headers["X-Baton-Reason"]) == ("SIP;cause=480", "duplicate")
    assert "Retry-After" not in headers


@pytest.mark.parametrize("answered", [False, True])
def test_a_prospect_that_is_offered_on_is_told_nothing_and_its_leg_is_no_longer_ours(answered: bool) -> None:
    stage = Stage(start(answered=answered))
    stage.host.offers = True
    stage.admitted().leg(1, EventKind.SENT, 10).leg(1, EventKind.FAILED, 900, code=486)
    assert stage.shell.handed_on
    assert stage.shell.closed
    assert stage.to_caller == []
    assert [outcome.reason for outcome in stage.host.offered] == [Reason.DECLINED]  # asked once, and of this end
    assert stage.host.calls[-1] == ("closed", "t1", stage.shell.outcome)


SCRUBS: list[tuple[ScrubResult | None, dict[str, str]]] = [
    (None, {}),  # the lists were not asked: there is nothing to show
    (ScrubResult(""), {"X-Baton-Scrub": "pass", "X-Baton-Receipt": "signed.acme.pass"}),
    (
        ScrubResult("", lists="dnc 12, acme 3"),
        {"X-Baton-Scrub": "pass; dnc 12, acme 3", "X-Baton-Receipt": "signed.acme.pass"},
    ),
    (
        ScrubResult("suppressed", hit="dnc", lists="dnc 12"),
        {"X-Baton-Scrub": "suppressed; dnc 12", "X-Baton-Receipt": "signed.acme.suppressed"},
    ),
]


@pytest.mark.parametrize(("scrub", "evidence"), SCRUBS)
def test_the_evidence_of_the_lists_goes_with_the_first_answer_and_with_the_last_message(
    scrub: ScrubResult | None, evidence: dict[str, str]
) -> None:
    stage = Stage(start(scrub=scrub)).talking().leg(1, EventKind.BYE, 60_000)
    answer, (command, _, last) = stage.to_caller
    assert answer == ("answer like t1-1", 200, {"X-Baton-Transfer": "t1", **evidence})
    assert (command, last["X-Baton-Verdict"]) == ("hang_up", "connected")
    assert {name: last[name] for name in ("X-Baton-Scrub", "X-Baton-Receipt") if name in last} == evidence


def test_an_early_answer_speaks_nobodys_codec_yet() -> None:
    stage = Stage(start(campaign={"early_answer": True})).admitted()
    assert stage.host.spoken.messages == [("answer like ", CALLER, 200, {"X-Baton-Transfer": "t1"})]


def test_the_time_to_the_answer_is_said_only_where_there_was_one() -> None:
    answered = Stage().talking()
    assert dict(answered.shell.verdict_headers)["X-Baton-Answer-Ms"] == "2500"  # from dial-out, not from the INVITE
    ringing = Stage().admitted().leg(1, EventKind.SENT, 100).leg(1, EventKind.RINGING, 400, code=180)
    assert "X-Baton-Answer-Ms" not in dict(ringing.shell.verdict_headers)


def test_a_bye_says_the_verdict_of_the_likely_end_and_does_not_write_it() -> None:
    """The buyer hung up in a short talk: the dialer hears what that comes to while its own BYE may still cross."""
    stage = Stage().talking().leg(1, EventKind.BYE, 9_600)
    assert Kind.ENDED not in stage.kinds
    said = stage.to_caller[-1][2]
    assert (said["X-Baton-Verdict"], said["X-Baton-Reason"]) == ("failed", "buyer_abandoned")
    assert stage.shell.verdict.reason is not Reason.BUYER_ABANDONED  # as the facts are, nobody has ended it
    stage.host.virtual.run_for(5_000 * MS_US)  # no BYE of the caller's came
    assert stage.kinds.count(Kind.ENDED) == 1
    assert stage.shell.outcome is not None
    assert stage.shell.outcome.reason is Reason.BUYER_ABANDONED
    assert len(stage.to_caller) == 2, "the answer and one BYE"


def test_where_the_callers_own_bye_crosses_ours_the_record_says_so() -> None:
    stage = Stage().talking().leg(1, EventKind.BYE, 9_600).leg(CALLER_LEG, EventKind.BYE, 9_650)
    assert stage.to_caller[-1][2]["X-Baton-Reason"] == "buyer_abandoned"  # what was likely
    assert stage.shell.outcome is not None
    assert stage.shell.outcome.reason is Reason.CALLER_ENDED  # what was


def test_a_buyers_leg_hears_why_and_never_what_it_costs() -> None:
    stage = Stage(start(plain(1), plain(2))).admitted()
    stage.perform(m.HangUp(2, "SIP;cause=200"), m.HangUp(1), m.HangUp(CALLER_LEG, "SIP;cause=200"))
    loser, silent, caller = stage.host.spoken.messages
    assert loser == ("hang_up", "t1-2", 0, {"Reason": "SIP;cause=200"})
    assert silent == ("hang_up", "t1-1", 0, {})
    assert caller[1] == CALLER
    assert (caller[3]["Reason"], caller[3]["X-Baton-Transfer"]) == ("SIP;cause=200", "t1")


# --- the end ---------------------------------------------------------------------------------------------------------


def test_what_comes_after_the_end_is_written_and_changes_no_verdict() -> None:
    stage = Stage(start(plain(1), plain(2))).admitted()
    stage.leg(1, EventKind.SENT, 1).leg(2, EventKind.SENT, 2).leg(CALLER_LEG, EventKind.CANCELLED, 3_000)
    outcome, headers = stage.shell.outcome, stage.shell.verdict_headers
    assert outcome is not None
    stage.leg(2, EventKind.ANSWERED, 3_100, code=200)  # a 2xx that crossed our CANCEL
    assert stage.kinds[-1] is Kind.ANSWERED_LATE
    assert (stage.shell.outcome, stage.shell.verdict_headers) == (outcome, headers)
    assert stage.kinds.count(Kind.TRANSFER_CLOSED) == 1
    assert [call for call in stage.host.calls if call[0] == "closed"] == [("closed", "t1", outcome)]


def test_the_closing_fact_has_the_verdict_of_the_facts_before_it() -> None:
    stage = Stage().talking().leg(CALLER_LEG, EventKind.BYE, 40_000)
    closing = stage.shell.facts[-1]
    assert (closing.kind, closing.leg) == (Kind.TRANSFER_CLOSED, None)
    assert closing.payload == decide(stage.shell.facts[:-1], stage.shell.start.terms).as_payload()
    assert stage.shell.outcome is not None
    assert stage.shell.outcome.verdict is Verdict.CONNECTED


def test_the_verdict_follows_the_facts_and_is_not_decided_twice_for_the_same() -> None:
    stage = Stage().admitted()
    before = stage.shell.verdict
    assert stage.shell.verdict is before
    stage.perform(m.Emit(Kind.ANSWERED, 1, Answered(200, "OK").as_payload()))
    after = stage.shell.verdict
    assert after is not before
    assert after == decide(stage.shell.facts, stage.shell.start.terms)


@pytest.mark.parametrize(
    ("what", "plan", "stops"),
    [
        ("has an answer and is there: its music stops", {"caller_answered": True}, True),
        ("never had an answer", {"caller_answered": False}, False),
        ("hung up itself", {"caller_answered": True, "caller_gone": True}, False),
    ],
)
def test_at_the_end_the_callers_music_stops_where_the_caller_is(what: str, plan: dict[str, bool], stops: bool) -> None:
    stage = Stage()
    stage.shell.state = stage.shell.state._replace(**plan)  # type: ignore[arg-type]
    stage.perform(m.Quiet())
    assert (("stop_playing", CALLER, 0) in stage.host.spoken.commands) is stops, what
    assert stage.host.calls == [("stop_recording", "t1")]


# --- timers ----------------------------------------------------------------------------------------------------------


def _rang(stage: Stage) -> list[tuple[m.Timer, int, int]]:
    return [(one.timer, one.leg, one.at_us - stage.now_us) for one in stage.host.events if isinstance(one, m.Rang)]


def test_a_timer_rings_once_at_its_time_with_the_clocks_doubt_and_is_gone() -> None:
    stage = Stage()
    stage.host.virtual.doubt_us = 11
    stage.perform(m.Arm(m.Timer.HOLD, stage.now_us + 500, 1))
    assert stage.shell.deadlines == {(m.Timer.HOLD, 1): stage.now_us + 500}
    stage.host.virtual.run_for(10_000)
    assert _rang(stage) == [(m.Timer.HOLD, 1, 500)]
    assert [one.lag_us for one in stage.host.events] == [11]
    assert (stage.shell.timers, stage.shell.deadlines) == ({}, {})


TIMERS: list[tuple[str, Callable[[int], list[m.Effect]], list[tuple[m.Timer, int, int]]]] = [
    (
        "armed twice, it rings at the later order's time alone",
        lambda now_us: [m.Arm(m.Timer.RTP, now_us + 100, 1), m.Arm(m.Timer.RTP, now_us + 300, 1)],
        [(m.Timer.RTP, 1, 300)],
    ),
    (
        "one of each leg: they do not replace each other",
        lambda now_us: [m.Arm(m.Timer.RTP, now_us + 100, 0), m.Arm(m.Timer.RTP, now_us + 300, 1)],
        [(m.Timer.RTP, 0, 100), (m.Timer.RTP, 1, 300)],
    ),
    (
        "disarmed, and disarmed again: silent",
        lambda now_us: [m.Arm(m.Timer.RTP, now_us + 100, 1), m.Disarm(m.Timer.RTP, 1), m.Disarm(m.Timer.RTP, 1)],
        [],
    ),
    (
        "the other party's is disarmed",
        lambda now_us: [m.Arm(m.Timer.RTP, now_us + 100, 1), m.Disarm(m.Timer.RTP, 0)],
        [(m.Timer.RTP, 1, 100)],
    ),
    (
        "the transfer is over: all of them are silent",
        lambda now_us: [m.Arm(m.Timer.RTP, now_us + 100, 1), m.Arm(m.Timer.HOLD, now_us + 9, 0), m.Quiet()],
        [],
    ),
]


@pytest.mark.parametrize(("what", "effects", "rings"), TIMERS)
def test_timers_ring_as_they_were_last_ordered(
    what: str, effects: Callable[[int], list[m.Effect]], rings: list[tuple[m.Timer, int, int]]
) -> None:
    stage = Stage()
    stage.perform(*effects(stage.now_us))
    stage.host.virtual.run_for(1_000)
    assert _rang(stage) == rings, what
    assert (stage.shell.timers, stage.shell.deadlines) == ({}, {})


# --- prompts ---------------------------------------------------------------------------------------------------------

PLAIN, WHISPERED = plain(1), replace(plain(1), whisper_file="hello.wav")
KEYED = replace(WHISPERED, accept_key="1")


@pytest.mark.parametrize(
    ("endpoint", "campaign", "effect", "played"),
    [
        (PLAIN, {}, m.Whisper(1), []),
        (WHISPERED, {}, m.Whisper(1), [("play hello.wav", "t1-1", 0)]),
        (KEYED, {}, m.Whisper(1), [("play hello.wav", "t1-1", 1)]),  # again and again until the key
        (replace(PLAIN, accept_key="1"), {}, m.Whisper(1), []),
        (PLAIN, {}, m.Music(), []),
        (PLAIN, {"music_file": "wait.wav"}, m.Music(), [("play wait.wav", CALLER, 1)]),
        (KEYED, {"music_file": "wait.wav"}, m.EndWhisper(1), [("stop_playing", "t1-1", 0)]),
    ],
)
def test_each_party_hears_its_own_prompt_and_silence_where_there_is_none(
    endpoint: Endpoint, campaign: dict[str, str], effect: m.Effect, played: list[tuple[str, str, int]]
) -> None:
    stage = Stage(start(endpoint, campaign=campaign)).perform(effect)
    assert stage.host.spoken.commands == played


def test_each_leg_is_dialled_at_its_own_endpoint_under_its_own_handle() -> None:
    stage = Stage(start(plain(1), plain(2))).admitted()
    assert stage.host.spoken.commands == [(f"dial {plain(1).uri}", "t1-1", 0), (f"dial {plain(2).uri}", "t1-2", 0)]
    assert [stage.shell.leg_handle(number) for number in (CALLER_LEG, 1, 2)] == [CALLER, "t1-1", "t1-2"]


@pytest.mark.parametrize("answered_by_store", [Admission(), None])
def test_the_stores_answer_comes_twice_and_is_heard_once(answered_by_store: Admission | None) -> None:
    stage = Stage()
    stage.shell.begin()
    stage.shell.on_admission(answered_by_store)
    commands, messages, kinds = list(stage.host.spoken.commands), list(stage.host.spoken.messages), stage.kinds
    for late in (answered_by_store, Admission(Reason.PAUSED), None):
        stage.shell.on_admission(late)
    assert (stage.host.spoken.commands, stage.host.spoken.messages, stage.kinds) == (commands, messages, kinds)
    assert (Kind.FAULT in kinds) is (answered_by_store is None)
    assert bool(commands) is (answered_by_store is not None)
