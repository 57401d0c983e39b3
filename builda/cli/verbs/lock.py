"""`lock update`: what the names in a lock file mean now."""

from __future__ import annotations

from builda.cli.core import shared_options
from builda.cli.core.options import argument, switch, text
from builda.cli.core.output import print_json, print_words
from builda.cli.core.verb import verb
from builda.display import HIDDEN
from builda.errors import NotFound
from builda.events import Warned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.builder.locking import Locking
    from builda.cli.core.verbsession import Session
    from builda.events import Emit
    from builda.lockfile import Lock


@verb(
    argument("names", nargs=-1, required=False),
    text("--file", "-f", metavar="FILE", default="builda.lock", help="The lock file.  [default: builda.lock]"),
    switch("--dry-run", help="Say what has changed, and write nothing."),
    switch("--json", help="Print JSON."),
    switch("--quiet", "-q", help="Print nothing."),
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.HIDDEN,
    name="lock-update",
    interspersed=True,
    example="builda lock update debian:bookworm",
)
def update(session: Session, *, names: tuple[str, ...], file: str, dry_run: bool, **values: Any) -> None:
    """Ask again what the names in a lock file mean, write the new digests into it, and print what has changed.

    NAME is the name of an entry: an image, a URL or a git repository as the file has it; without one all are asked. If
    one of them cannot be had, nothing is written. Private repositories are renewed by builda bud --lock, as git shows
    them no credentials here. A new lock file is written by builda bud --lock.
    """
    from builda.builder.copy.git import Credentials
    from builda.builder.locking import Locking
    from builda.lockfile import read, save

    session.quiet = values.pop("quiet")
    as_json = values.pop("json")
    old = read(file)
    access = shared_options.registry_access(values, session.environ)
    locking = Locking(session.builder.context, access, Credentials())  # a lock file may be a stranger's
    _ask(locking, old, names, file, session.emit)
    changes = tuple(locking.lock.changes(old))
    if not dry_run:
        save(file, locking.lock)
    if as_json:
        print_json([{"name": name, "old": before, "new": after} for name, before, after in changes])
    elif not session.quiet:
        for name, before, after in changes:
            print_words(f"{name}: {before} → {after}")


def _ask(locking: Locking, old: Lock, names: tuple[str, ...], file: str, emit: Emit) -> None:
    known = (old.images, old.urls, old.repositories)
    if unknown := [name for name in names if not any(name in entries for entries in known)]:
        there = [name for entries in known for name in entries]
        raise NotFound(f"{file} has no entry: {unknown[0]}", hint=f"it has {', '.join(there[:9])}" if there else None)
    for name in old.images:
        if not names or name in names:
            locking.image(name, None)
    for source in (*old.urls, *old.repositories):
        if HIDDEN in source and (not names or source in names):
            hint = "the file has no credentials; builda bud --lock asks with those in the Containerfile"
            emit(Warned(message=f"not renewed, its URL has a password: {source}", hint=hint))
        elif not names or source in names:
            locking.remote(source)
