"""A story's cast: which party listens where, the scenarios made for them, and the story's entries in the book.

Nothing is started here. Endpoints of a story that behave alike are one SIPp: to it, each leg is a call of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from baton.demo.parties import HOST, MEDIA_PORTS, free_port, sipp
from baton.scenarios.party_xml import render
from baton.scenarios.story import EndpointEntry, PartyEntry, Story

PRICE_MINOR = 4_500  # of a unit, where the story does not say
BASE_TERMS = "westlake-fulfillment"
WHISPER = "whisper.wav"  # a tone of a second beside the configuration, for stories that name it
KEY_1 = "key-1.pcap"  # key 1 as RTP events, likewise
_CALLS_EVERY_MS = 5  # between the calls of one SIPp: all at once, as far as it can
# A key of RFC 4568's length (30 bytes, base64) for parties that send no media: any will do.
_CRYPTO = "a=crypto:[$suite] AES_CM_128_HMAC_SHA1_80 inline:QmF0b25EZW1vQmF0b25EZW1vQmF0b25EZW1vQmF0"


@dataclass(frozen=True, slots=True)
class Callee:
    """A SIPp server. Baton dials `public_port`: the party's own, a relay's or a TLS terminator's."""

    name: str
    entry: PartyEntry
    port: int
    public_port: int
    secure: bool = False
    legs: tuple[int, ...] = ()  # none: it is no endpoint

    @property
    def contact(self) -> str:
        """Where it wants later requests; a relay is passed by, as it is by responses."""
        return f"sip:agent@{HOST}:{self.public_port};transport=tls" if self.secure else f"sip:agent@{HOST}:{self.port}"

    @property
    def relayed(self) -> bool:
        return not self.secure and self.public_port != self.port


