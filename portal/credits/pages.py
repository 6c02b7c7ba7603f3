"""The page behind the link in a failed lead's e-mail: what happened to the call, and a form to ask for a credit.

The signed token in the address is the authority: it names one call and its buyer, and holds nothing else, so there is
no session to be forged upon. Opening the page changes nothing, as scanners of mail open links too. Filing answers with
a redirect to the page, which then shows the request: to load it again does not ask again. What the lead and the network
said is hostile: it goes through `meter.text.hostile` and is escaped.
"""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import structlog
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import HTMLResponse, Response

from facts.disclosure import Reader, claim_of, knows_person
from facts.fact import Fact, Kind, first_of
from facts.ladder import LegTimes, build_ladder
from facts.start_payload import lead_fields, transfer_started
from meter.credits.rules import MAX_WORDS, CreditError, CreditRefusal, Reason, State, Window
from meter.credits.sql.reading import LEVELS, CreditCandidate, Request
from meter.credits.sql.requests import CreditApplication
from meter.text.hostile import fields_of, one_line
from meter.text.links import BadLinkError, read_credit_token
from meter.text.localised import date_text, money_text, when_text
from portal.credits.service import CreditsService
from portal.http.access import client
from portal.http.link_pages import MAX_TOKEN, NoPageError, as_page, read_form
from portal.http.pages import Pages
from portal.http.services import services

_ERRORS = {  # in the words of the form, where these are others than the API's
    CreditRefusal.UNKNOWN_REASON: "Choose one of the reasons.",
    CreditRefusal.BAD_WORDS: f"Write what was wrong, in 1 to {MAX_WORDS:,} characters.",
}

_log = structlog.get_logger("portal")
routes = APIRouter(include_in_schema=False)
_pages = Pages("portal.credits")


@routes.get("/credit/{token}")
@as_page
async def get_page(request: HttpRequest, token: str) -> Response:
    """The call, the form or what became of the request, and the explanations of valid calls."""
    credits_, transfer, buyer = _opened(request, token)
    return _page(credits_, await credits_.see(transfer, buyer), _Form())


@routes.post("/credit/{token}")
@as_page
async def post_page(request: HttpRequest, token: str) -> Response:
    """File the request; the page again, with what is wrong, where it cannot be."""
    credits_, transfer, buyer = _opened(request, token)
    form = _Form(**await read_form(request, ("reason", "words")))
    try:
        made = await credits_.ask(
            transfer, buyer, CreditApplication(form.words, "link", f"link:{client(request)}", form.reason)
        )
    except CreditError as error:
        seen = await credits_.see(transfer, buyer)
        return _page(credits_, seen, form, error)
    _log.info("credit_asked", request=made.id, buyer=buyer, transfer=transfer, by="link")
    return Response(status_code=303, headers={"Location": f"./{token}", "Referrer-Policy": "no-referrer"})


class _Form:
    """What came in the fields of the form."""

    def __init__(self, reason: str = "", words: str = "") -> None:
        self.reason, self.words = reason, words


def _opened(request: HttpRequest, token: str) -> tuple[CreditsService, str, str]:
    """Transfer and buyer of the token. Raises NoPageError, also where no links are configured."""
    credits_ = services(request).find(CreditsService)
    if credits_ is None or credits_.links is None or len(token) > MAX_TOKEN:
        raise NoPageError
    try:
        transfer, buyer = read_credit_token(credits_.links, token)
    except BadLinkError as error:
        _log.warning("bad_link", source=client(request))
        raise NoPageError from error
    return credits_, transfer, buyer


def _page(
    credits_: CreditsService, seen: CreditCandidate, form: _Form, error: CreditError | None = None
) -> HTMLResponse:
    """The page of a call; with an error 422, or 409 where the request was made meanwhile."""
    buyer, call = seen.contract.buyer, seen.call
    at_us = _dialout_us(seen)
    if at_us is None:
        raise NoPageError
    zone = call.window.zone if call else seen.contract.terms_at(at_us).time_zone
    dates = _Dates(ZoneInfo(zone), buyer.locale)
    asked = bool(seen.requests)
    closed = "" if asked else _closed(call.window if call else None, credits_.clock(), buyer.locale)
    has_form = not asked and not closed
    told = error if error is not None and has_form else None  # else the page says what stands against it
    reasons = credits_.reasons.of(buyer.category)
    return _pages.page(
        "credit.html.jinja",
        200 if error is None else 422 if told else 409,
        buyer=one_line(buyer.title or buyer.name, 200),
        called=dates.long(at_us),
        requests=[_shown_request(credit, credits_, dates) for credit in seen.requests],
        error=_shown_error(told) if told else None,
        closed=closed,
        form=has_form,
        last_day=date_text(call.window.last_day, buyer.locale) if call else "",
        amount=money_text(call.amount_minor, call.currency, buyer.locale) if call else "",
        reasons=[{"name": name, "title": reason.title, "valid": reason.valid} for name, reason in reasons.items()],
        explained=_explained(reasons) if has_form else [],
        reason=form.reason,
        words=form.words,
        most_words=MAX_WORDS,
        **_shown_call(seen),
    )


