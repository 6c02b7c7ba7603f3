"""What a buyer may know of a person (domain, section 7): every way out, every outcome, every reader.

Each case is a transfer whose lead holds marks that stand nowhere else. Whatever a reader can get of it, by whatever
way, is put together as text and searched for them. Whether the person is the buyer's stands in the table by hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from fastapi.routing import APIRoute

from facts.disclosure import NOTHING, Claim, Reader, claim_of, disclosed, knows_person
from facts.fact import EndCause, Kind, Party
from facts.outcome import NOT_ATTEMPTED_REASONS
from meter.billing.sql.detail import write_detail
from meter.events.model import EventKind, Events
from meter.journal.sql.reading import facts_and_outcome
from meter.letters.lead import LeadComposer
from meter.mail.message import Letter
from meter.mqtt.channel import MqttLink, MqttOptions
from meter.outbox.delivery import NeverDeliverableError
from meter.settling.follower import Follower
from meter.store.clerk import Clerk
from meter.store.schema import outbox
from meter.text.links import LinkOptions, credit_link, interaction_link
from meter.webhooks.channel import compose, names_of
from meter.webhooks.sql import EVENTS, Webhook
from portal.app import create_app
from portal.http.stream_limit import OpenStream
from tests.facts_builder import WESTLAKE, Story
from tests.portal.house import SCOPES, House, live, open_house, view_of, wav
from tests.store.journal_tools import open_journal, write

LINKS = LinkOptions("https://baton.example", "s" * 32)
VOICE = b"MARKVOICE"
BY_MINUTE = WESTLAKE | {"name": "minutes", "rating": "minute", "minute_price_minor": 118}
ROUTER, CALLER, BUYER = Party.ROUTER, Party.CALLER, Party.BUYER
_DIGITS = re.compile(r"\D")


@dataclass(frozen=True)
class Case:
    """A transfer. `theirs`: the person is the buyer's, once it is over; `answered_is`: from the answer on."""

    name: str
    tell: Callable[[Story], Story]
    theirs: bool
    start: dict[str, Any] = field(default_factory=dict)
    closed: bool = True
    answered_is: bool = False


def _refused(reason: str) -> Case:
    return Case(f"not_attempted {reason}", lambda story: story.add(Kind.REFUSED, 0.0, reason=reason), theirs=False)


def _answered(story: Story, at: float = 4.0) -> Story:
    return story.dial(1).ring(1, 1.0).answer(1, at).bridge(1, at)


def _rang(story: Story) -> Story:
    return story.dial(1).ring(1, 1.0)


def _declined(story: Story, at: float) -> Story:
    return _rang(story).decline(1, at).end(at, ROUTER, EndCause.LEGS_FAILED)


def _rang_out(story: Story) -> Story:
    return _rang(story).cancelled(1, 30.0).end(30.0, ROUTER, EndCause.RING_TIMEOUT)


def _silent(story: Story) -> Story:
    return story.dial(1).cancelled(1, 30.0).end(30.0, ROUTER, EndCause.RING_TIMEOUT)


def _gave_up(story: Story) -> Story:
    return _rang(story).end(20.0, CALLER, EndCause.CANCEL)


def _fault(story: Story) -> Story:
    return _rang(story).add(Kind.FAULT, 3.0, what="media").end(3.0, ROUTER, EndCause.MEDIA)


def _interrupted(story: Story) -> Story:
    return _answered(story).add(Kind.INTERRUPTED, 9.0)


