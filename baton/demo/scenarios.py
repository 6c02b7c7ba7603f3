"""SIPp scenarios for the demo's parties, written from a description of how each behaves.

SIPp cannot interrupt a pause, so waiting is done by a `recv` with a timeout: a callee that rings waits for CANCEL and
acts when none comes. All times are in milliseconds from the INVITE.
"""

from __future__ import annotations

from dataclasses import dataclass

_HEAD = '<?xml version="1.0" encoding="ISO-8859-1" ?>\n<scenario name="{name}">\n'
# CANCEL and the ACK of a refusal carry the branch of their INVITE (RFC 3261 sections 9.1 and 17.1.1.3).
_INVITE_BRANCH = "z9hG4bK-[pid]-[call_number]-invite"
_RING_MS = 100  # every callee rings after this


@dataclass(frozen=True, slots=True)
class Callee:
    """An endpoint's behaviour. One of `answer_ms` and `decline_ms`, or neither: it rings until it is cancelled."""

    answer_ms: int = 0
    decline_ms: int = 0
    decline_code: int = 486
    bye_after_ms: int = 0  # of talk; 0: the other side hangs up
    srtp: bool = False  # answer the offer of SRTP by SDES (RFC 4568)
    contact: str = ""  # where later requests go, for a callee behind a TLS terminator


@dataclass(frozen=True, slots=True)
class Caller:
    """The dialer's behaviour. `bye_after_ms` of talk; `cancel_ms` while it rings; 0: it waits for the other side."""

    number: str
    lead: tuple[tuple[str, str], ...] = ()
    lead_as_json: str = ""
    bye_after_ms: int = 0
    cancel_ms: int = 0


# A key of RFC 4568's length (30 bytes, base64) for callees that do not send media: any will do.
_CRYPTO = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:QmF0b25EZW1vQmF0b25EZW1vQmF0b25EZW1vQmF0"


def _send(text: str, *, retrans: bool = False) -> str:
    lines = "\n".join(line.strip() for line in text.strip().splitlines())
    attribute = ' retrans="500"' if retrans else ""
    return f"<send{attribute}><![CDATA[\n{lines}\n\n]]></send>\n"


def _same(tag: bool = True) -> str:
    to = "[last_To:];tag=[pid]T[call_number]" if tag else "[last_To:]"
    return f"[last_Via:]\n[last_From:]\n{to}\n[last_Call-ID:]\n[last_CSeq:]"


def _noted(status: str) -> str:
    """A response to the INVITE after another request came in between: from what was noted at the start."""
    kept = "Via:[$via]\nFrom:[$from]\nTo:[$to];tag=[pid]T[call_number]\nCall-ID: [call_id]\nCSeq:[$cseq]\n"
    return f"SIP/2.0 {status}\n{kept}"


def callee(what: Callee) -> str:
    """The XML of an endpoint."""
    contact = what.contact or "sip:agent@[local_ip]:[local_port];transport=[transport]"
    wait_ms = max(1, (what.answer_ms or what.decline_ms or 120_000) - _RING_MS)
    save = "".join(
        f'<ereg regexp=".*" search_in="hdr" header="{header}:" assign_to="{name}"/>'
        for header, name in (("Via", "via"), ("From", "from"), ("To", "to"), ("CSeq", "cseq"))
    )
    save += '<ereg regexp="sip:[^&gt;;]*" search_in="hdr" header="Contact:" assign_to="target"/>'
    xml = _HEAD.format(name="callee")
    xml += f'<recv request="INVITE" crlf="true"><action>{save}</action></recv>\n'
    xml += f'<pause milliseconds="{_RING_MS}"/>\n'
    ringing = f"SIP/2.0 180 Ringing\n{_same()}\nContact: <{contact}>\nContent-Length: 0"
    xml += _send(ringing)
    xml += f'<recv request="CANCEL" timeout="{wait_ms}" ontimeout="act"/>\n'
    xml += _send(f"SIP/2.0 200 OK\n{_same()}\nContent-Length: 0")
    xml += _send(_noted("487 Request Terminated") + "Content-Length: 0", retrans=True)
    xml += '<recv request="ACK" next="done"/>\n<label id="act"/>\n'
    xml += _answer(what, contact) if what.answer_ms else _decline(what)
    return xml + '<label id="done"/>\n' + _use("via", "from", "to", "cseq", "target") + "</scenario>\n"


def _use(*names: str) -> str:
    """SIPp refuses variables that are set and never read."""
    return f'<Reference variables="{",".join(names)}"/>\n'


def _decline(what: Callee) -> str:
    return (
        _send(_noted(f"{what.decline_code} Declined") + "Content-Length: 0", retrans=True) + '<recv request="ACK"/>\n'
    )


def _answer(what: Callee, contact: str) -> str:
    profile = "RTP/SAVP" if what.srtp else "RTP/AVP"
    crypto = f"\n{_CRYPTO}" if what.srtp else ""
    sdp = (
        "v=0\no=callee 1 1 IN IP4 [local_ip]\ns=-\nc=IN IP4 [media_ip]\nt=0 0\n"
        f"m=audio [media_port] {profile} 0\na=rtpmap:0 PCMU/8000{crypto}"
    )
    head = _noted("200 OK") + f"Contact: <{contact}>\nContent-Type: application/sdp\nContent-Length: [len]"
    xml = f'<send retrans="500"><![CDATA[\n{head}\n\n{sdp}\n]]></send>\n<recv request="ACK"/>\n'
    if what.bye_after_ms:
        xml += f'<recv request="BYE" timeout="{what.bye_after_ms}" ontimeout="leave"/>\n'
    else:
        xml += '<recv request="BYE"/>\n'
    xml += _send(f"SIP/2.0 200 OK\n{_same(tag=False)}\nContent-Length: 0")
    if what.bye_after_ms:
        bye = (
            "BYE [$target] SIP/2.0\nVia: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]\n"
            "From:[$to];tag=[pid]T[call_number]\nTo:[$from]\nCall-ID: [call_id]\nCSeq: 1 BYE\nMax-Forwards: 70\n"
            "Content-Length: 0"
        )
        xml += '<nop next="done"/>\n<label id="leave"/>\n' + _send(bye, retrans=True) + '<recv response="200"/>\n'
    return xml


