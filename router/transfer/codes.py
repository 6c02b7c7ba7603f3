"""Which final answer the dialer gets (RFC 3261 section 21): codes that a dialer can tell apart."""

from __future__ import annotations

CLIENT_ERROR, GLOBAL_FAILURE = 400, 600  # first codes of their classes
CODE_BUSY = 486
CODE_NO_ANSWER = 480
CODE_NO_MEDIA = 488
CODE_UNREACHABLE = 503
CODE_FAULT = 500
BETWEEN_US = frozenset({401, 407, 487})  # between us and the trunk: credentials, and our own CANCEL


def better(best: int, candidate: int) -> int:
    """Which final answer to hand on: 6xx speaks for everyone, then busy, then the lowest (RFC 3261 section 16.7)."""

    def rank(code: int) -> tuple[int, int]:
        return (0 if code >= GLOBAL_FAILURE else 1 if code == CODE_BUSY else 2, code)

    return candidate if not best else min(best, candidate, key=rank)


def passable(code: int) -> int:
    """A callee's code as the dialer may see it: 6xx becomes busy, since other buyers may answer; 3xx is not for it."""
    if code >= GLOBAL_FAILURE:
        return CODE_BUSY
    return CODE_NO_ANSWER if code < CLIENT_ERROR or code in BETWEEN_US else code
