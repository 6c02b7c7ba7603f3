"""Health of the processes: live, ready, started. Each reports once a second, from its own event loop.

A child of `baton serve` writes `health-NAME.json` into the folder that it shares with its parent, that of the metrics.
The parent looks once a second. A file that stays as it was means that the child's loop does not turn, whatever else is
alive in it. Silence is counted by the parent's own looks, so neither a clock that was set nor a machine that was paused
makes a child look hung. A disk that is full does not either: a file that cannot be written is touched.

Three pages are made of it, each JSON, 200 for yes and 503 for no:

    /live      the loops turn; else the names of those that hang
    /ready     work is taken; else what is out
    /startup   every process has been ready once

They name processes and parts, never a value of the configuration.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import orjson

OK = "ok"
DRAINING = "draining"
BEAT_S = 1.0  # how often a process gives a sign, and its parent looks
HUNG_S = 5.0  # of silence: five signs that did not come
START_S = 120.0  # to the first sign: imports, on a machine that is busy
INDEX = b"Baton: /metrics /live /ready /startup\n"

Checks = Mapping[str, str]  # part -> "ok", or what is wrong with it, for people
Page = tuple[int, str, bytes]  # status, type, body


@dataclass(frozen=True, slots=True)
class Sign:
    """One process as others see it. `silent_s`: since its loop was seen to turn; `hangs`: that is too long ago."""

    name: str
    checks: Checks
    silent_s: float = 0.0
    hangs: bool = False

    @property
    def ready(self) -> bool:
        return not self.hangs and all(said == OK for said in self.checks.values())


def is_hung(silent_s: float, *, begun: bool = True) -> bool:
    """Is so much silence too much? `begun`: there was a sign before."""
    return silent_s >= (HUNG_S if begun else START_S)


# --- the file between child and parent -------------------------------------------------------------------------------


def state_file(folder: Path, name: str) -> Path:
    return folder / f"health-{name}.json"


def write_state(file: Path, pid: int, checks: Checks) -> None:
    """Put the state into its file, whole or not at all. Raises OSError where not even the file's time can be set."""
    fresh = file.with_suffix(".new")
    try:
        fresh.write_bytes(orjson.dumps({"pid": pid, "checks": dict(checks)}))
        fresh.replace(file)
    except OSError:
        os.utime(file)  # no room: what it says is old, but the loop turns


class ChildStatus:
    """A child as its parent sees it. All but `sign` is called by the parent's loop alone."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.beats = 0  # signs seen of this child since it was started
        self.silent_s = 0.0
        self._file = state_file(folder, name)
        self._pid: int | None = None
        self._mark: tuple[int, int] | None = None
        self._checks: Checks = {}

    def started(self, pid: int) -> None:
        self._file.unlink(missing_ok=True)
        self._mark, self._checks, self.beats, self.silent_s = None, {}, 0, 0.0
        self._pid = pid

    def ended(self) -> None:
        self._pid = None
        self._file.unlink(missing_ok=True)

    def look(self, passed_s: float = BEAT_S) -> None:
        """See whether there is a new sign. `passed_s` since the last look, of which at most two beats count."""
        if self._pid is None:
            return
        mark, checks = self._read()
        if mark is None or mark == self._mark:
            self.silent_s += min(passed_s, 2 * BEAT_S)
            return
        self._mark, self._checks = mark, checks
        self.beats += 1
        self.silent_s = 0.0

    def overdue(self, bound_s: float) -> bool:
        """Has it been silent for so long that it should be started again? A bound of 0 is never reached."""
        if self._pid is None or not bound_s:
            return False
        return self.silent_s >= (bound_s if self.beats else max(bound_s, START_S))

    def sign(self) -> Sign:
        if self._pid is None:
            return Sign(self.name, {"process": "is not up"})
        silent_s, begun = self.silent_s, self.beats > 0
        if is_hung(silent_s, begun=begun):
            return Sign(self.name, {"process": f"hangs: no sign for {silent_s:.0f} s"}, silent_s, hangs=True)
        return Sign(self.name, self._checks if begun else {"process": "is starting"}, silent_s)

    def _read(self) -> tuple[tuple[int, int] | None, Checks]:
        """What tells this sign from others, and what it says; None where there is none of this child's."""
        try:
            with self._file.open("rb") as file:
                stat = os.fstat(file.fileno())
                said = orjson.loads(file.read())
        except (OSError, orjson.JSONDecodeError):
            return None, {}
        if said.get("pid") != self._pid:
            return None, {}
        return (stat.st_mtime_ns, stat.st_ino), {str(part): str(one) for part, one in said["checks"].items()}


# --- pages -----------------------------------------------------------------------------------------------------------


class Board:
    """The pages over some processes. `look` gives a sign of each; called by the loop and by the pages' threads."""

    def __init__(self, look: Callable[[], Sequence[Sign]]) -> None:
        self._look = look
        self._missing: set[str] | None = None  # those that were not ready yet; None before the first look
        self._lock = Lock()
        self.stopping = False

    def note(self) -> Sequence[Sign]:
        """Look once, and remember who was ready; to be called every second."""
        signs = self._look()
        with self._lock:
            missing = {sign.name for sign in signs} if self._missing is None else self._missing
            self._missing = missing - {sign.name for sign in signs if sign.ready}
        return signs

    @property
    def started(self) -> bool:
        """Each process was ready once."""
        return self._missing is not None and not self._missing

    def page(self, path: str) -> Page | None:
        """The page of that path; None where there is none."""
        if path == "/":
            return 200, "text/plain; charset=utf-8", INDEX
        if path == "/live":
            hangs = [sign.name for sign in self.note() if sign.hangs]
            return _page({"status": "hung" if hangs else "live", "hangs": hangs}, good=not hangs)
        if path == "/ready":
            signs = self.note()
            status = self.status(signs)
            return _page({"status": status, "checks": checks_by_name(signs)}, good=status == "ready")
        if path == "/startup":
            signs = self.note()
            waits = sorted(self._missing or ())
            body: dict[str, object] = {"status": "started" if self.started else "starting", "waits_for": waits}
            if not self.started:
                body["checks"] = checks_by_name([sign for sign in signs if sign.name in waits])
            return _page(body, good=self.started)
        return None

    def status(self, signs: Sequence[Sign]) -> str:
        """One word: ready, stopping, hung, starting, draining or not_ready."""
        if self.stopping:
            return "stopping"
        if all(sign.ready for sign in signs):
            return "ready"
        if any(sign.hangs for sign in signs):
            return "hung"
        if not self.started:
            return "starting"
        wrong = {said for said in checks_by_name(signs).values() if said != OK}
        return "draining" if wrong == {DRAINING} else "not_ready"


def checks_by_name(signs: Sequence[Sign]) -> dict[str, str]:
    """All checks under one name each: `router.journal`."""
    return {f"{sign.name}.{part}": said for sign in signs for part, said in sign.checks.items()}


def own_sign(name: str, checks: Checks, turned_at: float) -> Sign:
    """The sign of this very process, whose loop turned last at `turned_at` of time.monotonic."""
    silent_s = time.monotonic() - turned_at
    if is_hung(silent_s):
        return Sign(name, {"process": f"hangs: no sign for {silent_s:.0f} s"}, silent_s, hangs=True)
    return Sign(name, checks, silent_s)


def _page(body: Mapping[str, object], *, good: bool) -> Page:
    return 200 if good else 503, "application/json", orjson.dumps(body)
