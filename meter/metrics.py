"""Every metric of Baton: the objects, what they mean, and how they are served. A leaf: it imports nothing of Baton.

The router's and the meter's processes set them; with PROMETHEUS_MULTIPROC_DIR in the environment before this module is
imported, each process writes files there and whoever serves adds them up (`serve_metrics`). A process that ended is
taken out of the live gauges by `mark_dead`. Label values come from closed sets or from configuration, never from the
network, so the number of series is bounded by verdicts x reasons.

`CATALOGUE` lists all of them for the documentation and for the test of the dashboards.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

REGISTRY = CollectorRegistry()

# Seconds. A set-up is a dial-out, ringing and an answer; ringing ends by the ring timeout of 30 s.
_RING_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 12, 15, 20, 25, 30, 45, 60)
# Talk: 15 s decides whether a unit is billed; sales calls last minutes.
_TALK_BUCKETS = (1, 5, 10, 15, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600)
# Scrub: microseconds in memory (domain 10 asks for all lists in one look).
_SCRUB_BUCKETS = (0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.25)
# Commit: 0.1 to 3 ms on a good disk; `admit` gives up at 2 s.
_COMMIT_BUCKETS = (0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 2, 10)


def _gauge(name: str, text: str, labels: tuple[str, ...] = (), mode: str = "livesum") -> Gauge:
    return Gauge(name, text, labels, registry=REGISTRY, multiprocess_mode=mode)  # type: ignore[arg-type]


def _counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
    return Counter(name, text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
    return Histogram(name, text, buckets=buckets, registry=REGISTRY)


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
OUTBOX_DEPTH = _gauge("baton_outbox_depth", "Messages waiting to be delivered.", ("channel",), "livemax")
OUTBOX_OLDEST = _gauge("baton_outbox_oldest_seconds", "Age of the oldest message waiting.", ("channel",), "livemax")
OUTBOX_DEAD = _counter("baton_outbox_dead_total", "Messages given up.", ("channel",))
MAIL_SENT = _counter("baton_mail_sent_total", "Attempts to send an e-mail: sent, retried or dead.", ("result",))
MAIL_BOUNCES = _gauge(
    "baton_mail_bounces", "Recipients that bounced in the last seven days.", ("permanent",), "livemax"
)
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
INVITES_TURNED_AWAY = _counter(
    "baton_invites_turned_away_total",
    "INVITEs answered at once without a transfer: challenge, password, rate, concurrency, loop, hops.",
    ("why",),
)
SIP_DROPPED = _counter(
    "baton_sip_dropped_total", "SIP requests dropped without an answer: from nobody's address, or locked out."
)
TRUNK_PROBES = _counter("baton_trunk_probes_total", "OPTIONS to trunks: ok or no_answer.", ("result",))
TRUNK_STATE = _gauge("baton_trunk_state", "State of a probed trunk: 0 down, 1 suspect, 2 up.", ("trunk",), "livemin")
SCRUB = _counter("baton_scrub_total", "Suppression checks: pass, suppressed or unavailable.", ("result",))
LISTS = _gauge(
    "baton_suppression_lists", "Suppression lists in force: usable, or unavailable and so refusing.", ("state",)
)
LIST_ENTRIES = _gauge("baton_suppression_entries", "Entries of all usable suppression lists.", mode="livemax")
SCRUB_SECONDS = _histogram("baton_scrub_seconds", "Time of one suppression check over all lists.", _SCRUB_BUCKETS)
LOOP_LAG = _gauge("baton_loop_lag_seconds", "The most an event waited for the loop in the last second.", mode="livemax")
JOURNAL_BACKLOG = _gauge("baton_journal_backlog_facts", "Facts not yet durable.")
JOURNAL_COMMIT = _histogram("baton_journal_commit_seconds", "Time of one commit of facts.", _COMMIT_BUCKETS)

BILLING_STEPS = _counter("baton_billing_steps_total", "Steps of the billing cycle that did something.", ("step",))
BILLING_TROUBLE = _gauge(
    "baton_billing_trouble", "Steps of the last billing run that could not be done.", (), "mostrecent"
)
INVOICES_OVERDUE = _gauge("baton_invoices_overdue", "Invoices that are due and not paid.", (), "livemax")
REFUNDS_DUE = _gauge("baton_refunds_due", "Checks on the worklist that were not sent yet.", (), "livemax")
REPORTS_ISSUED = _counter("baton_reports_issued_total", "Daily reports of per-minute service that were issued.")
CREDITS_OPEN = _gauge("baton_credit_requests_open", "Credit requests that wait for their review.", (), "livemax")
CREDITS_OLDEST = _gauge("baton_credit_oldest_seconds", "Age of the oldest open credit request.", (), "livemax")

# Set by both.
ENGINE_FAULTS = _counter("baton_engine_faults_total", "Faults of our own, by the part that failed.", ("kind",))
BUILD_INFO = _gauge("baton_build_info", "Always 1; the version that runs.", ("version",), "max")


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


class MetricsServer:
    """The HTTP server of /metrics, in a thread of its own."""

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
    """What is to be served: the sum over all processes where they share a folder, else this process's own."""
    if not os.environ.get(MULTIPROCESS_VARIABLE):
        return REGISTRY
    shared = CollectorRegistry()
    MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
    return shared


def serve_metrics(host: str, port: int) -> MetricsServer:
    """Serve /metrics on `host`:`port`; port 0 takes a free one. Raises OSError where the port is taken."""
    return MetricsServer(*start_http_server(port, addr=host, registry=registry()))


def mark_dead(pid: int) -> None:
    """Take a process that has ended out of the live gauges; its counters stay counted."""
    if os.environ.get(MULTIPROCESS_VARIABLE):
        mark_process_dead(pid)  # type: ignore[no-untyped-call]
