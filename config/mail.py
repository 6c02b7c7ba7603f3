"""The section `[mail]`: the server that takes e-mails, whose name they bear, how they are signed and look."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, model_validator

from book.types import ConfigPath, MailAddress, Model, Port

MAX_BOUNCE_NAME = 32  # left of the @: RFC 5321 section 4.5.3.1.1 allows 64 octets, and `+` and a token are added
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"

DomainName = Annotated[str, StringConstraints(pattern=rf"^{_LABEL}(?:\.{_LABEL})+$", max_length=253)]
Selector = Annotated[str, StringConstraints(pattern=rf"^{_LABEL}(?:\.{_LABEL})*$", max_length=128)]


def _bounce_address(value: str) -> str:
    name = value.rpartition("@")[0]
    if not value.isascii() or len(name) > MAX_BOUNCE_NAME or "+" in name or '"' in name:
        raise ValueError(f"needs at most {MAX_BOUNCE_NAME} plain characters, and no plus sign, before the @")
    return value


class MailSecurity(StrEnum):
    NONE = "none"
    STARTTLS = "starttls"
    TLS = "tls"


class MailSection(Model):
    """SMTP submission. Without this section no e-mail is sent."""

    host: str = Field(min_length=1, description="SMTP server.")
    port: Port = Field(587, description="Its port.")
    security: MailSecurity = Field(MailSecurity.STARTTLS, description="`none`, `starttls` or `tls`.")
    username: str = Field("", description="User name, where the server asks for one.")
    password: SecretStr = Field(SecretStr(""), description="Password.")
    sender: MailAddress = Field(description="From address.")
    reply_to: MailAddress | None = Field(None, description="Reply-To address.")
    timeout_ms: int = Field(10_000, ge=100, le=120_000, description="Limit for one exchange with the server, in ms.")
    templates_dir: ConfigPath | None = Field(
        None,
        description="Folder of your own templates; a file there replaces the shipped one of the same name, such as"
        " `failed_lead.txt.jinja`.",
    )
    dkim_domain: DomainName | None = Field(
        None, description="DKIM (RFC 6376): domain that signs; together with selector and key file."
    )
    dkim_selector: Selector | None = Field(
        None, description="DKIM: the public key is the TXT record SELECTOR._domainkey.DOMAIN."
    )
    dkim_key_file: ConfigPath | None = Field(None, description="DKIM: RSA private key, PEM, not encrypted.")
    bounce_address: Annotated[MailAddress, AfterValidator(_bounce_address)] | None = Field(
        None,
        description="Envelope sender, to which reports of failed delivery go, with `+` and a signed token before the"
        " @; empty: `sender`.",
    )

    @model_validator(mode="after")
    def _no_password_in_clear(self) -> Self:
        if self.username and self.security is MailSecurity.NONE:
            raise ValueError("security = none would send the password in clear; use starttls or tls")
        return self

    @model_validator(mode="after")
    def _whole_dkim(self) -> Self:
        given = [one is not None for one in (self.dkim_domain, self.dkim_selector, self.dkim_key_file)]
        if any(given) and not all(given):
            raise ValueError("dkim_domain, dkim_selector and dkim_key_file go together")
        return self
