"""The settings of a Baton process: a TOML file under the environment, typed, frozen, nothing unknown.

`load` reports every problem of the file at once (`book.problems.ConfigError`). The same file may hold sections of the
book (`[[buyers]]` and the like); they are an import, not settings, and `book.sections` reads them. Descriptions here
become `docs/reference/settings.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator

from book.checks import needs_ca, repeated_names
from book.document import BOOK_SECTIONS, NO_ENTRY, SETTING_ARRAYS, Document, read
from book.model import Srtp, Transport
from book.problems import ConfigError, Problem
from book.sip_uri import is_sip_uri, parse_uri
from book.trunk import TrunkEntry
from book.types import ConfigPath, IpAddress, IpNetwork, Model, Slug
from config.mail import MailSection
from config.mqtt import MqttSection
from config.operator import BillingSection, OperatorSection
from config.portal import PortalSection
from config.webhooks import WebhooksSection

PORTS_PER_CALL = 2  # RTP and RTCP, RFC 3550 section 11
ENGINE_CALLS = 8000  # PJSUA_MAX_CALLS of our build, scripts/pjsua2/config_site.h
_MIN_SECRET = 32  # characters; about 160 bits when written as base32
_WHOLE_SECTIONS = (
    "router",
    "tls",
    "store",
    "metrics",
    "health",
    "log",
    "suppression",
    "recording",
    "operator",
    "billing",
    "webhooks",
)  # those with a default


class RouterSection(Model):
    """The SIP process."""

    name: Slug = Field("baton-1", description="Name of this router; part of the identity of its facts.")
    max_calls: int = Field(
        1000, ge=2, le=ENGINE_CALLS, description="Call slots; a transfer to five endpoints uses six."
    )
    rtp_address: IpAddress = Field(IPv4Address("0.0.0.0"), description="Local address of RTP sockets.")  # noqa: S104
    rtp_port_min: int = Field(20_000, ge=1024, le=65_535, description="First port for RTP.")
    rtp_port_max: int = Field(
        29_999, ge=1024, le=65_535, description="Last port for RTP; the range holds two ports for each call slot."
    )
    drain_seconds: int = Field(
        30, ge=0, le=3600, description="On stop: how long calls in progress may go on, in seconds."
    )
    nameservers: tuple[IpAddress, ...] = Field(
        (),
        description="DNS servers for host names of trunks, asked without blocking a call; empty: those of "
        "`/etc/resolv.conf`. `/etc/hosts` is not read.",
    )
    unknown_sources: Literal["drop", "reject"] = Field(
        "drop",
        description="An INVITE from an address of no dialer: `drop` it without an answer, or `reject` it with 403.",
    )
    lockout_failures: int = Field(
        5, ge=1, le=1000, description="Wrong passwords from one address, in a minute, before it is locked out."
    )
    lockout_seconds: int = Field(300, ge=1, le=86_400, description="For how long it is then dropped, in seconds.")
    rtp_timeout_ms: int = Field(
        30_000,
        ge=0,
        le=600_000,
        description="A party whose RTP stops for so long, in ms, has vanished; 0: never. Held calls are left alone.",
    )
    fast_answer_ms: int = Field(
        1_000, ge=0, le=10_000, description="An answer within so many ms of the INVITE is flagged; 0: never."
    )
    media_clock_hz: Literal[8000, 16_000, 48_000] = Field(
        8000,
        description="Sampling rate at which legs are bridged; above 8000 wideband codecs keep their band and "
        "G.711 legs cost more CPU.",
    )
    probe_down_after: int = Field(3, ge=1, le=20, description="Failed probes in a row that make a trunk `down`.")
    probe_up_after: int = Field(2, ge=1, le=20, description="Good probes in a row that make it `up` again.")
    trace_mb: int = Field(
        64,
        ge=0,
        le=4096,
        description="The last SIP messages kept in memory for `baton trace`, in MiB; 64 hold about 2,000 transfers to"
        " five endpoints. 0: none.",
    )
    user_agent: str = Field("Baton", min_length=1, max_length=64, description="User-Agent and Server header.")

    @model_validator(mode="after")
    def _enough_ports(self) -> Self:
        ports = self.rtp_port_max - self.rtp_port_min + 1
        needed = PORTS_PER_CALL * self.max_calls
        if ports < needed:
            raise ValueError(
                f"rtp_port_min to rtp_port_max is {max(0, ports)} ports; max_calls = {self.max_calls} needs {needed}"
            )
        return self


class Listener(Model):
    """A local SIP address to which dialers send."""

    name: Slug = Field(description="Name, unique among listeners.")
    transport: Transport = Field(description="`udp`, `tcp` or `tls`.")
    address: IpAddress = Field(IPv4Address("0.0.0.0"), description="Local address.")  # noqa: S104
    port: int = Field(5060, ge=0, le=65_535, description="Local port; 0 takes any free one.")
    srtp: Srtp | None = Field(
        None,
        description="SRTP with dialers: `off`, `optional` or `mandatory`; without it `optional` on tls, else `off`.",
    )
    public_address: str = Field("", description="Address written into Via, Contact and SDP where it differs (NAT).")
    certificate_file: ConfigPath | None = Field(None, description="TLS: certificate chain, PEM.")
    key_file: ConfigPath | None = Field(None, description="TLS: private key, PEM.")
    ca_file: ConfigPath | None = Field(None, description="TLS: where set, dialers must show a certificate of this CA.")

    @model_validator(mode="after")
    def _ipv4(self) -> Self:
        if ":" in str(self.address):
            raise ValueError("address is IPv6, which the engine does not speak")
        if self.public_address:
            try:
                IPv4Address(self.public_address)
            except ValueError as error:
                raise ValueError("public_address is no IPv4 address, such as 203.0.113.9; SDP needs one") from error
        return self

    @model_validator(mode="after")
    def _certificate(self) -> Self:
        if self.transport is Transport.TLS and (self.certificate_file is None or self.key_file is None):
            raise ValueError("a tls listener needs certificate_file and key_file")
        return self


class Dialer(Model):
    """Who may send transfers, known by its address."""

    name: Slug = Field(description="Name, unique among dialers; stands in records and metrics.")
    allow: tuple[IpNetwork, ...] = Field(min_length=1, description="Networks it sends from, as CIDR.")
    username: str = Field("", description="Digest user name; where set, every INVITE must prove it.")
    password: SecretStr = Field(SecretStr(""), description="Digest password.")
    campaigns: tuple[Slug, ...] | None = Field(
        None, min_length=1, description="The campaigns that it may call and ask about; left out: all."
    )
    max_calls: int = Field(0, ge=0, le=100_000, description="Transfers at once; 0: not limited.")
    max_per_second: int = Field(0, ge=0, le=10_000, description="INVITEs a second; 0: not limited.")
    refer_hosts: tuple[str, ...] = Field(
        (), description="Hosts to which it may move its end of a call by REFER; empty: REFER is refused."
    )

    nat: bool = Field(
        default=False, description="It is behind a NAT: its RTP is taken from the first source that is heard."
    )

    @model_validator(mode="after")
    def _password(self) -> Self:
        if bool(self.username) != bool(self.password.get_secret_value()):
            raise ValueError("username and password go together")
        return self


def _with_number(value: str) -> str:
    number = "+12125550100"  # any will do
    if not is_sip_uri(value.replace("{number}", number)):
        raise ValueError("is not a SIP URI, such as sip:{number}@carrier.example")
    if number not in parse_uri(value.replace("{number}", number)).user:
        raise ValueError("needs {number} before the @, where the DID goes")
    return value


class Carrier(TrunkEntry):
    """A trunk of the operator's own, over which DIDs are reached."""

    name: Slug = Field(description="Name, unique among carriers; a DID endpoint names it.")
    uri: Annotated[str, AfterValidator(_with_number)] = Field(
        description="SIP URI to dial; `{number}` stands for the DID in E.164, plus sign included."
    )
    transport: Transport = Field(Transport.UDP, description="`udp`, `tcp` or `tls`.")
    srtp: Srtp = Field(Srtp.OFF, description="`off`, `optional` or `mandatory`.")
    verify_tls: bool = Field(True, description="Verify certificate and host name on TLS.")
    username: str = Field("", description="Digest user name, where the carrier asks for one.")
    password: SecretStr = Field(SecretStr(""), description="Digest password.")


