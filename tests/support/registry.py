"""A real registry on a loopback port: Debian's docker-registry with TLS, passwords and tokens as a test asks.

`with registry() as server:` gives its address and, with `tls=True`, the authority that signed its certificate. The
content lies in a temporary directory, on tmpfs where there is one, and goes with the `with` block.
"""

from __future__ import annotations

import base64
import ctypes
import ctypes.util
import hashlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

PROGRAM = shutil.which("docker-registry")
USER, PASSWORD = "alice", "wonder:land"
REFRESH_TOKEN = "refresh-of-alice"


@dataclass
class TokenServer:
    """A token server in this process; `requests` is what was asked, with form or query as lists."""

    url: str
    key: Path
    certificate: Path
    life: int = 300
    requests: list[dict[str, list[str]]] = field(default_factory=list)
    anonymous_pull: bool = False


@dataclass(frozen=True)
class Registry:
    """A running registry; `authority` is the CA certificate, `tokens` the token server when it has one."""

    address: str
    directory: Path
    authority: Path | None
    tokens: TokenServer | None
    pid: int

    @property
    def cert_dir(self) -> Path:
        """A directory for --cert-dir that trusts the registry."""
        return self.directory / "certs"

    def name(self, repository: str) -> str:
        """The image name of a repository or `repository:tag` here."""
        return f"{self.address}/{repository}"

    def log(self) -> str:
        """What the registry has logged."""
        return (self.directory / "log").read_text(errors="replace")


@contextmanager
def registry(
    *,
    tls: bool = False,
    client_certificate: bool = False,
    basic: bool = False,
    bearer: bool = False,
    delete: bool = True,
    port: int | None = None,
) -> Iterator[Registry]:
    """A registry, ready to answer. `basic` and `bearer` accept USER with PASSWORD."""
    assert PROGRAM is not None, "docker-registry is not installed"
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="registry-", dir=_scratch())))
        port = port or free_port()
        authority = make_certificates(directory) if tls or bearer else None
        tokens = stack.enter_context(token_server(directory, tls=tls)) if bearer else None
        config = _config(directory, port, tls=tls, basic=basic, tokens=tokens, delete=delete)
        if client_certificate:
            config["http"]["tls"]["clientcas"] = [str(authority)]
        (directory / "config.json").write_text(json.dumps(config))  # JSON is YAML
        process = stack.enter_context(_running(directory))
        _wait_until_ready(process, port, directory)
        yield Registry(f"127.0.0.1:{port}", directory, authority if tls else None, tokens, process.pid)


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def make_certificates(directory: Path, *, names: str = "IP:127.0.0.1,DNS:localhost") -> Path:
    """An authority, a certificate of it for the server's names (server.crt, server.key), and one for a client."""
    _openssl(
        directory,
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 3 -subj /CN=test-authority"
        " -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,digitalSignature",
    )
    _sign(directory, "server", f"subjectAltName={names}\nextendedKeyUsage=serverAuth\n")
    _sign(directory, "client", "extendedKeyUsage=clientAuth\n")
    certs = directory / "certs"
    certs.mkdir()
    shutil.copy(directory / "ca.crt", certs / "ca.crt")
    return directory / "ca.crt"


