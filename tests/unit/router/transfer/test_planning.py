"""What is fixed when a transfer begins: the call's id, the plan, the terms, how each endpoint is dialled."""

from __future__ import annotations

import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from book.model import Buyer, Campaign, Endpoint, Rating, Srtp, Terms, Transport, TrunkPolicy
from facts.answers import ScrubResult
from facts.outcome import NOT_ATTEMPTED_REASONS, CountsAs, OutcomeTerms, Reason
from router.config import Carrier
from router.lead import Lead
from router.routing.selection import REFUSAL_CODES, BuyerRefusal, Selection
from router.sip.port import Invite, Target
from router.transfer import model as m
from router.transfer.planning import CALL_ID_UNREAD, start_of, target_of
from router.transfer.shell import Start
from tests.memory import Script
from tests.world import SECOND_US, World, declines, did, party, plain, secure


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["abc@host"], "abc@host"),
        (["f1b2c3d4-0199@10.1.1.1:5060"], "f1b2c3d4-0199@10.1.1.1:5060"),
        (["%!*_+`'~()<>:\\\"/[]?{}@x.y"], "%!*_+`'~()<>:\\\"/[]?{}@x.y"),  # all of a callid, RFC 3261 section 25.1
        (["  c-9\t"], "c-9"),
        (["c-9", " c-9"], "c-9"),
        (["x" * 64], "x" * 64),
        (["x" * 65], ""),
        (["two words"], ""),
        (["c-9", "c-10"], ""),
        (["caf\u00e9"], ""),
        (["c\x00"], ""),
    ],
)
def test_a_call_id_is_kept_whole_or_not_at_all_and_that_is_said(given: list[str], kept: str) -> None:
    world = World([plain(1)]).script(party(declines(1_000)))
    world.engine.invite("leads", Script(()), headers={"x-call-id": given})
    world.clock.run_for(10 * SECOND_US)
    started = world.journal.facts[0]
    assert started.payload["call_id"] == (kept or started.transfer)
    assert started.payload.get("lead_problems", []) == ([] if kept else [CALL_ID_UNREAD])


@pytest.mark.parametrize("given", [[], [""], [" "]])
def test_without_one_our_own_id_is_taken_and_nothing_is_wrong(given: list[str]) -> None:
    world = World([plain(1)]).script(party(declines(1_000)))
    world.engine.invite("leads", Script(()), headers={"x-call-id": given} if given else {})
    world.clock.run_for(10 * SECOND_US)
    started = world.journal.facts[0]
    assert started.payload["call_id"] == started.transfer
    assert "lead_problems" not in started.payload


# --- what is fixed when a transfer begins ----------------------------------------------------------------------------

PHONE = "+12125550123"
LIMITS = (4_000, 700)  # rtp_timeout_ms, fast_answer_ms
OWN = Carrier("own", Target(uri="sip:{number}@carrier.invalid;user=phone"))
SPARE = Carrier("spare", Target(uri="sip:{number}@spare.invalid"))


def buyer(*endpoints: Endpoint, terms: Terms | None = None, name: str = "acme") -> Buyer:
    return Buyer(
        name, name.title(), terms or Terms("westlake-fulfillment"), endpoints or (plain(1),), lead_emails=("a@b.c",)
    )


def selection(*endpoints: Endpoint, campaign: dict[str, Any] | None = None, **more: Any) -> Selection:
    taken = buyer(*endpoints, terms=more.pop("terms", None))
    leads = Campaign("leads", ("acme",), **(campaign or {}))
    return Selection(**{"campaign": leads, "buyer": taken, "endpoints": taken.endpoints, "seed": 7, **more})


