"""A file as the body of a request: streamed to disk within bounds of size, pace and room, and gone afterwards.

Whatever its length, a file may take its time, but not stand still: each `IDLE_S` must bring `PACE` bytes. A body that
breaks off is an error and never a shorter file.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import structlog
from fastapi import Request
from starlette.requests import ClientDisconnect

from portal.http.problems import ProblemError

IDLE_S = 30.0
PACE = 64 << 10  # bytes
PIECE = 1 << 20  # bytes written at once
RESERVE = 256 << 20  # bytes that are left free on the disk, for the store lives there too
ORPHAN_S = 86_400.0  # what a killed process left behind is deleted after this
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_MAX_DIGITS = 18  # of a Content-Length

_log = structlog.get_logger("portal")


@contextlib.asynccontextmanager
async def received(request: Request, folder: Path, filename: str, most: int) -> AsyncIterator[Path]:
    """The body as a file of that name in a folder of its own inside `folder`; `most`: bytes.

    Raises ProblemError 400, 408, 413, 507.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > _MAX_DIGITS or int(declared) > most):
        raise _too_large(most)
    own = _make_folder(folder)
    try:
        await _write_all(request, own / filename, most)
        yield own / filename
    finally:  # also where the request was cancelled, and is again at every await
        loop = asyncio.get_running_loop()
        await asyncio.shield(loop.run_in_executor(None, partial(shutil.rmtree, own, ignore_errors=True)))


def sweep(folder: Path) -> int:
    """Delete what processes that were killed have left behind; how many."""
    oldest = time.time() - ORPHAN_S
    gone = 0
    for own in list(folder.iterdir()) if folder.is_dir() else ():
        with contextlib.suppress(OSError):  # its own request deletes it meanwhile
            if all(path.stat().st_mtime < oldest for path in (own, *own.iterdir())):
                shutil.rmtree(own)
                gone += 1
    return gone


def _make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=folder))  # mode 0700


async def _write_all(request: Request, path: Path, most: int) -> None:
    loop = asyncio.get_running_loop()
    parts: list[bytes] = []
    held = size = fresh = 0
    opened = path.open("wb")
    try:
        async with asyncio.timeout(IDLE_S) as limit:
            async for part in request.stream():
                parts.append(part)
                held += len(part)
                size += len(part)
                fresh += len(part)
                if size > most:
                    raise _too_large(most)
                if held >= PIECE:
                    await asyncio.to_thread(_put, opened, parts)
                    held, parts = 0, []
                if fresh >= PACE:
                    limit.reschedule(loop.time() + IDLE_S)
                    fresh = 0
        await asyncio.to_thread(_put, opened, parts)
    except TimeoutError as error:
        raise ProblemError(408, f"the file brought less than {PACE} bytes in {IDLE_S:g} s") from error
    except ClientDisconnect as error:
        raise ProblemError(400, "the file was cut short") from error
    except OSError as error:
        if error.errno in FULL:
            raise no_room() from error
        raise
    finally:
        opened.close()


def _put(opened: BinaryIO, parts: list[bytes]) -> None:
    whole = b"".join(parts)
    if shutil.disk_usage(opened.name).free < RESERVE + len(whole):
        raise OSError(errno.ENOSPC, "no room")
    opened.write(whole)


def no_room() -> ProblemError:
    """The problem 507, and a line in the log for the operator: the disk is full."""
    _log.error("disk_full")
    return ProblemError(507, "there is no room on Baton's disk")


def _too_large(most: int) -> ProblemError:
    return ProblemError(413, f"the file has more than {most} bytes")
