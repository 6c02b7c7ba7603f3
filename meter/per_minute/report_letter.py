"""The daily report by e-mail: the page, the same as plain text, and its interactions as CSV (domain, section 9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meter.mail.message import Attachment, Letter, addressees
from meter.mail.sql.messages import BuyerMail, buyer_mail
from meter.outbox.delivery import NeverDeliverableError
from meter.per_minute.reports import TEMPLATE, csv_of, html_of, shown
from meter.per_minute.sql.reports import KIND, Report, UnknownReportError, read
from meter.store.clerk import Clerk
from meter.text import texts
from meter.text.hostile import one_line
from meter.text.links import LinkOptions, interaction_link

__all__ = ["KIND", "ReportComposer", "page_of"]


class ReportComposer:
    """Makes the letter of one report: order `{"buyer": BUYER, "day": DAY, "to": [ADDRESS, ...]}`."""

    def __init__(self, link: LinkOptions | None) -> None:
        self._link = link

    async def compose(self, order: Mapping[str, Any], clerk: Clerk) -> Letter:
        """The letter. Raises NeverDeliverableError where there is no such report, NobodyError without an address."""
        buyer, day = str(order.get("buyer", "")), str(order.get("day", ""))
        try:
            report = await clerk.read(lambda connection: read(connection, buyer, day))
        except UnknownReportError as error:
            raise NeverDeliverableError(one_line(str(error))) from error
        found = await clerk.read(buyer_mail, buyer) or BuyerMail()
        who = addressees(order, "report_emails", buyer, found.report_emails)
        values = shown(report.body, _links(report, self._link))
        return Letter(
            to=who.to,
            present=who.present,
            waits_for=who.waits_for,
            subject=texts.render(f"{TEMPLATE}.subject.jinja", values),
            text=texts.render(f"{TEMPLATE}.txt.jinja", values),
            html=page_of(report, self._link),
            attachments=(Attachment(f"report-{buyer}-{day}.csv", "text/csv", csv_of(report.body).encode()),),
            message_id=f"{KIND}-{buyer}-{day}.{KIND}",
            date_utc_us=report.issued_utc_us,
        )


def page_of(report: Report, link: LinkOptions | None) -> str:
    """The report as one HTML page, its interactions with signed links where these are configured."""
    return html_of(report.body, _links(report, link))


def _links(report: Report, link: LinkOptions | None) -> Any:
    return None if link is None else lambda name: interaction_link(link, name, report.buyer)


_ONE = {
    "name": "ticket-812",
    "link": "https://baton.example/interaction/TOKEN",
    "kind": "email",
    "received": "Jun 2, 2026, 10:00 AM EDT",
    "state": "resolved",
    "handled": "2:03",
    "amount": "$3.54",
    "rating": 5,
}
texts.add_sample(
    TEMPLATE,
    {
        "buyer": "Acme Solar",
        "day": "June 2, 2026",
        "starts": "June 1, 2026, 11:30:00 PM EDT",
        "ends": "June 2, 2026, 11:30:00 PM EDT",
        "interactions": "1",
        "late": "",
        "resolved": "1",
        "resolution": "1:02:03",
        "rating": "5.00",
        "ratings": [{"name": "ticket-812", "kind": "email", "rating": 5, "by": "quality", "link": _ONE["link"]}],
        "cost": "$3.54",
        "kinds": [{"kind": "E-mails", "interactions": "1", "resolved": "1", "increments": "3", "cost": "$3.54"}],
        "levels": [{"name": "E-mails answered within 6 hours", "met": "1 of 1", "percent": "100.0 %"}],
        "list": [_ONE],
        "more": 0,
    },
)
