"""`login` and `logout`: credentials for registries, kept where all container tools look for them."""

from __future__ import annotations

import sys

from builda.cli.core.options import Params, argument, switch, text
from builda.cli.core.output import print_line
from builda.cli.core.verb import verb
from builda.errors import InvalidValue, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from builda.cli.core.verbsession import Session
    from builda.places import Places
    from builda.registry.keyring import Credentials

_PASSWORD_LIMIT = 1 << 20
_FILE: Params = (
    text("--authfile", metavar="FILE", help="The credential file.  [env: REGISTRY_AUTH_FILE]"),
    text("--compat-auth-file", metavar="FILE", help="Write to this file in Docker's format instead."),
)


@verb(
    argument("registry"),
    text("--username", "-u", metavar="USER", help="The user name; asked for on a terminal."),
    text("--password", "-p", help="The password; every process on the machine may read it from here."),
    switch("--password-stdin", help="Read the password from standard input."),
    switch("--get-login", help="Print the user that is logged in, and fail when there is none."),
    switch("--verbose", "-v", help="Say which file was used."),
    text("--cert-dir", metavar="DIR", help="Use the certificates in this directory."),
    switch("--tls-verify", default=None, is_on=True, help="Require HTTPS with a valid certificate (the default)."),
    _FILE,
    interspersed=True,
    example="builda login --username me --password-stdin registry.example.org < token",
)
def login(session: Session, *, registry: str, get_login: bool, verbose: bool, **values: str | bool | None) -> None:
    """Check credentials against a registry and keep them.

    REGISTRY is a host, or host/namespace for credentials that hold there only.
    """
    from builda.registry.keyring import Keyring, login_name, store_login
    from builda.registry.registryclient import RegistryClient, RegistryOptions

    name, places = login_name(registry), _places(session)
    path = _file(places, values)
    if get_login:
        found = Keyring(places, path).find(name) if path is not None and path.exists() else Keyring(places).find(name)
        if found is None:
            raise NotFound(f"not logged into: {name}", hint=f"builda login {name}")
        print_line(found.username)
        return
    credentials = _credentials(values)
    options = RegistryOptions(
        cert_dir=_path(values["cert_dir"]),
        tls_verify=values["tls_verify"],  # type: ignore[arg-type]  # a switch: True, False or None
        registries_conf=_path(session.settings.registries_conf),
        drop_ins=_path(session.settings.registries_conf_dir),
    )
    with RegistryClient(options, session.emit, environ=session.environ) as client:
        client.check_login(name, credentials)
    kept = store_login(name, credentials, path or places.auth_file(), environ=session.environ)
    if verbose:
        print_line(f"Used: {kept}")
    print_line("Login Succeeded!")


@verb(
    argument("registry", required=False),
    switch("--all", "-a", "everything", help="Forget every login."),
    _FILE,
    interspersed=True,
    example="builda logout registry.example.org",
)
def logout(session: Session, *, registry: str | None, everything: bool, **values: str | None) -> None:
    """Forget the credentials of a registry."""
    from builda.registry.keyring import login_name, remove_all_logins, remove_login

    if everything == (registry is not None):
        raise InvalidValue("name one registry, or use --all")
    places = _places(session)
    path = _file(places, values) or places.auth_file()
    if registry is None:
        remove_all_logins(path, environ=session.environ)
        print_line("Removed login credentials for all registries")
        return
    name = login_name(registry)
    if not remove_login(name, path, environ=session.environ):
        raise NotFound(f"not logged into: {name}", hint=f"credentials are kept in {path}")
    print_line(f"Removed login credentials for {name}")


def _places(session: Session) -> Places:
    from builda.places import Places

    return Places(session.environ, session.settings.uid)


def _file(places: Places, values: dict[str, str | None] | dict[str, str | bool | None]) -> Path | None:
    named, docker = values["authfile"], values["compat_auth_file"]
    if named is not None and docker is not None:
        raise InvalidValue("--authfile cannot be used with --compat-auth-file")
    return _path(named if named is not None else docker)


def _path(value: str | bool | None) -> Path | None:
    from pathlib import Path

    return Path(value) if isinstance(value, str) else None


def _credentials(values: dict[str, str | bool | None]) -> Credentials:
    """The credentials of the options; what is missing is asked for, on a terminal only."""
    from builda.registry.keyring import Credentials

    username, password = values["username"], values["password"]
    if values["password_stdin"]:
        if password is not None:
            raise InvalidValue("--password cannot be used with --password-stdin")
        if username is None:
            raise InvalidValue("--password-stdin needs --username")
        password = sys.stdin.read(_PASSWORD_LIMIT + 1).rstrip("\r\n")
        if len(password) > _PASSWORD_LIMIT:
            raise InvalidValue(f"password on standard input has more characters than the limit: {_PASSWORD_LIMIT}")
    if (username is None or password is None) and not sys.stdin.isatty():
        raise InvalidValue("no credentials were given", hint="use --username with --password-stdin")
    from builda.cli.core.asking import ask

    if username is None:
        username = ask("Username")
    if password is None:
        password = ask("Password", hidden=True)
    return Credentials(str(username), str(password))
