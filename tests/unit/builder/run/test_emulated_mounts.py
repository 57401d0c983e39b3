"""emulated_mounts: a command finds in the tree what it would find mounted, and afterwards the tree is what it was."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from builda.builder.run.emulated_mounts import placed, take_out
from builda.errors import BuildaError, CorruptContent, InvalidValue, NotFound, Unsupported
from builda.isolation.spec import Device, Sandbox
from builda.linux.mount import Mount

pytestmark = pytest.mark.root

HOSTS = b"127.0.0.1 localhost\n"


class Seen(NamedTuple):
    """What is compared of a path; directories have no ctime that counts."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    ino: int
    ctime_ns: int
    content: bytes


class Snapshot:
    """A working tree as the plain driver has it, in a directory of its own, and a cache beside it."""

    def __init__(self, path: Path) -> None:
        self.tree = path / "key" / "fs"
        self.aside = path / "key" / "placed"
        self.caches = path / "cache"
        self.scratch = path / "scratch"
        for directory in (self.tree, self.caches, self.scratch):
            directory.mkdir(parents=True)

    def sandbox(self, *mounts: Mount, files: Mapping[str, bytes] = {}, devices: tuple[Device, ...] = ()) -> Sandbox:
        return Sandbox(
            rootfs=(Mount("bind", str(self.tree), "/"),),
            mounts=mounts,
            files=files,
            devices=devices,
            namespaces={},
            network="host",
            hostname=None,
            seccomp=None,
            masked_paths=(),
            readonly_paths=(),
            scratch=str(self.scratch),
        )

    def placed(self, *mounts: Mount, files: Mapping[str, bytes] = {}, devices: tuple[Device, ...] = ()):  # type: ignore[no-untyped-def]  # a context manager
        sandbox = self.sandbox(*mounts, files=files, devices=devices)
        return placed(str(self.tree), str(self.aside), sandbox, caches=str(self.caches))

    def take_out(self) -> None:
        take_out(str(self.tree), str(self.aside))

    def file(self, name: str, data: bytes, mode: int = 0o400) -> str:
        path = self.scratch / name
        path.write_bytes(data)
        path.chmod(mode)
        return str(path)

    def cache(self, name: str) -> Path:
        path = self.caches / name
        path.mkdir(exist_ok=True)
        return path

    def seen(self) -> dict[str, Seen]:
        """The tree, with the ctimes that were before those that `amended` explains."""
        explained: dict[tuple[str, int], int] = {}
        for line in self.amended():
            before = explained.get((line["path"], line["before"]), line["before"])
            explained[line["path"], line["after"]] = before
        paths = [self.tree, *sorted(self.tree.rglob("*"))]
        found = {str(path.relative_to(self.tree)): _seen(path) for path in paths}
        return {
            path: seen._replace(ctime_ns=explained.get((path, seen.ctime_ns), seen.ctime_ns))
            for path, seen in found.items()
        }

    def amended(self) -> list[dict[str, Any]]:
        path = self.tree.parent / "amended"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _seen(path: Path) -> Seen:
    info = path.lstat()
    content = b""
    if stat.S_ISREG(info.st_mode):
        content = path.read_bytes()
    elif stat.S_ISLNK(info.st_mode):
        content = os.fsencode(os.readlink(path))
    ctime = 0 if stat.S_ISDIR(info.st_mode) else info.st_ctime_ns
    return Seen(info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, info.st_ino, ctime, content)


def fill(tree: Path) -> None:
    """A few files and directories, and every time in the past."""
    for directory in ("etc", "dev", "root", "usr/bin", "tmp", "var/cache"):
        (tree / directory).mkdir(parents=True)
    (tree / "etc/hosts").write_bytes(HOSTS)
    (tree / "etc/resolv.conf").symlink_to("../run/resolved/stub")
    (tree / "dev/null").write_bytes(b"not a device")
    (tree / "var/cache/old").write_bytes(b"below")
    os.chown(tree / "etc", 7, 8)
    (tree / "etc").chmod(0o700)
    for number, path in enumerate(sorted([tree, *tree.rglob("*")], key=str, reverse=True)):
        os.utime(path, ns=(10**18, 10**18 + number), follow_symlinks=False)