@dataclass(slots=True)
class Cast:
    """One story, ready to be played in `folder`."""

    story: Story
    folder: Path
    index: int
    calls: int
    callees: list[Callee] = field(default_factory=list)
    endpoints: list[tuple[EndpointEntry, int]] = field(default_factory=list)  # with the port that Baton dials
    caller_relay: int = 0

    @property
    def numbers(self) -> list[str]:
        """The prospects', one for each call: no two calls of a run have the same."""
        return [f"+1213{200 + self.index:03d}{at:04d}" for at in range(self.calls)]

    def write(self) -> None:
        """Make every party's scenario. Raises PartyError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ports: dict[str, str | int] = {f"port_{at}": port for at, (_, port) in enumerate(self.endpoints, start=1)}
        extras = [one for one in self.callees if not one.legs]
        ports |= {f"extra_{at}": one.port for at, one in enumerate(extras, start=1)}
        ports |= {"tone": str(self.folder.parents[1] / WHISPER), "key_1": str(self.folder.parents[1] / KEY_1)}
        for one in self.callees:
            media = {"profile": "RTP/SAVP", "media_line": _CRYPTO} if one.secure else {}
            plain = {"profile": "RTP/AVP", "media_line": "a=sendrecv"}
            self._write(one.name, one.entry, {**ports, **plain, **media, "contact": one.contact})
        caller = self.story.entry.caller
        lead = "\n".join(f"X-Lead-{name.replace('_', '-')}: {value}" for name, value in caller.lead.items())
        self._write("caller", caller, {**ports, "user": self.story.name, "lead": lead})
        (self.folder / "numbers.csv").write_text("SEQUENTIAL\n" + "".join(f"{one}\n" for one in self.numbers))

    def _write(self, name: str, entry: PartyEntry, common: Mapping[str, str | int]) -> None:
        file = self.story.xml_of(entry.party)
        (self.folder / f"{name}.xml").write_text(render(file, entry.keys, common, self.story.folder.parent))

    def callee_command(self, callee: Callee) -> list[str]:
        way = ["-t", "t1" if callee.secure else "u1"]
        return [*self._sipp(callee.name, callee.port, HOST), *way]

    def caller_command(self, sip_port: int, limit_s: int) -> list[str]:
        caller = self.story.entry.caller
        rate = ["-m", str(self.calls), "-l", str(self.calls), "-r", "1", "-rp", str(_CALLS_EVERY_MS)]
        target = f"{HOST}:{self.caller_relay or sip_port}"
        who = ["-inf", "numbers.csv", "-timeout", str(limit_s)]
        return [*self._sipp("caller", free_port(), caller.address), target, *rate, *who, *caller.options]

    def _sipp(self, name: str, port: int, host: str) -> list[str]:
        logs = ["-trace_logs", "-log_file", f"{name}.log", "-trace_stat", "-stf", f"{name}.csv", "-fd", "1"]
        return [*sipp(self.folder / f"{name}.xml", port, free_port(MEDIA_PORTS), host), *logs]

    # --- the book ---

    def book(self) -> list[str]:
        """Terms, buyers, campaign, carriers and lists of this story, as lines of TOML."""
        name, entry = self.story.name, self.story.entry
        terms = {"name": name, "base": BASE_TERMS, "unit_price_minor": PRICE_MINOR, **entry.terms}
        lines = ["[[terms]]", *_table(terms)]
        buyers = list(dict.fromkeys(one.buyer for one, _ in self.endpoints))
        for buyer in buyers:
            lines += ["[[buyers]]", *_table({"name": f"{name}-{buyer}", "terms": name, **entry.buyer})]
            for at, (endpoint, port) in enumerate(self.endpoints, start=1):
                if endpoint.buyer == buyer:
                    lines += ["[[buyers.endpoints]]", *_table(self._endpoint(at, endpoint, port))]
        campaign = {"name": name, "buyers": [f"{name}-{one}" for one in buyers], "strategy": "priority"}
        lines += ["[[campaigns]]", *_table({**campaign, **entry.campaign})]
        for at, (endpoint, port) in enumerate(self.endpoints, start=1):
            if endpoint.did:
                lines += ["[[carriers]]", *_table({"name": f"{name}-{at}", "uri": f"sip:{{number}}@{HOST}:{port}"})]
        if entry.caller.suppressed:
            (self.folder / "list.csv").write_text("phone\n" + "".join(f"{one}\n" for one in self.numbers))
            owner = {"name": f"{name}-list", "buyer": f"{name}-{buyers[0]}"}
            lines += ["[[suppression_lists]]", *_table({**owner, "file": str(self.folder / "list.csv")})]
        return lines

    def _endpoint(self, at: int, entry: EndpointEntry, port: int) -> dict[str, Any]:
        made: dict[str, Any] = {"name": f"e{at}", "kind": "trunk", "uri": f"sip:e{at}@{HOST}:{port}"}
        if entry.unreachable == "dns":
            made["uri"] = f"sip:e{at}@no-such-host.invalid"  # RFC 2606 section 2
        elif entry.unreachable == "tcp":
            made["transport"] = "tcp"
        if entry.secure:
            made |= {"transport": "tls", "srtp": "mandatory"}
        if entry.did:
            number = f"+1213{200 + self.index:03d}9{at:03d}"
            made |= {"kind": "did", "uri": number, "carrier": f"{self.story.name}-{at}"}
        return {**made, **entry.book}


def plan(story: Story, folder: Path, index: int, times: int) -> Cast:
    """Give every party its ports."""
    cast = Cast(story, folder, index, calls=times * story.entry.calls)
    alike: dict[tuple[Any, ...], int] = {}
    for leg, entry in enumerate(story.entry.endpoints, start=1):
        if not entry.party:
            cast.endpoints.append((entry, free_port()))
            continue
        key = (entry.party, tuple(sorted(entry.keys.items())), entry.secure)
        if key in alike:
            at = alike[key]
            known = cast.callees[at]
            cast.callees[at] = Callee(
                name=known.name,
                entry=entry,
                port=known.port,
                public_port=known.public_port,
                secure=entry.secure,
                legs=(*known.legs, leg),
            )
        else:
            alike[key] = len(cast.callees)
            port = free_port()
            public = free_port() if entry.secure or story.entry.race else port
            cast.callees.append(
                Callee(
                    name=f"callee-{leg}", entry=entry, port=port, public_port=public, secure=entry.secure, legs=(leg,)
                )
            )
        cast.endpoints.append((entry, cast.callees[alike[key]].public_port))
    for at, extra in enumerate(story.entry.extras, start=1):
        port = free_port()
        cast.callees.append(Callee(f"extra-{at}", extra, port, port))
    if story.entry.race:
        cast.caller_relay = free_port()
    return cast


def _table(values: Mapping[str, Any]) -> Iterable[str]:
    return [f"{name} = {_toml(value)}" for name, value in values.items()]


def _toml(value: Any) -> str:
    """JSON's strings, numbers, booleans and arrays are TOML's too; tables are not."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_toml(one)}" for name, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    return orjson.dumps(value).decode()
