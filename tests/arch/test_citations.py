"""Every citation leads somewhere: sections and rows of the domain, lessons, decisions; sections of RFCs have one form.

Five forms stand, in code, tests, stories and pages:

    domain, section 4      domain, sections 3 to 6 and 9      domain, section 3, row 7     docs/domain.md
    domain 4               domain 3, rows 7 and 8                                          the same, beside a figure
    lessons 14             lessons, "Ring-all rules"          lessons, "Heading", 7        docs/lessons.md
    decision 076           docs/decisions/076-title.md        [076](decisions/076-title.md)
    RFC 3261 section 9.1   RFC 3261 sections 9.1 and 17.1     RFC 4733 (the whole)

Other standards name themselves before the section ("ECMA-376 part 1, section 18"). A section of nothing is refused: who
reads it does not know where to look.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from facts.outcome import Reason, Verdict

ROOT = Path(__file__).parents[2]
DOMAIN, LESSONS = ROOT / "docs/domain.md", ROOT / "docs/lessons.md"
SUFFIXES = {".py", ".md", ".toml", ".yaml", ".yml", ".xml", ".html", ".jinja", ".i", ".h", ".patch", ".json", ".conf"}
NAMES = {"Makefile", "Dockerfile", "bootstrap", "build-pjsua2", "lock", "run"}
# Between two words of a citation: blanks, or the end of a line of text, of a comment or of a string that goes on.
GAP = r"(?:[ \t]+|[ \t]*\"?[ \t]*\n\+?[ \t]*(?:#:?|\*|//|\"|f\")?[ \t]*)"
_NUMBER, _ROW = r"\d+(?:\.\d+)*", r"\d+"


def _listed(item: str) -> str:
    """A list in words: `1`, `1 and 2`, `1, 2 and 3`, `1 to 3 and 5`."""
    return rf"{item}(?:{GAP}to{GAP}{item})?(?:(?:,{GAP}|{GAP}and{GAP}){item}(?:{GAP}to{GAP}{item})?(?!\d|\.\d))*"


_ROWS = rf"(?:,{GAP}rows?{GAP}(?P<rows>{_listed(_ROW)}))?"
DOMAIN_LONG = re.compile(
    rf"\bdomain,{GAP}section(?P<many>s?){GAP}(?P<sections>{_listed(_NUMBER)}){_ROWS}", re.IGNORECASE
)
DOMAIN_SHORT = re.compile(rf"\bdomain{GAP}(?P<sections>\d+\b(?!\.\d)){_ROWS}", re.IGNORECASE)
DOMAIN_ODD = re.compile(
    rf"\bdomain(?:{GAP}(?:page|specification|spec))?,?{GAP}(?:sections?|rows?){GAP}\d|\bdomain,{GAP}\d", re.IGNORECASE
)
LESSON = re.compile(rf"\blessons?{GAP}(?P<rows>{_listed(_ROW)})")
LESSON_HEADING = re.compile(rf"\blessons,{GAP}\\?\"(?P<heading>[^\"\\\n]+)\\?\"(?:,{GAP}(?P<item>\d+))?")
LESSON_ODD = re.compile(rf"\blessons?,{GAP}\d")
DECISION = re.compile(rf"\bdecisions?(?:{GAP}|/)(?P<number>\d{{3}})(?P<title>(?:-[a-z0-9]+)+\.md)?\b")
DECISION_LINK = re.compile(r"\[(?P<number>\d{3})\]\([^)]*?(?P<target>\d{3})-[a-z0-9-]+\.md\)")
RFC = re.compile(r"\bRFC(?=s?\W{0,2}\d)")
RFC_SECTION = re.compile(rf"\bRFC (\d{{3,5}}){GAP}section(?P<many>s?){GAP}(?P<sections>{_listed(_NUMBER)})")
RFC_ODD = re.compile(
    rf"\bRFC{GAP}\d{{3,5}}(?:'s)?,?{GAP}(?:\d+\.\d|(?:clause|chapter|appendix){GAP}[\dA-Z])"
    rf"|\bRFC{GAP}\d{{3,5}},{GAP}(?:sections?{GAP})?\d+\b"
    rf"|\bRFC{GAP}\d{{3,5}}'s{GAP}sections?"
    rf"|\bsections?{GAP}{_NUMBER}(?:{GAP}and{GAP}{_NUMBER})?{GAP}of{GAP}RFC|§"
)
SECTION = re.compile(rf"\bsections?{GAP}{_NUMBER}")
_STANDARDS = r"RFC \d{3,5}|WCAG 2\.2|SP 800-38D|E\.164|CSP Level 3,|MQTT 5|ECMA-376 part \d,"
_NAMED = re.compile(rf"\b(?:domain,|{_STANDARDS}){GAP}$", re.IGNORECASE)  # what may stand right before "section"


def _tracked() -> list[Path]:
    """Files of text that git has or would add, but for this one, whose examples are wrong on purpose."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return sorted(
        file
        for file in files
        if file.is_file() and file != Path(__file__) and (file.suffix in SUFFIXES or file.name in NAMES)
    )


