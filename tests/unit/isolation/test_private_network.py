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
from builda.linux.mount import Mount

pytestmark = [pytest.mark.root]


def links() -> set[str]:
    return {entry.name for entry in Path("/sys/class/net").iterdir()}


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


def test_the_last_run_takes_bridge_and_table_away(box: Any) -> None:
    before = links()
    box.shell("true", network="private")
    assert links() == before
    with network._nftables() as nft:
        assert network.TABLE not in {table.get_attr("NFTA_TABLE_NAME") for table in nft.get_tables()}


def test_runs_side_by_side_have_different_addresses(new_box: Callable[[str], Any], tmp_path: Path) -> None:
    boxes = [new_box("native") for _ in range(3)]
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    script = "touch /meeting/$0; while [ $(ls /meeting | wc -l) -lt 3 ]; do sleep 0.02; done; ip -4 addr show eth0"
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
    assert network.BRIDGE not in links()


def test_what_a_killed_run_left_is_removed_by_the_next(box: Any, tmp_path: Path) -> None:
    from tests.unit.isolation.test_native import runner, until

    with runner(box, tmp_path, "sh", "-c", "echo up; sleep 60", network="private") as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == b"up\n"
        caller.kill()
    until(lambda: not any(name.startswith("builda-") for name in links()))
    assert network.BRIDGE in links()
    assert network.remove_unused()
    assert network.BRIDGE not in links()
    assert not network.remove_unused()


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
