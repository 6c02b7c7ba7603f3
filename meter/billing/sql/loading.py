"""Loads rows of files into the store: orders, payments, checks sent, remedies. All of a file, or nothing of it.

CSV with a heading line, or JSON Lines. Every line is read, checked and tried before anything is written, and every
problem is told with its line and field. What is there already, by its own key, is left as it is; so a file can be
loaded again.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, ValidationError, field_validator
from sqlalchemy import Connection, select
from sqlalchemy.ext.asyncio import AsyncEngine

from book.model import Order
from book.types import Model, Monday, Slug
from meter.billing.arithmetic.cycle import Remedy
from meter.billing.sql import payments
from meter.billing.sql.documents import UnknownDocumentError
from meter.billing.sql.payments import MAX_REFERENCE, METHODS, Payment, PaymentError
from meter.billing.sql.remedy import chosen
from meter.book.sql.book import UnknownBuyerError
from meter.book.sql.contracts import read_contract
from meter.book.sql.orders import OrderError, set_order
from meter.store.money_schema import refunds
from meter.text.hostile import FORMULA_STARTS

MAX_PROBLEMS = 100  # told; all are counted
MAX_LINES = 1_000_000
_Refused = (PaymentError, OrderError, UnknownBuyerError, UnknownDocumentError, ValueError)
_BATCH = 40  # rows in one transaction: some tenths of a second
_PAUSE_S = 0.12  # after it: who waits for SQLite's one writer looks every tenth of a second


class LoadError(Exception):
    """Nothing was loaded. `problems` says why, line by line."""

    def __init__(self, problems: list[str], count: int) -> None:
        self.problems = tuple(problems)
        self.count = count
        more = f"\n  and {count - len(problems)} more" if count > len(problems) else ""
        super().__init__("nothing was loaded:\n" + "\n".join(f"  {one}" for one in problems) + more)


class OrderRow(Model):
    """An order for a week."""

    buyer: Slug
    week: Monday
    quantity: Annotated[int, Field(ge=0, le=1_000_000)]
    make_up: Annotated[int, Field(ge=0, le=1_000_000)] | None = None


class PaymentRow(Model):
    """Money that came. `amount_minor` in minor units of the contract's currency."""

    buyer: Slug
    reference: Annotated[str, Field(min_length=1, max_length=MAX_REFERENCE)]
    amount_minor: Annotated[int, Field(gt=0, le=10**12)]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    received_on: date
    document: str = ""
    method: str = "other"
    note: Annotated[str, Field(max_length=500)] = ""

    @field_validator("method")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in METHODS:
            raise ValueError(f"is none of {', '.join(METHODS)}")
        return value


class RefundRow(Model):
    """A check that was sent, by the number of the worklist."""

    refund: Annotated[int, Field(ge=1)]
    reference: Annotated[str, Field(min_length=1, max_length=120)]


class RemedyRow(Model):
    """A buyer's choice; without a week the standing one."""

    buyer: Slug
    remedy: Remedy
    week: Monday | Literal[""] = ""


@dataclass(frozen=True, slots=True)
class Who:
    """Whose hand it is, and when: microseconds UTC."""

    by: str
    now_utc_us: int
    origin: str = "cli"


@dataclass(slots=True)
class LoadCounts:
    """How many lines changed something, and how many were there already."""

    new: int = 0
    known: int = 0


@dataclass(slots=True)
class _Problems:
    told: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, line: int, what: str) -> None:
        self.count += 1
        if self.count <= MAX_PROBLEMS:
            self.told.append(f"line {line}: {what}")


class _TakenBackError(Exception):
    """Rolls a transaction back that did what it was to try."""


def _load_order(connection: Connection, row: OrderRow, author: Who) -> bool:
    order = Order(row.buyer, row.week, row.quantity, row.make_up or 0)
    return set_order(connection, order, author.now_utc_us, keep_make_up=row.make_up is None)


def _load_payment(connection: Connection, row: PaymentRow, author: Who) -> bool:
    payment = Payment(**row.model_dump())
    return payments.record(connection, payment, author.by, author.now_utc_us).new


def _load_refund(connection: Connection, row: RefundRow, author: Who) -> bool:
    there = connection.execute(select(refunds.c.reference).where(refunds.c.id == row.refund)).scalar_one_or_none()
    if there == row.reference:
        return False
    payments.pay_refund(connection, row.refund, reference=row.reference, by=author.by, now_utc_us=author.now_utc_us)
    return True


def _load_remedy(connection: Connection, row: RemedyRow, author: Who) -> bool:
    contract = read_contract(connection, row.buyer)
    week = contract.week_from(row.week) if row.week else None
    before = author.now_utc_us + 1
    if chosen(connection, row.buyer, row.week or None, before) is row.remedy:
        return False
    payments.choose(
        connection, row.buyer, row.remedy, week=week, by=author.by, origin=author.origin, now_utc_us=author.now_utc_us
    )
    return True


