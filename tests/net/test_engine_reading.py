"""PJSIP's own parser takes time in proportion to what it reads: each header, in the message and in a MIME part."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

pytestmark = pytest.mark.net

MEASURE = r"""
import time

import pjsua2 as pj

FREE_S, RATIO, FEW, MANY = 0.002, 24, 1024, 8192  # 8 is exact, 64 a square
endpoint = pj.Endpoint()
endpoint.libCreate()
config = pj.EpConfig()
config.logConfig.level = config.logConfig.consoleLevel = 0
config.uaConfig.threadCnt = 0
endpoint.libInit(config)

HEAD = "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\r\nTo: <sip:a@b>\r\nCall-ID: a\r\n"
HEAD += "CSeq: 1 INVITE\r\n"
PARTS = HEAD + "Content-Type: multipart/mixed;boundary=a\r\n\r\n"
UNITS = [chr(one) for one in range(1, 128)] + [
    "a=", "a,", ";a", ";a=1", ';a="', '\\"', "<sip:", "\r\n ", "x:y\r\n", "\r\n\r\n", "--a\r\n", "--a", "a@",
    "%41", '="', '",', "<>,", "a b", "sip:a@b,", "<sip:a@b>,", "\n ", "\r\n\t", "((", "-a", "--", "\r\n-", "::",
]
NAMES = (
    "Via To From Call-ID CSeq Contact Content-Type Content-Length Expires Allow Supported Require Accept Max-Forwards"
    " Min-Expires Record-Route Route Retry-After Unsupported"
    " Authorization WWW-Authenticate Refer-To Referred-By Replaces"
    " Session-Expires Min-SE RAck Event Subscription-State Reason X-Any"
).split()
VALUES = ("", '"', "<sip:", "<sip:a@", "<sip:a@b;", "<sip:a@b?", "<sip:a@b>;a=", "<tel:", "a/b;", "1 ", "Digest ")
FRAMES = [("", ""), ("INVITE ", ""), ("INVITE sip:", "@b SIP/2.0\r\n\r\n"), (HEAD, "\r\n\r\n"), (PARTS, "")]
FRAMES += [(f"{before}{name}: {value}", after) for name in NAMES for value in VALUES
           for before, after in ((HEAD, "\r\n\r\n"), (f"{PARTS}--a\r\n", "\r\n\r\n{}\r\n--a--"))]


def took(text):
    begun = time.thread_time()
    pj.baton_parse(text)
    return time.thread_time() - begun


def slow(before, unit, after):
    few, many = [before + (unit * (size // len(unit) + 1))[:size] + after for size in (FEW, MANY)]
    if took(many) < FREE_S:
        return False
    best = min(took(many) for _ in range(5))
    return best > FREE_S and best > RATIO * min(took(few) for _ in range(5))


found = [(before[-40:], unit) for before, after in FRAMES for unit in UNITS if slow(before, unit, after)]
print(len(FRAMES) * len(UNITS), found)
endpoint.libDestroy()
raise SystemExit(bool(found))
"""


async def test_every_header_is_parsed_in_linear_time() -> None:
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", MEASURE], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:])
