"""A payload reads whatever it holds: of any release, of the network, of nobody. What is written reads back equal."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from book.model import Terms as BookTerms
from facts import payloads, start_payload
from facts.disclosure import Reader, claim_of, disclosed, masked
from facts.fact import EndCause, Fact, Kind, Party, first_of
from facts.ladder import build_ladder
from facts.outcome import CountsAs, Reason, Verdict, decide
from facts.talk import end_of, talk_start
from meter.events.model import Events
from meter.letters.lead import render_lead
from meter.per_minute.interactions import Charged, call_row
from meter.settling.counting import count_settled
from meter.settling.follower import SettleOptions, settle
from meter.settling.replay import decide_under
from meter.webhooks.channel import happened_us
from tests.facts_builder import UTC_0, Story, connected_story, failed_story

WHOLE = st.integers(-(2**63), 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
TYPES = tuple(typing.get_args(payloads.Typed))
FIELDS = sorted({name for made in TYPES for name in made._fields})
PARTS = (start_payload.Endpoint, start_payload.Terms, start_payload.Scrub, start_payload.RefusedBuyer)
INNER = sorted({name for made in PARTS for name in made._fields})
WORDS = st.sampled_from([*Party, *EndCause, *Reason, *Verdict, *CountsAs, "minute", "did", "trunk", "refer"]).map(str)
VALUES = JSON | WORDS | st.dictionaries(st.sampled_from(INNER), JSON | WORDS, max_size=5)
OBJECTS = st.dictionaries(st.sampled_from(FIELDS), VALUES | st.lists(VALUES, max_size=3), max_size=8)
ANY_PAYLOAD = JSON | OBJECTS

# What releases before this one wrote otherwise: kind, payload, and what of it must still be read.
OLDER: list[tuple[Kind, dict[str, Any], dict[str, Any]]] = [
    (Kind.RINGING, {"code": 199, "phrase": "Early Dialog Terminated"}, {"code": 199}),
    (Kind.TRYING, {}, {"code": 100, "phrase": None}),
    (Kind.TRYING, {"code": 100}, {"code": 100, "phrase": None}),
    (Kind.NOT_SENT, {"why": "no route"}, {"why": "no route", "ours": False}),
    (Kind.ANSWERED, {"code": 200, "phrase": "OK"}, {"must_accept": False, "fast": False, "whisper": False}),
    (Kind.ANSWERED, {"code": 200, "phrase": "OK", "must_accept": True}, {"must_accept": True, "whisper": False}),
    (Kind.BRIDGED, {}, {"codecs": None}),
    (Kind.LEG_ENDED, {"code": 486, "phrase": "Busy", "by": "buyer", "local": False}, {"local": False, "header": None}),
    (
        Kind.LEG_ENDED,
        {"code": 0, "phrase": "", "by": "router", "local": True, "header": ""},
        {"by": Party.ROUTER, "header": ""},
    ),
    (Kind.FAULT, {"what": "media"}, {"what": "media", "code": None, "detail": None}),
    (Kind.FAULT, {"what": "200 not sent: Invalid operation"}, {"what": "200 not sent: Invalid operation"}),
    (Kind.RECORDED, {"file": "a.wav", "error": "cut short"}, {"file": "a.wav", "sha256": None, "error": "cut short"}),
    (Kind.INTERRUPTED, {}, {"last_seq": None}),
    (Kind.TRANSFER_STARTED, {}, {"buyer": None, "endpoints": (), "terms": start_payload.Terms(), "scrub": None}),
    (
        Kind.TRANSFER_STARTED,
        {"buyer": "", "terms": {}, "scrub": {"reason": "suppressed", "lists": [{"name": "own", "version": 3}]}},
        {"buyer": "", "terms": start_payload.Terms(), "scrub": start_payload.Scrub("suppressed")},
    ),
    (
        Kind.TRANSFER_STARTED,
        {"terms": {"name": "w", "version": 1, "rating": "minute"}, "endpoints": [{"leg": 1, "name": "a"}]},
        {
            "terms": start_payload.Terms("w", 1, "minute"),
            "endpoints": (start_payload.Endpoint(1, "a"),),
        },
    ),
]


def _fact(kind: Kind, payload: Any, seq: int = 1, leg: int | None = 1, mono_us: int = 0) -> Fact:
    return Fact("r", "b", seq, "t", kind, UTC_0 + mono_us, mono_us, leg=leg, payload=payload)


@st.composite
def histories(draw: st.DrawFn) -> list[Fact]:
    """Facts of one transfer with any payload whatever; half of them a sensible story of which some are spoilt."""
    if draw(st.booleans()):
        story = draw(st.sampled_from([failed_story, connected_story]))("t").facts
        spoilt = draw(st.sets(st.integers(0, len(story) - 1)))
        return [
            _fact(fact.kind, draw(ANY_PAYLOAD), fact.seq, fact.leg, fact.mono_us) if at in spoilt else fact
            for at, fact in enumerate(story)
        ]
    kinds = draw(st.lists(st.sampled_from(list(Kind)), min_size=1, max_size=8))
    return [
        _fact(kind, draw(ANY_PAYLOAD), seq, draw(st.none() | st.integers(0, 3)), seq * 3_000_000)
        for seq, kind in enumerate(kinds, start=1)
    ]


def _fits(value: object, hint: Any) -> bool:
    """Whether a value is of the type that its field promises."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in typing.get_args(hint))
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(each, typing.get_args(hint)[0]) for each in value)
    if hint is int:
        return type(value) is int
    if origin is not None:
        return isinstance(value, Mapping)
    if hasattr(hint, "_fields"):
        return isinstance(value, hint) and _typed(value)
    return isinstance(value, hint)


