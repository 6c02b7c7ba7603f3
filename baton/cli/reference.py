"""The reference pages under docs/reference, made from the code itself: settings, commands, metrics, HTTP API.

A test holds the pages against these functions, so a setting, a command or a metric cannot exist undocumented.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import orjson
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from book.sections import BuyerEntry, CampaignEntry, ListEntry, TermsEntry
from config.settings import Settings
from telemetry.metrics import CATALOGUE

_MADE = "<!-- Made by `baton docs` from the code; do not edit. -->"
_SETTINGS = (
    "One TOML file. The environment wins over it: `BATON_ROUTER__MAX_CALLS=200` sets `router.max_calls`, and an entry"
    " of an array is named by its number or its name: `BATON_CARRIERS__MAIN__PASSWORD`. Relative paths start at the"
    " file's folder. A setting that is not listed here is refused. `baton check FILE` shows every problem at once."
)
_BOOK: tuple[tuple[str, type[BaseModel]], ...] = (
    ("terms", TermsEntry),
    ("buyers", BuyerEntry),
    ("campaigns", CampaignEntry),
    ("suppression_lists", ListEntry),
)


def pages(root: Any) -> dict[str, str]:
    """Page by file name. `root` is the command `baton` itself, as Typer makes it."""
    return {
        "settings.md": settings_page(),
        "cli.md": cli_page(root),
        "metrics.md": metrics_page(),
        "api.md": api_page(),
    }


def settings_page() -> str:
    lines = ["# Settings", _MADE, _SETTINGS]
    for name, field in Settings.model_fields.items():
        lines += _section(name, field.annotation, "" if _is_array(field.annotation) else name)
    lines.append("# Sections of the book")
    lines.append("Imported into the store by `baton import FILE`, never read by a running router.")
    for name, model in _BOOK:
        lines += _section(name, tuple[model, ...], "")  # type: ignore[valid-type]
    return "\n\n".join(lines) + "\n"


def cli_page(root: Any) -> str:
    lines = ["# Commands", _MADE]
    for path, command in _commands("baton", root):
        if getattr(command, "commands", None):
            continue
        lines.append(f"## {path}")
        lines.append(str(command.help or "").strip())
        rows = [_parameter(one) for one in command.params if one.name != "help"]
        if rows:
            lines.append(_table(("Option", "Default", "Meaning"), rows))
    lines.append("Exit codes: 0 done, 1 failed or found something, 2 typed wrongly.")
    return "\n\n".join(lines) + "\n"


def metrics_page() -> str:
    rows = [(f"`{one.name}`", one.type, ", ".join(one.labels), one.help) for one in CATALOGUE]
    lines = ["# Metrics", _MADE, "Served for Prometheus at the address of the section `metrics`."]
    return "\n\n".join([*lines, _table(("Name", "Type", "Labels", "Meaning"), rows)]) + "\n"


def api_page() -> str:
    from portal.app import DESCRIPTION, describe  # noqa: PLC0415 - the other pages need no web framework

    found = describe()
    lines = ["# HTTP API", _MADE, found["info"]["description"]]
    lines.append(
        f"Served where the section `[portal]` says; the same as OpenAPI 3.1 is at `{DESCRIPTION}`. Every error is"
        " `application/problem+json` (RFC 9457), schema `Problem`. A token goes with the request as"
        " `Authorization: Bearer TOKEN`."
    )
    for path, methods in found["paths"].items():
        for method, one in methods.items():
            lines += _operation(f"{method.upper()} {path}", one)
    lines.append("## Schemas")
    for name, schema in sorted(found["components"]["schemas"].items()):
        lines += [f"### {name}", schema.get("description", ""), _fields(schema)]
    return "\n\n".join(lines) + "\n"


def _operation(title: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"## {title}"
    yield operation["description"] + (" Needs a token." if operation.get("security") else "")
    parameters = [
        (f"`{said['name']}`", said["in"], "required" if said["required"] else "", said.get("description", ""))
        for said in operation.get("parameters", [])
    ]
    if parameters:
        yield _table(("Parameter", "In", "", "Meaning"), parameters)
    for kind, body in operation.get("requestBody", {}).get("content", {}).items():
        schema = body["schema"]
        yield f"Body, `{kind}`: an object of at most {schema['maxProperties']} fields; others than these may be given."
        yield _fields(schema)
        yield f"```json\n{orjson.dumps(body['example']).decode()}\n```"
    answers = [
        (code, f"`{_schema_name(said)}`" if said.get("content") else "", said["description"])
        for code, said in sorted(operation["responses"].items())
    ]
    yield _table(("Status", "Schema", "Meaning"), answers)


def _schema_name(content: dict[str, Any]) -> str:
    """What is answered; of a file, which has no schema, its media type."""
    media, one = next(iter(content["content"].items()))
    schema = one.get("schema", {})
    return str(schema.get("items", schema).get("$ref", media)).rpartition("/schemas/")[2]


def _fields(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return f"One of {', '.join(f'`{one}`' for one in schema['enum'])}."
    required = schema.get("required", ())
    rows = [
        (f"`{name}`", _json_type(one), "required" if name in required else "", one.get("description", ""))
        for name, one in schema["properties"].items()
    ]
    return _table(("Field", "Type", "", "Meaning"), rows)


def _json_type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if schema.get("type") == "array":
        return f"list of {_json_type(schema['items'])}"
    return str(schema.get("format") or schema.get("type", ""))


def _section(name: str, annotation: Any, prefix: str) -> Iterator[str]:
    model = _model(annotation)
    if model is None:
        return
    array = _is_array(annotation)
    yield f"## {'[[' if array else '['}{prefix or name}{']]' if array else ']'}"
    yield str(model.__doc__).strip()
    nested: list[tuple[str, Any]] = []
    rows = []
    for key, field in model.model_fields.items():
        if _model(field.annotation) is not None:
            nested.append((f"{name}.{key}", field.annotation))
        else:
            rows.append((f"`{key}`", _type(field), _default(field), field.description or ""))
    yield _table(("Setting", "Type", "Default", "Meaning"), rows)
    for inner, kind in nested:
        yield from _section(inner, kind, "")


def _model(annotation: Any) -> type[BaseModel] | None:
    """The model inside `Model`, `Model | None` or `tuple[Model, ...]`."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def _is_array(annotation: Any) -> bool:
    return get_origin(annotation) is tuple


