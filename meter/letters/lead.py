"""The lead of a failed transfer, by e-mail to the buyer who pays for it (domain, section 7).

One lead per message: plain text, HTML, and the fields as a CSV attachment; the reason, and the times of every leg from
dial-out that prove it; a signed link to ask for a credit. The letter is made from the facts when it is sent. It goes to
the addresses that were frozen with the transfer, unless the order names others; an order without addresses goes to
those that the buyer has now, and waits for one where it has none. Dates are in the zone of the terms and written as the
buyer's locale has them.

The shipped subject holds nothing of the lead. The lead's fields are hostile input and go through
`meter.text.hostile`, HTML templates escape everything, and the CSV holds no formulas.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

from facts.disclosure import claim_of
from facts.fact import Fact, Kind, first_of
from facts.ladder import Ladder, LegTimes, build_ladder
from facts.outcome import CountsAs
from facts.start_payload import TransferStarted, transfer_started
from facts.start_payload import buyer as buyer_of
from meter.journal.sql.reading import facts_and_outcome
from meter.mail.channel import LEAD
from meter.mail.message import Attachment, Letter, addressees
from meter.mail.sql.messages import BuyerMail, buyer_mail
from meter.outbox.delivery import NeverDeliverableError
from meter.store.clerk import Clerk
from meter.text import texts
from meter.text.hostile import csv_cell, fields_of, one_line
from meter.text.links import LinkOptions, credit_link
from meter.text.localised import DEFAULT_LOCALE, short_when_text, when_text

TEMPLATE = "failed_lead"
DEFAULT_ZONE = "America/New_York"  # domain, section 2


class LeadComposer:
    """Makes the letter of one failed transfer: order `{"transfer": ID, "to": [ADDRESS, ...]}`."""

    def __init__(self, link: LinkOptions | None = None) -> None:
        self._link = link

    async def compose(self, order: Mapping[str, Any], clerk: Clerk) -> Letter:
        """The letter. Raises NeverDeliverableError where there is no such transfer, NobodyError without an address."""
        facts, row = await clerk.read(facts_and_outcome, str(order.get("transfer", "")))
        started = first_of(facts, Kind.TRANSFER_STARTED)
        if started is None:
            raise NeverDeliverableError("the transfer has no transfer_started")
        # As it was settled: a lead may wait for weeks, and what a release has mended since takes no charge back.
        if (
            row["counts_as"] if row is not None else claim_of(facts).counts_as
        ) != CountsAs.FAILED.value:  # whoever queued it: it is not the buyer's
            raise NeverDeliverableError("the transfer does not count as failed")
        name = buyer_of(started) or ""
        buyer = await clerk.read(buyer_mail, name) or BuyerMail()
        who = addressees(order, "lead_emails", name, buyer.lead_emails)
        letter = render_lead(facts, who.to, self._link, buyer.locale)
        return replace(letter, present=who.present, waits_for=who.waits_for)


def render_lead(
    facts: Sequence[Fact], recipients: Sequence[str], link: LinkOptions | None = None, locale: str = DEFAULT_LOCALE
) -> Letter:
    """The letter of one failed transfer. Raises NeverDeliverableError where nobody can receive it."""
    started = first_of(facts, Kind.TRANSFER_STARTED)
    if started is None:
        raise NeverDeliverableError("the transfer has no transfer_started")
    start = transfer_started(started)
    if not recipients:
        raise NeverDeliverableError("lead_emails: there is no recipient")
    ladder = build_ladder(facts)
    fields = fields_of(start.lead)
    shown = _shown(start, ladder, _Dates(_zone(start), locale))
    shown |= {"fields": fields, "credit_link": _link(link, start, ladder)}
    return Letter(
        to=tuple(recipients),
        subject=texts.render(f"{TEMPLATE}.subject.jinja", shown),
        text=texts.render(f"{TEMPLATE}.txt.jinja", shown),
        html=texts.render(f"{TEMPLATE}.html.jinja", shown),
        attachments=(Attachment(f"lead-{ladder.transfer}.csv", "text/csv", fields_csv(fields).encode()),),
        message_id=f"{ladder.transfer}.{LEAD}",
        date_utc_us=facts[-1].utc_us,
    )


def fields_csv(fields: Sequence[tuple[str, str]]) -> str:
    """The fields as one heading line and one line of values."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow([csv_cell(name) for name, _ in fields])
    writer.writerow([csv_cell(value) for _, value in fields])
    return text.getvalue()


