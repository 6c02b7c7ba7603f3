"""The meter's throughput: outcomes settled durably, a Monday's invoices, long statements, PDFs.

Rates are by second of CPU on one core, in a process that does nothing else: a second on the clock belongs to whoever
else is on the machine. What is settled and invoiced is real: facts in a journal, a ledger with its chains, documents.
"""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, insert

from bench.rows import Row, at_least, at_most, exactly, seen
from bench.stats import median
from book.model import Buyer, Order, Terms
from book.sections import BookFile
from book.terms import presets
from facts.fact import EndCause, Fact, Kind, Party
from facts.outcome import decide
from facts.payloads import Answered, Bridged, Ended, LegEnded, Ringing
from meter.billing.cycle import Cycle, CycleOptions
from meter.billing.documents import html_of, pdf_of
from meter.billing.sql import documents
from meter.billing.sql.detail import write_detail
from meter.book.sql.book import BookStore
from meter.book.sql.orders import OrderStore
from meter.journal.rows import insert_rows, make_row
from meter.ledger.accounts import UNIT, Account, Posting, Rule
from meter.ledger.sql.ledger import append
from meter.settling.follower import Follower, SettleOptions
from meter.settling.sql.verify_ledger import verify_ledger
from meter.store.clerk import Clerk
from meter.store.engine import open_store
from meter.store.schema import boots, outcomes

OUTCOMES = 30_000
TRANSFERS = 1_000_000
BUYERS = 1_000
STATEMENT = 100_000
PDFS = 20
WEEK = date(2026, 6, 8)
_PAGE = 5_000
_ZONE = ZoneInfo("America/New_York")


async def measure(
    folder: Path, tell: Callable[[str], None], transfers: int = TRANSFERS, buyers: int = BUYERS
) -> list[Row]:
    """All of it; `folder` is new."""
    await asyncio.to_thread(folder.mkdir, parents=True)
    tell(f"  settling {OUTCOMES:,} outcomes")
    rows = await _settling(folder / "settle.db")
    tell(f"  invoicing {buyers:,} buyers with {transfers:,} transfers")
    rows += await _invoicing(folder / "invoices.db", transfers, buyers, tell)
    tell(f"  a statement of {STATEMENT:,} lines")
    return rows + await _statement(folder / "statement.db")


