"""Buyers' webhooks in the store: their settings, their queued messages, and the standing of their deliveries."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any
from urllib.parse import urlsplit

import orjson
from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from meter.events.sql.streams import Boot, move
from meter.outbox.sql import new_row
from meter.store.engine import secret_box
from meter.store.integration_schema import webhooks
from meter.store.schema import buyers, outbox
from meter.store.sealing import SealError, SecretBox
from meter.text.signing import key_of, new_secret

CHANNEL = "webhook"
EVENTS = ("dialed", "answered", "failed", "outcome")  # failed: an outcome that counts as failed
DEFAULT_EVENTS = ("dialed", "answered", "failed")
ALL_FIELDS = "*"
MAX_HOOKS = 10  # of one buyer
MAX_URL = 2_000
MAX_SECRETS = 2  # the newest, and the one before while it is being changed
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_COLUMNS = frozenset({"buyer", "name", "secrets", "unreadable", "created_utc_us", "changed_utc_us"})


class WebhookError(ValueError):
    """A webhook that cannot be; the message names the field."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """One endpoint of a buyer. `secrets` sign what is posted, the newest first; each gives a signature of its own."""

    buyer: str
    name: str
    url: str
    events: tuple[str, ...] = DEFAULT_EVENTS
    lead_fields: tuple[str, ...] = (ALL_FIELDS,)  # which fields of the lead go along; `*`: all
    redact_fields: tuple[str, ...] = ()  # which never do
    mask_phone: bool = False  # the last four digits alone
    secrets: tuple[str, ...] = field(default=(), repr=False)
    unreadable: str = ""  # why its secrets cannot be read; nothing is posted then
    created_utc_us: int = field(default=0, compare=False)  # what happened before is not for it
    changed_utc_us: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Standing:
    """The standing of a webhook's deliveries. Times in microseconds UTC."""

    failing_since_utc_us: int | None = None
    failures: int = 0
    next_try_utc_us: int = 0
    disabled_utc_us: int | None = None
    error: str = ""


def check(hook: Webhook) -> None:
    """Raises WebhookError for what cannot be posted to."""
    if not _NAME.fullmatch(hook.name):
        raise WebhookError("name: is not 1 to 64 of a-z, 0-9, - and _, beginning with a letter or digit")
    _check_url(hook.url)
    unknown = sorted(set(hook.events) - set(EVENTS))
    if unknown or not hook.events:
        raise WebhookError(
            f"events: are one or more of {', '.join(EVENTS)}" + (f"; not {unknown[0]}" if unknown else "")
        )
    for secret in hook.secrets:
        try:
            key_of(secret)
        except ValueError as error:
            raise WebhookError(f"secret: {error}") from error


def _check_url(url: str) -> None:
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise WebhookError(f"url: is not up to {MAX_URL} printable ASCII characters without blanks")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise WebhookError(f"url: {error}") from error
    if parts.scheme != "https" or not parts.hostname or port == 0:
        raise WebhookError("url: must be https://HOST/...")
    try:
        parts.hostname.encode("idna")
    except UnicodeError as error:
        raise WebhookError("url: the host's name cannot be one") from error
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise WebhookError("url: may hold no user, password or fragment")


def read_hooks(connection: Connection, buyer: str = "") -> list[tuple[Webhook, Standing]]:
    """All webhooks, or a buyer's, by buyer and name."""
    query = select(webhooks).order_by(webhooks.c.buyer, webhooks.c.name)
    rows = connection.execute(query.where(webhooks.c.buyer == buyer) if buyer else query)
    box = secret_box(connection)
    return [(_hook(row, box), Standing(*(getattr(row, name) for name in Standing.__slots__))) for row in rows]


def _hook(row: Any, box: SecretBox) -> Webhook:
    """As it is stored; a field that this version does not know is left out."""
    known = {one.name for one in fields(Webhook)} - _COLUMNS
    document = {key: value for key, value in orjson.loads(row.document).items() if key in known}
    said: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}
    times = {"created_utc_us": row.created_utc_us, "changed_utc_us": row.changed_utc_us}
    secrets: tuple[str, ...] = ()
    unreadable = ""
    try:
        secrets = tuple(orjson.loads(box.open(row.secrets, _about(row.buyer, row.name))))
    except SealError as error:
        unreadable = str(error)
    return Webhook(buyer=row.buyer, name=row.name, secrets=secrets, unreadable=unreadable, **times, **said)


def _about(buyer: str, name: str) -> str:
    """To which row secrets are bound."""
    return f"webhook {buyer}/{name}"


