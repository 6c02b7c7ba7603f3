"""What every route asks first: whose token it is, and whether that one may do this."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import Field

from portal.http.paging import PageQuery
from portal.http.problems import ProblemError
from portal.http.services import services
from portal.http.tokens import Scope, Token
from portal.http.values import MAX_NAME

OWN_ALONE = "this token sees its own buyer's alone"
_log = structlog.get_logger("portal")
_scheme = HTTPBearer(auto_error=False, scheme_name="token", description="A token of `[[portal.tokens]]`.")


def client(request: Request) -> str:
    """The address that the request came from; of a proxy in between, where there is one."""
    return request.client.host if request.client else ""


async def authenticate(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)]
) -> Token:
    """The token that a request shows. Raises ProblemError 401."""
    token = services(request).tokens.find(credentials.credentials) if credentials is not None else None
    if token is None:
        detail = "the token is not known" if credentials is not None else "Authorization: Bearer TOKEN is required"
        raise await unauthorized(request, detail)
    return token


async def unauthorized(request: Request, detail: str) -> ProblemError:
    """Count a failed login and make its problem 401. Raises ProblemError 429 where its address had too many."""
    rates = services(request).rates
    if rates is not None:
        await rates.of_failure(client(request))
    _log.warning("unauthorized", path=request.url.path, source=client(request))
    return ProblemError(401, detail, headers={"WWW-Authenticate": "Bearer"})


def own_buyer(token: Token, buyer: str, why: str) -> str:
    """The buyer of a buyer's token, which may name no other; else the one that is named, empty where none is.

    Raises ProblemError 403, with `why` as its detail.
    """
    if token.scope is not Scope.BUYER:
        return buyer
    if buyer not in ("", token.of):
        raise ProblemError(403, why, errors=[("buyer", "is another")])
    return token.of


def buyer_of(token: Token) -> str:
    """The buyer whose things alone this token sees; empty: it sees those of all."""
    return token.of if token.scope is Scope.BUYER else ""


def require(request: Request, token: Token, *scopes: Scope) -> Token:
    """The token, where it is of one of these scopes. Raises ProblemError 403."""
    if token.scope not in scopes:
        _log.warning("forbidden", path=request.url.path, by=token.name, scope=str(token.scope), source=client(request))
        wanted = " or ".join(f"{'an' if scope is Scope.OPERATOR else 'a'} {scope}'s token" for scope in scopes)
        raise ProblemError(403, f"this takes {wanted}")
    return token


def _need(*scopes: Scope) -> Callable[..., Awaitable[Token]]:
    """A dependency: a token of one of these scopes. It raises ProblemError 401 or 403."""

    async def allowed(request: Request, token: Annotated[Token, Depends(authenticate)]) -> Token:
        return require(request, token, *scopes)

    return allowed


OperatorToken = Annotated[Token, Depends(_need(Scope.OPERATOR))]
DialerOrOperator = Annotated[Token, Depends(_need(Scope.DIALER, Scope.OPERATOR))]
AnyToken = Annotated[Token, Depends(authenticate)]
BuyerOrOperator = Annotated[Token, Depends(_need(Scope.BUYER, Scope.OPERATOR))]


class OwnQuery(PageQuery):
    """Whose."""

    buyer: str = Field("", max_length=MAX_NAME, description="Only this buyer's; a buyer's token sees its own alone.")
