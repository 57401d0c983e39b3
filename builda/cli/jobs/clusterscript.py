"""The pod's side of `session --on`: a session whose standard streams go into the log as numbered lines.

This process becomes the session, so that signals to the pod reach the script; a child writes the log.
"""

from __future__ import annotations

import os
import sys

from builda.errors import BuildaError
from builda.session.ledstreams import lead

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, NoReturn

    from builda.cli.core.verbsession import Session
    from builda.cli.progress.relayedview import Relay


def perform(session: Session, relay: Relay, asked: Mapping[str, Any], give_back: Callable[[Relay], None]) -> NoReturn:
    """Run the script that is asked for in the current directory, and leave with status 0 or FAILED."""
    from builda.cluster.objects import FAILED

    def ended(status: int) -> None:
        give_back(relay)
        relay.exited(status)

    led = lead(relay.wrote, ended)
    relay.close()
    status = _status(session, asked)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    led.end(status)
    os._exit(FAILED if status else 0)


def _status(session: Session, asked: Mapping[str, Any]) -> int:
    """Run the script in a session; its exit status, or that of the error that was printed."""
    from builda.cli.core.reports import show
    from builda.cli.verbs import verb_named

    verb = verb_named("session")
    try:
        line = verb.read([*asked["words"], "--on=", "--", *asked["script"]], {}, path="builda session")
        verb.function(session, **line.values(verb.rows))
    except BuildaError as error:
        return show(error)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except Exception as error:
        from builda.cli.core.reports import internal

        return show(internal(error, ()))
    return 0