@pytest.fixture
def snapshot(tmp_path: Path) -> Iterator[Snapshot]:
    """A small tree, with nothing left beside it after the test."""
    made = Snapshot(tmp_path)
    fill(made.tree)
    yield made
    assert not made.aside.exists()


def everything(snapshot: Snapshot) -> tuple[tuple[Mount, ...], dict[str, bytes]]:
    """One mount of every kind, some in others, some where nothing is."""
    stage = snapshot.scratch / "stage"
    if not stage.exists():
        (stage / "sub").mkdir(parents=True)
        (stage / "sub/file").write_bytes(b"stage")
        os.link(stage / "sub/file", stage / "again")
    snapshot.cache("pip")
    mounts = (
        Mount("bind", str(snapshot.caches / "pip"), "/root/.cache/pip", ("rw",)),
        Mount("bind", snapshot.file("token", b"secret"), "/run/secrets/token", ("ro",)),
        Mount("bind", snapshot.file("covered", b"covered"), "/usr/bin/covered", ("ro",)),
        Mount("bind", snapshot.file("inner", b"inner"), "/root/.cache/pip/conf/inner", ("ro",)),
        Mount("bind", str(stage), "/var/cache", ("ro",)),
        Mount("overlay", "overlay", "/stage", ("upperdir=u", "workdir=w"), (str(stage),)),
        Mount("tmpfs", "tmpfs", "/tmp", ("nosuid", "mode=1777")),
        Mount("tmpfs", "tmpfs", "/usr", ()),
    )
    return mounts, {"/etc/hosts": b"ours", "/etc/resolv.conf": b"nameserver"}


def test_files_are_there_for_the_time_of_the_command(snapshot: Snapshot) -> None:
    before = snapshot.seen()
    with snapshot.placed(files={"/etc/hosts": b"ours", "/etc/hostname": b"new"}) as inner:
        hosts = snapshot.tree / "etc/hosts"
        assert (hosts.read_bytes(), hosts.stat().st_mode, hosts.stat().st_uid) == (b"ours", 0o100644, 0)
        assert (snapshot.tree / "etc/hostname").read_bytes() == b"new"
        assert snapshot.seen()["etc"] == before["etc"]
        assert (inner.files, inner.mounts, inner.devices) == ({}, (), ())
    assert snapshot.seen() == before


def test_what_taking_away_and_back_did_to_a_ctime_is_on_record(snapshot: Snapshot) -> None:
    before = (snapshot.tree / "etc/hosts").stat().st_ctime_ns
    with snapshot.placed(files={"/etc/hosts": b"ours", "/etc/hostname": b"new"}):
        pass
    after = (snapshot.tree / "etc/hosts").stat().st_ctime_ns
    assert before != after
    assert snapshot.amended() == [{"path": "etc/hosts", "before": before, "after": after}]


def test_an_original_changed_by_its_other_name_is_not_excused(snapshot: Snapshot) -> None:
    os.link(snapshot.tree / "etc/hosts", snapshot.tree / "usr/hosts")
    with snapshot.placed(files={"/etc/hosts": b"ours"}):
        (snapshot.tree / "usr/hosts").write_bytes(b"changed")
    assert snapshot.amended() == []
    assert (snapshot.tree / "etc/hosts").read_bytes() == b"changed"


def test_what_the_command_does_to_a_placed_file_is_lost(snapshot: Snapshot) -> None:
    before = snapshot.seen()
    with snapshot.placed(files={"/etc/hosts": b"ours", "/etc/hostname": b"new"}):
        (snapshot.tree / "etc/hosts").write_bytes(b"written over")
        (snapshot.tree / "etc/hostname").unlink()
        (snapshot.tree / "etc/hostname").mkdir()
        (snapshot.tree / "etc/hostname/inside").write_bytes(b"")
    after = snapshot.seen()
    assert after["etc/hosts"] == before["etc/hosts"]
    assert list(after) == list(before)


