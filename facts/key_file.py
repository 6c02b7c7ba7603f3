"""A key that nobody has configured: made once, and kept in a file that is its user's alone."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

MIN_KEY = 32  # characters


def own_key(file: Path, *, make: bool = True) -> bytes:
    """The key in a file, which is made where there is none; without `make` there may be none: empty.

    Raises OSError, also for a file that is too short to be a key.
    """
    if make and not file.exists():
        _make(file)
    with contextlib.suppress(FileNotFoundError):
        key = file.read_bytes().strip()
        if len(key) < MIN_KEY:
            raise OSError(f"{file.name} is damaged: a key has at least {MIN_KEY} characters")
        return key
    return b""


def _make(file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".", dir=file.parent)  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="ascii") as made:
            made.write(secrets.token_hex(MIN_KEY) + "\n")
            made.flush()
            os.fsync(made.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, file)  # unlike a rename it never takes the place of a key made meanwhile
    finally:
        Path(temporary).unlink()
