"""Line numbers of settings in a TOML file."""

from __future__ import annotations

import pytest

from book.toml_lines import find_lines, line_of

TEXT = '''# a comment
title = "x" # [not.a.table]
[router]
name = "a"
"quoted key" = 1
[[buyers]]
name = "one"
notes = """
[[buyers]]
name = "not a key"
"""
[[buyers.endpoints]]
uri = "a"
[[buyers.endpoints]]
uri = "b"
[[buyers]]
emails = [
  "a@b.example",
  { name = "x" },
]
limit = { port = 1, other = "]" }
[[buyers.endpoints]]
uri = "c"
a.b = 1
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("title", 2),
        ("router", 3),
        ("router.name", 4),
        ("router.quoted key", 5),
        ("buyers[0].name", 7),
        ("buyers[0].endpoints[0].uri", 13),
        ("buyers[0].endpoints[1].uri", 15),
        ("buyers[1]", 16),
        ("buyers[1].emails[1]", 17),
        ("buyers[1].limit.port", 21),
        ("buyers[1].endpoints[0].uri", 23),
        ("buyers[1].endpoints[0].a.b", 24),
        ("buyers[1].endpoints[0].missing", 22),
        ("nowhere.at.all", None),
    ],
)
def test_the_line_of_a_setting_or_of_the_table_around_it(path: str, line: int | None) -> None:
    assert line_of(find_lines(TEXT), path) == line
