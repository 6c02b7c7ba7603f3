"""Recordings: named, made safe and counted. The audio itself is written by the media threads.

While a call lasts its file is called `.part`. At the end its header is put right, the file is synced, hashed and
renamed, and the folder synced: what has its final name is whole. A crash leaves `.part` files; the next start mends
their headers by their length and finishes them the same way. All disk work but the creation is done off the loop.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

PART = ".part"
HEADER_BYTES = 44  # RIFF, fmt and data chunk of plain PCM
FRAME_BYTES = 4  # two channels of 16 bits
_BLOCK = 1 << 20
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class FinishedRecording:
    """A recording under its final name, relative to the folder. `error` where it could not be made safe."""

    file: str
    sha256: str = ""
    bytes: int = 0
    audio_ms: int = 0
    error: str = ""


class Recordings:
    """The folder of one router's recordings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._work = ThreadPoolExecutor(1, "recordings")

    def new(self, transfer: str, utc_us: int) -> str:
        """Name for a new one, relative: a folder a day (UTC). Raises OSError where the folder cannot be made."""
        day = datetime.fromtimestamp(utc_us / 1e6, UTC).strftime("%Y-%m-%d")
        (self.folder / day).mkdir(parents=True, exist_ok=True)
        return f"{day}/{transfer}.wav"

    def part(self, file: str) -> Path:
        return self.folder / f"{file}{PART}"

    def finish(self, file: str, done: Callable[[FinishedRecording], object]) -> None:
        """Make an ended recording safe; `done` is called on the worker's thread."""
        self._work.submit(lambda: done(self.finish_now(file)))

    def finish_now(self, file: str) -> FinishedRecording:
        """The same at once. Never raises: what failed is said in `error`, and the `.part` stays."""
        part, whole = self.part(file), self.folder / file
        try:
            with part.open("rb+") as stream:
                rate, size = mend_header(stream.fileno())
                os.fsync(stream.fileno())
                digest = hashlib.sha256()
                while block := stream.read(_BLOCK):
                    digest.update(block)
            part.rename(whole)
            descriptor = os.open(whole.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            return FinishedRecording(file, error=str(error))
        return FinishedRecording(file, digest.hexdigest(), size, (size - HEADER_BYTES) // FRAME_BYTES * 1000 // rate)

    def left_over(self) -> list[str]:
        """Recordings that a crash left unfinished, by name."""
        return sorted(
            str(path.relative_to(self.folder)).removesuffix(PART) for path in self.folder.glob(f"*/*.wav{PART}")
        )

    def expire(self, days: int, now_s: float | None = None) -> int:
        """Delete what is older than so many days; how many. 0 days: nothing is ever deleted."""
        if not days:
            return 0
        before_s = (time.time() if now_s is None else now_s) - days * DAY_S
        gone = 0
        for path in self.folder.glob("*/*.wav"):
            if path.stat().st_mtime < before_s:
                path.unlink()
                gone += 1
        return gone

    def close(self) -> None:
        """Finish what is under way."""
        self._work.shutdown(wait=True)


def mend_header(descriptor: int) -> tuple[int, int]:
    """Write the sizes into a WAV header by the file's length. Sampling rate and bytes of the file.

    A frame that was written in part is cut off. Raises ValueError for what is no recording of ours.
    """
    head = os.pread(descriptor, HEADER_BYTES, 0)
    if len(head) < HEADER_BYTES or head[:4] != b"RIFF" or head[36:40] != b"data":
        raise ValueError("not a recording: its header is missing")
    size = os.fstat(descriptor).st_size
    size -= (size - HEADER_BYTES) % FRAME_BYTES
    os.ftruncate(descriptor, size)
    os.pwrite(descriptor, struct.pack("<I", size - 8), 4)
    os.pwrite(descriptor, struct.pack("<I", size - HEADER_BYTES), 40)
    rate: int = struct.unpack_from("<I", head, 24)[0]
    if not rate:
        raise ValueError("not a recording: its header has no sampling rate")
    return rate, size
