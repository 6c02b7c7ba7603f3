"""Checks the entries of a book against each other and against the settings.

The checks read the raw tables, not the validated values: an entry that has a problem of its own still counts as a name
that others may use, so one mistake is reported once. Values of the wrong type are left to validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from book.document import BOOK_SECTIONS, Document
from book.model import EndpointKind, Srtp, Transport
from book.problems import Problem


def cross_problems(document: Document, presets: frozenset[str]) -> list[Problem]:
    """Names that refer to nothing, names and versions given twice, trunks that cannot be verified."""
    problems: list[Problem] = []
    for section in BOOK_SECTIONS:
        if section != "terms":  # a profile has several versions
            problems += repeated_names(document, section)
    problems += _terms(document, presets)
    problems += _buyers(document, presets)
    problems += _campaigns(document)
    problems += _lists(document)
    return problems


def cross_warnings(document: Document) -> list[Problem]:
    """Warnings: valid entries that are seldom intended."""
    warnings: list[Problem] = []
    seen: dict[str, str] = {}
    for path, buyer in document.entries("buyers"):
        endpoints = _endpoints(path, buyer)
        if not any(one.get("enabled", True) is True for _, one in endpoints):
            warnings.append(document.problem(path, "has no enabled endpoint and can take no transfer"))
        for place, endpoint in endpoints:
            warnings += _endpoint_warnings(document, place, endpoint)
            warnings += _listed_before(document, place, endpoint, str(buyer.get("name", path)), seen)
    used = {name for _, one in document.entries("campaigns") for name in _strings(one.get("buyers"))}
    for path, buyer in document.entries("buyers"):
        if document.entries("campaigns") and buyer.get("name") not in used:
            warnings.append(document.problem(path, f"no campaign names buyer {buyer.get('name')!r}"))
    return warnings + _unknown_campaigns(document)


def _unknown_campaigns(document: Document) -> list[Problem]:
    """A dialer that may call what the file does not know, where it has campaigns: a slip makes every call a 403."""
    known = _names(document, "campaigns")
    return [
        document.problem(f"{path}.campaigns", f"there is no campaign {name!r} in this file")
        for path, dialer in document.entries("dialers")
        for name in _strings(dialer.get("campaigns"))
        if known and name not in known
    ]


def _names(document: Document, section: str) -> set[str]:
    return {name for _, one in document.entries(section) if isinstance(name := one.get("name"), str)}


def _strings(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _endpoints(path: str, buyer: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    array = buyer.get("endpoints", [])
    if not isinstance(array, list):
        return []
    return [(f"{path}.endpoints[{at}]", one) for at, one in enumerate(array) if isinstance(one, dict)]


def _terms(document: Document, presets: frozenset[str]) -> list[Problem]:
    problems: list[Problem] = []
    seen: set[tuple[str, str, str]] = set()
    for path, entry in document.entries("terms"):
        name = str(entry.get("name", ""))
        if name in presets:
            message = f"{name!r} is a preset; choose another name and set base = {name!r}"
            problems.append(document.problem(f"{path}.name", message))
        for key, default in (("version", 1), ("effective_from", "2026-01-01")):
            value = str(entry.get(key, default))
            if (name, key, value) in seen:
                problems.append(document.problem(f"{path}.{key}", f"{name!r} has two versions with {key} {value}"))
            seen.add((name, key, value))
    return problems


def _buyers(document: Document, presets: frozenset[str]) -> list[Problem]:
    problems: list[Problem] = []
    profiles = _names(document, "terms") | presets
    carriers = _names(document, "carriers")
    for path, buyer in document.entries("buyers"):
        terms = buyer.get("terms")
        if isinstance(terms, str) and terms and terms not in profiles:
            message = f"{terms!r} is neither a preset ({', '.join(sorted(presets))}) nor a [[terms]] entry"
            problems.append(document.problem(f"{path}.terms", message))
        names: set[str] = set()
        for place, endpoint in _endpoints(path, buyer):
            name = endpoint.get("name")
            if isinstance(name, str) and name in names:
                problems.append(document.problem(f"{place}.name", f"{name!r} is used twice by this buyer"))
            names.add(str(name))
            problems += _endpoint_problems(document, place, endpoint, carriers)
    return problems


def _endpoint_problems(document: Document, path: str, endpoint: dict[str, Any], carriers: set[str]) -> list[Problem]:
    if endpoint.get("kind") == EndpointKind.TRUNK:
        return needs_ca(document, path, endpoint)
    carrier = endpoint.get("carrier")
    if endpoint.get("kind") == EndpointKind.DID and isinstance(carrier, str) and carrier and carrier not in carriers:
        return [document.problem(f"{path}.carrier", f"{carrier!r} is not a [[carriers]] entry")]
    return []


def _campaigns(document: Document) -> list[Problem]:
    problems: list[Problem] = []
    buyers = _names(document, "buyers")
    for path, campaign in document.entries("campaigns"):
        named = _strings(campaign.get("buyers"))
        for at, name in enumerate(named):
            if name not in buyers:
                problems.append(document.problem(f"{path}.buyers[{at}]", f"{name!r} is not a [[buyers]] entry"))
            elif name in named[:at]:
                problems.append(document.problem(f"{path}.buyers[{at}]", f"{name!r} is named twice"))
    return problems


def _lists(document: Document) -> list[Problem]:
    buyers = _names(document, "buyers")
    return [
        document.problem(f"{path}.buyer", f"{buyer!r} is not a [[buyers]] entry")
        for path, entry in document.entries("suppression_lists")
        if isinstance(buyer := entry.get("buyer"), str) and buyer and buyer not in buyers
    ]


def _endpoint_warnings(document: Document, path: str, endpoint: dict[str, Any]) -> list[Problem]:
    warnings: list[Problem] = []
    if endpoint.get("kind") != EndpointKind.TRUNK:
        return warnings
    tls = endpoint.get("transport") == Transport.TLS
    if not tls and endpoint.get("srtp", Srtp.OFF) != Srtp.OFF:
        warnings.append(document.problem(f"{path}.srtp", "SRTP without TLS sends its keys in clear; gives no buffer"))
    if tls and endpoint.get("srtp", Srtp.OFF) != Srtp.MANDATORY:
        warnings.append(document.problem(f"{path}.srtp", "a tls trunk without mandatory SRTP gives no buffer"))
    if tls and endpoint.get("verify_tls", True) is not True:
        warnings.append(document.problem(f"{path}.verify_tls", "an unverified certificate gives no buffer"))
    return warnings


def _listed_before(
    document: Document, path: str, endpoint: dict[str, Any], buyer: str, seen: dict[str, str]
) -> list[Problem]:
    """One DID listed twice; a transfer there cannot tell whose call it is."""
    number = endpoint.get("uri")
    if endpoint.get("kind") != EndpointKind.DID or not isinstance(number, str):
        return []
    first = seen.get(number)
    seen[number] = buyer
    if first is None:
        return []
    whose = "twice by this buyer" if first == buyer else f"by buyer {first!r} too"
    return [document.problem(f"{path}.uri", f"this number is listed {whose}")]


def repeated_names(document: Document, section: str) -> list[Problem]:
    """A name given twice in an array of tables; each repeat is a problem of its own."""
    seen: set[str] = set()
    problems: list[Problem] = []
    for path, entry in document.entries(section):
        name = entry.get("name")
        if isinstance(name, str) and name in seen:
            problems.append(document.problem(f"{path}.name", f"{name!r} is used twice in [[{section}]]"))
        elif isinstance(name, str):
            seen.add(name)
    return problems


def needs_ca(document: Document, path: str, trunk: Mapping[str, Any]) -> list[Problem]:
    """A trunk whose certificate is to be verified needs something to verify it against."""
    tls = document.raw.get("tls")
    has_ca = bool(trunk.get("ca_file")) or (isinstance(tls, dict) and bool(tls.get("ca_file")))
    if has_ca or trunk.get("transport") != Transport.TLS or trunk.get("verify_tls", True) is not True:
        return []
    return [document.problem(f"{path}.transport", "tls with a verified certificate needs tls.ca_file")]
