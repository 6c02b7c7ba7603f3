"""Other processes for the simulations: `python -m tests.sim.books.once kill|settle|post`, told what to do by its input.

kill    a line `PATH AS_OF_US DELAY_S` forks a child that runs the cycle once and is killed after the delay;
        answers `killed` or `done`. Forked from here, a child begins at once: nothing is to be imported any more.
settle  a line `PATH` settles the journal of that store, beside whoever else does; answers with its commits
post    a line `PATH FILE` appends the postings of a pickle, a few at a time; answers with how many were new
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys
from pathlib import Path

import structlog

from meter.billing.cycle import Cycle
from meter.ledger.sql import ledger
from meter.settling.follower import Follower, SettleOptions
from meter.settling.sql.settlement import CursorMovedError
from meter.store.clerk import Clerk
from meter.store.engine import open_store

MAX_TRIES = 10_000
FEW = 7  # postings of one transaction


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    work = {"kill": _kill, "settle": _settle, "post": _post}[sys.argv[1]]
    _answer("ready")
    for line in sys.stdin:
        _answer(work(*line.split()))


def _kill(path: str, as_of: str, delay: str) -> str:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    child = os.fork()
    if not child:
        asyncio.run(_cycle(path, int(as_of)))
        os._exit(0)
    ended = signal.sigtimedwait({signal.SIGCHLD}, float(delay))
    if ended is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if ended is None:
        signal.sigtimedwait({signal.SIGCHLD}, 1.0)
    return "done" if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0 else "killed"


async def _cycle(path: str, as_of: int) -> None:
    engine = await open_store(f"sqlite:///{path}")
    cycle = Cycle(engine)
    report = await cycle.run_once(as_of)
    assert report.trouble == []
    await cycle.close()
    await engine.dispose()


def _settle(path: str) -> str:
    return str(asyncio.run(_settle_all(path)))


async def _settle_all(path: str) -> int:
    engine = await open_store(f"sqlite:///{path}")
    commits: list[None] = []
    follower = Follower(engine, SettleOptions(), lambda: commits.append(None))
    for _ in range(MAX_TRIES):
        try:
            if not await follower.catch_up():
                break
        except CursorMovedError:  # another was faster: look again, as the follower's own loop does
            continue
    await follower.close()
    await engine.dispose()
    return len(commits)


def _post(path: str, file: str) -> str:
    return str(asyncio.run(_post_all(path, Path(file))))


async def _post_all(path: str, file: Path) -> int:
    made = pickle.loads(file.read_bytes())
    engine = await open_store(f"sqlite:///{path}")
    clerk = Clerk(engine)
    fresh = 0
    for at in range(0, len(made), FEW):
        fresh += len(await clerk.write(lambda connection, at=at: ledger.append(connection, made[at : at + FEW])))
    await clerk.close()
    await engine.dispose()
    return fresh


def _answer(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