def test_what_the_command_does_beside_stays(snapshot: Snapshot) -> None:
    before = snapshot.seen()
    with snapshot.placed(files={"/etc/hosts": b"ours"}):
        (snapshot.tree / "etc/added").write_bytes(b"added")
        changed = (snapshot.tree / "etc").stat().st_mtime_ns
    after = snapshot.seen()
    assert after.pop("etc/added").content == b"added"
    assert after.pop("etc").mtime_ns == changed
    before.pop("etc")
    assert after == before


def test_a_link_in_the_place_leads_inside_the_tree(snapshot: Snapshot) -> None:
    before = snapshot.seen()
    with snapshot.placed(files={"/etc/resolv.conf": b"nameserver"}):
        assert (snapshot.tree / "run/resolved/stub").read_bytes() == b"nameserver"
    assert snapshot.seen() == before


def test_a_made_parent_that_the_command_uses_stays(snapshot: Snapshot) -> None:
    with snapshot.placed(Mount("bind", snapshot.file("token", b"x"), "/run/secrets/token", ("ro",))):
        (snapshot.tree / "run/lock").mkdir()
    assert sorted(os.listdir(snapshot.tree / "run")) == ["lock"]


def test_dev_has_the_standard_nodes_and_nothing_of_the_images(snapshot: Snapshot) -> None:
    before = snapshot.seen()
    dev = snapshot.tree / "dev"
    with snapshot.placed():
        with open(dev / "null", "r+b", buffering=0) as null:
            assert null.write(b"gone") == 4
            assert null.read() == b""
        for name in ("null", "zero", "full", "random", "urandom", "tty"):
            info = (dev / name).stat()
            assert info.st_mode == stat.S_IFCHR | 0o666
        assert {name: os.readlink(dev / name) for name in ("fd", "stdin", "stdout", "stderr")} == {
            "fd": "/proc/self/fd",
            "stdin": "/proc/self/fd/0",
            "stdout": "/proc/self/fd/1",
            "stderr": "/proc/self/fd/2",
        }
        modes = {name: stat.S_IMODE((dev / name).stat().st_mode) for name in ("shm", "pts", "mqueue")}
        assert modes == {"shm": 0o1777, "pts": 0o755, "mqueue": 0o755}
        (dev / "shm/semaphore").write_bytes(b"")
        (dev / "made").write_bytes(b"")
    assert snapshot.seen() == before


def test_proc_and_sys_are_empty_directories(snapshot: Snapshot) -> None:
    (snapshot.tree / "proc").mkdir()
    (snapshot.tree / "proc/of the image").write_bytes(b"")
    before = snapshot.seen()
    with snapshot.placed():
        assert os.listdir(snapshot.tree / "proc") == os.listdir(snapshot.tree / "sys") == []
    assert snapshot.seen() == before


def test_a_secret_keeps_its_owner_and_mode(snapshot: Snapshot) -> None:
    before = snapshot.seen()
    source = snapshot.file("token", b"secret", 0o440)
    os.chown(source, 12, 34)
    with snapshot.placed(Mount("bind", source, "/run/secrets/token", ("ro",))):
        there = snapshot.tree / "run/secrets/token"
        info = there.stat()
        assert (there.read_bytes(), info.st_uid, info.st_gid, info.st_mode) == (b"secret", 12, 34, 0o100440)
    assert snapshot.seen() == before


