"""Calls over TCP that last longer than PJSIP keeps a connection by which nothing comes."""

from __future__ import annotations

import asyncio

import pytest

from tests.net.conftest import Station, verdict
from tests.net.streams import StreamCallee

pytestmark = pytest.mark.net
IDLE_S = 36  # PJSIP closes what nobody holds after 33


async def test_an_endpoint_hangs_up_by_the_connection_that_its_call_came_by(station: Station) -> None:
    """Our Contact names that connection: there is no other way for its BYE."""
    callee = StreamCallee([(20, 180), (50, 200)])
    await station.buyer("acme", callee, each='transport = "tcp"')
    await station.start()
    call = station.caller.invite("acme")
    assert (await station.caller.final(call)).code == 200
    invite = await callee.wait(lambda m: m.method == "INVITE")
    await asyncio.sleep(IDLE_S)
    callee.hang_up(invite)
    await station.caller.wait(lambda m: m.method == "BYE" and m.call_id == call.call_id)
    assert verdict(await station.closed(call.call_id)) == "connected/answered"
