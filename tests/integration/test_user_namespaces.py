"""Commands with ids of their own (`--userns`): the images are those of commands that have root's."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builda.isolation.child.id_mapping import Mapping
from tests.conftest import Builda
from tests.support import needs
from tests.support.pods import in_pod
from tests.support.rootless import LONELY, USER, Rootless, rootless

pytestmark = pytest.mark.root

MAP = ("--userns-uid-map", "0:700000:65536")
CONTAINERFILE = """\
FROM localhost/busybox AS first
COPY --chown=5:60 file /srv/file
RUN test $(id -u) = 0 && test "$(stat -c %u:%g /srv/file)" = 5:60 && mkdir /made && chown 7:8 /made
RUN --mount=type=secret,id=s --mount=type=cache,target=/c grep -q word /run/secrets/s && touch /c/x
RUN rm -rf /srv && mkdir /srv
FROM localhost/busybox
COPY --from=first /made /made
RUN --mount=from=first,target=/m --mount=target=/context stat -c %u:%g /m/made > /seen && cat /context/file >> /seen
USER 33
RUN id -u > /tmp/me && cat /etc/resolv.conf > /dev/null
"""


@pytest.fixture
def context(builda: Builda, base: str, tmp_path: Path) -> Path:
    path = tmp_path / "context"
    path.mkdir()
    (path / "Containerfile").write_text(CONTAINERFILE)
    (path / "file").write_text("hello\n")
    (path / "secret").write_text("word\n")
    return path


@contextmanager
def overlay_over(place: Path) -> Iterator[None]:
    """What lies in `place` is the lower layer of an overlay there."""
    beside = place.with_name(f"{place.name}-beside")
    for name in ("upper", "work"):
        (beside / name).mkdir(parents=True)
    options = f"lowerdir={place},upperdir={beside}/upper,workdir={beside}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def build(builda: Builda, context: Path, *options: str) -> object:
    secret = f"id=s,src={context}/secret"
    builda("bud", "-q", "--no-cache", "--timestamp", "0", "--secret", secret, *options, "-t", "built", context)
    return json.loads(builda("inspect", "--type", "image", "built"))["FromImageDigest"]


@pytest.mark.parametrize("driver", ["overlay", "plain"])
def test_the_image_is_the_one_that_is_built_with_roots_ids(builda: Builda, context: Path, driver: str) -> None:
    named = ("--storage-driver", driver)
    assert build(builda, context, *MAP, *named) == build(builda, context, *named)
    builda("prune", "-af")
    assert builda("fsck") == ""


def test_a_container_keeps_the_map_for_its_commands(builda: Builda, base: str) -> None:
    container = builda("from", *MAP, "--userns-gid-map", "0:800000:1000", base)
    assert builda("run", container, "cat", "/proc/self/uid_map").split() == ["0", "700000", "65536"]
    assert builda("run", container, "cat", "/proc/self/gid_map").split() == ["0", "800000", "1000"]
    script = (
        "touch /made && chown 5:6 /made && echo said > /dev/stdout && stat -c %u:%g /proc/self/status /made /etc/hosts"
    )
    assert builda("run", container, "sh", "-ec", script).split() == ["said", "0:0", "5:6", "0:0"]
    tree = Path(builda("mount", container))
    info = (tree / "made").stat()
    assert (info.st_uid, info.st_gid) == (5, 6)
    assert "which fixes the ids of its files" in builda.fails("run", container, "true")
    builda("umount", container)
    assert builda("run", "--user", "5:6", container, "id", "-u") == "5"
    told = builda.fails("run", "--user", "70000", container, "true")
    assert "uid 70000 is not in this user namespace, which has 0-65535" in told
    for kind in ("oci", "chroot"):
        told = builda.fails("run", "--isolation", kind, container, "true")
        assert f"isolation {kind} cannot map the ids of a command" in told


def test_a_global_map_is_for_those_who_are_told_nothing_else(builda: Builda, base: str) -> None:
    inside = ("cat", "/proc/self/uid_map")
    assert builda("run", builda(*MAP, "from", base), *inside).split() == ["0", "700000", "65536"]
    assert builda("run", builda(*MAP, "from", "--userns", "host", base), *inside).split()[1] == "0"
    one = builda(*MAP, "from", "--userns-uid-map", "0:800000:10", base)
    assert builda("run", one, *inside).split() == ["0", "800000", "10"]


def test_inspect_shows_what_commands_have(builda: Builda, base: str) -> None:
    def shown(*options: str) -> tuple[dict[str, object], dict[str, object]]:
        found = json.loads(builda("inspect", builda("from", *options, base)))
        (user,) = (row for row in found["NamespaceOptions"] if row["Name"] == "user")
        return found["IDMappingOptions"], user

    ids, user = shown(*MAP)
    assert ids["UIDMap"] == ids["GIDMap"] == [{"containerID": 0, "hostID": 700000, "size": 65536}]
    assert (ids["HostUIDMapping"], user["Host"]) == (False, False)
    ids, user = shown("--userns", "private")
    assert (ids["HostUIDMapping"], ids["UIDMap"], user["Host"]) == (True, [], False)
    ids, user = shown()
    assert (ids["HostUIDMapping"], user["Host"]) == (True, True)


def test_another_namespace_is_joined(builda: Builda, base: str) -> None:
    there = Mapping(((0, 720000, 3000),), ((0, 730000, 3000),), None)
    container = builda("from", "--userns", f"/proc/{os.getpid()}/fd/{there.fd}", base)
    ours = builda("run", container, "readlink", "/proc/self/ns/user")
    assert ours == f"user:[{os.fstat(there.fd).st_ino}]"
    assert builda("run", container, "cat", "/proc/self/uid_map").split() == ["0", "720000", "3000"]
    os.close(there.fd)
    assert "cannot open the user namespace" in builda.fails("from", "--userns", "ns:/proc/nothing", base)


IN_POD = """
builda pull -q oci-archive:/given/busybox.tar:busybox >&2
image=$(builda images -q)
try() {
    c=$(builda from "$@" $image 2>&1) || { echo "$c"; return; }
    builda run $c sh -c 'set -- $(cat /proc/self/uid_map); touch /x; echo "$2 $(stat -c %u /x)"'
}
try --userns-uid-map 0:700000:65536
try --userns private
c=$(builda from --group-add keep-groups $image)
builda run $c id -u
"""
REAL_ROOT = "only real root can map the ids of a command"
SHARED = "a command cannot have a user namespace of its own here"


@needs.program("crun", "runc")
@pytest.mark.parametrize(
    ("profile", "mapped", "private"),
    [
        ("privileged-root", "700000 0", "0 0"),
        ("userns-pod-admin", REAL_ROOT, "0 0"),
        ("root-default-unconfined", REAL_ROOT, "0 0"),
        ("rootless-setuid", REAL_ROOT, "0 0"),
        ("rootless-nosetuid", REAL_ROOT, "0 0"),
        ("root-default", SHARED, SHARED),
    ],
)
def test_a_pod_gives_a_map_or_the_reason(
    tmp_path_factory: pytest.TempPathFactory, busybox: Path, profile: str, mapped: str, private: str
) -> None:
    given = tmp_path_factory.mktemp("given")
    given.chmod(0o755)
    shutil.copy(busybox, given / "busybox.tar")
    done = in_pod(profile, IN_POD, given=given)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith(("hint:", "warning:"))]
    assert [len(lines), lines[2]] == [3, "0"], done.stdout
    assert mapped in lines[0]
    assert private in lines[1]


def test_a_plain_user_is_told_that_it_takes_root(busybox: Path) -> None:
    with rootless() as user:
        refused(user, busybox)


def refused(user: Rootless, busybox: Path) -> None:
    readable = user.home / "busybox.tar"
    readable.write_bytes(busybox.read_bytes())
    user("pull", "-q", f"oci-archive:{readable}:busybox")
    told = user.fails("from", *MAP, user("images", "-q").split()[0])
    assert "only real root can map the ids of a command" in told
    assert user("containers", "-q") == ""


def test_a_range_is_found_or_the_line_is_said(builda: Builda, base: str) -> None:
    if re.search("^containers:", Path("/etc/subuid").read_text(), re.MULTILINE):
        assert builda("run", builda("from", "--userns", "auto", base), "id", "-u") == "0"
    else:
        assert "no range of uids for containers in /etc/subuid" in builda.fails("from", "--userns", "auto", base)


def test_a_private_namespace_keeps_every_id(builda: Builda, base: str) -> None:
    container = builda("from", "--userns", "private", base)
    assert builda("run", container, "cat", "/proc/self/uid_map").split() == ["0", "0", "4294967295"]
    assert builda("run", container, "readlink", "/proc/self/ns/user") != os.readlink("/proc/self/ns/user")
    assert builda("run", container, "sh", "-ec", "touch /x && chown 5:6 /x && stat -c %u:%g /x") == "5:6"


@pytest.mark.parametrize("user", [USER, LONELY])
def test_a_plain_users_command_has_a_namespace_with_the_same_ids(busybox: Path, user: str) -> None:
    with rootless(user) as plain:
        readable = plain.home / "busybox.tar"
        readable.write_bytes(busybox.read_bytes())
        plain("pull", "-q", f"oci-archive:{readable}:busybox")
        container = plain("from", "--userns", "private", plain("images", "-q").split()[0])
        rows = plain("run", container, "cat", "/proc/self/uid_map").split()
        assert rows[:3] == ["0", "0", "1"]
        assert rows[3:4] == (["1"] if user == USER else [])
        assert plain("run", container, "sh", "-c", "touch /x && stat -c %u:%g /x") == "0:0"
        image = plain("images", "-q").split()[0]
        if user == USER:
            container = plain("from", "--userns-uid-map", "0:0:500", image)
            assert plain("run", container, "cat", "/proc/self/uid_map").split() == ["0", "0", "1", "1", "1", "499"]
        assert "a user namespace cannot have id 70000" in plain.fails(
            "from", "--userns-uid-map", "0:0:1,70000:70000:1", image
        )


def test_namespaces_of_others_are_joined_from_within(builda: Builda, base: str) -> None:
    container = builda("from", *MAP, base)
    words = ["unshare", "--net", "--ipc", "--uts", "sh", "-c", "echo ready; exec sleep 100"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        there = {kind: f"/proc/{other.pid}/ns/{kind}" for kind in ("net", "ipc", "uts")}
        options = ("--network", f"ns:{there['net']}", "--ipc", there["ipc"], "--uts", there["uts"])
        script = "for kind in net ipc uts; do readlink /proc/self/ns/$kind; done"
        try:
            seen = builda("run", *options, container, "sh", "-c", script).split()
            assert seen == [os.readlink(path) for path in there.values()]
        finally:
            other.kill()


def test_whoever_has_all_rights_in_the_namespace_sees_nothing_of_the_caller(builda: Builda, base: str) -> None:
    container = builda("from", *MAP, "--cap-add", "ALL", "--security-opt", "seccomp=unconfined", base)
    script = "outer=$(awk '/^PPid/ { print $2 }' /proc/$PPID/status); ls /proc/$outer/root/ || ls /proc/$PPID/root/"
    told = builda.run("run", "--pid", "host", container, "sh", "-c", script, check=False)
    assert (told.returncode, told.stdout, told.stderr.count("Permission denied")) == (1, "", 2)


def test_groups_that_are_kept_are_the_callers(builda: Builda, base: str) -> None:
    container = builda("from", *MAP, "--group-add", "keep-groups", base)
    command = ["setpriv", "--groups", "44", *builda.command, "run", container, "grep", "Groups", "/proc/self/status"]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["Groups:", "65534"]
    named = builda("from", *MAP, "--group-add", "5,7", base)
    assert builda("run", named, "grep", "Groups", "/proc/self/status").split() == ["Groups:", "0", "5", "7"]


@pytest.mark.parametrize(("words", "kept"), [("z,U", False), ("O,U", True), ("O", True)])
def test_volumes_belong_to_the_commands_user(builda: Builda, base: str, tmp_path: Path, words: str, kept: bool) -> None:
    """In a directory that other users cannot enter; what is thrown away leaves the host's owners alone."""
    private = tmp_path / "private"
    (private / "volume").mkdir(parents=True)
    private.chmod(0o700)
    (private / "volume/file").write_text("x")
    volume = f"{private}/volume:/v:{words}"
    container = builda("from", "-q", *MAP, "-v", volume, base)
    assert builda("run", container, "sh", "-c", "touch /v/new; stat -c %u:%g /v /v/file /v/new").split() == ["0:0"] * 3
    found = (private / "volume/file").stat()
    assert (found.st_uid == 0) == kept
    assert (private / "volume/new").exists() == (not kept)


