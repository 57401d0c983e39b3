"""Credentials: where they are found, and how `login` keeps them.

Secrets travel on pipes and in headers only: never in an argument list, a log, an event or a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from builda import jsontext
from builda.errors import InvalidValue, NotFound, RegistryError
from builda.events import Emit, Warned, ignore
from builda.inputfile import read_input
from builda.places import Places
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

TOKEN_USER = "<token>"
"""The user name with which credential helpers mark an identity token."""

_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_HUB_HOSTS = ("index.docker.io", "registry-1.docker.io")
_CONTAINERS_AUTH = "containers-auth.json"  # among credential-helpers: the files themselves
_NOT_FOUND = "credentials not found"


class Credentials(NamedTuple):
    """A user name with a password, or with an identity token to be exchanged for access tokens."""

    username: str
    password: str
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, …)"

    def basic(self) -> str:
        """The value of a basic Authorization header."""
        import base64

        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class Look(NamedTuple):
    """One place where credentials were looked for, and what it said; with the credentials if it had any.

    Neither text holds a secret.
    """

    place: str
    outcome: str
    credentials: Credentials | None = None


def parse_creds(text: str) -> Credentials:
    """The credentials written `user:password` (the value of --creds)."""
    username, colon, password = text.partition(":")
    if not colon or not username:
        raise InvalidValue("credentials are written user:password", hint="--creds USER:PASSWORD")
    return Credentials(username, password)


class Keyring(NamedTuple):
    """Everything that may know credentials: `creds` for any registry, or files and helpers, unless `anonymous`."""

    places: Places
    authfile: Path | None = None
    creds: Credentials | None = None
    helpers: tuple[str, ...] = ()
    emit: Emit = ignore
    anonymous: bool = False

    def find(self, name: str) -> Credentials | None:
        """The credentials for `registry/namespace/repository`: those of the longest path that has any."""
        return next((look.credentials for look in self.looks(name) if look.credentials is not None), None)

    def explained(self, name: str) -> tuple[Look, ...]:
        """The looks for the credentials of `name` up to the first that has any."""
        looks = []
        for look in self.looks(name):
            looks.append(look)
            if look.credentials is not None:
                break
        return tuple(looks)

    def looks(self, name: str) -> Iterator[Look]:
        """Yield the places for credentials of `name` with what each has. A place is read only when its turn comes."""
        if self.anonymous:
            yield Look("--no-creds", "none are wanted")
            return
        if self.creds is not None:
            yield Look("--creds", "given for every registry", self.creds)
            return
        for helper in self.helpers or (_CONTAINERS_AUTH,):
            if helper == _CONTAINERS_AUTH:
                yield from self._in_files(name)
            else:
                yield self._asked(helper, _host(name), "credential-helpers in registries.conf")

    def _in_files(self, name: str) -> Iterator[Look]:
        option, paths = self._files()
        for path in paths:
            place = f"{option} {path}" if option else str(path)
            try:
                content = _read(path) if path.exists() else None
            except PermissionError:  # such as /root's in a pod with an arbitrary uid: there may be nothing in it
                self.emit(Warned(message=f"no permission to read credential file: {path}"))
                yield Look(place, "no permission to read it")
                continue
            if content is None:
                yield Look(place, "no such file")
            else:
                yield from self._in_file(name, content, path, place)

    def _files(self) -> tuple[str, tuple[Path, ...]]:
        """The option or variable that names the file, and the files that are read."""
        named = self.authfile or self.places.path("REGISTRY_AUTH_FILE")
        if named is None:
            return "", self.places.auth_files()
        option = "--authfile" if self.authfile else "REGISTRY_AUTH_FILE"
        if not named.exists():
            raise NotFound(
                f"credential file is not accessible: stat {named}: no such file or directory",
                hint=f"{option} names it; `builda login` makes it",
            )
        return option, (named,)

    def _in_file(self, name: str, content: Mapping[str, Any], path: Path, place: str) -> Iterator[Look]:
        helpers = _table(content, "credHelpers", path)
        for key in _keys(name):
            if isinstance(helper := helpers.get(key), str):
                yield self._asked(helper, key, f"credHelpers in {place}")
        store = content.get("credsStore")
        if isinstance(store, str) and store:
            yield self._ask_store(store, _host(name), place, path)
        entries = {_normalized(key): (key, entry) for key, entry in _table(content, "auths", path).items()}
        for key in _keys(name):
            if key in entries:
                written, entry = entries[key]
                credentials = _decode(entry, written, path)
                outcome = f"entry {written}" if credentials is not None else f"no credentials in the entry {written}"
                yield Look(place, outcome, credentials)
        yield Look(place, f"no entry for {' or '.join(_keys(name))}")

    def _asked(self, helper: str, key: str, named_by: str) -> Look:
        place = f"docker-credential-{helper} ({named_by})"
        credentials = _ask_helper(helper, key, self.places.environ)
        return Look(place, f"{'credentials' if credentials is not None else 'none'} for {key}", credentials)

    def _ask_store(self, store: str, host: str, place: str, path: Path) -> Look:
        """`credsStore` is often copied from a desktop along with the file; a missing program is not an error."""
        try:
            return self._asked(store, _DOCKER_HUB_KEY if host == "docker.io" else host, f"credsStore in {place}")
        except NotFound as error:
            self.emit(Warned(message=str(error), hint=f"credsStore in {path} names it"))
            return Look(f"docker-credential-{store} (credsStore in {place})", "no such program")


def store_login(name: str, credentials: Credentials, path: Path, *, environ: Mapping[str, str]) -> str:
    """`credentials` are kept for `name` (a registry or a namespace in it); returns where.

    The file appears by rename with mode 0600, and what else it holds stays. Where it names a credential helper for
    `name`, the helper keeps them instead.
    """
    with _editing(path) as content:
        helper = _table(content, "credHelpers", path).get(name)
        if isinstance(helper, str):
            _run_helper(helper, "store", _helper_record(name, credentials), environ)
            return f"docker-credential-{helper}"
        auths = dict(_table(content, "auths", path))
        for key in [key for key in auths if _normalized(key) == name]:
            del auths[key]
        auths[name] = _entry(credentials)
        content["auths"] = auths
    return str(path)


def remove_login(name: str, path: Path, *, environ: Mapping[str, str]) -> bool:
    """Nothing is kept for `name` any more; whether something was."""
    if not path.exists():
        return False
    with _editing(path) as content:
        helper = _table(content, "credHelpers", path).get(name)
        if isinstance(helper, str):
            return _run_helper(helper, "erase", name, environ) is not None
        auths = dict(_table(content, "auths", path))
        matching = [key for key in auths if _normalized(key) == name]
        for key in matching:
            del auths[key]
        content["auths"] = auths
    return bool(matching)


def remove_all_logins(path: Path, *, environ: Mapping[str, str]) -> tuple[str, ...]:
    """No login is kept in `path` any more; returns the names there were."""
    if not path.exists():
        return ()
    with _editing(path) as content:
        names = tuple(_table(content, "auths", path))
        for name, helper in _table(content, "credHelpers", path).items():
            if isinstance(helper, str) and _run_helper(helper, "erase", name, environ) is not None:
                names += (name,)
        content["auths"] = {}
    return names


def login_name(text: str) -> str:
    """The key under which a login for `text` is kept: a host or `host/namespace`, without scheme; docker.io's own."""
    name = _normalized(text)
    if not name or name.startswith("-") or any(character.isspace() for character in name):
        raise InvalidValue(f"not a registry: {text!r}")
    if "@" in name:  # which would be repeated wherever the name is
        name = name.rpartition("@")[2]
        raise InvalidValue(f"registry is written with user and password: {name}", hint="--username names the user")
    return name