async def _settling(file: Path) -> list[Row]:
    """Facts in the journal, settled by the follower: outcomes, units in their chains, e-mails."""
    engine = await open_store(f"sqlite:///{file}")
    clerk = Clerk(engine)
    await clerk.write(_register)
    digest, seq = bytes(32), 0
    for at in range(0, OUTCOMES, _PAGE // 10):
        made = []
        for number in range(at, min(OUTCOMES, at + _PAGE // 10)):
            for fact in _facts(number, seq + 1):
                seq += 1
                stored, row = make_row(fact, digest)
                digest = stored.digest(digest)
                made.append(row)
        await clerk.write(_insert, made)
    follower = Follower(engine, SettleOptions())
    started = time.process_time()
    count = await follower.catch_up()
    seconds = time.process_time() - started
    await follower.close()
    report = await verify_ledger(engine)
    await clerk.close()
    await engine.dispose()
    return [
        at_least("outcomes settled durably", count / seconds, 10_000, "a CPU second", f"{count:,} from {seq:,} facts"),
        exactly("units in the ledger, its chains whole", report.postings if report.ok else -1, OUTCOMES),
    ]


def _register(connection: Connection) -> None:
    connection.execute(insert(boots).values(router="r1", boot="b1", started_utc_us=1, pid=1))


def _insert(connection: Connection, rows: list[Any]) -> None:
    insert_rows(connection, rows)


def _facts(number: int, seq: int) -> Iterator[Fact]:
    """Four of five connected, the others declined after the buffer; fifty buyers."""
    zero, said = number * 1_000_000, _started(number)
    connected = bool(number % 5)
    told: list[tuple[Kind, float, int | None, dict[str, Any]]] = [
        (Kind.TRANSFER_STARTED, 0.0, None, said),
        (Kind.DIALED, 0.0, 1, {}),
        (Kind.RINGING, 1.2, 1, Ringing(180, "Ringing").as_payload()),
    ]
    if connected:
        told.append((Kind.ANSWERED, 4.0, 1, Answered(200, "OK").as_payload()))
        told.append((Kind.BRIDGED, 4.1, 1, Bridged("PCMU").as_payload()))
        told.append((Kind.TALK_REACHED_15S, 19.0, None, {}))
        told.append((Kind.ENDED, 44.0, None, Ended(Party.CALLER, EndCause.BYE).as_payload()))
    else:
        refusal = LegEnded(486, "Busy Here", Party.BUYER, local=False, header="").as_payload()
        told.append((Kind.LEG_ENDED, 20.0, 1, refusal))
        told.append((Kind.ENDED, 20.0, None, Ended(Party.BUYER, EndCause.LEGS_FAILED).as_payload()))
    made: list[Fact] = []
    for kind, at, leg, payload in told:
        us = zero + round(at * 1_000_000)
        made.append(Fact("r1", "b1", seq + len(made), f"t-{number}", kind, us, us, leg=leg, payload=payload))
    yield from made
    last = made[-1]
    verdict = decide(made).as_payload()
    yield Fact(
        "r1", "b1", last.seq + 1, last.transfer, Kind.TRANSFER_CLOSED, last.utc_us, last.mono_us, payload=verdict
    )


def _started(number: int) -> dict[str, Any]:
    terms = {"name": "contract", "version": 1, "rating": "unit", "connected_percent": 93, "failed_percent": 100}
    endpoint = {"leg": 1, "name": "pbx", "kind": "trunk", "transport": "tls", "srtp": "mandatory", "secure": True}
    return {
        "call_id": f"c-{number}",
        "sip_call_id": f"{number}@dialer",
        "dialer": "dialer",
        "campaign": "solar",
        "buyer": f"buyer-{number % 50}",
        "buyer_title": "A buyer",
        "lead_emails": ["leads@buyer.example"],
        "phone": f"+1212555{number % 10_000:04d}",
        "lead": {"name": "Jo Doe", "state": "NY", "email": "jo@example.org"},
        "endpoints": [endpoint],
        "buffer_ms": 15_000,
        "ring_timeout_ms": 30_000,
        "terms": terms | {"talk_connected_ms": 15_000, "time_zone": "America/New_York", "currency": "USD"},
    }


async def _invoicing(file: Path, transfers: int, buyers: int, tell: Callable[[str], None]) -> list[Row]:
    """A Monday: every buyer's week settled, its overage invoiced, its summary as HTML, its transfers as CSV."""
    names = [f"buyer-{number}" for number in range(buyers)]
    books = await _Books.open(file, names)
    each = transfers // buyers
    await books.fill(names, each)
    tell("  Monday")
    started, clock = time.process_time(), time.monotonic()
    report = await books.cycle.run_once(_at("2026-06-15 06:00"))
    settled = time.process_time() - started
    lines = 0
    for number in report.documents:
        body = await books.clerk.read(_body, number)
        html_of(body)
        if body["kind"] == "week":
            lines += await books.clerk.read(_detail, body["buyer"]["name"])
    seconds, wall = time.process_time() - started, time.monotonic() - clock
    pdfs = []
    for number in report.documents[:PDFS]:
        html = html_of(await books.clerk.read(_body, number))
        begun = time.process_time()
        pdf_of(html)
        pdfs.append(time.process_time() - begun)
    await books.close()
    size = sum(file_part.stat().st_size for file_part in file.parent.glob(f"{file.name}*")) / 1e9
    made = f"{len(report.documents):,} documents, {lines:,} CSV lines; {wall:.0f} s on the clock"
    return [
        at_most(f"invoices, {buyers:,} buyers, {lines:,} transfers", seconds, 60, "CPU s", made),
        seen("of these, weeks settled and documents issued", settled, "CPU s"),
        seen("a summary as PDF, median", median(pdfs) * 1_000, "CPU ms", f"of {len(pdfs)}; in the background"),
        seen("the store", size, "GB"),
    ]


async def _statement(file: Path) -> list[Row]:
    books = await _Books.open(file, ["acme"])
    await books.fill(["acme"], STATEMENT)
    await books.cycle.run_once(_at("2026-06-15 06:00"))
    started = time.process_time()
    count = await books.clerk.read(_detail, "acme")
    seconds = time.process_time() - started
    await books.close()
    return [at_most(f"CSV of {count:,} transfers", seconds, 2, "CPU s")]


class _Books:
    """A store with buyers, orders, a week of units, and its cycle."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.clerk = Clerk(engine)
        self.cycle = Cycle(engine, CycleOptions())

    @classmethod
    async def open(cls, file: Path, names: list[str]) -> _Books:
        books = cls(await open_store(f"sqlite:///{file}"))
        terms: Terms = replace(presets()["westlake-fulfillment"], name="contract", unit_price_minor=4_500)
        made = tuple(Buyer(name, name.title(), terms) for name in names)
        await BookStore(books.engine).import_book(BookFile(terms=(terms,), buyers=made))
        orders = OrderStore(books.engine)
        for name in names:
            await orders.set(Order(name, WEEK.isoformat(), 500), "bench")
        await books.cycle.run_once(_at("2026-06-02 12:00"))
        return books

    async def fill(self, names: list[str], each: int) -> None:
        """Units of the week for every buyer, and their outcomes."""
        dice = random.Random(7)
        start = _at("2026-06-08 08:00")
        for name in names:
            for at in range(0, each, _PAGE):
                span = range(at, min(each, at + _PAGE))
                await self.clerk.write(_fill, name, span, start, dice)

    async def close(self) -> None:
        await self.cycle.close()
        await self.clerk.close()
        await self.engine.dispose()


def _fill(connection: Connection, name: str, span: range, start: int, dice: random.Random) -> None:
    units, settled = [], []
    for number in span:
        kind, percent = ("connected", 93) if number % 12 else ("failed", 100)
        at = start + dice.randrange(6 * 86_400) * 1_000_000
        transfer = f"{name}-{number}"
        units.append(_unit(transfer, name, kind, percent, at))
        settled.append(_outcome(transfer, name, kind, at))
    append(connection, units)
    connection.execute(insert(outcomes), settled)


def _unit(transfer: str, buyer: str, kind: str, percent: int, at: int) -> Posting:
    return Posting(
        key=f"{transfer}:unit",
        buyer=buyer,
        rule=Rule.UNIT,
        debit=Account(f"unbilled_{kind}"),
        credit=Account.DELIVERED,
        asset=UNIT,
        amount=percent,
        transfer=transfer,
        unit=kind,
        units=1,
        percent=percent,
        terms_name="contract",
        terms_version=1,
        dialout_utc_us=at,
        posted_utc_us=at + 60_000_000,
    )


def _outcome(transfer: str, buyer: str, kind: str, at: int) -> dict[str, Any]:
    return {
        "transfer": transfer,
        "router": "r1",
        "boot": "b1",
        "call_id": f"c-{transfer}",
        "sip_call_id": f"{transfer}@dialer",
        "dialer": "dialer",
        "campaign": "solar",
        "buyer": buyer,
        "phone": "+12125550123",
        "started_utc_us": at,
        "dialout_utc_us": at,
        "closed_utc_us": at + 60_000_000,
        "verdict": kind,
        "reason": "answered" if kind == "connected" else "declined",
        "counts_as": kind,
        "table_row": 2,
        "attempt_ms": 60_000,
        "talk_ms": 40_000,
        "buffer_ms": 15_000,
        "evidence": b"[2,3]",
        "terms_name": "contract",
        "terms_version": 1,
        "agreed": True,
    }


def _at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=_ZONE).timestamp()) * 1_000_000


def _body(connection: Connection, number: str) -> dict[str, Any]:
    return documents.body(connection, number)


def _detail(connection: Connection, buyer: str) -> int:
    return write_detail(connection, buyer, WEEK.isoformat(), io.StringIO())
