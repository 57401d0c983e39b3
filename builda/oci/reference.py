"""Image names: `[registry/]repository[:tag][@digest]` (distribution-spec and Docker's grammar)."""

from __future__ import annotations

import re

from builda.errors import InvalidReference, InvalidValue
from builda.oci.digest import Digest
from builda.values import NamedTuple

DEFAULT_REGISTRY = "docker.io"
LOCAL_REGISTRY = "localhost"
DEFAULT_TAG = "latest"
NAME_LIMIT = 255

# re compiles these when they are first used and remembers them: not everyone who imports this parses a name.
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REGISTRY = (
    r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
    r"(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[0-9a-fA-F:.]+\])(?::[0-9]+)?"
)
_TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"


def is_tag(text: str) -> bool:
    """Whether a registry may call an image so."""
    return re.fullmatch(_TAG, text) is not None


class Reference(NamedTuple):
    """How an image is named; `tag` and `digest` may both be set, then the digest decides what is fetched."""

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str, *, default_registry: str = DEFAULT_REGISTRY) -> Reference:
        """The reference that `text` names, with `:latest` where it has neither tag nor digest.

        A name without a registry gets `default_registry`, and on docker.io `library/` when it has one component.
        """
        short = parse_short(text)
        registry = short.registry or default_registry
        repository = short.repository
        if registry in ("docker.io", "index.docker.io"):
            registry = "docker.io"
            if "/" not in repository:
                repository = f"library/{repository}"
        tag = short.tag if short.tag or short.digest else DEFAULT_TAG
        return cls(registry, repository, tag, short.digest)

    @property
    def name(self) -> str:
        """`registry/repository`."""
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        return (
            self.name
            + (f":{self.tag}" if self.tag is not None else "")
            + (f"@{self.digest}" if self.digest is not None else "")
        )


class ShortReference(NamedTuple):
    """What the user wrote, taken apart; `registry` is None for an unqualified name."""

    registry: str | None
    repository: str
    tag: str | None
    digest: Digest | None


def parse_short(text: str) -> ShortReference:
    """`text` taken apart without filling in anything; InvalidReference says what is wrong with it."""
    rest, at, digest_text = text.partition("@")
    digest = None
    if at:
        try:
            digest = Digest.parse(digest_text)
        except InvalidValue as error:
            raise InvalidReference(f"{error} in image name: {text!r}") from error
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        name, tag = rest, ""
    elif not re.fullmatch(_TAG, tag):
        raise InvalidReference(f"invalid tag {tag!r} in image name: {text!r}")
    first, slash, remainder = name.partition("/")
    registry: str | None = None
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        if not re.fullmatch(_REGISTRY, first):
            raise InvalidReference(f"invalid registry {first!r} in image name: {text!r}")
        registry, name = first, remainder
    if len(name) > NAME_LIMIT:
        raise InvalidReference(f"repository name is longer than {NAME_LIMIT} characters: {text!r}")
    if not _is_repository(name):
        if _is_repository(name.lower()):
            hint = f"image names are lower case: {text.lower()}"
            raise InvalidReference(f"invalid image name, repository name must be lowercase: {text!r}", hint=hint)
        raise InvalidReference(f"invalid image name: {text!r}")
    return ShortReference(registry, name, tag or None, digest)


def in_store(text: str) -> str:
    """The name of a stored image that `text` means: verbs on such images take it with its transport, too."""
    name = text.removeprefix("containers-storage:")
    return text if name == text else name.removeprefix("@")  # an ID has an @ there


def _is_repository(name: str) -> bool:
    return bool(name) and all(re.fullmatch(_COMPONENT, part) for part in name.split("/"))
