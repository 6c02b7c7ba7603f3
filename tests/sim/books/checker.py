"""The checker: opens a store's SQLite file read-only and holds every figure against the second bookkeeper's.

It imports nothing of the product (a test reads its imports). What it goes by is the log of events: terms, units as they
were posted, orders, payments, choices, states and the instants of the runs. What it finds wrong it says in words.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.sim.books.model import Customer, Event, Paper

WEEKS = (  # of what a week may show
    "over",
    "short",
    "waiting",
    "make-up",
    "make-up of other units",
    "kept units",
    "kept units used",
    "charged on target",
    "charged though short",
    "short of nothing",
)
STATES = (  # reasons for not serving, before and after: of every order in which they come and go
    "held > held unpaid",
    "unpaid > held unpaid",
    "held unpaid > unpaid",
    "held unpaid > held",
    "held > held paused",
    "held paused > held paused unpaid",
    "paused > paused unpaid",
    "unpaid > paused unpaid",
    "paused unpaid > unpaid",
    "paused unpaid > paused",
)
OTHERS = (
    "taken back from a settled week",
    "bounced after its week was remedied",
    "checks withheld",
    "run while facts wait",
)
EXAMPLES = ("sent", "billed", *WEEKS, *STATES, *OTHERS)  # a year is to meet every one of them
SERIES = {"credit_note": "credit_note", "week": "statement"}  # of a kind; all others are invoices


@dataclass
class Findings:
    """What was looked at, and what is wrong."""

    problems: list[str] = field(default_factory=list)
    documents: int = 0
    postings: int = 0
    weeks: int = 0
    met: Counter[str] = field(default_factory=Counter)  # examples, of `EXAMPLES` and more
    holds: int = 0

    def expect(self, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            self.problems.append(f"{what}: {found!r}, not {wanted!r}")


def check(path: Path, log: Iterable[Event]) -> Findings:
    """Everything there is."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        return _Check(connection, list(log)).run()
    finally:
        connection.close()


