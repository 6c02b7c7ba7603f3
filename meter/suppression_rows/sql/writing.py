"""Changing the suppression tables. Each function is a whole transaction, whose connection comes first.

Stamps. A transaction that changes what readers see first takes the next stamp: it raises the one row of
`suppression_state` and gives that number to every row it writes, those that go out of force included. On SQLite write
transactions come one after another anyway. On PostgreSQL the raised row stays locked until the commit, and the next to
raise it waits for that; so stamps are handed out in the order of the commits. Hence a reader that has seen stamp N
never later finds a row stamped N or less that it had not seen: all those were committed before N was, and asking for
what is newer than N misses nothing. What a transaction looks at before it decides, it looks at behind that lock.
One that then finds nothing to do leaves a stamp that no row has, which costs each reader one look.

Stamps grow by random steps and all of them are kept: a store that was restored from a copy and went on from there does
not have the stamps of what was lost, so a reader who saw one is told to begin anew.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson
from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from book.lists import NAMED_ONLY, Actor, Exemption, ListVersion, NewVersion, StaleError
from meter.store.schema import (
    suppression_changes,
    suppression_exemptions,
    suppression_lists,
    suppression_log,
    suppression_sets,
    suppression_stamps,
    suppression_state,
)
from meter.suppression_rows.sql.reading import IN_FORCE, current_stamp, find

NAMED = "named by the configuration"  # what a list that is asked for has for its source
NO_CHECKSUM = "0" * 64
_STEP = 2**30  # stamps grow by up to so much: 64 bits hold eight thousand million of them
_SHOWN_DIGITS = 4  # of a number on the log

Position = tuple[int, int]  # version, revision


@dataclass(frozen=True, slots=True)
class LogEntry:
    """The fields of every row of the log: list, action, actor, and time in microseconds UTC."""

    name: str
    action: str
    actor: Actor
    at_utc_us: int


def activate(
    connection: Connection, new: NewVersion, entry: LogEntry, expect: Position | None, detail: Mapping[str, object]
) -> ListVersion:
    """See `ListRows.activate`."""
    stamp = _next_stamp(connection)
    _check_owner(connection, new.name, new.buyer)
    before = find(connection, new.name)
    _check_position(new.name, before, expect)
    mine = suppression_lists.c.name == new.name
    newest = connection.execute(select(func.max(suppression_lists.c.version)).where(mine)).scalar() or 0
    row = ListVersion(
        name=new.name,
        version=int(newest) + 1,
        revision=1 if new.change else 0,
        state=_state_after(new.checksum, new.change) if new.change else new.checksum,
        buyer=new.buyer,
        kind=new.kind,
        file=new.file,
        checksum=new.checksum,
        source=new.source,
        source_checksum=new.source_checksum,
        entries=new.entries,
        count=new.count,
        active=True,
        expires_utc_us=before.expires_utc_us if new.keep_expiry and before is not None else new.expires_utc_us,
        imported_utc_us=entry.at_utc_us,
        imported_by=entry.actor.by,
        based_on=new.based_on,
        stamp=stamp,
    )
    _set(connection, new.name, active=False, stamp=stamp)
    connection.execute(insert(suppression_lists).values(asdict(row)))
    if new.change:
        _add_change(connection, row, new.change, entry)
    _record(connection, entry, detail, row=row, before=before.count if before is not None else None, after=row.count)
    return row


def change(connection: Connection, entry: LogEntry, document: bytes, count: int, expect: Position) -> ListVersion:
    """See `ListRows.change`."""
    stamp = _next_stamp(connection)
    before = find(connection, entry.name)
    _check_position(entry.name, before, expect)
    assert before is not None  # `expect` names a version
    state = _state_after(before.state, document)
    row = replace(before, revision=before.revision + 1, state=state, count=count, stamp=stamp)
    _set(connection, row.name, revision=row.revision, state=row.state, count=row.count, stamp=stamp)
    _add_change(connection, row, document, entry)
    _record(connection, entry, {"state": row.state}, row=row, before=before.count, after=row.count)
    return row


def name_lists(
    connection: Connection, lists: Iterable[tuple[str, str | None, str]], actor: Actor, at_utc_us: int
) -> None:
    """Note that these lists (name, owner, file that is never there) are asked for, for good.

    Each has a row of version NAMED_ONLY, which is in force where no other version is. It cannot be read, so that it
    closes whom it concerns until one is imported. Raises ValueError where a name is another owner's.
    """
    stamp = _next_stamp(connection)
    for name, buyer, file in lists:
        _check_owner(connection, name, buyer)
        before, current = _named_row(connection, name), find(connection, name)
        active = current is None or current.version == NAMED_ONLY
        if before is not None and (before.source, before.active) == (NAMED, active):
            continue
        row = ListVersion(
            name=name,
            version=NAMED_ONLY,
            revision=0,
            state=NO_CHECKSUM,
            buyer=buyer,
            kind="number",
            file=file,
            checksum=NO_CHECKSUM,
            source=NAMED,
            source_checksum=NO_CHECKSUM,
            entries=0,
            count=0,
            active=active,
            expires_utc_us=None,
            imported_utc_us=at_utc_us,
            imported_by=actor.by,
            based_on=None,
            stamp=stamp,
        )
        this = (suppression_lists.c.name == name, suppression_lists.c.version == NAMED_ONLY)
        connection.execute(delete(suppression_lists).where(*this))
        connection.execute(insert(suppression_lists).values(asdict(row)))
        _record(connection, LogEntry(name, "named", actor, at_utc_us), {"in_force": not active})


def retire(connection: Connection, entry: LogEntry, *, unname: bool = False) -> bool:
    """See `ListRows.retire`."""
    stamp = _next_stamp(connection)
    before = find(connection, entry.name)
    if before is None or (before.version == NAMED_ONLY and not unname):
        return False
    _set(connection, entry.name, active=False, stamp=stamp)
    named = _named_row(connection, entry.name)
    if named is not None and named.source == NAMED:
        this = (suppression_lists.c.name == entry.name, suppression_lists.c.version == NAMED_ONLY)
        values = {"source": "" if unname else NAMED, "active": not unname, "stamp": stamp}
        connection.execute(update(suppression_lists).where(*this).values(values))
    _record(connection, entry, {"unnamed": True} if unname else {}, row=before, before=before.count)
    return True


def _named_row(connection: Connection, name: str) -> ListVersion | None:
    table = suppression_lists.c
    found = connection.execute(select(suppression_lists).where(table.name == name, table.version == NAMED_ONLY))
    row = found.mappings().one_or_none()
    return None if row is None else ListVersion(**row)


def extend(connection: Connection, entry: LogEntry, expires_utc_us: int | None) -> bool:
    """See `ListRows.extend`."""
    stamp = _next_stamp(connection)
    row = find(connection, entry.name)
    if row is None or row.version == NAMED_ONLY:
        return False
    _set(connection, entry.name, expires_utc_us=expires_utc_us, stamp=stamp)
    detail = {"expires_utc_us": expires_utc_us, "before_utc_us": row.expires_utc_us}
    _record(connection, entry, detail, row=row, before=row.count, after=row.count)
    return True


def note(connection: Connection, entry: LogEntry, detail: Mapping[str, object]) -> None:
    """A row of the log for what changed no list."""
    _record(connection, entry, detail)


def exempt(
    connection: Connection, entry: LogEntry, *, number: int, buyer: str | None, reason: str, expires_utc_us: int
) -> Exemption:
    """See `ListRows.exempt`."""
    stamp = _next_stamp(connection)
    on = find(connection, entry.name)
    if on is None or on.buyer is not None:
        raise ValueError(f"{entry.name!r} is not a global list in force; only from those can a number be exempt")
    values: dict[str, Any] = {
        "name": entry.name,
        "number": number,
        "buyer": buyer,
        "reason": reason,
        "expires_utc_us": expires_utc_us,
        "added_utc_us": entry.at_utc_us,
        "added_by": entry.actor.by,
        "origin": entry.actor.origin,
        "revoked_utc_us": None,
        "revoked_by": None,
        "stamp": stamp,
    }
    key = connection.execute(insert(suppression_exemptions).values(values)).inserted_primary_key
    assert key is not None
    row = Exemption(id=int(key[0]), **values)
    _record(connection, entry, _exemption_detail(row), row=on)
    return row


def revoke(connection: Connection, exemption: int, action: str, actor: Actor, at_utc_us: int) -> bool:
    """See `ListRows.revoke`."""
    stamp = _next_stamp(connection)
    this = (suppression_exemptions.c.id == exemption, suppression_exemptions.c.revoked_utc_us.is_(None))
    values = {"revoked_utc_us": at_utc_us, "revoked_by": actor.by, "stamp": stamp}
    if not connection.execute(update(suppression_exemptions).where(*this).values(values)).rowcount:
        return False
    found = connection.execute(select(suppression_exemptions).where(suppression_exemptions.c.id == exemption))
    row = Exemption(**found.mappings().one())
    _record(connection, LogEntry(row.name, action, actor, at_utc_us), _exemption_detail(row))
    return True


def keep_sets(connection: Connection, documents: Mapping[str, bytes], at_utc_us: int) -> None:
    """Insert those that are not there, in one order everywhere, so that two who insert the same cannot deadlock."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    rows = [{"digest": one, "document": documents[one], "first_utc_us": at_utc_us} for one in sorted(documents)]
    connection.execute(dialect.insert(suppression_sets).on_conflict_do_nothing(), rows)


