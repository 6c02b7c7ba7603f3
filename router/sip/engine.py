"""pjsua2 on the asyncio loop.

One thread: the one that runs the loop created the library, and nothing else touches it. PJSIP's I/O queue is an epoll
descriptor; the loop watches that descriptor and calls `libHandleEvents(0)` when it is ready, and every TICK_S besides
for PJSIP's own timers. Where the descriptor cannot be found the tick does it all (POLL_S).

What a peer did is read from the tap (scripts/pjsua2/baton_pjsua2.i): it sees every message at the transport layer with
its time; `router.sip.legs` turns messages into events. That a leg is over is PJSIP's to say (`onCallState`).

pj objects live in one registry, by handle, and hold ids only. A Call is dropped inside the DISCONNECTED callback:
later, its id may be another call's, and `~Call()` would hang that one up. Events gather in a queue and are handed on
in one batch after PJSIP has read everything that was in; commands given meanwhile add to the queue, never to the
stack.
"""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from config.book import Transport
from meter import metrics
from router.clock import LoopClock, monotonic_us
from router.sip.accounts import Accounts
from router.sip.classes import make_classes
from router.sip.legs import Leg, LegBook, parse_records
from router.sip.message import json_part, split_message, user_of
from router.sip.pjlib import (
    EngineConfig,
    EngineUnusableError,
    check_limits,
    epoll_descriptors,
    load_pjsua2,
    start_tap,
)
from router.sip.port import EngineListener, EventKind, Invite, LegEvent, Slots, Target

TICK_S = 0.020  # PJSIP's timer resolution: retransmissions start at 500 ms (T1, RFC 3261 17.1.1.1)
POLL_S = 0.002  # without an epoll descriptor
SWEEP_S = 1.0  # upstream issue 4992: a burst can lose DISCONNECTED callbacks
MANY_EVENTS = 64  # PJ_IOQUEUE_MAX_EVENTS_IN_SINGLE_POLL of our build
MAX_TURNS = 32  # of libHandleEvents in one go, before the loop's other work has its turn
DISCONNECTED = 6  # PJSIP_INV_STATE_DISCONNECTED
POOL_CACHE_BYTES = 256 << 20  # about 60 kB a leg at 4,000 legs; what is above goes back to the allocator
CLOCK_RATE = 8000  # G.711; other codecs come with the media issue

_log = structlog.get_logger("sip")


