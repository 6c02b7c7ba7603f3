"""What the routes for transfers take and give, and what of a transfer each token may see."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, Field

from facts.disclosure import Claim, Reader, disclosed
from facts.outcome import CountsAs, Reason, Verdict
from meter.settling.sql.transfers import SettledTransfer
from portal.http.paging import Next, PageQuery
from portal.http.tokens import Scope, Token
from portal.http.values import MAX_NAME, Moment, moment

_MAX_NUMBER = 64
_INSTANT = "An instant with its offset, such as `2026-06-02T10:00:00-04:00`"


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
    buyer: str = Field("", max_length=MAX_NAME, description="Only this buyer's.")
    dialer: str = Field("", max_length=MAX_NAME, description="Only this dialer's.")
    campaign: str = Field("", max_length=MAX_NAME, description="Only of this campaign.")
    verdict: Verdict | Literal[""] = Field("", description="Only with this verdict.")
    reason: Reason | Literal[""] = Field("", description="Only for this reason.")
    counts_as: CountsAs | Literal[""] = Field("", description="Only what counts as this.")
    phone: str = Field("", max_length=_MAX_NUMBER, description="Only of this number, in any usual spelling.")
    call_id: str = Field("", max_length=MAX_NAME, description="Only of this call.")
    order: Literal["oldest", "newest"] = Field("oldest", description="Which come first, by when they were settled.")


def shown_transfer(transfer: SettledTransfer, token: Token) -> TransferShown:
    """The transfer without what this token may not see."""
    is_dialer = token.scope is Scope.DIALER
    claim = Claim(transfer.counts_as, transfer.talk_ms > 0, transfer.by_minute)
    of_person = {name: getattr(transfer, name) for name in ("call_id", "phone", "dialer", "sip_call_id")}
    return TransferShown(
        **disclosed(of_person, Reader(token.scope), claim),
        transfer=transfer.transfer,
        campaign=transfer.campaign,
        buyer=transfer.buyer,
        started_at=moment(transfer.started_utc_us),
        dialout_at=None if transfer.dialout_utc_us is None else moment(transfer.dialout_utc_us),
        ended_at=moment(transfer.closed_utc_us),
        verdict=Verdict(transfer.verdict),
        reason=Reason(transfer.reason),
        counts_as=CountsAs(transfer.counts_as),
        attempt_ms=transfer.attempt_ms,
        talk_ms=transfer.talk_ms,
        buffer_ms=None if is_dialer else transfer.buffer_ms,
        terms="" if is_dialer or not transfer.terms_name else f"{transfer.terms_name} v{transfer.terms_version}",
    )


COLUMNS = tuple(TransferShown.model_fields)


def cells(transfer: TransferShown) -> list[Any]:
    return [getattr(transfer, name) for name in COLUMNS]
