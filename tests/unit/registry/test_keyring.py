"""Credentials: every place they may be, helpers, and logins."""

from __future__ import annotations

import base64
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from builda.errors import InvalidValue, NotFound, RegistryError
from builda.events import Event
from builda.places import Places
from builda.registry.keyring import (
    Credentials,
    Keyring,
    login_name,
    parse_creds,
    remove_all_logins,
    remove_login,
    store_login,
)

SECRET = "s3:cr:et"


def places(tmp_path: Path, **environ: str) -> Places:
    home = {"HOME": str(tmp_path / "home"), "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
    return Places(home | environ, 1000, tmp_path / "system")


def auth(user: str = "u", password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def write(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def helper(tmp_path: Path, name: str, script: str) -> None:
    program = tmp_path / "bin" / f"docker-credential-{name}"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_creds_may_have_colons_in_the_password() -> None:
    assert parse_creds("me:a:b") == Credentials("me", "a:b")


@pytest.mark.parametrize("text", ["me", ":secret-text", ""])
def test_malformed_creds_are_refused_without_being_shown(text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_creds(text)
    assert "secret-text" not in str(caught.value) + str(caught.value.hint)


def test_secrets_are_not_in_the_representation() -> None:
    assert SECRET not in repr(Credentials("u", SECRET, "token-text"))
    assert "token-text" not in repr(Credentials("u", SECRET, "token-text"))


def test_the_longest_path_wins(tmp_path: Path) -> None:
    file = write(
        tmp_path / "auth.json",
        {"auths": {"r.io": auth("host"), "r.io/team": auth("team"), "r.io/team/app": auth("app")}},
    )
    keyring = Keyring(places(tmp_path), file)
    users = {
        name: found.username for name in ("r.io/x", "r.io/team/x", "r.io/team/app") if (found := keyring.find(name))
    }
    assert users == {"r.io/x": "host", "r.io/team/x": "team", "r.io/team/app": "app"}
    assert keyring.find("other.io/team/app") is None


def test_passwords_keep_their_colons(tmp_path: Path) -> None:
    file = write(tmp_path / "auth.json", {"auths": {"r.io": auth()}})
    assert Keyring(places(tmp_path), file).find("r.io/x") == Credentials("u", SECRET)


@pytest.mark.parametrize(
    ("where", "environ"),
    [
        ("run/containers/auth.json", {"XDG_RUNTIME_DIR": "{}/run"}),
        ("system/run/containers/1000/auth.json", {}),
        ("home/.config/containers/auth.json", {}),
        ("conf/containers/auth.json", {"XDG_CONFIG_HOME": "{}/conf"}),
        ("home/.docker/config.json", {}),
        ("docker/config.json", {"DOCKER_CONFIG": "{}/docker"}),
        ("named.json", {"REGISTRY_AUTH_FILE": "{}/named.json"}),
    ],
)
def test_every_documented_place_is_searched(tmp_path: Path, where: str, environ: dict[str, str]) -> None:
    write(tmp_path / where, {"auths": {"r.io": auth("here")}})
    filled = {name: value.format(tmp_path) for name, value in environ.items()}
    found = Keyring(places(tmp_path, **filled)).explained("r.io/x")[-1]
    assert found.credentials is not None
    assert found.credentials.username == "here"
    assert where in found.place


def test_a_named_file_stands_alone(tmp_path: Path) -> None:
    write(tmp_path / "home/.docker/config.json", {"auths": {"r.io": auth()}})
    empty = write(tmp_path / "empty.json", {})
    assert Keyring(places(tmp_path), empty).find("r.io/x") is None


def test_a_missing_named_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="credential file"):
        Keyring(places(tmp_path), tmp_path / "none.json").find("r.io/x")
    with pytest.raises(NotFound, match="credential file"):
        Keyring(places(tmp_path, REGISTRY_AUTH_FILE="/none.json")).find("r.io/x")


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "https://docker.io"])
def test_dockers_own_names_of_its_hub_are_understood(tmp_path: Path, key: str) -> None:
    file = write(tmp_path / "auth.json", {"auths": {key: auth("hub")}})
    found = Keyring(places(tmp_path), file).find("docker.io/library/alpine")
    assert found is not None
    assert found.username == "hub"


def test_identity_tokens_are_read(tmp_path: Path) -> None:
    file = write(tmp_path / "auth.json", {"auths": {"r.io": {"identitytoken": "tok"}}})
    assert Keyring(places(tmp_path), file).find("r.io/x") == Credentials("", "", "tok")


def test_creds_win_over_files(tmp_path: Path) -> None:
    keyring = Keyring(places(tmp_path), None, Credentials("me", "x"))
    assert keyring.find("r.io/x") == Credentials("me", "x")


def test_a_helper_is_asked_over_its_standard_input(tmp_path: Path) -> None:
    log = tmp_path / "log"
    helper(
        tmp_path,
        "test",
        f'read key; echo "$* $key" >> {log}; echo \'{{"ServerURL":"r.io","Username":"h","Secret":"{SECRET}"}}\'',
    )
    file = write(tmp_path / "auth.json", {"credHelpers": {"r.io": "test"}, "auths": {"r.io": auth("file")}})
    assert Keyring(places(tmp_path), file).find("r.io/x") == Credentials("h", SECRET)
    assert log.read_text() == "get r.io\n"


def test_a_helper_that_knows_nothing_leaves_it_to_the_file(tmp_path: Path) -> None:
    helper(tmp_path, "test", "echo credentials not found in native keychain; exit 1")
    file = write(tmp_path / "auth.json", {"credHelpers": {"r.io": "test"}, "auths": {"r.io": auth("file")}})
    found = Keyring(places(tmp_path), file).find("r.io/x")
    assert found is not None
    assert found.username == "file"


def test_a_helper_may_hold_an_identity_token(tmp_path: Path) -> None:
    helper(tmp_path, "test", 'echo \'{"Username":"<token>","Secret":"tok"}\'')
    file = write(tmp_path / "auth.json", {"credsStore": "test"})
    assert Keyring(places(tmp_path), file).find("r.io/x") == Credentials("", "", "tok")


def test_a_failing_or_missing_helper_is_named(tmp_path: Path) -> None:
    helper(tmp_path, "bad", "echo locked >&2; exit 3")
    file = write(tmp_path / "auth.json", {"credHelpers": {"r.io": "bad", "s.io": "gone"}})
    with pytest.raises(RegistryError, match="docker-credential-bad: locked"):
        Keyring(places(tmp_path), file).find("r.io/x")
    with pytest.raises(NotFound, match="docker-credential-gone"):
        Keyring(places(tmp_path), file).find("s.io/x")


def test_a_missing_credentials_store_is_only_a_warning(tmp_path: Path) -> None:
    file = write(tmp_path / "auth.json", {"credsStore": "desktop", "auths": {"r.io": auth("file")}})
    events: list[Event] = []
    found = Keyring(places(tmp_path), file, emit=events.append).find("r.io/x")
    assert found is not None
    assert "docker-credential-desktop" in str(events)


def test_global_helpers_come_in_their_order(tmp_path: Path) -> None:
    helper(tmp_path, "first", "echo credentials not found; exit 1")
    helper(tmp_path, "second", 'echo \'{"Username":"two","Secret":"x"}\'')
    keyring = Keyring(places(tmp_path), helpers=("first", "second", "containers-auth.json"))
    assert keyring.find("r.io/x") == Credentials("two", "x")


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"auths": 3}', '{"auths": {"r.io": {"auth": "§"}}}', '{"auths": {"r.io": 3}}']
)
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "auth.json").write_text(content)
    with pytest.raises(InvalidValue, match=r"auth\.json"):
        Keyring(places(tmp_path), tmp_path / "auth.json").find("r.io/x")


