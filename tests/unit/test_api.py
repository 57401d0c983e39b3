"""The public names, and everything wired together against a real registry."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import builda
from builda import edits
from builda.api import NamedFiles, Registries
from builda.events import ignore
from builda.oci.digest import Digest
from builda.oci.manifest import parse
from builda.store.pruning import prune
from tests.support import needs
from tests.support.base_images import busybox_tree
from tests.support.registry import PROGRAM, Registry, registry

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/python/build_app.py"


def test_all_names_can_be_had() -> None:
    for name in builda.__all__:
        assert getattr(builda, name) is not None
    assert set(builda.__all__) <= set(dir(builda))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        builda.nonsense  # noqa: B018


def test_importing_builda_imports_nothing_of_it() -> None:
    script = "import sys, builda; print(*[name for name in sys.modules if name.startswith('builda.')])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == ""


@pytest.mark.parametrize(
    "verb",
    [
        "builder.config(container, Configure(edits=(SetEnv('A', '1'),)))",
        "builder.store.images.tag(image, 'localhost/other:1')",
        "list(builder.store.images.iter())",
        "builder.store.image('box').config",
    ],
)
@pytest.mark.root
def test_light_verbs_import_no_heavy_package(base: Path, tmp_path: Path, verb: str) -> None:
    script = f"""
import sys
import builda
from builda import Configure

with builda.open_builder({str(tmp_path / "store")!r}, {str(tmp_path / "run")!r}) as builder:
    image = builder.pull("oci:{base}:box")
    builder.store.images.tag(image, "localhost/box:latest")
    container = builder.from_image("scratch")
    for name in [name for name in sys.modules if name.startswith("builda.")]:
        del sys.modules[name]
with builda.open_builder({str(tmp_path / "store")!r}, {str(tmp_path / "run")!r}) as builder:
    from builda import Configure
    from builda.oci.edits import SetEnv
    image = builder.store.image("box")
    container = builder.store.container("working-container")
    {verb}
heavy = ("builda.fs", "builda.isolation", "builda.registry", "builda.linux.mount")
print(*sorted(name for name in sys.modules if name.startswith(heavy)))
"""
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() in ("", "builda.linux.mount")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image layout with busybox in it, called box."""
    if os.geteuid() != 0:
        needs.not_here("needs root's right to mount")
    work = tmp_path_factory.mktemp("api")
    tree = busybox_tree(work / "tree")
    with builda.open_builder(work / "store", work / "run") as builder:
        container = builder.from_image("scratch")
        builder.copy(container, builda.Copy(sources=(str(tree),), destination="/"))
        builder.commit(container, builda.CommitOptions(destination=f"oci:{work}/layout:box"))
    return work / "layout"


@pytest.fixture(scope="module")
def server() -> Iterator[Registry]:
    if PROGRAM is None:
        pytest.skip("docker-registry is not installed")
    with registry() as started:
        yield started


ACCESS = builda.RegistryAccess(tls_verify=False)


@pytest.mark.root
@pytest.mark.network
def test_the_whole_way(base: Path, server: Registry, tmp_path: Path) -> None:
    name = server.name("base:1")
    with builda.open_builder(tmp_path / "seed", tmp_path / "run") as builder:
        image = builder.pull(f"oci:{base}:box")
        builder.push(str(image.id), f"docker://{name}", builda.PushOptions(access=ACCESS))
    with builda.open_builder(tmp_path / "store", tmp_path / "run") as builder:
        pull = builda.PullOptions(access=ACCESS)
        container = builder.from_image(name, builda.FromOptions(pull=pull))
        builder.run(container, builda.Run(args=("sh", "-c", "mkdir -p /srv && id -u > /srv/who")))
        (tmp_path / "main.sh").write_text("#!/bin/sh\ncat /srv/who\n")
        step = builda.Copy(sources=(str(tmp_path / "main.sh"),), destination="/srv/", chmod="755")
        builder.copy(container, step)
        changes = (edits.SetEnv("MODE", "prod"), edits.SetText("working_dir", "/srv"), edits.SetCmd(("./main.sh",)))
        builder.config(container, builda.Configure(edits=changes))
        made = builder.commit(container, builda.CommitOptions(destination=server.name("app:1"), remove=True))
        written = builder.push(server.name("app:1"), options=builda.PushOptions(access=ACCESS))
        assert written.digest == made.digest
        assert not list(builder.store.containers.iter())
    output: list[bytes] = []

    def emit(event: object) -> None:
        output.append(getattr(event, "data", b""))

    with builda.open_builder(tmp_path / "other", tmp_path / "run", emit=emit) as builder:
        found = builder.pull(server.name("app:1"), pull)
        assert (found.digest, found.id) == (made.digest, made.id)
        assert len(parse(found.raw).layers) == 2  # type: ignore[union-attr]  # it is an image
        again = builder.from_image(server.name("app:1"))
        builder.run(again, builda.Run(args=("./main.sh",)), capture=True)
        assert b"".join(output) == b"0\n"


