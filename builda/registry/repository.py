"""One repository of one registry: the requests of the distribution-spec, each with its scope and its checks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from builda import jsontext
from builda.errors import BuildaError, CorruptContent, InvalidValue, RegistryError, Unsupported
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.manifest import MANIFEST_LIMIT, Index, parse
from builda.oci.reference import Reference
from builda.registry.auth import Authenticator
from builda.registry.blob import ResumingReader
from builda.registry.ending import Ending
from builda.registry.failures import Transient
from builda.registry.http import Body, Http, Reply, Request, Trust, refused
from builda.registry.keyring import Credentials
from builda.registry.url import joined, netloc, origin, same_origin, shown
from builda.values import NamedTuple

ACCEPT = ", ".join(
    (
        mediatype.MANIFEST,
        mediatype.INDEX,
        mediatype.DOCKER_MANIFEST,
        mediatype.DOCKER_LIST,
        mediatype.DOCKER_SCHEMA1_SIGNED + ";q=0.1",  # only so that a refusal can say what the image is
    )
)
NAMES_LIMIT = 1_000_000
PAGES_LIMIT = 10_000
REFERRERS_LIMIT = 4096
_NO_REFERRERS = frozenset({400, 404, 405, 501})  # of registries older than version 1.1 of the distribution-spec
PARALLEL = 6
"""Blobs that are read from one registry at a time, and as many that are written, however many images move."""

_AUTHORIZATION_LIMIT = 2  # one 401 names the scheme; a second one means an expired token or a missing scope
_PAGE_LIMIT = 8 << 20
_ANSWER_LIMIT = 1 << 20
_KNOWN = mediatype.MANIFESTS | mediatype.INDEXES
_NONE: Mapping[str, str] = MappingProxyType({})


class Endpoint:
    """The base URL of a registry: HTTPS, or for an insecure one whichever of HTTPS and HTTP answers.

    An insecure registry is first asked by HTTP on a loopback address, and by HTTPS elsewhere. Its first answer decides
    between the two.
    """

    def __init__(self, http: Http, host: str, *, trust: Trust, insecure: bool) -> None:
        self.host = host
        self.trust = trust
        self._http = http
        self._lock = threading.Lock()
        self._bases = _bases("registry-1.docker.io" if host == "docker.io" else host, insecure=insecure)
        """The URL that is used, and behind it what it may turn out to be."""
        self._wrong: str | None = None
        # A thread that holds `writing` may wait for `reading`, never the reverse: so there is no deadlock.
        self.reading = threading.BoundedSemaphore(PARALLEL)
        self.writing = threading.BoundedSemaphore(PARALLEL)

    def base(self) -> str:
        """`https://host` or `http://host`."""
        return self._bases[0]

    def rightly(self, request: Request) -> Request:
        """The request, moved to the right base URL if it was made for a wrong one."""
        if self._wrong is None or not request.url.startswith(f"{self._wrong}/"):
            return request
        return request._replace(url=self.base() + request.url.removeprefix(self._wrong))

    def open(self, request: Request) -> Reply:
        """One attempt at a request, or one more at the other base URL if that turns out to be right."""
        first, *others = self._bases
        request = self.rightly(request)  # another thread may just have found out which is right
        if not others or not request.url.startswith(f"{first}/"):
            return self._http.open(request)
        assert not isinstance(request.body, Body), "what is sent once only follows a request without content"
        other = others[0]
        try:
            reply = self._http.open(request)
        except (Transient, RegistryError) as failure:
            is_busy = isinstance(failure, Transient) and failure.error.status is not None
            if is_busy or not self._answers(other, request.ending):
                raise
        else:
            # A TLS server's answer to plain HTTP is 400. What says 400 over HTTPS means the request.
            may_be_tls = reply.status == 400 and reply.url.startswith("http:")
            if not may_be_tls or not self._answers(other, request.ending):
                self._settle(other if reply.url.startswith(f"{other}/") and other.startswith("https:") else first)
                return reply
            reply.close()
        self._settle(other)
        return self._http.open(self.rightly(request))

    def _answers(self, base: str, ending: Ending | None) -> bool:
        what = f"cannot reach the registry {self.host}"
        try:
            with self._http.open(Request("GET", f"{base}/v2/", self.trust, what, ending=ending)) as reply:
                return reply.status != 400 and reply.url.startswith(f"{base}/")
        except Transient as failure:
            return failure.error.status is not None
        except RegistryError:
            return False

    def _settle(self, base: str) -> None:
        with self._lock:
            if len(self._bases) == 1:  # by another thread
                return
            if self._bases[0] != base:
                self._wrong = self._bases[0]
            self._bases = (base,)


def _bases(host: str, *, insecure: bool) -> tuple[str, ...]:
    secure, plain = f"https://{host}", f"http://{host}"
    if not insecure:
        return (secure,)
    return (plain, secure) if origin(plain).is_loopback else (secure, plain)


class Repository:
    """The requests. `reference` says registry and repository; threads may share one."""

    def __init__(
        self, http: Http, endpoint: Endpoint, reference: Reference, credentials: Callable[[], Credentials | None]
    ) -> None:
        self.http = http
        self.endpoint = endpoint
        self.name = reference.repository
        self.reference = reference
        self.ending = Ending()
        """Ends all that is on its way for this repository."""
        self.auth = Authenticator(
            http, host=endpoint.host, trust=endpoint.trust, credentials=credentials, ending=self.ending
        )

    def __str__(self) -> str:
        return self.reference.name

    def url(self, path: str) -> str:
        """The URL of a path below the repository."""
        return f"{self.endpoint.base()}/v2/{self.name}/{path}"

    def scopes(self, actions: str = "pull") -> frozenset[str]:
        """The token scope for `actions` on this repository."""
        return frozenset({f"repository:{self.name}:{actions}"})

    def open(self, request: Request, scopes: frozenset[str]) -> Reply:
        """One attempt at an authorized request; a 401 is answered with what it asks for, as long as that is new."""
        for _ in range(_AUTHORIZATION_LIMIT):
            request = self.endpoint.rightly(request)
            trusted = same_origin(request.url, self.endpoint.base())
            authorization = self.auth.authorization(scopes) if trusted else None
            reply = self.endpoint.open(request._replace(authorization=authorization))
            base = self.endpoint.base()
            if reply.status != 401 or not same_origin(reply.url, base):
                return reply
            try:
                learned = self.auth.learn(reply.all("WWW-Authenticate"), base=base, used=authorization)
            except BaseException:
                reply.close()
                raise
            if not learned:
                return reply
            with reply:
                if isinstance(request.body, Body):  # it can be sent once only
                    raise Transient(refused(reply, b"", request), 0)
        trusted = same_origin(request.url, self.endpoint.base())
        return self.http.open(request._replace(authorization=self.auth.authorization(scopes) if trusted else None))

    def call(self, request: Request, scopes: frozenset[str], *, limit: int = _ANSWER_LIMIT) -> tuple[Reply, bytes]:
        """The answer to an authorized request with its whole content, after as many attempts as needed."""

        def attempt(_: int) -> tuple[Reply, bytes]:
            with self.open(request, scopes) as reply:
                return reply, reply.data(limit, request.what)

        return self.http.retrying(attempt, self.ending)

    def request(
        self,
        method: str,
        url: str,
        what: str,
        headers: Mapping[str, str] = _NONE,
        *,
        body: bytes | Body | None = None,
        timeout: float = 60.0,
    ) -> Request:
        """A request to this registry."""
        return Request(method, url, self.endpoint.trust, what, headers, body=body, timeout=timeout, ending=self.ending)

    def manifest(self, version: str) -> tuple[Descriptor, bytes]:
        """The manifest or index that a tag or digest names, with its bytes, verified."""
        what = f"cannot pull {_named(self.reference, version)}"
        request = self.request("GET", self.url(f"manifests/{version}"), what, {"Accept": ACCEPT})
        reply, data = self.call(request, self.scopes(), limit=MANIFEST_LIMIT)
        if reply.status != 200:
            raise self._no_manifest(reply, data, request, version)
        return _verified(data, reply.headers, version, what), data

    def head_manifest(self, version: str, actions: str = "pull") -> Descriptor | None:
        """The descriptor of what a tag or digest names now, without fetching it; None if it does not exist."""
        what = f"cannot look up {_named(self.reference, version)}"
        request = self.request("HEAD", self.url(f"manifests/{version}"), what, {"Accept": ACCEPT})
        reply, _ = self.call(request, self.scopes(actions), limit=0)
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise refused(reply, b"", request)
        digest = _header_digest(reply.headers, what)
        media_type = _media_type(reply.headers)
        if digest is None or media_type is None or reply.length is None:  # headers are optional: fetch it then
            return self.manifest(version)[0]
        return Descriptor(media_type=media_type, digest=digest, size=reply.length)

    def put_manifest(self, version: str, descriptor: Descriptor, data: bytes) -> None:
        """The tag or digest names `data` in the registry."""
        what = f"cannot push {_named(self.reference, version)}"
        headers = {"Content-Type": descriptor.media_type}
        request = self.request("PUT", self.url(f"manifests/{version}"), what, headers, body=data)
        reply, answer = self.call(request, self.scopes("pull,push"))
        if reply.status not in (200, 201, 202):
            raise refused(reply, answer, request)
        digest = _header_digest(reply.headers, what)
        if digest is not None and digest != descriptor.digest and digest.algorithm == descriptor.digest.algorithm:
            raise RegistryError(f"{what}: the registry stored it as {digest} instead of {descriptor.digest}")

    def delete_manifest(self, digest: Digest) -> None:
        """The repository has no manifest of this digest, and no tag means it."""
        what = f"cannot delete {_named(self.reference, str(digest))}"
        request = self.request("DELETE", self.url(f"manifests/{digest}"), what)
        reply, answer = self.call(request, self.scopes("pull,push,delete"))
        if reply.status not in (200, 202, 204):
            error = refused(reply, answer, request)
            if reply.status == 405:
                error.hint = "this registry deletes nothing; its configuration may allow it"
            raise error

    def referrers(self, digest: Digest) -> tuple[Descriptor, ...] | None:
        """The manifests that refer to a manifest, from all pages of the registry; None if it keeps no such lists."""
        what = f"cannot list what refers to {_named(self.reference, str(digest))}"
        url: str | None = self.url(f"referrers/{digest}")
        found: list[Descriptor] = []
        seen = set[str]()
        while url is not None and url not in seen:
            seen.add(url)
            request = self.request("GET", url, what, {"Accept": mediatype.INDEX})
            reply, data = self.call(request, self.scopes(), limit=MANIFEST_LIMIT)
            if reply.status in _NO_REFERRERS and not found:
                return None
            if reply.status != 200:
                raise refused(reply, data, request)
            found += _entries(data, _media_type(reply.headers), what)
            if len(found) > REFERRERS_LIMIT or len(seen) > PAGES_LIMIT:
                raise RegistryError(f"{what}: there are more than {REFERRERS_LIMIT}, or {PAGES_LIMIT} pages")
            url = _next_page(reply)
        return tuple(found)

    def tagged_referrers(self, digest: Digest) -> tuple[Descriptor, ...]:
        """The manifests that refer to a manifest, from the index under a tag: for registries without such lists."""
        tag = referrers_tag(digest)
        try:
            descriptor, data = self.manifest(tag)
        except RegistryError as error:
            if error.status == 404:
                return ()
            raise
        what = f"cannot read what refers to {_named(self.reference, str(digest))} at {tag}"
        return tuple(_entries(data, descriptor.media_type, what))

    def has_blob(self, descriptor: Descriptor, actions: str = "pull,push") -> bool:
        """Whether the registry has the blob in this repository."""
        what = f"cannot look up a blob in {self}: {descriptor.digest}"
        request = self.request("HEAD", self.url(f"blobs/{descriptor.digest}"), what)
        reply, _ = self.call(request, self.scopes(actions), limit=0)
        if reply.status in (200, 204):
            return reply.length in (None, descriptor.size)
        if reply.status == 404:
            return False
        raise refused(reply, b"", request)

    def open_blob(self, descriptor: Descriptor, offset: int) -> ResumingReader:
        """A reader of the blob from `offset` on, which goes on after broken connections; verifies sizes only."""
        what = f"cannot pull a blob of {self}: {descriptor.digest}"
        url = self.url(f"blobs/{descriptor.digest}")

        def connect(position: int) -> Reply:
            headers = {"Range": f"bytes={position}-"} if position else _NONE
            request = self.request("GET", url, what, headers)
            return expect(self.open(request, self.scopes()), request, 200, 206)

        size, ending = descriptor.size, self.ending
        return ResumingReader(self.http, connect, what=what, offset=offset, size=size, ending=ending)

    def iter_tags(self) -> Iterator[str]:
        """The tags, page by page, in the registry's order."""
        what = f"cannot list the tags of {self}"
        return self._pages(self.url("tags/list?n=1000"), "tags", what, self.scopes())

    def iter_repositories(self) -> Iterator[str]:
        """The repositories in the catalog of the registry, page by page."""
        what = f"cannot list the repositories of {self.endpoint.host}"
        url = f"{self.endpoint.base()}/v2/_catalog?n=1000"
        return self._pages(url, "repositories", what, frozenset({"registry:catalog:*"}))

    def _pages(self, first: str, key: str, what: str, scopes: frozenset[str]) -> Iterator[str]:
        url: str | None = first
        seen = set[str]()
        count = 0
        while url is not None and url not in seen:
            seen.add(url)
            request = self.request("GET", url, what)
            reply, data = self.call(request, scopes, limit=_PAGE_LIMIT)
            if reply.status != 200:
                raise refused(reply, data, request)
            names = _texts(data, key, what)
            count += len(names)
            if count > NAMES_LIMIT or len(seen) > PAGES_LIMIT:
                raise RegistryError(f"{what}: the list has more than {NAMES_LIMIT} names or {PAGES_LIMIT} pages")
            yield from names
            url = _next_page(reply)

    def check(self) -> None:
        """The registry accepts the credentials; RegistryError when it does not."""
        request = self.request("GET", f"{self.endpoint.base()}/v2/", f"cannot log in to {self.endpoint.host}")
        reply, data = self.call(request, frozenset())
        if reply.status >= 400:
            error = refused(reply, data, request)
            error.hint = "the user name or the password is wrong" if reply.status in (401, 403) else error.hint
            raise error

    def _no_manifest(self, reply: Reply, data: bytes, request: Request, version: str) -> RegistryError:
        error = refused(reply, data, request)
        if reply.status == 404 and ":" not in version:
            error.hint = self._near_tags(version) or error.hint
        return error

    def _near_tags(self, tag: str) -> str | None:
        import difflib
        from itertools import islice

        try:
            tags = tuple(islice(self.iter_tags(), 1000))
        except BuildaError:  # the answer would only have been a hint
            return None
        near = difflib.get_close_matches(tag, tags, n=3, cutoff=0.5)
        if near:
            return f"did you mean {' or '.join(f'{self}:{candidate}' for candidate in near)}?"
        return f"tags there are: {', '.join(tags[:8])}" if tags else None


