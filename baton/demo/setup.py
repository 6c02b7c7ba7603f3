"""The demo's ports and the configuration file that names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from baton.demo import parties
from baton.demo.certificates import Certificates, make
from baton.demo.parties import HOST, MailSink, Processes, free_port
from baton.demo.relay import Gate, Relay
from baton.demo.scenarios import Callee, callee
from baton.demo.serving import DemoBaton
from baton.demo.stories import Place, Story, Way

_PHONE_PORTS = 22  # SIP, SIP over TLS, then RTP


@dataclass(slots=True)
class Stage:
    """Everything that is set up before the first call, and where it is."""

    folder: Path
    processes: Processes
    sink: MailSink
    certificates: Certificates
    baton: DemoBaton
    relays: list[Relay] = field(default_factory=list)
    tls_pairs: list[tuple[str, int, int]] = field(default_factory=list)
    carriers: list[tuple[str, int]] = field(default_factory=list)

    @staticmethod
    def next_media_port() -> int:
        return free_port(parties.MEDIA_PORTS)


async def set_up(folder: Path, stories: Sequence[Story]) -> Stage:
    """Write scenarios, certificates and configuration into `folder`, which exists, and start all but the dialers."""
    processes = Processes.in_folder(folder / "parties")
    stage = Stage(
        folder=folder,
        processes=processes,
        sink=MailSink(folder / "mail"),
        certificates=make(folder),
        baton=DemoBaton(folder, processes, free_port(), free_port()),
    )
    stage.sink.start()
    try:
        buyers = [await _buyer(stage, story) for story in stories]
        if stage.tls_pairs:
            command = parties.write_stunnel(folder / "stunnel.conf", stage.certificates, stage.tls_pairs)
            await stage.processes.start("stunnel", command)
    except BaseException:
        await tear_down(stage)
        raise
    stage.baton.config.write_text(_config(stage, buyers, stories))
    numbers = [story.caller.number for story in stories if story.suppressed]
    (folder / "do-not-call.csv").write_text("phone\n" + "".join(f"{number}\n" for number in numbers))
    (folder / "litigators.csv").write_text("phone,note\n(212) 555-0199,example\n")
    return stage


async def tear_down(stage: Stage) -> None:
    for relay in stage.relays:
        relay.stop()
    await stage.processes.stop_all()
    stage.sink.stop()


async def _buyer(stage: Stage, story: Story) -> str:
    """Start the callees of one story and return its buyer as TOML."""
    lines = [
        "[[buyers]]",
        f'name = "{story.name}"',
        f'title = "Buyer of {story.name}"',
        'terms = "westlake-fulfillment"',
        f'lead_emails = ["{story.name}@buyer.example"]',
    ]
    twin_port = 0
    for number, place in enumerate(story.places, start=1):
        name = f"{story.name}-{number}"
        if place.way is Way.TWIN:
            twin_port = twin_port or await _twins(stage, name, place.callee)
            uri = f"sip:agent{number}@{HOST}:{twin_port}"
        else:
            uri = await _place(stage, name, place)
        lines += ["[[buyers.endpoints]]", f'name = "place-{number}"', *_endpoint(place.way, name, uri)]
    return "\n".join(lines)


def _endpoint(way: Way, name: str, uri: str) -> list[str]:
    if way is Way.DID:
        return ['kind = "did"', f'uri = "{uri}"', f'carrier = "{name}"']
    if way in (Way.SECURE, Way.PHONE):
        return ['kind = "trunk"', f'uri = "{uri}"', 'transport = "tls"', 'srtp = "mandatory"']
    return ['kind = "trunk"', f'uri = "{uri}"']


async def _place(stage: Stage, name: str, place: Place) -> str:
    """Start one endpoint; its URI, or its number where it is a DID."""
    if place.way is Way.PHONE:
        command, tls_port = parties.write_baresip(stage.folder / name, stage.certificates, free_port(_PHONE_PORTS))
        await stage.processes.start(name, command)
        return f"sip:agent@{HOST}:{tls_port}"
    port = free_port()
    if place.way is Way.SECURE:
        tls_port = free_port()
        contact = f"sip:agent@{HOST}:{tls_port};transport=tls"
        behaviour = Callee(
            place.callee.answer_ms,
            place.callee.decline_ms,
            place.callee.decline_code,
            place.callee.bye_after_ms,
            srtp=True,
            contact=contact,
        )
        await _sipp(stage, name, behaviour, port, tcp=True)
        stage.tls_pairs.append((name, tls_port, port))
        return f"sip:agent@{HOST}:{tls_port}"
    await _sipp(stage, name, place.callee, port, tcp=False)
    if place.way is Way.DID:
        stage.carriers.append((name, port))
        return f"+1212555{7000 + len(stage.carriers)}"
    return f"sip:agent@{HOST}:{port}"


async def _twins(stage: Stage, name: str, behaviour: Callee) -> int:
    """One SIPp that serves both twins, behind a relay; the relay's port."""
    port = free_port()
    await _sipp(stage, name, behaviour, port, tcp=False)
    relay, relay_port = Relay((HOST, port), Gate(["callee 200 INVITE"] * 2), from_target=True), free_port()
    await relay.start(relay_port)
    stage.relays.append(relay)
    return relay_port


async def _sipp(stage: Stage, name: str, behaviour: Callee, port: int, *, tcp: bool) -> None:
    xml = stage.processes.folder / f"{name}.xml"
    xml.write_text(callee(behaviour))
    await stage.processes.start(name, parties.sipp_callee(xml, port, stage.next_media_port(), tcp=tcp))


def _config(stage: Stage, buyers: Sequence[str], stories: Sequence[Story]) -> str:
    lines = [
        "# Written by `baton demo`.",
        *stage.baton.settings("demo", stage.certificates.ca.name),
        "[mail]",
        f'host = "{HOST}"',
        f"port = {stage.sink.port}",
        'security = "none"',
        'sender = "transfers@operator.example"',
        "[links]",
        'base_url = "https://portal.operator.example"',
        'secret = "only-for-the-demo-0123456789abcdefghij"',
    ]
    for name, port in stage.carriers:
        lines += ["[[carriers]]", f'name = "{name}"', f'uri = "sip:{{number}}@{HOST}:{port}"']
    lines += buyers
    for story in stories:
        lines += ["[[campaigns]]", f'name = "{story.name}"', f'buyers = ["{story.name}"]']
    for story in stories:
        if story.suppressed:
            lines += ["[[suppression_lists]]", f'name = "{story.name}-own"', f'buyer = "{story.name}"']
            lines += ['file = "do-not-call.csv"', 'column = "phone"']
    lines += ["[[suppression_lists]]", 'name = "litigators"', 'file = "litigators.csv"', 'column = "phone"']
    return "\n".join(lines) + "\n"
