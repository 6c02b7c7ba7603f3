"""The book's sections of a configuration file: terms, buyers with their endpoints, campaigns, suppression lists.

They are an explicit import into the store, never read by a running router. Each entry is validated on its own, so that
one bad buyer hides no other problem; then the entries are checked against each other. A terms profile may start from a
preset (`base`) and say only what differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator

from book.addresses import address_warnings
from book.checks import cross_problems, cross_warnings
from book.document import Document, read
from book.hours import OpeningHours
from book.model import (
    DEFAULT_RING_TIMEOUT_MS,
    DEFAULT_TIME_ZONE,
    Buyer,
    BuyerState,
    Campaign,
    Caps,
    Endpoint,
    EndpointKind,
    MenuChoice,
    Rating,
    Srtp,
    Strategy,
    Terms,
    Transport,
)
from book.problems import ConfigError, Problem
from book.sip_uri import is_sip_uri
from book.trunk import TrunkEntry
from book.types import (
    ClockTime,
    ConfigPath,
    DocumentLine,
    IsoDate,
    Key,
    Locale,
    MailAddress,
    Model,
    Slug,
    TimeZone,
    is_e164,
)

RingTimeout = Annotated[int, Field(ge=1000, le=180_000)]
Percent = Annotated[int, Field(ge=0, le=100)]
Minor = Annotated[int, Field(ge=0, le=10**12)]  # minor units of a currency
E = TypeVar("E", bound=Model)
Count = Annotated[int, Field(ge=0, le=10**9)]
AreaCode = Annotated[str, Field(pattern=r"^[2-9][0-9]{2}$")]
FreeOrFailed = Literal["free", "failed"]


class TermsEntry(Model):
    """A version of a terms profile: the contract's rules as data. Money in minor units, durations in ms."""

    name: Slug = Field(description="Name of the profile; buyers name it.")
    base: str = Field("", description="Preset whose clauses hold where this entry says nothing.")
    version: int = Field(1, ge=1, description="Version; a version is never edited, a new one is added.")
    effective_from: IsoDate = Field("2026-01-01", description="First day in force, in `time_zone`.")
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$", description="ISO 4217 code.")
    time_zone: TimeZone = Field(DEFAULT_TIME_ZONE, description="IANA zone of the contract's calendar.")
    rating: Rating = Field(Rating.UNIT, description="`unit` or `minute`.")
    connected_percent: Percent = Field(93, description="Share of connected units that is billed.")
    failed_percent: Percent = Field(100, description="Share of failed units that is billed.")
    talk_connected_ms: int = Field(15_000, ge=0, description="Talk from which a transfer counts as connected.")
    secure_buffer_ms: int = Field(15_000, ge=0, description="Buffer where every endpoint is a secure trunk.")
    unreachable: FreeOrFailed = Field("free", description="What `unreachable` counts as.")
    caller_abandon: FreeOrFailed = Field("free", description="What `caller_abandoned` counts as.")
    order_counts: Literal["billed", "sent"] = Field(
        "sent", description="What an order counts: live transfers as sent, or billed units after the percentage."
    )
    overrun_percent: Percent = Field(10, description="How far a week may run over its order; binds every order.")
    overage_uses_credits: bool = Field(True, description="Overage is taken from open credits first.")
    unit_price_minor: Minor = Field(0, description="Price of one unit.")
    minute_price_minor: Minor = Field(0, description="Price of one started increment at minute rating.")
    minute_increment_ms: int = Field(60_000, ge=1000, description="Increment of minute rating.")
    minute_minimum_ms: int = Field(0, ge=0, description="Least talk that is charged once a call is answered.")
    setup_fee_minor: Minor = Field(0, description="One-time set-up fee.")
    concurrent_lines: int = Field(0, ge=0, description="Calls at once; 0: not limited by the terms.")
    extra_line_price_minor: Minor = Field(0, description="Price of each line beyond these, a month.")
    month_due_days: int = Field(10, ge=0, le=365, description="Days to pay a monthly or set-up invoice.")
    credit_days: int = Field(4, ge=0, le=365, description="Days after a call's day to ask for a credit.")
    end_of_business: ClockTime = Field("17:00", description="Time of day when what is due falls due, in `time_zone`.")

    def to_terms(self, presets: Mapping[str, Terms]) -> Terms:
        """Only what the entry says goes over its base. Raises KeyError where `base` is no preset."""
        start = asdict(presets[self.base]) if self.base else asdict(Terms(name=self.name))
        said = self.model_dump(exclude_unset=True, exclude={"base"})
        own = {"name": self.name, "version": self.version, "effective_from": self.effective_from}
        return Terms(**{**start, **said, **own})


