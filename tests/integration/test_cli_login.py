"""`login` and `logout` against a registry that wants a password, and what other verbs make of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Builda
from tests.support import needs
from tests.support import registry as support

pytestmark = [
    pytest.mark.network,
    needs.program("docker-registry"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[support.Registry]:
    """A registry that knows one user."""
    with support.registry(basic=True) as running:
        yield running


@pytest.fixture
def authfile(builda: Builda, tmp_path: Path) -> Path:
    """The credential file that builda uses here."""
    path = tmp_path / "auth" / "auth.json"
    builda.environ["REGISTRY_AUTH_FILE"] = str(path)
    return path


def login(builda: Builda, server: support.Registry, *args: str, password: str = support.PASSWORD) -> str:
    return builda(
        "login",
        "--tls-verify=false",
        "-u",
        support.USER,
        "--password-stdin",
        *args,
        server.address,
        given=password + "\n",
    )


def test_login_keeps_what_the_registry_accepts(builda: Builda, server: support.Registry, authfile: Path) -> None:
    assert login(builda, server) == "Login Succeeded!"
    assert list(json.loads(authfile.read_text())["auths"]) == [server.address]
    assert authfile.stat().st_mode & 0o777 == 0o600
    assert builda("login", "--get-login", server.address) == support.USER
    assert builda("logout", server.address) == f"Removed login credentials for {server.address}"
    assert "not logged into" in builda.fails("login", "--get-login", server.address)
    assert "not logged into" in builda.fails("logout", server.address)


def test_verbose_says_where(builda: Builda, server: support.Registry, authfile: Path) -> None:
    assert login(builda, server, "--verbose").splitlines()[0] == f"Used: {authfile}"
    other = authfile.with_name("other.json")
    assert login(builda, server, "-v", "--authfile", str(other)).splitlines()[0] == f"Used: {other}"
    compatible = authfile.with_name("config.json")
    assert login(builda, server, "-v", "--compat-auth-file", str(compatible)).splitlines()[0] == f"Used: {compatible}"


def test_a_wrong_password_is_not_kept(builda: Builda, server: support.Registry, authfile: Path) -> None:
    said = builda.fails("login", "--tls-verify=false", "-u", support.USER, "-p", "wrong", server.address)
    assert server.address in said
    assert not authfile.exists()


def test_logout_all_forgets_everything(builda: Builda, server: support.Registry, authfile: Path) -> None:
    login(builda, server)
    assert builda("logout", "--all") == "Removed login credentials for all registries"
    assert json.loads(authfile.read_text())["auths"] == {}


def test_login_without_a_terminal_never_asks(builda: Builda, server: support.Registry, authfile: Path) -> None:
    assert "no credentials were given" in builda.fails("login", server.address)
    assert "no credentials were given" in builda.fails("login", "-u", "me", server.address)


@pytest.mark.root
def test_push_and_pull_use_the_login(
    builda: Builda, server: support.Registry, authfile: Path, base: str, tmp_path: Path
) -> None:
    destination = server.name("app:1")
    builda.fails("push", "-q", "--tls-verify=false", "--retry=0", base, destination)
    login(builda, server)
    digestfile = tmp_path / "digest"
    builda("push", "-q", "--tls-verify=false", "--digestfile", digestfile, base, destination)
    assert digestfile.read_text() == builda("images", "--format", "{{.Digest}}").splitlines()[0]
    identity = builda("images", "-q", "--no-trunc").removeprefix("sha256:")
    builda("rmi", "--all")
    assert builda("pull", "-q", "--tls-verify=false", destination) == identity
    assert builda("from", "--pull=always", "--tls-verify=false", destination) == "app-working-container"
    builda("logout", server.address)
    builda.fails("pull", "--policy=always", "--tls-verify=false", "--retry=0", destination)
    builda(
        "pull",
        "-q",
        "--policy=always",
        "--tls-verify=false",
        "--creds",
        f"{support.USER}:{support.PASSWORD}",
        destination,
    )


@pytest.mark.root
def test_an_unknown_tag_and_an_unreachable_registry_are_named(builda: Builda, server: support.Registry) -> None:
    creds = f"{support.USER}:{support.PASSWORD}"
    said = builda.fails("pull", "--tls-verify=false", "--creds", creds, server.name("nothing:here"))
    assert server.name("nothing") in said
    nobody = f"127.0.0.1:{support.free_port()}"
    said = builda.fails("from", "--tls-verify=false", "--retry=0", f"{nobody}/x")
    assert nobody in said
    assert builda("containers", "-q") == ""


def test_auth_explain_says_which_login_is_used_and_no_secret(
    builda: Builda, server: support.Registry, authfile: Path, tmp_path: Path
) -> None:
    name = f"{server.address}/team/app:1"
    missing = "credential file is not accessible"
    assert missing in builda.fails("auth", "explain", name)
    login(builda, server)
    assert builda("auth", "explain", name).splitlines() == [
        f"{name}: password of {support.USER}",
        f"  1. REGISTRY_AUTH_FILE {authfile}: entry {server.address}",
    ]
    (explained,) = json.loads(builda("auth", "explain", "--json", f"docker://{name}"))
    used = {"kind": "password", "user": support.USER, "place": f"REGISTRY_AUTH_FILE {authfile}"}
    assert explained["credentials"] == used | {"reason": f"entry {server.address}"}
    assert support.PASSWORD not in json.dumps(explained)
    assert builda("auth", "explain", "other.invalid/x").splitlines()[0] == "other.invalid/x:latest: no credentials"
    assert "--creds" in builda("auth", "explain", "--creds=me:hunter2", name)
    assert "hunter2" not in builda("auth", "explain", "--creds=me:hunter2", "--json", name)

    other = tmp_path / "other.json"
    other.write_text('{"auths": {}}')
    assert f"--authfile {other}: no entry" in builda("auth", "explain", f"--authfile={other}", name)


def test_auth_explain_explains_mirrors_and_short_names(builda: Builda, tmp_path: Path) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text(
        'unqualified-search-registries = ["a.invalid", "b.invalid"]\n[[registry]]\nlocation = "a.invalid"\n'
        '[[registry.mirror]]\nlocation = "m.invalid/cache"\n'
    )
    said = builda("--registries-conf", conf, "auth", "explain", "app")
    assert [line.partition(":")[0] for line in said.splitlines() if not line.startswith(" ")] == [
        "m.invalid/cache/app",
        "a.invalid/app",
        "b.invalid/app",
    ]


@pytest.mark.parametrize("image", ["", "a b", "oci:dir", "docker-archive:f", "docker://[", "A"])
def test_auth_explain_of_what_is_in_no_registry_is_refused(builda: Builda, image: str) -> None:
    said = builda.fails("auth", "explain", image)
    assert "no registry is asked" in said or "invalid" in said


def test_auth_explain_of_a_broken_file_names_it(builda: Builda, tmp_path: Path) -> None:
    broken = tmp_path / "auth.json"
    broken.write_text('{"auths": {"r.invalid": {"auth": "%%%"}}}')
    said = builda.fails("auth", "explain", f"--authfile={broken}", "r.invalid/x")
    assert f"auth is not base64 text in credential file {broken}: r.invalid" in said
