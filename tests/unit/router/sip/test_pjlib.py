"""Which name servers the router asks."""

from __future__ import annotations

from pathlib import Path

from router.sip.pjlib import system_nameservers


def test_the_first_three_servers_of_resolv_conf_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    lines = ["# comment", "search example.net", "nameserver 192.0.2.1", "nameserver", "nameserver 192.0.2.2 # x"]
    file.write_text("\n".join([*lines, "nameserver 192.0.2.3", "nameserver 192.0.2.4"]))
    assert system_nameservers(file) == ("192.0.2.1", "192.0.2.2", "192.0.2.3")


def test_no_resolv_conf_means_no_server(tmp_path: Path) -> None:
    assert system_nameservers(tmp_path / "none") == ()
