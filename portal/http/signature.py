"""A dialer's signature in the place of a token: on leads alone, as the Standard Webhooks specification (1.0) has it.

`X-Baton-Key` names the token of `[[portal.tokens]]` whose secret has signed; `webhook-id`, `webhook-timestamp` and
`webhook-signature` are the specification's. The signature covers id, time and body, so the body is read first. What is
older or newer than five minutes is refused; within these the id, being the key of idempotency, keeps a lead once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from meter.text.signing import SignatureError, verify
from portal.http.access import authenticate, client, require, unauthorized
from portal.http.bodies import read_body
from portal.http.problems import ProblemError
from portal.http.services import services
from portal.http.tokens import KEY_HEADER, Scope, Token

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
_MAX_DIGITS = 12  # of a time in seconds: enough for 30,000 years
_MAX_SIGNATURES = 1_000  # characters: twenty of them

_bearer = HTTPBearer(auto_error=False, scheme_name="token", description="A token of `[[portal.tokens]]`.")
_named = APIKeyHeader(
    name=KEY_HEADER,
    auto_error=False,
    scheme_name="signature",
    description=f"Name of a token with `signing_secrets`, beside `{ID}`, `{TIMESTAMP}` and `{SIGNATURE}`.",
)


@dataclass(frozen=True, slots=True)
class Posted:
    """What a dialer posts. `message_id`: of what is signed; empty: it came with a token."""

    token: Token
    body: bytes
    message_id: str = ""


async def posted(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    key: Annotated[str | None, Depends(_named)],
) -> Posted:
    """The body of a request and its dialer's token. Raises ProblemError 400, 401, 403, 408, 413, 415, 429."""
    if credentials is not None or key is None:
        token = require(request, await authenticate(request, credentials), Scope.DIALER)
        return Posted(token, await read_body(request))
    rates = services(request).rates
    try:
        body = await read_body(request)
    except ProblemError:
        if rates is not None:  # nobody has counted it yet
            await rates.of_failure(client(request))
        raise
    signer = services(request).tokens.signer(request.headers)
    message_id = request.headers.get(ID, "")
    try:
        _verify(request, signer, message_id, body)
    except SignatureError as error:
        raise await unauthorized(request, str(error)) from error
    assert signer is not None
    if rates is not None:
        await rates.of_token(signer.name)
    return Posted(require(request, signer, Scope.DIALER), body, message_id)


def _verify(request: Request, token: Token | None, message_id: str, body: bytes) -> None:
    """Raises SignatureError."""
    at, signatures = request.headers.get(TIMESTAMP, ""), request.headers.get(SIGNATURE, "")
    if not message_id or not at or not signatures:
        raise SignatureError(f"{ID}, {TIMESTAMP} and {SIGNATURE} are required beside {KEY_HEADER}")
    if not message_id.isascii() or len(at) > _MAX_DIGITS or len(signatures) > _MAX_SIGNATURES:
        raise SignatureError("the signature does not fit")
    verify(token.secrets if token is not None else (), message_id, at, body, signatures, now_s=time.time())


SignedOrToken = Annotated[Posted, Depends(posted)]
