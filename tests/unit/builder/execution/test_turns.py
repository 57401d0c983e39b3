"""Turns: two builds of one step, in threads and in processes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from builda.builder.execution.turns import Turns
from builda.events import Event
from builda.linux.fork import start
from builda.oci.digest import Digest


def turns(tmp_path: Path, events: list[Event] | None = None) -> Turns:
    return Turns(str(tmp_path / "lock"), lambda: None, (events if events is not None else []).append)


A, B = Digest.of(b"a"), Digest.of(b"b")


def test_a_turn_is_waited_for_and_others_are_not(tmp_path: Path) -> None:
    mine, others = turns(tmp_path), turns(tmp_path)
    mine.take(0, A, "RUN a")
    others.take(0, B, "RUN b")
    had = threading.Event()

    def wait() -> None:
        others.take(1, A, "RUN a")
        had.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not had.wait(0.1)
    mine.give_up(0)
    assert had.wait(60)
    thread.join()
    others.close()


def test_the_next_turn_is_had_before_the_last_is_given_up(tmp_path: Path) -> None:
    mine, others = turns(tmp_path), turns(tmp_path)
    mine.take(0, A, "")
    others.take(0, B, "")
    thread = threading.Thread(target=lambda: mine.take(0, B, ""))
    thread.start()
    others.give_up(0)
    thread.join(60)
    others.take(0, A, "")  # which the first has not any more
    mine.close()
    others.take(0, B, "")
    others.close()


def test_a_wait_ends_with_the_build(tmp_path: Path) -> None:
    def check() -> None:
        raise KeyboardInterrupt

    held = turns(tmp_path)
    held.take(0, A, "")
    with pytest.raises(KeyboardInterrupt):
        Turns(str(tmp_path / "lock"), check, lambda event: None).take(0, A, "")
    held.close()


def test_a_process_that_is_killed_has_no_turn(tmp_path: Path) -> None:
    ready, done = os.pipe()

    def child() -> int:
        turns(tmp_path).take(0, A, "")
        os.write(done, b"x")
        os.kill(os.getpid(), 9)
        return 0

    pid = start(child)
    assert os.read(ready, 1) == b"x"
    os.waitpid(pid, 0)
    mine = turns(tmp_path)
    mine.take(0, A, "")
    mine.close()
    os.close(ready)
    os.close(done)


def test_where_no_lock_file_can_be_there_are_no_turns(tmp_path: Path) -> None:
    Turns(f"{tmp_path}/none/lock", lambda: None, lambda event: None).take(0, A, "")
