"""The daily report of per-minute service: its span, its figures, and its text (domain, section 9).

A report is named by the day on which it ends: it covers the time since 23:30 of the day before, in the zone of the
terms, so 24 hours, or 23 or 25 where the clock changes. An interaction belongs to the day on which it was over. What
was told to us only after its report had been issued stands in the next one, marked as late, so each is in exactly one.
The ratings are those that were filed in the span, whenever the interaction was: who rates comes later than who talks.

The body is frozen when the report is issued; HTML, CSV and e-mail are made of it. Pure. Instants in microseconds UTC.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from book.model import Channel
from meter.billing.arithmetic.calendar import deadline_us, local_day
from meter.billing.arithmetic.units import half_even
from meter.per_minute.interactions import average_x100
from meter.per_minute.service_levels import Level, levels_of
from meter.per_minute.sql.interactions import Interaction
from meter.text import texts
from meter.text.hostile import csv_cell, one_line
from meter.text.localised import date_text, money_text, number_text, short_when_text, when_text

TEMPLATE = "report"
ENDS_AT = time(23, 30)  # domain 9
AFTER_US = 2 * 60 * 1_000_000  # from the end of the span to its report, for calls that are being settled
LATEST_US = 25 * 60 * 1_000_000  # issued by midnight, whatever is still to be settled
MAX_DAYS = 31  # that are caught up with
MAX_SHOWN = 1_000  # interactions in the page; the CSV has all
_LEVELS = {
    "answered_before_third_ring": "Calls answered before the third ring (12 s)",
    "no_hold_above_10_s": "Calls with no hold above 10 s",
    "email_within_6_h": "E-mails answered within 6 hours",
}
_KINDS = {Channel.CALL: "Calls", Channel.EMAIL: "E-mails", Channel.CHAT: "Chats"}


@dataclass(frozen=True, slots=True)
class Span:
    """What the report of one day covers: from the one instant to before the other."""

    day: date
    from_us: int
    until_us: int


@dataclass(frozen=True, slots=True)
class ReportRows:
    """The rows of a report: interactions that ended in its span, those reported late, and ratings filed in it."""

    interactions: Sequence[Interaction]
    late: Sequence[Interaction]
    rated: Sequence[Interaction]


def span_of(day: date, zone: str) -> Span:
    """The span of the report that ends on this day."""
    ends = partial(deadline_us, at=ENDS_AT, zone=zone)
    return Span(day, ends(day - timedelta(days=1)), ends(day))


def day_of(at_us: int, zone: str) -> date:
    """The day of whose report an instant is part."""
    day = local_day(at_us, zone)
    return day if at_us < span_of(day, zone).until_us else day + timedelta(days=1)


def body_of(span: Span, about: Mapping[str, Any], rows: ReportRows) -> dict[str, Any]:
    """Everything that a report says. `about`: buyer, title, locale, zone and currency."""
    every = [*rows.interactions, *rows.late]
    resolved = [interaction for interaction in every if interaction.resolved]
    took_us = [max(0, interaction.at_utc_us - interaction.received_utc_us) for interaction in resolved]
    holding = [(interaction, interaction.rating) for interaction in rows.rated]
    ratings = [
        {
            "id": interaction.id,
            "kind": interaction.kind.value,
            "reference": interaction.reference,
            "rating": rating.rating,
            "by": rating.kind.value,
        }
        for interaction, rating in holding
        if rating is not None
    ]
    late = {interaction.id for interaction in rows.late}
    return {
        **about,
        "day": span.day.isoformat(),
        "from_utc_us": span.from_us,
        "until_utc_us": span.until_us,
        "interactions": len(every),
        "late": len(rows.late),
        "resolved": len(resolved),
        "average_resolution_ms": half_even(sum(took_us), len(took_us) * 1_000) if took_us else None,
        "average_rating_x100": average_x100(
            [interaction.rating.rating for interaction in rows.rated if interaction.rating is not None]
        ),
        "ratings": ratings,
        "cost": _cost(every, str(about["currency"])),
        "kinds": [_kind(kind, every) for kind in Channel],
        "levels": [_level(interaction) for interaction in levels_of(every)],
        "list": [_listed(interaction, late=interaction.id in late) for interaction in every],
    }


def shown(body: Mapping[str, Any], link: Callable[[str], str] | None = None) -> dict[str, Any]:
    """The templates' values, in the buyer's locale. `link`: the address of an interaction by its id."""
    locale, zone = str(body["locale"]), ZoneInfo(body["zone"])
    to = link or (lambda _: "")
    late = {one["id"] for one in body["list"] if one["late"]}
    average = body["average_rating_x100"]
    return {
        "buyer": one_line(body["title"] or body["buyer"], 200),
        "day": date_text(date.fromisoformat(body["day"]), locale),
        "starts": when_text(body["from_utc_us"], zone, locale),
        "ends": when_text(body["until_utc_us"], zone, locale),
        "interactions": number_text(body["interactions"], locale),
        "late": number_text(len(late), locale) if late else "",
        "resolved": number_text(body["resolved"], locale),
        "resolution": _duration(body["average_resolution_ms"]),
        "rating": f"{average // 100}.{average % 100:02d}" if average is not None else "",
        "ratings": [{**one, "name": _name(one), "link": to(one["id"])} for one in body["ratings"]],
        "cost": " + ".join(money_text(one["minor"], one["currency"], locale) for one in body["cost"]),
        "kinds": [_shown_kind(one, locale) for one in body["kinds"] if one["interactions"]],
        "levels": [_shown_level(one, locale) for one in body["levels"]],
        "list": [_shown_interaction(one, to, zone, locale) for one in body["list"][:MAX_SHOWN]],
        "more": max(0, len(body["list"]) - MAX_SHOWN),
    }


def html_of(body: Mapping[str, Any], link: Callable[[str], str] | None = None) -> str:
    """The report as one HTML page that needs nothing else."""
    return texts.render(f"{TEMPLATE}.html.jinja", shown(body, link))


_COLUMNS = ("id", "kind", "reference", "received_utc", "ended_utc", "resolved", "handled_s", "increments")


def csv_of(body: Mapping[str, Any]) -> str:
    """The interactions, one a line; amounts in minor units beside their currency, times in UTC."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow((*_COLUMNS, "amount_minor", "currency", "rating", "rated_by", "late"))
    for one in body["list"]:
        times = (_iso(one["received_utc_us"]), _iso(one["ended_utc_us"]))
        what = (csv_cell(one["id"]), one["kind"], csv_cell(one["reference"]), *times, _yes(one["resolved"]))
        cost = (f"{one['handled_ms'] / 1000:.3f}", one["increments"], one["amount_minor"], one["currency"])
        writer.writerow((*what, *cost, one["rating"] or "", one["rated_by"], _yes(one["late"])))
    return text.getvalue()


