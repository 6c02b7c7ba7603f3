"""The texts of e-mails: Jinja2 templates, those that ship and the operator's own in front of them.

A file in the operator's folder replaces the shipped one of the same name, and is read again when it changes. It is
rendered in a sandbox, with a budget of loop steps and calls, and may build on what ships:
`{% extends "shipped/failed_lead.html.jinja" %}`. Should it fail, the shipped template takes its place and the failure
is logged and counted: a mail is never lost to a template. `Texts.faults` finds such faults before.

Names tell what a template is: in `.html.jinja` every value is escaped, in others (`.txt.jinja`, `.subject.jinja`) none.
Values come from the network; whoever gives them to `render` has them made safe (`meter.text.hostile`).

`use` is called once when the process starts; `render` is for everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from typing import Any

import structlog
from jinja2 import (
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    PackageLoader,
    PrefixLoader,
    StrictUndefined,
    TemplateSyntaxError,
    nodes,
    select_autoescape,
)
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from telemetry import metrics

SUFFIX = ".jinja"
MAX_STEPS = 100_000  # loop steps and calls of one rendering of the operator's: a hundred fields need some hundreds
MAX_TEXT = 1_000_000  # characters of one text
_SHOWN_ERROR = 300  # characters
_PARTS = "_"  # a file whose name starts so is a part of others, and replaces nothing

_log = structlog.get_logger(__name__)
_samples: dict[str, Callable[[], Mapping[str, Any]]] = {}


@dataclass(frozen=True, slots=True)
class TemplateFault:
    """Something wrong with a template of the operator's. `line` where it is known."""

    file: Path
    line: int | None
    message: str

    def __str__(self) -> str:
        return f"{self.file}{f':{self.line}' if self.line else ''}: {self.message}"


class TextError(Exception):
    """A template of the operator's cannot be used."""


class _Budgeted(ImmutableSandboxedEnvironment):
    """A sandbox that changes no value, counts every loop step and every call, and multiplies nothing but numbers."""

    intercepted_binops = frozenset({"*", "**"})
    steps = 0

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = nodes.Filter(loop.iter, "_counted", [], [], None, None, lineno=loop.lineno)
        return tree

    def call(self, context: Context, callee: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.step()
        return super().call(context, callee, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or not isinstance(left, int | float) or not isinstance(right, int | float):
            raise SecurityError(f"{operator} is for numbers alone" if operator == "*" else "** is not available")
        return super().call_binop(context, operator, left, right)

    def step(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise SecurityError(f"more than {MAX_STEPS:,} loop steps and calls")

    def counted(self, values: Iterable[Any]) -> Iterator[Any]:
        for one in values:
            self.step()
            yield one


class Texts:
    """The shipped templates and, where there is a folder, the operator's in front of them."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        loader = PackageLoader("meter.text", "templates")
        self._shipped = Environment(loader=loader, **_SETTINGS)  # noqa: S701 - _SETTINGS has autoescape
        self._own = _sandbox(folder) if folder is not None else None

    def render(self, name: str, values: Mapping[str, Any]) -> str:
        """The text of a template; of the operator's where it has one of that name and it works."""
        if self._own is not None and self._replaces(name):
            try:
                return self._try_own(name, values)
            except Exception as error:  # noqa: BLE001 - a template may raise anything; the mail goes out all the same
                metrics.MAIL_TEMPLATES_FAILED.labels(name).inc()
                fault = _fault(self._file(name), error)  # its message may hold what the lead says: not for logs
                place = f"{fault.file}:{fault.line or ''}".rstrip(":")
                _log.error("template failed; the shipped one is used", place=place, error=type(error).__name__)
        return self._shipped.get_template(name).render(values)

    def faults(self) -> list[TemplateFault]:
        """The faults of the operator's templates: each is parsed and, where there is a sample, rendered."""
        if self.folder is None:
            return []
        if not self.folder.is_dir():
            return [TemplateFault(self.folder, None, "is no folder that can be read")]
        return [fault for file in sorted(self.folder.rglob("*")) if file.is_file() and (fault := self._look_at(file))]

    def replaced(self) -> list[str]:
        """The names of the shipped templates that the operator's folder has in its own form."""
        return [name for name in self.shipped() if self.folder is not None and self._replaces(name)]

    def shipped(self) -> list[str]:
        """The names of all templates that ship."""
        return [name for name in self._shipped.list_templates() if name.endswith(SUFFIX)]

    def _look_at(self, file: Path) -> TemplateFault | None:
        assert self.folder is not None
        assert self._own is not None
        name = file.relative_to(self.folder).as_posix()
        if not name.endswith(SUFFIX):
            return None
        part = file.name.startswith(_PARTS)
        if not part and name not in self.shipped():
            return TemplateFault(file, None, f"replaces nothing: those that ship are {', '.join(self.shipped())}")
        try:
            sample = None if part else _samples.get(name.partition(".")[0])
            if sample is None:
                self._own.get_template(name)
            else:
                self._try_own(name, sample())
        except Exception as error:  # noqa: BLE001 - likewise
            return _fault(file, error)
        return None

    def _replaces(self, name: str) -> bool:
        return self._file(name).is_file()

    def _file(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / name

    def _try_own(self, name: str, values: Mapping[str, Any]) -> str:
        assert self._own is not None
        self._own.steps = 0
        text: list[str] = []
        length = 0
        for piece in self._own.get_template(name).generate(values):
            length += len(piece)
            if length > MAX_TEXT:
                raise TextError(f"is longer than {MAX_TEXT:,} characters")
            text.append(piece)
        if not length or not (whole := "".join(text)).strip():
            raise TextError("comes to an empty text")
        return whole


def use(folder: Path | None) -> Texts:
    """Put the operator's folder in front of what ships, for this process; None: only what ships."""
    _current[0] = Texts(folder)
    return _current[0]


def render(name: str, values: Mapping[str, Any]) -> str:
    """The text of a template by its name, such as `failed_lead.txt.jinja`."""
    return _current[0].render(name, values)


def add_sample(stem: str, values: Mapping[str, Any] | Callable[[], Mapping[str, Any]]) -> None:
    """Values to try the templates STEM.* with; their composer knows them, or how to make them once they are needed."""
    _samples[stem] = values if callable(values) else lambda: values


_SETTINGS: dict[str, Any] = {
    "autoescape": select_autoescape(enabled_extensions=("html.jinja",), default_for_string=True),
    "undefined": StrictUndefined,
    "trim_blocks": True,
    "lstrip_blocks": True,
}


def _sandbox(folder: Path) -> _Budgeted:
    shipped = PackageLoader("meter.text", "templates")
    loader = ChoiceLoader([FileSystemLoader(folder), PrefixLoader({"shipped": shipped}), shipped])
    made = _Budgeted(loader=loader, **_SETTINGS)
    counted: Callable[[Iterable[Any]], Iterator[Any]] = made.counted
    made.filters["_counted"] = counted
    for name in ("lipsum", "namespace"):
        made.globals.pop(name)
    return made


def _fault(file: Path, error: Exception) -> TemplateFault:
    """The error with the place in a template where it arose, as far as that can be told."""
    said = str(error).partition("\n")[0][:_SHOWN_ERROR] or type(error).__name__
    if isinstance(error, TemplateSyntaxError):
        return TemplateFault(Path(error.filename or file), error.lineno, said)
    frames = [one for one in extract_tb(error.__traceback__) if one.filename.endswith(SUFFIX)]
    if not frames:
        return TemplateFault(file, None, said)
    return TemplateFault(Path(frames[-1].filename), frames[-1].lineno, said)


_current = [Texts()]
