"""The image of builda with the extra `cluster` as a client in a pod, with the credentials of a service account."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from tests.integration.test_own_image import own_image
from tests.support import needs
from tests.support.cluster import IMAGE, TOKEN, Cluster, cluster
from tests.support.pods import PODSIM
from tests.support.registry import Registry

pytestmark = [
    pytest.mark.root,
    pytest.mark.network,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    needs.program("crun", "runc"),
]
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, debian: Path) -> Path:
    """The root file system of `examples/kubernetes/Containerfile` with EXTRAS=cluster."""
    return own_image(tmp_path_factory.mktemp("own"), debian, "EXTRAS=cluster")


@pytest.fixture(scope="module")
def there() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


@pytest.fixture
def given(tmp_path: Path, there: Cluster) -> Path:
    """What the pod gets: the files of its service account, and a context."""
    made = tmp_path / "given"
    (made / "account").mkdir(parents=True)
    (made / "context").mkdir()
    config = json.loads((there.directory / "kubeconfig").read_text())
    authority = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"])
    (made / "account/ca.crt").write_bytes(authority)
    (made / "account/token").write_text(TOKEN)
    (made / "account/namespace").write_text("default")
    (made / "context/Containerfile").write_text("FROM scratch\nCOPY given /\n")
    (made / "context/given").write_text("some text\n")
    for path in (made, *made.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return made


@pytest.mark.parametrize("profile", ["restricted", "root-default"])
def test_the_image_is_a_client_in_a_pod(
    image: Path, there: Cluster, given: Path, server: Registry, profile: str
) -> None:
    url = urlsplit(there.url)
    name = server.name(f"app/{profile}:1")
    variables = {
        "KUBERNETES_SERVICE_HOST": url.hostname,
        "KUBERNETES_SERVICE_PORT": url.port,
        "BUILDA_ON": "kubernetes",
        "BUILDA_BUILDER_IMAGE": IMAGE,
        "BUILDA_ROOT": "/vol/store",
    }
    options: list[str | Path] = ["--rootfs", image, "--emptydir", "/vol", "--timeout", "600"]
    options += ["--bind", f"{given}/context:/given:ro", "--bind", f"{given}/account:{ACCOUNT}:ro"]
    options += [word for key, value in variables.items() for word in ("--env", f"{key}={value}")]
    script = f"""set -e
    builda cluster check
    builda build --tls-verify=false -t {name} --iidfile /vol/id /given
    cat /vol/id
    builda cluster ls
    """
    done = subprocess.run(
        [PODSIM, profile, *options, "--", "bash", "-c", script],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert "rights: all that builds need" in done.stdout
    assert "a build of three lines" in done.stdout
    assert "STEP 2/2: COPY given /" in done.stdout
    assert f"Successfully tagged {name}" in done.stdout
    assert pushed(server, f"app/{profile}")["config"]["digest"] in done.stdout


def pushed(server: Registry, repository: str) -> Any:
    """The manifest of the tag `1`."""
    asked = Request(
        f"http://{server.address}/v2/{repository}/manifests/1",
        headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
    )
    with urlopen(asked, timeout=30) as answer:
        return json.load(answer)
