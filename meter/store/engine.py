"""Opening the store, and bringing it to this version's tables.

SQLite through aiosqlite is the default; PostgreSQL through asyncpg takes the same tables. On SQLite every connection
runs with synchronous=FULL (a commit that was reported is on the disk), foreign keys on and a busy timeout of 10 s, and
the file is in WAL mode, so that a reader never stops the router's commits.

A transaction on an engine from here starts with BEGIN IMMEDIATE: whoever reads and then writes cannot be overtaken in
between and cannot fail half-way with "database is locked". Those who only read say so with `reading(engine)`, whose
transactions are deferred and take no lock that a writer needs.

Migrations are Alembic's, run from code: `alembic.ini` is not needed. A store at a revision that this code does not know
was written by a newer Baton and is refused, never touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from meter.store.files import make_private
from meter.store.sealing import KEY_FILE, SecretBox

HEAD = "0010"  # the newest revision under migrations/versions; a test compares the two
BUSY_TIMEOUT_MS = 10_000
# Who commits pays for checkpoints, and a caller waits for the router's commits: the meter checkpoints every few
# seconds; only where it is away does the write-ahead log grow to this (64 MB) and a router do it by itself.
CHECKPOINT_PRAGMA = "wal_autocheckpoint=16000"
VERSION_TABLE = "baton_version"
_WAL_TRIES = 100  # SQLite does not wait for the lock here
_WAL_PAUSE_S = 0.1  # between them: another process may be migrating

_SQLITE_DRIVERS = {"sqlite", "sqlite+aiosqlite"}
_POSTGRESQL_DRIVERS = {"postgresql", "postgresql+asyncpg"}
SQLITE_BESIDE = ("-wal", "-shm", "-journal")  # files beside the database's own, with what is in it
_BOX = "baton_box"  # execution option
_BEGIN = "baton_begin"  # execution option: the word after BEGIN on SQLite


class StoreError(RuntimeError):
    """The store cannot be used; the message says why and what to do."""


async def open_store(url: str, *, create: bool = True, secrets_key: str = "") -> AsyncEngine:
    """An engine on the store at `url`, at this version's tables. `secrets_key` seals the secrets in it.

    With `create` a missing file or table is made and an older store is migrated; without it either is a StoreError.
    Raises StoreError for a URL that is not understood, a store that cannot be reached, or one newer than this code.
    """
    parsed = _parse(url)
    if is_sqlite(parsed):
        _check_file(parsed, create=create)
    own = Path(parsed.database).with_name(KEY_FILE) if is_sqlite(parsed) and parsed.database else None
    engine = create_async_engine(
        parsed,
        pool_pre_ping=not is_sqlite(parsed),
        hide_parameters=True,
        execution_options={_BOX: SecretBox(secrets_key, own)},
    )
    prepare(engine.sync_engine)
    try:
        await _bring_to_head(engine, create=create)
    except SQLAlchemyError as error:
        await engine.dispose()
        raise StoreError(f"store {shown(parsed)}: cannot be opened: {first_line(error)}") from error
    except StoreError:
        await engine.dispose()
        raise
    return engine


def secret_box(connection: Connection) -> SecretBox:
    """The box that seals the secrets of the connection's store."""
    found: SecretBox = connection.get_execution_options()[_BOX]  # none: the engine is not of `open_store`
    return found


async def migrate(url: str) -> str:
    """Bring the store at `url` to this version's tables (made where there are none); returns the revision."""
    engine = await open_store(url, create=True)
    await engine.dispose()
    return HEAD


def reading(engine: AsyncEngine) -> AsyncEngine:
    """The same engine for those who only read: on SQLite its transactions are deferred and hold up no writer."""
    return engine.execution_options(**{_BEGIN: "DEFERRED"})


def reader_options() -> dict[str, Any]:
    """`reading` as execution options of one connection."""
    return {_BEGIN: "DEFERRED"}


def writer_options() -> dict[str, Any]:
    """The default, for a connection that was used for reading before."""
    return {_BEGIN: "IMMEDIATE"}