@contextmanager
def token_server(directory: Path, *, tls: bool = False) -> Iterator[TokenServer]:
    """A server of JSON web tokens signed with server.key, for USER and PASSWORD or REFRESH_TOKEN."""
    state = TokenServer("", directory / "server.key", directory / "server.crt")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            header = self.headers.get("Authorization", "")
            pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            self._answer(query, USER if header == f"Basic {pair}" else None, bad=bool(header))

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            good = form.get("refresh_token") == [REFRESH_TOKEN] and form.get("grant_type") == ["refresh_token"]
            self._answer(form, USER if good else None, bad=True)

        def _answer(self, query: dict[str, list[str]], user: str | None, *, bad: bool) -> None:
            state.requests.append(query)
            if user is None and (bad or not state.anonymous_pull):
                return self._send(401, {"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]})
            scopes = " ".join(query.get("scope", [])).split()
            access = [_access(scope, write=user is not None) for scope in scopes]
            token = _signed(state, query.get("service", [""])[0], user or "", access)
            return self._send(200, {"token": token, "expires_in": state.life})

        def _send(self, status: int, value: object) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    with serving(Handler, tls=directory if tls else None) as address:
        state.url = f"{'https' if tls else 'http'}://{address}/token"
        yield state


@contextmanager
def serving(
    handler: type[BaseHTTPRequestHandler], *, tls: Path | None = None, also_plain: bool = False
) -> Iterator[str]:
    """The `host:port` of a threaded HTTP server in this process; `tls` is a directory of `make_certificates`.

    `also_plain`: one that speaks HTTP to who speaks HTTP, at the same port.
    """

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # clients that hang up are part of the tests

    with Server(("127.0.0.1", 0), handler) as server:
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls / "server.crt", tls / "server.key")
            if also_plain:

                def accepted() -> tuple[socket.socket, object]:
                    connection, address = server.socket.accept()
                    is_tls = connection.recv(1, socket.MSG_PEEK) == b"\x16"
                    return (context.wrap_socket(connection, server_side=True) if is_tls else connection), address

                server.get_request = accepted  # type: ignore[method-assign]  # a test server
            else:
                server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Asked:
    """One request that a scripted server received."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What a scripted server says. It may lie about the `length`, `cut` the body short and hang up, or never end.

    After `stall` bytes it says nothing more until the client has gone.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    cut: int | None = None
    endless: bool = False
    reset: bool = False
    stall: int | None = None


@dataclass(frozen=True)
class Scripted:
    """A running scripted server and all that it was asked."""

    address: str
    asked: list[Asked]


@contextmanager
def scripted(
    answer: Callable[[Asked], Answer], *, tls: Path | None = None, also_plain: bool = False
) -> Iterator[Scripted]:
    """A server in this process that says what `answer` returns: for what no honest registry does."""
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = Asked(self.command, self.path, dict(self.headers.items()), body)
            asked.append(request)
            self._say(answer(request))

        def _say(self, said: Answer) -> None:
            if said.reset:
                self.close_connection = True
                return
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            if "Content-Length" in said.headers:
                pass
            elif said.endless:
                self.send_header("Connection", "close")
            else:
                self.send_header("Content-Length", str(len(said.body) if said.length is None else said.length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(said.body[: said.cut if said.stall is None else said.stall])
            if said.stall is not None:
                self.connection.recv(1)
                self.close_connection = True
            while said.endless:
                self.wfile.write(b"x" * 65536)
            if said.cut is not None:
                self.close_connection = True

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

        def log_message(self, *args: object) -> None:
            pass

    with serving(Handler, tls=tls, also_plain=also_plain) as address:
        yield Scripted(address, asked)


def bcrypt(password: str) -> str:
    """The hash that htpasswd -B writes, from the C library's crypt."""
    library = ctypes.CDLL(ctypes.util.find_library("crypt") or "libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    result = library.crypt(password.encode(), b"$2y$04$abcdefghijklmnopqrstuu")
    assert result is not None
    return bytes(result).decode()


def _config(
    directory: Path, port: int, *, tls: bool, basic: bool, tokens: TokenServer | None, delete: bool
) -> dict[str, Any]:
    http: dict[str, object] = {"addr": f"127.0.0.1:{port}", "secret": "test"}
    if tls:
        http["tls"] = {"certificate": str(directory / "server.crt"), "key": str(directory / "server.key")}
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": delete}},
        "http": http,
    }
    if basic:
        (directory / "htpasswd").write_text(f"{USER}:{bcrypt(PASSWORD)}\n")
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
    if tokens is not None:
        config["auth"] = {
            "token": {
                "realm": tokens.url,
                "service": "test-registry",
                "issuer": "test-issuer",
                "rootcertbundle": str(tokens.certificate),
            }
        }
    return config


@contextmanager
def _running(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("REGISTRY_", "OTEL_"))}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(PROGRAM), "serve", str(directory / "config.json")], stdout=log, stderr=log, env=environ
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, directory: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"docker-registry did not start: {(directory / 'log').read_text(errors='replace')}")


def _scratch() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _openssl(directory: Path, command: str) -> None:
    subprocess.run(["openssl", *command.split()], cwd=directory, check=True, capture_output=True)


def _sign(directory: Path, name: str, extensions: str) -> None:
    (directory / f"{name}.ext").write_text(extensions)
    _openssl(directory, f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}")
    _openssl(
        directory,
        f"x509 -req -in {name}.csr -out {name}.crt -CA ca.crt -CAkey ca.key -CAcreateserial -days 3"
        f" -extfile {name}.ext",
    )


def _access(scope: str, *, write: bool) -> dict[str, object]:
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    granted = [action for action in actions.split(",") if write or action == "pull"]
    return {"type": kind, "name": name, "actions": granted}


def _signed(state: TokenServer, service: str, user: str, access: list[dict[str, object]]) -> str:
    """A JSON web token with the certificate in its header, as distribution's token specification wants."""
    pem = state.certificate.read_text()
    der = "".join(pem.partition("-----BEGIN CERTIFICATE-----")[2].partition("-----END")[0].split())
    now = int(time.time())
    header = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
    claims = {
        "iss": "test-issuer",
        "sub": user,
        "aud": service,
        "exp": now + state.life,
        "nbf": now - 10,
        "iat": now,
        "jti": hashlib.sha256(os.urandom(16)).hexdigest(),
        "access": access,
    }
    text = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
    done = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", str(state.key)], input=text.encode(), capture_output=True, check=True
    )
    return f"{text}.{_base64url(done.stdout)}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
