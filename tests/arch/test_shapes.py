"""Values that two packages declare each for themselves, because neither may import the other, keep one shape."""

from __future__ import annotations

from dataclasses import fields

import pytest

from meter.journal.sql import append as journal
from router import ports
from suppression import scrub


def _shape(kind: type) -> list[tuple[str, object, object]]:
    return [(one.name, one.type, one.default) for one in fields(kind)]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (scrub.ScrubResult, ports.ScrubResult),
        (journal.Admission, ports.Admission),
    ],
)
def test_two_declarations_have_one_shape(ours: type, theirs: type) -> None:
    assert _shape(ours) == _shape(theirs)
