"""What the engine knows of its legs, without pjsua2: messages in, events out.

The tap shows every message; PJSIP decides which of them count. So a provisional answer and a 2xx become events at once
(they are facts about the far end whatever PJSIP makes of them), but a BYE, a CANCEL or a final refusal is only
remembered with its time, and becomes an event when PJSIP says that the leg is over. A leg that we hung up is kept for
LATE_US, because a 2xx may cross our CANCEL.

A leg is found by our own tag of its dialog: it is ours, random and in every message of the dialog. A Call-ID is the
sender's: two calls of dialers may have the same one, and a call that was looped back to us has that of our own leg.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from facts.fact import RINGING_CODES, TRYING
from router.sip.port import EventKind, LegEvent, LegNotSent, LegSignal, SignalKind

LATE_US = 40_000_000  # timer B is 32 s (RFC 3261 section 17.1.1.2); 40 leaves room
MAX_ARRIVALS = 10_000  # arrival times of INVITEs that PJSIP has not shown us (yet); then the oldest go

OK, REDIRECT = 200, 300  # first codes of the classes, RFC 3261 section 21


class Record(NamedTuple):
    """One message as the tap saw it. `status` 0: a request. Times in microseconds."""

    at_us: int
    lag_us: int
    received: bool
    method: str
    status: int
    call_id: str
    tag: str  # ours of the dialog; of an INVITE that begins one the sender's
    to_tag: str
    phrase: str
    reason: str


def parse_records(drained: str, doubt_from_us: int) -> Iterator[Record]:
    """The tap's text; `doubt_from_us` is since when a message may have waited."""
    for text in drained.split("\x1e")[:-1]:
        ns, direction, method, status, call_id, tag, to_tag, phrase, reason = text.split("\x1f")
        at_us = int(ns) // 1000
        lag_us = max(0, at_us - doubt_from_us) if direction == "R" else 0
        received = direction == "R"
        yield Record(
            at_us,
            lag_us,
            received,
            method,
            int(status),
            call_id=call_id,
            tag=tag,
            to_tag=to_tag,
            phrase=phrase,
            reason=reason,
        )


@dataclass(slots=True)
class Leg:
    """One leg: ids and times, no pj object."""

    handle: str
    incoming: bool
    slot: int = -1  # pjsua's call id
    call_id: str = ""  # of a leg that we dial: what we put into its INVITE
    tag: str = ""  # ours of its dialog, as the tap shows it; empty until our INVITE has left
    peer: str = ""
    bridged: bool = False
    answered: bool = False
    agreed: bool = False  # PJSIP has said that audio was agreed on
    progressed: bool = False  # a provisional answer came that is neither 100 nor ringing
    seen: set[EventKind] = field(default_factory=set)
    final: Record | None = None  # the last final refusal of our INVITE
    left: Record | None = None  # CANCEL or BYE from the far end
    ended_us: int = 0  # when we hung it up
    to_tag: str = ""  # of the 2xx: the dialog it made
    prompt: tuple[str, bool] | None = None  # what it hears from us: file, again and again
    player: int = -1
    recording: int = -1
    held: bool = False


