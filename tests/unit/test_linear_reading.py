"""Whatever reads what the network sends takes time in proportion to its length, whatever it says.

Two ways to find what does not. Every pattern of a module that reads the network is taken apart, and each of its repeats
is fed, by the methods by which the module uses it: what stands before the repeat, the repeat's body many times, and an
end that does not fit. Every parser is fed repeats of all punctuation, alone, in pairs, and within frames of its own.

Measured is the longest text first. Where it takes less than `FREE_S` nobody can hang anything with it; where it takes
more, it may take so many times what an eighth of it takes.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from types import ModuleType
from typing import Any

import pytest

import book.numbers
import book.sip_uri
import router.arrival
import router.lead
import router.sip.bodies
import router.sip.message
import router.sip.tracing
import telemetry.logs
from book import sip_uri
from book.numbers import NumberError, normalise
from book.sip_uri import UriError
from router import lead
from router.arrival import lead_asked_for
from router.dialers import Dialer, DialerGuard
from router.sip import bodies, message, tracing
from router.sip.bodies import BodyError
from telemetry.logs import mask, mask_event

SIZES = (1024, 2048, 4096, 8192)
LARGE = SIZES[-1]
FREE_S = 0.003  # the longest text in this time: eight of 16 kB cost less than 50 ms
RATIO = 3.0 * LARGE / SIZES[0]  # 8 were exact, 64 a square; a busy machine is not exact
TRIES = 7
ENDS = ("", "\x00", "\\", '"', "!", "x")

# Patterns that see no more than so many characters, whatever comes; each with the line that says so.
BOUNDED = {
    "book.numbers": (book.numbers.MAX_TEXT, "normalise refuses what is longer, before any pattern"),
    "book.sip_uri": (book.sip_uri.MAX_TEXT, "parse_uri and _divided refuse what is longer"),
}


# --- measuring --------------------------------------------------------------------------------------------------------


def took(action: Callable[[Any], object], given: object, tries: int = 1) -> float:
    """The best of so many runs, in seconds."""
    best = float("inf")
    for _ in range(tries):
        begun = time.thread_time()
        action(given)
        best = min(best, time.thread_time() - begun)
    return best


def grows_too_fast(action: Callable[[Any], object], text: Callable[[int], Any]) -> str:
    """Empty where it does not; else what was measured."""
    few = took(action, text(SIZES[1]))
    if few < FREE_S / 16:  # squared, it would be within FREE_S
        return ""
    many = took(action, text(LARGE))
    if many < FREE_S or many <= RATIO / 3 * few:
        return ""
    took_s = [took(action, text(size), TRIES) for size in SIZES]
    if took_s[-1] < FREE_S or took_s[-1] <= RATIO * took_s[0]:
        return ""
    return " ".join(f"{size}: {one * 1000:.2f} ms" for size, one in zip(SIZES, took_s, strict=True))


# --- patterns, taken apart --------------------------------------------------------------------------------------------

MODULES = [
    *(f"router.{one.name}" for one in pkgutil.iter_modules(importlib.import_module("router").__path__)),
    *(f"router.sip.{one.name}" for one in pkgutil.iter_modules(importlib.import_module("router.sip").__path__)),
    *(f"portal.{one.name}" for one in pkgutil.iter_modules(importlib.import_module("portal").__path__)),
    "book.sip_uri",
    "book.numbers",
    "facts.json_once",
    "telemetry.logs",
    "meter.mail.bounces",
    "meter.text.hostile",
    "meter.mqtt.channel",
    "facts.outcome",
    "suppression.receipt",
]
METHODS = ("fullmatch", "match", "search", "findall", "finditer", "sub", "split")


def uses() -> Iterator[tuple[str, str, str, re.Pattern[Any]]]:
    """Every pattern at the top of a module, and the methods by which the module uses it."""
    for name in MODULES:
        module = importlib.import_module(name)
        assert module.__file__ is not None
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        patterns = {key: one for key, one in vars(module).items() if isinstance(one, re.Pattern)}
        found = {
            (one.value.id, one.attr)
            for one in ast.walk(tree)
            if isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name) and one.value.id in patterns
        }
        for key in sorted(patterns):
            ways = sorted(attr for who, attr in found if who == key and attr in METHODS)
            for way in ways or METHODS[:1]:
                yield name, key, way, patterns[key]


def examples(tree: Any) -> str:
    """A text that a part of a pattern matches, more or less."""
    return "".join(itertools.chain.from_iterable(map(_example, tree)))


def _example(node: Any) -> str:  # noqa: PLR0911 - one case for each kind of node
    kind, value = node
    if kind is sre.LITERAL:
        return chr(value)
    if kind is sre.NOT_LITERAL:
        return "a" if chr(value) != "a" else "b"
    if kind is sre.ANY:
        return "a"
    if kind is sre.IN:
        return _members(value)[0]
    if kind is sre.BRANCH:
        return examples(value[1][0])
    if kind is sre.SUBPATTERN:
        return examples(value[-1])
    if kind is sre.ATOMIC_GROUP:
        return examples(value)
    if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
        return str(examples(value[2]) * max(value[0], 1 if value[1] else 0))
    return ""  # anchors, assertions, references


@cache
def _printable() -> str:
    return 'a1-. ;,=:/@"\\<(+\r\né'


def _members(value: Any) -> list[str]:
    """Characters of a set, of each part of it one."""
    negated = value[0][0] is sre.NEGATE
    inside = [one for one in _printable() if _in_set(value, one) is not negated]
    inside += [chr(one[1]) for one in value if one[0] is sre.LITERAL and not negated]
    inside += [chr(one[1][0]) for one in value if one[0] is sre.RANGE and not negated]
    return inside or ["\x01"]


def _in_set(value: Any, char: str) -> bool:
    code = ord(char)
    for kind, what in value:
        if kind is sre.LITERAL and what == code:
            return True
        if kind is sre.RANGE and what[0] <= code <= what[1]:
            return True
        if kind is sre.CATEGORY and _in_category(what, char):
            return True
    return False


def _in_category(what: Any, char: str) -> bool:
    tests: dict[str, Callable[[str], bool]] = {
        "DIGIT": str.isdigit,
        "SPACE": str.isspace,
        "WORD": lambda one: one.isalnum() or one == "_",
    }
    name = str(what).removeprefix("CATEGORY_")
    return not tests[name[4:]](char) if name.startswith("NOT_") else tests[name](char)


def pumps(tree: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """What stands before each repeat of a pattern, and bodies of it."""
    for node in tree:
        kind, value = node
        if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            if value[1] > 32:
                for body in _bodies(value[2]):
                    yield before, body
            yield from pumps(value[2], before)
        elif kind is sre.BRANCH:
            for one in value[1]:
                yield from pumps(one, before)
        elif kind is sre.SUBPATTERN:
            yield from pumps(value[-1], before)
        elif kind is sre.ATOMIC_GROUP:
            yield from pumps(value, before)
        elif kind in (sre.ASSERT, sre.ASSERT_NOT):
            yield from pumps(value[1], before)
        before += _example(node)


def _bodies(tree: Any) -> list[str]:
    """Texts that the body of a repeat matches: of a set each member that is told apart, of branches each."""
    if len(tree) == 1 and tree[0][0] is sre.IN:
        return _members(tree[0][1])
    if len(tree) == 1 and tree[0][0] is sre.BRANCH:
        return [one for branch in tree[0][1][1] for one in _bodies(branch)]
    if len(tree) == 1 and tree[0][0] is sre.SUBPATTERN:
        return _bodies(tree[0][1][-1])
    return [examples(tree)]


def texts_for(pattern: re.Pattern[Any]) -> Iterator[tuple[str, str, str]]:
    """Beginning, unit, end."""
    tree = _parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE if isinstance(pattern.pattern, bytes) else 0)
    seen = set()
    for before, body in pumps(tree):
        for beginning, unit in ((before, body), ("", before + body), ("", body)):
            if unit and (beginning, unit) not in seen:
                seen.add((beginning, unit))
                for end in ENDS:
                    yield beginning, unit, end


def _apply(pattern: re.Pattern[Any], way: str) -> Callable[[Any], object]:
    if way == "sub":
        return lambda text: pattern.sub(b"" if isinstance(text, bytes) else "", text)
    if way == "finditer":
        return lambda text: list(pattern.finditer(text))
    return getattr(pattern, way)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("module", "name", "way", "pattern"), [pytest.param(*one, id=".".join(one[:3])) for one in uses()]
)
def test_no_pattern_goes_back(module: str, name: str, way: str, pattern: re.Pattern[Any]) -> None:
    action = _apply(pattern, way)
    limit = BOUNDED.get(module, (1 << 30, ""))[0]
    for beginning, unit, end in texts_for(pattern):

        def text(size: int, parts: tuple[str, str, str] = (beginning, unit, end)) -> Any:
            size = min(size, limit)
            whole = (parts[0] + parts[1] * (size // len(parts[1]) + 1))[:size] + parts[2]
            return whole.encode() if isinstance(pattern.pattern, bytes) else whole

        slow = grows_too_fast(action, text)
        assert not slow, f"{name}: {beginning!r} + {unit!r} * n + {end!r}: {slow}"


@pytest.mark.parametrize(
    ("pattern", "way"),
    [
        (
            r"([a-z0-9]+)\s*=\s*(?:\"([^\"]*)\"|([^,\s]+))",
            "findall",
        ),  # the credentials of a digest, as they were read once
        (r"<[^>]*>x", "search"),
        (r"\s+$", "search"),
    ],
)
def test_the_generator_finds_patterns_that_go_back(pattern: str, way: str) -> None:
    action = _apply(re.compile(pattern), way)

    def slow(parts: tuple[str, str, str]) -> bool:
        return bool(grows_too_fast(action, lambda size: (parts[0] + parts[1] * size)[:size] + parts[2]))

    assert any(map(slow, texts_for(re.compile(pattern))))


# --- parsers ----------------------------------------------------------------------------------------------------------

PUNCTUATION = [chr(one) for one in range(1, 128) if not chr(one).isalnum()]
UNITS = [
    *PUNCTUATION,
    "a",
    "1",
    "\ud800",
    *(one + other for one in '"\\;=<' for other in '"\\;a '),
    "\r\n",
    "\r\n\r\n",
    "a=",
    'a="',
    'a="",',
    ";a=1",
    ';a="',
    "%41",
    "<sip:",
    "sip:a@b,",
    "(555) ",
    "555-",
    "+1-2",
    "0 1",
    "a:b@",
    "//a:",
    "://",
    "password=",
    "Bearer ",
    "2020-1",
    "1.1.1.1",
    "--a\r\n",
    "--a--",
    '{"a":',
    "[",
    "\\ud800",
    "1e9",
    "tel:1",
    "x: y\r\n",
    "x\r\n ",
    "\n ",
    "whsec_",
    "a/b;c=d",
]

Frame = tuple[str, str]
ALONE: tuple[Frame, ...] = (("", ""), ("", "!"))


def quietly(parser: Callable[[str], object], *errors: type[Exception]) -> Callable[[str], object]:
    def run(text: str) -> object:
        try:
            return parser(text)
        except errors:
            return None

    return run


def _invite(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")


_START = "INVITE sip:acme@b SIP/2.0\r\nFrom: <sip:1@b>;tag=1\r\n"
_HEADER_FRAMES: tuple[Frame, ...] = tuple(
    (f"{_START}{name}: {value}", "\r\n\r\nbody")
    for name, value in (
        ("From", ""),
        ("From", '"'),
        ("From", "<sip:"),
        ("From", "<sip:1@"),
        ("From", "sip:1@b;"),
        ("From", "<sip:1@b>;a="),
        ("Content-Type", ""),
        ("Content-Type", "multipart/mixed;boundary="),
        ("Content-Type", 'multipart/mixed;boundary="'),
        ("Content-Type", "application/json;a="),
        ("Content-Type", 'application/json;a="'),
        ("Content-Type", "application/json"),
        ("Content-Length", ""),
        ("Content-Length", "1"),
        ("X-Lead-Phone", ""),
        ("X-Lead-Name", ""),
        ("X-Lead-Id", ""),
        ("Authorization", "Digest "),
        ("Content-Encoding", ""),
        ("", ""),
        ("X", " \r\n "),
    )
)
_MULTI = f"{_START}Content-Type: multipart/mixed;boundary=a\r\n\r\n"
_BODY_FRAMES: tuple[Frame, ...] = (
    (_MULTI, ""),
    (f"{_MULTI}--a\r\n", "\r\n--a--"),
    (f"{_MULTI}--a\r\nContent-Type: ", "\r\n\r\n{}\r\n--a--"),
    (f"{_MULTI}--a\r\nContent-Type: application/json\r\n\r\n", "\r\n--a--"),
    (f"{_START}Content-Type: application/json\r\n\r\n", ""),
    (f'{_START}Content-Type: application/json\r\n\r\n{{"a":"', '"}'),
)
_WHOLE = (("", ""), ("", "\r\n\r\n"), ("INVITE ", " SIP/2.0\r\n\r\n"), *_HEADER_FRAMES, *_BODY_FRAMES)
_SHOWN = tuple(
    (f"INVITE sip:a@b SIP/2.0\r\n{name}: {value}", "\r\n\r\n")
    for name, value in (
        ("Via", ""),
        ("Via", "SIP/2.0/UDP a;"),
        ("Via", "SIP/2.0/UDP a;branch=z9hG4bK"),
        ("To", ""),
        ("To", '"'),
        ("To", "<"),
        ("To", "<sip:"),
        ("To", "<tel:"),
        ("To", "<sip:a@b>;"),
        ("Call-ID", ""),
        ("CSeq", ""),
        ("CSeq", "1 "),
        ("Reason", ""),
        ("Contact", "sip:a@b;"),
        ("X-Baton-Reason", ""),
    )
) + tuple(
    (f"INVITE sip:a@b SIP/2.0\r\nContent-Type: application/sdp\r\n\r\n{line}", "\r\n")
    for line in ("", "m=audio ", "o=", "a=", "a=rtpmap:", "a=ssrc:", "c=", "s=")
)

DOORMAN = DialerGuard((Dialer("d", (), "u", "p"),))


def _prove(text: str) -> object:
    return DOORMAN.prove(DOORMAN.dialers[0], "INVITE", {"authorization": [text]}, 1)


def _lead(text: str) -> object:
    raw = text.encode("utf-8", "replace")
    lead.read_lead({"x-lead-phone": [text], "x-lead-name": [text], f"x-lead-{text}": [text]}, raw, text)
    return lead.read_lead({}, b"", text, posted=raw)


def _traced(text: str) -> object:
    return list(tracing.parse_messages([f"1\x1fR\x1fudp:a:1\x1f{text}\x1f{text}"]))


# By the function's name: how it is called, and within what a hostile text stands.
PARSERS: dict[str, tuple[Callable[[str], object], tuple[Frame, ...]]] = {
    "router.sip.message.read_invite": (lambda text: message.read_invite(_invite(text)), _WHOLE),
    "router.sip.message.split_message": (lambda text: message.split_message(_invite(text)), _WHOLE),
    "router.sip.message.user_of": (message.user_of, (*ALONE, ("INVITE sip:", " SIP/2.0"), ("A sip:a@", " SIP/2.0"))),
    "router.sip.bodies.lead_part": (
        quietly(
            lambda text: bodies.lead_part({"content-type": [text[:4096]]}, text.encode("utf-8", "replace")), BodyError
        ),
        (*ALONE, ("application/json", ""), ("multipart/mixed;boundary=a;", "")),
    ),
    "router.sip.tracing.mask_message": (tracing.mask_message, (*ALONE, ("INVITE ", " SIP/2.0\r\n\r\n"), *_SHOWN)),
    "router.sip.tracing.mask_call_id": (tracing.mask_call_id, ALONE),
    "router.sip.tracing.leg_of": (tracing.leg_of, ALONE),
    "router.sip.tracing.parse_messages": (_traced, ALONE),
    "book.sip_uri.parse_uri": (
        quietly(sip_uri.parse_uri, UriError),
        (*ALONE, ("sip:", "@b"), ("sip:a@", ""), ("sip:a@b;", ""), ("sip:a@b?", ""), ("tel:", ""), ("sip:a:", "@b")),
    ),
    "book.sip_uri.without_user": (sip_uri.without_user, (*ALONE, ("sip:", "@b"))),
    "book.sip_uri.is_sip_uri": (sip_uri.is_sip_uri, (*ALONE, ("sip:", "@b"))),
    "book.sip_uri.parse_addresses": (
        quietly(lambda text: sip_uri.parse_addresses([text]), UriError),
        (
            *ALONE,
            ('"', ""),
            ('"', '" <sip:a@b>'),
            ("<sip:a@b>", ""),
            ("<sip:a@b>;a=", ""),
            ("<sip:", ">"),
            ('<sip:a@b>;a="', ""),
        ),
    ),
    "book.sip_uri.parse_address": (
        quietly(lambda text: sip_uri.parse_address([text]), UriError),
        (*ALONE, ('"', '"')),
    ),
    "book.sip_uri.host_of": (sip_uri.host_of, (*ALONE, ("<sip:a@", ">"))),
    "book.numbers.normalise": (quietly(normalise, NumberError), (*ALONE, ("+1212", ""), ("tel:", ""))),
    "router.lead.read_lead": (_lead, (*ALONE, ('{"phone":"', '"}'), ('{"a":', "}"))),
    "router.lead.read_json": (
        quietly(lambda text: lead.read_json(text.encode("utf-8", "replace")), lead.LeadError),
        (*ALONE, ('{"a":"', '"}'), ('{"a":', "}")),
    ),
    "router.lead.read_object": (
        quietly(lambda text: lead.read_object(text.encode("utf-8", "replace")), lead.LeadError),
        ALONE,
    ),
    "router.lead.clean": (lead.clean, ALONE),
    "router.lead.field_name": (lead.field_name, ALONE),
    "router.lead.e164": (lead.e164, ALONE),
    "router.lead.one_number": (lambda text: lead.one_number([text, text]), ALONE),
    "router.arrival.lead_asked_for": (lambda text: lead_asked_for({"x-lead-id": [text]}), ALONE),
    "router.dialers.Doorman.prove": (
        _prove,
        (*ALONE, ("Digest ", ""), ('Digest realm="baton", ', ""), ('Digest a="', "")),
    ),
    "telemetry.logs.mask": (mask, (*ALONE, ("sip:", "@"), ("https://", "@"), ("password=", ""), ("token: ", ""))),
    "telemetry.logs.mask_event": (lambda text: mask_event(None, "info", {"event": text, text: [text]}), ALONE),
}
# Public functions of the same modules that read nothing of the network's.
NO_PARSERS = {
    "router.sip.tracing.start_trace": "starts",
    "router.sip.tracing.find_messages": "copies; what it finds goes through parse_messages",
    "book.numbers.is_region": "of the configuration",
    "book.numbers.to_e164": "of an integer",
    "router.lead.as_text": "of what read_json has read; measured through read_lead",
    "router.arrival.lead_of": "gathers",
    "router.arrival.why_unread": "of our own words",
    "telemetry.logs.about": "of our own ids",
    "telemetry.logs.configure": "of the configuration",
}
READERS: tuple[ModuleType, ...] = (
    router.sip.message,
    router.sip.bodies,
    router.sip.tracing,
    book.sip_uri,
    book.numbers,
    router.lead,
    router.arrival,
    telemetry.logs,
)


@pytest.mark.parametrize("name", PARSERS)
def test_every_parser_is_linear(name: str) -> None:
    parser, frames = PARSERS[name]
    for (before, after), unit in itertools.product(frames, UNITS):

        def text(size: int, parts: tuple[str, str, str] = (before, unit, after)) -> str:
            return parts[0] + (parts[1] * (size // len(parts[1]) + 1))[:size] + parts[2]

        slow = grows_too_fast(parser, text)
        assert not slow, f"{before!r} + {unit!r} * n + {after!r}: {slow}"


def test_every_reader_of_the_network_is_measured() -> None:
    for module in READERS:
        for key, one in vars(module).items():
            if inspect.isfunction(one) and one.__module__ == module.__name__ and not key.startswith("_"):
                name = f"{module.__name__}.{key}"
                assert (name in PARSERS) is not (name in NO_PARSERS), (
                    f"{name}: in PARSERS, or in NO_PARSERS with a reason"
                )


@pytest.mark.parametrize("size", [1, 4_000, 15_300, 60_000])
def test_what_stopped_the_router(size: int) -> None:
    """The two of the report, at their size and beyond."""
    begun = time.thread_time()
    _prove("Digest " + "a" * size)
    quote = '"' * size
    part = f"--a\r\nContent-Type: application/json; a={quote}\r\n\r\n{{}}\r\n--a--\r\n"
    text = f"{_MULTI}{part}"
    assert message.read_invite(text).unread
    assert time.thread_time() - begun < 1.0
