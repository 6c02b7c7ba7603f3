"""What every route needs first: the services behind the app, and whether this token may do this."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from meter.store.leads import LeadStore
from portal.credit_office import CreditOffice
from portal.desk import Desk
from portal.money_office import MoneyOffice
from portal.problems import ProblemError
from portal.service_office import ServiceOffice
from portal.tokens import Scope, Token, find

_log = structlog.get_logger("portal")
_scheme = HTTPBearer(auto_error=False, scheme_name="token", description="A token of `[[portal.tokens]]`.")


class RouterAwayError(Exception):
    """No router answers."""


@dataclass(frozen=True, slots=True)
class Services:
    """What the API stands on. `availability` asks the router, raising RouterAwayError; `healthy` asks the store."""

    tokens: tuple[Token, ...]
    leads: LeadStore
    lead_ttl_s: int
    availability: Callable[[str], Awaitable[dict[str, Any]]]
    healthy: Callable[[], Awaitable[bool]]
    lists: Desk
    credits: CreditOffice
    money: MoneyOffice
    service: ServiceOffice | None = None  # None: an app without per-minute service


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
    found = find(services(request).tokens, credentials.credentials) if credentials is not None else None
    if found is None:
        _log.warning("unauthorized", path=request.url.path, source=client(request))
        detail = "the token is not known" if credentials is not None else "Authorization: Bearer TOKEN is required"
        raise ProblemError(401, detail, headers={"WWW-Authenticate": "Bearer"})
    return found


def own_buyer(who: Token, said: str, why: str) -> str:
    """Which buyer is meant: of a buyer's token its own, whatever it leaves unsaid. Raises ProblemError 403, `why`."""
    if who.scope is not Scope.BUYER:
        return said
    if said not in ("", who.of):
        raise ProblemError(403, why, errors=[("buyer", "is another")])
    return who.of


def _need(*scopes: Scope) -> Callable[..., Awaitable[Token]]:
    """A dependency: a token of one of these scopes. It raises ProblemError 401 or 403."""

    async def allowed(request: Request, who: Annotated[Token, Depends(token)]) -> Token:
        if who.scope not in scopes:
            _log.warning("forbidden", path=request.url.path, by=who.name, scope=str(who.scope), source=client(request))
            wanted = " or ".join(f"{'an' if one is Scope.OPERATOR else 'a'} {one}'s token" for one in scopes)
            raise ProblemError(403, f"this takes {wanted}")
        return who

    return allowed


OperatorToken = Annotated[Token, Depends(_need(Scope.OPERATOR))]
DialerToken = Annotated[Token, Depends(_need(Scope.DIALER))]
DialerOrOperator = Annotated[Token, Depends(_need(Scope.DIALER, Scope.OPERATOR))]
BuyerOrOperator = Annotated[Token, Depends(_need(Scope.BUYER, Scope.OPERATOR))]
