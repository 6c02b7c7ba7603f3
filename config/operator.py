"""The operator as its documents show it, and how its meter bills."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from book.types import ConfigPath, DocumentLine, MailAddress, Model


class OperatorSection(Model):
    """Who sells the transfers. Stands on every invoice; what is issued keeps what stood here then."""

    name: DocumentLine = Field("The operator", min_length=1, description="Name of the company.")
    address: tuple[DocumentLine, ...] = Field((), max_length=8, description="Lines of its postal address.")
    tax_id: DocumentLine = Field("", description="Tax number.")
    email: MailAddress | None = Field(None, description="Address for questions about documents.")
    phone: DocumentLine = Field("", description="Telephone for questions about documents.")
    heads_to: tuple[MailAddress, ...] = Field(
        (),
        max_length=20,
        description="Who gets the ends of all chains by e-mail, daily, so that an older copy of the store is noticed; "
        "empty: `email`.",
    )
    pay_to: tuple[DocumentLine, ...] = Field((), max_length=8, description="Lines that say how to pay an invoice.")


class BillingSection(Model):
    """The weekly cycle, in the meter."""

    enabled: bool = Field(True, description="Run it; off: only `baton billing run` does.")
    invoice_prefix: str = Field("INV-", pattern=r"^[A-Z0-9-]{0,12}$", description="Before an invoice's number.")
    credit_note_prefix: str = Field("CN-", pattern=r"^[A-Z0-9-]{0,12}$", description="Before a credit note's number.")
    statement_prefix: str = Field("ST-", pattern=r"^[A-Z0-9-]{0,12}$", description="Before a statement's number.")
    settle_after_ms: int = Field(
        3_600_000,
        ge=0,
        le=21_600_000,
        description="How long after a service week's end it is settled, in ms: calls that were under way are in it. "
        "What ends later is an adjustment of the next week.",
    )

    credit_reasons_file: ConfigPath | None = Field(
        None, description="TOML file with the reasons for credits by category, in the place of those that ship."
    )

    @model_validator(mode="after")
    def _prefixes_differ(self) -> Self:
        prefixes = (self.invoice_prefix, self.credit_note_prefix, self.statement_prefix)
        if len(set(prefixes)) != len(prefixes):
            raise ValueError("invoice_prefix, credit_note_prefix and statement_prefix must differ")
        return self
