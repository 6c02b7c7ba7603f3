"""What the routes for interactions, ratings and daily reports take and give."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import AwareDatetime, BaseModel, Field

from facts.disclosure import Reader, disclosed
from meter.per_minute.interactions import MAX_BY, MAX_CUSTOMER, MAX_REFERENCE, MAX_TEXT, MAX_WORDS, MOST
from meter.per_minute.sql.interactions import Interaction
from meter.per_minute.sql.reports import Report
from portal.http.bodies import Body
from portal.http.paging import MAX_CURSOR, Next, PageQuery
from portal.http.tokens import Scope, Token
from portal.http.values import Count, Moment, whole_second

_MAX_NAME = 64
_INSTANT = "An instant with its offset, such as `2026-06-02T10:00:00-04:00`."

InteractionId = Annotated[str, Path(min_length=1, max_length=_MAX_NAME, description="Id of the interaction.")]
ReportDay = Annotated[str, Path(pattern=r"^\d{4}-\d{2}-\d{2}$", description="The day on which it ends.")]


class InteractionReport(Body):
    """An e-mail or a chat that was served. The same again changes nothing; calls are known from their facts."""

    buyer: str = Field(min_length=1, max_length=_MAX_NAME, description="For whom; it pays by the minute.")
    kind: Literal["email", "chat"] = Field(description="`email` or `chat`.")
    reference: str = Field(
        min_length=1,
        max_length=MAX_REFERENCE,
        description="Yours, one for each; the same one is kept and charged once.",
    )
    received_at: str = Field(max_length=_MAX_NAME, description=f"When it came in. {_INSTANT}")
    started_at: str = Field(max_length=_MAX_NAME, description="When work on it began, likewise.")
    ended_at: str = Field(max_length=_MAX_NAME, description="When it was answered, likewise; not in the future.")
    resolved: bool = Field(description="Whether nothing is left to do.")
    text: str = Field("", max_length=MAX_TEXT, description="What the buyer is to read of it.")
    customer: str = Field(
        "", max_length=MAX_CUSTOMER, description="Who was served; an address may be asked to rate it."
    )
    agent: str = Field("", max_length=_MAX_NAME, description="Who served.")


class RatingReport(Body):
    """A rating by quality control; the last one holds."""

    rating: int = Field(ge=1, le=MOST, description="1 (poor) to 5 (very good).")
    by: str = Field(min_length=1, max_length=MAX_BY, description="Who rates.")
    words: str = Field("", max_length=MAX_WORDS, description="A few words on why.")


class RatingShown(BaseModel):
    """A rating. A buyer is not told who of quality control gave it."""

    kind: str = Field(description="`quality` or `caller`.")
    rating: int
    words: str
    by: str
    at: datetime


class InteractionShown(BaseModel):
    """An interaction without its text."""

    id: str
    buyer: str
    kind: str = Field(description="`call`, `email` or `chat`.")
    reference: str = Field(description="Of a call its transfer.")
    agent: str = Field(description="Of a call the endpoint that answered.")
    customer: str = Field(description="Who was served; of a call nobody answered the operator's alone.")
    received_at: datetime
    started_at: Moment = Field(description="Answered, or work begun; null: nobody answered.")
    ended_at: Moment
    handled_ms: int
    resolved: bool
    ring_to_answer_ms: Count = Field(description="Of a call from its first 18x; not answered: until the caller left.")
    longest_hold_ms: int
    recording: str = Field(description="Name of the recording's file; empty: none.")
    increments: int = Field(description="Started increments that it is charged for.")
    amount_minor: int
    currency: str
    rating: Count = Field(description="The one that holds: quality control's, else the caller's.")


class InteractionDetail(InteractionShown):
    """An interaction with its text and all its ratings, oldest first."""

    text: str
    ratings: list[RatingShown]


class Interactions(BaseModel):
    """A page of interactions, the newest first."""

    interactions: list[InteractionShown]
    next: Next


class InteractionQuery(PageQuery):
    """Which interactions."""

    buyer: str = Field("", max_length=_MAX_NAME, description="Whose; for the operator, who has to say it.")
    kind: Literal["", "call", "email", "chat"] = Field("", description="Only these.")
    since: AwareDatetime | None = Field(None, alias="from", description=f"Came in from then on. {_INSTANT}")
    until: AwareDatetime | None = Field(None, alias="to", description="Came in before then, likewise.")


class ReportShown(BaseModel):
    """A daily report, its figures in `body`: exactly what was issued."""

    buyer: str
    day: str
    from_at: datetime
    until_at: datetime
    issued_at: datetime
    digest: str = Field(description="SHA-256 of the body in sorted JSON, hex.")
    body: dict[str, Any]


class ReportLine(BaseModel):
    """A daily report, in short."""

    buyer: str
    day: str
    interactions: int
    resolved: int
    average_rating_x100: Count = Field(description="Of the ratings filed in its time; null: none was.")
    issued_at: datetime


class Reports(BaseModel):
    """A page of daily reports, the newest first."""

    reports: list[ReportLine]
    next: Next


class ReportQuery(BaseModel):
    """Which reports."""

    buyer: str = Field("", max_length=_MAX_NAME, description="Whose; a buyer's token sees its own alone.")
    before: str = Field("", pattern=r"^(\d{4}-\d{2}-\d{2})?$", description="Only of days before this one.")
    cursor: str = Field("", max_length=MAX_CURSOR, description="`next` of the page before; empty: the first.")
    limit: int = Field(31, ge=1, le=93, description="How many; 31 by default.")


COLUMNS = tuple(InteractionShown.model_fields)
BODIES: tuple[type[Body], ...] = (InteractionReport, RatingReport)


def shown_interaction(interaction: Interaction, token: Token) -> InteractionShown:
    """The interaction without its text, and without what this token may not see."""
    return InteractionShown(**_fields(interaction, token))


def shown_detail(interaction: Interaction, token: Token) -> InteractionDetail:
    """The interaction with its text and ratings, without what this token may not see."""
    inside = token.scope is Scope.OPERATOR
    ratings = [
        RatingShown(
            kind=rating.kind.value,
            rating=rating.rating,
            words=rating.words,
            by=rating.by if inside else "",
            at=whole_second(rating.at_utc_us),
        )
        for rating in interaction.ratings
    ]
    return InteractionDetail(**_fields(interaction, token), text=interaction.text, ratings=ratings)


def shown_report(report: Report) -> ReportShown:
    return ReportShown(
        buyer=report.buyer,
        day=report.day,
        from_at=whole_second(report.from_utc_us),
        until_at=whole_second(report.until_utc_us),
        issued_at=whole_second(report.issued_utc_us),
        digest=report.digest,
        body=report.body,
    )


def report_line(report: Report) -> ReportLine:
    names = ("interactions", "resolved", "average_rating_x100")
    return ReportLine(
        buyer=report.buyer,
        day=report.day,
        issued_at=whole_second(report.issued_utc_us),
        **{name: report.body[name] for name in names},
    )


_SAME = ("id", "buyer", "reference", "agent", "customer", "handled_ms", "resolved", "ring_to_answer_ms")
_SAME_TOO = ("longest_hold_ms", "recording", "increments", "amount_minor", "currency")


def _fields(interaction: Interaction, token: Token) -> dict[str, Any]:
    same = {name: getattr(interaction, name) for name in (*_SAME, *_SAME_TOO)}
    return {
        **disclosed(same, Reader(token.scope), interaction.claim),
        "kind": interaction.kind.value,
        "received_at": whole_second(interaction.received_utc_us),
        "started_at": None if interaction.started_utc_us is None else whole_second(interaction.started_utc_us),
        "ended_at": None if interaction.ended_utc_us is None else whole_second(interaction.ended_utc_us),
        "rating": interaction.rating.rating if interaction.rating else None,
    }
