"""Step keys: the names under which results are remembered.

`key = sha256(canonical(parent, step, inputs))`. Place and text of a step are not part of it: the steps
leave these fields out of comparison, and so does the key. No secret is part of a key.

A configuration is part of a step's key as far as the step sees it, and not how it came about. So a script finds what a
Containerfile led to, and a label changes no key.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping

from builda.builder.imageoptions import RegistryAccess
from builda.oci.digest import Digest
from builda.plan import (
    NO_OPTIONS,
    PROXIES,
    Configure,
    Context,
    Copy,
    FromContainer,
    FromImage,
    FromStage,
    MakeDirectory,
    NamedContext,
    Run,
)
from builda.values import compared, dataclass, is_value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.builder.execution.buildoptions import ExecuteOptions
    from builda.builder.imageoptions import CommitOptions
    from builda.oci.config import ImageConfig
    from builda.oci.descriptor import Platform
    from builda.plan import RunMount, RunOptions, Source, Step
    from builda.store.drivers import Driver

_NOT_IN_IMAGES: dict[str, Any] = {
    "destination": None,
    "names": (),
    "manifest": None,
    "remove": False,
    "attest": None,
    "check": None,
    "access": RegistryAccess(),
}
"""Options of a commit that do not change the image, only where it goes; keys have these values in their place."""

_NOT_IN_KEYS = (
    "isolation",
    "runtime",
    "runtime_flags",
    "cgroup_parent",
    "terminal",
    "userns",
    "userns_uid_map",
    "userns_gid_map",
    "userns_uid_map_user",
    "userns_gid_map_group",
)
"""Options that say where and under which ids a command runs. They change no layer, so no key holds them."""
VERSION = 3
"""Changes whenever the same step would give another result, so that old results are not found any more."""


def base_key(base: str, platform: Platform, options: ExecuteOptions, said: RunOptions, driver: Driver) -> Digest:
    """The key of a stage before its first step: of its base, and of all options that change what steps lead to.

    `base` is the base image's digest or `scratch`, `said` how commands run with the machine's defaults below. Volumes
    that a machine gives to all commands are left out.
    """
    commit = options.commit
    inputs: dict[str, object] = {
        "base": base,
        "platform": str(platform),
        "run": run_identity(replace(said, volumes=options.run.volumes)),
        "clamp": commit.clamp,
        "exact": commit.timestamp,
        "compression": (commit.compression, commit.compression_level),
    }
    if not driver.is_exact:  # docs/rootless.md says what it loses
        inputs["driver"] = driver.name
    return step_key(None, Configure(), inputs)


def run_identity(options: RunOptions) -> RunOptions:
    """The options that may change what a command does to files; the others have their defaults."""
    return replace(options, **{name: getattr(NO_OPTIONS, name) for name in _NOT_IN_KEYS})


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes in a working container that no remembered step made: through a mount, or by an uncached command."""


def turn_of(parent: Digest, step: Step) -> Digest:
    """The ID by which builds take turns at a step: from the key of its parent and the step as `keyed` gives it."""
    return Digest.of(canonical({"parent": parent, "step": step}))


def keyed(step: Run | Copy | MakeDirectory, config: ImageConfig) -> Step:
    """The step as its key contains it: what is performed, independent of how the instruction was written.

    `config` is the configuration that it is performed with. Left out are texts of the history, proxies, and names and
    paths of sources, whose digests are among the step's inputs.
    """
    plain = replace(step, created_by=None)
    match plain:
        case Run():
            own = {name: value for name, value in plain.env if name not in PROXIES}
            return replace(
                plain,
                env=tuple({**config.environ(), **own}.items()),
                user=plain.user or config.user or None,
                working_dir=_absolute(plain.working_dir or ".", config),
                mounts=tuple(map(_keyed_mount, plain.mounts)),
                options=run_identity(plain.options),
            )
        case Copy():
            return _keyed_copy(plain, config)
        case MakeDirectory():
            return replace(plain, path=_absolute(plain.path, config), user=plain.user or config.user or None)


