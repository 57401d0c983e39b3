"""Native isolation on the real kernel, as root, with busybox inside."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from builda.errors import BuildaError, CommandFailed, InvalidValue, IsolationUnavailable, NotFound, Unsupported
from builda.isolation.made_mountpoints import remove_made
from builda.isolation.spec import Device, Rlimit, User
from builda.linux import caps
from builda.linux.mount import Mount
from tests.support import needs

pytestmark = pytest.mark.root
NATIVE_CHILD = str(Path(__file__).parents[3] / "builda/isolation/child/start.py")


def until(condition: Callable[[], Any], seconds: float = 10) -> Any:
    """The first true result of `condition`; it is asked again and again for at most so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.01)
    raise AssertionError("it did not happen in time")


def children_running(place: Path) -> list[int]:
    """Processes of builda's child that belong to runners of this test, whose directory is `place`.

    Tests of other workers run children too. A child has one variable of its caller's environment, LD_LIBRARY_PATH,
    which `runner` sets to `place`.
    """
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if NATIVE_CHILD.encode() in words and f"LD_LIBRARY_PATH={place}".encode() in variables:
            found.append(int(entry.name))
    return found


# -- what the command sees


def test_only_its_own_processes_are_seen(box: Any) -> None:
    pids = box.shell("ls /proc | grep -E '^[0-9]+$'").split()
    assert pids[0] == "1"
    assert len(pids) <= 5


def test_pid_1_is_buildas_init(box: Any) -> None:
    assert box.shell("cat /proc/1/comm") == "builda-init\n"


def test_init_shows_nothing_of_the_caller(box: Any) -> None:
    assert box.run("cat", "/proc/1/environ") == 1
    assert box.run("readlink", "/proc/1/fd/0") == 1
    assert box.run("readlink", "/proc/1/exe") == 1


def test_host_name_is_its_own(box: Any) -> None:
    before = os.uname().nodename
    assert box.shell("hostname") == "box\n"
    assert os.uname().nodename == before


def test_masked_paths_are_empty_and_read_only_ones_refuse_writes(box: Any) -> None:
    assert box.shell("cat /proc/keys /proc/timer_list; ls /sys/firmware") == ""
    assert "Read-only" in box.shell("echo 1 2>&1 > /proc/sys/kernel/printk || true; touch /proc/sys/x 2>&1 || true")


def test_sys_is_read_only(box: Any) -> None:
    assert box.run("mkdir", "/sys/fs/cgroup/x") == 1
    assert "Read-only" in box.output


def test_devices_are_the_usual_ones(box: Any) -> None:
    names = set(box.shell("ls /dev").split())
    assert names == set("core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero".split())
    assert box.shell("echo x > /dev/null; head -c 3 /dev/zero | od -An -tx1").split() == ["00"] * 3


def test_shared_memory_has_the_size_asked_for(box: Any) -> None:
    assert "1024" in box.shell("df -k /dev/shm | tail -1", shm_size=1 << 20)


def test_files_of_the_caller_are_over_the_images(box: Any) -> None:
    (box.rootfs / "etc/hosts").write_text("image\n")
    files = {"/etc/hosts": b"caller\n", "/etc/resolv.conf": b"nameserver 192.0.2.1\n"}
    assert box.shell("cat /etc/hosts /etc/resolv.conf", files=files) == "caller\nnameserver 192.0.2.1\n"
    assert (box.rootfs / "etc/hosts").read_text() == "image\n"


def test_nothing_is_mounted_for_the_caller(box: Any) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    box.shell("true", mounts=(Mount("tmpfs", "tmpfs", "/tmp"),))
    assert Path("/proc/self/mountinfo").read_text() == before


def test_what_it_writes_is_in_the_rootfs(box: Any) -> None:
    box.shell("echo kept > /root/file; umask", umask=0o027)
    assert box.output == "0027\n"
    assert (box.rootfs / "root/file").read_text() == "kept\n"


def test_working_directory_and_environment_are_as_given(box: Any) -> None:
    assert box.shell("pwd; echo $A", cwd="/tmp", env=(("PATH", "/bin"), ("A", "b c"))) == "/tmp\nb c\n"


