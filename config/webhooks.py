"""The section `[webhooks]`: how events are sent to buyers' HTTPS endpoints, and which hosts are allowed."""

from __future__ import annotations

from pydantic import Field

from book.types import ConfigPath, Model


class WebhooksSection(Model):
    """Posting to buyers' endpoints, which are managed by `baton webhooks` and over HTTP."""

    timeout_ms: int = Field(10_000, ge=500, le=60_000, description="For a whole exchange, in ms.")
    disable_after_hours: int = Field(
        72, ge=1, le=720, description="A webhook that has failed for so long is disabled; an alert says so."
    )
    allow_hosts: tuple[str, ...] = Field(
        (),
        description="Hosts that may lead to private, loopback or link-local addresses; all others are refused there.",
    )
    redact_fields: tuple[str, ...] = Field(
        ("ssn", "social_security_number", "card_number", "password"),
        description="Fields of leads that no webhook ever gets.",
    )
    ca_file: ConfigPath | None = Field(None, description="CA certificates for endpoints, PEM; empty: the system's.")