def seen(step: Run | Copy | MakeDirectory, config: ImageConfig) -> Mapping[str, object]:
    """The inputs of a step from the configuration: the fields that its command can see and `keyed` does not fill in."""
    if not isinstance(step, Run):
        return {}
    found = {"hostname": config.hostname, "volumes": config.volumes}
    return {name: value for name, value in found.items() if value}


def _absolute(path: str, config: ImageConfig) -> str:
    return "/" + posixpath.normpath(posixpath.join("/", config.working_dir, path)).lstrip("/")


def _keyed_copy(step: Copy, config: ImageConfig) -> Copy:
    is_directory = step.destination.endswith("/") or posixpath.basename(step.destination) in ("", ".", "..")
    destination = _absolute(step.destination, config)
    counted = replace(
        step,
        destination=f"{destination.rstrip('/')}/" if is_directory else destination,
        source=_kind(step.source),
        as_containerfile=step.as_containerfile and (step.extract or step.chmod is not None),
        allow_empty_wildcard=False,
    )
    if not isinstance(step.source, Context | NamedContext) or any(map(is_remote, step.sources)):
        return counted
    names = step.sources if step.parents else tuple(map(_last_name, step.sources))
    return replace(counted, sources=names, excludes=(), follow_symlinks=True, allow_wildcard=True)


def is_remote(source: str) -> bool:
    """Whether a source of a copy is a URL or a repository."""
    return "://" in source or source.startswith("git@")


def _last_name(source: str) -> str:
    """The name of a copied file in the destination directory; "" for a source that must be a directory."""
    name = posixpath.basename(posixpath.normpath(source))
    return "" if name in (".", "..") else name


def _keyed_mount(mount: RunMount) -> RunMount:
    kind = _kind(mount.from_)
    if mount.type == "bind" and isinstance(kind, Context):
        return replace(mount, from_=kind, source="", read_only=_or_none(mount))
    return replace(mount, from_=kind, read_only=_or_none(mount))


def _or_none(mount: RunMount) -> bool | None:
    return None if mount.type == "bind" and mount.read_only else mount.read_only


def _kind(source: Source) -> Source:
    """The kind of a source, whose identity is among the inputs."""
    match source:
        case Context() | NamedContext():
            return Context()
        case FromStage() | FromContainer():
            return FromStage(0)
        case FromImage():
            return FromImage("")


def step_key(parent: Digest | None, step: object, inputs: Mapping[str, object]) -> Digest:
    """The key of `step` performed on the result of `parent` (None: on the empty file system).

    `inputs`: what the step reads besides its own fields, by digest or key: sources, bind mounts, images and stages; for
    a stage's base key, the base image and the options.
    """
    return Digest.of(explained(parent, step, inputs))


def explained(parent: Digest | None, step: object, inputs: Mapping[str, object]) -> bytes:
    """The bytes that `step_key` hashes: readable JSON, kept beside a result so that a later miss can be explained."""
    return canonical(
        {
            "version": VERSION,
            "parent": None if parent is None else str(parent),
            "step": step,
            "inputs": inputs,
        }
    )


def image_key(parent: Digest, options: CommitOptions, said: Mapping[str, object]) -> Digest:
    """The key of an image: of its last step, all that `options` make of it, and what else it says.

    Every option counts, except those of `_NOT_IN_IMAGES`: one that is new is never forgotten.
    """
    return Digest.of(canonical({"parent": parent, "options": replace(options, **_NOT_IN_IMAGES), "image": said}))


def config_key(config: ImageConfig) -> Digest:
    """The digest of a configuration, for the key of an image."""
    from builda.oci.config import config_to_json

    return Digest.of(json.dumps(config_to_json(config), sort_keys=True).encode("utf-8", "surrogateescape"))


def canonical(value: object) -> bytes:
    """A value as JSON in one form: sorted keys, no spaces, dataclasses with type name and compared fields."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "surrogateescape"
    )


def _plain(value: object) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Digest):
        return str(value)
    if isinstance(value, bytes):
        return {"bytes": str(Digest.of(value))}
    if is_value(value):
        return {"type": type(value).__name__, **{name: _plain(part) for name, part in compared(value).items()}}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    raise TypeError(f"no canonical form: {type(value).__name__}")