def test_no_descriptor_of_the_caller_is_inherited(box: Any, tmp_path: Path) -> None:
    with open(tmp_path / "lock", "w") as file:
        os.set_inheritable(file.fileno(), True)
        assert box.shell("ls /proc/self/fd").split() == ["0", "1", "2", "3"]  # 3 is the directory being listed


# -- input, output, status


def test_exit_status_is_passed_on(box: Any) -> None:
    assert box.run("sh", "-c", "exit 42") == 42


def test_death_by_a_signal_is_128_and_its_number(box: Any) -> None:
    assert box.run("sh", "-c", "kill -9 $$") == 137
    assert box.run("sh", "-c", "kill -TERM $$") == 143


def test_input_is_what_was_given(box: Any) -> None:
    assert box.shell("wc -c", stdin=b"x" * 300_000).strip() == "300000"


def test_streams_are_told_apart(box: Any) -> None:
    box.run("sh", "-c", "echo out; echo err >&2", stage="build")
    assert {(event.stream, event.data, event.stage) for event in box.events} == {
        ("stdout", b"out\n", "build"),
        ("stderr", b"err\n", "build"),
    }


def test_a_user_may_reopen_the_output(box: Any) -> None:
    assert box.shell("echo hello > /dev/stderr", user=User(uid=1000, gid=1000)) == "hello\n"


def test_broken_pipes_end_a_command(box: Any) -> None:
    assert box.shell("set +e; (yes; echo $? >&2) | head -1") == "y\n141\n"


def test_no_such_command_is_127_and_named(box: Any) -> None:
    with pytest.raises(CommandFailed, match="no such command in the container: frobnicate") as caught:
        box.run("frobnicate")
    assert caught.value.status == 127
    assert caught.value.hint == "PATH is /bin"


@pytest.mark.parametrize("args", [("/etc/passwd",), ("/etc",), ("passwd",)])
def test_what_is_not_executable_is_126(box: Any, args: tuple[str, ...]) -> None:
    with pytest.raises(CommandFailed, match="not executable: /etc") as caught:
        box.run(*args, env=(("PATH", "/etc"),))
    assert caught.value.status == 126


def test_a_script_without_its_interpreter_says_so(box: Any) -> None:
    script = box.rootfs / "bin/script"
    script.write_text("#!/usr/bin/python9\n")
    script.chmod(0o755)
    with pytest.raises(CommandFailed, match=r"interpreter of /bin/script is not in the container: /usr/bin/python9"):
        box.run("script")


def test_a_carriage_return_after_the_interpreter_is_pointed_out(box: Any) -> None:
    script = box.rootfs / "bin/script"
    script.write_text("#!/bin/sh\r\ntrue\r\n")
    script.chmod(0o755)
    with pytest.raises(CommandFailed) as caught:
        box.run("script")
    assert caught.value.hint == "its first line ends in a carriage return"


def test_a_file_that_is_no_program_is_126(box: Any) -> None:
    program = box.rootfs / "bin/program"
    program.write_bytes(b"\x7fELF, but not really")
    program.chmod(0o755)
    with pytest.raises(CommandFailed, match="not a program that this kernel can run: /bin/program") as caught:
        box.run("program")
    assert caught.value.status == 126


def test_a_missing_working_directory_is_named(box: Any) -> None:
    with pytest.raises(NotFound, match="/no/where"):
        box.run("true", cwd="/no/where")


# -- rights


def test_capabilities_are_dockers(box: Any) -> None:
    status = dict(line.split(":\t", 1) for line in box.shell("cat /proc/self/status").splitlines() if ":\t" in line)
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"00000000a80425fb"}
    assert {status[name] for name in ("CapInh", "CapAmb")} == {"0000000000000000"}
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "0"


def test_another_user_has_the_bounding_set_only(box: Any) -> None:
    user = User(uid=1000, gid=1000, additional_gids=(10, 20))
    status = box.shell("cat /proc/self/status; id", user=user)
    assert "CapEff:\t0000000000000000" in status
    assert "CapPrm:\t0000000000000000" in status
    assert "CapBnd:\t00000000a80425fb" in status
    assert "uid=1000(bob) gid=1000(bob) groups=10(wheel),20" in status


def test_no_new_privileges_is_set_when_asked(box: Any) -> None:
    assert "NoNewPrivs:\t1" in box.shell("cat /proc/self/status", no_new_privileges=True)


