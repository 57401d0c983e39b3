"""Resolves names of images and sources to digests: by a lock file, or by asking, to write a lock file.

The compiler and the verbs ask a `Pins` for every image, URL and repository before anything is fetched, and go on with
the answer, which names content by digest.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from builda.builder.copy.git import commit_of, parse_repository, pinned
from builda.errors import InvalidReference, InvalidValue, NotFound
from builda.lockfile import UPDATE, Lock, LockedImage, key_of
from builda.oci.digest import Hasher
from builda.oci.manifest import Index, parse
from builda.oci.reference import LOCAL_REGISTRY, Reference, parse_short
from builda.transfer.copyimage import outline
from builda.transfer.locate import parse_location

if TYPE_CHECKING:
    from builda.builder.context import Context
    from builda.builder.copy.git import Credentials
    from builda.builder.imageoptions import RegistryAccess
    from builda.oci.descriptor import Platform
    from builda.store.store import Image
    from builda.transfer.locate import Location

_WHOLE_COMMIT = r"[0-9a-f]{40}|[0-9a-f]{64}"
_URL = ("http://", "https://")


class Pins(Protocol):
    """Resolves names to content."""

    def image(self, name: str, platform: Platform | None) -> str:
        """The name to use instead of `name`: with a digest, unless no registry has the image."""
        ...

    def remote(self, source: str) -> tuple[str, str | None]:
        """The URL to fetch for a URL or repository, and the digest or commit that it must have (None: any).

        A source that is neither is returned as it is.
        """
        ...


class Locked:
    """The pins of a lock file: nothing is asked but whether an image of this machine is still the same one."""

    def __init__(self, ctx: Context, lock: Lock, file: str, access: RegistryAccess) -> None:
        self._ctx = ctx
        self._lock = lock
        self._file = file
        self._access = access

    def image(self, name: str, platform: Platform | None) -> str:
        """The name with the locked digest. NotFound without an entry, or if the entry has nothing for the platform."""
        if _is_fixed(self._ctx, name):
            return name
        entry = self._lock.images.get(name)
        if entry is None:
            raise self._missing(f"image {name}")
        if platform is not None and not entry.has(platform):
            raise NotFound(
                f"{self._file} has no image for {platform}: {name}",
                hint=f"it has {', '.join(entry.platforms)}; {UPDATE} looks for more",
            )
        if entry.name is not None:
            return f"{entry.name}@{entry.digest}"
        found = _own(self._ctx, name, self._access)
        if found is None or found != entry.digest:
            raise InvalidValue(
                f"image is not the one in {self._file}, {entry.digest}: {name}",
                hint=f"it is {found or 'not on this machine'}; {UPDATE} records the present one",
            )
        return name

    def remote(self, source: str) -> tuple[str, str | None]:
        """The source at its locked commit, or with its locked digest. NotFound without an entry."""
        kind = _kind_of(source)
        if kind is None:
            return source, None
        key = key_of(source)
        found = (self._lock.urls if kind == "URL" else self._lock.repositories).get(key)
        if found is None:
            raise self._missing(f"{kind} {key}")
        return (source, found) if kind == "URL" else (pinned(source, found), found)

    def _missing(self, what: str) -> NotFound:
        return NotFound(f"{self._file} has no entry for the {what}", hint="--lock instead of --locked adds it")


class Locking:
    """Asks what names mean now, each once, and keeps the answers.

    With `credentials` git shows these to servers, as an ADD does; without them it finds the caller's by itself.
    """

    def __init__(self, ctx: Context, access: RegistryAccess, credentials: Credentials | None = None) -> None:
        self._ctx = ctx
        self._access = access
        self._credentials = credentials
        self._images: dict[str, LockedImage] = {}
        self._urls: dict[str, str] = {}
        self._repositories: dict[str, str] = {}

    @property
    def lock(self) -> Lock:
        """The answers so far."""
        return Lock(self._images, self._urls, self._repositories)

    def showing(self, credentials: Credentials) -> Locking:
        """The same, with the same answers, for sources whose servers see no credentials but these."""
        other = Locking(self._ctx, self._access, credentials)
        other._images, other._urls, other._repositories = self._images, self._urls, self._repositories
        return other

    def image(self, name: str, platform: Platform | None) -> str:
        """The name with the digest that its registry gives now."""
        if _is_fixed(self._ctx, name):
            return name
        if name not in self._images:
            self._images[name] = self._asked(name)
        entry = self._images[name]
        return name if entry.name is None else f"{entry.name}@{entry.digest}"

    def remote(self, source: str) -> tuple[str, str | None]:
        """The source at the commit, or with the digest, that it has now."""
        kind = _kind_of(source)
        if kind is None:
            return source, None
        key = key_of(source)
        if kind == "URL":
            if key not in self._urls:
                self._urls[key] = self._content_of(source)
            return source, self._urls[key]
        if key not in self._repositories:
            repository = parse_repository(source)
            assert repository is not None
            self._repositories[key] = commit_of(repository, self._credentials)
        return pinned(source, self._repositories[key]), self._repositories[key]

    def _asked(self, name: str) -> LockedImage:
        from builda.builder.image.pull import first

        own = _own(self._ctx, name, self._access)
        if own is not None:
            return LockedImage(own)
        location = parse_location(name)
        if location is not None and not location.in_registry:
            raise NotFound(f"image not known: {name}")
        candidates = self._ctx.remote.candidates(name) if location is None else (Reference.parse(location.where),)
        return first(candidates, self._in_registry)

    def _in_registry(self, reference: Reference) -> LockedImage:
        descriptor, data = outline(self._ctx.remote.source(reference, self._access))
        document = parse(data, descriptor.media_type)
        platforms: set[str] = set()
        if isinstance(document, Index):
            known = (entry.platform for entry in document.manifests if entry.platform is not None)
            platforms = {str(platform) for platform in known if platform.os != "unknown"}
        return LockedImage(str(descriptor.digest), str(reference), tuple(sorted(platforms)))

    def _content_of(self, url: str) -> str:
        hasher = Hasher()
        with self._ctx.remote.fetch(url, self._access) as response:
            while data := response.read(1 << 20):
                hasher.update(data)
        return str(hasher.digest())


def _kind_of(source: str) -> str | None:
    """URL or repository, as errors call it; None for what needs no pin: a path, or a repository at a whole commit."""
    repository = parse_repository(source)
    if repository is not None:
        fixed = re.fullmatch(_WHOLE_COMMIT, repository.checksum or repository.ref or "") is not None
        return None if fixed else "repository"
    return "URL" if source[:8].lower().startswith(_URL) else None


def _is_fixed(ctx: Context, name: str) -> bool:
    """Whether the name itself says which content it means: it has a digest, or is (the beginning of) an ID."""
    location = parse_location(name)
    if location is not None and not location.in_registry:
        return False
    try:
        if parse_short(name if location is None else location.where).digest is not None:
            return True
    except InvalidReference:
        return True  # pulling it will say what is wrong
    stored = ctx.store.find_image(name) if location is None else None
    return stored is not None and ctx.store.images.full_name(name) is None


def _own(ctx: Context, name: str, access: RegistryAccess) -> str | None:
    """The digest of an image that no registry has: one of the store called localhost/…, or one in a file.

    None for others. An image of the store is meant where a build without a lock would take it, too.
    """
    location = parse_location(name)
    if location is None:
        full = ctx.store.images.full_name(name)
        stored = ctx.store.find_image(name) if full is not None and full.startswith(f"{LOCAL_REGISTRY}/") else None
        return None if stored is None else str(stored.digest)
    if location.in_registry:
        return None
    return str(_digest_at(ctx, location, access))


def _digest_at(ctx: Context, location: Location, access: RegistryAccess) -> str:
    if location.in_store:
        image: Image = ctx.store.image(location.where)
        return str(image.digest)
    return str(ctx.remote.source(location, access).manifest()[0].digest)
