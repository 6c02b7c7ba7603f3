"""Suppression lists for tests: imported, looked up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from book.lists import Actor
from meter.suppression_rows.sql.lists import ListRows
from suppression.activating import current_base
from suppression.importer import ImportResult, Task, import_file
from suppression.lookups import rows
from suppression.receipt import Signer
from suppression.scrub import Scrub

LISTED = "+12125550100"
FREE = "+12125550199"
ANN = Actor("ann", "test")
HOUR_US = 3_600_000_000


def csv_file(folder: Path, *lines: str, name: str = "list.csv") -> Path:
    file = folder / name
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


async def import_list(store: ListRows, folder: Path, *numbers: str, name: str = "dnc", **more: Any) -> ImportResult:
    file = csv_file(folder, "phone", *numbers, name=f"{name}.csv")
    task = Task(file, name, more.pop("buyer", None), **more)
    return await import_file(store, folder, task, ANN)


async def scrub_with(store: ListRows, folder: Path, **more: Any) -> Scrub:
    scrub = Scrub(store, folder, Signer(b"k" * 32), **more)
    await scrub.reload()
    return scrub


async def numbers_of(store: ListRows, folder: Path, name: str = "dnc") -> list[str]:
    return [entry for entry, _ in rows(await current_base(store, folder, name, must_load=True))]