def test_a_login_is_kept_privately_beside_everything_else(tmp_path: Path) -> None:
    file = write(tmp_path / "new/auth.json", {"other": {"a": 1}, "auths": {"s.io": auth("s")}})
    assert store_login("r.io", Credentials("u", SECRET), file, environ={}) == str(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text()) == {"other": {"a": 1}, "auths": {"s.io": auth("s"), "r.io": auth()}}
    assert [entry.name for entry in file.parent.iterdir()] == ["auth.json"]


def test_a_login_can_be_found_and_removed_again(tmp_path: Path) -> None:
    file = tmp_path / "a/b/auth.json"
    store_login("r.io/team", Credentials("u", SECRET), file, environ={})
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert Keyring(places(tmp_path), file).find("r.io/team/app") == Credentials("u", SECRET)
    assert remove_login("r.io/team", file, environ={})
    assert not remove_login("r.io/team", file, environ={})
    assert Keyring(places(tmp_path), file).find("r.io/team/app") is None


def test_a_login_replaces_the_same_registry_written_otherwise(tmp_path: Path) -> None:
    file = write(tmp_path / "auth.json", {"auths": {"https://index.docker.io/v1/": auth("old")}})
    store_login("docker.io", Credentials("new", "x"), file, environ={})
    assert list(json.loads(file.read_text())["auths"]) == ["docker.io"]


