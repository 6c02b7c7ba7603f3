"""The 15-second bound, by Baton's clock and by a packet capture's.

A secure trunk (TLS, verified certificate, SRTP mandatory) declines calls at moments spread evenly over 14.9 to 15.1 s
from the INVITE: half must be free, half must count. tshark on lo takes the packets between router and trunk; the
trunk writes down its TLS secrets, so the capture reads the very packets that the router sent and got: no relay, no
terminator, no second hop.

What differs by nature: Baton stamps the INVITE before it is encrypted and written (for the first of a connection,
before there is one), and the 486 after it was read and decrypted; the capture has both while they are on the loopback
device. So Baton's attempt is longer by the two, some tenths of a millisecond on an idle loop; what the loop was late,
`lag_us`, is on the record and is subtracted before the verdict. The rows "stamp less packet" say what they were. The
same again over plain UDP, durations alone: no buffer applies there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from baton.demo.parties import HOST, free_port
from bench import capture, scenarios, sipp
from bench.decliner import Decliner
from bench.rows import Row, exactly, none_of, seen
from bench.sipp import Load
from bench.stage import Baton, BenchError, Buyer
from bench.stats import percentile

BOUND_MS = 15_000
SPREAD_MS = (14_900, 15_100)
DOUBT_MS = 5.0  # a verdict that the capture would have decided otherwise must be this near to the bound
SETTLE_S = 60.0
_SEED = 15


@dataclass(frozen=True, slots=True)
class Attempt:
    """One decline by both clocks. Microseconds; `dialed_us` and `ended_us`: Baton's stamp less the packet's time."""

    baton_us: int
    lag_us: int
    wire_us: int
    verdict: str
    dialed_us: int
    ended_us: int

    @property
    def difference_ms(self) -> float:
        return (self.baton_us - self.wire_us) / 1000

    @property
    def from_bound_ms(self) -> float:
        """How far the wire's duration is from the bound."""
        return abs(self.wire_us / 1000 - BOUND_MS)

    @property
    def otherwise(self) -> bool:
        """The capture would have decided otherwise."""
        return (self.verdict == "within_buffer") != (self.wire_us < BOUND_MS * 1000)


async def measure(folder: Path, declines: int, rate: int, tell: Callable[[str], None]) -> list[Row]:
    """TLS first, then UDP, each with its own Baton. Raises BenchError where a party does not come up."""
    over_tls = await _run(folder / "tls", declines, rate, tell, secure=True)
    over_udp = await _run(folder / "udp", declines, rate, tell, secure=False)
    return [*rows("TLS", over_tls, declines), *verdict_rows(over_tls), *rows("UDP", over_udp, declines)]


def delays_s(count: int) -> list[float]:
    """Spread evenly over the whole range, in an order that has nothing to do with time."""
    low, high = SPREAD_MS
    found = [(low + (high - low) * (n + 0.5) / count) / 1000 for n in range(count)]
    random.Random(_SEED).shuffle(found)
    return found


async def _run(folder: Path, declines: int, rate: int, tell: Callable[[str], None], *, secure: bool) -> list[Attempt]:
    port = free_port()
    baton = Baton(folder, (Buyer("timed", (f"sip:agent@{HOST}:{port}",), secure=secure),))
    keys = folder / "tls-keys.txt" if secure else None
    decliner = Decliner(iter(delays_s(declines)))
    name = "capture"
    try:
        if keys is not None:
            await decliner.listen_tls(port, baton.certificates, keys)
        else:
            await decliner.listen_udp(port)
        file = await capture.start(baton.processes, name, "tcp" if secure else "udp", port)
        await baton.prepare()
        await baton.start()
        tell(f"buffer: {declines} declines over {'TLS' if secure else 'UDP'} at {rate}/s")
        await _dial(baton, declines, rate)
        if not await baton.idle(SETTLE_S):
            raise BenchError("transfers were not settled")
        await capture.stop(baton.processes, name)
        return pair(baton, await capture.read(file, port, keys))
    finally:
        await baton.stop()
        decliner.close()


