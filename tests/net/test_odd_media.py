"""Odd but legal, and unusable, session descriptions from both sides over real SIP: who is rung, who wins, who pays.

A row is one description. Each table goes through one router, call after call.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from baton.demo.parties import write_tone
from facts.fact import Fact, Kind
from tests.net.conftest import Station, verdict
from tests.net.peer import Callee, Message, loudest_hertz, sdp

pytestmark = pytest.mark.net

GOOD = sdp(40_010)
MIXED = 'multipart/mixed;boundary="b"'


@dataclass(frozen=True)
class Row:
    """A description. `usable`: audio can be agreed on it. `early`: what a 183 before it said."""

    what: str
    body: str
    usable: bool
    kind: str = "application/sdp"
    early: str = ""


def audio(line: str = "m=audio 40010 RTP/AVP 0", *, c: str = "IN IP4 127.0.0.1", more: str = "") -> str:
    connection = f"c={c}\r\n" if c else ""
    return f"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\n{connection}t=0 0\r\n{line}\r\n{more}"


def parts(body: str, *others: str) -> str:
    inner = "".join(f"--b\r\n{one}\r\n" for one in others)
    return f"--b\r\nContent-Type: application/sdp\r\n\r\n{body}\r\n{inner}--b--\r\n"


EVENTS_ONLY = audio("m=audio 40010 RTP/AVP 101", more="a=rtpmap:101 telephone-event/8000\r\n")
OVERRULED = audio(c="IN IP4 m.baton.invalid", more="c=IN IP4 127.0.0.1\r\n")
NO_SUCH_PART = "--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n"
ANSWERS = (
    Row("none", "", usable=False),
    Row("another codec only", audio("m=audio 40010 RTP/AVP 18", more="a=rtpmap:18 G729/8000\r\n"), usable=False),
    Row("port 0", audio("m=audio 0 RTP/AVP 0"), usable=False),
    Row("garbage", "this is no session description\r\n", usable=False),
    Row("half a description", "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\n", usable=False),
    Row("no audio line", audio(""), usable=False),
    Row("video only", audio("m=video 40010 RTP/AVP 34", more="a=rtpmap:34 H263/90000\r\n"), usable=False),
    Row("telephone events only", EVENTS_ONLY, usable=False),
    Row("encrypted where we offered none", audio("m=audio 40010 RTP/SAVP 0"), usable=False),
    Row("a host name", audio(c="IN IP4 media.baton.invalid"), usable=False),
    Row("a host name for the line", audio(more="c=IN IP4 media.baton.invalid\r\n"), usable=False),
    Row("IPv6", audio(c="IN IP6 2001:db8::1"), usable=False),
    Row("an IPv6 address said to be IPv4", audio(c="IN IP4 2001:db8::1"), usable=False),
    Row("a multicast group", audio(c="IN IP4 239.1.2.3/127"), usable=False),
    Row("no address", audio(c=""), usable=False),
    Row("another network", audio(c="ATM NSAP 47.0091"), usable=False),
    Row("text, not a description", "hello", usable=False, kind="text/plain"),
    Row("parts without a description", NO_SUCH_PART, usable=False, kind=MIXED),
    Row("port 0 after a good one in a 183", audio("m=audio 0 RTP/AVP 0"), usable=False, early=GOOD),
    Row("plain", GOOD, usable=True),
    Row("in a part", parts(GOOD), usable=True, kind=MIXED),
    Row("in a part beside another", parts(GOOD, "Content-Type: text/plain\r\n\r\nx"), usable=True, kind=MIXED),
    Row("none after a good one in a 183", "", usable=True, early=GOOD),
    Row("the one of the 183 once more", GOOD, usable=True, early=GOOD),
    Row("sendonly", sdp(40_010, direction="sendonly"), usable=True),
    Row("recvonly", sdp(40_010, direction="recvonly"), usable=True),
    Row("inactive", sdp(40_010, direction="inactive"), usable=True),
    Row("hold as it once was", audio(c="IN IP4 0.0.0.0"), usable=True),
    Row("no direction", audio(), usable=True),
    Row("an address for the line alone", audio(c="", more="c=IN IP4 127.0.0.1\r\n"), usable=True),
    Row("a host name that the line overrules", OVERRULED, usable=True),
    Row("codecs we have not, and one we have", audio("m=audio 40010 RTP/AVP 18 0"), usable=True),
)  # fmt: skip


class Odd(Callee):
    """Answers with what it is told; a 183 before where there is one."""

    def __init__(self, row: Row | None = None) -> None:
        super().__init__([(20, 180), (60, 200)])
        self.row = row
        self.reliable = False

    def answer(self, invite: Message, code: int) -> None:
        if self.row is None or not 200 <= code < 300 or "tag=" in invite.header("To"):
            super().answer(invite, code)
            return
        if self.row.early:
            self.reply(invite, 183, body=self.row.early)
        kind = (f"Content-Type: {self.row.kind}",) if self.row.body else ()
        self.say(invite, code, self.row.body, kind)

    def say(self, invite: Message, code: int, body: str, headers: tuple[str, ...]) -> None:
        lines = [f"SIP/2.0 {code} OK"]
        lines += [line for line in invite.text.split("\r\n") if line.lower().startswith("via:")]
        lines += [f"From: {invite.header('From')}", f"To: {invite.header('To')};tag=t1", f"Call-ID: {invite.call_id}"]
        lines += [f"CSeq: {invite.header('CSeq')}", f"Contact: <sip:x@127.0.0.1:{self.port}>", *headers]
        self.send("\r\n".join([*lines, f"Content-Length: {len(body.encode())}", "", body]), invite.source)


def legs(facts: list[Fact], kind: Kind) -> list[int | None]:
    return [fact.leg for fact in facts if fact.kind is kind]


async def test_a_2xx_wins_when_it_can_be_served_and_fails_its_own_leg_when_not(station: Station) -> None:
    """Two endpoints: the first answers at 60 ms with a row of the table, the other at 200 ms with what is good."""
    odd, good = Odd(), Callee([(20, 180), (200, 200)])
    await station.buyer("acme", odd, good)
    await station.start()
    wrong = []
    for number, row in enumerate(ANSWERS):
        odd.row = row
        call = station.caller.invite("acme", number=f"+1212555{2000 + number}")
        final = await station.caller.final(call)
        if final.code == 200:
            station.caller.bye(call)
        facts = await station.closed(call.call_id)
        last = list(odd.invites)[-1]
        for method in ("ACK", "BYE"):
            await odd.wait(lambda m, method=method, last=last: m.method == method and m.call_id == last)
        found = (
            final.code,
            legs(facts, Kind.ANSWERED),
            verdict(facts),
            {fact.payload["code"] for fact in facts if fact.kind is Kind.LEG_ENDED and fact.leg == 1},
            sum(m.method == "BYE" and m.call_id == last for m in odd.seen),
        )
        wanted = (200, [1 if row.usable else 2], "short_call/caller_ended", {0 if row.usable else 488}, 1)
        wrong += [f"{row.what}: {found}, not {wanted}"] if found != wanted else []
    assert not wrong, "\n".join(wrong)
    assert await station.verified()


@pytest.mark.parametrize("each", ["", 'accept_key = "1"', "whisper"])
async def test_where_no_answer_can_be_served_we_could_not_agree_and_nobody_pays(
    station: Station, tmp_path: Path, each: str
) -> None:
    """Domain, section 3: our failure to agree, whatever the other did; here it rang and declined."""
    if each == "whisper":
        write_tone(tmp_path / "whisper.wav", hertz=700)
        each = f'whisper_file = "{tmp_path / "whisper.wav"}"'
    odd, other = Odd(ANSWERS[0]), Callee([(20, 180), (300, 486)])
    await station.buyer("acme", odd, other, each=each)
    await station.start()
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code == 486
    facts = await station.closed(call.call_id)
    assert verdict(facts) == "fault/router_fault"
    assert facts[-1].payload["counts_as"] == "free"
    assert legs(facts, Kind.ANSWERED) == []
    fault = next(fact for fact in facts if fact.kind is Kind.FAULT)
    assert fault.leg == 1
    assert fault.payload == {"what": "media", "code": 200, "detail": "answered without media that we can use"}


async def test_the_2xx_says_where_audio_goes_though_a_183_said_otherwise(station: Station) -> None:
    """Announcements come from one place, the agent from another (RFC 6337 section 3.1.1 has it; the field does it)."""
    announcer, agent, caller_tone = await station.tone(600), await station.tone(1000), await station.tone(400)
    odd = Odd(Row("another place", sdp(agent.port), usable=True, early=sdp(announcer.port)))
    await station.buyer("acme", odd)
    await station.start()
    call = station.caller.invite("acme", rtp_port=caller_tone.port)
    answer = await station.caller.final(call)
    offer = next(iter(odd.invites.values()))
    await asyncio.gather(caller_tone.play(answer.rtp_port(), 2), agent.play(offer.rtp_port(), 2))
    assert loudest_hertz(agent.heard) == pytest.approx(400, abs=5)
    assert loudest_hertz(caller_tone.heard) == pytest.approx(1000, abs=5)
    station.caller.bye(call)
    await station.closed(call.call_id)


# --- offers ---


@dataclass(frozen=True)
class Offer:
    """A dialer's description: the final code, and a word of the Warning where it is refused."""

    what: str
    body: str
    code: int = 200
    kind: str = "application/sdp"


