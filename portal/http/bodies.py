"""JSON bodies, read within bounds of size and time, and checked against a model, every fault with its place."""

from __future__ import annotations

import asyncio
import re
from typing import Any, TypeVar

import orjson
from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect

from facts.json_once import TwiceError, loads_once
from portal.http.problems import ProblemError

BODY_S = 10.0  # for a body to arrive
MAX_BODY = 1 << 18  # bytes: a lead of 64 fields of 1,000 characters at 4 bytes each, with their names
_CHARSET = re.compile(r"\bcharset\b", re.IGNORECASE)
_UTF_8 = re.compile(r"\bcharset\s*=\s*\"?(?:utf-?8|us-ascii)\"?\s*(?:;|\Z)", re.IGNORECASE)  # RFC 8259 section 8.1


class Body(BaseModel):
    """What a request says: nothing unknown, nothing converted, and never repeated in an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


M = TypeVar("M", bound=Body)


async def read_model(request: Request, model: type[M]) -> M:
    """The body as this model. Raises ProblemError 400, 408, 413, 415, 422."""
    try:
        return model.model_validate(await read_object(request))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        errors = [(place(fault["loc"]), fault["msg"].removeprefix("Value error, ")) for fault in faults]
        raise ProblemError(422, "the body cannot be used", errors=errors) from error


async def read_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object. Raises ProblemError 400, 408, 413, 415, 422."""
    try:
        given = loads_once(await read_body(request))
    except orjson.JSONDecodeError as error:
        raise ProblemError(400, f"the body is not JSON: {error}") from error
    except TwiceError as error:
        raise ProblemError(400, f"the body cannot be used: {error}") from error
    if not isinstance(given, dict):
        raise ProblemError(422, "the body is not a JSON object")
    return given


async def read_body(request: Request, wanted: str = "application/json") -> bytes:
    """The body, of the media type `wanted`, within bounds of size and time. Raises ProblemError 400, 408, 413, 415."""
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    if kind.strip().lower() != wanted:
        raise ProblemError(415, f"the body is to be {wanted}", errors=[("Content-Type", "is another")])
    if len(_CHARSET.findall(parameters)) != len(_UTF_8.findall(parameters)):
        raise ProblemError(415, f"the body is to be {wanted} in UTF-8", errors=[("Content-Type", "is another")])
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                size += len(part)
                if size > MAX_BODY:
                    raise ProblemError(413, f"the body has more than {MAX_BODY} bytes")
                parts.append(part)
    except TimeoutError as error:
        raise ProblemError(408, f"the body did not come within {BODY_S:g} s") from error
    except ClientDisconnect as error:
        raise ProblemError(400, "the body was cut short") from error
    return b"".join(parts)


def place(loc: tuple[int | str, ...]) -> str:
    """`("add", 1, "entry")` as `add[1].entry`."""
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path[:100]
