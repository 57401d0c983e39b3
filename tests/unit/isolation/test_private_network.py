"""Private networks: a bridge, an address for each run, the way out, and nothing left."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builda.isolation import network
from builda.linux import syscalls
from builda.linux.mount import Mount

pytestmark = [pytest.mark.root]


def links() -> set[str]:
    return {entry.name for entry in Path("/sys/class/net").iterdir()}


@pytest.fixture(scope="module", autouse=True)
def a_machine_of_their_own() -> Iterator[None]:
    """A network namespace: no run of another test worker takes or keeps an interface here."""
    with open("/proc/self/ns/net") as outside:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        syscalls.mount("sysfs", "/sys", "sysfs", 0)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
        syscalls.umount2("/sys", syscalls.MNT_DETACH)
        syscalls.setns(outside.fileno(), syscalls.CLONE_NEWNET)


@pytest.fixture(autouse=True)
def no_bridge() -> Iterator[None]:
    """Each test starts without one, and leaves none."""
    take_away()
    yield
    take_away()


def take_away() -> bool:
    """Remove bridge and table, once the kernel has taken the last ended run's veth away."""
    from tests.unit.isolation.test_native import until

    until(lambda: not any(name.startswith("builda-") for name in links()))
    return network.remove_unused()


@pytest.fixture
def server() -> Iterator[int]:
    """A TCP server on all addresses of this machine; the answer is the peer's address."""
    with socket.create_server(("0.0.0.0", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, peer = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(peer[0].encode() + b"\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)


GATEWAY = "$(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p')"


def test_a_run_reaches_the_machine_and_is_alone_with_it(box: Any, server: int) -> None:
    output = box.shell(f"nc {GATEWAY} {server} < /dev/null; ls /sys/class/net", network="private")
    address, *interfaces = output.split()
    assert address.startswith("10.207.")
    assert interfaces == ["eth0", "lo"]


def test_the_hosts_address_leads_to_the_host(box: Any, server: int) -> None:
    address = network.host_address()
    assert address == network.host_address()
    assert box.shell(f"nc -w 5 {address} {server} < /dev/null", network="private").startswith("10.207.")


@pytest.fixture(params=["no firewall", "a firewall that drops"])
def firewall(request: pytest.FixtureRequest) -> Iterator[None]:
    """A table that refuses to forward, as Docker and ufw leave it."""
    if request.param == "no firewall":
        yield
        return
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed")
    chain = (
        "add table ip buildatest; add chain ip buildatest refuse { type filter hook forward priority 0; policy drop; }"
    )
    subprocess.run(["nft", chain], check=True)
    yield
    take_away()
    rules = subprocess.run(["nft", "list", "table", "ip", "buildatest"], check=True, capture_output=True, text=True)
    subprocess.run(["nft", "delete", "table", "ip", "buildatest"], check=True)
    assert "builda0" not in rules.stdout


def test_what_goes_further_has_the_machines_address(box: Any, firewall: None) -> None:
    """A second namespace is the world: it has no route back to the private subnet, only to the machine."""
    with subprocess.Popen(["unshare", "--net", "sleep", "60"]) as world:
        try:
            _connect_world(world.pid)
            enter = ["nsenter", "-t", str(world.pid), "-n"]
            with subprocess.Popen([*enter, "busybox", "nc", "-l", "-p", "99", "-e", "/bin/echo", "hello"]) as echo:
                attempt = "nc -w 5 198.51.100.2 99 < /dev/null"
                output = box.shell(f"for i in 1 2 3 4 5; do {attempt} && break; sleep 0.2; done", network="private")
                echo.kill()
                assert output == "hello\n"
        finally:
            world.kill()
            subprocess.run(["ip", "link", "del", "buildaworld"], check=False, stderr=subprocess.DEVNULL)


def _connect_world(pid: int) -> None:
    from tests.unit.isolation.test_native import until

    own = Path("/proc/self/ns/net").readlink()
    until(lambda: Path(f"/proc/{pid}/ns/net").readlink() != own)
    run = ["ip", "link", "add", "buildaworld", "type", "veth", "peer", "name", "eth0", "netns", str(pid)]
    subprocess.run(run, check=True)
    subprocess.run(["ip", "addr", "add", "198.51.100.1/24", "dev", "buildaworld"], check=True)
    subprocess.run(["ip", "link", "set", "buildaworld", "up"], check=True)
    enter = ["nsenter", "-t", str(pid), "-n", "ip"]
    subprocess.run([*enter, "addr", "add", "198.51.100.2/24", "dev", "eth0"], check=True)
    subprocess.run([*enter, "link", "set", "eth0", "up"], check=True)


def test_bridge_and_table_stay_for_the_next_run_until_they_are_removed(box: Any) -> None:
    box.shell("true", network="private")
    assert network.BRIDGE in links()
    assert take_away()
    assert network.BRIDGE not in links()
    with network._nftables() as nft:
        assert network.TABLE not in {table.get_attr("NFTA_TABLE_NAME") for table in nft.get_tables()}
    assert not network.remove_unused()


def test_a_bridge_in_use_is_not_removed(box: Any, tmp_path: Path) -> None:
    from tests.unit.isolation.test_native import runner

    with runner(box, tmp_path, "sh", "-c", "echo up; sleep 60", network="private") as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == b"up\n"
        assert not network.remove_unused()
        caller.kill()
    assert take_away()


@pytest.mark.parametrize("lost", ["table", "chain", "address"])
def test_rules_that_another_program_removed_are_made_again(box: Any, server: int, lost: str) -> None:
    box.shell("true", network="private")
    if lost == "address":
        subprocess.run(["ip", "addr", "flush", "dev", network.BRIDGE], check=True)
    else:
        name = [network.TABLE] if lost == "table" else [network.TABLE, "complete"]
        subprocess.run(["nft", "delete", lost, "ip", *name], check=True)
    assert box.shell(f"nc {GATEWAY} {server} < /dev/null", network="private").startswith("10.207.")
    rules = subprocess.run(["nft", "list", "table", "ip", network.TABLE], check=True, capture_output=True, text=True)
    assert rules.stdout.count("masquerade") == 1


def test_runs_side_by_side_have_different_addresses(new_box: Callable[[str], Any], tmp_path: Path) -> None:
    boxes = [new_box("native") for _ in range(3)]
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    wait = "until [ $(ls /meeting | wc -l) = 3 ]; do i=$((i + 1)); [ $i -lt 500 ]; sleep 0.02; done"
    script = f"touch /meeting/$0; i=0; {wait}; ip -4 addr show eth0"
    mounts = (Mount("bind", str(meeting), "/meeting"),)
    results: list[str] = []

    def run(number: int) -> None:
        boxes[number].run("sh", "-ec", script, str(number), network="private", mounts=mounts)
        results.append(boxes[number].output.split("inet ")[1].split()[0])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(results)) == 3


def test_the_subnet_overlaps_no_route(box: Any) -> None:
    subprocess.run(["ip", "route", "add", "unreachable", "10.207.0.0/23"], check=True)
    try:
        assert "10.207.2.2" in box.shell("ip -4 addr show eth0", network="private")
    finally:
        subprocess.run(["ip", "route", "del", "unreachable", "10.207.0.0/23"], check=True)


def test_the_interfaces_are_up_before_the_command_starts(box: Any) -> None:
    output = box.shell("ip addr show lo; ip route", network="private")
    assert "LOOPBACK,UP" in output
    assert "default via 10.207." in output
