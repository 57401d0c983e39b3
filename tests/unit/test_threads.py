"""Waiting for threads: signals are handled meanwhile, whichever thread takes them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from builda.threads import wait_for_threads

INTERRUPTED = """
import signal, threading, time
from concurrent.futures import ThreadPoolExecutor
from builda.threads import wait_for_threads
def work():
    time.sleep(0.3)
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)  # as the kernel may choose
    time.sleep(20)
with ThreadPoolExecutor(1) as pool:
    try:
        wait_for_threads([pool.submit(work)])
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        import os; os._exit(0)
"""


def test_a_signal_that_another_thread_takes_interrupts() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("interrupted\n", 0), done.stderr
    assert time.monotonic() - began < 15


def _failing() -> None:
    raise ValueError("no")


@pytest.mark.parametrize(
    ("first", "all_of_them"), [(_failing, True), (lambda: None, False)], ids=["one fails", "one is done"]
)
def test_it_returns_before_the_others_are_done(first: Callable[[], None], all_of_them: bool) -> None:
    go = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        futures: list[Future[object]] = [pool.submit(go.wait, 60), pool.submit(first)]
        assert wait_for_threads(futures, all_of_them=all_of_them) == {futures[1]}
        go.set()
        assert wait_for_threads(futures[:1]) == {futures[0]}
