"""Fetching a plain URL, for ADD: redirects, retries, and going on after a broken connection when that is safe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from builda.errors import InvalidValue, RegistryError
from builda.registry.blob import ResumingReader
from builda.registry.http import Http, Reply, Request, Trust, refused
from builda.registry.url import shown


class Response:
    """A file behind a URL, read as it arrives; `size` is None when the server does not say it."""

    def __init__(self, reader: ResumingReader, asked: str) -> None:
        self._reader = reader
        first = reader.reply
        self.url = first.url
        self.headers: Mapping[str, str] = MappingProxyType(
            {name.lower(): first.headers[name] for name in first.headers}
        )
        self.size = first.length
        self.filename = filename_of(self.headers.get("content-disposition", ""), asked)

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, b"" at the end."""
        return self._reader.read(size)

    @property
    def etag(self) -> str | None:
        """The server's name for this version of the file."""
        return self.headers.get("etag")

    @property
    def last_modified(self) -> float | None:
        """When the file last changed, in seconds since the epoch; None when the server does not say it."""
        from email.utils import parsedate_to_datetime

        try:
            return parsedate_to_datetime(self.headers["last-modified"]).timestamp()
        except (KeyError, ValueError, OverflowError):
            return None


@contextmanager
def fetch(http: Http, url: str, *, trust: Trust, headers: Mapping[str, str]) -> Iterator[Response]:
    """The file behind an http or https URL; RegistryError when it cannot be had, or changes meanwhile."""
    request = _request(url, trust, headers)
    first: list[Reply] = []

    def connect(position: int) -> Reply:
        if not first:
            first.append(_expect(http.open(request), request))
            reader.size = first[0].length
            return first[0]
        return _again(http, request, position, first[0])

    reader = ResumingReader(http, connect, what=request.what)
    with reader:
        yield Response(reader, url)


def filename_of(disposition: str, url: str) -> str | None:
    """The name that a Content-Disposition header or the end of the URL's path gives the file; never a path."""
    from urllib.parse import unquote, urlsplit

    names = (_disposition_name(disposition), unquote(urlsplit(url).path.rpartition("/")[2]))
    return next((name for name in names if _is_name(name)), None)


def _is_name(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name and name.isprintable()


def _disposition_name(text: str) -> str:
    if not text:
        return ""
    from email.message import Message

    message = Message()
    message["Content-Disposition"] = text.replace("\n", " ").replace("\r", " ")
    return message.get_filename("").replace("\\", "/").rpartition("/")[2]


def _request(url: str, trust: Trust, headers: Mapping[str, str]) -> Request:
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidValue(f"not an http or https URL: {shown(url)}")
    authorization = None
    if parts.username is not None:
        from builda.registry.keyring import Credentials

        authorization = Credentials(unquote(parts.username), unquote(parts.password or "")).basic()
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    what = f"cannot download {shown(url)}"
    return Request("GET", bare, trust, what, headers, authorization, may_downgrade=True, login=False)


def _again(http: Http, request: Request, position: int, first: Reply) -> Reply:
    """The rest of the same version of the file."""
    if not position:
        return _expect(http.open(request), request)
    validator = _validator(first)
    if validator is None:
        raise RegistryError(
            f"{request.what}: connection broke after {position} bytes, and the server cannot go on there"
        )
    headers = {**request.headers, "Range": f"bytes={position}-", "If-Range": validator}
    reply = _expect(http.open(request._replace(headers=headers)), request)
    if _validator(reply) != validator:
        reply.close()
        raise RegistryError(f"{request.what}: the file changed while it was downloaded")
    return reply


def _validator(reply: Reply) -> str | None:
    """The validator for If-Range (RFC 9110, 13.1.5): a strong ETag, else the date of the last change, else None."""
    etag = reply.headers.get("ETag", "")
    return etag if etag.startswith('"') else reply.headers.get("Last-Modified") or None


def _expect(reply: Reply, request: Request) -> Reply:
    if reply.status in (200, 206):
        return reply
    with reply:
        raise refused(reply, b"", request)
