"""Every metric of Baton: the objects, what they mean, and how they are served. A leaf: it imports nothing of Baton.

The router's and the meter's processes set them; with PROMETHEUS_MULTIPROC_DIR in the environment before this module is
imported, each process writes files there and whoever serves adds them up (`serve_metrics`). A process that ended is
taken out of the live gauges by `mark_dead`. Label values come from closed sets or from configuration, never from the
network: verdicts x reasons, and names of trunks, buyers and lists. Those are bounded too: `Names` keeps the first
few hundred and calls the rest `other`, so that a book of ten thousand buyers does not fill Prometheus.

`CATALOGUE` lists all of them for the documentation and for the test of the dashboards.
"""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from socketserver import ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

REGISTRY = CollectorRegistry()

# Seconds. A set-up is a dial-out, ringing and an answer; ringing ends by the ring timeout of 30 s.
_RING_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 12, 15, 20, 25, 30, 45, 60)
# Talk: 15 s decides whether a unit is billed; sales calls last minutes.
_TALK_BUCKETS = (1, 5, 10, 15, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600)
# Scrub: microseconds in memory (domain 10 asks for all lists in one look).
_SCRUB_BUCKETS = (0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.25)
# Fan-out: all INVITEs of a transfer leave in one turn of the loop.
_SPREAD_BUCKETS = (0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
# Buffer: 15 s, by the terms or the campaign more.
_BUFFER_BUCKETS = (0, 1, 2, 4, 6, 8, 10, 12, 14, 15, 20, 30)
# By trunk: few, since there are as many as trunks.
_TRUNK_BUCKETS = (0.5, 1, 2, 5, 10, 15, 30)
# HTTP, of ours and of buyers.
_HTTP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# Commit: 0.1 to 3 ms on a good disk; `admit` gives up at 2 s.
_COMMIT_BUCKETS = (0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 2, 10)


def _gauge(name: str, text: str, labels: tuple[str, ...] = (), mode: str = "livesum") -> Gauge:
    return Gauge(name, text, labels, registry=REGISTRY, multiprocess_mode=mode)  # type: ignore[arg-type]


def _counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
    return Counter(name, text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()) -> Histogram:
    return Histogram(name, text, labels, buckets=buckets, registry=REGISTRY)


OTHER = "other"
MOST_TRUNKS, MOST_BUYERS, MOST_LISTS = 500, 1_000, 200


class Names:
    """The values of one label that come from configuration: `most` at once, every further name is `other`.

    A name takes its place when it is first told and gives it back in `keep`.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: set[str] = set()

    def of(self, name: str) -> str:
        """The label's value for a name; `other` for none."""
        if name in self._names:
            return name
        if not name or len(self._names) >= self._most:
            return OTHER
        self._names.add(name)
        return name

    def keep(self, names: Iterable[str]) -> set[str]:
        """Forget all but these; returns those that are gone, whose gauges are to be set to NaN."""
        gone = self._names - set(names)
        self._names -= gone
        return gone


TRUNKS, BUYERS, LIST_NAMES = Names(MOST_TRUNKS), Names(MOST_BUYERS), Names(MOST_LISTS)


# Set by the meter, when an outcome is durable.
TRANSFERS = _counter(
    "baton_transfers_total", "Transfers settled, by what they came to.", ("verdict", "reason", "counts_as")
)
DIALOUT_TO_RINGING = _histogram(
    "baton_dialout_to_ringing_seconds", "From dial-out to the first 18x of any endpoint.", _RING_BUCKETS
)
DIALOUT_TO_ANSWER = _histogram(
    "baton_dialout_to_answer_seconds", "From dial-out to the 2xx of the endpoint that won.", _RING_BUCKETS
)
TALK = _histogram("baton_talk_seconds", "Talk of answered transfers, from the 2xx to the end.", _TALK_BUCKETS)
LATE_ANSWERS = _counter(
    "baton_late_answers_total", "Answers that came after another endpoint had won or the attempt was over."
)
VERDICT_MISMATCH = _counter(
    "baton_verdict_mismatch_total", "Settled transfers whose verdict in the router was another one. Must stay at 0."
)
FANOUT_SPREAD = _histogram(
    "baton_fanout_spread_seconds", "From the first INVITE of a transfer to the last.", _SPREAD_BUCKETS
)
BUFFER_REMAINING = _histogram(
    "baton_buffer_remaining_seconds",
    "What was left of the buffer when an attempt ended that nobody had answered; 0: it is billed as failed.",
    _BUFFER_BUCKETS,
)
BUYER_TRANSFERS = _counter(
    "baton_buyer_transfers_total", "Transfers settled, by buyer and what they count as.", ("buyer", "counts_as")
)
BUYER_TALK = _counter("baton_buyer_talk_seconds_total", "Talk of settled transfers, by buyer.", ("buyer",))
BUYER_STATE = _gauge("baton_buyer_state", "State of a buyer: 0 paused, 1 on hold, 2 active.", ("buyer",), "mostrecent")
TRUNK_LEGS = _counter(
    "baton_trunk_legs_total",
    "Legs of settled transfers, by endpoint and what became of them: won, late, cancelled by us, busy, declined,"
    " no_answer, failed, not_sent.",
    ("trunk", "result"),
)
TRUNK_RINGING = _histogram(
    "baton_trunk_dialout_to_ringing_seconds",
    "From dial-out to a leg's first 18x, by endpoint.",
    _TRUNK_BUCKETS,
    ("trunk",),
)
TRUNK_ANSWER = _histogram(
    "baton_trunk_dialout_to_answer_seconds", "From dial-out to a leg's 2xx, by endpoint.", _TRUNK_BUCKETS, ("trunk",)
)
ORDER_UNITS = _gauge(
    "baton_order_units",
    "This week's order of a buyer: ordered (with make-up), delivered, live (under way), most (with the overrun).",
    ("buyer", "kind"),
    "mostrecent",
)
SETTLE_LAG = _gauge(
    "baton_settle_lag_seconds", "Age of the oldest closed transfer that is not settled yet.", (), "livemax"
)
LEDGER_NEWEST = _gauge(
    "baton_ledger_newest_timestamp_seconds", "When the newest posting was made, in Unix time.", (), "livemax"
)
INVOICES_UNPAID = _gauge("baton_invoices_unpaid", "Invoices that are not paid, due or not.", (), "livemax")
INVOICES_UNPAID_AMOUNT = _gauge(
    "baton_invoices_unpaid_minor",
    "What unpaid invoices ask for, in hundredths of the currency.",
    ("currency",),
    "mostrecent",
)
STREAM_LAG_FACTS = _gauge(
    "baton_stream_lag_facts", "Facts that a follower of the journal has still to read.", ("stream",), "livemax"
)
STREAM_LAG = _gauge(
    "baton_stream_lag_seconds",
    "Age of the oldest fact that a follower of the journal has still to read.",
    ("stream",),
    "livemax",
)
EVENTS_PUBLISHED = _counter("baton_events_published_total", "Events taken by the MQTT broker.", ("event",))
COMMANDS = _counter("baton_commands_total", "Commands that came by MQTT.", ("command", "result"))
WEBHOOKS_SENT = _counter(
    "baton_webhook_attempts_total",
    "Attempts to post to a buyer's endpoint: sent, retried or dead.",
    ("result",),
)
WEBHOOK_SECONDS = _histogram("baton_webhook_seconds", "Time of one attempt to post.", _HTTP_BUCKETS)
WEBHOOKS_DISABLED = _gauge(
    "baton_webhooks_disabled", "Webhooks switched off since they have failed for long.", (), "livemax"
)
OUTBOX_DEPTH = _gauge("baton_outbox_depth", "Messages waiting to be delivered.", ("channel",), "livemax")
OUTBOX_OLDEST = _gauge("baton_outbox_oldest_seconds", "Age of the oldest message waiting.", ("channel",), "livemax")
OUTBOX_DEAD = _counter("baton_outbox_dead_total", "Messages given up.", ("channel",))
MAIL_SENT = _counter("baton_mail_sent_total", "Attempts at an e-mail: sent, retried, dead or waiting.", ("result",))
MAIL_BOUNCES = _gauge(
    "baton_mail_bounces", "Recipients that bounced in the last seven days.", ("permanent",), "livemax"
)
CHAIN_HEADS_MISSING = _gauge("baton_chain_heads_missing", "Of the chain heads exported last.", (), "livemax")
MAIL_WAITING = _gauge("baton_mail_waiting", "E-mails that wait for an address: lead or other.", ("what",), "livemax")
MAIL_TEMPLATES_FAILED = _counter(
    "baton_mail_templates_failed_total",
    "Texts for which the operator's template failed and the shipped one was used.",
    ("template",),
)
MQTT_CONNECTED = _gauge("baton_mqtt_connected", "1 while the meter is connected to the MQTT broker.", mode="livemax")

# Set by the router.
LIVE_TRANSFERS = _gauge("baton_live_transfers", "Transfers in progress.")
LIVE_LEGS = _gauge("baton_live_legs", "Call legs in progress, the dialer's included.")
SETUP = _histogram(
    "baton_setup_seconds", "From the dialer's INVITE to the 200 that answers it; connected transfers.", _RING_BUCKETS
)
CALL_SLOTS_USED = _gauge("baton_call_slots_used", "Call slots of the SIP engine in use.")
CALL_SLOTS_LINGERING = _gauge(
    "baton_call_slots_lingering", "Call slots whose call is over and whose transaction still waits for its timer."
)
CALL_SLOTS_MAX = _gauge("baton_call_slots_max", "Call slots that the SIP engine was built with.")
ENGINE_CALLS = _gauge("baton_engine_calls", "Call objects of the SIP library that the router holds.")
CALL_SLOTS_FREE = _gauge("baton_call_slots_free", "Call slots of the SIP engine that a new call can have.")
DRAINING = _gauge("baton_draining", "1 while a router refuses new calls because it drains.", (), "livemax")
TRUNK_PROBE = _gauge(
    "baton_trunk_probe_seconds", "Time to the answer of the last OPTIONS that a trunk answered.", ("trunk",), "livemax"
)
LIST_VERSION = _gauge("baton_suppression_list_version", "Version of a list in force.", ("list",), "livemin")
LIST_IMPORTED = _gauge(
    "baton_suppression_list_imported_timestamp_seconds",
    "When the version in force was imported, in Unix time.",
    ("list",),
    "livemin",
)
INVITES_TURNED_AWAY = _counter(
    "baton_invites_turned_away_total",
    "Requests answered at once without a transfer, by why; connection: refused at accept; malformed_response: dropped.",
    ("why",),
)
SIP_DROPPED = _counter("baton_sip_dropped_total", "SIP messages dropped unread: from nobody's address, or locked out.")
SIP_CONNECTIONS = _gauge("baton_sip_connections", "Connections over TCP and TLS that others made to the SIP listeners.")
SIP_ANSWERS_DROPPED = _counter("baton_sip_answers_dropped_total", "Answers to INVITE not believed.", ("why",))
LEFT_CALLS = _counter("baton_left_calls_total", "Calls that a router which died left up, by their end.", ("how",))
RTP_DROPPED = _counter("baton_rtp_dropped_total", "RTP and RTCP packets dropped: not from the party of that call.")
TRUNK_PROBES = _counter("baton_trunk_probes_total", "OPTIONS to trunks: ok or no_answer.", ("result",))
TRUNK_STATE = _gauge("baton_trunk_state", "State of a probed trunk: 0 down, 1 suspect, 2 up.", ("trunk",), "livemin")
SCRUB = _counter("baton_scrub_total", "Suppression checks: pass, suppressed or unavailable.", ("result",))
LISTS = _gauge("baton_suppression_lists", "Suppression lists in force: usable, or unavailable (refusing).", ("state",))
LIST_ENTRIES = _gauge("baton_suppression_entries", "Entries of all usable suppression lists.", mode="livemax")
SCRUB_SECONDS = _histogram("baton_scrub_seconds", "Time of one suppression check over all lists.", _SCRUB_BUCKETS)
LOOP_LAG = _gauge("baton_loop_lag_seconds", "The most an event waited for the loop in the last second.", mode="livemax")
JOURNAL_BACKLOG = _gauge("baton_journal_backlog_facts", "Facts not yet durable.")
JOURNAL_LAG = _gauge("baton_journal_lag_seconds", "Age of the oldest fact that is not durable yet.", (), "livemax")
JOURNAL_COMMIT = _histogram(
    "baton_journal_commit_seconds", "Time of one commit of facts, its fsync included.", _COMMIT_BUCKETS
)

BILLING_STEPS = _counter("baton_billing_steps_total", "Steps of the billing cycle that did something.", ("step",))
BILLING_TROUBLE = _gauge(
    "baton_billing_trouble", "Steps of the last billing run that could not be done.", (), "mostrecent"
)
INVOICES_OVERDUE = _gauge("baton_invoices_overdue", "Invoices that are due and not paid.", (), "livemax")
REFUNDS_DUE = _gauge("baton_refunds_due", "Checks on the worklist that were not sent yet.", (), "livemax")
REPORTS_ISSUED = _counter("baton_reports_issued_total", "Daily reports of per-minute service that were issued.")
CREDITS_OPEN = _gauge("baton_credit_requests_open", "Credit requests that wait for their review.", (), "livemax")
CREDITS_OLDEST = _gauge("baton_credit_oldest_seconds", "Age of the oldest open credit request.", (), "livemax")

# Set by the portal.
HTTP_REQUESTS = _counter(
    "baton_http_requests_total", "Requests answered, by route as the API describes it.", ("method", "route", "status")
)
HTTP_SECONDS = _histogram("baton_http_request_seconds", "Time to the answer's head, streams included.", _HTTP_BUCKETS)
HTTP_LIMITED = _counter(
    "baton_http_limited_total", "Requests refused by a limit: requests, failures, tests, streams.", ("why",)
)

# Set by the parent of `baton serve`.
CHILD_RESTARTS = _counter("baton_child_restarts_total", "Children started again after they died.", ("process",))

# Set by all.
READY = _gauge("baton_ready", "1 while a process is ready for work (its page /ready says so).", ("process",), "livemin")
PROCESS_MEMORY = _gauge("baton_process_resident_bytes", "Resident memory.", ("process",))
PROCESS_CPU = _counter("baton_process_cpu_seconds_total", "CPU used, user and system.", ("process",))
ENGINE_FAULTS = _counter("baton_engine_faults_total", "Faults of our own, by the part that failed.", ("kind",))
BUILD_INFO = _gauge("baton_build_info", "Always 1; the version that runs.", ("version",), "max")

# Closed sets begin at 0: a series that appears with its first event shows Prometheus no increase, and alerts none.
_FREE = (
    *(f"not_attempted {reason}" for reason in (
        "suppressed", "suppression_unavailable", "duplicate", "filtered", "no_buyer", "no_endpoint", "paused",
        "on_hold", "order_filled", "cap_reached", "closed", "bad_number", "no_capacity", "draining", "caller_gone",
        "rejected", "fault",
    )),
    *(f"within_buffer {reason}" for reason in (
        "declined", "no_answer", "caller_gone", "caller_ended", "buyer_abandoned"
    )),
    *(f"fault {reason}" for reason in ("router_fault", "interrupted", "carrier_fault")),
    "unreachable no_response", "short_call caller_ended", "caller_abandoned caller_gone", "indeterminate unknown",
)  # fmt: skip
_FAILED = ("failed buyer_abandoned", "failed declined", "failed no_answer")
_FROM_ZERO: tuple[tuple[Counter | Gauge, str], ...] = (
    (SCRUB, "pass suppressed unavailable"),
    (TRUNK_PROBES, "ok no_answer"),
    (INVITES_TURNED_AWAY, "challenge password rate concurrency loop hops large cut key offer"),
    (INVITES_TURNED_AWAY, "malformed malformed_response method share connection"),
    (MAIL_SENT, "sent retried dead waiting"),
    (MAIL_BOUNCES, "yes no"),
    (MAIL_WAITING, "lead other"),
    (OUTBOX_DEAD, "mail mqtt webhook"),
    (WEBHOOKS_SENT, "sent retried dead"),
    (BILLING_STEPS, "settle tuesday setup month hold"),
    (CHILD_RESTARTS, "router meter portal"),
    (HTTP_LIMITED, "requests failures tests streams"),
    (EVENTS_PUBLISHED, "started ringing answered outcome"),
    (
        ENGINE_FAULTS,
        (
            "admission billing book callback dialogs documents gauges heads journal_full lost_ending mqtt outbox prompt"
            " pump recording recordings reports settle states stray_answer stream suppression tap transfer trunks"
            " usage"
        ),
    ),
)


def _begin_at_zero() -> None:
    for wrapper, values in _FROM_ZERO:
        for value in values.split():
            wrapper.labels(value)
    for outcome in ("connected answered connected", *(f"{x} failed" for x in _FAILED), *(f"{x} free" for x in _FREE)):
        TRANSFERS.labels(*outcome.split())
    for command in ("pause", "resume", "suppress", "none"):
        for result in ("done", "refused", "unauthorized", "failed"):
            COMMANDS.labels(command, result)


_begin_at_zero()


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of the catalogue. `name` is as Prometheus stores it; a histogram adds _bucket, _sum and _count."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which it can be queried."""
        if self.type == "histogram":
            return tuple(self.name + suffix for suffix in ("_bucket", "_sum", "_count"))
        return (self.name,)


def _metric(wrapper: MetricWrapperBase) -> Metric:
    described = next(iter(wrapper.describe()))
    suffix = "_total" if described.type == "counter" else ""
    labels = tuple(wrapper._labelnames)  # noqa: SLF001 - the library has no public name for it
    return Metric(described.name + suffix, described.type, labels, described.documentation)


CATALOGUE: tuple[Metric, ...] = tuple(
    sorted(
        (_metric(one) for one in list(globals().values()) if isinstance(one, MetricWrapperBase)),
        key=lambda metric: metric.name,
    )
)


# Path -> status, type and body of a page that stands beside /metrics; None where there is none.
Pages = Callable[[str], tuple[int, str, bytes] | None]
_TEXT = "text/plain; charset=utf-8"


class _Handler(WSGIRequestHandler):
    timeout = 10.0  # seconds for a client that says nothing

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Pages are asked for every few seconds: no line for each."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class MetricsServer:
    """The HTTP server of /metrics and the pages beside it, in a thread of its own."""

    def __init__(self, server: WSGIServer, thread: Thread) -> None:
        self._server = server
        self._thread = thread

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    def stop(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def registry() -> CollectorRegistry:
    """The registry to serve: the sum over all processes where they share a folder, else this process's own."""
    if not os.environ.get(MULTIPROCESS_VARIABLE):
        return REGISTRY
    shared = CollectorRegistry()
    MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
    return shared


def serve_metrics(host: str, port: int, pages: Pages = lambda _path: None) -> MetricsServer:
    """Serve /metrics and `pages` on `host`:`port`; port 0 takes a free one. Raises OSError where the port is taken."""
    kind = _Server6 if ":" in host else _Server
    server = make_server(host, port, _application(pages), server_class=kind, handler_class=_Handler)
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    return MetricsServer(server, thread)


def _application(pages: Pages) -> WSGIApplication:
    prometheus: WSGIApplication = make_wsgi_app(registry())

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path, method = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"]
        if path == "/metrics":
            return prometheus(environ, start)
        status, kind, body = pages(path) or (404, _TEXT, b"no such page\n")
        if method not in ("GET", "HEAD"):
            status, kind, body = 405, _TEXT, b"GET or HEAD\n"
        headers = [("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
        headers.append(("Allow", "GET, HEAD"))
        start(f"{status} {HTTPStatus(status).phrase}", headers)
        return [b"" if method == "HEAD" else body]

    return answer


_cpu_told = 0.0


def show_process(name: str) -> None:
    """Set the metrics of this process; to be called every few seconds. `name` is router, meter, portal or serve."""
    global _cpu_told  # noqa: PLW0603 - there is one process
    used = resource.getrusage(resource.RUSAGE_SELF)
    PROCESS_CPU.labels(name).inc(max(0.0, used.ru_utime + used.ru_stime - _cpu_told))
    _cpu_told = used.ru_utime + used.ru_stime
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - proc(5): sizes in pages
        PROCESS_MEMORY.labels(name).set(int(file.read().split()[1]) * resource.getpagesize())


def mark_dead(pid: int) -> None:
    """Take a process that has ended out of the live gauges; its counters stay counted."""
    if os.environ.get(MULTIPROCESS_VARIABLE):
        mark_process_dead(pid)  # type: ignore[no-untyped-call]
