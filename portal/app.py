"""The HTTP application: the API, its description, and errors as problems. `baton.run_portal` serves it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response

from portal import problems
from portal.api import Services, api

DESCRIPTION = "/v1/openapi.json"
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def create_app(services: Services | None) -> FastAPI:
    """The app on these services; None: only to be described."""
    app = FastAPI(
        title="Baton",
        version="1",
        description="For dialing systems: leads posted before their call, and who would take one.",
        openapi_url=DESCRIPTION,
        docs_url=None,  # pages that load scripts from elsewhere
        redoc_url=None,
    )
    app.state.services = services
    problems.install(app)
    app.include_router(api)

    @app.middleware("http")
    async def secure(request: Request, further: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await further(request)
        response.headers.update(_HEADERS)
        return response

    own = app.openapi

    def described() -> dict[str, Any]:
        found = own()
        found.setdefault("components", {}).setdefault("schemas", {}).update(_schemas())
        return found

    app.openapi = described  # type: ignore[method-assign]
    return app


def describe() -> dict[str, Any]:
    """The API as OpenAPI 3.1."""
    return create_app(None).openapi()


def _schemas() -> dict[str, Any]:
    """Schemas that answers name and no route returns as its model."""
    whole = problems.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    inner: dict[str, Any] = whole.pop("$defs")
    return {"Problem": whole, **inner}
