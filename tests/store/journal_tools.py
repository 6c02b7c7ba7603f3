"""Writing stories into a real journal."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine

from facts.fact import Fact, Kind
from meter.journal.sql.append import JournalWriter
from tests.facts_builder import UTC_0, Story


async def open_journal(engine: AsyncEngine, boot: str = "boot-1", **settings: object) -> JournalWriter:
    return await JournalWriter.open(engine, "r1", boot, 4711, UTC_0, **settings)


def write(journal: JournalWriter, *stories: Story) -> list[Fact]:
    """Append the facts of each story. Closing facts name sequence numbers, so stories start where the last ended."""
    return [
        journal.append(
            fact.transfer,
            fact.kind,
            utc_us=fact.utc_us,
            mono_us=fact.mono_us,
            lag_us=fact.lag_us,
            leg=fact.leg,
            payload=fact.payload,
        )
        for story in stories
        for fact in story.facts
    ]


async def store(engine: AsyncEngine, *stories: Story, boot: str = "boot-1") -> list[Fact]:
    journal = await open_journal(engine, boot)
    written = write(journal, *stories)
    await journal.close()
    return written


def in_sequence(*makers: object) -> list[Story]:
    """Stories one after the other: each maker is called with its transfer id and the first free sequence number."""
    stories: list[Story] = []
    for number, make in enumerate(makers, start=1):
        first = stories[-1].next_seq if stories else 1
        stories.append(make(f"t-{number}", first))  # type: ignore[operator]
    return stories


def started(journal: JournalWriter, transfer: str = "t-1", **payload: object) -> Fact:
    return journal.append(transfer, Kind.TRANSFER_STARTED, utc_us=UTC_0, mono_us=0, payload=dict(payload))