class PjsuaEngine:
    """`router.sip.port.SipEngine` over pjsua2. Create, start and close it on the loop's thread."""

    def __init__(
        self, config: EngineConfig, clock: LoopClock, listener: EngineListener, *, use_descriptor: bool = True
    ) -> None:
        self.config = config
        self.legs = LegBook()
        self._clock = clock
        self._listener = listener
        self._use_descriptor = use_descriptor
        self._pj = load_pjsua2()
        self._calls: dict[str, Any] = {}  # handle -> pj Call: the only strong references
        self._by_slot: dict[int, str] = {}
        self._invites: deque[Invite] = deque()
        self._endpoint: Any = None
        self._accounts: Accounts | None = None
        self._call_class: Any = None
        self._epoll_fd = -1
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._pumping = False
        self._serial = 0
        self._closing = False
        self._kick_due = False
        self._pumped_us = 0
        self._strays = 0
        self._host = _host_for_from(config)

    # --- life ---

    def start(self) -> None:
        """Bring the library up, probe its ceiling, open the listeners. Raises EngineUnusableError."""
        check_limits(self.config)
        pj = self._pj
        before = epoll_descriptors()
        self._endpoint = pj.Endpoint()
        self._endpoint.libCreate()
        pj.baton_keep_memory(POOL_CACHE_BYTES)
        found = epoll_descriptors() - before
        self._epoll_fd = found.pop() if len(found) == 1 and self._use_descriptor else -1
        failure = self._bring_up()
        if failure:  # raised here: an exception of pjsua2's would keep the library's object alive in its traceback
            self._destroy()
            raise EngineUnusableError(failure)
        self._run()

    def _bring_up(self) -> str:
        """All that may fail once the library is there; what failed, or nothing."""
        pj = self._pj
        try:
            self._endpoint.libInit(self._ep_config())
            self._probe()
            start_tap(pj)
            self._endpoint.libStart()
            self._endpoint.audDevManager().setNullDev()
            account_class, self._call_class = make_classes(pj)
            self._accounts = Accounts(pj, self._endpoint, self.config, lambda: account_class(self))
            self._accounts.open()
        except pj.Error as error:
            return f"PJSIP: {error.info()}"
        except EngineUnusableError as error:
            return str(error)
        return ""

    def _ep_config(self) -> Any:
        config = self._pj.EpConfig()
        config.uaConfig.threadCnt = 0
        config.uaConfig.mainThreadOnly = True
        config.uaConfig.maxCalls = self.config.max_calls
        config.uaConfig.userAgent = self.config.user_agent
        for server in self.config.nameservers:
            config.uaConfig.nameserver.append(server)
        config.logConfig.level = 1
        config.logConfig.consoleLevel = 1
        config.logConfig.msgLogging = 0
        media = config.medConfig
        media.hasIoqueue = True  # RTP has its own queue and native thread: no packet touches the interpreter
        media.threadCnt = 1
        media.clockRate = CLOCK_RATE
        media.sndClockRate = CLOCK_RATE
        media.audioFramePtime = 20
        media.maxMediaPorts = 2 * self.config.max_calls + 16
        media.noVad = True
        media.ecTailLen = 0
        return config

    def _probe(self) -> None:
        """The real ceiling: what the running library says, not what it was told (upstream issues 4488, 4039)."""
        ceiling = min(self._pj.baton_max_calls(), self._pj.baton_call_ceiling())
        if ceiling < self.config.max_calls:
            raise EngineUnusableError(
                f"router.max_calls = {self.config.max_calls}, but this build of pjsua2 carries {ceiling} calls; "
                "lower it, or raise PJSUA_MAX_CALLS in scripts/pjsua2/config_site.h and run scripts/bootstrap"
            )

    def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._epoll_fd < 0:
            _log.warning("epoll_descriptor_not_used", falling_back_to="polling", every_ms=POLL_S * 1000)
            self._repeat("tick", POLL_S, self.pump)
        else:
            self._loop.add_reader(self._epoll_fd, self.pump)
            self._repeat("tick", TICK_S, self._tick)
        self._repeat("sweep", SWEEP_S, self.sweep)

    def _repeat(self, name: str, every_s: float, action: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()

        def again() -> None:
            if not self._closing:
                self._timers[name] = loop.call_later(every_s, again)
                action()

        self._timers[name] = loop.call_later(every_s, again)

    @property
    def by_descriptor(self) -> bool:
        """True where the loop is woken by PJSIP's epoll descriptor, False where it polls."""
        return self._epoll_fd >= 0

    async def close(self, linger_s: float = 2.0) -> None:
        """Ordered shutdown: hang up, wait (bounded), drop, collect, destroy. `~Call()` after libDestroy would abort."""
        for handle in list(self.legs.live):
            self.hang_up(handle)
        deadline_us = monotonic_us() + int(linger_s * 1e6)
        while self._pj.baton_calls_used() and monotonic_us() < deadline_us:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        self._closing = True
        if self._loop is not None and self._epoll_fd >= 0:
            self._loop.remove_reader(self._epoll_fd)
        for timer in self._timers.values():
            timer.cancel()
        self._destroy()

    def _destroy(self) -> None:
        self._closing = True
        self._calls.clear()
        if self._accounts is not None:
            self._accounts.close()
            self._accounts = None
        gc.collect()
        self._endpoint.libDestroy()
        self._endpoint = None

    # --- the pump ---

    def pump(self) -> None:
        """Let PJSIP read all that is in, then tell the router, and go on while that makes new events."""
        if self._pumping or self._closing:
            return
        self._pumping = True
        self._pumped_us = monotonic_us()
        try:
            for _ in range(MAX_TURNS):
                if self._endpoint.libHandleEvents(0) < MANY_EVENTS:  # what is left wakes the loop again at once
                    break
            self._dispatch()
        except Exception:  # noqa: BLE001 - the pump must go on
            _log.exception("pump_failed")
            metrics.ENGINE_FAULTS.labels(kind="pump").inc()
        finally:
            self._pumping = False

    def _tick(self) -> None:
        """PJSIP's timers, where traffic has not just had them looked at."""
        if monotonic_us() - self._pumped_us >= TICK_S * 500_000:
            self.pump()

    def _dispatch(self) -> None:
        while True:
            self._read_tap()
            if self._invites:
                self._listener.on_invite(self._invites.popleft())
            elif self.legs.events:
                batch = list(self.legs.events)
                self.legs.events.clear()
                self._listener.on_events(batch)
            else:
                return

    def _read_tap(self) -> None:
        if self._pj.baton_tap_pending():
            doubt_from_us = monotonic_us() - self._clock.lag_us()
            for record in parse_records(self._pj.baton_tap_drain(), doubt_from_us):
                self.legs.note(record)

    def _kick(self) -> None:
        """Hand on what a command caused, where it was not given from within the pump."""
        if not self._pumping and not self._kick_due and self._loop is not None:
            self._kick_due = True
            self._loop.call_soon(self._kicked)

    def _kicked(self) -> None:
        self._kick_due = False
        self.pump()

    def sweep(self) -> None:
        """Find legs whose end PJSIP never told, forget old ones, and set the gauges."""
        now_us = monotonic_us()
        for leg in list(self.legs.live.values()):
            if leg.slot >= 0 and self._pj.baton_call_state(leg.slot) == DISCONNECTED:
                _log.warning("lost_ending_found", leg=leg.handle)
                metrics.ENGINE_FAULTS.labels(kind="lost_ending").inc()
                self._over(leg.handle, leg.slot)
        self.legs.purge(now_us)
        slots = self.slots
        metrics.CALL_SLOTS_USED.set(slots.used)
        metrics.CALL_SLOTS_LINGERING.set(slots.lingering)
        metrics.ENGINE_CALLS.set(self.pj_objects)
        strays = self._pj.baton_strays()
        if strays != self._strays:
            _log.warning("answers_of_nobodys_calls", count=strays - self._strays)
            metrics.ENGINE_FAULTS.labels(kind="stray_answer").inc(strays - self._strays)
            self._strays = strays
        if self.legs.events:
            self._kick()

    # --- PJSIP's callbacks ---

    def on_incoming(self, account: Any, slot: int, text: str, source: str) -> None:
        """An INVITE was accepted by PJSIP (100 is out)."""
        self._read_tap()
        call_id = self._pj.baton_call_id(slot)
        self._serial += 1
        handle = f"in{self._serial}"
        self._calls[handle] = self._call_class(self, handle, account, slot)
        arrived = self.legs.arrival(call_id)
        self.legs.add(handle, sip_call_id=call_id, slot=slot)
        at_us, lag_us = arrived or (monotonic_us(), self._clock.lag_us())
        request, headers, body = split_message(text)
        host, _, port = source.rpartition(":")
        self._invites.append(
            Invite(
                handle=handle,
                at_us=at_us,
                lag_us=lag_us,
                source=host.strip("[]"),
                source_port=int(port) if port.isdigit() else 0,
                sip_call_id=call_id,
                user=user_of(request),
                caller=user_of((headers.get("from") or [""])[0]),
                headers=headers,
                lead_json=json_part(headers, body),
            )
        )

    def on_over(self, handle: str, slot: int) -> None:
        """DISCONNECTED, by the far end, by us or by a timer."""
        self._over(handle, slot)

    def _over(self, handle: str, slot: int) -> None:
        self._read_tap()
        self._calls.pop(handle, None)
        code = self._pj.baton_call_code(slot)
        self.legs.ended(handle, monotonic_us(), self._clock.lag_us(), code)

    def on_media(self, handle: str) -> None:
        """Audio started or changed on a leg."""
        leg = self.legs.live.get(handle)
        if leg is not None and leg.peer:
            self._join(leg)

    def fault(self, handle: str, where: str) -> None:
        """One of our own callbacks failed: the transfer is told."""
        at_us = monotonic_us()
        self.legs.events.append(
            LegEvent(handle, EventKind.FAULT, at_us, self._clock.lag_us(), phrase=where, local=True)
        )

    # --- commands ---

    def dial(self, handle: str, target: Target) -> None:
        pj = self._pj
        leg = self.legs.add(handle)
        try:
            call = self._call_class(self, handle, self._open_accounts.for_target(target))
            self._calls[handle] = call
            caller = f"<sip:{_user(target.caller)}@{self._host}>" if target.caller else ""
            call.batonDial(_with_transport(target), handle, caller, _packed(target.headers))
            leg.slot = call.getId()
        except (pj.Error, EngineUnusableError) as error:
            self._calls.pop(handle, None)
            if self.legs.live.pop(handle, None) is not None:
                why = getattr(error, "reason", "") or str(error)
                self.legs.events.append(
                    LegEvent(handle, EventKind.NOT_SENT, monotonic_us(), self._clock.lag_us(), phrase=why, local=True)
                )
        self._kick()

    def ring(self, handle: str) -> None:
        self._respond(handle, 180, ())

    def answer(self, handle: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        leg = self.legs.live.get(handle)
        if leg is not None:
            leg.answered = True
            self._respond(handle, 200, headers)

    def reject(self, handle: str, code: int, headers: Sequence[tuple[str, str]] = ()) -> None:
        if self.legs.hung_up(handle, monotonic_us()) is not None:
            self._respond(handle, code, headers)

    def hang_up(self, handle: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        leg = self.legs.hung_up(handle, monotonic_us())
        call = self._calls.get(handle)
        if leg is None or call is None:
            return
        try:
            call.batonHangUp(_packed(headers))
        except self._pj.Error as error:
            self._calls.pop(handle, None)
            _log.debug("hang_up_of_a_leg_that_was_gone", leg=handle, error=error.reason)
        self._kick()

    def bridge(self, one: str, other: str) -> None:
        left, right = self.legs.live.get(one), self.legs.live.get(other)
        if left is not None and right is not None:
            left.peer, right.peer = other, one
            self._join(right)
        self._kick()

    @property
    def slots(self) -> Slots:
        used = self._pj.baton_calls_used()
        return Slots(used, max(0, used - len(self.legs.live)), self.config.max_calls)

    @property
    def pj_objects(self) -> int:
        """Call objects alive; nothing but live legs may have one."""
        return len(self._calls)

    # --- helpers ---

    @property
    def _open_accounts(self) -> Accounts:
        if self._accounts is None:
            raise EngineUnusableError("the engine is closed")
        return self._accounts

    def _respond(self, handle: str, code: int, headers: Sequence[tuple[str, str]]) -> None:
        call = self._calls.get(handle)
        if call is None:
            return
        try:
            call.batonRespond(code, _packed(headers))
        except self._pj.Error as error:
            _log.warning("response_not_sent", leg=handle, code=code, error=error.reason)
            self.fault(handle, f"{code} not sent: {error.reason}")
        self._kick()

    def _join(self, leg: Leg) -> None:
        """Connect two legs once both have a conference port; again after each change of media."""
        peer = self.legs.live.get(leg.peer)
        if peer is None or leg.slot < 0 or peer.slot < 0:
            return
        mine, theirs = self._pj.baton_audio_port(leg.slot), self._pj.baton_audio_port(peer.slot)
        if mine < 0 or theirs < 0:
            return
        if self._pj.baton_connect(mine, theirs) or self._pj.baton_connect(theirs, mine):
            self.fault(leg.handle, "audio could not be connected")
            return
        if not (leg.bridged and peer.bridged):
            leg.bridged = peer.bridged = True
            outgoing = peer if leg.incoming else leg
            self.legs.events.append(LegEvent(outgoing.handle, EventKind.BRIDGED, monotonic_us(), self._clock.lag_us()))


def _host_for_from(config: EngineConfig) -> str:
    """Host for the From of a dialled leg: the public address of the first listener, or a name that is nobody's."""
    first = config.listeners[0] if config.listeners else None
    host = (first.public_address or first.address) if first else ""
    return host if host not in ("", "0.0.0.0", "::") else "baton.invalid"  # noqa: S104 - compared, not bound


def _packed(headers: Sequence[tuple[str, str]]) -> str:
    """Headers as the native commands take them; no control character can pass for a separator or a line end."""
    return "".join(f"{_printable(name)}\x1f{_printable(value)}\x1e" for name, value in headers)


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def _user(number: str) -> str:
    """A number or name as the user part of a URI: nothing that could end it (RFC 3261 section 25.1)."""
    return "".join(c for c in number if c.isalnum() or c in "+-_.!~*'()")[:64] or "anonymous"


def _with_transport(target: Target) -> str:
    if target.transport is Transport.UDP or ";transport=" in target.uri.lower():
        return target.uri
    return f"{target.uri};transport={target.transport.value}"