class TlsSection(Model):
    """TLS towards trunks."""

    ca_file: ConfigPath | None = Field(None, description="CA certificates against which trunks are verified, PEM.")
    certificate_file: ConfigPath | None = Field(None, description="Our certificate for mutual TLS, PEM.")
    key_file: ConfigPath | None = Field(None, description="Its private key, PEM.")

    @model_validator(mode="after")
    def _has_certificate_with_key(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        return self


class StoreSection(Model):
    """Where facts, book and money are kept."""

    url: SecretStr = Field(
        SecretStr(""), description="SQLAlchemy URL, async driver; empty: a SQLite file `baton.db` in `data_dir`."
    )
    secrets_key: SecretStr | None = Field(
        None,
        min_length=_MIN_SECRET,
        description=f"Seals secrets of webhooks in the store; at least {_MIN_SECRET} characters, the same"
        " for every process; best set by environment. Without it SQLite has a key of its own, `secrets.key` beside the"
        " file, and PostgreSQL none: there secrets are kept as they are.",
    )
    data_dir: ConfigPath = Field(
        Path("data"),
        validate_default=True,
        description="Folder for the SQLite file and suppression lists; relative to the configuration file.",
    )


def _https(value: str) -> str:
    if not value.startswith("https://") or len(value) == len("https://"):
        raise ValueError("must start with https://")
    return value.rstrip("/")


class LinksSection(Model):
    """Signed addresses in e-mails."""

    base_url: Annotated[str, AfterValidator(_https)] = Field(description="Where the portal is reached; https only.")
    secret: SecretStr = Field(
        min_length=_MIN_SECRET, description=f"Signs links; at least {_MIN_SECRET} characters; best set by environment."
    )


class MetricsSection(Model):
    """Prometheus."""

    address: IpAddress = Field(IPv4Address("127.0.0.1"), description="Local address of the metrics page.")
    port: int = Field(9464, ge=0, le=65_535, description="Its port; 0 takes any free one.")


LogLevel = Literal["debug", "info", "warning", "error"]
LogPart = Literal["router", "sip", "meter", "suppression", "portal", "serve"]


LEAST_HUNG_S = 10  # twice what `baton.process.health` calls hung


class HealthSection(Model):
    """What `baton serve` does about a process of its own that hangs."""

    restart_hung_seconds: int = Field(
        15,
        ge=0,
        le=3600,
        description="A process whose event loop has not turned for so long is aborted and started again; 10 at least,"
        " and less than systemd's WatchdogSec, which would end all of them; 0: never.",
    )

    @model_validator(mode="after")
    def _bound(self) -> Self:
        if 0 < self.restart_hung_seconds < LEAST_HUNG_S:
            raise ValueError(f"restart_hung_seconds is 0 or at least {LEAST_HUNG_S}")
        return self


class LogSection(Model):
    """Logs go to standard error."""

    format: Literal["json", "console"] = Field("json", description="`json` or `console`.")
    level: LogLevel = Field("info", description="Least level written: `debug`, `info`, `warning` or `error`.")
    levels: dict[LogPart, LogLevel] = Field(
        default_factory=dict,
        description='The same for single parts, such as `{ sip = "debug" }`: `router`, `sip`, `meter`,'
        " `suppression`, `portal`, `serve`.",
    )
    sample: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=dict,
        description="Share of an event's lines that is kept, drawn by transfer, such as `{ transfer_closed = 0.1 }`;"
        " from `warning` up all are.",
    )

    @property
    def options(self) -> dict[str, Any]:
        """For `telemetry.logs.configure`."""
        said = {"levels": dict(self.levels), "sample": dict(self.sample)}
        return {"json": self.format == "json", "level": self.level, **said}


