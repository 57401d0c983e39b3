"""`docker-daemon:NAME[:TAG]`, `docker-daemon:ALGO:DIGEST`: the images of Docker, or of Podman's service, by its API.

Both directions are archives of `docker save`. What is sent is streamed. What is received ends with the list of its
contents, so it is kept, uncompressed, in a temporary file that is gone with the source.
"""

from __future__ import annotations

import http.client
import os
import socket
from contextlib import contextmanager, suppress
from urllib.parse import quote, urlsplit

from builda import jsontext
from builda.errors import (
    BuildaError,
    CorruptContent,
    EngineError,
    InvalidReference,
    InvalidValue,
    NotFound,
    Unsupported,
)
from builda.oci.digest import Digest
from builda.oci.reference import Reference
from builda.transfer.archive import ArchiveSink
from builda.transfer.dockerarchive import DockerArchiveSink, DockerArchiveSource
from builda.transfer.members import Members, spooled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from builda.fs.tar import Writable

DEFAULT = "unix:///var/run/docker.sock"
SECONDS = 900.0
"""How long the engine may say nothing: it reads or writes a whole image before it answers."""
_ANSWER_LIMIT = 1 << 20
_PORT = 2375
_PREFIX = "docker-daemon:"


class EngineSource(DockerArchiveSource):
    """The image that an engine has under a name or ID; NotFound if it has none."""

    def __init__(self, where: str) -> None:
        self._name = None if _is_id(where) else _reference(where)
        engine = Engine.of(os.environ)
        with engine.exported(where if self._name is None else str(self._name)) as answer:
            members = Members(f"{_PREFIX}{where}", spooled(answer, f"{_PREFIX}{where}"))
        super().__init__(f"{_PREFIX}{where}", None, members)

    def own_names(self) -> tuple[str, ...]:
        """The name that it was asked for; those that the engine has for an ID."""
        return super().own_names() if self._name is None else (str(self._name),)


class EngineSink(DockerArchiveSink):
    """An engine that loads one image under a name."""

    def __init__(self, where: str) -> None:
        if _is_id(where):
            raise InvalidReference(f"an image cannot be loaded under an ID: {_PREFIX}{where}", hint="write NAME:TAG")
        ArchiveSink.__init__(self, f"{_PREFIX}{where}")
        self._tags = [str(_reference(where))]
        self._engine = Engine.of(os.environ)

    @contextmanager
    def written(self) -> Iterator[Writable]:
        """The body of the request; EngineError if the engine does not load what was written."""
        with self._engine.loading() as body:
            yield body


