"""The e-mail that asks a customer for a rating, with a signed link (domain, section 9).

It goes once per interaction, to the customer's own address, and names the buyer alone: whoever reads it knows what it
was about. Names of the network go through `meter.text.hostile`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

from book.model import Channel
from meter.book.sql.book import UnknownBuyerError
from meter.book.sql.contracts import read_contract
from meter.mail.message import Letter
from meter.outbox.delivery import NeverDeliverableError
from meter.per_minute.interactions import InteractionError
from meter.per_minute.sql.interactions import RATING as KIND
from meter.per_minute.sql.interactions import find
from meter.store.clerk import Clerk
from meter.text import texts
from meter.text.hostile import one_line
from meter.text.links import LinkOptions, rating_link
from meter.text.localised import when_text

__all__ = ["KIND", "RatingComposer"]

TEMPLATE = "rating_mail"
_WHAT = {Channel.CALL: "call", Channel.EMAIL: "e-mail", Channel.CHAT: "chat"}


class RatingComposer:
    """Makes the letter of one question: order `{"id": INTERACTION, "to": [ADDRESS]}`."""

    def __init__(self, link: LinkOptions | None) -> None:
        self._link = link

    async def compose(self, order: Mapping[str, Any], clerk: Clerk) -> Letter:
        """The letter. Raises NeverDeliverableError where there is no such interaction, link or address."""
        name, to = str(order.get("id", "")), order.get("to")
        if self._link is None:
            raise NeverDeliverableError("links: no address is configured where a rating could be given")
        if not isinstance(to, list) or not to:
            raise NeverDeliverableError(f"{one_line(name, 64)}: nobody is to be asked")
        try:
            found = await clerk.read(lambda connection: find(connection, name))
            contract = await clerk.read(lambda connection: read_contract(connection, found.buyer))
        except (InteractionError, UnknownBuyerError) as error:
            raise NeverDeliverableError(str(error)) from error
        zone = ZoneInfo(contract.terms_at(found.at_utc_us).time_zone)
        shown = {
            "buyer": one_line(contract.buyer.title or contract.buyer.name, 200),
            "what": _WHAT[found.kind],
            "when": when_text(found.received_utc_us, zone, contract.buyer.locale),
            "link": rating_link(self._link, found.id, found.buyer),
        }
        return Letter(
            to=tuple(str(one) for one in to),
            subject=texts.render(f"{TEMPLATE}.subject.jinja", shown),
            text=texts.render(f"{TEMPLATE}.txt.jinja", shown),
            html=texts.render(f"{TEMPLATE}.html.jinja", shown),
            attachments=(),
            message_id=f"{found.id}.{KIND}",
            date_utc_us=found.at_utc_us,
        )


texts.add_sample(
    TEMPLATE,
    {
        "buyer": "Acme Solar",
        "what": "call",
        "when": "June 2, 2026, 10:00:00 AM EDT",
        "link": "https://baton.example/rate/TOKEN",
    },
)
