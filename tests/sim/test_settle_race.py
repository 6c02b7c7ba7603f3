"""Four processes at one journal and one ledger: each transfer is charged once, and the invoices are the same."""

from __future__ import annotations

import pickle
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from facts.fact import EndCause, Kind, Party
from meter.billing.cycle import Cycle
from meter.ledger.accounts import Posting
from meter.settling.sql.verify_ledger import verify_ledger
from meter.store.clerk import Clerk
from meter.store.engine import open_store
from meter.store.money_schema import postings
from meter.store.schema import outcomes
from tests.facts_builder import UTC_0, WESTLAKE, Story
from tests.sim.books.helpers import answer, bill, copy_store, helper, read_books, tell
from tests.store.journal_tools import store
from tests.store.money_tools import Books, at, unit_posting

SEED = 11
PROCESSES = 4
BUYERS = ("acme", "bolt", "cyan")
WEEKS = ("2026-06-01", "2026-06-08", "2026-06-15")
END = "2026-06-24 09:00"
TRANSFERS = 600


def story(name: str, buyer: str, dialout: int, *, kind: str, percent: int, first: int) -> Story:
    terms = WESTLAKE | {"name": "contract", "connected_percent": percent}
    made = Story(name, first_seq=first).start(buyer=buyer, lead_emails=[], terms=terms).dial(1).ring(1, 1.0)
    if kind == "connected":
        made.answer(1, 4.0).bridge(1, 4.1).add(Kind.TALK_REACHED_15S, 19.0).hang_up(44.0, Party.CALLER)
    elif kind == "failed":
        made.cancelled(1, 30.0).end(30.0, Party.ROUTER, EndCause.RING_TIMEOUT)
    else:
        made.decline(1, 3.0).end(3.0, Party.ROUTER, EndCause.LEGS_FAILED)
    made.facts = [replace(fact, utc_us=fact.utc_us - UTC_0 + dialout) for fact in made.facts]
    return made.close()


async def sell(path: Path) -> None:
    """Three buyers with paid orders of three weeks; two weeks were delivered when the meter comes to count."""
    engine = await open_store(f"sqlite:///{path}")
    books = Books(engine)
    await books.agree(*BUYERS)
    for buyer in BUYERS:
        for week in WEEKS:
            await books.order(buyer, week, 30)
    await books.run("2026-05-26 12:00")
    for buyer in BUYERS:
        await books.pay(buyer, 30 * 4_500, "2026-05-27 10:00")  # the first week; the others are invoiced in the end
    await books.close()
    await engine.dispose()


async def run_cycle(path: Path) -> None:
    engine = await open_store(f"sqlite:///{path}")
    cycle = Cycle(engine)
    report = await cycle.run_once(at(END))
    assert report.trouble == []
    assert (await verify_ledger(engine)).problems == ()
    await cycle.close()
    await engine.dispose()


def all_at_once(mode: str, lines: Sequence[str]) -> list[int]:
    """Processes that were all ready before the first was told to begin; what each of them did."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        processes = [stack.enter_context(helper(mode)) for _ in lines]
        for process, line in zip(processes, lines, strict=True):
            tell(process, line)
        return [int(answer(process)) for process in processes]


async def rows(path: Path, table: Any) -> list[Any]:
    engine = await open_store(f"sqlite:///{path}")
    clerk = Clerk(engine)
    found = await clerk.read(lambda connection: connection.execute(select(table)).all())
    await clerk.close()
    await engine.dispose()
    return list(found)


@pytest.mark.slow
async def test_four_processes_settle_one_journal_and_each_transfer_is_charged_once(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    prepared = tmp_path / "prepared.db"
    await sell(prepared)
    engine = await open_store(f"sqlite:///{prepared}")
    charged: dict[str, str] = {}
    for boot in range(6):
        told: list[Story] = []
        for number in range(TRANSFERS // 6):
            name = f"t-{boot}-{number}"
            kind = dice.choice(("connected", "connected", "failed", "free"))
            dialout = dice.randrange(at("2026-06-01 00:00"), at("2026-06-22 00:00"))
            first = told[-1].next_seq if told else 1
            buyer, percent = dice.choice(BUYERS), dice.choice((93, 88))
            told.append(story(name, buyer, dialout, kind=kind, percent=percent, first=first))
            if kind != "free":
                charged[name] = kind
        await store(engine, *told, boot=f"boot-{boot}")
    await engine.dispose()
    alone = copy_store(prepared, tmp_path / "alone.db")
    raced = copy_store(prepared, tmp_path / "raced.db")
    all_at_once("settle", [str(alone)])
    shares = all_at_once("settle", [str(raced)] * PROCESSES)
    assert sum(share > 0 for share in shares) > 1, "it was to be a race"
    made = {row.transfer: row.unit for row in await rows(raced, postings) if row.transfer is not None}
    assert made == charged
    assert len(await rows(raced, outcomes)) == TRANSFERS
    assert [row for row in await rows(raced, outcomes) if not row.agreed] == []
    for path in (alone, raced):
        await run_cycle(path)
    assert bill(raced) == bill(alone)
    kinds = {kind for kind, _, _ in bill(raced)}
    assert kinds >= {"order", "overage", "week", "figures"}
    print(f"{TRANSFERS} transfers, commits of each process {shares}, {len(bill(raced))} documents")  # noqa: T201


def units(dice: random.Random) -> list[Posting]:
    made = []
    for number in range(900):
        kind = dice.choice(("connected", "connected", "failed"))
        dialout = dice.randrange(at("2026-06-01 00:00"), at("2026-06-22 00:00"))
        percent = dice.choice((93, 88, 77)) if kind == "connected" else 100
        made.append(unit_posting(f"t-{number}", dice.choice(BUYERS), kind, percent, dialout))
    return made


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_any_order_of_posting_in_any_number_of_processes_gives_the_same_invoices(
    tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    made = units(dice)
    prepared = tmp_path / "prepared.db"
    await sell(prepared)

    async def settled(name: str, parts: list[list[Posting]]) -> Path:
        path = copy_store(prepared, tmp_path / f"{name}.db")
        lines = []
        for number, part in enumerate(parts):
            file = tmp_path / f"{name}-{number}.pickle"
            file.write_bytes(pickle.dumps(part))
            lines.append(f"{path} {file}")
        assert sum(all_at_once("post", lines)) == len(made)
        await run_cycle(path)
        return path

    shuffled = dice.sample(made, len(made))
    again = dice.sample(shuffled[::5], len(shuffled[::5]))  # some are said twice, by different processes
    parts = [shuffled[number::PROCESSES] for number in range(PROCESSES)]
    parts[0] += again
    one = await settled("one", [made])
    other = await settled("other", [dice.sample(made, len(made))])
    four = await settled("four", parts)
    assert bill(one) == bill(other) == bill(four)
    assert any(kind == "overage" for kind, _, _ in bill(one))
    assert read_books(one)["postings"] != read_books(four)["postings"], "the order was to differ"
