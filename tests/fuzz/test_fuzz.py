"""A short fuzz of the router in `make test`; `make proof` has the long one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.grammar import EXTRAS, METHODS, Odd, Wire
from tests.fuzz.stage import play

MESSAGES = 3_000


@pytest.mark.net
@pytest.mark.slow
async def test_nobody_who_means_harm_disturbs_a_good_dialer(tmp_path: Path) -> None:
    played = await play(tmp_path, MESSAGES, seed=1, a_second=200)
    assert not played.wrong, "\n".join([played.told(), *played.wrong])
    assert played.tally.sip >= MESSAGES
    assert played.tally.dialogs > 50, "they got into dialogs"
    assert played.good > 20


def test_a_seed_replays_what_was_made() -> None:
    def made(seed: int) -> list[bytes]:
        odd = Odd(random.Random(seed))
        found = []
        for _ in range(50):
            wire = Wire("INVITE sip:a@h SIP/2.0", [odd.extra() for _ in range(4)], odd.sdp(9))
            odd.headers(wire)
            found.append(odd.mangled(wire.text()))
        return found

    assert made(7) == made(7)
    assert made(7) != made(8)


def test_much_of_what_is_made_is_well_formed() -> None:
    """What is refused at its first line gets nowhere: most messages keep their first line and their empty one."""
    odd = Odd(random.Random(1))
    kept = 0
    for _ in range(1_000):
        wire = Wire("INVITE sip:a@h SIP/2.0", [("Via", "SIP/2.0/UDP h;branch=z9hG4bKx"), ("Call-ID", "c")], odd.sdp(9))
        odd.headers(wire)
        kept += wire.text().startswith(b"INVITE sip:a@h SIP/2.0\r\n") and b"\r\n\r\n" in wire.text()
    assert kept > 700
    assert len(EXTRAS) > 30
    assert {"INVITE", "BYE", "CANCEL", "PRACK", "UPDATE", "REFER", "SUBSCRIBE"} <= set(METHODS)
