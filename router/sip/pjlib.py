"""Loads our build of pjsua2; the engine's configuration and what it cannot start without."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import structlog

from book.model import Srtp, Transport
from router.sip.tracing import start_trace
from telemetry import metrics

if TYPE_CHECKING:
    from types import ModuleType

FDS_PER_CALL = 2  # RTP and RTCP
MAX_NAMESERVERS = 3  # as many as resolv.conf(5) takes
SPARE_FDS = 512  # store, logs, listeners, recordings, our own connections to trunks
SHARE = 500.0  # requests outside dialogs a second of one dialer, twice as many at once: above any that was measured

_log = structlog.get_logger("sip")
P = ParamSpec("P")


class EngineUnusableError(RuntimeError):
    """The engine cannot carry what the configuration asks for; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Where dialers reach us, and from where we dial."""

    transport: Transport
    address: str
    port: int
    public_address: str = ""
    certificate: str = ""
    key: str = ""
    ca_file: str = ""
    srtp: Srtp = Srtp.OFF


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """The configuration of one engine. `max_calls` counts slots: a transfer to five endpoints uses six."""

    listeners: tuple[Listener, ...]
    max_calls: int = 1000
    rtp_port_min: int = 20_000
    rtp_port_max: int = 40_000
    rtp_address: str = ""
    user_agent: str = "Baton"
    trunk_ca_file: str = ""
    trunk_certificate: str = ""
    trunk_key: str = ""
    clock_hz: int = 8000  # sampling rate of the bridge
    dialogs_file: str = ""  # dialogs in hand, for the next router should this one die; empty: not kept
    trace_bytes: int = 0  # of the last SIP messages that are kept; 0: none
    max_connections: int = 1000  # over TCP and TLS that others made; a dialer has one or a few
    max_connections_each: int = 100  # from one address
    nameservers: tuple[str, ...] = ()  # empty: host names block the loop while the system looks them up


def guarded(callback: Callable[P, None]) -> Callable[P, None]:
    """Every callback from PJSIP: an exception would be printed and lost there; here it is counted and told."""

    @functools.wraps(callback)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            callback(*args, **kwargs)
        except Exception:  # noqa: BLE001 - PJSIP would print and swallow it
            _log.exception("callback_failed", callback=callback.__name__)
            metrics.ENGINE_FAULTS.labels(kind="callback").inc()
            fault = getattr(args[0], "fault", None)
            if fault is not None:
                fault(callback.__name__)

    return wrapper


def load_pjsua2() -> ModuleType:
    """Import our build of pjsua2. Raises EngineUnusableError where it is missing or somebody else's."""
    try:
        import pjsua2  # noqa: PLC0415 - every command but the router works without it
    except ImportError as error:
        raise EngineUnusableError(f"pjsua2 is not installed ({error}); run scripts/bootstrap") from error
    if not hasattr(pjsua2, "baton_tap_start"):
        raise EngineUnusableError(
            "this pjsua2 is not Baton's build: ready-made wheels carry four calls whatever they are told; "
            "run scripts/bootstrap, which builds the right one"
        )
    module: ModuleType = pjsua2
    return module


def system_nameservers(path: Path = Path("/etc/resolv.conf")) -> tuple[str, ...]:
    """The servers that resolv.conf(5) names; empty where there is none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return ()
    words = [line.split() for line in lines]
    return tuple(one[1] for one in words if len(one) > 1 and one[0] == "nameserver")[:MAX_NAMESERVERS]


def start_tap(pj: ModuleType, trace_bytes: int = 0) -> None:
    """Start the tap and the trace, and unhook what nobody listens to. Raises EngineUnusableError."""
    status = pj.baton_tap_start() or start_trace(pj, trace_bytes)
    if status:
        raise EngineUnusableError(f"the SIP tap did not start: pj_status {status}")
    status = pj.baton_gate_start()
    if status:
        raise EngineUnusableError(f"the SIP gate did not start: pj_status {status}")
    pj.baton_quiet()
    pj.baton_media_start()
    status = pj.baton_where_start()
    if status:
        raise EngineUnusableError(f"the look at addresses did not start: pj_status {status}")


def epoll_descriptors() -> set[int]:
    found = set()
    with contextlib.suppress(OSError):
        for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are all that is wanted
            with contextlib.suppress(OSError, ValueError):
                if os.readlink(f"/proc/self/fd/{entry}") == "anon_inode:[eventpoll]":  # noqa: PTH115
                    found.add(int(entry))
    return found


def check_addresses(config: EngineConfig) -> None:
    """Every address that is bound must be this machine's, and IPv4. Raises EngineUnusableError naming the setting."""
    told = [("router.rtp_address", config.rtp_address)]
    told += [(f"listeners.address ({one.transport.value}, port {one.port})", one.address) for one in config.listeners]
    for name, address in told:
        if ":" in address:
            raise EngineUnusableError(f"{name} = {address}: the engine speaks IPv4 only")
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind((address, 0))
        except OSError as error:
            raise EngineUnusableError(f"{name} = {address} is no address of this machine ({error.strerror})") from error
    shown = {one.public_address for one in config.listeners if one.address in ("", "0.0.0.0")}  # noqa: S104 - compared
    if len(shown - {""}) > 1:
        raise EngineUnusableError(
            f"listeners.public_address: {', '.join(sorted(shown - {''}))} for every address of this machine at once; "
            "give each of these listeners an address of its own"
        )


def check_limits(config: EngineConfig) -> None:
    """RTP ports and file descriptors for every call. Raises EngineUnusableError naming the setting."""
    ports = config.rtp_port_max - config.rtp_port_min + 1
    if ports < FDS_PER_CALL * config.max_calls:
        raise EngineUnusableError(
            f"router.rtp_port_min..rtp_port_max: {ports} ports are too few for router.max_calls = "
            f"{config.max_calls}: {FDS_PER_CALL * config.max_calls} are needed"
        )
    needed = FDS_PER_CALL * config.max_calls + config.max_connections + SPARE_FDS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise EngineUnusableError(
                f"router.max_calls = {config.max_calls} needs {needed} file descriptors, the hard limit is {hard} "
                "(ulimit -n, or LimitNOFILE in the unit)"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
        _log.info("descriptor_limit_raised", before=soft, now=needed, hard=hard)