LOADERS: dict[str, tuple[type[Model], Callable[..., bool]]] = {
    "orders": (OrderRow, _load_order),
    "payments": (PaymentRow, _load_payment),
    "refunds": (RefundRow, _load_refund),
    "remedies": (RemedyRow, _load_remedy),
}


async def load(engine: AsyncEngine, entity: str, text: str, author: Who, *, dry_run: bool = False) -> LoadCounts:
    """Load a file's rows: first all are tried, and taken back, then all are written, in short transactions each.

    Raises LoadError with every problem that the trial finds, and nothing is written. Should one come up only afterwards
    (somebody else was quicker), the error says which lines were loaded; loading the file again does the rest.
    """
    model, work = LOADERS[entity]
    problems = _Problems()
    rows = list(_read(text, model, problems))
    if problems.count:
        raise LoadError(problems.told, problems.count)
    tried = LoadCounts()
    for batch in _batches(rows):
        with contextlib.suppress(_TakenBackError):
            async with engine.begin() as connection:
                await connection.run_sync(_try, batch, work, author, tried=tried, problems=problems)
        await asyncio.sleep(_PAUSE_S)
    if problems.count:
        raise LoadError(problems.told, problems.count)
    if dry_run:
        return tried
    loaded = LoadCounts()
    for batch in _batches(rows):
        async with engine.begin() as connection:
            await connection.run_sync(_write, batch, work, author, loaded)
        await asyncio.sleep(_PAUSE_S)
    return loaded


def _batches(rows: list[tuple[int, Model]]) -> Iterator[list[tuple[int, Model]]]:
    """A router's commits wait for each of these at most."""
    yield from (rows[at : at + _BATCH] for at in range(0, len(rows), _BATCH))


def _try(
    connection: Connection,
    rows: list[tuple[int, Model]],
    work: Callable[..., bool],
    author: Who,
    *,
    tried: LoadCounts,
    problems: _Problems,
) -> None:
    for line, row in rows:
        try:
            with connection.begin_nested():
                is_new = work(connection, row, author)
        except _Refused as error:
            problems.add(line, str(error))
            continue
        tried.new += is_new
        tried.known += not is_new
    raise _TakenBackError


def _write(
    connection: Connection, rows: list[tuple[int, Model]], work: Callable[..., bool], author: Who, loaded: LoadCounts
) -> None:
    new = 0
    for line, row in rows:
        try:
            new += work(connection, row, author)
        except _Refused as error:
            before = f"what stands before line {rows[0][0]} was loaded" if loaded.new or loaded.known else ""
            raise LoadError([f"line {line}: {error}", *([before] if before else [])], 1) from error
    loaded.new += new
    loaded.known += len(rows) - new


def _read(text: str, model: type[Model], problems: _Problems) -> Iterator[tuple[int, Model]]:
    lines = _json_lines(text, problems) if text.lstrip()[:1] == "{" else _csv_lines(text, model, problems)
    for line, raw in lines:
        if line > MAX_LINES:
            problems.add(line, f"a file has at most {MAX_LINES:,} lines")
            return
        try:
            yield line, model.model_validate(raw)
        except ValidationError as error:
            for one in error.errors(include_url=False, include_input=False):
                problems.add(line, f"{'.'.join(map(str, one['loc'])) or 'row'}: {one['msg']}")


def _json_lines(text: str, problems: _Problems) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, raw in enumerate(text.split("\n"), start=1):
        if not raw.strip():
            continue
        try:
            found = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            problems.add(line, f"is no JSON: {error}")
            continue
        if not isinstance(found, dict):
            problems.add(line, "is no JSON object")
            continue
        yield line, found


def _csv_lines(text: str, model: type[Model], problems: _Problems) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        unknown = [name for name in names if name not in model.model_fields]
        missing = [name for name, one in model.model_fields.items() if one.is_required() and name not in names]
        if unknown or missing:
            known = ", ".join(model.model_fields)
            problems.add(1, f"the heading has to name columns of {known}; {', '.join(unknown or missing)}: wrong")
            return
        for cells in reader:
            if not any(cells):
                continue
            if len(cells) != len(names):
                problems.add(reader.line_num, f"has {len(cells)} cells, the heading {len(names)}")
                continue
            yield (
                reader.line_num,
                {name: _uncelled(cell) for name, cell in zip(names, cells, strict=True) if cell != ""},
            )
    except csv.Error as error:
        problems.add(reader.line_num, f"is no CSV: {error}")


def _uncelled(cell: str) -> str:
    """Without the apostrophe that an export puts before what a spreadsheet would run."""
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(FORMULA_STARTS) else cell