def test_a_volume_is_given_to_the_user_as_the_host_calls_it(builda: Builda, base: str, tmp_path: Path) -> None:
    container = builda("from", *MAP, base)
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/file").write_text("x")
    volume = f"{tmp_path}/volume:/v:U"
    assert builda("run", "--user", "5:6", "-v", volume, container, "stat", "-c", "%u:%g", "/v/file") == "5:6"
    owner = (tmp_path / "volume/file").stat()
    assert (owner.st_uid, owner.st_gid) == (700005, 700006)


def test_what_a_command_is_lent_has_its_owners(builda: Builda, base: str, context: Path) -> None:
    (context / "private").mkdir(0o700)
    (context / "private/file").write_text("word\n")
    os.chmod(context / "private/file", 0o600)
    (context / "Containerfile").write_text("""\
FROM localhost/busybox
USER 5:60
RUN --mount=type=secret,id=s,uid=5,gid=60,target=/s test "$(stat -c %u:%g:%a /s)" = 5:60:400 && grep -q word /s
RUN --mount=type=cache,uid=5,gid=60,target=/c touch /c/made && stat -c %u:%g /c/made
USER root
RUN --mount=type=cache,uid=5,gid=60,target=/c test "$(stat -c %u:%g /c/made)" = 5:60
RUN --mount=target=/m cat /m/private/file && ! touch /m/private/file
RUN --mount=target=/m,rw echo more >> /m/private/file && touch /m/made && cat /m/private/file > /seen
RUN --mount=from=localhost/busybox,target=/m,rw touch /m/bin/made && stat -c %u /m/bin/made
RUN --mount=type=tmpfs,target=/t touch /t/made
""")
    build(builda, context, *MAP)
    assert (context / "private/file").read_text() == "word\n"
    (context / "Containerfile").write_text(
        "FROM localhost/busybox\nRUN --mount=type=secret,id=s,uid=70000,target=/s true\n"
    )
    told = builda.fails("bud", "--secret", f"id=s,src={context}/secret", *MAP, context)
    assert "cannot give /s to 70000:0: uid 70000 is not in this user namespace" in told


