"""Ends abnormal dialogs: late or forged answers, and calls that were left up by a router that died.

The native side (scripts/pjsua2/baton_dialogs.i, baton_left.i) does it; here it is begun, counted and told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from book.model import PLAIN_TRUNK, Transport
from router.sip.counters import Counters
from router.sip.port import Target
from telemetry import metrics

if TYPE_CHECKING:
    from types import ModuleType

_log = structlog.get_logger("sip")
_FILES = ("ca_file", "certificate_file", "key_file")
for _why in ("address", "unmatched"):  # from 0, as in telemetry.metrics: an increase is seen from the first
    metrics.SIP_ANSWERS_DROPPED.labels(_why)
for _how in ("cancel", "bye", "refused", "unsent", "unreadable"):
    metrics.LEFT_CALLS.labels(_how)


def words_of(target: Target) -> str:
    """How a trunk over TLS is dialled, to end its calls by once this process is gone; no secret. Empty for others."""
    if target.transport is not Transport.TLS:
        return ""
    files = {name: str(getattr(target.policy, name)) for name in _FILES}
    return orjson.dumps({"verify": target.verify_tls, **files}).decode()


def target_of(words: str) -> Target | None:
    """The trunk that `words_of` described, as far as connecting to it goes. None where that cannot be read."""
    try:
        said = orjson.loads(words)
        files = {name: said[name] for name in _FILES}
        verify = said["verify"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(verify, bool) or not all(isinstance(one, str) for one in files.values()):
        return None
    return Target(uri="", transport=Transport.TLS, verify_tls=verify, policy=replace(PLAIN_TRUNK, **files))


class Dialogs:
    """The engine's doubts about dialogs, and its care for those of the router before."""

    def __init__(self, pj: ModuleType) -> None:
        self._pj = pj
        self._counters = Counters()

    # --- calls that a router which died has left ---

    def end_left(self, path: str, account_of: Callable[[Target], Any]) -> None:
        """CANCEL, BYE or 503 for each call that the file names; from now on it names ours. An empty path: no file."""
        if not path:
            return
        pj = self._pj
        found = pj.baton_left_load(path)
        if found < 0:
            self._failed("dialogs_not_read", path, pj.baton_left_error())
        for at in range(max(0, found)):
            words = pj.baton_left_words(at)
            target = target_of(words) if words else None
            if target is not None:
                try:
                    pj.baton_left_account(at, account_of(target).getId())
                except pj.Error as error:  # it is ended over any transport of its kind, or not at all
                    _log.warning("trunk_of_a_left_call_unusable", error=error.reason)
        problem = pj.baton_left_end()
        if problem:
            self._failed("dialogs_not_kept", path, f"errno {problem}")
        self._tell_left()

    def _failed(self, what: str, path: str, why: str) -> None:
        _log.error(what, file=path, error=why)
        metrics.ENGINE_FAULTS.labels(kind="dialogs").inc()

    def _tell_left(self) -> None:
        pj = self._pj
        ended = {
            "cancel": pj.baton_left_cancels(),
            "bye": pj.baton_left_byes(),
            "refused": pj.baton_left_refusals(),
            "unsent": pj.baton_left_failed(),
            "unreadable": pj.baton_left_unreadable(),
        }
        more = {how: self._counters.increase(f"left {how}", count) for how, count in ended.items()}
        for how, count in more.items():
            metrics.LEFT_CALLS.labels(how).inc(count)
        if any(more.values()):
            _log.warning("calls_of_a_dead_router_ended", **more)

    # --- once a second ---

    def sweep(self) -> None:
        """Forget INVITEs that can have no answer any more, and count what came for none."""
        pj = self._pj
        pj.baton_dialogs_sweep()
        pj.baton_left_sweep()
        strays = self._counters.increase("stray", pj.baton_strays())
        if strays:
            _log.warning("answers_of_nobodys_calls", count=strays)
            metrics.ENGINE_FAULTS.labels(kind="stray_answer").inc(strays)
        for why, dropped in (("address", pj.baton_forged_elsewhere()), ("unmatched", pj.baton_forged_unmatched())):
            more = self._counters.increase(why, dropped)
            if more:
                metrics.SIP_ANSWERS_DROPPED.labels(why).inc(more)
                _log.warning("answers_dropped", why=why, count=more, last=pj.baton_forged_source())
        odd = self._counters.increase("key", pj.baton_odd_keys())
        if odd:
            metrics.INVITES_TURNED_AWAY.labels("key").inc(odd)
            _log.warning("messages_refused", why="key", count=odd)
        failed = self._counters.increase("kept", pj.baton_hand_failed())
        if failed:
            _log.error("dialogs_not_written", count=failed)
            metrics.ENGINE_FAULTS.labels(kind="dialogs").inc(failed)
