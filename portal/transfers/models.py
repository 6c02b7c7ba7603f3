"""What the routes for transfers take and give, and what of a transfer each token may see."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import AwareDatetime, BaseModel, Field

from facts.disclosure import Claim, Reader, disclosed
from facts.outcome import CountsAs, Reason, Verdict
from meter.settling.sql.transfers import SettledTransfer
from portal.http.paging import Next, PageQuery
from portal.http.tokens import Scope, Token
from portal.lists.models import Moment

_MAX_NAME = 64
_MAX_NUMBER = 64
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT = "An instant with its offset, such as `2026-06-02T10:00:00-04:00`"

TransferId = Annotated[str, Path(min_length=1, max_length=_MAX_NAME, description="Its id.")]


class TransferShown(BaseModel):
    """A settled transfer. Durations are in ms; what a token is not told is empty or null."""

    transfer: str
    call_id: str = Field(description="Shared by the transfers of one prospect; told like `phone`.")
    campaign: str
    buyer: str = Field(description="Empty where none was found.")
    phone: str = Field(description="The prospect's, E.164; to a buyer only where the transfer counts.")
    started_at: datetime
    dialout_at: Moment = Field(description="From here all durations count; null: nothing rang.")
    ended_at: datetime
    verdict: Verdict
    reason: Reason
    counts_as: CountsAs
    attempt_ms: int
    talk_ms: int
    buffer_ms: Annotated[int | None, Field(json_schema_extra={"type": ["integer", "null"]})] = Field(
        description="Not told to dialers."
    )
    terms: str = Field(description="Profile and version in force, such as `contract v2`. Not told to dialers.")
    dialer: str = Field(description="Not told to buyers.")
    sip_call_id: str = Field(description="`Call-ID` of the dialer's INVITE. Not told to buyers.")


class Transfers(BaseModel):
    """A page of settled transfers, in the order in which they were settled."""

    transfers: list[TransferShown]
    next: Next


class TransferQuery(PageQuery):
    """Which transfers."""

    since: AwareDatetime | None = Field(None, alias="from", description=f"Ended then or later. {_INSTANT}.")
    until: AwareDatetime | None = Field(None, alias="to", description="Ended before then, likewise.")
    buyer: str = Field("", max_length=_MAX_NAME, description="Only this buyer's.")
    dialer: str = Field("", max_length=_MAX_NAME, description="Only this dialer's.")
    campaign: str = Field("", max_length=_MAX_NAME, description="Only of this campaign.")
    verdict: Verdict | Literal[""] = Field("", description="Only with this verdict.")
    reason: Reason | Literal[""] = Field("", description="Only for this reason.")
    counts_as: CountsAs | Literal[""] = Field("", description="Only what counts as this.")
    phone: str = Field("", max_length=_MAX_NUMBER, description="Only of this number, in any usual spelling.")
    call_id: str = Field("", max_length=_MAX_NAME, description="Only of this call.")
    order: Literal["oldest", "newest"] = Field("oldest", description="Which come first, by when they were settled.")


def shown_transfer(one: SettledTransfer, who: Token) -> TransferShown:
    """As this token may see it."""
    is_dialer = who.scope is Scope.DIALER
    claim = Claim(one.counts_as, one.talk_ms > 0, one.by_minute)
    of_person = {name: getattr(one, name) for name in ("call_id", "phone", "dialer", "sip_call_id")}
    return TransferShown(
        **disclosed(of_person, Reader(who.scope), claim),
        transfer=one.transfer,
        campaign=one.campaign,
        buyer=one.buyer,
        started_at=moment(one.started_utc_us),
        dialout_at=None if one.dialout_utc_us is None else moment(one.dialout_utc_us),
        ended_at=moment(one.closed_utc_us),
        verdict=Verdict(one.verdict),
        reason=Reason(one.reason),
        counts_as=CountsAs(one.counts_as),
        attempt_ms=one.attempt_ms,
        talk_ms=one.talk_ms,
        buffer_ms=None if is_dialer else one.buffer_ms,
        terms="" if is_dialer or not one.terms_name else f"{one.terms_name} v{one.terms_version}",
    )


COLUMNS = tuple(TransferShown.model_fields)


def cells(one: TransferShown) -> list[Any]:
    return [getattr(one, name) for name in COLUMNS]


def moment(utc_us: int) -> datetime:
    """To the microsecond, so that what is shown can be asked for."""
    return _EPOCH + timedelta(microseconds=utc_us)


def microseconds(at: datetime | None) -> int | None:
    """An instant as the store has it."""
    return None if at is None else (at - _EPOCH) // timedelta(microseconds=1)
