"""Private networks: a bridge of builda's own, one veth pair for each run, and masquerading through nftables.

The kernel holds all state. The lease of an address is the veth: the name of the host's end holds the last number of
the address, and the kernel removes both ends with the run's network namespace, whatever ends that. The first run makes
the bridge and the rules, which takes 0.2 s. They stay for the next runs until `builda prune` or a restart, as those of
other container tools do. A lock file keeps runs that attach and a prune that removes the bridge apart. pyroute2 takes
long to import, so the functions that use it import it.
"""

from __future__ import annotations

import errno
import os
from _socket import if_nametoindex  # the C half: socket imports enum and selectors
from contextlib import contextmanager
from pathlib import Path

from builda.errors import NetworkUnavailable
from builda.linux import netlink
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ipaddress
    from collections.abc import Iterator
    from typing import Any

BRIDGE = "builda0"
TABLE = "builda"
_COMPLETE = "complete"  # an empty chain of the table that is made last: if it exists, all rules exist
_PORT = "builda-"
_LOCAL = b"\x02\x42"  # a MAC address that is locally administered
_LOCK = Path("/run/builda/network.lock")  # one for the machine: runs of all stores share the bridge
_SUBNETS = "10.207.0.0/16"
_IPV4 = 2
_IIFNAME, _OIFNAME, _FORWARD_HOOK, _POLICY_DROP = 6, 7, 2, 0
_BRIDGE_NAME = BRIDGE.encode() + b"\0"  # compared up to its end, as iptables does
_HINT = "use --network host or --network none"


class Connection(NamedTuple):
    """The settings of the interface in the command's namespace: four bytes each, in network order."""

    address: bytes
    netmask: bytes
    gateway: bytes


def connect(pid: int, lock: Path | None = None) -> Connection:
    """Put an eth0 that leads to the world into the network namespace of process `pid`, which configures it.

    The interface ends with the namespace. NetworkUnavailable names what failed.
    """
    with _in_words(), _locked(lock or _LOCK):
        return _add_port(*_bridge(), pid)


def host_address(lock: Path | None = None) -> str:
    """The machine's address as commands in private networks see it. NetworkUnavailable as for `connect`."""
    with _in_words(), _locked(lock or _LOCK):
        _, address, _ = _bridge()
    return ".".join(map(str, address))


def _bridge() -> tuple[int, bytes, bytes]:
    """The bridge's index, address and netmask. Makes the bridge and its rules if they do not exist."""
    there = _lasting()
    if there is None:
        with _routes() as routes:
            _make_bridge(routes)
        there = _lasting()
    if there is None:
        raise NetworkUnavailable(f"the kernel did not make the bridge: {BRIDGE}", hint=_HINT)
    return there


@contextmanager
def _in_words() -> Iterator[None]:
    """Raise NetworkUnavailable for errors of the kernel, also those that pyroute2 has its own class for."""
    try:
        yield
    except Exception as error:
        if not _is_kernel_error(error):
            raise
        raise NetworkUnavailable(f"cannot make a private network: {_words(error)}", hint=_HINT) from error


def remove_unused(lock: Path | None = None) -> bool:
    """Remove the bridge and the table if no run uses them; True if it did."""
    try:
        if_nametoindex(BRIDGE)
    except OSError:  # no such interface
        return False
    with _locked(lock or _LOCK), _routes() as routes:
        bridge = _index(routes, BRIDGE)
        return bridge is not None and _remove_if_unused(routes, bridge)


def _lasting() -> tuple[int, bytes, bytes] | None:
    """The bridge's index, address and netmask; None if it or its rules do not exist."""
    try:
        index = if_nametoindex(BRIDGE)
    except OSError:  # no such interface
        return None
    found = netlink.ipv4_of(BRIDGE)
    return (index, *found) if found is not None and netlink.has_chain(TABLE, _COMPLETE) else None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl

    from builda.linux import private

    try:
        private.make(str(path.parent))
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NetworkUnavailable(f"cannot lock the private network: {path}: {error.strerror}", hint=_HINT) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _routes() -> Any:
    from pyroute2 import IPRoute

    return IPRoute()


def _make_bridge(routes: Any) -> None:
    """Make the bridge and its rules, also if a crash or a flush of the rules left a part of them."""
    bridge = _index(routes, BRIDGE)
    if bridge is not None:
        subnet = _subnet_of(routes, bridge)
        if subnet is not None:
            _set_up(routes, bridge, subnet)
            return
        routes.link("del", index=bridge)
    subnet = _free_subnet(routes)
    routes.link("add", ifname=BRIDGE, kind="bridge")
    bridge = _index(routes, BRIDGE)
    if bridge is None:
        raise NetworkUnavailable(f"the kernel did not make the bridge: {BRIDGE}", hint=_HINT)
    routes.addr("add", index=bridge, address=str(subnet[1]), prefixlen=subnet.prefixlen)
    _set_up(routes, bridge, subnet)


