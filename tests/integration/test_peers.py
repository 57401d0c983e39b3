"""What builda writes is read and run by the other tools, and the other way round."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Builda

pytestmark = pytest.mark.root

NAME = "localhost/made:1"
TRANSPORTS = ["oci:{}/a:x", "oci-archive:{}/a.tar:x", "docker-archive:{}/a.tar:localhost/x:1", "dir:{}/a"]


def output(*command: str | Path) -> str:
    """What a command that succeeds prints."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory with a name as short as podman wants it for its run root."""
    with tempfile.TemporaryDirectory(prefix="p", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
def made(builda: Builda, base: str) -> str:
    """The name of an image with owners, modes, links, a whiteout and a capability."""
    container = builda("from", base)
    script = "mkdir -p /srv/d && echo x > /srv/f && chown 12:34 /srv/f && chmod 4751 /srv/f && ln /srv/f /srv/hard"
    builda("run", container, "--", "sh", "-c", f"{script} && ln -s f /srv/soft && rm /bin/vi && mkfifo /srv/pipe")
    mount = builda("mount", container)
    output("setcap", "cap_net_raw+ep", f"{mount}/srv/f")
    builda("umount", container)
    builda("config", "--env", "MODE=prod", "--workingdir", "/srv", "--cmd", '["cat", "f"]', container)
    builda("commit", "--rm", container, NAME)
    return NAME


def assert_is_made(root: Path) -> None:
    """The tree has everything that the image `made` has."""
    info = os.stat(root / "srv/f")
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777, info.st_nlink) == (12, 34, 0o4751, 2)
    assert os.getxattr(root / "srv/f", "security.capability")
    assert os.readlink(root / "srv/soft") == "f"
    assert (root / "srv/pipe").is_fifo()
    assert not (root / "bin/vi").exists()
    assert (root / "bin/ls").is_symlink()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_skopeo_reads_what_builda_pushes(builda: Builda, made: str, tmp_path: Path, transport: str) -> None:
    place = transport.format(tmp_path)
    builda("push", made, place)
    assert json.loads(output("skopeo", "inspect", "--config", place))["config"]["WorkingDir"] == "/srv"
    output("skopeo", "copy", "--quiet", place, f"dir:{tmp_path}/copied")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_builda_reads_what_skopeo_writes(builda: Builda, made: str, tmp_path: Path, transport: str) -> None:
    place = transport.format(tmp_path)
    output("skopeo", "copy", "--quiet", f"oci:{builda.root}:{made}", place)
    assert_is_made(Path(builda("mount", builda("from", place))))


def test_skopeo_copies_the_same_digest_out_of_the_store(builda: Builda, made: str, tmp_path: Path) -> None:
    output("skopeo", "copy", "--quiet", "--preserve-digests", f"oci:{builda.root}:{made}", f"oci:{tmp_path}/o:x")
    index = json.loads((tmp_path / "o/index.json").read_text())
    digest = builda("inspect", "--type", "image", "--format", "{{.FromImageDigest}}", made)
    assert index["manifests"][0]["digest"] == digest


def test_podman_runs_an_image_of_the_store(builda: Builda, made: str, tmp_path: Path, short: Path) -> None:
    podman = ["podman", "--root", str(tmp_path / "podman"), "--runroot", str(short), "--storage-driver", "vfs"]
    podman += ["--cgroup-manager", "cgroupfs", "--events-backend", "none"]
    image = output(*podman, "pull", "--quiet", f"oci:{builda.root}:{made}")
    # podman wants higher limits than some machines allow
    podman += ["run", "--rm", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    podman += ["--runtime", "runc"]  # crun refuses machines with both kinds of cgroups
    assert output(*podman, image) == "x"
    assert output(*podman, image, "sh", "-c", "echo $MODE $PWD") == "prod /srv"


def test_buildah_works_on_an_image_of_the_store(builda: Builda, made: str, tmp_path: Path, short: Path) -> None:
    buildah = ["buildah", "--root", str(tmp_path / "buildah"), "--runroot", str(short), "--storage-driver", "vfs"]
    container = output(*buildah, "from", "--quiet", f"oci:{builda.root}:{made}")
    mount = Path(output(*buildah, "mount", container))
    assert_is_made(mount)
    output(*buildah, "umount", container)
    output(*buildah, "config", "--label", "by=buildah", container)
    output(*buildah, "commit", "--quiet", container, f"oci-archive:{tmp_path}/back.tar:back")
    assert_is_made(Path(builda("mount", builda("from", f"oci-archive:{tmp_path}/back.tar"))))


def test_runc_runs_a_mounted_container(builda: Builda, made: str, tmp_path: Path) -> None:
    container = builda("from", made)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    output("runc", "spec", "--bundle", bundle)
    spec = json.loads((bundle / "config.json").read_text())
    spec["root"] = {"path": builda("mount", container), "readonly": True}
    spec["process"] |= {"terminal": False, "args": ["stat", "-c", "%u:%g", "/srv/f"], "rlimits": []}
    (bundle / "config.json").write_text(json.dumps(spec))
    assert output("runc", "--root", tmp_path / "runc", "run", "--bundle", bundle, f"made-{os.getpid()}") == "12:34"


@pytest.mark.parametrize("isolation", ["oci", "chroot", "native"])
def test_every_isolation_runs_it(builda: Builda, made: str, isolation: str) -> None:
    container = builda("from", made)
    assert builda("run", "--isolation", isolation, container, "--", "sh", "-c", "cat f; pwd") == "x\n/srv"
