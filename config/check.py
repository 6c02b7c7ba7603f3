"""Checks a configuration file without starting a process: `baton check`.

Settings and book are validated together, so that one run shows all problems; then the files they name are looked at.
"""

from __future__ import annotations

import wave
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from book.addresses import NO_MAIL, pays_failed
from book.document import Document, read
from book.model import Terms
from book.problems import ConfigError, Problem
from book.sections import BookFile, validate_book
from config.settings import Settings, validate

MONO_16_BIT = (1, 2)
_PEM_MARK = b"-----BEGIN "


@dataclass(frozen=True, slots=True)
class CheckReport:
    """A file's settings (where they can be made), its book as far as it is sound, and what there is to say."""

    settings: Settings | None
    book: BookFile
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def check(path: Path, environ: Mapping[str, str], presets: Mapping[str, Terms]) -> CheckReport:
    """Look at all of a file. Never raises for what is wrong with it."""
    try:
        document = read(path, environ)
    except ConfigError as error:
        return CheckReport(None, BookFile(), error.problems, ())
    settings, problems = validate(document)
    book, book_problems = validate_book(document, presets)
    problems += book_problems
    if settings is not None:
        problems += _certificates(document, settings)
    problems += [
        document.problem(f"{one.path}.file", f"{one.file} {fault}")
        for one in book.suppression_lists
        if (fault := _unreadable(one.file))
    ]
    problems += _prompts(document, book)
    ordered = sorted(set(problems), key=lambda one: (one.line or 0, one.path))
    warnings = book.warnings
    if settings is not None and settings.mail is None and any(map(pays_failed, book.buyers)):
        warnings = (*warnings, document.problem("mail", NO_MAIL))
    return CheckReport(settings, book, tuple(ordered), warnings)


def _prompts(document: Document, book: BookFile) -> Iterator[Problem]:
    """WAV files that callers and endpoints are to hear: there, and what PJSIP plays (PCM, mono, 16 bit)."""
    for at, campaign in enumerate(book.campaigns):
        for name in ("greeting_file", "music_file", "consent_file"):
            yield from _prompt(document, f"campaigns[{at}].{name}", getattr(campaign, name))
    for at, buyer in enumerate(book.buyers):
        for number, endpoint in enumerate(buyer.endpoints):
            yield from _prompt(document, f"buyers[{at}].endpoints[{number}].whisper_file", endpoint.whisper_file)


def _prompt(document: Document, path: str, file: str) -> Iterator[Problem]:
    if not file:
        return
    try:
        with wave.open(file, "rb") as found:
            shape = found.getnchannels(), found.getsampwidth()
    except (OSError, EOFError, wave.Error) as error:
        yield document.problem(path, f"{file} is no WAV file that can be read: {error}")
        return
    if shape != MONO_16_BIT:
        yield document.problem(path, f"{file} has {shape[0]} channels of {8 * shape[1]} bits; one of 16 is played")


def _certificates(document: Document, settings: Settings) -> Iterator[Problem]:
    for path, file in _pem_files(settings):
        fault = _unreadable(file) or _not_pem(file)
        if fault:
            yield document.problem(path, f"{file} {fault}")


def _pem_files(settings: Settings) -> Iterator[tuple[str, Path]]:
    holders = [(f"listeners[{at}]", one.model_dump()) for at, one in enumerate(settings.listeners)]
    holders.append(("tls", settings.tls.model_dump()))
    if settings.portal is not None:
        holders.append(("portal", settings.portal.model_dump()))
    if settings.mqtt is not None:
        holders.append(("mqtt", settings.mqtt.model_dump()))
    for holder, fields in holders:
        for name in ("certificate_file", "key_file", "ca_file"):
            if isinstance(file := fields.get(name), Path):
                yield f"{holder}.{name}", file


def _unreadable(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            opened.read(1)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return ""


def _not_pem(file: Path) -> str:
    return "" if _PEM_MARK in file.read_bytes() else "is not a PEM file"
