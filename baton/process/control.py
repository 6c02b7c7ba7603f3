"""The control socket of a router or portal: one JSON object a line in, one out, over a UNIX socket beside the store.

Whoever may open the socket (mode 0600: the process's own user) may steer it; there is no other check. A line
that is no request gets an error object and the connection goes on; a line that is too long, or a client that says
nothing for `IDLE_S`, ends its connection. Nothing that a client does reaches further than its own connection.

    {"do": "drain", "on": true}     ->  {"ok": true, "draining": true, "live": 3}
    {"do": "fly"}                   ->  {"ok": false, "error": "no such command: 'fly'; there are drain, ..."}

Errors of the server: `ControlError` where the socket cannot be made. Of the client: `NoRouterError`, `RefusedError`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import structlog

from config.settings import Settings

MAX_PATH = 107  # bytes: sun_path of sockaddr_un holds 108 with its final zero (unix(7))
MAX_REQUEST = 139_264  # bytes of a line; the longest request names a Call-ID of 65,536 characters, each escaped in JSON
MAX_ANSWER = 64 << 20  # bytes a client reads; a live view of a thousand transfers is half a megabyte
MAX_CONNECTIONS = 16  # people and the portal; one more is told so and closed
IDLE_S = 60.0
ANSWER_S = 10.0  # for a client to wait

Command = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

_log = structlog.get_logger("router")


class ControlError(RuntimeError):
    """The control socket cannot be made or used; the message says why."""


class NoRouterError(ControlError):
    """No router, or no portal, answers."""


class RefusedError(ControlError):
    """It said no. `problems`: all that is wrong, where there is more than one thing."""

    def __init__(self, message: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__("\n".join([message, *(f"  {one}" for one in problems)]))
        self.message = message
        self.problems = problems


def socket_path(settings: Settings, process: str = "router") -> Path:
    """Where the router or portal of these settings has its socket. Raises ControlError where the path is too long."""
    path = settings.store.data_dir / f"{process}-{settings.router.name}.sock"
    size = len(os.fsencode(path))
    if size > MAX_PATH:
        raise ControlError(
            f"store.data_dir: {path} is {size} bytes long and the path of a socket may have {MAX_PATH};"
            " use a shorter folder, or a shorter router.name"
        )
    return path


class ControlServer:
    """Serves `commands` by name until closed. To be used on one loop."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self._path = path
        self._commands = commands
        self._server: asyncio.Server | None = None
        self._made = (0, 0)  # the file of our socket
        self._open: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open the socket; one that a dead router left is replaced. Raises ControlError."""
        try:
            listener = _bind(self._path)
            self._made = _file_of(self._path)
        except OSError as error:
            raise ControlError(f"{self._path}: the control socket cannot be made: {error.strerror}") from error
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=MAX_REQUEST)

    async def close(self) -> None:
        """Close the socket and every connection, and remove the file, unless another process has put its own there."""
        if self._server is None:
            return
        self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        with contextlib.suppress(FileNotFoundError):
            if _file_of(self._path) == self._made:
                self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            if len(self._open) > MAX_CONNECTIONS:
                await _say(writer, _error(f"more than {MAX_CONNECTIONS} connections"))
            else:
                await self._converse(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # the client left, went quiet, or the router is stopping
        finally:
            self._open.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    line = await reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return
            except asyncio.LimitOverrunError:
                await _say(writer, _error(f"a request may have {MAX_REQUEST} bytes"))
                return
            answer = await self._answer(line)
            async with asyncio.timeout(IDLE_S):
                await _say(writer, answer)

    async def _answer(self, line: bytes) -> dict[str, Any]:
        """What to say to one line. Never raises but for a cancelled task."""
        try:
            request = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return _error(f"not JSON: {error}")
        if not isinstance(request, dict):
            return _error("a request is a JSON object")
        name = request.get("do")
        command = self._commands.get(name) if isinstance(name, str) else None
        if command is None:
            return _error(f"no such command: {str(name)[:64]!r}; there are {', '.join(sorted(self._commands))}")
        try:
            return {"ok": True, **await command(request)}
        except RefusedError as refused:
            return {**_error(refused.message), "problems": list(refused.problems)}
        except Exception as error:  # noqa: BLE001 - a fault in one answer must not reach the calls
            _log.exception("control_failed", command=name)
            return _error(f"it failed to answer: {type(error).__name__}")


def _bind(path: Path) -> socket.socket:
    """A bound socket that only this user may open, from the first moment on. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(0, "something that is no socket is in its place")
        path.unlink()
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(made.fileno(), 0o600)  # Linux makes the file with the mode of the socket
        made.bind(str(path))
        path.chmod(0o600)  # elsewhere
    except OSError:
        made.close()
        raise
    return made


def _file_of(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _error(text: str) -> dict[str, Any]:
    return {"ok": False, "error": text}


async def _say(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
    writer.write(orjson.dumps(answer) + b"\n")
    await writer.drain()


# --- the client ------------------------------------------------------------------------------------------------------


async def ask(
    path: Path, request: dict[str, Any], within_s: float = ANSWER_S, *, process: str = "router"
) -> dict[str, Any]:
    """Ask a router, or portal, one thing. Raises NoRouterError where none answers in time, RefusedError: it says no."""
    try:
        async with asyncio.timeout(within_s):
            line = await _exchange(path, orjson.dumps(request) + b"\n")
    except TimeoutError as error:
        raise NoRouterError(f"the {process} at {path} does not answer within {within_s:g} s") from error
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "the connection ended"
        raise NoRouterError(f"no {process} answers at {path}: {reason}") from error
    answer: dict[str, Any] = orjson.loads(line)
    if not answer.pop("ok", False):
        raise RefusedError(str(answer.get("error", "")), tuple(map(str, answer.get("problems", ()))))
    return answer


async def _exchange(path: Path, line: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path), limit=MAX_ANSWER)
    try:
        writer.write(line)
        await writer.drain()
        return await reader.readuntil(b"\n")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
