"""Private networks: a bridge of builda's own, one veth pair for each run, and masquerading through nftables.

The kernel holds all state. A run's lease is its veth: the host's end is named after the last number of the address, its
other end dies with the run's network namespace, whatever kills that. The bridge's own address tells the subnet. A lock
file orders those who attach and those who take the bridge away after the last; who crashed is cleaned up after by the
next that comes. pyroute2 is imported here only, inside the functions that use it: it takes 0.15 s.
"""

from __future__ import annotations

import errno
import ipaddress
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builda.errors import IsolationUnavailable
from builda.linux import syscalls as sys_

if TYPE_CHECKING:
    from collections.abc import Iterator

BRIDGE = "builda0"
TABLE = "builda"
_PORT = "builda-"
_LOCK = Path("/run/builda/network.lock")  # one for the machine: runs of all stores share the bridge
_SUBNETS = ipaddress.IPv4Network("10.207.0.0/16")
_IPV4 = 2
_IIFNAME, _OIFNAME, _FORWARD_HOOK, _POLICY_DROP = 6, 7, 2, 0
_BRIDGE_NAME = BRIDGE.encode() + b"\0"  # compared up to its end, as iptables does
_HINT = "use --network host or --network none"


@contextmanager
def connected(pid: int, lock: Path | None = None) -> Iterator[str]:
    """While the block runs, the network namespace of process `pid` reaches the world as the address given.

    It has eth0 and a default route. IsolationUnavailable when this cannot be had, naming what failed.
    """
    lock = lock or _LOCK
    address = _attach(pid, lock)
    try:
        yield str(address)
    finally:
        _release(address, lock)


def remove_unused(lock: Path | None = None) -> bool:
    """Take away the bridge and table that a killed run left; whether they were there and nobody uses them any more."""
    with _locked(lock or _LOCK), _routes() as routes:
        bridge = _index(routes, BRIDGE)
        return bridge is not None and _remove_if_unused(routes, bridge)


def _attach(pid: int, lock: Path) -> ipaddress.IPv4Address:
    try:
        with _locked(lock), _routes() as routes:
            subnet, bridge = _bridge(routes)
            address = _add_port(routes, bridge, subnet, pid)
        _configure_inside(pid, address, subnet)
    except Exception as error:
        if not _is_kernel_error(error):
            raise
        raise IsolationUnavailable(f"cannot make a private network: {_words(error)}", hint=_HINT) from error
    return address


def _release(address: ipaddress.IPv4Address, lock: Path) -> None:
    with _locked(lock), _routes() as routes:
        port = _index(routes, _port_name(address))
        if port is not None:
            routes.link("del", index=port)
        bridge = _index(routes, BRIDGE)
        if bridge is not None:
            _remove_if_unused(routes, bridge)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl

    try:
        path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise IsolationUnavailable(f"cannot lock the private network: {path}: {error.strerror}", hint=_HINT) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _routes() -> Any:
    from pyroute2 import IPRoute

    return IPRoute()


def _bridge(routes: Any) -> tuple[ipaddress.IPv4Network, int]:
    """The bridge's subnet and index; made with its rules when it is not there or was left half made."""
    bridge = _index(routes, BRIDGE)
    if bridge is not None:
        subnet = _subnet_of(routes, bridge)
        if subnet is not None:
            _set_up(routes, bridge, subnet)
            return subnet, bridge
        routes.link("del", index=bridge)
    subnet = _free_subnet(routes)
    routes.link("add", ifname=BRIDGE, kind="bridge")
    bridge = _index(routes, BRIDGE)
    if bridge is None:
        raise IsolationUnavailable(f"the kernel did not make the bridge: {BRIDGE}", hint=_HINT)
    routes.addr("add", index=bridge, address=str(subnet[1]), prefixlen=subnet.prefixlen)
    _set_up(routes, bridge, subnet)
    return subnet, bridge


def _set_up(routes: Any, bridge: int, subnet: ipaddress.IPv4Network) -> None:
    """Bridge up, forwarding on, masquerading there: also after a crash in the middle of it, or somebody's flush."""
    routes.link("set", index=bridge, state="up")
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    if forward.read_text().strip() != "1":
        forward.write_text("1")
    if not _has_table():
        _add_table(subnet)


def _subnet_of(routes: Any, bridge: int) -> ipaddress.IPv4Network | None:
    for address in routes.get_addr(index=bridge, family=_IPV4):
        text = f"{address.get_attr('IFA_ADDRESS')}/{address['prefixlen']}"
        return ipaddress.IPv4Interface(text).network
    return None


def _free_subnet(routes: Any) -> ipaddress.IPv4Network:
    """The first of our subnets that overlaps no route of the machine but the default one."""
    used = []
    for route in routes.get_routes(family=_IPV4):
        destination = route.get_attr("RTA_DST")
        if destination is not None:
            used.append(ipaddress.ip_network(f"{destination}/{route['dst_len']}", strict=False))
    for subnet in _SUBNETS.subnets(new_prefix=24):
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise IsolationUnavailable(f"no free subnet for the private network in {_SUBNETS}", hint=_HINT)


def _add_port(routes: Any, bridge: int, subnet: ipaddress.IPv4Network, pid: int) -> ipaddress.IPv4Address:
    """A veth pair from the bridge into the namespace of `pid`; the kernel refuses a name, so an address, twice."""
    taken = {link.get_attr("IFLA_IFNAME") for link in routes.get_links()}
    for address in list(subnet.hosts())[1:]:
        name = _port_name(address)
        if name in taken:
            continue
        peer = {"ifname": "eth0", "net_ns_pid": pid}
        routes.link("add", ifname=name, kind="veth", master=bridge, state="up", peer=peer)
        return address
    raise IsolationUnavailable(f"no free address in the private network: {subnet}", hint=_HINT)


