"""A build that is asked to end, or one stage of which fails, ends at once in all its stages and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import Builda, clean_environ

pytestmark = pytest.mark.root

AGES = 86399
"""Seconds that no test lasts."""
TWO = f"""
FROM BASE AS one
RUN echo >/seen/one; BEFORE sleep {AGES}
RUN echo >/seen/later
FROM BASE AS two
RUN echo >/seen/two; BEFORE sleep {AGES}
RUN echo >/seen/later
FROM BASE
COPY --from=one /etc/passwd /one
COPY --from=two /etc/passwd /two
RUN echo >/seen/later
"""


def unpacked(builda: Builda, base: str) -> set[str]:
    """The store's trees, that of `base` among them."""
    container = builda("from", base)
    builda("run", container, "true")
    builda("rm", container)
    return set(os.listdir(builda.root / "snapshots"))


def started(builda: Builda, tmp_path: Path, text: str, jobs: int) -> subprocess.Popen[bytes]:
    (tmp_path / "seen").mkdir()
    (tmp_path / "Containerfile").write_text(text)
    command = [*builda.command, "bud", "--jobs", str(jobs), "-v", f"{tmp_path}/seen:/seen", str(tmp_path)]
    return subprocess.Popen(command, env=clean_environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(build: subprocess.Popen[bytes], tmp_path: Path, *names: str) -> None:
    while not all((tmp_path / "seen" / name).exists() for name in names):
        assert build.poll() is None, build.communicate()
        time.sleep(0.02)


def sleepers() -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if line[-2:-1] == [str(AGES).encode()]:
            found.append(pid)
    return found


def check_gone(builda: Builda, tmp_path: Path, before: set[str]) -> None:
    assert not (tmp_path / "seen" / "later").exists()
    assert sleepers() == []
    assert builda("containers", "-q") == ""
    assert set(os.listdir(builda.root / "snapshots")) == before


@pytest.mark.parametrize("jobs", [1, 2, 0])
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)],
    ids=["TERM", "INT", "HUP"],
)
def test_a_signal_to_builda_alone_ends_all_stages(
    builda: Builda, base: str, tmp_path: Path, number: signal.Signals, status: int, jobs: int
) -> None:
    before = unpacked(builda, base)
    build = started(builda, tmp_path, TWO.replace("BASE", base).replace("BEFORE", ""), jobs)
    wait_for(build, tmp_path, "one", *(("two",) if jobs != 1 else ()))
    build.send_signal(number)
    _, error = build.communicate(timeout=60)
    assert build.returncode == status, error
    assert b"Error:" not in error
    assert b"Traceback" not in error
    check_gone(builda, tmp_path, before)


@pytest.mark.parametrize("before", ["trap '' TERM;", "trap 'exit 0' TERM;"], ids=["ignores it", "succeeds"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_commands_have_no_say_in_it(builda: Builda, base: str, tmp_path: Path, before: str, jobs: int) -> None:
    snapshots = unpacked(builda, base)
    text = TWO.replace("BASE", base).replace("BEFORE", before).replace("sleep", "while sleep 0.1; do :; done; sleep")
    build = started(builda, tmp_path, text, jobs)
    wait_for(build, tmp_path, "one", *(("two",) if jobs != 1 else ()))
    build.terminate()
    _, error = build.communicate(timeout=60)
    assert build.returncode == 143, error
    check_gone(builda, tmp_path, snapshots)


def test_a_stage_that_fails_ends_the_others_and_is_the_one_reported(builda: Builda, base: str, tmp_path: Path) -> None:
    before = unpacked(builda, base)
    text = f"""
        FROM BASE AS one
        RUN echo >/seen/one; sleep {AGES}
        RUN echo >/seen/later
        FROM BASE AS two
        RUN while [ ! -e /seen/one ]; do sleep 0.05; done; echo the reason; exit 3
        FROM BASE
        COPY --from=one /etc/passwd /one
        COPY --from=two /etc/passwd /two
    """
    build = started(builda, tmp_path, text.replace("BASE", base), 2)
    _, error = build.communicate(timeout=60)
    assert build.returncode == 3, error
    assert b"Containerfile:6: command failed with exit status 3" in error
    assert error.count(b"Error:") == 1
    check_gone(builda, tmp_path, before)


def test_a_build_that_was_stopped_goes_on_where_it_was(builda: Builda, base: str, tmp_path: Path) -> None:
    text = f"FROM {base}\nRUN echo once >>/seen/count\nRUN echo >/seen/one; sleep $(cat /seen/time)\n"
    (tmp_path / "time").write_text(f"{AGES}")
    build = started(builda, tmp_path, text, 2)
    (tmp_path / "seen" / "time").write_text(f"{AGES}")
    wait_for(build, tmp_path, "one")
    build.terminate()
    build.communicate(timeout=60)
    (tmp_path / "seen" / "time").write_text("0")
    builda("bud", "-q", "-v", f"{tmp_path}/seen:/seen", tmp_path)
    assert (tmp_path / "seen" / "count").read_text() == "once\n"
