"""Records live transfers: chooses the file, starts and stops the recording, and reports the facts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import structlog

from facts.fact import Fact, Kind
from facts.payload_values import Payload
from facts.payloads import Recorded, RecordingStarted
from router.ports import Journal
from router.recordings import FinishedRecording, Recordings
from router.sip.port import Clock, SipEngine
from router.transfer.shell import TransferShell
from telemetry import metrics

_log = structlog.get_logger("router")


class Recorder:
    """`call_soon` brings a call from another thread to the loop's."""

    def __init__(
        self,
        files: Recordings,
        engine: SipEngine,
        journal: Journal,
        clock: Clock,
        call_soon: Callable[[Callable[[], None]], object],
    ) -> None:
        self._files = files
        self._engine = engine
        self._journal = journal
        self._clock = clock
        self._call_soon = call_soon
        self._running: dict[str, str] = {}  # transfer -> file

    def start(self, shell: TransferShell, leg: int) -> None:
        """Record the bridge; where it cannot be recorded the call goes on, and the fault is counted."""
        caller, buyer = shell.start.invite.handle, shell.leg_handle(leg)
        try:
            count = sum(fact.kind is Kind.RECORDING_STARTED for fact in shell.facts)
            name = f"{shell.transfer}-{count + 1}" if count else shell.transfer
            file = self._files.new(name, self._clock.utc_us())
            good = self._engine.record(caller, buyer, str(self._files.part(file)))
        except OSError as error:
            _log.error("recording_failed", transfer=shell.transfer, error=str(error))
            file, good = "", False
        if not good:
            metrics.ENGINE_FAULTS.labels(kind="recording").inc()
            return
        self._running[shell.transfer] = file
        shell.facts.append(self._note(shell.transfer, Kind.RECORDING_STARTED, RecordingStarted(file).as_payload()))
        consent = shell.start.campaign.consent_file if shell.start.campaign is not None else ""
        if consent:
            self._engine.play(caller, consent)
            self._engine.play(buyer, consent)

    def stop(self, shell: TransferShell) -> None:
        file = self._running.pop(shell.transfer, "")
        if file:
            cut = self._engine.stop_recording(shell.start.invite.handle) < 0

            def done(recording: FinishedRecording) -> None:
                if cut and not recording.error:
                    recording = replace(recording, error="cut short: the disk took no more")
                self._call_soon(lambda: self.recorded(shell.transfer, recording))

            self._files.finish(file, done)

    def recorded(self, transfer: str, done: FinishedRecording) -> None:
        """A recording is safe on the disk, or could not be made so."""
        if done.error:
            _log.error("recording_unfinished", transfer=transfer, error=done.error)
            metrics.ENGINE_FAULTS.labels(kind="recording").inc()
        said = Recorded(done.file, done.sha256, done.bytes, done.audio_ms, done.error or None)
        self._note(transfer, Kind.RECORDED, said.as_payload())

    def mend(self) -> int:
        """Finish what a crash left; how many. Disk work, done at once: to be called before calls come in."""
        left = self._files.left_over()
        for file in left:
            transfer = file.rpartition("/")[2].removesuffix(".wav").partition("-")[0]
            self.recorded(transfer, self._files.finish_now(file))
        return len(left)

    def _note(self, transfer: str, kind: Kind, payload: Payload) -> Fact:
        utc_us, mono_us = self._clock.utc_us(), self._clock.now_us()
        return self._journal.append(transfer, kind, utc_us=utc_us, mono_us=mono_us, payload=payload)
