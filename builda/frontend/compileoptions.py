"""The options of compiling, as one value."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from builda.permissions import NO_PERMISSIONS, Permissions
from builda.values import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.oci.descriptor import Platform


def _as_written(name: str, _: Platform) -> str:
    return name


def unchecked(source: str) -> tuple[str, None]:
    """The answer of `remote_for` where nothing is locked."""
    return source, None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileOptions:
    """The options of compiling a Containerfile, most of them from the command line."""

    platform: Platform
    build_platform: Platform
    build_args: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    contexts: frozenset[str] = frozenset()  # names of --build-context that are directories
    images: Mapping[str, str] = field(default_factory=dict)  # and those that stand for images
    base: str | None = None  # --from: replaces the image of the first FROM
    env: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    unused_stages: bool = False  # stages before the target are wanted though it does not depend on them
    inherits_labels: bool = True  # stages keep the labels of what they start from
    image_for: Callable[[str, Platform], str] = _as_written  # the image to take; PolicyRejected if it may not be used
    remote_for: Callable[[str], tuple[str, str | None]] = unchecked  # what ADD fetches for a source, and its checksum
    platform_asked: bool = False  # the image is to be for `platform`, whatever its last FROM says
    permissions: Permissions = NO_PERMISSIONS
    host_network: bool = False  # commands have the host's network unless something else is asked for
    hostname: str | None = None  # that of commands, which then has no build argument


def global_platforms(platform: Platform, build: Platform, stage: str = "") -> dict[str, str]:
    """The predefined platform args (Dockerfile reference, "Automatic platform ARGs in the global scope").

    `stage` is the target's name, which BuildKit gives as TARGETSTAGE.
    """
    values = {"TARGETSTAGE": stage or "default"}
    for prefix, value in (("TARGET", platform), ("BUILD", build)):
        values[f"{prefix}PLATFORM"] = str(value)
        values[f"{prefix}OS"] = value.os
        values[f"{prefix}ARCH"] = value.architecture
        values[f"{prefix}VARIANT"] = value.variant or ""
    return values