def test_a_cache_is_the_directory_itself(snapshot: Snapshot) -> None:
    before = snapshot.seen()
    cache = snapshot.cache("pip")
    (cache / "wheel").write_bytes(b"old")
    inode = cache.stat().st_ino
    with snapshot.placed(Mount("bind", str(cache), "/root/.cache/pip", ("rw",))):
        there = snapshot.tree / "root/.cache/pip"
        assert there.stat().st_ino == inode
        (there / "new").write_bytes(b"new")
        assert not cache.exists()
    assert sorted(os.listdir(cache)) == ["new", "wheel"]
    assert cache.stat().st_ino == inode
    assert snapshot.seen() == before


def test_a_cache_that_is_read_only_keeps_what_it_had(snapshot: Snapshot) -> None:
    cache = snapshot.cache("pip")
    (cache / "wheel").write_bytes(b"old")
    with snapshot.placed(Mount("bind", str(cache), "/cache", ("ro",))):
        (snapshot.tree / "cache/wheel").unlink()
    assert os.listdir(cache) == ["wheel"]


def test_a_cache_that_the_command_made_anew_is_the_cache(snapshot: Snapshot) -> None:
    cache = snapshot.cache("pip")
    (cache / "wheel").write_bytes(b"old")
    with snapshot.placed(Mount("bind", str(cache), "/cache", ("rw",))):
        (snapshot.tree / "cache/wheel").unlink()
        (snapshot.tree / "cache").rmdir()
        (snapshot.tree / "cache").mkdir()
        (snapshot.tree / "cache/anew").write_bytes(b"")
    assert os.listdir(cache) == ["anew"]


@pytest.mark.parametrize("kind", ["bind", "overlay"])
def test_a_directory_is_copied_and_writes_are_lost(snapshot: Snapshot, kind: str) -> None:
    before = snapshot.seen()
    source = snapshot.scratch / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub/file").write_bytes(b"content")
    os.link(source / "sub/file", source / "link")
    os.setxattr(source, "user.note", b"kept")
    os.chown(source / "sub", 5, 6)
    source.chmod(0o2750)
    mount = Mount("rbind", str(source), "/var/cache", ("ro",))
    if kind == "overlay":
        mount = Mount("overlay", "overlay", "/var/cache", ("upperdir=u", "workdir=w"), (str(source),))
    with snapshot.placed(mount):
        there = snapshot.tree / "var/cache"
        assert sorted(os.listdir(there)) == ["link", "sub"]
        assert (there / "link").stat().st_ino == (there / "sub/file").stat().st_ino
        assert (there / "sub").stat().st_uid == 5
        assert os.getxattr(there, "user.note") == b"kept"
        assert (there.stat().st_mode, there.stat().st_mtime_ns) == (0o42750, source.stat().st_mtime_ns)
        (there / "sub/file").write_bytes(b"changed")
    assert (source / "sub/file").read_bytes() == b"content"
    assert snapshot.seen() == before


def test_a_tmpfs_is_an_empty_directory(snapshot: Snapshot) -> None:
    (snapshot.tree / "tmp/of the image").write_bytes(b"")
    before = snapshot.seen()
    with snapshot.placed(Mount("tmpfs", "tmpfs", "/tmp", ("nosuid", "mode=1733"))):
        assert os.listdir(snapshot.tree / "tmp") == []
        assert (snapshot.tree / "tmp").stat().st_mode == 0o41733
        (snapshot.tree / "tmp/made").write_bytes(b"")
    assert snapshot.seen() == before


def test_a_socket_answers_where_it_was_placed(snapshot: Snapshot) -> None:
    before = snapshot.seen()
    path = snapshot.scratch / "agent"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        mount = Mount("bind", str(path), "/run/agent", ("rw",))
        with snapshot.placed(mount), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(snapshot.tree / "run/agent"))
            server.accept()[0].close()
    assert snapshot.seen() == before


