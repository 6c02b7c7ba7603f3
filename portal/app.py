"""The HTTP application: the API, its description, and errors as problems. `baton.process.portal` serves it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from portal.buyers.models import BODIES as BUYER_BODIES
from portal.buyers.models import StateChange
from portal.buyers.routes import buyers
from portal.credits.models import BODIES as CREDIT_BODIES
from portal.credits.pages import pages
from portal.credits.routes import credit_routes
from portal.documents.routes import BODIES as MONEY_BODIES
from portal.documents.routes import money
from portal.events.routes import event_routes
from portal.http import problems
from portal.http.access import Services
from portal.http.guard import Guard
from portal.leads.routes import api
from portal.lists.lookups import lookups
from portal.lists.models import BODIES as LIST_BODIES
from portal.lists.routes import lists
from portal.live.routes import live_routes
from portal.orders.routes import BODIES as ORDER_BODIES
from portal.orders.routes import order_routes
from portal.per_minute.models import BODIES as SERVICE_BODIES
from portal.per_minute.pages import service_pages
from portal.per_minute.routes import service
from portal.transfers.routes import transfers
from portal.webhooks.routes import BODIES as WEBHOOK_BODIES
from portal.webhooks.routes import webhook_routes

DESCRIPTION = "/v1/openapi.json"
BODIES: tuple[type[BaseModel], ...] = (
    *LIST_BODIES,
    *CREDIT_BODIES,
    *MONEY_BODIES,
    *SERVICE_BODIES,
    *BUYER_BODIES,
    *ORDER_BODIES,
    *WEBHOOK_BODIES,
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
    """The app on these services; None: only to be described."""
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
    for router in (
        api,
        live_routes,
        event_routes,
        transfers,
        buyers,
        webhook_routes,
        order_routes,
        money,
        credit_routes,
        service,
        lists,
        lookups,
        pages,
        service_pages,
    ):
        app.include_router(router)
    app.add_middleware(Guard, services=services)
    own = app.openapi

    def described() -> dict[str, Any]:
        found = own()
        components = found.setdefault("components", {})
        components.setdefault("schemas", {}).update(_schemas())
        bodies = {one.__name__: _body(one.__name__) for one in BODIES}
        may_be_missing = {**_body(StateChange.__name__), "required": False}
        components["requestBodies"] = {"ListFile": _FILE, **bodies, "StateChangeOrNone": may_be_missing}
        return found

    app.openapi = described  # type: ignore[method-assign]
    return app


def describe() -> dict[str, Any]:
    """The API as OpenAPI 3.1."""
    return create_app(None).openapi()


def _schemas() -> dict[str, Any]:
    """Schemas that answers and requests name and no route has as its model."""
    found: dict[str, Any] = {}
    models: tuple[type[BaseModel], ...] = (problems.Problem, *BODIES)
    for model in models:
        whole = model.model_json_schema(ref_template="#/components/schemas/{model}")
        found |= {model.__name__: whole, **whole.pop("$defs", {})}
    return found


def _body(schema: str) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}
