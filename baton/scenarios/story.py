"""A story as it stands in its folder: `story.toml`, read into values, with every problem told at once.

A story says who calls, which endpoints ring and what must come of it. Whatever the book knows of a buyer, an endpoint,
a campaign or terms may be said here by the same name; the book's own reader judges it when the book is imported. What
is wrong with a file is told with its line. `sipp-scenarios/README.md` describes the format for those who write one.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from baton.scenarios.facts import Pattern, pattern_problem
from book.document import Document, read
from book.problems import ConfigError, Problem
from book.types import Model
from facts.outcome import CountsAs, Reason, Verdict

FILE = "story.toml"
COMMON = "common"  # parties that several stories share
Keys = dict[str, str | int]


class UnknownStoryError(ValueError):
    """No story has that name."""


class NoStoriesError(ValueError):
    """There is no folder of stories, or nothing in it."""


def _several(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else (value,)


def _chains(value: Any) -> Any:
    """One chain of facts may be written without the outer brackets."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return (tuple(value),) if value else ()
    return value


OneOf = BeforeValidator(_several)  # a race may have more than one right result; a list says which
Chains = Annotated[tuple[tuple[str, ...], ...], BeforeValidator(_chains)]
Span = Annotated[tuple[int, int], Field(description="From and to, both included.")]


class PartyEntry(Model):
    """A SIPp scenario and what is put into it."""

    party: str = Field("", pattern=r"^[a-z0-9-]*$", description="XML of the story's folder, else of `common`.")
    keys: Keys = Field(default_factory=dict, description="Values for the XML's `{{name}}`.")


class EndpointEntry(PartyEntry):
    """An endpoint: its party, or how it cannot be reached; and any field of the book's entry, kept in `book`."""

    buyer: str = Field("first", description="Which of the story's buyers it belongs to.")
    secure: bool = Field(False, description="TLS to a terminator before the party, SRTP mandatory.")
    did: bool = Field(False, description="A number behind a carrier of the operator's.")
    unreachable: Literal["", "dns", "udp", "tcp"] = Field("", description="No party: no such host, a closed port.")
    book: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_a_party_or_none(self) -> Self:
        if bool(self.party) == bool(self.unreachable):
            raise ValueError("needs either party or unreachable")
        if self.did and (self.secure or self.unreachable):
            raise ValueError("did goes with neither secure nor unreachable")
        return self


class CallerEntry(PartyEntry):
    """The dialer."""

    lead: dict[str, str] = Field(default_factory=dict, description="The lead, sent as X-Lead headers.")
    address: str = Field("127.0.0.1", description="Where it calls from.")
    options: tuple[str, ...] = Field((), description="More options for SIPp.")
    suppressed: bool = Field(False, description="Its numbers are on a suppression list of the buyer's.")

    @model_validator(mode="after")
    def _has_a_party(self) -> Self:
        if not self.party:
            raise ValueError("needs a party")
        return self


class RaceEntry(Model):
    """Messages that a relay holds back until all of them are there, to let them go in this order in one moment."""

    hold: tuple[Annotated[str, Field(pattern=r"^(caller|callee) ([A-Z]+|[1-6][0-9]{2} [A-Z]+)$")], ...] = Field(
        min_length=2, description="Who sends what, such as `caller CANCEL` and `callee 200 INVITE`."
    )


class LegEntry(Model):
    """How one endpoint's leg must have ended."""

    leg: int = Field(ge=1)
    code: int | None = None
    by: Literal["", "buyer", "router"] = ""
    local: bool | None = None
    reason: str = Field("", description="Part of the Reason header on the record.")


class ChargeEntry(Model):
    """What is posted for one transfer. `minor`: the unit's worth at the buyer's price, rounded half-even."""

    unit: Literal["connected", "failed"]
    units: int = 1
    percent: int
    minor: int


class ExpectEntry(Model):
    """What must be on the record of each transfer. Where a list is given, any of it is right."""

    verdict: Annotated[tuple[Verdict, ...], OneOf]
    reason: Annotated[tuple[Reason, ...], OneOf]
    counts_as: Annotated[tuple[CountsAs, ...], OneOf]
    row: Annotated[tuple[int, ...], OneOf]
    charge: ChargeEntry | None = Field(None, description="Of a transfer that is not free.")
    winner: Annotated[tuple[int, ...], OneOf] = Field((0,), description="Leg that was bridged last; 0: none.")
    late: Annotated[tuple[int, ...], OneOf] = Field((0,), description="Answers that came too late.")
    dialled: Annotated[tuple[int, ...], OneOf] | None = Field(None, description="Legs sent; all, where not said.")
    attempt_ms: Span | None = None
    talk_ms: Span | None = None
    legs: tuple[LegEntry, ...] = ()
    facts: Chains = Field((), description="Chains of facts, each in this order.")
    never: tuple[str, ...] = Field((), description="Facts that must not be there.")

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.charge is None and set(self.counts_as) != {CountsAs.FREE}:
            raise ValueError("counts_as needs a charge unless it is free")
        if self.charge is not None and not {CountsAs(self.charge.unit)} <= set(self.counts_as):
            raise ValueError("charge is of another unit than counts_as")
        return self

    @property
    def chains(self) -> tuple[tuple[Pattern, ...], ...]:
        return tuple(tuple(Pattern.parse(one) for one in chain) for chain in self.facts)

    @property
    def forbidden(self) -> tuple[Pattern, ...]:
        return tuple(Pattern.parse(one) for one in self.never)