def _mail_list(value: tuple[str, ...]) -> tuple[str, ...]:
    if len({one.casefold() for one in value}) != len(value):
        raise ValueError("names an address twice")
    return value


MailList = Annotated[tuple[MailAddress, ...], AfterValidator(_mail_list)]


class EndpointEntry(TrunkEntry):
    """One place that can ring: a trunk of the buyer's, or a DID through a carrier of the operator's."""

    name: Slug = Field(description="Name, unique within the buyer.")
    kind: EndpointKind = Field(description="`trunk` or `did`.")
    uri: str = Field(min_length=1, description="Trunk: SIP URI to dial. DID: the number in E.164.")
    carrier: str = Field("", description="DID: name of a carrier.")
    transport: Transport = Field(Transport.UDP, description="Trunk: `udp`, `tcp` or `tls`.")
    srtp: Srtp = Field(Srtp.OFF, description="Trunk: `off`, `optional` or `mandatory`.")
    verify_tls: bool = Field(True, description="Verify certificate and host name on TLS.")
    username: str = Field("", description="Digest user name.")
    password: SecretStr = Field(SecretStr(""), description="Digest password.")
    ring_timeout_ms: RingTimeout = Field(DEFAULT_RING_TIMEOUT_MS, description="How long it may ring, in ms.")
    enabled: bool = Field(True, description="Off: kept, never dialled.")
    accept_key: Key | Literal[""] = Field("", description="Key by which a person must accept the call; empty: none.")
    accept_timeout_ms: int = Field(10_000, ge=1000, le=60_000, description="Time for that key from the answer, in ms.")
    whisper_file: ConfigPath | None = Field(None, description="WAV that the endpoint hears before the bridge.")
    rating_x100: int = Field(300, ge=100, le=500, description="Average rating times 100; weighs in strategy `rated`.")

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.kind is EndpointKind.DID:
            if not is_e164(self.uri):
                raise ValueError("uri of a did must be a number in E.164, such as +12125550100")
            if not self.carrier:
                raise ValueError("a did needs a carrier")
            return self
        if not is_sip_uri(self.uri):
            raise ValueError("uri of a trunk must be a SIP URI, such as sip:leads@pbx.example:5061")
        if self.carrier:
            raise ValueError("a trunk is dialled directly; only a did names a carrier")
        return self

    def to_endpoint(self) -> Endpoint:
        own = self.model_dump(exclude=set(TrunkEntry.model_fields))
        return Endpoint(
            **{
                **own,
                "password": self.password.get_secret_value(),
                "whisper_file": str(self.whisper_file or ""),
                "policy": self.to_policy(),
            }
        )


class CapsEntry(Model):
    """Most units, connected or failed, those under way included, in a span of the buyer's calendar; 0: no cap."""

    total: Count = Field(0, description="Ever.")
    month: Count = Field(0, description="In a calendar month.")
    day: Count = Field(0, description="In a day.")
    hour: Count = Field(0, description="In a clock hour.")
    concurrent: Count = Field(0, description="Transfers at once.")


