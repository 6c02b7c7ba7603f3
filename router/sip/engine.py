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
from collections.abc import Callable, Collection, Sequence
from errno import EADDRINUSE, EMFILE, ENFILE, ENOBUFS, ENOMEM
from typing import Any

import structlog

from router.clock import LoopClock, monotonic_us
from router.sip.accounts import Accounts
from router.sip.bringup import choose_codecs, ep_config, probe_ceiling
from router.sip.classes import make_classes
from router.sip.dialogs import Dialogs, words_of
from router.sip.legs import LegBook, parse_records
from router.sip.media import Media
from router.sip.message import read_invite
from router.sip.out_of_dialog import OutOfDialog
from router.sip.pjlib import (
    SHARE,
    EngineConfig,
    EngineUnusableError,
    check_addresses,
    check_limits,
    epoll_descriptors,
    load_pjsua2,
    start_tap,
)
from router.sip.port import EngineListener, Invite, LegFault, LegNotSent, Slots, Target
from router.sip.refer import DialogMoves
from router.sip.registry import Calls
from router.sip.tracing import KeptMessages, find_messages
from router.sip.wire import new_call_id, packed, user_part, with_transport
from telemetry import metrics

TICK_S = 0.020  # PJSIP's timer resolution: retransmissions start at 500 ms (T1, RFC 3261 section 17.1.1.1)
POLL_S = 0.002  # without an epoll descriptor
SWEEP_S = 1.0  # lessons 6: a burst can lose DISCONNECTED callbacks
MANY_EVENTS = 64  # PJ_IOQUEUE_MAX_EVENTS_IN_SINGLE_POLL of our build
BAD_REQUEST = 400
MAX_TURNS = 32  # of libHandleEvents in one go, before the loop's other work has its turn
# pj_status_t of what is short on this machine (PJ_ERRNO_START_SYS is 120,000), and PJ_ETOOMANY and PJ_ENOMEM.
LOCAL_LIMITS = frozenset({120_000 + one for one in (EADDRINUSE, EMFILE, ENFILE, ENOBUFS, ENOMEM)} | {70_010, 70_007})
DISCONNECTED = 6  # PJSIP_INV_STATE_DISCONNECTED
POOL_CACHE_BYTES = 256 << 20  # about 60 kB a leg at 4,000 legs; what is above goes back to the allocator
LOOK_US = 100_000  # how often RTP is looked at

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
        self.calls = Calls(self._pj, lambda handle, account: self._call_class(self, handle, account))
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
        self.media = Media(self._pj, self.legs, clock.lag_us)
        self.moves = DialogMoves(self._pj, self.legs, self.calls, self.media, lambda: self._listener)
        self.out_of_dialog = OutOfDialog(self._pj, lambda: self._listener)
        self.dialogs = Dialogs(self._pj)

    # --- life ---

    def start(self) -> None:
        """Bring the library up, probe its ceiling, open the listeners. Raises EngineUnusableError."""
        check_limits(self.config)
        check_addresses(self.config)
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
            self._endpoint.libInit(ep_config(pj, self.config))
            probe_ceiling(pj, self.config)
            start_tap(pj, self.config.trace_bytes)
            pj.baton_limits(self.config.max_connections, self.config.max_connections_each, SHARE, 2 * SHARE)
            self._endpoint.libStart()
            self._endpoint.audDevManager().setNullDev()
            account_class, self._call_class = make_classes(pj)
            self._accounts = Accounts(pj, self._endpoint, self.config, lambda: account_class(self))
            self._accounts.open()
            choose_codecs(self._endpoint)
            self.dialogs.end_left(self.config.dialogs_file, self._accounts.for_target)
        except pj.Error as error:
            return f"PJSIP: {error.info()}"
        except EngineUnusableError as error:
            return str(error)
        return ""

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
        self.calls.clear()
        if self._accounts is not None:
            self._accounts.close()
            self._accounts = None
        gc.collect()
        self._pj.baton_hand_close()
        self._endpoint.libDestroy()
        self._endpoint = None
        self.media.bury(everything=True)

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
        """Serve PJSIP's timers where traffic has not just done so; look at media and requests outside dialogs."""
        now_us = monotonic_us()
        self.media.look(now_us, LOOK_US)
        if now_us - self._pumped_us >= TICK_S * 500_000 or self.legs.events:
            self.pump()

    def _dispatch(self) -> None:
        while True:
            self._read_tap()
            if self._invites:
                self._listener.on_invite(self._invites.popleft())
            elif self.legs.events:
                batch = [self.media.judge(event) for event in self.legs.events]
                self.legs.events.clear()
                self._listener.on_events(self.moves.sort(batch) if self.moves.any else batch)
            elif not self.out_of_dialog.look():
                return

    def _read_tap(self) -> None:
        if self._pj.baton_tap_pending():
            if self.moves.any:
                self.moves.adopt()
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
        self.dialogs.sweep()
        self.out_of_dialog.sweep()
        self.moves.sweep(now_us)
        self.media.bury()
        if self.legs.events:
            self._kick()

    # --- PJSIP's callbacks ---

    def on_incoming(self, account: Any, slot: int, text: str, source: str) -> None:
        """An INVITE was accepted by PJSIP (100 is out)."""
        self._read_tap()
        call_id, tag, far_tag = self._pj.baton_call_names(slot).split("\x1f")
        self._serial += 1
        handle = f"in{self._serial}"
        self.calls.put(handle, self._call_class(self, handle, account, slot))
        arrived = self.legs.arrival(call_id, far_tag)
        self.legs.add(handle, tag=tag, incoming=True, slot=slot)
        self._pj.baton_slot_new(slot)
        self._pj.baton_keep_to_listener(slot)
        at_us, lag_us = arrived or (monotonic_us(), self._clock.lag_us())
        try:
            read = read_invite(text, lead=self.out_of_dialog.knows(source.rpartition(":")[0].strip("[]")))
        except Exception:
            self.reject(handle, BAD_REQUEST)
            raise
        host, _, port = source.rpartition(":")
        self._invites.append(
            Invite(
                handle=handle,
                at_us=at_us,
                lag_us=lag_us,
                source=host.strip("[]"),
                source_port=int(port) if port.isdigit() else 0,
                sip_call_id=call_id,
                user=read.user,
                caller=read.caller,
                headers=read.headers,
                lead_json=read.lead_json,
                unread=read.unread,
                caller_unread=read.caller_unread,
                codecs=tuple(self._pj.baton_offered(slot).split(",")[:-1]),
            )
        )

    def on_over(self, handle: str, slot: int) -> None:
        """DISCONNECTED, by the far end, by us or by a timer."""
        if self.calls.over(handle, slot):
            self._over(handle, slot)

    def _over(self, handle: str, slot: int) -> None:
        self._read_tap()
        self.calls.drop(handle)
        leg = self.legs.live.get(handle)
        if leg is not None:
            self.media.over(leg)
            self.moves.over(handle)
        code = self._pj.baton_call_code(slot)
        self.legs.ended(handle, monotonic_us(), self._clock.lag_us(), code)

    def on_media(self, handle: str) -> None:
        """Audio started or changed on a leg."""
        leg = self.legs.live.get(handle)
        if leg is not None:
            self.media.tie(leg)

    def on_registration(self, account: Any, code: int, good: bool) -> None:
        self._open_accounts.registration(account, code, good=good)

    def fault(self, handle: str, where: str) -> None:
        """One of our own callbacks failed: the transfer is told."""
        at_us = monotonic_us()
        self.legs.events.append(LegFault(handle, at_us, self._clock.lag_us(), where))

    # --- commands ---

    def dial(self, handle: str, target: Target) -> None:
        pj = self._pj
        leg = self.legs.add(handle, call_id=new_call_id(handle))
        try:
            way = self._open_accounts.way_to(target)
            account = self._open_accounts.for_target(target, way)
            if words := words_of(target):
                pj.baton_hand_words(account.getId(), words)
            call = self.calls.new(handle, account)
            host = self._open_accounts.host_for_from(way) if target.caller else ""
            caller = f"<sip:{user_part(target.caller)}@{f'[{host}]' if ':' in host else host}>" if target.caller else ""
            pj.baton_wish_next(_words(target.codecs), _words(target.policy.redirect_hosts), target.policy.nat)
            call.batonDial(with_transport(target), leg.call_id, caller, packed(target.headers), account.getId())
            leg.slot = call.getId()
        except (pj.Error, EngineUnusableError) as error:
            pj.baton_wish_drop()
            self.calls.drop(handle)
            if self.legs.drop(handle):
                why = getattr(error, "reason", "") or str(error)
                ours = getattr(error, "status", 0) in LOCAL_LIMITS
                self.legs.events.append(LegNotSent(handle, monotonic_us(), self._clock.lag_us(), why, ours))
        self._kick()

    def ring(self, handle: str) -> None:
        self._respond(handle, 180, ())

    def answer(self, handle: str, headers: Sequence[tuple[str, str]] = (), codec_of: str = "") -> None:
        leg = self.legs.live.get(handle)
        if leg is not None:
            leg.answered = True
            codec = self.codec(codec_of)
            if codec:
                self._pj.baton_answer_with(leg.slot, f"{codec},")
            self._respond(handle, 200, headers)

    def reject(self, handle: str, code: int, headers: Sequence[tuple[str, str]] = ()) -> None:
        if self.legs.hung_up(handle, monotonic_us()) is not None:
            self._respond(handle, code, headers)

    def hang_up(self, handle: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        leg = self.legs.hung_up(handle, monotonic_us())
        call = self.calls.get(handle)
        if leg is None or call is None:
            return
        self.media.over(leg)
        self.moves.over(handle)
        try:
            call.batonHangUp(packed(headers))
        except self._pj.Error as error:
            self.calls.drop(handle)
            _log.debug("hang_up_of_a_leg_that_was_gone", leg=handle, error=error.reason)
        self._kick()

    def bridge(self, caller: str, endpoint: str) -> None:
        self.media.bridge(caller, endpoint)
        self._kick()

    def trace(self, call_ids: Sequence[str], prefixes: Sequence[str]) -> KeptMessages:
        """A copy of the last messages of these Call-IDs, and of those that begin so."""
        return find_messages(self._pj, call_ids, prefixes)

    @property
    def slots(self) -> Slots:
        used = self._pj.baton_calls_used()
        return Slots(used, max(0, used - len(self.legs.live)), self.config.max_calls)

    @property
    def pj_objects(self) -> int:
        """Call objects alive; nothing but live legs may have one."""
        return len(self.calls)

    # --- helpers ---

    def _respond(self, handle: str, code: int, headers: Sequence[tuple[str, str]]) -> None:
        call = self.calls.get(handle)
        if call is None:
            return
        try:
            call.batonRespond(code, packed(headers))
        except self._pj.Error as error:
            _log.warning("response_not_sent", leg=handle, code=code, error=error.reason)
            self.fault(handle, f"{code} not sent: {error.reason}")
        self._kick()

    # --- media, recordings, trunks, requests outside dialogs ---

    @property
    def _open_accounts(self) -> Accounts:
        if self._accounts is None:
            raise EngineUnusableError("the engine is closed")
        return self._accounts

    def play(self, handle: str, file: str, *, loop: bool = False) -> None:
        leg = self.legs.live.get(handle)
        if leg is not None:
            self.media.play(leg, file, loop=loop)

    def stop_playing(self, handle: str) -> None:
        leg = self.legs.live.get(handle)
        if leg is not None:
            self.media.stop_playing(leg)

    def record(self, caller: str, endpoint: str, file: str) -> bool:
        left, right = self.legs.live.get(caller), self.legs.live.get(endpoint)
        return left is not None and right is not None and self.media.record(left, right, file)

    def stop_recording(self, caller: str) -> int:
        leg = self.legs.known(caller)
        return self.media.stop_recording(leg) if leg is not None else -1

    def codec(self, handle: str) -> str:
        leg = self.legs.live.get(handle)
        codec: str = self._pj.baton_codec(leg.slot) if leg is not None and leg.slot >= 0 else ""
        return codec

    def probe(self, key: str, target: Target) -> None:
        try:
            account = self._open_accounts.for_target(target).getId()
        except self._pj.Error as error:
            _log.error("trunk_unusable", trunk=key, error=error.reason)
            account = -1
        self.out_of_dialog.probe(key, account, with_transport(target))

    def reply(self, handle: int, code: int, headers: Sequence[tuple[str, str]] = ()) -> None:
        self.out_of_dialog.reply(handle, code, packed(headers))

    def admit_sources(self, dialers: Sequence[Sequence[str]], *, drop: bool) -> None:
        self.out_of_dialog.admit_sources(dialers, drop=drop)

    def admit_trunks(self, addresses: Collection[str]) -> None:
        self.out_of_dialog.admit_trunks(addresses)

    def behind_nat(self, networks: Sequence[str]) -> None:
        self.out_of_dialog.behind_nat(networks)

    def lock_out(self, source: str, seconds: int) -> None:
        self.out_of_dialog.lock_out(source, seconds)

    def registered(self, target: Target) -> bool:
        try:
            return self._open_accounts.registered(target)
        except self._pj.Error as error:
            _log.error("trunk_unusable", uri=target.policy.registrar, error=error.reason)
            return False

    def keep_registered(self, targets: Sequence[Target]) -> None:
        self._open_accounts.keep_registered(targets)


def _words(names: Sequence[str]) -> str:
    """As the native side keeps them: lower case, a comma after each."""
    return "".join(f"{name.lower()}," for name in names)
