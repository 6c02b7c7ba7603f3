"""Commands on documents, statements among them: `invoices list`, `show`, `get`, `transfers`, `send` and more."""
# ruff: noqa: PLC0415 - imports stand in the commands, see baton.cli.main

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from baton.cli.billing import issuer_options
from baton.cli.console import (
    CommandError,
    ConfigOption,
    JsonOption,
    StoreOption,
    find_place,
    find_settings,
    out,
    print_json,
    print_table,
    when,
    with_store,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from meter.billing.sql.documents import Document

invoices = typer.Typer(help="Invoices, credit notes and statements.", no_args_is_help=True)

NumberArgument = Annotated[str, typer.Argument(metavar="NUMBER", help="Number of the document.")]
_FORMS = ("html", "pdf", "csv", "json")


@invoices.command("list")
def list_(
    buyer: Annotated[str, typer.Argument(metavar="[BUYER]", help="Name of the buyer; all where none is given.")] = "",
    *,
    is_open: Annotated[bool, typer.Option("--open", help="Only what is still to be paid.")] = False,
    series: Annotated[str, typer.Option(help="Only `invoice`, `credit_note` or `statement`.")] = "",
    config: ConfigOption = None,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """List documents in the order in which they were issued, with what is still open of them."""
    from meter.billing.sql.operations import BillingStore

    async def work(engine: AsyncEngine) -> list[Document]:
        return await BillingStore(engine).documents(buyer, series=series, open_only=is_open)

    found = with_store(find_place(config, store), work)
    if as_json:
        print_json([_as_dict(one) for one in found])
        return
    columns = ("number", "kind", "buyer", "period", "issued", "due", "total", "credits used", "open", "state")
    print_table(columns, [_row(one) for one in found])


@invoices.command("show")
def show(
    number: NumberArgument, config: ConfigOption = None, store: StoreOption = "", as_json: JsonOption = False
) -> None:
    """Show a document: its lines, sums and notes, and what has become of it."""
    from meter.billing.documents import shown
    from meter.billing.sql.operations import BillingStore

    async def work(engine: AsyncEngine) -> tuple[Document, dict[str, Any]]:
        found = BillingStore(engine)
        return await found.document(number), await found.body(number)

    document, body = with_store(find_place(config, store), work)
    if as_json:
        print_json({**_as_dict(document), "body": body})
        return
    page = shown(body)
    out(f"{page['title']} {number} for {document.buyer}, issued {page['issued']}")
    rows = [[one["text"], one["units"], one["price"], one["amount"], one["opens"]] for one in page["lines"]]
    print_table(("line", "units", "price", "amount", "transfers of"), rows)
    if page["week"]:
        print_table(("in this week", "number", "amount"), [list(row) for row in page["week"]])
    out(f"total {page['total']}, credits used {page['applied'] or 'none'}, to pay {page['asked']}")
    if page["due"]:
        out(f"due {page['due']}; {_state(document)}")
    for note in page["notes"]:
        out(f"- {note}")


@invoices.command("get")
def get(
    number: NumberArgument,
    form: Annotated[str, typer.Option("--format", help=f"One of {', '.join(_FORMS)}.")] = "pdf",
    out_file: Annotated[Path | None, typer.Option("--out", help="File to write; standard output without it.")] = None,
    *,
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Write a document as it was issued: HTML or PDF, its lines as CSV, or all that it says as JSON."""
    if form not in _FORMS:
        raise CommandError(f"--format: {form!r} is none of {', '.join(_FORMS)}")
    _use_templates(config)

    async def work(engine: AsyncEngine) -> bytes:
        import orjson

        from meter.billing.documents import document_file, lines_csv
        from meter.billing.sql.operations import BillingStore
        from meter.store.clerk import Clerk

        billing = BillingStore(engine)
        if form == "csv":
            return lines_csv(await billing.body(number)).encode()
        if form == "json":
            return orjson.dumps(await billing.body(number), option=orjson.OPT_INDENT_2)
        await billing.document(number)
        clerk = Clerk(engine)
        try:
            return await document_file(clerk, number, form)
        finally:
            await clerk.close()

    _write(with_store(find_place(config, store), work), out_file)


@invoices.command("transfers")
def transfers(
    number: NumberArgument,
    out_file: Annotated[Path | None, typer.Option("--out", help="File to write; standard output without it.")] = None,
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Write the transfers behind a document's lines as CSV; `baton transfers show ID` opens each of them."""
    from meter.billing.sql.operations import BillingStore

    async def work(engine: AsyncEngine) -> str:
        return await BillingStore(engine).detail(number)

    _write(with_store(find_place(config, store), work).encode(), out_file)


@invoices.command("send")
def send(
    number: NumberArgument,
    to: Annotated[list[str] | None, typer.Option("--to", help="Address; the buyer's own where none is given.")] = None,
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Queue a document's e-mail again, under the Message-ID that it had."""
    from meter.billing.sql.operations import BillingStore

    async def work(engine: AsyncEngine) -> list[str]:
        return await BillingStore(engine).send(number, to or [])

    out(f"{number}: queued for {', '.join(with_store(find_place(config, store), work))}")


@invoices.command("handed-over")
def handed_over(
    number: NumberArgument,
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Note that a document was brought to its buyer otherwise than by its e-mail, which is not sent any more then.

    An invoice puts its buyer on hold only once a mail server has it, or this was said.
    """
    import getpass

    from meter.billing.sql.operations import BillingStore

    who = getpass.getuser()

    async def work(engine: AsyncEngine) -> bool:
        return await BillingStore(engine).hand_over(number, who)

    if not with_store(find_place(config, store), work):
        raise CommandError(f"{number} was handed over already")
    out(f"{number}: noted by {who} as handed over")


@invoices.command("cancel")
def cancel(
    number: NumberArgument,
    reason: Annotated[str, typer.Option(help="Why; stands on the credit note.")],
    config: ConfigOption = None,
    store: StoreOption = "",
) -> None:
    """Cancel an order's invoice by a credit note: all of it before its week begins, what was not delivered after it.

    Other invoices ask for what was delivered; what was wrong about that is credited transfer by transfer.
    """
    import getpass

    from meter.billing.sql.operations import BillingStore

    options = issuer_options(config)

    async def work(engine: AsyncEngine) -> str:
        return await BillingStore(engine).cancel(number, reason, getpass.getuser(), options.issuer)

    out(f"{number}: cancelled by {with_store(find_place(config, store), work)}")


def _use_templates(config: ConfigOption) -> None:
    """Draw with the operator's own templates, where a configuration names some: what is drawn first is kept."""
    from baton.process.meter import mail_options
    from meter.run import use_templates

    settings = find_settings(config)
    if settings is not None:
        use_templates(mail_options(settings))


def _write(content: bytes, out_file: Path | None) -> None:
    if out_file is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    out_file.write_bytes(content)
    out(f"{out_file}: {len(content):,} bytes")


def _state(document: Document) -> str:
    if document.due_utc_us is None:
        return "nothing to pay"
    if document.settled_utc_us is not None:
        return f"paid {when(document.settled_utc_us)[:10]}"
    return "unpaid, buyer held" if document.held_utc_us is not None else "open"


def _row(document: Document) -> list[Any]:
    from meter.text.localised import DEFAULT_LOCALE, money_text

    amounts = [
        money_text(minor, document.currency, DEFAULT_LOCALE) for minor in (document.total_minor, document.applied_minor)
    ]
    left = money_text(document.open_minor, document.currency, DEFAULT_LOCALE) if document.open_minor else ""
    due = when(document.due_utc_us)[:16]
    return [
        document.number,
        document.kind,
        document.buyer,
        document.period,
        document.issued_on,
        due,
        *amounts,
        left,
        _state(document),
    ]


def _as_dict(document: Document) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(document)