def start(given: Selection | None = None, *, invite: dict[str, Any] | None = None, **more: Any) -> Start:
    """Of a transfer `t1`; `more` overrides what `start_of` takes, `invite` fields of the INVITE."""
    came: dict[str, Any] = {"user": "leads", "caller": PHONE, **(invite or {})}
    taken: dict[str, Any] = {
        "lead": Lead(PHONE, {"phone": PHONE}),
        "dialer": "local",
        "refusal": "",
        "limits": None,
        "plan_limits": LIMITS,
        "carriers": {"own": OWN, "spare": SPARE},
        "sign": lambda scrub, whose: f"signed.{whose}.{scrub.reason or 'pass'}",
        **more,
    }
    lead = taken.pop("lead")
    heard = Invite("in1", 1_000, 0, "127.0.0.1", 5060, "in1@dialer", **came)
    return start_of(taken.pop("transfer", "t1"), heard, lead, given or selection(), **taken)


def test_where_a_transfer_is_refused_nothing_is_planned_and_the_record_still_names_who_would_have_rung() -> None:
    refused = start(selection(secure(1), secure(2)), refusal=Reason.NO_CAPACITY)
    assert (refused.plan.legs, refused.plan.of_legs) == (0, ())
    assert (refused.refusal, refused.refusal_code) == ("no_capacity", 503)
    assert [one["name"] for one in refused.payload["endpoints"]] == ["trunk1", "trunk2"]
    taken = start(selection(secure(1), secure(2)))
    assert (taken.plan.legs, len(taken.plan.of_legs), taken.refusal) == (2, 2, "")
    assert taken.payload == refused.payload


@pytest.mark.parametrize("reason", [*sorted(NOT_ATTEMPTED_REASONS), "a word of a store that is newer than we are"])
def test_every_refusal_has_a_final_answer_and_an_unknown_one_is_our_fault(reason: str) -> None:
    code = start(refusal=reason).refusal_code
    assert 400 <= code <= 699
    assert code == REFUSAL_CODES.get(reason, 500)


