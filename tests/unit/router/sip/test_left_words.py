"""How a trunk over TLS is dialled, as the file of dialogs has it: what is written is read, what is not is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from book.model import PLAIN_TRUNK, Transport
from router.sip.dialogs import target_of, words_of
from router.sip.port import Target
from router.sip.tracing import leg_of, mask_call_id
from router.sip.wire import new_call_id


@given(st.booleans(), st.text(), st.text(), st.text())
def test_what_is_written_is_read_again(verify: bool, ca: str, certificate: str, key: str) -> None:
    policy = replace(PLAIN_TRUNK, ca_file=ca, certificate_file=certificate, key_file=key)
    target = Target("sip:a@b", Transport.TLS, verify_tls=verify, username="u", password="secret-1", policy=policy)
    words = words_of(target)
    assert "secret-1" not in words
    found = target_of(words)
    assert found is not None
    assert (found.transport, found.verify_tls, found.policy) == (Transport.TLS, verify, policy)


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
def test_other_trunks_need_no_words(transport: Transport) -> None:
    assert not words_of(Target("sip:a@b", transport))


@given(st.one_of(st.text(), st.sampled_from(['{"verify":1}', "[]", "null", '{"verify":true,"ca_file":1}'])))
def test_what_is_no_such_thing_is_refused(words: str) -> None:
    assert target_of(words) is None


@given(st.from_regex(r"1[g-z][0-9a-z]{18}", fullmatch=True), st.integers(1, 999))
def test_a_call_id_tells_its_leg_and_is_shown_whole(transfer: str, number: int) -> None:
    handle = f"{transfer}-{number}"
    call_id = new_call_id(handle)
    assert leg_of(call_id) == handle
    assert mask_call_id(call_id) == call_id
    assert call_id != new_call_id(handle)
