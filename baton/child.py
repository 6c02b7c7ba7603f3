"""A child of `baton serve`: `python -m baton.child router|meter CONFIG`. It stops when its standard input closes."""

from __future__ import annotations

import sys
from pathlib import Path

from baton import run_meter, run_router

_ROLES = {"router": run_router.main, "meter": run_meter.main}

if __name__ == "__main__":
    role, config = sys.argv[1:]
    sys.exit(_ROLES[role](Path(config), supervised=True))
