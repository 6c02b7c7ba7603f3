"""A call before it is a transfer: fetches its lead, greets its caller and waits for a key.

Nothing is dialled here and nothing counts. A caller who leaves is handed on as well, marked as gone, so that the call
is on the record. Calls whose lead came along and whose campaign has no greeting never see this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from book.model import Campaign
from facts.outcome import Reason
from router.lead import Lead, read_lead
from router.sip.port import Clock, EventKind, Invite, LegEvent, SipEngine, TimerHandle
from router.wav import wav_ms

LEAD_HEADER = "x-lead-id"
LEAD_NOT_THERE = "lead: X-Lead-Id is not one id, is not known, or has expired"
LEAD_NOT_READ = "lead: the lead of X-Lead-Id could not be read in time"
_LEAD_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LEAVES = frozenset({EventKind.CANCELLED, EventKind.BYE, EventKind.FAILED, EventKind.GONE})


def lead_asked_for(headers: Mapping[str, Sequence[str]]) -> str | None:
    """The id of the lead that the call is about; None where it names none; empty where nobody can say which."""
    given = headers.get(LEAD_HEADER)
    if given is None:
        return None
    ids = {one.strip() for one in given}
    return ids.pop() if len(ids) == 1 and all(map(_LEAD_ID.fullmatch, ids)) else ""


class Stage(Enum):
    LEAD = "lead"
    GREETING = "greeting"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class ArrivalResult:
    """The result of an arrival: the caller's state, the key that was pressed, and the lead that was fetched."""

    answered: bool = False
    gone: bool = False
    key: str = ""
    lead_json: bytes | None = None  # as `LeadReader.fetch` answers; None as well where none was fetched


def lead_of(invite: Invite, how: ArrivalResult) -> Lead:
    """A lead that was asked for and did not come is in doubt: the INVITE's own number may be another's."""
    unread = invite.unread
    if not how.lead_json and lead_asked_for(invite.headers) is not None:
        unread = (*unread, LEAD_NOT_THERE if how.lead_json is None else LEAD_NOT_READ)
    return read_lead(
        invite.headers,
        invite.lead_json,
        invite.caller,
        posted=how.lead_json or b"",
        unread=unread,
        caller_unread=invite.caller_unread,
    )


def why_unread(lead: Lead) -> Reason:
    """The refusal of a lead that cannot be read: for good, unless it was only not there in time."""
    return Reason.SUPPRESSION_UNAVAILABLE if lead.unread == (LEAD_NOT_READ,) else Reason.BAD_NUMBER


@dataclass(slots=True)
class Arrival:
    """One call on its way to becoming a transfer."""

    invite: Invite
    campaign: Campaign | None
    engine: SipEngine
    clock: Clock
    done: Callable[[Arrival, ArrivalResult], None]
    stage: Stage = Stage.DONE
    answered: bool = False
    lead_json: bytes | None = None
    tries: int = 0
    timer: TimerHandle | None = None
    keys: frozenset[str] = field(default_factory=frozenset)

    def begin(self, fetch: Callable[[Callable[[bytes | None], None]], None] | None) -> None:
        """`fetch` asks for the lead and calls back with its JSON; None: there is nothing to fetch."""
        if fetch is not None:
            self.stage = Stage.LEAD
            fetch(self._fetched)
        else:
            self._greet()

    def _fetched(self, lead_json: bytes | None) -> None:
        if self.stage is Stage.LEAD:
            self.lead_json = lead_json
            self._greet()

    def _greet(self) -> None:
        if self.campaign is None or not self.campaign.greeting_file:
            self._end()
            return
        self.stage = Stage.GREETING
        self.keys = frozenset(one.key for one in self.campaign.menu)
        self.answered = True
        self.engine.answer(self.invite.handle)
        self._play()

    def _play(self) -> None:
        assert self.campaign is not None
        self.tries += 1
        self.engine.play(self.invite.handle, self.campaign.greeting_file)
        wait_ms = wav_ms(self.campaign.greeting_file) + (self.campaign.menu_timeout_ms if self.keys else 0)
        self.timer = self.clock.call_at(self.clock.now_us() + wait_ms * 1000, self._heard)

    def _heard(self) -> None:
        assert self.campaign is not None
        if self.stage is not Stage.GREETING:
            return
        if self.keys and self.tries < self.campaign.menu_tries:
            self._play()
        else:  # no key: any of the campaign's buyers will do
            self._end()

    def on_event(self, event: LegEvent) -> None:
        if self.stage is Stage.DONE:
            return
        if event.kind in _LEAVES:
            self._end(gone=True)
        elif event.kind is EventKind.DIGIT and self.stage is Stage.GREETING and event.digit in self.keys:
            self._end(key=event.digit)

    def cut_short(self) -> None:
        """The router goes down: on to what it says of that."""
        self._end()

    def _end(self, *, gone: bool = False, key: str = "") -> None:
        self.stage = Stage.DONE
        if self.timer is not None:
            self.timer.cancel()
        if self.answered and not gone:
            self.engine.stop_playing(self.invite.handle)
        self.done(self, ArrivalResult(self.answered, gone, key, self.lead_json))
