"""The image of builda itself: built by builda from the example, and building in pods."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Builda
from tests.support import needs
from tests.support.pods import PODSIM, sampled
from tests.support.rootless import REPOSITORY

pytestmark = [
    pytest.mark.root,
    pytest.mark.network,
    pytest.mark.timeout(900),
    needs.program("crun", "runc"),
]
IN_POD = """set -e
builda info --format '{{.host.mode}}'; echo
builda pull -q oci-archive:/given/debian.tar:debian >&2
for file in WithoutRun Containerfile; do
  builda bud -q -f /given/$file -t built /given >&2 && builda inspect --type image --format '{{.FromImageDigest}}' built
  echo
done
"""
PROFILES = {
    "privileged-root": "direct",
    "root-default": "chroot",
    "root-default-unconfined": "userns",
    "rootless-setuid": "subid",
    "rootless-nosetuid": "single",
    "userns-pod": "userns",
    "userns-pod-unmasked": "userns",
    "userns-pod-seccomp": "chroot",
    "userns-pod-admin": "direct",
    "userns-pod-admin-unmasked": "direct",
    "userns-rootless": "subid",
    "restricted": "traced",
    "restricted-ro": "traced",
}
SAMPLE = ("privileged-root", "userns-pod", "restricted")  # the other pods are built in by `make test-long`


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, debian: Path) -> Path:
    """The root file system of the image that `examples/kubernetes/Containerfile` describes."""
    return own_image(tmp_path_factory.mktemp("own"), debian)


def own_image(work: Path, debian: Path, *arguments: str) -> Path:
    """The image, built in the directory `work` with these build arguments, as a root file system."""
    builda = Builda(work / "store", work / "run")
    builda("pull", "--quiet", f"oci-archive:{debian}:debian")
    context = work / "context"
    context.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, context)
    for name in ("builda", "docs", "examples", "tools"):
        shutil.copytree(REPOSITORY / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
    own = REPOSITORY / "examples/kubernetes/Containerfile"
    options: list[str | Path] = ["-f", own, "--build-arg", "BASE=localhost/debian:debian"]
    options += [word for argument in arguments for word in ("--build-arg", argument)]
    builda("bud", "--quiet", *options, "--output", f"type=tar,dest={work}/image.tar", context, seconds=800)
    (work / "rootfs").mkdir()
    subprocess.run(
        ["tar", "-C", work / "rootfs", "--xattrs", "--xattrs-include=*", "-xpf", work / "image.tar"], check=True
    )
    return work / "rootfs"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, debian: Path) -> Path:
    path = tmp_path_factory.mktemp("given")
    path.chmod(0o755)
    (path / "debian.tar").write_bytes(debian.read_bytes())
    (path / "Containerfile").write_text(
        "FROM localhost/debian:debian\nRUN SOURCE_DATE_EPOCH=0 useradd -m x && chown x:x /srv && chmod 2750 /srv\n"
    )
    (path / "WithoutRun").write_text("FROM localhost/debian:debian\nCOPY --chown=7:8 Containerfile /srv/\n")
    return path


def built(profile: str, image: Path, given: Path) -> tuple[list[str], str]:
    """Mode, digest without RUN and digest with RUN if there is one, as a pod prints them; and its standard error."""
    options: list[str | Path] = [
        "--rootfs",
        image,
        "--emptydir",
        "/vol",
        "--bind",
        f"{given}:/given:ro",
        "--timeout",
        "200",
    ]
    variables = ["--env", "BUILDA_ROOT=/vol/store", "--env", "SOURCE_DATE_EPOCH=1700000000"]
    done = subprocess.run(
        [PODSIM, profile, *options, *variables, "--", "bash", "-c", IN_POD],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


def test_the_image_holds_what_its_modes_need(image: Path) -> None:
    found = subprocess.run(
        ["getcap", image / "usr/bin/newuidmap", image / "usr/bin/newgidmap"], capture_output=True, text=True, check=True
    )
    assert "newuidmap cap_setuid=ep" in found.stdout
    assert "newgidmap cap_setgid=ep" in found.stdout
    assert not (image / "usr/bin/newuidmap").stat().st_mode & 0o4000
    assert not (image / "wheels").exists()
    assert not list((image / "var/lib/apt/lists").glob("*Packages*"))


@pytest.fixture(scope="module")
def by_root(image: Path, given: Path) -> tuple[list[str], str]:
    """What `built` returns for root in a privileged pod."""
    return built("privileged-root", image, given)


@pytest.mark.parametrize("profile", sampled(PROFILES, SAMPLE))
def test_the_image_builds_in_every_pod(profile: str, image: Path, given: Path, by_root: tuple[list[str], str]) -> None:
    (mode, without_run, *with_run), _ = by_root if profile == "privileged-root" else built(profile, image, given)
    expected = by_root[0][1:]
    assert mode == PROFILES[profile]
    assert without_run == expected[0]
    if mode in ("chroot", "traced"):  # the files are the same, and layers say so in other words
        assert len(with_run) == 1
    else:
        assert len(with_run) == 1
        assert with_run == expected[1:]
