"""The demo's parties as real programs on loopback: SIPp dialers and callees, stunnel, baresip, a relay, a mail sink.

Every process is started here and ended here, by its own pid; ports are free ones that the system gives.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import random
import shutil
import socket
import struct
import subprocess
import urllib.error
import urllib.request
import wave
from collections.abc import Sequence
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller

from baton.demo.certificates import Certificates

HOST = "127.0.0.1"
NEEDED = ("sipp", "stunnel4", "baresip")  # programs of Debian's packages sip-tester, stunnel4, baresip-core
_PORTS = (10_000, 19_000)
_BLOCK = 500  # ports that a process claims at once: 18 processes, or one run of every scenario and a few tests
_STOP_S = 3.0
MEDIA_PORTS = 4  # what a SIPp instance takes for RTP and RTCP, audio and video
_RATE = 8000  # of G.711


class MissingProgramError(RuntimeError):
    """A program of the demo's is not installed."""


class PartyDiedError(RuntimeError):
    """A party that others need has ended."""


def check_programs(needed: Sequence[str] = NEEDED) -> None:
    """Raises MissingProgramError with all that are not there."""
    missing = [name for name in needed if shutil.which(name) is None]
    if missing:
        raise MissingProgramError(f"not installed: {', '.join(missing)}; run scripts/bootstrap")


_claims: list[socket.socket] = []  # one for each block of ports that this process has for itself, held while it lives
_left: list[int] = []  # of those blocks: ports that were not given away


def free_port(block: int = 1) -> int:
    """An even port that is free now for UDP and TCP, with `block` - 1 more after it; never the same twice.

    Below the range from which the system takes ports for outgoing sockets, and in no block of another process that
    asks here: who plans now and starts later still finds it free. Raises OSError where there is none.
    """
    while True:
        if len(_left) < block:
            _left[:] = _claim()
        ports = [_left.pop(0) for _ in range(block + block % 2)]
        if all(_is_free(one) for one in ports):
            return ports[0]


def _claim() -> range:
    """The ports of a block that no process has claimed; its first two are the claim."""
    starts = list(range(*_PORTS, _BLOCK))
    random.shuffle(starts)
    for start in starts:
        claim = socket.socket()
        try:
            claim.bind((HOST, start))
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        atexit.register(claim.close)
        return range(start + 2, start + _BLOCK)
    raise OSError(f"no block of ports is free between {_PORTS[0]} and {_PORTS[1]}")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, socket.socket() as other:
        try:
            one.bind((HOST, port))
            other.bind((HOST, port))
        except OSError:
            return False
    return True


def metrics_page(port: int) -> str:
    """Baton's page for Prometheus; empty where nobody answers within five seconds."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=5) as answer:
            text: bytes = answer.read()
            return text.decode()
    except (urllib.error.URLError, OSError):
        return ""


class MailSink:
    """An SMTP server that keeps what it gets, as files and as messages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.messages: list[EmailMessage] = []
        self.port = free_port()
        self._controller = Controller(self, hostname=HOST, port=self.port)

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._controller.start()

    def stop(self) -> None:
        self._controller.stop()

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        message = BytesParser(policy=policy.default).parsebytes(envelope.content)
        assert isinstance(message, EmailMessage)
        self.messages.append(message)
        (self.folder / f"{len(self.messages)}.eml").write_bytes(envelope.content)
        return "250 OK"


@dataclass(slots=True)
class Processes:
    """What was started, so that it can be ended. Output goes to files in `folder`."""

    folder: Path
    running: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    @classmethod
    def in_folder(cls, folder: Path) -> Processes:
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    async def start(self, name: str, command: Sequence[str], cwd: Path | None = None) -> asyncio.subprocess.Process:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=cwd or self.folder
            )
        self.running[name] = process
        return process

    def check(self) -> None:
        """Raise PartyDiedError where one that should be running is not, and say where its output is."""
        dead = [name for name, process in self.running.items() if process.returncode is not None]
        if dead:
            logs = ", ".join(str(self.folder / f"{name}.log") for name in dead)
            raise PartyDiedError(f"ended too early: {', '.join(dead)}; see {logs}")

    async def stop(self, name: str) -> None:
        process = self.running.pop(name, None)
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def stop_all(self) -> None:
        await asyncio.gather(*(self.stop(name) for name in list(self.running)))


