"""The ledger's vocabulary: accounts, assets and rules, and a posting as a value.

A posting moves an amount of one asset from the account that it credits to the account that it debits, so the ledger
balances by construction: over all accounts of a buyer, every asset sums to nothing. What an account holds is what was
debited to it less what was credited. Of money:

    receivable    what the buyer owes: invoices less payments and credits used
    prepaid       (negative) invoiced for service that is still to come, make-up owed included
    revenue       (negative) earned
    allowances    given back of what was earned: approved credits
    credits       (negative) open credits, which the next invoice uses
    refunds_due   (negative) checks still to be sent
    cash          received less paid out

Of units, in hundredths (`meter.billing.arithmetic.units`), by kind: `unbilled_connected` and `unbilled_failed` hold
what was delivered and not billed yet, of which less than one unit is left over after each week; `billed` what was.
Minutes go the same way, in started increments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

UNIT = "unit"  # asset: hundredths of a unit
INCREMENT = "increment"  # asset: started increments of minute rating


class Account(StrEnum):
    """Every account that a buyer has."""

    RECEIVABLE = "receivable"
    PREPAID = "prepaid"
    REVENUE = "revenue"
    ALLOWANCES = "allowances"
    CREDITS = "credits"
    REFUNDS_DUE = "refunds_due"
    CASH = "cash"
    DELIVERED = "delivered"
    UNBILLED_CONNECTED = "unbilled_connected"
    UNBILLED_FAILED = "unbilled_failed"
    UNBILLED_MINUTES = "unbilled_minutes"
    BILLED = "billed"


class Rule(StrEnum):
    """Why a posting was made."""

    UNIT = "unit"  # a transfer's outcome
    MINUTES = "minutes"  # an interaction's increments
    REVERSAL = "reversal"  # takes back another posting, with a reason
    BILLED = "billed"  # units or increments that a week or a month has billed
    INVOICE = "invoice"  # a document's total
    APPLIED = "applied"  # open credits used by an invoice
    EARNED = "earned"  # what a week has earned of what was prepaid
    REMEDY = "remedy"  # a shortfall becomes a credit or a check
    CANCELLED = "cancelled"  # an invoice, or what is left of it, by a credit note
    PAYMENT = "payment"
    REFUND = "refund"  # a check was sent
    CREDIT = "credit"  # an approved request, or a goodwill credit
    PAY_OUT = "pay_out"  # open credits become a check


@dataclass(frozen=True, slots=True)
class Posting:
    """One line of the ledger, before it has its place in the chain. Raises ValueError for a negative amount.

    `units` counts transfers or increments, negative in a reversal. `percent` and `price_minor` are those in force at
    dial-out. `period` is the Monday of a service week, or a month such as 2026-06. `by` is empty for the meter itself.
    """

    key: str
    buyer: str
    rule: Rule
    debit: Account
    credit: Account
    asset: str
    amount: int
    transfer: str | None = None
    unit: str | None = None
    units: int = 0
    percent: int | None = None
    price_minor: int | None = None
    terms_name: str = ""
    terms_version: int = 0
    dialout_utc_us: int | None = None
    period: str | None = None
    document: str | None = None
    reverses: str | None = None
    reason: str = ""
    by: str = ""
    posted_utc_us: int = 0

    def __post_init__(self) -> None:
        if self.amount < 0:
            raise ValueError(f"posting {self.key}: an amount of {self.amount}; turn debit and credit round instead")


def reversal(posting: Posting, key: str, reason: str, by: str, now_utc_us: int) -> Posting:
    """The posting that takes `posting` back: accounts turned round, its units negative."""
    return replace(
        posting,
        key=key,
        rule=Rule.REVERSAL,
        debit=posting.credit,
        credit=posting.debit,
        units=-posting.units,
        reverses=posting.key,
        reason=reason,
        by=by,
        posted_utc_us=now_utc_us,
    )