MINIMAL = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\n{}c=IN IP4 127.0.0.1\r\n{}m=audio 40020 RTP/AVP 0\r\n{}"
UNKNOWN_LINES = "a=x\r\na=y:z w\r\na=silenceSupp:off - - - -\r\n"
RARE = MINIMAL.format("s=-\r\ni=x\r\nu=x\r\ne=x\r\np=x\r\n", "t=0 0\r\nr=1 1\r\nz=1 1\r\nk=clear:x\r\n", "")
KEY = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{'A' * 40}\r\n"
OFFERS = (
    Offer("plain", sdp(40_020)),
    Offer("an empty s=", MINIMAL.format("s=\r\n", "t=0 0\r\n", "")),
    Offer("a blank s=", MINIMAL.format("s= \r\n", "t=0 0\r\n", "")),
    Offer("no s=", MINIMAL.format("", "t=0 0\r\n", "")),
    Offer("no t=", MINIMAL.format("s=-\r\n", "", "")),
    Offer("lines that end in LF", sdp(40_020).replace("\r\n", "\n")),
    Offer("blanks at the ends of lines", sdp(40_020).replace("\r\n", " \r\n")),
    Offer("lines after it that are empty", sdp(40_020) + "\r\n\r\n"),
    Offer("no end of the last line", sdp(40_020).removesuffix("\r\n")),
    Offer("attributes nobody knows", MINIMAL.format("s=-\r\n", "t=0 0\r\n", UNKNOWN_LINES)),
    Offer("bandwidths nobody knows", MINIMAL.format("s=-\r\n", "b=X-Y:12\r\nt=0 0\r\n", "b=ZZ:1\r\n")),
    Offer("other lines", RARE),
    Offer("large numbers in o=", sdp(40_020).replace("o=- 1 1", "o=- 18446744073709551615 18446744073709551615")),
    Offer("a name in o=", sdp(40_020).replace("1 1 IN IP4 127.0.0.1", "1 1 IN IP4 pbx.baton.invalid")),
    Offer("an address for the line alone", audio(c="", more="c=IN IP4 127.0.0.1\r\n")),
    Offer("hold as it once was", audio(c="IN IP4 0.0.0.0")),
    Offer("sendonly", sdp(40_020, direction="sendonly")),
    Offer("recvonly", sdp(40_020, direction="recvonly")),
    Offer("inactive", sdp(40_020, direction="inactive")),
    Offer("video beside it", sdp(40_020) + "m=video 40030 RTP/AVP 34\r\na=rtpmap:34 H263/90000\r\n"),
    Offer("fax beside it", sdp(40_020) + "m=image 40030 udptl t38\r\n"),
    Offer("text beside it", sdp(40_020) + "m=text 40030 RTP/AVP 98\r\na=rtpmap:98 t140/1000\r\n"),
    Offer("a second line, closed", sdp(40_020) + "m=audio 0 RTP/AVP 0\r\n"),
    Offer("a closed line first", audio("m=audio 0 RTP/AVP 0\r\nm=audio 40020 RTP/AVP 0")),
    Offer("RTCP at a name", sdp(40_020) + "a=rtcp:40021 IN IP4 media.baton.invalid\r\n"),
    Offer("in a part", parts(sdp(40_020)), kind=MIXED),
    Offer("IPv6", audio(c="IN IP6 2001:db8::1"), 488),
    Offer("an IPv6 address said to be IPv4", audio(c="IN IP4 2001:db8::1"), 488),
    Offer("a host name", audio(c="IN IP4 media.baton.invalid"), 488),
    Offer("a multicast group", audio(c="IN IP4 239.1.2.3/127"), 488),
    Offer("another network", audio(c="ATM NSAP 47.0091"), 488),
    Offer("no common codec", audio("m=audio 40020 RTP/AVP 18", more="a=rtpmap:18 G729/8000\r\n"), 488),
    Offer("telephone events only", EVENTS_ONLY, 488),
    Offer("port 0", audio("m=audio 0 RTP/AVP 0"), 488),
    Offer("video only", audio("m=video 40020 RTP/AVP 34", more="a=rtpmap:34 H263/90000\r\n"), 488),
    Offer("fax only", audio("m=image 40020 udptl t38"), 488),
    Offer("encryption without a key", audio("m=audio 40020 RTP/SAVP 0"), 488),
    Offer("encryption where it is off", audio("m=audio 40020 RTP/SAVP 0", more=KEY), 488),
    Offer("audio over TCP", audio("m=audio 40020 TCP/RTP/AVP 0"), 488),
    Offer("no address", audio(c=""), 400),
    Offer("no line of media", audio(""), 400),
    Offer("v=0 and no more", "v=0\r\n", 400),
    Offer("garbage", "this is no session description\r\n", 400),
    Offer("not a description", "hello", 415, kind="text/plain"),
)  # fmt: skip


