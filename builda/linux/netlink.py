"""The netlink messages of every run with a private network: make a veth pair, and look whether the rules exist.

These are RTM_NEWLINK of rtnetlink(7) and NFT_MSG_GETCHAIN of linux/netfilter/nf_tables.h. The bridge and its rules,
which last, are made by pyroute2: importing it takes 0.13 s, longer than all the rest of a run.
"""

from __future__ import annotations

import os

from builda.linux import syscalls as sys_

_NETLINK_ROUTE, _NETLINK_NETFILTER = 0, 12
_REQUEST, _ACK, _EXCLUSIVE, _CREATE, _NESTED = 0x1, 0x4, 0x200, 0x400, 0x8000
_ERROR, _NEW_LINK, _GET_CHAIN = 2, 16, 10 << 8 | 4
_UP = 1
_HEADER = 16
_SIOCADDRT, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x890B, 0x8916, 0x891C
_SIOCGIFADDR, _SIOCGIFNETMASK = 0x8915, 0x891B
_GATEWAY_UP = 0x3  # RTF_UP | RTF_GATEWAY


def add_veth(name: str, *, master: int, peer: str, peer_address: bytes, peer_pid: int) -> None:
    """A veth pair: `name`, up and a port of the bridge with index `master`; `peer` in the namespace of `peer_pid`.

    `peer_address` is the peer's MAC address. FileExistsError if there is an interface `name`.
    """
    import struct

    there = (
        bytes(16)
        + _attribute(1, peer_address)  # IFLA_ADDRESS
        + _attribute(3, peer.encode() + b"\0")  # IFLA_IFNAME
        + _attribute(19, struct.pack("=I", peer_pid))  # IFLA_NET_NS_PID
    )
    kind = _attribute(1, b"veth") + _attribute(2 | _NESTED, _attribute(1 | _NESTED, there))  # IFLA_INFO_KIND, _DATA
    body = (
        struct.pack("=BxHiII", 0, 0, 0, _UP, _UP)
        + _attribute(3, name.encode() + b"\0")
        + _attribute(10, struct.pack("=I", master))  # IFLA_MASTER
        + _attribute(18 | _NESTED, kind)  # IFLA_LINKINFO
    )
    _request(_NETLINK_ROUTE, _NEW_LINK, _CREATE | _EXCLUSIVE, body)


def has_chain(table: str, chain: str) -> bool:
    """Whether nftables has this chain in this IPv4 table."""
    ipv4 = bytes((2, 0, 0, 0))
    names = _attribute(1, table.encode() + b"\0") + _attribute(3, chain.encode() + b"\0")  # NFTA_CHAIN_TABLE, _NAME
    try:
        _request(_NETLINK_NETFILTER, _GET_CHAIN, 0, ipv4 + names)
    except FileNotFoundError:
        return False
    return True


def ipv4_of(interface: str) -> tuple[bytes, bytes] | None:
    """An interface's address and netmask in network order (netdevice(7)); None if it has none."""
    try:
        return tuple(_interface_ioctl(number, interface)[20:24] for number in (_SIOCGIFADDR, _SIOCGIFNETMASK))  # type: ignore[return-value]  # two
    except OSError as error:
        import errno

        if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
            return None
        raise


def configure(interface: str, *, address: bytes, netmask: bytes, gateway: bytes) -> None:
    """Give an interface of this network namespace its IPv4 address, set it and lo up, and add the default route."""
    sys_.raise_interface("lo")
    _interface_ioctl(_SIOCSIFADDR, interface, _socket_address(address))
    _interface_ioctl(_SIOCSIFNETMASK, interface, _socket_address(netmask))
    sys_.raise_interface(interface)
    # struct rtentry: pad, destination, gateway, netmask, flags; an IPv4 default route needs no more
    everywhere = _socket_address(bytes(4))
    route = bytes(8) + everywhere + _socket_address(gateway) + everywhere + _GATEWAY_UP.to_bytes(2, "little")
    _ioctl(_SIOCADDRT, route.ljust(120, b"\0"))


def _socket_address(address: bytes) -> bytes:
    return (2).to_bytes(2, "little") + bytes(2) + address + bytes(8)


def _interface_ioctl(number: int, interface: str, value: bytes = b"") -> bytes:
    return _ioctl(number, os.fsencode(interface).ljust(16, b"\0") + value.ljust(24, b"\0"))


def _ioctl(number: int, request: bytes) -> bytes:
    from _socket import AF_INET, SOCK_CLOEXEC, SOCK_DGRAM, socket  # the C half: socket imports enum and selectors

    handle = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC)
    try:
        import fcntl

        return fcntl.ioctl(handle.fileno(), number, request)
    finally:
        handle.close()


def _attribute(kind: int, data: bytes) -> bytes:
    size = 4 + len(data)
    return size.to_bytes(2, "little") + kind.to_bytes(2, "little") + data + bytes(-size % 4)


def _request(protocol: int, kind: int, flags: int, body: bytes) -> None:
    """Send one message and read the answer. OSError with the kernel's errno if it refuses."""
    import struct
    from _socket import AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW, socket

    header = struct.pack("=IHHII", _HEADER + len(body), kind, flags | _REQUEST | _ACK, 1, 0)
    handle = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)
    try:
        handle.send(header + body)
        while True:
            answer = handle.recv(1 << 16)
            while answer:
                size, answered = struct.unpack_from("=IH", answer)
                if answered == _ERROR:
                    (code,) = struct.unpack_from("=i", answer, _HEADER)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return
                answer = answer[(size + 3) & ~3 :]
    finally:
        handle.close()
