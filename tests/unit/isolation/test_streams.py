"""Standard streams that are files: the command reads and writes them, and cannot open them again to change them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Builda, clean_environ

pytestmark = pytest.mark.root


class Runner:
    """Runs a shell script in a container, with streams as the caller has them."""

    def __init__(self, builda: Builda, container: str, wrapper: tuple[str, ...] = ()) -> None:
        self.command = [*wrapper, *builda.command, "run", container, "sh", "-c"]

    def __call__(self, script: str, *, isolation: str | None = None, **streams: Any) -> int:
        command = self.command
        if isolation:
            command = [*command[:-3], "--isolation", isolation, *command[-3:]]
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **streams}
        return subprocess.run([*command, script], env=clean_environ(), check=False, timeout=60, **streams).returncode


@pytest.fixture
def run(builda: Builda, base: str) -> Runner:
    return Runner(builda, builda("from", base))


@pytest.mark.parametrize("isolation", ["native", "chroot"])
def test_output_to_a_file_cannot_be_undone(run: Runner, tmp_path: Path, isolation: str) -> None:
    place = tmp_path / "log"
    place.write_text("of the caller\n")
    place.chmod(0o640)
    script = (
        "echo one; : > /proc/self/fd/1; chmod 777 /proc/self/fd/1; chmod 777 /dev/stdout; exec 3<>/proc/self/fd/1; "
        "echo two; exec 2>/dev/null; echo three > /dev/stdout; true"
    )
    with place.open("a") as file:
        assert run(script, isolation=isolation, stdout=file) == 0
    assert place.read_text() == "of the caller\none\ntwo\nthree\n"
    assert place.stat().st_mode & 0o777 == 0o640


def test_both_streams_to_one_file_keep_their_order(run: Runner, tmp_path: Path) -> None:
    place = tmp_path / "log"
    with place.open("w") as file:
        assert run("for i in 1 2 3 4 5 6 7 8 9; do echo $i; echo $i >&2; done", stdout=file, stderr=file) == 0
    assert place.read_text().split() == [number for number in "123456789" for _ in range(2)]


def test_streams_to_two_files(run: Runner, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        assert run("echo out; echo err >&2; exit 7", stdout=out, stderr=err) == 7
    assert (tmp_path / "out").read_text() == "out\n"
    assert (tmp_path / "err").read_text().startswith("err\n")


def test_much_output_and_a_background_process(run: Runner, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        assert run("(sleep 100; echo late) & head -c 5000000 /dev/zero", stdout=out) == 0
    assert (tmp_path / "out").stat().st_size == 5000000


def test_a_full_disk_is_an_error_and_ends_the_command(run: Runner, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True)
    try:
        with (tmp_path / "out").open("wb") as out:
            assert run("while :; do echo more; done", stdout=out, stderr=subprocess.DEVNULL) == 125
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def user_mounts(builda: Builda, container: str) -> Runner:
    """A caller whose descriptors are of another mount namespace, where no mount can be made of a file."""
    return Runner(builda, container, ("unshare", "-m"))


def root(builda: Builda, container: str) -> Runner:
    return Runner(builda, container)


@pytest.mark.parametrize("caller", [root, user_mounts])
@pytest.mark.parametrize("size", [0, 20, 3_000_000])
def test_input_from_a_file_cannot_be_changed(
    builda: Builda, base: str, tmp_path: Path, caller: Callable[[Builda, str], Runner], size: int
) -> None:
    run = caller(builda, builda("from", base))
    place = tmp_path / "input"
    content = os.urandom(size)
    place.write_bytes(content)
    place.chmod(0o640)
    script = "(true > /dev/stdin; echo x >> /proc/self/fd/0; chmod 777 /proc/self/fd/0) 2> /dev/null; cat"
    if size > 1000:  # to write into a pipe that is full is to wait for oneself
        script = "cat"
    with place.open("rb") as file, (tmp_path / "copy").open("wb") as copy:
        assert run(script, stdin=file, stdout=copy) == 0
    assert content in (tmp_path / "copy").read_bytes()  # where it is a pipe, what was written is in that too
    assert place.read_bytes() == content
    assert place.stat().st_mode & 0o777 == 0o640


def test_what_one_command_left_of_its_input_the_next_reads(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "input").write_text("one\ntwo\nthree\n")
    with (tmp_path / "input").open("rb") as file:
        file.seek(4)
        assert run("read line; test $line = two", stdin=file.fileno()) == 0
        os.lseek(file.fileno(), 8, os.SEEK_SET)
        assert run("read line; test $line = three", stdin=file.fileno()) == 0
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 14


def test_input_that_is_in_memory_and_input_that_nobody_reads(run: Runner) -> None:
    memory = os.memfd_create("input")
    os.write(memory, b"line\n" * 100000)
    os.lseek(memory, 0, os.SEEK_SET)
    assert run("read line; test $line = line; exit 3", stdin=memory) == 3
    os.lseek(memory, 0, os.SEEK_SET)
    assert run("test $(wc -l) = 100000", stdin=memory) == 0
    os.close(memory)


def test_a_directory_is_no_way_out(run: Runner, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert run("ls /proc/self/fd/0/ /dev/stdin/..", stdin=fd) != 0
    finally:
        os.close(fd)


def test_pipes_are_passed_through(run: Runner) -> None:
    reader, writer = os.pipe()
    assert run("test -p /proc/self/fd/1 && readlink /proc/self/fd/1 >&2", stdout=writer, stderr=writer) == 0
    os.close(writer)
    with open(reader, "rb") as file:
        inode = os.fstat(reader).st_ino
        assert file.read() == f"pipe:[{inode}]\n".encode()