async def test_an_offer_that_cannot_be_served_is_refused_before_anything_rings(station: Station) -> None:
    callee = Callee([(20, 180), (60, 200)])
    await station.buyer("acme", callee)
    await station.start()
    wrong = []
    for number, row in enumerate(OFFERS):
        before = len(callee.invites)
        call = station.caller.invite("acme", number=f"+1212555{3000 + number}", body=row.body, content_type=row.kind)
        final = await station.caller.final(call)
        rang = len(callee.invites) - before
        problems = [] if (final.code, rang) == (row.code, int(row.code == 200)) else [f"{final.code}, rang {rang}"]
        if final.code == 488 and not final.header("Warning"):
            problems.append("no Warning")
        if "media.baton.invalid" in final.text:
            problems.append("the name in the answer")
        if final.code == 200:
            station.caller.bye(call)
            facts = await station.closed(call.call_id)
            problems += [] if verdict(facts) == "short_call/caller_ended" else [verdict(facts)]
        wrong += [f"{row.what}: {problems}, not {row.code}"] if problems else []
    assert not wrong, "\n".join(wrong)


# --- what we offer ---


async def test_a_late_offer_is_of_audio_alone(station: Station) -> None:
    """An INVITE and a re-INVITE without a description: what we offer then is one line of audio."""
    callee = Callee([(20, 180), (60, 200)])
    await station.buyer("acme", callee)
    await station.start()
    call = station.caller.invite("acme", content_type="x/none", body="-")
    assert (await station.caller.final(call)).code == 415
    call = station.caller.late_invite("acme", sdp(40_020))
    answer = await station.caller.final(call)
    assert next(line for line in answer.body.splitlines() if line.startswith("m=")).startswith("m=audio ")
    assert answer.body.count("m=") == 1, answer.body
    station.caller.request(call, "INVITE")
    again = await station.caller.wait(
        lambda m: m.is_response and m.code == 200 and m.header("CSeq") == f"{call.cseq} INVITE"
    )
    assert again.body.count("m=") == 1, again.body
    station.caller.bye(call)
    await station.closed(call.call_id)


