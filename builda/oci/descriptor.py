"""Descriptors and platforms: what everything passes around instead of identifiers (image-spec, descriptor.md)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from builda.errors import CorruptContent, InvalidValue
from builda.oci.digest import Digest
from builda.values import dataclass, field, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What `uname -m` calls an architecture, and the ways users spell it, to GOARCH (image-spec, image-index.md).
_ARCHITECTURES = {
    "x86_64": ("amd64", None),
    "x86-64": ("amd64", None),
    "aarch64": ("arm64", None),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "i386": ("386", None),
    "i486": ("386", None),
    "i586": ("386", None),
    "i686": ("386", None),
    "ppc64el": ("ppc64le", None),
}


_SYSTEMS = frozenset(
    "aix android darwin dragonfly freebsd hurd illumos ios js linux netbsd openbsd plan9 solaris wasi wasip1 "
    "windows zos".split()
)
_GO_ARCHITECTURES = frozenset(
    "386 alpha amd64 arm arm64 armbe arm64be hppa ia64 loong64 m68k mips mips64 mips64le mipsle parisc ppc ppc64 "
    "ppc64le riscv riscv64 s390 s390x sh4 sparc sparc64 wasm wasm32".split()
)


_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789_.-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """`os/architecture[/variant]` in Go's words."""

    os: str
    architecture: str
    variant: str | None = None
    os_version: str | None = None
    os_features: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """The platform written `os/arch[/variant]`; `arch` alone means Linux."""
        parts = text.strip().lower().split("/")
        if len(parts) == 1:
            parts = ["linux", parts[0]]
        if not 2 <= len(parts) <= 3 or not all(part and not part.strip(_LETTERS) for part in parts):
            raise InvalidValue(f"not a platform, which is written os/arch[/variant]: {text!r}")
        architecture, variant = _ARCHITECTURES.get(parts[1], (parts[1], None))
        return cls(os=parts[0], architecture=architecture, variant=parts[2] if len(parts) == 3 else variant)

    @property
    def is_known(self) -> bool:
        """Whether Go knows the operating system and the architecture, so that an image for them may exist."""
        return self.os in _SYSTEMS and self.architecture in _GO_ARCHITECTURES

    @classmethod
    def of_machine(cls, machine: str) -> Platform:
        """The Linux platform of a machine that calls itself `machine` (`os.uname().machine`)."""
        return cls.parse(f"linux/{machine}")

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @property
    def canonical(self) -> Platform:
        """The platform with its variant spelled out where the architecture alone means one: arm64 is arm64/v8."""
        return replace(self, variant=_implied_variant(self))

    def runs(self, other: Platform) -> bool:
        """Whether an image for `other` satisfies a request for this platform."""
        return self.fit(other) is not None

    def fit(self, other: Platform) -> int | None:
        """How far an image for `other` is from the best one for this platform: 0 is best, None does not run.

        Processors run what was made for their predecessors: an arm/v7 one also arm/v6, an amd64/v3 one also amd64.
        """
        if (self.os, self.architecture) != (other.os, other.architecture):
            return None
        mine, theirs = _implied_variant(self), _implied_variant(other)
        order = _PREDECESSORS.get(self.architecture, ())
        if mine in order and theirs in order:
            distance = order.index(theirs) - order.index(mine)
            return distance if distance >= 0 else None
        return 0 if mine is None or mine == theirs else None


_PREDECESSORS: dict[str, tuple[str | None, ...]] = {
    "amd64": ("v4", "v3", "v2", "v1"),
    "arm": ("v8", "v7", "v6", "v5"),
    "arm64": ("v9", "v8"),
}
_IMPLIED_VARIANTS = {"amd64": "v1", "arm": "v7", "arm64": "v8"}


def _implied_variant(platform: Platform) -> str | None:
    return platform.variant or _IMPLIED_VARIANTS.get(platform.architecture)


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Content by media type, digest and size in bytes."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    urls: tuple[str, ...] = ()
    artifact_type: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: object, *, where: str) -> Descriptor:
        """The descriptor in a decoded JSON object; CorruptContent naming `where` when it is none."""
        if not isinstance(value, dict):
            raise CorruptContent(f"{where} is not a descriptor")
        media_type, size, digest = value.get("mediaType"), value.get("size"), value.get("digest")
        if not isinstance(media_type, str) or not media_type:
            raise CorruptContent(f"{where} has no mediaType")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise CorruptContent(f"{where} has no valid size: {size!r}")
        if not isinstance(digest, str):
            raise CorruptContent(f"{where} has no digest")
        artifact_type = value.get("artifactType")
        if not isinstance(artifact_type, str | None):
            raise CorruptContent(f"{where}.artifactType is not text")
        try:
            parsed = Digest.parse(digest)
        except InvalidValue as error:
            raise CorruptContent(f"{where}: {error}") from error
        known = {"mediaType", "digest", "size", "platform", "annotations", "urls", "artifactType"}
        return cls(
            media_type=media_type,
            digest=parsed,
            size=size,
            platform=_platform_from_json(value.get("platform"), where=where),
            annotations=string_map(value.get("annotations"), where=f"{where}.annotations"),
            urls=string_tuple(value.get("urls"), where=f"{where}.urls"),
            artifact_type=artifact_type,
            extra=MappingProxyType({key: item for key, item in value.items() if key not in known}),
        )

    def to_json(self) -> dict[str, Any]:
        """The JSON object of the image-spec, fields in the spec's order, empty ones left out."""
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.urls:
            value["urls"] = list(self.urls)
        if self.annotations:
            value["annotations"] = dict(sorted(self.annotations.items()))
        if self.platform is not None:
            value["platform"] = platform_to_json(self.platform)
        if self.artifact_type is not None:
            value["artifactType"] = self.artifact_type
        value.update(sorted(self.extra.items()))
        return value


def platform_to_json(platform: Platform) -> dict[str, Any]:
    """The `platform` object of an index entry."""
    value: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
    if platform.os_version:
        value["os.version"] = platform.os_version
    if platform.os_features:
        value["os.features"] = list(platform.os_features)
    if platform.variant:
        value["variant"] = platform.variant
    value.update(sorted(platform.extra.items()))
    return value


def _platform_from_json(value: object, *, where: str) -> Platform | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise CorruptContent(f"{where}.platform is not an object")
    text = {key: value.get(key) for key in _PLATFORM_TEXT}
    if not all(item is None or isinstance(item, str) for item in text.values()):
        raise CorruptContent(f"{where}.platform holds something other than text")
    return Platform(
        os=text["os"] or "",
        architecture=text["architecture"] or "",
        variant=text["variant"] or None,
        os_version=text["os.version"] or None,
        os_features=string_tuple(value.get("os.features"), where=f"{where}.platform.os.features"),
        extra=MappingProxyType(
            {key: item for key, item in value.items() if key not in _PLATFORM_TEXT and key != "os.features"}
        ),
    )


_PLATFORM_TEXT = ("os", "architecture", "variant", "os.version")


def string_map(value: object, *, where: str) -> Mapping[str, str]:
    """A JSON object of strings (null means empty); CorruptContent naming `where` otherwise."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise CorruptContent(f"{where} is not an object of strings")
    return MappingProxyType(dict(value))


def string_tuple(value: object, *, where: str) -> tuple[str, ...]:
    """A JSON array of strings (null means empty); CorruptContent naming `where` otherwise."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise CorruptContent(f"{where} is not an array of strings")
    return tuple(value)
