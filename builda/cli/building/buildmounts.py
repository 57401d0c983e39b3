"""`build --mount` and `--stdin`: what every RUN of the build gets besides its own."""

from __future__ import annotations

from builda.errors import InvalidValue
from builda.plan import Context
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.plan import RunMount, RunOptions, Source


def mounts(items: tuple[str, ...]) -> tuple[RunMount, ...]:
    """The mounts asked for: bind of a place of the host, cache and tmpfs."""
    from builda.mounts import parse_mount

    found = tuple(parse_mount(item, _no_source) for item in items)
    for mount, item in zip(found, items, strict=True):
        if mount.type not in ("bind", "cache", "tmpfs"):
            raise InvalidValue(f"unsupported type of --mount: {item}", hint="it takes bind, cache and tmpfs")
        if mount.type == "bind" and not mount.source.startswith("/"):
            raise InvalidValue(f"source of --mount is not an absolute path of the host: {item}")
    return found


def split(options: RunOptions, found: tuple[RunMount, ...]) -> tuple[RunOptions, tuple[RunMount, ...]]:
    """The binds are volumes of the host, for all commands alike; what is left are mounts of each RUN."""
    binds = [mount for mount in found if mount.type == "bind" and mount.from_ == Context()]
    volumes = tuple(f"{bind.source}:{bind.target}:{'rw' if bind.read_only is False else 'ro'}" for bind in binds)
    rest = tuple(mount for mount in found if mount not in binds)
    return replace(options, volumes=(*options.volumes, *volumes)), rest


def _no_source(name: str) -> Source:
    raise InvalidValue(f"--mount of a build cannot mount images and stages: from={name}", hint="use RUN --mount")
