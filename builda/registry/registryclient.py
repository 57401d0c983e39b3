"""The registry client: images as sources and sinks, tags, logins, and URLs for ADD.

`RegistrySource` and `RegistrySink` satisfy the transfer package's ImageSource and ImageSink by their shape.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from types import MappingProxyType, TracebackType

from builda.errors import CorruptContent, InvalidValue, RegistryError
from builda.events import Emit, Warned, ignore
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest, Readable
from builda.oci.manifest import Index
from builda.oci.reference import DEFAULT_TAG, Reference, is_tag
from builda.places import Places
from builda.registry.certificates import Certificates, Tls
from builda.registry.http import Http, Trust
from builda.registry.keyring import Credentials, Keyring, Look, parse_creds
from builda.registry.registries import Registries
from builda.registry.repository import Endpoint, Repository, referrers_tag
from builda.values import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import TypeVar

    from builda.registry.fetch import Response
    from builda.registry.upload import BlobSource

    T = TypeVar("T")

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryOptions:
    """Options of the command line. `tls_verify` None: registries.conf decides; `retry_delay` None: growing pauses."""

    authfile: Path | None = None
    creds: str | None = field(default=None, repr=False)
    anonymous: bool = False  # no credentials, whatever the files have
    cert_dir: Path | None = None
    tls_verify: bool | None = None
    retry: int = 3
    retry_delay: float | None = None
    registries_conf: Path | None = None
    drop_ins: Path | None = None  # of registries.conf
    short_name_aliases: Path | None = None


class RegistryClient:
    """Every registry there is, for one command. Threads may share it; connections close at the end of its `with`."""

    def __init__(
        self,
        options: RegistryOptions | None = None,
        emit: Emit = ignore,
        *,
        environ: Mapping[str, str] = os.environ,
        uid: int | None = None,
        system: Path | str = "/",
        sleep: Callable[[float], None] = time.sleep,
        tracing: bool = False,
    ) -> None:
        self._options = options or RegistryOptions()
        self._emit = emit
        self._places = Places(environ, os.getuid() if uid is None else uid, system)
        self._creds = parse_creds(self._options.creds) if self._options.creds is not None else None
        self._certificates = Certificates(self._places, self._options.cert_dir)
        self._http = Http(
            environ=environ,
            retry=self._options.retry,
            retry_delay=self._options.retry_delay,
            emit=emit,
            sleep=sleep,
            tracing=tracing,
        )
        self._lock = threading.Lock()
        self._endpoints: dict[tuple[str, bool], Endpoint] = {}

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    @cached_property
    def registries(self) -> Registries:
        """registries.conf, read when first needed."""
        options = self._options
        return Registries.load(
            self._places, options.registries_conf, drop_ins=options.drop_ins, aliases=options.short_name_aliases
        )

    def candidates(self, text: str) -> tuple[Reference, ...]:
        """The references that an image name may mean, best first."""
        return self.registries.candidates(text)

    def source(self, reference: Reference) -> RegistrySource:
        """The image that `reference` names, from the first mirror or registry that has it. Asks nothing yet."""
        sources = self.registries.pull_sources(reference)
        repositories = tuple(self._repository(place.reference, place.insecure) for place in sources)
        return RegistrySource(reference, repositories, self._emit)

    def sink(
        self, reference: Reference, *, mount_from: tuple[Reference, ...] = (), chunk: int | None = None
    ) -> RegistrySink:
        """A sink that pushes to `reference`. Blobs that `mount_from` has on the same registry are not sent.

        If the registry wants a blob in pieces, they have `chunk` bytes (None: 32 MB), or as many as it asks for.
        """
        self.registries.allowed(reference)
        repository = self._repository(reference, self.registries.is_insecure(reference))
        names = tuple(other.repository for other in mount_from if other.registry == reference.registry)
        return RegistrySink(reference, repository, tuple(dict.fromkeys(names)), chunk)

    def tags(self, reference: Reference) -> tuple[str, ...]:
        """All tags of the repository that `reference` names; RegistryError if the registry lists an invalid one."""
        place = self.registries.pull_sources(reference)[-1]
        found = tuple(self._repository(place.reference, place.insecure).iter_tags())
        wrong = [tag for tag in found if not is_tag(tag)]
        if wrong:
            raise RegistryError(f"registry lists an invalid tag for {place.reference.name}: {wrong[0][:200]!r}")
        return found

    def repositories(self, registry: str) -> tuple[str, ...]:
        """The repositories in the catalog of a registry."""
        reference = Reference(registry, "")
        self.registries.allowed(reference)
        return tuple(self._repository(reference, self.registries.is_insecure(reference)).iter_repositories())

    def delete(self, reference: Reference) -> Descriptor | None:
        """The registry, not a mirror, no longer has the manifest that `reference` means; None if it had none."""
        self.registries.allowed(reference)
        repository = self._repository(reference, self.registries.is_insecure(reference))
        found = repository.head_manifest(_version(reference), "pull,push,delete")
        if found is not None:
            repository.delete_manifest(found.digest)
        return found

    def explained(self, name: str) -> tuple[tuple[Reference, tuple[Look, ...]], ...]:
        """Each place that a pull of `name` asks, mirrors first, with the looks for its credentials up to the first.

        No registry is asked; credential helpers are.
        """
        places = (place for reference in self.candidates(name) for place in self.registries.pull_sources(reference))
        return tuple((place.reference, self._keyring.explained(place.reference.name)) for place in places)

    def check_login(self, name: str, credentials: Credentials) -> None:
        """The registry of `name` (`host[/namespace]`) accepts the credentials; RegistryError when it does not."""
        host, _, namespace = name.partition("/")
        reference = Reference(host, namespace)
        insecure = self.registries.is_insecure(reference)
        self._repository(reference, insecure, credentials).check()

    def fetch_url(self, url: str, *, headers: Mapping[str, str] = _NO_HEADERS) -> AbstractContextManager[Response]:
        """The file behind an http or https URL."""
        from builda.registry.fetch import fetch

        return fetch(self._http, url, trust=self._trust(verify=self._options.tls_verify is not False), headers=headers)

    def _repository(self, reference: Reference, insecure: bool, given: Credentials | None = None) -> Repository:
        if self._options.tls_verify is not None:
            insecure = not self._options.tls_verify
        endpoint = self._endpoint(reference.registry, insecure)

        def credentials() -> Credentials | None:
            return given if given is not None else self._keyring.find(reference.name)

        return Repository(self._http, endpoint, reference, credentials)

    def _endpoint(self, host: str, insecure: bool) -> Endpoint:
        with self._lock:
            key = host, insecure
            if key not in self._endpoints:
                self._endpoints[key] = Endpoint(
                    self._http, host, trust=self._trust(verify=not insecure), insecure=insecure
                )
            return self._endpoints[key]

    @cached_property
    def _keyring(self) -> Keyring:
        helpers = self.registries.credential_helpers
        return Keyring(
            self._places, self._options.authfile, self._creds, helpers, self._emit, anonymous=self._options.anonymous
        )

    def _trust(self, *, verify: bool) -> Trust:
        def trust(host: str) -> Tls:
            return self._certificates.tls("docker.io" if host == "registry-1.docker.io" else host, verify=verify)

        return trust


class RegistrySource:
    """One image in a registry or its mirrors. Threads may share it."""

    def __init__(self, reference: Reference, repositories: tuple[Repository, ...], emit: Emit) -> None:
        self.reference = reference
        self._repositories = repositories
        self._emit = emit
        self._lock = threading.Lock()
        self._manifest: tuple[Descriptor, bytes] | None = None

    def manifest(self) -> tuple[Descriptor, bytes]:
        """The manifest or index that the name means, verified; fetched once."""
        with self._lock:
            if self._manifest is None:
                self._manifest = self._first(lambda repository: repository.manifest(_version(repository.reference)))
            return self._manifest

    def head(self) -> Descriptor | None:
        """The descriptor of what the name means now, without fetching it; None if the name does not exist."""
        return self._first(lambda repository: repository.head_manifest(_version(repository.reference)))

    def child(self, descriptor: Descriptor) -> bytes:
        """A manifest that an index lists, verified against its descriptor."""
        found, data = self._first(lambda repository: repository.manifest(str(descriptor.digest)))
        if found.size != descriptor.size:
            raise CorruptContent(
                f"manifest has {found.size} bytes, its descriptor says {descriptor.size}: {found.digest}"
            )
        return data

    def referrers(self, digest: Digest) -> tuple[Descriptor, ...]:
        """The manifests that refer to the one with this digest in its repository, as far as the registry knows."""

        def listed(repository: Repository) -> tuple[Descriptor, ...]:
            found = repository.referrers(digest)
            return repository.tagged_referrers(digest) if found is None else found

        return self._first(listed)

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> AbstractContextManager[Readable]:
        """The blob's bytes from `offset` on, not verified; broken connections are mended on the way."""
        from builda.registry.mirrored import MirroredBlob

        return MirroredBlob(self._repositories, descriptor, offset, self._emit)

    def stop(self) -> None:
        """End all requests, also those that other threads wait for; later requests fail at once."""
        for repository in self._repositories:
            repository.ending.end()

    def local_path(self, descriptor: Descriptor) -> Path | None:
        """A registry's blobs are in no local file."""
        return None

    def repositories_on(self, registry: str) -> tuple[str, ...]:
        """The names under which `registry` has this image's blobs, for mounting them."""
        return tuple(r.name for r in self._repositories if r.endpoint.host == registry)

    def _first(self, action: Callable[[Repository], T]) -> T:
        """The result of `action` for the first repository that does not fail; mirrors come before the registry."""
        *mirrors, primary = self._repositories
        for mirror in mirrors:
            try:
                return action(mirror)
            except (RegistryError, CorruptContent) as error:
                self._emit(Warned(message=f"mirror failed: {error}", hint=error.hint))
        return action(primary)


