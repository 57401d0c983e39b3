"""Registries, images, disks and containers that are not as they should be: the message, the status, nothing changed.

Command lines that mean nothing are in test_cli_bad_input, two commits to one name in test_parallel.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builda.oci.manifest import MANIFEST_LIMIT
from tests.conftest import Builda, clean_environ
from tests.support import images
from tests.support.compared import unchanged
from tests.support.registry import PASSWORD, USER, Answer, Registry, free_port, registry, scripted

pytestmark = [pytest.mark.root, pytest.mark.network]


@pytest.fixture(scope="module")
def plain() -> Iterator[Registry]:
    """A registry that speaks plain HTTP."""
    with registry() as running:
        yield running


@pytest.fixture
def container(builda: Builda, base: str) -> str:
    """A working container on busybox, with a tree."""
    name = builda("from", "--name", "box", base)
    builda("run", name, "true")
    return name


# Registries


def test_an_unknown_tag_names_its_neighbour(builda: Builda, base: str, plain: Registry) -> None:
    builda("push", "--tls-verify=false", base, f"docker://{plain.name('team/debian:bookworm')}")
    with unchanged(builda):
        said = builda.fails("from", "--tls-verify=false", plain.name("team/debian:bokworm"))
    assert plain.name("team/debian:bokworm") in said
    assert "bookworm?" in said


def test_an_unknown_repository_is_named(builda: Builda, base: str, plain: Registry) -> None:
    with unchanged(builda):
        said = builda.fails("pull", "--tls-verify=false", plain.name("nothing/here:1"))
    assert "nothing/here" in said


@pytest.mark.parametrize("verb", ["from", "pull", "push"])
def test_an_unreachable_registry_is_named_with_its_port(builda: Builda, base: str, verb: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    names = [base, f"docker://{address}/x:1"] if verb == "push" else [f"{address}/x:1"]
    with unchanged(builda):
        said = builda.fails(verb, "--retry", "0", "--tls-verify=false", *names)
    assert f"cannot connect (connection refused): {address}\nhint: nothing listens at {address}" in said


def test_an_unknown_host_is_named(builda: Builda, base: str) -> None:
    with unchanged(builda):
        assert "registry.invalid" in builda.fails("pull", "registry.invalid/x:1")


def test_plain_http_where_https_is_wanted_names_the_way_out(builda: Builda, base: str, plain: Registry) -> None:
    with unchanged(builda):
        said = builda.fails("pull", plain.name("x:1"))
    assert plain.address in said
    assert "--tls-verify=false" in said


def test_wrong_credentials_are_said_and_not_shown(builda: Builda, base: str) -> None:
    with registry(basic=True) as locked, unchanged(builda):
        for credentials in ([], ["--creds", f"{USER}:not-{PASSWORD}"]):
            said = builda.fails("push", "--tls-verify=false", *credentials, base, f"docker://{locked.name('x:1')}")
            assert locked.address in said
            assert "hint: " in said
            assert PASSWORD not in said


def test_a_manifest_over_the_limit_is_refused(builda: Builda, base: str) -> None:
    answer = Answer(body=b" " * (MANIFEST_LIMIT + 1), headers={"Content-Type": "application/json"})
    with scripted(lambda asked: Answer() if asked.path == "/v2/" else answer) as server, unchanged(builda):
        said = builda.fails("pull", "--tls-verify=false", f"{server.address}/x:1")
    assert str(MANIFEST_LIMIT) in said


def test_a_truncated_layer_is_refused_and_fetched_whole_the_next_time(builda: Builda, base: str) -> None:
    made = images.simple(7)
    with scripted(_serving(made, cut=40)) as server, unchanged(builda):
        said = builda.fails("pull", "--retry", "0", "--tls-verify=false", f"{server.address}/x:1")
        assert any(str(digest) in said for digest in made.layer_digests)
    with scripted(_serving(made, cut=None)) as server:
        builda("pull", "--tls-verify=false", f"{server.address}/x:1")
    assert builda("fsck") == ""


def _serving(made: images.Made, cut: int | None) -> Callable[[object], Answer]:
    """A registry of one image, which breaks off within every layer when `cut` says where."""

    def answer(asked: object) -> Answer:
        path = str(asked.path)  # type: ignore[attr-defined]  # an Asked
        if "/manifests/" in path:
            kind = made.value["mediaType"]
            return Answer(body=made.raw, headers={"Content-Type": kind})
        for digest, data in made.blobs.items():
            if path.endswith(str(digest)):
                broken = cut if digest in made.layer_digests else None
                return Answer(body=data, cut=broken)
        return Answer()

    return answer


# Images


@pytest.mark.parametrize("damage", ["digest", "truncated", "missing"])
def test_a_damaged_layer_makes_no_image(builda: Builda, base: str, tmp_path: Path, damage: str) -> None:
    made = images.simple(3)
    layout = images.write_layout(tmp_path / "layout", made)
    digest = made.layer_digests[1]
    blob = layout / "blobs/sha256" / digest.encoded
    match damage:
        case "digest":
            blob.write_bytes(bytes(reversed(blob.read_bytes())))
        case "truncated":
            os.truncate(blob, 10)
        case _:
            blob.unlink()
    for verb in ("pull", "from"):
        with unchanged(builda):
            assert digest.encoded in builda.fails(verb, f"oci:{layout}:test")


def test_a_manifest_that_is_none_is_refused(builda: Builda, base: str, tmp_path: Path) -> None:
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    made = images.made({"schemaVersion": 1, "mediaType": kind, "fsLayers": []})
    layout = images.write_layout(tmp_path / "layout", made)
    with unchanged(builda):
        assert "schema" in builda.fails("pull", f"oci:{layout}:test")


@pytest.mark.parametrize(
    "member",
    [
        {"name": "../escaped"},
        {"name": "a/../../escaped"},
        {"name": "link", "type": tarfile.LNKTYPE, "linkname": "../../../etc/passwd"},
        {"name": "device", "type": tarfile.CHRTYPE, "devmajor": 1 << 20, "devminor": 1},
        {"name": "x" * 5000},
    ],
    ids=["climbs", "climbs deep", "hard link", "device", "long name"],
)
def test_a_layer_that_escapes_is_not_unpacked(
    builda: Builda, base: str, tmp_path: Path, member: dict[str, object]
) -> None:
    made = images.image(_tar_with(member))
    layout = images.write_layout(tmp_path / "layout", made)
    image = builda("pull", f"oci:{layout}:test")
    container = builda("from", image)
    with unchanged(builda):
        said = builda.fails("run", container, "true")
        told = builda.fails("--storage-driver", "overlay", "from", image)
        assert not list(tmp_path.rglob("escaped"))
        builda("prune")
    assert str(member.get("linkname", member["name"]))[:30] in said
    assert said == told


def test_an_archive_that_escapes_adds_nothing(builda: Builda, container: str, tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(_tar_with({"name": "../../../../../../../../tmp/../escaped"}))
    said = builda.fails("add", container, tmp_path / "bad.tar", "/srv/")
    assert "escaped" in said
    assert builda("run", container, "--", "find", "/", "-xdev", "-name", "escaped*") == ""
    assert not Path("/escaped").exists()


def _tar_with(member: dict[str, object]) -> bytes:
    """A tar of one good file and one entry that is not."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        good = tarfile.TarInfo("good")
        good.size = 4
        tar.addfile(good, io.BytesIO(b"good"))
        bad = tarfile.TarInfo(str(member["name"]))
        for field, value in member.items():
            setattr(bad, field, value)
        tar.addfile(bad)
    return buffer.getvalue()


