"""`build --logfile`: what a build would print goes to a file, whoever prints it; errors still go to standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def logging_to(path: str | None) -> Iterator[None]:
    """Standard output and error are the file, which only its owner may read, for the time of a `with`."""
    if path is None:
        yield
        return
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    before = [os.dup(1), os.dup(2)]
    try:
        _replace((log, log))
        yield
    finally:
        _replace((before[0], before[1]))
        for descriptor in (log, *before):
            os.close(descriptor)


def _replace(descriptors: tuple[int, int]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    for number, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, number)
