"""The section `[mqtt]`: the broker, and who may send commands through it."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from book.types import ConfigPath, Model, Port, Slug, signing_secret

MAX_SECRETS = 4  # the one in use, the one before, and room for a change that was not finished
SigningSecret = Annotated[SecretStr, AfterValidator(signing_secret)]


class MqttCommander(Model):
    """Who may pause, resume and suppress by MQTT, proven by a signature on each command."""

    name: Slug = Field(description="Name, unique among commanders; last level of the topic `commands/NAME`.")
    secrets: tuple[SigningSecret, ...] = Field(
        min_length=1,
        max_length=MAX_SECRETS,
        description="Sign its commands: `whsec_` and base64 of 24 to 64 bytes; the new one and the old one while they"
        " are changed.",
    )
    buyer: Slug | None = Field(None, description="The buyer for which it acts; without it the operator's, for all.")


class MqttSection(Model):
    """The broker for events, states and commands. Without this section nothing is published."""

    host: str = Field(min_length=1, description="Broker.")
    port: Port = Field(1883, description="Its port.")
    version: Literal["3.1.1", "5"] = Field("5", description="MQTT version, `3.1.1` or `5`.")
    username: str = Field("", description="User name, where the broker asks for one.")
    password: SecretStr = Field(SecretStr(""), description="Password.")
    prefix: str = Field("baton", pattern=r"^[^#+\s/]+(/[^#+\s/]+)*$", description="First levels of every topic.")
    client_id: str = Field(
        "baton-meter",
        pattern=r"^[0-9A-Za-z_-]{1,64}$",
        description="Client identifier; the same on all meters, since one of them at a time is connected.",
    )
    tls: bool = Field(False, description="Speak TLS to the broker.")
    mask_phone: bool = Field(
        True,
        description="Of phone numbers the last four digits, and those only of transfers that count; off: all, whole.",
    )
    ca_file: ConfigPath | None = Field(None, description="CA certificates for the broker, PEM; empty: the system's.")
    certificate_file: ConfigPath | None = Field(None, description="Our certificate, where the broker wants one, PEM.")
    key_file: ConfigPath | None = Field(None, description="Its private key, PEM.")
    commanders: tuple[MqttCommander, ...] = Field((), description="Who may send commands; none: none are taken.")

    @model_validator(mode="after")
    def _certificate(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        return self

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        twice = [name for name, count in Counter(one.name for one in self.commanders).items() if count > 1]
        if twice:
            raise ValueError(f"two of [[mqtt.commanders]] are called {twice[0]!r}")
        return self