def _next_stamp(connection: Connection) -> int:
    """Raise the stamp and keep all other writers out until this transaction ends; must come first in it."""
    step = secrets.randbelow(_STEP) + 1
    connection.execute(update(suppression_state).values(stamp=suppression_state.c.stamp + step))
    stamp = current_stamp(connection)
    connection.execute(insert(suppression_stamps).values(stamp=stamp))
    return stamp


def _check_owner(connection: Connection, name: str, buyer: str | None) -> None:
    owners = select(suppression_lists.c.buyer).where(suppression_lists.c.name == name).distinct()
    for (owner,) in connection.execute(owners):
        if owner != buyer:
            whose = "global" if owner is None else f"of buyer {owner!r}"
            raise ValueError(f"list {name!r} is {whose}; a list does not change hands, choose another name")


def _check_position(name: str, row: ListVersion | None, expect: Position | None) -> None:
    found = None if row is None else (row.version, row.revision)
    if found != expect:
        raise StaleError(f"list {name!r}: {_shown(found)} in force, not {_shown(expect)}")


def _shown(position: Position | None) -> str:
    return "none is" if position is None else f"version {position[0]} revision {position[1]} is"


def _state_after(state: str, document: bytes) -> str:
    return hashlib.sha256(f"{state}\n".encode() + document).hexdigest()


