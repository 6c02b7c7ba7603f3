"""Receipts over real SIP: what the dialer gets is signed, and names the very lists by which its number was judged."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest

from meter.store.db import open_store
from meter.store.suppression import ListRows
from suppression.importer import Task, import_file
from suppression.ports import StaleError, Who
from suppression.receipt import load_signer
from tests.net.conftest import Station, verdict
from tests.net.peer import Callee

pytestmark = pytest.mark.net

RATE = 100  # transfers a second
SECONDS = 6
EVEN, ODD = "12125550100", "12125550101"


async def test_the_dialer_gets_a_receipt_that_is_ours(station: Station) -> None:
    (station.folder / "dnc.csv").write_text("phone\n(212) 555-0177\n")
    station.section('[[suppression_lists]]\nname = "dnc"\nfile = "dnc.csv"\ncolumn = "phone"')
    await station.buyer("acme", Callee([(10, 486)]))
    await station.start()
    signer = load_signer(station.folder / "data" / "suppression")
    for number, reason, hit in (("12125550177", "suppressed", "dnc"), ("12125550178", "", "")):
        call = station.caller.invite("acme", number=number)
        final = await station.caller.final(call)
        facts = await station.closed(call.call_id)
        receipt = final.header("X-Baton-Receipt")
        said = signer.verify(receipt)
        assert (said.transfer, said.buyer, said.reason, said.hit) == (facts[0].transfer, "acme", reason, hit)
        assert signer.proves(said, receipt, int(number))
        assert not signer.proves(said, receipt, 12_125_550_179)
        assert number[-10:] not in receipt
        assert final.header("X-Baton-Scrub").startswith(f"{reason or 'pass'}; dnc@1.0:")
        assert facts[0].payload["scrub"]["receipt"] == receipt


@pytest.mark.slow
async def test_a_list_replaced_under_load_never_mixes_in_a_receipt(station: Station) -> None:
    """Versions in turn have the even number and the odd one. Every transfer must be judged by the one version that its
    receipt names, and what the receipt names must be on record.
    """
    lists = [station.folder / "0.csv", station.folder / "1.csv"]
    for file, number in zip(lists, (EVEN, ODD), strict=True):
        file.write_text("phone\n" + f"+{number}\n" + "".join(f"212556{at:04}\n" for at in range(2_000)))
    station.section(f'[[suppression_lists]]\nname = "dnc"\nfile = "{lists[0].name}"\ncolumn = "phone"')
    station.section("[suppression]\nreload_ms = 50")
    await station.buyer("acme", Callee([(0, 486)]))
    await station.start()
    data = station.folder / "data"
    engine = await open_store(f"sqlite+aiosqlite:///{data / 'baton.db'}")
    store = ListRows(engine, stale=StaleError)
    done = asyncio.Event()

    async def replace() -> int:
        times = 0
        while not done.is_set():
            times += 1
            await import_file(store, data, Task(lists[times % 2], "dnc", None), Who("test", "test"))
            await asyncio.sleep(0.1)
        return times

    replacing = asyncio.create_task(replace())
    calls = []
    started = time.monotonic()
    for at in range(RATE * SECONDS):
        calls.append((station.caller.invite("acme", number=(EVEN, ODD)[at % 2]), (EVEN, ODD)[at % 2]))
        await asyncio.sleep(max(0.0, started + (at + 1) / RATE - time.monotonic()))
    finals = [(await station.caller.final(call), number, call) for call, number in calls]
    done.set()
    replaced = await replacing
    signer = load_signer(data / "suppression")
    seen: dict[tuple[int, str], int] = {}
    for final, number, call in finals:
        said = signer.verify(final.header("X-Baton-Receipt"))
        kept = await store.sets_like(said.sets[:1])
        assert len(kept) == 1, "a receipt names lists that are not on record"
        (listed,) = orjson.loads(kept[said.sets[0]])
        version = listed["version"]
        assert listed["revision"] == 0
        suppressed = version % 2 == (1 if number == EVEN else 0)  # version 1 has the even number
        assert said.reason == ("suppressed" if suppressed else "")
        assert final.code == (603 if suppressed else 486), call.call_id
        assert f"dnc@{version}.0:{listed['state'][:12]}" in final.header("X-Baton-Scrub")
        seen[version, said.reason] = seen.get((version, said.reason), 0) + 1
    history = {one.version: one.checksum for one in await store.history("dnc")}
    await engine.dispose()
    versions = {version for version, _ in seen}
    assert replaced >= 10
    assert len(versions) >= 8, "the list was not replaced often enough to show anything"
    assert versions <= set(history)
    assert sum(many for (_, reason), many in seen.items() if reason) >= RATE
    assert verdict(await station.closed(calls[0][0].call_id))
