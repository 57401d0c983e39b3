"""run: what the command meets, and what is left of it."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from builda.builder.imageoptions import FromOptions, Inputs
from builda.errors import CommandFailed, InvalidValue, NotFound, Unsupported
from builda.isolation import kinds
from builda.oci.config import ImageConfig
from builda.oci.edits import AddVolume, SetEnv, SetText
from builda.plan import Configure, Copy, FromContainer, FromImage, Run, RunMount, RunOptions
from builda.store.containers import WorkingContainer
from builda.store.store import Image
from tests.unit.builder.conftest import Bench, FakeIsolation, make_bench

pytestmark = pytest.mark.root
NO_INPUTS = Inputs()


def test_only_what_the_command_changed_is_in_the_layer(bench: Bench, container: WorkingContainer) -> None:
    bench.shell(container, "echo hi > /hi; cat /etc/hosts /etc/resolv.conf /run/.containerenv > /dev/null")
    assert bench.upper(container) == ["hi"]


def test_a_command_that_changes_nothing_leaves_nothing(bench: Bench, container: WorkingContainer) -> None:
    bench.shell(container, "true")
    assert bench.upper(container) == []


def test_a_directory_that_was_there_keeps_its_time(bench: Bench, container: WorkingContainer) -> None:
    def times() -> list[int]:
        with bench.builder.mounted(container) as root:
            return [os.stat(path, dir_fd=root).st_mtime_ns for path in (".", "etc")]

    before = times()
    bench.shell(container, "true")  # and mount points in both, for as long as it runs
    assert times() == before


def test_a_failure_has_the_commands_status_and_keeps_what_it_did(bench: Bench, container: WorkingContainer) -> None:
    with pytest.raises(CommandFailed, match="failed with exit status 42: sh") as caught:
        bench.shell(container, "touch /done; exit 42")
    assert caught.value.exit_status == 42
    assert bench.upper(container) == ["done"]


def test_a_signal_is_named(bench: Bench, container: WorkingContainer) -> None:
    with pytest.raises(CommandFailed, match="ended by signal 9") as caught:
        bench.shell(container, "kill -9 $$")
    assert caught.value.exit_status == 137


@pytest.mark.parametrize(("command", "status"), [("/no/such", 127), ("/etc/passwd", 126)])
def test_what_cannot_be_executed(bench: Bench, container: WorkingContainer, command: str, status: int) -> None:
    with pytest.raises(CommandFailed) as caught:
        bench.builder.run(container, Run(args=(command,)), capture=True)
    assert caught.value.exit_status == status
    assert bench.upper(container) == []


def test_statuses_can_be_allowed(bench: Bench, container: WorkingContainer) -> None:
    step = Run(args=("sh", "-c", "exit 3"))
    bench.builder.run(container, step, valid_statuses=frozenset({3}))
    with pytest.raises(CommandFailed) as caught:
        bench.builder.run(container, Run(args=("true",)), valid_statuses=frozenset({3}))
    assert caught.value.exit_status == 125


def test_the_environment(bench: Bench, container: WorkingContainer) -> None:
    bench.change(environ={"http_proxy": "http://proxy", "SECRET": "x"})
    bench.builder.config(container, Configure(edits=(SetEnv("A", "image"), SetEnv("B", "image"))))
    step = Run(args=("env",), env=(("B", "step"),))
    bench.builder.run(container, step, capture=True)
    env = dict(line.split("=", 1) for line in bench.output.splitlines())
    assert env == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME": container.id[:12],
        "HOME": "/root",
        "A": "image",
        "B": "step",
        "http_proxy": "http://proxy",
    }
    assert "proxy" not in bench.shell(container, "env", http_proxy=False)


def test_user_and_working_directory(bench: Bench, container: WorkingContainer) -> None:
    bench.shell(container, "echo bob:x:7:8::/home/bob:/bin/sh >> /etc/passwd; echo users:x:9:bob >> /etc/group")
    bench.builder.config(container, Configure(edits=(SetText("user", "bob"), SetText("working_dir", "/srv"))))
    bench.builder.run(container, Run(args=("sh", "-c", "id -u; id -g; id -G; pwd"), working_dir="new"), capture=True)
    assert bench.output.split() == ["7", "8", "8", "9", "/srv/new"]
    assert "7:8" in bench.shell(container, "stat -c %u:%g /srv/new")


def test_an_unknown_user_runs_nothing(bench: Bench, container: WorkingContainer) -> None:
    with pytest.raises(NotFound, match="unknown user"):
        bench.builder.run(container, Run(args=("touch", "/x"), user="nobodie"))
    assert bench.upper(container) == []


def test_a_file_for_a_working_directory_is_refused(bench: Bench, container: WorkingContainer) -> None:
    with pytest.raises(InvalidValue, match="not a directory in the container: /etc/passwd"):
        bench.builder.run(container, Run(args=("true",), working_dir="/etc/passwd"))


@pytest.mark.parametrize(
    "place",
    ["/proc/self/fd/7", "/dev/fd/7", "/proc/self/cwd", "/proc/1/root/etc", "/proc/self/task/1/fd/3", "/w", "/v/8"],
)
@pytest.mark.parametrize("isolation", ["native", "oci"])
def test_a_working_directory_that_only_processes_have_is_refused(
    bench: Bench, container: WorkingContainer, place: str, isolation: Literal["native", "chroot", "oci"]
) -> None:
    """An OCI runtime looks up its own (CVE-2024-21626), so nothing is started at all."""
    bench.shell(container, "ln -s dev/fd/8 /w; ln -s ../dev/fd /v")
    step = Run(args=("touch", "/x"), working_dir=place, options=RunOptions(isolation=isolation))
    bench.change(isolation=lambda _: FakeIsolation())
    with pytest.raises(InvalidValue, match=f"link of /proc, which the command cannot start in: {place}"):
        bench.builder.run(container, step)
    assert bench.upper(container) == ["v", "w"]


def test_a_directory_of_proc_is_a_place_to_start(bench: Bench, container: WorkingContainer) -> None:
    step = Run(args=("pwd",), working_dir="/proc/sys")
    bench.builder.run(container, step, capture=True)
    assert bench.output == "/proc/sys\n"


def test_volumes_of_the_image_are_there_for_commands(bench: Bench, container: WorkingContainer) -> None:
    bench.shell(container, "echo file > /file")
    edits = tuple(AddVolume(path) for path in ("/new/vol", "/tmp", "/file", "/file/below"))
    bench.builder.config(container, Configure(edits=edits))
    assert bench.shell(container, "stat -c '%a %u:%g' /new/vol; touch /new/vol/f; cat /file") == "755 0:0\nfile\n"
    assert bench.upper(container) == ["file", "new", "new/vol", "new/vol/f"]


def test_commands_of_builds_have_one_host_name(bench: Bench, container: WorkingContainer) -> None:
    step = Run(args=("sh", "-c", "hostname; echo $HOSTNAME; cat /etc/hostname"))
    bench.builder.run(container, step, inputs=Inputs(discard_writes=True), capture=True)
    assert bench.output == "buildkitsandbox\n" * 3
    bench.events.clear()
    bench.builder.run(
        container, replace(step, options=RunOptions(hostname="mine")), inputs=Inputs(discard_writes=True), capture=True
    )
    assert bench.output == "mine\nmine\nmine\n"


def test_no_command_is_refused(bench: Bench, container: WorkingContainer) -> None:
    with pytest.raises(InvalidValue, match="no command"):
        bench.builder.run(container, Run(args=()))


def test_what_from_said_holds_for_each_run(bench: Bench, box: Image) -> None:
    container = bench.builder.from_image("box", FromOptions(run=RunOptions(add_hosts=("db:192.0.2.1",))))
    hosts = bench.shell(container, "cat /etc/hosts", add_hosts=("web:192.0.2.2",))
    assert "192.0.2.1\tdb" in hosts
    assert "192.0.2.2\tweb" in hosts


def test_the_images_own_files_can_stay(bench: Bench, container: WorkingContainer) -> None:
    bench.builder.copy(container, Copy(sources=("hosts",), destination="/etc/"), inputs=_context(bench, hosts="mine"))
    options = {"no_hosts": True, "no_hostname": True, "dns": ("none",)}
    assert bench.shell(container, "cat /etc/hosts; ls /etc", **options) == "mine\ngroup\nhosts\npasswd\n".replace(
        "mine\n", "mine"
    )


def _context(bench: Bench, **files: str) -> Inputs:
    directory = bench.path / "context"
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text)
    return Inputs(context=directory)


def test_a_volume_is_the_hosts_directory(bench: Bench, container: WorkingContainer, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    bench.shell(container, "echo out > /mnt/here/file", volumes=(f"{shared}:/mnt/here",))
    assert (shared / "file").read_text() == "out\n"
    assert bench.upper(container) == []
    with pytest.raises(CommandFailed):
        bench.shell(container, "echo out > /mnt/here/file", volumes=(f"{shared}:/mnt/here:ro",))


@pytest.mark.parametrize("driver", ["overlay", "plain"])
def test_what_is_written_over_a_volume_is_thrown_away(busybox_layout: Path, tmp_path: Path, driver: str) -> None:
    shared = tmp_path / "shared"
    (shared / "d").mkdir(parents=True)
    (shared / "file").write_text("old")
    os.chown(shared / "file", 7, 8)
    os.chown(shared, 9, 10)
    shared.chmod(0o2751)
    script = (
        "cd /mnt/here; stat -c %u:%g:%a . file; echo x > other; echo x >> file; rm -r d; mkdir d; echo x >> /mnt/file"
    )
    volumes = (f"{shared}:/mnt/here:O", f"{shared}/file:/mnt/file:O")
    with ExitStack() as stack:
        bench = make_bench(tmp_path, stack, driver)
        container = bench.builder.from_image(f"oci:{busybox_layout}:box")
        assert bench.shell(container, script, volumes=volumes) == "9:10:2751\n7:8:644\n"
        assert os.listdir(bench.store.layout.path("ingest")) == []
    assert sorted(os.listdir(shared)) == ["d", "file"]
    assert (shared / "file").read_text() == "old"


def test_a_volume_can_be_given_to_the_user(bench: Bench, container: WorkingContainer, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "link").symlink_to("/etc/passwd")
    bench.builder.run(container, Run(args=("true",), user="7:8", options=RunOptions(volumes=(f"{shared}:/v:U",))))
    assert (shared.stat().st_uid, (shared / "link").lstat().st_gid) == (7, 8)
    assert os.stat("/etc/passwd").st_uid == 0


@pytest.mark.parametrize(
    ("volume", "error"),
    [("/etc", InvalidValue), ("rel:/x", InvalidValue), ("/no/such:/x", NotFound), ("/etc:/x:wat", InvalidValue)],
)
def test_volumes_that_mean_nothing(
    bench: Bench, container: WorkingContainer, volume: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        bench.shell(container, "true", volumes=(volume,))


def run(bench: Bench, container: WorkingContainer, script: str, *mounts: RunMount, inputs: Inputs = NO_INPUTS) -> str:
    bench.events.clear()
    bench.builder.run(container, Run(args=("sh", "-ec", script), mounts=mounts), inputs=inputs, capture=True)
    return bench.output


def test_a_bind_of_the_context_is_read_only_and_cannot_leave_it(bench: Bench, container: WorkingContainer) -> None:
    inputs = _context(bench, file="data")
    (bench.path / "context/out").symlink_to("/")
    mount = RunMount(type="bind", target="/ctx")
    assert run(bench, container, "cat /ctx/file; ! touch /ctx/new 2> /dev/null", mount, inputs=inputs) == "data"
    with pytest.raises(NotFound, match="in the context"):
        run(bench, container, "true", replace(mount, source="../store"), inputs=inputs)
    inside = run(bench, container, "ls /ctx", replace(mount, source="out"), inputs=inputs)
    assert inside == "file\nout\n"


def test_writes_to_a_bound_context_reach_it_in_scripts_only(bench: Bench, container: WorkingContainer) -> None:
    inputs = _context(bench)
    mount = RunMount(type="bind", target="/ctx", read_only=False)
    run(bench, container, "touch /ctx/kept", mount, inputs=inputs)
    run(bench, container, "touch /ctx/dropped; ls /ctx", mount, inputs=replace(inputs, discard_writes=True))
    assert os.listdir(bench.path / "context") == ["kept"]


def test_a_part_of_an_image_and_of_a_container(bench: Bench, container: WorkingContainer) -> None:
    bench.shell(container, "mkdir -p /data/sub; echo 1 > /data/sub/one; ln -s /data/sub /data/link; rm /etc/group")
    other = bench.builder.from_image("box")
    from_container = RunMount(type="bind", target="/m", from_=FromContainer(container.name), source="/data/link")
    assert run(bench, other, "cat /m/one", from_container) == "1\n"
    whole = RunMount(type="bind", target="/m", from_=FromContainer(container.name), source="/etc")
    assert run(bench, other, "ls /m", whole) == "passwd\n"
    writes = replace(whole, read_only=False)
    assert run(bench, other, "touch /m/new; ls /m", writes) == "new\npasswd\n"
    assert bench.shell(container, "ls /etc/passwd") == "/etc/passwd\n"
    file = RunMount(type="bind", target="/m", from_=FromImage("box"), source="/etc/passwd")
    assert run(bench, other, "grep -c root /m", file) == "1\n"
    assert run(bench, other, "echo x > /m; cat /m", replace(file, read_only=False)) == "x\n"
    assert run(bench, other, "grep -c root /m", file) == "1\n"
    with pytest.raises(NotFound, match="no such file or directory in box"):
        run(bench, other, "true", replace(file, source="/none"))


def test_a_cache_lives_on_and_is_in_no_layer(bench: Bench, container: WorkingContainer) -> None:
    cache = RunMount(type="cache", target="/var/cache/x", id="x", uid=7, mode=0o700)
    assert run(bench, container, "stat -c %u:%a /var/cache/x; echo kept > /var/cache/x/f", cache) == "7:700\n"
    other = bench.builder.from_image("box")
    assert run(bench, other, "cat /var/cache/x/f", cache) == "kept\n"
    assert run(bench, other, "ls /var/cache/x", replace(cache, uid=8)) == ""
    assert bench.upper(container) == []


def test_a_cache_can_start_from_an_image(bench: Bench, container: WorkingContainer) -> None:
    cache = RunMount(type="cache", target="/c", from_=FromImage("box"), source="/etc")
    assert run(bench, container, "rm /c/group; ls /c", cache) == "passwd\n"
    assert run(bench, container, "ls /c", cache) == "passwd\n"


def test_a_part_of_a_cache(bench: Bench, container: WorkingContainer) -> None:
    """Without `from` the source lies in the cache, not in the context, as BuildKit and Buildah have it."""
    inputs = _context(bench, sub="the context's")
    cache = RunMount(type="cache", target="/c", id="c", uid=7)
    part = replace(cache, target="/other", source="sub/./x")
    assert run(bench, container, "stat -c %u /other; echo 1 > /other/f", part, inputs=inputs) == "7\n"
    assert run(bench, container, "cat /c/sub/x/f; ln -s / /c/out; echo 2 > /c/g", cache, inputs=inputs) == "1\n"
    assert run(bench, container, "cat /other; echo 3 > /other", replace(part, source="/g"), inputs=inputs) == "2\n"
    assert (
        run(bench, container, "ls /other; cat /other/g", replace(part, source="out"), inputs=inputs)
        == "g\nout\nsub\n3\n"
    )


def test_a_tmpfs(bench: Bench, container: WorkingContainer) -> None:
    tmpfs = RunMount(type="tmpfs", target="/t", size=1 << 20)
    assert run(bench, container, "touch /t/x; df -k /t | tail -1 | awk '{print $2}'", tmpfs) == "1024\n"
    assert bench.upper(container) == []


def test_secrets_are_seen_and_nowhere_kept(bench: Bench, container: WorkingContainer) -> None:
    inputs = Inputs(secrets={"token": b"hunter2"})
    secret = RunMount(type="secret", target="/run/secrets/token", id="token", env="TOKEN", uid=7)
    shown = run(
        bench, container, "cat /run/secrets/token; echo $TOKEN; stat -c %u:%a /run/secrets/token", secret, inputs=inputs
    )
    assert shown == "hunter2hunter2\n7:400\n"
    assert bench.upper(container) == []
    assert b"hunter2" not in b"".join(p.read_bytes() for p in bench.path.rglob("*") if p.is_file())


@pytest.mark.parametrize("isolation", ["native", "chroot", "oci"])
def test_a_secret_lies_in_no_file_that_the_caller_has(
    bench: Bench, container: WorkingContainer, isolation: Literal["native", "chroot", "oci"]
) -> None:
    """What is killed can leave nothing then."""
    if isolation == "oci" and not (shutil.which("crun") or shutil.which("runc")):
        pytest.skip("there is no OCI runtime")
    secret = RunMount(type="secret", target="/run/secrets/token", id="token", uid=7, gid=8, mode=0o440)
    shared = RunMount(type="bind", source=str(bench.path), target="/shared", read_only=False)
    script = (
        "exec 2>/dev/null;"  # which may come between the lines
        "cat /run/secrets/token; stat -c %u:%g:%a /run/secrets/token; echo x > /run/secrets/token || echo refused;"
        "find /shared -xdev -type f | xargs grep -l hunter2 || echo nowhere"
    )
    step = Run(args=("sh", "-c", script), mounts=(secret, shared), options=RunOptions(isolation=isolation))
    bench.builder.run(container, step, inputs=Inputs(secrets={"token": b"hunter2\n"}), capture=True)
    assert bench.output.splitlines() == ["hunter2", "7:8:440", "refused", "nowhere"]


def test_a_missing_secret_is_an_error_when_required(bench: Bench, container: WorkingContainer) -> None:
    secret = RunMount(type="secret", target="/run/secrets/token", id="token")
    assert run(bench, container, "ls /run", secret) == ""
    with pytest.raises(NotFound, match="no such secret: token"):
        run(bench, container, "true", replace(secret, required=True))


def test_a_script_is_executed_as_a_file(bench: Bench, container: WorkingContainer) -> None:
    step = Run(args=(), script=b"#!/bin/sh\necho $0 $#\n")
    bench.builder.run(container, step, capture=True)
    assert bench.output == "/run/.builda-script 0\n"
    assert bench.upper(container) == []


def test_a_mounted_container_runs_on_its_mount(bench: Bench, container: WorkingContainer) -> None:
    place = bench.builder.mount(container)
    try:
        (place / "seen").write_text("before")
        assert bench.shell(container, "cat /seen; echo after > /seen") == "before"
        assert (place / "seen").read_text() == "after\n"
    finally:
        assert bench.builder.umount(container)
    assert bench.upper(container)[-1] == "seen"


def test_what_a_killed_run_left_goes_before_the_next_primitive(bench: Bench, container: WorkingContainer) -> None:
    record = bench.store.containers.path(container.id, "stubs")
    Path(record).write_text(
        '{"path":"mnt","directory":true,"mtime_ns":0,"made":false}\n'
        '{"path":"mnt","directory":true,"mtime_ns":1,"made":true}\n'
    )
    with bench.builder.mounted(container):
        pass  # nothing to remove: the record alone goes
    assert not os.path.exists(record)


def test_history_is_kept_when_asked_for(bench: Bench, container: WorkingContainer) -> None:
    bench.builder.run(container, Run(args=("true",), created_by="/bin/sh -c true"))
    assert [entry.created_by for entry in bench.store.container(container.id).history] == ["/bin/sh -c true"]


def fake(bench: Bench, status: int = 0) -> FakeIsolation:
    isolation = FakeIsolation(status=status)
    bench.change(isolation=lambda options: isolation)
    return isolation


def test_what_options_ask_of_isolation(bench: Bench, container: WorkingContainer) -> None:
    isolation = fake(bench)
    options = RunOptions(
        network="none",
        pid="host",
        ipc="ns:/proc/1/ns/ipc",
        shm_size=1 << 20,
        memory=1 << 30,
        ulimits=("nofile=100:200",),
        cap_drop=("all",),
        hostname="me",
        devices=("/dev/null:/dev/mine:rw",),
        group_add=("5",),
    )
    bench.builder.run(container, Run(args=("x",), options=options))
    assert isolation.sandbox is not None
    assert isolation.process is not None
    assert isolation.sandbox.network == "none"
    assert isolation.sandbox.namespaces == {
        "pid": "host",
        "ipc": "ns:/proc/1/ns/ipc",
        "uts": "private",
        "cgroup": "private",
    }
    assert (isolation.sandbox.shm_size, isolation.sandbox.resources) == (1 << 20, {"memory": 1 << 30})
    assert isolation.sandbox.hostname == "me"
    assert [(d.source, d.target, d.permissions) for d in isolation.sandbox.devices] == [
        ("/dev/null", "/dev/mine", "rw")
    ]
    assert isolation.process.capabilities == ()
    assert isolation.process.user.additional_gids == (0, 5)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (RunOptions(network="nowhere"), NotFound),
        (RunOptions(network="pasta"), Unsupported),
        (RunOptions(pid="container:x"), InvalidValue),
        (RunOptions(devices=("vendor.com/class=all",)), Unsupported),
        (RunOptions(devices=("/etc/passwd",)), InvalidValue),
        (RunOptions(devices=("/dev/none",)), NotFound),
        (RunOptions(devices=("/dev/null:/x:rwx",)), InvalidValue),
    ],
)
def test_options_that_cannot_be_kept_are_refused(
    bench: Bench, container: WorkingContainer, options: RunOptions, error: type[Exception]
) -> None:
    isolation = fake(bench)
    with pytest.raises(error):
        bench.builder.run(container, Run(args=("x",), options=options))
    assert isolation.process is None


def test_chroot_has_no_network_of_its_own(bench: Bench, container: WorkingContainer) -> None:
    isolation = fake(bench)
    isolation.kind = kinds.CHROOT
    bench.builder.run(container, Run(args=("x",)))
    with pytest.raises(InvalidValue, match="other than host with --isolation chroot"):
        bench.builder.run(container, Run(args=("x",), options=RunOptions(network="none")))


def test_the_configurations_hostname_counts(bench: Bench, container: WorkingContainer) -> None:
    bench.builder.config(container, Configure(edits=(SetText("hostname", "named"),)))
    assert isinstance(container.config, ImageConfig)
    assert bench.shell(container, "hostname") == "named\n"
