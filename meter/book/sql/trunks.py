"""The state of each router's trunks: written by the router, read by MQTT and the portal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from meter.store.integration_schema import trunk_states


@dataclass(frozen=True, slots=True)
class TrunkState:
    """`state` is up, suspect or down; `trunk` is buyer/endpoint or carrier/name."""

    router: str
    trunk: str
    state: str
    since_utc_us: int


def read_trunks(connection: Connection) -> list[TrunkState]:
    """The last state that each router wrote of its trunks."""
    return [TrunkState(*row) for row in connection.execute(select(trunk_states).order_by(*trunk_states.primary_key))]


def put_trunks(connection: Connection, router: str, seen: Mapping[str, str], now_utc_us: int) -> int:
    """Exactly these are this router's; a state that stays keeps its `since`. How many changed, came or went."""
    mine = trunk_states.c.router == router
    before = {one.trunk: one.state for one in read_trunks(connection) if one.router == router}
    gone = before.keys() - seen.keys()
    for trunk in gone:
        connection.execute(delete(trunk_states).where(mine, trunk_states.c.trunk == trunk))
    changed = {trunk: state for trunk, state in seen.items() if before.get(trunk) != state}
    for trunk, state in changed.items():
        values = {"state": state, "since_utc_us": now_utc_us}
        if trunk in before:
            connection.execute(update(trunk_states).where(mine, trunk_states.c.trunk == trunk).values(**values))
        else:
            connection.execute(insert(trunk_states).values(router=router, trunk=trunk, **values))
    return len(gone) + len(changed)
