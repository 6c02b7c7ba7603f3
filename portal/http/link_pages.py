"""What all pages behind signed links share: errors told by pages, and forms read within bounds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from urllib.parse import parse_qs

import structlog
from fastapi import Request, Response
from sqlalchemy.exc import SQLAlchemyError

from meter.book.sql.book import UnknownBuyerError
from portal.http.bodies import read_body
from portal.http.pages import message
from portal.http.problems import RETRY, ProblemError

MAX_TOKEN = 512  # characters: two names of 64 and a signature take half of it
_FORM = "application/x-www-form-urlencoded"
_MAX_FIELDS = 8

_log = structlog.get_logger("portal")
Handler = Callable[[Request, str], Awaitable[Response]]


class NoPageError(Exception):
    """The address leads nowhere."""


def as_page(handler: Handler) -> Handler:
    """Answer the errors of a handler by pages. The address is not logged, for the token in it gives access."""

    @wraps(handler)
    async def handled(request: Request, token: str) -> Response:
        try:
            return await handler(request, token)
        except (NoPageError, UnknownBuyerError):
            return message(404, "There is no such page", "Is the address complete, as it stands in the e-mail?")
        except ProblemError as error:
            return message(error.status, "That could not be read", f"Please try again: {error.detail}.")
        except SQLAlchemyError as error:
            path = str(getattr(request.scope.get("route"), "path", ""))
            _log.error("store_failed", path=path, kind=type(error).__name__)
            response = message(503, "Not now", "Our records cannot be reached. Please try again in a minute.")
            response.headers.update(RETRY)
            return response

    return handled


async def read_form(request: Request, names: Sequence[str]) -> dict[str, str]:
    """The first value of each of these fields, empty where it is missing. Raises ProblemError 400, 408, 413, 415."""
    body = await read_body(request, _FORM)
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError as error:
        raise ProblemError(400, "the form cannot be read") from error
    return {name: fields.get(name, [""])[0] for name in names}
