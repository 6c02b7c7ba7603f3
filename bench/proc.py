"""Processes as the kernel accounts for them: CPU time of a tree, memory, open UDP ports. Linux's /proc only."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


def children(pid: int) -> list[int]:
    """Pids of the children of all its threads; empty where it is gone."""
    found: list[int] = []
    try:
        for task in (_PROC / str(pid) / "task").iterdir():
            found += [int(one) for one in (task / "children").read_text().split()]
    except OSError:
        return found
    return found


def tree(pid: int) -> list[int]:
    """The process and everything under it, parents first."""
    found = [pid]
    for one in found:  # grows while it is read
        found += children(one)
    return found


def cpu_ms(pid: int) -> dict[int, float]:
    """CPU time of each process of the tree in ms, user and system, with that of children that have ended."""
    return {one: _own_cpu_ms(one) for one in tree(pid)}


def _own_cpu_ms(pid: int) -> float:
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return 0.0
    return parse_cpu_ticks(stat) * 1000 / _TICKS


def parse_cpu_ticks(stat: str) -> int:
    """utime, stime, cutime and cstime of /proc/PID/stat (proc(5)); the name in parentheses may hold anything."""
    fields = stat.rpartition(")")[2].split()
    return sum(int(one) for one in fields[11:15])


def rss_kib(pid: int) -> int:
    """Resident memory; 0 where it is gone."""
    try:
        return int((_PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE // 1024
    except OSError:
        return 0


def command(pid: int) -> list[str]:
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def udp_ports(pid: int) -> set[int]:
    """Local UDP ports of which this process holds the socket."""
    inodes = set()
    for fd in (_PROC / str(pid) / "fd").iterdir():
        try:
            target = fd.readlink().name
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    held: set[int] = set()
    for name in ("udp", "udp6"):
        table = (_PROC / str(pid) / "net" / name).read_text()
        held |= {port for port, inode in parse_udp_table(table) if inode in inodes}
    return held


def parse_udp_table(table: str) -> list[tuple[int, str]]:
    """(local port, inode) of each line of /proc/net/udp."""
    lines = (line.split() for line in table.splitlines()[1:])
    return [(int(fields[1].rpartition(":")[2], 16), fields[9]) for fields in lines if len(fields) > 9]