class Engine:
    """An engine's API at `unix:///SOCKET` or `tcp://HOST:PORT`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._path, self._host, self._port = _address(address)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Engine:
        """The engine that DOCKER_HOST names, by default Docker's socket; Unsupported if it wants TLS."""
        address = environ.get("DOCKER_HOST") or DEFAULT
        if not address.startswith("unix:") and (environ.get("DOCKER_TLS_VERIFY") or environ.get("DOCKER_TLS")):
            raise Unsupported(
                f"an engine is not spoken to over TLS: {address}", hint="use its socket, as by ssh -L, or docker save"
            )
        return cls(address)

    def ping(self) -> None:
        """Ask whether it is there; EngineError if it is not."""
        with self._connected() as connection:
            connection.request("GET", "/_ping")
            answer = connection.getresponse()
            if answer.status != http.HTTPStatus.OK:
                raise self._refused(answer, "does not answer")

    @contextmanager
    def exported(self, name: str) -> Iterator[http.client.HTTPResponse]:
        """The archive of an image, to be read in the block."""
        with self._connected() as connection:
            connection.request("GET", f"/images/{quote(name, safe='/:')}/get")
            answer = connection.getresponse()
            if answer.status == http.HTTPStatus.NOT_FOUND:
                raise NotFound(f"engine at {self.address} has no such image: {name}")
            if answer.status != http.HTTPStatus.OK:
                raise self._refused(answer, f"does not give the image {name}")
            yield answer

    @contextmanager
    def loading(self) -> Iterator[Writable]:
        """A sink for an archive that the engine loads at the end of the block; EngineError if it refuses."""
        with self._connected() as connection:
            connection.putrequest("POST", "/images/load?quiet=1")
            connection.putheader("Content-Type", "application/x-tar")
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders()
            body = _Chunks(connection)
            try:
                yield body
                body.end()
            except (BrokenPipeError, ConnectionResetError):
                pass  # it answered before it had read everything: that is the reason
            self._check_loaded(connection.getresponse())

    def _check_loaded(self, answer: http.client.HTTPResponse) -> None:
        """EngineError if the answer, or a line of it, tells of a failure."""
        if answer.status != http.HTTPStatus.OK:
            raise self._refused(answer, "does not load the image")
        failure = failure_in(answer.read(_ANSWER_LIMIT))
        if failure is not None:
            raise EngineError(f"engine at {self.address} does not load the image: {failure}")

    def _refused(self, answer: http.client.HTTPResponse, what: str) -> EngineError:
        text = answer.read(_ANSWER_LIMIT)
        said = str(_decoded(text).get("message") or text.decode(errors="replace").strip() or answer.reason)[:500]
        return EngineError(f"engine at {self.address} {what}: {said} (HTTP {answer.status})")

    @contextmanager
    def _connected(self) -> Iterator[http.client.HTTPConnection]:
        connection = _Connection(self._path, self._host, self._port)
        try:
            connection.connect()
        except OSError as error:
            raise EngineError(
                f"no engine at {self.address}: {error.strerror or error}",
                hint="start Docker or `podman system service`, and set DOCKER_HOST if its socket is elsewhere",
            ) from error
        try:
            yield connection
        except TimeoutError as error:
            raise EngineError(f"engine says nothing for {SECONDS:.0f} seconds: {self.address}") from error
        except http.client.IncompleteRead as error:
            raise CorruptContent(f"answer of the engine ends early: {self.address}") from error
        except (http.client.HTTPException, ConnectionError) as error:
            raise EngineError(f"engine at {self.address} is not understood: {error or type(error).__name__}") from error
        finally:
            connection.close()


class _Connection(http.client.HTTPConnection):
    """A connection to a socket in the file system, or without `path` to a host."""

    def __init__(self, path: str, host: str, port: int) -> None:
        super().__init__(host, port, timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect; OSError if no program listens."""
        if not self._path:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(SECONDS)
            self.sock.connect(self._path)
        except BaseException:
            self.sock.close()
            raise


class _Chunks:
    """The body of a request whose length is not known before (RFC 9112, 7.1)."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        size = len(data)
        if size:
            self._connection.send(b"%x\r\n" % size)
            self._connection.send(data)
            self._connection.send(b"\r\n")

    def end(self) -> None:
        """Nothing follows."""
        self._connection.send(b"0\r\n\r\n")


def failure_in(answer: bytes) -> str | None:
    """The failure that one of the JSON lines of an answer tells of, cut to 500 characters."""
    for line in answer.splitlines():
        said = _decoded(line).get("error")
        if said:
            return str(said)[:500]
    return None


def _address(text: str) -> tuple[str, str, int]:
    """The socket's path, or an empty one with host and port; Unsupported for any other way."""
    with suppress(ValueError):
        parts = urlsplit(text)
        if parts.scheme == "unix" and f"{parts.netloc}{parts.path}":
            return f"{parts.netloc}{parts.path}", "localhost", _PORT
        if parts.scheme in ("tcp", "http") and parts.hostname:
            return "", parts.hostname, parts.port or _PORT
    raise Unsupported(f"engine cannot be reached so: {text}", hint="DOCKER_HOST is unix:///SOCKET or tcp://HOST:PORT")


def _is_id(where: str) -> bool:
    if not where.startswith(("sha256:", "sha512:")):
        return False
    try:
        Digest.parse(where)
    except BuildaError as error:
        raise InvalidReference(f"not a complete image ID: {_PREFIX}{where}") from error
    return True


def _reference(where: str) -> Reference:
    reference = Reference.parse(where)
    if reference.digest is not None:
        raise InvalidValue(f"an engine knows an image by name or ID, not by both: {_PREFIX}{where}")
    return reference


def _decoded(text: bytes) -> dict[str, object]:
    try:
        value = jsontext.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
