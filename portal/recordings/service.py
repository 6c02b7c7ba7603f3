"""Recordings over HTTP: whose they are, that they lie where recordings lie, and byte ranges (RFC 9110 section 14).

The journal says which file a transfer has. Its name is taken for nothing but a name: what leads out of the folder, by
dots, from the root or over a link, is not there.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import stat
from pathlib import Path

from fastapi import Request
from fastapi.responses import FileResponse
from starlette.responses import MalformedRangeHeader, RangeNotSatisfiable

from facts.disclosure import Reader, claim_of, knows_person
from facts.fact import Fact, Kind, first_of
from facts.payloads import recorded
from facts.start_payload import buyer as buyer_of
from meter.journal.sql.reading import facts_of
from meter.store.clerk import Clerk
from portal.http.problems import ProblemError
from portal.http.services import Service

_SHA256 = re.compile(r"[0-9a-f]{64}")
AUDIO = "audio/wav"
_NONE = "there is no such recording, or it is another's"


class RecordingsService(Service):
    """Finds and sends the recordings of a folder."""

    title = "recording"

    def __init__(self, folder: Path, clerk: Clerk) -> None:
        self._folder = folder
        self._clerk = clerk

    async def answer(self, request: Request, transfer: str, buyer: str, part: int) -> FileResponse:
        """A recording, or the bytes of it that `Range` asks for; `buyer`: only where it is this one's.

        `part` counts from 1, in the order in which they were made. Raises ProblemError 400, 404, 416.
        """
        facts = await self._clerk.read(lambda connection: facts_of(connection, transfer))
        started = first_of(facts, Kind.TRANSFER_STARTED)
        if started is None or (buyer and buyer_of(started) != buyer):
            raise ProblemError(404, _NONE)
        if buyer and not knows_person(Reader.BUYER, claim_of(facts)):  # what is said in it is the person's too
            raise ProblemError(404, _NONE)
        made = _recorded(facts)
        if part > len(made):
            raise ProblemError(404, _NONE)
        file, sha256 = made[part - 1]
        kept = await asyncio.to_thread(find_below, self._folder, file)
        if kept is None:
            raise ProblemError(404, "the recording is deleted, or lies elsewhere")
        path, status = kept
        digest = base64.b64encode(bytes.fromhex(sha256)).decode()
        headers = {"ETag": f'"{sha256}"', "Repr-Digest": f"sha-256=:{digest}:"}
        response = FileResponse(path, headers=headers, media_type=AUDIO, filename=path.name, stat_result=status)
        _check_range(response, request, status.st_size)
        return response


def find_below(folder: Path, name: str) -> tuple[Path, os.stat_result] | None:
    """The regular WAV file of that name, if its real path is inside the folder; else None."""
    try:
        root = folder.resolve(strict=True)
        path = (root / name).resolve(strict=True)
        status = path.stat()
    except (OSError, ValueError, RuntimeError):  # not there; a zero in the name; links in a circle
        return None
    if not path.is_relative_to(root) or path.suffix != ".wav" or not stat.S_ISREG(status.st_mode):
        return None
    return path, status


def _recorded(facts: list[Fact]) -> list[tuple[str, str]]:
    """Name and SHA-256 of the files that `recorded` facts call whole, in their order, each file once."""
    digests: dict[str, str] = {}
    for fact in facts:
        done = recorded(fact) if fact.kind is Kind.RECORDED else None
        if done is not None and done.file and done.sha256 and _SHA256.fullmatch(done.sha256):
            digests.setdefault(done.file, done.sha256)
    return list(digests.items())


def _check_range(response: FileResponse, request: Request, size: int) -> None:
    """Refuse a range that the library would refuse in plain text. Raises ProblemError 400, 416."""
    wanted, condition = request.headers.get("range"), request.headers.get("if-range")
    if wanted is None or (condition is not None and not response._should_use_range(condition)):  # noqa: SLF001
        return
    try:
        response._parse_range_header(wanted, size)  # noqa: SLF001 - as it does itself a moment later
    except RangeNotSatisfiable as error:
        headers = {"Content-Range": f"bytes */{size}"}
        raise ProblemError(416, f"the recording has {size} bytes", headers=headers) from error
    except MalformedRangeHeader as error:
        raise ProblemError(400, f"Range: {error.content}", errors=[("Range", "cannot be read")]) from error
