"""The demo's stories: how each party behaves, and the expected verdict.

Each story has a buyer and a campaign of its own, named like the story. Times are in milliseconds: for the callees
from the INVITE they get, for the caller from the answer (talk) or from its INVITE (giving up).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from baton.demo.scenarios import Callee, Caller

_RINGS = Callee()


class Way(StrEnum):
    """How an endpoint is reached."""

    SECURE = "secure"  # TLS to a terminator with SIPp behind it; SRTP answered
    PHONE = "phone"  # baresip: TLS and SRTP for real, answers at once
    TRUNK = "trunk"  # plain UDP
    DID = "did"  # a number behind the operator's carrier, plain UDP
    TWIN = "twin"  # plain UDP behind a relay that lets the 200s of both twins go in the same moment


@dataclass(frozen=True, slots=True)
class Place:
    """One endpoint of a story's buyer."""

    way: Way
    callee: Callee = _RINGS


@dataclass(frozen=True, slots=True)
class Story:
    """`verdict`, `reason` and `counts_as` are what the domain's table says; `late` how many answers come too late."""

    name: str
    title: str
    caller: Caller
    places: tuple[Place, ...]
    verdict: str
    reason: str
    counts_as: str
    late: int = 0
    winner: int = 0  # leg that must win; 0: any, or none
    suppressed: bool = False

    @property
    def expected(self) -> str:
        return f"{self.verdict}/{self.reason}"


def _lead(first: str, last: str, **more: str) -> tuple[tuple[str, str], ...]:
    return (("First-Name", first), ("Last-Name", last), *((k.replace("_", "-"), v) for k, v in more.items()))


STORIES: tuple[Story, ...] = (
    Story(
        name="connected",
        title="answers at once on TLS and SRTP, 17 s of talk",
        caller=Caller("+12125550101", _lead("Ada", "Ames", State="NY"), bye_after_ms=17_000),
        places=(Place(Way.PHONE),),
        verdict="connected",
        reason="answered",
        counts_as="connected",
        winner=1,
    ),
    Story(
        name="second-of-three",
        title="the second of three endpoints answers, 16 s of talk",
        caller=Caller("+12125550102", _lead("Bob", "Best"), bye_after_ms=16_000),
        places=(Place(Way.TRUNK, _RINGS), Place(Way.TRUNK, Callee(answer_ms=3_000)), Place(Way.TRUNK, _RINGS)),
        verdict="connected",
        reason="answered",
        counts_as="connected",
        winner=2,
    ),
    Story(
        name="declined-16s",
        title="secure trunks, all decline after 16 s: past the buffer",
        caller=Caller(
            "+12125550103",
            lead_as_json='{"first_name": "Cleo", "last_name": "Cole", "email": "cleo@example.net", "city": "Troy"}',
        ),
        places=(
            Place(Way.SECURE, Callee(decline_ms=16_000)),
            Place(Way.SECURE, Callee(decline_ms=15_500, decline_code=603)),
        ),
        verdict="failed",
        reason="declined",
        counts_as="failed",
    ),
    Story(
        name="declined-3s-secure",
        title="secure trunks, all decline at 3 s: within the buffer",
        caller=Caller("+12125550104", _lead("Dan", "Dale")),
        places=(Place(Way.SECURE, Callee(decline_ms=3_000)), Place(Way.SECURE, Callee(decline_ms=2_000))),
        verdict="within_buffer",
        reason="declined",
        counts_as="free",
    ),
    Story(
        name="declined-3s-did",
        title="a DID declines at 3 s: no buffer on DIDs",
        caller=Caller("+12125550105", _lead("Eve", "East", Email="eve@example.net")),
        places=(Place(Way.DID, Callee(decline_ms=3_000)),),
        verdict="failed",
        reason="declined",
        counts_as="failed",
    ),
    Story(
        name="ring-out",
        title="secure trunk, nobody answers for 30 s",
        caller=Caller("+12125550106", _lead("Finn", "Fox")),
        places=(Place(Way.SECURE, _RINGS),),
        verdict="failed",
        reason="no_answer",
        counts_as="failed",
    ),
    Story(
        name="buyer-abandons",
        title="the buyer answers and hangs up at 10 s of talk",
        caller=Caller("+12125550107", _lead("Gus", "Gray")),
        places=(Place(Way.TRUNK, Callee(answer_ms=2_000, bye_after_ms=10_000)), Place(Way.TRUNK, _RINGS)),
        verdict="failed",
        reason="buyer_abandoned",
        counts_as="failed",
        winner=1,
    ),
    Story(
        name="caller-abandons",
        title="secure trunk, the caller hangs up after 20 s of ringing",
        caller=Caller("+12125550108", _lead("Hal", "Hart"), cancel_ms=20_000),
        places=(Place(Way.SECURE, _RINGS),),
        verdict="caller_abandoned",
        reason="caller_gone",
        counts_as="free",
    ),
    Story(
        name="suppressed",
        title="the number is on the buyer's list: nothing rings",
        caller=Caller("+12125550109", _lead("Ivy", "Ink")),
        places=(Place(Way.TRUNK, Callee(answer_ms=1_000)),),
        verdict="not_attempted",
        reason="suppressed",
        counts_as="free",
        suppressed=True,
    ),
    Story(
        name="photo-finish",
        title="two endpoints answer in the same moment: one winner",
        caller=Caller("+12125550110", _lead("Jan", "Jones"), bye_after_ms=16_000),
        places=(Place(Way.TWIN, Callee(answer_ms=2_000)), Place(Way.TWIN, Callee(answer_ms=2_000))),
        verdict="connected",
        reason="answered",
        counts_as="connected",
        late=1,
    ),
)
