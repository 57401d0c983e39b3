"""Completion of containers, images and what help tells of: names as they are now. `completing` asks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from builda.cli.verb import session_of

if TYPE_CHECKING:
    import click

    from builda.store.store import Store


def containers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of working containers that begin so."""
    store = _store(ctx)
    return [] if store is None else _matching((one.name for one in store.iter_containers()), incomplete)


def images(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of images that begin so; the registry may be left out."""
    store = _store(ctx)
    names = [] if store is None else [name for image in store.iter_images() for name in image.names]
    return _matching([*names, *(name.partition("/")[2] for name in names)], incomplete)


def objects(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of working containers and images."""
    return containers(ctx, param, incomplete) + images(ctx, param, incomplete)


def verbs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """What `builda help` tells of: verbs by all their names, and topics."""
    from builda.cli.group import ALIASES, VERBS
    from builda.cli.pages import TOPICS

    return _matching([*VERBS, *ALIASES, *TOPICS], incomplete)


def _store(ctx: click.Context) -> Store | None:
    """The store that the line names; None where none is yet, because completing makes nothing."""
    import os

    session = session_of(ctx)
    return session.store if os.path.isdir(session.settings.root) else None


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted({name for name in names if name and name.startswith(incomplete)})