def test_all_logins_can_be_removed(tmp_path: Path) -> None:
    file = write(tmp_path / "auth.json", {"auths": {"r.io": auth(), "s.io": auth()}})
    assert remove_all_logins(file, environ={}) == ("r.io", "s.io")
    assert remove_all_logins(tmp_path / "none.json", environ={}) == ()


def test_a_login_goes_through_a_symbolic_link(tmp_path: Path) -> None:
    file = write(tmp_path / "real.json", {})
    (tmp_path / "link.json").symlink_to(file)
    store_login("r.io", Credentials("u", "p"), tmp_path / "link.json", environ={})
    assert (tmp_path / "link.json").is_symlink()
    assert "r.io" in file.read_text()


def test_a_broken_file_is_not_overwritten_by_a_login(tmp_path: Path) -> None:
    (tmp_path / "auth.json").write_text("precious")
    with pytest.raises(InvalidValue):
        store_login("r.io", Credentials("u", "p"), tmp_path / "auth.json", environ={})
    assert (tmp_path / "auth.json").read_text() == "precious"


def test_a_helper_keeps_the_login_of_its_registry(tmp_path: Path) -> None:
    helper(tmp_path, "test", f'echo "$*" >> {tmp_path / "args"}; cat >> {tmp_path / "in"}')
    file = write(tmp_path / "auth.json", {"credHelpers": {"r.io": "test"}})
    environ = places(tmp_path).environ
    assert store_login("r.io", Credentials("u", SECRET), file, environ=environ) == "docker-credential-test"
    assert remove_login("r.io", file, environ=environ)
    assert (tmp_path / "args").read_text() == "store\nerase\n"
    assert json.loads((tmp_path / "in").read_text().removesuffix("r.io"))["Secret"] == SECRET
    assert "auths" not in json.loads(file.read_text())


def test_logins_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "auth.json"
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(store_login, f"r{i}.io", Credentials("u", "p"), file, environ={}) for i in range(24)]
        for job in jobs:
            job.result()
    assert len(json.loads(file.read_text())["auths"]) == 24


def test_login_names_are_hosts_with_perhaps_a_namespace() -> None:
    assert login_name("https://r.io/") == "r.io"
    assert login_name("r.io:5000/team") == "r.io:5000/team"
    assert login_name("https://index.docker.io/v1/") == "docker.io"
    with pytest.raises(InvalidValue):
        login_name("")


def test_a_registry_with_a_password_in_it_is_not_repeated() -> None:
    with pytest.raises(InvalidValue) as caught:
        login_name("user:PW@registry.example.org")
    assert "PW" not in str(caught.value)
    assert "registry.example.org" in str(caught.value)


def test_each_place_is_explained_up_to_the_one_that_is_used(tmp_path: Path) -> None:
    helper(tmp_path, "none", "echo credentials not found in native keychain; exit 1")
    first = write(tmp_path / "home/.config/containers/auth.json", {"auths": {"r.io/other": auth()}})
    last = write(
        tmp_path / "home/.docker/config.json",
        {"credHelpers": {"r.io": "none"}, "credsStore": "gone", "auths": {"https://r.io/v1/": auth("docker")}},
    )
    where = places(tmp_path)
    looks = Keyring(where).explained("r.io/team/app")
    assert [(look.place, look.outcome) for look in looks] == [
        (str(where.auth_file()), "no such file"),
        (str(first), "no entry for r.io/team/app or r.io/team or r.io"),
        (f"docker-credential-none (credHelpers in {last})", "none for r.io"),
        (f"docker-credential-gone (credsStore in {last})", "no such program"),
        (str(last), "entry https://r.io/v1/"),
    ]
    assert looks[-1].credentials == Credentials("docker", SECRET)
    assert SECRET not in repr(looks)


def test_what_comes_first_is_all_that_is_explained(tmp_path: Path) -> None:
    file = write(tmp_path / "auth.json", {"auths": {"r.io": auth()}})
    given = Keyring(places(tmp_path), file, Credentials("me", SECRET)).explained("r.io/app")
    assert [(look.place, look.credentials) for look in given] == [("--creds", Credentials("me", SECRET))]
    named = Keyring(places(tmp_path, REGISTRY_AUTH_FILE=str(file))).explained("r.io/app")
    assert [look.place for look in named] == [f"REGISTRY_AUTH_FILE {file}"]


def test_an_empty_entry_is_told_and_passed_over(tmp_path: Path) -> None:
    file = write(tmp_path / "auth.json", {"auths": {"r.io/app": {}, "r.io": auth("host")}})
    looks = Keyring(places(tmp_path), file).explained("r.io/app")
    assert [look.outcome for look in looks] == ["no credentials in the entry r.io/app", "entry r.io"]
