"""Pushing one blob: mounted from a sibling repository, sent in one request, or in chunks where that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from urllib.parse import urlencode, urlsplit

from builda.errors import RegistryError
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Readable
from builda.registry.failures import Transient
from builda.registry.http import Body, Request, refused
from builda.registry.message import number
from builda.registry.repository import Repository, Upload, expect, resolved
from builda.values import Protocol, runtime_checkable

CHUNK = 32 << 20
"""Bytes of a chunk: below the limits of common reverse proxies, large enough that round trips do not count."""

_SEND_TIMEOUT = 600.0  # a registry may verify a large blob before it answers
_MOUNT_LIMIT = 3
_NOT_IN_ONE = frozenset({400, 404, 405, 411, 413, 415, 416, 501})  # answers that chunks may avoid


class BlobSource(Protocol):
    """A source of the bytes of a blob from any offset on."""

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> AbstractContextManager[Readable]: ...


@runtime_checkable
class MountableSource(Protocol):
    """A source whose blobs a registry has already."""

    def repositories_on(self, registry: str) -> tuple[str, ...]: ...


class BlobUpload:
    """The upload of one blob to one repository. `progress` gets the count of bytes of each part that was sent."""

    def __init__(
        self,
        repository: Repository,
        descriptor: Descriptor,
        source: BlobSource,
        progress: Callable[[int], None],
        *,
        chunk: int = CHUNK,
    ) -> None:
        self._chunk_size = chunk
        self._repository = repository
        self._descriptor = descriptor
        self._source = source
        self._progress = progress
        self._counted = 0
        self._begun: Upload | None = None  # by an attempt that broke off
        self._what = f"cannot push a blob to {repository}: {descriptor.digest}"
        self._scopes = repository.scopes("pull,push")

    def mounted(self, names: Iterable[str]) -> bool:
        """Whether the registry now has the blob here because one of these repositories of it has it."""
        tried = [name for name in names if name != self._repository.name][:_MOUNT_LIMIT]
        try:
            return any(self._mount(name) for name in tried)
        except RegistryError:  # only a shortcut: the upload itself will say what is wrong
            return False

    def send(self) -> None:
        """Send the blob: in one request at first, after a failure in chunks, which lose less when they fail."""
        http, ending = self._repository.http, self._repository.ending
        if not http.retrying(self._in_one, ending):
            http.retrying(self._in_chunks, ending)

    def _mount(self, name: str) -> bool:
        query = urlencode({"mount": str(self._descriptor.digest), "from": name})
        request = self._request("POST", self._repository.url(f"blobs/uploads/?{query}"))
        scopes = self._scopes | {f"repository:{name}:pull"}
        reply, _ = self._repository.call(request, scopes)
        if reply.status == 201:
            return True
        if reply.status == 202:  # the registry began an upload instead
            url = resolved(reply.headers.get("Location"), reply.url, self._what)
            self._repository.call(self._request("DELETE", url), self._scopes)
        return False

    def _in_one(self, attempt: int) -> bool:
        """Whether the blob arrived in one request; False when it has to be sent in chunks."""
        if attempt:
            return self._repository.has_blob(self._descriptor)  # the last attempt may have arrived after all
        self._begun = self._begin()
        with self._source.open_blob(self._descriptor) as content:
            body = Body(content, self._descriptor.size, self._count)
            request = self._request("PUT", self._finish_url(self._begun.url), body=body)
            with self._repository.open(request, self._scopes) as reply:
                if reply.status in (201, 202, 204):
                    return True
                error = refused(reply, reply.excerpt(), request)
        self._begun = None  # which this answer has ended
        if reply.status not in _NOT_IN_ONE or error.code in ("DIGEST_INVALID", "SIZE_INVALID"):
            raise error
        self._uncount(0)
        return False

    def _in_chunks(self, attempt: int) -> None:
        if attempt and self._repository.has_blob(self._descriptor):
            return
        upload, offset = self._continued() or (self._begin(), 0)
        self._uncount(offset)
        size = max(self._chunk_size, upload.least)
        url, failed, reached = upload.url, 0, offset
        while offset < self._descriptor.size:
            try:
                url = self._chunk(url, offset, min(size, self._descriptor.size - offset))
                offset = min(offset + size, self._descriptor.size)
                if offset > reached:  # else a registry could take the same bytes for ever
                    failed, reached = 0, offset
            except Transient as failure:
                self._repository.http.wait(failed, failure, self._repository.ending)
                failed += 1
                url, offset = self._state(url)
                self._uncount(offset)
        request = self._request("PUT", self._finish_url(url))
        reply, data = self._repository.call(request, self._scopes)
        # An earlier attempt may have ended the upload, and only its answer was lost.
        if reply.status not in (201, 202, 204) and not self._repository.has_blob(self._descriptor):
            raise refused(reply, data, request)

    def _continued(self) -> tuple[Upload, int] | None:
        """The upload that broke off, and how many bytes the registry has of it; None if it has to begin anew."""
        begun, self._begun = self._begun, None
        if begun is None:
            return None
        try:
            url, offset = self._state(begun.url)
        except (Transient, RegistryError):  # most registries forget it
            return None
        return (begun._replace(url=url), offset) if offset else None

    def _begin(self) -> Upload:
        request = self._request("POST", self._repository.url("blobs/uploads/"))
        reply, data = self._repository.call(request, self._scopes)
        if reply.status != 202:
            raise refused(reply, data, request)
        least = number(reply.headers.get("OCI-Chunk-Min-Length", "")) or 0
        url = resolved(reply.headers.get("Location"), reply.url, self._what)
        return Upload(url, least)

    def _chunk(self, url: str, offset: int, length: int) -> str:
        """Send `length` bytes from `offset`; the URL for the next chunk."""
        headers = {"Content-Range": f"{offset}-{offset + length - 1}"}
        with self._source.open_blob(self._descriptor, offset) as content:
            body = Body(content, length, self._count)
            request = self._request("PATCH", url, headers, body=body)
            with self._repository.open(request, self._scopes) as reply:
                if reply.status == 416:
                    raise Transient(refused(reply, reply.excerpt(), request))
                expect(reply, request, 202, 201, 204)
                return resolved(reply.headers.get("Location") or url, reply.url, self._what)

    def _state(self, url: str) -> tuple[str, int]:
        """The URL to continue an interrupted upload at, and how many bytes the registry has."""
        request = self._request("GET", url)
        reply, data = self._repository.call(request, self._scopes)
        if reply.status != 204:
            raise Transient(refused(reply, data, request), 0)
        end = number(reply.headers.get("Range", "").removeprefix("bytes=").partition("-")[2])
        if end is None or end >= self._descriptor.size:
            raise Transient(RegistryError(f"{self._what}: the registry does not say how much it has"), 0)
        offset = end + 1 if end else 0  # "0-0" is how registries write nothing
        return resolved(reply.headers.get("Location") or url, reply.url, self._what), offset

    def _finish_url(self, url: str) -> str:
        parts = urlsplit(url)
        query = "&".join(part for part in (parts.query, urlencode({"digest": str(self._descriptor.digest)})) if part)
        return parts._replace(query=query).geturl()

    def _request(
        self, method: str, url: str, headers: dict[str, str] | None = None, *, body: Body | None = None
    ) -> Request:
        if body is not None:
            headers = {**(headers or {}), "Content-Type": "application/octet-stream"}
        return self._repository.request(method, url, self._what, headers or {}, body=body, timeout=_SEND_TIMEOUT)

    def _count(self, count: int) -> None:
        self._counted += count
        self._progress(count)

    def _uncount(self, offset: int) -> None:
        """Take back the progress beyond `offset`: those bytes are sent again."""
        if self._counted != offset:
            self._progress(offset - self._counted)
            self._counted = offset
