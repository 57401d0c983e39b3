"""`fsck`: what is wrong in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builda.cli.output import print_line
from builda.cli.verb import verb
from builda.errors import CorruptContent

if TYPE_CHECKING:
    from builda.cli.session import Session


@verb(example="builda fsck")
def fsck(session: Session) -> None:
    """Check the store: print what is wrong, each on a line, and change nothing.

    Every blob is read and its digest computed. What killed commands left is listed too; prune removes it.
    """
    found = session.store.fsck()
    for finding in found:
        print_line(finding)
    if found:
        raise CorruptContent(
            f"the store has {len(found)} faults", hint="pull damaged images again; prune removes the rest"
        )
