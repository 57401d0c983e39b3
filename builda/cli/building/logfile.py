"""`build --logfile`: the output of builda and of commands goes to a file; errors still go to standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from builda.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.oci.descriptor import Platform


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


def platform_logs(path: str | None, *, split: bool) -> Callable[[Platform | None], AbstractContextManager[None]]:
    """A function that opens the log of a platform (None: this machine's): `path`, or with `split` `path`_OS_ARCH."""
    if split and path is None:
        raise InvalidValue("--logsplit needs --logfile")

    written: set[str] = set()

    def log_of(platform: Platform | None) -> AbstractContextManager[None]:
        from builda.builder.image.pull import machine_platform

        built = platform or machine_platform()
        name = f"{path}_{built.os}_{built.architecture}"
        if name in written:  # arm/v6 and arm/v7 are both arm
            name += f"_{built.variant}"
        written.add(name)
        return logging_to(name if split else None)

    return log_of


def _replace(descriptors: tuple[int, int]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    for number, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, number)
