"""The section `[portal]`: its tokens and secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from baton.process.portal_control import _token as _as_token
from book.problems import ConfigError
from config.settings import load
from meter.text.signing import sign
from portal.http.tokens import find
from tests.unit.portal.api import EAST, WEST, token

BASE = '[[listeners]]\nname = "main"\ntransport = "udp"\n[[dialers]]\nname = "west"\nallow = ["192.0.2.0/24"]\n'


def _load(folder: Path, portal: str) -> Any:
    file = folder / "baton.toml"
    file.write_text(BASE + portal, encoding="utf-8")
    return load(file, {}).portal


def _one_token(secret: str, name: str = "w", dialer: str = "west") -> str:
    return f'[[portal.tokens]]\nname = "{name}"\nsecret = "{secret}"\ndialer = "{dialer}"\n'


def _signing(secret: str, owner: str = 'dialer = "west"') -> str:
    return f'[[portal.tokens]]\nname = "w"\nsigning_secrets = ["{secret}"]\n{owner}\n'


def test_a_dialer_may_have_secrets_to_sign_with_and_no_token(tmp_path: Path) -> None:
    keys = ("whsec_" + "QUJD" * 8, "a text of twenty-four characters")
    text = f'[portal]\n[[portal.tokens]]\nname = "w"\nsigning_secrets = {list(keys)}\ndialer = "west"\n'
    made = [_as_token(one) for one in _load(tmp_path, text.replace("'", '"') + _one_token(WEST, "v")).tokens]
    assert [(one.digest != "", one.secrets) for one in made] == [(False, keys), (True, ())]
    assert keys[0] not in repr(made)
    assert find(made, "") is None
    for key in keys:
        assert sign(key, "m", 1, b"").startswith("v1,")


def test_a_token_may_be_given_as_its_hash(tmp_path: Path) -> None:
    plain, hashed = token("w", WEST).digest, _load(tmp_path, "[portal]\n" + _one_token(WEST)).tokens[0].digest
    assert plain == hashed
    assert _load(tmp_path, "[portal]\n" + _one_token(f"sha256:{plain}")).tokens[0].digest == plain


def test_a_token_is_a_dialers_a_buyers_or_the_operators(tmp_path: Path) -> None:
    owners = ('dialer = "west"', 'buyer = "acme"', "operator = true")
    text = "[portal]\n" + "".join(
        f'[[portal.tokens]]\nname = "t{at}"\nsecret = "{str(at) * 32}"\n{owner}\n' for at, owner in enumerate(owners)
    )
    found = [_as_token(one) for one in _load(tmp_path, text).tokens]
    assert [(one.scope, one.of) for one in found] == [("dialer", "west"), ("buyer", "acme"), ("operator", "")]


def test_a_token_may_come_from_the_environment_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "baton.toml"
    file.write_text(BASE + '[portal]\n[[portal.tokens]]\nname = "far-west"\ndialer = "west"\n', encoding="utf-8")
    portal = load(file, {"BATON_PORTAL__TOKENS__FAR_WEST__SECRET": WEST}).portal
    assert portal is not None
    assert portal.tokens[0].digest == token("w", WEST).digest


@pytest.mark.parametrize(
    ("portal", "said"),
    [
        ('[portal]\naddress = "0.0.0.0"\n', "portal: address 0.0.0.0 is not loopback: certificate_file and key_file"),
        ('[portal]\nkey_file = "k.pem"\n', "portal: certificate_file and key_file go together"),
        ("[portal]\n" + _one_token("short"), "portal.tokens[0].secret: needs 32 or more printable"),
        ("[portal]\n" + _one_token("sha256:abc"), "portal.tokens[0].secret: sha256: is followed by 64 digits"),
        ("[portal]\n" + _one_token(WEST, dialer="zeus"), "portal.tokens[0].dialer: 'zeus' is not a [[dialers]] entry"),
        ("[portal]\n" + _one_token(WEST) + 'buyer = "acme"\n', "portal.tokens[0]: needs exactly one of dialer, buyer"),
        ("[portal]\n" + _one_token(WEST) + "operator = true\n", "portal.tokens[0]: needs exactly one of dialer, buyer"),
        (
            f'[portal]\n[[portal.tokens]]\nname = "w"\nsecret = "{WEST}"\noperator = false\n',
            "portal.tokens[0]: needs exactly one of dialer, buyer and operator = true",
        ),
        ("[portal]\nmax_import_mb = 0\n", "portal.max_import_mb: "),
        ("[portal]\nrequests_per_minute = 0\n", "portal.requests_per_minute: "),
        ("[portal]\nmax_streams = 500\n", "portal.max_streams: "),
        ("[portal]\n" + _signing("short"), "portal.tokens[0].signing_secrets[0]: is a key of 24 to 64 bytes"),
        ("[portal]\n" + _signing("whsec_!!"), "portal.tokens[0].signing_secrets[0]: whsec_ is followed by base64"),
        ("[portal]\n" + _signing("whsec_YWJj"), "portal.tokens[0].signing_secrets[0]: is a key of 24 to 64 bytes"),
        ("[portal]\n" + _signing(WEST, 'buyer = "acme"'), "portal.tokens[0]: signing_secrets are a dialer's"),
        ('[portal]\n[[portal.tokens]]\nname = "w"\ndialer = "west"\n', "portal.tokens[0]: needs secret, or signing_"),
        ("[portal]\n" + _one_token(WEST) + _one_token(EAST), "two of [[portal.tokens]] have the same name"),
        ("[portal]\n" + _one_token(WEST) + _one_token(WEST, "v"), "two of [[portal.tokens]] have the same secret"),
    ],
)
def test_a_portal_that_cannot_be_run_is_a_problem(tmp_path: Path, portal: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, portal)
    assert said in str(caught.value)
    assert WEST not in str(caught.value)


def test_without_the_section_there_is_no_portal(tmp_path: Path) -> None:
    assert _load(tmp_path, "") is None
    tls = '[portal]\naddress = "::"\ncertificate_file = "c.pem"\nkey_file = "k.pem"\n'
    assert _load(tmp_path, tls).certificate_file == tmp_path / "c.pem"
