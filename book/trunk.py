"""The settings of a trunk: one model for a buyer's endpoint and for a carrier of the operator's."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from book.model import CODECS, Prack, SessionTimer, TrunkPolicy
from book.sip_uri import is_sip_uri
from book.types import ConfigPath, Model

_HEADER = r"^[A-Za-z][A-Za-z0-9-]{0,63}$"
_MIN_SESSION_S = 90  # RFC 4028 section 5
_FILES = ("ca_file", "certificate_file", "key_file")


def _codec(value: str) -> str:
    known = {name.lower(): name for name in CODECS}
    if value.lower() not in known:
        raise ValueError(f"{value!r} is not one of {', '.join(CODECS)}")
    return known[value.lower()]


def _caller_id(value: str) -> str:
    if value and not all(one.isascii() and (one.isalnum() or one in "+-_.") for one in value):
        raise ValueError("is neither a number nor a user name, such as +12125550100")
    return value


def _registrar(value: str) -> str:
    if value and not is_sip_uri(value):
        raise ValueError("is not a SIP URI, such as sip:registrar.example")
    return value


class TrunkEntry(Model):
    """The SIP settings of a trunk."""

    codecs: tuple[Annotated[str, AfterValidator(_codec)], ...] = Field(
        (), description="`PCMU`, `PCMA`, `G722`, `opus`, in order of preference; empty: what the dialer offers."
    )
    caller_id: Annotated[str, AfterValidator(_caller_id)] = Field(
        "", max_length=64, description="User part of From; empty: the prospect's number; `anonymous`: none."
    )
    asserted_identity: bool = Field(False, description="Send P-Asserted-Identity with the prospect's number.")
    transfer_header: str = Field(
        "X-Transfer-Id", pattern=rf"^$|{_HEADER}", description="Header with the transfer id; empty: none."
    )
    lead_headers: tuple[str, ...] = Field((), description="Lead fields that go along as `X-Lead-...` headers.")
    session_timer: SessionTimer = Field(
        SessionTimer.OPTIONAL, description="Session timers: `off`, `optional`, `required` or `always`."
    )
    session_expires_s: int = Field(1800, ge=_MIN_SESSION_S, le=86_400, description="Session interval, in seconds.")
    session_min_s: int = Field(90, ge=_MIN_SESSION_S, le=86_400, description="Least session interval, in seconds.")
    prack: Prack = Field(Prack.OPTIONAL, description="Reliable provisional answers: `optional` or `mandatory`.")
    ca_file: ConfigPath | None = Field(None, description="TLS: CA certificates for this trunk; empty: tls.ca_file.")
    certificate_file: ConfigPath | None = Field(None, description="TLS: our certificate for this trunk, PEM.")
    key_file: ConfigPath | None = Field(None, description="TLS: its private key, PEM.")
    registrar: Annotated[str, AfterValidator(_registrar)] = Field(
        "", description="SIP URI to register with, as `username`; empty: no registration."
    )
    redirect_hosts: tuple[str, ...] = Field(
        (), description="Hosts to which a 3xx may send a call; empty: a 3xx is a refusal."
    )
    max_calls: int = Field(0, ge=0, le=100_000, description="Calls at once; 0: not limited.")
    probe_s: int = Field(0, ge=0, le=3600, description="OPTIONS every so many seconds; 0: never.")
    nat: bool = Field(
        default=False, description="It is behind a NAT: its RTP is taken from the first source that is heard."
    )

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        if self.session_min_s > self.session_expires_s:
            raise ValueError("session_min_s is more than session_expires_s")
        if self.registrar and not getattr(self, "username", ""):
            raise ValueError("registrar needs a username")
        return self

    def to_policy(self) -> TrunkPolicy:
        said: dict[str, Any] = {name: getattr(self, name) for name in TrunkEntry.model_fields}
        return TrunkPolicy(**{**said, **{name: str(said[name] or "") for name in _FILES}})