def sipp_callee(xml: Path, port: int, media_port: int, *, tcp: bool) -> list[str]:
    """A SIPp server for one behaviour."""
    return [*sipp(xml, port, media_port), "-t", "t1" if tcp else "u1", "-aa"]


def sipp_dialer(xml: Path, port: int, media_port: int, target: str, timeout_s: int) -> list[str]:
    """A SIPp client that makes one call and tells by its exit code whether it went as its scenario says."""
    return [*sipp(xml, port, media_port), target, "-m", "1", "-timeout", str(timeout_s)]


def sipp(xml: Path, port: int, media_port: int, host: str = HOST) -> list[str]:
    """What every SIPp is told: its scenario and where it is. Unexpected messages go to `<scenario>.err`."""
    local = ["-i", host, "-p", str(port), "-mi", host, "-mp", str(media_port)]
    return ["sipp", "-sf", str(xml), *local, "-nostdin", "-trace_err", "-error_file", f"{xml.stem}.err"]


def write_stunnel(path: Path, certificates: Certificates, pairs: Sequence[tuple[str, int, int]]) -> list[str]:
    """TLS terminators: (name, TLS port, plain TCP port) each. Returns the command."""
    lines = ["foreground = yes", "pid =", "debug = warning", "sslVersionMin = TLSv1.2"]
    lines += [f"cert = {certificates.server}", f"key = {certificates.server_key}"]
    for name, tls_port, plain_port in pairs:
        lines += [f"[{name}]", f"accept = {HOST}:{tls_port}", f"connect = {HOST}:{plain_port}"]
    path.write_text("\n".join(lines) + "\n")
    return ["stunnel4", str(path)]


def write_baresip(folder: Path, certificates: Certificates, plain_port: int) -> tuple[list[str], int]:
    """A soft phone that answers at once, on TLS with mandatory SRTP, and plays a tone. Returns command and TLS port."""
    folder.mkdir(parents=True, exist_ok=True)
    tone = folder / "tone.wav"
    write_tone(tone, hertz=440)
    modules = next(
        path for path in (Path("/usr/lib/baresip/modules"), Path("/usr/local/lib/baresip/modules")) if path.exists()
    )
    (folder / "config").write_text(
        "\n".join(
            [
                f"sip_listen {HOST}:{plain_port}",
                f"sip_certificate {certificates.both}",
                f"audio_source aufile,{tone}",
                "audio_channels 1",
                "call_max_calls 8",
                f"rtp_ports {plain_port + 2}-{plain_port + 21}",
                f"module_path {modules}",
                "module g711.so",
                "module srtp.so",
                "module aufile.so",
                "module_app account.so",
                "module_app menu.so",
                "",
            ]
        )
    )
    (folder / "accounts").write_text(
        f"<sip:agent@{HOST}:{plain_port + 1};transport=tls>;regint=0;answermode=auto;mediaenc=srtp-mand;"
        "audio_codecs=PCMU\n"
    )
    (folder / "contacts").write_text("")
    return ["baresip", "-4", "-f", str(folder)], plain_port + 1


def write_tone(path: Path, hertz: int, seconds: int = 60) -> None:
    """A sine at half volume, 8 kHz, 16 bit, mono."""
    one_second = [round(16_000 * math.sin(2 * math.pi * hertz * n / _RATE)) for n in range(_RATE)]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.writeframes(struct.pack(f"<{_RATE}h", *one_second) * seconds)
