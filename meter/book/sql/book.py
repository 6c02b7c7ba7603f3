"""The book in the store: buyers, endpoints, campaigns and terms, and the snapshot that a router looks at.

Every change is one transaction that also raises `book_version`, so a router learns of it by reading one number. An
import is explicit and idempotent: the same content changes nothing; content that differs from what the store holds is
refused as a whole, all conflicts listed, unless the caller says `replace`. A buyer's state belongs to people and to
billing: an import sets it for a new buyer and never again; nor an endpoint's rating once its calls were rated.

Business errors: `ImportRefusedError` (conflicts; nothing written), `UnknownBuyerError`, and `StoreError` where a stored
document cannot be read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import orjson
import structlog
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from book.model import (
    Book,
    Buyer,
    BuyerState,
    Campaign,
    Caps,
    Endpoint,
    EndpointKind,
    MenuChoice,
    Order,
    Prack,
    Rating,
    SessionTimer,
    Srtp,
    Strategy,
    Terms,
    Transport,
    TrunkPolicy,
)
from book.sections import BookFile
from book.terms import in_force, next_start
from meter.book.plan import ImportPlan, ImportRefusedError, StoredBook, plan_import
from meter.book.sql.contract_change import change_faults
from meter.book.sql.earned import with_earned_ratings
from meter.book.sql.order_rows import COLUMNS, order_of_row
from meter.book.sql.stops import (
    StateChange,
    UnknownBuyerError,
    begin,
    raise_version,
    set_state,
    state_of_text,
    version_of,
)
from meter.store.clerk import Clerk
from meter.store.engine import StoreError, reading
from meter.store.money_schema import buyer_states
from meter.store.schema import buyers, campaigns, endpoints, orders, terms

__all__ = ["BookSnapshot", "BookStore", "UnknownBuyerError", "raise_version", "set_state"]

_log = structlog.get_logger(__name__)
_TYPES: dict[str, Callable[[Any], Any]] = {
    "kind": EndpointKind,
    "transport": Transport,
    "srtp": Srtp,
    "rating": Rating,
    "strategy": Strategy,
    "session_timer": SessionTimer,
    "prack": Prack,
    "policy": lambda value: TrunkPolicy(**_decoded(TrunkPolicy, value)),
    "caps": lambda value: Caps(**_decoded(Caps, value)),
    "menu": lambda value: tuple(MenuChoice(**_decoded(MenuChoice, one)) for one in value),
}
BILLING = "billing"  # who changed a state, where it was the weekly cycle
ORDER_WEEKS_KEPT = 5  # a router needs the running week's; those before it tell who has orders
_BUYER_COLUMNS = frozenset({"state", "terms", "endpoints"})  # kept beside the document, not in it
V = TypeVar("V", Terms, Endpoint, Campaign)


@dataclass(frozen=True, slots=True)
class ImportReport:
    """The changes of an import; with `dry_run` those that it would make. Names such as `buyer acme`."""

    added: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    unchanged: int = 0
    version: int = 0  # of the book, afterwards


@dataclass(frozen=True, slots=True)
class DatedBook:
    """A book and the instant at which, unchanged in the store, it ceases to hold: other terms come into force."""

    book: Book
    until: datetime | None = None


class BookStore:
    """Reads and changes the book. `clock` gives aware UTC; it decides which terms are in force."""

    def __init__(
        self,
        engine: AsyncEngine,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        reader: Clerk | None = None,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._reader = reader  # for who asks for the version twice a second: one hop instead of four

    async def version(self) -> int:
        """The book's version; 0 where nothing was ever imported."""
        if self._reader is not None:
            return await self._reader.read(version_of)
        async with reading(self._engine).connect() as connection:
            return await connection.run_sync(version_of)

    async def load(self) -> Book:
        """One consistent snapshot, each buyer with the terms in force now."""
        return (await self.load_until()).book

    async def load_until(self) -> DatedBook:
        """The same, with the instant at which other terms take over."""
        now = self._clock()
        async with reading(self._engine).connect() as connection:
            stored, states, version = await connection.run_sync(read_stored)
            ordered = await connection.run_sync(_read_orders, now)
        book = _assemble(stored, states, version, now, ordered)
        return DatedBook(book, next_start(stored.terms.values(), now))

    async def import_book(
        self,
        file: BookFile,
        *,
        replace: bool = False,
        dry_run: bool = False,
        along: Callable[[Connection], None] | None = None,
    ) -> ImportReport:
        """Bring the file's entries into the store in one transaction; entries the file does not name stay.

        `along` is done in the same transaction, after them; what it raises leaves nothing written. Raises
        ImportRefusedError, with nothing written, where the store holds other content (unless `replace`) or a profile
        would have no version in force.
        """
        now = self._clock()
        engine = reading(self._engine) if dry_run else self._engine
        async with engine.begin() as connection:
            done = await connection.run_sync(import_file, file, now, replace, dry_run)
            if along is not None and not dry_run:
                await connection.run_sync(along)
            return done

    async def set_buyer_state(self, name: str, state: BuyerState, by: str, reason: str = "") -> StateChange:
        """Pause, resume, hold or cancel by hand; what that came to. Raises UnknownBuyerError."""
        async with self._engine.begin() as connection:
            made = await connection.run_sync(
                set_state, name=name, state=state, by=by, reason=reason, now_utc_us=time.time_ns() // 1000
            )
        _log.info("buyer_state_set", buyer=name, before=made.before.value, state=made.after.value, by=by)
        return made

    async def profiles(self) -> tuple[list[Terms], dict[str, str]]:
        """Every version of every terms profile, and which profile each buyer has."""
        async with reading(self._engine).connect() as connection:
            stored, _, _ = await connection.run_sync(read_stored)
        return list(stored.terms.values()), {name: one.terms.name for name, one in stored.buyers.items()}

    async def states(self, name: str) -> list[dict[str, Any]]:
        """The changes of a buyer's state, oldest first. Raises UnknownBuyerError."""
        async with reading(self._engine).connect() as connection:
            if (await connection.execute(select(buyers.c.name).where(buyers.c.name == name))).first() is None:
                raise UnknownBuyerError(f"no buyer is called {name!r}")
            query = select(buyer_states).where(buyer_states.c.buyer == name).order_by(buyer_states.c.id)
            found = [row._asdict() for row in (await connection.execute(query)).all()]
        return [{**one, "by": one["by"] or BILLING} for one in found]


