"""An endpoint and a dialer that mean harm. They hold dialogs (RFC 3261 section 12) well enough to get far into a call,
and then answer, ask and repeat whatever they like, over UDP, TCP and TLS; and send junk to the media ports they learn.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.fuzz.grammar import CODES, WITHIN, Odd, Wire
from tests.net.peer import Message

Send = Callable[[bytes], None]
RTP_BURST = 40  # packets at most in one go
STORM = 25  # messages at most of one kind in a row
LIVES_S = 2.5  # a dialog is brought to its end after so long, mostly
KEPT = 5_000  # dialogs that are remembered
# Where requests cannot be sent, or not at once.
NOWHERE = ("<sip:x@127.0.0.1:0>", "<sip:x@127.0.0.1:9>", "<sip:x@127.0.0.1:9;transport=tcp>", "<sips:x@127.0.0.1:9>",
           "<tel:1>", "<http://h/>", "<urn:x>",
           "<sip:x@[::1]:9>", "<sip:x@nowhere.invalid>", "<sip:x@127.0.0.1;transport=xyz>", "*", "",
           "<sip:x@255.255.255.255:9>", "<sip:x@127.0.0.1:9;lr>,<sip:y@127.0.0.1:0;lr>",
           "<sip:" + "u" * 900 + "@127.0.0.1>",
           )  # fmt: skip


@dataclass
class Tally:
    """What was sent, and to how many dialogs."""

    sip: int = 0
    rtp: int = 0
    dialogs: int = 0
    kinds: dict[str, int] = field(default_factory=dict)

    def note(self, kind: str) -> None:
        self.sip += 1
        self.kinds[kind] = self.kinds.get(kind, 0) + 1


@dataclass
class Dialog:
    """What one side knows of a dialog. `mine` and `theirs` are whole From or To values."""

    call_id: str
    mine: str
    theirs: str
    target: str
    send: Send
    via: str
    contact: str
    media: tuple[str, int] | None = None
    cseq: int = 1
    branch: str = ""
    established: bool = False


class Villain:
    """What endpoint and dialer have in common: a dialog, and what may be done to it."""

    host = "127.0.0.1"

    def __init__(self, rng: random.Random, tally: Tally, router: tuple[str, int]) -> None:
        self.rng = rng
        self.router = router
        self.odd = Odd(rng)
        self.tally = tally
        self.port = 0
        self.stopping = False
        self.dialogs: dict[str, Dialog] = {}
        self.over: list[Dialog] = []
        self._serial = itertools.count(1)
        self._media = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._media.bind((self.host, 0))
        self._media.setblocking(False)
        self.rtp_port: int = self._media.getsockname()[1]
        self._transport: asyncio.DatagramTransport | None = None

    async def open(self) -> None:
        villain = self

        class Udp(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                villain.heard(data, lambda out: villain.datagram(out, addr))

        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(Udp, local_addr=(self.host, 0))
        self.port = self._transport.get_extra_info("sockname")[1]

    def close(self) -> None:
        self.stopping = True
        self._media.close()
        if self._transport is not None:
            self._transport.close()

    def datagram(self, data: bytes, to: tuple[str, int]) -> None:
        if self._transport is not None and not self._transport.is_closing() and len(data) < 65_000:
            self._transport.sendto(data, to)

    def later(self, most_s: float, action: Callable[[], None]) -> None:
        def act() -> None:
            if not self.stopping:
                action()

        asyncio.get_running_loop().call_later(self.rng.random() * most_s, act)

    def keep(self, dialog: Dialog) -> None:
        self.tally.dialogs += 1
        self.dialogs[dialog.call_id] = dialog
        while len(self.dialogs) > KEPT:
            self.over.append(self.dialogs.pop(next(iter(self.dialogs))))

    def put(self, send: Send, wire: Wire, kind: str, *, odd: float = 0.25) -> None:
        """Send a message, spoilt with that likelihood, and sometimes many times over."""
        if self.odd.chance(odd):
            self.odd.headers(wire)
        data = wire.text()
        if self.odd.chance(odd / 3):
            data = self.odd.mangled(data)
        for _ in range(self.rng.choice((1,) * 40 + (2, 2, STORM))):
            self.tally.note(kind)
            send(data)

    def heard(self, data: bytes, send: Send) -> None:
        if self.stopping:
            return
        message = Message(data.decode(errors="replace"), 0.0)
        with contextlib.suppress(ValueError, IndexError, StopIteration):  # what the router says is not under test here
            self.react(message, send)

    def react(self, message: Message, send: Send) -> None:
        raise NotImplementedError

    # --- within a dialog ---

    def ask(self, dialog: Dialog, method: str, *, odd: float = 0.3) -> None:
        """A request within it; its tags are mostly right."""
        rng = self.rng
        if method not in {"ACK", "CANCEL"}:
            dialog.cseq += rng.choice((1, 1, 1, 1, 0, -1, 1000))
        number = max(0, dialog.cseq)
        branch = dialog.branch if method == "CANCEL" else f"z9hG4bK{next(self._serial)}x{rng.getrandbits(32):x}"
        mine, theirs = dialog.mine, dialog.theirs
        if self.odd.chance(odd / 3):
            mine = f"<sip:x@y>;tag={self.odd.token()}"
        if self.odd.chance(odd / 3):
            theirs = rng.choice(("<sip:x@y>", f"<sip:x@y>;tag={self.odd.token()}"))
        headers = [
            ("Via", f"{dialog.via};branch={branch}"), ("From", mine), ("To", theirs), ("Call-ID", dialog.call_id),
            ("CSeq", f"{number} {method}"), ("Contact", dialog.contact), ("Max-Forwards", "70"),
        ]  # fmt: skip
        wire = Wire(f"{method} {dialog.target} SIP/2.0", headers)
        self._dress(wire, method, dialog)
        self.put(dialog.send, wire, f"{method} within", odd=odd)

    def _dress(self, wire: Wire, method: str, dialog: Dialog) -> None:
        rng = self.rng
        if method in {"INVITE", "UPDATE"} and self.odd.chance(0.8):
            wire.headers.append(("Content-Type", "application/sdp"))
            wire.body = self.odd.sdp(self.rtp_port)
        elif method in {"INFO", "NOTIFY", "MESSAGE", "PRACK"} and self.odd.chance(0.7):
            kind, wire.body = self.odd.body(self.rtp_port)
            wire.headers.append(("Content-Type", kind))
        if method == "REFER":
            replaces = f"?Replaces={dialog.call_id}%3Bto-tag%3Da%3Bfrom-tag%3Db"
            to = rng.choice((f"<sip:r@127.0.0.1:9{replaces}>", "<sip:r@127.0.0.1:9>", "<sip:acme@127.0.0.1>", "x"))
            wire.headers.append(("Refer-To", to))
        elif method == "PRACK":
            wire.headers.append(("RAck", rng.choice(("1 1 INVITE", "2 1 INVITE", "0 0 X"))))
        elif method in {"SUBSCRIBE", "NOTIFY"}:
            wire.headers += [
                ("Event", rng.choice(("refer", "dialog", "presence", "x"))),
                ("Expires", rng.choice(("0", "60"))),
            ]
            if method == "NOTIFY":
                wire.headers.append(("Subscription-State", rng.choice(("active", "terminated;reason=noresource", ""))))

    def storm(self, dialog: Dialog) -> None:
        """A handful of requests, one upon another."""
        for _ in range(self.rng.choice((1, 2, 4, 9))):
            self.later(0.3, lambda: self.ask(dialog, self.rng.choice(WITHIN)))

    def finish(self) -> None:
        """BYE to every dialog that there was: what was said before may not have been taken."""
        for dialog in (*self.over, *self.dialogs.values()):
            dialog.send = lambda out: self.datagram(out, self.router)
            dialog.cseq += 5_000
            self.ask(dialog, "BYE", odd=0)

    def end(self, dialog: Dialog) -> None:
        if self.dialogs.pop(dialog.call_id, None) is not None:
            self.over.append(dialog)
            for _ in range(self.rng.choice((1, 1, 2))):
                self.ask(dialog, "BYE", odd=0)

    def noise(self, dialog: Dialog) -> None:
        """RTP and RTCP to the other side's media port and the one above it."""
        if dialog.media is None:
            return
        for _ in range(self.rng.randrange(RTP_BURST)):
            with contextlib.suppress(OSError):
                host, port = dialog.media
                self._media.sendto(self.odd.rtp(), (host, port + self.rng.randrange(2)))
                self.tally.rtp += 1

    def learn_media(self, dialog: Dialog, message: Message) -> None:
        with contextlib.suppress(StopIteration, ValueError, IndexError):
            port = message.rtp_port()
            dialog.media = ("127.0.0.1", port) if 0 < port < 65_535 else None

    def reply(self, request: Message, send: Send, code: int, *, tag: str, odd: float = 0.25, sdp: bool = False) -> None:
        rng = self.rng
        to = request.header("To")
        if "tag=" not in to and tag:
            to += f";tag={tag}"
        vias = [
            ("Via", line.partition(":")[2].strip()) for line in request.text.split("\r\n") if line.startswith("Via:")
        ]
        headers = [
            *vias, ("From", request.header("From")), ("To", to), ("Call-ID", request.call_id),
            ("CSeq", request.header("CSeq")),
            ("Contact", rng.choice(NOWHERE) if self.odd.chance(0.15) else self._contact),
        ]  # fmt: skip
        if self.odd.chance(0.1):
            headers.append(("Record-Route", rng.choice(NOWHERE)))
        wire = Wire(f"SIP/2.0 {code} {rng.choice(('X', '', 'R' * 300))}", headers)
        if 100 < code < 200 and self.odd.chance(0.3):
            headers += [("Require", "100rel"), ("RSeq", rng.choice(("1", "1", "2", "7", "0", "4294967295")))]
        elif code in {401, 407}:
            name = "WWW-Authenticate" if code == 401 else "Proxy-Authenticate"
            headers.append(
                (name, rng.choice(('Digest realm="r",nonce="n",qop="auth"', 'Digest realm="r"', "Digest", "")))
            )
        elif 300 <= code < 400:
            target = rng.choice((self._contact, "<sip:a@127.0.0.1:9>;q=0.1,<sip:b@127.0.0.1:9>", "<tel:1>", "*"))
            headers.append(("Contact", target))
        if sdp:
            headers.append(("Content-Type", "application/sdp"))
            wire.body = self.odd.sdp(self.rtp_port)
        self.put(send, wire, f"{code // 100}xx", odd=odd)

    @property
    def _contact(self) -> str:
        return f"<sip:v@{self.host}:{self.port}>"


