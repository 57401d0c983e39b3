"""What a script, its clients and the machine can do to a session: it goes on or says why, and leaves nothing."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from builda.linux import syscalls
from builda.session import client, program
from tests.conftest import Builda, add_base
from tests.integration.test_session import (
    SLEEP,
    environ_of,
    left,
    names,
    session,
    sleeping,
    started,
    until,
    until_sleeping,
)
from tests.integration.test_session_kill import belonging_to, family

pytestmark = pytest.mark.root


@contextmanager
def waiting(builda: Builda, tmp_path: Path, script: str = "true") -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A session whose script waits for its end, and the session's directory."""
    os.mkfifo(tmp_path / "go")
    wait = f"{script}; echo $BUILDA_SESSION > {tmp_path}/place; touch {tmp_path}/there; read _ < {tmp_path}/go"
    process = started(builda, wait, until=tmp_path / "there")
    try:
        yield process, Path((tmp_path / "place").read_text().strip())
        (tmp_path / "go").write_text("\n")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    assert left(builda) == []


def request(protocol: bytes = client.PROTOCOL, code: str = "", arguments: tuple[str, ...] = ("images",)) -> bytes:
    """The message of a client of some version."""
    words = [protocol, (code or program.code_name()).encode(), b"18", b"", b"%d" % len(arguments)]
    return b"\0".join([*words, *(word.encode() for word in arguments), b"PATH=/bin"])


def asked(place: Path, *parts: bytes, directory: bool = True, ends: bool = False) -> bytes:
    """What the session answers to these bytes, of which the first come with a descriptor of a directory.

    A client that `ends` says nothing more, and its command is ended.
    """
    here = os.open(place, os.O_PATH)
    root = os.open("/", os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(f"/proc/self/fd/{here}/socket")
            if parts:
                socket.send_fds(connection, [parts[0]], [root] if directory else [])
                connection.sendall(b"".join(parts[1:]))
            if ends:
                connection.shutdown(socket.SHUT_WR)
            return connection.recv(64)[:1]
    finally:
        os.close(here)
        os.close(root)


def test_clients_that_say_something_else_start_by_themselves(builda: Builda, tmp_path: Path) -> None:
    with waiting(builda, tmp_path) as (_, place):
        for message in (
            request(protocol=b"0"),
            request(protocol=b"2"),
            request(code="/elsewhere 0.1"),
            request(arguments=("session", "true")),
            request().replace(b"\018", b"\0x"),
            b"\0" * 40,
            b"GET / HTTP/1.1\r\n\r\n",
            b"",
        ):
            assert asked(place, len(message).to_bytes(8, "little"), message) == client.PLAIN, message
        message = request()
        length = len(message).to_bytes(8, "little")
        assert asked(place, length, message, directory=False) == client.PLAIN
        assert asked(place, b"\1") == client.PLAIN
        refused = (client.PLAIN, client.ENDED)
        assert asked(place, length, message[:-5], ends=True) in refused
        assert asked(place, (1 << 60).to_bytes(8, "little"), message, ends=True) in refused
        assert asked(place, ends=True) in refused


def test_clients_that_say_nothing_do_not_keep_others_waiting(builda: Builda, tmp_path: Path) -> None:
    with waiting(builda, tmp_path, "c=$(builda from scratch)") as (process, place), ExitStack() as stack:
        here = os.open(place, os.O_PATH)
        silent = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(20)]
        for connection in silent:
            connection.connect(f"/proc/self/fd/{here}/socket")
        os.close(here)
        until(lambda: len(family(process.pid)) >= 20, "the clients are not served")
        assert builda("containers", "-q", BUILDA_SESSION=str(place)) != ""
        for connection in silent[:10]:
            connection.close()


def test_a_script_that_ends_while_a_client_is_stopped(builda: Builda, base: str, tmp_path: Path) -> None:
    run = f"c=$(builda from {base}); builda run $c {SLEEP} &"
    script = f"{run} p=$!; {until_sleeping()}; kill -STOP $p"
    result = session(builda, f"{script}; exit 4")
    assert result.returncode == 4
    assert "the script left processes running, which were ended: " in result.stderr
    assert not sleeping()
    assert left(builda) == []


