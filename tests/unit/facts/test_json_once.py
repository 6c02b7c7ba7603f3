"""JSON with a name given twice is refused, wherever in it that stands; all else reads as ever."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facts.json_once import TwiceError, loads_once

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_said_once_reads_as_ever(value: object) -> None:
    assert loads_once(orjson.dumps(value)) == value


@given(VALUES, st.text(max_size=4), VALUES, VALUES)
def test_a_name_given_twice_is_refused_however_deep(around: object, name: str, one: object, other: object) -> None:
    twice = f"{{{json.dumps(name)}: {json.dumps(one)}, {json.dumps(name)}: {json.dumps(other)}}}"
    for text in (twice, f"[{json.dumps(around)}, {twice}]", f'{{"x": {twice}}}'):
        with pytest.raises(TwiceError, match="is given twice"):
            loads_once(text.encode())
