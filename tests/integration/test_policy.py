"""policy.json is asked before an image comes from anywhere: registries, layouts, archives and directories."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Builda
from tests.support import registry as support

pytestmark = pytest.mark.root

ACCEPT, REJECT = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]
SIGNED = [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k.gpg"}]


@pytest.fixture
def server() -> Iterator[support.Registry]:
    with support.registry() as running:
        yield running


@pytest.fixture
def policy(builda: Builda, tmp_path: Path) -> Path:
    """The user's policy.json, not yet written."""
    builda.environ["HOME"] = str(tmp_path / "home")
    file = tmp_path / "home/.config/containers/policy.json"
    file.parent.mkdir(parents=True)
    return file


def write(file: Path, default: object, **transports: object) -> None:
    file.write_text(json.dumps({"default": default, "transports": transports}))


def test_every_way_to_an_image_asks_the_policy(
    builda: Builda, server: support.Registry, base: str, policy: Path, tmp_path: Path
) -> None:
    name = server.name("app:1")
    plain = ("--tls-verify=false", "--retry=0")
    builda("push", "-q", *plain, base, name)
    files = [f"{kind}:{tmp_path}/{kind}" for kind in ("oci", "oci-archive", "docker-archive", "dir")]
    for place in files:
        builda("push", "-q", base, place)
    write(policy, REJECT)
    for place in (name, f"docker://{name}", *files):
        for verb in ("pull", "from"):
            said = builda.fails(verb, *plain, place)
            assert said.startswith(f"Error: image is rejected by {policy}: "), place
    for text in (
        f"FROM {name}\n",
        f"FROM {base}\nCOPY --from={name} /bin/sh /x\n",
        f"FROM {base}\nRUN --mount=from={name},target=/m true\n",
        f"FROM {files[0]}\n",
    ):
        (tmp_path / "Containerfile").write_text(text)
        assert f"rejected by {policy}" in builda.fails("bud", "-q", *plain, "-f", tmp_path / "Containerfile", tmp_path)
    (tmp_path / "Containerfile").write_text("FROM base\n")
    for where in (f"docker-image://{name}", f"oci-layout://{tmp_path}/oci"):
        arguments = ("--build-context", f"base={where}", "-f", tmp_path / "Containerfile", tmp_path)
        assert f"rejected by {policy}" in builda.fails("bud", "-q", *plain, *arguments)
    assert builda("from", "-q", base)  # what the store has is not asked about
    assert builda("push", "-q", *plain, base, name) == ""
    write(policy, REJECT, docker={server.address: ACCEPT}, dir={str(tmp_path): ACCEPT})
    assert builda("pull", "-q", "--policy=always", *plain, name)
    assert builda("pull", "-q", files[3])
    assert "rejected" in builda.fails("pull", "-q", files[0])


def test_a_named_policy_counts_instead(builda: Builda, server: support.Registry, base: str, policy: Path) -> None:
    name = server.name("app:1")
    plain = ("--tls-verify=false", "--retry=0", "--policy=always")
    builda("push", "-q", "--tls-verify=false", base, name)
    write(policy, ACCEPT)
    other = policy.with_name("other.json")
    write(other, ACCEPT, docker={name: SIGNED})
    said = builda.fails("pull", *plain, "--signature-policy", other, name)
    assert f"key of {other} cannot be used, no such file or directory (/k.gpg): {name}" in said
    assert f'the key is named by transports.docker."{name}"' in said
    assert "rejected" not in builda("pull", "-q", *plain, name)
    write(policy, REJECT)
    write(other, ACCEPT)
    assert builda("pull", "-q", *plain, "--signature-policy", other, name)
    assert builda("pull", "-q", *plain, name, CONTAINERS_POLICY_JSON=str(other))


@pytest.mark.parametrize("verb", ["from", "pull", "bud", "push", "commit", "copy", "add"])
def test_a_named_policy_is_read_at_once(builda: Builda, policy: Path, verb: str, base: str) -> None:
    container = builda("from", "-q", base) if verb in ("commit", "copy", "add") else ""
    arguments = {"from": ["scratch"], "pull": [base], "bud": ["."], "push": [base, "dir:/x"]}.get(
        verb, [container, "/x"]
    )
    policy.write_text("{")
    for file, words in ((policy, "not JSON"), (policy.with_name("none"), "no such policy.json")):
        said = builda.fails(verb, "--signature-policy", file, *arguments)
        assert words in said
        assert str(file) in said
    assert len(builda("containers", "-q").split()) == (container != "")


def test_broken_json_is_an_error_wherever_an_image_is_fetched(builda: Builda, policy: Path, base: str) -> None:
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}], "more": 1}')
    said = builda.fails("pull", "--retry=0", "localhost:1/x")
    assert f"a policy is an object of default and, perhaps, transports: {policy}" in said
    assert "hint: it has 'more'" in said
    assert builda("from", "-q", base)


def test_sources_are_opened_in_one_place() -> None:
    """What opens an image outside the store does so through `Remote.source`, which asks the policy."""
    sources = {"LayoutSource", "DirectorySource", "DockerArchiveSource", "OciArchiveSource"}
    found = set()
    for path in (REPOSITORY / "builda").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            called = ""
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            named = isinstance(node, ast.Constant) and node.value in sources  # as the table of transports names them
            if called in {"open_source", *sources} or named:
                found.add(path.relative_to(REPOSITORY).as_posix())
    changed_in_place = {"builda/transfer/ocilayout.py"}  # `manifest_in`
    assert found == {"builda/api.py", "builda/transfer/locate.py"} | changed_in_place