class _Check:
    def __init__(self, connection: sqlite3.Connection, log: list[Event]) -> None:
        self._connection = connection
        self._log = log
        self._found = Findings()
        self._customers: dict[str, Customer] = {}

    def run(self) -> Findings:
        self._replay()
        self._numbers()
        for customer in self._customers.values():
            self._documents(customer)
            self._orders(customer)
            self._weeks(customer)
            self._checks(customer)
            self._states(customer)
            self._accounts(customer)
            self._chain(customer.name)
        self._strangers()
        self._mails()
        self._units()
        return self._found

    def _rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        return self._connection.execute(query, values).fetchall()

    def _replay(self) -> None:
        """Let the second bookkeeper live through the log. Documents get the numbers of those that stand for them."""
        numbers: dict[tuple[str, str, str, int], str] = {}
        count: Counter[tuple[str, str, str]] = Counter()
        for row in self._rows("SELECT kind, buyer, period, number FROM documents ORDER BY series, sequence"):
            this = (row["kind"], row["buyer"], row["period"] or "")
            numbers[(*this, count[this])] = row["number"]
            count[this] += 1
        profiles: dict[str, list[dict[str, Any]]] = {}
        for event in self._log:
            what = event["what"]
            if what == "terms":
                profiles.setdefault(event["name"], []).append(event)
            elif what == "buyer":
                self._customers[event["buyer"]] = Customer(event, profiles[event["name"]], numbers)
            elif what == "run":
                self._found.met["run while facts wait"] += event["behind"]
                for customer in self._customers.values():
                    customer.run(event["at"], is_behind=event["behind"])
            else:
                if what == "unit":
                    self._percentage(event)
                try:
                    self._customers[event["buyer"]].happen(event)
                except (LookupError, StopIteration) as error:
                    self._found.problems.append(f"{event}: cannot have happened: {error!r}")

    def _percentage(self, event: Event) -> None:
        terms = self._customers[event["buyer"]].terms_at(event["dialout"])
        self._found.expect(f"{event['transfer']}: percentage", event["percent"], terms[f"{event['kind']}_percent"])

    def _numbers(self) -> None:
        """No gap, and in the order of issue."""
        last: dict[str, tuple[int, int]] = {}
        for row in self._rows("SELECT * FROM documents ORDER BY series, sequence"):
            number, issued = last.get(row["series"], (0, 0))
            self._found.expect(f"{row['number']}: place in its series", row["sequence"], number + 1)
            self._found.expect(f"{row['number']}: issued after the one before", row["issued_utc_us"] >= issued, True)
            self._found.expect(f"{row['number']}: digest", hashlib.sha256(row["body"]).hexdigest(), row["digest"])
            last[row["series"]] = (row["sequence"], row["issued_utc_us"])
        heads = {row["series"]: row["last"] for row in self._rows("SELECT * FROM document_series")}
        self._found.expect("ends of the series", heads, {name: end for name, (end, _) in last.items()})

    def _documents(self, customer: Customer) -> None:
        rows = {row["number"]: row for row in self._rows("SELECT * FROM documents WHERE buyer = ?", customer.name)}
        wanted = {paper.number: paper for paper in customer.papers}
        for number in sorted(rows.keys() - wanted.keys()):
            row = rows[number]
            said = f"{row['kind']} of {row['period']}, {row['total_minor']}"
            self._found.problems.append(f"{number} of {customer.name}: a document too many: {said}")
        for number in sorted(wanted.keys() - rows.keys()):
            self._found.problems.append(f"{customer.name}: missing: {wanted[number]}")
        for number in sorted(rows.keys() & wanted.keys()):
            self._found.documents += 1
            self._document(rows[number], wanted[number])
        currencies = {row["currency"] for row in rows.values()}
        self._found.expect(f"currencies of {customer.name}", currencies <= {customer.currency}, True)
        invoices = [paper.number for paper in customer.papers if SERIES.get(paper.kind, "invoice") == "invoice"]
        places = [rows[number]["sequence"] for number in invoices if number in rows]
        self._found.expect(f"invoices of {customer.name} in the order of what they are for", places, sorted(places))

    def _document(self, row: sqlite3.Row, paper: Paper) -> None:
        said = {name: row[name] for name in ("kind", "total_minor", "applied_minor", "due_utc_us", "issued_utc_us")}
        said |= {name: row[name] for name in ("settled_utc_us", "held_utc_us", "series")}
        expected = {
            "kind": paper.kind,
            "total_minor": paper.total,
            "applied_minor": paper.applied,
            "due_utc_us": paper.due,
            "issued_utc_us": paper.issued,
            "settled_utc_us": paper.settled,
            "held_utc_us": paper.held,
            "series": SERIES.get(paper.kind, "invoice"),
        }
        self._found.expect(f"{row['number']} ({row['buyer']}, {row['kind']} {row['period']})", said, expected)
        body = json.loads(row["body"])
        lines = [(line["units"], line["amount_minor"]) for line in body["lines"]]
        self._found.expect(f"{row['number']}: lines", lines, paper.units)
        self._found.expect(f"{row['number']}: asked", body["asked_minor"], paper.total - paper.applied)
        told = (body["number"], body["kind"], body["total_minor"], body["applied_minor"])
        wanted = (row["number"], row["kind"], row["total_minor"], row["applied_minor"])
        self._found.expect(f"{row['number']}: its body", told, wanted)
        for line in body["lines"]:
            if line["units"] and line["price_minor"]:
                product = line["units"] * line["price_minor"]
                self._found.expect(f"{row['number']}: {line['text']}", line["amount_minor"], product)
        if paper.figures:
            self._found.expect(f"{row['number']}: figures", body["figures"], paper.figures)

    def _orders(self, customer: Customer) -> None:
        columns = (
            "quantity, make_up, make_up_owed, make_up_units, make_up_minor, invoice, paid_units, connected_percent"
        )
        query = f"SELECT week, {columns} FROM orders WHERE buyer = ?"
        found = {row["week"]: tuple(row)[1:] for row in self._rows(query, customer.name)}
        wanted = {}
        for monday, one in customer.orders.items():
            is_invoiced = one.invoice is not None
            frozen = (one.paid_units, one.terms["connected_percent"]) if is_invoiced else (None, None)
            number = one.invoice.number if one.invoice is not None else None
            make_up = (one.make_up, one.owed, one.owed_units, one.worth)
            wanted[monday.isoformat()] = (one.quantity, *make_up, number, *frozen)
        for week in sorted({*found, *wanted}):
            self._found.expect(f"order of {customer.name} for {week}", found.get(week), wanted.get(week))

    def _weeks(self, customer: Customer) -> None:
        columns = "short_counted, short_units, short_minor, awaiting_counted, awaiting_units, awaiting_minor"
        query = f"SELECT period, {columns}, prepaid_units, prepaid_minor FROM billing_periods"
        rows = self._rows(f"{query} WHERE buyer = ? AND length(period) = 10", customer.name)
        found = {row["period"]: tuple(row)[1:] for row in rows}
        wanted = {}
        for monday, one in customer.weeks.items():
            parts = [value for part in (one.short, one.waiting) for value in (part.counted, part.units, part.minor)]
            wanted[monday.isoformat()] = (*parts, one.kept.units, one.kept.minor)
        for week in sorted({*found, *wanted}):
            self._found.expect(f"week of {customer.name} from {week}", found.get(week), wanted.get(week))
        self._found.weeks += len(wanted)
        for paper in customer.papers:
            if paper.kind == "week":
                self._found.met.update(_shown(paper.figures))

    def _checks(self, customer: Customer) -> None:
        checks = [
            (row["week"], row["units"], row["amount_minor"], row["due_on"], row["paid_utc_us"] is not None)
            for row in self._rows("SELECT * FROM refunds WHERE buyer = ? ORDER BY id", customer.name)
        ]
        wanted = [(one.week, one.units, one.amount, one.due_on, one.sent) for one in customer.checks]
        self._found.expect(f"checks to {customer.name}", checks, wanted)
        for table in ("refunds", "payments"):
            query = f"SELECT DISTINCT currency FROM {table} WHERE buyer = ?"
            currencies = {row["currency"] for row in self._rows(query, customer.name)}
            self._found.expect(f"currencies of {table} of {customer.name}", currencies <= {customer.currency}, True)

    def _states(self, customer: Customer) -> None:
        states = [
            (row["at_utc_us"], row["before"], row["after"], row["by"])
            for row in self._rows("SELECT * FROM buyer_states WHERE buyer = ? ORDER BY id", customer.name)
        ]
        self._found.expect(f"states of {customer.name}", states, customer.states)
        self._found.holds += sum(before != after == "on_hold" for _, before, after, _ in states)
        stops = {row["reason"] for row in self._rows("SELECT * FROM buyer_stops WHERE buyer = ?", customer.name)}
        self._found.expect(f"reasons not to serve {customer.name}", stops, customer.stops)
        [now] = self._rows("SELECT state FROM buyers WHERE name = ?", customer.name)
        self._found.expect(f"state of {customer.name}", now["state"], customer.state)
        self._found.met.update(customer.met)

    def _accounts(self, customer: Customer) -> None:
        held: dict[str, Counter[str]] = {}
        open_of: Counter[str] = Counter()
        sums: Counter[str] = Counter()
        for row in self._rows("SELECT * FROM postings WHERE buyer = ? ORDER BY seq", customer.name):
            accounts = held.setdefault(row["asset"], Counter())
            for side, sign in (("debit", 1), ("credit", -1)):
                accounts[row[side]] += sign * row["amount"]
                sums[row["asset"]] += sign * row["amount"]
                if row[side] == "receivable":
                    open_of[row["document"]] += sign * row["amount"]
            self._found.expect(f"{row['key']}: amount is not negative", row["amount"] >= 0, True)
        self._found.expect(f"sums of {customer.name}", any(sums.values()), False)
        for asset, wanted in (
            (customer.currency, customer.balances()),
            ("unit", customer.units_held()),
            ("increment", customer.minutes_held()),
        ):
            accounts = {name: amount for name, amount in held.pop(asset, Counter()).items() if amount}
            self._found.expect(f"accounts of {customer.name} in {asset}", accounts, wanted)
        self._found.expect(f"other assets of {customer.name}", held, {})
        found = {number: amount for number, amount in open_of.items() if amount}
        self._found.expect(f"open of {customer.name}", found, {p.number: p.open for p in customer.papers if p.open})

    def _chain(self, buyer: str) -> None:
        digest, seq = bytes(32), 0
        for row in self._rows("SELECT * FROM postings WHERE buyer = ? ORDER BY seq", buyer):
            self._found.postings += 1
            *values, said = tuple(row)
            written = json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode()
            digest, seq = hashlib.sha256(digest + written).digest(), seq + 1
            if (row["seq"], said) != (seq, digest):
                self._found.problems.append(f"chain of {buyer}: broken at {row['seq']}, {row['key']}")
                return
        heads = self._rows("SELECT seq, digest FROM ledger_heads WHERE buyer = ?", buyer)
        self._found.expect(
            f"end of the chain of {buyer}", [tuple(row) for row in heads], [(seq, digest)] if seq else []
        )

    def _strangers(self) -> None:
        known = set(self._customers)
        for table in ("documents", "postings", "refunds", "buyer_states", "buyer_stops", "payments"):
            found = {row["buyer"] for row in self._rows(f"SELECT DISTINCT buyer FROM {table}")}
            self._found.expect(f"{table} of nobody", found - known, set())

    def _mails(self) -> None:
        """One e-mail per document, to the addresses of its buyer."""
        wanted = {
            f"{paper.number}.document": (f"document:{paper.number}", paper.number, [f"bills@{name}.example"])
            for name, customer in self._customers.items()
            for paper in customer.papers
        }
        found = {}
        for row in self._rows("SELECT * FROM outbox WHERE channel = 'mail' AND message_id LIKE '%.document'"):
            payload = json.loads(row["payload"])
            found[row["message_id"]] = (row["key"], payload["number"], payload["to"])
        for one in sorted({*wanted, *found}):
            self._found.expect(f"e-mail {one}", found.get(one), wanted.get(one))

    def _units(self) -> None:
        """What was posted is what happened, once."""
        query = "SELECT key, transfer, buyer, unit, units, percent, dialout_utc_us FROM postings WHERE rule = 'unit'"
        found = Counter(tuple(row)[1:] for row in self._rows(query))
        wanted = Counter(
            (one["transfer"], one["buyer"], one["kind"], 1, one["percent"], one["dialout"])
            for one in self._log
            if one["what"] == "unit"
        )
        self._found.expect("units too many", list(found - wanted), [])
        self._found.expect("units missing", list(wanted - found), [])


def _shown(figures: dict[str, Any]) -> list[str]:
    """What a week is an example of."""
    short, over = figures["shortfall_counted"], figures["overage_counted"]
    is_short = bool(short or figures["awaiting_counted"])
    shows = (
        over,
        short,
        figures["awaiting_counted"],
        figures["make_up"],
        figures["make_up"] != figures["make_up_units"],
        figures["prepaid_units"],
        figures["prepaid_used"],
        not is_short and not over and figures["overage_units"],
        is_short and figures["overage_units"],
        is_short and not figures["shortfall_units"] + figures["awaiting_units"],
    )
    return [figures["counts"], *(name for name, does in zip(WEEKS, shows, strict=True) if does)]