FILES = _tracked()
DECISIONS = {file.name[:3]: file.name for file in (ROOT / "docs/decisions").glob("*.md")}


def _sections_of_the_domain() -> dict[str, set[int]]:
    """Number of each section -> rows of its tables."""
    parts = re.split(r"^## (\d+)\. .*$", DOMAIN.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {number: _rows(text) for number, text in zip(parts[1::2], parts[2::2], strict=True)}


def _rows(text: str) -> set[int]:
    return {int(number) for number in re.findall(r"^\| (\d+) \|", text, flags=re.MULTILINE)}


def _headings_of_the_lessons() -> dict[str, set[int]]:
    """Heading, in small letters -> numbers of its list."""
    parts = re.split(r"^## (.+)$", LESSONS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {
        heading.lower(): {int(number) for number in re.findall(r"^(\d+)\. ", text, flags=re.MULTILINE)}
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }


SECTIONS, LESSON_ROWS, HEADINGS = (
    _sections_of_the_domain(),
    _rows(LESSONS.read_text(encoding="utf-8")),
    _headings_of_the_lessons(),
)


def _numbers(text: str) -> set[int]:
    """Of a list in words; `3 to 6` is all four."""
    numbers: set[int] = set()
    for part in re.split(r",|\band\b", re.sub(r"[^\d.,a-z]+", " ", text)):
        ends = [int(number) for number in re.findall(r"\d+", part)]
        numbers.update(range(ends[0], ends[-1] + 1))
    return numbers


def domain_faults(text: str) -> Iterator[tuple[int, str]]:
    for cited in (*DOMAIN_LONG.finditer(text), *DOMAIN_SHORT.finditer(text)):
        sections = {str(number) for number in _numbers(cited["sections"])}
        if sections - SECTIONS.keys():
            yield cited.start(), "no such section of the domain"
        elif cited["rows"] and not _numbers(cited["rows"]) <= set().union(*(SECTIONS[one] for one in sections)):
            yield cited.start(), "no such row in that section of the domain"
        elif cited.re is DOMAIN_LONG and bool(cited["many"]) != (len(sections) > 1):
            yield cited.start(), "section of one, sections of several"
    for cited in DOMAIN_ODD.finditer(text):
        if not DOMAIN_LONG.match(text, cited.start()):
            yield cited.start(), "written `domain, section 3`"


def lesson_faults(text: str) -> Iterator[tuple[int, str]]:
    for cited in LESSON.finditer(text):
        if not _numbers(cited["rows"]) <= LESSON_ROWS:
            yield cited.start(), "no such row of the lessons"
    for cited in LESSON_HEADING.finditer(text):
        items = HEADINGS.get(cited["heading"].lower())
        if items is None or (cited["item"] and int(cited["item"]) not in items):
            yield cited.start(), "no such heading of the lessons, or no such number below it"
    yield from ((cited.start(), "written `lessons 14`") for cited in LESSON_ODD.finditer(text))


def decision_faults(text: str) -> Iterator[tuple[int, str]]:
    for cited in DECISION.finditer(text):
        name = DECISIONS.get(cited["number"])
        if name is None or (cited["title"] and name != cited["number"] + cited["title"]):
            yield cited.start(), "no such decision"
    for cited in DECISION_LINK.finditer(text):
        if cited["number"] != cited["target"]:
            yield cited.start(), "the link leads to another decision than it says"


def rfc_faults(text: str) -> Iterator[tuple[int, str]]:
    for cited in RFC.finditer(text):
        if not re.match(rf"RFC{GAP}\d{{3,5}}\b", text[cited.start() :]):
            yield cited.start(), "written `RFC 3261`"
    yield from ((cited.start(), "written `RFC 3261 section 9.1`") for cited in RFC_ODD.finditer(text))
    for cited in RFC_SECTION.finditer(text):
        if bool(cited["many"]) != (len(re.findall(_NUMBER, cited["sections"])) > 1):
            yield cited.start(), "section of one, sections of several"
        elif "," in cited["sections"] and "and" not in cited["sections"]:
            yield cited.start(), "written `sections 1, 2 and 3`"


def nameless_faults(text: str) -> Iterator[tuple[int, str]]:
    for cited in SECTION.finditer(text):
        if not _NAMED.search(text[max(0, cited.start() - 80) : cited.start()]):
            yield cited.start(), "a section of which page or standard?"


def _faults(file: Path, look: Callable[[str], Iterator[tuple[int, str]]]) -> list[str]:
    text = file.read_text(encoding="utf-8")
    return [
        f"{file.relative_to(ROOT)}:{text.count(chr(10), 0, place) + 1}: {text[place : place + 50]!r}: {fault}"
        for place, fault in sorted(look(text))
    ]


def _all_faults(look: Callable[[str], Iterator[tuple[int, str]]], besides: tuple[Path, ...] = ()) -> list[str]:
    return [fault for file in FILES if file not in besides for fault in _faults(file, look)]


def test_the_pages_are_there_with_all_their_numbers() -> None:
    assert list(SECTIONS) == [str(number) for number in range(1, 12)]
    assert SECTIONS["3"] == set(range(1, 12))
    assert set(range(1, 27)) == LESSON_ROWS
    assert HEADINGS["what none of them has"] == set(range(1, 9))


def test_citations_of_the_domain_lead_to_a_section_and_a_row() -> None:
    assert not _all_faults(domain_faults)


def test_citations_of_the_lessons_lead_to_a_row_or_a_heading() -> None:
    assert not _all_faults(lesson_faults)


def test_citations_of_decisions_lead_to_one() -> None:
    assert not _all_faults(decision_faults)


def test_sections_of_rfcs_are_cited_in_one_form() -> None:
    assert not _all_faults(rfc_faults)


def test_every_section_names_its_page_or_standard() -> None:
    assert not _all_faults(nameless_faults, besides=(DOMAIN,))


def test_the_domain_cites_sections_that_it_has() -> None:
    cited = re.findall(rf"\bsections?{GAP}({_listed(_NUMBER)})", DOMAIN.read_text(encoding="utf-8"))
    assert cited
    assert {str(number) for text in cited for number in _numbers(text)} <= SECTIONS.keys()


def test_the_table_of_outcomes_has_the_words_of_the_code() -> None:
    rows = [
        line.split(" | ") for line in DOMAIN.read_text(encoding="utf-8").splitlines() if re.match(r"\| \d+ \|", line)
    ]
    assert {word for row in rows for word in re.findall(r"`(\w+)`", row[2])} == {verdict.value for verdict in Verdict}
    assert {word for row in rows for word in re.findall(r"`(\w+)`", row[3])} == {reason.value for reason in Reason}


def test_every_lesson_names_a_story_or_a_test_that_there_is() -> None:
    stories = {folder.name for folder in (ROOT / "sipp-scenarios").iterdir() if (folder / "story.toml").is_file()}
    tests = {
        node.name
        for file in FILES
        if file.name.startswith("test_") and file.suffix == ".py"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    rows = [line for line in LESSONS.read_text(encoding="utf-8").splitlines() if re.match(r"\| \d+ \|", line)]
    shown = {line.split(" | ")[0]: set(re.findall(r"`([^`]+)`", line.split(" | ")[-1])) for line in rows}
    assert all(shown.values())
    assert not set().union(*shown.values()) - stories - tests - {"bench soak"}


@pytest.mark.parametrize(
    ("look", "text"),
    [
        (domain_faults, "(domain, section 12)"),
        (domain_faults, "domain 3, row 12"),
        (domain_faults, "domain 3, rows 7 and 12"),
        (domain_faults, "domain 4, row 1: that section has no rows"),
        (domain_faults, "(domain, sections 3 to 6 and 19)"),
        (domain_faults, "# see the domain,\n    # section 99"),
        (domain_faults, '"by the law (domain, "\n    "section 99)"'),
        (domain_faults, "domain section 3"),
        (domain_faults, "the domain page, sections 2, 5"),
        (domain_faults, "domain, section 3 and 4"),
        (domain_faults, "(domain, row 10)"),
        (domain_faults, "(domain, 6)"),
        (lesson_faults, "lessons 27: none"),
        (lesson_faults, "(lessons, 18)"),
        (lesson_faults, 'lessons, "What none of them has", 9'),
        (lesson_faults, 'source = "lessons, \\"No such heading\\""'),
        (decision_faults, "decision 999"),
        (decision_faults, "docs/decisions/999"),
        (decision_faults, "docs/decisions/041-limits-are-columns.md"),
        (decision_faults, "[071](decisions/075-how-the-cycle-knows-what-is-due.md)"),
        (rfc_faults, "RFC3261"),
        (rfc_faults, "RFCs 3261 and 3263"),
        (rfc_faults, "RFC-3261"),
        (rfc_faults, "(RFC 3261 17.1.1.2)"),
        (rfc_faults, "RFC 5321, 4.5.3.1"),
        (rfc_faults, "(RFC 3463, 2: transient)"),
        (rfc_faults, "RFC 8259, section 4"),
        (rfc_faults, "section 18.3 of RFC 3261"),
        (rfc_faults, "RFC 3261's section 20"),
        (rfc_faults, "RFC 3261 § 20"),
        (rfc_faults, "RFC 3261 section 7.3.3 and 20"),
        (rfc_faults, "RFC 3261 sections 19.1, 20, 25.1"),
        (rfc_faults, "RFC 3261 sections 9.1"),
        (nameless_faults, "as section 20.43 has it"),
        (nameless_faults, " * wrapped\n * section 4.2.1.1"),
    ],
)
def test_a_citation_that_leads_nowhere_is_found(look: Callable[[str], Iterator[tuple[int, str]]], text: str) -> None:
    assert list(look(text))


@pytest.mark.parametrize(
    "text",
    [
        "(domain, section 4); domain 4: every endpoint; domain 3, row 7; domain 3, worked examples",
        "domain, sections 3 to 6 and 9, and domain, section 3, rows 7 and 8",
        "# (domain,\n# section 3, row 8).",
        'lessons 14: voicemail; lessons, "ring-all rules"; lessons, "what none of them has", 7',
        "decision 076; docs/decisions/070; docs/decisions/041-limits-are-rows.md",
        "RFC 4733; RFC 3261 section 9.1, RFC 3261 sections 8.2.1 and 12.2.2, RFC 2046 section 5.1, RFC 5621",
        "RFC 3264 sections 5.1 and 8.4: recvonly; RFC 3261 sections 19.1, 20 and 25.1; message/rfc822",
        "ECMA-376 part 1, section 18; WCAG 2.2 section 1.4.3; ITU-T E.164 section 6; MQTT 5 section 3.4.2.1",
        " * (RFC 6665\n * section 4.2.1.1)",
    ],
)
def test_a_citation_that_leads_somewhere_is_none(text: str) -> None:
    looks = (domain_faults, lesson_faults, decision_faults, rfc_faults, nameless_faults)
    assert [fault for look in looks for fault in look(text)] == []
