"""How many streams may be open, of a token and in all."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from portal.http.problems import ProblemError
from portal.http.stream_limit import StreamLimit


def test_a_token_has_its_share_and_all_have_the_whole() -> None:
    streams = StreamLimit(3, 2)
    with ExitStack() as opened:
        first = opened.enter_context(streams.open("west"))
        opened.enter_context(streams.open("west"))
        with pytest.raises(ProblemError) as refused, streams.open("west"):
            pass
        assert (refused.value.status, streams.count) == (429, 2)
        opened.enter_context(streams.open("east"))
        with pytest.raises(ProblemError) as refused, streams.open("acme"):
            pass
        assert (refused.value.status, streams.count) == (503, 3)
        streams.end_all()
        assert first.ended
    assert streams.count == 0
    with streams.open("west") as again:
        assert not again.ended


def test_once_closed_it_ends_all_and_opens_no_other() -> None:
    streams = StreamLimit()
    with streams.open("west") as stream:
        streams.close()
        assert stream.ended
    with pytest.raises(ProblemError) as refused, streams.open("west"):
        pass
    assert refused.value.status == 503