def referrers_tag(digest: Digest) -> str:
    """The tag whose list names what refers to a manifest, where the registry keeps no such lists itself."""
    return f"{digest.algorithm}-{digest.encoded}"


class Upload(NamedTuple):
    """An upload that the registry has begun: where to send the bytes, and the least size of a chunk but the last."""

    url: str
    least: int


def expect(reply: Reply, request: Request, *statuses: int) -> Reply:
    """`reply` when its status is one of `statuses`; RegistryError otherwise."""
    if reply.status in statuses:
        return reply
    with reply:
        raise refused(reply, reply.excerpt(), request)


def resolved(location: str | None, request_url: str, what: str) -> str:
    """The URL in a Location header, which may be relative; a plain http one of the same host is meant as https."""
    if not location:
        raise RegistryError(f"{what}: the registry did not say where (no Location header)")
    url = joined(request_url, location)
    asked, told = origin(request_url), origin(url)
    if asked.scheme == "https" and told.scheme == "http":
        if asked.host != told.host:
            raise RegistryError(f"{what}: the registry asks for the content over plain HTTP: {shown(url)}")
        from urllib.parse import urlsplit

        return urlsplit(url)._replace(scheme="https", netloc=netloc(request_url)).geturl()  # a proxy ends TLS before it
    return url