def test_the_plan_has_the_campaigns_ways_and_each_endpoints_own(tmp_path: Path) -> None:
    whisper = tmp_path / "whisper.wav"
    with wave.open(str(whisper), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(b"\0\0" * 12_000)
    keyed = replace(secure(1), ring_timeout_ms=9_000, accept_key="5", accept_timeout_ms=6_000)
    heard = replace(secure(2), whisper_file=str(whisper))
    unread = replace(secure(3), whisper_file=str(tmp_path / "none.wav"))
    ways = {"commit_ms": 250, "early_answer": True, "record": True, "ring_timeout_ms": 20_000}
    plan = start(selection(keyed, heard, unread, campaign=ways), answered=True).plan
    assert plan == m.Plan(
        legs=3,
        buffer_ms=15_000,
        ring_timeout_ms=20_000,
        talk_connected_ms=15_000,
        of_legs=(
            m.LegPlan(9_000, "5", 6_000, 0),
            m.LegPlan(30_000, "", 10_000, 1_500),
            m.LegPlan(30_000, "", 10_000, 1),  # a file that cannot be read is over at once: the call is not lost
        ),
        commit_ms=250,
        early_answer=True,
        caller_answered=True,
        record=True,
        rtp_timeout_ms=4_000,
        fast_answer_ms=700,
    )


def test_one_plain_endpoint_among_secure_ones_takes_the_buffer_away() -> None:
    assert start(selection(secure(1), secure(2))).plan.buffer_ms == 15_000
    mixed = start(selection(secure(1), plain(2)))
    assert (mixed.plan.buffer_ms, mixed.payload["buffer_ms"]) == (0, 0)


def test_nobody_chosen_is_a_start_without_buyer_terms_and_legs() -> None:
    nobody = start(Selection(refusal=Reason.NO_BUYER), refusal=Reason.NO_BUYER)
    assert (nobody.buyer, nobody.endpoints, nobody.plan.legs, nobody.offered) == ("", (), 0, frozenset())
    assert nobody.campaign is None
    assert (nobody.payload["buyer"], nobody.payload["terms"], nobody.payload["endpoints"]) == ("", {}, [])
    assert nobody.terms == OutcomeTerms()


@pytest.mark.parametrize(
    ("rating", "by_minute"),
    [
        (Rating.UNIT, {}),
        (
            Rating.MINUTE,
            {"minute_price_minor": 75, "minute_increment_ms": 6_000, "minute_minimum_ms": 30_000},
        ),
    ],
)
def test_the_terms_are_frozen_and_the_clauses_of_the_minute_with_who_pays_by_it(
    rating: Rating, by_minute: dict[str, int]
) -> None:
    clauses = {"minute_price_minor": 75, "minute_increment_ms": 6_000, "minute_minimum_ms": 30_000}
    terms = Terms("own", version=3, rating=rating, talk_connected_ms=20_000, unreachable="failed", **clauses)
    begun = start(selection(terms=terms))
    frozen = begun.payload["terms"]
    assert {name: value for name, value in frozen.items() if name.startswith("minute_")} == by_minute
    assert (frozen["name"], frozen["version"], frozen["rating"]) == ("own", 3, rating.value)
    assert begun.terms == OutcomeTerms(20_000, CountsAs.FAILED, CountsAs.FREE)
    assert begun.plan.talk_connected_ms == 20_000


def test_the_next_offer_keeps_the_call_and_remembers_whom_the_prospect_had() -> None:
    first = start(invite={"headers": {"x-call-id": ["c-9"]}})
    second = start(selection(buyer=buyer(name="bolt")), before=first, transfer="t2")
    third = start(selection(buyer=buyer(name="core")), before=second, transfer="t3")
    assert [one.call_id for one in (first, second, third)] == ["c-9"] * 3
    assert [one.offers for one in (first, second, third)] == [1, 2, 3]
    assert third.offered == {"acme", "bolt", "core"}
    assert [one.payload.get("offer") for one in (first, second, third)] == [None, 2, 3]
    assert third.payload["call_id"] == "c-9"


def test_the_first_offers_id_stands_whatever_a_later_invite_says() -> None:
    unnamed = start()
    assert unnamed.call_id == "t1"
    later = start(before=unnamed, transfer="t2", invite={"headers": {"x-call-id": ["c-10"]}})
    assert (later.call_id, later.payload["call_id"]) == ("t1", "t1")


def test_each_buyer_that_was_scrubbed_has_a_receipt_in_its_own_name() -> None:
    refusals = (
        BuyerRefusal("bolt", Reason.SUPPRESSED, "on list dnc", ScrubResult("suppressed", hit="dnc", exempt=(4,))),
        BuyerRefusal("core", Reason.PAUSED, "paused"),
    )
    asked = start(selection(refusals=refusals, scrub=ScrubResult("", lists="dnc 12"), left_out=(("trunk9", "down"),)))
    bolt, core = asked.payload["refusals"]
    assert (bolt["scrub"]["receipt"], bolt["scrub"]["exempt"]) == ("signed.bolt.suppressed", [4])
    assert "scrub" not in core
    assert asked.payload["scrub"]["receipt"] == "signed.acme.pass"
    assert (asked.scrub and asked.scrub.receipt) == "signed.acme.pass"
    assert asked.payload["left_out"] == [{"endpoint": "trunk9", "why": "down"}]
    assert "scrub" not in start().payload  # the lists were not asked: no receipt says that they were


def test_what_was_wrong_with_the_lead_and_with_the_call_id_stand_side_by_side() -> None:
    lead = Lead(PHONE, {"phone": PHONE}, problems=("lead.notes: cut to 1000 characters",))
    begun = start(lead=lead, invite={"headers": {"x-call-id": ["two words"]}})
    assert begun.payload["lead_problems"] == [*lead.problems, CALL_ID_UNREAD]


# --- how an endpoint is dialled --------------------------------------------------------------------------------------


def test_a_did_goes_through_the_carrier_as_it_was_when_the_transfer_began() -> None:
    carriers = {"own": OWN, "spare": SPARE}
    begun = start(selection(did(1)), carriers=carriers)
    carriers["own"] = SPARE  # the operator changed it while the phone rings
    assert begun.carriers == {"own": OWN}
    assert target_of(begun, begun.endpoints[0], "").uri == "sip:+12125550101@carrier.invalid;user=phone"


def test_a_trunk_is_dialled_by_its_own_uri_transport_and_credentials() -> None:
    trunk = replace(secure(1), username="u", password="p", verify_tls=False)
    target = target_of(start(selection(trunk)), trunk, "")
    assert (target.uri, target.transport, target.srtp) == (trunk.uri, Transport.TLS, Srtp.MANDATORY)
    assert (target.verify_tls, target.username, target.password) == (False, "u", "p")


@pytest.mark.parametrize(
    ("policy", "phone", "caller", "from_user", "headers"),
    [
        ({}, PHONE, "+13105550100", PHONE, {"X-Transfer-Id": "t1"}),  # the prospect, not the dialer's own number
        ({}, "", "+13105550100", "+13105550100", {"X-Transfer-Id": "t1"}),
        ({"transfer_header": ""}, PHONE, PHONE, PHONE, {}),
        ({"transfer_header": "X-Ref"}, PHONE, PHONE, PHONE, {"X-Ref": "t1"}),
        ({"caller_id": "sales"}, PHONE, PHONE, "sales", {"X-Transfer-Id": "t1"}),
        (
            {"caller_id": "anonymous", "asserted_identity": True},
            PHONE,
            PHONE,
            "anonymous",
            {"X-Transfer-Id": "t1", "P-Asserted-Identity": f"<tel:{PHONE}>", "Privacy": "id"},
        ),
        (
            {"asserted_identity": True},
            "",
            "desk",
            "desk",
            {"X-Transfer-Id": "t1", "P-Asserted-Identity": "<sip:desk@invalid>"},
        ),
        ({"asserted_identity": True}, "", "", "", {"X-Transfer-Id": "t1"}),  # nobody's identity is asserted
    ],
)
def test_the_trunks_policy_says_who_calls_and_who_may_know(
    policy: dict[str, Any], phone: str, caller: str, from_user: str, headers: dict[str, str]
) -> None:
    trunk = replace(plain(1), policy=TrunkPolicy(**policy))
    target = target_of(start(selection(trunk), lead=Lead(phone), invite={"caller": caller}), trunk, "")
    assert (target.caller, dict(target.headers)) == (from_user, headers)


def test_of_the_lead_only_the_named_fields_go_along() -> None:
    policy = TrunkPolicy(transfer_header="", lead_headers=("First-Name", "state", "zip"))
    trunk = replace(plain(1), policy=policy)
    fields = {"phone": PHONE, "first_name": "Jo", "state": "NY", "zip": "", "ssn": "078-05-1120"}
    target = target_of(start(selection(trunk), lead=Lead(PHONE, fields)), trunk, "")
    assert target.headers == (("X-Lead-First-Name", "Jo"), ("X-Lead-State", "NY"))  # none for what is empty


@pytest.mark.parametrize(
    ("own", "spoken", "offered", "codecs"),
    [
        ((), "", ("PCMU", "opus"), ("PCMU", "opus")),
        ((), "opus", ("PCMU", "opus"), ("opus", "PCMU")),  # what the dialer speaks already comes first, once
        ((), "PCMA", ("PCMU",), ("PCMA", "PCMU")),
        (("G722",), "opus", ("PCMU", "opus"), ("G722",)),  # the trunk's policy is its own
        ((), "", (), ()),
    ],
)
def test_one_codec_on_both_legs_where_the_trunk_leaves_it_to_the_dialer(
    own: tuple[str, ...], spoken: str, offered: tuple[str, ...], codecs: tuple[str, ...]
) -> None:
    trunk = replace(plain(1), policy=TrunkPolicy(codecs=own))
    assert target_of(start(selection(trunk), invite={"codecs": offered}), trunk, spoken).codecs == codecs


def test_a_dids_policy_is_its_carriers() -> None:
    policy = TrunkPolicy(caller_id="main", transfer_header="X-Own")
    carrier = Carrier("own", replace(OWN.target, policy=policy))
    endpoint = replace(did(1), policy=TrunkPolicy(caller_id="not this", transfer_header="X-Not-This"))
    target = target_of(start(selection(endpoint), carriers={"own": carrier}), endpoint, "")
    assert (target.caller, target.headers, target.policy) == ("main", (("X-Own", "t1"),), policy)
