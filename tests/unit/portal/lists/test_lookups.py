"""Numbers looked up, and receipts verified."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import orjson
import pytest

from suppression.receipt import Signer
from suppression.scrub import Scrub
from tests.unit.portal.lists.api import (
    ANN,
    FREE,
    ONE,
    THREE,
    TWO,
    Api,
    done_of,
    fields_of,
    problem_of,
)


async def test_a_number_is_found_with_its_list_and_since_when(api: Api) -> None:
    await api.load("dnc", ONE)
    await api.load("dnc", ONE, TWO)
    await api.load("mine", THREE, token="acme")
    await api.post("/lists/mine/entries", {"add": [{"entry": ONE, "expires": "2099-01-31"}]}, "acme")
    found = done_of(await api.post("/check", {"number": "(212) 555-0100", "buyer": "acme"}))
    assert (found["verdict"], found["hit"], found["unavailable"]) == ("suppressed", "dnc", [])
    first, second = found["on"]
    history = await api.store.history("dnc")
    since = datetime.fromtimestamp(history[0].imported_utc_us // 1_000_000, UTC)
    assert (first["name"], first["version"], first["exact"], first["by"]) == ("dnc", 2, True, "noc")
    assert datetime.fromisoformat(first["since"]) == since, "from the first version that had it"
    assert (second["name"], second["by"], second["expires_at"]) == ("mine", "acme", "2099-02-01T05:00:00Z")
    assert (second["version"], second["revision"]) == (1, 1)
    everywhere = done_of(await api.post("/check", {"number": TWO}))
    assert ([one["name"] for one in everywhere["on"]], everywhere["verdict"]) == (["dnc"], "")
    free = done_of(await api.post("/check", {"number": FREE, "buyer": "acme"}))
    assert (free["on"], free["verdict"], free["hit"]) == ([], "pass", "")
    await api.post("/lists/dnc/entries", {"remove": [TWO]})
    now = done_of(await api.post("/check", {"number": TWO, "buyer": "acme"}))
    assert now["verdict"] == "pass", "a look-up asks what is new"


async def test_a_number_added_by_hand_to_an_older_version_is_on_the_list_since_then(api: Api) -> None:
    await api.load("mine", ONE, token="acme")
    await api.post("/lists/mine/entries", {"add": [TWO]}, "acme-2")
    await api.load("mine", ONE, TWO, token="acme")
    (on,) = done_of(await api.post("/check", {"number": TWO}))["on"]
    assert (on["version"], on["by"], on["exact"]) == (2, "acme-2", True)


async def test_since_is_a_lower_bound_where_the_older_file_is_gone(api: Api) -> None:
    await api.load("dnc", ONE)
    await api.load("dnc", ONE, TWO)
    (api.folder / (await api.store.history("dnc"))[0].file).unlink()
    (on,) = done_of(await api.post("/check", {"number": ONE}))["on"]
    assert on["exact"] is False


async def test_a_buyer_looks_into_its_own_lists_and_global_ones(api: Api) -> None:
    await api.load("dnc", ONE)
    await api.load("bolts", ONE, TWO, token="bolt")
    found = done_of(await api.post("/check", {"number": ONE}, "acme"))
    assert ([one["name"] for one in found["on"]], found["verdict"]) == (["dnc"], "suppressed")
    assert found["on"][0]["by"] == "", "who made a global list is the operator's matter"
    assert done_of(await api.post("/check", {"number": TWO}, "acme"))["verdict"] == "pass"
    assert done_of(await api.post("/check", {"number": TWO}, "bolt"))["verdict"] == "suppressed"
    assert fields_of(problem_of(await api.post("/check", {"number": ONE, "buyer": "bolt"}, "acme"), 403)) == ["buyer"]
    assert fields_of(problem_of(await api.post("/check", {"number": ONE, "buyer": "acne"}), 422)) == ["buyer"]


async def test_a_list_that_cannot_be_read_clears_nobody(api: Api) -> None:
    await api.load("dnc", ONE)
    await api.load("bolts", TWO, token="bolt")
    row = await api.store.find("dnc")
    assert row is not None
    (api.folder / row.file).write_bytes(b"damaged")
    found = done_of(await api.post("/check", {"number": FREE}, "acme"))
    assert (found["verdict"], found["unavailable"]) == ("suppression_unavailable", ["dnc"])
    assert done_of(await api.post("/check", {"number": FREE}))["unavailable"] == ["dnc"]


async def test_an_exemption_is_told(api: Api) -> None:
    await api.load("dnc", ONE)
    end = int((time.time() + 3600) * 1_000_000)
    done = await api.store.exempt(
        "dnc", int(ONE), buyer=None, reason="consent on record", expires_utc_us=end, actor=ANN
    )
    found = done_of(await api.post("/check", {"number": ONE, "buyer": "acme"}))
    assert (found["verdict"], found["exempt"], len(found["on"])) == ("pass", [done.id], 1)


@pytest.mark.parametrize("number", ["12", "anonymous", "1" * 65, "+1 212 555 01"])
async def test_what_is_no_number_is_not_repeated(api: Api, number: str) -> None:
    for path, more in (("/check", {}), ("/receipts/verify", {"receipt": "x"})):
        problem = problem_of(await api.post(path, {"number": number, **more}), 422)
        assert fields_of(problem) == ["number"]
        assert number not in orjson.dumps({**problem, "status": 0}).decode()


async def test_a_genuine_receipt_is_told_from_others(api: Api) -> None:
    await api.load("dnc", ONE)
    await api.load("mine", TWO, token="acme")
    scrub = Scrub(api.store, api.folder, api.signer)
    await scrub.reload()
    receipt = scrub.receipt(scrub.check(ONE, "acme"), "t-1", "acme", 1_800_000_000_000_000)
    for token in ("noc", "west"):
        found = done_of(await api.post("/receipts/verify", {"receipt": receipt, "number": "212-555-0100"}, token))
        assert (found["claims"]["jti"], found["claims"]["verdict"]) == ("t-1", "suppressed")
        assert [(one["name"], one["version"]) for one in found["lists"]] == [("dnc", 1), ("mine", 1)]
        row = await api.store.find("dnc")
        assert row is not None
        assert found["lists"][0]["state"] == row.state
        assert found["number_matches"] is True
    other = done_of(await api.post("/receipts/verify", {"receipt": receipt, "number": TWO}))
    assert other["number_matches"] is False
    assert done_of(await api.post("/receipts/verify", {"receipt": receipt}))["number_matches"] is None
    foreign = Signer(b"x" * 32).sign_document({"jti": "t-1"})
    head, said, sign = receipt.split(".")
    for bad in ("nonsense", receipt[:-1], foreign, f"{head}.{said[:-2]}.{sign}", "a.b.c", "x" * 9_000):
        problem = problem_of(await api.post("/receipts/verify", {"receipt": bad}), 422)
        assert fields_of(problem) == ["receipt"]
    whole_file = api.signer.sign_document({"jti": "f-1", "lists": ["0" * 32, 7, None]})
    shown = done_of(await api.post("/receipts/verify", {"receipt": whole_file}))
    assert (shown["lists"], shown["missing"], shown["changed"]) == ([], ["0" * 32, "7", "None"], [])
    problem_of(await api.post("/receipts/verify", {"receipt": whole_file, "number": ONE}), 422)
