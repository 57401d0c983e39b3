"""signedIdentity of policy.json: whether the name in a signature is one that an image of this name may have."""

from __future__ import annotations

from collections.abc import Mapping

from builda.errors import InvalidReference, InvalidValue
from builda.oci.reference import Reference, parse_short
from builda.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TypeAlias

    Plain: TypeAlias = Literal["matchExact", "matchRepoDigestOrExact", "matchRepository"]
_PLAIN: Mapping[str, Plain] = {
    "matchExact": "matchExact",
    "matchRepoDigestOrExact": "matchRepoDigestOrExact",
    "matchRepository": "matchRepository",
}


@dataclass(frozen=True, slots=True)
class ExactReference:
    """The signature names this image, whatever the image is called here."""

    reference: Reference

    def __str__(self) -> str:
        return f"exactReference {self.reference}"


@dataclass(frozen=True, slots=True)
class ExactRepository:
    """The signature names any image of this repository."""

    name: str

    def __str__(self) -> str:
        return f"exactRepository {self.name}"


@dataclass(frozen=True, slots=True)
class RemapIdentity:
    """Like matchRepoDigestOrExact, after replacing the prefix of the image's name."""

    prefix: str
    signed_prefix: str

    def __str__(self) -> str:
        return f"remapIdentity {self.prefix} to {self.signed_prefix}"

    def applied(self, image: Reference) -> Reference | None:
        """The name that the signature should have; None if there can be no such name."""
        if image.name != self.prefix and not image.name.startswith(f"{self.prefix}/"):
            return image
        try:
            name = _named(self.signed_prefix + image.name[len(self.prefix) :])
        except InvalidReference:
            return None
        return name._replace(tag=image.tag, digest=image.digest)


Identity: TypeAlias = "Plain | ExactReference | ExactRepository | RemapIdentity"
DEFAULT: Identity = "matchRepoDigestOrExact"
_FIELDS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_PLAIN, ()),
    "exactReference": ("dockerReference",),
    "exactRepository": ("dockerRepository",),
    "remapIdentity": ("prefix", "signedPrefix"),
}


def parse_identity(value: object, where: str) -> Identity:
    """The identity in `value`; InvalidValue naming the place `where` it stands for anything that is none."""
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(kind, str) or kind not in _FIELDS:
        raise InvalidValue(f"unknown signedIdentity in {where}", hint=f"its type is {', '.join(_FIELDS)}")
    unknown = sorted(value.keys() - {"type", *_FIELDS[kind]})
    if unknown:
        raise InvalidValue(f"{kind} has no key {unknown[0]!r} in {where}")
    texts = [_text(value, key, where) for key in _FIELDS[kind]]
    try:
        match kind:
            case "exactReference":
                return ExactReference(_whole(texts[0]))
            case "exactRepository":
                return ExactRepository(_named(texts[0], expand=True).name)
            case "remapIdentity":
                return RemapIdentity(_prefix(texts[0]), _prefix(texts[1]))
            case _:
                return _PLAIN[kind]
    except InvalidReference as error:
        raise InvalidReference(f"{error} in {where}", hint=error.hint) from error


def matches(identity: Identity, image: Reference | None, signed: str) -> bool:
    """Whether a signature for the name `signed` counts for `image` (None: the transport gives images no names)."""
    found = _signed(signed)
    if found is None:
        return False
    match identity:
        case ExactReference(wanted):
            return str(found) == str(wanted)
        case ExactRepository(name):
            return found.name == name
        case RemapIdentity():
            mapped = None if image is None else identity.applied(image)
            return mapped is not None and _same_or_by_digest(mapped, found)
        case "matchRepository":
            return image is not None and found.name == image.name
        case "matchExact":
            return image is not None and _is_whole(found) and str(found) == str(_without_tag(image))
        case "matchRepoDigestOrExact":
            return image is not None and _same_or_by_digest(image, found)


def _same_or_by_digest(image: Reference, found: Reference) -> bool:
    """The digest of an image that is named by it is compared with its manifest elsewhere."""
    if not _is_whole(found):
        return False
    return found.name == image.name if image.digest is not None else str(found) == str(image)


def _without_tag(image: Reference) -> Reference:
    """The digest decides what is fetched, so a tag beside it says nothing."""
    return image if image.digest is None else image._replace(tag=None)


def _is_whole(reference: Reference) -> bool:
    return reference.tag is not None or reference.digest is not None


def _signed(text: str) -> Reference | None:
    """The reference of a signature, without a tag if it has none; None for what is no image name."""
    try:
        short = parse_short(text)
        return Reference.parse(text)._replace(tag=short.tag)
    except InvalidReference:
        return None


def _text(value: Mapping[str, Any], key: str, where: str) -> str:
    text = value.get(key)
    if not isinstance(text, str) or not text:
        raise InvalidValue(f"{key} is not a text in {where}")
    return text


def _whole(text: str) -> Reference:
    short = parse_short(text)
    if short.tag is None and short.digest is None:
        raise InvalidReference(f"dockerReference has neither tag nor digest: {text}")
    return Reference.parse(text)


def _named(text: str, *, expand: bool = False) -> Reference:
    """A repository, with its registry unless it is to be expanded; InvalidReference for a tag or digest."""
    short = parse_short(text)
    if short.tag is not None or short.digest is not None:
        raise InvalidReference(f"a repository has neither tag nor digest: {text}")
    if short.registry is None and not expand:
        raise InvalidReference(f"image name has no registry: {text}")
    return Reference.parse(text)


def _prefix(text: str) -> str:
    """A registry, or the beginning of an image name in it."""
    _named(text if "/" in text else f"{text}/any")
    return text
