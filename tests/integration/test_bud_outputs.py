"""`--output`: archives and pushes, standard output without anything else on it, and what is refused."""

from __future__ import annotations

import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from tests.conftest import Builda, clean_environ
from tests.support.registry import registry

pytestmark = pytest.mark.root


@pytest.fixture
def context(tmp_path: Path) -> Path:
    made = tmp_path / "context"
    made.mkdir()
    (made / "given").write_text("text\n")
    (made / "Containerfile").write_text("FROM scratch\nCOPY given /given\n")
    return made


@pytest.mark.parametrize(
    ("kind", "transport"), [("oci", "oci-archive"), ("docker", "docker-archive"), ("oci,tar=false", "oci")]
)
def test_an_archive_holds_the_image_under_its_name(
    builda: Builda, context: Path, tmp_path: Path, kind: str, transport: str
) -> None:
    made = builda("bud", "-q", "-o", f"type={kind},dest={tmp_path}/out,name=localhost/app:1", context)
    builda("rmi", made)
    image = builda("pull", "-q", f"{transport}:{tmp_path}/out:localhost/app:1")
    container = builda("from", image)
    assert (Path(builda("mount", container)) / "given").read_text() == "text\n"
    builda("umount", container)


@pytest.mark.parametrize(("option", "member"), [("-", "given"), ("type=oci,dest=-", "index.json")])
def test_standard_output_holds_the_archive_alone(builda: Builda, context: Path, option: str, member: str) -> None:
    command = [*builda.command, "bud", "-t", "app", "-o", option, str(context)]
    done = subprocess.run(command, capture_output=True, check=True, env=clean_environ())
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        assert member in [name.removeprefix("./").lstrip("/") for name in archive.getnames()]
    assert done.stdout.endswith(bytes(1024))


def test_a_push_is_part_of_the_build(builda: Builda, context: Path) -> None:
    with registry() as server:
        one, two = server.name("app:1"), server.name("app:2")
        made = builda("bud", "-q", "--tls-verify=false", "-o", f"type=registry,name={one}", context)
        builda("bud", "-q", "--tls-verify=false", "-o", f"type=image,name={two},push=true", context)
        builda("rmi", "-f", made)
        for name in (one, two):
            assert builda("pull", "-q", "--tls-verify=false", name) == made


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("", "nothing is named"),
        ("type=zip,dest=x", "unknown type of --output: zip"),
        ("type=tar", "names no dest"),
        ("type=registry", "names no image"),
        ("type=local,dest=-", "a directory cannot go to standard output"),
        ("type=oci,dest=x,compression=zstd", "has no compression"),
        ("type=image,name=x,push=maybe", "push of --output must be true or false"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_build(
    builda: Builda, context: Path, option: str, said: str
) -> None:
    assert said in builda.fails("bud", "-o", option, context)
    assert builda("images", "-q") == ""