class RecordingSection(Model):
    """Recordings of campaigns that ask for them."""

    dir: ConfigPath = Field(
        Path("recordings"), validate_default=True, description="Folder; relative to the configuration file."
    )
    retention_days: int = Field(90, ge=0, le=36_500, description="Days a recording is kept; 0: for ever.")


class SuppressionSection(Model):
    """Suppression lists in the router."""

    reload_ms: int = Field(500, ge=50, le=60_000, description="How often the router looks for new lists, in ms.")
    load: Literal["read", "map"] = Field(
        "read",
        description="`read`: the router holds its lists itself. `map`: it shares the memory of their files with other"
        " processes; who truncates such a file ends it.",
    )
    keep_versions: int = Field(
        5, ge=2, le=1_000, description="How many versions of a list keep their file, to be restored."
    )
    receipt_key: SecretStr | None = Field(
        None,
        min_length=_MIN_SECRET,
        description=f"Signs scrub receipts; at least {_MIN_SECRET} characters, the same on all routers; best set by"
        " environment. Without it a key is made and kept in the folder of the lists.",
    )
    receipt_keys_old: tuple[Annotated[SecretStr, Field(min_length=_MIN_SECRET)], ...] = Field(
        (), description="Keys of before: receipts signed with them are still verified."
    )


