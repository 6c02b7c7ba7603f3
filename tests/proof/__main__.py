"""`python -m tests.proof [--transfers N] [--files N] [--fuzz N] [--sanitize] [--seed N] [--first N]`: `make proof`.

Simulated transfers under chaos, made-up list files held against how a person reads them, and a real router under the
messages of strangers, a dialer and endpoints that mean harm, beside a dialer whose calls must all succeed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import structlog

from tests.fuzz.stage import play as fuzz
from tests.proof.chaos import PER_SEED, run
from tests.proof.lists import play

FILES = 1_000  # in a share
FUZZ = 300_000  # messages
A_SECOND, A_SECOND_SANITIZED = 1_500, 250  # of them
GOOD_A_SECOND, GOOD_A_SECOND_SANITIZED = 20, 5  # transfers beside them
ROOT = Path(__file__).parents[2]


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
    parser.add_argument(
        "--fuzz", type=int, help=f"how many messages to fuzz a router with ({FUZZ:,}); with --seed, that seed alone"
    )
    parser.add_argument("--sanitize", action="store_true", help="fuzz an engine built with AddressSanitizer")
    told = parser.parse_args()
    if told.seed is not None:
        return _fuzz(told.fuzz, told.seed, sanitize=told.sanitize) if told.fuzz else _replay(told.seed)
    unread = _read_lists(told.files)
    fuzzed = FUZZ if told.fuzz is None else told.fuzz
    hurt = _fuzz(fuzzed, told.first, sanitize=told.sanitize) if fuzzed else 0
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
    return 1 if broken or unread or hurt else 0


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


def _fuzz(messages: int, seed: int, *, sanitize: bool) -> int:
    """1 where something is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        engine = _sanitized(Path(folder) / "engine") if sanitize else None
        stage = Path(folder) / "stage"
        stage.mkdir()
        rates = (A_SECOND_SANITIZED, GOOD_A_SECOND_SANITIZED) if sanitize else (A_SECOND, GOOD_A_SECOND)
        played = asyncio.run(fuzz(stage, messages, seed, engine=engine, a_second=rates[0], good_a_second=rates[1]))
    for what in played.wrong:
        print(f"fuzz, seed {seed}: {what}")
    print(f"proof: fuzz, {played.told()}", flush=True)
    return 1 if played.wrong else 0


def _sanitized(folder: Path) -> Path:
    """The engine with AddressSanitizer, built where it is not cached, in a folder of its own."""
    command = [str(ROOT / "scripts" / "build-pjsua2"), "--sanitize", sys.executable]
    built = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    wheel = built.stdout.splitlines()[-1]
    into = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(folder), wheel]
    subprocess.run(into, check=True)
    return folder


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
