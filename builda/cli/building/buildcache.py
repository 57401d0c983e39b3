"""`--cache-from` and `--cache-to` of `build`: whether they are of use, and pushing after the build."""

from __future__ import annotations

from builda.cli.core.output import print_line
from builda.errors import Unsupported
from builda.events import Warned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.execution.buildoptions import Built
    from builda.builder.execution.cachefrom import CachePlace
    from builda.builder.imageoptions import RegistryAccess
    from builda.cli.core.verbsession import Session


def places(items: tuple[str, ...], option: str) -> tuple[CachePlace, ...]:
    """The repositories meant, as Buildah's users write them (without a tag) or BuildKit's."""
    if not items:
        return ()
    from builda.builder.execution.cacheplaces import places

    return places(items, option)


def check_layers(
    session: Session, cache_from: tuple[CachePlace, ...], cache_to: tuple[CachePlace, ...], *, layers: bool
) -> None:
    """Without a layer for each step there is nothing to push, which is an error, nor to find, which is a warning."""
    why = "each step needs a layer of its own, which --layers=false does not make"
    if cache_to and not layers:
        raise Unsupported("--cache-to has nothing to push", hint=why)
    if cache_from and not layers:
        session.emit(Warned(message="--cache-from has no effect here", hint=why))


def push(session: Session, built: Built, items: tuple[str, ...], access: RegistryAccess) -> None:
    """Push what the build's steps led to."""
    if built.export is None:
        return
    from builda.builder.execution.cacheto import push_cache

    for place in places(items, "--cache-to"):
        if not session.quiet:
            print_line(f"--> Pushing cache {place.reference(built.export.target)}")
        push_cache(session.builder.context, built.export, place, access)
