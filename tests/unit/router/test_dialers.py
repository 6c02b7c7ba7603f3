"""Who may send: digest, rate and lock-out, without a socket."""

from __future__ import annotations

import hashlib
import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.dialers import Dialer, DialerGuard, Proof
from router.sip.port import Invite

FLOOR = Dialer("floor", (ipaddress.ip_network("192.0.2.0/25"),), "floor", "secret-for-a-test", max_per_second=2)
OTHER = Dialer("other", (ipaddress.ip_network("2001:db8::/32"),))


def guard(failures: int = 3) -> DialerGuard:
    return DialerGuard((FLOOR, OTHER), lockout_failures=failures)


def answer(
    doors: DialerGuard, now_us: int = 0, *, password: str = "secret-for-a-test", made: str = "", **changed: str
) -> str:
    """An Authorization header for a fresh challenge, or for the nonce `made`."""
    value = doors.challenge(now_us)[0][1]
    said = dict(re.findall(r'(\w+)="([^"]*)"', value)) | ({"nonce": made} if made else {})
    said |= {"username": "floor", "uri": "sip:leads@baton", "nc": "00000001", "cnonce": "x"}

    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    secret = digest(f"floor:{said['realm']}:{password}")
    asked = digest("INVITE:sip:leads@baton")
    said["response"] = digest(f"{secret}:{said['nonce']}:{said['nc']}:{said['cnonce']}:auth:{asked}")
    said |= {"algorithm": "SHA-256", "qop": "auth", **changed}
    return "Digest " + ", ".join(f'{key}="{value}"' for key, value in said.items())


def proof(doors: DialerGuard, header: str, now_us: int = 0) -> Proof:
    return doors.prove(FLOOR, "INVITE", {"authorization": [header]}, now_us)


def test_sources_are_known_by_their_networks() -> None:
    doors = guard()
    assert doors.of("192.0.2.7") is FLOOR
    assert doors.of("2001:db8::1") is OTHER
    assert doors.of("192.0.2.200") is None
    assert doors.of("nonsense") is None


def test_the_right_password_is_good_once() -> None:
    doors = guard()
    header = answer(doors)
    assert proof(doors, header) is Proof.GOOD
    assert proof(doors, header) is Proof.STALE, "a replay is asked again"


@pytest.mark.parametrize(
    "changed",
    [
        {"password": "wrong"},
        {"username": "somebody"},
        {"uri": "sip:other@baton"},
        {"response": "0" * 64},
        {"algorithm": "MD5"},
        {"algorithm": "SHA-512"},
        {"qop": "auth-int"},
        {"cnonce": "y"},
    ],
)
def test_anything_else_is_wrong(changed: dict[str, str]) -> None:
    doors = guard()
    assert proof(doors, answer(doors, **changed)) is Proof.WRONG


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("nonce", ["fresh", "counted", "over", "of_before_a_restart", "invented"])
def test_a_right_password_with_a_nonce_that_is_no_use_is_stale_and_a_wrong_one_is_wrong_with_any(
    nonce: str, *, right: bool
) -> None:
    """RFC 7616 section 3.3. Were a wrong password with an old nonce only asked again, passwords could be tried so."""
    doors, now_us = guard(failures=1), 0
    password = "secret-for-a-test" if right else "no"
    header = answer(guard() if nonce == "of_before_a_restart" else doors, password=password)
    if nonce == "counted":
        used = answer(doors)
        assert proof(doors, used) is Proof.GOOD
        header = answer(doors, made=re.findall('nonce="([^"]*)"', used)[0], password=password)
    elif nonce == "over":
        now_us = 60_000_001
    elif nonce == "invented":
        header = answer(doors, made="zz.zz", password=password)
    found = doors.judge(FLOOR, invite(authorization=header), now_us)
    if not right:
        assert found is not None
        assert (found.code, found.lock_out) == (403, True)
    elif nonce == "fresh":
        assert found is None
    else:
        assert found is not None
        assert (found.code, found.lock_out) == (401, False)
        assert all(", stale=true, " in value for _, value in found.headers)


def test_who_shows_no_password_is_asked_without_stale() -> None:
    for headers in ({}, {"authorization": "Basic abc"}, {"authorization": 'Digest realm="x"'}):
        found = guard().judge(FLOOR, invite(**headers), 0)
        assert found is not None
        assert found.code == 401
        assert not any("stale" in value for _, value in found.headers)


@given(st.text(max_size=300))
def test_no_header_breaks_the_door(text: str) -> None:
    doors = guard()
    assert proof(doors, text) is not Proof.GOOD
    assert proof(doors, f'Digest realm="baton", nonce="{text}", response="{text}"') is not Proof.GOOD


def test_lock_out_after_so_many_in_a_minute() -> None:
    doors = guard()
    assert [doors.failed("192.0.2.1", at) for at in (0, 1, 2)] == [False, False, True]
    assert [doors.failed("192.0.2.1", at) for at in (3, 40_000_000, 70_000_000)] == [False, False, False]


def test_the_rate_is_that_of_any_one_second() -> None:
    doors = guard()
    times = [0, 100_000, 200_000, 999_999, 1_000_000, 1_050_000, 1_100_000, 2_000_000]
    assert [doors.too_fast(FLOOR, at) for at in times] == [False, False, True, True, False, True, False, False]
    assert not any(doors.too_fast(OTHER, 0) for _ in range(1000))


def invite(**headers: str) -> Invite:
    named = {key.replace("_", "-"): [value] for key, value in headers.items()}
    return Invite("in1", 0, 0, "192.0.2.1", 5060, "c@d", "leads", "+12125550100", named)


def test_the_judgement_names_a_code_and_a_reason() -> None:
    doors = guard(failures=1)
    hops = doors.judge(FLOOR, invite(max_forwards="0"), 0)
    ask = doors.judge(FLOOR, invite(), 0)
    wrong = doors.judge(FLOOR, invite(authorization=answer(doors, password="no")), 0)
    assert hops is not None
    assert ask is not None
    assert wrong is not None
    assert [(one.code, one.why, one.lock_out) for one in (hops, ask, wrong)] == [
        (483, "hops", False),
        (401, "challenge", False),
        (403, "password", True),
    ]
    assert doors.judge(FLOOR, invite(authorization=answer(doors)), 0) is None
    assert doors.judge(OTHER, invite(), 0) is None
    assert "secret-for-a-test" not in repr(FLOOR)
