"""Who sends too much, or what nobody can read: strangers, dialers, endpoints; over real SIP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from baton.demo.parties import free_port
from tests.net.conftest import Station, verdict
from tests.net.peer import HOST, Callee, Message, Party, sdp

pytestmark = pytest.mark.net
STRANGER = "127.0.0.9"
TCP = '[[listeners]]\nname = "tcp"\ntransport = "tcp"\naddress = "127.0.0.1"\nport = {port}\n'


def request(party: Party, method: str, number: int, *more: str, body: str = "", host: str = HOST) -> str:
    lines = [
        f"{method} sip:acme@{HOST} SIP/2.0",
        f"Via: SIP/2.0/UDP {host}:{party.port};branch=z9hG4bK-{method}-{number}",
        f"From: <sip:a@{host}>;tag=1",
        f"To: <sip:acme@{HOST}>",
        f"Call-ID: flood-{method}-{number}",
        f"CSeq: 1 {method}",
        "Max-Forwards: 70",
        f"Contact: <sip:a@{host}:{party.port}>",
        *more,
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", body])


@pytest.fixture
async def stranger() -> AsyncIterator[Party]:
    party = await Party().open(host=STRANGER)
    yield party
    party.close()


def memory_kb(station: Station) -> int:
    assert station.process is not None
    with open(f"/proc/{station.process.pid}/status") as file:  # noqa: PTH123
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


# --- requests outside dialogs ---

REFUSED = {
    "SUBSCRIBE": (489, "Event: presence"),
    "PUBLISH": (489, "Event: presence"),
    "REGISTER": (405, ""),
    "MESSAGE": (405, ""),
    "REFER": (405, "Refer-To: <sip:b@example.com>"),
    "FROBNICATE": (405, ""),
    "NOTIFY": (481, "Event: refer"),
    "INFO": (481, ""),
    "UPDATE": (481, ""),
    "PRACK": (481, "RAck: 1 1 INVITE"),
    "BYE": (481, ""),
}


async def test_what_is_no_call_is_refused_and_forgotten(station: Station) -> None:
    """RFC 3261 sections 8.2.1 and 12.2.2, RFC 6665 section 4.2.1.1."""
    await station.buyer("acme", Callee([]))
    await station.start()
    for number, (method, (code, header)) in enumerate(REFUSED.items()):
        text = request(station.caller, method, number, *filter(None, [header]))
        station.caller.send(text, (HOST, station.port))
        answer = await station.caller.wait(lambda m, number=number: m.call_id.endswith(f"-{number}") and m.code > 100)
        assert answer.code == code, method
        assert (answer.header("Allow-Events") == "refer") is (code == 489), method
        assert ("INVITE" in answer.header("Allow")) is (code == 405), method
        assert len(answer.text) < 1.5 * len(text), "no amplifier"


async def test_a_flood_of_subscriptions_leaves_nothing_and_sends_nothing(station: Station) -> None:
    await station.buyer("acme", Callee([(20, 180), (50, 486)]))
    await station.start()
    victim = await Party().open(host="127.0.0.8")
    await station.caller.final(station.caller.invite("acme"))
    before = memory_kb(station)
    for number in range(6_000):
        text = request(station.caller, "SUBSCRIBE", number, "Event: presence", "Expires: 3600")
        station.caller.send(text.replace(f"<sip:a@{HOST}:{station.caller.port}>", f"<sip:v@127.0.0.8:{victim.port}>"),
                            (HOST, station.port))  # fmt: skip
        if not number % 100:
            await asyncio.sleep(0.01)
    assert (await station.caller.final(station.caller.invite("acme"), 20)).code == 486
    assert memory_kb(station) - before < 20_000
    answers = [m for m in station.caller.seen if m.is_response and m.method == "SUBSCRIBE"]
    assert answers, "some were answered"
    assert len(answers) < 6_000, "and some were above the share"
    assert {one.code for one in answers} == {489}
    assert not victim.seen
    victim.close()


async def test_above_its_share_a_dialer_hears_when_to_come_again(station: Station) -> None:
    await station.buyer("acme", Callee([]))
    await station.start()
    for number in range(4_000):
        station.caller.send(request(station.caller, "MESSAGE", number), (HOST, station.port))
    call = station.caller.invite("nobody")
    final = await station.caller.final(call, 20)
    assert (final.code, final.header("Retry-After")) in ((503, "1"), (404, "")), final.text
    await asyncio.sleep(2.5)
    assert (await station.caller.final(station.caller.invite("nobody"))).code == 404


# --- strangers ---


async def test_strangers_cost_a_look_at_their_address(station: Station, stranger: Party) -> None:
    """A few a second are read, for one of them may be of a dialog; the others are dropped before they are read."""
    await station.buyer("acme", Callee([(20, 180), (50, 486)]))
    await station.start()
    for number in range(3_000):
        stranger.send(request(stranger, "INVITE", number, host=STRANGER), (HOST, station.port))
        if not number % 100:
            await asyncio.sleep(0.005)
    assert (await station.caller.final(station.caller.invite("acme"))).code == 486
    assert not stranger.seen
    await asyncio.sleep(1.5)
    assert "requests_dropped" in station.log()


async def test_a_bye_from_an_address_that_we_never_sent_to_ends_its_call(station: Station) -> None:
    """RFC 3261 section 12.2.2: a dialog is known by its Call-ID and tags, and not by where its requests come from."""
    callee = Callee([(20, 180), (50, 200)])
    await station.buyer("acme", callee)
    await station.start()
    call = station.caller.invite("acme")
    await station.caller.final(call)
    invite = await callee.wait(lambda m: m.method == "INVITE")
    other = Callee([])
    await other.open(host=STRANGER)
    station.callees.append(other)
    other.hang_up(invite)
    assert verdict(await station.closed(call.call_id)) in ("failed/buyer_abandoned", "short_call/caller_ended")


async def test_a_stranger_that_is_answered_has_nothing_of_its_body_read(station: Station, stranger: Party) -> None:
    station.router_section = 'unknown_sources = "reject"'
    await station.buyer("acme", Callee([]))
    await station.start()
    quotes = '"' * 14_800
    part = f"--a\r\nContent-Type: application/sdp\r\n\r\n{sdp(40_000)}\r\n"
    body = f"{part}--a\r\nContent-Type: application/json; a={quotes}\r\n\r\n{{}}\r\n--a--\r\n"
    begun = time.monotonic()
    for number in range(8):
        kind = "Content-Type: multipart/mixed;boundary=a"
        stranger.send(request(stranger, "INVITE", number, kind, body=body, host=STRANGER), (HOST, station.port))
    answer = await stranger.wait(lambda m: m.code >= 200)
    assert answer.code == 403
    assert answer.header("X-Baton-Reason") == "rejected"
    assert time.monotonic() - begun < 5


async def test_a_trunk_of_the_book_may_ask_whether_we_are_there(station: Station) -> None:
    trunk = Callee([(20, 180)])
    await trunk.open(host="127.0.0.7")
    station.callees.append(trunk)
    await station.buyer("acme", Callee([]), endpoint=(
        f'name = "far"\nkind = "trunk"\nuri = "sip:far@127.0.0.7:{trunk.port}"\n'
    ))  # fmt: skip
    await station.start()
    await asyncio.sleep(1.5)
    for number, host in ((1, "127.0.0.7"), (2, STRANGER)):
        party = trunk if host == "127.0.0.7" else await Callee([]).open(host=host)
        party.send(request(party, "OPTIONS", number, host=host), (HOST, station.port))
        if host == STRANGER:
            await asyncio.sleep(0.5)
            assert not party.seen
            party.close()
        else:
            assert (await party.wait(lambda m: m.is_response)).code == 200
    trunk.send(request(trunk, "INVITE", 3, host="127.0.0.7"), (HOST, station.port))
    await asyncio.sleep(0.5)
    assert not [m for m in trunk.seen if m.method == "INVITE"], "it may ask, and no more"


async def test_a_trunks_registrar_may_ask_too(station: Station) -> None:
    """It asks whether who has registered is still there, and may forget it otherwise."""
    registrar, callee = Callee([]), Callee([])
    await registrar.open(host="127.0.0.6")
    station.callees.append(registrar)

    def react(message: Message) -> None:
        if message.method == "REGISTER":
            registrar.reply(message, 200, contact=f"{message.header('Contact')};expires=300")

    registrar.react = react
    each = f'username = "baton"\npassword = "pw-for-a-test"\nregistrar = "sip:127.0.0.6:{registrar.port}"'
    await station.buyer("acme", callee, each=each)
    await station.start()
    await registrar.wait(lambda m: m.method == "REGISTER")
    registrar.send(request(registrar, "OPTIONS", 1, host="127.0.0.6"), (HOST, station.port))
    assert (await registrar.wait(lambda m: m.is_response)).code == 200


# --- what cannot be read ---

BROKEN = {
    "To": ["<sip:a@b", "", "\x01", '"x <sip:a@b>', "<sip:a@b> x"],
    "From": ["<sip:a@b", "", "Jo (home) <sip:a@b>;tag=1 x", '"Jo <sip:a@b>;tag=1'],
    "CSeq": ["x INVITE", "", "1", "99999999999999 INVITE", "-1 INVITE"],
    "Contact": ["<sip:a@b", "<", "sip:", '"x <sip:a@b>'],
    "Content-Length": ["x", "-1", "", "99999999999999", "1 1"],
    "Expires": ["x", "-1", ""],
    "Max-Forwards": ["x", ""],
    "Content-Type": ["", "text", "text/", "/"],
    "Require": ["@", "a b"],
    "Allow": ["@"],
    "Supported": ["a b@"],
    "Route": ["<sip:", "x"],
    "Record-Route": ["<sip:"],
    "Accept": ["@"],
    "Authorization": ["", "Digest ="],
    "Retry-After": ["x"],
    "Min-SE": ["x"],
    "Session-Expires": ["x"],
    "Call-ID": [""],
    "X-Y z": ["z"],
}


def broken(party: Party, name: str, value: str, method: str = "INVITE") -> str:
    """An INVITE that is whole but for one header."""
    body = sdp(40_000)
    lines = {
        "Via": f"SIP/2.0/UDP {HOST}:{party.port};branch=z9hG4bK-{time.monotonic_ns()}",
        "From": f"<sip:a@{HOST}>;tag=1",
        "To": f"<sip:nobody@{HOST}>",
        "Call-ID": f"broken-{time.monotonic_ns()}",
        "CSeq": f"1 {method}",
        "Max-Forwards": "70",
        "Contact": f"<sip:a@{HOST}:{party.port}>",
        "Content-Type": "application/sdp",
        "Content-Length": str(len(body)),
        name: value,
    }
    head = [f"{method} sip:nobody@{HOST} SIP/2.0", *(f"{key}: {one}" for key, one in lines.items())]
    return "\r\n".join([*head, "", body])


async def answer_to(station: Station, text: str, within_s: float = 5.0) -> Message | None:
    branch = text.partition("branch=")[2].partition("\r\n")[0]
    station.caller.send(text, (HOST, station.port))
    try:
        return await station.caller.wait(lambda m: m.code >= 200 and branch in m.header("Via"), within_s)
    except AssertionError:
        return None


async def test_a_header_that_cannot_be_read_is_named(station: Station) -> None:
    """RFC 3261 section 21.4.1. Which of the values PJSIP can read is its own to say; none may go without an answer."""
    await station.buyer("acme", Callee([]))
    await station.start()
    named = set()
    for name, values in BROKEN.items():
        for value in values:
            text = broken(station.caller, name, value)
            got = await answer_to(station, text)
            assert got is not None, (name, value)
            assert got.code in (400, 404, 420), (name, value, got.start)
            assert len(got.text) < len(text) + 100, "no amplifier"
            if got.code == 400 and got.start.startswith("SIP/2.0 400 Bad Request: "):
                assert got.start.endswith((f": {name.split()[0]}", ": a header")), (name, value, got.start)
                named.add(name)
    assert named >= {"To", "From", "CSeq", "Contact", "Content-Length", "Expires", "Max-Forwards"}
    good = await answer_to(station, broken(station.caller, "X-Good", "good"))
    assert good is not None
    assert good.code == 404
    await asyncio.sleep(1.5)
    assert "malformed" in station.log()


async def test_nobody_answers_what_gives_no_way_to(station: Station, stranger: Party) -> None:
    """An ACK, a response, a stranger, a Via that says nothing."""
    await station.buyer("acme", Callee([]))
    await station.start()
    party = await Party().open()
    party.send(broken(party, "Contact", "<", "ACK"), (HOST, station.port))
    party.send(broken(party, "Contact", "<").replace("INVITE sip:nobody@127.0.0.1 SIP/2.0", "SIP/2.0 200 OK", 1),
               (HOST, station.port))  # fmt: skip
    stranger.send(broken(stranger, "Contact", "<"), (HOST, station.port))
    await asyncio.sleep(1.0)
    assert not party.seen
    assert not stranger.seen
    party.close()
    good = await answer_to(station, broken(station.caller, "X-Good", "good"))
    assert good is not None
    assert good.code == 404


# --- connections ---


@contextlib.contextmanager
def connected(port: int, source: str = HOST) -> Iterator[socket.socket]:
    with socket.create_connection((HOST, port), 5, (source, 0)) as one:
        one.settimeout(5)
        yield one


def closed_by_peer(one: socket.socket) -> bool:
    try:
        return one.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


@pytest.mark.parametrize("length", ["", "Content-Length: x\r\n", "Content-Length: -1\r\n"])
async def test_over_tcp_a_length_that_nobody_knows_is_told(station: Station, length: str) -> None:
    port = free_port()
    station.section(TCP.format(port=port))
    await station.buyer("acme", Callee([]))
    await station.start()
    text = broken(station.caller, "X-Good", "y").replace("SIP/2.0/UDP", "SIP/2.0/TCP")
    head, _, body = text.partition("\r\n\r\n")
    head = "\r\n".join(line for line in head.split("\r\n") if not line.startswith("Content-Length"))
    with connected(port) as one:
        one.sendall(f"{head}\r\n{length}\r\n{body}".encode())
        got = await asyncio.to_thread(one.recv, 65_536)
        assert got.startswith(b"SIP/2.0 400 Bad Request: Content-Length\r\n"), got[:200]
        assert await asyncio.to_thread(closed_by_peer, one), "nobody knows where the next message begins"


async def test_connections_have_limits(station: Station) -> None:
    port = free_port()
    station.section(TCP.format(port=port))
    await station.buyer("acme", Callee([(20, 180), (50, 486)]))
    await station.start()
    with connected(port, STRANGER) as one:
        assert await asyncio.to_thread(closed_by_peer, one), "nobody's is closed at accept"
    with contextlib.ExitStack() as stack:
        many = [stack.enter_context(connected(port)) for _ in range(130)]
        await asyncio.sleep(0.5)
        for one in many:
            one.settimeout(0.05)
        refused = [one for one in many if closed_by_peer(one)]
        assert len(refused) == 30, "a hundred from one address"
        assert (await station.caller.final(station.caller.invite("acme"))).code == 486
    await asyncio.sleep(1.0)
    with connected(port) as one:
        one.settimeout(0.5)
        assert not closed_by_peer(one), "what was closed makes room"


async def test_connections_by_which_no_whole_message_comes_are_closed(station: Station) -> None:
    """After 30 s: one that says nothing, one that only keeps itself alive, one that never ends its message."""
    port = free_port()
    station.section(TCP.format(port=port))
    await station.buyer("acme", Callee([]))
    await station.start()
    whole = broken(station.caller, "X-Good", "good").replace("SIP/2.0/UDP", "SIP/2.0/TCP").encode()
    with contextlib.ExitStack() as stack:
        mute, alive, half, good, odd, large = [stack.enter_context(connected(port)) for _ in range(6)]
        for one, more, code in ((odd, b"Expires: x\r\n", b"400"), (large, b"X-Much: 1\r\n", b"513")):
            text = whole.replace(b"Call-ID: ", b"Call-ID: " + code).replace(b"branch=", b"branch=z9hG4bK" + code)
            one.sendall(text)
            assert one.recv(65_536).startswith(b"SIP/2.0 ")
            text = text.replace(b"branch=", b"branch=z9hG4bKo").replace(b"Max-Forwards", more + b"Max-Forwards")
            if one is large:
                head, _, body = text.partition(b"\r\n\r\n")
                text = head.replace(f"Content-Length: {len(body)}".encode(), b"Content-Length: 90000") + b"\r\n\r\n"
                text += body.ljust(90_000)
            one.sendall(text)
            while not (got := await asyncio.to_thread(one.recv, 65_536)).startswith(b"SIP/2.0 " + code):
                assert got
        half.sendall(whole[:100])
        good.sendall(whole)
        for _ in range(6):
            alive.sendall(b"\r\n\r\n")
            half.sendall(b"X")
            await asyncio.sleep(4)
        for one in (mute, alive, half):
            one.settimeout(40)
            assert await asyncio.to_thread(closed_by_peer, one)
        good.settimeout(1)
        assert good.recv(65_536).startswith(b"SIP/2.0 ")
        for mark, one in ((b"last1", good), (b"last2", odd), (b"last3", large)):
            one.settimeout(2)
            one.sendall(whole.replace(b"Call-ID: ", b"Call-ID: " + mark).replace(b"branch=", b"branch=z9hG4bK" + mark))
            while mark not in (got := await asyncio.to_thread(one.recv, 65_536)):
                assert got, "who has sent one stays, whatever else it sent whole"