def test_places_in_other_places(snapshot: Snapshot) -> None:
    before = snapshot.seen()
    mounts, files = everything(snapshot)
    with snapshot.placed(*mounts, files=files):
        assert (snapshot.tree / "root/.cache/pip/conf/inner").read_bytes() == b"inner"
        assert (snapshot.tree / "run/secrets/token").read_bytes() == b"secret"
        assert (snapshot.tree / "stage/sub/file").read_bytes() == b"stage"
    assert snapshot.seen() == before
    assert os.listdir(snapshot.caches / "pip") == []


def test_a_place_that_covers_others(snapshot: Snapshot) -> None:
    before = snapshot.seen()
    secret = snapshot.file("token", b"secret")
    mounts = [Mount("bind", secret, target, ("ro",)) for target in ("/etc/hosts", "/etc/new/token")]
    with snapshot.placed(*mounts, Mount("tmpfs", "tmpfs", "/etc", ())):
        assert os.listdir(snapshot.tree / "etc") == []
    assert snapshot.seen() == before


def test_one_run_after_the_other(snapshot: Snapshot) -> None:
    before = snapshot.seen()
    mounts, files = everything(snapshot)
    for name in ("one", "two"):
        with snapshot.placed(*mounts, files=files):
            (snapshot.tree / "root/.cache/pip" / name).write_bytes(b"")
    assert snapshot.seen() == before
    assert sorted(os.listdir(snapshot.caches / "pip")) == ["one", "two"]


def test_a_command_that_fails_leaves_no_trace(snapshot: Snapshot) -> None:
    before = snapshot.seen()
    mounts, files = everything(snapshot)
    with pytest.raises(BuildaError, match="ended"), snapshot.placed(*mounts, files=files):
        raise BuildaError("ended")
    assert snapshot.seen() == before


# Refusals


def test_a_volume_to_write_to_is_refused(snapshot: Snapshot) -> None:
    before = snapshot.seen()
    mount = Mount("rbind", str(snapshot.scratch), "/out", ("rw",))
    with pytest.raises(Unsupported, match=r"cannot write to the host: .* at /out") as caught, snapshot.placed(mount):
        pass
    assert "read-only" in str(caught.value.hint)
    assert snapshot.seen() == before


def test_a_device_is_refused(snapshot: Snapshot) -> None:
    device = Device(source="/dev/fuse", target="/dev/fuse")
    with pytest.raises(Unsupported, match=r"device.*: /dev/fuse"), snapshot.placed(devices=(device,)):
        pass


def test_a_standard_device_is_there_anyway(snapshot: Snapshot) -> None:
    with snapshot.placed(devices=(Device(source="/dev/null", target="/dev/null"),)):
        assert stat.S_ISCHR((snapshot.tree / "dev/null").stat().st_mode)


def test_a_source_that_is_gone_is_named(snapshot: Snapshot) -> None:
    with pytest.raises(NotFound, match="/no/such"), snapshot.placed(Mount("bind", "/no/such", "/x", ("ro",))):
        pass


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("/etc/hosts/token", "below a path that is not a directory in the container: /etc/hosts/token"),
        ("/etc", "cannot mount a file over a directory in the container: /etc"),
        ("/loop/token", "too many levels"),
        ("/", "over the root"),
        ("/usr/..", "over the root"),
    ],
)
def test_a_target_that_cannot_be_leaves_nothing(snapshot: Snapshot, target: str, message: str) -> None:
    (snapshot.tree / "loop").symlink_to("loop")
    before = snapshot.seen()
    secret = snapshot.file("token", b"secret")
    mounts = (Mount("bind", secret, "/run/first", ("ro",)), Mount("bind", secret, target, ("ro",)))
    with pytest.raises(InvalidValue, match=message), snapshot.placed(*mounts):
        pass
    assert snapshot.seen() == before


def test_a_cache_comes_home_when_a_later_target_cannot_be(snapshot: Snapshot) -> None:
    cache = snapshot.cache("pip")
    (cache / "wheel").write_bytes(b"")
    with pytest.raises(InvalidValue), snapshot.placed(Mount("bind", str(cache), "/etc/hosts", ("rw",))):
        pass
    assert os.listdir(cache) == ["wheel"]


