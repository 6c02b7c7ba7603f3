"""The HTTP API for suppression lists, version 1: what is in force, imports, changes by hand, the log.

The operator may see and change every list. A buyer has its own lists, and is told of the global ones as much as it
must know to rely on them: that they are there, how large and how old; who made them of what is the operator's matter.
Another buyer's list is to a buyer as if it were not there, but for its name, which is taken. Dialers have no business
here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Request, Response

from book.lists import Actor, ListVersion
from portal.http.access import BuyerOrOperator, client
from portal.http.bodies import read_model
from portal.http.paging import MAX_PAGE, Cursor, page, read_cursor
from portal.http.problems import ProblemError, documented
from portal.http.services import service, services
from portal.http.tokens import Scope, Token, TokenBook
from portal.http.uploads import FULL, IDLE_S, PACE, no_room, received
from portal.lists.models import (
    EditDone,
    ImportDone,
    ImportQuery,
    ListEdit,
    ListName,
    ListRestore,
    Lists,
    ListShown,
    Log,
    shown_list,
    shown_log,
    shown_rejects,
    shown_unused,
    until_s,
)
from portal.lists.service import ListsService
from suppression.activating import ListRefusedError
from suppression.changes import Entry, EntryError, parse_entry
from suppression.editing import edit, restore
from suppression.importer import Mode, Task
from suppression.kinds import Kind
from suppression.reading.shapes import ColumnError, ReadOptions, UnreadableError
from suppression.snapshot import SnapshotError

_REJECTS = ".rejects"  # beside the upload, whose name does not begin with a dot
_IMPORT_WHY = {
    400: "The file was cut short.",
    408: f"The file brought less than {PACE} bytes in {IDLE_S:g} s.",
    413: "The file is larger than `portal.max_import_mb` allows.",
    422: "A parameter is wrong, or the list was refused: `errors` names parameters, or lines. Nothing has changed.",
}

_log = structlog.get_logger("portal")
routes = APIRouter(prefix="/v1/suppression")


@routes.get("/lists", summary="Show the lists in force", response_model=Lists, responses=documented(401, 403, 503))
async def get_lists(request: Request, token: BuyerOrOperator) -> Lists:
    """All lists in force for the operator; for a buyer its own and, without source and author, the global ones."""
    versions = await service(request, ListsService).store.active()
    seen = [version for version in versions if token.scope is Scope.OPERATOR or version.buyer in (None, token.of)]
    return Lists(lists=[shown_list(version, token) for version in seen])


@routes.post(
    "/lists/{name}/imports",
    summary="Import a list",
    response_model=ImportDone,
    responses=documented(401, 403, 503, 507, meanings=_IMPORT_WHY),
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/ListFile"}},
)
async def post_import(
    request: Request, token: BuyerOrOperator, name: ListName, query: Annotated[ImportQuery, Query()]
) -> ImportDone:
    """Import a file and put it in force; the version before stays in force where the file is refused.

    The body is the file as it is, whatever its media type is said to be: CSV, TXT, XLSX, or one of them in ZIP or GZ.
    The same file again changes nothing. Where several columns may hold numbers, or the one that was guessed may be
    another, the file is refused (422, field `column`): name it, several times for several. For the operator, and for
    buyers on their own lists. Imports take turns.
    """
    lists = service(request, ListsService)
    buyer = await _buyer(lists, token, name, query.buyer)
    zone = await lists.zone(buyer)
    wanted, expires_us = _wanted(query, zone), _expires_us(query.expires, zone)
    with lists.room(token.name):
        async with received(request, lists.uploads, query.filename, lists.max_import_bytes) as file:
            task = Task(
                file,
                name,
                buyer,
                mode=Mode(query.mode),
                options=wanted,
                expires_utc_us=expires_us,
                allow_empty=query.allow_empty,
                keep_changes=query.keep_changes,
                reject_percent=query.reject_percent,
                rejects_file=file.with_name(_REJECTS),
                dry_run=query.dry_run,
            )
            try:
                done, rejects = await lists.import_file(task, _author(request, token))
            except ListRefusedError as error:
                _log.warning("list_refused", list=name, by=token.name, mode=query.mode)
                await _buyer(lists, token, name, query.buyer)  # somebody may have taken the name meanwhile
                raise await _refusal(lists, error, file.with_name(_REJECTS)) from error
    _log.info("list_imported", list=name, by=token.name, mode=query.mode, version=done.version, changed=done.changed)
    shown = shown_rejects(rejects)
    report = done.report
    return ImportDone(
        name=name,
        version=done.version,
        revision=done.revision,
        entries=done.entries,
        before=done.before,
        changed=done.changed,
        dry_run=query.dry_run,
        kind=str(report.layout.kind) if report.layout is not None else "",
        column=next(iter(report.columns), ""),
        columns=list(report.columns),
        lines=report.lines,
        repeats=report.repeats,
        rejected=report.rejected,
        rejects=shown,
        kept_for_ever=report.endless,
        kept=shown_rejects(report.endless_lines),
        ended=report.ended,
        dropped=report.dropped,
        skipped=list(report.skipped),
        unused=shown_unused(report.unused),
    )


@routes.post(
    "/lists/{name}/entries",
    summary="Change a list by hand",
    response_model=EditDone,
    responses=documented(400, 401, 403, 404, 408, 413, 415, 422, 503, 507),
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/ListEdit"}},
)
async def post_entries(request: Request, token: BuyerOrOperator, name: ListName) -> EditDone:
    """Put entries on a list and take others off it, all or none. The body is a `ListEdit`.

    Routers have them within `suppression.reload_ms`. Saying the same again changes nothing. For the operator, and for
    buyers on their own lists.
    """
    lists = service(request, ListsService)
    row = await _own(lists, token, name)
    zone = await lists.zone(row.buyer)
    add, remove = _entries(await read_model(request, ListEdit), Kind(row.kind), zone)
    async with lists.looking():
        try:
            done = await edit(lists.store, lists.data_dir, name, add=add, remove=remove, actor=_author(request, token))
        except ListRefusedError as error:
            raise await _refusal(lists, error) from error
    _log.info("list_edited", list=name, by=token.name, added=done.added, removed=done.removed)
    return EditDone(
        name=name,
        version=done.version,
        revision=done.revision,
        added=done.added,
        removed=done.removed,
        already=done.already,
        absent=done.absent,
        entries=done.count,
    )


@routes.delete(
    "/lists/{name}",
    summary="Retire a list",
    status_code=204,
    responses={204: {"description": "It is out of force."}, **documented(401, 403, 404, 422, 503)},
)
async def delete_list(request: Request, token: BuyerOrOperator, name: ListName) -> Response:
    """Put a list out of force. It can be restored. For the operator, and for buyers on their own lists."""
    lists = service(request, ListsService)
    await _own(lists, token, name)
    if not await lists.store.retire(name, _author(request, token)):
        raise _unknown(name)
    _log.info("list_retired", list=name, by=token.name)
    return Response(status_code=204)


@routes.post(
    "/lists/{name}/restore",
    summary="Restore a list",
    response_model=ListShown,
    responses=documented(400, 401, 403, 404, 408, 413, 415, 422, 503, 507),
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/ListRestore"}},
)
async def post_restore(request: Request, token: BuyerOrOperator, name: ListName) -> ListShown:
    """Put an older version of a list in force again, as a new one. The body is a `ListRestore`.

    For the operator, and for buyers on their own lists.
    """
    lists = service(request, ListsService)
    await _own(lists, token, name, in_force=False)
    body = await read_model(request, ListRestore)
    if all(version.version != body.version for version in await lists.store.history(name)):
        raise ProblemError(422, f"list {name!r} has no version {body.version}", errors=[("version", "is not there")])
    async with lists.looking():
        try:
            await restore(
                lists.store,
                lists.data_dir,
                name,
                body.version,
                _author(request, token),
                drop_changes=body.drop_changes,
            )
        except (ListRefusedError, SnapshotError) as error:
            raise await _refusal(lists, error) from error
    _log.info("list_restored", list=name, by=token.name, version=body.version)
    return shown_list(await _own(lists, token, name), token)


@routes.get(
    "/lists/{name}/log",
    summary="Show what was done to a list",
    response_model=Log,
    responses=documented(401, 403, 404, 422, 503),
)
async def get_log(
    request: Request,
    token: BuyerOrOperator,
    name: ListName,
    cursor: Cursor = "",
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="How many on a page; 50 by default.")] = 50,
) -> Log:
    """Who did what to a list, when and from where, with the entries before and after, refusals included.

    The newest first. For the operator, and for buyers on their own lists.
    """
    lists = service(request, ListsService)
    start = read_cursor("log", cursor, int)
    before = None if start is None else start[0]
    rows, following = await page(lambda most: lists.store.log(name, most, before), limit, "log", lambda row: (row.id,))
    if token.scope is not Scope.OPERATOR or not rows:
        await _own(lists, token, name, in_force=False)
    own = _own_tokens(services(request).tokens, token)
    shown = [shown_log(row, own=own, detail=_public(lists, row.detail)) for row in rows]
    return Log(log=shown, next=following)


def _author(request: Request, token: Token) -> Actor:
    return Actor(token.name, f"api:{client(request)}")


def _unknown(name: str) -> ProblemError:
    return ProblemError(404, f"no list called {name!r} is in force")


async def _own(lists: ListsService, token: Token, name: str, *, in_force: bool = True) -> ListVersion:
    """The newest version of a list that this token may change. Raises ProblemError 403, 404."""
    row = await lists.newest(name)
    if (
        row is None
        or (token.scope is Scope.BUYER and row.buyer not in (None, token.of))
        or (in_force and not row.active)
    ):
        raise _unknown(name)
    if token.scope is Scope.BUYER and row.buyer is None:
        raise ProblemError(403, f"list {name!r} is global: it is the operator's")
    return row


async def _buyer(lists: ListsService, token: Token, name: str, requested: str) -> str | None:
    """Whose list an import makes or changes; None: global. Raises ProblemError 403, 422."""
    buyer = requested
    if token.scope is Scope.BUYER:
        if requested not in ("", token.of):
            raise ProblemError(403, "this token imports lists of its own buyer", errors=[("buyer", "is another")])
        buyer = token.of
        row = await lists.newest(name)
        if row is not None and row.buyer != buyer:
            raise ProblemError(403, f"a list called {name!r} is another's: choose another name")
    if buyer and not await lists.is_buyer(buyer):
        raise ProblemError(422, f"no buyer is called {buyer!r}", errors=[("buyer", "is not there")])
    return buyer or None


def _wanted(query: ImportQuery, zone: str) -> ReadOptions:
    kind = Kind(query.hashed) if query.hashed is not None else None
    try:
        return ReadOptions(
            column=tuple(query.column),
            area_column=query.area_column,
            expires_column=query.expires_column,
            kind=kind,
            region=query.region,
            member=query.member,
            sheet=query.sheet,
            header=query.header,
            skip_rows=query.skip_rows,
            zone=zone,
        )
    except UnreadableError as error:
        field = "area_column" if "area" in str(error) else "region"
        raise ProblemError(422, str(error), errors=[(field, str(error))]) from error


def _expires_us(text: str, zone: str) -> int | None:
    try:
        return until_s(text, datetime.now(UTC), zone) * 1_000_000 if text else None
    except ValueError as error:
        raise ProblemError(422, f"expires {error}", errors=[("expires", str(error))]) from error


def _entries(body: ListEdit, kind: Kind, zone: str) -> tuple[dict[str, int], list[str]]:
    """What to add, each with its end, and what to remove. Raises ProblemError with every entry that cannot be read."""
    errors: list[tuple[str, str]] = []
    first: dict[Entry, tuple[int, int]] = {}  # entry -> its end, and where it stands
    add: dict[str, int] = {}
    now = datetime.now(UTC)
    for at, new in enumerate(body.add):
        try:
            entry = parse_entry(new.entry, kind)
        except EntryError as error:
            errors.append((f"add[{at}].entry", f"entry {at + 1} to be added: {error}"))
            continue
        try:
            until = until_s(new.expires, now, zone) if new.expires else 0
        except ValueError as error:
            errors.append((f"add[{at}].expires", f"entry {at + 1} to be added: expires {error}"))
            continue
        before, where = first.setdefault(entry, (until, at))
        if before != until:
            errors.append((f"add[{at}].expires", f"entry {at + 1} to be added: is entry {where + 1} with another end"))
        add[new.entry] = until
    for at, text in enumerate(body.remove):
        try:
            parse_entry(text, kind)
        except EntryError as error:
            errors.append((f"remove[{at}]", f"entry {at + 1} to be removed: {error}"))
    if errors:
        raise ProblemError(422, "entries cannot be read; nothing was changed", errors=errors)
    return add, body.remove


async def _refusal(lists: ListsService, error: Exception, rejects_file: Path | None = None) -> ProblemError:
    """The problem of a list that was not changed: 422 with the lines that are wrong, 507 or 500 where a disk failed."""
    disk = _disk_error(error)
    if disk is not None and disk.errno in FULL:
        return no_room()
    if disk is not None:
        _log.error("list_failed", kind=type(disk).__name__, error=disk.strerror)
        return ProblemError(500, "a fault of Baton's")
    rejects = await lists.rejects(rejects_file) if rejects_file is not None else []
    errors = [
        (f"{reject.member}, line {reject.line}" if reject.member else f"line {reject.line}", reject.why)
        for reject in rejects
    ]
    text = lists.public(str(error))
    if not errors and _is_about_columns(error):
        errors = [("column", text)]
    return ProblemError(422, text, errors=errors)


def _is_about_columns(error: Exception) -> bool:
    """Whether the reader could not choose a column, or was not sure of its choice."""
    return isinstance(error.__cause__, ColumnError) or (
        isinstance(error.__cause__, UnreadableError) and "column" in str(error)
    )


def _disk_error(error: BaseException) -> OSError | None:
    """The error of the disk that caused it, or None; a file that cannot be unpacked is no fault of the disk."""
    seen: list[BaseException] = []
    cause = error.__cause__
    while cause is not None and cause not in seen and not isinstance(cause, UnreadableError):
        if isinstance(cause, OSError):
            return cause
        seen.append(cause)
        cause = cause.__cause__
    return None


def _own_tokens(tokens: TokenBook, token: Token) -> frozenset[str] | None:
    """The names of the buyer's tokens; None for the operator, who may see all."""
    if token.scope is Scope.OPERATOR:
        return None
    return frozenset(issued.name for issued in tokens.all if issued.scope is Scope.BUYER and issued.of == token.of)


def _public(lists: ListsService, detail: Any) -> dict[str, Any]:
    return {key: lists.public(value) if isinstance(value, str) else value for key, value in detail.items()}