@pytest.mark.root
@pytest.mark.network
@needs.program("skopeo")
def test_the_registry_names_the_digest_that_was_committed(base: Path, server: Registry, tmp_path: Path) -> None:
    with builda.open_builder(tmp_path / "store", tmp_path / "run") as builder:
        container = builder.from_image(f"oci:{base}:box")
        options = builda.CommitOptions(destination=f"docker://{server.name('direct:1')}", access=ACCESS)
        made = builder.commit(container, options)
    command = ["skopeo", "inspect", "--tls-verify=false", "--format={{.Digest}}", f"docker://{server.name('direct:1')}"]
    assert Digest.parse(subprocess.check_output(command, text=True).strip()) == made.digest


@pytest.mark.root
def test_the_example_builds_an_image_that_runs(base: Path, tmp_path: Path) -> None:
    environ = {**os.environ, "BUILDA_ROOT": str(tmp_path / "store"), "BUILDA_RUNROOT": str(tmp_path / "run")}
    command = [sys.executable, str(EXAMPLE), f"oci:{base}:box", "app:1"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    greeting, image_id = done.stdout.split("\n", 1)
    assert greeting == "hello from a test, built by builda"
    with builda.open_builder(tmp_path / "store", tmp_path / "run") as builder:
        assert builder.store.image("app:1").id.encoded == image_id.strip()
        assert builder.store.image("app:1").config.user == "1000:1000"
        assert not list(builder.store.containers.iter())


@pytest.mark.root
def test_the_example_says_what_went_wrong(tmp_path: Path) -> None:
    environ = {**os.environ, "BUILDA_ROOT": str(tmp_path / "store"), "BUILDA_RUNROOT": str(tmp_path / "run")}
    command = [sys.executable, str(EXAMPLE), f"oci:{tmp_path}/none:box", "app:1"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 125
    assert done.stderr.startswith("error: ")


KILLED = """
import sys
import builda
from builda import CommitOptions, Copy, Run
with builda.open_builder(sys.argv[1], sys.argv[2]) as builder:
    print("ready", flush=True)
    for number in range(1000):
        container = builder.from_image("box")
        builder.run(container, Run(args=("sh", "-c", f"echo {number} > /number")))
        builder.copy(container, Copy(sources=("/bin/true",), destination="/copied"))
        container = builder.freeze(container)
        builder.run(container, Run(args=("true",)))
        builder.commit(container, CommitOptions(destination="made", remove=number % 2 == 0))
        if number % 2:
            builder.remove(container)
"""


@pytest.mark.root
def test_killed_at_any_moment_everything_works_and_nothing_is_left(base: Path, tmp_path: Path) -> None:
    store, run = tmp_path / "store", tmp_path / "run"
    with builda.open_builder(store, run) as builder:
        image = builder.pull(f"oci:{base}:box")
        builder.store.images.tag(image, "localhost/box:latest")
        with builder.view(builder.store.image("box")):  # its trees are there before
            pass
        builder.store.images.untag(image.names[0])
        prune(builder.store)
    before = inventory(store)
    for moment in range(12):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(store), str(run)], stdout=subprocess.PIPE) as victim:
            assert victim.stdout is not None
            assert victim.stdout.readline() == b"ready\n"
            time.sleep(0.02 + 0.037 * moment)
            victim.send_signal(signal.SIGKILL)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    with builda.open_builder(store, run) as builder:
        if builder.store.find_image("made") is not None:
            check = builder.from_image("made")
            builder.run(check, builda.Run(args=("cat", "/number", "/copied")), capture=True)
        for container in tuple(builder.store.containers.iter()):
            builder.run(container, builda.Run(args=("true",)))
            builder.commit(container, builda.CommitOptions(destination="again"))
            builder.remove(container)
        for name in ("made", "again"):
            if builder.store.find_image(name) is not None:
                builder.store.remove_image(name)
    with builda.open_builder(store, run) as builder:
        prune(builder.store)
        assert builder.store.fsck() == ()
    assert inventory(store) == before


