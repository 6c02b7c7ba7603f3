"""A clerk does a whole transaction in one hop.

aiosqlite sends every single statement through its thread and back; a commit of a few facts is six such hops, and they,
not SQLite, are most of its price (`docs/decisions/020-one-hop-per-transaction.md`). A clerk takes a function whose
first parameter is a plain SQLAlchemy connection, and its other arguments, and runs it between BEGIN and COMMIT in a
thread of its own that keeps one connection. On
PostgreSQL the same function runs on the async engine's connection.

One clerk does one thing at a time, in the order asked; whoever needs two at once takes two clerks.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from meter.store.engine import StoreError, is_sqlite, prepare, reader_options, writer_options

P = ParamSpec("P")
T = TypeVar("T")


class Clerk:
    """Runs functions of a connection, each in a transaction of its own."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._sqlite = _SqliteThread(engine) if is_sqlite(engine.url) else None

    async def write(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(connection, ...)` in a transaction: committed when this returns, rolled back when it raises."""
        if self._sqlite is not None:
            return await self._sqlite.run(_Work(work, args, kwargs, is_write=True))
        async with self._engine.begin() as connection:
            return await connection.run_sync(work, *args, **kwargs)

    async def read(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(connection, ...)` on one consistent view; takes no lock that a writer needs."""
        if self._sqlite is not None:
            return await self._sqlite.run(_Work(work, args, kwargs, is_write=False))
        async with self._engine.connect() as connection:
            return await connection.run_sync(work, *args, **kwargs)

    async def close(self) -> None:
        """Close the thread and its connection; the engine stays the caller's."""
        if self._sqlite is not None:
            await self._sqlite.close()


@dataclass(frozen=True, slots=True)
class _Work(Generic[T]):
    """A function of a connection and what else it is called with."""

    function: Callable[..., T]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    is_write: bool


class _SqliteThread:
    """One thread with one SQLite connection, opened at the first use and again after an error.

    A bare queue and `call_soon_threadsafe` cost a quarter of what an executor's futures do; a commit happens up to a
    hundred times a second beside the SIP loop. The queue holds at most what its callers await.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine: Engine = create_engine(
            engine.url.set(drivername="sqlite"),
            hide_parameters=True,
            execution_options=engine.sync_engine.get_execution_options(),
        )
        prepare(self._engine)
        self._connection: Connection | None = None
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="store", daemon=True)
        self._thread.start()

    async def run(self, work: _Work[T]) -> T:
        if self._closed or not self._thread.is_alive():  # a job after the last one would never be answered
            raise StoreError("the store's thread is closed")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(work, loop, answer))
        return await answer

    async def close(self) -> None:
        self._closed = True
        self._jobs.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                found, error = self._do(job.work), None
            except Exception as caught:  # noqa: BLE001 - it is the caller's, who awaits it
                found, error = None, caught
            if not job.loop.is_closed():
                job.loop.call_soon_threadsafe(_answer, job.answer, found, error)
        self._drop_connection()
        self._engine.dispose()

    def _do(self, work: _Work[T]) -> T:
        if self._connection is None:
            self._connection = self._engine.connect()
        connection = self._connection.execution_options(**(writer_options() if work.is_write else reader_options()))
        try:
            with connection.begin():
                return work.function(connection, *work.args, **work.kwargs)
        except DBAPIError:
            self._drop_connection()  # a connection that failed is not trusted with the next transaction
            raise
        except sqlite3.Error as error:  # of a statement that went past SQLAlchemy
            self._drop_connection()
            raise StoreError(f"the store failed: {error}") from error

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.invalidate()
                connection.close()
            except SQLAlchemyError:  # it was broken already: that is why it goes
                return


@dataclass(frozen=True, slots=True)
class _Job:
    """A transaction to do, and where its answer is awaited."""

    work: _Work[Any]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]


def _answer(answer: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if answer.done():  # who asked was cancelled; the transaction was done all the same
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)
