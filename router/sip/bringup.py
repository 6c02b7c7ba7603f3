"""Brings up the library: PJSIP's configuration, the codecs, and a probe of how many calls it carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from book.model import CODECS
from router.sip.pjlib import EngineConfig, EngineUnusableError

if TYPE_CHECKING:
    from types import ModuleType


def ep_config(pj: ModuleType, told: EngineConfig) -> Any:
    """The library's configuration: no thread but the media's own."""
    config = pj.EpConfig()
    config.uaConfig.threadCnt = 0
    config.uaConfig.mainThreadOnly = True
    config.uaConfig.maxCalls = told.max_calls
    config.uaConfig.userAgent = told.user_agent
    for server in told.nameservers:
        config.uaConfig.nameserver.append(server)
    config.logConfig.level = 1
    config.logConfig.consoleLevel = 1
    config.logConfig.msgLogging = 0
    media = config.medConfig
    media.hasIoqueue = True  # RTP has its own queue and native thread: no packet touches the interpreter
    media.threadCnt = 1
    media.clockRate = told.clock_hz
    media.sndClockRate = told.clock_hz
    media.audioFramePtime = 20
    media.maxMediaPorts = 3 * told.max_calls + 64
    media.noVad = True
    media.ecTailLen = 0
    return config


def choose_codecs(endpoint: Any) -> None:
    """Ours, in our order, and no others that the build may know."""
    ranks = {name.lower(): len(CODECS) - at for at, name in enumerate(CODECS)}
    for codec in endpoint.codecEnum2():
        rank = ranks.get(codec.codecId.partition("/")[0].lower(), 0)
        endpoint.codecSetPriority(codec.codecId, 100 + rank if rank else 0)


def probe_ceiling(pj: ModuleType, told: EngineConfig) -> None:
    """The real ceiling: what the running library says, not what it was told (lessons 9).

    Raises EngineUnusableError.
    """
    ceiling = min(pj.baton_max_calls(), pj.baton_call_ceiling())
    if ceiling < told.max_calls:
        raise EngineUnusableError(
            f"router.max_calls = {told.max_calls}, but this build of pjsua2 carries {ceiling} calls; "
            "lower it, or raise PJSUA_MAX_CALLS in scripts/pjsua2/config_site.h and run scripts/bootstrap"
        )
