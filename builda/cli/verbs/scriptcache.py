"""The options about the cache of steps that the verbs of scripts share, and what a session says of it."""

from __future__ import annotations

from collections.abc import Mapping

from builda.cli.core.options import Params, duration, many, switch, text
from builda.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.builder.cached.caching import Caching
    from builda.builder.imageoptions import CacheChoice, RegistryAccess
    from builda.cli.core.verbsession import Session
    from builda.session.cachechoice import SessionCache
    from builda.store.containers import WorkingContainer

PLACES: Params = (
    many("--cache-from", metavar="REPO", help="Look for results of steps in this repository, too."),
    many("--cache-to", metavar="REPO", help="Push the results of steps to this repository."),
    switch("--explain-cache", help="Say of each step that is performed what differs from the remembered ones."),
)
OF_RUN: Params = (
    switch("--no-cache", help="Run the command, whatever is remembered, and remember only what it changes."),
    text("--cache-key", metavar="TEXT", help="Look for the result of a run with this key only."),
    duration("--uncached-after", help="Run the command again if its result is older than this."),
)


NOTHING_SAID: Mapping[str, Any] = {
    "no_cache": False,
    "cache_from": (),
    "cache_to": (),
    "explain_cache": False,
    "authfile": None,
    "tls_verify": None,
}
"""The values of the options that a session has, when none is given."""


def of_session(session: Session) -> SessionCache | None:
    """The cache options of the session of this command; None outside of a session, and without a cache."""
    place = session.environ.get("BUILDA_SESSION")
    if not place or not session.is_joined:
        return None
    from builda.session.cachechoice import told

    return told(place)


def choice(
    session: Session, values: dict[str, Any], access: RegistryAccess
) -> tuple[CacheChoice, RegistryAccess] | None:
    """The cache options of a new working container, and those of its registries; None if it looks up no steps."""
    cached, uncached = values.pop("cache"), values.pop("no_cache")
    sources, targets = values.pop("cache_from"), values.pop("cache_to")
    explains = values.pop("explain_cache")
    known = of_session(session)
    if uncached and (cached or sources or targets or explains):
        raise InvalidValue("--no-cache contradicts the other options about the cache")
    if uncached or (known is None and not cached):
        if sources or targets or explains:
            raise InvalidValue("--cache-from, --cache-to and --explain-cache need --cache, or a session")
        return None
    from builda.builder.imageoptions import CacheChoice

    _check(sources, targets)
    if known is None:
        return CacheChoice(sources=sources, targets=targets, explains=explains), access
    from builda.values import replace

    merged = CacheChoice(
        sources=(*known.sources, *sources),
        targets=(*known.targets, *targets),
        explains=explains or known.explains,
    )
    tls = known.tls_verify if access.tls_verify is None else access.tls_verify
    return merged, replace(access, tls_verify=tls, authfile=access.authfile or known.authfile)


def _check(sources: tuple[str, ...], targets: tuple[str, ...]) -> None:
    """InvalidValue or Unsupported for a place that is written wrongly, before anything is done."""
    from builda.cli.building.buildcache import places

    places(sources, "--cache-from")
    places(targets, "--cache-to")


def for_session(values: Mapping[str, Any]) -> SessionCache | None:
    """The cache options of a new session for its commands; None with --no-cache."""
    from builda.session.cachechoice import SessionCache, own_streams

    sources, targets = values["cache_from"], values["cache_to"]
    if values["no_cache"]:
        if sources or targets or values["explain_cache"]:
            raise InvalidValue("--no-cache contradicts the other options about the cache")
        return None
    _check(sources, targets)
    return SessionCache(
        sources=sources,
        targets=targets,
        tls_verify=values["tls_verify"],
        authfile=values["authfile"],
        explains=values["explain_cache"],
        logs=own_streams(),
    )


def caching(session: Session, container: WorkingContainer, values: dict[str, Any]) -> Caching | None:
    """The cache options of one run; None in a container without a cache, where giving any is an error."""
    no_cache, extra, age = values.pop("no_cache"), values.pop("cache_key"), values.pop("uncached_after")
    if container.cache is None:
        if extra is not None or age is not None:
            option = "--cache-key" if extra is not None else "--uncached-after"
            raise InvalidValue(
                f"{option} is for a container whose steps are looked up: {container.name}",
                hint="in a session they are, unless it has --no-cache; else make it with builda from --cache",
            )
        return None
    if no_cache and (extra is not None or age is not None):
        raise InvalidValue("--no-cache contradicts --cache-key and --uncached-after")
    from builda.builder.cached.caching import Caching

    known = of_session(session)
    return Caching(
        looks=not no_cache,
        extra=extra,
        max_age=None if age is None else age / 10**9,
        logs=frozenset() if known is None else frozenset(known.logs),
    )


def push(session: Session, container: WorkingContainer) -> None:
    """Push the steps of a container to the caches that it names."""
    if container.cache is None or not container.cache.targets:
        return
    from builda.builder.cached.cacheregistries import push_steps

    push_steps(session.builder.context, container)
