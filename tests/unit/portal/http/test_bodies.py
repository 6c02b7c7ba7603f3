"""Places of faults in bodies, as they are named in an answer."""

from __future__ import annotations

import pytest

from portal.http.bodies import place


@pytest.mark.parametrize(
    ("loc", "named"),
    [((), ""), (("phone",), "phone"), (("add", 1, "entry"), "add[1].entry"), (("a" * 300,), "a" * 100)],
)
def test_a_place_is_named_as_people_write_it(loc: tuple[int | str, ...], named: str) -> None:
    assert place(loc) == named