def _cost(interactions: Iterable[Interaction], currency: str) -> list[dict[str, Any]]:
    """By currency; of nothing, nothing in the contract's."""
    sums = {currency: 0}
    for one in interactions:
        if one.amount_minor:
            sums[one.currency] = sums.get(one.currency, 0) + one.amount_minor
    if len(sums) > 1 and not sums[currency]:
        del sums[currency]
    return [{"currency": name, "minor": amount} for name, amount in sorted(sums.items())]


def _kind(kind: Channel, every: Iterable[Interaction]) -> dict[str, Any]:
    found = [one for one in every if one.kind is kind]
    return {
        "kind": kind.value,
        "interactions": len(found),
        "resolved": sum(one.resolved for one in found),
        "increments": sum(one.increments for one in found),
        "minor": sum(one.amount_minor for one in found),
        "currency": next((one.currency for one in found if one.currency), ""),
    }


def _level(level: Level) -> dict[str, Any]:
    return {"name": level.name, "met": level.met, "of": level.of, "percent_x10": level.percent_x10}


def _listed(interaction: Interaction, *, late: bool) -> dict[str, Any]:
    rating = interaction.rating
    return {
        "id": interaction.id,
        "kind": interaction.kind.value,
        "reference": interaction.reference,
        "received_utc_us": interaction.received_utc_us,
        "ended_utc_us": interaction.ended_utc_us,
        "answered": interaction.started_utc_us is not None,
        "resolved": interaction.resolved,
        "handled_ms": interaction.handled_ms,
        "increments": interaction.increments,
        "amount_minor": interaction.amount_minor,
        "currency": interaction.currency,
        "rating": rating.rating if rating else None,
        "rated_by": rating.kind.value if rating else "",
        "late": late,
    }


def _shown_kind(kind: Mapping[str, Any], locale: str) -> dict[str, str]:
    number = partial(number_text, locale=locale)
    return {
        "kind": _KINDS[Channel(kind["kind"])],
        "interactions": number(kind["interactions"]),
        "resolved": number(kind["resolved"]),
        "increments": number(kind["increments"]),
        "cost": money_text(kind["minor"], kind["currency"], locale) if kind["currency"] else "",
    }


def _shown_level(level: Mapping[str, Any], locale: str) -> dict[str, str]:
    number, tenths = partial(number_text, locale=locale), level["percent_x10"]
    return {
        "name": _LEVELS.get(level["name"], level["name"]),
        "met": f"{number(level['met'])} of {number(level['of'])}" if level["of"] else "none to measure",
        "percent": f"{tenths // 10}.{tenths % 10} %" if tenths is not None else "",
    }


def _shown_interaction(
    interaction: Mapping[str, Any], link: Callable[[str], str], zone: ZoneInfo, locale: str
) -> dict[str, Any]:
    state = "resolved" if interaction["resolved"] else "open" if interaction["answered"] else "not answered"
    return {
        "name": _name(interaction),
        "link": link(interaction["id"]),
        "kind": interaction["kind"],
        "received": short_when_text(interaction["received_utc_us"], zone, locale),
        "state": f"{state}, told late" if interaction["late"] else state,
        "handled": _duration(interaction["handled_ms"]),
        "amount": money_text(interaction["amount_minor"], interaction["currency"], locale)
        if interaction["currency"]
        else "",
        "rating": interaction["rating"] or "",
    }


def _name(interaction: Mapping[str, Any]) -> str:
    """By which people know it: the reference of who reported it, of a call its transfer."""
    return one_line(interaction["reference"], 120) or one_line(interaction["id"], 64)


def _duration(duration_ms: int | None) -> str:
    """Hours, minutes and seconds, rounded down: 1:02:03 or 2:03."""
    if duration_ms is None:
        return ""
    minutes, seconds = divmod(duration_ms // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _iso(utc_us: int | None) -> str:
    return "" if utc_us is None else f"{datetime.fromtimestamp(utc_us // 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _yes(value: object) -> str:
    return "yes" if value else "no"
