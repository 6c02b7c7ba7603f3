"""A broker that dies under load, and Baton killed with much untold: a subscriber ends with the books of the journal.

The subscriber keeps no session, and the broker no disk: what a dying broker had taken is gone. It drops repeats by id,
and asks the HTTP API for what it missed.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import pytest

from baton.demo.parties import HOST, free_port
from bench import scenarios, sipp
from bench.sipp import Load
from bench.stage import Baton, Buyer, until

pytestmark = [pytest.mark.net, pytest.mark.slow]
TOKEN = "only-for-this-test-" + "0123456789" * 3
RATE, SECONDS = 8, 60
TRANSFERS = RATE * SECONDS


@dataclass(slots=True)
class Told(Baton):
    """A Baton that tells a broker, and has the HTTP API."""

    mqtt_port: int = field(default_factory=free_port)
    portal_port: int = field(default_factory=free_port)

    def _config(self) -> str:
        return Baton._config(self) + (
            f'[mqtt]\nhost = "{HOST}"\nport = {self.mqtt_port}\n[portal]\nport = {self.portal_port}\n'
            f'[[portal.tokens]]\nname = "integrator"\nsecret = "{TOKEN}"\noperator = true\n'
        )


class Broker:
    """Mosquitto that keeps nothing."""

    def __init__(self, baton: Told) -> None:
        self._baton = baton
        self._starts = 0
        self.conf = baton.folder / "mosquitto.conf"
        self.conf.write_text(f"listener {baton.mqtt_port} {HOST}\nallow_anonymous true\npersistence false\n")

    async def start(self) -> None:
        self._starts += 1
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        assert program is not None
        await self._baton.processes.start(f"broker-{self._starts}", [program, "-c", str(self.conf)])

    async def kill(self) -> None:
        process = self._baton.processes.running[f"broker-{self._starts}"]
        process.send_signal(signal.SIGKILL)
        await process.wait()


class Subscriber:
    """Knows each event once, by its id."""

    def __init__(self, port: int) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.order: dict[str, list[str]] = {}
        self.repeats = 0
        self._port = port

    async def run(self) -> None:
        while True:
            try:
                async with aiomqtt.Client(HOST, self._port, timeout=5) as client:
                    await client.subscribe("baton/transfers/#", qos=1)
                    async for message in client.messages:
                        assert isinstance(message.payload, bytes)
                        self.take(json.loads(message.payload))
            except aiomqtt.MqttError:
                await asyncio.sleep(0.1)

    def take(self, event: dict[str, Any]) -> None:
        if event["id"] in self.events:
            self.repeats += 1
            return
        self.events[event["id"]] = event
        self.order.setdefault(event["transfer"], []).append(event["event"])

    @property
    def outcomes(self) -> dict[str, tuple[str, str, str]]:
        return {
            one["transfer"]: (one["verdict"], one["reason"], one["counts_as"])
            for one in self.events.values()
            if one["event"] == "outcome"
        }


async def _missed(baton: Told, known: Subscriber) -> dict[str, tuple[str, str, str]]:
    """All outcomes, by walking the list of transfers."""
    found: dict[str, tuple[str, str, str]] = {}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{baton.portal_port}/v1", headers=headers) as client:
        cursor = ""
        while True:
            answer = await client.get("/transfers", params={"limit": 50, "cursor": cursor})
            assert answer.status_code == 200, answer.text
            page = answer.json()
            for one in page["transfers"]:
                if one["transfer"] not in known.outcomes:
                    found[one["transfer"]] = (one["verdict"], one["reason"], one["counts_as"])
            cursor = page["next"]
            if cursor is None:
                return found


def _books(path: Path) -> dict[str, tuple[str, str, str]]:
    with sqlite3.connect(path) as store:
        rows = store.execute("SELECT transfer, verdict, reason, counts_as FROM outcomes").fetchall()
    store.close()
    return {transfer: (verdict, reason, counts_as) for transfer, verdict, reason, counts_as in rows}


@pytest.mark.timeout(240)
async def test_a_subscriber_ends_with_exactly_the_outcomes_of_the_journal(tmp_path: Path) -> None:
    baton, dialer = await _parties(tmp_path)
    broker, subscriber = Broker(baton), Subscriber(baton.mqtt_port)
    listening = asyncio.create_task(subscriber.run())
    try:
        await broker.start()
        await baton.prepare()
        await baton.start()
        numbers = sipp.write_numbers(baton.processes.folder / "numbers.csv", TRANSFERS)
        load = Load(dialer, "five", baton.sip_port, TRANSFERS, RATE, numbers, SECONDS + 60)
        dialing = asyncio.create_task(sipp.dialed(baton.processes, "dialer", load))

        await _more(subscriber, RATE)
        await _end(listening)  # nobody listens: what the broker has now, it throws away
        settled = baton.store.settled_count()
        assert await until(lambda: baton.store.settled_count() > settled + RATE, 60)
        await asyncio.sleep(1)
        await broker.kill()  # under load, with messages in flight
        listening = asyncio.create_task(subscriber.run())
        await asyncio.sleep(1)
        await broker.start()
        await _more(subscriber, RATE)

        await broker.kill()
        told, settled = len(subscriber.outcomes), baton.store.settled_count()
        assert await until(lambda: baton.store.settled_count() > settled + 4 * RATE, 60)
        await baton.kill(whole=True)  # with everything since then untold, and calls up
        await baton.processes.stop("dialer")
        await asyncio.gather(dialing, return_exceptions=True)
        assert len(subscriber.outcomes) == told
        await baton.start()
        assert await baton.idle(60)
        await broker.start()
        await _more(subscriber, 4 * RATE)
        books = _books(baton.store.path)
        await asyncio.sleep(2)  # nothing comes after that

        swallowed = await _missed(baton, subscriber)
        assert len(swallowed) > RATE // 2  # there was something to be fetched
        assert not swallowed.keys() & subscriber.outcomes.keys()
        assert {**subscriber.outcomes, **swallowed} == books
        _check_order(subscriber)
    finally:
        await _end(listening)
        for name in ("answers", "rings"):
            await sipp.quit_callee(baton.processes, name)
        await baton.stop()


async def _parties(folder: Path) -> tuple[Told, Path]:
    """Baton, not started yet, its callees, and the dialer's scenario."""
    answers, rings = free_port(), free_port()
    uris = tuple(f"sip:agent{n}@{HOST}:{port}" for n, port in enumerate((answers, rings)))
    baton = Told(folder / "baton", (Buyer("five", uris),))
    place = baton.processes.folder
    callees = {"answers": (answers, scenarios.Callee(answer_ms=50)), "rings": (rings, scenarios.Callee())}
    for name, (port, what) in callees.items():
        xml = place / f"{name}.xml"
        xml.write_text(scenarios.callee(what))
        await sipp.serve(baton.processes, name, xml, port)
    dialer = place / "dialer.xml"
    dialer.write_text(scenarios.dialer(200))
    return baton, dialer


async def _more(subscriber: Subscriber, count: int) -> None:
    """Wait for so many outcomes more."""
    before = len(subscriber.outcomes)
    assert await until(lambda: len(subscriber.outcomes) >= before + count, 60)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _check_order(subscriber: Subscriber) -> None:
    """Of each transfer in the order of its life, but for what a broker swallowed."""
    life = ("started", "ringing", "answered", "outcome")
    for transfer, kinds in subscriber.order.items():
        assert kinds == sorted(kinds, key=life.index), (transfer, kinds)
