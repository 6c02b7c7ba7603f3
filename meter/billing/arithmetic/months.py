"""Calendar months of the contract's zone, in which per-minute service is invoiced (domain, section 9)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from book.limits import midnight_us

_MONTHS = 12


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """One month by its name, such as 2026-06. Raises ValueError where it is none."""

    name: str
    zone: str

    def __post_init__(self) -> None:
        date.fromisoformat(f"{self.name}-01")

    @property
    def first(self) -> date:
        return date.fromisoformat(f"{self.name}-01")

    def later(self, months: int) -> Month:
        """The month so many months after this one."""
        count = self.first.year * _MONTHS + self.first.month - 1 + months
        return Month(f"{count // _MONTHS:04d}-{count % _MONTHS + 1:02d}", self.zone)

    @property
    def start_us(self) -> int:
        return midnight_us(self.first, self.zone)

    @property
    def end_us(self) -> int:
        """The first instant of the next month."""
        return self.later(1).start_us


def month_of(at_us: int, zone: str) -> Month:
    """The month that an instant falls in."""
    local = datetime.fromtimestamp(at_us // 1_000_000, UTC).astimezone(ZoneInfo(zone))
    return Month(f"{local:%Y-%m}", zone)
