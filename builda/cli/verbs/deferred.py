"""Pushes in a session: put off until its script has succeeded."""

from __future__ import annotations

import os
import sys

from builda.cli.core.output import write_file
from builda.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.imageoptions import PushOptions
    from builda.cli.core.verbsession import Session


def target(session: Session, image: str, destination: str | None) -> tuple[str, str | None]:
    """The image and destination of a push: those noted when it was put off, else those given."""
    meant, _, where = session.environ.get("BUILDA_SESSION_PUSH", "").partition(" ")
    return (meant, where) if where else (image, destination)


def put_off(
    session: Session, image: str, destination: str | None, options: PushOptions, digestfile: str | None
) -> bool:
    """Note a push to a registry, in a session whose script may still fail; False if it is to be done now.

    `digestfile` gets the digest of the stored image, which is the one that is pushed if no option changes it.
    """
    membership = session.store.session
    if membership is None or not membership.is_transaction or session.environ.get("BUILDA_SESSION_PUSH"):
        return False
    from builda.builder.image.push import destination_of

    found, location = destination_of(session.builder.context, image, destination)
    if not location.in_registry:
        return False
    if digestfile is not None:
        _check_unchanged(options)
        write_file(digestfile, str(found.digest))
    from builda.session import pushes

    mask = os.umask(0o077)
    os.umask(mask)
    try:
        directory = os.getcwd()
    except FileNotFoundError:  # it was removed, so no option can name a file in it
        directory = "/"
    push = pushes.Push(sys.argv[1:], str(found.digest), str(location), dict(session.environ), directory, mask)
    pushes.note(session.environ["BUILDA_SESSION"], push)
    return True


def _check_unchanged(options: PushOptions) -> None:
    from builda.builder.imageoptions import PushOptions, RegistryAccess
    from builda.values import replace

    if replace(options, access=RegistryAccess()) != PushOptions():
        raise InvalidValue(
            "the digest is not known before the session has ended, as an option changes what is pushed: --digestfile",
            hint="leave out that option, or run builda session --no-transaction",
        )