_FAILED_TOO = {"terms": WESTLAKE | {"unreachable": "failed", "caller_abandon": "failed"}}
_DID = {"secure": False, "kind": "did"}
CASES = [
    *(_refused(reason.value) for reason in sorted(NOT_ATTEMPTED_REASONS)),
    Case("connected", lambda story: _answered(story).hang_up(44.0, CALLER), theirs=True),
    Case("failed, declined", lambda story: _declined(story, 20.0), theirs=True),
    Case("failed, no answer", _rang_out, theirs=True),
    Case("failed, abandoned by the buyer", lambda story: _answered(story).hang_up(17.5, BUYER), theirs=True),
    Case("within the buffer, declined", lambda story: _declined(story, 3.0), theirs=False),
    Case("within the buffer, abandoned", lambda story: _answered(story, 2.0).hang_up(9.0, BUYER), theirs=False),
    Case("within the buffer, caller ended", lambda story: _answered(story, 2.0).hang_up(9.0, CALLER), theirs=False),
    Case("short call", lambda story: _answered(story, 20.0).hang_up(24.0, CALLER), theirs=False),
    Case("unreachable", _silent, theirs=False),
    Case("unreachable, failed by the terms", _silent, theirs=True, start=_FAILED_TOO),
    Case("caller abandoned", _gave_up, theirs=False),
    Case("caller abandoned, failed by the terms", _gave_up, theirs=True, start=_FAILED_TOO),
    Case("a DID declined", lambda story: _declined(story, 2.0), theirs=True, start=_DID),
    Case("fault", _fault, theirs=False),
    Case("interrupted", _interrupted, theirs=False),
    Case("ringing now", _rang, theirs=False, closed=False),
    Case("talking now", _answered, theirs=False, closed=False),
    Case("by the minute, answered", lambda story: _answered(story).hang_up(9.0, CALLER), theirs=True,
         start={"terms": BY_MINUTE, "buyer": "bolt", "buffer_ms": 0}, answered_is=True),
    Case("by the minute, talking now", _answered, theirs=False,
         start={"terms": BY_MINUTE, "buyer": "bolt", "buffer_ms": 0}, closed=False, answered_is=True),
    Case("by the minute, caller gave up", _gave_up, theirs=False,
         start={"terms": BY_MINUTE, "buyer": "bolt", "buffer_ms": 0}),
    Case("by the minute, suppressed", lambda story: story.add(Kind.REFUSED, 0.0, reason="suppressed"), theirs=False,
         start={"terms": BY_MINUTE, "buyer": "bolt", "buffer_ms": 0}),
]  # fmt: skip


@dataclass(frozen=True)
class Person:
    """The marks of one transfer's person."""

    number: int

    @property
    def transfer(self) -> str:
        return f"x-{chr(97 + self.number // 26)}{chr(97 + self.number % 26)}"

    @property
    def last(self) -> str:
        return f"{7_301 + 13 * self.number}"

    @property
    def phone(self) -> str:
        return f"+1212834{self.last}"

    @property
    def lead(self) -> dict[str, str]:
        name = self.transfer.replace("-", "")
        return {
            "phone": self.phone, "first_name": f"MARK{name}", "email": f"mark.{name}@person.example",
            "address": f"{name} Marker Street", "state": f"ST{name}", "zip": f"ZIP{name}", "free": f"FREE{name}",
        }  # fmt: skip

    @property
    def voice(self) -> bytes:
        return VOICE + self.transfer.encode() + wav(0.01)

    def found_in(self, text: str) -> list[str]:
        """The marks that stand in a text: any field, and the number in any spelling or its last four digits."""
        marks = [value for key, value in self.lead.items() if key != "phone" and value.lower() in text.lower()]
        numbers = re.findall(r"\+?[\d() .\-/]{10,}", text)
        marks += ["phone"] if any(self.phone[2:] in _DIGITS.sub("", one) for one in numbers) else []
        marks += ["last four digits"] if re.search(rf"(?<!\d){self.last}(?!\d)", text) else []
        marks += ["call id"] if f"call-of-{self.transfer}" in text else []
        return marks + (["voice"] if VOICE.decode() + self.transfer in text else [])


def story_of(case: Case, person: Person) -> Story:
    start = {
        "phone": person.phone, "lead": person.lead, "call_id": f"call-of-{person.transfer}", "dialer": "west",
        "sip_call_id": f"{person.phone}@dialer", "lead_emails": ["leads@acme.example"],
    }  # fmt: skip
    story = case.tell(Story(person.transfer).start(**(start | case.start)))
    if case.closed:
        story.close()
        voice = VOICE + person.transfer.encode() + wav(0.01)
        said = {
            "file": f"{person.transfer}.wav",
            "sha256": hashlib.sha256(voice).hexdigest(),
            "bytes": 9,
            "audio_ms": 9,
        }
        story.add(Kind.RECORDED, 61.0, **said)
    return story