class RegistrySink:
    """A repository to push to. Blobs may come from several threads; manifests come after them."""

    def __init__(
        self, reference: Reference, repository: Repository, mount_from: tuple[str, ...], chunk: int | None
    ) -> None:
        self.reference = reference
        self._repository = repository
        self._mount_from = mount_from
        self._chunk = chunk
        self._absent: set[Digest] = set()

    def has_image(self, descriptor: Descriptor) -> bool:
        """Whether the tag means this manifest already: a registry takes no manifest before all that it lists."""
        if self.reference.digest not in (None, descriptor.digest):
            return False
        try:
            found = self._repository.head_manifest(self._version(descriptor), "pull,push")
        except RegistryError:  # only a shortcut: the push itself will say what is wrong
            return False
        return found is not None and found.digest == descriptor.digest

    def has_child(self, descriptor: Descriptor) -> bool:
        """Whether the repository has this manifest under any name; then it has all that the manifest lists."""
        try:
            found = self._repository.head_manifest(str(descriptor.digest), "pull,push")
        except RegistryError:  # only a shortcut
            return False
        return found is not None and (found.digest, found.size) == (descriptor.digest, descriptor.size)

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the registry has the blob in this repository."""
        there = self._repository.has_blob(descriptor)
        if not there:
            self._absent.add(descriptor.digest)
        return there

    def put_blob(self, descriptor: Descriptor, source: BlobSource, progress: Callable[[int], None]) -> None:
        """The registry has the blob; `progress` hears each count of bytes that became unnecessary or went."""
        from builda.registry.upload import CHUNK, BlobUpload

        upload = BlobUpload(self._repository, descriptor, source, progress, chunk=self._chunk or CHUNK)
        known_absent = descriptor.digest in self._absent
        with self._repository.endpoint.writing:
            if (not known_absent and self.has_blob(descriptor)) or upload.mounted(self._siblings(source)):
                progress(descriptor.size)
            else:
                upload.send()

    def stop(self) -> None:
        """End all requests, also those that other threads wait for; later requests fail at once."""
        self._repository.ending.end()

    def put_manifest(self, descriptor: Descriptor, data: bytes, *, top: bool) -> None:
        """The registry has the manifest; the top one under the reference's tag, others by digest alone."""
        asked = self.reference.digest
        if top and asked is not None and asked != descriptor.digest:
            raise InvalidValue(
                f"cannot push as {self.reference}: the image's digest is {descriptor.digest}",
                hint=f"push to {self.reference.name}, with or without a tag",
            )
        version = self._version(descriptor) if top else str(descriptor.digest)
        self._repository.put_manifest(version, descriptor, data)

    def refer(self, digest: Digest, entries: tuple[Descriptor, ...]) -> None:
        """Have the repository list these manifests, which it has, as referrers of the one with this digest.

        Most registries do that by themselves. Others keep a list under a tag, where one of two writers at once may lose
        its entry.
        """
        if self._repository.referrers(digest) is not None:
            return
        there = self._repository.tagged_referrers(digest)
        known = {one.digest for one in there}
        added = tuple(one for one in entries if one.digest not in known)
        if added:
            data = Index(manifests=(*there, *added)).dump()
            top = Descriptor(media_type=mediatype.INDEX, digest=Digest.of(data), size=len(data))
            self._repository.put_manifest(referrers_tag(digest), top, data)

    def _version(self, descriptor: Descriptor) -> str:
        """The tag or digest under which the top manifest is put: the digest only if the reference has no tag."""
        by_digest = self.reference.tag is None and self.reference.digest is not None
        return str(descriptor.digest) if by_digest else self.reference.tag or DEFAULT_TAG

    def _siblings(self, source: BlobSource) -> tuple[str, ...]:
        from builda.registry.upload import MountableSource

        own = source.repositories_on(self.reference.registry) if isinstance(source, MountableSource) else ()
        return tuple(dict.fromkeys((*own, *self._mount_from)))


def _version(reference: Reference) -> str:
    return str(reference.digest) if reference.digest is not None else reference.tag or DEFAULT_TAG