# The disk


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """A file system of that size at `place`."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_said_and_the_store_still_works(busybox: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "6m"):
        small = Builda(tmp_path / "disk/store", tmp_path / "run")
        small("from", "--name", "box", f"oci-archive:{busybox}:busybox")
        images_before = small("images", "-q", "--no-trunc")
        (tmp_path / "disk/filler").write_bytes(os.urandom(_free(tmp_path / "disk") - (1 << 20)))
        (tmp_path / "big").write_bytes(os.urandom(2 << 20))
        for verb in (["copy", "box", tmp_path / "big", "/big"], ["from", f"oci-archive:{busybox}:busybox"]):
            small.run(*verb, check=False)
        said = small.fails("copy", "box", tmp_path / "big", "/big")
        assert f"no space left on device, in the store: {small.root}" in said
        assert "hint: " in said
        (tmp_path / "disk/filler").unlink()
        assert small("images", "-q", "--no-trunc") == images_before
        assert small("run", "box", "--", "sh", "-c", "test -e /big || echo gone") == "gone"
        small("prune")
        assert small("fsck") == ""


def test_commit_to_a_full_disk_makes_no_image(busybox: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "8m"):
        small = Builda(tmp_path / "disk/store", tmp_path / "run")
        small("from", "--name", "box", f"oci-archive:{busybox}:busybox")
        (tmp_path / "big").write_bytes(os.urandom(2 << 20))
        small("copy", "box", tmp_path / "big", "/big")
        (tmp_path / "disk/filler").write_bytes(os.urandom(_free(tmp_path / "disk") - (1 << 20)))
        before = small("images", "--no-trunc", "--format", "{{.ID}} {{.Name}}:{{.Tag}}")
        assert "no space left on device, in the store" in small.fails("commit", "box", "localhost/made")
        assert small("images", "--no-trunc", "--format", "{{.ID}} {{.Name}}:{{.Tag}}") == before
        (tmp_path / "disk/filler").unlink()
        small("commit", "box", "localhost/made")
        assert small("fsck") == ""


def _free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_bsize


def test_a_read_only_store_can_be_read_and_says_why_it_cannot_be_written(busybox: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "20m"):
        frozen = Builda(tmp_path / "disk/store", tmp_path / "run")
        frozen("from", "--name", "box", f"oci-archive:{busybox}:busybox")
        listed = frozen("images", "--no-trunc", "--format", "{{.ID}} {{.Name}}:{{.Tag}}")
        subprocess.run(["mount", "-o", "remount,ro", tmp_path / "disk"], check=True)
        for verb in (["from", "scratch"], ["config", "--env", "A=b", "box"], ["commit", "box", "x"], ["rm", "box"]):
            said = frozen.fails(*verb)
            assert f"store is on a read-only file system: {frozen.root}" in said
            assert "hint: " in said
        assert frozen("images", "--no-trunc", "--format", "{{.ID}} {{.Name}}:{{.Tag}}") == listed
        assert json.loads(frozen("inspect", "box"))["Container"] == "box"


def test_no_permission_names_the_store(builda: Builda, container: str) -> None:
    """A root without the right to pass over permissions meets somebody else's store."""
    for path in (builda.root, *builda.root.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    poor = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", *builda.command]
    with unchanged(builda):
        for verb in (["from", "scratch"], ["tag", "busybox", "other"], ["rm", container]):
            result = subprocess.run([*poor, *verb], env=clean_environ(), capture_output=True, text=True)
            assert result.returncode == 125, result.stderr
            assert f"store belongs to another user: {builda.root}" in result.stderr
            assert "hint: " in result.stderr


# Containers


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("nosuch", 127, "no such command in the container: nosuch"),
        ("/no/such", 127, "/no/such"),
        ("/etc/passwd", 126, "not executable: /etc/passwd"),
        ("/etc", 126, "not executable: /etc"),
    ],
)
def test_run_of_what_cannot_be_executed(
    builda: Builda, container: str, command: str, status: int, message: str
) -> None:
    with unchanged(builda):
        assert message in builda.fails("run", container, "--", command, status=status)


