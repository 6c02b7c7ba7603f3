"""SIPp's parties for load, as XML. They keep books: `<log>` lines of the form `WHAT CALL-ID TIMESTAMP`.

A dialer notes `answered`, then `left` (it hung up) or `dropped` (the other side did), or `refused-CODE`. A callee notes
`invited`. Waiting is done by a `recv` with a timeout, since SIPp cannot be interrupted in a pause.
"""

from __future__ import annotations

from dataclasses import dataclass

_INVITE_BRANCH = "z9hG4bK-[pid]-[call_number]-invite"  # its refusal's ACK bears it too: RFC 3261 section 17.1.1.3
_REFUSALS = (400, 403, 404, 408, 480, 486, 487, 500, 503, 600, 603)
_RINGS_MS = 600_000  # a callee that nobody cancels gives up after ten minutes
_TAG = "tag=[pid]T[call_number]"


@dataclass(frozen=True, slots=True)
class Callee:
    """Rings at once; then answers, or refuses with 486, or rings until it is cancelled. Times in ms."""

    answer_ms: int = 0
    decline_ms: int = 0
    bye_after_ms: int = 0  # of talk; 0: the other side hangs up


def _log(what: str) -> str:
    return f'<log message="{what} [call_id] [timestamp]"/>'


def _noted(what: str) -> str:
    return f"<nop><action>{_log(what)}</action></nop>\n"


def _send(text: str, *, retrans: bool = False, start: str = "") -> str:
    lines = "\n".join(line.strip() for line in text.strip().splitlines())
    attribute = ' retrans="500"' if retrans else ""
    return f"<send{attribute}{start}><![CDATA[\n{lines}\n\n]]></send>\n"


def _scenario(name: str, body: str) -> str:
    return f'<?xml version="1.0" encoding="ISO-8859-1" ?>\n<scenario name="{name}">\n{body}</scenario>\n'


def _sdp(owner: str) -> str:
    return (
        f"v=0\no={owner} 1 1 IN IP4 [local_ip]\ns=-\nc=IN IP4 [media_ip]\nt=0 0\n"
        "m=audio [media_port] RTP/AVP 0\na=rtpmap:0 PCMU/8000"
    )


def _with_sdp(head: str, owner: str) -> str:
    return _send(f"{head}\nContent-Type: application/sdp\nContent-Length: [len]\n\n{_sdp(owner)}", retrans=True)


_SAME = "[last_Via:]\n[last_From:]\n[last_To:]\n[last_Call-ID:]\n[last_CSeq:]"
_OK = f"SIP/2.0 200 OK\n{_SAME}\nContent-Length: 0"


# --- the dialer ------------------------------------------------------------------------------------------------------


def dialer(talk_ms: int = 0) -> str:
    """Calls [service] from the number in [field0]; hangs up after `talk_ms`, or waits for the other side."""
    head = (
        "INVITE sip:[service]@[remote_ip]:[remote_port] SIP/2.0\n"
        f"{_from_us(1, 'INVITE')}\nTo: <sip:[service]@[remote_ip]:[remote_port]>\n"
        "Contact: <sip:dialer@[local_ip]:[local_port]>"
    )
    body = _with_sdp(head, "dialer")
    body += "".join(f'<recv response="{code}" optional="true"/>\n' for code in (100, 180, 183))
    for code in _REFUSALS:
        body += f'<recv response="{code}" optional="true" next="refused">'
        body += f"<action>{_log(f'refused-{code}')}</action></recv>\n"
    body += f'<recv response="200" rtd="true" rrs="true"><action>{_log("answered")}</action></recv>\n'
    body += _send(_in_dialog(1, "ACK"))
    wait = f' timeout="{talk_ms}" ontimeout="leave"' if talk_ms else ""
    body += f'<recv request="BYE"{wait}><action>{_log("dropped")}</action></recv>\n' + _send(_OK)
    body += '<nop next="done"/>\n<label id="leave"/>\n' + _noted("left") + _send(_in_dialog(2, "BYE"), retrans=True)
    body += '<recv response="200" next="done"/>\n<label id="refused"/>\n' + _send(_refused_ack())
    return _scenario("dialer", body + '<label id="done"/>\n')