def test_a_context_without_mapped_mounts_is_shown_as_it_is(builda: Builda, base: str, context: Path) -> None:
    """An overlay has none, as the file system of a container."""
    with overlay_over(context):
        container = builda("from", *MAP, base)
        mount = f"type=bind,src={context},target=/m"
        script = "stat -c %u /m/file && cat /m/file"
        assert builda("run", "--mount", mount, container, "sh", "-c", script).split() == ["65534", "hello"]


def test_the_run_root_need_not_have_mapped_mounts(builda: Builda, base: str, context: Path) -> None:
    builda.runroot.mkdir()
    with overlay_over(builda.runroot):
        container = builda("from", *MAP, base)
        secret = ("--secret", f"id=s,src={context}/secret", "--mount", "type=secret,id=s,target=/s")
        assert builda("run", *secret, container, "cat", "/s") == "word"
        assert builda("run", "--inline", "id -u", container, "sh", "-e") == "0"


def test_a_store_without_mapped_mounts_is_named_before_anything_is_done(
    builda: Builda, base: str, context: Path
) -> None:
    with overlay_over(builda.root):
        for words in (("from", *MAP, base), ("bud", *MAP, context)):
            told = builda.fails("--storage-driver", "plain", *words)
            assert "ids cannot be mapped with this store: cannot map the ids of" in told
            assert "id-mapped mounts (Linux 5.19: ext4, xfs, btrfs; 6.3: tmpfs)" in told
        assert builda("containers", "-q") == ""


def test_steps_are_remembered_whatever_the_map(builda: Builda, context: Path) -> None:
    secret = f"id=s,src={context}/secret"
    builda("bud", "-q", "--secret", secret, *MAP, "-t", "first", context)
    said = builda("bud", "--secret", secret, "--explain-cache", "-t", "second", context)
    assert "not remembered" not in said


@pytest.mark.parametrize("said", ["1:2", "0:10:5,3:100:5", "7:8:9"])
def test_a_map_that_makes_no_sense_changes_nothing(builda: Builda, base: str, context: Path, said: str) -> None:
    assert "--userns-uid-map" in builda.fails("from", "--userns-uid-map", said, base)
    assert "--userns-uid-map" in builda.fails("bud", "--userns-uid-map", said, context)
    assert builda("containers", "-q") == ""