@pytest.mark.parametrize("owner", ["nobody-here", "0:nobody-here", "1:2:3", "-1", ":"])
def test_an_owner_that_does_not_exist_copies_nothing(
    builda: Builda, container: str, tmp_path: Path, owner: str
) -> None:
    (tmp_path / "file").write_text("x")
    for verb in ("copy", "add"):
        with unchanged(builda):
            builda.fails(verb, "--chown", owner, container, tmp_path / "file", "/file")
    assert builda("run", container, "--", "sh", "-c", "test -e /file || echo gone") == "gone"


def test_an_entrypoint_that_is_no_json_changes_nothing(builda: Builda, container: str) -> None:
    with unchanged(builda):
        said = builda.fails("config", "--env", "A=b", "--entrypoint", '["lua", "main.lua"', container)
    assert '["lua", "main.lua"' in said


def test_rm_of_a_running_container_is_refused(builda: Builda, container: str) -> None:
    running = subprocess.Popen(
        [*builda.command, "run", container, "--", "sh", "-c", "echo started; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environ(),
        text=True,
    )
    with running:
        assert running.stdout is not None
        assert running.stdout.readline() == "started\n"
        for verb in (["rm", container], ["rm", "--all"]):
            assert f"container is running, process {running.pid}: {container}" in builda.fails(*verb)
        assert builda("containers", "--format", "{{.ContainerName}}") == container
        running.communicate("go on\n")
    assert running.returncode == 0
    builda("rm", container)
    assert builda("containers", "-q") == ""


def test_rm_of_a_mounted_container_unmounts_it(builda: Builda, container: str) -> None:
    mount = builda("mount", container)
    builda("rm", container)
    assert mount not in Path("/proc/self/mounts").read_text()
    assert not Path(mount).exists()


def test_rmi_of_an_image_that_a_container_needs_is_refused(builda: Builda, base: str, container: str) -> None:
    with unchanged(builda):
        said = builda.fails("rmi", builda("images", "-q", base))
    assert container in said