class Town:
    """A house with every case in it."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.people = [Person(number) for number in range(len(CASES))]
        self.clerk = Clerk(house.engine)

    async def settle(self) -> None:
        stories = [story_of(case, one) for case, one in zip(CASES, self.people, strict=True)]
        journal = await open_journal(self.house.engine, "boot-2", linger_ms=1)
        write(journal, *stories)
        await journal.close()
        follower = Follower(self.house.engine)
        await follower.catch_up()
        await follower.close()
        for one in self.people:
            (self.house.recordings / f"{one.transfer}.wav").write_bytes(one.voice)
        up = [replace(live(one.transfer, buyer_of(case)), caller=f"***{one.last}", call_id=f"call-of-{one.transfer}")
              for case, one in zip(CASES, self.people, strict=True)]  # fmt: skip
        self.house.router.view = view_of(*up)

    async def text(self, who: str, path: str, **more: Any) -> str:
        """What an answer says, as text, whatever its status."""
        found = await self.house.ask(who, "GET", path, **more)
        assert found.status_code in (200, 404), found.text
        return found.content.decode("utf-8", "replace")

    async def close(self) -> None:
        await self.clerk.close()


def buyer_of(case: Case) -> str:
    return str(case.start.get("buyer", "acme"))


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with open_house(tmp_path) as house:
        town = Town(house)
        await town.settle()
        yield town
        await town.close()


# The ways out over HTTP: what a token gets of one transfer, or of all

CSV = {"headers": {"Accept": "text/csv"}}
SSE = {"Accept": "text/event-stream"}
Way = Callable[[Town, str, Person], Awaitable[str]]


async def _stream(town: Town, who: str, path: str, count: int) -> str:
    """The first so many events of a stream, straight from what makes it."""
    house, token = town.house, next(one for one in town.house.tokens.all if one.name == who)
    if path == "/events":
        from portal.events.service import View

        start = await house.events.begin(0)
        made = house.events.events(start, View(token), OpenStream())
    else:
        from portal.live.routes import shown_live

        made = house.live.events(who, partial(shown_live, token), OpenStream())
    found = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            async for one in made:
                found += one
                count -= 1
                if count <= 0:
                    break
    await made.aclose()  # type: ignore[attr-defined]
    return found.decode()


async def _lists(town: Town, who: str, _person: Person) -> str:
    said = [await town.text(who, path) for path in ("/transfers?limit=1000", "/transfers?limit=1000&order=newest")]
    return "".join(said) + await town.text(who, "/transfers", **CSV)


async def _searches(town: Town, who: str, person: Person) -> str:
    """Nothing is found by what is not told; what the question itself says is no answer."""
    found = ""
    for params in ({"phone": person.phone}, {"call_id": f"call-of-{person.transfer}"}):
        found += await town.text(who, "/transfers", params=params)
        found += await town.text(who, "/transfers", params=params, **CSV)
    if person.transfer in found:
        found += f" {person.phone}"  # the search has told whose transfer it was
    return found


async def _one(town: Town, who: str, person: Person) -> str:
    return await town.text(who, f"/transfers/{person.transfer}")


async def _recording(town: Town, who: str, person: Person) -> str:
    return await town.text(who, f"/transfers/{person.transfer}/recording")


async def _events(town: Town, who: str, _person: Person) -> str:
    page = await town.house.get(who, "/events", limit=1_000, **{"from": "2026-01-01T00:00:00Z"})
    return orjson.dumps(page).decode() + await _stream(town, who, "/events", 1_000)


async def _live(town: Town, who: str, _person: Person) -> str:
    return await town.text(who, "/live") + await _stream(town, who, "/live/events", 2)


async def _interactions(town: Town, who: str, person: Person) -> str:
    query = "" if SCOPES[who].value == "buyer" else "&buyer=bolt"
    found = await town.text(who, f"/interactions?limit=1000{query}")
    found += await town.text(who, f"/interactions?limit=1000{query}", **CSV)
    return found + await town.text(who, f"/interactions/{person.transfer}")


async def _money(town: Town, who: str, _person: Person) -> str:
    found = ""
    for path in ("/credits", "/documents", "/orders", "/payments", "/reports", "/webhooks", "/trunks", "/buyers"):
        found += await town.text(who, path)
    for one in await town.house.walk(who, "/documents", "documents"):
        found += await town.text(who, f"/documents/{one['number']}/transfers")
    return found


HTTP: dict[str, Way] = {
    "lists": _lists, "searches": _searches, "one": _one, "recording": _recording, "events": _events, "live": _live,
    "interactions": _interactions, "money": _money,
}  # fmt: skip
OF_ALL = frozenset({"lists", "events", "live", "money"})  # one answer tells of every transfer
NOT_DIALERS = frozenset({"one", "recording", "interactions", "money"})


@pytest.mark.parametrize("way", HTTP)
async def test_over_http_a_buyer_is_told_of_a_person_where_it_pays_and_nowhere_else(town: Town, way: str) -> None:
    told = 0
    buyers = ("acme", "bolt", "best")
    whole = {who: await HTTP[way](town, who, town.people[0]) for who in buyers} if way in OF_ALL else {}
    for case, person in zip(CASES, town.people, strict=True):
        mine = buyer_of(case)
        for who in buyers:
            found = person.found_in(whole[who] if way in OF_ALL else await HTTP[way](town, who, person))
            may = (case.theirs or (case.answered_is and way == "events")) and who == mine
            assert may or not found, f"{who} is told {found} of: {case.name}"
            told += bool(found)
    assert told or way in ("one", "live", "money"), "the matrix looks where something is to be found"


@pytest.mark.parametrize("way", HTTP)
async def test_operator_and_dialer_are_told_as_before(town: Town, way: str) -> None:
    """The marks are there to be found: what is asserted above is no matter of their absence."""
    person = town.people[CASES.index(next(one for one in CASES if one.name == "short call"))]
    calls = next(one for one in CASES if one.name == "by the minute, caller gave up")
    if way == "interactions":
        person = town.people[CASES.index(calls)]
    for who in ("noc",) if way in NOT_DIALERS else ("noc", "west"):
        found = person.found_in(await HTTP[way](town, who, person))
        assert bool(found) == (way not in ("one", "money")), (who, found)


# The ways out that are sent: webhooks, MQTT, e-mail, links


async def _posted(town: Town, case: Case, person: Person) -> list[tuple[str, str]]:
    """Everything that a webhook with every event and every field gets, and for which event."""
    hook = Webhook(buyer_of(case), "crm", "https://crm.example", EVENTS)
    facts, outcome = await town.clerk.read(facts_and_outcome, person.transfer)
    events, found = Events(), []
    for fact in facts:
        event = events.fold(fact, outcome)
        for name in names_of(event) if event is not None else ():
            if event is None or name not in hook.events:
                continue
            order = {"buyer": hook.buyer, "hook": hook.name, "event": name, "id": event.id, "transfer": event.transfer}
            found.append((name, compose(hook, order, (facts, outcome), frozenset()).decode()))
    return found


async def test_a_webhook_posts_of_a_person_what_the_buyer_pays_for(town: Town) -> None:
    told = 0
    for case, person in zip(CASES, town.people, strict=True):
        for event, body in await _posted(town, case, person):
            found = person.found_in(body)
            may = (case.theirs and event in ("failed", "outcome")) or (case.answered_is and event != "dialed")
            assert bool(found) == may, f"{event} of {case.name}: {found}"
            if event in ("failed", "outcome"):
                assert set(orjson.loads(body)["data"]["lead"]) == (set(person.lead) if may else set())
            data = orjson.loads(body)["data"]
            assert (data["dialer"], data.get("sip_call_id", "")) == ("", "")
            told += may
    assert told


async def test_a_broker_gets_of_a_person_what_the_buyer_pays_for_and_of_a_number_its_last_digits(town: Town) -> None:
    open_ = MqttLink(town.house.engine, MqttOptions("broker.example", mask_phone=False))
    link = MqttLink(town.house.engine, MqttOptions("broker.example"))
    for case, person in zip(CASES, town.people, strict=True):
        facts, outcome = await town.clerk.read(facts_and_outcome, person.transfer)
        events = Events()
        for event in filter(None, [events.fold(fact, outcome) for fact in facts]):
            payload = orjson.loads(link._of_event(event).payload)
            may = (case.theirs and event.kind is EventKind.OUTCOME) or (
                case.answered_is and event.kind is EventKind.ANSWERED
            )
            wanted = f"***{person.last}" if may else ""
            assert payload.get("phone", "") == wanted, f"{event.kind} of {case.name}"
            assert not {"lead", "customer", "caller"} & payload.keys()
            whole = orjson.loads(open_._of_event(event).payload)
            assert whole["phone"] == person.phone


async def test_a_lead_is_mailed_for_what_counts_as_failed_whoever_queued_it(town: Town) -> None:
    rows = await town.clerk.read(lambda connection: {row.message_id for row in connection.execute(outbox.select())})
    for case, person in zip(CASES, town.people, strict=True):
        facts = await town.clerk.read(lambda connection, one=person: facts_and_outcome(connection, one.transfer)[0])
        failed = claim_of(facts).counts_as == "failed"
        order = {"transfer": person.transfer, "to": ["leads@acme.example"]}
        letter: Letter | None = None
        with contextlib.suppress(NeverDeliverableError):
            letter = await LeadComposer(LINKS).compose(order, town.clerk)
        assert (letter is not None) == failed, case.name
        assert (f"{person.transfer}.lead" in rows) == failed, case.name
        assert not failed or case.theirs


async def test_a_link_shows_a_person_where_the_buyer_pays(town: Town) -> None:
    for case, person in zip(CASES, town.people, strict=True):
        for link in (
            credit_link(LINKS, person.transfer, buyer_of(case)),
            interaction_link(LINKS, person.transfer, buyer_of(case)),
        ):
            found = await town.house.client.get(link.removeprefix("https://baton.example"))
            marks = person.found_in(found.text)
            assert case.theirs or not marks, f"{link} of {case.name}: {marks}"


async def test_the_transfers_behind_a_document_are_those_that_were_paid(town: Town) -> None:
    import io

    def detail(connection: Any) -> str:
        text = io.StringIO()
        write_detail(connection, "acme", "2026-06-01", text)
        return text.getvalue()

    text = await town.clerk.read(detail)
    for case, person in zip(CASES, town.people, strict=True):
        wanted = case.theirs and buyer_of(case) == "acme"
        assert bool(person.found_in(text)) == wanted, case.name


# What is not looked at here tells of no transfer

TELLS = {
    "/v1/transfers", "/v1/transfers/{transfer}", "/v1/transfers/{transfer}/recording", "/v1/events", "/v1/live",
    "/v1/live/events", "/v1/interactions", "/v1/interactions/{id}", "/v1/credits", "/v1/documents", "/v1/orders",
    "/v1/payments", "/v1/reports", "/v1/webhooks", "/v1/trunks", "/v1/buyers", "/v1/documents/{number}/transfers",
    "/credit/{token}", "/interaction/{token}",
}  # fmt: skip
TELLS_NOTHING = {
    "/v1/availability": "the operator's and dialers'",
    "/v1/balance": "sums",
    "/v1/buyers/{buyer}": "as the book has it",
    "/v1/buyers/{buyer}/endpoints": "as the book has them",
    "/v1/buyers/{buyer}/endpoints/{endpoint}": "as the book has it",
    "/v1/credit-reasons": "words",
    "/v1/credits/{id}": "as in the list",
    "/v1/documents/{number}": "lines of sums",
    "/v1/documents/{number}/file": "lines of sums",
    "/v1/forecast": "sums",
    "/v1/health": "nobody's",
    "/v1/remedy": "a choice",
    "/v1/reports/{day}": "figures and ids of interactions",
    "/v1/suppression/lists": "a buyer's own lists",
    "/v1/suppression/lists/{name}/log": "a buyer's own lists",
    "/rate/{token}": "the caller's own page",
}


def test_every_page_that_can_be_read_is_in_the_matrix_or_tells_of_nobody() -> None:
    """Who adds a way out has to say which it is."""
    routes = [one for one in _routes(create_app(None)) if "GET" in one.methods]
    assert {one.path for one in routes} == TELLS | TELLS_NOTHING.keys()


def _routes(found: Any) -> list[APIRoute]:
    """All of them, those of routers within it too."""
    inner = getattr(found, "routes", None) or getattr(getattr(found, "original_router", None), "routes", [])
    return [found] if isinstance(found, APIRoute) else [route for one in inner for route in _routes(one)]


# The function itself

VERDICTS = ("", "connected", "failed", "free")


@pytest.mark.parametrize("reader", Reader)
@pytest.mark.parametrize("counts_as", VERDICTS)
@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("by_minute", [True, False])
def test_who_knows_a_person(reader: Reader, counts_as: str, answered: bool, by_minute: bool) -> None:
    claim = Claim(counts_as, answered, by_minute)
    inside = reader in (Reader.OPERATOR, Reader.DIALER)
    may = inside or counts_as in ("connected", "failed") or (answered and by_minute)
    assert knows_person(reader, claim) is may
    said = disclosed({"phone": "+12125550123", "lead": {"a": "b"}, "caller": "x", "customer": "y"}, reader, claim)
    assert bool(said["lead"]) is bool(said["caller"]) is bool(said["customer"]) is bool(said["phone"]) is may
    if reader is Reader.BROKER and may:
        assert said["phone"] == "***0123"


def test_nothing_is_claimed_before_the_end() -> None:
    assert claim_of(Story().start().dial(1).ring(1).facts) == NOTHING
    assert claim_of([]) == NOTHING
