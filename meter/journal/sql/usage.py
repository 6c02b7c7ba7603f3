"""Usage of each counted buyer, for selection: a snapshot of the admissions, refreshed twice a second.

It may lag, and nothing depends on it being exact: it keeps a buyer that is full from being offered, the store decides
(`meter.journal.sql.admissions`). So it may be cheap. A row never changes once it is settled; what was settled longer
ago than
`MARGIN_US` is added up once, by the quarter of an hour of its admission, and a look reads only what was settled since
and what is live. The margin is measured on the stamps of the rows themselves: it must be longer than a commit may take
and than the clocks of routers may differ. A row stamped even later than that would be missed here, never in the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from sqlalchemy import BigInteger, ColumnElement, Connection, func, literal_column, select

from book.hours import QUARTER_US
from book.limits import Spans, Usage, is_counted, spans_at
from book.model import Book, Buyer
from meter.journal.sql.admissions import CONNECTED, IS_LIVE, IS_UNIT, LIVE
from meter.store.clerk import Clerk
from meter.store.schema import admissions

MARGIN_US = 30_000_000
_NOTHING = Usage()

Group = tuple[int, str, int]  # quarter of an hour of the admission, state, how many
Groups = dict[str, list[Group]]  # by buyer


@dataclass(frozen=True, slots=True)
class _UsageRows:
    """One consistent view: what was settled from `until` on, what before it was not yet added up, and what is live."""

    until: int
    older: Groups
    newer: Groups
    live: list[tuple[str, str, int, int]]  # buyer, router, quarter, how many


class UsageSnapshot:
    """The counts as of the last `refresh`; looking at them is no I/O. `book` says who is counted, `clock` UTC in us."""

    def __init__(
        self,
        clerk: Clerk,
        book: Callable[[], Book],
        router: str,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._clerk = clerk
        self._book = book
        self._router = router
        self._clock = clock
        self._until = 0  # settled before this is in `_before`
        self._before: dict[str, dict[tuple[int, str], int]] = {}
        self._sums: dict[str, tuple[Spans, Usage]] = {}  # of `_before`, for those spans
        self._seen: tuple[int, Groups, list[tuple[str, str, int, int]]] | None = None
        self._usages: dict[str, Usage] = {}
        self._counted: tuple[Book, dict[str, Buyer]] = (Book(), {})

    def usage(self, buyer: str) -> Usage:
        """Empty for a buyer that is not counted, and before the first refresh."""
        return self._usages.get(buyer, _NOTHING)

    async def refresh(self) -> bool:
        """Look at the store, where anybody is counted; whether any count moved. Raises what the store raises."""
        counted = self._who_is_counted()
        if not counted:
            moved, self._usages = bool(self._usages), {}
            return moved
        look = await self._clerk.read(_usage_rows, self._until)
        self._add_up(look)
        return self._count(counted, look)

    def _who_is_counted(self) -> dict[str, Buyer]:
        book = self._book()
        if self._counted[0] is not book:
            found = {one.name: one for one in book.buyers.values() if is_counted(one, book.orders.get(one.name, ()))}
            self._counted = (book, found)
            self._seen = None
            self._sums.clear()
        return self._counted[1]

    def _add_up(self, look: _UsageRows) -> None:
        for buyer, groups in look.older.items():
            kept = self._before.setdefault(buyer, {})
            for quarter, state, count in groups:
                kept[quarter, state] = kept.get((quarter, state), 0) + count
            self._sums.pop(buyer, None)
        self._until = look.until

    def _count(self, counted: dict[str, Buyer], look: _UsageRows) -> bool:
        now = self._clock()
        seen = (now // QUARTER_US, look.newer, look.live)
        if seen == self._seen and not look.older:
            return False
        self._seen = seen
        live: Groups = {}
        elsewhere: dict[str, int] = {}
        for name, router, quarter, count in look.live:
            live.setdefault(name, []).append((quarter, LIVE, count))
            if router != self._router:
                elsewhere[name] = elsewhere.get(name, 0) + count
        before, self._usages = self._usages, {}
        for name, buyer in counted.items():
            groups = look.newer.get(name, []) + live.get(name, [])
            usage = _plus(self._sum_before(name, spans_at(buyer, now)), groups)
            self._usages[name] = replace(usage, elsewhere=elsewhere.get(name, 0)) if name in elsewhere else usage
        return before != self._usages

    def _sum_before(self, name: str, spans: Spans) -> Usage:
        kept = self._sums.get(name)
        if kept is None or kept[0] != spans:
            groups = ((quarter, state, count) for (quarter, state), count in self._before.get(name, {}).items())
            kept = (spans, _plus(Usage(spans), groups))
            self._sums[name] = kept
        return kept[1]


def _plus(usage: Usage, groups: Iterable[Group]) -> Usage:
    """The usage with more rows, each in the spans that its quarter of an hour falls in."""
    spans = usage.spans
    rows = list(groups)
    if spans is None or not rows:
        return usage
    hour, day, month, total = usage.hour, usage.day, usage.month, usage.total
    connected, failed, week_live, live = usage.week_connected, usage.week_failed, usage.week_live, usage.live
    for quarter, state, count in rows:
        at = quarter * QUARTER_US
        total += count
        month += count if at >= spans.month_us else 0
        day += count if at >= spans.day_us else 0
        hour += count if at >= spans.hour_us else 0
        this_week = count if at >= spans.week_us else 0
        if state == LIVE:
            live += count
            week_live += this_week
        elif state == CONNECTED:
            connected += this_week
        else:
            failed += this_week
    return Usage(
        spans=spans,
        hour=hour,
        day=day,
        month=month,
        total=total,
        week_connected=connected,
        week_failed=failed,
        week_live=week_live,
        live=live,
        elsewhere=usage.elsewhere,
    )


# A literal: PostgreSQL does not see that two parameters are the same, and so would not group by it.
_QUARTER = admissions.c.admitted_utc_us // literal_column(str(QUARTER_US), BigInteger)


def _usage_rows(connection: Connection, until: int) -> _UsageRows:
    """Read on one view; moves the border once what lies after it has become twice the margin long."""
    settled = admissions.c.settled_utc_us
    newest = connection.execute(select(func.max(settled)).where(IS_UNIT)).scalar() or 0
    older: Groups = {}
    if newest - until >= 2 * MARGIN_US:
        before, until = until, newest - MARGIN_US
        older = _groups(connection, settled >= before, settled < until)
    newer = _groups(connection, settled >= until)
    columns = (admissions.c.buyer, admissions.c.router, _QUARTER)
    live = connection.execute(select(*columns, func.count()).where(IS_LIVE).group_by(*columns))
    return _UsageRows(until, older, newer, [(buyer, router, quarter, count) for buyer, router, quarter, count in live])


def _groups(connection: Connection, *conditions: ColumnElement[bool]) -> Groups:
    columns = (admissions.c.buyer, _QUARTER, admissions.c.state)
    found: Groups = {}
    for buyer, quarter, state, count in connection.execute(
        select(*columns, func.count()).where(IS_UNIT, *conditions).group_by(*columns)
    ):
        found.setdefault(buyer, []).append((quarter, state, count))
    return found
