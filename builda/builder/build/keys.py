"""Step keys: the names under which results are remembered.

`key = sha256(canonical(parent, step, inputs))`. Place and text of a step are not part of it: the steps
leave these fields out of comparison, and so does the key. No secret is part of a key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from builda.builder.imageoptions import RegistryAccess
from builda.oci.digest import Digest
from builda.plan import NO_OPTIONS, PROXIES, Configure, Run
from builda.values import compared, is_value, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.builder.build.buildoptions import ExecuteOptions
    from builda.builder.imageoptions import CommitOptions
    from builda.oci.descriptor import Platform
    from builda.plan import Copy, MakeDirectory, RunOptions, Step
    from builda.store.drivers import Driver

_NOT_IN_IMAGES: dict[str, Any] = {
    "destination": None,
    "names": (),
    "manifest": None,
    "remove": False,
    "attest": None,
    "access": RegistryAccess(),
}
"""Options of a commit that say where its image goes and not what is in it, with values that stand for all others."""

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
"""Options that say where and by whom a command is run, and change no layer: a user namespace least of all."""
VERSION = 2
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


def keyed(step: Run | Copy | MakeDirectory) -> Step:
    """The step as its key contains it: without `created_by`, which only history shows, and without proxies."""
    plain = replace(step, created_by=None)
    if isinstance(plain, Run):
        return replace(plain, env=tuple(pair for pair in plain.env if pair[0] not in PROXIES))
    return plain


def step_key(parent: Digest | None, step: Step, inputs: Mapping[str, object]) -> Digest:
    """The key of `step` performed on the result of `parent` (None: on the empty file system).

    `inputs`: what the step reads besides its own fields, by digest or key: sources, bind mounts, images and stages; for
    a stage's base key, the base image and the options.
    """
    return Digest.of(explained(parent, step, inputs))


def explained(parent: Digest | None, step: Step, inputs: Mapping[str, object]) -> bytes:
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
