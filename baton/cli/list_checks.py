"""The lists that a configuration file names, read before anything is done: by `baton check`, and by `baton import`.

Both read them as the import does, to the last line, with its threshold. So an import that refuses a list refuses the
book too: buyers must not be served without a list of theirs. What goes wrong after that (a disk that is full, a kill)
leaves lists that are named and not in force, and those close whom they concern.
"""
# ruff: noqa: PLC0415 - as in baton.cli.console

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baton.suppression_lists import confirm_column, current_actor, import_task, list_store, task_of
from book.lists import ListNews
from book.problems import Problem

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from baton.cli.console import Place
    from book.lists import Actor, ListChange, ListVersion, NewVersion
    from book.sections import BookFile, ListSource
    from suppression.report import ReadReport

_MANY_REJECTS = 10  # lines that are shown of a list


async def refuse_unreadable(engine: AsyncEngine, place: Place, book: BookFile) -> None:
    """Read every list that the book names. Raises ListRefusedError for all that cannot be used, with the log told."""
    from suppression.activating import ListRefusedError

    faults: list[str] = []
    for one in book.suppression_lists:
        try:
            read = await import_task(engine, place, task_of(one, dry_run=True), ask=False)
            if read.report.rejects_file is not None:  # the import itself lists them again
                read.report.rejects_file.unlink(missing_ok=True)
        except ListRefusedError as error:
            faults.append(f"list {one.name}: {error}")
            detail = {"file": one.file.name, "why": str(error).replace(str(one.file), one.file.name)}
            await list_store(engine).refused(one.name, current_actor(), action="refused_replace", detail=detail)
    if faults:
        raise ListRefusedError("\n".join(("nothing was imported:", *faults)))


def naming(book: BookFile, now_utc_us: int) -> Callable[[Any], None]:
    """What names the book's lists, in the transaction that imports it."""
    from meter.suppression_rows.sql.writing import name_lists
    from suppression.activating import FOLDER

    lists = [(one.name, one.buyer or None, f"{FOLDER}/{one.name}.none") for one in book.suppression_lists]
    return lambda connection: name_lists(connection, lists, current_actor(), now_utc_us)


def list_problems(lists: Iterable[ListSource], known: Iterable[Problem]) -> Iterator[tuple[Problem, bool]]:
    """What is wrong with the lists, each with whether it refuses the import. `known`: those not to be read again."""
    spared = {one.path for one in known}
    for one in lists:
        if f"{one.path}.file" not in spared:
            yield from _problems_of(one)


def _problems_of(source: ListSource) -> Iterator[tuple[Problem, bool]]:
    from suppression.activating import ListRefusedError
    from suppression.importer import import_file

    path, refuses = f"{source.path}.file", confirm_column(ask=False, yes=False)
    with tempfile.TemporaryDirectory() as folder:
        task = task_of(source, dry_run=True)
        try:
            done = asyncio.run(import_file(_NoStore(), Path(folder), task, current_actor(), confirm=refuses))
        except ListRefusedError as error:
            said = "; ".join((str(error), *_rejects(error.report)))
            yield Problem(path, said), True
            return
    for reject in _rejects(done.report):
        yield Problem(path, f"{source.file}: {reject}"), False


def _rejects(report: ReadReport | None) -> list[str]:
    """With their line numbers."""
    if report is None:
        return []
    found = [
        f"{f'{one.member}, ' if one.member else ''}line {one.line} is rejected: {one.why}"
        for one in report.rejects[:_MANY_REJECTS]
    ]
    hidden = report.rejected - len(found)
    return [*found, f"{hidden} more lines are rejected"] if hidden else found


class _NoStore:
    """A `suppression.ports.ListStore` in which no list is, for a dry run: that puts nothing in force."""

    async def stamp(self) -> int:
        return 1

    async def since(self, stamp: int) -> ListNews:  # noqa: ARG002
        return ListNews(1)

    async def keep_sets(self, documents: Mapping[str, bytes]) -> None: ...

    async def find(self, name: str) -> ListVersion | None:  # noqa: ARG002
        return None

    async def history(self, name: str) -> Sequence[ListVersion]:  # noqa: ARG002
        return ()

    async def changes(self, name: str, version: int) -> Sequence[ListChange]:  # noqa: ARG002
        return ()

    async def refused(self, name: str, actor: Actor, *, action: str, detail: Mapping[str, object]) -> None: ...

    async def activate(
        self,
        new: NewVersion,
        actor: Actor,  # noqa: ARG002
        *,
        action: str,  # noqa: ARG002
        expect: tuple[int, int] | None,  # noqa: ARG002
        detail: Mapping[str, object],  # noqa: ARG002
    ) -> ListVersion:
        raise _DryRunError(new.name)

    async def change(
        self,
        name: str,
        document: bytes,  # noqa: ARG002
        count: int,  # noqa: ARG002
        actor: Actor,  # noqa: ARG002
        *,
        action: str,  # noqa: ARG002
        expect: tuple[int, int],  # noqa: ARG002
    ) -> ListVersion:
        raise _DryRunError(name)

    async def extend(self, name: str, expires_utc_us: int | None, actor: Actor) -> bool:  # noqa: ARG002
        raise _DryRunError(name)

    async def prunable(self, keep: int) -> Sequence[ListVersion]:  # noqa: ARG002
        return ()

    async def files(self) -> frozenset[str]:
        return frozenset()


class _DryRunError(RuntimeError):
    """A dry run was about to change a list: a fault of ours."""

    def __init__(self, name: str) -> None:
        super().__init__(f"list {name!r}: a dry run puts nothing in force")
