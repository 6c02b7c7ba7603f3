"""Who hears what: bridges, prompts, recordings, digits, and RTP that starts and stops.

All of it by conference ports and ids; packets stay on PJMEDIA's own threads. A port changes when media is renegotiated
(hold, a moved dialog), so everything that hangs on a leg's audio is tied again after each change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from router.clock import monotonic_us
from router.sip.legs import Leg, LegBook
from router.sip.port import AudioKind, EventKind, LegAudio, LegBridged, LegDigit, LegEvent, LegFault, LegMoved
from telemetry import metrics

if TYPE_CHECKING:
    from types import ModuleType

_log = structlog.get_logger("sip")
QUIET_MS = 1_000  # RTP comes every 20 to 60 ms; a second without is silence worth noting
_RTP_EVENTS: dict[str, AudioKind] = {"F": EventKind.RTP_STARTED, "Q": EventKind.UNHEARD, "H": EventKind.HEARD}
LEFT, RIGHT = 0, 1


class Media:
    """The audio of one engine's legs."""

    def __init__(self, pj: ModuleType, legs: LegBook, lag_us: Callable[[], int]) -> None:
        self._pj = pj
        self._legs = legs
        self._lag_us = lag_us
        self._scanned_us = 0

    # --- bridges ---

    def bridge(self, caller: str, endpoint: str) -> None:
        left, right = self._legs.live.get(caller), self._legs.live.get(endpoint)
        if left is None or right is None:
            return
        left.peer, right.peer = endpoint, caller
        for leg in (left, right):
            self.stop_playing(leg)
            self._pj.baton_watch(leg.slot, True)
        self.tie(right)

    def judge(self, event: LegEvent) -> LegEvent:
        """An endpoint's answer is one when it can be served (domain, section 3).

        To be asked once PJSIP has read the message: an answer in an 18x before the 2xx counts as well. A leg that is
        over by now was served if audio had been agreed on and it was the far end that left.
        """
        leg = self._legs.known(event.handle)
        if event.kind is not EventKind.ANSWERED or leg is None or leg.incoming:
            return event
        live = event.handle in self._legs.live
        agreed = self._pj.baton_agreed(leg.slot) if live else leg.agreed and leg.left is not None
        return event if agreed else event._replace(kind=EventKind.UNSERVED)

    def tie(self, leg: Leg) -> None:
        """Give a leg what it is to hear; to be called after each change of its media."""
        leg.agreed = leg.incoming or self._pj.baton_agreed(leg.slot)
        self._play(leg)
        self._hold(leg)
        if leg.peer:
            self._join(leg)

    def _join(self, leg: Leg) -> None:
        """Connect two legs once both have a conference port; again after each change of media."""
        peer = self._legs.live.get(leg.peer)
        if peer is None or leg.slot < 0 or peer.slot < 0:
            return
        mine, theirs = self._pj.baton_audio_port(leg.slot), self._pj.baton_audio_port(peer.slot)
        if mine < 0 or theirs < 0:
            return
        if self._pj.baton_connect(mine, theirs) or self._pj.baton_connect(theirs, mine):
            self._tell(LegFault(leg.handle, monotonic_us(), self._lag_us(), "audio could not be connected"))
            return
        left, right = (leg, peer) if leg.incoming else (peer, leg)
        self._hear(left, right)
        if not (leg.bridged and peer.bridged):
            leg.bridged = peer.bridged = True
            codecs = f"{self._spoken(left)} {self._spoken(right)}"
            self._tell(LegBridged(right.handle, monotonic_us(), self._lag_us(), codecs))

    def _spoken(self, leg: Leg) -> str:
        """Codec and whether it is encrypted, such as `pcmu` or `opus+srtp`."""
        codec: str = self._pj.baton_codec(leg.slot)
        return f"{codec}+srtp" if self._pj.baton_encrypted(leg.slot) else codec

    # --- prompts ---

    def play(self, leg: Leg, file: str, *, loop: bool) -> None:
        self.stop_playing(leg)
        leg.prompt = (file, loop)
        self._play(leg)

    def _play(self, leg: Leg) -> None:
        if not leg.prompt or leg.slot < 0:
            return
        port = self._pj.baton_audio_port(leg.slot)
        if port < 0:
            return
        if leg.player >= 0:
            self._pj.baton_play_also(leg.player, port)
            return
        file, loop = leg.prompt
        leg.player = self._pj.baton_play(file, port, loop)
        if leg.player < 0:  # a call is not lost for a prompt
            leg.prompt = None
            _log.error("prompt_not_played", leg=leg.handle, file=file)
            metrics.ENGINE_FAULTS.labels(kind="prompt").inc()

    def stop_playing(self, leg: Leg) -> None:
        leg.prompt = None
        if leg.player >= 0:
            self._pj.baton_play_end(leg.player)
            leg.player = -1

    # --- recordings ---

    def record(self, left: Leg, right: Leg, file: str) -> bool:
        """True where it runs. The file must not exist. One at a time for a leg."""
        if left.recording >= 0:
            return False
        left.recording = self._pj.baton_record(file)
        if left.recording < 0:
            return False
        self._hear(left, right)
        return True

    def _hear(self, left: Leg, right: Leg) -> None:
        if left.recording >= 0:
            for side, leg in ((LEFT, left), (RIGHT, right)):
                self._pj.baton_record_hear(left.recording, side, self._pj.baton_audio_port(leg.slot))

    def stop_recording(self, left: Leg) -> int:
        if left.recording < 0:
            return -1
        size: int = self._pj.baton_record_end(left.recording)
        left.recording = -1
        return size

    def bury(self, *, everything: bool = False) -> None:
        """Let go of what ended recordings held."""
        self._pj.baton_record_bury(everything)

    # --- what parties do ---

    def _hold(self, leg: Leg) -> None:
        held: bool = self._pj.baton_held(leg.slot)
        if held != leg.held:
            leg.held = held
            kind: AudioKind = EventKind.HELD if held else EventKind.RETRIEVED
            self._tell(LegAudio(leg.handle, kind, monotonic_us(), self._lag_us()))

    def look(self, now_us: int, every_us: int) -> None:
        """Read digits, and every so often who is heard."""
        pj = self._pj
        if pj.baton_digits_pending():
            for record in pj.baton_digits_drain().split("\x1e")[:-1]:
                slot, _, digit = record.partition("\x1f")
                self._digit(int(slot), digit)
        if now_us - self._scanned_us < every_us:
            return
        doubt_us = now_us - self._scanned_us
        self._scanned_us = now_us
        for record in pj.baton_rtp_scan(QUIET_MS).split("\x1e")[:-1]:
            slot, what, at_ns = record.split("\x1f")
            leg = self._legs.in_slot(int(slot))
            if leg is not None:
                lag_us = doubt_us if what == "Q" else 0
                self._tell(LegAudio(leg.handle, _RTP_EVENTS[what], int(at_ns) // 1000, lag_us))

    def _digit(self, slot: int, digit: str) -> None:
        """A key: sent on to the other party where there is one, and told."""
        leg = self._legs.in_slot(slot)
        if leg is None:
            return
        peer = self._legs.live.get(leg.peer)
        if peer is not None and leg.bridged:
            self._pj.baton_digit_send(peer.slot, digit)
        self._tell(LegDigit(leg.handle, monotonic_us(), self._lag_us(), digit))

    def over(self, leg: Leg) -> None:
        """The leg is gone: what played to it, or recorded it, ends."""
        self.stop_playing(leg)
        if leg.slot >= 0:
            self._pj.baton_watch(leg.slot, False)

    def moved(self, leg: Leg, how: str) -> None:
        """The dialer's end is another dialog now."""
        self._tell(LegMoved(leg.handle, monotonic_us(), self._lag_us(), how))

    def _tell(self, event: LegEvent) -> None:
        self._legs.events.append(event)
