"""Renders documents as HTML, PDF and CSV from the body that was frozen when they were issued.

HTML and PDF are one template. A document is rendered once and kept, so what was sent is what is shown, whatever becomes
of the template; the CSV of its lines and the list of the transfers behind them follow from data that never changes.
Rendering is done outside transactions and off the loop: a PDF takes a good part of a second.
"""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections.abc import Mapping
from datetime import date, datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from book.model import Buyer, Order, Terms
from meter.billing.arithmetic.calendar import Week
from meter.billing.arithmetic.cycle import Prepaid, WeekOrder
from meter.billing.arithmetic.drafts import COUNTED_IN, Issuer, IssueStamp, body_of, order_draft
from meter.billing.sql import documents
from meter.store.clerk import Clerk
from meter.store.engine import StoreError
from meter.store.pause import pause
from meter.text import texts
from meter.text.hostile import csv_cell
from meter.text.localised import date_text, money_text, number_text, short_when_text
from telemetry import metrics

TEMPLATE = "document"
TITLES = {
    "order": "Invoice",
    "overage": "Invoice",
    "setup": "Invoice",
    "month": "Invoice",
    "credit_note": "Credit note",
    "week": "Statement",
}
_ABOUT = {
    "order": "Order, paid in advance",
    "overage": "Units beyond the order",
    "setup": "Set-up",
    "month": "Service of the month, in arrears",
    "credit_note": "Taken back",
    "week": "Service week",
}
_RENDER_EVERY_S = 10.0
_AT_ONCE = 200  # documents in a round
_LOOK_BACK_US = 3600 * 1_000_000  # what was issued longer ago has been looked at

_log = structlog.get_logger()


class DocumentError(RuntimeError):
    """A document cannot be rendered here; the message says what is missing."""


def html_of(body: Mapping[str, Any]) -> str:
    """The document as one HTML page that needs nothing else."""
    return texts.render(f"{TEMPLATE}.html.jinja", shown(body))


def pdf_of(html: str) -> bytes:
    """The page as PDF. Raises DocumentError where Pango, with which it is drawn, is not installed."""
    try:
        from weasyprint import HTML  # noqa: PLC0415 - takes a second, and only documents need it
    except OSError as error:
        raise DocumentError("Pango is not installed; scripts/bootstrap installs it") from error
    made: bytes = HTML(string=html, url_fetcher=_fetch_nothing).write_pdf()
    return made


def _fetch_nothing(url: str, *_args: object, **_options: object) -> dict[str, Any]:
    raise ValueError(f"a document fetches nothing, and not {url[:100]!r}")


