"""Names that `completing` offers: containers, images and steps as they are in the store now, and topics of help."""

from __future__ import annotations

from collections.abc import Iterable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.cli.core.verbsession import Session
    from builda.store.store import Store


def containers(session: Session, incomplete: str) -> list[str]:
    """Names of working containers that begin so."""
    store = _store(session)
    return [] if store is None else _matching((one.name for one in store.containers.iter()), incomplete)


def images(session: Session, incomplete: str) -> list[str]:
    """Names of images that begin so; the registry may be left out."""
    store = _store(session)
    names = [] if store is None else [name for image in store.images.iter() for name in image.names]
    return _matching([*names, *(name.partition("/")[2] for name in names)], incomplete)


def objects(session: Session, incomplete: str) -> list[str]:
    """Names of working containers and images."""
    return containers(session, incomplete) + images(session, incomplete)


def steps(session: Session, incomplete: str) -> list[str]:
    """IDs of remembered steps."""
    store = _store(session)
    return [] if store is None else _matching((key.encoded[:12] for key, _ in store.steps.iter()), incomplete)


def verbs(session: Session, incomplete: str) -> list[str]:
    """The words after `builda help`: verbs by all their names, and topics."""
    from builda.cli.guide.pages import TOPICS
    from builda.cli.verbs import ALIASES, GROUPS, VERBS

    return _matching([*VERBS, *GROUPS, *ALIASES, *TOPICS], incomplete)


def _store(session: Session) -> Store | None:
    """The store that the line names; None where none is yet, because completing makes nothing."""
    import os

    return session.store if os.path.isdir(session.settings.root) else None


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted({name for name in names if name and name.startswith(incomplete)})
