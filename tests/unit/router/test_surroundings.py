"""The state of the moment: which transfers count as whose, why an endpoint may not ring, which trunks are watched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from book.limits import Usage
from book.model import Book, Buyer, Endpoint, EndpointKind, Terms, Transport, TrunkPolicy
from facts.outcome import OutcomeTerms
from router.config import Carrier
from router.routing.health import Trunks
from router.routing.trunks import trunk_addresses, trunk_target, watched
from router.sip.port import Invite, Target
from router.surroundings import LiveTransfers, RouterSurroundings
from router.transfer import model as m
from router.transfer.shell import Start, TransferShell
from tests.memory import MemoryEngine, VirtualClock
from tests.world import Counts, Lists, World, did, plain

INVITE = Invite("in1", 1_000, 0, "127.0.0.1", 5060, "in1@dialer", "leads", "+12125550123")
REGISTRAR = "sip:registrar.invalid"


def transfer(name: str, *endpoints: Endpoint, buyer: str = "acme", refusal: str = "") -> TransferShell:
    """A transfer whose endpoints are to be dialled; where it is refused none is."""
    rings = endpoints or (plain(1),)
    plan = m.Plan(0 if refusal else len(rings), 0, 30_000, 15_000)
    start = Start(name, INVITE, plan, rings, buyer, "+12125550123", {}, OutcomeTerms(), refusal)
    return TransferShell(World([plain(1)]).router, start)


def acme(*endpoints: Endpoint) -> Buyer:
    return Buyer("acme", "Acme", Terms("westlake-fulfillment"), endpoints)


def names(live: LiveTransfers, buyer: str) -> list[str]:
    return [shell.transfer for shell in live.of_buyer(buyer)]


# --- live transfers --------------------------------------------------------------------------------------------------


def test_a_buyers_transfers_are_those_that_are_up_and_no_others() -> None:
    live = LiveTransfers()
    for shell in (transfer("a-1"), transfer("a-2"), transfer("b-1", buyer="bolt")):
        live.enter(shell)
    assert (names(live, "acme"), names(live, "bolt"), names(live, "core")) == (["a-1", "a-2"], ["b-1"], [])
    live.leave(live["a-1"])
    assert (names(live, "acme"), names(live, "bolt"), list(live)) == (["a-2"], ["b-1"], ["a-2", "b-1"])


def test_a_refused_transfer_is_up_until_it_is_closed_and_takes_nobodys_line() -> None:
    live = LiveTransfers()
    refused = transfer("a-1", refusal="paused")
    live.enter(refused)
    assert (list(live), names(live, "acme")) == (["a-1"], [])
    live.leave(refused)
    assert list(live) == []


def test_to_enter_or_to_leave_twice_counts_once() -> None:
    live = LiveTransfers()
    first, second = transfer("a-1"), transfer("a-2")
    for shell in (first, first, second):
        live.enter(shell)
    assert names(live, "acme") == ["a-1", "a-2"]
    live.leave(first)
    live.leave(first)
    assert (list(live), names(live, "acme")) == (["a-2"], ["a-2"])
    live.leave(second)
    assert live == {}
    assert live._of == {}, "buyers without a transfer are forgotten"
    live.leave(second)


# --- why an endpoint may not ring ------------------------------------------------------------------------------------


class Surroundings:
    """`RouterSurroundings` with its parts at hand. `own`: the policy of the carrier that all DIDs go through."""

    def __init__(self, own: TrunkPolicy | None = None) -> None:
        self.live = LiveTransfers()
        self.engine = MemoryEngine(VirtualClock())
        self.trunks = Trunks(down_after=1, up_after=1, on_change=lambda *_: None)
        self.lists, self.counts = Lists({"+12125550100"}), Counts()
        target = Target(uri="sip:{number}@carrier.invalid", policy=own or TrunkPolicy())
        self.around = RouterSurroundings(
            live=self.live,
            carriers={"own": Carrier("own", target)},
            trunks=self.trunks,
            engine=self.engine,
            scrubber=self.lists,
            usage=self.counts,
        )

    def probed(self, name: str, code: int) -> None:
        self.trunks.watch({**{one.name: one.target for one in self.trunks.all}, name: Target("sip:x")}, 0)
        self.trunks.note(name, code, 1_000)

    def why(self, endpoint: Endpoint) -> str:
        return self.around.left_out(acme(endpoint), endpoint)


def trunk(number: int = 1, **policy: Any) -> Endpoint:
    return replace(plain(number), policy=TrunkPolicy(**policy))


def test_what_the_store_and_the_lists_say_is_handed_on_of_that_buyer_and_number() -> None:
    scene = Surroundings()
    scene.counts.of["acme"] = Usage(hour=4)
    scene.live.enter(transfer("a-1"))
    around = scene.around
    assert (around.usage("acme").hour, around.usage("bolt").hour) == (4, 0)
    assert (around.live("acme"), around.live("bolt")) == (1, 0)
    assert [around.scrub("acme", f"+1212555010{last}").reason for last in (0, 1)] == ["suppressed", ""]


@pytest.mark.parametrize(
    ("what", "policy", "code", "registered", "why"),
    [
        ("nothing is known against it", {}, 200, True, ""),
        ("its last probe failed", {"probe_s": 5}, 503, True, "down"),
        ("it answers again", {"probe_s": 5}, 404, True, ""),
        ("its registrar has not taken us", {"registrar": REGISTRAR}, 200, False, "unregistered"),
        ("its registrar has taken us, and it does not answer", {"registrar": REGISTRAR}, 0, True, "down"),
        ("neither: registration is asked first", {"registrar": REGISTRAR}, 0, False, "unregistered"),
        ("it is neither probed nor registered: what is said under its name is another's", {}, 503, False, ""),
    ],
)
@pytest.mark.parametrize("kind", [EndpointKind.TRUNK, EndpointKind.DID])
def test_a_trunk_or_carrier_that_cannot_be_reached_is_left_out(  # noqa: PLR0917 - a row of the table
    kind: EndpointKind, what: str, policy: dict[str, Any], code: int, registered: bool, why: str
) -> None:
    is_did = kind is EndpointKind.DID
    scene = Surroundings(TrunkPolicy(**policy) if is_did else None)
    endpoint = did(1) if is_did else trunk(**policy)
    if policy or not is_did:
        scene.probed("carrier/own" if is_did else "acme/trunk1", code)
    if not registered:
        scene.engine.unregistered.add(REGISTRAR)
    assert scene.why(endpoint) == why, what
    assert scene.why(plain(2)) == "", "another endpoint is as it was"


def test_a_did_whose_carrier_is_no_longer_configured_is_left_out_and_a_trunk_needs_none() -> None:
    scene = Surroundings()
    assert scene.why(replace(did(1), carrier="gone")) == "no_carrier"
    assert scene.why(replace(plain(1), carrier="gone")) == ""
    scene = Surroundings(TrunkPolicy(probe_s=5))
    scene.probed("carrier/own", 503)
    assert scene.why(replace(plain(1), carrier="own")) == ""


def test_another_buyers_trunk_of_the_same_name_is_down_alone() -> None:
    scene = Surroundings()
    scene.probed("bolt/trunk1", 503)
    endpoint = trunk(probe_s=5)
    assert scene.why(endpoint) == ""
    assert scene.around.left_out(replace(acme(endpoint), name="bolt"), endpoint) == "down"


def _ended(shell: TransferShell, number: int) -> TransferShell:
    shell.state = shell.state.with_leg(number, m.LegPhase.ENDED)
    return shell


@pytest.mark.parametrize(
    ("what", "up", "busy"),
    [
        ("nobody rings", [], False),
        ("one of two lines is taken", [("a-1", "acme", 0)], False),
        ("both are taken", [("a-1", "acme", 0), ("a-2", "acme", 0)], True),
        ("one of both has ended its leg, and its transfer goes on", [("a-1", "acme", 1), ("a-2", "acme", 0)], False),
        ("another leg of it has ended, not this one", [("a-1", "acme", 2), ("a-2", "acme", 0)], True),
        ("another buyer's trunk has the same name", [("a-1", "acme", 0), ("b-1", "bolt", 0)], False),
    ],
)
def test_a_trunk_with_all_its_lines_taken_is_busy(what: str, up: list[tuple[str, str, int]], busy: bool) -> None:
    scene = Surroundings()
    for name, buyer, ended in up:
        shell = transfer(name, plain(1), plain(2), buyer=buyer)
        scene.live.enter(_ended(shell, ended) if ended else shell)
    assert scene.why(trunk(1, max_calls=2)) == ("busy" if busy else ""), what
    assert scene.why(trunk(1)) == "", "where there is no limit nothing is busy"


@pytest.mark.parametrize(("most", "why"), [(0, ""), (2, "busy"), (3, "")])
def test_a_carriers_lines_are_taken_by_the_legs_of_all_buyers(most: int, why: str) -> None:
    scene = Surroundings(TrunkPolicy(max_calls=most))
    scene.live.enter(transfer("a-1", did(1), plain(2)))
    scene.live.enter(transfer("b-1", did(5), buyer="bolt"))
    assert scene.why(did(1)) == why
    assert scene.why(trunk(9, max_calls=2)) == "", "a trunk does not go through the carrier"


def test_a_transfer_that_was_refused_takes_no_carriers_line() -> None:
    scene = Surroundings(TrunkPolicy(max_calls=1))
    scene.live.enter(transfer("a-1", did(1), refusal="paused"))
    assert scene.why(did(1)) == ""


# --- what is watched -------------------------------------------------------------------------------------------------


def test_what_is_probed_or_registered_is_watched_and_nothing_else() -> None:
    endpoints = (
        trunk(1, probe_s=5),
        trunk(2, registrar=REGISTRAR),
        trunk(3, max_calls=9),
        replace(trunk(4, probe_s=5), enabled=False),
        replace(did(5), policy=TrunkPolicy(probe_s=5)),
    )
    carriers = {
        "own": Carrier("own", Target("sip:{number}@carrier.invalid:5070", policy=TrunkPolicy(probe_s=9))),
        "spare": Carrier("spare", Target("sip:{number}@spare.invalid")),
    }
    found = watched(Book(1, {"acme": acme(*endpoints)}), carriers)
    assert sorted(found) == ["acme/trunk1", "acme/trunk2", "carrier/own"]
    assert found["carrier/own"] == replace(carriers["own"].target, uri="sip:carrier.invalid:5070")  # nobody's number
    assert found["acme/trunk1"] == trunk_target(endpoints[0])


def test_a_trunks_target_is_what_the_book_says_of_it() -> None:
    endpoint = Endpoint(
        "pbx",
        EndpointKind.TRUNK,
        "sip:pbx.invalid",
        transport=Transport.TCP,
        verify_tls=False,
        username="u",
        password="p",
        policy=TrunkPolicy(codecs=("opus",)),
    )
    expected = Target("sip:pbx.invalid", transport=Transport.TCP, verify_tls=False, username="u", password="p")
    assert trunk_target(endpoint) == replace(expected, policy=endpoint.policy)


@pytest.mark.parametrize(
    ("uri", "addresses"),
    [
        ("sip:192.0.2.7", {"192.0.2.7"}),
        ("sip:leads@192.0.2.7:5070;transport=tcp", {"192.0.2.7"}),
        ("sip:[2001:DB8::0:7]:5061", {"2001:db8::7"}),  # in one spelling, as the transport says it
        ("sip:pbx.invalid", set()),  # known by where the name led
        ("sip:192.0.2.7@pbx.invalid", set()),  # a user that looks like an address
        ("sip:192.0.2.777", set()),
        ("no URI", set()),
    ],
)
def test_the_addresses_of_trunks_are_those_that_are_written_as_such(uri: str, addresses: set[str]) -> None:
    endpoint = replace(plain(1), uri=uri)
    assert trunk_addresses(Book(1, {"acme": acme(endpoint)}), {}) == addresses
    by_carrier = {"own": Carrier("own", Target(uri))}
    assert trunk_addresses(Book(), by_carrier) == addresses


def test_a_carriers_number_and_a_did_are_no_addresses() -> None:
    carriers = {"own": Carrier("own", Target("sip:{number}@198.51.100.4"))}
    book = Book(1, {"acme": acme(replace(did(1), uri="sip:203.0.113.9"), replace(plain(2), uri="sip:192.0.2.7"))})
    assert trunk_addresses(book, carriers) == {"198.51.100.4", "192.0.2.7"}
