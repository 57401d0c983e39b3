"""policy.json: which rules hold for which image, and what is no policy at all."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import pytest

from builda.cli.core.options import Option
from builda.cli.verbs import member_named, verb_named
from builda.errors import BuildaError, InvalidValue, NotFound, PolicyRejected
from builda.oci.reference import Reference
from builda.places import Places
from builda.transfer.locate import TRANSPORTS, Location
from builda.trust.policy import (
    Accept,
    Fulcio,
    Keys,
    Pki,
    Policy,
    SignedBy,
    SigstoreSigned,
    docker_scopes,
    file_scopes,
    parse,
    scopes_of,
)
from builda.trust.registriesd import read_file

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
    assert accepts(policy(ACCEPT + ACCEPT), "x")
    wanted = policy(ACCEPT + SIGNED + SIGNED).check("docker", (), "x")
    assert wanted is not None
    assert [rule.type for rule in wanted.requirements] == ["signedBy", "signedBy"]
    assert (wanted.file, wanted.place) == ("p.json", "default")


def test_a_signed_base_layer_is_refused_and_says_why() -> None:
    with pytest.raises(PolicyRejected, match=r"p\.json wants a signed base layer, which no program can verify: x"):
        policy([{"type": "signedBaseLayer", "baseLayerIdentity": {}}]).check("docker", (), "x")


def test_where_keys_may_be() -> None:
    rule = {"type": "signedBy", "keyType": "GPGKeys"}
    sigstore = {"type": "sigstoreSigned"}
    for keys, expected in (
        ({"keyPath": "/a"}, Keys(paths=("/a",))),
        ({"keyPaths": ["/a", "/b"]}, Keys(paths=("/a", "/b"))),
        ({"keyData": "aGk="}, Keys(data=(b"hi",))),
    ):
        assert policy([{**rule, **keys}]).default == (SignedBy(expected),)
        assert policy([{**sigstore, **keys}]).default == (SigstoreSigned(expected),)
    logged = {**sigstore, "keyDatas": ["aGk=", "aG8="], "rekorPublicKeyPath": "/r"}
    assert policy([logged]).default == (SigstoreSigned(Keys(data=(b"hi", b"ho")), None, Keys(paths=("/r",))),)
    fulcio = {"caPath": "/ca", "oidcIssuer": "https://i", "subjectEmail": "a@b"}
    by_certificate = {**sigstore, "fulcio": fulcio, "rekorPublicKeyData": "aGk="}
    assert policy([by_certificate]).default == (
        SigstoreSigned(None, Fulcio(Keys(paths=("/ca",)), "https://i", "a@b"), Keys(data=(b"hi",))),
    )
    pki = {"caRootsData": "aGk=", "caIntermediatesPath": "/i", "subjectHostname": "h"}
    assert policy([{**sigstore, "pki": pki}]).default == (
        SigstoreSigned(None, pki=Pki(Keys(data=(b"hi",)), Keys(paths=("/i",)), None, "h")),
    )


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"type": "signedBy", "keyType": "GPGKeys"}, "signedBy has no key"),
        ({"type": "signedBy", "keyPath": "/k"}, "keyType of signedBy must be GPGKeys"),
        ({"type": "signedBy", "keyType": "X509Certificates", "keyPath": "/k"}, "keyType of signedBy must be GPGKeys"),
        ({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k", "keyData": "aGk="}, "only one of keyPath and"),
        ({"type": "signedBy", "keyType": "GPGKeys", "keyPaths": []}, "keyPaths is not a list of texts"),
        ({"type": "signedBy", "keyType": "GPGKeys", "keyPaths": "/k"}, "keyPaths is not a list of texts"),
        ({"type": "signedBy", "keyType": "GPGKeys", "keyPath": ""}, "keyPath is not a text"),
        ({"type": "signedBy", "keyType": "GPGKeys", "keyData": "#"}, "keyData is not base64"),
        ({"type": "signedBy", "keyType": "GPGKeys", "keyDatas": ["aGk="]}, "signedBy has no key 'keyDatas'"),
        ({"type": "sigstoreSigned"}, "needs exactly one of keys, fulcio and pki"),
        ({"type": "sigstoreSigned", "keyPath": "/k", "fulcio": {}}, "needs exactly one of keys, fulcio and pki"),
        ({"type": "sigstoreSigned", "fulcio": {}}, "fulcio needs caPath or caData"),
        ({"type": "sigstoreSigned", "keyPath": "/k", "pki": {}}, "needs exactly one of keys, fulcio and pki"),
        ({"type": "sigstoreSigned", "pki": []}, "pki is an object of"),
        ({"type": "sigstoreSigned", "pki": {"caPath": "/c", "subjectEmail": "a@b"}}, "pki is an object of"),
        ({"type": "sigstoreSigned", "pki": {"caRootsPath": "/c"}}, "subjectEmail or subjectHostname"),
        ({"type": "sigstoreSigned", "pki": {"subjectEmail": "a@b"}}, "pki needs caRootsPath"),
        ({"type": "sigstoreSigned", "pki": {"caRootsPath": "/c", "subjectEmail": 1}}, "pki needs caRootsPath"),
        (
            {"type": "sigstoreSigned", "pki": {"caRootsPath": "/c", "subjectEmail": "a"}, "rekorPublicKeyPath": "/r"},
            "cannot have a rekor key",
        ),
        (
            {
                "type": "sigstoreSigned",
                "fulcio": {"caPath": "/c", "oidcIssuer": "https://i", "subjectEmail": "a@b"},
            },
            "needs the key of a log",
        ),
        (SIGNED[0] | {"signedIdentity": {}}, "unknown signedIdentity"),
        (SIGNED[0] | {"signedIdentity": {"type": "matchAll"}}, "unknown signedIdentity"),
        (SIGNED[0] | {"signedIdentity": {"type": "matchExact", "x": 1}}, "matchExact has no key 'x'"),
        (SIGNED[0] | {"signedIdentity": {"type": "exactReference"}}, "dockerReference is not a text"),
        (
            SIGNED[0] | {"signedIdentity": {"type": "exactReference", "dockerReference": "a/b"}},
            "neither tag nor digest",
        ),
        (SIGNED[0] | {"signedIdentity": {"type": "exactRepository", "dockerRepository": "a/b:1"}}, "neither tag nor"),
        (
            SIGNED[0] | {"signedIdentity": {"type": "remapIdentity", "prefix": "r.io/a:1", "signedPrefix": "q.io"}},
            "neither tag nor digest",
        ),
        (
            SIGNED[0] | {"signedIdentity": {"type": "remapIdentity", "prefix": "a/b", "signedPrefix": "q.io"}},
            "registry",
        ),
    ],
)
def test_rules_that_mean_nothing_name_their_place(rule: dict[str, object], words: str) -> None:
    text = json.dumps({"default": REJECT, "transports": {"docker": {"r.io/a": [rule]}}})
    with pytest.raises(InvalidValue, match=words) as raised:
        parse(text, "p.json")
    assert 'transports.docker."r.io/a" of p.json' in str(raised.value)


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
    assert policy(ACCEPT, **{"docker-daemon": {"": ACCEPT}, "atomic": {"x": SIGNED}}).default == (Accept(),)


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
    assert [rule.type for rule in found.default] == ["signedBy"]
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


def test_scopes_follow_the_table_of_transports() -> None:
    assert scopes_of(Location("docker-archive", "/a/b.tar", "x")) == ("docker-archive", ())
    for name, transport in TRANSPORTS.items():
        assert (scopes_of(Location(name, "/a/b"))[1][:1] == ("/a/b",)) is transport.has_path_scopes
    assert scopes_of(Reference.parse("r.io:5/a"))[1] == ("r.io:5/a:latest", "r.io:5/a", "r.io:5", "*.io")
    assert scopes_of(Location("docker-daemon", "a:1"))[1][0] == "docker.io/library/a:1"
    assert scopes_of(Location("docker-daemon", "@abc"))[1] == ()


def test_scopes_of_other_stores() -> None:
    named = Location("containers-storage", "[overlay@/s+/run:o=1]r.io/a/b:1")
    scopes = ("r.io/a/b:1", "r.io/a/b", "r.io/a", "r.io", "")
    assert scopes_of(named)[1] == (*(f"[overlay@/s]{scope}" for scope in scopes), "[/s]")
    assert scopes_of(Location("containers-storage", "[overlay@/s]@abc"))[1] == ("[overlay@/s]", "[/s]")
    some = policy(ACCEPT, **{"containers-storage": {"[/s]": REJECT}})
    with pytest.raises(PolicyRejected, match="rejected"):
        some.check(*scopes_of(named), "x")
    assert some.check(*scopes_of(Location("containers-storage", "[overlay@/t]a")), "x") is None
    with pytest.raises(PolicyRejected, match="the name does not say which store it is in"):
        some.check(*scopes_of(Location("containers-storage", "[]a")), "x")
    assert policy(ACCEPT).check(*scopes_of(Location("containers-storage", "[]a")), "x") is None


def blocks_of(document: str) -> list[str]:
    """The indented blocks of a document."""
    text = (Path(__file__).parents[3] / "docs" / document).read_text()
    return [textwrap.dedent(block) for block in re.findall(r"\n\n((?:    .*\n|\n(?=    ))+)", text)]


def test_the_documented_examples_are_read(tmp_path: Path) -> None:
    blocks = blocks_of("trust.md")
    policies = [block for block in blocks if block.startswith("{")]
    assert [len(parse(block, "p.json").transports["docker"]) for block in policies] == [3]
    configurations = [block for block in blocks if block.startswith("default-docker:")]
    (tmp_path / "a.yaml").write_text(configurations[0])
    default, sections = read_file(tmp_path / "a.yaml")
    assert default is not None
    assert sections["registry.example.org"].attachments


def test_the_documented_commands_have_these_options() -> None:
    lines = [line for block in blocks_of("trust.md") for line in block.splitlines() if line.startswith("builda ")]
    assert len(lines) >= 3
    for line in lines:
        words = line.split()[1:]
        verb = member_named("image", words[1]) if words[0] == "image" else verb_named(words[0])
        flags = {flag for row in verb.rows if isinstance(row, Option) for flag in row.flags}
        assert {word for word in words if word.startswith("--")} <= flags, line
