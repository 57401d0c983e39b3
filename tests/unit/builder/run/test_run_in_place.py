"""run where nothing can be mounted: what the command meets in its tree, and what is left of it."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from builda.builder.imageoptions import CommitOptions, Inputs
from builda.errors import CommandFailed, Unsupported
from builda.events import CommandOutput, Emit
from builda.fs.layer import AS_IS
from builda.isolation import kinds
from builda.isolation.begun import Begun
from builda.isolation.spec import Process, Sandbox
from builda.plan import Run, RunMount, RunOptions
from builda.store.claims import Claim
from builda.store.containers import WorkingContainer
from tests.unit.builder.conftest import Bench, make_bench

pytestmark = pytest.mark.root


@dataclass
class Chroot:
    """A command in the tree itself, by chroot(2) and nothing else."""

    kind = kinds.PLAIN_CHROOT

    def run(self, process: Process, sandbox: Sandbox, emit: Emit, begun: Begun | None = None) -> int:
        assert (sandbox.files, sandbox.mounts, sandbox.devices) == ({}, (), ())
        (tree,) = sandbox.rootfs
        done = subprocess.run(
            ["chroot", tree.source, *process.args], env=dict(process.env), stdin=subprocess.DEVNULL, capture_output=True
        )
        emit(CommandOutput(data=done.stdout + done.stderr, stream="stdout", stage=None))
        if done.returncode:
            raise CommandFailed(done.stderr.decode(), status=done.returncode)
        return 0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        made = make_bench(tmp_path, stack, driver="plain", claim=Claim("chroot", mounts=False))
        made.change(isolation=lambda options: Chroot())
        yield made


def shell(bench: Bench, container: WorkingContainer, script: str, *mounts: RunMount, **inputs: object) -> str:
    bench.events.clear()
    step = Run(args=("sh", "-ec", script), stdin=b"", mounts=mounts)
    bench.builder.run(container, step, inputs=Inputs(**inputs), capture=True)  # type: ignore[arg-type]
    return bench.output


def layer(bench: Bench, container: WorkingContainer) -> list[str]:
    """The paths of the layer that a commit makes."""
    data = io.BytesIO()
    now = bench.store.container(container.id)
    bench.store.snapshots.take_out(now.snapshot)
    bench.store.snapshots.new.write_changes(now.snapshot, data, clamp=AS_IS, below=now.top)
    data.seek(0)
    with tarfile.open(fileobj=data) as archive:
        return archive.getnames()


def test_only_what_the_command_changed_is_in_the_layer(bench: Bench, container: WorkingContainer) -> None:
    output = shell(bench, container, "echo hi > /hi; cat /etc/hosts; echo x > /dev/null; ls /dev/shm /proc /sys")
    assert "localhost" in output
    assert layer(bench, container) == ["hi"]


def test_a_command_that_changes_nothing_leaves_nothing(bench: Bench, container: WorkingContainer) -> None:
    for _ in range(3):
        shell(bench, container, "true")
    assert layer(bench, container) == []


def test_a_file_of_two_names_is_not_changed(bench: Bench, container: WorkingContainer) -> None:
    shell(bench, container, "ln /etc/passwd /etc/other; ln /etc/group /etc/more")
    bench.builder.freeze(container)
    secret = RunMount(type="secret", id="x", target="/etc/passwd")
    shell(bench, container, "cat /etc/passwd", secret, secrets={"x": b"hidden"})
    assert layer(bench, container) == []
    shell(bench, container, "touch /etc/other", secret, secrets={"x": b"hidden"})
    assert [name for name in layer(bench, container) if name != "etc"] == ["etc/other", "etc/passwd"]


def test_a_secret_is_read_and_gone(bench: Bench, container: WorkingContainer) -> None:
    mount = RunMount(type="secret", id="token", target="/run/secrets/token")
    assert shell(bench, container, "cat /run/secrets/token", mount, secrets={"token": b"hidden"}) == "hidden"
    assert layer(bench, container) == []


def test_a_cache_lives_on(bench: Bench, container: WorkingContainer) -> None:
    mount = RunMount(type="cache", target="/root/.cache")
    shell(bench, container, "echo 1 > /root/.cache/one; chown 5 /root/.cache/one", mount)
    other = bench.builder.from_image("box")
    assert shell(bench, other, "cat /root/.cache/one", mount) == "1\n"
    assert layer(bench, container) == layer(bench, other) == []


def test_two_places_for_one_cache_are_refused(bench: Bench, container: WorkingContainer) -> None:
    mounts = [RunMount(type="cache", id="same", target=target) for target in ("/a", "/b")]
    with pytest.raises(Unsupported, match="at one path only: /b"):
        shell(bench, container, "true", *mounts)
    shell(bench, container, "touch /a/x /b/y", replace(mounts[0]), replace(mounts[1], sharing="private"))


def test_the_context_is_read_and_not_written(bench: Bench, container: WorkingContainer, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "file").write_text("content")
    mount = RunMount(type="bind", target="/src")
    assert shell(bench, container, "cat /src/file; rm /src/file", mount, context=context) == "content"
    assert os.listdir(context) == ["file"]
    with pytest.raises(Unsupported, match="cannot write to the host"):
        shell(bench, container, "true", replace(mount, read_only=False), context=context)


def test_volumes_are_read(bench: Bench, container: WorkingContainer, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/file").write_text("content")
    step = Run(args=("sh", "-ec", "cat /v/file; touch /v/new"))
    for options in ("ro", "O"):
        volumes = RunOptions(volumes=(f"{tmp_path}/volume:/v:{options}",))
        bench.builder.run(container, replace(step, options=volumes), capture=True)
    assert os.listdir(tmp_path / "volume") == ["file"]
    with pytest.raises(Unsupported, match="cannot write to the host"):
        bench.builder.run(container, replace(step, options=RunOptions(volumes=(f"{tmp_path}/volume:/v",))))


def test_an_agent_is_heard(bench: Bench, container: WorkingContainer, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "agent"))
        server.listen()
        mount = RunMount(type="ssh", target="")
        ssh = {"default": str(tmp_path / "agent")}
        assert shell(bench, container, "test -S $SSH_AUTH_SOCK; echo yes", mount, ssh=ssh) == "yes\n"
    assert layer(bench, container) == []


def test_what_a_killed_run_left_is_taken_out_by_the_next(bench: Bench, container: WorkingContainer) -> None:
    cache = RunMount(type="cache", target="/cache")
    child = os.fork()
    if child == 0:
        try:
            shell(bench, container, f"echo kept > /cache/file; kill -9 {os.getpid()}", cache)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    image = bench.builder.commit(container, CommitOptions())
    assert layer(bench, container) == []
    assert image.config.diff_ids
    assert shell(bench, container, "cat /cache/file", cache) == "kept\n"


@pytest.mark.parametrize("removed", [True, False])
def test_a_cache_in_a_container_that_was_killed_comes_back(
    bench: Bench, container: WorkingContainer, removed: bool
) -> None:
    cache = RunMount(type="cache", target="/cache")
    child = os.fork()
    if child == 0:
        try:
            shell(bench, container, f"echo kept > /cache/file; kill -9 {os.getpid()}", cache)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    if removed:
        bench.store.remove_container(container)
    assert shell(bench, bench.builder.from_image("box"), "cat /cache/file", cache) == "kept\n"
