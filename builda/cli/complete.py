"""Completion of containers and images for the shell: names as they are in the store now."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING

from builda.cli.verb import session_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import click

    from builda.store.store import Store


def containers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of working containers that begin so."""
    with _store(ctx) as store:
        return _matching((container.name for container in store.iter_containers()), incomplete)


def images(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of images that begin so; the registry may be left out."""
    with _store(ctx) as store:
        names = [name for image in store.iter_images() for name in image.names]
    return _matching([*names, *(name.partition("/")[2] for name in names)], incomplete)


def objects(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of working containers and images."""
    return containers(ctx, param, incomplete) + images(ctx, param, incomplete)


@contextmanager
def _store(ctx: click.Context) -> Iterator[Store]:
    yield session_of(ctx).store


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted({name for name in names if name and name.startswith(incomplete)})