def _from_us(number: int, method: str, branch: str = _INVITE_BRANCH) -> str:
    return (
        f"Via: SIP/2.0/[transport] [local_ip]:[local_port];branch={branch}\n"
        "From: <sip:[field0]@[local_ip]>;tag=[pid]F[call_number]\n"
        f"Call-ID: [call_id]\nCSeq: {number} {method}\nMax-Forwards: 70"
    )


def _in_dialog(number: int, method: str) -> str:
    uri = "sip:[service]@[remote_ip]:[remote_port]"
    return f"{method} {uri} SIP/2.0\n{_from_us(number, method, '[branch]')}\n[last_To:]\nContent-Length: 0"


def _refused_ack() -> str:
    uri = "sip:[service]@[remote_ip]:[remote_port]"
    return f"ACK {uri} SIP/2.0\n{_from_us(1, 'ACK')}\n[last_To:]\nContent-Length: 0"


# --- endpoints -------------------------------------------------------------------------------------------------------


def callee(what: Callee) -> str:
    """The XML of an endpoint, for any number of calls at once."""
    save = "".join(
        f'<ereg regexp=".*" search_in="hdr" header="{header}:" assign_to="{name}"/>'
        for header, name in (("Via", "via"), ("From", "from"), ("To", "to"), ("CSeq", "cseq"))
    )
    save += '<ereg regexp="sip:[^&gt;;]*" search_in="hdr" header="Contact:" assign_to="target"/>'
    wait_ms = what.answer_ms or what.decline_ms or _RINGS_MS
    body = f'<recv request="INVITE" crlf="true"><action>{save}{_log("invited")}</action></recv>\n'
    body += _send(f"{_noted_response('180 Ringing')}\n{_contact()}\nContent-Length: 0")
    body += f'<recv request="CANCEL" timeout="{wait_ms}" ontimeout="act"/>\n'
    body += _send(
        f"SIP/2.0 200 OK\n[last_Via:]\n[last_From:]\n[last_To:];{_TAG}\n[last_Call-ID:]\n[last_CSeq:]\n"
        "Content-Length: 0"
    )
    body += _send(f"{_noted_response('487 Request Terminated')}\nContent-Length: 0", retrans=True)
    body += '<recv request="ACK" next="done"/>\n<label id="act"/>\n'
    body += _answer(what.bye_after_ms) if what.answer_ms else _decline()
    body += '<label id="done"/>\n<Reference variables="via,from,to,cseq,target"/>\n'
    return _scenario("callee", body)


def _noted_response(status: str) -> str:
    """A response to the INVITE, from what was noted when it came: another request may have come in between."""
    return f"SIP/2.0 {status}\nVia:[$via]\nFrom:[$from]\nTo:[$to];{_TAG}\nCall-ID: [call_id]\nCSeq:[$cseq]"


def _contact() -> str:
    return "Contact: <sip:agent@[local_ip]:[local_port];transport=[transport]>"


def _decline() -> str:
    return _send(f"{_noted_response('486 Busy Here')}\nContent-Length: 0", retrans=True) + '<recv request="ACK"/>\n'


def _answer(bye_after_ms: int) -> str:
    body = _with_sdp(f"{_noted_response('200 OK')}\n{_contact()}", "callee") + '<recv request="ACK"/>\n'
    wait = f' timeout="{bye_after_ms}" ontimeout="leave"' if bye_after_ms else ""
    body += f'<recv request="BYE"{wait}/>\n' + _send(_OK)
    if bye_after_ms:
        bye = (
            "BYE [$target] SIP/2.0\nVia: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]\n"
            f"From:[$to];{_TAG}\nTo:[$from]\nCall-ID: [call_id]\nCSeq: 1 BYE\nMax-Forwards: 70\nContent-Length: 0"
        )
        body += '<nop next="done"/>\n<label id="leave"/>\n' + _send(bye, retrans=True) + '<recv response="200"/>\n'
    return body
