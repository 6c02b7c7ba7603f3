"""Leases: one process at a time does a job that only one may do.

A holder is named by machine, process and the process's start, so one that has died on this machine, or with it, is
replaced at once; one elsewhere when its lease has run out. Clocks of machines that share a store must agree within
seconds.
"""

from __future__ import annotations

import contextlib
import os
import socket
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, delete, insert, select, update

from meter.store.integration_schema import leases

LEASE_US = 20_000_000
RENEW_US = 5_000_000  # a holder says so again after this


def holder() -> str:
    """This process, as a holder."""
    return f"{_machine()}/{os.getpid()}/{_started(os.getpid())}"


@cache
def _machine() -> str:
    """This machine since its start, and the space in which its process ids count: containers have their own.

    The sample unit hides most of /proc; then it is the machine by its machine-id(5).
    """
    known = ""
    for file in ("/proc/sys/kernel/random/boot_id", "/etc/machine-id"):
        with contextlib.suppress(OSError):
            known = known or Path(file).read_text(encoding="ascii", errors="replace").strip()
    return f"{socket.gethostname()}.{known}.{Path('/proc/self/ns/pid').stat().st_ino}"


def take(connection: Connection, name: str, holder: str, now_utc_us: int) -> bool:
    """Take or keep a lease for `LEASE_US` from now; False: another has it."""
    until = now_utc_us + LEASE_US
    found = connection.execute(
        select(leases.c.holder, leases.c.until_utc_us).where(leases.c.name == name)
    ).one_or_none()
    if found is None:
        connection.execute(insert(leases).values(name=name, holder=holder, until_utc_us=until))
        return True
    if found.holder != holder and found.until_utc_us > now_utc_us and not _is_dead(found.holder):
        return False
    this = (leases.c.name == name, leases.c.holder == found.holder, leases.c.until_utc_us == found.until_utc_us)
    return bool(connection.execute(update(leases).where(*this).values(holder=holder, until_utc_us=until)).rowcount)


def give_back(connection: Connection, name: str, holder: str) -> None:
    """End a lease, if it is still one's own."""
    connection.execute(delete(leases).where(leases.c.name == name, leases.c.holder == holder))


def _started(pid: int) -> str:
    """When a process was started, in ticks since the machine's start (proc(5), stat, field 22); empty: it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


def _is_dead(holder: str) -> bool:
    """Whether a holder was a process of this machine that has ended."""
    machine, _, rest = holder.partition("/")
    pid, _, started = rest.partition("/")
    return machine == _machine() and pid.isdigit() and _started(int(pid)) != started
