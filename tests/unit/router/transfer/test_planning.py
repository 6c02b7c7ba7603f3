"""The dialer's id of a call: kept as it is, or not taken and said."""

from __future__ import annotations

import pytest

from router.transfer.planning import CALL_ID_UNREAD
from tests.memory import Script
from tests.world import SECOND_US, World, declines, party, plain


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["abc@host"], "abc@host"),
        (["f1b2c3d4-0199@10.1.1.1:5060"], "f1b2c3d4-0199@10.1.1.1:5060"),
        (["%!*_+`'~()<>:\\\"/[]?{}@x.y"], "%!*_+`'~()<>:\\\"/[]?{}@x.y"),  # all of a callid, RFC 3261 section 25.1
        (["  c-9\t"], "c-9"),
        (["c-9", " c-9"], "c-9"),
        (["x" * 64], "x" * 64),
        (["x" * 65], ""),
        (["two words"], ""),
        (["c-9", "c-10"], ""),
        (["caf\u00e9"], ""),
        (["c\x00"], ""),
    ],
)
def test_a_call_id_is_kept_whole_or_not_at_all_and_that_is_said(given: list[str], kept: str) -> None:
    world = World([plain(1)]).script(party(declines(1_000)))
    world.engine.invite("leads", Script(()), headers={"x-call-id": given})
    world.clock.run_for(10 * SECOND_US)
    started = world.journal.facts[0]
    assert started.payload["call_id"] == (kept or started.transfer)
    assert started.payload.get("lead_problems", []) == ([] if kept else [CALL_ID_UNREAD])


@pytest.mark.parametrize("given", [[], [""], [" "]])
def test_without_one_our_own_id_is_taken_and_nothing_is_wrong(given: list[str]) -> None:
    world = World([plain(1)]).script(party(declines(1_000)))
    world.engine.invite("leads", Script(()), headers={"x-call-id": given} if given else {})
    world.clock.run_for(10 * SECOND_US)
    started = world.journal.facts[0]
    assert started.payload["call_id"] == started.transfer
    assert "lead_problems" not in started.payload
