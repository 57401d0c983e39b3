"""Steps of scripts that fail, in a session that keeps them."""

from __future__ import annotations

from contextlib import contextmanager

from builda.errors import BuildaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from builda.builder.imageoptions import Inputs
    from builda.cli.core.verbsession import Session
    from builda.plan import Run
    from builda.store.containers import WorkingContainer


@contextmanager
def noting(session: Session, container: WorkingContainer, step: Run, inputs: Inputs) -> Iterator[None]:
    """Note in the container whether the step in the block failed; does nothing if the session keeps no failed steps.

    A step that is no command has no arguments.
    """
    if not session.keeps_failed:
        yield
        return
    from builda.builder.debug import keeping
    from builda.store import failedsteps

    ctx = session.builder.context
    try:
        yield
    except BuildaError as error:
        keeping.note(ctx, container, keeping.of_script(ctx, step, inputs, error))
        raise
    failedsteps.forget(session.store.layout, container.id)
