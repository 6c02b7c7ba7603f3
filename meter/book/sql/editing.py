"""Editing one buyer of the book: the same fields, the same checks and the same import as for a file.

A buyer is taken as the book file writes it, changed, validated as a whole with the terms that the store has and the
carriers that the configuration has, and imported; all in one transaction, so that two who change it at once do not undo
each other. A password that a change leaves out stays where the endpoint and its user name stay.

Business errors: `BookProblemsError` (what is wrong, field by field), `ImportRefusedError`, `StaleError`,
`StateRefusedError`, `UnknownBuyerError`, `UnknownEndpointError`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection

from book.document import Document
from book.model import Buyer, BuyerState, Endpoint, Stop, Terms, state_under
from book.problems import Problem
from book.sections import BookFile, validate_book
from book.terms import in_force, presets
from meter.book.plan import StoredBook
from meter.book.sql.book import UnknownBuyerError, import_file, read_buyer, read_endpoints, read_profiles, read_stored
from meter.book.sql.stops import StateChange, held_by, in_order, set_state, stops_of

_HERE = "buyers[0]"  # where the one buyer stands in the document that is validated
FILES = ("whisper_file", "ca_file", "certificate_file", "key_file")
SECRET = "password"  # noqa: S105 - the field's name

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BookRules:
    """The parts of the configuration that a book is checked against. `file`: relative paths start at its folder."""

    file: Path
    carriers: frozenset[str] = frozenset()
    has_ca: bool = False
    has_mail: bool = True


@dataclass(frozen=True, slots=True)
class BuyerRecord:
    """A buyer as it is in the store, with the terms in force; `terms_version` 0 where none are yet."""

    buyer: Buyer
    state: BuyerState
    terms_version: int

    @property
    def etag(self) -> str:
        """Changes with everything that can be seen of it."""
        shown = [raw_buyer(self.buyer, secrets=False), self.state.value]
        return hashlib.sha256(orjson.dumps(shown, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class ChangeResult:
    """The result of a change."""

    kept: BuyerRecord
    created: bool
    changed: bool
    version: int  # of the book
    warnings: tuple[str, ...]


class BookProblemsError(ValueError):
    """The buyer cannot be so. `problems`: (field, what is wrong with it)."""

    def __init__(self, problems: Iterable[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{field}: {what}" for field, what in self.problems))


class StaleError(Exception):
    """It was changed since it was read."""


class StateRefusedError(Exception):
    """A buyer cannot change its state so by itself; the message says why."""


class UnknownEndpointError(LookupError):
    """The buyer has no endpoint of that name."""


def buffer_ms(buyer: Buyer) -> int:
    """Domain, section 4: only where every endpoint that can ring is a secure trunk."""
    ringing = [one for one in buyer.endpoints if one.enabled]
    return buyer.terms.secure_buffer_ms if ringing and all(one.secure for one in ringing) else 0


def raw_buyer(buyer: Buyer, *, secrets: bool = True) -> Raw:
    """As the book file writes it; without `secrets` passwords are left out."""
    found = {key: value for key, value in asdict(buyer).items() if key not in ("state", "terms", "endpoints")}
    endpoints = [raw_endpoint(one, secrets=secrets) for one in buyer.endpoints]
    return _plain_table({**found, "terms": buyer.terms.name, "endpoints": endpoints})


def raw_endpoint(endpoint: Endpoint, *, secrets: bool = True) -> Raw:
    """Likewise one endpoint; files that are not set are left out."""
    found = asdict(endpoint)
    found |= found.pop("policy")
    dropped = {name for name in FILES if not found[name]} | (set() if secrets else {SECRET})
    return _plain_table({key: value for key, value in found.items() if key not in dropped})


def find_buyer(connection: Connection, name: str, now: datetime) -> BuyerRecord:
    """Raises UnknownBuyerError."""
    found = read_buyer(connection, name)
    if found is None:
        raise UnknownBuyerError(f"no buyer is called {name!r}")
    buyer, state, versions = found
    return _record_of(replace(buyer, endpoints=read_endpoints(connection, name)), state, versions, now)


def find_buyers(connection: Connection, now: datetime, after: str, limit: int) -> list[BuyerRecord]:
    """By name, those after `after`, at most `limit`."""
    stored, states, _ = read_stored(connection)
    names = sorted(name for name in stored.buyers if name > after)[:limit]
    return [
        _record_of(stored.buyers[name], states[name], stored.versions_of(stored.buyers[name].terms.name), now)
        for name in names
    ]


def put_buyer(
    connection: Connection, name: str, change: Callable[[Raw | None], Raw], rules: BookRules, now: datetime, *,
    expected: Callable[[str], bool] | None = None,
) -> ChangeResult:  # fmt: skip
    """Create a buyer or change it: `change` takes it as it is, or None, and gives it as it is to be.

    `expected`: whether its etag (empty: there is none) is one that may be changed. Raises BookProblemsError,
    ImportRefusedError, StaleError, UnknownEndpointError.
    """
    try:
        before = find_buyer(connection, name, now)
    except UnknownBuyerError:
        before = None
    if expected is not None and not expected(before.etag if before is not None else ""):
        raise StaleError(name)
    old = raw_buyer(before.buyer) if before is not None else None
    raw = {**_with_passwords(change(old), old), "name": name}
    profiles = read_profiles(connection)
    file, warnings = _validated(raw, profiles.values(), rules)
    new_terms = tuple(one for one in file.terms if (one.name, one.version) not in profiles)
    stored = StoredBook(profiles, {name: before.buyer} if before is not None else {})
    report = import_file(connection, replace(file, terms=new_terms), now, replace=True, stored=stored)
    return ChangeResult(
        kept=find_buyer(connection, name, now),
        created=before is None,
        changed=bool(report.added or report.replaced),
        version=report.version,
        warnings=warnings,
    )


def with_endpoint(raw: Raw | None, name: str, endpoint: Raw | None, buyer: str) -> Raw:
    """The buyer with this endpoint in the place of the one of that name, or at the end; None: without it.

    Raises UnknownBuyerError, UnknownEndpointError.
    """
    if raw is None:
        raise UnknownBuyerError(f"no buyer is called {buyer!r}")
    names = [one["name"] for one in raw["endpoints"]]
    if endpoint is None and name not in names:
        raise UnknownEndpointError(f"{buyer} has no endpoint {name!r}")
    if endpoint is None:
        return {**raw, "endpoints": [one for one in raw["endpoints"] if one["name"] != name]}
    new = {**endpoint, "name": name}
    if name not in names:
        return {**raw, "endpoints": [*raw["endpoints"], new]}
    return {**raw, "endpoints": [new if one["name"] == name else one for one in raw["endpoints"]]}


def switched(raw: Raw | None, name: str, *, enabled: bool, buyer: str) -> Raw:
    """The buyer with one endpoint on or off. Raises UnknownBuyerError, UnknownEndpointError."""
    own = next((one for one in raw["endpoints"] if one["name"] == name), None) if raw is not None else None
    if raw is not None and own is None:
        raise UnknownEndpointError(f"{buyer} has no endpoint {name!r}")
    return with_endpoint(raw, name, {**(own or {}), "enabled": enabled}, buyer)


def set_own_state(
    connection: Connection, name: str, state: BuyerState, *, by: str, reason: str, now_utc_us: int
) -> StateChange:
    """Pause or resume a buyer by its own wish. Raises StateRefusedError, UnknownBuyerError.

    A hold and a cancellation are the operator's and billing's; an unpaid invoice is ended by its payment.
    """
    if read_buyer(connection, name) is None:
        raise UnknownBuyerError(f"no buyer is called {name!r}")
    stops = stops_of(connection, name)
    others = [one.value for one in in_order(stops) if one in {Stop.HELD, Stop.CANCELLED}]
    if others:
        said = f"{state_under(stops).value} ({', '.join(others)} by hand)"
        raise StateRefusedError(f"the state is {said}, and that is the operator's to end")
    if state is BuyerState.ACTIVE and Stop.UNPAID in stops:
        raise StateRefusedError(f"an invoice is due and not paid: {', '.join(held_by(connection, name))}")
    return set_state(connection, name, state, by=by, reason=reason, now_utc_us=now_utc_us)


def _record_of(buyer: Buyer, state: BuyerState, versions: Sequence[Terms], now: datetime) -> BuyerRecord:
    current = in_force(versions, now)
    if current is None:
        return BuyerRecord(replace(buyer, state=state), state, 0)
    return BuyerRecord(replace(buyer, terms=current, state=state), state, current.version)


def _validated(raw: Raw, stored: Iterable[Terms], rules: BookRules) -> tuple[BookFile, tuple[str, ...]]:
    """The buyer as an import takes it, and what works and is seldom meant. Raises BookProblemsError."""
    shipped = presets()
    document = Document(
        rules.file,
        {
            "buyers": [raw],
            "terms": [_plain(asdict(one)) for one in stored if one.name not in shipped],
            "carriers": [{"name": one} for one in sorted(rules.carriers)],
            "tls": {"ca_file": "set"} if rules.has_ca else {},
        },
    )
    file, problems = validate_book(document, shipped)
    own = [_field(one) for one in problems if one.path.startswith(_HERE)]
    if own:
        raise BookProblemsError(own)
    warnings = tuple(f"{field}: {what}" if field else what for field, what in map(_field, file.warnings))
    return replace(file, campaigns=(), suppression_lists=(), warnings=()), warnings


def _field(problem: Problem) -> tuple[str, str]:
    return problem.path.removeprefix(_HERE).removeprefix("."), problem.message


def _with_passwords(raw: Raw, old: Raw | None) -> Raw:
    """With the passwords of before, where an endpoint says none and its user name is the same."""
    given = raw.get("endpoints")
    if old is None or not isinstance(given, list):
        return raw
    known = {one["name"]: one for one in old["endpoints"]}
    return {**raw, "endpoints": [_with_password(one, known) for one in given]}


def _with_password(endpoint: Any, known: Mapping[str, Raw]) -> Any:
    if not isinstance(endpoint, dict) or SECRET in endpoint or not isinstance(endpoint.get("name"), str):
        return endpoint
    before = known.get(endpoint["name"])
    if before is None or endpoint.get("username", "") != before["username"]:
        return endpoint
    return {**endpoint, SECRET: before[SECRET]}


def _plain_table(table: Raw) -> Raw:
    return {key: _plain(one) for key, one in table.items()}


def _plain(value: Any) -> Any:
    """Enumerations as their values, tuples as lists: what a file has."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.value if isinstance(value, Enum) else value
