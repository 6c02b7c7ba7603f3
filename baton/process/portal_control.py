"""The commands of a running portal's control socket: reload the configuration.

Tokens, the campaigns of dialers and the log are in force at once: a token that is gone from the file is nobody's from
then on, and the streams there are end, so that each client is asked again who it is. The rest of `[portal]` waits for
a restart and is named, at each reload, until it has come. A file with problems changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from baton.process.control import Command
from baton.process.router_control import differences, load_or_refuse, merged
from config.portal import PortalToken
from config.settings import Settings
from portal.http.tokens import Scope, Token, TokenBook
from telemetry import logs

LIVE: dict[str, frozenset[str] | None] = {"log": None, "dialers": None, "portal": frozenset({"tokens"})}
OWN = ("log", "portal")  # sections of which it tells; the rest is the router's, or the meter's

_log = structlog.get_logger("portal")


class PortalControl:
    """One portal's commands, and the settings that are in force. `end_streams` ends the streams there are."""

    def __init__(
        self,
        config_path: Path,
        settings: Settings,
        tokens: TokenBook,
        *,
        environ: dict[str, str],
        end_streams: Callable[[], None],
    ) -> None:
        self.settings = settings
        self._config_path = config_path
        self._environ = environ
        self._tokens = tokens
        self._end_streams = end_streams
        self._one_reload = asyncio.Lock()

    @property
    def commands(self) -> dict[str, Command]:
        return {"reload": self.reload}

    async def reload(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Read the configuration file again. Says what is in force now and what waits for a restart."""
        async with self._one_reload:
            wanted, gone = await load_or_refuse(self._config_path, self._environ)
            new = merged(self.settings, wanted, LIVE)
            applied, restart = differences(self.settings, new, OWN), differences(new, wanted, OWN)
            restart += gone
            logs.configure(**new.log.options, process="portal")
            if self._tokens.replace(tokens_of(new), campaigns_of(new)):
                self._end_streams()
            self.settings = new
        _log.info("reloaded", applied=applied, needs_restart=restart)
        return {"applied": applied, "needs_restart": restart}


def tokens_of(settings: Settings) -> tuple[Token, ...]:
    """The tokens of the section `[portal]`; none where there is no such section."""
    return tuple(map(_token, settings.portal.tokens)) if settings.portal is not None else ()


def campaigns_of(settings: Settings) -> dict[str, frozenset[str] | None]:
    """Dialer -> the campaigns that it may call; None: all."""
    return {one.name: None if one.campaigns is None else frozenset(one.campaigns) for one in settings.dialers}


def _token(token: PortalToken) -> Token:
    secrets = tuple(secret.get_secret_value() for secret in token.signing_secrets)
    if token.operator:
        return Token(token.name, token.digest, Scope.OPERATOR)
    if token.buyer is not None:
        return Token(token.name, token.digest, Scope.BUYER, token.buyer)
    return Token(token.name, token.digest, Scope.DIALER, token.dialer or "", secrets)
