"""The section `[portal]`: where the HTTP API listens, and who may use it."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from ipaddress import IPv4Address
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from book.types import ConfigPath, IpAddress, Model, Slug, signing_secret

MIB = 1 << 20
MIN_TOKEN = 32  # characters; a token is checked by one SHA-256, so it must be long and random
HASHED = "sha256:"
_HASH = re.compile(r"[0-9a-f]{64}")
MAX_SIGNING_SECRETS = 4  # the one in use, the one before, and room for a change that was not finished


def _secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text.startswith(HASHED):
        if not _HASH.fullmatch(text.removeprefix(HASHED)):
            raise ValueError(f"{HASHED} is followed by 64 digits 0-9, a-f")
    elif len(text) < MIN_TOKEN or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"needs {MIN_TOKEN} or more printable ASCII characters and no space; or {HASHED} and a hash")
    return value


class PortalToken(Model):
    """Who may use the HTTP API: `Authorization: Bearer TOKEN`, or a dialer's signature on each lead that it posts."""

    name: Slug = Field(description="Name, unique among tokens; stands in logs, and in `X-Baton-Key` of what is signed.")
    secret: Annotated[SecretStr, AfterValidator(_secret)] | None = Field(
        None,
        description=f"The token, at least {MIN_TOKEN} characters; or `{HASHED}` and its SHA-256 in hex. A dialer that"
        " signs needs none.",
    )
    signing_secrets: tuple[Annotated[SecretStr, AfterValidator(signing_secret)], ...] = Field(
        (),
        max_length=MAX_SIGNING_SECRETS,
        description="With `dialer`: secrets with which it may sign leads instead, `whsec_` and base64 of 24 to 64"
        " bytes; the new one and the old one while they are changed.",
    )
    dialer: Slug | None = Field(None, description="The `[[dialers]]` entry to which it belongs.")
    buyer: Slug | None = Field(None, description="Or the buyer to which it belongs.")
    operator: bool = Field(False, description="Or whether it is the operator's, who may do everything.")

    @model_validator(mode="after")
    def _one_owner(self) -> Self:
        if sum((self.dialer is not None, self.buyer is not None, self.operator)) != 1:
            raise ValueError("needs exactly one of dialer, buyer and operator = true")
        return self

    @model_validator(mode="after")
    def _known_by_something(self) -> Self:
        if self.signing_secrets and self.dialer is None:
            raise ValueError("signing_secrets are a dialer's: only leads can be signed")
        if self.secret is None and not self.signing_secrets:
            raise ValueError("needs secret, or signing_secrets")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the token, hex; empty where there is none."""
        if self.secret is None:
            return ""
        text = self.secret.get_secret_value()
        if text.startswith(HASHED):
            return text.removeprefix(HASHED)
        return hashlib.sha256(text.encode()).hexdigest()


class PortalSection(Model):
    """The HTTP API. Without this section there is none."""

    address: IpAddress = Field(
        IPv4Address("127.0.0.1"), description="Local address; one that is not loopback needs a certificate."
    )
    port: int = Field(8080, ge=1, le=65_535, description="Its port.")
    certificate_file: ConfigPath | None = Field(None, description="TLS: certificate chain, PEM.")
    key_file: ConfigPath | None = Field(None, description="TLS: private key, PEM.")
    lead_ttl_s: int = Field(
        3600,
        ge=10,
        le=604_800,
        description="How long a posted lead waits for its call, in seconds; then it is deleted.",
    )
    max_import_mb: int = Field(
        4096,
        ge=1,
        le=1_048_576,
        description="Largest suppression list that is taken, in MiB, packed or not; uploads lie in `store.data_dir`.",
    )
    requests_per_minute: int = Field(
        12_000,
        ge=1,
        le=1_000_000,
        description="Requests a minute of one token, or of one address without one; more get 429. Health is exempt.",
    )
    failed_logins_per_minute: int = Field(
        30,
        ge=1,
        le=1_000_000,
        description="Requests a minute of one address whose token or signature is missing or wrong; more get 429.",
    )
    max_streams: int = Field(
        64, ge=1, le=150, description="Event streams at once, live views and feeds, of all tokens."
    )
    max_streams_per_token: int = Field(8, ge=1, le=150, description="The same of one token.")
    tokens: tuple[PortalToken, ...] = Field((), description="At least one is needed for anything but health.")

    @property
    def max_import_bytes(self) -> int:
        return self.max_import_mb * MIB

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        if self.certificate_file is None and not self.address.is_loopback:
            raise ValueError(f"address {self.address} is not loopback: certificate_file and key_file are required")
        return self

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        names, secrets = (
            Counter(one.name for one in self.tokens),
            Counter(filter(None, (one.digest for one in self.tokens))),
        )
        for what, count in (("name", names), ("secret", secrets)):
            if any(many > 1 for many in count.values()):
                raise ValueError(f"two of [[portal.tokens]] have the same {what}")
        return self