class BadEndpoint(Villain):
    """An endpoint of a buyer's. What it does with an INVITE is drawn for each."""

    def react(self, message: Message, send: Send) -> None:
        rng = self.rng
        if message.is_response:
            self._answered(message)
            return
        if message.method == "INVITE" and "tag=" not in message.header("To"):
            if message.call_id not in self.dialogs:
                self._rung(message, send)
            return
        dialog = self.dialogs.get(message.call_id)
        if message.method == "ACK":
            if dialog is not None and not dialog.established:
                dialog.established = True
                self.later(0.5, lambda: self.noise(dialog))
                self.later(1.0, lambda: self.storm(dialog))
            return
        code = rng.choice((200, 200, 200, 200, 481, 491, 500, 408, 100, 183, 401, 0, rng.choice(CODES)))
        if code:
            with_sdp = message.method in {"INVITE", "UPDATE"}
            self.later(0.2, lambda: self.reply(message, send, code, tag="t", sdp=with_sdp))
        if message.method == "CANCEL" and self.odd.chance(0.8):
            code = rng.choice((487, 487, 487, 200, 486, 183))
            invite = Message(message.text.replace("CANCEL", "INVITE"), 0.0)
            self.reply(invite, send, code, tag=rng.choice(("t", "t", "u")), sdp=code == 200)

    def _rung(self, invite: Message, send: Send) -> None:
        rng = self.rng
        target = invite.header("Contact").strip("<>")
        dialog = Dialog(invite.call_id, f"{invite.header('To')};tag=t", invite.header("From"), target, send,
                        f"SIP/2.0/UDP {self.host}:{self.port}", self._contact)  # fmt: skip
        self.learn_media(dialog, invite)
        self.keep(dialog)
        if self.odd.chance(0.2):
            self.noise(dialog)
        tags = rng.choice((("t",), ("t",), ("t", "u"), ("t", "u", "w", "", "z" * 300)))
        within_s = rng.choice((0.4, 0.4, 0.4, 9.0))
        for _ in range(rng.choice((1, 2, 3, 8))):
            code = rng.choice((100, 180, 180, 183, 183, 199))
            self.later(within_s, lambda code=code: self._say(invite, dialog, code, rng.choice(tags)))
        for _ in range(rng.choice((0, 1, 1, 1, 2, 5))):
            code = rng.choice((200, 200, 200, 200, 486, 302, 401, 407, rng.choice(CODES)))
            self.later(0.8, lambda code=code: self._say(invite, dialog, code, rng.choice(tags)))
        if self.odd.chance(0.3):
            self.later(0.6, lambda: self.storm(dialog))
        self.later(2 * LIVES_S, lambda: self.end(dialog))

    def _say(self, invite: Message, dialog: Dialog, code: int, tag: str) -> None:
        said = invite
        if self.odd.chance(0.05):  # of another transaction, or of another method
            text = invite.text.replace("branch=z9hG4bK", f"branch=z9hG4bK{self.rng.randrange(9)}")
            said = Message(text.replace("INVITE\r\n", self.rng.choice(("INVITE\r\n", "BYE\r\n", "UPDATE\r\n"))), 0.0)
        self.reply(
            said, dialog.send, code, tag=tag, sdp=(code in {180, 183} and self.odd.chance(0.4)) or code // 100 == 2
        )

    def _answered(self, response: Message) -> None:
        dialog = self.dialogs.get(response.call_id)
        if dialog is not None and response.method == "INVITE" and response.code >= 200 and self.odd.chance(0.7):
            self.ask(dialog, "ACK")


