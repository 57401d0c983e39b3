"""`fsck`: what is wrong in the store."""

from __future__ import annotations

from builda.cli.core.options import switch
from builda.cli.core.output import print_line, say
from builda.cli.core.verb import verb
from builda.errors import CorruptContent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.cli.core.verbsession import Session


@verb(
    switch("--repair", help="Remove records and blobs that are damaged, and write again what can be."),
    switch("--quiet", "-q", help="Say nothing on stderr when the store is whole."),
    example="builda fsck --repair",
)
def fsck(session: Session, *, repair: bool, quiet: bool) -> None:
    """Check the store: print what is wrong, each on a line.

    Every blob is read and its digest computed. Nothing is changed without --repair. What killed commands left is no
    fault: it is counted on stderr, and prune removes it.
    """
    from builda.store.fsck import examine
    from builda.store.fsck import repair as repaired

    store = session.store
    for line in repaired(store) if repair else ():
        print_line(line)
    found = examine(store)
    for fault in found.faults:
        print_line(fault)
    if found.faults:
        hint = "builda fsck --repair removes damaged records and blobs"
        if repair:
            hint = "pull images that lack blobs again, and remove what stands on what is gone"
        count = len(found.faults)
        raise CorruptContent(f"the store has {count} fault{'s' * (count > 1)}", hint=hint)
    if not quiet:
        say(_whole(len(found.leftovers)))


def _whole(leftovers: int) -> str:
    if not leftovers:
        return "the store is whole"
    return f"the store is whole; leftovers of killed commands, which builda prune removes: {leftovers}"
