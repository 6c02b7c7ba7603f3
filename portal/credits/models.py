"""What the routes for credits take and give."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Path
from pydantic import BaseModel, Field

from meter.credits.rules import MAX_EXPLANATION, MAX_REVIEWER, MAX_WORDS, Reason
from meter.credits.sql.reading import Request
from portal.http.bodies import Body
from portal.http.paging import Next, PageQuery
from portal.http.tokens import Scope, Token
from portal.http.values import Count, Moment, whole_second

MAX_ID = 1 << 53  # what JSON's numbers hold exactly (RFC 8259 section 6)
_MAX_NAME = 64

RequestId = Annotated[int, Path(ge=1, le=MAX_ID, description="Id of the request.")]


class CreditAsk(Body):
    """A request for a credit."""

    transfer: str = Field(min_length=1, max_length=_MAX_NAME, description="The billed call, by its transfer id.")
    reason: str = Field(min_length=1, max_length=_MAX_NAME, description="One of `GET /v1/credit-reasons`.")
    words: str = Field(min_length=1, max_length=MAX_WORDS, description="What was wrong with the call, in a few words.")


class CreditDecision(Body):
    """What a reviewer decides."""

    decision: Literal["approve", "decline"] = Field(description="`approve` or `decline`.")
    explanation: str = Field(min_length=1, max_length=MAX_EXPLANATION, description="Why; the buyer gets it by e-mail.")
    reviewer: str = Field(
        min_length=1, max_length=MAX_REVIEWER, description="Who decides; of a re-review another than before."
    )


class CreditReReview(Body):
    """Why a decided request is to be looked at again."""

    words: str = Field(min_length=1, max_length=MAX_WORDS, description="What speaks against the decision.")


class CreditShown(BaseModel):
    """A request, or the re-review of one. Buyers are not told `asked_by` and `decided_by`."""

    id: int
    transfer: str
    call_id: str = Field(description="Shared by the transfers of one prospect.")
    buyer: str
    re_review_of: Count = Field(description="The request that is reviewed again; null: this is one itself.")
    reason: str
    words: str
    asked_at: datetime
    asked_by: str
    state: str = Field(description="`open`, `approved` or `declined`.")
    place: int = Field(description="In line, from 1: reviews are first in, first out; 0 once it is decided.")
    decided_at: Moment
    decided_by: str
    explanation: str
    amount_minor: int = Field(
        description="What the decision credits, in minor units; negative where a re-review takes a credit back."
    )
    currency: str = Field(description="ISO 4217; empty where there is no amount.")


class Credits(BaseModel):
    """A page of requests: open ones alone in the order of the line, else the newest first."""

    credits: list[CreditShown]
    next: Next


class CreditQuery(PageQuery):
    """Which requests."""

    state: Literal["", "open", "approved", "declined"] = Field("", description="Only these.")
    buyer: str = Field("", max_length=_MAX_NAME, description="Only this buyer's; a buyer's token sees its own alone.")
    transfer: str = Field("", max_length=_MAX_NAME, description="Only of this transfer.")
    call_id: str = Field("", max_length=_MAX_NAME, description="Only of this call.")


class ReasonShown(BaseModel):
    """A reason to choose from."""

    reason: str
    title: str
    valid: bool = Field(description="Such a call is a valid one: choosing it gets the explanation, not a request.")
    explanation: str = Field(description="Of those that are valid; else empty.")


class Reasons(BaseModel):
    """The reasons of a business category, in the order in which they are to be shown."""

    category: str
    reasons: list[ReasonShown]


COLUMNS = tuple(CreditShown.model_fields)
BODIES: tuple[type[Body], ...] = (CreditAsk, CreditDecision, CreditReReview)


def shown_credit(credit: Request, token: Token) -> CreditShown:
    """The request without what this token may not see."""
    inside = token.scope is Scope.OPERATOR
    return CreditShown(
        id=credit.id,
        transfer=credit.transfer,
        call_id=credit.call_id,
        buyer=credit.buyer,
        re_review_of=credit.first,
        reason=credit.reason,
        words=credit.words,
        asked_at=whole_second(credit.asked_utc_us),
        asked_by=credit.asked_by if inside else "",
        state=credit.state.value,
        place=credit.place,
        decided_at=None if credit.decided_utc_us is None else whole_second(credit.decided_utc_us),
        decided_by=(credit.decided_by or "") if inside else "",
        explanation=credit.explanation or "",
        amount_minor=credit.amount_minor or 0,
        currency=credit.currency or "",
    )


def shown_reasons(category: str, reasons: dict[str, Reason]) -> Reasons:
    return Reasons(
        category=category,
        reasons=[
            ReasonShown(reason=name, title=reason.title, valid=reason.valid, explanation=reason.explanation.strip())
            for name, reason in reasons.items()
        ],
    )
