"""A real SMTP server on loopback that answers each recipient as it is told, and ends connections where it is told."""

from __future__ import annotations

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP

from meter.mail.message import MailOptions
from tests.store.meter.mail.test_channel import free_port

SENDER = "leads@operator.example"
OK = "250 2.1.5 OK"
DROP = "drop"  # the connection ends without a reply


class Sink:
    """`rcpt`: what each address is answered, one after the other, the last for ever; `data`: what the message is."""

    def __init__(self, *, utf8: bool = False) -> None:
        self.rcpt: dict[str, list[str]] = {}
        self.data = [OK]
        self.asked: list[str] = []  # addresses of RCPT, in their order
        self.got: dict[str, list[EmailMessage]] = {}
        self.transactions: list[list[str]] = []
        self._utf8 = utf8
        self._controller: Controller | None = None

    async def handle_RCPT(  # noqa: N802
        self, server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        self.asked.append(address)
        answer = _next(self.rcpt.get(address, [OK]))
        if answer == DROP:
            server.transport.abort()
        elif answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        answer = _next(self.data)
        self.transactions.append(list(envelope.rcpt_tos))
        if answer == DROP:
            server.transport.abort()
        elif answer.startswith("250"):
            message: Any = message_from_bytes(envelope.content, policy=default)  # type: ignore[arg-type]
            for one in envelope.rcpt_tos:
                self.got.setdefault(one, []).append(message)
        return answer

    def start(self) -> MailOptions:
        utf8 = self._utf8

        class Server(Controller):
            def factory(self) -> SMTP:
                return SMTP(self.handler, enable_SMTPUTF8=utf8, hostname="sink.example")

        self._controller = Server(self, hostname="127.0.0.1", port=free_port())
        self._controller.start()
        return MailOptions(host="127.0.0.1", port=self._controller.port, sender=SENDER, security="none")

    def stop(self) -> None:
        if self._controller is not None:
            self._controller.stop()

    def forget(self) -> None:
        """Everything that came until now."""
        self.asked, self.got, self.transactions = [], {}, []

    def count(self) -> dict[str, int]:
        return {address: len(messages) for address, messages in self.got.items()}


def _next(answers: list[str]) -> str:
    return answers.pop(0) if len(answers) > 1 else answers[0]
