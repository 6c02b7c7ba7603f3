"""`baton mail`: what people do with e-mails, over a real store and a real SMTP server; and a mail server's pipe."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import dkim
import pytest
import structlog
from aiosmtpd.controller import Controller
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy import select, update

from baton.cli import main as cli
from baton.process.meter import mail_options
from book.problems import ConfigError
from config.settings import Settings, load
from meter.mail.bounces import envelope_sender
from meter.settling.follower import Follower
from meter.store.engine import open_store
from meter.store.schema import outbox
from meter.text import texts
from tests.facts_builder import connected_story, failed_story
from tests.store.journal_tools import store
from tests.store.meter.mail.test_bounces import as_message, dsn
from tests.store.meter.mail.test_channel import free_port
from tests.store.meter.mail.test_message import Wire, key_file, record_of

BASE = """
[[listeners]]
name = "main"
transport = "udp"
port = 5060

[links]
base_url = "https://portal.example"
secret = "0123456789abcdef0123456789abcdef"

[mail]
host = "127.0.0.1"
port = {port}
security = "none"
sender = "leads@operator.example"
bounce_address = "bounces@operator.example"
"""


class Shop:
    """An operator's folder: a configuration, a store with the mails of `t-1`, a mail server, and the command line."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._patch, self._said = folder, monkeypatch, capsys
        self.box = Wire()
        self.port = 0
        self.config = folder / "baton.toml"
        self.err = ""

    def configure(self, port: int, more: str = "") -> None:
        self.config.write_text(BASE.format(port=port) + more, encoding="utf-8")

    @property
    def settings(self) -> Settings:
        return load(self.config, {})

    def run(self, *words: object) -> tuple[int, str]:
        self._patch.setattr(sys, "argv", ["baton", "mail", *map(str, words), "--config", str(self.config)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = self._said.readouterr()
        self.err = said.err
        return code, said.out

    def listed(self, *words: object) -> list[dict[str, Any]]:
        code, said = self.run("list", "--json", *words)
        assert code == 0
        return list(json.loads(said))

    def rows(self, **over: Any) -> list[Any]:
        """The outbox, after changing every row by `over`."""

        async def work() -> list[Any]:
            engine = await open_store(self.settings.store_url)
            async with engine.begin() as connection:
                if over:
                    await connection.execute(update(outbox).where(outbox.c.channel == "mail").values(**over))
                found = list((await connection.execute(select(outbox).where(outbox.c.channel == "mail"))).all())
            await engine.dispose()
            return found

        return asyncio.run(work())


async def _fill(url: str) -> None:
    engine = await open_store(url)
    await store(engine, failed_story("t-1"))
    await store(engine, connected_story("t-2"), boot="boot-2")
    follower = Follower(engine)
    await follower.catch_up()
    await follower.close()
    await engine.dispose()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    made = Shop(tmp_path, monkeypatch, capsys)
    controller = Controller(made.box, hostname="127.0.0.1", port=free_port())
    controller.start()
    made.configure(controller.port)
    made.port = controller.port
    asyncio.run(_fill(made.settings.store_url))
    yield made
    controller.stop()
    texts.use(None)
    structlog.reset_defaults()


def test_list_and_show_tell_state_recipients_and_errors(shop: Shop) -> None:
    [one] = shop.listed()
    assert (one["message_id"], one["kind"], one["state"], one["to"]) == (
        "t-1.lead",
        "lead",
        "pending",
        ["leads@acme.example"],
    )
    assert 0 <= one["age_s"] < 60
    assert "payload" not in one
    shop.rows(state="dead", attempts=3, error="NeverDeliverableError: 550 no such user\x1b[2J", done_utc_us=1)
    code, said = shop.run("list")
    assert code == 0
    assert "leads@acme.example" in said
    assert "550 no such user" in said
    assert "\x1b" not in said
    assert shop.listed("--state", "pending") == []
    assert len(shop.listed("--state", "dead")) == 1
    code, said = shop.run("show", "t-1.lead")
    assert code == 0
    assert "t-1.lead: lead, dead, 3 attempts" in said
    assert "+12125550123" not in said
    assert shop.run("show", "t-9.lead")[0] == 1
    assert "no e-mail has the message id 't-9.lead'" in shop.err
    assert shop.run("list", "--state", "lost")[0] == 2


def test_resend_queues_again_to_the_same_to_others_or_to_the_present_ones(shop: Shop) -> None:
    assert shop.run("resend", "t-1.lead")[0] == 1
    assert "waiting to be sent already" in shop.err
    shop.rows(state="done", attempts=1, done_utc_us=1)
    code, said = shop.run("resend", "t-1.lead")
    assert code == 0
    assert "queued again by" in said
    [row] = shop.rows()
    payload = json.loads(row.payload)
    assert (row.state, row.attempts, row.message_id, payload["to"]) == (
        "pending",
        0,
        "t-1.lead",
        ["leads@acme.example"],
    )
    assert payload["resent"]["by"]
    shop.rows(state="dead")
    assert shop.run("resend", "t-1.lead", "--to", "a@new.example", "--to", "b@new.example")[0] == 0
    assert json.loads(shop.rows()[0].payload)["to"] == ["a@new.example", "b@new.example"]
    shop.rows(state="dead")
    assert shop.run("resend", "t-1.lead", "--current")[0] == 0
    assert "to" not in json.loads(shop.rows()[0].payload)
    assert "sent again by" in shop.run("show", "t-1.lead")[1]
    shop.rows(state="dead")
    for bad in ("nobody", "a@b.example\nBcc: c@d.example", "a b@c.example"):
        assert shop.run("resend", "t-1.lead", "--to", bad)[0] == 2
    assert shop.run("resend", "t-1.lead", "--current", "--to", "a@b.example")[0] == 2
    assert shop.rows()[0].state == "dead"


def test_preview_shows_each_form_and_sends_nothing(shop: Shop) -> None:
    code, said = shop.run("preview", "t-1")
    assert code == 0
    assert "Jo Doe" in said
    assert "Dial-out: June 2, 2026, 10:00:00 AM EDT" in said
    code, said = shop.run("preview", "t-1", "--format", "html")
    assert said.startswith("<!doctype html>")
    file = shop.folder / "lead.eml"
    assert shop.run("preview", "t-1", "--format", "eml", "--out", file)[0] == 0
    message = message_from_bytes(file.read_bytes(), policy=default)
    assert message["To"] == "leads@acme.example"
    assert message["Message-ID"] == "<t-1.lead@operator.example>"
    assert shop.run("preview", "t-2")[0] == 1
    assert "counts as connected" in shop.err
    assert shop.run("preview", "t-9")[0] == 1
    assert "no transfer has the id" in shop.err
    assert shop.box.raw == []
    assert shop.rows()[0].state == "pending"


def test_preview_is_what_is_sent_octet_for_octet(shop: Shop) -> None:
    import re

    from meter.letters.lead import LeadComposer
    from meter.mail.channel import MailDeliverer
    from meter.outbox.delivery import OutboxLoop
    from meter.text.links import LinkOptions

    (shop.folder / "own").mkdir()
    (shop.folder / "own" / "failed_lead.txt.jinja").write_text("Our words for {{ buyer }}", encoding="utf-8")
    shop.configure(shop.port, 'templates_dir = "own"\n')
    file = shop.folder / "lead.eml"
    assert shop.run("preview", "t-1", "--format", "eml", "--out", file)[0] == 0
    assert b"Our words for Acme Solar" in file.read_bytes()

    async def send() -> None:
        engine = await open_store(shop.settings.store_url)
        options = mail_options(shop.settings)
        assert options is not None
        link = LinkOptions("https://portal.example", "0123456789abcdef0123456789abcdef")
        deliverer = MailDeliverer(engine, options, {"lead": LeadComposer(link)})
        assert await OutboxLoop(engine, deliverer).deliver_due() == 1
        await deliverer.close()
        await engine.dispose()

    asyncio.run(send())
    boundary = re.compile(rb"=+\d+==")  # the only thing that chance decides
    assert boundary.sub(b"", shop.box.raw[0]) == boundary.sub(b"", file.read_bytes())


def test_test_says_what_the_server_said(shop: Shop) -> None:
    code, said = shop.run("test", "me@operator.example")
    assert code == 0
    assert "and said: 2.0.0 queued as 4711" in said
    assert shop.box.envelopes == [("bounces@operator.example", ["me@operator.example"])]
    assert shop.box.message()["Subject"] == "Baton: a test message"
    shop.box.refused = {"me@operator.example"}
    assert shop.run("test", "me@operator.example")[0] == 1
    assert "did not take it: 550 5.1.1 no such user" in shop.err
    shop.configure(free_port())
    assert shop.run("test", "me@operator.example")[0] == 1
    assert shop.run("test", "nobody")[0] == 2


def test_a_signed_test_message_verifies(shop: Shop) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key_file(shop.folder, key)
    more = 'dkim_domain = "operator.example"\ndkim_selector = "s1"\ndkim_key_file = "dkim.pem"\n'
    shop.configure(shop.port, more)
    code, said = shop.run("test", "me@operator.example")
    assert code == 0
    assert "(signed)" in said
    assert dkim.verify(shop.box.raw[0], dnsfunc=record_of(key))


def test_check_and_check_templates_name_what_is_broken(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shop.run("check-templates") == (0, "mail.templates_dir is not set: the shipped templates are used\n")
    own = shop.folder / "own"
    own.mkdir()
    (own / "failed_lead.txt.jinja").write_text("x", encoding="utf-8")
    more = 'templates_dir = "own"\ndkim_domain = "operator.example"\ndkim_selector = "s1"\ndkim_key_file = "none.pem"\n'
    shop.configure(shop.port, more)
    assert shop.run("check-templates") == (0, "replaced: failed_lead.txt.jinja\nno problems\n")
    (own / "failed_lead.html.jinja").write_text("<p>\n{{ nobody }}", encoding="utf-8")
    code, said = shop.run("check-templates")
    assert code == 1
    assert f"problem: {own / 'failed_lead.html.jinja'}:2: 'nobody' is undefined" in said
    [fault] = json.loads(shop.run("check-templates", "--json")[1])["faults"]
    assert fault["line"] == 2
    monkeypatch.setattr(sys, "argv", ["baton", "check", str(shop.config)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    said = capsys.readouterr().out
    assert "mail.templates_dir: " in said
    assert "failed_lead.html.jinja:2: 'nobody' is undefined" in said
    assert f"mail.dkim_key_file: {shop.folder / 'none.pem'} cannot be read: No such file or directory" in said
    assert "2 problems" in said


def test_a_bounce_is_recorded_once_and_shows_in_the_list(shop: Shop) -> None:
    options = mail_options(shop.settings)
    assert options is not None
    [row] = shop.rows(state="done", attempts=1, done_utc_us=1)
    file = shop.folder / "report"
    file.write_bytes(dsn(envelope_sender(options, as_message(row.id, row.message_id)), returned="X: y"))
    assert shop.run("bounce", file) == (0, "t-1.lead: leads@acme.example bounced for good 5.1.1\n")
    assert shop.run("bounce", file) == (0, "t-1.lead: leads@acme.example bounced for good 5.1.1 (known already)\n")
    [one] = shop.listed("--state", "bounced")
    assert one["message_id"] == "t-1.lead"
    assert "no such user here" in shop.run("show", "t-1.lead")[1]
    [kept] = json.loads(shop.run("show", "t-1.lead", "--json")[1])["bounces"]
    assert kept["permanent"] is True
    assert shop.run("resend", "t-1.lead", "--to", "other@acme.example")[0] == 0
    assert shop.listed("--state", "bounced") == []


def piped(shop: Shop, report: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
    """As a mail server runs it: a process of its own, the report on standard input."""
    command = [sys.executable, "-m", "baton", "mail", "bounce", "--config", str(shop.config), *words]
    return subprocess.run(command, input=report, capture_output=True, timeout=60, check=False, cwd=shop.folder)


def test_the_pipe_of_a_mail_server_gets_its_exit_codes_and_no_traceback(shop: Shop) -> None:
    shop.rows(state="done")
    good = piped(shop, dsn() + b"x" * 3_000_000)
    assert (good.returncode, good.stdout) == (0, b"t-1.lead: leads@acme.example bounced for good 5.1.1\n")
    told = "Final-Recipient: rfc822; a@b.example\nAction: delivered\nStatus: 2.0.0"
    assert piped(shop, dsn("x@y.example", told), "-").stdout == b"the report tells of no failure\n"
    for bad in (b"", b"Subject: hello\n\nno report\n", b"\xff\x00" * 100_000):
        answer = piped(shop, bad)
        assert (answer.returncode, answer.stdout) == (65, b"")
        assert answer.stderr == b"baton: this is no report of failed delivery\n"
    away = piped(shop, dsn(), "--store", str(shop.folder / "nowhere.db"))
    assert away.returncode == 75
    assert away.stderr.startswith(b"baton: the report was not recorded: store url: there is no file")
    assert away.stderr.count(b"\n") == 1
    shop.config.write_text("[mail\n", encoding="utf-8")
    broken = piped(shop, dsn())
    assert broken.returncode == 75
    assert b"Traceback" not in broken.stderr


@pytest.mark.parametrize(
    ("more", "path", "message"),
    [
        ('dkim_domain = "operator.example"\n', "mail", "dkim_domain, dkim_selector and dkim_key_file go together"),
        ('dkim_domain = "operator example"\n', "mail.dkim_domain", "match"),
        ('dkim_selector = "a;b"\n', "mail.dkim_selector", "match"),
        ('bounce_address = "bounces+x@operator.example"\n', "mail.bounce_address", "no plus sign"),
        (f'bounce_address = "{"b" * 33}@operator.example"\n', "mail.bounce_address", "at most 32"),
        ('bounce_address = "nobody"\n', "mail.bounce_address", "is not an e-mail address"),
    ],
)
def test_settings_that_cannot_be_used_are_named(tmp_path: Path, more: str, path: str, message: str) -> None:
    file = tmp_path / "baton.toml"
    text = BASE.format(port=25).replace('bounce_address = "bounces@operator.example"\n', "")
    file.write_text(text + more, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    problems = {one.path: one.message for one in caught.value.problems}
    assert message in problems[path]
