"""Addresses that an engine is told: each must be this machine's, and the error names the setting."""

from __future__ import annotations

import pytest

from book.model import Transport
from router.sip.pjlib import EngineConfig, EngineUnusableError, Listener, check_addresses

ANY = "0.0.0.0"


def _listener(address: str, port: int = 5060, public: str = "") -> Listener:
    return Listener(Transport.UDP, address, port, public)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EngineConfig((_listener("127.0.0.1"),), rtp_address="192.0.2.7"), r"router\.rtp_address = 192\.0\.2\.7 is no"),
        (EngineConfig((_listener("192.0.2.8"),)), r"listeners\.address \(udp, port 5060\) = 192\.0\.2\.8 is no"),
        (EngineConfig((_listener("::1"),)), r"listeners\.address .* = ::1: .* IPv4 only"),
        (EngineConfig((_listener("127.0.0.1"),), rtp_address="::1"), r"router\.rtp_address = ::1: .* IPv4 only"),
        (
            EngineConfig((_listener(ANY, 5060, "203.0.113.1"), _listener(ANY, 5070, "203.0.113.2"))),
            r"listeners\.public_address: 203\.0\.113\.1, 203\.0\.113\.2",
        ),
    ],
)
def test_an_address_that_cannot_be_served_is_named_with_its_setting(config: EngineConfig, message: str) -> None:
    with pytest.raises(EngineUnusableError, match=message):
        check_addresses(config)


@pytest.mark.parametrize(
    "listeners",
    [
        (_listener(ANY, 5060, "203.0.113.1"), _listener(ANY, 5070, "203.0.113.1")),
        (_listener("127.0.0.1", 5060, "203.0.113.1"), _listener("127.0.0.2", 5060, "203.0.113.2")),
        (_listener(ANY), _listener("127.0.0.1", 5070, "203.0.113.2")),
    ],
)
def test_addresses_of_this_machine_are_taken(listeners: tuple[Listener, ...]) -> None:
    check_addresses(EngineConfig(listeners))