def put_hook(connection: Connection, hook: Webhook, *, roll: bool = False) -> Webhook:
    """Create or change a webhook; what failed before is forgotten. Without secrets those of before stay, and a new
    one gets one. `roll`: a new secret on top of the one before, which goes on signing beside it until the next roll.

    Raises WebhookError, and LookupError where there is no such buyer.
    """
    check(hook)
    if connection.execute(select(buyers.c.name).where(buyers.c.name == hook.buyer)).first() is None:
        raise LookupError(f"no buyer is called {hook.buyer!r}")
    known = {known_hook.name: known_hook for known_hook, _ in read_hooks(connection, hook.buyer)}
    before = known.get(hook.name)
    if before is None and len(known) >= MAX_HOOKS:
        raise WebhookError(f"name: {hook.buyer!r} has {MAX_HOOKS} webhooks already")
    secrets = hook.secrets or (before.secrets if before is not None else ())
    if not secrets and not roll and before is not None and before.unreadable:
        raise WebhookError(f"secret: {before.unreadable}; give a new one, or roll it")
    if roll or not secrets:
        secrets = (new_secret(), *secrets)
    hook = replace(hook, secrets=secrets[:MAX_SECRETS], unreadable="")
    now_us = time.time_ns() // 1000
    content = {
        "document": orjson.dumps({key: value for key, value in asdict(hook).items() if key not in _COLUMNS}),
        "secrets": secret_box(connection).seal(orjson.dumps(hook.secrets), _about(hook.buyer, hook.name)),
        "changed_utc_us": now_us,
        **asdict(Standing()),
    }
    if before is None:
        connection.execute(insert(webhooks).values(buyer=hook.buyer, name=hook.name, created_utc_us=now_us, **content))
    else:
        connection.execute(update(webhooks).where(*_this(hook.buyer, hook.name)).values(**content))
    return hook


def remove_hook(connection: Connection, buyer: str, name: str) -> bool:
    """Remove a webhook and what is queued for it; whether there was one."""
    connection.execute(delete(outbox).where(*_queued(buyer, name)))
    return bool(connection.execute(delete(webhooks).where(*_this(buyer, name))).rowcount)


def seal_plain(connection: Connection) -> int:
    """Seal the secrets of before there was a key; of how many webhooks."""
    box, count = secret_box(connection), 0
    for row in connection.execute(select(webhooks.c.buyer, webhooks.c.name, webhooks.c.secrets)).all():
        sealed = box.seal(row.secrets, _about(row.buyer, row.name)) if row.secrets.startswith(b"[") else row.secrets
        if sealed != row.secrets:
            connection.execute(update(webhooks).where(*_this(row.buyer, row.name)).values(secrets=sealed))
            count += 1
    return count


def put_standing(connection: Connection, hook: Webhook, standing: Standing) -> bool:
    """Write how posting goes; False: the webhook was changed or disabled meanwhile, and stays as that left it."""
    as_it_was = (webhooks.c.changed_utc_us == hook.changed_utc_us, webhooks.c.disabled_utc_us.is_(None))
    written = update(webhooks).where(*_this(hook.buyer, hook.name), *as_it_was).values(**asdict(standing))
    return bool(connection.execute(written).rowcount)


def enable(connection: Connection, buyer: str, name: str) -> int | None:
    """Post to a webhook again; what was given up for it is due now. How many; None: there is no such webhook."""
    changed = connection.execute(update(webhooks).where(*_this(buyer, name)).values(**asdict(Standing()))).rowcount
    if not changed:
        return None
    mine, now_us = _queued(buyer, name), time.time_ns() // 1000
    again = {"state": "pending", "attempts": 0, "next_try_utc_us": now_us, "created_utc_us": now_us}
    revived = update(outbox).where(*mine, outbox.c.state == "dead").values(**again, done_utc_us=None)
    connection.execute(update(outbox).where(*mine, outbox.c.state == "pending").values(next_try_utc_us=now_us))
    return connection.execute(revived).rowcount


def disable(connection: Connection, buyer: str, name: str, why: str) -> bool:
    """Post to a webhook no more until it is enabled; whether there is one."""
    values = {"disabled_utc_us": time.time_ns() // 1000, "error": why}
    return bool(connection.execute(update(webhooks).where(*_this(buyer, name)).values(**values)).rowcount)


def queue(
    connection: Connection, orders: Sequence[Mapping[str, str]], stream: str, ends: Mapping[Boot, int], now_utc_us: int
) -> None:
    """Queue what is to be posted (`buyer`, `hook`, `event`, `id`, `transfer`) and move the follower's cursors."""
    rows = [
        new_row(
            CHANNEL,
            f"{one['buyer']}/{one['hook']}/{one['transfer']}",
            f"{one['id']}@{one['buyer']}/{one['hook']}",
            one,
            now_utc_us,
        )
        for one in orders
    ]
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(dialect.insert(outbox).on_conflict_do_nothing(), rows)
    move(connection, stream, ends)


def _this(buyer: str, name: str) -> Collection[Any]:
    return (webhooks.c.buyer == buyer, webhooks.c.name == name)


def _queued(buyer: str, name: str) -> Collection[Any]:
    """The messages of a webhook."""
    key = f"{buyer}/{name}/"
    return (outbox.c.channel == CHANNEL, func.substr(outbox.c.key, 1, len(key)) == key)
