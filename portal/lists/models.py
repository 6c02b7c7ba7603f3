"""What the routes for suppression lists take and give."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from book.lists import ListLogEntry, ListVersion
from book.model import DEFAULT_TIME_ZONE
from book.numbers import DEFAULT_REGION
from portal.http.bodies import Body
from portal.http.paging import Next
from portal.http.tokens import Scope, Token
from portal.http.values import Count, Moment, whole_second
from portal.lists.service import Rejected
from suppression.changes import MAX_ENTRIES
from suppression.expiry import LAST_S, end_us
from suppression.importer import REJECT_PERCENT
from suppression.lookups import ListMatch
from suppression.reading.shapes import MAX_SKIPPED, Reject, UnusedPart

_MAX_ENTRY = 128  # characters: a digest of SHA-256 in hex has 64
_MAX_TIME = 40
_MAX_FILE_NAME = 200  # bytes
_MAX_RECEIPT = 16_384
_MAX_COLUMN = 200  # characters of a name
_MAX_COLUMNS = 50
MAX_UNUSED = 1_000  # told in an answer

ListName = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="Name of the list.")]


class ListShown(BaseModel):
    """A list in force. Of a global one a buyer is not told `source` and `imported_by`."""

    name: str
    buyer: str = Field(description="Whose list it is; empty: global, it applies to every buyer.")
    kind: str = Field(description="`number`; or `md5`, `sha1`, `sha256`: a hashed list.")
    version: int
    revision: int = Field(description="How many changes were made to the version by hand.")
    state: str = Field(description="SHA-256 of exactly this state of the list.")
    entries: int
    expires_at: Moment = Field(description="The whole list holds until then, UTC; null: for ever.")
    imported_at: datetime
    imported_by: str
    source: str = Field(description="Name of the file that it was made of.")


class Lists(BaseModel):
    """The lists in force that this token may see, by name."""

    lists: list[ListShown]


class RejectShown(BaseModel):
    """A line that could not be read. The line itself is not repeated."""

    line: int
    why: str
    member: str = Field(description="The file inside an archive of several; else empty.")


class UnusedShown(BaseModel):
    """A part of the file that was not taken as entries."""

    what: str = Field(description="`column`, `sheet`, `member` or `lines`.")
    name: str = Field(description="Its name; of a column without one `#2`; of lines what they are.")
    member: str = Field(description="The file inside an archive of several, or the sheet, in which it is; else empty.")
    numbers: int = Field(description="How many of its cells read as numbers all the same.")
    line: int = Field(description="On which the first of these is; 0: there is none.")


class ImportDone(BaseModel):
    """What an import did; with `dry_run` what it would have done."""

    name: str
    version: int = Field(description="The version in force; 0 after a dry run of a new list.")
    revision: int
    entries: int = Field(description="In force now.")
    before: int = Field(description="In force before; 0 for a new list.")
    changed: bool = Field(description="False where the list had exactly these entries already.")
    dry_run: bool
    kind: str = Field(description="`number`; or `md5`, `sha1`, `sha256`: a hashed list.")
    column: str = Field(description="The first column that was read: its name in the header, or `#2`.")
    columns: list[str] = Field(description="All columns that were read, of all members and sheets.")
    lines: int = Field(description="Lines with content, the header not counted.")
    repeats: int = Field(description="Entries that the file has more than once.")
    rejected: int = Field(description="Lines of which a number could not be read. What could be read of them counts.")
    rejects: list[RejectShown] = Field(description="The first 1,000 of these.")
    kept_for_ever: int = Field(description="Lines with an expiry that could not be read: they hold for ever.")
    kept: list[RejectShown] = Field(description="The first of these.")
    ended: int = Field(description="Lines whose expiry is past: they list nobody.")
    dropped: int = Field(description="Changes by hand that the new version does not have.")
    skipped: list[str] = Field(description="Members of an archive and sheets of a workbook that were not read.")
    unused: list[UnusedShown] = Field(
        description="These, and all else that was not taken as entries: columns, the header, lines above it. Those that"
        " seem to hold numbers come first; at most 1,000."
    )


class EditDone(BaseModel):
    """What a change by hand came to."""

    name: str
    version: int
    revision: int
    added: int
    removed: int
    already: int = Field(description="To be added, and on the list before.")
    absent: int = Field(description="To be removed, and not on the list.")
    entries: int = Field(description="In force now.")


class Logged(BaseModel):
    """One thing that was done to a list, or refused. `before` and `after`: entries in force, null: none was."""

    at: datetime
    action: str
    by: str = Field(description="A token's name, or a user of the machine.")
    origin: str = Field(description="`api:ADDRESS`, `cli:HOST`; a buyer sees the address of its own tokens only.")
    version: Count
    revision: Count
    before: Count
    after: Count
    detail: dict[str, Any]


class Log(BaseModel):
    """A page of what was done to a list, the newest first."""

    log: list[Logged]
    next: Next


class OnList(BaseModel):
    """A list that has the number. Of a global one a buyer is not told `by`."""

    name: str
    buyer: str = Field(description="Whose list it is; empty: global.")
    version: int
    revision: int
    since: datetime
    exact: bool = Field(description="False: since then or longer, for the file of an older version is gone.")
    by: str = Field(description="Who put it there.")
    expires_at: Moment = Field(description="The entry holds until then, UTC; null: for ever.")


class CheckDone(BaseModel):
    """Which lists have a number, and whether it may be transferred."""

    on: list[OnList]
    verdict: str = Field(
        description="`pass`, `suppressed` or `suppression_unavailable`; empty where no buyer was named."
    )
    hit: str = Field(description="The list that decided; empty where none did.")
    exempt: list[int] = Field(description="Exemptions on record that let it pass a global list.")
    unavailable: list[str] = Field(description="Lists that apply and cannot be read: whom they protect is refused.")


class Consulted(BaseModel):
    """A list that a scrub consulted, in exactly this state."""

    name: str
    version: int
    revision: int
    state: str = Field(description="SHA-256.")


class ReceiptShown(BaseModel):
    """A receipt that is genuine: signed by this Baton and unchanged since."""

    claims: dict[str, Any] = Field(description="What it says: `jti` is the transfer, `verdict`, `buyer`, `iat`.")
    lists: list[Consulted] = Field(description="That were consulted, as far as the record of them proves itself.")
    missing: list[str] = Field(description="Beginnings of digests that it names and that are not on record.")
    changed: list[str] = Field(description="Those whose record is not what was signed; it does not count.")
    number_matches: Annotated[bool | None, WithJsonSchema({"type": ["boolean", "null"], "format": "boolean"})] = Field(
        description="Whether it is that number's; null where none was given."
    )


def until_s(text: str, now: datetime, zone: str) -> int:
    """The Unix second at which a day ends in that zone, or of an instant. Raises ValueError, for people."""
    try:
        end = end_us(text, zone)
    except ValueError as error:
        raise ValueError("is no date such as 2027-01-31, nor a time such as 2027-01-31T12:00Z") from error
    if end <= now.timestamp() * 1_000_000:
        raise ValueError("is in the past")
    second = end // 1_000_000
    if second > LAST_S:
        raise ValueError("is later than a list can say: leave it out, and the entry holds for ever")
    return second


def _file_name(value: str) -> str:
    if value.startswith(".") or not value.isprintable() or any(mark in value for mark in "/\\"):
        raise ValueError("is no name of a file: printable characters without / and \\, not beginning with a dot")
    if len(value.encode()) > _MAX_FILE_NAME:
        raise ValueError(f"has more than {_MAX_FILE_NAME} bytes")
    return value


class ImportQuery(BaseModel):
    """What is said of a file to be imported."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    buyer: str = Field(
        "",
        pattern=r"^([a-z0-9][a-z0-9_-]{0,63})?$",
        description="Whose list it is. The operator's without it is global; a buyer's token says it.",
    )
    mode: Literal["replace", "add", "remove"] = Field(
        "replace", description="What the file does to the list: `replace`, `add` or `remove`."
    )
    column: list[Annotated[str, Field(max_length=_MAX_COLUMN)]] = Field(
        [],
        max_length=_MAX_COLUMNS,
        description="Column of the numbers: its name, or `#2`. Several times for several; guessed without.",
    )
    area_column: str = Field(
        "", max_length=200, description="Column of area codes, where that of the numbers has seven digits."
    )
    expires_column: str = Field("", max_length=200, description="Column that says until when an entry holds.")
    hashed: Literal["md5", "sha1", "sha256"] | None = Field(
        None, description="The entries are digests, `md5`, `sha1` or `sha256`; seen without."
    )
    region: str = Field(
        DEFAULT_REGION,
        max_length=2,
        description=f"Country of numbers that do not say theirs, such as `{DEFAULT_REGION}`, the default.",
    )
    header: bool | None = Field(
        None, description="Whether the first row is a header; without, it is where it has a name that is known."
    )
    skip_rows: int = Field(0, ge=0, le=MAX_SKIPPED, description="How many lines above the header are no list.")
    member: str = Field("", max_length=200, description="Which files of a ZIP archive, such as `*.csv`.")
    sheet: str = Field("", max_length=200, description="Which sheets of a workbook, such as `DNC*`.")
    expires: str = Field(
        "",
        max_length=_MAX_TIME,
        description="Until when the whole list holds: `2027-01-31`, that day included, in the zone of the buyer's"
        f" terms, of a global list in {DEFAULT_TIME_ZONE}.",
    )
    reject_percent: float = Field(
        REJECT_PERCENT,
        ge=0,
        le=100,
        allow_inf_nan=False,
        description=f"More rejected lines than this, and nothing changes; {REJECT_PERCENT:g} by default.",
    )
    keep_changes: bool = Field(default=False, description="When replacing, carry over what was changed by hand.")
    allow_empty: bool = Field(default=False, description="Accept a list without any number.")
    dry_run: bool = Field(default=False, description="Say what would be done, change nothing.")
    filename: Annotated[str, AfterValidator(_file_name)] = Field(
        "upload", min_length=1, description="Its name, for the log."
    )