@pytest.mark.parametrize("user", [User(uid=0, gid=0), User(uid=1000, gid=1000)])
def test_the_default_filter_refuses_namespaces_and_mounts(box: Any, user: User) -> None:
    output = box.shell("unshare -U true 2>&1 || true; mount -t tmpfs x /tmp 2>&1 || true", user=user)
    assert output.count("not permitted") + output.count("denied") == 2


def test_the_filter_can_be_left_out(box: Any) -> None:
    assert "Seccomp:\t0" in box.shell("cat /proc/self/status", seccomp="unconfined")


def test_a_filter_of_the_user_is_installed(box: Any, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    assert box.run("mkdir", "/tmp/x", seccomp=str(profile)) == 1
    assert "Invalid cross-device link" in box.output


def test_a_device_node_of_its_own_making_opens_nothing(box: Any) -> None:
    output = box.shell(
        "mknod /root/zero c 1 5; head -c 1 /root/zero 2>&1 || true; mknod /dev/x c 1 5; cat /dev/x 2>&1 || true"
    )
    assert output.count("Permission denied") == 2
    assert stat.S_ISCHR((box.rootfs / "root/zero").stat().st_mode)  # but the image may have it


def test_a_device_can_be_given(box: Any) -> None:
    output = box.shell("head -c 2 /dev/mine | od -An -tx1", devices=(Device(source="/dev/zero", target="/dev/mine"),))
    assert output.split() == ["00", "00"]


def test_a_device_for_reading_only_is_refused(box: Any) -> None:
    with pytest.raises(Unsupported, match="/dev/mine:r"):
        box.run("true", devices=(Device(source="/dev/zero", target="/dev/mine", permissions="r"),))


def test_a_capability_that_the_caller_lacks_is_named(box: Any) -> None:
    lacking = [name for name, number in caps.NUMBERS.items() if number not in _held()]
    if not lacking:
        needs.not_here("this process has every capability")
    with pytest.raises(IsolationUnavailable, match=lacking[0]):
        box.run("true", capabilities=(*caps.DEFAULT, lacking[0]))
    assert box.run("true", capabilities=caps.NAMES) == 0  # ALL is all that there are


def test_limits_are_set(box: Any) -> None:
    assert box.shell("ulimit -n", rlimits=(Rlimit(type="RLIMIT_NOFILE", soft=77, hard=88),)) == "77\n"


def test_a_limit_that_may_not_be_raised_is_named(box: Any) -> None:
    if caps.NUMBERS["CAP_SYS_RESOURCE"] in _held():
        needs.not_here("this process may raise every limit")
    with pytest.raises(IsolationUnavailable, match="may not raise RLIMIT_NOFILE"):
        box.run("true", rlimits=(Rlimit(type="RLIMIT_NOFILE", soft=1, hard=1 << 31),))


def test_an_unknown_limit_is_named(box: Any) -> None:
    with pytest.raises(InvalidValue, match="RLIMIT_LUNCH"):
        box.run("true", rlimits=(Rlimit(type="RLIMIT_LUNCH", soft=1, hard=1),))


def _held() -> set[int]:
    from builda.linux.syscalls import capget

    return {number for number in range(64) if capget()[0] >> number & 1}


# -- namespaces


def test_network_none_has_only_lo_and_it_is_up(box: Any) -> None:
    assert box.shell("ls /sys/class/net; ip addr show lo").startswith("lo\n1: lo: <LOOPBACK,UP")


def test_host_namespaces_are_the_callers(box: Any) -> None:
    kinds = ("ipc", "uts", "cgroup")
    host = {"namespaces": dict.fromkeys(("pid", *kinds), "host"), "network": "host", "hostname": None}
    seen = box.shell("for n in ipc uts cgroup net pid; do readlink /proc/self/ns/$n; done", **host).split()
    assert seen == [os.readlink(f"/proc/self/ns/{name}") for name in (*kinds, "net", "pid")]


def test_a_namespace_can_be_joined(box: Any) -> None:
    with subprocess.Popen(["unshare", "--net", "--uts", "sleep", "60"]) as other:
        try:
            until(lambda: os.readlink(f"/proc/{other.pid}/ns/net") != os.readlink("/proc/self/ns/net"))
            wanted = os.readlink(f"/proc/{other.pid}/ns/net")
            assert box.shell("readlink /proc/self/ns/net", network=f"ns:/proc/{other.pid}/ns/net") == wanted + "\n"
        finally:
            other.kill()


def test_a_pid_namespace_can_be_joined_and_is_left_clean(box: Any) -> None:
    with subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "sleep", "60"]) as other:
        try:
            inner = until(lambda: Path(f"/proc/{other.pid}/task/{other.pid}/children").read_text().split())[0]
            namespaces = {"pid": f"ns:/proc/{inner}/ns/pid"}
            output = box.shell("cat /proc/1/comm; (sleep 55 &)", namespaces=namespaces)
            assert output == "sleep\n"
            assert not any(b"55" in words for words in _command_lines())
        finally:
            other.kill()


