"""A RUN that fails: what the user reads of it, the status of the build, and that nothing is published."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.conftest import Builda, clean_environ
from tests.support import needs

pytestmark = pytest.mark.root


class Write(Protocol):
    """Writes a Containerfile, or another file of the context, and returns the context."""

    def __call__(self, text: str, name: str = "Containerfile") -> Path: ...


@pytest.fixture
def write(base: str, tmp_path: Path) -> Write:
    """Makes a context whose Containerfile has this text, BASE being a busybox image."""
    context = tmp_path / "c"
    context.mkdir()

    def written(text: str, name: str = "Containerfile") -> Path:
        (context / name).write_text(text.replace("BASE", base))
        return context

    return written


def test_a_failing_command_shows_its_place_and_its_text(builda: Builda, base: str, write: Write) -> None:
    context = write("FROM BASE\n# why\nRUN echo out && \\\n    # more\n    exit 7\nRUN true\n")
    said = builda.fails("bud", "-t", "bad", context, status=7)
    assert said.endswith(
        f"Error: {context}/Containerfile:3: command failed with exit status 7: RUN echo out &&     exit 7\n"
        f"     1 | FROM {base}\n"
        "     2 | # why\n"
        ">    3 | RUN echo out && \\\n"
        ">    4 |     # more\n"
        ">    5 |     exit 7\n"
        "     6 | RUN true\n"
    )
    assert "bad" not in builda("images")
    assert builda("containers", "-q") == ""


def test_output_that_was_printed_is_not_printed_again(builda: Builda, write: Write) -> None:
    result = builda.run("bud", write("FROM BASE\nRUN echo out; echo err >&2; exit 7\n"), check=False)
    assert result.stdout.splitlines()[-1] == "out"
    assert "err" in result.stderr.splitlines()
    assert "last lines" not in result.stderr


def test_quiet_keeps_the_last_lines_for_the_error(builda: Builda, write: Write) -> None:
    context = write("FROM BASE\nRUN seq 40; printf '\\033[31mred\\033[0m\\n10%%\\r20%%\\nlast'; exit 7\n")
    said = builda.fails("bud", "-q", context, status=7)
    lines = said[said.index("the last lines of its output:") :].splitlines()[1:]
    assert lines == [f"  {n}" for n in range(29, 41)] + ["  red", "  20%", "  last"]


def test_quiet_says_nothing_twice(builda: Builda, write: Write) -> None:
    said = builda.fails("bud", "-q", write("FROM BASE\nRUN echo err >&2; exit 7\n"), status=7)
    assert said.count("err\n") == 1


def test_stages_side_by_side_keep_each_their_own_lines(builda: Builda, write: Write) -> None:
    mount = "RUN --mount=type=cache,id=both,target=/wait"
    context = write(
        f"FROM BASE AS a\n{mount} echo from-a; while [ ! -e /wait/b ]; do sleep 0.02; done; exit 9\n"
        f"FROM BASE AS b\n{mount} sleep 0.5; echo from-b; sleep 0.5; touch /wait/b; sleep 1\n"
        "FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\n"
    )
    said = builda.fails("bud", "--jobs", "2", context, status=9)
    assert f"{context}/Containerfile:2: command failed with exit status 9" in said
    assert said.endswith("the last lines of its output:\n  from-a\n")


def test_a_failure_ends_the_stages_beside_it_after_their_step(builda: Builda, write: Write) -> None:
    mount = "RUN --mount=type=cache,id=both,target=/wait"
    context = write(
        f"FROM BASE AS slow\n{mount} touch /wait/slow; sleep 1\nRUN echo never\n"
        f"FROM BASE AS bad\n{mount} while [ ! -e /wait/slow ]; do sleep 0.02; done; exit 5\n"
        "FROM scratch\nCOPY --from=slow / /\nCOPY --from=bad / /\n"
    )
    result = builda.run("bud", "--jobs", "2", context, check=False)
    assert result.returncode == 5
    assert "RUN echo never" not in result.stdout


def test_the_place_is_that_of_the_included_file(builda: Builda, write: Write) -> None:
    write("FROM BASE\nRUN <<END\necho hi\nfalse\nEND\n", "base.in")
    write('# via\n#include "base.in"\n', "middle.in")
    context = write('#include "middle.in"\nRUN true\n', "Containerfile.in")
    said = builda.fails("bud", context, status=1)
    assert f"{context}/base.in:2: command failed with exit status 1: RUN <<END" in said
    shown = ">    2 | RUN <<END\n>    3 | echo hi\n>    4 | false\n>    5 | END\n"
    assert f"{shown}included in {context}/middle.in:2\nincluded in {context}/Containerfile.in:1\n" in said


def test_a_trigger_of_the_base_is_named(builda: Builda, write: Write) -> None:
    builda("bud", "-q", "--format", "docker", "-t", "parent", write("FROM BASE\nONBUILD RUN exit 4\n"))
    said = builda.fails("bud", write("# top\nFROM parent\n"), status=4)
    assert "Containerfile:2: command failed with exit status 4: RUN exit 4 (ONBUILD of parent)\n" in said
    assert ">    2 | FROM parent\n" in said


@pytest.mark.parametrize(
    ("text", "status", "message", "hint"),
    [
        ("FROM scratch\nRUN echo hi\n", 127, "no such command in the container: /bin/sh", "the image has no shell"),
        ('FROM BASE\nRUN ["/nope"]\n', 127, "no such command in the container: /nope", None),
        ('FROM BASE\nRUN ["/etc/passwd"]\n', 126, "not executable: /etc/passwd", None),
        ("FROM BASE\nRUN nope --now\n", 127, "command failed with exit status 127: RUN nope --now", "no such command"),
        ("FROM BASE\nRUN /etc/passwd\n", 126, "command failed with exit status 126", "may not execute"),
        ("FROM BASE\nRUN kill -TERM $$\n", 143, "was ended by signal 15 (SIGTERM): RUN kill", None),
        ("FROM BASE\nRUN kill -SEGV $$\n", 139, "was ended by signal 11 (SIGSEGV)", "itself crashed"),
        ('FROM BASE\nSHELL ["/bin/nope", "-c"]\nRUN x\n', 127, "container: /bin/nope", "the image has no shell"),
    ],
)
def test_the_status_is_the_commands_and_the_hint_says_why(
    builda: Builda, write: Write, text: str, status: int, message: str, hint: str | None
) -> None:
    said = builda.fails("bud", write(text), status=status)
    assert message in said
    assert hint is None or hint in said.split("hint: ")[1]


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A memory cgroup (either version) of 128 MiB; its file of processes."""
    for top, limit, processes in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "cgroup.procs"),
        (Path("/sys/fs/cgroup"), "memory.max", "cgroup.procs"),
    ):
        place = top / f"builda-test-{os.getpid()}"
        try:
            place.mkdir()
            (place / limit).write_text(str(128 << 20))
        except OSError:
            continue
        yield place / processes
        place.rmdir()
        return
    needs.not_here("the kernel gives no memory cgroup here")


def test_lack_of_memory_is_named(builda: Builda, write: Write, small_cgroup: Path) -> None:
    context = write("FROM BASE\nRUN dd if=/dev/zero of=/dev/null bs=400M count=1\n")
    result = subprocess.run(
        ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(small_cgroup), *builda.command, "bud", str(context)],
        env=clean_environ(),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 128 + signal.SIGKILL, result.stderr
    assert "command was killed for lack of memory: RUN dd" in result.stderr
    assert "hint: the limit of its cgroup is 128 MiB" in result.stderr


def test_lack_of_memory_further_down_is_named(builda: Builda, write: Write, small_cgroup: Path) -> None:
    context = write("FROM BASE\nRUN dd if=/dev/zero of=/dev/null bs=400M count=1 || exit 2\n")
    result = subprocess.run(
        ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(small_cgroup), *builda.command, "bud", str(context)],
        env=clean_environ(),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2, result.stderr
    assert "status 2, and something it ran was killed for lack of memory" in result.stderr
