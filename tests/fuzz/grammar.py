"""SIP messages (RFC 3261), descriptions of media (RFC 8866) and RTP (RFC 3550), right at first, then spoilt.

Everything is drawn from the generator that is handed in: a seed replays what was sent. Spoiling goes on in layers: the
values (`Odd.value`), the list of headers (`Odd.headers`), the bytes (`Odd.mangled`), so that some of what is sent
is only a little wrong and gets far, and some is noise.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

HOST = "127.0.0.1"
LONGEST = 6_000  # bytes of one value; what the network may send at most is PJSIP_MAX_PKT_LEN
NUMBERS = (
    "-1",
    "0",
    "1",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9" * 19,
    "9" * 40,
    "00000000000000000001",
    "1.5",
    "1e9",
    "0x10",
    " 7 ",
    "abc",
    "",
)
TEXTS = (
    "",
    " ",
    '"',
    '""',
    '"\\',
    "<",
    ">",
    "<>",
    "<<>>",
    ";",
    ";;;=",
    ",",
    ",,,",
    "*",
    "=",
    "@",
    ":",
    "::",
    "[",
    "[::",
    "%",
    "%zz",
    "%00",
    "\x00",
    "\x01\x1e\x1f\x7f",
    "\xff\xfe",
    "é",
    "\t",
    "()",
    "(" * 60,
    "a" * 300,
    "=?utf-8?q?x?=",
    "'; --",
    "\r",
    "\n",
    "\r\n",
    "\r\n\t",
    "\\",
)
URIS = (
    "sip:",
    "sips:",
    "tel:+12125550123",
    "sip:@",
    "sip:a@",
    "sip:@h",
    "sip:a:b@h",
    "sip:a@[::1]",
    "sip:a@[::1",
    "sip:a@h:0",
    "sip:a@h:65536",
    "sip:a@h:99999999999",
    "sip:a@127.0.0.1;transport=",
    "sip:a@127.0.0.1;transport=xyz",
    "sip:a@127.0.0.1;transport=tls",
    "sips:a@127.0.0.1",
    "sip:a@127.0.0.1;lr;lr=on;maddr=127.0.0.9;ttl=999",
    "sip:a@127.0.0.1?Replaces=a%3Bto-tag%3Db%3Bfrom-tag%3Dc",
    "sip:a@127.0.0.1?X=%",
    "http://h/",
    "mailto:a@h",
    "urn:x",
    "sip:%61%62@127.0.0.1",
    "sip:a%00b@127.0.0.1",
    "sip:a;b=c;d@127.0.0.1;e=f",
    "*",
    "a",
    "sip:" + "u" * 900 + "@h",
    "sip:a@" + "h" * 400,
    "sip:a@h" + ";p=v" * 120,
    '"d" <sip:a@h>;q=0.5',
    "<sip:a@h>",
    "<sip:a@h",
)
METHODS = (
    "INVITE",
    "ACK",
    "BYE",
    "CANCEL",
    "OPTIONS",
    "REGISTER",
    "INFO",
    "UPDATE",
    "PRACK",
    "REFER",
    "SUBSCRIBE",
    "NOTIFY",
    "MESSAGE",
    "PUBLISH",
    "FOO",
    "invite",
    "X" * 200,
)
WITHIN = (
    "INVITE",
    "UPDATE",
    "REFER",
    "SUBSCRIBE",
    "NOTIFY",
    "INFO",
    "MESSAGE",
    "OPTIONS",
    "PRACK",
    "BYE",
    "ACK",
    "CANCEL",
)
CODES = (
    100,
    180,
    181,
    182,
    183,
    199,
    200,
    202,
    204,
    299,
    300,
    301,
    302,
    305,
    380,
    400,
    401,
    403,
    404,
    407,
    408,
    415,
    420,
    421,
    422,
    423,
    481,
    482,
    486,
    487,
    488,
    489,
    491,
    493,
    494,
    500,
    501,
    503,
    504,
    580,
    600,
    603,
    606,
    699,
)
EXTRAS = {
    "Require": ("100rel", "timer", "replaces", "precondition", "foo,100rel", "norefersub"),
    "Supported": ("100rel, timer, replaces, gruu, outbound", "timer", "", "100rel"),
    "Session-Expires": ("0", "1", "90;refresher=uac", "90;refresher=uas", "1800;refresher=foo", "4294967295"),
    "Min-SE": ("0", "90", "4294967295"),
    "RSeq": ("1", "2", "0", "4294967295"),
    "RAck": ("1 1 INVITE", "0 0 FOO", "1"),
    "Replaces": ("a;to-tag=b;from-tag=c", "a;to-tag=b;from-tag=c;early-only", "a"),
    "Refer-To": (
        "<sip:a@127.0.0.1:9>",
        "<sip:a@127.0.0.1:9?Replaces=x%3Bto-tag%3D1%3Bfrom-tag%3D2>",
        "tel:1",
        "<sip:>",
    ),
    "Refer-Sub": ("false", "true", "x"),
    "Event": ("refer", "refer;id=1", "presence", "dialog", "message-summary", "foo;id=" + "i" * 300),
    "Subscription-State": ("active;expires=60", "terminated;reason=noresource", "pending", "foo"),
    "Route": (
        "<sip:127.0.0.1;lr>",
        "<sip:127.0.0.1:9>",
        "<sip:127.0.0.9;lr>,<sip:127.0.0.8;lr>",
        "sip:a",
        "<sip:a@h;lr",
    ),
    "Record-Route": ("<sip:127.0.0.1:9;lr>", "<sip:127.0.0.1:9;lr>,<sip:[::1]:9;lr>", "<sips:127.0.0.1;lr>"),
    "Authorization": (
        'Digest username="a",realm="b",nonce="c",uri="sip:d",response="e"',
        "Digest",
        "Basic YTpi",
        "Digest ,",
    ),
    "Proxy-Authorization": (
        'Digest username="a",realm="b",nonce="c",uri="sip:d",response="' + "0" * 32 + '"',
        "Digest a=b",
    ),
    "WWW-Authenticate": (
        'Digest realm="r",nonce="n",qop="auth,auth-int",algorithm=MD5',
        'Digest realm="r", nonce="' + "n" * 900 + '"',
        "Digest",
        'Digest realm="r",nonce="n",algorithm=SHA-256,stale=true',
        "Foo x=y",
    ),
    "Proxy-Authenticate": (
        'Digest realm="r",nonce="n",opaque="' + "o" * 500 + '",qop="auth"',
        'Digest nonce="",realm=""',
    ),
    "Contact": (
        "*",
        "<sip:x@127.0.0.1:9>",
        "<sip:x@127.0.0.1:9>;expires=0,<sip:y@127.0.0.1:9>;q=0.1",
        "<sips:x@127.0.0.1>",
    ),
    "Expires": ("0", "3600"),
    "Retry-After": ("0", "5;duration=9", "60 (later)"),
    "Reason": ('SIP;cause=200;text="Call completed elsewhere"', "Q.850;cause=16", ";;cause", "SIP;cause=abc"),
    "Diversion": ("<sip:a@elsewhere.invalid>;reason=unconditional", "x"),
    "History-Info": ("<sip:a@h>;index=1,<sip:b@h>;index=1.1", ";index=1.1.1.1.1.1.1.1.1"),
    "P-Asserted-Identity": ("<sip:+12125550123@h>", '"' + "n" * 400 + '" <tel:+1>', "<>"),
    "Warning": ('399 h "x"', "399", '399 h "'),
    "Content-Encoding": ("gzip", "identity"),
    "Content-Disposition": ("session;handling=optional", "render", ";"),
    "Accept": ("application/sdp", "*/*", "multipart/mixed;q=0"),
    "Allow": ("INVITE,ACK,BYE", "", ",".join("M" * 90)),
    "Max-Forwards": ("0", "255", "70"),
    "Timestamp": ("54", "54.21 0.1", "x"),
    "Via": (
        "SIP/2.0/UDP 127.0.0.5:9;branch=z9hG4bKx",
        "SIP/2.0/TCP h;branch=;rport=;received=",
        "SIP / 2.0 / UDP a",
        "x",
    ),
    "X-Lead": ("Ann", "{}", "x" * 900),
    "Date": ("Sat, 13 Nov 2010 23:29:00 GMT", "x"),
    "User-Agent": ("x", "(" * 400),
    "Join": ("a;to-tag=b;from-tag=c",),
    "Identity": ("x;info=<https://h>;alg=ES256",),
}
PROTOCOLS = (
    "RTP/AVP",
    "RTP/AVP",
    "RTP/AVP",
    "RTP/SAVP",
    "RTP/SAVPF",
    "RTP/AVPF",
    "UDP/TLS/RTP/SAVPF",
    "TCP/RTP/AVP",
    "udptl",
    "RTP/",
    "",
    "x" * 100,
)
CODECS = (
    "PCMU/8000",
    "PCMA/8000",
    "G722/8000",
    "opus/48000/2",
    "telephone-event/8000",
    "CN/8000",
    "G729/8000",
    "PCMU/0",
    "PCMU/4294967296",
    "opus/48000/99",
    "opus/8000/0",
    "L16/44100/2",
    "/",
    "x",
    "red/8000",
)
KEY = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"
ATTRIBUTES = (
    "sendrecv",
    "sendonly",
    "recvonly",
    "inactive",
    "ptime:20",
    "ptime:0",
    "ptime:65535",
    "maxptime:0",
    "mid:0",
    "mid:",
    "rtcp-mux",
    "rtcp:9 IN IP4 127.0.0.1",
    "rtcp:0",
    "rtcp:65536 IN IP6 ::1",
    "group:BUNDLE 0 1 2",
    "ice-ufrag:abcd",
    "ice-pwd:" + "p" * 22,
    "ice-lite",
    "candidate:1 1 UDP 2130706431 127.0.0.1 9 typ host",
    "candidate:x",
    "end-of-candidates",
    f"crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}",
    f"crypto:1 AES_CM_128_HMAC_SHA1_32 inline:{KEY}|2^20|1:4",
    "crypto:1 AES_CM_128_HMAC_SHA1_80 inline:",
    "crypto:1 AES_CM_128_HMAC_SHA1_80 inline:" + "A" * 900,
    "crypto:",
    "crypto:0 x y",
    f"crypto:99999999999 AES_256_CM_HMAC_SHA1_80 inline:{KEY}",
    "fingerprint:sha-256 " + "AA:" * 31 + "AA",
    "fingerprint:x",
    "fingerprint:sha-1 " + "Z" * 400,
    "setup:actpass",
    "setup:active",
    "setup:passive",
    "setup:holdconn",
    "connection:new",
    "ssrc:1 cname:x",
    "ssrc:99999999999999 cname:",
    "fmtp:101 0-15",
    "fmtp:96 " + "k=v;" * 200,
    "fmtp:0",
    "fmtp:",
    "rtpmap:",
    "rtpmap:0",
    "rtpmap:999 PCMU/8000",
    "rtpmap:0 PCMU",
    "silenceSupp:off",
    "key-mgmt:mikey AAAA",
    "cap:1 audio RTP/AVP 0",
    "rtcp-fb:* nack",
    "rtcp-fb:0",
    "extmap:1 urn:x",
    "x" * 700,
    ":",
    "",
)
ADDRESSES = (
    "IN IP4 127.0.0.1",
    "IN IP4 127.0.0.1",
    "IN IP4 127.0.0.5",
    "IN IP4 0.0.0.0",
    "IN IP6 ::1",
    "IN IP6 ::",
    "IN IP4 255.255.255.255",
    "IN IP4 224.0.0.1/127/3",
    "IN IP4 ::1",
    "IN IP6 127.0.0.1",
    "IN IP4 nowhere.invalid",
    "IN IP4",
    "",
    "IN IP4 " + "1" * 300,
    "XX YY 127.0.0.1",
)


@dataclass
class Wire:
    """A message before it is written down. `start` is its first line."""

    start: str
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: str = ""
    length: str | None = None  # what Content-Length says, where that is not the truth

    def text(self) -> bytes:
        body = self.body.encode("latin-1", "replace")
        lines = [self.start, *(f"{name}: {value}" for name, value in self.headers)]
        lines.append(f"Content-Length: {len(body) if self.length is None else self.length}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body


class Odd:
    """Odd things, drawn from a generator."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def token(self) -> str:
        """Mostly short; sometimes as long as keys and object names never are."""
        size = self.rng.choice((1, 8, 8, 12, 20, 31, 32, 33, 63, 64, 127, 239, 240, 241, 255, 256, 800, LONGEST // 2))
        return "".join(self.rng.choices("abcxyz019.-_!~*'", k=min(size, 20))) + "c" * max(0, size - 20)

    def value(self, was: str) -> str:  # noqa: PLR0911 - as many ways as there are to spoil one
        """A header's value or an attribute, spoilt."""
        rng = self.rng
        at = rng.randrange(len(was) + 1)
        kind = rng.randrange(9)
        if kind == 0:
            return rng.choice(NUMBERS)
        if kind == 1:
            return rng.choice(TEXTS)
        if kind == 2:
            return rng.choice(URIS)
        if kind == 3:
            return was[:at] + rng.choice(TEXTS) + was[at:]
        if kind == 4:
            return was[:at] + rng.choice('ax0;,<"(%') * rng.choice((2, 60, 300, 1200)) + was[at:]
        if kind == 5:
            return was[:at]
        if kind == 6:
            return ",".join([was] * rng.choice((2, 5, 40)))
        if kind == 7:
            return was + f";{self.token()}={rng.choice(NUMBERS)}" * rng.choice((1, 3, 60))
        return "".join(chr(rng.choice(range(256))) for _ in range(rng.choice((1, 7, 80))))

    def headers(self, wire: Wire, most: int = 3) -> None:
        """Drop, double, swap, spoil and add headers."""
        rng = self.rng
        for _ in range(rng.randint(1, most)):
            kind = rng.randrange(7)
            at = rng.randrange(len(wire.headers)) if wire.headers else 0
            if kind <= 1 or not wire.headers:
                wire.headers.insert(at, self.extra())
            elif kind == 2:
                del wire.headers[at]
            elif kind == 3:
                wire.headers.insert(rng.randrange(len(wire.headers)), wire.headers[at])
            elif kind == 4:
                rng.shuffle(wire.headers)
            elif kind == 5:
                name, value = wire.headers[at]
                wire.headers[at] = (rng.choice((name.upper(), name[:1], name + " ", self.value(name)[:200])), value)
            else:
                name, value = wire.headers[at]
                wire.headers[at] = (name, self.value(value))
        if self.chance(0.05):
            wire.length = rng.choice(NUMBERS)
        if self.chance(0.05):
            wire.start = self.value(wire.start)

    def extra(self) -> tuple[str, str]:
        name = self.rng.choice(tuple(EXTRAS))
        value = self.rng.choice(EXTRAS[name])
        return name, self.value(value) if self.chance(0.2) else value

    def mangled(self, data: bytes) -> bytes:
        """Bytes flipped, dropped, doubled; line ends changed; cut; another message's end behind it."""
        rng = self.rng
        found = bytearray(data)
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(found) + 1)
            kind = rng.randrange(6)
            if kind == 0 and at < len(found):
                found[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                del found[at : at + rng.choice((1, 2, 30))]
            elif kind == 2:
                found[at:at] = found[max(0, at - rng.choice((1, 20, 200))) : at]
            elif kind == 3:
                found[at:at] = bytes(rng.choices(range(256), k=rng.choice((1, 4, 40))))
            elif kind == 4 and self.chance(0.3):
                found = bytearray(bytes(found).replace(b"\r\n", rng.choice((b"\n", b"\r", b"\r\n ", b"\n\r"))))
            elif kind == 5 and self.chance(0.3):
                del found[at:]
        return bytes(found)

    # --- bodies ---

    def sdp(self, port: int, *, odd: float = 0.5) -> str:
        """A description of media: as anybody would write it, or spoilt."""
        rng = self.rng
        if not self.chance(odd):
            return (
                f"v=0\r\no=- {rng.randrange(1 << 31)} {rng.randrange(9)} IN IP4 {HOST}\r\ns=-\r\n"
                f"c=IN IP4 {HOST}\r\nt=0 0\r\n"
                f"m=audio {port} RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
            )
        lines = ["v=0", f"o=- 1 {rng.choice(NUMBERS)} IN IP4 {HOST}", "s=-", "t=0 0"]
        if self.chance(0.8):
            lines.insert(3, f"c={rng.choice(ADDRESSES)}")
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 17, 40))):
            lines += self._media(port)
        if self.chance(0.3):
            rng.shuffle(lines)
        if self.chance(0.3):
            at = rng.randrange(len(lines))
            lines[at] = self.value(lines[at])
        return "\r\n".join([*lines, ""])

    def _media(self, port: int) -> list[str]:
        rng = self.rng
        kind = rng.choice(("audio", "audio", "audio", "audio", "video", "text", "image", "application", "message", ""))
        place = rng.choice((str(port), str(port), str(port), "0", "1", "65535", "70000", "-1", f"{port}/2", ""))
        types = rng.choices(
            [str(one) for one in (0, 8, 9, 13, 96, 97, 101, 127, 128, 255, 999)], k=rng.choice((0, 1, 2, 3, 33))
        )
        lines = [f"m={kind} {place} {rng.choice(PROTOCOLS)} {' '.join(types)}"]
        lines += [f"a=rtpmap:{one} {rng.choice(CODECS)}" for one in types if self.chance(0.6)]
        lines += [f"a={rng.choice(ATTRIBUTES)}" for _ in range(rng.choice((0, 1, 2, 4, 30)))]
        if self.chance(0.2):
            lines.insert(1, f"c={rng.choice(ADDRESSES)}")
        if self.chance(0.1):
            lines.insert(1, f"b={rng.choice(('AS:64', 'TIAS:0', 'x', 'AS:' + '9' * 30))}")
        return lines

    def body(self, port: int) -> tuple[str, str]:
        """A content type and a body."""
        rng = self.rng
        kind = rng.randrange(9)
        if kind <= 4:
            return "application/sdp", self.sdp(port)
        if kind == 5:
            part = f"--b\r\nContent-Type: application/sdp\r\n\r\n{self.sdp(port)}\r\n"
            lead = '--b\r\nContent-Type: application/json\r\n\r\n{"phone": "+12125550123"}\r\n'
            return "multipart/mixed;boundary=" + rng.choice(("b", '"b"', "", self.token())), part + lead + rng.choice(
                ("--b--", "")
            )
        if kind == 6:
            signal = rng.choice((*"0123456789ABCD*#", *TEXTS))
            return rng.choice(
                ("application/dtmf-relay", "application/dtmf")
            ), f"Signal={signal}\r\nDuration={rng.choice(NUMBERS)}\r\n"
        if kind == 7:
            return "message/sipfrag;version=2.0", rng.choice(
                ("SIP/2.0 200 OK\r\n", "SIP/2.0 999999 x", "SIP/2.0", "INVITE")
            )
        return self.value("text/plain"), self.value("x" * 40)

    # --- media ---

    def rtp(self) -> bytes:
        """RTP or RTCP: versions, types, lengths, extensions and padding that do not fit."""
        rng = self.rng
        if self.chance(0.3):
            count, kind = rng.randrange(32), rng.choice((200, 201, 202, 203, 204, 205, 206, 207, 192, 255))
            head = struct.pack("!BBHI", 0x80 | count, kind, rng.choice((0, 1, 6, 7, 65535)), rng.getrandbits(32))
            return head + rng.randbytes(rng.choice((0, 1, 20, 24, 400)))
        first = rng.choice((0x80, 0x80, 0x80, 0x90, 0xA0, 0xB0, 0x8F, 0xFF, 0x00, 0x40))
        kind = rng.choice((0, 0, 8, 9, 13, 96, 101, 101, 127, 0x80 | 101, 255))
        head = struct.pack(
            "!BBHII", first, kind, rng.getrandbits(16), rng.getrandbits(32), rng.getrandbits(rng.choice((2, 32)))
        )
        data = head + rng.randbytes(rng.choice((0, 1, 3, 4, 16, 160, 160, 161, 1400, 9000)))
        return data[: rng.choice((1, 3, 11, 12, 13))] if self.chance(0.1) else data