class _Dates:
    """Instants of one letter as text."""

    def __init__(self, zone: ZoneInfo, locale: str) -> None:
        self._zone, self._locale = zone, locale

    def long(self, utc_us: int | None) -> str:
        return "never" if utc_us is None else when_text(utc_us, self._zone, self._locale)

    def short(self, utc_us: int) -> str:
        return short_when_text(utc_us, self._zone, self._locale)


def _zone(start: TransferStarted) -> ZoneInfo:
    try:
        return ZoneInfo(start.terms.time_zone or DEFAULT_ZONE)
    except (KeyError, ValueError, OSError):
        return ZoneInfo(DEFAULT_ZONE)


def _link(link: LinkOptions | None, start: TransferStarted, ladder: Ladder) -> str:
    return credit_link(link, ladder.transfer, start.buyer or "") if link else ""


def _shown(start: TransferStarted, ladder: Ladder, dates: _Dates) -> dict[str, Any]:
    """What the templates show, every text in one line."""
    outcome = ladder.outcome
    return {
        "buyer": one_line(start.buyer_title or start.buyer or "Buyer", 200),
        "campaign": one_line(start.campaign or "", 64),
        "transfer": one_line(ladder.transfer, 64),
        "happened": f"The call came in on {dates.long(ladder.started_utc_us)}.",
        "started": dates.short(ladder.started_utc_us),
        "dialout": dates.long(ladder.dialout_utc_us),
        "verdict": outcome.verdict.value,
        "reason": outcome.reason.value.replace("_", " "),
        "counts_as": outcome.counts_as.value,
        "attempt": _seconds(outcome.attempt_ms),
        "buffer": _seconds(outcome.buffer_ms),
        "talk": _seconds(outcome.talk_ms),
        "explanation": one_line(ladder.explanation),
        "legs": [_shown_leg(leg) for leg in ladder.legs],
    }


def _shown_leg(leg: LegTimes) -> dict[str, str]:
    ended = f"{'by us' if leg.local else 'by the ' + (leg.ended_by or 'far end')}" if leg.ended_ms is not None else ""
    answer = f"{leg.code or ''} {leg.phrase}".strip()
    return {
        "name": one_line(leg.name, 64),
        "kind": one_line(leg.kind, 16) or "endpoint",
        "sent": _seconds(leg.sent_ms),
        "ringing": _seconds(leg.ringing_ms),
        "answered": _seconds(leg.answered_ms) + (" (too late)" if leg.late else ""),
        "ended": _seconds(leg.ended_ms),
        "how": one_line(", ".join(part for part in (ended, answer, leg.reason_header) if part), 300),
    }


def _seconds(duration_ms: int | None) -> str:
    return "-" if duration_ms is None else f"{duration_ms / 1000:.3f}"


texts.add_sample(
    TEMPLATE,
    {
        "buyer": "Acme Solar",
        "campaign": "solar",
        "transfer": "01hzsample",
        "happened": "The call came in on June 2, 2026, 9:59:59 AM EDT.",
        "started": "Jun 2, 2026, 9:59 AM EDT",
        "dialout": "June 2, 2026, 10:00:00 AM EDT",
        "verdict": "failed",
        "reason": "declined",
        "counts_as": "failed",
        "attempt": "30.000",
        "buffer": "15.000",
        "talk": "0.000",
        "explanation": "Declined after the buffer: failed, counted as failed.",
        "legs": [
            {
                "name": "desk-1",
                "kind": "trunk",
                "sent": "0.000",
                "ringing": "1.200",
                "answered": "-",
                "ended": "8.000",
                "how": "by the buyer, 486 Busy Here",
            }
        ],
        "fields": [("name", "Jo Doe"), ("phone", "+12125550123")],
        "credit_link": "https://portal.example/credit/sample",
    },
)