def _spelled_out(value: object) -> object:
    """Take an entry that is given as its text alone."""
    return {"entry": value} if isinstance(value, str) else value


_ENTRY = {"type": "string", "minLength": 1, "maxLength": _MAX_ENTRY}


class NewEntry(Body):
    """An entry to be added."""

    entry: str = Field(min_length=1, max_length=_MAX_ENTRY)
    expires: str = Field("", max_length=_MAX_TIME)


Added = Annotated[
    NewEntry,
    BeforeValidator(_spelled_out),
    WithJsonSchema(
        {
            "format": "entry",
            "anyOf": [
                _ENTRY,
                {
                    "type": "object",
                    "required": ["entry"],
                    "properties": {"entry": _ENTRY, "expires": {"type": "string", "maxLength": _MAX_TIME}},
                    "additionalProperties": False,
                },
            ],
        }
    ),
]


class ListEdit(Body):
    """Entries to be added and removed: numbers in any usual spelling, or digests in hex on a hashed list."""

    add: list[Added] = Field(
        [],
        max_length=MAX_ENTRIES,
        description='Each a text, or `{"entry": "+12125550123", "expires": "2027-01-31"}`: that day included.',
    )
    remove: list[Annotated[str, Field(min_length=1, max_length=_MAX_ENTRY)]] = Field(
        [], max_length=MAX_ENTRIES, description=f"Each a text. No more than {MAX_ENTRIES:,} entries in all."
    )


