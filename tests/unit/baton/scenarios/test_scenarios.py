"""Stories are read strictly, and the comparison can fail: each thing that it looks at has a record that it refuses."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from baton.demo.relay import Gate
from baton.scenarios import FOLDER, stories_in
from baton.scenarios.cast import plan
from baton.scenarios.compare import differences, worth_minor
from baton.scenarios.facts import Pattern, first_missing
from baton.scenarios.media import EVENT_TYPE, write_key
from baton.scenarios.party_xml import PartyError, render
from baton.scenarios.play import StoryResult, errors, judge, read_calls
from baton.scenarios.story import (
    ChargeEntry,
    ExpectEntry,
    NoStoriesError,
    Story,
    UnknownStoryError,
    choose,
    read_stories,
    read_story,
)
from book.problems import ConfigError
from facts.fact import Fact, Kind
from facts.outcome import decide
from facts.start_payload import Terms
from meter.settling.sql.records import TransferRecord

ROOT = Path(__file__).parents[4]
GOOD = """
title = "one declines"
codes = 486

[[endpoints]]
party = "refuses"
ring_timeout_ms = 5000

[caller]
party = "refused"

[expect]
verdict = "failed"
reason = "declined"
counts_as = "failed"
row = 10
charge = { unit = "failed", percent = 100, minor = 4500 }
facts = ["dialed 1", "leg_ended 1 code=486"]
never = ["answered"]
"""


def write(folder: Path, text: str, name: str = "declines") -> Path:
    (folder / "common" / "parts").mkdir(parents=True, exist_ok=True)
    for party in ("refuses", "refused", "talks"):
        (folder / "common" / f"{party}.xml").write_text("<scenario>{{> part}}</scenario>\n")
    (folder / "common" / "parts" / "part.xml").write_text("<recv/>\n")
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "story.toml").write_text(text)
    return folder / name


# --- the reader ------------------------------------------------------------------------------------------------------


def test_a_story_is_read(tmp_path: Path) -> None:
    story = read_story(write(tmp_path, GOOD))
    assert story.name == "declines"
    assert story.entry.endpoints[0].book == {"ring_timeout_ms": 5000}
    assert story.entry.expect is not None
    assert [str(one) for one in story.entry.expect.chains[0]] == ["dialed 1", "leg_ended 1 code=486"]
    assert story.xml_of("refuses") == tmp_path / "common" / "refuses.xml"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('verdict = "failed"', 'verdict = "lost"'), "line 13: expect.verdict[0]"),
        (("row = 10", "rows = 10"), "expect.rows: is not a setting"),
        (("codes = 486\n", ""), "codes: is required"),
        (('party = "refuses"', 'party = "refusals"'), "line 6: endpoints[0].party: there is no refusals.xml"),
        (('party = "refuses"', 'party = "refuses"\nunreachable = "dns"'), "needs either party or unreachable"),
        (('"dialed 1"', '"dialled 1"'), "line 18: expect.facts: 'dialled' is no kind of fact"),
        (('never = ["answered"]', 'never = ["answered 1 by"]'), "neither a leg nor NAME=VALUE"),
        (("charge = {", "# {"), "counts_as needs a charge"),
        (('counts_as = "failed"', 'counts_as = "connected"'), "charge is of another unit"),
        (("never =", "legs = [{ leg = 2 }]\nnever ="), "there is no endpoint 2"),
        (("[expect]\n", '[race]\nhold = ["BYE", "caller BYE"]\n[expect]\n'), "race.hold[0]"),
        (("title =", "title ="), ""),
    ],
)
def test_what_is_wrong_with_a_story_is_told_with_its_place(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    text = GOOD.replace(*change)
    if not said:
        read_story(write(tmp_path, text))
        return
    with pytest.raises(ConfigError) as found:
        read_story(write(tmp_path, text))
    assert said in str(found.value)
    assert "story.toml" in str(found.value)


def test_a_pending_story_may_name_facts_that_are_to_come(tmp_path: Path) -> None:
    text = GOOD.replace("codes = 486", 'codes = 486\npending = "later"').replace('"dialed 1"', '"beamed 1"')
    assert read_story(write(tmp_path, text)).entry.pending == "later"


def test_pending_stories_are_played_on_demand_only(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, GOOD.replace("codes = 486", 'codes = 486\npending = "later"'), "later")
    stories = read_stories(tmp_path)
    assert [one.name for one in choose(stories, [], pending=False)] == ["declines"]
    assert [one.name for one in choose(stories, [], pending=True)] == ["declines", "later"]
    assert [one.name for one in choose(stories, ["later"], pending=False)] == ["later"]
    assert [one.name for one in choose(stories, ["*"], pending=False)] == ["declines"]
    with pytest.raises(UnknownStoryError, match="no such story: nonsense"):
        choose(stories, ["nonsense"], pending=False)


def test_a_folder_without_stories_is_told(tmp_path: Path) -> None:
    with pytest.raises(NoStoriesError, match="holds no story"):
        read_stories(tmp_path)
    with pytest.raises(NoStoriesError, match="--folder"):
        read_stories(tmp_path / "nowhere")


# --- the stories that ship -------------------------------------------------------------------------------------------

_ASTERISK = ("all", "single")
_PJSIP = ("uas-forked-200", "uas-cancel-no-final", "uas-early-bye", "uas-reinv-glare", "uas-422-then-200-bad-se")


def test_every_story_that_ships_is_sound_and_can_be_cast(tmp_path: Path) -> None:
    stories = stories_in(ROOT / FOLDER)
    names = {story.name for story in stories}
    assert set(_PJSIP) <= names
    assert sum(name.startswith("dial-parallel-") for name in names) == 11
    for at, story in enumerate(stories):
        cast = plan(story, tmp_path / story.name, at, times=2)
        cast.write()
        assert "[[campaigns]]" in cast.book()
        assert len(set(cast.numbers)) == cast.calls == 2 * story.entry.calls


def test_every_party_of_the_folder_is_used() -> None:
    stories = stories_in(ROOT / FOLDER)
    used = {story.xml_of(party.party) for story in stories for party in story.parties}
    there = set((ROOT / FOLDER).glob("*/*.xml"))
    assert not sorted(str(file.relative_to(ROOT)) for file in there - used)


# --- a party's XML ---------------------------------------------------------------------------------------------------


def test_parts_and_values_are_put_in(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    party = tmp_path / "declines" / "one.xml"
    party.write_text("<a>\n  {{> part}}\n{{lead}}\n{{more:}}\n{{wait:20}} {{code}}\n</a>\n")
    assert render(party, {"code": 486}, {"lead": "X: y"}, tmp_path) == "<a>\n<recv/>\nX: y\n20 486\n</a>\n"


@pytest.mark.parametrize(
    ("text", "keys", "said"),
    [
        ("{{code}}", {}, "needs a value for code"),
        ("{{code}}", {"code": 1, "cod": 2}, "uses no cod"),
        ("{{> nothing}}", {}, "there is no part nothing.xml"),
        ("{{> circle}}", {}, "hold each other"),
    ],
)
def test_a_party_that_cannot_be_made_is_told(tmp_path: Path, text: str, keys: dict[str, int], said: str) -> None:
    write(tmp_path, GOOD)
    (tmp_path / "common" / "parts" / "circle.xml").write_text("{{> circle}}")
    party = tmp_path / "declines" / "one.xml"
    party.write_text(text)
    with pytest.raises(PartyError, match=said):
        render(party, keys, {}, tmp_path)


# --- the comparison --------------------------------------------------------------------------------------------------


def fact(seq: int, kind: Kind, at_ms: int, leg: int | None = None, **payload: Any) -> Fact:
    return Fact("r", "b", seq, "t1", kind, at_ms * 1000, at_ms * 1000, leg=leg, payload=payload)


STARTED = {
    "campaign": "declines",
    "phone": "+12132000000",
    "endpoints": [{"leg": 1, "name": "e1", "kind": "trunk"}],
    "buffer_ms": 0,
    "terms": {"unit_price_minor": 4500},
}
FACTS = (
    fact(1, Kind.TRANSFER_STARTED, 0, **STARTED),
    fact(2, Kind.DIALED, 1, 1),
    fact(3, Kind.RINGING, 20, 1, code=180),
    fact(4, Kind.LEG_ENDED, 900, 1, code=486, phrase="Busy", by="buyer", local=False),
    fact(5, Kind.ENDED, 900, by="buyer", cause="legs_failed"),
    fact(6, Kind.TRANSFER_CLOSED, 900),
)
EXPECT = ExpectEntry.model_validate(
    {
        "verdict": "failed",
        "reason": "declined",
        "counts_as": "failed",
        "row": 10,
        "charge": {"unit": "failed", "percent": 100, "minor": 4500},
        "attempt_ms": [800, 1000],
        "legs": [{"leg": 1, "code": 486, "by": "buyer", "local": False}],
        "facts": ["dialed 1", "ringing 1 code=180", "leg_ended 1"],
        "never": ["answered"],
    }
)


def told(facts: tuple[Fact, ...] = FACTS, **settled: Any) -> TransferRecord:
    outcome = decide(facts)
    row = {
        "verdict": outcome.verdict.value,
        "reason": outcome.reason.value,
        "counts_as": outcome.counts_as.value,
        "table_row": outcome.row,
        "agreed": True,
        "buyer": "declines-first",
        **settled,
    }
    posted = {"unit": "failed", "units": 1, "percent": 100}
    return TransferRecord("t1", "declines", "+12132000000", "c1", facts, row, (posted,))


def changed(at: int, **changes: Any) -> tuple[Fact, ...]:
    return tuple(replace(one, **changes) if one.seq == at else one for one in FACTS)


def test_a_record_that_is_as_expected_passes() -> None:
    assert differences(EXPECT, told(), endpoints=1) == []


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (told(verdict="within_buffer"), "verdict: within_buffer, expected failed"),
        (told(reason="no_answer"), "reason: no_answer, expected declined"),
        (told(table_row=9), "row: 9, expected 10"),
        (told(agreed=False), "router and meter do not agree"),
        (replace(told(), settled=None), "is not settled"),
        (replace(told(), posted=()), "charge: nothing, expected 1 failed at 100 %"),
        (replace(told(), posted=(*told().posted, *told().posted)), "1 failed at 100 % and 1 failed at 100 %"),
        (told(changed(1, payload={**STARTED, "terms": {"unit_price_minor": 10}})), "10 minor units of money"),
        (told((*FACTS, fact(7, Kind.TRANSFER_CLOSED, 901))), "was closed 2 times"),
        (told(tuple(one for one in FACTS if one.seq != 4)), "legs [1] are still open"),
        (told((*FACTS, fact(7, Kind.ANSWERED_LATE, 950, 1))), "late answers: 1, expected 0"),
        (told((*FACTS, fact(7, Kind.BRIDGED, 950, 1))), "winner: 1, expected 0"),
        (told((*FACTS, fact(7, Kind.ANSWERED, 950, 1))), "fact 'answered' must not be there"),
        (told((*FACTS, *(fact(n, Kind.ANSWERED, 950, 1) for n in (7, 8)))), "legs [1, 1] have all won"),
        (told((*FACTS, *(fact(n, Kind.BRIDGED, 950, 1) for n in (7, 8)))), "legs [1, 1] have all been bridged"),
        (told((*FACTS, fact(7, Kind.DIALED, 950, 2))), "legs dialled: 2, expected 1"),
        (told(changed(3, payload={"code": 183})), "fact 'ringing 1 code=180' is missing"),
        (told((FACTS[0], FACTS[2], FACTS[1], *FACTS[3:])), "fact 'ringing 1 code=180' is missing"),
        (told(changed(4, payload={**FACTS[3].payload, "code": 480})), "leg 1: code 480, expected 486"),
        (told(changed(4, payload={**FACTS[3].payload, "local": True})), "leg 1: local True, expected False"),
        (told(changed(4, payload={**FACTS[3].payload, "by": "router"})), "leg 1: ended by router, expected buyer"),
        (told(changed(5, mono_us=5_000_000)), "attempt_ms: 4999, expected 800 to 1000"),
    ],
)
def test_each_difference_is_told(record: TransferRecord, said: str) -> None:
    assert any(said in problem for problem in differences(EXPECT, record, endpoints=1))


def test_a_leg_that_resumed_may_be_followed_by_another_winner() -> None:
    facts = (
        *FACTS[:3],
        fact(11, Kind.ANSWERED, 30, 1),
        fact(12, Kind.RESUMED, 40, 1),
        fact(13, Kind.ANSWERED, 50, 1),
        *FACTS[3:],
    )
    expect = EXPECT.model_copy(update={"never": ()})
    assert not [one for one in differences(expect, told(facts), endpoints=1) if "won" in one]


def test_any_of_several_right_results_passes_and_a_free_one_has_no_charge() -> None:
    either = EXPECT.model_copy(
        update={"verdict": (*EXPECT.verdict, "caller_abandoned"), "counts_as": (*EXPECT.counts_as, "free")}
    )
    assert differences(either, told(), endpoints=1) == []
    free = replace(told(counts_as="free"), posted=())
    assert differences(either, free, endpoints=1) == []


def test_a_connected_unit_is_worth_its_percentage_rounded_half_even() -> None:
    charge = ChargeEntry(unit="connected", percent=93, minor=0)
    assert worth_minor(charge, Terms(unit_price_minor=4500)) == 4185
    assert worth_minor(charge, Terms(unit_price_minor=50)) == 46  # 46.5
    assert worth_minor(charge, Terms(unit_price_minor=150)) == 140  # 139.5


def test_a_pattern_looks_at_kind_leg_and_payload() -> None:
    ended = FACTS[3]
    assert Pattern.parse("leg_ended 1 code=486 local=false phrase~us").fits(ended)
    assert not Pattern.parse("leg_ended 2").fits(ended)
    assert not Pattern.parse("leg_ended 1 code=48").fits(ended)
    assert not Pattern.parse("leg_ended nothing=1").fits(ended)
    chain = [Pattern.parse(one) for one in ("ringing 1", "dialed 1")]
    assert first_missing(chain, FACTS) == chain[1]


# --- a story's parties -----------------------------------------------------------------------------------------------


def played(tmp_path: Path) -> StoryResult:
    story: Story = read_story(write(tmp_path, GOOD))
    made = StoryResult(plan(story, tmp_path / "run", 0, times=1))
    made.cast.folder.mkdir()
    (made.cast.folder / "caller.log").write_text("final 486 c1\n")
    made.callees["callee-1"] = read_calls(stats(tmp_path / "one.csv", created=1, failed=0))
    return made


def stats(file: Path, *, created: int, failed: int) -> Path:
    file.write_text("StartTime;TotalCallCreated;CurrentCall;FailedCall(C);\n0;0;0;0;\n" + f"1;{created};0;{failed};\n")
    return file


def test_a_story_whose_record_and_parties_agree_is_well(tmp_path: Path) -> None:
    made = played(tmp_path)
    judge(made, [told()])
    assert made.problems == []


def test_a_transfer_too_few_or_too_many_is_told(tmp_path: Path) -> None:
    made = played(tmp_path)
    judge(made, [])
    assert "+12132000000: 0 transfers, expected 1" in made.problems
    made = played(tmp_path / "again")
    judge(made, [told(), told()])
    assert "+12132000000: 2 transfers, expected 1" in made.problems


def test_a_code_that_the_dialer_should_not_get_is_told(tmp_path: Path) -> None:
    made = played(tmp_path)
    (made.cast.folder / "caller.log").write_text("final 480 c1\n")
    judge(made, [told()])
    assert made.problems == ["the dialer got 480, expected 486"]
    made = played(tmp_path / "again")
    (made.cast.folder / "caller.log").write_text("")
    judge(made, [told()])
    assert made.problems == ["the dialer got 0, expected 486"]


def test_an_invite_that_no_leg_accounts_for_is_told(tmp_path: Path) -> None:
    made = played(tmp_path)
    made.callees["callee-1"] = read_calls(stats(tmp_path / "one.csv", created=2, failed=0))
    judge(made, [told()])
    assert made.problems == ["callee-1: saw 2 calls, 1 legs were dialled"]


def test_sipps_complaints_are_read(tmp_path: Path) -> None:
    log = tmp_path / "one.err"
    stamp = "2026-06-01\t10:00:00.000000\t1780308000.000000: "
    log.write_text(
        f"{stamp}Call-Id: 1, receive timeout on message x:1, jumping to label 2{stamp}Aborting call\non BYE'.\n"
    )
    assert errors(log) == "; Aborting call on BYE'."
    assert errors(tmp_path / "none.err") == ""
    assert read_calls(tmp_path / "none.csv").created == 0


# --- races and sound -------------------------------------------------------------------------------------------------


def message(start: str, number: str = "+12132000001", cseq: str = "1 INVITE", call_id: str = "a") -> bytes:
    lines = (start, f"From: <sip:{number}@x>;tag=1", f"Call-ID: {call_id}", f"CSeq: {cseq}", "", "")
    return "\r\n".join(lines).encode()


async def test_what_races_waits_for_the_other_and_goes_in_the_gates_order() -> None:
    gate, gone = Gate(["caller CANCEL", "callee 200 INVITE"]), []
    answer, cancel = message("SIP/2.0 200 OK"), message("CANCEL sip:x SIP/2.0", cseq="1 CANCEL")
    assert not gate.take(message("SIP/2.0 180 Ringing"), "callee", gone.append)
    assert not gate.take(message("SIP/2.0 200 OK", cseq="2 BYE"), "callee", gone.append)
    assert not gate.take(answer, "caller", gone.append)
    assert gate.take(answer, "callee", gone.append)
    assert gate.take(answer, "callee", gone.append)  # sent again meanwhile
    assert gate.take(message("SIP/2.0 200 OK", number="+12132000002"), "callee", gone.append)
    assert gone == []
    assert gate.take(cancel, "caller", gone.append)
    assert gone == [cancel, answer]
    assert gate.released == 1
    assert not gate.take(answer, "callee", gone.append)


async def test_what_is_not_joined_in_time_goes_on_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baton.demo.relay.PATIENCE_S", 0.01)
    gate, gone = Gate(["callee BYE", "caller BYE"]), []
    bye = message("BYE sip:x SIP/2.0")
    assert gate.take(bye, "callee", gone.append)
    await asyncio.sleep(0.05)
    assert gone == [bye]
    assert gate.released == 0


def test_a_key_is_a_capture_of_telephone_events(tmp_path: Path) -> None:
    write_key(tmp_path / "key.pcap", "#")
    data = (tmp_path / "key.pcap").read_bytes()
    assert struct.unpack("<I", data[:4]) == (0xA1B2C3D4,)
    at, events = 24, []
    while at < len(data):
        length = struct.unpack("<I", data[at + 8 : at + 12])[0]
        rtp = data[at + 16 + 42 : at + 16 + length]
        assert rtp[1] & 0x7F == EVENT_TYPE
        events.append(struct.unpack("!BBH", rtp[12:]))
        at += 16 + length
    assert {event for event, _, _ in events} == {11}
    assert [bool(flags & 0x80) for _, flags, _ in events].count(True) == 3
    assert [duration for _, _, duration in events] == sorted(duration for _, _, duration in events)