def test_a_store_without_space(builda: Builda, busybox: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    syscalls.mount("small", str(small), "tmpfs", 0, "size=12m")
    where = Builda(small / "store", small / "run")
    add_base(where, busybox)
    script = """
    c=$(builda from localhost/busybox); m=$(builda mount $c); builda commit -q $c app:1 > /dev/null
    cat /dev/zero > $m/big; builda commit -q $c app:2; echo $?; builda tag app:1 app:9; echo $?; builda from scratch
    """
    result = session(where, script)
    assert (result.stdout, result.returncode) == ("125\n125\n", 125)
    assert result.stderr.count("Error: no space left on device, in the store: ") == 3
    assert "Traceback" not in result.stderr
    assert left(where) == []
    assert "app" not in names(where)
    subprocess.run(["dd", "if=/dev/zero", f"of={small}/fill", "bs=512"], stderr=subprocess.DEVNULL)
    assert "no space left on device" in session(where, "echo not reached").stderr
    (small / "fill").unlink()
    assert session(where, "builda commit -q $(builda from scratch) app:1").returncode == 0
    assert left(where) == []


@pytest.mark.parametrize(
    ("option", "kept"),
    [
        ("--keep", ["busybox-working-container"]),
        ("--keep-failed", ["busybox-working-container"]),  # there is no space for another name
        ("--no-transaction", []),
        ("--trace={}/trace.json", []),
    ],
)
def test_a_full_store_does_what_a_session_was_asked_for(
    builda: Builda, busybox: Path, tmp_path: Path, option: str, kept: list[str]
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    syscalls.mount("small", str(small), "tmpfs", 0, "size=12m")
    where = Builda(small / "store", small / "run")
    add_base(where, busybox)
    script = """
    c=$(builda from localhost/busybox); builda commit -q $c app:1 > /dev/null
    builda run --no-cache $c -- sh -c 'cat /dev/zero > /big'; builda commit -q $c app:2; exit 3
    """
    result = session(where, script, option.format(small))
    assert (result.returncode, result.stdout) == (3, "")
    assert ("the trace cannot be written: no space left on device" in result.stderr) == ("trace" in option)
    assert "Traceback" not in result.stderr
    assert where("containers", "--format", "{{.ContainerName}}").splitlines() == kept
    assert ("app:1" in where("images", "--format", "{{.Name}}:{{.Tag}}")) == (option == "--no-transaction")
    where("rm", "--all")
    where("prune")
    where("fsck")


def test_a_session_in_a_containers_command_is_one_of_its_own(builda: Builda, base: str) -> None:
    inner = f'builda() {{ {builda.command[0]} --root /tmp/store --runroot /tmp/run "$@"; }}'
    host = f"mount -t proc p /proc; mount -t tmpfs t /tmp; cd /tmp; {inner}; env | grep -c BUILDA_SESSION"
    script = f"{host}; builda session {builda.command[0]} from scratch; ls /tmp/store/containers | wc -l"
    run = "builda run --cap-add all --security-opt seccomp=unconfined -v /:/host -e HOME=/tmp $c chroot /host sh -c"
    result = session(
        builda, f'c=$(builda from {base}); {run} "$SCRIPT"; echo $?; builda containers -q | wc -l', SCRIPT=script
    )
    assert result.stdout == "0\nworking-container\n0\n0\n1\n", result.stderr


class Terminal:
    """A shell with job control in a session, on a terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._seen = b""

    def type(self, text: bytes) -> None:
        os.write(self._descriptor, text)

    def until(self, wanted: bytes) -> bytes:
        """Read up to these bytes."""
        deadline = time.monotonic() + 60
        while wanted not in self._seen:
            assert time.monotonic() < deadline, self._seen
            if select.select([self._descriptor], [], [], 1)[0]:
                self._seen += os.read(self._descriptor, 4096)
        before, _, self._seen = self._seen.partition(wanted)
        return before


def test_job_control_in_a_session(builda: Builda, base: str, tmp_path: Path) -> None:
    pid, descriptor = pty.fork()
    if pid == 0:
        environ = {**environ_of(builda), "PS1": "rea''dy> ", "TERM": "dumb"}
        os.execvpe(builda.command[0], [*builda.command, "session", "bash", "--norc", "--noprofile", "-i"], environ)
    shell = Terminal(descriptor)
    os.mkfifo(tmp_path / "go")
    shell.until(b"rea''dy> ")
    shell.type(b"builda from --name c " + base.encode() + b"\n")
    shell.until(b"\nc\r\n")
    shell.until(b"rea''dy> ")
    shell.type(f"builda copy --from {base} c /bin /copied; builda run --tty=false -v {tmp_path}:/v c ".encode())
    shell.type(b"sh -c 'echo up''per; read x < /v/go; echo $x; exit 6'\n")
    shell.until(b"\nupper\r\n")
    shell.type(b"\x1a")
    shell.until(b"Stopped")
    shell.until(b"rea''dy> ")
    shell.type(b"fg\n")
    shell.until(b"exit 6'\r\n")
    (tmp_path / "go").write_text("given\n")
    shell.until(b"given\r\n")
    shell.until(b"rea''dy> ")
    shell.type(b"echo status=$?\n")
    shell.until(b"\nstatus=6\r\n")
    shell.until(b"rea''dy> ")
    shell.type(b"builda images -q & wait $!; echo status=$?\n")
    shell.until(b"\nstatus=0\r\n")
    shell.until(b"rea''dy> ")
    shell.type(b"exit 5\n")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    os.close(descriptor)
    assert left(builda) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_any_moment_is_neither_lost_nor_shown(builda: Builda, number: signal.Signals) -> None:
    command = [*builda.command, "session", "sh", "-c", "builda from scratch > /dev/null; exec sleep 60"]
    for attempt in range(8):
        process = subprocess.Popen(command, env=environ_of(builda), stderr=subprocess.PIPE, text=True)
        time.sleep(0.04 * attempt)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
        assert process.returncode in (-number, 128 + number), said
        assert "Traceback" not in said
        assert "Exception ignored" not in said
    builda("containers")
    assert left(builda) == []


def test_in_a_directory_that_is_gone_absolute_paths_work(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    script = f"""
    mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone
    c=$(builda from {base}); builda copy -q $c {tmp_path}/file /file; builda run $c cat /file
    builda run $c sh -c 'exit 6'
    echo " $?"; builda copy -q $c file /file; echo $?
    """
    result = session(builda, script, "--keep-failed")
    assert (result.returncode, result.stdout.splitlines()) == (0, ["content 6", "125"]), result.stderr
    assert result.stderr.count("the working directory is gone") == 1


@pytest.mark.long
def test_a_thousand_clients_at_once(builda: Builda) -> None:
    script = "builda from --name c scratch; for i in $(seq 1000); do builda config --label n$i=v c & done; wait"
    count = "builda inspect --format '{{len .OCIv1.Config.Labels}}' c"
    command = [*builda.command, "session", "bash", "-c", f"{script}; {count}"]
    result = subprocess.run(command, capture_output=True, text=True, env=environ_of(builda), timeout=600)
    assert (result.stdout.split()[-1], result.stderr) == ("1000", "")
    assert left(builda) == []
    until(lambda: not belonging_to(builda), "processes are left")
