"""Webhooks: a transfer's lead and what becomes of it, posted to the buyer's HTTPS endpoint.

A follower of the journal queues what buyers have asked for (`dialed`, `answered`, `failed`, `outcome`), in the outbox,
per webhook and transfer in their order. What is posted is made from the facts when it is posted, as the buyer may see
it (`facts.disclosure`): of the person nothing until the transfer has connected or counts as failed, and of the lead
those fields that operator and buyer let through. It is signed as Standard Webhooks 1.0 says: `webhook-id`,
`webhook-timestamp`, `webhook-signature`. A 2xx is a yes; anything else is tried again.

A webhook that fails rests as a whole, longer each time, so that a dead endpoint costs one attempt and not one for every
message. When it has failed for days it is disabled: a line in the log, `baton_webhooks_disabled`, an alert; what was
queued for it is given up, and revived by `baton webhooks enable`. 410 (Gone) disables it at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from facts.disclosure import Reader, disclosed, masked
from facts.fact import Fact, Kind, first_of
from facts.ladder import build_ladder
from facts.outcome import CountsAs
from facts.start_payload import lead_fields
from meter.events.follower import BatchResult
from meter.events.model import KINDS, SCHEMA, Event, EventKind, Events
from meter.events.sql.streams import Boot
from meter.journal.sql.reading import facts_and_outcome
from meter.outbox.delivery import DeliveryError, LaterError, NeverDeliverableError
from meter.outbox.sql import Message
from meter.store.clerk import Clerk
from meter.text.signing import sign
from meter.webhooks.http_post import HttpPoster, HttpPostError, PostOptions
from meter.webhooks.sql import ALL_FIELDS, CHANNEL, Standing, Webhook, put_standing, queue, read_hooks
from telemetry import metrics

STREAM = "webhook"
PARALLEL = 20
PER_HOOK = 4  # of them to one webhook
RELOAD_S = 2.0  # a webhook that was added, changed or enabled is seen after this
FIRST_REST_S, LAST_REST_S = 5.0, 15 * 60.0
PROBE_US = 1_000_000  # how long others wait for the message that is tried first after a rest
DISABLE_AFTER_S = 72 * 3600.0
GONE = 410
OK = range(200, 300)
FAILED = "failed"  # the event of an outcome that counts as failed

_log = structlog.get_logger()

Orders = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class WebhookOptions:
    """`redact_fields`: fields of leads that no webhook ever gets. `agent`: User-Agent."""

    post: PostOptions = field(default_factory=PostOptions)
    disable_after_s: float = DISABLE_AFTER_S
    redact_fields: frozenset[str] = frozenset()
    agent: str = "Baton"


class Hooks:
    """The webhooks there are, and how posting to them goes; looked at again every two seconds."""

    def __init__(self, clerk: Clerk) -> None:
        self._clerk = clerk
        self._all: dict[tuple[str, str], tuple[Webhook, Standing]] = {}
        self._read_at = -RELOAD_S

    async def reload(self, *, at_once: bool = False) -> None:
        """Look again, if it is time. Raises what the store raises."""
        if at_once or time.monotonic() - self._read_at >= RELOAD_S:
            found = await self._clerk.read(read_hooks)
            self._all = {(one.buyer, one.name): (one, standing) for one, standing in found}
            self._read_at = time.monotonic()
            metrics.WEBHOOKS_DISABLED.set(sum(standing.disabled_utc_us is not None for _, standing in found))

    def find(self, buyer: str, name: str) -> tuple[Webhook, Standing] | None:
        return self._all.get((buyer, name))

    def of(self, buyer: str) -> list[Webhook]:
        """Those of a buyer that are posted to."""
        return [one for one, standing in self._all.values() if one.buyer == buyer and standing.disabled_utc_us is None]

    @property
    def any(self) -> bool:
        return bool(self._all)

    async def put(self, hook: Webhook, standing: Standing) -> None:
        """Keep how posting goes, here and in the store, unless somebody has changed the webhook meanwhile."""
        if await self._clerk.write(put_standing, hook, standing):
            self._all[hook.buyer, hook.name] = (hook, standing)
        else:
            await self.reload(at_once=True)


class WebhookQueue:
    """Takes the events of the stream `webhook` and queues what was asked for."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._clerk = Clerk(engine)
        self._hooks = Hooks(self._clerk)

    async def kinds(self) -> Sequence[Kind]:
        """Facts of interest now: none while nobody has a webhook, and the journal is then passed by unread."""
        await self._hooks.reload()
        return KINDS if self._hooks.any else ()

    async def take(self, events: Sequence[Event], ends: dict[Boot, int]) -> BatchResult:
        orders = [order for event in events for order in self._orders(event)]
        if not orders:
            return BatchResult.LAZILY
        await self._clerk.write(queue, orders, STREAM, ends, time.time_ns() // 1000)
        return BatchResult.WRITTEN

    async def close(self) -> None:
        await self._clerk.close()

    def _orders(self, event: Event) -> Orders:
        names = names_of(event)
        return [
            {
                "buyer": hook.buyer,
                "hook": hook.name,
                "event": next(name for name in names if name in hook.events),
                "id": event.id,
                "transfer": event.transfer,
            }
            for hook in self._hooks.of(event.buyer)
            if any(name in hook.events for name in names) and happened_us(event) >= hook.created_utc_us
        ]


def happened_us(event: Event) -> int:
    """When it happened, in microseconds UTC."""
    return int(event.fields.get("at_utc_us") or event.fields.get("closed_utc_us") or 0)


def names_of(event: Event) -> tuple[str, ...]:
    """By which of the names in a webhook's `events` this one is asked for, the closest first."""
    if event.kind is EventKind.OUTCOME:
        failed = event.fields.get("counts_as") == CountsAs.FAILED.value
        return (FAILED, "outcome") if failed else ("outcome",)
    return (event.kind.value,)


class WebhookDeliverer:
    """The channel `webhook` of the outbox."""

    channel = CHANNEL
    parallel = PARALLEL
    lane_limit = PER_HOOK

    def __init__(self, engine: AsyncEngine, options: WebhookOptions) -> None:
        self._options = options
        self._clerk = Clerk(engine)
        self._hooks = Hooks(self._clerk)
        self._poster = HttpPoster(options.post)
        self._trying: set[tuple[str, str]] = set()  # webhooks that rested, with a message under way

    async def ready(self) -> None:
        """Always worth an attempt."""

    def lane(self, message: Message) -> str:
        """The webhook: one that is slow must not hold up those of others."""
        return "/".join(message.key.split("/", 2)[:2]) + "/"

    async def close(self) -> None:
        await self._poster.close()
        await self._clerk.close()

    async def deliver(self, message: Message) -> None:
        """Post one message. Raises DeliveryError, or LaterError while the webhook rests."""
        order = orjson.loads(message.payload)
        await self._hooks.reload()
        found = self._hooks.find(order["buyer"], order["hook"])
        if found is None or found[1].disabled_utc_us is not None:  # as of two seconds ago: it may be new, or enabled
            await self._hooks.reload(at_once=True)
            found = self._hooks.find(order["buyer"], order["hook"])
        if found is None:
            raise NeverDeliverableError("the webhook was removed")
        hook, standing = found
        if standing.disabled_utc_us is not None:
            raise NeverDeliverableError("the webhook is disabled")
        now_us = time.time_ns() // 1000
        if standing.next_try_utc_us > now_us:
            raise LaterError(standing.next_try_utc_us, f"the webhook rests: {standing.error}")
        if not standing.failures:
            await self._compose_and_post(hook, order)
            return
        key = (hook.buyer, hook.name)
        if key in self._trying:  # one message finds out for all whether it answers again
            raise LaterError(now_us + PROBE_US, f"another message is tried first: {standing.error}")
        self._trying.add(key)
        try:
            await self._compose_and_post(hook, order)
        finally:
            self._trying.discard(key)

    async def _compose_and_post(self, hook: Webhook, order: Mapping[str, str]) -> None:
        history = await self._clerk.read(facts_and_outcome, order["transfer"])
        await self._post(hook, order["id"], compose(hook, order, history, self._options.redact_fields))

    async def _post(self, hook: Webhook, message_id: str, body: bytes) -> None:
        begun = time.monotonic()
        retry_after_s = 0
        try:
            answer = await post_signed(self._poster, hook, message_id, body, self._options.agent)
            why = "" if answer.status in OK else f"answered {answer.status}"
            retry_after_s = answer.retry_after_s
            gone = answer.status == GONE
        except HttpPostError as error:
            why, gone = str(error), False
        metrics.WEBHOOK_SECONDS.observe(time.monotonic() - begun)
        if why:
            await self._failed(hook, why, retry_after_s, gone=gone)
        await self._succeeded(hook)

    async def _succeeded(self, hook: Webhook) -> None:
        metrics.WEBHOOKS_SENT.labels("sent").inc()
        found = self._hooks.find(hook.buyer, hook.name)
        if found is not None and found[1].failures:
            _log.info("webhook answers again", buyer=hook.buyer, webhook=hook.name, failures=found[1].failures)
            await self._hooks.put(hook, Standing())

    async def _failed(self, hook: Webhook, why: str, retry_after_s: int, *, gone: bool) -> None:
        """Put the webhook to rest, or out of use. Always raises."""
        found = self._hooks.find(hook.buyer, hook.name)
        before = found[1] if found is not None else Standing()
        now_us = time.time_ns() // 1000
        if before.next_try_utc_us > now_us:  # one that was in flight beside it has failed already
            metrics.WEBHOOKS_SENT.labels("retried").inc()
            raise DeliveryError(why)
        failures = before.failures + 1
        since = before.failing_since_utc_us or now_us
        rest_s = min(FIRST_REST_S * 2.0 ** min(failures - 1, 20), LAST_REST_S) * (1 - random.random() / 2)  # noqa: S311
        rest_s = max(rest_s, min(retry_after_s, LAST_REST_S))
        standing = Standing(since, failures, now_us + int(rest_s * 1_000_000), None, why)
        if gone or now_us - since >= self._options.disable_after_s * 1_000_000:
            metrics.WEBHOOKS_SENT.labels("dead").inc()
            await self._hooks.put(hook, replace(standing, disabled_utc_us=now_us))
            _log.error("webhook disabled", buyer=hook.buyer, webhook=hook.name, error=why, failures=failures)
            raise NeverDeliverableError(f"the webhook was disabled: {why}")
        metrics.WEBHOOKS_SENT.labels("retried").inc()
        await self._hooks.put(hook, standing)
        raise DeliveryError(why)


async def post_signed(poster: HttpPoster, hook: Webhook, message_id: str, body: bytes, agent: str) -> Any:
    """Sign and post; nothing goes out unsigned. Raises HttpPostError."""
    if hook.unreadable or not hook.secrets:
        raise HttpPostError(hook.unreadable or "it has no secret to sign with")
    at_s = int(time.time())
    signatures = " ".join(sign(secret, message_id, at_s, body) for secret in hook.secrets)
    headers = (
        ("content-type", "application/json"),
        ("user-agent", agent),
        ("webhook-id", message_id),
        ("webhook-timestamp", str(at_s)),
        ("webhook-signature", signatures),
    )
    return await poster.post(hook.url, body, headers)


def compose(
    hook: Webhook,
    order: Mapping[str, str],
    history: tuple[Sequence[Fact], Mapping[str, Any] | None],
    redact: frozenset[str],
) -> bytes:
    """What is posted. `history`: the transfer's facts and its settled outcome.

    Raises NeverDeliverableError where the journal has no such event.
    """
    facts, outcome = history
    events = Events()
    made = [events.fold(fact, outcome) for fact in facts]
    event = next((one for one in made if one is not None and one.id == order["id"]), None)
    if event is None:
        raise NeverDeliverableError("the journal has no such event")
    return document(hook, event, order["event"], facts, redact)


def document(hook: Webhook, event: Event, name: str, facts: Sequence[Fact], redact: frozenset[str]) -> bytes:
    """The body: type, timestamp and data, as Standard Webhooks advises."""
    started = first_of(facts, Kind.TRANSFER_STARTED)
    data = disclosed({**event.fields, "lead": lead_of(hook, started, redact)}, Reader.BUYER, event.claim)
    data = masked(data) if hook.mask_phone else data
    if event.kind is EventKind.OUTCOME:
        ladder = build_ladder(facts)
        data["explanation"] = ladder.explanation
        data["legs"] = ladder.as_dict()["legs"]
    return _body(name, datetime.fromtimestamp(happened_us(event) / 1_000_000, UTC), data)


def sample(hook: Webhook, message_id: str) -> bytes:
    """What `baton webhooks test` posts: an event of type `transfer.test`, of nobody."""
    data = {"schema": SCHEMA, "id": message_id, "event": "test", "buyer": hook.buyer, "lead": {}}
    return _body("test", datetime.now(UTC), data)


def _body(name: str, at: datetime, data: Mapping[str, Any]) -> bytes:
    timestamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return orjson.dumps({"type": f"transfer.{name}", "timestamp": timestamp, "data": data})


def lead_of(hook: Webhook, started: Fact | None, redact: frozenset[str]) -> dict[str, str]:
    """The lead's fields that may go along, all as text."""
    given = (lead_fields(started) if started is not None else None) or {}
    fields = {str(key): str(value) for key, value in given.items()}
    wanted = fields.keys() if ALL_FIELDS in hook.lead_fields else fields.keys() & set(hook.lead_fields)
    hidden = redact | set(hook.redact_fields)
    lead = {key: fields[key] for key in fields if key in wanted and key not in hidden}
    return masked(lead) if hook.mask_phone else lead