class StoryEntry(Model):
    """The whole of story.toml."""

    title: str = Field(min_length=1)
    source: str = Field("", description="The complaint, test or clause it answers.")
    seconds: int = Field(5, ge=1, le=120, description="How long it plays; the long ones go first.")
    calls: int = Field(1, ge=1, le=50, description="Calls in one playing.")
    pending: str = Field("", description="What it waits for; skipped until then.")
    terms: dict[str, Any] = Field(default_factory=dict, description="Clauses that differ from Westlake's.")
    buyer: dict[str, Any] = Field(default_factory=dict, description="Fields of the book's entry, for each buyer.")
    campaign: dict[str, Any] = Field(default_factory=dict, description="Fields of the book's entry.")
    endpoints: tuple[EndpointEntry, ...] = Field(min_length=1)
    extras: tuple[PartyEntry, ...] = Field((), description="Parties that are no endpoint.")
    caller: CallerEntry
    race: RaceEntry | None = None
    codes: Annotated[tuple[int, ...], OneOf] = Field(description="Final answer the dialer gets; 0: none.")
    expect: ExpectEntry | None = Field(None, description="Nothing: there must be no transfer at all.")
    then: ExpectEntry | None = Field(None, description="The transfer to the second buyer.")


@dataclass(frozen=True, slots=True)
class Story:
    """A story and where it is."""

    name: str
    folder: Path
    entry: StoryEntry = field(repr=False)

    @property
    def parties(self) -> tuple[PartyEntry, ...]:
        called = (one for one in self.entry.endpoints if one.party)
        return (self.entry.caller, *called, *self.entry.extras)

    @property
    def expected(self) -> tuple[ExpectEntry, ...]:
        """One for each transfer of a call, in their order."""
        return tuple(one for one in (self.entry.expect, self.entry.then) if one is not None)

    def xml_of(self, party: str) -> Path:
        own = self.folder / f"{party}.xml"
        return own if own.is_file() else self.folder.parent / COMMON / f"{party}.xml"


def read_story(folder: Path) -> Story:
    """One story. Raises ConfigError with everything that is wrong with it."""
    document = read(folder / FILE, {})
    raw = {**document.raw, "endpoints": _endpoints(document)}
    try:
        entry = StoryEntry.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(document.file, document.from_errors(error.errors(include_url=False))) from error
    story = Story(folder.name, folder, entry)
    problems = [*_party_problems(document, story), *_fact_problems(document, story)]
    if problems:
        raise ConfigError(document.file, problems)
    return story


def _endpoints(document: Document) -> Any:
    """Fields that are the book's go into `book`; what is no table is left to validation."""
    entries = document.raw.get("endpoints", [])
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        return entries
    own = set(EndpointEntry.model_fields) - {"book"}
    return [
        {name: value for name, value in one.items() if name in own}
        | {"book": {name: value for name, value in one.items() if name not in own}}
        for one in entries
    ]


def _party_problems(document: Document, story: Story) -> Iterable[Problem]:
    places = [("caller", story.entry.caller.party)]
    places += [(f"endpoints[{at}]", one.party) for at, one in enumerate(story.entry.endpoints) if one.party]
    places += [(f"extras[{at}]", one.party) for at, one in enumerate(story.entry.extras)]
    for path, party in places:
        if not story.xml_of(party).is_file():
            yield document.problem(f"{path}.party", f"there is no {party}.xml, neither here nor in {COMMON}")


def _fact_problems(document: Document, story: Story) -> Iterable[Problem]:
    for section, expect in (("expect", story.entry.expect), ("then", story.entry.then)):
        if expect is None:
            continue
        written = [("facts", one) for chain in expect.facts for one in chain] + [("never", one) for one in expect.never]
        for key, text in written:
            fault = pattern_problem(text, known=not story.entry.pending)
            if fault:
                yield document.problem(f"{section}.{key}", fault)
        for at, leg in enumerate(expect.legs):
            if leg.leg > len(story.entry.endpoints):
                yield document.problem(f"{section}.legs[{at}].leg", f"there is no endpoint {leg.leg}")


def read_stories(folder: Path) -> list[Story]:
    """Every story below `folder`. Raises NoStoriesError, and ConfigError for the first that cannot be used."""
    if not folder.is_dir():
        raise NoStoriesError(f"there is no folder {folder}; --folder says where the stories are")
    found = sorted(one.parent for one in folder.glob(f"*/{FILE}"))
    if not found:
        raise NoStoriesError(f"{folder} holds no story (no */{FILE})")
    return [read_story(one) for one in found]


def choose(stories: Sequence[Story], names: Sequence[str], *, pending: bool) -> list[Story]:
    """Those of these names, which may have wildcards; all, where none is given. Raises UnknownStoryError.

    A story that waits for something is left out unless `pending` is set or it is named in full.
    """
    known = {story.name for story in stories}
    unknown = [name for name in names if not fnmatch.filter(known, name)]
    if unknown:
        raise UnknownStoryError(f"no such story: {', '.join(unknown)}; `baton scenarios list` shows all")
    named = [one for one in stories if not names or any(fnmatch.fnmatch(one.name, name) for name in names)]
    return [one for one in named if pending or not one.entry.pending or one.name in names]