@pytest.mark.parametrize("path", ["/proc/self/ns/nothing", "/etc/passwd"])
def test_a_wrong_namespace_path_is_named(box: Any, path: str) -> None:
    with pytest.raises((NotFound, InvalidValue), match=path):
        box.run("true", network=f"ns:{path}")


def _command_lines() -> list[list[bytes]]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().split(b"\0"))
        except OSError:
            continue
    return lines


# -- mounts


def test_bind_mounts_read_only_and_read_write(box: Any, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    mounts = (Mount("bind", str(volume), "/data"), Mount("rbind", str(volume), "/view", ("ro",)))
    assert "Read-only" in box.shell("echo x > /data/file; touch /view/other 2>&1 || cat /view/file", mounts=mounts)
    assert (volume / "file").read_text() == "x\n"


def test_a_file_can_be_bound(box: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret")
    mounts = (Mount("bind", str(tmp_path / "secret"), "/run/secrets/key", ("ro",)),)
    assert box.shell("cat /run/secrets/key", mounts=mounts) == "s3cret"


def test_tmpfs_is_empty_and_forgotten(box: Any) -> None:
    mounts = (Mount("tmpfs", "tmpfs", "/root", ("size=65536", "mode=700")),)
    assert box.shell("touch /root/file; stat -c %a /root; df -k /root | tail -1", mounts=mounts).startswith("700\n")
    assert list((box.rootfs / "root").iterdir()) == []


def test_propagation_reaches_the_container_only_when_asked(box: Any, tmp_path: Path) -> None:
    """`rshared` makes what the command mounts in it seen by the caller: the reason why it is not the default."""
    volume = tmp_path / "volume"
    (volume / "inner").mkdir(parents=True)
    subprocess.run(["mount", "--bind", volume, volume], check=True)
    subprocess.run(["mount", "--make-shared", volume], check=True)
    try:
        capabilities = (*caps.DEFAULT, "CAP_SYS_ADMIN")
        for option, seen in (("rprivate", False), ("rslave", False), ("rshared", True)):
            box.shell(
                "mount -t tmpfs x /data/inner && touch /data/inner/file",
                mounts=(Mount("rbind", str(volume), "/data", (option,)),),
                capabilities=capabilities,
            )
            assert (volume / "inner/file").exists() is seen, option
    finally:
        subprocess.run(["umount", "-R", volume], check=True)


def test_a_missing_source_is_named(box: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=str(tmp_path / "missing")):
        box.run("true", mounts=(Mount("bind", str(tmp_path / "missing"), "/data"),))


def test_an_unknown_option_is_named(box: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="no such mount option: shiny"):
        box.run("true", mounts=(Mount("bind", str(tmp_path), "/data", ("shiny",)),))


def test_a_directory_does_not_go_on_a_file(box: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="/etc/passwd"):
        box.run("true", mounts=(Mount("bind", str(tmp_path), "/etc/passwd"),))


@pytest.mark.parametrize("link", ["/", "/etc", "../../../../etc", "/proc/self/root/etc", "/proc/1/root/etc"])
def test_a_hostile_mount_target_stays_inside(box: Any, tmp_path: Path, link: str) -> None:
    """The image links the target out of itself; the host must see neither a mount nor a new directory."""
    (box.rootfs / "escape").symlink_to(link)
    before = Path("/proc/self/mountinfo").read_text(), sorted(os.listdir("/etc")), sorted(os.listdir("/"))
    volume = tmp_path / "volume"
    volume.mkdir()
    with suppress(BuildaError):  # refusing is as good
        box.run("true", mounts=(Mount("bind", str(volume), "/escape/builda-test"),))
    assert (Path("/proc/self/mountinfo").read_text(), sorted(os.listdir("/etc")), sorted(os.listdir("/"))) == before


def test_a_dangling_link_is_followed_inside(box: Any) -> None:
    (box.rootfs / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub.conf")
    assert box.shell("cat /etc/resolv.conf", files={"/etc/resolv.conf": b"x\n"}) == "x\n"


def test_links_in_a_circle_are_an_error(box: Any, tmp_path: Path) -> None:
    (box.rootfs / "a").symlink_to("b")
    (box.rootfs / "b").symlink_to("a")
    with pytest.raises(InvalidValue, match="symbolic links"):
        box.run("true", mounts=(Mount("bind", str(tmp_path), "/a/x"),))


def test_overlay_of_200_layers(box: Any) -> None:
    layers = []
    for number in range(200):
        layer = box.rootfs / f"layer-{number}"
        layer.mkdir()
        (layer / f"f{number}").touch()
        layers.append(str(layer))
    for name in ("upper", "work"):
        (box.rootfs / name).mkdir()
    base = box.rootfs / "base"
    base.mkdir()
    for name in ("bin", "etc", "proc", "sys", "dev"):
        (box.rootfs / name).rename(base / name)
    options = (f"upperdir={box.rootfs}/upper", f"workdir={box.rootfs}/work")
    overlay = Mount("overlay", "overlay", "/", options, (*layers, str(base)))
    assert box.shell("ls / | grep -c ^f; echo x > /new", rootfs=(overlay,)) == "200\n"
    assert (box.rootfs / "upper/new").read_text() == "x\n"


@pytest.mark.parametrize("no_pivot", [False, True])
def test_the_old_root_is_out_of_reach(box: Any, no_pivot: bool) -> None:
    assert "bin" in box.shell("cd /; ls ../../../..; test ! -e /usr", no_pivot=no_pivot).split()
    assert "/dev/vda" not in box.shell("cat /proc/self/mountinfo", no_pivot=no_pivot) or no_pivot


# -- made mount points


def test_mount_points_that_were_made_are_taken_away(box: Any, tmp_path: Path) -> None:
    for name in ("proc", "sys", "dev"):
        (box.rootfs / name).rmdir()
    os.utime(box.rootfs / "etc", (1, 1))
    os.utime(box.rootfs, (2, 2))
    before = sorted(str(path.relative_to(box.rootfs)) for path in box.rootfs.rglob("*"))
    mounts = (Mount("bind", str(tmp_path), "/srv/a/b"), Mount("tmpfs", "tmpfs", "/tmp/x"))
    box.shell("true", files={"/etc/hosts": b"", "/etc/resolv.conf": b"x"}, mounts=mounts)
    assert (box.rootfs / "etc/hosts").exists()
    root = os.open(box.rootfs, os.O_RDONLY)
    removed = remove_made(root, box.stubs)
    assert remove_made(root, box.stubs) == ()
    os.close(root)
    assert set(removed) == {"etc/hosts", "etc/resolv.conf", "proc", "sys", "dev", "srv", "srv/a", "srv/a/b", "tmp/x"}
    assert sorted(str(path.relative_to(box.rootfs)) for path in box.rootfs.rglob("*")) == before
    assert (box.rootfs / "etc").stat().st_mtime == 1
    assert box.rootfs.stat().st_mtime == 2


# -- life and death


def test_nothing_survives_the_command(box: Any) -> None:
    box.shell("(setsid sleep 4711 </dev/null >/dev/null 2>&1 &) ; sleep 4711 & true")
    assert not any(b"4711" in words for words in _command_lines())


@pytest.mark.parametrize("namespaces", [{"pid": "host"}, {}])
def test_a_daemon_that_holds_the_output_does_not_hold_the_run(box: Any, namespaces: dict[str, str]) -> None:
    started = time.monotonic()
    assert box.shell("setsid sleep 4712 & echo started", namespaces=namespaces) == "started\n"
    assert time.monotonic() - started < 10
    assert not any(b"4712" in words for words in _command_lines())


def test_orphans_are_reaped(box: Any) -> None:
    output = box.shell(
        "(sh -c 'sleep 0.1 & exec true'); sleep 0.4; for s in /proc/[0-9]*/stat; do cut -d' ' -f3 $s; done"
    )
    assert "Z" not in output.split()


RUNNER = """
import sys
from pathlib import Path
from dataclasses import replace
sys.path.insert(0, {tests!r})
from conftest import Box
from builda.isolation import isolation_for
from tests.support import needs
box = Box(Path({rootfs!r}), Path({scratch!r}))
box.isolation = isolation_for({isolation!r}, state=Path({scratch!r}))
sys.exit(box.run(*sys.argv[1:], capture=False, **{changes!r}))
"""


@contextmanager
def runner(box: Any, tmp_path: Path, *args: str, **changes: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own that runs a command in the box; its output is a pipe. A test that fails ends it."""
    scratch = tmp_path / os.urandom(4).hex()
    scratch.mkdir()
    code = RUNNER.format(
        isolation=box.isolation.kind.name,
        tests=str(Path(__file__).parent),
        rootfs=str(box.rootfs),
        scratch=str(scratch),
        changes=changes,
    )
    command = [sys.executable, "-c", code, *args]
    environ = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as caller:
        try:
            yield caller
        except BaseException:
            caller.kill()
            raise


@pytest.mark.parametrize("changes", [{}, {"namespaces": {"pid": "host"}}])
def test_killing_the_caller_leaves_no_process_and_no_mount(box: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    with runner(box, tmp_path, "sh", "-c", "sleep 4713 & echo up; sleep 4713", **changes) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == b"up\n"
        caller.kill()
    until(lambda: not any(b"4713" in words for words in _command_lines()))
    until(lambda: not children_running(tmp_path))
    assert Path("/proc/self/mountinfo").read_text() == before


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1])
def test_killing_the_caller_early_leaves_nothing_either(box: Any, tmp_path: Path, delay: float) -> None:
    with runner(box, tmp_path, "sleep", "4714") as caller:
        until(lambda: children_running(tmp_path) or caller.poll() is not None)
        time.sleep(delay)
        caller.kill()
    until(lambda: not children_running(tmp_path) and not any(b"4714" in words for words in _command_lines()))


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGTERM, "TERM"), (signal.SIGHUP, "HUP"), (signal.SIGUSR1, "USR1"), (signal.SIGINT, "INT")],
)
def test_signals_reach_the_command(box: Any, tmp_path: Path, number: int, name: str) -> None:
    script = f"trap 'echo got; exit 9' {name}; echo up; while :; do sleep 0.05; done"
    with runner(box, tmp_path, "sh", "-c", script) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == b"up\n"
        caller.send_signal(number)
        assert caller.stdout.read() == b"got\n"
        assert caller.wait() == 9


def test_an_interrupt_reaches_the_children_too(box: Any, tmp_path: Path) -> None:
    """As from a keyboard: a shell that waits for a child acts on SIGINT only when the child ended of it."""
    with runner(box, tmp_path, "sh", "-c", "echo up; sleep 4715; echo not reached") as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == b"up\n"
        until(lambda: any(b"4715" in words for words in _command_lines()))
        caller.send_signal(signal.SIGINT)
        assert caller.stdout.read() == b""
        assert caller.wait() == -signal.SIGINT  # of KeyboardInterrupt: it is the user's wish, not the command's failure


def test_output_passes_through_untouched(box: Any, tmp_path: Path) -> None:
    with runner(box, tmp_path, "sh", "-c", "head -c 1000000 /dev/zero; exit 4") as caller:
        assert caller.stdout is not None
        assert caller.stdout.read() == bytes(1_000_000)
        assert caller.wait() == 4


def test_no_descriptor_of_ours_is_left(box: Any) -> None:
    box.shell("true")
    before = sorted(os.listdir("/proc/self/fd"))
    box.shell("true")
    with pytest.raises(CommandFailed):
        box.run("frobnicate")
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_run_takes_little_of_the_processor(box: Any) -> None:
    """`run CTR true` has 0.095 s in all; the sandbox takes 0.015 of it. Waiting for a busy machine does not count."""
    box.shell("true")
    spent = []
    for _ in range(5):
        before = sum(os.times()[:4])
        box.run("true", capture=False)
        spent.append(sum(os.times()[:4]) - before)
    assert min(spent) < 0.06
