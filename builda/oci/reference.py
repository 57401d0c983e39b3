"""Image names: `[registry/]repository[:tag][@digest]` (distribution-spec and Docker's grammar)."""

from __future__ import annotations

from builda.errors import InvalidReference, InvalidValue
from builda.oci.digest import Digest
from builda.values import NamedTuple

DEFAULT_REGISTRY = "docker.io"
LOCAL_REGISTRY = "localhost"
DEFAULT_TAG = "latest"
NAME_LIMIT = 255
TAG_LIMIT = 128

_DIGITS = "0123456789"
_SMALL = "abcdefghijklmnopqrstuvwxyz" + _DIGITS
_LETTERS = _SMALL + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def is_tag(text: str) -> bool:
    """Whether a registry may call an image so."""
    return _consists(text, _LETTERS + "_.-") and len(text) <= TAG_LIMIT and text[0] not in ".-"


class Reference(NamedTuple):
    """The full name of an image. `tag` and `digest` may both be set; then the digest decides what is fetched."""

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
    """The parts of a name as the user wrote it; `registry` is None for an unqualified name."""

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
    elif not is_tag(tag):
        raise InvalidReference(f"invalid tag {tag!r} in image name: {text!r}")
    first, slash, remainder = name.partition("/")
    registry: str | None = None
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        if not _is_registry(first):
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


# Docker's grammar has regular expressions for what follows. Most verbs read a name, and few else need the module re,
# which takes longer to import than they work.


def _is_repository(name: str) -> bool:
    return all(map(_is_component, name.split("/")))


def _is_component(text: str) -> bool:
    """Whether these are words of small letters and digits, with one of `.`, `_`, `__` or any number of `-` between."""
    first, *_, last = pieces = text.split("-") if "-" in text else [text, text]
    return bool(first and last) and all(_is_dotted(piece) for piece in pieces if piece)


def _is_dotted(text: str) -> bool:
    return all(_consists(word, _SMALL) for word in text.replace("__", "_").replace("_", ".").split("."))


def _is_registry(text: str) -> bool:
    """Whether this is `HOST[:PORT]`, with a name or an address in brackets for the host."""
    if text.startswith("["):
        address, bracket, port = text[1:].partition("]")
        return bool(bracket) and _consists(address, "abcdefABCDEF:." + _DIGITS) and _is_port(port)
    host, colon, port = text.partition(":")
    return all(map(_is_label, host.split("."))) and _is_port(colon + port)


def _is_label(text: str) -> bool:
    return _consists(text, _LETTERS + "-") and "-" not in (text[0], text[-1])


def _is_port(text: str) -> bool:
    return not text or (text[0] == ":" and _consists(text[1:], _DIGITS))


def _consists(text: str, letters: str) -> bool:
    """Whether a text has letters, and no others than these."""
    return bool(text) and not text.strip(letters)
