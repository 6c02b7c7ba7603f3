"""Opening a store: what is made, what is refused, and how its transactions behave."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

import meter.store.engine
import meter.store.money_schema
from meter.store.clerk import Clerk
from meter.store.engine import HEAD, VERSION_TABLE, StoreError, checkpoint, migrate, open_store, reading
from meter.store.schema import metadata


async def test_migrations_make_exactly_the_tables_of_the_schema(engine: AsyncEngine) -> None:
    def differences(connection: Connection) -> object:
        options = {"compare_type": True, "compare_server_default": True, "include_name": _ours}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_migrated_and_declared_sql_are_the_same(tmp_path: Path, engine: AsyncEngine) -> None:
    """Partial indexes and WITHOUT ROWID, which a comparison by columns does not see."""
    declared = create_engine(f"sqlite:///{tmp_path / 'declared.db'}")
    metadata.create_all(declared)
    with declared.connect() as connection:
        wanted = _objects(connection)
    declared.dispose()
    async with engine.connect() as connection:
        assert await connection.run_sync(_objects) == wanted


def _ours(name: str | None, kind: str, _parents: object) -> bool:
    return not (kind == "table" and name == VERSION_TABLE)


def _objects(connection: Connection) -> dict[str, set[str]]:
    rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")).all()
    return {name: _words(sql) for name, sql in rows if name != VERSION_TABLE}


def _words(sql: str) -> set[str]:
    return set(sql.upper().replace(",", " ").replace("\t", " ").replace("(", " ").replace(")", " ").split())


def test_the_head_named_in_the_code_is_the_newest_migration() -> None:
    folder = Path(meter.store.engine.__file__).parent / "migrations"
    assert ScriptDirectory(str(folder)).get_current_head() == HEAD


async def test_commits_are_synced_and_readers_do_not_stop_writers(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        pragmas = {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 10_000, "foreign_keys": 1}


async def test_a_reader_in_its_transaction_holds_up_no_writer(engine: AsyncEngine) -> None:
    async with reading(engine).connect() as reader:
        await reader.execute(text("SELECT * FROM boots"))
        async with asyncio.timeout(2), engine.begin() as writer:
            await writer.execute(text("INSERT INTO book_version VALUES (1, 1)"))


async def test_opening_twice_at_once_migrates_once(url: str) -> None:
    engines = await asyncio.gather(*(open_store(url) for _ in range(4)))
    for engine in engines:
        await engine.dispose()


async def test_a_new_store_that_another_has_just_locked_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite asks no busy handler for the change to WAL: it says at once that the file is locked."""
    path = tmp_path / "new.db"
    holder = sqlite3.connect(path, isolation_level=None)
    tries = 0
    real = meter.store.engine._set_wal

    def counted(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        if tries in {1, 3}:  # locked as it is asked for the first time, and free again for the third
            holder.execute("BEGIN EXCLUSIVE" if tries == 1 else "COMMIT")
        real(connection)

    monkeypatch.setattr(meter.store.engine, "_set_wal", counted)
    engine = await open_store(f"sqlite+aiosqlite:///{path}")
    await engine.dispose()
    holder.close()
    assert tries == 3


async def test_a_store_newer_than_the_code_is_refused_and_left_alone(url: str, engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(StoreError, match=r"written by a newer Baton \(revision '9999'"):
        await open_store(url)
    async with engine.connect() as connection:
        assert (await connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}"))).scalar_one() == "9999"


async def test_migrating_what_is_up_to_date_changes_nothing(url: str, engine: AsyncEngine) -> None:
    assert await migrate(url) == HEAD


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "store url: not a database URL"),
        ("mysql://localhost/baton", "store url: 'mysql' is not supported"),
        ("sqlite://", "store url: names no file"),
        ("sqlite:///:memory:", "store url: names no file"),
        ("sqlite:////proc/nowhere/baton.db", "store url: the folder /proc/nowhere cannot be made"),
    ],
)
async def test_a_url_that_cannot_be_used_is_named(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        await open_store(url)


async def test_a_missing_store_is_not_made_unless_asked(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no file"):
        await open_store(f"sqlite:///{tmp_path / 'none.db'}", create=False)
    assert not (tmp_path / "none.db").exists()


async def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.db").write_text("Dear sirs, " * 100)
    with pytest.raises(StoreError, match=r"cannot be opened: .*not a database"):
        await open_store(f"sqlite:///{tmp_path / 'letter.db'}")


async def test_an_empty_file_is_not_a_store_unless_it_may_become_one(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreError, match=f"its tables are at nothing, not at {HEAD}"):
        await open_store(f"sqlite:///{tmp_path / 'empty.db'}", create=False)


async def test_the_password_of_a_url_is_not_shown() -> None:
    with pytest.raises(StoreError) as caught:
        await open_store("mysql://baton:hunter2@localhost/baton")
    assert "hunter2" not in str(caught.value)


async def test_a_clerk_rolls_back_what_fails_and_works_on(engine: AsyncEngine) -> None:
    clerk = Clerk(engine)

    def write_and_fail(connection: Connection) -> None:
        connection.execute(text("INSERT INTO book_version VALUES (1, 1)"))
        connection.execute(text("SELECT nothing"))

    with pytest.raises(OperationalError):
        await clerk.write(write_and_fail)
    found = await clerk.read(lambda connection: connection.execute(text("SELECT * FROM book_version")).all())
    assert found == []
    await clerk.close()
    with pytest.raises(StoreError, match="closed"):
        await clerk.read(lambda _: None)


async def test_the_first_transaction_takes_the_lock_before_it_reads(url: str, engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("SELECT * FROM boots"))
        other = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("INSERT INTO book_version VALUES (1, 1)")
        other.close()


async def test_a_checkpoint_brings_the_log_into_the_file_beside_a_reader(engine: AsyncEngine) -> None:
    path = Path(engine.url.database or "")
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE grown (filler TEXT)"))
        await connection.execute(text("INSERT INTO grown VALUES (hex(zeroblob(400000)))"))
    before = path.stat().st_size
    assert await checkpoint(engine) > 0
    assert path.stat().st_size > before


async def test_who_asks_a_clerk_that_is_closing_is_told_and_does_not_wait_for_ever(engine: AsyncEngine) -> None:
    clerk = Clerk(engine)
    assert await clerk.read(lambda _: 1) == 1
    closing = asyncio.create_task(clerk.close())
    await asyncio.sleep(0)  # its thread has been told, and may be alive still
    async with asyncio.timeout(10):
        with pytest.raises(StoreError, match="closed"):
            await clerk.read(lambda _: 1)
        await closing


async def test_a_store_is_its_users_alone_and_one_of_before_becomes_so(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        file = tmp_path / "data" / "baton.db"
        engine = await open_store(f"sqlite:///{file}")
        try:
            made = [file, *(file.with_name(file.name + more) for more in ("-wal", "-shm"))]
            assert [one.stat().st_mode & 0o777 for one in (file.parent, *made)] == [0o700, 0o600, 0o600, 0o600]
            for one in made:
                one.chmod(0o644)
            again = await open_store(f"sqlite:///{file}")  # of an older version, and up in another process
            await again.dispose()
            assert [one.stat().st_mode & 0o777 for one in made] == [0o600] * 3
        finally:
            await engine.dispose()
    finally:
        os.umask(old)
