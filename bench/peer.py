"""Asterisk as the yardstick: installed into a folder of its own and run as a ring-all B2BUA on loopback.

The folder is a small Debian made by debootstrap from the mirror that this machine uses itself; nothing of the system
changes, and root is needed. BATON_BENCH_PEER names the folder; `build/asterisk-peer` without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from baton.demo.parties import HOST, Processes
from bench.stage import BenchError, until

SUITE = "sid"  # where Debian keeps Asterisk
RTP_PORTS = (10_000, 13_999)
READY_S = 60.0
STOP_S = 10.0
_LEGS = 5
# Modules for hardware, other protocols and outside services: they would only complain that those are not there.
_NOT_LOADED = (
    *("chan_dahdi", "chan_iax2", "chan_mgcp", "chan_skinny", "chan_unistim", "chan_ooh323", "chan_console"),
    *("chan_alsa", "chan_motif", "chan_mobile", "pbx_dundi", "cdr_pgsql", "cel_pgsql", "res_phoneprov", "res_calendar"),
    *("res_xmpp", "res_resolver_unbound", "app_jack"),
)


def folder() -> Path:
    return Path(os.environ.get("BATON_BENCH_PEER", "") or "build/asterisk-peer").resolve()


def installed(root: Path) -> bool:
    return (root / "usr/sbin/asterisk").exists()


def install(root: Path) -> None:
    """Some 400 MB, about two minutes. Raises BenchError where there is no mirror, or a step fails."""
    if os.geteuid():
        raise BenchError("peer install: needs root, for debootstrap and chroot")
    if shutil.which("debootstrap") is None:
        _run("apt-get", "install", "-y", "debootstrap")
    root.parent.mkdir(parents=True, exist_ok=True)
    _run("debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, str(root), mirror())
    packages = "apt-get install -y --no-install-recommends asterisk asterisk-modules"
    # Debian's script wants to start the service, which a folder cannot; what counts is that the program is there.
    subprocess.run(["chroot", str(root), "sh", "-c", f"DEBIAN_FRONTEND=noninteractive {packages}"], check=False)
    if not installed(root):
        raise BenchError(f"peer install: no Asterisk in {root}")


def mirror(etc: Path = Path("/etc/apt")) -> str:
    """The first Debian archive among this machine's package sources, in either of their formats."""
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    for file in files:
        if file.suffix in (".list", ".sources") and file.is_file():
            for uri in parse_sources(file.read_text()):
                if uri.rstrip("/").endswith("/debian"):
                    return uri
    raise BenchError("peer install: no Debian archive among the package sources")


def parse_sources(text: str) -> Iterator[str]:
    """URIs of a sources file: `deb [options] URI suite ...` lines or `URIs:` fields (sources.list(5))."""
    for line in text.splitlines():
        found = re.match(r"URIs:\s*(\S+)|deb\s+(?:\[[^]]*\]\s+)?(\S+)", line)
        if found is not None:
            yield found[1] or found[2]


def _run(*command: str) -> None:
    if subprocess.run(command, check=False).returncode:
        raise BenchError(f"{command[0]} failed")


@dataclass(slots=True)
class Peer:
    """One running Asterisk. User `five` rings agent0 at one port and agent1 to agent4 at another; `one` only agent0."""

    root: Path
    port: int
    answers_port: int
    rings_port: int
    processes: Processes
    _mounted: list[Path] = field(default_factory=list)

    async def start(self) -> None:
        """Raises BenchError where it is not installed or does not come up."""
        if not installed(self.root):
            raise BenchError("peer not installed: python -m bench peer install")
        self._configure()
        for name in ("proc", "dev"):
            if not (self.root / name).is_mount():
                _run("mount", "--bind", f"/{name}", str(self.root / name))
                self._mounted.append(self.root / name)
        await self.processes.start("asterisk", ["chroot", str(self.root), "asterisk", "-f", "-g"])
        if not await until(self._listens, READY_S):
            await self.stop()
            raise BenchError(f"Asterisk did not come up; see {self.processes.folder / 'asterisk.log'}")
        await asyncio.sleep(1.0)  # for the modules after the one that listens

    async def stop(self) -> None:
        process = self.processes.running.get("asterisk")
        if process is not None and process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), STOP_S)
        await self.processes.stop("asterisk")
        while self._mounted:
            await asyncio.to_thread(subprocess.run, ["umount", "-l", str(self._mounted.pop())], check=False)

    @property
    def pid(self) -> int:
        return self.processes.running["asterisk"].pid

    def _listens(self) -> bool:
        process = self.processes.running["asterisk"]
        if process.returncode is not None:
            raise BenchError(f"Asterisk ended at once; see {self.processes.folder / 'asterisk.log'}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((HOST, self.port))
            except OSError:
                return True
        return False

    def _configure(self) -> None:
        etc = self.root / "etc/asterisk"
        (self.root / "etc/hosts").write_text(f"{HOST} localhost {socket.gethostname()}\n")
        (self.root / "etc/nsswitch.conf").write_text("hosts: files\n")
        (self.root / "etc/resolv.conf").write_text("")  # a look-up that nobody answers would stop the SIP thread
        (etc / "logger.conf").write_text("[logfiles]\nmessages => error\n")
        (etc / "modules.conf").write_text(_section("modules", "autoload=yes", *(f"noload={m}.so" for m in _NOT_LOADED)))
        ports = (f"rtpstart={RTP_PORTS[0]}", f"rtpend={RTP_PORTS[1]}")
        (etc / "rtp.conf").write_text(_section("general", *ports, "icesupport=no"))
        (etc / "pjsip.conf").write_text(self._pjsip())
        (etc / "extensions.conf").write_text(self._dialplan())

    def _pjsip(self) -> str:
        text = _section("udp", "type=transport", "protocol=udp", f"bind={HOST}:{self.port}")
        text += _section("in", "type=identify", "endpoint=dialer", f"match={HOST}")
        for name, context in (("dialer", "in"), ("answers", "none"), ("rings", "none")):
            codec = ("disallow=all", "allow=ulaw", "direct_media=no")  # as Baton: audio goes through us
            text += _section(name, "type=endpoint", f"context={context}", f"aors={name}", *codec)
            text += _section(name, "type=aor", "max_contacts=1")
        return text

    def _dialplan(self) -> str:
        places = [("answers", 0, self.answers_port), *(("rings", n, self.rings_port) for n in range(1, _LEGS))]
        legs = [f"PJSIP/{name}/sip:agent{n}@{HOST}:{port}" for name, n, port in places]
        return _section("in", f"exten => one,1,Dial({legs[0]},30)", f"exten => five,1,Dial({'&'.join(legs)},30)")


def _section(name: str, *lines: str) -> str:
    return "\n".join((f"[{name}]", *lines, "", ""))
