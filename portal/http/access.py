"""What every route needs first: the services behind the app, and whether this token may do this."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from meter.journal.sql.leads import LeadStore
from portal.buyers.service import BookOffice
from portal.credits.service import CreditOffice
from portal.documents.service import MoneyOffice
from portal.events.service import EventFeed
from portal.http.problems import ProblemError
from portal.http.rate_limit import Rates
from portal.http.tokens import Scope, Token, TokenBook
from portal.lists.service import Desk
from portal.live.service import LiveView
from portal.per_minute.service import ServiceOffice
from portal.transfers.recordings import RecordingOffice
from portal.trunks.service import TrunkOffice
from portal.webhooks.service import WebhookOffice

T = TypeVar("T")
_log = structlog.get_logger("portal")
_scheme = HTTPBearer(auto_error=False, scheme_name="token", description="A token of `[[portal.tokens]]`.")


@dataclass(frozen=True, slots=True)
class Services:
    """What the API stands on. `availability` asks the router, raising RouterAwayError; `healthy` asks the store."""

    tokens: TokenBook
    leads: LeadStore
    lead_ttl_s: int
    availability: Callable[[str], Awaitable[dict[str, Any]]]
    healthy: Callable[[], Awaitable[bool]]
    lists: Desk
    credits: CreditOffice
    money: MoneyOffice
    service: ServiceOffice | None = None  # None: an app without per-minute service
    book: BookOffice | None = None  # likewise without buyers
    live: LiveView | None = None
    recordings: RecordingOffice | None = None
    feed: EventFeed | None = None
    webhooks: WebhookOffice | None = None
    trunks: TrunkOffice | None = None
    rates: Rates | None = None  # None: nothing is counted


def services(request: Request) -> Services:
    """What the app was made with."""
    found: Services = request.app.state.services
    return found


def client(request: Request) -> str:
    """The address that the request came from; of a proxy in between, where there is one."""
    return request.client.host if request.client else ""


async def token(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)]
) -> Token:
    """Whose request it is. Raises ProblemError 401."""
    found = services(request).tokens.find(credentials.credentials) if credentials is not None else None
    if found is None:
        detail = "the token is not known" if credentials is not None else "Authorization: Bearer TOKEN is required"
        raise await unauthorized(request, detail)
    return found


async def unauthorized(request: Request, detail: str) -> ProblemError:
    """The problem 401, counted. Raises ProblemError 429 once its address had too many."""
    rates = services(request).rates
    if rates is not None:
        await rates.of_failure(client(request))
    _log.warning("unauthorized", path=request.url.path, source=client(request))
    return ProblemError(401, detail, headers={"WWW-Authenticate": "Bearer"})


def needed(found: T | None, what: str) -> T:
    """A service that an app may be made without. Raises ProblemError 404."""
    if found is None:
        raise ProblemError(404, f"there is no {what} here")
    return found


def own_buyer(who: Token, said: str, why: str) -> str:
    """Which buyer is meant: of a buyer's token its own, whatever it leaves unsaid. Raises ProblemError 403, `why`."""
    if who.scope is not Scope.BUYER:
        return said
    if said not in ("", who.of):
        raise ProblemError(403, why, errors=[("buyer", "is another")])
    return who.of


def require(request: Request, who: Token, *scopes: Scope) -> Token:
    """The token, where it is of one of these scopes. Raises ProblemError 403."""
    if who.scope not in scopes:
        _log.warning("forbidden", path=request.url.path, by=who.name, scope=str(who.scope), source=client(request))
        wanted = " or ".join(f"{'an' if one is Scope.OPERATOR else 'a'} {one}'s token" for one in scopes)
        raise ProblemError(403, f"this takes {wanted}")
    return who


def _need(*scopes: Scope) -> Callable[..., Awaitable[Token]]:
    """A dependency: a token of one of these scopes. It raises ProblemError 401 or 403."""

    async def allowed(request: Request, who: Annotated[Token, Depends(token)]) -> Token:
        return require(request, who, *scopes)

    return allowed


OperatorToken = Annotated[Token, Depends(_need(Scope.OPERATOR))]
DialerOrOperator = Annotated[Token, Depends(_need(Scope.DIALER, Scope.OPERATOR))]
AnyToken = Annotated[Token, Depends(token)]
BuyerOrOperator = Annotated[Token, Depends(_need(Scope.BUYER, Scope.OPERATOR))]
