"""The files that a command finds over the image's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from builda.builder.run.rootfiles import Host, host_address, hosts, resolv_conf
from builda.errors import InvalidValue, Unsupported
from builda.plan import RunOptions


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "resolv.conf").write_text("# stub\nnameserver 127.0.0.53\nsearch example.org\noptions edns0\n")
    (tmp_path / "upstream").write_text("nameserver 192.0.2.7\nsearch example.org\n")
    return Host(str(tmp_path / "resolv.conf"), str(tmp_path / "upstream"))


def test_hosts_names_the_container() -> None:
    text = hosts(("db:192.0.2.1", "a;b:[2001:db8::1]"), ("c0ffee", "box", ""), lambda: "")
    assert "127.0.0.1\tlocalhost\n" in text
    assert "127.0.0.1\tc0ffee box\n" in text
    assert text.endswith("192.0.2.1\tdb\n2001:db8::1\ta b\n")


@pytest.mark.parametrize("added", ["db", "db:nowhere", ":1.2.3.4"])
def test_malformed_hosts_are_refused(added: str) -> None:
    with pytest.raises(InvalidValue):
        hosts((added,), ("h", "n"), lambda: "")


def test_host_gateway_is_the_hosts_address() -> None:
    assert hosts(("db;a:host-gateway",), ("h", "n"), lambda: host_address("host")).endswith("127.0.0.1\tdb a\n")
    for network in ("none", "ns:/proc/1/ns/net"):
        with pytest.raises(Unsupported, match="host-gateway"):
            host_address(network)


def test_in_the_hosts_network_the_hosts_resolver_serves(host: Host) -> None:
    assert resolv_conf(RunOptions(), "host", host) == "search example.org\nnameserver 127.0.0.53\noptions edns0\n"


def test_in_a_network_of_its_own_the_loopback_resolver_cannot_be_reached(host: Host) -> None:
    assert resolv_conf(RunOptions(), "private", host) == "search example.org\nnameserver 192.0.2.7\n"


def test_a_relayed_network_has_the_relays_name_server(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("search example.org\nnameserver 192.0.2.7\noptions rotate\n")
    host = Host(str(tmp_path / "resolv.conf"), relayed=True)
    lines = "search example.org\nnameserver {}\noptions rotate\n"
    assert resolv_conf(RunOptions(), "private", host) == lines.format("10.0.2.3")
    assert resolv_conf(RunOptions(), "host", host) == lines.format("192.0.2.7")


def test_dns_options_replace_the_hosts(host: Host) -> None:
    options = RunOptions(dns=("192.0.2.9",), dns_search=(".",), dns_options=("rotate",))
    assert resolv_conf(options, "host", host) == "nameserver 192.0.2.9\noptions rotate\n"


def test_dns_none_leaves_the_images_file(host: Host) -> None:
    assert resolv_conf(RunOptions(dns=("none",)), "host", host) is None


def test_dns_without_a_network_is_refused(host: Host) -> None:
    assert resolv_conf(RunOptions(), "none", host) == ""
    with pytest.raises(InvalidValue, match="no meaning with network none"):
        resolv_conf(RunOptions(dns=("192.0.2.9",)), "none", host)