# Hostile trees


@pytest.mark.parametrize("outside", ["/outside", "../../../../outside"])
def test_links_lead_nowhere_outside(snapshot: Snapshot, tmp_path: Path, outside: str) -> None:
    there = tmp_path / "outside"
    there.mkdir()
    (there / "hosts").write_bytes(b"outside")
    target = str(there) if outside == "/outside" else outside
    for name in ("etc", "usr"):
        (snapshot.tree / name).rename(snapshot.tree / f"{name}-before")
        (snapshot.tree / name).symlink_to(target)
    before = snapshot.seen()
    with snapshot.placed(files={"/etc/hosts": b"ours", "/usr/more/deep": b"ours"}):
        assert os.listdir(there) == ["hosts"]
        assert (there / "hosts").read_bytes() == b"outside"
    assert os.listdir(there) == ["hosts"]
    assert snapshot.seen() == before


@pytest.mark.parametrize("target", ["/outside", "usr"])
def test_a_directory_that_the_command_moved_is_found(snapshot: Snapshot, tmp_path: Path, target: str) -> None:
    there = tmp_path / "outside"
    there.mkdir()
    (there / "hosts").write_bytes(b"outside")
    (snapshot.tree / "usr/hosts").write_bytes(b"inside")
    before = snapshot.seen()
    with snapshot.placed(files={"/etc/hosts": b"ours"}):
        (snapshot.tree / "etc").rename(snapshot.tree / "moved")
        (snapshot.tree / "etc").symlink_to(str(there) if target == "/outside" else target)
    assert (there / "hosts").read_bytes() == b"outside"
    after = snapshot.seen()
    assert after["usr/hosts"] == before["usr/hosts"]
    assert after["moved/hosts"].content == HOSTS
    assert after["moved"] == before["etc"]


@pytest.mark.parametrize("target", ["/outside", "usr"])
def test_a_link_in_its_stead_is_not_followed_after_a_kill(snapshot: Snapshot, tmp_path: Path, target: str) -> None:
    there = tmp_path / "outside"
    there.mkdir()
    (there / "hosts").write_bytes(b"outside")
    (snapshot.tree / "usr/hosts").write_bytes(b"inside")

    def work() -> None:
        with snapshot.placed(files={"/etc/hosts": b"ours"}):
            (snapshot.tree / "etc").rename(snapshot.tree / "moved")
            (snapshot.tree / "etc").symlink_to(str(there) if target == "/outside" else target)
            os._exit(9)

    assert killed_after(10**9, work)
    snapshot.take_out()
    assert (there / "hosts").read_bytes() == b"outside"
    assert (snapshot.tree / "usr/hosts").read_bytes() == b"inside"


def test_a_directory_that_the_command_removed_stays_removed(snapshot: Snapshot) -> None:
    with snapshot.placed(files={"/etc/hosts": b"ours"}):
        shutil.rmtree(snapshot.tree / "etc")
    assert not (snapshot.tree / "etc").exists()


def test_a_place_that_the_command_made_a_link_is_not_followed(snapshot: Snapshot, tmp_path: Path) -> None:
    before = snapshot.seen()
    there = tmp_path / "outside"
    there.mkdir()
    (there / "kept").write_bytes(b"")
    with snapshot.placed(Mount("tmpfs", "tmpfs", "/tmp", ())):
        (snapshot.tree / "tmp").rmdir()
        (snapshot.tree / "tmp").symlink_to(there)
    assert os.listdir(there) == ["kept"]
    after = snapshot.seen()
    assert after.pop(".").mtime_ns > before.pop(".").mtime_ns
    assert after == before


# Kills


