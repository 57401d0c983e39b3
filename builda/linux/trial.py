"""Trying something in a forked child, so that this process stays as it is."""

from __future__ import annotations

import os

from builda.errors import IsolationUnavailable
from builda.linux import fork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def attempt(action: Callable[[], None]) -> str | None:
    """Call `action` in a forked child. None if it returned, else the message of the error that it raised."""
    reader, writer = os.pipe()

    def child() -> int:
        try:
            action()
        except OSError as error:
            os.write(writer, str(error.strerror).encode())
        except IsolationUnavailable as error:
            os.write(writer, str(error).encode())
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        return 0

    pid = fork.start(child)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    return said or None