async def _dial(baton: Baton, declines: int, rate: int) -> None:
    place = baton.processes.folder
    xml = place / "dialer.xml"
    xml.write_text(scenarios.dialer())
    limit_s = declines // rate + BOUND_MS // 1000 + 30
    numbers = sipp.write_numbers(place / "numbers.csv", declines)
    load = Load(xml, "timed", baton.sip_port, declines, rate, numbers, limit_s)
    await sipp.dialed(baton.processes, "dialer", load)


def pair(baton: Baton, wire: dict[str, capture.Span]) -> list[Attempt]:
    """Baton's facts and the capture's packets of every call that both have; a leg's Call-ID is `<transfer>-1`."""
    verdicts = {one.transfer: one.verdict for one in baton.store.settled()}
    dialed = {fact.transfer: fact for fact in baton.store.facts("dialed")}
    found = []
    for end in baton.store.facts("ended"):
        start, span = dialed.get(end.transfer), wire.get(f"{end.transfer}-1")
        if start is None or span is None:
            continue
        found.append(
            Attempt(
                baton_us=end.mono_us - start.mono_us,
                lag_us=end.lag_us,
                wire_us=span.us,
                verdict=verdicts.get(end.transfer, ""),
                dialed_us=start.utc_us - span.invite_us,
                ended_us=end.utc_us - span.final_us,
            )
        )
    return found


def rows(way: str, attempts: Sequence[Attempt], declines: int) -> list[Row]:
    """How far the two clocks are apart."""
    found = [exactly(f"{way}: declines compared", len(attempts), declines)]
    if not attempts:
        return found
    sizes = [abs(one.difference_ms) for one in attempts]
    largest = max(attempts, key=lambda one: abs(one.difference_ms))
    against = [one.difference_ms - one.lag_us / 1000 for one in attempts]
    lags = [one.lag_us / 1000 for one in attempts]
    note = (
        f"loop {largest.lag_us / 1000:.3f} ms late; stamps less packets: dial-out {largest.dialed_us / 1000:+.3f} ms,"
    )
    note += f" decline {largest.ended_us / 1000:+.3f} ms"
    return [
        *found,
        seen(f"{way}: attempt less capture, p50", percentile(sizes, 50), "ms"),
        seen(f"{way}: attempt less capture, p99", percentile(sizes, 99), "ms"),
        seen(f"{way}: attempt less capture, largest", abs(largest.difference_ms), "ms", note),
        seen(
            f"{way}: dial-out stamp less packet, p50", percentile([one.dialed_us / 1000 for one in attempts], 50), "ms"
        ),
        seen(f"{way}: decline stamp less packet, p50", percentile([one.ended_us / 1000 for one in attempts], 50), "ms"),
        seen(f"{way}: lag subtracted, p99", percentile(lags, 99), "ms", f"largest {max(lags):.3f} ms"),
        seen(
            f"{way}: against the buyer once that is off, p99",
            percentile(against, 99),
            "ms",
            f"largest {max(against):.3f} ms",
        ),
    ]


def verdict_rows(attempts: Sequence[Attempt]) -> list[Row]:
    """The verdicts that hang on the difference."""
    free = sum(one.verdict == "within_buffer" for one in attempts)
    otherwise = sorted(one.from_bound_ms for one in attempts if one.otherwise)
    against = sum(one.otherwise and one.verdict != "within_buffer" for one in attempts)
    far = sum(distance > DOUBT_MS for distance in otherwise)
    note = f"{against} of them against the buyer"
    if otherwise:
        note += f"; from the bound: {', '.join(f'{one:.3f}' for one in otherwise[-10:])} ms"
    return [
        seen("TLS: verdicts within_buffer", free, "", f"of {len(attempts)}"),
        seen("TLS: the capture would decide otherwise", len(otherwise), "", note),
        none_of(f"TLS: of those beyond {DOUBT_MS:g} ms of the bound", far),
    ]
