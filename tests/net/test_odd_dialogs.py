"""Requests within a call that are odd but legal, from both sides: their answers, that the call goes on, its charge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from facts.fact import Fact, Kind
from tests.net.conftest import Station, verdict
from tests.net.peer import Call, Callee, Caller, Message, event_type, sdp
from tests.net.test_odd_keys import how

pytestmark = pytest.mark.net

RELAY, PLAIN, EVENT = "application/dtmf-relay", "application/dtmf", "audio/telephone-event"


@dataclass(frozen=True)
class Form:
    """A request, the code of its answer, and the key that it presses."""

    method: str
    code: int
    kind: str = ""
    body: str = ""
    key: str = ""
    headers: tuple[str, ...] = ()
    says: tuple[str, ...] = ()  # headers of the answer


def info(kind: str, body: str, key: str = "", code: int = 200) -> Form:
    return Form("INFO", code, kind, body, key)


KEYS = (
    info(RELAY, "Signal=1\r\nDuration=160\r\n", "1"),
    info(RELAY, "Signal= 2\r\nDuration= 160", "2"),
    info(RELAY, "signal=3\r\nduration=250\r\n", "3"),
    info(RELAY, "SIGNAL = 4\r\n", "4"),
    info(RELAY, "Signal: 5\r\nDuration: 100\r\n", "5"),
    info(RELAY, "Duration=100\r\nSignal=6\r\n", "6"),
    info(RELAY, "Signal=7", "7"),
    info(RELAY, "Signal=8\n", "8"),
    info(RELAY, "\r\nSignal=9\r\nSignal=9\r\n", "9"),
    info(RELAY, "Signal=*\r\nDuration=100\r\n", "*"),
    info(RELAY, "Signal=#\r\n", "#"),
    info(RELAY, "Signal=10\r\nDuration=100\r\n", "*"),
    info(RELAY, "Signal=11\r\n", "#"),
    info(RELAY, "Signal=12\r\n", "A"),
    info(RELAY, "Signal=d\r\n", "D"),
    info("Application/DTMF-Relay", "Signal=1\r\n", "1"),
    info(f"{RELAY};charset=utf-8", "Signal=2\r\n", "2"),
    info(PLAIN, "3", "3"),
    info(PLAIN, " 4 \r\n", "4"),
    info(PLAIN, "*", "*"),
    info(PLAIN, "10\r\n", "*"),
    info(PLAIN, "11", "#"),
    info(PLAIN, "Signal=5\r\n", "5"),
    info(EVENT, "6", "6"),
    info(EVENT, "Signal=7\r\nDuration=160\r\n", "7"),
    info(EVENT, "event=8\r\nduration=160\r\n", "8"),
    info(EVENT, "\x09\x0a\x03\x20", "9"),
    info(RELAY, "Signal=16\r\n"),  # a hook flash: understood, and no key
)
UNREADABLE = (
    info(RELAY, "Signal=x\r\n", code=400),
    info(RELAY, "Signal=\r\n", code=400),
    info(RELAY, "Duration=100\r\n", code=400),
    info(RELAY, "Signal=1\r\nSignal=2\r\n", code=400),
    info(RELAY, "Signal=123\r\n", code=400),
    info(RELAY, "Signal==1\r\n", code=400),
    info(PLAIN, "12", code=400),  # twelve, or one and two
    info(PLAIN, "1\r\n2\r\n", code=400),
)
SUMMARY = ("Event: message-summary",)
OTHERS = (
    Form("OPTIONS", 200, says=("Allow", "Accept", "Supported")),
    Form("INFO", 200),
    Form("INFO", 200, headers=("Content-Type: application/dtmf-relay",)),
    Form("INFO", 415, "text/plain", "hello", says=("Accept",)),
    Form("INFO", 415, "application/media_control+xml", "<a/>", says=("Accept",)),
    Form("INFO", 415, RELAY, "Signal=1\r\n", headers=("Content-Encoding: gzip",), says=("Accept",)),
    Form("NOTIFY", 481, headers=("Event: refer", "Subscription-State: active")),
    Form("NOTIFY", 481, "application/simple-message-summary", "Messages-Waiting: no\r\n", headers=SUMMARY),
    Form("MESSAGE", 405, "text/plain", "hello", says=("Allow",)),
    Form("PUBLISH", 489, headers=("Event: presence",), says=("Allow-Events",)),
    Form("FETCH", 405, says=("Allow",)),
)  # fmt: skip
FORMS = (*OTHERS, *KEYS, *UNREADABLE, *OTHERS)  # again at the end: some switches hang up after three refusals

Send = Callable[[Form], str]


async def answered(party: Caller | Callee, branch: str) -> Message:
    return await party.wait(lambda m: m.is_response and f"branch={branch}" in m.header("Via") and m.code >= 200)


async def play(party: Caller | Callee, send: Send, other: Caller | Callee) -> None:
    """Each form, one after another; a key reaches the other party once."""
    pressed: list[str] = []
    for form in FORMS:
        answer = await answered(party, send(form))
        assert (answer.code, form) == (form.code, form)
        for name in form.says:
            assert answer.header(name), form
        if form.says == ("Allow",):
            allowed = [one.strip() for one in answer.header("Allow").split(",")]
            assert {"INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "INFO"} <= set(allowed)
            assert form.method not in allowed, "what is refused is not said to be allowed (RFC 3261 section 8.2.1)"
        pressed += form.key
        if form.key:
            await passed_on(other, len(pressed))
    await asyncio.sleep(0.3)
    assert keys_at(other) == pressed


def keys_at(party: Caller | Callee) -> list[str]:
    """Keys that we passed on, in order; a repeated message counts once."""
    found = {m.header("CSeq"): m for m in party.seen if m.method == "INFO" and not m.is_response}
    return [m.body.split("\r\n")[0].partition("=")[2].strip() for m in found.values()]


async def passed_on(party: Caller | Callee, count: int) -> None:
    await party.wait(lambda _m: len(keys_at(party)) >= count)


async def bridged(station: Station) -> tuple[Call, Callee, Message]:
    callee = Callee([(20, 180), (60, 200)])
    await station.buyer("acme", callee)
    await station.start()
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code == 200
    invite = await callee.wait(lambda m: m.method == "INVITE")
    await station.facts(call.call_id, lambda facts: any(one.kind is Kind.BRIDGED for one in facts))
    return call, callee, invite


@pytest.mark.parametrize("side", ["dialer", "endpoint"])
async def test_every_request_within_a_call_has_its_answer_and_the_call_goes_on(station: Station, side: str) -> None:
    call, callee, invite = await bridged(station)
    caller = station.caller

    def of_dialer(form: Form) -> str:
        return caller.request(call, form.method, form.body, form.headers, form.kind)

    def of_endpoint(form: Form) -> str:
        return callee.request(invite, form.method, form.body, form.headers, form.kind)

    if side == "dialer":
        await play(caller, of_dialer, callee)
        caller.bye(call)
        wanted = ("short_call/caller_ended", "caller bye", "free")
    else:
        await play(callee, of_endpoint, caller)
        callee.hang_up(invite)
        wanted = ("failed/buyer_abandoned", "buyer bye", "failed")
    facts = await station.closed(call.call_id)
    assert (verdict(facts), how(facts), counted(facts)) == wanted
    assert not [one for one in facts if one.kind is Kind.FAULT]


def counted(facts: list[Fact]) -> str:
    return str(next(one for one in facts if one.kind is Kind.TRANSFER_CLOSED).payload["counts_as"])


@pytest.mark.parametrize("side", ["dialer", "endpoint"])
async def test_a_request_that_comes_again_presses_once_and_an_old_one_not_at_all(station: Station, side: str) -> None:
    call, callee, invite = await bridged(station)
    form, caller = KEYS[0], station.caller
    party, other = (caller, callee) if side == "dialer" else (callee, caller)
    sent: list[tuple[str, tuple[str, int]]] = []
    plain = party.send
    party.send = lambda text, to: (sent.append((text, to)), plain(text, to))[1]  # type: ignore[method-assign]
    if side == "dialer":
        branch = caller.request(call, form.method, form.body, form.headers, form.kind)
    else:
        branch = callee.request(invite, form.method, form.body, form.headers, form.kind)
    assert (await answered(party, branch)).code == 200
    text, to = sent[-1]
    for _ in range(3):
        plain(text, to)
    plain(text.replace(branch, f"{branch}-old"), to)
    assert (await answered(party, f"{branch}-old")).code == 500, "a CSeq that was used (RFC 3261 section 12.2.2)"
    await asyncio.sleep(0.5)
    assert keys_at(other) == ["1"]
    assert sum(m.code == 200 and branch in m.header("Via") and m.method == "INFO" for m in party.seen) == 4


SPELLED = (
    *(info(RELAY, f"{said}\r\nDuration=160\r\n", "1") for said in ("Signal=1", "signal=1", "Signal: 1", "SIGNAL = 1")),
    info(PLAIN, "1", "1"),
    info(EVENT, "1", "1"),
)
ACCEPTS = (*SPELLED, info(EVENT, "\x01\x0a\x03\x20", "1"))


@pytest.mark.parametrize("form", ACCEPTS, ids=lambda form: f"{form.kind}-{form.body!r}")
async def test_an_agent_who_presses_1_in_any_spelling_has_the_call(station: Station, form: Form) -> None:
    callee = Callee([(20, 180), (60, 200)])
    await station.buyer("acme", callee, each='accept_key = "1"')
    await station.start()
    call = station.caller.invite("acme")
    invite = await callee.wait(lambda m: m.method == "INVITE")
    await callee.wait(lambda m: m.method == "ACK")
    wrong = callee.request(invite, "INFO", "Signal=2\r\n", (), RELAY)
    assert (await answered(callee, wrong)).code == 200
    branch = callee.request(invite, form.method, form.body, form.headers, form.kind)
    assert (await answered(callee, branch)).code == 200
    assert (await station.caller.final(call)).code == 200
    await station.facts(call.call_id, lambda facts: any(one.kind is Kind.BRIDGED for one in facts))
    station.caller.bye(call)
    facts = await station.closed(call.call_id)
    assert (verdict(facts), counted(facts)) == ("short_call/caller_ended", "free")


async def test_a_key_sent_both_ways_is_pressed_once(station: Station) -> None:
    """Some phones send each key as RTP events and as INFO."""
    tone = await station.tone(400)
    callee = Callee([(20, 180), (60, 200)])
    await station.buyer("acme", callee)
    await station.start()
    call = station.caller.invite("acme", rtp_port=tone.port, body=sdp(tone.port, "0 101"))
    answer = await station.caller.final(call)
    await station.facts(call.call_id, lambda facts: any(one.kind is Kind.BRIDGED for one in facts))
    tone.event = event_type(answer)
    tone.press(1, answer.rtp_port())
    branch = station.caller.request(call, "INFO", "Signal=1\r\nDuration=160\r\n", (), RELAY)
    assert (await answered(station.caller, branch)).code == 200
    await passed_on(callee, 1)
    await asyncio.sleep(1.2)
    for digit in ("2", "2"):  # one way only: two presses
        station.caller.request(call, "INFO", f"Signal={digit}\r\n", (), RELAY)
        await asyncio.sleep(0.2)
    await passed_on(callee, 3)
    await asyncio.sleep(0.5)
    assert keys_at(callee) == ["1", "2", "2"]


async def test_requests_before_the_answer_and_of_no_dialog(station: Station) -> None:
    """While it rings the dialer's dialog is there, an endpoint's is with its first 18x; other tags have none: 481."""
    callee = Callee([(20, 180)])
    await station.buyer("acme", callee)
    await station.start()
    caller = station.caller
    call = caller.invite("acme")
    ringing = await caller.wait(lambda m: m.call_id == call.call_id and m.code == 180)
    call.to = ringing.header("To")
    invite = await callee.wait(lambda m: m.method == "INVITE")
    for form in (*OTHERS, KEYS[0], UNREADABLE[0]):
        branch = caller.request(call, form.method, form.body, form.headers, form.kind)
        assert ((await answered(caller, branch)).code, form) == (form.code, form)
        branch = callee.request(invite, form.method, form.body, form.headers, form.kind)
        assert ((await answered(callee, branch)).code, form) == (form.code, form)
    callee.tag = "nobody"
    for form in (*OTHERS, KEYS[0]):
        branch = callee.request(invite, form.method, form.body, form.headers, form.kind)
        assert ((await answered(callee, branch)).code, form) == (481, form)
    caller.cancel(call)
    assert verdict(await station.closed(call.call_id)) == "caller_abandoned/caller_gone"


async def test_a_message_outside_dialogs_is_not_taken_and_thrown_away(station: Station) -> None:
    await station.buyer("acme", Callee([(20, 180)]))
    await station.start()
    call = station.caller.ask("acme")
    station.caller._send(
        call, "MESSAGE", f"{call.branch}-m", "<sip:acme@127.0.0.1>", ("Content-Type: text/plain",), "hello"
    )
    answer = await answered(station.caller, f"{call.branch}-m")
    assert (answer.code, "MESSAGE" in answer.header("Allow")) == (405, False)