def _verified(data: bytes, headers: Mapping[str, str], version: str, what: str) -> Descriptor:
    """The descriptor of a manifest's bytes, which must match the digest asked for and the one announced."""
    announced = _header_digest(headers, what)
    asked = Digest.parse(version) if ":" in version else None
    digest = asked or announced or Digest.of(data)
    for expected in (asked, announced):
        if expected is not None and Digest.of(data, expected.algorithm) != expected:
            raise CorruptContent(f"{what}: manifest does not match its digest: {expected}")
    try:
        document = parse(data, _media_type(headers))
    except (CorruptContent, Unsupported, InvalidValue) as error:
        kind = CorruptContent if isinstance(error, InvalidValue) else type(error)
        raise kind(f"{what}: {error}", hint=error.hint) from error
    return Descriptor(media_type=document.media_type, digest=digest, size=len(data))


def _entries(data: bytes, media_type: str | None, what: str) -> tuple[Descriptor, ...]:
    try:
        document = parse(data, media_type)
    except (CorruptContent, Unsupported, InvalidValue) as error:
        raise CorruptContent(f"{what}: {error}", hint=error.hint) from error
    if not isinstance(document, Index):
        raise CorruptContent(f"{what}: it is not a list")
    return document.manifests


def _media_type(headers: Mapping[str, str]) -> str | None:
    """The Content-Type when it says anything; many servers call every manifest JSON or text."""
    media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return media_type if media_type in _KNOWN else None


def _header_digest(headers: Mapping[str, str], what: str) -> Digest | None:
    text = headers.get("Docker-Content-Digest", "").strip()
    try:
        return Digest.parse(text) if text else None
    except InvalidValue as error:
        raise CorruptContent(f"{what}: unusable Docker-Content-Digest: {error}") from error


def _named(reference: Reference, version: str) -> str:
    return f"{reference.name}{'@' if ':' in version else ':'}{version}"


def _texts(data: bytes, key: str, what: str) -> tuple[str, ...]:
    """The texts that an answer lists under a key."""
    try:
        found = jsontext.loads(data)[key] or ()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptContent(f"{what}: answer is not a list of {key}") from error
    if not isinstance(found, list | tuple) or not all(isinstance(one, str) for one in found):
        raise CorruptContent(f"{what}: answer is not a list of {key}")
    return tuple(found)


def _next_page(reply: Reply) -> str | None:
    """The URL in `Link: <…>; rel="next"`."""
    for value in reply.all("Link"):
        target, _, parameters = value.strip().partition(">")
        if target.startswith("<") and "next" in parameters and "rel" in parameters:
            url = joined(reply.url, target[1:])
            return url if same_origin(url, reply.url) else None
    return None