def _typed(read: Any) -> bool:
    hints = typing.get_type_hints(type(read))
    return all(_fits(getattr(read, name), hints[name]) for name in read._fields)


def test_every_kind_has_a_reader() -> None:
    assert set(payloads.READERS) == set(Kind)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(list(Kind)), ANY_PAYLOAD)
def test_any_payload_reads_as_values_of_their_type_or_none(kind: Kind, payload: Any) -> None:
    assert _typed(payloads.read(_fact(kind, payload)))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=20) | JSON.map(orjson.dumps) | OBJECTS.map(orjson.dumps))
def test_any_column_reads_as_a_start(column: bytes) -> None:
    assert _typed(start_payload.stored_start(column))


@pytest.mark.parametrize(("kind", "payload", "said"), OLDER)
def test_what_older_releases_wrote_reads_as_it_was_meant(
    kind: Kind, payload: dict[str, Any], said: dict[str, Any]
) -> None:
    read = payloads.read(_fact(kind, payload))
    assert {name: getattr(read, name) for name in said} == said


@pytest.mark.parametrize(("code", "rang"), [(180, True), (183, True), (199, False), (None, True), ("180", True)])
def test_a_provisional_answer_of_the_first_release_rings_by_its_code(code: object, rang: bool) -> None:
    assert payloads.rings(_fact(Kind.RINGING, {"code": code})) is rang
    assert not payloads.rings(_fact(Kind.TRYING, {"code": code}))


def test_whether_something_had_to_be_accepted_is_not_guessed() -> None:
    """Neither `yes` nor 1 is what the router writes: talk that cannot be told to have begun is not charged."""
    for value, start in ((True, None), ("yes", None), (1, None), (False, 4.0)):
        story = Story().start().dial(1).answer(1, 4.0, must_accept=value)
        found = talk_start(story.facts)
        assert (None if found is None else found.kind) == (None if start is None else Kind.ANSWERED)


@settings(max_examples=120, deadline=None)
@given(histories())
def test_whatever_is_made_of_facts_is_made_of_any(facts: list[Fact]) -> None:
    outcome = decide(facts)
    build_ladder(facts)
    claim = claim_of(facts)
    talk_start(facts)
    assert end_of([]) is None
    started = first_of(facts, Kind.TRANSFER_STARTED)
    row = settle(facts, facts[-1], SettleOptions(ask_rating=True), 1).rows.outcome
    call_row(facts, outcome, buyer="acme", customer="", charged=Charged(0, 0, ""), now_utc_us=1)
    count_settled("t", facts, outcome, agreed=True)
    decide_under(facts, BookTerms("w"))
    if started is not None:
        start_payload.by_leg(started)
        render_lead(facts, ["leads@acme.example"])
    events = Events()
    for fact in facts:
        event = events.fold(fact, row)
        if event is not None:
            happened_us(event)
            orjson.dumps(event.fields)
            for reader in Reader:
                masked(disclosed(event.fields, reader, claim))


# --- what is written -------------------------------------------------------------------------------------------------

_GIVEN = {"fast", "must_accept", "whisper", "forked", "ours"}  # marks: absent where they are not set


_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    int: WHOLE,
    str: st.text(max_size=8),
    bool: st.booleans(),
    type(None): st.none(),
    Party: st.sampled_from(Party),
    EndCause: st.sampled_from(EndCause),
}


def _values(name: str, hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field as somebody may write them."""
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if hint in _PLAIN or name in _GIVEN:
        return _PLAIN[bool if name in _GIVEN else hint]
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(_values("", each) for each in arguments))
    if origin is tuple:
        return st.lists(_values("", arguments[0]), max_size=2).map(tuple)
    if origin is not None:
        return st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3)
    return _instances(hint)


def _instances(made: Any) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(made)
    return st.builds(made, **{name: _values(name, hints[name]) for name in made._fields})


_READER_OF = {typing.get_type_hints(reader)["return"]: kind for kind, reader in payloads.READERS.items()}


@pytest.mark.parametrize("made", TYPES)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_is_written_reads_back_equal(made: Any, data: st.DataObject) -> None:
    said = data.draw(_instances(made))
    stored = orjson.loads(orjson.dumps(said.as_payload(), option=orjson.OPT_SORT_KEYS))
    assert payloads.read(_fact(_READER_OF[made], stored)) == said
