"""Plans an import of the book before anything is written. Pure: values in, a plan out.

A conflict is an entry that the store has with other content; it names the fields that differ, never their values, for
an endpoint's password is one of them. A fault stands in the way even where conflicts are to be replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from book.model import Buyer, Campaign, Endpoint, Terms
from book.sections import BookFile
from book.terms import in_force, next_start

Entry = Terms | Buyer | Campaign


class ImportRefusedError(Exception):
    """Nothing was written. `conflicts` says, entry by entry, why."""

    def __init__(self, conflicts: Iterable[str]) -> None:
        self.conflicts = tuple(conflicts)
        listed = "\n".join(f"  {one}" for one in self.conflicts)
        super().__init__(f"import refused, nothing was written:\n{listed}")


@dataclass(frozen=True, slots=True)
class StoredBook:
    """The book as the store holds it. A buyer's `terms` has only its name here."""

    terms: Mapping[tuple[str, int], Terms] = field(default_factory=dict)
    buyers: Mapping[str, Buyer] = field(default_factory=dict)
    campaigns: Mapping[str, Campaign] = field(default_factory=dict)

    def versions_of(self, name: str) -> list[Terms]:
        return [one for (profile, _), one in self.terms.items() if profile == name]


@dataclass(slots=True)
class ImportPlan:
    """Entries to add and to replace, and why the import may have to be refused."""

    added: list[Entry] = field(default_factory=list)
    replaced: list[Entry] = field(default_factory=list)
    unchanged: int = 0
    conflicts: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def added_names(self) -> tuple[str, ...]:
        return tuple(title_of(one) for one in self.added)

    @property
    def replaced_names(self) -> tuple[str, ...]:
        return tuple(title_of(one) for one in self.replaced)


def plan_import(stored: StoredBook, file: BookFile, now: datetime) -> ImportPlan:
    """Hold each entry of the file against the store."""
    plan = ImportPlan()
    for terms in file.terms:
        before = stored.terms.get((terms.name, terms.version))
        _sort(plan, _as_agreed(terms, before, file), before)
        _check_says(plan, terms, before, stored, file)
    for buyer in file.buyers:
        _sort(plan, buyer, stored.buyers.get(buyer.name))
        _check_terms(plan, buyer, stored, file, now)
    known = {*stored.buyers, *(one.name for one in file.buyers)}
    for campaign in file.campaigns:
        _sort(plan, campaign, stored.campaigns.get(campaign.name))
        plan.faults += [
            f"{title_of(campaign)}: buyer {name!r} is not known" for name in campaign.buyers if name not in known
        ]
    return plan


def _as_agreed(terms: Terms, before: Terms | None, file: BookFile) -> Terms:
    """Terms that a file names again: where it does not say what an order counts, a new default changes no contract."""
    if before is None or (terms.name, terms.version) not in file.unsaid:
        return terms
    return replace(terms, order_counts=before.order_counts)


def _check_says(plan: ImportPlan, terms: Terms, before: Terms | None, stored: StoredBook, file: BookFile) -> None:
    """A new version of a contract that counts otherwise than the default has to say how it counts."""
    if before is not None or (terms.name, terms.version) not in file.unsaid:
        return
    last = max(stored.versions_of(terms.name), key=lambda one: one.version, default=terms)
    if last.order_counts != terms.order_counts:
        plan.faults.append(
            f"{title_of(terms)}: order_counts: is not said; version {last.version} counts {last.order_counts!r}, the"
            f" default is {terms.order_counts!r}: which is it?"
        )


def title_of(entry: Entry) -> str:
    if isinstance(entry, Terms):
        return f"terms {entry.name} version {entry.version}"
    return f"{'buyer' if isinstance(entry, Buyer) else 'campaign'} {entry.name}"


def _sort(plan: ImportPlan, entry: Entry, before: Entry | None) -> None:
    if before is None:
        plan.added.append(entry)
        return
    differing = list(_differences(before, entry))
    if not differing:
        plan.unchanged += 1
        return
    plan.replaced.append(entry)
    plan.conflicts.append(f"{title_of(entry)}: the store has other content in {', '.join(differing)}")


def _differences(before: Any, after: Any) -> Iterable[str]:
    """Names of the fields that differ; never a value."""
    for one in fields(after):
        old, new = getattr(before, one.name), getattr(after, one.name)
        if one.name == "terms":
            old, new = old.name, new.name
        if one.name == "state" or old == new:
            continue
        if one.name == "endpoints":
            yield from _endpoint_differences(old, new)
        else:
            yield one.name


def _endpoint_differences(before: tuple[Endpoint, ...], after: tuple[Endpoint, ...]) -> Iterable[str]:
    old, new = ({one.name: one for one in some} for some in (before, after))
    for name in sorted(old.keys() ^ new.keys()):
        yield f"endpoint {name} ({'added' if name in new else 'dropped'})"
    for name in sorted(old.keys() & new.keys()):
        differing = list(_differences(old[name], new[name]))
        if differing:
            yield f"endpoint {name} ({', '.join(differing)})"
    if list(old) != list(new) and old.keys() == new.keys():
        yield "the order of endpoints"


def _check_terms(plan: ImportPlan, buyer: Buyer, stored: StoredBook, file: BookFile, now: datetime) -> None:
    """A buyer needs terms that hold today: without them no transfer could be priced."""
    coming = {(one.name, one.version): one for one in file.terms}
    merged = {**stored.terms, **coming, **({} if _has(stored, file, buyer) else {("", 0): buyer.terms})}
    versions = [one for one in merged.values() if one.name == buyer.terms.name]
    if in_force(versions, now) is None:
        start = next_start(versions, now)
        when = f" before {start:%Y-%m-%d}" if start is not None else ""
        plan.faults.append(f"{title_of(buyer)}: no version of terms {buyer.terms.name!r} is in force{when}")


def _has(stored: StoredBook, file: BookFile, buyer: Buyer) -> bool:
    return bool(stored.versions_of(buyer.terms.name)) or any(one.name == buyer.terms.name for one in file.terms)