def is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def shown(url: URL) -> str:
    """The URL as it may be printed: without its password."""
    return url.render_as_string(hide_password=True)


def prepare(engine: Engine) -> None:
    """Give every SQLite connection of this engine the settings of the module's first paragraph."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_connection)
        event.listen(engine, "begin", _begin)


def _set_up_connection(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself; `_begin` does
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "synchronous=FULL", "foreign_keys=ON", CHECKPOINT_PRAGMA):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


async def checkpoint(engine: AsyncEngine) -> int:
    """Bring SQLite's write-ahead log into the database without holding up anybody; pages done, 0 elsewhere."""
    if not is_sqlite(engine.url) or not engine.url.database:
        return 0
    return await asyncio.to_thread(_checkpoint, engine.url.database)


def _checkpoint(path: str) -> int:
    with contextlib.closing(sqlite3.connect(path, timeout=1.0)) as connection:
        _busy, _pages, done = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return max(0, int(done))


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get(_BEGIN, 'IMMEDIATE')}")


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError("store url: not a database URL, such as sqlite:////var/lib/baton/baton.db") from error
    if parsed.drivername in _SQLITE_DRIVERS:
        return parsed.set(drivername="sqlite+aiosqlite")
    if parsed.drivername in _POSTGRESQL_DRIVERS:
        return parsed.set(drivername="postgresql+asyncpg")
    raise StoreError(f"store url: {parsed.drivername!r} is not supported: use sqlite:///FILE or postgresql://HOST/NAME")


def _check_file(url: URL, *, create: bool) -> None:
    if not url.database or url.database == ":memory:":
        raise StoreError("store url: names no file; a store in memory would not outlive the process")
    path = Path(url.database)
    if create:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"store url: the folder {path.parent} cannot be made: {error.strerror}") from error
    elif not path.is_file():
        raise StoreError(f"store url: there is no file {path}")
    try:
        make_private(path)
        for more in SQLITE_BESIDE:  # which SQLite makes with the mode of the file itself
            if (beside := path.with_name(path.name + more)).exists():
                make_private(beside)
    except OSError as error:
        raise StoreError(f"store url: {path} cannot be opened: {error.strerror}") from error


async def _bring_to_head(engine: AsyncEngine, *, create: bool) -> None:
    async with reading(engine).connect() as connection:
        revision = await connection.run_sync(_revision)
    if revision == HEAD:
        return
    if not create:
        raise StoreError(
            f"store {shown(engine.url)}: its tables are at {revision or 'nothing'}, not at {HEAD};"
            " `baton serve` and `baton import` bring it there: keep a copy first"
        )
    await _switch_to_wal(engine)
    async with engine.begin() as connection:
        await connection.run_sync(_upgrade)


async def _switch_to_wal(engine: AsyncEngine) -> None:
    if not is_sqlite(engine.url):
        return
    for tries_left in reversed(range(_WAL_TRIES)):
        try:
            async with engine.connect() as connection:
                await connection.run_sync(_set_wal)
        except (OperationalError, sqlite3.OperationalError):  # the second: what is done below SQLAlchemy is not wrapped
            if not tries_left:
                raise
            await asyncio.sleep(_WAL_PAUSE_S)
        else:
            return


def _set_wal(connection: Connection) -> None:
    cursor = connection.connection.cursor()  # below SQLAlchemy, which would begin a transaction first
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.close()


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one_or_none()  # noqa: S608
    return None if found is None else str(found)


def _upgrade(connection: Connection) -> None:
    """Run the migrations inside the caller's transaction: two processes at once do it once."""
    from alembic import command  # noqa: PLC0415 - costs 0.3 s, and a store that is up to date needs none of it
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    revision = _revision(connection)
    known = {one.revision for one in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise StoreError(
            f"store {shown(connection.engine.url)}: written by a newer Baton (revision {revision!r}, this one knows"
            f" {HEAD}): upgrade Baton, or restore a backup made by this version"
        )
    command.upgrade(config, "head")


def first_line(error: Exception) -> str:
    """The first line of an error, without the statement. Engines from here put no parameters (leads) into errors."""
    return str(error).partition("\n")[0]
