"""The HTTP application: the API, its description, and errors as problems. `baton.run_portal` serves it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from portal import problems
from portal.access import Services
from portal.api import api
from portal.buyers_api import buyers
from portal.buyers_models import BODIES as BUYER_BODIES
from portal.buyers_models import StateChange
from portal.credit_pages import pages
from portal.credits_api import credit_routes
from portal.credits_models import BODIES as CREDIT_BODIES
from portal.events_api import event_routes
from portal.guard import Guard
from portal.lists_api import lists
from portal.lists_models import BODIES as LIST_BODIES
from portal.live_api import live_routes
from portal.lookups_api import lookups
from portal.money_api import BODIES as MONEY_BODIES
from portal.money_api import money
from portal.orders_api import BODIES as ORDER_BODIES
from portal.orders_api import order_routes
from portal.service_api import service
from portal.service_models import BODIES as SERVICE_BODIES
from portal.service_pages import service_pages
from portal.transfers_api import transfers
from portal.webhooks_api import BODIES as WEBHOOK_BODIES
from portal.webhooks_api import webhook_routes

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
