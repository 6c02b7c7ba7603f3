"""Health of trunks by probes with hysteresis: up, suspect, down. `Trunks` decides, `Prober` sends OPTIONS.

A trunk that is probed is `up` until proven otherwise: a router that has just started rings everybody. One bad probe
makes it `suspect`, which still rings; `down_after` in a row make it `down`, which does not; `up_after` good ones in a
row bring it back. Any answer but 503 counts as good: a trunk that says 404 or 401 to OPTIONS is there. Probes are
spread by up to a fifth of their interval, so that a hundred trunks are not asked in the same instant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random

import structlog

from router.sip.port import Clock, Probed, SipEngine, Target
from telemetry import metrics

_log = structlog.get_logger("router")
SPREAD = 0.2  # of the interval, either way
UNAVAILABLE = 503


class Health(StrEnum):
    UP = "up"
    SUSPECT = "suspect"
    DOWN = "down"


@dataclass(slots=True)
class Trunk:
    """One trunk that is probed. `streak`: results in a row of the same kind, bad ones below 0."""

    name: str
    target: Target
    health: Health = Health.UP
    streak: int = 0
    due_us: int = 0
    asked: bool = False  # a probe is under way
    took_us: int = 0  # the last good one


class Trunks:
    """All trunks that are probed, by a name of the caller's."""

    def __init__(self, *, down_after: int, up_after: int, on_change: Callable[[Trunk, Health], None]) -> None:
        self.down_after = down_after
        self.up_after = up_after
        self._on_change = on_change
        self._dice = Random()  # noqa: S311 - when to probe is no secret
        self._trunks: dict[str, Trunk] = {}

    def watch(self, wanted: dict[str, Target], now_us: int) -> None:
        """Exactly these from now on; what is known of one that stays is kept."""
        for name in self._trunks.keys() - wanted.keys():
            del self._trunks[name]
        for name, target in wanted.items():
            known = self._trunks.get(name)
            if known is None:
                first_us = now_us + round(self._dice.random() * min(1.0, target.policy.probe_s) * 1e6)
                self._trunks[name] = Trunk(name, target, due_us=first_us)
            else:
                known.target = target

    def due(self, now_us: int) -> Iterator[Trunk]:
        """Trunks to be probed now; each is due again an interval later."""
        for trunk in self._trunks.values():
            if not trunk.asked and trunk.due_us <= now_us:
                trunk.asked = True
                spread = 1 + SPREAD * (2 * self._dice.random() - 1)
                trunk.due_us = now_us + round(trunk.target.policy.probe_s * spread * 1e6)
                yield trunk

    def note(self, name: str, code: int, took_us: int) -> None:
        """Takes a probe's result; code 0: no answer."""
        trunk = self._trunks.get(name)
        if trunk is None:
            return
        trunk.asked = False
        good = code not in (0, UNAVAILABLE)
        trunk.streak = max(trunk.streak, 0) + 1 if good else min(trunk.streak, 0) - 1
        trunk.took_us = took_us if good else trunk.took_us
        before, trunk.health = trunk.health, self._next(trunk)
        if trunk.health is not before:
            self._on_change(trunk, before)

    def _next(self, trunk: Trunk) -> Health:
        if trunk.streak < 0:
            down = trunk.health is Health.DOWN or -trunk.streak >= self.down_after
            return Health.DOWN if down else Health.SUSPECT
        if trunk.health is Health.DOWN and trunk.streak < self.up_after:
            return Health.DOWN
        return Health.UP

    def health(self, name: str) -> Health:
        """`up` for a trunk that is not probed."""
        trunk = self._trunks.get(name)
        return trunk.health if trunk is not None else Health.UP

    @property
    def all(self) -> list[Trunk]:
        return list(self._trunks.values())


_VALUES = {Health.DOWN: 0, Health.SUSPECT: 1, Health.UP: 2}


class Prober:
    """Sends the probes, and registers with trunks that ask for it."""

    def __init__(self, engine: SipEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self.trunks = Trunks(down_after=1, up_after=1, on_change=self._changed)
        self._shown: set[str] = set()  # labels of the gauges

    def configure(self, down_after: int, up_after: int) -> None:
        self.trunks.down_after, self.trunks.up_after = down_after, up_after

    def look(self, wanted: dict[str, Target]) -> None:
        """Exactly these trunks are watched from now on; what is due is asked."""
        now_us = self._clock.now_us()
        for target in wanted.values():
            self._engine.registered(target)
        self._engine.keep_registered(list(wanted.values()))
        self.trunks.watch({name: one for name, one in wanted.items() if one.policy.probe_s}, now_us)
        for trunk in self.trunks.due(now_us):
            self._engine.probe(trunk.name, trunk.target)
        self._show()

    def _show(self) -> None:
        labels: dict[str, Trunk] = {metrics.TRUNKS.of(trunk.name): trunk for trunk in self.trunks.all}
        labels.pop(metrics.OTHER, None)
        for gone in self._shown - labels.keys():
            metrics.TRUNK_STATE.labels(gone).set(math.nan)
            metrics.TRUNK_PROBE.labels(gone).set(math.nan)
        for label, trunk in labels.items():
            metrics.TRUNK_STATE.labels(label).set(_VALUES[trunk.health])
            if trunk.took_us:
                metrics.TRUNK_PROBE.labels(label).set(trunk.took_us / 1e6)
        self._shown = set(labels)

    def on_probed(self, result: Probed) -> None:
        metrics.TRUNK_PROBES.labels("ok" if result.code else "no_answer").inc()
        self.trunks.note(result.key, result.code, result.took_us)

    def _changed(self, trunk: Trunk, before: Health) -> None:
        _log.warning("trunk_health", trunk=trunk.name, health=trunk.health.value, before=before.value)
