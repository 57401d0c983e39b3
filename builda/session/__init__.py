"""Sessions: a script of builda commands under one lease, served by one warm process.

`lease` is the session on disk and in the environment, `supervisor` the process that runs the script and waits for all
that it starts, `server` forks for each command inside, whose two ends are `client` and `served`. `cli` calls these.

Rule: the session's end, or the next command after a kill, removes what its commands noted before they made it.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any


class _Package(type(sys)):  # type: ignore[misc]  # the class of modules, without an import
    """Makes `builda.session(...)` begin a session of a Python script, though that name is this package's, too."""

    def __call__(self, *args: Any, **options: Any) -> AbstractContextManager[Any]:
        found: AbstractContextManager[Any] = sys.modules["builda"].open_session(*args, **options)
        return found


sys.modules[__name__].__class__ = _Package