def inventory(store: Path) -> dict[str, int]:
    """How many entries each directory of the store has, the files of snapshots among them."""
    return {
        path.name: sum(1 for _ in path.rglob("*")) for path in store.iterdir() if path.is_dir() and path.name != "locks"
    }


@pytest.mark.root
def test_a_builder_can_go_where_its_mode_works(tmp_path: Path) -> None:
    script = f"""
import builda, os
with builda.open_builder({str(tmp_path / "store")!r}, {str(tmp_path / "run")!r}, mode="userns") as builder:
    container = builder.from_image("scratch")
    print(os.stat("/proc/self/ns/user").st_ino != 0xEFFFFFFD, builder.mount(container))
"""
    said = subprocess.check_output([sys.executable, "-c", script], text=True).split()
    assert said[0] == "True"
    assert not os.path.ismount(said[1])


@pytest.mark.root
def test_a_containerfile_is_built_from_python(base: Path, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "f").write_text("content")
    (context / "left-out").write_text("")
    (context / ".dockerignore").write_text("left-out\n")
    (context / "Containerfile").write_text("FROM box AS first\nARG V\nENV V=$V\nCOPY . /srv/\nFROM first\nENV LAST=1\n")
    with builda.open_builder(tmp_path / "store", tmp_path / "run") as builder:
        builder.store.images.tag(builder.pull(f"oci:{base}:box"), "localhost/box:latest")
        image = builda.build_directory(
            builder, context, names=("app:1", "other"), build_args={"V": "7"}, target="first"
        )
        assert image.names == ("localhost/app:1", "localhost/other:latest")
        assert image.config.environ()["V"] == "7"
        assert "LAST" not in image.config.environ()
        assert not list(builder.store.containers.iter())
        with builder.mounted(builder.from_image("app:1")) as root:
            assert sorted(os.listdir(f"/proc/self/fd/{root}/srv")) == [".dockerignore", "Containerfile", "f"]
        with pytest.raises(builda.errors.NotFound, match="no Containerfile or Dockerfile in the context"):
            builda.build_directory(builder, tmp_path)
        with pytest.raises(builda.errors.NotFound, match="for the Containerfile: missing"):
            builda.build_directory(builder, context, file="missing")


@pytest.mark.root
def test_a_command_that_is_no_step_is_named(base: Path, tmp_path: Path) -> None:
    with builda.open_builder(tmp_path / "store", tmp_path / "run") as builder:
        container = builder.from_image(f"oci:{base}:box")
        with pytest.raises(TypeError, match=r"run takes a Run, as in builda.Run\(args=\('true',\)\): \['true'\]"):
            builder.run(container, ["true"])  # type: ignore[arg-type]


def test_stages_that_ask_at_the_same_time_share_a_client() -> None:
    registries = Registries(emit=ignore, environ={}, files=NamedFiles())
    together = threading.Barrier(8, timeout=20)

    def client(_: int) -> object:
        together.wait()
        return registries._client(ACCESS)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(client, range(8)))
    registries.close()
    assert len(set(map(id, found))) == 1