async def test_an_ack_whose_answer_cannot_be_read_ends_its_call_and_no_other(station: Station) -> None:
    """RFC 3264 section 5: a late offer is answered in the ACK."""
    callee = Callee([(20, 180), (60, 200)])
    await station.buyer("acme", callee)
    await station.start()
    good = sdp(40_020)
    for broken in (
        good.replace("m=audio 40020 RTP/AVP 0", "m=audio x RTP/AVP"),
        good.replace("o=- 1 1 IN IP4", "o=- IN IP4"),
        good.replace("c=IN IP4 127.0.0.1", "c=IN IP4 name.invalid"),
        good.replace("m=audio", "m=video"),
        good.replace("m=audio 40020", "m=audio 0"),
        "v=0\r\n",
        "garbage",
    ):
        call = station.caller.late_invite("acme", broken)
        assert (await station.caller.final(call)).code == 200, broken
        await station.caller.wait(lambda m, call=call: m.method == "BYE" and m.call_id == call.call_id)
        await station.closed(call.call_id)
    assert station.process is not None
    assert station.process.returncode is None
    call = station.caller.late_invite("acme", good)
    assert (await station.caller.final(call)).code == 200
    station.caller.bye(call)
    assert verdict(await station.closed(call.call_id)) == "short_call/caller_ended"
