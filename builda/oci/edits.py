"""Edits of an image configuration as values, and `apply`, the one function that performs them.

`apply_all(config, edits)` is what the compiler, the builder and `builda config` do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from itertools import groupby
from types import MappingProxyType

from builda.oci.config import Healthcheck, ImageConfig
from builda.oci.descriptor import Platform
from builda.values import dataclass, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class SetEnv:
    """Give a variable this value, in its old place when it exists."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class UnsetEnv:
    """Drop a variable; None drops all."""

    name: str | None


@dataclass(frozen=True, slots=True)
class SetLabel:
    """Give a label this value."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class UnsetLabel:
    """Drop a label; None drops all."""

    name: str | None


@dataclass(frozen=True, slots=True)
class SetEntrypoint:
    """Replace the entrypoint; None removes it. The command stays; SetCmd resets it."""

    args: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class SetCmd:
    """Replace the default arguments; None removes them."""

    args: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class SetShell:
    """Replace the shell of shell-form instructions; None removes it."""

    args: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class SetText:
    """Replace one of the plain text fields."""

    field: str  # one of TEXT_FIELDS
    value: str


TEXT_FIELDS = frozenset({"user", "working_dir", "stop_signal", "author", "comment", "hostname", "domainname"})


@dataclass(frozen=True, slots=True)
class AddPort:
    """Expose `N/proto`."""

    port: str


@dataclass(frozen=True, slots=True)
class RemovePort:
    """Stop exposing a port; None removes all."""

    port: str | None


@dataclass(frozen=True, slots=True)
class AddVolume:
    """Declare a path a volume."""

    path: str


@dataclass(frozen=True, slots=True)
class RemoveVolume:
    """Remove the declaration of a volume; None removes all."""

    path: str | None


@dataclass(frozen=True, slots=True)
class AddOnbuild:
    """Add a trigger instruction."""

    instruction: str


@dataclass(frozen=True, slots=True)
class ClearOnbuild:
    """Drop all trigger instructions."""


@dataclass(frozen=True, slots=True)
class SetHealthcheck:
    """Replace the health check; None removes it."""

    healthcheck: Healthcheck | None


@dataclass(frozen=True, slots=True)
class SetPlatform:
    """Change the platform."""

    platform: Platform


ConfigEdit: TypeAlias = (
    SetEnv
    | UnsetEnv
    | SetLabel
    | UnsetLabel
    | SetEntrypoint
    | SetCmd
    | SetShell
    | SetText
    | AddPort
    | RemovePort
    | AddVolume
    | RemoveVolume
    | AddOnbuild
    | ClearOnbuild
    | SetHealthcheck
    | SetPlatform
)


def apply(config: ImageConfig, edit: ConfigEdit) -> ImageConfig:
    """`config` after one edit."""
    match edit:
        case SetEnv(name, value):
            return replace(config, env=tuple({**dict(config.env), name: value}.items()))
        case UnsetEnv(name):
            return replace(config, env=tuple(pair for pair in config.env if name is not None and pair[0] != name))
        case SetLabel(name, value):
            return replace(config, labels=MappingProxyType({**config.labels, name: value}))
        case UnsetLabel(name):
            return replace(config, labels=_without(config.labels, name))
        case SetEntrypoint(args):
            return replace(config, entrypoint=args)
        case SetCmd(args):
            return replace(config, cmd=args)
        case SetShell(args):
            return replace(config, shell=args)
        case SetText(field, value):
            assert field in TEXT_FIELDS, field
            return replace(config, **{field: value})  # type: ignore[arg-type]  # TEXT_FIELDS are all str
        case AddPort(port):
            return replace(config, exposed_ports=_with(config.exposed_ports, port))
        case RemovePort(port):
            return replace(config, exposed_ports=_dropped(config.exposed_ports, port))
        case AddVolume(path):
            return replace(config, volumes=_with(config.volumes, path))
        case RemoveVolume(path):
            return replace(config, volumes=_dropped(config.volumes, path))
        case AddOnbuild(instruction):
            return replace(config, onbuild=(*config.onbuild, instruction))
        case ClearOnbuild():
            return replace(config, onbuild=())
        case SetHealthcheck(healthcheck):
            return replace(config, healthcheck=healthcheck)
        case SetPlatform(platform):
            return replace(config, platform=platform)


class Edited:
    """A configuration under edits. They are applied together when it is read, since each alone copies all variables."""

    __slots__ = ("_state",)

    def __init__(self, config: ImageConfig) -> None:
        self._state: tuple[ImageConfig, list[ConfigEdit]] = (config, [])  # one value, for threads that read it at once

    def change(self, changes: Iterable[ConfigEdit]) -> None:
        """Edit it."""
        self._state[1].extend(changes)

    def read(self) -> ImageConfig:
        """The configuration after all edits."""
        config, pending = self._state
        if pending:
            config = apply_all(config, pending)
            self._state = (config, [])
        return config


def apply_all(config: ImageConfig, changes: Iterable[ConfigEdit]) -> ImageConfig:
    """`config` after all edits, in order; many ports, variables and labels in a row take no longer than one."""
    for additions, group in groupby(changes, lambda edit: isinstance(edit, AddPort | SetEnv | SetLabel)):
        alike = list(group)
        config = _apply_alike(config, alike) if additions else reduce(apply, alike, config)
    return config


def _apply_alike(config: ImageConfig, changes: list[ConfigEdit]) -> ImageConfig:
    ports = [edit.port for edit in changes if isinstance(edit, AddPort)]
    env = {edit.name: edit.value for edit in changes if isinstance(edit, SetEnv)}
    labels = {edit.name: edit.value for edit in changes if isinstance(edit, SetLabel)}
    return replace(
        config,
        exposed_ports=tuple(sorted({*config.exposed_ports, *ports})) if ports else config.exposed_ports,
        env=tuple({**dict(config.env), **env}.items()) if env else config.env,
        labels=MappingProxyType({**config.labels, **labels}) if labels else config.labels,
    )


def _without(mapping: Mapping[str, str], name: str | None) -> Mapping[str, str]:
    return MappingProxyType({key: value for key, value in mapping.items() if name is not None and key != name})


def _with(items: tuple[str, ...], item: str) -> tuple[str, ...]:
    return tuple(sorted({*items, item}))


def _dropped(items: tuple[str, ...], item: str | None) -> tuple[str, ...]:
    return tuple(other for other in items if item is not None and other != item)
