"""Sound for parties: a key as a packet capture, which SIPp plays as it stands."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from baton.demo.parties import HOST

EVENT_TYPE = 120  # of telephone events in our offer: PJMEDIA_RTP_PT_TELEPHONE_EVENTS
_EVENTS = "0123456789*#"  # RFC 4733 section 3.2
_STEP_US, _STEP = 20_000, 160  # a packet every 20 ms, 160 units of 8 kHz
_PACKETS, _ENDS = 6, 3  # RFC 4733 section 2.5.1.4: the end is sent three times
_VOLUME = 10  # -10 dBm0
_SSRC = 0x42415431


def write_key(path: Path, key: str) -> None:
    """A press of 120 ms by RFC 4733, as a capture of Ethernet frames."""
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1)
    frames = b"".join(_record(at, _frame(_event(key, at))) for at in range(_PACKETS + _ENDS - 1))
    path.write_bytes(header + frames)


def _event(key: str, at: int) -> bytes:
    """RTP with one telephone event; the last packets say that it is over, and say it thrice."""
    over = at >= _PACKETS - 1
    duration = _STEP * (min(at, _PACKETS - 1) + 1)
    marker = 0x80 if at == 0 else 0
    rtp = struct.pack("!BBHII", 0x80, EVENT_TYPE | marker, 1_000 + at, 8_000, _SSRC)
    return rtp + struct.pack("!BBH", _EVENTS.index(key), (0x80 if over else 0) | _VOLUME, duration)


def _frame(payload: bytes) -> bytes:
    """Ethernet, IPv4 and UDP around it; SIPp puts in addresses and ports of its own."""
    udp = struct.pack("!HHHH", 6_000, 6_000, 8 + len(payload), 0) + payload
    address = socket.inet_aton(HOST)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0, address, address)
    return bytes(12) + b"\x08\x00" + ip + udp


def _record(at: int, frame: bytes) -> bytes:
    return struct.pack("<IIII", 1, at * _STEP_US, len(frame), len(frame)) + frame