class BookSnapshot:
    """The book as of the last `refresh`; looking at it is no I/O."""

    def __init__(self, store: BookStore, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store = store
        self._clock = clock
        self._loaded: DatedBook | None = None

    @property
    def book(self) -> Book:
        """Empty until the first refresh: nothing can be routed before the book is read."""
        return self._loaded.book if self._loaded is not None else Book()

    async def refresh(self) -> bool:
        """Read the version, and the book only where it moved or other terms came into force. True where it did."""
        loaded = self._loaded
        if loaded is not None:
            expired = loaded.until is not None and self._clock() >= loaded.until
            if not expired and await self._store.version() == loaded.book.version:
                return False
        self._loaded = await self._store.load_until()
        return True


def encode(value: Terms | Endpoint | Campaign | Buyer) -> bytes:
    """The stored form: sorted JSON of the fields that have no column of their own."""
    skipped = _BUYER_COLUMNS if isinstance(value, Buyer) else frozenset[str]()
    document = {key: one for key, one in asdict(value).items() if key not in skipped}
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def _document(kind: type[Any], raw: bytes, what: str) -> dict[str, Any]:
    """Known fields of a stored document. A field this version does not know is left out; a damaged one is refused."""
    try:
        found = _decoded(kind, orjson.loads(raw))
    except (ValueError, AttributeError, TypeError) as error:
        raise StoreError(f"{what}: its document in the store cannot be read: {error}") from error
    return found


def _decoded(kind: type[Any], document: dict[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(kind)}
    return {key: _typed(key, value) for key, value in document.items() if key in names}


def _typed(key: str, value: Any) -> Any:
    if key in _TYPES:
        return _TYPES[key](value)
    return tuple(value) if isinstance(value, list) else value


def _decode(kind: type[V], raw: bytes, what: str) -> V:
    document = _document(kind, raw, what)
    try:
        return kind(**document)
    except TypeError as error:
        raise StoreError(f"{what}: its document in the store lacks a field: {error}") from error


def read_stored(connection: Connection) -> tuple[StoredBook, dict[str, BuyerState], int]:
    """Everything, inside one transaction."""
    version = version_of(connection)
    profiles = read_profiles(connection)
    ringing: dict[str, list[Endpoint]] = {}
    for row in connection.execute(select(endpoints).order_by(endpoints.c.buyer, endpoints.c.position)):
        endpoint = _decode(Endpoint, row.document, f"endpoint {row.name!r} of buyer {row.buyer!r}")
        ringing.setdefault(row.buyer, []).append(endpoint)
    found: dict[str, Buyer] = {}
    states: dict[str, BuyerState] = {}
    for row in connection.execute(select(buyers).order_by(buyers.c.name)):
        document = _document(Buyer, row.document, f"buyer {row.name!r}")
        document |= {"terms": Terms(name=row.terms_name), "endpoints": tuple(ringing.get(row.name, ()))}
        found[row.name] = Buyer(**document)
        states[row.name] = state_of_text(row.state)
    dialled = {
        row.name: _decode(Campaign, row.document, f"campaign {row.name!r}")
        for row in connection.execute(select(campaigns).order_by(campaigns.c.name))
    }
    return StoredBook(profiles, found, dialled), states, version


def read_profiles(connection: Connection) -> dict[tuple[str, int], Terms]:
    """Every version of every terms profile, by name and version."""
    return {
        (row.name, row.version): _decode(Terms, row.document, f"terms {row.name!r} version {row.version}")
        for row in connection.execute(select(terms))
    }


def read_buyer(connection: Connection, name: str) -> tuple[Buyer, BuyerState, tuple[Terms, ...]] | None:
    """One buyer without its endpoints, its state, and every version of its terms; None where there is none."""
    row = connection.execute(select(buyers).where(buyers.c.name == name)).one_or_none()
    if row is None:
        return None
    query = select(terms).where(terms.c.name == row.terms_name).order_by(terms.c.version)
    versions = tuple(
        _decode(Terms, one.document, f"terms {one.name!r} version {one.version}") for one in connection.execute(query)
    )
    document = _document(Buyer, row.document, f"buyer {name!r}") | {"terms": Terms(name=row.terms_name)}
    return Buyer(**document), state_of_text(row.state), versions


def read_endpoints(connection: Connection, buyer: str) -> tuple[Endpoint, ...]:
    """A buyer's endpoints in their order. Raises StoreError where one cannot be read."""
    query = select(endpoints).where(endpoints.c.buyer == buyer).order_by(endpoints.c.position)
    what = f"of buyer {buyer!r}"
    return tuple(_decode(Endpoint, row.document, f"endpoint {row.name!r} {what}") for row in connection.execute(query))


def read_terms(connection: Connection, name: str, version: int) -> Terms | None:
    """One version of a profile; None where there is none. Raises StoreError where it cannot be read."""
    query = select(terms.c.document).where(terms.c.name == name, terms.c.version == version)
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else _decode(Terms, found, f"terms {name!r} version {version}")


def _read_orders(connection: Connection, now: datetime) -> dict[str, tuple[Order, ...]]:
    """By buyer, oldest week first, from a few weeks before `now` on."""
    since = (now - timedelta(weeks=ORDER_WEEKS_KEPT)).date().isoformat()
    found: dict[str, tuple[Order, ...]] = {}
    query = select(*COLUMNS).where(orders.c.week >= since)
    for row in connection.execute(query.order_by(orders.c.buyer, orders.c.week)):
        found[row.buyer] = (*found.get(row.buyer, ()), order_of_row(row))
    return found


def _assemble(
    stored: StoredBook,
    states: Mapping[str, BuyerState],
    version: int,
    now: datetime,
    ordered: dict[str, tuple[Order, ...]],
) -> Book:
    """Buyers with their state and the terms in force; one whose terms are not in force yet takes no transfers."""
    ready: dict[str, Buyer] = {}
    for name, buyer in stored.buyers.items():
        current = in_force(stored.versions_of(buyer.terms.name), now)
        if current is None:
            _log.error("buyer_without_terms", buyer=name, terms=buyer.terms.name)
            continue
        ready[name] = _with(buyer, terms=current, state=states[name])
    return Book(version, ready, dict(stored.campaigns), ordered)


def _with(buyer: Buyer, *, terms: Terms, state: BuyerState) -> Buyer:
    kept = {one.name: getattr(buyer, one.name) for one in fields(Buyer)}
    return Buyer(**{**kept, "terms": terms, "state": state})


def import_file(
    connection: Connection,
    file: BookFile,
    now: datetime,
    replace: bool = False,
    dry_run: bool = False,
    *,
    stored: StoredBook | None = None,
) -> ImportReport:
    """`BookStore.import_book` on a connection. `stored`: what the store has of what the file names, if it is known."""
    stored = read_stored(connection)[0] if stored is None else stored
    version = version_of(connection)
    plan = plan_import(stored, with_earned_ratings(connection, file, stored.buyers), now)
    faults = plan.faults + change_faults(connection, plan, stored)
    faults += [] if replace else plan.conflicts
    if faults:
        raise ImportRefusedError(faults)
    changes = bool(plan.added or plan.replaced)
    if changes and not dry_run:
        _write(connection, plan, stored)
        version = raise_version(connection)
    return ImportReport(plan.added_names, plan.replaced_names, plan.unchanged, version)


def _write(connection: Connection, plan: ImportPlan, stored: StoredBook) -> None:
    for value in (*plan.added, *plan.replaced):
        if isinstance(value, Terms):
            key = {"name": value.name, "version": value.version}
            _put(connection, terms, key, {"effective_from": value.effective_from, "document": encode(value)})
        elif isinstance(value, Campaign):
            _put(connection, campaigns, {"name": value.name}, {"document": encode(value)})
        else:
            _put_buyer(connection, value, is_new=value.name not in stored.buyers)


def _put_buyer(connection: Connection, buyer: Buyer, *, is_new: bool) -> None:
    content: dict[str, Any] = {"document": encode(buyer), "terms_name": buyer.terms.name}
    if is_new:
        content["state"] = buyer.state.value
        begin(connection, buyer.name, buyer.state, time.time_ns() // 1000)
    _put(connection, buyers, {"name": buyer.name}, content)
    connection.execute(delete(endpoints).where(endpoints.c.buyer == buyer.name))
    rows = [
        {"buyer": buyer.name, "name": one.name, "position": at, "document": encode(one)}
        for at, one in enumerate(buyer.endpoints)
    ]
    if rows:
        connection.execute(insert(endpoints), rows)


def _put(connection: Connection, table: Any, key: dict[str, Any], content: dict[str, Any]) -> None:
    """Change the row, or make it; the caller's transaction keeps others out."""
    changed = connection.execute(update(table).where(*_matches(table, key)).values(**content))
    if not changed.rowcount:
        connection.execute(insert(table).values(**key, **content))


def _matches(table: Any, key: dict[str, Any]) -> Iterable[Any]:
    return [table.c[name] == value for name, value in key.items()]
