"""The bash flow from end to end: a real registry, real packages, and peers that read the result."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Builda, clean_environ
from tests.support.registry import Registry, registry

pytestmark = [pytest.mark.root, pytest.mark.network, pytest.mark.starts]

SCRIPT = """
set -euo pipefail
c=$(builda from "$REGISTRY/debian:bookworm")
builda run "$c" -- sh -c 'apt-get update && apt-get install -y --no-install-recommends lua5.4'
builda copy --chown 1000:1000 "$c" app/ /srv/app/
m=$(builda mount "$c"); echo hello > "$m/srv/motd"; builda umount "$c"
builda config --env MODE=prod --workingdir /srv/app --user 1000 --entrypoint '["lua","main.lua"]' \\
    --label org.example.a=b "$c"
builda commit --rm "$c" "$REGISTRY/app:1" && builda push "$REGISTRY/app:1"
"""


@pytest.fixture
def running() -> Iterator[Registry]:
    with registry() as started:
        yield started


def environ_of(builda: Builda, running: Registry, tmp_path: Path) -> dict[str, str]:
    """The environment of a script: builda on PATH with its store, and a registry that speaks plain HTTP."""
    conf = tmp_path / "registries.conf"
    conf.write_text(f'[[registry]]\nlocation = "{running.address}"\ninsecure = true\n')
    return {
        **clean_environ(),
        "PATH": f"{Path(builda.command[0]).parent}:{os.environ['PATH']}",
        "BUILDA_ROOT": str(builda.root),
        "BUILDA_RUNROOT": str(builda.runroot),
        "CONTAINERS_REGISTRIES_CONF": str(conf),
        "REGISTRY": running.address,
    }


def test_the_script_of_the_readme(builda: Builda, debian: Path, running: Registry, tmp_path: Path) -> None:
    environ = environ_of(builda, running, tmp_path)
    subprocess.run(
        ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci-archive:{debian}:debian",
         f"docker://{running.address}/debian:bookworm"],
        check=True,
    )  # fmt: skip
    (tmp_path / "app").mkdir()
    (tmp_path / "app/main.lua").write_text("print('lua says hello', os.getenv('MODE'))\n")
    script = subprocess.run(["bash", "-c", SCRIPT], env=environ, cwd=tmp_path, capture_output=True, text=True)
    assert script.returncode == 0, script.stderr[-3000:]
    name = f"{running.address}/app:1"
    pushed = json.loads(
        subprocess.check_output(["skopeo", "inspect", "--tls-verify=false", f"docker://{name}"], text=True)
    )
    stored = builda("inspect", "--type", "image", "--format", "{{.FromImageDigest}}", name)
    assert pushed["Digest"] == stored
    assert pushed["Labels"]["org.example.a"] == "b"
    subprocess.run(["skopeo", "copy", "-q", f"oci:{builda.root}:{name}", f"dir:{tmp_path / 'copied'}"], check=True)
    assert builda("containers", "-q") == ""
    assert_runs(tmp_path, f"oci:{tmp_path / 'layout'}:app", f"oci:{builda.root}:{name}", builda)


def assert_runs(tmp_path: Path, layout: str, source: str, builda: Builda) -> None:
    """crun runs what the image says, from a tree that skopeo and builda's own unpacking agree on."""
    subprocess.run(["skopeo", "copy", "-q", source, layout], check=True)
    container = builda("from", layout)
    mount = builda("mount", container)
    owner = os.stat(f"{mount}/srv/app/main.lua")
    assert (owner.st_uid, owner.st_gid) == (1000, 1000)
    assert Path(f"{mount}/srv/motd").read_text() == "hello\n"
    builda("umount", container)
    output = builda("run", "--isolation", "oci", "--runtime", "crun", container, "--", "lua", "main.lua")
    assert output == "lua says hello\tprod"


def test_the_same_epoch_gives_the_same_digest_on_two_stores(busybox: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content\n")
    digests = set()
    for number in (1, 2):
        made = Builda(tmp_path / f"s{number}", tmp_path / f"r{number}", {"SOURCE_DATE_EPOCH": "1700000000"})
        container = made("from", f"oci-archive:{busybox}:busybox")
        made("run", container, "--", "sh", "-c", "echo x > /x && mkdir /d && chown 5:6 /d")
        made("copy", "--quiet", container, tmp_path / "file", "/srv/")
        made("config", "--env", "A=b", container)
        made("commit", "--rm", container, "same")
        digests.add(made("inspect", "--type", "image", "--format", "{{.FromImageDigest}}", "same"))
    assert len(digests) == 1


@pytest.mark.parametrize(
    "transport", ["oci:{}/a:x", "oci-archive:{}/a.tar:x", "docker-archive:{}/a.tar:x/y:1", "dir:{}/a"]
)
def test_peers_read_what_commit_writes(builda: Builda, base: str, tmp_path: Path, transport: str) -> None:
    container = builda("from", base)
    builda("run", container, "--", "touch", "/made")
    place = transport.format(tmp_path)
    builda("commit", "--format", "docker" if transport.startswith("docker") else "oci", container, place)
    assert json.loads(subprocess.check_output(["skopeo", "inspect", "--config", place]))["os"] == "linux"


def test_podman_reads_an_image_of_the_store(builda: Builda, base: str, tmp_path: Path) -> None:
    builda("commit", builda("from", base), "localhost/made:1")
    with tempfile.TemporaryDirectory(prefix="p", dir="/tmp") as short:  # podman wants a run root of 50 characters
        podman = ["podman", "--root", str(tmp_path / "p"), "--runroot", short, "--storage-driver", "vfs"]
        pulled = subprocess.check_output([*podman, "pull", "-q", f"oci:{builda.root}:localhost/made:1"], text=True)
        config = json.loads(subprocess.check_output([*podman, "inspect", pulled.strip()]))[0]["Config"]
    assert config["Cmd"] == ["sh"]


def test_all_tags_of_a_repository_are_pulled(builda: Builda, base: str, running: Registry) -> None:
    name = f"{running.address}/many"
    for number in ("1", "2"):
        container = builda("from", base)
        builda("config", "--label", f"number={number}", container)
        builda("commit", "--quiet", "--rm", container, f"{name}:{number}")
        builda("push", "--quiet", "--tls-verify=false", f"{name}:{number}")
        builda("rmi", f"{name}:{number}")
    pulled = builda("pull", "--quiet", "--tls-verify=false", "--all-tags", name).split()
    listed = {builda("images", "--format", "{{.ID}}", "--no-trunc", f"{name}:{number}") for number in ("1", "2")}
    assert {f"sha256:{image}" for image in pulled} == listed
    refused = builda.run("pull", "--tls-verify=false", "--all-tags", f"{name}:1", check=False)
    assert refused.returncode == 125
    assert "a name with a tag means one image" in refused.stderr