class ListRestore(Body):
    """A version to be put in force again."""

    version: int = Field(ge=1, le=2**31 - 1, description="Its number, see the log.")
    drop_changes: bool = Field(
        default=False, description="Do not carry over what was changed by hand since the version now in force began."
    )


class NumberCheck(Body):
    """A number to be looked up."""

    number: str = Field(min_length=1, max_length=_MAX_ENTRY, description="In any usual spelling.")
    buyer: str = Field(
        "", max_length=64, description="As for this buyer: the global lists and its own. A buyer's token says it."
    )


class ReceiptVerify(Body):
    """A receipt to be verified."""

    receipt: str = Field(min_length=1, max_length=_MAX_RECEIPT, description="What stood in `X-Baton-Receipt`.")
    number: str = Field("", max_length=_MAX_ENTRY, description="Whether it is this number's.")


BODIES: tuple[type[Body], ...] = (ListEdit, ListRestore, NumberCheck, ReceiptVerify)


def shown_list(version: ListVersion, token: Token) -> ListShown:
    """A list as this token may see it."""
    whole = version.buyer is not None or token.scope is Scope.OPERATOR
    return ListShown(
        name=version.name,
        buyer=version.buyer or "",
        kind=version.kind,
        version=version.version,
        revision=version.revision,
        state=version.state,
        entries=version.count,
        expires_at=None if version.expires_utc_us is None else whole_second(version.expires_utc_us),
        imported_at=whole_second(version.imported_utc_us),
        imported_by=version.imported_by if whole else "",
        source=version.source if whole else "",
    )


def shown_unused(unused: tuple[UnusedPart, ...]) -> list[UnusedShown]:
    return [
        UnusedShown(what=str(part.what), name=part.name, member=part.member, numbers=part.numbers, line=part.line)
        for part in unused[:MAX_UNUSED]
    ]


def shown_rejects(rejects: list[Rejected] | list[Reject]) -> list[RejectShown]:
    return [RejectShown(line=reject.line, why=reject.why, member=reject.member) for reject in rejects]


def shown_found(hit: ListMatch, token: Token) -> OnList:
    """A list that has a number, as this token may see it."""
    return OnList(
        name=hit.name,
        buyer=hit.buyer or "",
        version=hit.version,
        revision=hit.revision,
        since=whole_second(hit.since_utc_us),
        exact=hit.exact,
        by=hit.by if hit.buyer is not None or token.scope is Scope.OPERATOR else "",
        expires_at=datetime.fromtimestamp(hit.expires_s, UTC) if hit.expires_s else None,
    )


def shown_log(row: ListLogEntry, *, own: frozenset[str] | None, detail: dict[str, Any]) -> Logged:
    """A row of the log. `own`: the names of the buyer's tokens who asks; None: the operator asks."""
    whole = own is None or row.by in own
    if not whole:
        detail = {key: value for key, value in detail.items() if key != "why"}  # it names folders of that machine
    return Logged(
        at=whole_second(row.at_utc_us),
        action=row.action,
        by=row.by,
        origin=row.origin if whole else row.origin.partition(":")[0],
        version=row.version,
        revision=row.revision,
        before=row.before,
        after=row.after,
        detail=detail,
    )
