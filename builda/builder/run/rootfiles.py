"""Files that replace the image's own while a command runs: hosts, resolv.conf, hostname, /run/.containerenv."""

from __future__ import annotations

import os
from pathlib import Path

from builda.errors import InvalidValue, Unsupported
from builda.linux.userns import in_user_namespace
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from builda.plan import RunOptions
    from builda.store.containers import WorkingContainer

_LOCALHOST = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
# The host's stub resolver listens on its loopback, which only a command in the host's network reaches.
_UPSTREAM = "/run/systemd/resolve/resolv.conf"


class Host(NamedTuple):
    """The paths of the host's files that the container's are made from."""

    resolv_conf: str = "/etc/resolv.conf"
    upstream: str = _UPSTREAM
    relayed: bool = False  # private networks are, by a program that is their name server too


def files(
    container: WorkingContainer,
    options: RunOptions,
    *,
    network: str,
    hostname: str,
    machine: str,
    version: str,
    host: Host | None = None,
) -> Mapping[str, bytes]:
    """The contents of these files for one command, by their paths in the container.

    `machine` is the host name that the command sees if it has none of its own, else empty.
    """
    found = {"/run/.containerenv": containerenv(container, version, rootless=os.geteuid() != 0)}
    if not options.no_hosts:
        found["/etc/hosts"] = hosts(
            options.add_hosts, (hostname, container.name, machine), lambda: host_address(network)
        ).encode()
    if not options.no_hostname:
        found["/etc/hostname"] = f"{hostname}\n".encode()
    resolver = resolv_conf(options, network, host or Host(relayed=in_user_namespace()))
    if resolver is not None:
        found["/etc/resolv.conf"] = resolver.encode()
    return found


def containerenv(container: WorkingContainer, version: str, *, rootless: bool) -> bytes:
    """/run/.containerenv, by which programs notice that they run in a container; empty for one without a name."""
    if not container.id:
        return b""
    rows = {
        "engine": f"builda-{version}",
        "name": container.name,
        "id": container.id,
        "image": container.image,
        "imageid": container.image_id.encoded if container.image_id else "",
    }
    text = "".join(f'{key}="{value}"\n' for key, value in rows.items())
    return f"{text}rootless={int(rootless)}\n".encode()


def hosts(added: tuple[str, ...], names: tuple[str, ...], gateway: Callable[[], str]) -> str:
    """/etc/hosts: loopback, `names` of the container itself, and what `--add-host name:ip` adds.

    `gateway` gives the address for the word host-gateway.
    """
    lines = [_LOCALHOST, f"127.0.0.1\t{' '.join(filter(None, dict.fromkeys(names)))}\n"]
    for text in added:
        added_names, colon, address = text.partition(":")
        if not colon or not added_names or not address:
            raise InvalidValue(f"not name:ip: {text}")
        ip = gateway() if address == "host-gateway" else _address(address, text)
        lines.append(f"{ip}\t{' '.join(added_names.split(';'))}\n")
    return "".join(lines)


def host_address(network: str) -> str:
    """The host's address as a command in this network sees it (`Sandbox.network`), as Podman has it.

    Unsupported where it sees none; NetworkUnavailable when a private network cannot be made.
    """
    if network == "host":
        return "127.0.0.1"
    if network != "private" or in_user_namespace():  # a relay leads past the host
        raise Unsupported(f"host-gateway: the host has no address in network {network}", hint="use --network host")
    from builda.isolation.network import host_address as of_bridge

    return of_bridge()


def _address(address: str, text: str) -> str:
    from ipaddress import ip_address

    try:
        return str(ip_address(address.strip("[]")))
    except ValueError as error:
        raise InvalidValue(f"not an IP address: {text}") from error


def resolv_conf(options: RunOptions, network: str, host: Host) -> str | None:
    """/etc/resolv.conf, from the host's and the `--dns` options; None leaves the image's own."""
    asked = tuple(server for server in options.dns if server != "none")
    if (asked or options.dns_search or options.dns_options) and network == "none":
        raise InvalidValue("dns options have no meaning with network none")
    if "none" in options.dns:
        if asked:
            raise InvalidValue(f"dns none excludes other servers: {' '.join(asked)}")
        return None
    if network == "none":
        return ""
    lines = _host_lines(host, network)
    servers = [f"nameserver {_address(server, server)}" for server in asked]
    servers = servers or [line for line in lines if line.startswith("nameserver")]
    search = [f"search {' '.join(name for name in options.dns_search if name != '.')}".strip()]
    if not options.dns_search:
        search = [line for line in lines if line.startswith(("search", "domain"))]
    settings = [f"options {' '.join(options.dns_options)}"]
    if not options.dns_options:
        settings = [line for line in lines if line.startswith("options")]
    return "".join(f"{line}\n" for line in (*search, *servers, *settings) if line != "search")


def _host_lines(host: Host, network: str) -> list[str]:
    """The lines of the host's resolv.conf; in a private network without name servers on the host's loopback."""
    lines = _lines(host.resolv_conf)
    if network == "host":
        return lines
    if network == "private" and host.relayed:
        from builda.isolation.relay_program import RESOLVER

        return [*(line for line in lines if not line.startswith("nameserver")), f"nameserver {RESOLVER}"]
    reachable = [line for line in lines if not _is_loopback(line)]
    if any(line.startswith("nameserver") for line in reachable):
        return reachable
    return _lines(host.upstream) or reachable


def _is_loopback(line: str) -> bool:
    words = line.split()
    return words[:1] == ["nameserver"] and len(words) > 1 and (words[1].startswith("127.") or words[1] == "::1")


def _lines(path: str) -> list[str]:
    try:
        text = Path(path).read_text("utf-8", "replace")
    except FileNotFoundError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip() and line[0] not in "#;"]
