"""Notifies systemd by the protocol of sd_notify(3): datagrams of `NAME=value` lines to the socket in NOTIFY_SOCKET.

Without that variable nothing is sent and every call is free. The socket may be a path or, with a leading @, an abstract
one. A datagram that cannot be delivered is given up, and the first of a row of them logged: the service goes on.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

import structlog

SOCKET, WATCHDOG_USEC, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
MAX_STATUS = 200  # characters; it is one line of `systemctl status`
SEND_S = 0.2  # where the receiver's queue is full
_FEEDS = 3  # within the time that systemd waits: two may get lost

_log = structlog.get_logger("serve")


class Notifier:
    """Speaks to the socket `address`, an empty one being nobody. `watchdog_s`: systemd's bound, 0 for no watchdog."""

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._every_s = watchdog_s / _FEEDS
        self._fed_at = float("-inf")
        self._status = ""
        self._heard = True

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> Notifier:
        """The notifier of the environment; takes the variables out of it, so that no child speaks for us."""
        address, usec = environ.pop(SOCKET, ""), environ.pop(WATCHDOG_USEC, "")
        pid = environ.pop(WATCHDOG_PID, "")
        watched = usec.isdecimal() and pid in ("", str(os.getpid()))
        return cls(address, int(usec) / 1_000_000 if watched else 0.0)

    def ready(self) -> bool:
        """Started, or reloaded. False where it could not be delivered: to be said again."""
        return self._send("READY=1")

    def reloading(self) -> None:
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for people; sent where it is another one than before."""
        line = " ".join(text.split())[:MAX_STATUS]
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def feed(self) -> None:
        """Feed the watchdog where a third of its time has passed; to be called only while all is well, and often."""
        now = time.monotonic()
        if self._every_s and now - self._fed_at >= self._every_s:
            self._fed_at = now
            self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> bool:
        if not self._address:
            return True
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sender:
            sender.settimeout(SEND_S)
            try:
                sender.sendto("\n".join(lines).encode(), self._address)
            except OSError as error:
                if self._heard:
                    _log.error("notify_failed", said=lines[0], error=str(error))
                self._heard = False
            else:
                self._heard = True
        return self._heard