def killed_after(actions: int, work: Callable[[], None]) -> bool:
    """Whether `work`, in a process of its own, was killed before its n-th call that opens or changes something."""
    child = os.fork()
    if child == 0:
        left = actions

        def count(event: str, _: object) -> None:
            nonlocal left
            if event == "open" or event.startswith("os."):
                left -= 1
                if left < 0:
                    os._exit(9)

        sys.addaudithook(count)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def work_in(snapshot: Snapshot) -> None:
    """A command that adds to its cache, and to the tree what is to be seen."""
    mounts, files = everything(snapshot)
    with snapshot.placed(*mounts, files=files):
        cache = snapshot.tree / "root/.cache/pip"
        (cache / "wheel").write_bytes(b"new")
        (snapshot.tree / "tmp/lost").write_bytes(b"")


def test_a_kill_at_some_points_leaves_nothing_that_cannot_be_undone(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed: {seed}")
    chance = random.Random(seed)
    kill_after_ever_more_actions(tmp_path, lambda: chance.randint(1, 12))


@pytest.mark.long
def test_a_kill_at_any_point_leaves_nothing_that_cannot_be_undone(tmp_path: Path) -> None:
    kill_after_ever_more_actions(tmp_path, lambda: 1)


def kill_after_ever_more_actions(tmp_path: Path, stride: Callable[[], int]) -> None:
    """Kill a run after 0 actions, after `stride()` more, and so on until a run ends by itself."""
    actions = 0
    while True:
        snapshot = Snapshot(tmp_path / str(actions))
        fill(snapshot.tree)
        everything(snapshot)
        (snapshot.cache("pip") / "old").write_bytes(b"old")
        before = snapshot.seen()
        was_killed = killed_after(actions, partial(work_in, snapshot))
        killed_after(actions % 61, snapshot.take_out)
        snapshot.take_out()
        assert snapshot.seen() == before, actions
        assert not snapshot.aside.exists()
        assert set(os.listdir(snapshot.caches / "pip")) - {"wheel"} == {"old"}, actions
        if not was_killed:
            break
        actions += stride()
    assert actions > 200
    assert sorted(os.listdir(snapshot.caches / "pip")) == ["old", "wheel"]


def test_a_kill_while_the_command_runs_keeps_the_cache(snapshot: Snapshot) -> None:
    before = snapshot.seen()

    def work() -> None:
        mounts, files = everything(snapshot)
        with snapshot.placed(*mounts, files=files):
            (snapshot.tree / "root/.cache/pip/wheel").write_bytes(b"new")
            os._exit(9)

    assert killed_after(10**9, work)
    assert not (snapshot.caches / "pip").exists()
    snapshot.take_out()
    assert snapshot.seen() == before
    assert os.listdir(snapshot.caches / "pip") == ["wheel"]


def test_a_cache_whose_place_was_taken_meanwhile_is_dropped(snapshot: Snapshot) -> None:
    def work() -> None:
        mount = Mount("bind", str(snapshot.cache("pip")), "/cache", ("rw",))
        with snapshot.placed(mount):
            (snapshot.tree / "cache/old").write_bytes(b"")
            os._exit(9)

    assert killed_after(10**9, work)
    (snapshot.cache("pip") / "newer").write_bytes(b"")
    snapshot.take_out()
    assert os.listdir(snapshot.caches / "pip") == ["newer"]


def test_a_line_that_was_cut_short_is_none(snapshot: Snapshot) -> None:
    before = snapshot.seen()

    def work() -> None:
        with snapshot.placed(files={"/etc/hosts": b"ours"}):
            with open(snapshot.aside / "journal", "ab") as file:
                file.write(b'{"do": "pla')
            os._exit(9)

    assert killed_after(10**9, work)
    snapshot.take_out()
    assert snapshot.seen() == before


def test_a_damaged_journal_is_an_error(snapshot: Snapshot) -> None:
    snapshot.aside.mkdir()
    (snapshot.aside / "journal").write_bytes(b"\0\0\0\n")
    with pytest.raises(CorruptContent, match="journal"):
        snapshot.take_out()
    (snapshot.aside / "journal").unlink()
    snapshot.take_out()