class _Dates:
    """Instants as text."""

    def __init__(self, zone: ZoneInfo, locale: str) -> None:
        self._zone, self._locale = zone, locale

    def long(self, utc_us: int) -> str:
        return when_text(utc_us, self._zone, self._locale)


def _dialout_us(seen: CreditCandidate) -> int | None:
    if seen.call is not None:
        return seen.call.dialout_utc_us
    return seen.facts[0].utc_us if seen.facts else None


def _closed(window: Window | None, now_utc_us: int, locale: str) -> str:
    if window is None:
        return "This call was not billed, so there is nothing to credit."
    if now_utc_us < window.closes_us:
        return ""
    day = date_text(window.last_day, locale)
    return f"A credit for this call could be asked for until the end of {day}. That day is over."


def _explained(reasons: dict[str, Reason]) -> list[dict[str, str]]:
    return [
        {"title": reason.title, "explanation": reason.explanation.strip()}
        for reason in reasons.values()
        if reason.valid
    ]


def _shown_error(error: CreditError) -> dict[str, str]:
    title = "This is a valid call" if error.refusal is CreditRefusal.VALID_CALL else "Your request was not sent"
    return {"title": title, "text": _ERRORS.get(error.refusal, error.detail), "field": error.field}


def _shown_request(credit: Request, credits_: CreditsService, dates: _Dates) -> dict[str, Any]:
    again = credit.level == LEVELS
    return {
        "id": credit.id,
        "title": f"{'Re-review' if again else 'Your request'} {credit.id}",
        "status": _status(credit),
        "explanation": _lines(credit.explanation or ""),
        "asked": dates.long(credit.asked_utc_us),
        "reason": one_line(credits_.reasons.title(credit.reason), 200),
        "words": _lines(credit.words),
        "decided": dates.long(credit.decided_utc_us) if credit.decided_utc_us is not None else "",
    }


def _status(credit: Request) -> str:
    if credit.state is State.OPEN:
        return f"Number {credit.place} in line. Requests are reviewed in the order in which they came."
    if credit.state is State.APPROVED:
        return "Approved. The invoice of next Tuesday uses the credit."
    return "Declined: the credit is taken back." if (credit.amount_minor or 0) < 0 else "Declined."


def _lines(text: str) -> list[str]:
    return [line for raw in text.splitlines() if (line := one_line(raw))]


def _shown_call(seen: CreditCandidate) -> dict[str, Any]:
    """The facts of the call, as far as they are still there."""
    ladder = build_ladder(seen.facts) if seen.facts else None
    started = first_of(seen.facts, Kind.TRANSFER_STARTED)
    facts: list[tuple[str, str]] = []
    if ladder is not None:
        outcome = ladder.outcome
        facts = [
            ("Transfer", one_line(ladder.transfer, 64)),
            ("Campaign", one_line(transfer_started(started).campaign or "", 64) if started else ""),
            ("Result", f"{outcome.verdict.value} ({outcome.reason.value})".replace("_", " ")),
            ("Counted as", outcome.counts_as.value),
            ("Attempt", f"{_seconds(outcome.attempt_ms)} s"),
            ("Talk", f"{_seconds(outcome.talk_ms)} s"),
            ("Buffer", f"{_seconds(outcome.buffer_ms)} s"),
        ]
    elif seen.call is not None:
        facts = [("Transfer", one_line(seen.call.transfer, 64)), ("Counted as", seen.call.unit)]
    return {
        "facts": [(name, value) for name, value in facts if value],
        "explanation": one_line(ladder.explanation) if ladder else "",
        "legs": [_shown_leg(leg) for leg in ladder.legs] if ladder else [],
        "lead": _lead(started) if knows_person(Reader.BUYER, claim_of(seen.facts)) else [],
    }


def _lead(started: Fact | None) -> list[tuple[str, str]]:
    return fields_of(lead_fields(started)) if started else []


def _shown_leg(leg: LegTimes) -> dict[str, Any]:
    ended_by = "by us" if leg.local else f"by the {leg.ended_by or 'far end'}"
    answer = f"{leg.code or ''} {leg.phrase}".strip()
    how = ", ".join(part for part in (answer, ended_by, leg.reason_header) if part) if leg.ended_ms is not None else ""
    times = [
        ("INVITE sent", _seconds(leg.sent_ms)),
        ("First ringing", _seconds(leg.ringing_ms)),
        ("Answered", _seconds(leg.answered_ms) + (" (too late)" if leg.late else "")),
        ("Ended", _seconds(leg.ended_ms)),
        ("How", one_line(how, 300)),
    ]
    return {
        "name": one_line(leg.name, 64),
        "kind": one_line(leg.kind, 16),
        "times": [time for time in times if time[1]],
    }


def _seconds(duration_ms: int | None) -> str:
    return "-" if duration_ms is None else f"{duration_ms / 1000:.3f}"