class BuyerEntry(Model):
    """A customer who bought live transfers."""

    name: Slug = Field(description="Name, unique among buyers.")
    title: str = Field("", max_length=200, description="Name for people; the slug where empty.")
    terms: str = Field(min_length=1, description="A preset or the name of a [[terms]] entry.")
    state: BuyerState = Field(BuyerState.ACTIVE, description="State on first import; later imports leave it alone.")
    time_zone: TimeZone = Field(DEFAULT_TIME_ZONE, description="IANA zone of the buyer.")
    category: str = Field("", max_length=64, description="Business category; decides the reasons for a credit.")
    lead_emails: MailList = Field((), description="Where failed leads go.")
    caps: CapsEntry = Field(
        default_factory=lambda: CapsEntry.model_validate({}), description="Most units in a span of time."
    )
    hours: tuple[OpeningHours, ...] = Field(
        (), description="When it takes transfers, such as `mon-fri 09:00-12:30`, in its zone; empty: always."
    )
    holidays: tuple[IsoDate, ...] = Field((), description="Days on which it is closed.")
    duplicate_days: int = Field(
        0, ge=0, le=3650, description="A prospect sent to it within so many days is refused; 0: never."
    )
    allow_states: tuple[str, ...] = Field((), description="States of leads it takes (the lead's `state`); empty: all.")
    deny_states: tuple[str, ...] = Field((), description="States of leads it does not take.")
    allow_area_codes: tuple[AreaCode, ...] = Field((), description="Area codes it takes; empty: all.")
    deny_area_codes: tuple[AreaCode, ...] = Field((), description="Area codes it does not take.")
    order_required: bool = Field(False, description="Transfers only against an order of the running week.")
    extra_lines: Count = Field(0, description="Lines bought beyond those that the terms include.")
    address: tuple[DocumentLine, ...] = Field((), max_length=8, description="Lines of the postal address.")
    reference: DocumentLine = Field("", description="Its own reference on documents, such as a purchase order.")
    billing_emails: MailList = Field((), description="Where documents go; empty: `lead_emails`.")
    report_emails: MailList = Field((), description="Where daily reports go; empty: `billing_emails`.")
    ask_rating: bool = Field(False, description="By the minute: ask callers by e-mail how it was.")
    locale: Locale = Field("en_US", description="CLDR locale of dates and amounts, such as `en_US` or `de_DE`.")
    endpoints: tuple[EndpointEntry, ...] = Field((), description="All ring at once.")


class MenuEntry(Model):
    """A key of the greeting's menu."""

    key: Key = Field(description="`0` to `9`, `*` or `#`.")
    buyers: tuple[str, ...] = Field(min_length=1, description="Buyers it leads to; the campaign names them too.")


