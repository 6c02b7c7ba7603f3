"""The buyers as billing sees them: the buyer, its state, and every version of its terms."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from sqlalchemy import Connection, select

from book.model import Buyer, BuyerState, Terms
from book.terms import in_force
from meter.billing.arithmetic.calendar import Week, week_of
from meter.book.sql.book import UnknownBuyerError, read_buyer, read_stored
from meter.store.schema import buyers


@dataclass(frozen=True, slots=True)
class Contract:
    """A buyer and what was agreed. `versions` are those of the profile that it names now, at least one."""

    buyer: Buyer
    state: BuyerState
    versions: tuple[Terms, ...]

    def terms_at(self, at_us: int) -> Terms:
        """The terms in force at an instant; before the first version starts, that one."""
        at = datetime.fromtimestamp(at_us // 1_000_000, UTC)
        return in_force(self.versions, at) or min(self.versions, key=lambda one: (one.effective_from, one.version))

    def week_at(self, at_us: int) -> Week:
        """The service week that an instant falls in."""
        terms = self.terms_at(at_us)
        return week_of(at_us, terms.time_zone, end_of_business(terms))

    def week_from(self, monday: str) -> Week:
        """The service week that begins on an ISO date, by the terms in force as it begins."""
        day = date.fromisoformat(monday)
        noon = datetime.combine(day, time(12), UTC)
        terms = self.terms_at(int(noon.timestamp()) * 1_000_000)
        return Week(day, terms.time_zone, end_of_business(terms))

    @property
    def documents_to(self) -> tuple[str, ...]:
        """Where its documents are sent; empty: nowhere."""
        return self.buyer.billing_emails or self.buyer.lead_emails


def end_of_business(terms: Terms) -> time:
    """The time of day at which what is due on a day falls due (domain, section 2)."""
    return time.fromisoformat(terms.end_of_business)


def read_contracts(connection: Connection) -> dict[str, Contract]:
    """Every buyer whose profile has a version, by name."""
    stored, states, _ = read_stored(connection)
    versions: dict[str, list[Terms]] = {}
    for one in stored.terms.values():
        versions.setdefault(one.name, []).append(one)
    return {
        name: Contract(buyer, states[name], tuple(versions[buyer.terms.name]))
        for name, buyer in stored.buyers.items()
        if buyer.terms.name in versions
    }


def read_contract(connection: Connection, buyer: str) -> Contract:
    """One buyer, without its endpoints. Raises UnknownBuyerError."""
    found = read_buyer(connection, buyer)
    if found is None or not found[2]:
        raise UnknownBuyerError(f"no buyer is called {buyer!r}")
    return Contract(*found)


def state_of(connection: Connection, buyer: str) -> BuyerState:
    """A buyer's state by itself, without reading the whole book: every payment asks for it in a write transaction.

    One that this version does not know stands for a pause, as in the book. Raises UnknownBuyerError.
    """
    found = connection.execute(select(buyers.c.state).where(buyers.c.name == buyer)).scalar_one_or_none()
    if found is None:
        raise UnknownBuyerError(f"no buyer is called {buyer!r}")
    return BuyerState(found) if found in list(BuyerState) else BuyerState.PAUSED