class LegBook:
    """Legs by handle, the queue of events, and the arrival times of INVITEs."""

    def __init__(self) -> None:
        self.live: dict[str, Leg] = {}
        self.events: deque[LegEvent] = deque()
        self._late: dict[str, Leg] = {}
        self._dialled: dict[str, Leg] = {}  # by Call-ID: legs whose tag is to be learned from their INVITE
        self._by_tag: dict[str, Leg] = {}
        self._arrivals: dict[tuple[str, str], tuple[int, int]] = {}  # by Call-ID and From tag

    def add(self, handle: str, *, call_id: str = "", tag: str = "", incoming: bool = False, slot: int = -1) -> Leg:
        """A new leg: with the Call-ID that we dial it by, or with our tag of a dialog that is there already."""
        leg = Leg(handle, incoming=incoming, slot=slot, call_id=call_id, tag=tag)
        self.live[handle] = leg
        if call_id:
            self._dialled[call_id] = leg
        if tag:
            self._by_tag[tag] = leg
        return leg

    def alias(self, tag: str, leg: Leg) -> None:
        """Messages of the dialog with this tag of ours are the leg's from now on; those of the one before no longer."""
        self._forget(leg)
        leg.tag = tag
        self._by_tag[tag] = leg

    def _forget(self, leg: Leg) -> None:
        """No message is the leg's any more."""
        if self._by_tag.get(leg.tag) is leg:
            del self._by_tag[leg.tag]
        if self._dialled.get(leg.call_id) is leg:
            del self._dialled[leg.call_id]

    def drop(self, handle: str) -> bool:
        """A leg that could not be dialled: nothing comes of it. False where there is none."""
        leg = self.live.pop(handle, None)
        if leg is not None:
            self._forget(leg)
        return leg is not None

    def known(self, handle: str) -> Leg | None:
        """A leg, live or only just over."""
        return self.live.get(handle) or self._late.get(handle)

    def in_slot(self, slot: int) -> Leg | None:
        """The live leg that has this pjsua call."""
        return next((leg for leg in self.live.values() if leg.slot == slot), None)

    def arrival(self, call_id: str, tag: str) -> tuple[int, int] | None:
        """When the INVITE with this Call-ID and From tag passed the transport layer, and the doubt; forgets it."""
        return self._arrivals.pop((call_id, tag), None)

    def note(self, record: Record) -> None:
        """One message."""
        if record.received and record.method == "INVITE" and not record.status and not record.to_tag:
            self._arrivals.setdefault((record.call_id, record.tag), (record.at_us, record.lag_us))
            if len(self._arrivals) > MAX_ARRIVALS:
                self._arrivals.pop(next(iter(self._arrivals)))
            return
        leg = self._by_tag.get(record.tag) or self._learn(record)
        if leg is None:
            return
        if record.method == "INVITE" and not leg.incoming:
            self._note_invite(leg, record)
        elif record.received and record.method == "CANCEL":
            if leg.incoming and not leg.answered and leg.left is None:
                leg.left = record
        elif record.received and record.method == "BYE" and (leg.left is None or leg.left.method == "CANCEL"):
            leg.left = record
            if leg.handle not in self.live:  # it crosses our own: whoever has had ours sends none
                self._tell(leg, EventKind.BYE, record, local=False)

    def _learn(self, record: Record) -> Leg | None:
        """The leg whose INVITE leaves: now its tag is known."""
        if record.received or record.method != "INVITE":
            return None
        leg = self._dialled.pop(record.call_id, None)
        if leg is not None:
            leg.tag = record.tag
            self._by_tag[record.tag] = leg
        return leg

    def _note_invite(self, leg: Leg, record: Record) -> None:
        if not record.received:
            leg.final = None  # sent again, with credentials: the challenge was no refusal
            self._once(leg, EventKind.SENT, record)
        elif TRYING <= record.status < OK:
            self._note_provisional(leg, record)
        elif OK <= record.status < REDIRECT:
            leg.answered = True
            if leg.to_tag and record.to_tag != leg.to_tag:
                self._once(leg, EventKind.FORKED, record)
            leg.to_tag = leg.to_tag or record.to_tag
            self._once(leg, EventKind.ANSWERED, record)
        elif record.status >= REDIRECT:
            leg.final = record

    def _note_provisional(self, leg: Leg, record: Record) -> None:
        """Domain 2: 180 to 183 are ringing. The first 100 and the first other say that somebody is there."""
        if record.status in RINGING_CODES:
            self._once(leg, EventKind.RINGING, record)
        elif record.status == TRYING:
            self._once(leg, EventKind.TRYING, record)
        elif not leg.progressed:
            leg.progressed = True
            self._tell(leg, EventKind.TRYING, record, local=False)

    def _once(self, leg: Leg, kind: SignalKind, record: Record) -> None:
        """Retransmissions say nothing new."""
        if kind in leg.seen:
            return
        leg.seen.add(kind)
        self.events.append(
            LegSignal(
                leg.handle,
                kind,
                record.at_us,
                record.lag_us,
                code=record.status,
                phrase=record.phrase,
                header=record.reason,
            )
        )

    def ended(self, handle: str, at_us: int, lag_us: int, code: int) -> None:
        """PJSIP says the leg is over. The remembered message says how; without one it ended locally."""
        leg = self.live.pop(handle, None)
        if leg is None:
            return
        self._bury(leg, at_us)
        if leg.final is not None and not leg.answered:  # what refused our INVITE; nothing else can have ended it
            self._tell(leg, EventKind.FAILED, leg.final, local=False)
        elif leg.left is not None:
            how: SignalKind = EventKind.BYE if leg.left.method == "BYE" else EventKind.CANCELLED
            self._tell(leg, how, leg.left, local=False)
        elif not leg.incoming and EventKind.SENT not in leg.seen:
            why = f"no way to the host ({code})"  # its name is unknown, or nothing there takes a connection
            self.events.append(LegNotSent(handle, at_us, lag_us, why))
        else:
            kind: SignalKind = EventKind.GONE if leg.answered else EventKind.FAILED
            self.events.append(LegSignal(handle, kind, at_us, lag_us, code, local=True))

    def _tell(self, leg: Leg, kind: SignalKind, record: Record, *, local: bool) -> None:
        self.events.append(
            LegSignal(
                leg.handle,
                kind,
                record.at_us,
                record.lag_us,
                code=record.status,
                phrase=record.phrase,
                header=record.reason,
                local=local,
            )
        )

    def hung_up(self, handle: str, at_us: int) -> Leg | None:
        """We end it: no event follows but a late ANSWERED, and a BYE that crosses ours."""
        leg = self.live.pop(handle, None)
        if leg is not None:
            self._bury(leg, at_us)
        return leg

    def _bury(self, leg: Leg, at_us: int) -> None:
        leg.ended_us = at_us
        self._late[leg.handle] = leg

    def purge(self, now_us: int) -> None:
        """Forget legs whose time for a late answer is over. Insertion order is time order."""
        while self._late:
            handle, leg = next(iter(self._late.items()))
            if now_us - leg.ended_us < LATE_US:
                break
            del self._late[handle]
            self._forget(leg)
        while self._arrivals:
            names, (at_us, _) = next(iter(self._arrivals.items()))
            if now_us - at_us < LATE_US:
                break
            del self._arrivals[names]

    @property
    def remembered(self) -> int:
        """Legs kept for late answers."""
        return len(self._late)
