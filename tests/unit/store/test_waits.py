"""Waits for locks are told: what for, how long, and who had the lock."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from builda.events import LockWaited
from builda.store import locks
from builda.store.waits import Waits, holder

HOLD = (
    "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
)
Take = Callable[[str, Waits], AbstractContextManager[None]]


def exclusive(path: str, waits: Waits) -> AbstractContextManager[None]:
    return locks.exclusive(path, waits, "thing")


def brief(path: str, waits: Waits) -> AbstractContextManager[None]:
    return locks.brief(path, waits=waits, what="thing")


class Observed(Waits):
    """Says when a wait has begun."""

    def __init__(self) -> None:
        self.told: list[LockWaited] = []
        super().__init__(self.told.append)
        self.begun = threading.Event()

    @contextmanager
    def waiting(self, what: str, path: str) -> Iterator[None]:
        with super().waiting(what, path):
            self.begun.set()
            yield


@pytest.mark.parametrize("take", [exclusive, brief])
def test_a_wait_for_another_process_is_told(tmp_path: Path, take: Take) -> None:
    path, waits = str(tmp_path / "lock"), Observed()
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=pipe, stdout=pipe) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()

        def wait() -> None:
            with take(path, waits):
                pass

        thread = threading.Thread(target=wait)
        thread.start()
        assert waits.begun.wait(60)
        assert [(told.done, told.seconds) for told in waits.told] == [(False, 0.0)]
        other.stdin.close()
        thread.join(60)
    begun, over = waits.told
    assert over.done
    assert over.seconds > 0
    for told in (begun, over):
        assert (told.what, told.pid) == ("thing", other.pid)
        assert "python" in told.program


def test_a_wait_that_a_signal_ends_is_over(tmp_path: Path) -> None:
    waits = Observed()
    with pytest.raises(KeyboardInterrupt), waits.waiting("thing", str(tmp_path / "lock")):
        raise KeyboardInterrupt
    assert [told.done for told in waits.told] == [False, True]


@pytest.mark.parametrize("take", [exclusive, brief])
def test_a_free_lock_is_not_told(tmp_path: Path, take: Take) -> None:
    waits = Observed()
    with take(str(tmp_path / "lock"), waits):
        pass
    assert waits.told == []
    assert not waits.begun.is_set()


def test_only_a_lock_that_excludes_others_has_a_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert holder(str(path)) is None
    with path.open("w") as file:
        assert holder(str(path)) is None
        fcntl.flock(file, fcntl.LOCK_SH)
        assert holder(str(path)) is None
        fcntl.flock(file, fcntl.LOCK_EX)
        assert holder(str(path)) == os.getpid()