def _keys(name: str) -> Iterator[str]:
    """`a/b/c`, `a/b`, `a`."""
    while name:
        yield name
        name = name.rpartition("/")[0]


def auth_file(found: Mapping[str, Credentials]) -> bytes:
    """The content of a credential file that has these, by `registry/namespace/repository`."""
    import json

    return json.dumps({"auths": {name: _entry(credentials) for name, credentials in found.items()}}).encode()


def check_file(path: Path) -> None:
    """Return if `path` is a credential file; NotFound or InvalidValue naming it otherwise."""
    if not path.exists():
        raise NotFound(
            f"credential file is not accessible: stat {path}: no such file or directory",
            hint="--authfile names it; `builda login` makes it",
        )
    content = _read(path)
    _table(content, "credHelpers", path)
    for key, entry in _table(content, "auths", path).items():
        _decode(entry, key, path)


def _host(name: str) -> str:
    return name.partition("/")[0]


def _normalized(key: str) -> str:
    """A key as container tools write it; Docker's are URLs, and docker.io's names a retired API."""
    scheme, separator, rest = key.partition("://")
    name = (rest if separator else scheme).rstrip("/")
    host, _, path = name.partition("/")
    if host in _HUB_HOSTS:
        host = "docker.io"
    return host if path in ("", "v1", "v2") else f"{host}/{path}"


