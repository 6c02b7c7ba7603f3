"""Orders: set, changed, listed with what they have come to, and in every router's book."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from baton.cli import main as cli
from book.limits import limits_for, midnight_us
from book.model import Buyer, Order, Terms
from book.sections import BookFile
from meter.billing.sql.forecasting import forecasts
from meter.book.sql.book import ORDER_WEEKS_KEPT, BookSnapshot, BookStore, UnknownBuyerError
from meter.book.sql.orders import OrderError, OrderProgress, OrderStore, orders_now
from meter.store.schema import admissions, outcomes
from tests.store.money_tools import WESTLAKE, Books, at

TERMS = Terms("acme-2026")
FILE = BookFile(terms=(TERMS,), buyers=tuple(Buyer(name, name.title(), TERMS) for name in ("acme", "best")))
NOW = datetime(2026, 6, 3, 12, tzinfo=UTC)
WEEK = "2026-06-01"


@pytest.fixture
async def orders(engine: AsyncEngine) -> OrderStore:
    await BookStore(engine).import_book(FILE)
    return OrderStore(engine)


async def test_an_order_is_set_changed_and_in_the_book(engine: AsyncEngine, orders: OrderStore) -> None:
    snapshot = BookSnapshot(BookStore(engine, lambda: NOW), lambda: NOW)
    await snapshot.refresh()
    assert snapshot.book.orders == {}
    first, second = Order("acme", WEEK, 200), Order("acme", WEEK, 250, 8)
    assert await orders.set(first, "jo") is None
    assert await snapshot.refresh()
    assert snapshot.book.orders == {"acme": (first,)}
    assert await orders.set(second, "jo") == first
    assert await snapshot.refresh()
    assert snapshot.book.orders == {"acme": (second,)}


async def test_the_same_again_changes_nothing(engine: AsyncEngine, orders: OrderStore) -> None:
    order = Order("acme", WEEK, 200)
    await orders.set(order, "jo")
    before = await BookStore(engine).version()
    assert await orders.set(order, "jo") == order
    assert await BookStore(engine).version() == before


async def test_a_router_is_given_the_weeks_that_it_needs_oldest_first(engine: AsyncEngine, orders: OrderStore) -> None:
    monday = datetime(2026, 6, 1, tzinfo=UTC).date()
    weeks = [(monday + timedelta(weeks=count)).isoformat() for count in (2, 0, -1, -ORDER_WEEKS_KEPT - 1)]
    for week in weeks:
        await orders.set(Order("acme", week, 1), "jo")
    book = await BookStore(engine, lambda: NOW).load()
    assert [one.week for one in book.orders["acme"]] == [weeks[2], weeks[1], weeks[0]]
    assert [one.order.week for one in await orders.list()] == sorted(weeks)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (Order("acme", "2026-06-02", 1), "week: 2026-06-02 is not a Monday"),
        (Order("acme", "June", 1), "week: 'June' is not a date"),
        (Order("acme", WEEK, -1), "quantity: -1 is not between 0 and"),
        (Order("acme", WEEK, 1, 1_000_001), "make_up: 1000001 is not between"),
    ],
)
async def test_what_cannot_be_an_order(orders: OrderStore, order: Order, message: str) -> None:
    with pytest.raises(OrderError, match=message):
        await orders.set(order, "jo")
    assert await orders.list() == []


async def test_an_unknown_buyer(orders: OrderStore) -> None:
    with pytest.raises(UnknownBuyerError, match="no buyer is called 'nobody'"):
        await orders.set(Order("nobody", WEEK, 1), "jo")
    with pytest.raises(UnknownBuyerError):
        await orders.list("nobody")


async def test_progress_is_that_of_its_week(engine: AsyncEngine, orders: OrderStore) -> None:
    start = midnight_us(datetime(2026, 6, 1, tzinfo=UTC).date(), TERMS.time_zone)
    end = midnight_us(datetime(2026, 6, 8, tzinfo=UTC).date(), TERMS.time_zone)
    rows = [("connected", start)] * 10 + [("failed", end - 1)] * 2 + [("live", start + 5)] + [("free", start)] * 3
    rows += [("connected", start - 1), ("connected", end)]
    async with engine.begin() as connection:
        for number, (state, at) in enumerate(rows):
            row = {"transfer": f"t-{number}", "router": "r", "boot": "b", "buyer": "acme", "phone": ""}
            await connection.execute(insert(admissions).values(**row, admitted_utc_us=at, state=state))
    await orders.set(Order("acme", WEEK, 20, 3), "jo")
    await orders.set(Order("best", WEEK, 5), "jo")
    acme, best = await orders.list()
    assert acme == OrderProgress(Order("acme", WEEK, 20, 3), 10, 2, 1, units=12, make_up=3, most=25)
    assert (acme.left, best.left, best.most) == (11, 5, 5)
    assert await orders.list("best") == [best]


Run = Callable[..., tuple[int, str, str]]


async def test_an_order_made_in_its_own_week_counts_what_came_before_it(
    engine: AsyncEngine, orders: OrderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody counted these as they came, for there was nothing to count them against."""
    start = midnight_us(datetime(2026, 6, 1, tzinfo=UTC).date(), TERMS.time_zone)
    monkeypatch.setattr("time.time_ns", lambda: (start + 3 * 86_400_000_000) * 1000)
    rows = [("connected", start)] * 7 + [("failed", start + 5)] * 2 + [("free", start)] * 3 + [("connected", start - 1)]
    async with engine.begin() as connection:
        for number, (counts_as, at) in enumerate(rows):
            await connection.execute(insert(outcomes).values(**outcome_row(f"t-{number}", "acme", counts_as, at)))
    await orders.set(Order("acme", WEEK, 10), "jo")
    [acme] = await orders.list("acme")
    assert (acme.connected, acme.failed, acme.units, acme.left, acme.most) == (7, 2, 9, 1, 11)
    await orders.set(Order("acme", WEEK, 20), "jo")
    assert (await orders.list("acme"))[0].units == 9


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("counts", ["sent", "billed"])
@pytest.mark.parametrize("percent", [0, 10, 25])
async def test_documents_forecast_lists_gauges_and_the_router_say_one_limit(
    engine: AsyncEngine, counts: str, required: bool, percent: int
) -> None:
    """An order of 40 stated in one way, frozen on Tuesday; the terms change in mid-week, and the limit does not."""
    terms = replace(WESTLAKE, order_counts=counts, overrun_percent=percent)
    books = Books(engine)
    await books.agree("acme", terms=terms, order_required=required)
    await books.order("acme", "2026-06-08", 40, make_up=3)
    await books.run("2026-06-02 12:00")
    [invoice] = await books.documents("acme", kind="order")
    await books.pay("acme", invoice.total_minor, "2026-06-03 10:00")
    later = replace(terms, version=2, effective_from="2026-06-10", overrun_percent=90, order_counts="billed")
    await books.agree("acme", terms=(terms, later), order_required=required)
    now = at("2026-06-12 12:00")
    most = 40 + 3 + 40 * percent // 100
    notes = (await books.body(invoice.number))["notes"]
    assert any(f"may run over by {40 * percent // 100} " in note for note in notes)
    clock = datetime.fromtimestamp(now // 1_000_000, UTC)
    book = await BookStore(engine, lambda: clock).load()
    limit = limits_for(book.buyers["acme"], book.orders["acme"], "+12125550100", now)
    assert limit is not None
    assert limit.order is not None
    assert (limit.order.most, limit.order.connected_percent) == (most, 100 if counts == "sent" else 93)
    [progress] = await OrderStore(engine).list("acme")
    assert (progress.most, progress.counts, progress.make_up) == (most, counts, 3)
    [gauge] = await books.read(lambda connection: orders_now(connection, book, now))
    assert (gauge.units["most"], gauge.units["ordered"]) == (most, 43)
    await books.deliver("acme", "2026-06-09 10:00", 100)
    [ahead] = await forecasts(engine, at("2026-06-14 23:59"), "acme")
    assert ahead.forecast is not None
    assert (ahead.covered, ahead.counts) == (43, counts)
    assert ahead.forecast.high.overage_counted == (100 if counts == "sent" else 93) - 43
    await books.run("2026-06-15 02:00")
    [statement] = await books.documents("acme", kind="week")
    assert (await books.body(statement.number))["figures"]["beyond_units"] == max(0, ahead.counted - most)
    await books.close()


def outcome_row(transfer: str, buyer: str, counts_as: str, started_utc_us: int) -> dict[str, object]:
    """A settled transfer with what an order asks of it, and nothing of interest beside."""
    of_whom = {"transfer": transfer, "router": "r", "boot": "b", "call_id": "", "sip_call_id": "", "dialer": ""}
    times = {"started_utc_us": started_utc_us, "dialout_utc_us": started_utc_us, "closed_utc_us": started_utc_us}
    said = {"verdict": "", "reason": "", "counts_as": counts_as, "table_row": 0, "evidence": b"[]", "agreed": True}
    lengths = {"attempt_ms": 0, "talk_ms": 0, "buffer_ms": 0, "terms_name": "t", "terms_version": 1}
    return {**of_whom, "campaign": "", "buyer": buyer, "phone": "", **times, **said, **lengths}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    config = tmp_path / "baton.toml"
    config.write_text(
        '[[listeners]]\nname = "main"\ntransport = "udp"\n'
        '[[buyers]]\nname = "acme"\nterms = "westlake-fulfillment"\n'
        '[[buyers.endpoints]]\nname = "pbx"\nkind = "trunk"\nuri = "sip:a@pbx.example"\n',
        encoding="utf-8",
    )

    def go(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["baton", *map(str, words)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    monkeypatch.setenv("BATON_CONFIG", str(config))
    assert go("import", config)[0] == 0
    yield go
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


def test_orders_on_the_command_line(run: Run) -> None:
    week = ("--week", "2026-11-23")
    code, said, _ = run("orders", "set", "acme", *week, "--quantity", 200)
    assert (code, said) == (0, "acme, week of 2026-11-23: 200 live transfers\n")
    code, said, _ = run("orders", "set", "acme", *week, "--quantity", 250, "--make-up", 8)
    assert (code, said) == (
        0,
        "acme, week of 2026-11-23: 250 live transfers and 8 to make up, instead of 200 live transfers\n",
    )
    code, said, _ = run("orders", "set", "acme", *week, "--quantity", 250, "--make-up", 8)
    assert said.endswith("is so already\n")
    code, said, _ = run("orders", "list", "acme", "--json")
    expected = {"buyer": "acme", "week": "2026-11-23", "quantity": 250, "make_up": 8, "counts": "sent"}
    expected |= {"connected": 0, "failed": 0, "live": 0, "units": 0, "left": 258, "most": 283}
    assert json.loads(said) == [expected]
    code, said, _ = run("orders", "list")
    assert code == 0
    assert "2026-11-23" in said


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("acme", "--week", "2026-11-24", "--quantity", 1), 2, "2026-11-24 is a Tuesday"),
        (("acme", "--week", "soon", "--quantity", 1), 2, "'soon' is not a date"),
        (("acme", "--week", "2026-11-23"), 2, "--quantity"),
        (("acme", "--week", "2026-11-23", "--quantity", -1), 2, "--quantity"),
        (("nobody", "--week", "2026-11-23", "--quantity", 1), 1, "no buyer is called 'nobody'"),
    ],
)
def test_what_was_typed_wrongly_is_named(run: Run, words: tuple[object, ...], code: int, message: str) -> None:
    found, _, error = run("orders", "set", *words)
    assert found == code
    assert message in error
    assert code == 1 or "--" in error, "the option is named"
