"""A real second stack at either end: baresip as buyer and as dialer, with TLS, SRTP, G.722 and Opus."""

from __future__ import annotations

import asyncio
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest

from baton.demo.certificates import Certificates, make
from baton.demo.parties import HOST, Processes, free_port
from facts.fact import Kind
from tests.net.conftest import Station, verdict
from tests.net.peer import Callee, loudest_hertz

pytestmark = [pytest.mark.net, pytest.mark.skipif(shutil.which("baresip") is None, reason="baresip is not installed")]
TONE_HZ = 440
CODECS = {  # sampling rate, channels, baresip's module, its name for the codec
    "PCMU": (8_000, 1, "g711", "PCMU"),
    "G722": (16_000, 1, "g722", "G722/16000"),
    "opus": (48_000, 2, "opus", "opus/48000/2"),
}


def write_tone(path: Path, hertz: int, rate: int, channels: int) -> None:
    """A minute of a sine; baresip plays a file only at its codec's own rate."""
    at = 2 * np.pi * hertz * np.arange(rate) / rate
    second = np.repeat((16_000 * np.sin(at)).astype("<i2"), channels).tobytes()
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes(second * 60)


def phone(
    folder: Path, certificates: Certificates, *, codec: str, port: int, tls: bool = False, answers: bool = True
) -> list[str]:
    """A soft phone's command. It plays a tone; `tls`: with mandatory SRTP, and its TLS port is one above `port`."""
    folder.mkdir(parents=True, exist_ok=True)
    rate, channels, module, name = CODECS[codec]
    write_tone(folder / "tone.wav", TONE_HZ, rate, channels)
    modules = next(
        path for path in (Path("/usr/lib/baresip/modules"), Path("/usr/local/lib/baresip/modules")) if path.exists()
    )
    lines = [
        f"sip_listen {HOST}:{port}",
        f"sip_certificate {certificates.both}",
        f"sip_cafile {certificates.ca}",
        f"audio_source aufile,{folder / 'tone.wav'}",
        f"audio_channels {channels}",
        f"rtp_ports {port + 2}-{port + 21}",
        f"module_path {modules}",
        f"module {module}.so",
        "module srtp.so",
        "module aufile.so",
        "module_app account.so",
        "module_app menu.so",
    ]
    (folder / "config").write_text("\n".join([*lines, ""]))
    where = f"{HOST}:{port + 1};transport=tls" if tls else f"{HOST}:{port};transport=udp"
    secure = "mediaenc=srtp-mand;" if tls else ""
    mode = "auto" if answers else "manual"
    user = "agent" if answers else "+12125550123"
    (folder / "accounts").write_text(f"<sip:{user}@{where}>;regint=0;answermode={mode};{secure}audio_codecs={name}\n")
    (folder / "contacts").write_text("")
    return ["baresip", "-4", "-f", str(folder)]


@pytest.mark.parametrize(("codec", "said"), [("G722", "g722"), ("opus", "opus")])
async def test_a_buyer_on_a_wideband_codec_hears_and_is_heard_by_a_narrowband_dialer(
    station: Station, tmp_path: Path, codec: str, said: str
) -> None:
    certificates = make(tmp_path)
    port = free_port(block=24)
    parties = Processes.in_folder(tmp_path / "parties")
    await parties.start("phone", phone(tmp_path / "phone", certificates, codec=codec, port=port))
    endpoint = f'name = "phone"\nkind = "trunk"\nuri = "sip:agent@{HOST}:{port}"\ncodecs = ["{codec}"]'
    await station.buyer("acme", endpoint=endpoint)
    await station.start()
    try:
        tone = await station.tone(1000)
        call = station.caller.invite("acme", rtp_port=tone.port)
        answer = await station.caller.final(call)
        assert answer.code == 200, answer.text
        await tone.play(answer.rtp_port(), 3)
        assert loudest_hertz(tone.heard) == pytest.approx(TONE_HZ, abs=5)
        station.caller.bye(call)
        facts = await station.closed(call.call_id)
        bridged = next(fact for fact in facts if fact.kind is Kind.BRIDGED)
        assert bridged.payload["codecs"] == f"pcmu {said}"
    finally:
        await parties.stop_all()


async def test_a_dialer_on_tls_and_srtp(station: Station, tmp_path: Path) -> None:
    certificates = make(tmp_path)
    tls_port, port = free_port(), free_port(block=24)
    station.section(
        f'[[listeners]]\nname = "secure"\ntransport = "tls"\naddress = "{HOST}"\nport = {tls_port}\n'
        f'certificate_file = "{certificates.server}"\nkey_file = "{certificates.server_key}"\n'
    )
    tone = await station.tone(1000)
    callee = Callee([(20, 180), (300, 200)])
    callee.rtp_port = tone.port
    await station.buyer("acme", callee)
    await station.start()
    parties = Processes.in_folder(tmp_path / "parties")
    command = phone(tmp_path / "phone", certificates, codec="PCMU", port=port, tls=True, answers=False)
    await parties.start("dialer", [*command, "-e", f"/dial sip:acme@{HOST}:{tls_port};transport=tls", "-t", "12"])
    try:
        offer = await callee.wait(lambda m: m.method == "INVITE")
        await callee.wait(lambda m: m.method == "ACK")
        await tone.play(offer.rtp_port(), 3)
        assert loudest_hertz(tone.heard) == pytest.approx(TONE_HZ, abs=5)
        callee.hang_up(offer)
        await asyncio.sleep(0.3)
        facts = await station.facts(
            "", lambda found: any(one.kind is Kind.TRANSFER_CLOSED for one in found), any_call=True
        )
        bridged = next(fact for fact in facts if fact.kind is Kind.BRIDGED)
        assert bridged.payload["codecs"] == "pcmu+srtp pcmu"
        assert verdict(facts) == "failed/buyer_abandoned"
    finally:
        await parties.stop_all()
