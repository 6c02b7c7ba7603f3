"""The lead that comes with an INVITE: `X-Lead-*` headers, a JSON part of the body, a lead that was posted before.

All are hostile input. Names are reduced to lower-case words, control characters are dropped, sizes are bounded; what
is over a bound is cut or left out and said so in `problems`, so that nothing is lost silently. Whoever prints a field
(mail, CSV, HTML, SIP) escapes it there for that medium.

The phone is never cut, left out or replaced. It is read by the normaliser of the suppression lists, wherever it is
given; where it is given more than once, all of them must be the same number. Where it is not given, the caller's number
stands for it, unless the lead has phones under other names (`phone_number`, `lead.phone`) and none is the caller's.
What cannot be read with certainty (the phone, or a JSON that might have one) stands in `unread`, and refuses the
transfer: any other number in its place would be scrubbed instead of the person's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Never

from book.numbers import NumberError, normalise, to_e164
from facts.json_once import TwiceError, once

HEADER_PREFIX = "x-lead-"
MAX_FIELDS = 64  # a lead form has a dozen; more is an accident or an attack
MAX_NAME = 40
MAX_VALUE = 1000
MAX_DEPTH = 32  # of lists and objects within each other
PHONE = "phone"
NOT_A_NUMBER = "lead.phone: not a phone number"
ANOTHER_NAME = "lead: has a phone under another name than `phone`, and not the caller's"
TWO_NUMBERS = "lead.phone: given more than once, and not as the same number"
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]+")
_NAME = re.compile(r"[^a-z0-9_]+")
_LIKE_PHONE = re.compile(r"[a-z0-9_]*(?:phone|mobile|cell|msisdn)(?:_?(?:number|num|no|nr))?_?[0-9]*")
_MIN_DIGITS = 7  # of what stands under such a name and may be a number


@dataclass(frozen=True, slots=True)
class Lead:
    """Fields by name, the phone first, and what was wrong. Who finds `unread` must transfer nobody."""

    phone: str = ""  # E.164; empty where there is none. Among the fields what was given then stays as it was written
    fields: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()  # what is in `unread` too
    unread: tuple[str, ...] = ()


class LeadError(ValueError):
    """The document is no lead. The message repeats nothing of it."""


def clean(value: str) -> str:
    """One line without control characters, at most MAX_VALUE long. Lone surrogates from bad bytes are replaced."""
    safe = value.encode("utf-8", "replace").decode("utf-8")
    return _CONTROL.sub(" ", safe).strip()[:MAX_VALUE]


def field_name(name: str) -> str:
    """`First-Name` and `firstName ` become `first_name` and `firstname`."""
    return _NAME.sub("_", name.strip().lower())[:MAX_NAME].strip("_")


def e164(number: str) -> str:
    """The number in E.164, or empty where it is none: as the suppression lists read it."""
    try:
        return to_e164(normalise(number))
    except NumberError:
        return ""


def one_number(given: Iterable[str]) -> str:
    """The number in E.164 that all of these are; empty where one is none, or they are not the same."""
    numbers = {e164(one) for one in given}
    return numbers.pop() if len(numbers) == 1 else ""


def read_lead(
    headers: Mapping[str, Sequence[str]],
    body: bytes,
    caller: str,
    *,
    posted: bytes = b"",
    unread: Sequence[str] = (),
    caller_unread: str = "",
) -> Lead:
    """The lead of one INVITE. Fields of JSON win over headers, posted ones over all; the phone must be the same.

    `body`, `posted`: JSON, empty for none. The caller's number is taken where no phone was given. `unread`,
    `caller_unread`: what of the message could not be read, and why its From could not.
    """
    gathered = _LeadFields(unread=list(unread))
    for name, values in headers.items():
        if name.startswith(HEADER_PREFIX):
            for value in values or ("",):
                gathered.put(name[len(HEADER_PREFIX) :], value)
    for document in filter(None, (body, posted)):
        gathered.put_document(document)
    return gathered.lead(caller, caller_unread)


@dataclass(slots=True)
class _LeadFields:
    """What was given so far."""

    fields: dict[str, str] = field(default_factory=dict)  # without the phone
    phones: list[str] = field(default_factory=list)  # as they came
    problems: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # what seems to be a phone and has another name
    here: set[str] = field(default_factory=set)  # names in the headers, or in the document that is read

    def put_document(self, document: bytes) -> None:
        try:
            found = read_object(document)
        except LeadError as error:
            self.unread.append(f"lead: the JSON part cannot be read: {error}")
            return
        self.here.clear()
        for name, value in found.items():
            self.others += _phones_within(value)
            several = isinstance(value, list | dict) and field_name(name) == PHONE  # one alone would be scrubbed
            self.put(name, "" if several else as_text(value))

    def put(self, name: str, value: str) -> None:
        """Keep a field, cleaned; of the phone every one that is given, as it came."""
        key = field_name(name)
        if _LIKE_PHONE.fullmatch(key):
            self.others.append(value)
        if key == PHONE:
            self.phones.append(value)
        elif not key:
            self.problems.append("lead: a field without a usable name was left out")
        elif len(self.fields) >= MAX_FIELDS and key not in self.fields:
            self.problems.append(f"lead.{key}: left out, more than {MAX_FIELDS} fields")
        else:
            said = clean(value)
            if len(value) > MAX_VALUE:
                self.problems.append(f"lead.{key}: cut to {MAX_VALUE} characters")
            if key in self.here and self.fields[key] != said:
                self.problems.append(f"lead.{key}: given more than once, the last one is kept")
            self.here.add(key)
            self.fields[key] = said

    def _is_of_another(self, caller: str) -> bool:
        """Whether the lead has phones, and none of them is the caller's: somebody else may be meant."""
        given = [one for one in self.others if sum(map(str.isdigit, one)) >= _MIN_DIGITS]
        return bool(given) and caller not in map(e164, given)

    def lead(self, caller: str, caller_unread: str) -> Lead:
        phone = one_number(self.phones or (caller,))
        if self.phones and not phone:
            self.unread.append(NOT_A_NUMBER if "" in map(e164, self.phones) else TWO_NUMBERS)
        elif not self.phones and caller_unread:
            self.unread.append(caller_unread)
        elif not self.phones and phone and self._is_of_another(phone):
            self.unread.append(ANOTHER_NAME)
        said = phone or clean(self.phones[0] if self.phones else "")
        return Lead(
            phone="" if self.unread else phone,
            fields={PHONE: said, **self.fields} if said else self.fields,
            problems=(*self.problems, *self.unread),
            unread=tuple(self.unread),
        )