def lines_csv(body: Mapping[str, Any]) -> str:
    """The lines and sums of a document. Amounts in minor units, as integers, beside their currency."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(("document", "line", "text", "units", "price_minor", "amount_minor", "currency", "period"))
    number, currency = body["number"], body["currency"]
    for at, line in enumerate(body["lines"], start=1):
        row = (csv_cell(line["text"]), line["units"], line["price_minor"], line["amount_minor"])
        writer.writerow((number, at, *row, currency, line["opens"] or body["period"]))
    for name in ("total_minor", "applied_minor", "asked_minor"):
        writer.writerow((number, "", name.removesuffix("_minor"), "", "", body[name], currency, body["period"]))
    return text.getvalue()


def shown(body: Mapping[str, Any]) -> dict[str, Any]:
    """The template's values: the body with its amounts and dates in the buyer's locale."""
    locale, currency, zone = body["locale"], body["currency"], ZoneInfo(body["time_zone"])
    money = partial(money_text, currency=currency, locale=locale)
    units = partial(number_text, locale=locale)
    lines = [
        {
            "text": one["text"],
            "units": units(one["units"]),
            "price": money(one["price_minor"]) if one["price_minor"] else "",
            "amount": money(one["amount_minor"]),
            "opens": one["opens"],
        }
        for one in body["lines"]
    ]
    return {
        **{name: body[name] for name in ("number", "kind", "issuer", "buyer", "terms", "notes", "period", "figures")},
        "language": locale.replace("_", "-"),
        "title": TITLES[body["kind"]],
        "about": _ABOUT[body["kind"]],
        "issued": date_text(date.fromisoformat(body["issued_on"]), locale),
        "due": short_when_text(_instant(body["due_at"]), zone, locale) if body["due_at"] else "",
        "lines": lines,
        "total": money(body["total_minor"]),
        "applied": money(-body["applied_minor"]) if body["applied_minor"] else "",
        "asked": money(body["asked_minor"]),
        "is_statement": body["kind"] == "week",
        "week": _week_rows(body, units, money) if body["kind"] == "week" else [],
    }


def _instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1_000_000


def _week_rows(body: Mapping[str, Any], units: Any, money: Any) -> list[tuple[str, str, str]]:
    """What a week comes to: a word, a number, money. Each word says what its number counts where that differs."""
    figures = body["figures"]
    price, counts = figures["price_minor"], figures["counts"]
    in_units, of = ("", "") if counts == "billed" else (", billed units", f", {COUNTED_IN[counts]}")
    paid = figures.get("paid_units", figures["quantity"])  # documents of before orders counted what was sent lack it
    came_with = figures.get("make_up_units", 0)
    rows = [
        ("Connected transfers, sent", figures["sent_connected"], None),
        ("Connected transfers, billed", figures["billed_connected"], None),
        ("Failed transfers, billed", figures["billed_failed"], None),
        (f"Counted against the order{of}", figures["counted"], None),
        (f"Ordered{of}", figures["quantity"], None if in_units else paid * price),
        (f"Make-up{of}", figures["make_up"], None),
        *([(f"Paid in advance{in_units}", paid, paid * price)] if in_units else []),
        *([(f"Came with the make-up{in_units}", came_with, None)] if in_units and came_with else []),
        *_parts(figures, "overage", "Beyond the order", (of, in_units), "Beyond what was paid for"),
        *_parts(figures, "shortfall", "Short of the order", (of, in_units)),
        *_parts(figures, "awaiting", "Short of an order that is not paid", (of, in_units)),
    ]
    if figures.get("prepaid_units"):
        rows.append(("Prepaid billed units that stay with you", figures["prepaid_units"], figures["prepaid_minor"]))
    return [(text, units(count), "" if amount is None else money(amount)) for text, count, amount in rows]


def _parts(
    figures: Mapping[str, Any], part: str, text: str, words: tuple[str, str], worth: str = ""
) -> list[tuple[str, int, int | None]]:
    """Overage or shortfall: as the order counts it, and in billed units with what they come to; `words` for each."""
    of, in_units = words
    units, amount = figures[f"{part}_units"], figures[f"{part}_minor"]
    if not in_units:
        return [(text, units, amount)]
    counted = figures.get(f"{part}_counted", units)
    return [(f"{text}{of}", counted, None), (f"{worth or text}{in_units}", units, amount)]


async def document_file(clerk: Clerk, number: str, form: str) -> bytes:
    """A document as HTML or PDF: as it was first rendered. Raises UnknownDocumentError, DocumentError."""
    kept = await clerk.read(_file, number, form)
    if kept is not None:
        return kept
    body = await clerk.read(_body, number)
    html = await clerk.read(_file, number, "html")
    if html is None:
        html = await _keep(clerk, number, "html", html_of(body).encode())
    if form == "html":
        return html
    return await _keep(clerk, number, form, await asyncio.to_thread(pdf_of, html.decode()))


async def render_for_ever(engine: AsyncEngine, stop: asyncio.Event) -> None:
    """Render what was issued and has no PDF yet, until told to stop; a store that fails is asked again."""
    clerk = Clerk(engine)
    since_us = 0
    try:
        while not stop.is_set():
            try:
                now_us = time.time_ns() // 1000
                numbers = await clerk.read(_unrendered, since_us)
                failed = [one for one in numbers if not stop.is_set() and not await _try_paper(clerk, one)]
                if not failed and len(numbers) < _AT_ONCE:
                    since_us = now_us - _LOOK_BACK_US
            except (SQLAlchemyError, StoreError) as error:
                _log.error("documents cannot be rendered", error=str(error).partition("\n")[0])
            await pause(stop, _RENDER_EVERY_S)
    finally:
        await clerk.close()


async def _try_paper(clerk: Clerk, number: str) -> bool:
    """Render one document; whether that went well. One that cannot be drawn holds up no other."""
    try:
        await document_file(clerk, number, "pdf")
    except (SQLAlchemyError, StoreError):
        raise
    except Exception as error:  # noqa: BLE001 - a template, the drawing library, the system: each raises its own
        metrics.ENGINE_FAULTS.labels("documents").inc()
        _log.error("a document cannot be rendered", number=number, error=f"{type(error).__name__}: {error}"[:300])
        return False
    return True


async def _keep(clerk: Clerk, number: str, form: str, content: bytes) -> bytes:
    now = time.time_ns() // 1000
    return await clerk.write(lambda connection: documents.keep_file(connection, number, form, content, now))


def _file(connection: Any, number: str, form: str) -> bytes | None:
    return documents.file(connection, number, form)


def _body(connection: Any, number: str) -> dict[str, Any]:
    return documents.body(connection, number)


def _unrendered(connection: Any, since_us: int) -> list[str]:
    return documents.unrendered(connection, "pdf", _AT_ONCE, since_us)


def sample() -> dict[str, Any]:
    """The body of a sample invoice of an order, to try templates with."""
    terms = Terms("sample", unit_price_minor=4_500)
    buyer = Buyer("acme", "Acme", terms, address=("12 Main Street",), reference="PO 1")
    week = Week(date(2026, 6, 8), terms.time_zone)
    due_us = week.order_due_at
    bought = WeekOrder(
        Order(buyer="acme", week=str(week), quantity=200, make_up=8, make_up_owed=8, make_up_units=8),
        186,
        Prepaid(8, 36_000),
        paid=False,
    )
    draft = order_draft("", buyer, terms, week=week, bought=bought, due_us=due_us, notes=("A note.",))
    issuer = Issuer(
        name="Operator",
        address=("1 Side Street",),
        tax_id="12-3456789",
        email="bills@operator.example",
        phone="+12125550100",
        pay_to=("By wire.",),
    )
    stamp = IssueStamp(
        number="INV-000001",
        issued_on="2026-06-02",
        issued_at="2026-06-02T12:00:00-04:00",
        due_on="2026-06-04",
        due_at="2026-06-04T17:00:00-04:00",
        applied_minor=9,
    )
    return shown(body_of(draft, issuer, stamp))


texts.add_sample(TEMPLATE, sample)
