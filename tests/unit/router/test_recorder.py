"""The recorder: which file, which facts, and that a call goes on where it cannot be recorded."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from book.model import Campaign
from facts.fact import Fact, Kind
from facts.outcome import OutcomeTerms
from router.recorder import Recorder
from router.recordings import FinishedRecording, Recordings
from router.sip.port import Invite
from router.transfer import model as m
from router.transfer.shell import Start, TransferShell
from telemetry import metrics
from tests.memory import MemoryEngine, VirtualClock
from tests.world import ListJournal, World, plain


class DiskEngine(MemoryEngine):
    """Writes a tenth of a second of silence where it is told to record; `takes` and `cut` are what the disk does."""

    takes, cut = True, False

    def record(self, left: str, right: str, file: str) -> bool:
        self.commands.append((f"record {Path(file).name}", f"{left} {right}", 0))
        head = struct.pack(
            "<4sI4s4sIHHIIHH4sI", b"RIFF", 36, b"WAVE", b"fmt ", 16, 1, 2, 8000, 32000, 4, 16, b"data", 0
        )
        if self.takes:
            Path(file).write_bytes(head + bytes(4 * 800))
        return self.takes

    def stop_recording(self, handle: str) -> int:
        self.commands.append(("stop_recording", handle, 0))
        return -1 if self.cut else 0


class Desk:
    """A recorder on a real folder; what other threads bring to the loop waits in `brought`."""

    def __init__(self, folder: Path, consent: str = "") -> None:
        self.clock = VirtualClock()
        self.engine = DiskEngine(self.clock)
        self.journal = ListJournal()
        self.brought: list[Callable[[], None]] = []
        self.files = Recordings(folder)
        self.recorder = Recorder(self.files, self.engine, self.journal, self.clock, self.brought.append)
        invite = Invite("in1", 1_000, 0, "127.0.0.1", 5060, "in1@dialer", "leads", "+12125550123")
        campaign = Campaign("leads", ("acme",), record=True, consent_file=consent)
        plan = m.Plan(1, 0, 30_000, 15_000, record=True)
        start = Start("t1", invite, plan, (plain(1),), "acme", "", {}, OutcomeTerms(), campaign=campaign)
        self.shell = TransferShell(World([plain(1)]).router, start)

    def finish(self) -> list[Fact]:
        """Everything that is under way on the disk is done, and brought to the loop; the facts of recordings."""
        self.files.close()
        for call in self.brought:
            call()
        self.brought.clear()
        return [fact for fact in self.journal.facts if fact.kind is Kind.RECORDED]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.files.close()


def faults() -> float:
    return float(metrics.ENGINE_FAULTS.labels(kind="recording")._value.get())


def test_a_recording_is_said_to_have_begun_and_to_be_safe(desk: Desk, tmp_path: Path) -> None:
    desk.recorder.start(desk.shell, 1)
    (begun,) = desk.journal.facts
    assert (begun.kind, begun.payload["file"]) == (Kind.RECORDING_STARTED, "2026-05-28/t1.wav")
    assert desk.shell.facts == [begun], "the verdict rests on facts that the shell knows"
    assert desk.engine.commands == [("record t1.wav.part", "in1 t1-1", 0)]  # no word of consent was asked for
    desk.recorder.stop(desk.shell)
    assert [fact.kind for fact in desk.journal.facts] == [Kind.RECORDING_STARTED], "not safe before the disk says so"
    (safe,) = desk.finish()
    assert (safe.payload["file"], safe.payload["audio_ms"]) == ("2026-05-28/t1.wav", 100)
    assert not safe.payload.get("error")
    assert (tmp_path / "2026-05-28/t1.wav").exists()


def test_to_stop_twice_or_what_never_began_finishes_one_recording(desk: Desk) -> None:
    desk.recorder.stop(desk.shell)
    assert desk.engine.commands == []
    desk.recorder.start(desk.shell, 1)
    desk.recorder.stop(desk.shell)
    desk.recorder.stop(desk.shell)
    assert len(desk.finish()) == 1


def test_a_second_bridge_of_the_same_transfer_has_a_file_of_its_own(desk: Desk) -> None:
    for _ in range(2):
        desk.recorder.start(desk.shell, 1)
        desk.recorder.stop(desk.shell)
    assert sorted(fact.payload["file"] for fact in desk.finish()) == ["2026-05-28/t1-2.wav", "2026-05-28/t1.wav"]


@pytest.mark.parametrize("why", ["the engine says no", "the folder is no folder"])
def test_what_cannot_be_recorded_is_counted_and_no_fact_says_that_it_began(
    desk: Desk, tmp_path: Path, why: str
) -> None:
    if why == "the engine says no":
        desk.engine.takes = False
    else:
        (tmp_path / "2026-05-28").write_bytes(b"")
    before = faults()
    desk.recorder.start(desk.shell, 1)
    assert faults() == before + 1
    assert (desk.journal.facts, desk.shell.facts) == ([], [])
    desk.recorder.stop(desk.shell)
    assert desk.finish() == []


def test_a_disk_that_took_no_more_leaves_a_recording_that_says_so(desk: Desk) -> None:
    desk.recorder.start(desk.shell, 1)
    desk.engine.cut = True
    before = faults()
    desk.recorder.stop(desk.shell)
    (short,) = desk.finish()
    assert short.payload["error"] == "cut short: the disk took no more"
    assert (short.payload["audio_ms"], faults()) == (100, before + 1)


def test_a_worse_error_is_not_hidden_by_the_disk_that_was_full(desk: Desk, tmp_path: Path) -> None:
    desk.recorder.start(desk.shell, 1)
    desk.engine.cut = True
    (tmp_path / "2026-05-28/t1.wav.part").write_bytes(b"RIFF")
    desk.recorder.stop(desk.shell)
    (broken,) = desk.finish()
    assert "not a recording" in broken.payload["error"]


def test_both_parties_hear_that_they_are_recorded_as_it_begins(tmp_path: Path) -> None:
    desk = Desk(tmp_path, consent="consent.wav")
    desk.recorder.start(desk.shell, 1)
    assert desk.engine.commands[1:] == [("play consent.wav", "in1", 0), ("play consent.wav", "t1-1", 0)]
    desk.engine.commands.clear()
    desk.engine.takes = False
    desk.recorder.start(desk.shell, 1)
    assert [command for command, *_ in desk.engine.commands if command.startswith("play")] == [], "it is not recorded"
    desk.files.close()


def test_what_a_crash_left_is_finished_under_the_transfer_that_it_is_of(desk: Desk) -> None:
    desk.recorder.start(desk.shell, 1)
    desk.recorder.start(desk.shell, 1)
    assert desk.recorder.mend() == 2
    found = [fact for fact in desk.journal.facts if fact.kind is Kind.RECORDED]
    assert [(fact.transfer, fact.payload["audio_ms"]) for fact in found] == [("t1", 100), ("t1", 100)]
    assert desk.recorder.mend() == 0


def test_a_recording_that_is_not_safe_is_a_fact_and_a_fault(desk: Desk) -> None:
    before = faults()
    desk.recorder.recorded("t1", FinishedRecording("d/t1.wav", "", 0, 0, "no space"))
    (fact,) = desk.journal.facts
    assert (fact.transfer, fact.payload["error"], faults()) == ("t1", "no space", before + 1)
