"""The pages behind signed links of per-minute service: rating an interaction, and looking at one from a report.

As with credits (`portal.credits.pages`) the token in the address is the authority. Who may rate sees nothing but for
whom and when; who has the buyer's link sees the interaction with its text. Opening a page changes nothing; filing
answers with a redirect to the page, which then says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from book.model import Channel
from facts.disclosure import Reader, knows_person
from meter.book.sql.contracts import Contract
from meter.per_minute.interactions import (
    LEAST,
    MAX_TEXT,
    MAX_WORDS,
    MOST,
    InteractionError,
    RatingKind,
    Refusal,
)
from meter.per_minute.sql.interactions import Interaction
from meter.text.hostile import one_line
from meter.text.links import BadLinkError, LinkOptions, read_interaction_token, read_rating_token
from meter.text.localised import money_text, when_text
from portal.http.access import client, services
from portal.http.link_pages import MAX_TOKEN, NoPageError, as_page, read_form
from portal.http.pages import page
from portal.per_minute.service import ServiceOffice

_BY = "link"  # who rated: whoever has the link
_WORDS = ("1 (poor)", "2", "3", "4", "5 (very good)")
_WHAT = {Channel.CALL: "call", Channel.EMAIL: "e-mail", Channel.CHAT: "chat"}
_RATED_BY = {RatingKind.QUALITY: "Quality control", RatingKind.CALLER: "Who was served"}

_log = structlog.get_logger("portal")
service_pages = APIRouter(include_in_schema=False)
_Reader = Callable[[LinkOptions, str], tuple[str, str]]


@service_pages.get("/rate/{token}")
@as_page
async def get_rating_page(request: Request, token: str) -> Response:
    """The question, with what was answered before."""
    office, found = await _opened(request, token, read_rating_token)
    last = found.last(RatingKind.CALLER)
    said = (str(last.rating), last.words) if last else ("", "")
    return await _rating_page(office, found, said, is_filed=last is not None)


@service_pages.post("/rate/{token}")
@as_page
async def post_rating_page(request: Request, token: str) -> Response:
    """File the caller's rating; the page again, with what is wrong, where it cannot be."""
    office, found = await _opened(request, token, read_rating_token)
    form = await read_form(request, ("rating", "words"))
    rating = int(form["rating"]) if form["rating"] in map(str, range(LEAST, MOST + 1)) else 0
    words = form["words"].replace("\r\n", "\n")
    try:
        await office.rate(found.id, RatingKind.CALLER, (rating, words, _BY))
    except InteractionError as error:
        return await _rating_page(office, found, (form["rating"], form["words"]), error, is_filed=False)
    _log.info("rated", interaction=found.id, buyer=found.buyer, rating=rating, by=_BY)
    return Response(status_code=303, headers={"Location": f"./{token}", "Referrer-Policy": "no-referrer"})


@service_pages.get("/interaction/{token}")
@as_page
async def get_interaction_page(request: Request, token: str) -> Response:
    """The interaction, as its buyer may read it."""
    office, found = await _opened(request, token, read_interaction_token)
    contract = await office.contract(found.buyer)
    return page(
        "interaction.html.jinja",
        buyer=_title(contract),
        what=_WHAT[found.kind].capitalize(),
        facts=_facts(found, contract),
        text=[one_line(line, MAX_TEXT) for line in found.text.splitlines()],
        ratings=[
            {
                "by": _RATED_BY[one.kind],
                "rating": f"{one.rating} of {MOST}",
                "at": _when(one.at_utc_us, contract),
                "words": _lines(one.words),
            }
            for one in reversed(found.ratings)
        ],
    )


async def _opened(request: Request, token: str, read: _Reader) -> tuple[ServiceOffice, Interaction]:
    """What the token leads to. Raises NoPageError, also where no links are configured."""
    office = services(request).service
    if office is None or office.links is None or len(token) > MAX_TOKEN:
        raise NoPageError
    try:
        name, buyer = read(office.links, token)
        if not buyer:
            raise NoPageError  # to `find` it would mean anybody's
        return office, await office.find(name, buyer)
    except (BadLinkError, InteractionError) as error:
        _log.warning("bad_link", source=client(request))
        raise NoPageError from error


async def _rating_page(
    office: ServiceOffice,
    found: Interaction,
    said: tuple[str, str],
    error: InteractionError | None = None,
    *,
    is_filed: bool,
) -> HTMLResponse:
    contract = await office.contract(found.buyer)
    rating, words = said
    return page(
        "rating.html.jinja",
        200 if error is None else 409 if error.refusal is Refusal.FULL else 422,
        buyer=_title(contract),
        what=_WHAT[found.kind],
        when=_when(found.received_utc_us, contract),
        filed=is_filed,
        error=_said_error(error) if error else None,
        choices=[(str(value), text) for value, text in enumerate(_WORDS, LEAST)],
        rating=rating,
        words=words,
        most_words=MAX_WORDS,
    )


def _said_error(error: InteractionError) -> dict[str, str]:
    if error.refusal is Refusal.FULL:
        return {"field": "", "text": "This was answered too often. Your last answer holds."}
    texts = {"rating": "Choose one of the five.", "words": f"Write at most {MAX_WORDS:,} characters."}
    return {"field": error.field, "text": texts.get(error.field, error.detail)}


def _title(contract: Contract) -> str:
    return one_line(contract.buyer.title or contract.buyer.name, 200)


def _when(utc_us: int, contract: Contract) -> str:
    return when_text(utc_us, ZoneInfo(contract.terms_at(utc_us).time_zone), contract.buyer.locale)


def _lines(text: str) -> list[str]:
    return [line for one in text.splitlines() if (line := one_line(one))]


def _facts(found: Interaction, contract: Contract) -> list[tuple[str, str]]:
    """Name and value of what is known of it."""
    cost: Any = money_text(found.amount_minor, found.currency, contract.buyer.locale) if found.currency else ""
    answered, ended = found.started_utc_us, found.ended_utc_us
    rang = "" if found.ring_to_answer_ms is None else _seconds(found.ring_to_answer_ms)
    is_call = found.kind is Channel.CALL
    facts = [
        ("Id", found.id),
        ("Reference", found.reference if not is_call else ""),
        ("Customer", found.customer if knows_person(Reader.BUYER, found.claim) else ""),
        ("Agent", found.agent),
        ("Came in", _when(found.received_utc_us, contract)),
        ("Answered" if is_call else "Begun", _when(answered, contract) if answered is not None else "nobody answered"),
        ("Ended", _when(ended, contract) if ended is not None else ""),
        ("Rang for", rang if is_call else ""),
        ("Longest hold", _seconds(found.longest_hold_ms) if is_call and answered is not None else ""),
        ("Time", _seconds(found.handled_ms)),
        ("Resolved", "yes" if found.resolved else "no"),
        ("Started increments", str(found.increments)),
        ("Cost", cost),
        ("Recording", found.recording),
    ]
    return [(name, one_line(value, 320)) for name, value in facts if value]


def _seconds(duration_ms: int) -> str:
    return f"{duration_ms / 1000:.3f} s"