def _phones_within(value: Any) -> Iterator[str]:
    """What stands under the name of a phone in objects within a document's fields."""
    if isinstance(value, list):
        for one in value:
            yield from _phones_within(one)
    elif isinstance(value, dict):
        for name, one in value.items():
            if isinstance(one, str) and _LIKE_PHONE.fullmatch(field_name(name)):
                yield one
            yield from _phones_within(one)


# --- JSON ---


def read_object(document: bytes) -> dict[str, Any]:
    """The fields of a lead, as `read_json` has them. Raises LeadError."""
    found = read_json(document)
    if not isinstance(found, dict):
        raise LeadError("it is not an object")
    return found


def read_json(document: bytes) -> Any:
    """JSON as RFC 8259 has it, read to the letter: numbers stay text. Raises LeadError.

    Refused is what programs read in different ways: a byte order mark, other encodings, names given twice, NaN, lone
    surrogates, anything behind the end.
    """
    try:
        text = document.decode("utf-8")
        found = json.loads(
            text, object_pairs_hook=once, parse_constant=_no_number, parse_float=Number, parse_int=Number
        )
        for one in _texts(found):
            one.encode("utf-8")
    except TwiceError as error:
        raise LeadError("a name is given twice") from error
    except UnicodeError as error:
        raise LeadError("it is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise LeadError(f"{error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise LeadError("it is nested too deep") from error
    return found


class Number(str):
    """A number of JSON as it was written: `3.10555012E9` has lost a digit, which no arithmetic would tell."""

    __slots__ = ()


def as_text(value: Any) -> str:
    """A value of `read_object` as a field has it."""
    if isinstance(value, str):
        return str(value)
    return "" if value is None else _written(value)


def _written(value: Any) -> str:
    """As JSON, with numbers as they came."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{_written(name)}:{_written(one)}' for name, one in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


def _no_number(_name: str) -> Never:
    raise LeadError("it has a number that is none")


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    if depth > MAX_DEPTH:
        raise LeadError("it is nested too deep")
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one, depth + 1)
    elif isinstance(value, dict):
        for name, one in value.items():
            yield name
            yield from _texts(one, depth + 1)