def _set(connection: Connection, name: str, **values: Any) -> None:
    """Change the row of the version that is in force, if any."""
    this = (suppression_lists.c.name == name, IN_FORCE)
    connection.execute(update(suppression_lists).where(*this).values(**values))


def _add_change(connection: Connection, row: ListVersion, document: bytes, entry: LogEntry) -> None:
    values = {
        "name": row.name,
        "version": row.version,
        "revision": row.revision,
        "document": document,
        "state": row.state,
        "at_utc_us": entry.at_utc_us,
        "by": entry.actor.by,
        "origin": entry.actor.origin,
        "stamp": row.stamp,
    }
    connection.execute(insert(suppression_changes).values(values))


def _exemption_detail(row: Exemption) -> dict[str, object]:
    """What the log says of an exemption: not who it is. The reason, which may, stands with the exemption."""
    digits = str(row.number)
    shown = digits[-_SHOWN_DIGITS:].rjust(len(digits), "*")
    return {"exemption": row.id, "number": shown, "buyer": row.buyer, "expires_utc_us": row.expires_utc_us}


def _record(
    connection: Connection,
    entry: LogEntry,
    detail: Mapping[str, object],
    *,
    row: ListVersion | None = None,
    before: int | None = None,
    after: int | None = None,
) -> None:
    values = {
        "at_utc_us": entry.at_utc_us,
        "name": entry.name,
        "action": entry.action,
        "by": entry.actor.by,
        "origin": entry.actor.origin,
        "version": row.version if row is not None else None,
        "revision": row.revision if row is not None else None,
        "before": before,
        "after": after,
        "detail": orjson.dumps(dict(detail), option=orjson.OPT_SORT_KEYS),
    }
    connection.execute(insert(suppression_log).values(values))
