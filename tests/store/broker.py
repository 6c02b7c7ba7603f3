"""A real Mosquitto, and who subscribes to it."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import aiomqtt
from jsonschema import Draft202012Validator

from meter.events.model import EventKind

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
DOCS = Path(__file__).parents[2] / "docs/mqtt"
SCHEMAS = {path.name.removesuffix(".schema.json"): json.loads(path.read_text()) for path in DOCS.glob("*.schema.json")}
VALIDATORS = {name: Draft202012Validator(schema) for name, schema in SCHEMAS.items()}


class Broker:
    """Mosquitto with persistence, on a port of its own. `lines` go into its configuration."""

    def __init__(self, folder: Path, *lines: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._conf = folder / "mosquitto.conf"
        self._store = folder / "mosquitto.db"
        access = () if any("allow_anonymous" in line for line in lines) else ("allow_anonymous true",)
        settings = (
            f"listener {self.port} 127.0.0.1",
            *access,
            *lines,
            "persistence true",
            f"persistence_location {folder}/",
            "autosave_interval 1",
            "autosave_on_changes true",
            "user root",
        )
        self._conf.write_text("\n".join(settings) + "\n")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        assert MOSQUITTO is not None, "mosquitto is not installed: run scripts/bootstrap"
        self._process = await asyncio.create_subprocess_exec(
            MOSQUITTO, "-c", str(self._conf), stderr=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(10):
            while not await self._answers():
                await asyncio.sleep(0.02)

    async def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            await self._process.wait()
            self._process = None

    def send(self, number: signal.Signals) -> None:
        """Stop it where it stands, or let it go on."""
        assert self._process is not None
        self._process.send_signal(number)

    def forget(self) -> None:
        """Lose everything that is on its disk."""
        self._store.unlink(missing_ok=True)

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True


class Subscriber:
    """Keeps a session at the broker and everything it gets, through the broker's deaths."""

    def __init__(self, port: int, topics: str = "calls/#", name: str = "subscriber") -> None:
        self.got: list[tuple[str, dict[str, Any] | None]] = []
        self.subscribed = asyncio.Event()
        self._port = port
        self._topics = topics
        self._name = name

    async def run(self) -> None:
        while True:
            try:
                async with aiomqtt.Client(
                    "127.0.0.1", self._port, identifier=self._name, clean_session=False, timeout=5
                ) as client:
                    await client.subscribe(self._topics, qos=1)
                    self.subscribed.set()
                    async for message in client.messages:
                        assert isinstance(message.payload, bytes)
                        topic = str(message.topic)
                        if "/commands/" not in topic:  # these are others', and may be anything
                            self.got.append((topic, json.loads(message.payload) if message.payload else None))
            except aiomqtt.MqttError:
                await asyncio.sleep(0.05)

    @property
    def ids(self) -> set[str]:
        """Of outcomes."""
        return {payload["id"] for payload in self.of("outcome")}

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Payloads of one kind of event, in the order in which they came."""
        return [payload for _, payload in self.got if payload is not None and payload.get("event") == kind]

    def at(self, topic: str) -> list[dict[str, Any] | None]:
        """What came on a topic."""
        return [payload for where, payload in self.got if where == topic]

    def state(self, topic: str) -> str:
        """The state that stands on a topic; empty before anything came, and where it was taken away."""
        said = self.at(topic)
        return str((said[-1] or {}).get("state", "")) if said else ""


def problems(payload: Any, schema: str) -> list[str]:
    """What a payload has against its schema."""
    return [error.message for error in VALIDATORS[schema].iter_errors(payload)]


def schema_of(topic: str) -> str:
    """The schema of what is published on a topic, without the prefix."""
    parts = topic.split("/")
    if parts[0] == "transfers":
        return str(EventKind(parts[2]))
    return {
        "buyers": "order" if parts[-1] == "order" else "buyer-state",
        "trunks": "trunk-state",
        "journal": "heads",
    }.get(parts[0], "reply" if parts[0] == "replies" else "status")


async def until(condition: Any, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
