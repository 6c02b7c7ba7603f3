"""What the routes for buyers and endpoints take and give: the fields of the book file, with its descriptions."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path as FilePath
from typing import Annotated, Any, get_args, get_origin

from fastapi import Path
from pydantic import BaseModel, Field, create_model

from book.model import Buyer, BuyerState, Endpoint, Stop
from book.sections import BuyerEntry, CapsEntry, EndpointEntry
from meter.book.sql.editing import FILES, SECRET, BuyerRecord, Raw, buffer_ms, raw_buyer, raw_endpoint
from portal.http.bodies import Body
from portal.http.paging import Next
from portal.http.tokens import Scope, Token

_SLUG = r"^[a-z0-9][a-z0-9_-]{0,63}$"
OF_BUYER = ("buffer_ms", "terms_version")  # what is shown and not a field of the book; of a body it is left unread
OF_ENDPOINT = ("secure", "has_password")

EndpointName = Annotated[str, Path(pattern=_SLUG, description="Name of the endpoint.")]


def _shown(model: type[BaseModel], **own: Any) -> dict[str, Any]:
    """The fields of a shown model: those of a book entry but its password, none of them optional."""
    return {
        name: own.get(name) or (_kind(field.annotation), Field(description=field.description))
        for name, field in model.model_fields.items()
        if name != SECRET
    }


def _kind(annotation: Any) -> Any:
    if annotation in (bool, int, CapsEntry):
        return annotation
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return annotation
    if FilePath in get_args(annotation):
        return str
    return list[str] if get_origin(annotation) is tuple else str


EndpointShown: type[BaseModel] = create_model(
    "EndpointShown",
    __doc__="An endpoint with the fields of the book file, without its password. Of files a buyer sees the name only.",
    **_shown(EndpointEntry),
    secure=(bool, Field(description="TLS, verified, with SRTP mandatory: it leaves the buffer.")),
    has_password=(bool, Field(description="There is a digest password.")),
)
BuyerShown: type[BaseModel] = create_model(
    "BuyerShown",
    __doc__="A buyer with the fields of the book file, passwords left out. It may be sent back as it is, or changed.",
    **_shown(
        BuyerEntry,
        state=(
            BuyerState,
            Field(description="`active`, `paused`, `on_hold` or `cancelled`; of a body only a new one's."),
        ),
        endpoints=(list[EndpointShown], Field(description="All ring at once.")),  # type: ignore[valid-type]
    ),
    buffer_ms=(int, Field(description="Buffer of its transfers: above 0 where every endpoint that rings is secure.")),
    terms_version=(int, Field(description="Version of its terms in force; 0: none is yet.")),
)


class BuyerPut(BuyerEntry):
    """A buyer as the book file has it. A password that is left out stays where the endpoint's user name does."""

    name: str = Field("", description="As in the path, or left out.")


class EndpointPut(EndpointEntry):
    """An endpoint as the book file has it. A password that is left out stays where the user name does."""

    name: str = Field("", description="As in the path, or left out.")


class StateChange(Body):
    """Why a buyer is paused or resumed."""

    reason: str = Field("", max_length=500, description="Kept beside the change.")


class BuyerLine(BaseModel):
    """A buyer in short."""

    name: str
    title: str
    state: BuyerState
    terms: str = Field(description="Name of the profile.")
    terms_version: int
    endpoints: int
    buffer_ms: int


class Buyers(BaseModel):
    """A page of buyers, by name."""

    buyers: list[BuyerLine]
    next: Next


class BuyerSaved(BaseModel):
    """What a change of a buyer came to."""

    changed: bool = Field(description="False: it was so already.")
    book_version: int = Field(description="Of the book, afterwards; routers look at it twice a second.")
    warnings: list[str] = Field(description="What works and is seldom meant.")
    buyer: BuyerShown  # type: ignore[valid-type]


class EndpointSaved(BaseModel):
    """What a change of an endpoint came to."""

    changed: bool
    book_version: int
    warnings: list[str]
    endpoint: EndpointShown  # type: ignore[valid-type]


class Endpoints(BaseModel):
    """A buyer's endpoints, in their order."""

    endpoints: list[EndpointShown]  # type: ignore[valid-type]


class StateShown(BaseModel):
    """A buyer's state."""

    buyer: str
    before: BuyerState
    state: BuyerState = Field(description="Now: it follows from `stops`.")
    stops: list[Stop] = Field(description="What stands in the way of serving it; each is ended by its own cause.")
    at: datetime


BODIES: tuple[type[BaseModel], ...] = (BuyerPut, EndpointPut, StateChange)


def buyer_line(kept: BuyerRecord) -> BuyerLine:
    return BuyerLine(
        name=kept.buyer.name,
        title=kept.buyer.title,
        state=kept.state,
        terms=kept.buyer.terms.name,
        terms_version=kept.terms_version,
        endpoints=len(kept.buyer.endpoints),
        buffer_ms=buffer_ms(kept.buyer),
    )


def shown_buyer(kept: BuyerRecord, token: Token) -> Raw:
    """The buyer as `BuyerShown` declares it, without what this token may not see."""
    raw = raw_buyer(kept.buyer, secrets=False)
    endpoints = [shown_endpoint(endpoint, token) for endpoint in kept.buyer.endpoints]
    more = {"state": kept.state.value, "buffer_ms": buffer_ms(kept.buyer), "terms_version": kept.terms_version}
    return {**raw, **more, "endpoints": endpoints}


def shown_endpoint(endpoint: Endpoint, token: Token) -> Raw:
    """The endpoint as `EndpointShown` declares it, without what this token may not see."""
    raw = dict.fromkeys(FILES, "") | raw_endpoint(endpoint, secrets=False)
    if token.scope is not Scope.OPERATOR:
        raw |= {name: FilePath(raw[name]).name for name in FILES}
    return raw | {"secure": endpoint.secure, "has_password": bool(endpoint.password)}


def given_buyer(raw: Raw, name: str) -> Raw:
    """The body of a request as a book entry: fields that are only shown, and empty file names, are left out."""
    endpoints = raw.get("endpoints", [])
    if isinstance(endpoints, list):
        endpoints = [given_endpoint(endpoint, "") if isinstance(endpoint, dict) else endpoint for endpoint in endpoints]
    return {**_less(raw, OF_BUYER), "name": raw.get("name") or name, "endpoints": endpoints}


def given_endpoint(raw: Raw, name: str) -> Raw:
    """The body of a request for an endpoint as a book entry, likewise; `name` empty: its name stays as it is."""
    empty = [key for key in FILES if raw.get(key) == ""]
    fields = _less(raw, (*OF_ENDPOINT, *empty))
    return {**fields, "name": raw.get("name") or name} if name else fields


def endpoint_of(buyer: Buyer, name: str) -> Endpoint | None:
    """One of the buyer's endpoints; None where there is none of that name."""
    return next((endpoint for endpoint in buyer.endpoints if endpoint.name == name), None)


def _less(raw: Raw, names: tuple[str, ...]) -> Raw:
    return {key: value for key, value in raw.items() if key not in names}
