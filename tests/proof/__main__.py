"""`python -m tests.proof [--transfers N] [--files N] [--seed N] [--first N]`: what `make proof` plays.

Simulated transfers under chaos, and made-up list files held against how a person reads them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import structlog

from tests.proof.chaos import PER_SEED, run
from tests.proof.lists import play

FILES = 1_000  # in a share


def _quietly(seed: int) -> tuple[int, int, list[str]]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    world, wrong = run(seed)
    return seed, len({fact.transfer for fact in world.journal.facts}), wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description=__doc__)
    parser.add_argument("--transfers", type=int, default=1_000_000, help="how many to simulate")
    parser.add_argument("--seed", type=int, help="replay one seed and show every fact of what went wrong")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--files", type=int, default=100_000, help="how many list files to make up and read")
    told = parser.parse_args()
    if told.seed is not None:
        return _replay(told.seed)
    unread = _read_lists(told.files)
    done, broken, seed, started = 0, 0, told.first, time.monotonic()
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        while done < told.transfers:
            count = min(50, -(-(told.transfers - done) // PER_SEED))
            for played, transfers, wrong in pool.map(_quietly, range(seed, seed + count)):
                done += transfers
                for what in wrong:
                    broken += 1
                    print(f"seed {played}: {what}")
            seed += count
            print(f"{done:,} transfers, {broken} violations, {time.monotonic() - started:.0f} s", flush=True)
    print(f"proof: {done:,} transfers over seeds {told.first} to {seed - 1}: {broken} violations")
    return 1 if broken or unread else 0


def _share(first: int) -> tuple[int, list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        return play(range(first, first + FILES), Path(folder))


def _read_lists(files: int) -> int:
    """How many things were wrong with them."""
    read = wrong = 0
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        for one, told in pool.map(_share, range(1, files + 1, FILES)):
            read += one
            wrong += len(told)
            for what in told:
                print(what)
    print(f"proof: {files:,} list files, {read:,} of them read and the others refused: {wrong} violations", flush=True)
    return wrong


def _replay(seed: int) -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    world, wrong = run(seed)
    named = {what.partition(":")[0] for what in wrong}
    for fact in world.journal.facts:
        if fact.transfer in named:
            print(fact.transfer, fact.mono_us, fact.kind.value, fact.leg, fact.payload)
    for what in wrong:
        print(f"seed {seed}: {what}")
    print(f"seed {seed}: {len(wrong)} violations")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
