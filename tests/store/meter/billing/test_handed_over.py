"""An invoice that was in its buyer's hands once stays handed over, whatever is sent of it later (domain, section 6)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Connection, update
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.billing.sql.operations import BillingStore
from meter.mail.sql.messages import find_mail
from meter.mail.sql.recipients import Recipient, put_recipients, recipients_of, send_again
from meter.outbox.sql import prune
from meter.store.schema import outbox
from tests.store.money_tools import Books, at


@pytest.fixture
async def books(engine: AsyncEngine) -> AsyncIterator[Books]:
    made = Books(engine)
    yield made
    await made.close()


def _taken(connection: Connection) -> None:
    row = find_mail(connection, "INV-000001.document")
    assert row is not None
    tried = [Recipient("bills@acme.example", "taken", 1, 1, 1, 250, "")]
    put_recipients(connection, row.message_id, row.created_utc_us, tried)


def _resent(connection: Connection) -> bool:
    row = find_mail(connection, "INV-000001.document")
    assert row is not None
    return send_again(connection, row, None, "ann", at("2026-06-03 14:00"))


@pytest.mark.parametrize("how", ["mail server", "by hand", "gone"])
@pytest.mark.parametrize("to", [[], ["books@acme.example"]])
async def test_an_invoice_that_is_sent_once_more_was_handed_over_all_the_same(
    books: Books, how: str, to: list[str]
) -> None:
    """A copy that somebody asked for, and that no mail server took, took the hand-over back: nobody was held."""
    await books.agree("acme")
    await books.order("acme", "2026-06-08", 200)
    await books.cycle.run_once(at("2026-06-02 12:00"))
    store = BillingStore(books.engine, lambda: at("2026-06-03 12:00"))
    if how == "by hand":
        assert await store.hand_over("INV-000001", "ann")
    else:
        await books.write(_taken)
        await books.hand_over()
    if how == "gone":
        await books.write(lambda connection: prune(connection, at("2026-06-03 12:00"), 10) and None)
    assert await store.send("INV-000001", to) == (to or ["bills@acme.example"])
    await books.write(lambda connection: connection.execute(update(outbox).values(state="dead")) and None)
    assert await books.write(_resent)
    tried = await books.read(lambda connection: recipients_of(connection, "INV-000001.document"))
    assert tried == {}, "it goes to all of them"
    report = await books.cycle.run_once(at("2026-06-05 09:00"))
    assert [one.held for one in report.done] == [True]