def _configure_inside(pid: int, address: ipaddress.IPv4Address, subnet: ipaddress.IPv4Network) -> None:
    """Done by a thread that enters the namespace and ends: pyroute2's own way forks this process, threads and all."""
    from concurrent.futures import ThreadPoolExecutor

    def work() -> None:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            sys_.setns(namespace, sys_.CLONE_NEWNET)
        finally:
            os.close(namespace)
        _configure(address, subnet)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def _configure(address: ipaddress.IPv4Address, subnet: ipaddress.IPv4Network) -> None:
    with _routes() as inside:
        inside.link("set", index=1, state="up")
        index = inside.link_lookup(ifname="eth0")[0]
        inside.addr("add", index=index, address=str(address), prefixlen=subnet.prefixlen)
        inside.link("set", index=index, state="up")
        inside.route("add", dst="default", gateway=str(subnet[1]))


def _remove_if_unused(routes: Any, bridge: int) -> bool:
    if any(link.get_attr("IFLA_MASTER") == bridge for link in routes.get_links()):
        return False
    routes.link("del", index=bridge)
    _delete_table()
    return True


def _index(routes: Any, name: str) -> int | None:
    found: list[int] = routes.link_lookup(ifname=name)
    return found[0] if found else None


def _port_name(address: ipaddress.IPv4Address) -> str:
    return f"{_PORT}{address.packed[-1]}"


def _has_table() -> bool:
    with _nftables() as nft:
        return any(table.get_attr("NFTA_TABLE_NAME") == TABLE for table in nft.get_tables())


def _add_table(subnet: ipaddress.IPv4Network) -> None:
    """table ip builda: what leaves the subnet for elsewhere takes the machine's address."""
    from pyroute2.nftables.expressions import ipv4addr, masq

    outwards = _is_bridge(_OIFNAME, equal=False)
    with _nftables() as nft:
        nft.table("add", name=TABLE)
        nft.chain("add", table=TABLE, name="postrouting", hook="postrouting", type="nat", policy=1, priority=100)
        rule = (ipv4addr(src=str(subnet)), outwards, masq())
        nft.rule("add", table=TABLE, chain="postrouting", expressions=rule)
        _let_forward(nft)


def _let_forward(nft: Any) -> None:
    """Accept the bridge's packets where a firewall (Docker's, ufw's) drops what it does not know of.

    No table of ours can: a packet must pass every one. The rules are such as iptables writes, so it can show them.
    """
    from pyroute2.nftables.expressions import genex, verdict

    accept = ([genex("counter", {"bytes": 0, "packets": 0})], verdict(1))
    for chain in nft.get_chains():
        hook = chain.get_attr("NFTA_CHAIN_HOOK")
        if hook is None or hook.get_attr("NFTA_HOOK_HOOKNUM") != _FORWARD_HOOK:
            continue
        if chain["nfgen_family"] == _IPV4 and chain.get_attr("NFTA_CHAIN_POLICY") == _POLICY_DROP:
            names = {"table": chain.get_attr("NFTA_CHAIN_TABLE"), "chain": chain.get_attr("NFTA_CHAIN_NAME")}
            for key in (_IIFNAME, _OIFNAME):
                nft.rule("insert", **names, expressions=(_is_bridge(key, equal=True), *accept))


def _forget_forward(nft: Any) -> None:
    """Take our rules out of other tables again."""
    for rule in nft.get_rules():
        if rule.get_attr("NFTA_RULE_TABLE") != TABLE and _BRIDGE_NAME in _compared(rule):
            nft.rule(
                "del",
                table=rule.get_attr("NFTA_RULE_TABLE"),
                chain=rule.get_attr("NFTA_RULE_CHAIN"),
                handle=rule.get_attr("NFTA_RULE_HANDLE"),
            )


def _is_bridge(key: int, *, equal: bool) -> list[Any]:
    from pyroute2.nftables.expressions import genex

    value = {"attrs": [("NFTA_DATA_VALUE", _BRIDGE_NAME)]}
    return [
        genex("meta", {"key": key, "dreg": 1}),
        genex("cmp", {"sreg": 1, "op": 0 if equal else 1, "data": value}),
    ]


def _compared(rule: Any) -> list[bytes]:
    """The values that a rule compares with."""
    values = []
    for expression in rule.get_attr("NFTA_RULE_EXPRESSIONS") or ():
        data = expression.get_attr("NFTA_EXPR_DATA")
        if expression.get_attr("NFTA_EXPR_NAME") == "cmp" and data is not None:
            values.append(data.get_attr("NFTA_CMP_DATA").get_attr("NFTA_DATA_VALUE"))
    return values


def _delete_table() -> None:
    with _nftables() as nft:
        _forget_forward(nft)
        try:
            nft.table("del", name=TABLE)
        except Exception as error:
            if getattr(error, "code", None) != errno.ENOENT:
                raise


def _nftables() -> Any:
    from pyroute2.nftables.main import NFTables

    return NFTables(nfgen_family=_IPV4)


def _is_kernel_error(error: Exception) -> bool:
    """pyroute2's NetlinkError carries the errno as `code`, and is no OSError."""
    return isinstance(error, OSError) or isinstance(getattr(error, "code", None), int)


def _words(error: Exception) -> str:
    number = getattr(error, "code", None) or getattr(error, "errno", None)
    return os.strerror(number) if isinstance(number, int) else str(error)
