"""Trunks of buyers and carriers: their names, how to reach them, which are watched, and their addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from book.model import Book, Endpoint, EndpointKind, TrunkPolicy
from book.sip_uri import host_of
from router.config import Carrier
from router.sip.port import Target


def trunk_name(buyer: str, endpoint: str) -> str:
    """A trunk's name in health, metrics and logs."""
    return f"{buyer}/{endpoint}"


def carrier_name(carrier: str) -> str:
    return f"carrier/{carrier}"


def trunk_target(endpoint: Endpoint) -> Target:
    """How to reach a buyer's trunk, but for what a single call adds."""
    return Target(
        uri=endpoint.uri,
        transport=endpoint.transport,
        srtp=endpoint.srtp,
        verify_tls=endpoint.verify_tls,
        username=endpoint.username,
        password=endpoint.password,
        policy=endpoint.policy,
    )


def _wants(policy: TrunkPolicy) -> bool:
    return bool(policy.probe_s or policy.registrar)


def watched(book: Book, carriers: Mapping[str, Carrier]) -> dict[str, Target]:
    """Every trunk that is to be probed or registered, by its name."""
    targets = {
        carrier_name(carrier.name): replace(carrier.target, uri=carrier.host_uri)
        for carrier in carriers.values()
        if _wants(carrier.target.policy)
    }
    for buyer in book.buyers.values():
        for endpoint in buyer.endpoints:
            if endpoint.enabled and endpoint.kind is EndpointKind.TRUNK and _wants(endpoint.policy):
                targets[trunk_name(buyer.name, endpoint.name)] = trunk_target(endpoint)
    return targets


def trunk_addresses(book: Book, carriers: Mapping[str, Carrier]) -> frozenset[str]:
    """Addresses of trunks that are written as such; whose trunk has a name is known by where the name led."""
    uris = [carrier.target.uri.replace("{number}", "0") for carrier in carriers.values()]
    for buyer in book.buyers.values():
        uris += [endpoint.uri for endpoint in buyer.endpoints if endpoint.kind is EndpointKind.TRUNK]
    return frozenset(filter(None, map(_address_of, uris)))


@lru_cache(maxsize=4096)
def _address_of(uri: str) -> str:
    host = host_of(uri).strip("[]")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return ""
