"""The HTTP application: the API, its description, and errors as problems. `baton.process.portal` serves it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from portal.availability import routes as availability
from portal.buyers import models as buyer_models
from portal.buyers import routes as buyers
from portal.credits import models as credit_models
from portal.credits import pages as credit_pages
from portal.credits import routes as credits_
from portal.documents import models as document_models
from portal.documents import routes as documents
from portal.events import routes as events
from portal.health import routes as health
from portal.http import problems
from portal.http.guard import Guard
from portal.http.services import Services
from portal.leads import routes as leads
from portal.lists import lookups
from portal.lists import models as list_models
from portal.lists import routes as lists
from portal.live import routes as live
from portal.orders import models as order_models
from portal.orders import routes as orders
from portal.payments import models as payment_models
from portal.payments import routes as payments
from portal.per_minute import models as per_minute_models
from portal.per_minute import pages as per_minute_pages
from portal.per_minute import routes as per_minute
from portal.recordings import routes as recordings
from portal.transfers import routes as transfers
from portal.trunks import routes as trunks
from portal.webhooks import models as webhook_models
from portal.webhooks import routes as webhooks

DESCRIPTION = "/v1/openapi.json"
NOUNS = (  # in the order of the description
    leads,
    availability,
    health,
    live,
    events,
    transfers,
    recordings,
    buyers,
    webhooks,
    trunks,
    orders,
    payments,
    documents,
    credits_,
    per_minute,
    lists,
    lookups,
    credit_pages,
    per_minute_pages,
)
BODIES: tuple[type[BaseModel], ...] = (
    *list_models.BODIES,
    *credit_models.BODIES,
    *document_models.BODIES,
    *per_minute_models.BODIES,
    *buyer_models.BODIES,
    *order_models.BODIES,
    *payment_models.BODIES,
    *webhook_models.BODIES,
)
_ABOUT = (
    "For dialing systems: leads posted before their call, who would take one, receipts verified. For buyers and the"
    " operator: buyers with their endpoints, orders, payments, documents, remedies, requests for credits, interactions,"
    " recordings, suppression lists, webhooks, trunks. For all of them: transfers, settled and live, and events. A"
    " token belongs to a dialer, a buyer or the operator; a route says whose it takes. A list has pages: `next` of one"
    " is the `cursor` of the next, null at the end; the feed of events alone has no end. Where a list comes as CSV too,"
    " `Accept: text/csv` gets all of it. HEAD is GET without the body."
)
_FILE = {
    "description": "The file as it is: CSV, TXT, XLSX, or one of them in ZIP or GZ.",
    "required": True,
    "content": {"application/octet-stream": {}},  # OpenAPI 3.1, "Considerations for File Uploads": raw binary
}


def create_app(services: Services | None) -> FastAPI:
    """Make the app on these services; None: an app whose description alone is wanted."""
    app = FastAPI(
        title="Baton",
        version="1",
        description=_ABOUT,
        openapi_url=DESCRIPTION,
        docs_url=None,  # pages that load scripts from elsewhere
        redoc_url=None,
    )
    app.state.services = services
    problems.install(app)
    for noun in NOUNS:
        app.include_router(noun.routes)
    app.add_middleware(Guard, services=services)
    own = app.openapi

    def described() -> dict[str, Any]:
        document = own()
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(_schemas())
        bodies = {model.__name__: _body(model.__name__) for model in BODIES}
        may_be_missing = {**_body(buyer_models.StateChange.__name__), "required": False}
        components["requestBodies"] = {"ListFile": _FILE, **bodies, "StateChangeOrNone": may_be_missing}
        return document

    app.openapi = described  # type: ignore[method-assign]
    return app


def describe() -> dict[str, Any]:
    """Describe the API in OpenAPI 3.1."""
    return create_app(None).openapi()


def _schemas() -> dict[str, Any]:
    """Schemas of errors and of request bodies, which FastAPI does not collect from the routes."""
    schemas: dict[str, Any] = {}
    models: tuple[type[BaseModel], ...] = (problems.Problem, *BODIES)
    for model in models:
        whole = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= {model.__name__: whole, **whole.pop("$defs", {})}
    return schemas


def _body(schema: str) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}
