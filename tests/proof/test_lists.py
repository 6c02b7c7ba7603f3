"""A tenth of the list files of `make proof`, and proof that the proof can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from book.numbers import NumberError
from suppression.reading import batches, reader
from suppression.reading.watching import Watch
from tests.proof.lists import play

FILES = 1_000  # in each share


@pytest.mark.parametrize("share", range(10))
def test_no_number_that_a_person_sees_is_lost_and_none_is_made_up(tmp_path: Path, share: int) -> None:
    read, wrong = play(range(share * FILES + 1, (share + 1) * FILES + 1), tmp_path)
    assert wrong == []
    assert read > FILES // 3  # refusing everything would be no art


def _finds(folder: Path) -> bool:
    return bool(play(range(1, 600), folder)[1])


def test_a_reader_that_forgets_columns_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watch, "look", lambda *_: None)
    assert _finds(tmp_path)


def test_a_reader_that_drops_letters_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(text: str, _region: str) -> int:
        digits = "".join(filter(str.isdigit, text))[-10:]
        if len(digits) < 10:
            raise NumberError("too short")
        return int(f"1{digits}")

    monkeypatch.setattr(batches, "normalise", careless)
    assert _finds(tmp_path)


def test_a_reader_that_leaves_out_members_and_sheets_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = reader.ListFile._open
    monkeypatch.setattr(reader.ListFile, "_open", lambda self: whole(self)[:1])
    assert _finds(tmp_path)