def _set_up(routes: Any, bridge: int, subnet: ipaddress.IPv4Network) -> None:
    """Set the bridge up, switch forwarding on, and make the table last: `_lasting` looks for it."""
    routes.link("set", index=bridge, state="up")
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    if forward.read_text().strip() != "1":
        forward.write_text("1")
    if not netlink.has_chain(TABLE, _COMPLETE):
        _delete_table()
        _add_table(subnet)


def _subnet_of(routes: Any, bridge: int) -> ipaddress.IPv4Network | None:
    import ipaddress

    for address in routes.get_addr(index=bridge, family=_IPV4):
        text = f"{address.get_attr('IFA_ADDRESS')}/{address['prefixlen']}"
        return ipaddress.IPv4Interface(text).network
    return None


def _free_subnet(routes: Any) -> ipaddress.IPv4Network:
    """The first subnet of _SUBNETS that overlaps no route of the machine except the default one."""
    import ipaddress

    used = []
    for route in routes.get_routes(family=_IPV4):
        destination = route.get_attr("RTA_DST")
        if destination is not None:
            used.append(ipaddress.ip_network(f"{destination}/{route['dst_len']}", strict=False))
    for subnet in ipaddress.IPv4Network(_SUBNETS).subnets(new_prefix=24):
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise NetworkUnavailable(f"no free subnet for the private network in {_SUBNETS}", hint=_HINT)


def _add_port(bridge: int, gateway: bytes, netmask: bytes, pid: int) -> Connection:
    """Make a veth pair from the bridge into the namespace of `pid`.

    The kernel refuses a name that exists. Names hold the address, so no address is given twice.
    """
    for number in range(gateway[3] + 1, 255):
        address = gateway[:3] + bytes((number,))
        try:
            netlink.add_veth(
                f"{_PORT}{number}",
                master=bridge,
                peer="eth0",
                peer_address=_LOCAL + address,  # derived from the address, so that ARP caches of neighbours stay right
                peer_pid=pid,
            )
        except FileExistsError:
            continue
        return Connection(address, netmask, gateway)
    raise NetworkUnavailable("no free address in the private network", hint=_HINT)


def _remove_if_unused(routes: Any, bridge: int) -> bool:
    if any(link.get_attr("IFLA_MASTER") == bridge for link in routes.get_links()):
        return False
    routes.link("del", index=bridge)
    _delete_table()
    return True


def _index(routes: Any, name: str) -> int | None:
    found: list[int] = routes.link_lookup(ifname=name)
    return found[0] if found else None


def _add_table(subnet: ipaddress.IPv4Network) -> None:
    """Make the table `ip builda`: packets that leave the subnet get the machine's address."""
    from pyroute2.nftables.expressions import ipv4addr, masq

    outwards = _is_bridge(_OIFNAME, equal=False)
    with _nftables() as nft:
        nft.table("add", name=TABLE)
        nft.chain("add", table=TABLE, name="postrouting", hook="postrouting", type="nat", policy=1, priority=100)
        rule = (ipv4addr(src=str(subnet)), outwards, masq())
        nft.rule("add", table=TABLE, chain="postrouting", expressions=rule)
        _let_forward(nft)
        nft.chain("add", table=TABLE, name=_COMPLETE)


def _let_forward(nft: Any) -> None:
    """Accept the bridge's packets where a firewall (Docker's, ufw's) drops what it does not know of.

    A separate table cannot do this: every base chain must accept the packet. The rules have the form that iptables
    writes, so that it can list them.
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
    """Remove builda's rules from other tables."""
    for rule in nft.get_rules():
        if rule.get_attr("NFTA_RULE_TABLE") != TABLE and _BRIDGE_NAME in _compared(rule):
            with _gone_already():
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
    """The values in the comparisons of a rule."""
    values = []
    for expression in rule.get_attr("NFTA_RULE_EXPRESSIONS") or ():
        data = expression.get_attr("NFTA_EXPR_DATA")
        if expression.get_attr("NFTA_EXPR_NAME") == "cmp" and data is not None:
            values.append(data.get_attr("NFTA_CMP_DATA").get_attr("NFTA_DATA_VALUE"))
    return values


def _delete_table() -> None:
    with _nftables() as nft:
        _forget_forward(nft)
        with _gone_already():
            nft.table("del", name=TABLE)


@contextmanager
def _gone_already() -> Iterator[None]:
    """Ignore ENOENT of a deletion: other programs change rules too."""
    try:
        yield
    except Exception as error:
        if getattr(error, "code", None) != errno.ENOENT:
            raise


def _nftables() -> Any:
    from pyroute2.nftables.main import NFTables

    return NFTables(nfgen_family=_IPV4)


def _is_kernel_error(error: Exception) -> bool:
    """pyroute2's NetlinkError is no OSError and has the errno as `code`."""
    return isinstance(error, OSError) or isinstance(getattr(error, "code", None), int)


def _words(error: Exception) -> str:
    number = getattr(error, "code", None) or getattr(error, "errno", None)
    return os.strerror(number) if isinstance(number, int) else str(error)
