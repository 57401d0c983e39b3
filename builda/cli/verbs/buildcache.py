"""`--cache-from` and `--cache-to` of `build`: what they are written like, and pushing after the build."""

from __future__ import annotations

from builda.cli.core.output import print_line
from builda.errors import InvalidValue, Unsupported
from builda.events import Warned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.build.buildoptions import Built
    from builda.builder.build.cachefrom import CachePlace
    from builda.builder.imageoptions import RegistryAccess
    from builda.cli.core.session import Session

_HINT = "write REPOSITORY, or type=registry,ref=REPOSITORY[:TAG]"
_KNOWN = {"--cache-from": ("type", "ref"), "--cache-to": ("type", "ref", "mode", "ignore-error")}


def places(items: tuple[str, ...], option: str) -> tuple[CachePlace, ...]:
    """The repositories meant, as Buildah's users write them (without a tag) or BuildKit's."""
    return tuple(_place(item, option) for item in items)


def _place(item: str, option: str) -> CachePlace:
    from builda.builder.build.cachefrom import CachePlace
    from builda.oci.reference import Reference, parse_short

    fields = _fields(item, option)
    text = fields["ref"]
    short = parse_short(text)
    if short.digest is not None or (short.tag is not None and "=" not in item):
        raise InvalidValue(f"{option} takes a repository, without tag or digest: {text}", hint=_HINT)
    reference = Reference.parse(text)
    ignore = fields.get("ignore-error", "false") == "true"
    return CachePlace(registry=reference.registry, repository=reference.repository, tag=short.tag, ignore_error=ignore)


def _fields(item: str, option: str) -> dict[str, str]:
    if "=" not in item:
        return {"ref": item}
    fields = dict(part.partition("=")[::2] for part in item.split(","))
    if unknown := [name for name in fields if name not in _KNOWN[option]]:
        raise Unsupported(f"{option} knows no {unknown[0]}: {item}", hint=_HINT)
    if fields.get("type", "registry") != "registry":
        raise Unsupported(f"{option} has the type registry only: {item}", hint=_HINT)
    if fields.get("mode", "max") != "max":
        raise Unsupported(f"{option} pushes the steps of all stages, which is mode=max: {item}")
    if fields.get("ignore-error", "false") not in ("true", "false"):
        raise InvalidValue(f"ignore-error is true or false: {item}")
    if not fields.get("ref"):
        raise InvalidValue(f"{option} names no repository: {item}", hint=_HINT)
    return fields


def check_layers(
    session: Session, cache_from: tuple[CachePlace, ...], cache_to: tuple[CachePlace, ...], *, layers: bool
) -> None:
    """Without a layer for each step there is nothing to push, which is an error, nor to find, which is a warning."""
    why = "each step needs a layer of its own, which --layers=false does not make"
    if cache_to and not layers:
        raise Unsupported("--cache-to has nothing to push", hint=why)
    if cache_from and not layers:
        session.emit(Warned(message="--cache-from is of no use here", hint=why))


def push(session: Session, built: Built, items: tuple[str, ...], access: RegistryAccess) -> None:
    """Push what the build's steps led to."""
    if built.export is None:
        return
    from builda.builder.build.cacheto import push_cache

    for place in places(items, "--cache-to"):
        if not session.quiet:
            print_line(f"--> Pushing cache {place.reference(built.export.target)}")
        push_cache(session.builder.context, built.export, place, access)
