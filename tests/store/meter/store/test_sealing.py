"""Secrets of webhooks: not in a copy of the database; nothing is posted unsigned where they cannot be read."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select, update

from book.model import Buyer
from book.sections import BookFile
from book.terms import presets
from meter.book.sql.book import BookStore
from meter.store.clerk import Clerk
from meter.store.engine import open_store
from meter.store.integration_schema import webhooks
from meter.store.sealing import KEY_FILE, SealError, SecretBox
from meter.webhooks.channel import post_signed
from meter.webhooks.http_post import HttpPoster, HttpPostError, PostOptions
from meter.webhooks.management import Condition, condition, trouble
from meter.webhooks.sql import Standing, Webhook, WebhookError, put_hook, read_hooks, seal_plain

HOOK = Webhook("acme", "crm", "https://crm.example/in", secrets=("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",))
KEY = "k" * 32


class Office:
    """A store in a folder, opened with a key or without."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder / 'baton.db'}"

    async def do(self, work: object, key: str = "") -> object:
        engine = await open_store(self.url, secrets_key=key)
        clerk = Clerk(engine)
        try:
            return await clerk.write(work)  # type: ignore[arg-type]
        finally:
            await clerk.close()
            await engine.dispose()

    async def hook(self, key: str = "") -> Webhook:
        [(found, _)] = await self.do(read_hooks, key)  # type: ignore[misc]
        return found  # type: ignore[no-any-return]

    def bytes(self) -> bytes:
        return b"".join(one.read_bytes() for one in self.folder.glob("baton.db*"))


@pytest.fixture
async def office(tmp_path: Path) -> Office:
    made = Office(tmp_path)
    engine = await open_store(made.url)
    terms = next(iter(presets().values()))
    await BookStore(engine).import_book(
        BookFile(terms=(terms,), buyers=(Buyer(name="acme", title="Acme", terms=terms),))
    )
    await engine.dispose()
    return made


@pytest.mark.parametrize("key", ["", KEY])
async def test_a_secret_is_nowhere_in_the_files_of_the_database(office: Office, key: str) -> None:
    await office.do(lambda connection: put_hook(connection, HOOK), key)
    assert b"MfKQ9r8GKY" not in office.bytes()
    assert (await office.hook(key)).secrets == HOOK.secrets
    own = office.folder / KEY_FILE
    assert own.exists() is (not key)
    if not key:
        assert own.stat().st_mode & 0o777 == 0o600


async def test_secrets_of_before_are_read_and_then_sealed(office: Office) -> None:
    await office.do(lambda connection: put_hook(connection, HOOK))
    plain = update(webhooks).values(secrets=b'["' + HOOK.secrets[0].encode() + b'"]')
    await office.do(lambda connection: connection.execute(plain) and None)
    assert (await office.hook()).secrets == HOOK.secrets
    assert [await office.do(seal_plain), await office.do(seal_plain)] == [1, 0]
    stored = await office.do(lambda connection: connection.execute(select(webhooks.c.secrets)).scalar_one())
    assert isinstance(stored, bytes)
    assert b"MfKQ" not in stored
    assert (await office.hook()).secrets == HOOK.secrets


async def test_a_configured_key_opens_what_the_own_one_has_sealed(office: Office) -> None:
    await office.do(lambda connection: put_hook(connection, HOOK))
    assert (await office.hook(KEY)).secrets == HOOK.secrets
    await office.do(lambda connection: put_hook(connection, HOOK), KEY)
    (office.folder / KEY_FILE).unlink()
    assert (await office.hook(KEY)).secrets == HOOK.secrets


@pytest.mark.parametrize("how", ["the key is gone", "another key", "another row", "changed", "a damaged key"])
async def test_what_cannot_be_opened_is_said_and_nothing_is_posted(office: Office, how: str) -> None:
    await office.do(lambda connection: put_hook(connection, HOOK))
    own, key = office.folder / KEY_FILE, ""
    if how == "the key is gone":
        own.unlink()
    elif how == "another key":
        own.write_text("x" * 64)
    elif how == "a damaged key":
        own.write_text("x")
    elif how == "another row":
        await office.do(lambda connection: connection.execute(update(webhooks).values(name="other")) and None)
    else:
        stored = await office.do(lambda connection: connection.execute(select(webhooks.c.secrets)).scalar_one())
        assert isinstance(stored, bytes)
        await office.do(lambda c: c.execute(update(webhooks).values(secrets=stored[:-1] + b"?")) and None)
    found = await office.hook(key)
    assert (found.secrets, "acme/" in found.unreadable) == ((), True)
    assert str(office.folder) not in found.unreadable, "its buyer reads that too"
    told = condition(found, Standing()), trouble(found, Standing(error="HTTP 500"))
    assert told == (Condition.FAILING, found.unreadable), "before anything was to be posted"
    poster = HttpPoster(PostOptions())
    with pytest.raises(HttpPostError, match=r"cannot be opened|another key"):
        await post_signed(poster, found, "m-1", b"{}", "agent")
    await poster.close()
    change = Webhook("acme", found.name, "https://crm.example/other")
    with pytest.raises(WebhookError, match="give a new one, or roll it"):
        await office.do(lambda connection: put_hook(connection, change))
    if how != "a damaged key":
        made = await office.do(lambda connection: put_hook(connection, change, roll=True))
        assert isinstance(made, Webhook)
        assert (await office.hook()).secrets == made.secrets != ()


def test_two_that_make_a_key_at_once_have_the_same(tmp_path: Path) -> None:
    async def both() -> list[bytes]:
        boxes = [SecretBox("", tmp_path / KEY_FILE) for _ in range(8)]
        return list(await asyncio.gather(*(asyncio.to_thread(one.seal, b"s", "a") for one in boxes)))

    for sealed in asyncio.run(both()):
        assert SecretBox("", tmp_path / KEY_FILE).open(sealed, "a") == b"s"
        with pytest.raises(SealError):
            SecretBox("", tmp_path / KEY_FILE).open(sealed, "b")


def test_without_a_key_and_a_place_for_one_nothing_changes() -> None:
    assert SecretBox().seal(b"[1]", "a") == SecretBox().open(b"[1]", "a") == b"[1]"
    with pytest.raises(SealError, match=r"store\.secrets_key is missing"):
        SecretBox().open(SecretBox(KEY).seal(b"s", "a"), "a")


async def test_a_key_that_was_lost_and_made_anew_is_the_one_that_all_go_by(office: Office) -> None:
    """Processes that had read the old one went on with it, and could not open what was sealed since."""
    await office.do(lambda connection: put_hook(connection, HOOK))
    own = office.folder / KEY_FILE
    old = own.read_bytes()
    engine = await open_store(office.url)  # a meter, or a portal, that runs
    clerk = Clerk(engine)
    try:
        assert await clerk.read(read_hooks)
        own.unlink()
        rolled = await office.do(
            lambda connection: put_hook(connection, HOOK, roll=True)
        )  # by hand, as the manual says
        assert own.read_bytes() != old
        [(found, _)] = await clerk.read(read_hooks)
        assert (found.unreadable, found.secrets) == ("", rolled.secrets)  # type: ignore[attr-defined]
        await clerk.write(lambda connection: put_hook(connection, replace(HOOK, name="other")))
    finally:
        await clerk.close()
        await engine.dispose()
    assert [one.unreadable for one, _ in await office.do(read_hooks)] == ["", ""]  # type: ignore[attr-defined]