class Settings(Model):
    """Everything a process is told by its file and its environment."""

    router: RouterSection
    listeners: tuple[Listener, ...] = Field(min_length=1, description="At least one.")
    dialers: tuple[Dialer, ...] = Field((), description="Who may send; an address of none of them is refused.")
    carriers: tuple[Carrier, ...] = ()
    tls: TlsSection
    store: StoreSection
    mail: MailSection | None = None
    mqtt: MqttSection | None = None
    links: LinksSection | None = None
    portal: PortalSection | None = None
    metrics: MetricsSection
    health: HealthSection
    log: LogSection
    suppression: SuppressionSection
    recording: RecordingSection
    operator: OperatorSection
    billing: BillingSection
    webhooks: WebhooksSection

    @property
    def secrets_key(self) -> str:
        """The key of the store's secrets; empty: none is configured."""
        return self.store.secrets_key.get_secret_value() if self.store.secrets_key is not None else ""

    @property
    def store_url(self) -> str:
        """The URL to open; the SQLite file in `data_dir` where none is configured."""
        given = self.store.url.get_secret_value()
        return given or f"sqlite+aiosqlite:///{self.store.data_dir / 'baton.db'}"


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """The settings of a file under the environment. Raises ConfigError with all problems at once."""
    document = read(path, environ)
    settings, problems = validate(document)
    if settings is None or problems:
        raise ConfigError(path, problems)
    return settings


def load_running(path: Path, environ: Mapping[str, str]) -> tuple[Settings, tuple[str, ...]]:
    """As `load`, for a Baton that has started: an entry was taken out of the file, and its variable is still there.

    Such variables are left out, and named: a token whose secret is one of them could not be taken away otherwise.
    """
    gone = tuple(one.variable for one in read(path, environ).problems if one.message.startswith(NO_ENTRY))
    return load(path, {name: value for name, value in environ.items() if name not in gone}), gone


def validate(document: Document) -> tuple[Settings | None, list[Problem]]:
    """Settings where they can be made, and every problem: of the fields, across sections, and of the environment."""
    raw = {key: value for key, value in document.raw.items() if key not in BOOK_SECTIONS}
    for section in _WHOLE_SECTIONS:
        raw.setdefault(section, {})
    problems = [*document.problems, *_across(document, raw)]
    for section in SETTING_ARRAYS:
        problems += repeated_names(document, section)
    try:
        return Settings.model_validate(raw, context={"base": document.base}), problems
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return None, problems + document.from_errors(found)


def _across(document: Document, raw: dict[str, Any]) -> list[Problem]:
    problems: list[Problem] = []
    if "mail" in raw and "links" not in raw:
        message = "needs the section [links]: every failed-transfer e-mail carries a signed link"
        problems.append(document.problem("mail", message))
    problems += _token_dialers(document)
    for path, carrier in document.entries("carriers"):
        problems += needs_ca(document, path, carrier)
    return problems


def _token_dialers(document: Document) -> list[Problem]:
    """Tokens of the portal that belong to no dialer."""
    portal = document.raw.get("portal")
    tokens = portal.get("tokens", []) if isinstance(portal, dict) else []
    known = {entry.get("name") for _, entry in document.entries("dialers")}
    return [
        document.problem(f"portal.tokens[{at}].dialer", f"{one['dialer']!r} is not a [[dialers]] entry")
        for at, one in enumerate(tokens if isinstance(tokens, list) else [])
        if isinstance(one, dict) and isinstance(one.get("dialer"), str) and one["dialer"] not in known
    ]
