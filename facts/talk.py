"""When talk starts and when a transfer ends (domain, section 1): the two instants that decide what a transfer costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from facts.fact import Fact, Kind
from facts.payloads import answered

# What may be written after the end itself: it says nothing of when the transfer was over.
AFTERWARDS = frozenset({Kind.LEG_ENDED, Kind.ANSWERED_LATE, Kind.RECORDED})


@dataclass(slots=True)
class Talk:
    """The answers that stand, fact by fact in their order.

    Talk runs from the winner's 2xx, or from the bridge where the endpoint must first accept. Several endpoints may have
    answered and been asked to accept; one without that condition wins by its 2xx. A winner that left within the commit
    window gave no answer.
    """

    answers: list[Fact] = field(default_factory=list)
    bridge: Fact | None = None

    def note(self, fact: Fact) -> None:
        """One fact of a leg; all kinds but ANSWERED, BRIDGED and RESUMED say nothing of talk."""
        if fact.kind is Kind.RESUMED:
            self.answers, self.bridge = [answer for answer in self.answers if answer.leg != fact.leg], None
        elif fact.leg and fact.kind is Kind.ANSWERED:
            self.answers.append(fact)
        elif fact.leg and fact.kind is Kind.BRIDGED:
            self.bridge = self.bridge or fact

    @property
    def start(self) -> Fact | None:
        """The fact from which talk runs; None: nobody talked."""
        for answer in self.answers:
            if answered(answer).wins:
                return answer
        return self.bridge if self.answers else None


def talk_start(facts: Iterable[Fact]) -> Fact | None:
    """The fact from which talk runs; None: nobody talked."""
    talk = Talk()
    for fact in facts:
        talk.note(fact)
    return talk.start


def end_of(facts: Iterable[Fact]) -> Fact | None:
    """The fact of the end: `ended`, or `interrupted`, or else the last one that could come before an end."""
    interrupted: Fact | None = None
    last: Fact | None = None
    for fact in facts:
        if fact.kind is Kind.ENDED:
            return fact
        if fact.kind is Kind.INTERRUPTED:
            interrupted = interrupted or fact
        if fact.kind not in AFTERWARDS:
            last = fact
    return interrupted or last
