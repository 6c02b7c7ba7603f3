"""The SIP engine on a virtual clock: parties follow scripts, time jumps from event to event.

It speaks the same protocol as the real one, so that the whole router (shells, timers, facts) runs in tests and
simulations a thousand times faster than life. A party's script is a list of `Act`s with times from the INVITE. What
the router commands is noted in `commands`, so that a test can ask what was left ringing.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, get_args

from facts.fact import RINGING_CODES
from router.sip.port import (
    AudioKind,
    EngineListener,
    EventKind,
    Invite,
    LegAudio,
    LegBridged,
    LegDigit,
    LegEvent,
    LegFault,
    LegMoved,
    LegNotSent,
    LegSignal,
    Probed,
    Slots,
    Target,
)

EPOCH_UTC_US = 1_780_000_000_000_000  # an arbitrary Tuesday in 2026 for virtual wall time


class VirtualTimer:
    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        self.action = None


class VirtualClock:
    """`router.sip.port.Clock` whose time moves only when it is told. Microseconds."""

    def __init__(self, start_us: int = 1_000_000_000) -> None:
        self._now_us = start_us
        self._heap: list[tuple[int, int, VirtualTimer]] = []
        self._order = itertools.count()
        self.doubt_us = 0

    def now_us(self) -> int:
        return self._now_us

    def utc_us(self) -> int:
        return EPOCH_UTC_US + self._now_us

    def lag_us(self) -> int:
        return self.doubt_us

    def call_at(self, when_us: int, action: Callable[[], None]) -> VirtualTimer:
        timer = VirtualTimer(action)
        heapq.heappush(self._heap, (max(when_us, self._now_us), next(self._order), timer))
        return timer

    def run(self, until_us: int) -> None:
        """Let everything happen that is due by `until_us`, in order."""
        while self._heap and self._heap[0][0] <= until_us:
            when_us, _, timer = heapq.heappop(self._heap)
            self._now_us = when_us
            if timer.action is not None:
                timer.action()
        self._now_us = max(self._now_us, until_us)

    def run_for(self, duration_us: int) -> None:
        self.run(self._now_us + duration_us)


class Does(StrEnum):
    """What a scripted party can do."""

    TRYING = "trying"
    RING = "ring"
    ANSWER = "answer"
    DECLINE = "decline"
    BYE = "bye"
    CANCEL = "cancel"  # the dialer
    VANISH = "vanish"
    PRESS = "press"  # a key: `key`
    HOLD = "hold"
    RETRIEVE = "retrieve"
    SPEAK = "speak"  # first RTP
    FALL_SILENT = "fall_silent"
    SPEAK_AGAIN = "speak_again"


@dataclass(frozen=True, slots=True)
class Act:
    """At `at_ms` from the INVITE the party does this; `code` for DECLINE and RING, which is any provisional answer."""

    at_ms: float
    does: Does
    code: int = 0
    key: str = ""


_AUDIO = {
    Does.PRESS: EventKind.DIGIT,
    Does.HOLD: EventKind.HELD,
    Does.RETRIEVE: EventKind.RETRIEVED,
    Does.SPEAK: EventKind.RTP_STARTED,
    Does.FALL_SILENT: EventKind.UNHEARD,
    Does.SPEAK_AGAIN: EventKind.HEARD,
}


@dataclass(frozen=True, slots=True)
class Script:
    """A party. `late_ms` >= 0: when cancelled it answers all the same, that much later (a 2xx crossing the CANCEL).

    `crossing_ms` >= 0: when we send it BYE, its own is on the way and comes that much later.
    """

    acts: tuple[Act, ...] = ()
    late_ms: float = -1
    crossing_ms: float = -1
    refuses_to_send: bool = False  # our own transport cannot reach it


@dataclass(slots=True)
class _Party:
    handle: str
    script: Script
    incoming: bool = False
    invited: bool = False
    answered: bool = False
    over: bool = False
    timers: list[VirtualTimer] = field(default_factory=list)


class MemoryEngine:
    """`router.sip.port.SipEngine` with scripted parties, chosen by the target's URI."""

    def __init__(self, clock: VirtualClock, ceiling: int = 10_000) -> None:
        self.clock = clock
        self.listener: EngineListener | None = None
        self.scripts: dict[str, Script] = {}  # by URI
        self.commands: list[tuple[str, str, int]] = []  # command, handle, code
        self.probes: dict[str, int] = {}  # by URI: how a trunk answers OPTIONS
        self.networks: Sequence[str] | None = None
        self.trunk_addresses: Collection[str] = ()
        self.unregistered: set[str] = set()  # registrars that have not taken us
        self._parties: dict[str, _Party] = {}
        self._ceiling = ceiling
        self._serial = 0

    # --- the dialer's side ---

    def invite(self, user: str, script: Script, *, caller: str = "+12125550123", **more: object) -> str:
        """An INVITE comes in; returns the leg's handle. `more` overrides fields of the Invite."""
        self._serial += 1
        handle = f"in{self._serial}"
        party = _Party(handle, script, incoming=True, invited=True)
        self._parties[handle] = party
        fields: dict[str, object] = {
            "handle": handle,
            "at_us": self.clock.now_us(),
            "lag_us": 0,
            "source": "127.0.0.1",
            "source_port": 5060,
            "sip_call_id": f"{handle}@dialer",
            "user": user,
            "caller": caller,
            **more,
        }
        self._schedule(party)
        assert self.listener is not None
        self.listener.on_invite(Invite(**fields))  # type: ignore[arg-type]
        return handle

    # --- SipEngine ---

    def dial(self, handle: str, target: Target) -> None:
        self.commands.append(("dial", handle, 0))
        party = _Party(handle, self.scripts.get(target.uri, Script()))
        if party.script.refuses_to_send:
            self._later(party, 0, EventKind.NOT_SENT, why="no route")
            return
        party.invited = True
        self._parties[handle] = party
        self._later(party, 0, EventKind.SENT)
        self._schedule(party)

    def ring(self, handle: str) -> None:
        self.commands.append(("ring", handle, 180))

    def answer(self, handle: str, headers: Sequence[tuple[str, str]] = (), codec_of: str = "") -> None:
        self.commands.append(("answer", handle, len(headers) and 200))
        party = self._parties.get(handle)
        if party is not None:
            party.answered = True

    def reject(self, handle: str, code: int, headers: Sequence[tuple[str, str]] = ()) -> None:
        self.commands.append(("reject", handle, code or len(headers)))
        self._end(handle)

    def hang_up(self, handle: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        party = self._parties.get(handle)
        if party is None or party.over:
            return
        self.commands.append(("hang_up", handle, len(headers)))
        late = not party.answered and party.script.late_ms >= 0
        self._end(handle)
        if party.answered and party.script.crossing_ms >= 0:
            self._later(party, party.script.crossing_ms, EventKind.BYE)
        if late:
            self._later(party, party.script.late_ms, EventKind.ANSWERED, code=200, phrase="OK")

    def bridge(self, caller: str, endpoint: str) -> None:
        self.commands.append(("bridge", endpoint, 0))
        party = self._parties.get(endpoint)
        if party is not None and caller in self._parties:
            self._later(party, 0, EventKind.BRIDGED)

    def play(self, handle: str, file: str, *, loop: bool = False) -> None:
        self.commands.append((f"play {file}", handle, int(loop)))

    def stop_playing(self, handle: str) -> None:
        self.commands.append(("stop_playing", handle, 0))

    def record(self, caller: str, endpoint: str, file: str) -> bool:
        self.commands.append((f"record {file}", f"{caller} {endpoint}", 0))
        return True

    def stop_recording(self, caller: str) -> int:
        self.commands.append(("stop_recording", caller, 0))
        return 0

    def probe(self, key: str, target: Target) -> None:
        """Answered at once as `probes` says; a URI that is not there does not answer."""
        self.commands.append(("probe", key, 0))
        code = self.probes.get(target.uri, 0)
        self.clock.call_at(self.clock.now_us(), lambda: self._probed(Probed(key, code, 1000)))

    def _probed(self, result: Probed) -> None:
        assert self.listener is not None
        self.listener.on_probed(result)

    def reply(self, handle: int, code: int, headers: Sequence[tuple[str, str]] = ()) -> None:
        self.commands.append(("reply", str(handle), code or len(headers)))

    def behind_nat(self, networks: Sequence[str]) -> None:
        """Nothing: there is no RTP."""

    def admit_sources(self, dialers: Sequence[Sequence[str]], *, drop: bool) -> None:
        self.networks = [one for networks in dialers for one in networks] if drop else None

    def admit_trunks(self, addresses: Collection[str]) -> None:
        self.trunk_addresses = addresses

    def lock_out(self, source: str, seconds: int) -> None:
        self.commands.append(("lock_out", source, seconds))

    def registered(self, target: Target) -> bool:
        return target.policy.registrar not in self.unregistered

    def keep_registered(self, targets: Sequence[Target]) -> None:
        self.commands.append(("keep_registered", "", len(targets)))

    def codec(self, handle: str) -> str:
        return "pcmu" if handle in self._parties else ""

    @property
    def slots(self) -> Slots:
        return Slots(len(self.live), 0, self._ceiling)

    @property
    def live(self) -> list[str]:
        """Handles of legs that are up: nothing may be here once a transfer is closed."""
        return [handle for handle, party in self._parties.items() if not party.over]

    # --- parties ---

    def _schedule(self, party: _Party) -> None:
        for act in party.script.acts:
            at_us = self.clock.now_us() + round(act.at_ms * 1000)
            party.timers.append(self.clock.call_at(at_us, lambda act=act: self._act(party, act)))  # type: ignore[misc]

    def _act(self, party: _Party, act: Act) -> None:
        if party.over:
            return
        if act.does in _AUDIO:
            self._tell(party, _AUDIO[act.does], **({"digit": act.key} if act.does is Does.PRESS else {}))
            return
        match act.does:
            case Does.TRYING:
                self._tell(party, EventKind.TRYING, code=100)
            case Does.RING:
                code = act.code or RINGING_CODES.start
                kind = EventKind.RINGING if code in RINGING_CODES else EventKind.TRYING
                self._tell(party, kind, code=code, phrase="Ringing" if kind is EventKind.RINGING else "Progress")
            case Does.ANSWER:
                party.answered = True
                self._tell(party, EventKind.ANSWERED, code=200, phrase="OK")
            case Does.DECLINE:
                self._end(party.handle)
                self._tell(party, EventKind.FAILED, code=act.code or 486, phrase="Busy Here")
            case Does.BYE | Does.CANCEL:
                if (act.does is Does.BYE) == party.answered or party.incoming:
                    self._end(party.handle)
                    self._tell(party, EventKind.BYE if party.answered else EventKind.CANCELLED)
            case Does.VANISH:
                self._end(party.handle)
                self._tell(party, EventKind.GONE if party.answered else EventKind.FAILED, local=True, code=408)

    def _end(self, handle: str) -> None:
        party = self._parties.get(handle)
        if party is not None:
            party.over = True
            for timer in party.timers:
                timer.cancel()

    def _later(self, party: _Party, after_ms: float, kind: EventKind, **what: object) -> None:
        at_us = self.clock.now_us() + round(after_ms * 1000)
        self.clock.call_at(at_us, lambda: self._tell(party, kind, **what))

    def _tell(self, party: _Party, kind: EventKind, **what: object) -> None:
        assert self.listener is not None
        self.listener.on_events([leg_event(party.handle, kind, self.clock.now_us(), self.clock.lag_us(), **what)])


_AUDIO_KINDS = frozenset(get_args(AudioKind))
_OWN_TYPE: dict[EventKind, Callable[..., LegEvent]] = {
    EventKind.DIGIT: LegDigit,
    EventKind.BRIDGED: LegBridged,
    EventKind.NOT_SENT: LegNotSent,
    EventKind.FAULT: LegFault,
    EventKind.MOVED: LegMoved,
}


def leg_event(handle: str, kind: EventKind, at_us: int, lag_us: int = 0, **what: Any) -> LegEvent:
    """An event of any kind. Raises TypeError for what events of that kind do not say."""
    if kind in _OWN_TYPE:
        return _OWN_TYPE[kind](handle, at_us, lag_us, **what)
    made = LegAudio if kind in _AUDIO_KINDS else LegSignal
    return made(handle, kind, at_us, lag_us, **what)  # type: ignore[arg-type]