class CampaignEntry(Model):
    """What the dialer dials."""

    name: Slug = Field(description="The user part of the request URI, unique among campaigns.")
    buyers: tuple[str, ...] = Field(min_length=1, description="Buyers, in the order in which they are offered.")
    ring_timeout_ms: RingTimeout = Field(DEFAULT_RING_TIMEOUT_MS, description="How long a transfer may ring, in ms.")
    enabled: bool = Field(True, description="Off: the campaign is refused.")
    strategy: Strategy = Field(
        Strategy.DEFICIT,
        description="`priority`: the first open buyer; `deficit`: the one furthest behind its order's pace; `rated`: "
        "one endpoint, drawn by rating.",
    )
    max_offers: int = Field(
        1, ge=1, le=10, description="Buyers to whom one prospect may be offered, one after another."
    )
    commit_ms: int = Field(
        0,
        ge=0,
        le=5000,
        description="Losers ring on for so long or until the winner's first RTP, in ms; 0: not at all.",
    )
    early_answer: bool = Field(False, description="Answer the dialer before anybody rings.")
    music_file: ConfigPath | None = Field(None, description="WAV for the caller until the bridge; needs early_answer.")
    greeting_file: ConfigPath | None = Field(None, description="WAV that the caller hears first.")
    menu: tuple[MenuEntry, ...] = Field((), description="Keys after the greeting, each with its buyers.")
    menu_timeout_ms: int = Field(5_000, ge=1000, le=60_000, description="Time for a key after the greeting, in ms.")
    menu_tries: int = Field(2, ge=1, le=10, description="How often the greeting is played for a key.")
    record: bool = Field(False, description="Record on two channels: dialer left, buyer right.")
    consent_file: ConfigPath | None = Field(None, description="WAV that both parties hear as recording begins.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.music_file is not None and not (self.early_answer or self.greeting_file):
            raise ValueError("music_file needs early_answer or greeting_file: before its answer a caller hears nothing")
        if self.menu and self.greeting_file is None:
            raise ValueError("menu needs greeting_file, which tells the caller the keys")
        if self.consent_file is not None and not self.record:
            raise ValueError("consent_file needs record")
        keys = [one.key for one in self.menu]
        if len(set(keys)) != len(keys):
            raise ValueError("menu has a key twice")
        strangers = {name for one in self.menu for name in one.buyers} - set(self.buyers)
        if strangers:
            raise ValueError(f"menu names buyers that the campaign does not: {', '.join(sorted(strangers))}")
        return self

    def to_campaign(self) -> Campaign:
        files = ("music_file", "greeting_file", "consent_file")
        paths = {name: str(getattr(self, name) or "") for name in files}
        menu = tuple(MenuChoice(one.key, one.buyers) for one in self.menu)
        return Campaign(**{**self.model_dump(), **paths, "menu": menu})


class ListEntry(Model):
    """A suppression list to import."""

    name: Slug = Field(description="Name, unique among lists.")
    buyer: str = Field("", description="Whose list it is; empty: global, applies to every buyer.")
    file: ConfigPath = Field(
        description="CSV, TXT or XLSX file, or one of them in ZIP or GZ; relative to the configuration file."
    )
    column: str | tuple[str, ...] = Field(
        (), description="Columns that hold the numbers, each its name or `#2`; empty: the only such one."
    )
    area_column: str = Field("", description="Column of area codes, where `column` has seven digits.")
    expires_column: str = Field("", description="Column that says until when an entry holds.")
    header: bool | None = Field(
        None, description="Whether the first row is a header; empty: it is where it has a name that is known."
    )
    skip_rows: int = Field(0, ge=0, le=1000, description="How many lines stand above the header and are no list.")
    member: str = Field("", description="Which files of a ZIP archive, such as `*.csv`; empty: all.")
    sheet: str = Field("", description="Which sheets of a workbook, such as `DNC*`; empty: all that hold numbers.")
    region: str = Field("US", min_length=2, max_length=2, description="Country of numbers that do not say theirs.")


@dataclass(frozen=True, slots=True)
class ListSource:
    """A suppression list named by the file. `buyer` is empty for a global list."""

    name: str
    file: Path
    buyer: str = ""
    column: str | tuple[str, ...] = ()
    area_column: str = ""
    expires_column: str = ""
    header: bool | None = None
    skip_rows: int = 0
    member: str = ""
    sheet: str = ""
    region: str = "US"
    path: str = ""  # where in the configuration file


@dataclass(frozen=True, slots=True)
class BookFile:
    """The content of a file to import. A buyer's `terms` is the newest version of the profile it names."""

    terms: tuple[Terms, ...] = ()
    buyers: tuple[Buyer, ...] = ()
    campaigns: tuple[Campaign, ...] = ()
    suppression_lists: tuple[ListSource, ...] = ()
    warnings: tuple[Problem, ...] = ()
    unsaid: frozenset[tuple[str, int]] = frozenset()  # versions of terms that do not say what an order counts


def load_book(path: Path, environ: Mapping[str, str], presets: Mapping[str, Terms]) -> BookFile:
    """The book's sections of a file. Raises ConfigError with all their problems at once."""
    book, problems = validate_book(read(path, environ), presets)
    if problems:
        raise ConfigError(path, problems)
    return book


def validate_book(document: Document, presets: Mapping[str, Terms]) -> tuple[BookFile, list[Problem]]:
    """The sound part of the book, and all its problems."""
    reader = _Reader(document, presets)
    terms = reader.terms()
    buyers = reader.buyers(terms)
    campaigns = tuple(one.to_campaign() for _, one in reader.entries("campaigns", CampaignEntry))
    lists = tuple(
        ListSource(**one.model_dump(), path=path) for path, one in reader.entries("suppression_lists", ListEntry)
    )
    used = {buyer.terms.name: buyer.terms for buyer in buyers if buyer.terms.name in presets}
    problems = reader.problems + cross_problems(document, frozenset(presets))
    warnings = (*cross_warnings(document), *_address_warnings(document, buyers))
    unsaid = reader.unsaid | {(one.name, one.version) for one in used.values()}
    return BookFile(
        terms=(*used.values(), *terms),
        buyers=buyers,
        campaigns=campaigns,
        suppression_lists=lists,
        warnings=warnings,
        unsaid=frozenset(unsaid),
    ), problems


def _address_warnings(document: Document, buyers: Iterable[Buyer]) -> Iterator[Problem]:
    paths = {str(raw.get("name")): path for path, raw in document.entries("buyers")}
    for buyer in buyers:
        for field, what in address_warnings(buyer):
            yield document.problem(f"{paths[buyer.name]}.{field}", what)


class _Reader:
    """Turns raw entries into values and gathers what is wrong on the way."""

    def __init__(self, document: Document, presets: Mapping[str, Terms]) -> None:
        self._document = document
        self._presets = presets
        self.problems: list[Problem] = []
        self.unsaid: set[tuple[str, int]] = set()

    def entries(self, section: str, model: type[E]) -> list[tuple[str, E]]:
        """(path, entry) of each valid entry; an invalid one leaves its problems and hides no other."""
        raw = self._document.raw.get(section, [])
        if not isinstance(raw, list):
            self.problems.append(self._document.problem(section, f"must be an array of tables, [[{section}]]"))
            return []
        found: list[tuple[str, E]] = []
        for at, one in enumerate(raw):
            path = f"{section}[{at}]"
            try:
                found.append((path, model.model_validate(one, context={"base": self._document.base})))
            except ValidationError as error:
                errors = error.errors(include_url=False, include_context=False, include_input=False)
                self.problems += self._document.from_errors(errors, path)
        return found

    def terms(self) -> tuple[Terms, ...]:
        found: list[Terms] = []
        for path, entry in self.entries("terms", TermsEntry):
            if entry.base and entry.base not in self._presets:
                known = ", ".join(sorted(self._presets))
                self.problems.append(self._document.problem(f"{path}.base", f"{entry.base!r} is no preset ({known})"))
            else:
                found.append(entry.to_terms(self._presets))
                if "order_counts" not in entry.model_fields_set:
                    self.unsaid.add((entry.name, entry.version))
        return tuple(found)

    def buyers(self, terms: tuple[Terms, ...]) -> tuple[Buyer, ...]:
        """Buyers whose terms are known; a name that is not is a problem of the cross-checks."""
        newest = dict(self._presets)
        for one in sorted(terms, key=lambda one: one.version):
            newest[one.name] = one
        found: list[Buyer] = []
        for _, entry in self.entries("buyers", BuyerEntry):
            if entry.terms in newest:
                found.append(_to_buyer(entry, newest[entry.terms]))
        return tuple(found)


def _to_buyer(entry: BuyerEntry, terms: Terms) -> Buyer:
    return Buyer(
        name=entry.name,
        title=entry.title or entry.name,
        terms=terms,
        endpoints=tuple(one.to_endpoint() for one in entry.endpoints),
        state=entry.state,
        time_zone=entry.time_zone,
        category=entry.category,
        lead_emails=entry.lead_emails,
        caps=Caps(**entry.caps.model_dump()),
        hours=entry.hours,
        holidays=entry.holidays,
        duplicate_days=entry.duplicate_days,
        allow_states=entry.allow_states,
        deny_states=entry.deny_states,
        allow_area_codes=entry.allow_area_codes,
        deny_area_codes=entry.deny_area_codes,
        order_required=entry.order_required,
        extra_lines=entry.extra_lines,
        address=entry.address,
        reference=entry.reference,
        billing_emails=entry.billing_emails,
        report_emails=entry.report_emails,
        ask_rating=entry.ask_rating,
        locale=entry.locale,
    )
