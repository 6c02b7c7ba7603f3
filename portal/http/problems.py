"""Errors as RFC 9457 has them: `application/problem+json`, with the field that is wrong where it is one.

What went wrong inside is never told to the outside: a fault of ours is a 500 without details, and a line in the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"
RETRY = {"Retry-After": "5"}  # seconds, with every 503
WHY = {
    400: "The body is no JSON, or was cut short, or a header cannot be used.",
    401: "No token, or one that is not known.",
    403: "The token is of another scope, or what is asked for is another's.",
    404: "There is no such thing, or it is not this token's.",
    408: "The body did not come within 10 s.",
    413: "The body is too large.",
    409: "It cannot be as things stand: `detail` says why. Nothing was changed.",
    412: "It was changed since: `If-Match` names another state.",
    415: "The body is not declared as `application/json`.",
    422: "A field is missing or wrong: `errors` names it.",
    429: "Too many requests: try again after `Retry-After` seconds.",
    503: "The router or the store does not answer, or Baton is busy: try again after `Retry-After` seconds.",
    507: "Baton's disk is full.",
}

_log = structlog.get_logger("portal")


class FieldProblem(BaseModel):
    """One field that is wrong."""

    field: str = Field(
        description="Its name, such as `phone` or `add[2].entry`; a header's, such as `Idempotency-Key`; or a place in"
        " a file, such as `line 7`."
    )
    detail: str = Field(description="What is wrong with it.")


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(default="about:blank", description="Always `about:blank`: the status says what kind it is.")
    title: str = Field(description="The status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What went wrong, for people.")
    errors: list[FieldProblem] = Field(default=[], description="The fields that are wrong, where it is those.")


class ProblemError(Exception):
    """To be answered with this problem. `errors`: (field, what is wrong with it)."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = headers


class RouterAwayError(Exception):
    """No router answers."""


def field_problem(detail: str, error: ValueError) -> ProblemError:
    """A problem 422 from an error whose message is `FIELD: WHAT`."""
    name, _, what = str(error).partition(": ")
    return ProblemError(422, detail, errors=[(name, what)])


def documented(*statuses: int, meanings: Mapping[int, str] | None = None) -> dict[int | str, dict[str, Any]]:
    """Problems as a route's description has them; `meanings`: what a status means there, where that is special."""
    if 401 in statuses:  # noqa: PLR2004 - what needs a token is counted by it
        statuses = (*statuses, 429)
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    why = {**WHY, **(meanings or {})}
    return {
        status: {"description": why[status], "content": content} for status in sorted({*statuses, *(meanings or {})})
    }


def answer(error: ProblemError) -> JSONResponse:
    """The problem as a response."""
    problem = Problem(
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        detail=error.detail,
        errors=[FieldProblem(field=field, detail=detail) for field, detail in error.errors],
    )
    return JSONResponse(problem.model_dump(), error.status, error.headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of the app as a problem."""

    @app.exception_handler(ProblemError)
    async def ours(_request: Request, error: ProblemError) -> JSONResponse:
        return answer(error)

    @app.exception_handler(HTTPException)
    async def of_http(_request: Request, error: HTTPException) -> JSONResponse:
        return answer(ProblemError(error.status_code, str(error.detail), headers=error.headers))

    @app.exception_handler(RequestValidationError)
    async def of_fields(_request: Request, error: RequestValidationError) -> JSONResponse:
        errors = [
            (".".join(map(str, fault["loc"][1:])), fault["msg"].removeprefix("Value error, "))
            for fault in error.errors()
        ]
        return answer(ProblemError(422, "the request cannot be used", errors=errors))

    @app.exception_handler(SQLAlchemyError)
    async def of_store(request: Request, error: SQLAlchemyError) -> JSONResponse:
        _log.error("store_failed", path=_route(request), kind=type(error).__name__)
        return answer(ProblemError(503, "the store cannot be reached", headers=RETRY))

    @app.exception_handler(Exception)
    async def of_ours(request: Request, error: Exception) -> JSONResponse:
        _log.error("request_failed", path=_route(request), kind=type(error).__name__)
        return answer(ProblemError(500, "a fault of Baton's"))


def _route(request: Request) -> str:
    """The route's own path: what stands in its places may be a secret, such as a signed link's."""
    return str(getattr(request.scope.get("route"), "path", "") or request.url.path)
