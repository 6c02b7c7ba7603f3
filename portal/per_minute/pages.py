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
    InteractionRefusal,
    RatingKind,
)
from meter.per_minute.sql.interactions import Interaction
from meter.text.hostile import one_line
from meter.text.links import BadLinkError, LinkOptions, read_interaction_token, read_rating_token
from meter.text.localised import money_text, when_text
from portal.http.access import client
from portal.http.link_pages import MAX_TOKEN, NoPageError, as_page, read_form
from portal.http.pages import Pages
from portal.http.services import services
from portal.per_minute.service import PerMinuteService

_BY = "link"  # who rated: whoever has the link
_WORDS = ("1 (poor)", "2", "3", "4", "5 (very good)")
_WHAT = {Channel.CALL: "call", Channel.EMAIL: "e-mail", Channel.CHAT: "chat"}
_RATED_BY = {RatingKind.QUALITY: "Quality control", RatingKind.CALLER: "Who was served"}

_log = structlog.get_logger("portal")
routes = APIRouter(include_in_schema=False)
_pages = Pages("portal.per_minute")
_Reader = Callable[[LinkOptions, str], tuple[str, str]]


@routes.get("/rate/{token}")
@as_page
async def get_rating_page(request: Request, token: str) -> Response:
    """The question, with what was answered before."""
    per_minute, interaction = await _opened(request, token, read_rating_token)
    last = interaction.last(RatingKind.CALLER)
    answer = (str(last.rating), last.words) if last else ("", "")
    return await _rating_page(per_minute, interaction, answer, is_filed=last is not None)


@routes.post("/rate/{token}")
@as_page
async def post_rating_page(request: Request, token: str) -> Response:
    """File the caller's rating; the page again, with what is wrong, where it cannot be."""
    per_minute, interaction = await _opened(request, token, read_rating_token)
    form = await read_form(request, ("rating", "words"))
    rating = int(form["rating"]) if form["rating"] in map(str, range(LEAST, MOST + 1)) else 0
    words = form["words"].replace("\r\n", "\n")
    try:
        await per_minute.rate(interaction.id, RatingKind.CALLER, (rating, words, _BY))
    except InteractionError as error:
        return await _rating_page(per_minute, interaction, (form["rating"], form["words"]), error, is_filed=False)
    _log.info("rated", interaction=interaction.id, buyer=interaction.buyer, rating=rating, by=_BY)
    return Response(status_code=303, headers={"Location": f"./{token}", "Referrer-Policy": "no-referrer"})


@routes.get("/interaction/{token}")
@as_page
async def get_interaction_page(request: Request, token: str) -> Response:
    """The interaction, as its buyer may read it."""
    per_minute, interaction = await _opened(request, token, read_interaction_token)
    contract = await per_minute.contract(interaction.buyer)
    return _pages.page(
        "interaction.html.jinja",
        buyer=_title(contract),
        what=_WHAT[interaction.kind].capitalize(),
        facts=_facts(interaction, contract),
        text=[one_line(line, MAX_TEXT) for line in interaction.text.splitlines()],
        ratings=[
            {
                "by": _RATED_BY[rating.kind],
                "rating": f"{rating.rating} of {MOST}",
                "at": _when(rating.at_utc_us, contract),
                "words": _lines(rating.words),
            }
            for rating in reversed(interaction.ratings)
        ],
    )


async def _opened(request: Request, token: str, read: _Reader) -> tuple[PerMinuteService, Interaction]:
    """The interaction that the token names. Raises NoPageError, also where no links are configured."""
    per_minute = services(request).find(PerMinuteService)
    if per_minute is None or per_minute.links is None or len(token) > MAX_TOKEN:
        raise NoPageError
    try:
        name, buyer = read(per_minute.links, token)
        if not buyer:
            raise NoPageError  # to `find` it would mean anybody's
        return per_minute, await per_minute.find(name, buyer)
    except (BadLinkError, InteractionError) as error:
        _log.warning("bad_link", source=client(request))
        raise NoPageError from error


async def _rating_page(
    per_minute: PerMinuteService,
    interaction: Interaction,
    answer: tuple[str, str],
    error: InteractionError | None = None,
    *,
    is_filed: bool,
) -> HTMLResponse:
    contract = await per_minute.contract(interaction.buyer)
    rating, words = answer
    return _pages.page(
        "rating.html.jinja",
        200 if error is None else 409 if error.refusal is InteractionRefusal.FULL else 422,
        buyer=_title(contract),
        what=_WHAT[interaction.kind],
        when=_when(interaction.received_utc_us, contract),
        filed=is_filed,
        error=_shown_error(error) if error else None,
        choices=[(str(value), text) for value, text in enumerate(_WORDS, LEAST)],
        rating=rating,
        words=words,
        most_words=MAX_WORDS,
    )


def _shown_error(error: InteractionError) -> dict[str, str]:
    if error.refusal is InteractionRefusal.FULL:
        return {"field": "", "text": "This was answered too often. Your last answer holds."}
    texts = {"rating": "Choose one of the five.", "words": f"Write at most {MAX_WORDS:,} characters."}
    return {"field": error.field, "text": texts.get(error.field, error.detail)}


def _title(contract: Contract) -> str:
    return one_line(contract.buyer.title or contract.buyer.name, 200)


def _when(utc_us: int, contract: Contract) -> str:
    return when_text(utc_us, ZoneInfo(contract.terms_at(utc_us).time_zone), contract.buyer.locale)


def _lines(text: str) -> list[str]:
    return [line for part in text.splitlines() if (line := one_line(part))]


def _facts(interaction: Interaction, contract: Contract) -> list[tuple[str, str]]:
    """Name and value of each fact of the interaction that has a value."""
    cost: Any = (
        money_text(interaction.amount_minor, interaction.currency, contract.buyer.locale)
        if interaction.currency
        else ""
    )
    answered, ended = interaction.started_utc_us, interaction.ended_utc_us
    rang = "" if interaction.ring_to_answer_ms is None else _seconds(interaction.ring_to_answer_ms)
    is_call = interaction.kind is Channel.CALL
    facts = [
        ("Id", interaction.id),
        ("Reference", interaction.reference if not is_call else ""),
        ("Customer", interaction.customer if knows_person(Reader.BUYER, interaction.claim) else ""),
        ("Agent", interaction.agent),
        ("Came in", _when(interaction.received_utc_us, contract)),
        ("Answered" if is_call else "Begun", _when(answered, contract) if answered is not None else "nobody answered"),
        ("Ended", _when(ended, contract) if ended is not None else ""),
        ("Rang for", rang if is_call else ""),
        ("Longest hold", _seconds(interaction.longest_hold_ms) if is_call and answered is not None else ""),
        ("Time", _seconds(interaction.handled_ms)),
        ("Resolved", "yes" if interaction.resolved else "no"),
        ("Started increments", str(interaction.increments)),
        ("Cost", cost),
        ("Recording", interaction.recording),
    ]
    return [(name, one_line(value, 320)) for name, value in facts if value]


def _seconds(duration_ms: int) -> str:
    return f"{duration_ms / 1000:.3f} s"