def _type(field: FieldInfo) -> str:
    return _named(field.annotation)


def _named(annotation: Any) -> str:
    arguments = [one for one in get_args(annotation) if one not in (type(None), Ellipsis)]
    if _is_array(annotation):
        return f"list of {_named(arguments[0])}"
    if get_origin(annotation) in (types.UnionType, Union):
        return " or ".join(dict.fromkeys(_named(one) for one in arguments))
    if get_origin(annotation) is not None and arguments and isinstance(arguments[0], str | int):
        return " or ".join(f"`{one}`" for one in arguments if one)
    if get_origin(annotation) is not None and arguments:
        return _named(arguments[0])
    words = {str: "text", int: "integer", bool: "true or false", Path: "path", SecretStr: "secret text"}
    if annotation in words:
        return words[annotation]
    return {"4": "IP", "6": "IP"}.get(annotation.__name__[3:4], "") + _plain(annotation)


def _plain(annotation: Any) -> str:
    name = annotation.__name__
    if name.startswith(("IPv4", "IPv6")):
        return f" {name[4:].lower()}"
    return "word" if hasattr(annotation, "__members__") else str(name)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value in (None, "", (), {}):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    if command.hidden:
        return
    yield path, command
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        yield from _commands(f"{path} {name}", inner)


def _parameter(parameter: Any) -> tuple[str, str, str]:
    is_option = parameter.param_type_name == "option"
    name = ", ".join(parameter.opts) if is_option else (parameter.metavar or parameter.name)
    default = parameter.default
    shown = "required" if parameter.required else "" if default in (None, "", False) else f"`{default}`"
    return f"`{name}`", shown, str(parameter.help or "")


def _table(columns: tuple[str, ...], rows: list[Any]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
