"""Writes files atomically: whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

OTHERS = stat.S_IRWXG | stat.S_IRWXO  # what group and others may do: with our files nothing


def keep_private() -> None:
    """Whatever this process and its children make from now on is its user's alone: leads, numbers, secrets, money."""
    os.umask(OTHERS)


def make_private(file: Path) -> None:
    """Take a file of ours from everybody else, and make it, empty, where there is none. Raises OSError.

    One that is there is not opened: to close it again would drop the locks that SQLite has on it in this process
    (fcntl(2), and "How To Corrupt An SQLite Database File", 2.2).
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    found = file.stat()
    if found.st_mode & OTHERS and found.st_uid == os.geteuid():
        file.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS)


def put(file: Path, content: bytes) -> None:
    """Write a file, for its owner alone; its folder is made where there is none."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as out:
            part.chmod(0o600)
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
