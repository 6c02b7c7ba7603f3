"""Receipts over real SIP: what the dialer gets is signed, and names the very lists by which its number was judged."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest

from book.lists import Actor
from facts.fact import Kind
from meter.store.engine import open_store
from meter.suppression_rows.sql.lists import ListRows
from router.lead import NOT_A_NUMBER
from suppression.importer import Task, import_file
from suppression.receipt import load_signer
from tests.net.conftest import Station, verdict
from tests.net.peer import Callee, sdp

pytestmark = pytest.mark.net

RATE = 100  # transfers a second
SECONDS = 6
MOST_OF_A_200 = 2200  # bytes with its session: two fragments on Ethernet; the stack takes 4000
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


async def test_the_dialer_of_a_bridged_call_has_the_receipt_in_its_200(station: Station) -> None:
    """Who hangs up itself gets no BYE of Baton's that could bring it."""
    for at in range(12):
        station.section(
            f'[[suppression_lists]]\nname = "a-list-with-a-long-name-{at}"\nfile = "dnc.csv"\ncolumn = "phone"'
        )
    (station.folder / "dnc.csv").write_text("phone\n(212) 555-0177\n")
    await station.buyer("acme", Callee([(10, 180), (50, 200)]))
    await station.start()
    signer = load_signer(station.folder / "data" / "suppression")
    call = station.caller.invite("acme", number="12125550178")
    final = await station.caller.final(call)
    await asyncio.sleep(0.2)
    station.caller.bye(call)
    facts = await station.closed(call.call_id)
    receipt = final.header("X-Baton-Receipt")
    said = signer.verify(receipt)
    assert final.code == 200
    assert (said.transfer, said.buyer, said.reason) == (final.header("X-Baton-Transfer"), "acme", "")
    assert signer.proves(said, receipt, 12_125_550_178)
    assert facts[0].payload["scrub"]["receipt"] == receipt
    assert final.header("X-Baton-Scrub").startswith("pass; a-list-with-a-long-name-0@1.0:")
    assert len(receipt) < 600
    assert len(final.text) < MOST_OF_A_200


async def test_a_buyer_passed_over_for_its_list_leaves_its_own_receipt(station: Station) -> None:
    (station.folder / "own.csv").write_text("phone\n(212) 555-0177\n")
    station.section('[[suppression_lists]]\nname = "own"\nbuyer = "acme"\nfile = "own.csv"\ncolumn = "phone"')
    await station.buyer("acme", Callee([(10, 486)]))
    both = '[[campaigns]]\nname = "both"\nbuyers = ["acme", "bolt"]\nstrategy = "priority"'
    await station.buyer("bolt", Callee([(10, 486)]), campaign=both)
    await station.start()
    signer = load_signer(station.folder / "data" / "suppression")
    call = station.caller.invite("both", number="12125550177")
    final = await station.caller.final(call)
    started = (await station.closed(call.call_id))[0]
    (refused,) = started.payload["refusals"]
    assert (refused["buyer"], refused["reason"], refused["detail"]) == ("acme", "suppressed", "on list own")
    verdicts = (("acme", "suppressed", "own", refused["scrub"]), ("bolt", "", "", started.payload["scrub"]))
    for buyer, reason, hit, scrub in verdicts:
        said = signer.verify(scrub["receipt"])
        assert (said.transfer, said.buyer, said.reason, said.hit) == (started.transfer, buyer, reason, hit)
        assert signer.proves(said, scrub["receipt"], 12_125_550_177)
        assert (scrub["reason"], scrub["hit"], scrub["number"]) == (reason, hit, said.number)
        assert [one[: len(two)] for one, two in zip(scrub["sets"], said.sets, strict=True)] == list(said.sets)
        assert type(scrub["took_us"]) is int
        assert scrub["took_us"] >= 0
    assert final.header("X-Baton-Receipt") == started.payload["scrub"]["receipt"]
    assert refused["scrub"]["lists"].startswith("own@1.0:")
    assert not started.payload["scrub"]["lists"]


async def test_a_listed_person_is_refused_however_the_lead_spells_the_number(station: Station) -> None:
    """The caller's own number is a good one: it must not stand in for the lead's."""
    (station.folder / "dnc.csv").write_text("phone\n2125550177\n+442079460000\n")
    station.section('[[suppression_lists]]\nname = "dnc"\nfile = "dnc.csv"\ncolumn = "phone"')
    await station.buyer("acme", Callee([(10, 486)]))
    await station.start()
    listed = (
        "2125550177.0",
        "001 212 555 0177",
        "00442079460000",
        "sip:+12125550177@crm.example;user=phone",
        "+1\u202f212\u202f555\u202f0177",
    )
    unreadable = ("call me", "555-0177", "")
    for phone, code, reason in (
        *((one, 603, "suppressed") for one in listed),
        *((one, 400, "bad_number") for one in unreadable),
        ("212 555 0178", 486, ""),
    ):
        call = station.caller.invite("acme", number="18005550199", headers=(f"X-Lead-Phone: {phone}",))
        final = await station.caller.final(call)
        facts = await station.closed(call.call_id)
        started = facts[0].payload
        refused = next((one.payload["reason"] for one in facts if one.kind is Kind.REFUSED), "")
        assert (final.code, refused) == (code, reason), phone
        assert (NOT_A_NUMBER in started.get("lead_problems", ())) == (code == 400)
        assert (started.get("scrub", {}).get("reason")) == (None if code == 400 else reason)
        assert started["phone"] != "+18005550199"
    body = f"--b\r\nContent-Type: application/sdp\r\n\r\n{sdp(40_002)}\r\n--b\r\nContent-Type: application/json\r\n\r\n"
    body += '{"phone": 2125550177.0}\r\n--b--\r\n'
    call = station.caller.invite("acme", number="18005550199", body=body, content_type='multipart/mixed;boundary="b"')
    assert (await station.caller.final(call)).code == 603
    call = station.caller.invite("acme", number="18005550199")  # no phone given: the caller's is the prospect's
    assert (await station.caller.final(call)).code == 486


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
    store = ListRows(engine)
    done = asyncio.Event()

    async def replace() -> int:
        times = 0
        while not done.is_set():
            times += 1
            await import_file(store, data, Task(lists[times % 2], "dnc", None), Actor("test", "test"))
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