_REFUSALS = (400, 403, 404, 408, 480, 486, 500, 503, 600, 603)


def caller(what: Caller, campaign: str) -> str:
    """The XML of the dialer for one story."""
    invite = (
        f"INVITE sip:{campaign}@[remote_ip]:[remote_port] SIP/2.0\n"
        f"Via: SIP/2.0/[transport] [local_ip]:[local_port];branch={_INVITE_BRANCH}\n"
        f'From: "Prospect" <sip:{what.number}@[local_ip]>;tag=[pid]F[call_number]\n'
        f"To: <sip:{campaign}@[remote_ip]:[remote_port]>\nCall-ID: [call_id]\nCSeq: 1 INVITE\n"
        "Contact: <sip:dialer@[local_ip]:[local_port]>\nMax-Forwards: 70\n"
    )
    invite += "".join(f"X-Lead-{name}: {value}\n" for name, value in what.lead)
    sdp = (
        "v=0\no=dialer 1 1 IN IP4 [local_ip]\ns=-\nc=IN IP4 [media_ip]\nt=0 0\n"
        "m=audio [media_port] RTP/AVP 0\na=rtpmap:0 PCMU/8000"
    )
    if what.lead_as_json:
        invite += "Content-Type: multipart/mixed;boundary=baton\nContent-Length: [len]\n"
        body = (
            f"--baton\nContent-Type: application/sdp\n\n{sdp}\n--baton\nContent-Type: application/json\n\n"
            f"{what.lead_as_json}\n--baton--"
        )
    else:
        invite += "Content-Type: application/sdp\nContent-Length: [len]\n"
        body = sdp
    xml = _HEAD.format(name="dialer") + f'<send retrans="500"><![CDATA[\n{invite}\n{body}\n]]></send>\n'
    wait = f' timeout="{what.cancel_ms}" ontimeout="cancel"' if what.cancel_ms else ""
    for code in (100, 180, 183):  # the limit of the line that SIPp stands at is the one that counts
        xml += f'<recv response="{code}" optional="true"{wait}/>\n'
    for code in _REFUSALS:
        xml += f'<recv response="{code}" optional="true" next="refused"/>\n'
    xml += f'<recv response="200" rrs="true"{wait}/>\n'
    xml += _send(_in_dialog("ACK", campaign))
    if what.bye_after_ms:
        xml += f'<recv request="BYE" timeout="{what.bye_after_ms}" ontimeout="leave"/>\n'
    else:
        xml += '<recv request="BYE"/>\n'
    xml += _send(f"SIP/2.0 200 OK\n{_same(tag=False)}\nContent-Length: 0") + '<nop next="done"/>\n'
    xml += '<label id="leave"/>\n' + _send(_in_dialog("BYE", campaign), retrans=True)
    xml += '<recv response="200" next="done"/>\n<label id="refused"/>\n' + _send(_refused_ack(campaign, what))
    xml += '<nop next="done"/>\n<label id="cancel"/>\n' + _send(_cancel(campaign, what), retrans=True)
    xml += '<recv response="200"/>\n<recv response="487"/>\n' + _send(_refused_ack(campaign, what))
    return xml + '<label id="done"/>\n</scenario>\n'


def _in_dialog(method: str, campaign: str) -> str:
    number = {"ACK": 1, "BYE": 2}[method]
    return (
        f"{method} sip:{campaign}@[remote_ip]:[remote_port] SIP/2.0\n"
        "Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]\n"
        f"[last_From:]\n[last_To:]\nCall-ID: [call_id]\nCSeq: {number} {method}\nMax-Forwards: 70\nContent-Length: 0"
    )


def _refused_ack(campaign: str, what: Caller) -> str:
    return (
        f"ACK sip:{campaign}@[remote_ip]:[remote_port] SIP/2.0\n"
        f"Via: SIP/2.0/[transport] [local_ip]:[local_port];branch={_INVITE_BRANCH}\n"
        f'From: "Prospect" <sip:{what.number}@[local_ip]>;tag=[pid]F[call_number]\n'
        "[last_To:]\nCall-ID: [call_id]\nCSeq: 1 ACK\nMax-Forwards: 70\nContent-Length: 0"
    )


def _cancel(campaign: str, what: Caller) -> str:
    return (
        f"CANCEL sip:{campaign}@[remote_ip]:[remote_port] SIP/2.0\n"
        f"Via: SIP/2.0/[transport] [local_ip]:[local_port];branch={_INVITE_BRANCH}\n"
        f'From: "Prospect" <sip:{what.number}@[local_ip]>;tag=[pid]F[call_number]\n'
        f"To: <sip:{campaign}@[remote_ip]:[remote_port]>\nCall-ID: [call_id]\nCSeq: 1 CANCEL\nMax-Forwards: 70\n"
        "Content-Length: 0"
    )