class BadDialer(Villain):
    """A dialer that the router knows. `campaigns` are what it may call."""

    host = "127.0.0.5"

    def __init__(self, rng: random.Random, tally: Tally, router: tuple[str, int], campaigns: tuple[str, ...]) -> None:
        super().__init__(rng, tally, router)
        self.campaigns = campaigns

    def call(self, send: Send | None = None, via: str = "UDP") -> None:
        """An INVITE, mostly one that is taken, and what follows upon it."""
        rng = self.rng
        user = rng.choice(self.campaigns)
        target = f"sip:{user}@{self.router[0]}:{self.router[1]}"
        call_id = f"{rng.getrandbits(64):x}{self.odd.token() if self.odd.chance(0.2) else ''}"
        tag = self.odd.token() if self.odd.chance(0.2) else f"f{rng.getrandbits(32):x}"
        number = f"+1212555{rng.randrange(10_000):04}"
        dialog = Dialog(call_id, f"<sip:{number}@{self.host}>;tag={tag}", f"<sip:{user}@{self.router[0]}>", target,
                        send or (lambda out: self.datagram(out, self.router)),
                        f"SIP/2.0/{via} {self.host}:{self.port};rport", self._contact)  # fmt: skip
        dialog.branch = f"z9hG4bK{rng.getrandbits(64):x}"
        headers = [
            ("Via", f"{dialog.via};branch={dialog.branch}"), ("From", dialog.mine), ("To", dialog.theirs),
            ("Call-ID", call_id), ("CSeq", "1 INVITE"), ("Contact", self._contact), ("Max-Forwards", "70"),
        ]  # fmt: skip
        wire = Wire(f"INVITE {target} SIP/2.0", headers)
        if self.odd.chance(0.9):
            whole = self.odd.chance(0.8)
            kind, wire.body = (
                ("application/sdp", self.odd.sdp(self.rtp_port)) if whole else self.odd.body(self.rtp_port)
            )
            headers.append(("Content-Type", kind))
        self.keep(dialog)
        self.put(dialog.send, wire, "INVITE", odd=0.4)
        if self.odd.chance(0.3):
            self.later(0.8, lambda: self.ask(dialog, "CANCEL"))
        if self.odd.chance(0.2):
            self.later(1.5, lambda: self.storm(dialog))
        self.later(2 * LIVES_S, lambda: self.end(dialog))

    def react(self, message: Message, send: Send) -> None:
        rng = self.rng
        dialog = self.dialogs.get(message.call_id)
        if not message.is_response:
            code = rng.choice((200, 200, 200, 200, 481, 491, 500, 0, rng.choice(CODES)))
            if message.method != "ACK" and code:
                self.later(
                    0.2, lambda: self.reply(message, send, code, tag="f", sdp=message.method in {"INVITE", "UPDATE"})
                )
            return
        if dialog is None or message.method != "INVITE" or message.code <= 100:
            return
        dialog.theirs = message.header("To")
        self.learn_media(dialog, message)
        if message.code >= 200 and self.odd.chance(0.85):
            self.ask(dialog, "ACK", odd=0.1)
        if message.code // 100 == 2 and not dialog.established:
            dialog.established = True
            dialog.target = message.header("Contact").strip("<>") or dialog.target
            self.later(1.0, lambda: self.noise(dialog))
            self.later(2.0, lambda: self.storm(dialog))
        elif message.code < 200 and self.odd.chance(0.2):
            self.ask(dialog, rng.choice(("PRACK", "UPDATE", "BYE", "INFO")))
