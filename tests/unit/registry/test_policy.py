"""policy.json: which rules hold for which image, and what is no policy at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builda.errors import BuildaError, InvalidValue, NotFound, PolicyRejected
from builda.oci.reference import Reference
from builda.places import Places
from builda.registry.policy import Policy, docker_scopes, file_scopes, parse

ACCEPT = [{"type": "insecureAcceptAnything"}]
REJECT = [{"type": "reject"}]
SIGNED = [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}]
DIGEST = "sha256:" + "a" * 64


def policy(default: object = REJECT, **transports: object) -> Policy:
    return parse(json.dumps({"default": default, "transports": transports}), "p.json")


def accepts(policy: Policy, name: str) -> bool:
    try:
        policy.check("docker", docker_scopes(Reference.parse(name)), name)
    except PolicyRejected:
        return False
    return True


@pytest.mark.parametrize(
    ("scope", "name", "accepted"),
    [
        ("", "docker.io/library/busybox", True),
        ("docker.io", "busybox", True),
        ("docker.io/library", "busybox", True),
        ("docker.io/library/busybox", "busybox:1", True),
        ("docker.io/library/busybox:1", "busybox:1", True),
        ("docker.io/library/busybox:1", "busybox:2", False),
        ("docker.io/library/busybox:latest", "busybox", True),
        ("docker.io/lib", "busybox", False),
        (f"r.example/a@{DIGEST}", f"r.example/a@{DIGEST}", True),
        (f"r.example/a@{DIGEST}", f"r.example/a:1@{DIGEST}", True),
        ("r.example/a:1", f"r.example/a:1@{DIGEST}", False),
        ("r.example:5000", "r.example:5000/a/b", True),
        ("r.example", "r.example:5000/a/b", False),
        ("*.example", "r.example:5000/a/b", True),
        ("*.example", "deep.r.example/a", True),
        ("*.r.example", "r.example/a", False),
        ("*.example", "example/a", False),
    ],
)
def test_scopes_of_names(scope: str, name: str, accepted: bool) -> None:
    assert accepts(policy(REJECT, docker={scope: ACCEPT}), name) is accepted
    assert accepts(policy(ACCEPT, docker={scope: REJECT}), name) is not accepted


def test_the_narrowest_scope_decides_alone() -> None:
    rules = policy(
        ACCEPT, docker={"": REJECT, "r.io": ACCEPT, "r.io/a": REJECT, "r.io/a/b": ACCEPT, "r.io/a/b:1": REJECT}
    )
    names = ["q.io/x", "r.io/x", "r.io/a/x", "r.io/a/b:2", "r.io/a/b:1"]
    assert [accepts(rules, name) for name in names] == [False, True, False, True, False]


def test_every_rule_of_a_list_has_to_hold() -> None:
    assert not accepts(policy(ACCEPT + REJECT), "x")
    assert not accepts(policy(ACCEPT + SIGNED), "x")
    assert accepts(policy(ACCEPT + ACCEPT), "x")


@pytest.mark.parametrize(
    "rule",
    [
        SIGNED[0],
        {"type": "sigstoreSigned", "keyPath": "/k", "signedIdentity": {"type": "matchRepository"}},
        {"type": "signedBaseLayer", "baseLayerIdentity": {}},
    ],
)
def test_a_rule_that_wants_a_signature_refuses_and_says_why(rule: dict[str, object]) -> None:
    with pytest.raises(PolicyRejected, match=f"wants a signature .{rule['type']}., which builda cannot verify: x"):
        policy([rule]).check("docker", (), "x")


def test_scopes_of_files(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    real = str((tmp_path / "real").resolve())
    scopes = file_scopes("oci", str(tmp_path / "link"))
    assert scopes[0] == real
    assert scopes[1] == str(Path(real).parent)
    assert "/" not in scopes
    with pytest.raises(PolicyRejected, match=r"rejected by p\.json: oci:link"):
        policy(ACCEPT, oci={real: REJECT}).check("oci", scopes, "oci:link")
    policy(REJECT, oci={str(Path(real).parent): ACCEPT}).check("oci", scopes, "x")
    assert file_scopes("docker-archive", "/a/b") == ()
    with pytest.raises(PolicyRejected):
        policy(ACCEPT, **{"docker-archive": {"": REJECT}}).check("docker-archive", (), "x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"transports": {}}',
        '{"default": []}',
        '{"default": {}}',
        '{"default": [1]}',
        '{"default": [{}]}',
        '{"default": [{"type": 1}]}',
        '{"default": [{"type": "accept"}]}',
        '{"default": [{"type": "reject", "more": 1}]}',
        '{"default": [{"type": "signedBy", "keypath": "/k"}]}',
        '{"default": [{"type": "reject"}], "default": [{"type": "insecureAcceptAnything"}]}',
        '{"default": [{"type": "reject"}], "Transports": {}}',
        '{"default": [{"type": "reject"}], "transports": []}',
        '{"default": [{"type": "reject"}], "transports": {"docker": []}}',
        '{"default": [{"type": "reject"}], "transports": {"docker": {"": []}}}',
        '{"default": [{"type": "reject"}], "transports": {"docker": {"r.io/": [{"type": "reject"}]}}}',
        '{"default": [{"type": "reject"}], "transports": {"dir": {"a": [{"type": "reject"}]}}}',
        '{"default": [{"type": "reject"}], "transports": {"oci": {"/": [{"type": "reject"}]}}}',
        '{"default": [{"type": "reject"}], "transports": {"oci-archive": {"/a/../b": [{"type": "reject"}]}}}',
        '{"default": [{"type": "reject"}], "transports": {"docker-archive": {"/a": [{"type": "reject"}]}}}',
        "[" * 100_000,
    ],
)
def test_what_is_no_policy_names_its_file(text: str) -> None:
    with pytest.raises(InvalidValue, match=r"p\.json"):
        parse(text, "p.json")


def test_a_transport_that_builda_does_not_have_is_no_error() -> None:
    assert policy(ACCEPT, **{"docker-daemon": {"": ACCEPT}, "atomic": {"x": SIGNED}}).default == (
        "insecureAcceptAnything",
    )


def test_where_the_policy_is_looked_for(tmp_path: Path) -> None:
    def write(place: str, rules: object) -> Path:
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"default": rules}))
        return file

    home = Places({"HOME": str(tmp_path / "home")}, 0, tmp_path)
    assert Policy.load(home) is None
    system = write("etc/containers/policy.json", REJECT)
    found = Policy.load(home)
    assert found is not None
    assert found.file == str(system)
    user = write("home/.config/containers/policy.json", ACCEPT)
    found = Policy.load(home)
    assert found is not None
    assert found.file == str(user)
    named = write("named.json", SIGNED)
    assert Policy.load(home, named) == parse(named.read_text(), str(named))
    found = Policy.load(home._replace(environ={**home.environ, "CONTAINERS_POLICY_JSON": str(named)}))
    assert found is not None
    assert found.default == ("signedBy",)
    with pytest.raises(NotFound, match=r"no such policy\.json"):
        Policy.load(home, tmp_path / "none")


def test_what_cannot_be_read_is_never_no_policy(tmp_path: Path) -> None:
    containers = tmp_path / "home/.config/containers"
    containers.mkdir(parents=True)
    (containers / "policy.json").symlink_to("gone")
    with pytest.raises(NotFound):
        Policy.load(Places({"HOME": str(tmp_path / "home")}, 0, tmp_path))
    (containers / "policy.json").unlink()
    (containers / "policy.json").mkdir()
    with pytest.raises(BuildaError, match=r"cannot be read, is a directory: .*policy.json"):
        Policy.load(Places({"HOME": str(tmp_path / "home")}, 0, tmp_path))