def _table(content: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise InvalidValue(f"{key} is not an object in credential file: {path}")
    return value


def _read(path: Path) -> dict[str, Any]:
    """The content of a credential file; empty if the file does not exist."""
    import json

    try:
        value = json.loads(read_input(path, "credential file") or b"{}")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"credential file is not JSON: {path}") from error
    if not isinstance(value, dict):
        raise InvalidValue(f"credential file is not a JSON object: {path}")
    return value


def _decode(entry: object, key: str, path: Path) -> Credentials | None:
    """The credentials of one entry of `auths`; None for the empty entry that stands for a helper."""
    import base64

    if not isinstance(entry, dict):
        raise InvalidValue(f"entry is not an object in credential file {path}: {key}")
    auth, token = entry.get("auth") or "", entry.get("identitytoken") or ""
    username, password = entry.get("username") or "", entry.get("password") or ""
    if not all(isinstance(item, str) for item in (auth, token, username, password)):
        raise InvalidValue(f"entry holds something other than text in credential file {path}: {key}")
    if auth:
        try:
            decoded = base64.b64decode(auth, validate=True).decode()
        except ValueError:
            raise InvalidValue(f"auth is not base64 text in credential file {path}: {key}") from None
        username, _, password = decoded.partition(":")
        password = password.strip("\x00")  # written so by old Docker clients
    if not username and not token:
        return None
    return Credentials(username, password, token)


def _entry(credentials: Credentials) -> dict[str, str]:
    import base64

    pair = f"{credentials.username}:{credentials.password}"
    entry = {"auth": base64.b64encode(pair.encode()).decode()}
    if credentials.identity_token:
        entry["identitytoken"] = credentials.identity_token
    return entry


@contextmanager
def _editing(path: Path) -> Iterator[dict[str, Any]]:
    """The file's content; what the body leaves in it replaces the file, unless the body fails.

    The directory is locked meanwhile, so two logins do not undo each other and no lock file stays behind.
    """
    import fcntl
    import json
    import os
    from pathlib import Path

    path = Path(os.path.realpath(path))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        before = _read(path)
        content = dict(before)
        yield content
        if content != before:
            _replace(path, (json.dumps(content, indent="\t") + "\n").encode())
    finally:
        os.close(directory)


def _replace(path: Path, data: bytes) -> None:
    import os
    import tempfile

    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _ask_helper(helper: str, key: str, environ: Mapping[str, str]) -> Credentials | None:
    output = _run_helper(helper, "get", key, environ)
    if output is None:
        return None
    try:
        value = jsontext.loads(output)
        username, secret = value["Username"], value["Secret"]
    except (ValueError, KeyError, TypeError):
        raise RegistryError(f"credential helper gave no credentials in JSON: docker-credential-{helper}") from None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise RegistryError(f"credential helper gave no credentials in JSON: docker-credential-{helper}")
    return Credentials("", "", secret) if username == TOKEN_USER else Credentials(username, secret)


def _helper_record(name: str, credentials: Credentials) -> str:
    import json

    token = credentials.identity_token
    username, secret = (TOKEN_USER, token) if token else (credentials.username, credentials.password)
    return json.dumps({"ServerURL": name, "Username": username, "Secret": secret})


def _run_helper(helper: str, verb: str, text: str, environ: Mapping[str, str]) -> str | None:
    """The output of the helper; None if it has no credentials for the key. Input and output may be secrets."""
    import shutil
    import subprocess

    program = f"docker-credential-{helper}"
    found = None if "/" in helper else shutil.which(program, path=environ.get("PATH"))
    if found is None:
        raise NotFound(
            f"no such credential helper: {program}", hint="install it, or remove it from the credential file"
        )
    try:
        done = subprocess.run([found, verb], input=text, capture_output=True, text=True, env=dict(environ), timeout=60)
    except subprocess.TimeoutExpired:
        raise RegistryError(f"credential helper gave no answer in 60 seconds: {program}") from None
    if done.returncode == 0:
        return done.stdout
    if _NOT_FOUND in done.stdout or _NOT_FOUND in done.stderr:
        return None
    reason = _first_line((done.stderr, done.stdout)) or f"exit status {done.returncode}"
    raise RegistryError(f"credential helper failed: {program}: {reason}")


def _first_line(texts: Iterable[str]) -> str:
    return next((text.strip().splitlines()[0] for text in texts if text.strip()), "")
