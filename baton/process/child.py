"""A child of `baton serve`: `python -m baton.process.child router|meter|portal CONFIG`.

It stops when its standard input closes. On SIGABRT, by which the parent ends one that hangs, it prints where each
thread is.

What ends it too early is one line in the log (BATON_DEBUG=1 shows the traceback) and exit code 1; the parent starts it
again.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from importlib import import_module
from pathlib import Path

import structlog

from meter.store.files import keep_private


def main(role: str, config: Path) -> int:
    """Run the role until told to stop; the exit code."""
    keep_private()
    faulthandler.enable()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the role knows what to do with it
    try:
        import_module(f"baton.process.{role}").main(config, supervised=True)
    except Exception as error:
        if os.environ.get("BATON_DEBUG"):
            raise
        structlog.get_logger("serve").error("child_failed", child=role, kind=type(error).__name__, error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
