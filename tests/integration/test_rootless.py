"""builda as an unprivileged user with a range of ids: the same images as root's, and words where something lacks."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Builda, clean_environ
from tests.support import needs
from tests.support.rootless import LONELY, Rootless, rootless

pytestmark = [
    pytest.mark.root,  # to become somebody else
    needs.program("newuidmap"),
]
EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}
CONTAINERFILE = """\
FROM localhost/debian:debian
COPY --chown=1000:0 hello /srv/
SHELL ["bash", "-c"]
RUN SOURCE_DATE_EPOCH=0 useradd -m x && mkdir -p /srv/d && chown -R x:x /srv/d
RUN su x -c 'id && touch /srv/d/mine' && chmod 4755 /srv/d
RUN --mount=type=cache,target=/c touch /c/x && rm -rf /var/log && mkdir /var/log && chown 65534:5 /var/log
RUN cat <(echo substituted) > /srv/substituted && ln /srv/hello /srv/again
ENV A=b
CMD ["bash"]
"""


@pytest.fixture
def user() -> Iterator[Rootless]:
    with rootless() as made:
        yield made


def readable(archive: Path, user: Rootless) -> Path:
    """A copy of an archive that the user may read."""
    copy = user.home / archive.name
    shutil.copyfile(archive, copy)
    return copy


def with_image(builda: Builda, archive: Path, name: str) -> None:
    builda("pull", "-q", f"oci-archive:{archive}:{name}")


def digest(builda: Builda, name: str) -> str:
    found: str = json.loads(builda("inspect", "--type", "image", name))["FromImageDigest"]
    return found


def context(directory: Path) -> Path:
    directory.mkdir()
    (directory / "Containerfile").write_text(CONTAINERFILE)
    (directory / "hello").write_text("hello\n")
    os.utime(directory / "hello", (1600000000, 1600000000))
    return directory


def test_a_containerfile_gives_the_image_that_root_builds(user: Rootless, builda: Builda, debian: Path) -> None:
    for made, archive, place in (
        (builda, debian, builda.root.parent / "context"),
        (user, readable(debian, user), user.home / "context"),
    ):
        with_image(made, archive, "debian")
        made("bud", "-q", "-t", "built", context(place), **EPOCH)
    assert digest(user, "built") == digest(builda, "built")


def test_a_script_gives_the_image_that_root_makes(user: Rootless, builda: Builda, busybox: Path) -> None:
    for made, archive in ((builda, busybox), (user, readable(busybox, user))):
        with_image(made, archive, "busybox")
        container = made("from", "localhost/busybox:busybox")
        made("run", container, "sh", "-c", "mkdir -p /a/b && chown 33:44 /a && chmod 2750 /a && rm -r /var")
        made("config", "--env", "A=b", "--user", "33", container)
        made(
            "run",
            "--user",
            "0",
            container,
            "sh",
            "-c",
            "mkdir /var && touch -d '2020-01-01 10:00:00' /var/x && mkfifo /a/pipe",
        )
        made("commit", "-q", container, "made", **EPOCH)
        made("commit", "-q", "--squash", container, "squashed", **EPOCH)
    assert digest(user, "made") == digest(builda, "made")
    assert digest(user, "squashed") == digest(builda, "squashed")


def test_devices_of_a_base_image_are_kept_when_it_is_squashed(user: Rootless, builda: Builda, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir(mode=0o755)
    os.mknod(tree / "node", 0o020640, os.makedev(1, 3))
    os.chown(tree / "node", 0, 5)
    container = builda("from", "scratch")
    builda("copy", "-q", container, tree, "/")
    builda("commit", "-q", container, f"oci-archive:{tmp_path}/nodes.tar:nodes")
    for made, archive in ((builda, tmp_path / "nodes.tar"), (user, readable(tmp_path / "nodes.tar", user))):
        with_image(made, archive, "nodes")
        made("commit", "-q", "--squash", made("from", "localhost/nodes:nodes"), "squashed", **EPOCH)
    assert digest(user, "squashed") == digest(builda, "squashed")


def test_the_command_is_root_of_its_own_with_a_proc_of_its_own(user: Rootless, busybox: Path) -> None:
    with_image(user, readable(busybox, user), "busybox")
    container = user("from", "localhost/busybox:busybox")
    said = user("run", container, "sh", "-c", "id -u; ls -d /proc/[0-9]* | wc -l; echo x > /dev/null && echo written")
    assert said.split() == ["0", "4", "written"]


def test_light_verbs_enter_no_namespace(user: Rootless, busybox: Path) -> None:
    with_image(user, readable(busybox, user), "busybox")
    container = user("from", "localhost/busybox:busybox")
    nowhere: dict[str, Any] = {"BUILDA_MODE": "traced"}  # which verbs that must enter refuse
    assert "store was made in mode subid, this is mode traced" in user.fails("run", container, "true", **nowhere)
    user("config", "--label", "a=b", container, **nowhere)
    user("tag", "localhost/busybox:busybox", "other", **nowhere)
    assert "other" in user("images", **nowhere)
    assert user("inspect", "--format", "{{.FromImage}}", container, **nowhere) == "localhost/busybox:busybox"
    user("push", "-q", "other", f"oci-archive:{user.home}/pushed.tar", **nowhere)


def test_mount_works_inside_unshare_and_says_so_outside(user: Rootless, busybox: Path) -> None:
    with_image(user, readable(busybox, user), "busybox")
    container = user("from", "localhost/busybox:busybox")
    assert "builda unshare" in user.fails("mount", container)
    inner = " ".join(user.command[len(user.command) - 3 :])
    script = f'm=$({inner} mount {container}) && echo here > "$m/note" && chown 7:8 "$m/note" && {inner} info'
    assert json.loads(user("unshare", "sh", "-c", script, BUILDA_MODE="subid"))["host"]["rootless"] is True
    assert user("run", container, "sh", "-c", "cat /note; stat -c %u:%g /note").split() == ["here", "7:8"]
    assert user("mount") == ""
    seen = user("unshare", "--mount", f"ROOT={container}", "--", "sh", "-c", 'id -u; cat "$ROOT/note"')
    assert seen.split() == ["0", "here"]


def test_an_image_mount_inside_unshare_is_kept_from_a_prune_outside(user: Rootless, busybox: Path) -> None:
    with_image(user, readable(busybox, user), "busybox")
    assert "builda unshare" in user.fails("image", "mount", "busybox")
    inner = " ".join(user.command[len(user.command) - 3 :])
    script = f'm=$({inner} image mount busybox:busybox) && echo "$m" && read line && ls "$m/bin"'
    command = [*user.command, "unshare", "sh", "-c", script]
    environ = {**clean_environ(), **user.environ}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environ, stdin=pipe, stdout=pipe, text=True) as inside:
        assert inside.stdin is not None
        assert inside.stdout is not None
        assert inside.stdout.readline().strip()
        assert "image is mounted" in user.fails("rmi", "--all")
        user("prune", "--all")
        inside.stdin.write("\n")
        inside.stdin.flush()
        assert "busybox" in inside.stdout.read().split()
    deadline = time.monotonic() + 120
    user("prune", "--all")
    while user("images", "--quiet") and time.monotonic() < deadline:  # another test may run as this user
        user("prune", "--all")
    assert user("images", "--quiet") == ""


def test_nothing_is_left_of_a_build_after_prune(user: Rootless, debian: Path) -> None:
    with_image(user, readable(debian, user), "debian")
    user("bud", "-q", "-t", "built", context(user.home / "context"))
    user("rm", "--all")
    user("prune", "--all", "--force")
    store = user.home / ".local/share/builda"
    assert os.listdir(store / "snapshots") == []
    assert os.listdir(store / "ingest") == []


def test_owners_of_links_show_through_the_directories_of_later_layers(busybox: Path) -> None:
    """Of an image that was pulled: each layer is unpacked by itself."""
    layers = (
        "mkdir -p /x/in /kept; ln -s a /x/l; mkfifo /x/p /x/in/p /x/gone /kept/p; ln -s a /x/in/l; "
        "chown -h 33:4 /x/* /x/in/* /kept/p",
        "touch /x/n /x/in/n; rm /x/gone",
        "rm /x/l; ln -s b /x/l; touch /x/in/m; rm -r /kept; mkdir /kept; mkfifo /kept/p",
    )
    with rootless(LONELY) as lonely:
        with_image(lonely, readable(busybox, lonely), "busybox")
        name = "localhost/busybox:busybox"
        for number, script in enumerate(layers):
            container = lonely("from", name).strip()
            lonely("run", container, "--", "sh", "-ec", script)
            name = f"localhost/made:{number}"
            lonely("commit", "-q", "--rm", container, name)
        look = "cd /; find x kept | sort | xargs stat -c '%n %u %g'"
        before = lonely("run", lonely("from", name).strip(), "--", "sh", "-c", look)
        lonely("push", name, f"oci-archive:{lonely.home}/made.tar:made")
        lonely("rm", "--all")
        lonely("rmi", "-af")
        lonely("prune", "-af")
        lonely("pull", "-q", f"oci-archive:{lonely.home}/made.tar:made")
        pulled = lonely("run", lonely("from", "localhost/made:made").strip(), "--", "sh", "-c", look)
    rows = dict(line.split(" ", 1) for line in pulled.splitlines())
    assert {path for path, owner in rows.items() if owner == "33 4"} == {"x/in", "x/p", "x/in/p", "x/in/l"}
    assert {path for path, owner in rows.items() if owner == "0 0"} == {
        "x",
        "x/l",
        "x/n",
        "x/in/n",
        "x/in/m",
        "kept",
        "kept/p",
    }
    assert pulled == before


def test_a_user_without_ranges_builds_alone_and_is_told_what_to_write(busybox: Path) -> None:
    with rootless(LONELY) as lonely:
        with_image(lonely, readable(busybox, lonely), "busybox")
        done = lonely.run("from", "localhost/busybox:busybox")
        assert "no range of uids for user" in done.stderr
        assert re.search(rf"{LONELY}:\d+:65536 in /etc/subuid", done.stderr)
        container = done.stdout.strip()
        again = lonely.run("run", container, "--", "sh", "-c", "id -u; echo x > /etc/x")
        assert (again.stdout, again.stderr) == ("0\n", "")
        lonely("copy", "--chown", "7:8", container, "/etc/hostname", "/h")
        lonely("commit", container, "made")
        lonely("push", "made", f"docker-archive:{lonely.home}/made.tar")
        with tarfile.open(lonely.home / "made.tar") as archive:
            manifest = json.load(archive.extractfile("manifest.json") or pytest.fail("no manifest"))
            with tarfile.open(fileobj=archive.extractfile(manifest[0]["Layers"][-1])) as layer:
                owners = {member.name: (member.uid, member.gid) for member in layer}
        assert owners == {"etc": (0, 0), "etc/x": (0, 0), "h": (7, 8)}
        assert "busybox" in lonely("images")
        assert lonely("run", "--user", "1:1", container, "sh", "-c", "echo $(id -u):$(id -g)") == "1:1"


def test_another_users_store_is_refused(user: Rootless, builda: Builda, busybox: Path) -> None:
    with_image(user, readable(busybox, user), "busybox")
    store = user.home / ".local/share/builda"
    assert f"store belongs to another user: {store}" in builda.fails("--root", store, "images")
    os.chmod(builda.root.parent, 0o755)
    root = Path(subprocess.check_output(["mktemp", "-d", "-p", "/var/tmp"], text=True).strip())
    try:
        root.chmod(0o755)
        builda("--root", root, "images")
        said = user.fails("--root", root, "from", "scratch")
        assert f"store belongs to another user: {root}" in said
    finally:
        shutil.rmtree(root)


def test_a_store_of_another_mode_is_refused(user: Rootless) -> None:
    user("from", "scratch")
    marker = user.home / ".local/share/builda/builda.json"
    made = json.loads(marker.read_text())
    assert made["mode"] == "subid"
    marker.write_text(json.dumps({**made, "mode": "single", "ids": "0:1000:1"}))
    said = user.fails("from", "scratch")
    assert "store was made in mode single, this is mode subid" in said
    assert "--root" in said


def test_a_home_that_cannot_be_written_is_named(user: Rootless) -> None:
    said = user.fails("images", HOME="/")
    assert "no permission in the store: /.local/share/builda" in said
    assert "--root" in said


def test_a_runtime_directory_of_somebody_else_is_not_used(user: Rootless) -> None:
    assert json.loads(user("info", XDG_RUNTIME_DIR="/run"))["store"]["RunRoot"].startswith("/tmp/builda-run-")


def test_ids_without_a_place_are_named_with_the_range_that_would_do(user: Rootless, busybox: Path) -> None:
    with_image(user, readable(busybox, user), "busybox")
    container, listed = (user("from", "localhost/busybox:busybox") for _ in range(2))
    user("run", container, "true")  # it has a tree, and the other has none as long as nothing is run
    (user.home / "file").write_text("x")
    words = "uid 70000 is not in this user namespace, which has 0-0, 1-65536; a range of 70000 ids would do"
    assert words in user.fails("copy", "--chown", "70000:0", container, user.home / "file", "/file")
    assert words in user.fails("run", "--user", "70000", container, "true")
    tar = user.home / "layer.tar"
    script = (
        "import sys, tarfile\nt = tarfile.open(sys.argv[1], 'w')\ni = tarfile.TarInfo('x')\ni.uid = 70000\nt.addfile(i)"
    )
    subprocess.run([sys.executable, "-c", script, tar], check=True)
    assert words in user.fails("add", container, tar, "/tmp/")
    user("copy", "--chown", "70000:0", listed, user.home / "file", "/file")
    assert words in user.fails("run", listed, "true")
    user("commit", "-q", listed, "listed")


def test_keep_groups_keeps_what_has_no_number_inside(user: Rootless, busybox: Path) -> None:
    with_image(user, readable(busybox, user), "busybox")
    keeping = user("from", "--group-add", "keep-groups", "localhost/busybox:busybox")
    other = user("from", "localhost/busybox:busybox")
    secret = user.home / "secret"
    secret.write_text("of a group\n")
    os.chown(secret, 0, 54321)
    secret.chmod(0o040)
    command = [*user.command]
    command[command.index("--init-groups")] = "--groups=54321"
    environ = {**clean_environ(), **user.environ}
    for container, said in ((keeping, "of a group\n"), (other, "")):
        run = [*command, "run", "-v", f"{secret}:/secret", container, "cat", "/secret"]
        assert subprocess.run(run, env=environ, capture_output=True, text=True).stdout == said


def test_info_tells_what_this_user_may_do(user: Rootless) -> None:
    info = json.loads(user("info"))
    told = info["host"]["abilities"]
    assert info["store"]["GraphStatus"]["overlay userxattr"] == "yes"
    assert not any((user.home / ".local/share/builda/ingest").iterdir())
    assert told["mount namespace"] == "CAP_SYS_ADMIN is missing"
    assert (told["subordinate ids"], told["overlay userxattr"], told["fresh proc"]) == ("yes", "yes", "yes")
    assert told["device nodes"] == "Operation not permitted"
    assert told["newuidmap"].endswith("/newuidmap")


def test_user_namespaces_that_are_forbidden_are_explained(user: Rootless, builda: Builda) -> None:
    """In a namespace that allows no further ones: what the machine's own limit does, without touching it."""
    environ = " ".join(f"{name}={value}" for name, value in {**user.environ, "PATH": os.environ["PATH"]}.items())
    command = f"env -i {environ} {' '.join(user.command)} --mode subid from scratch"
    script = f"echo 0 > /proc/sys/user/max_user_namespaces && {command}"
    said = builda.fails("--mode", "userns", "unshare", "sh", "-c", script)
    limits = "user.max_user_namespaces or user.max_mnt_namespaces"
    assert f"cannot make a user namespace: unshare: the limit {limits} is reached" in said
    assert "hint: raise the limit: sysctl user.max_user_namespaces=15000" in said


@pytest.mark.parametrize("options", ["noexec", "nosuid,nodev"])
def test_a_store_on_a_file_system_without_exec_or_devices_works(user: Rootless, busybox: Path, options: str) -> None:
    store = user.home / "store"
    store.mkdir()
    account = user.home.stat()
    words = f"{options},mode=755,uid={account.st_uid},gid={account.st_gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", words, "tmpfs", store], check=True)
    try:
        with_image(user, readable(busybox, user), "busybox")
        user("--root", store, "pull", "-q", f"oci-archive:{user.home}/busybox.tar:busybox")
        container = user("--root", store, "from", "localhost/busybox:busybox")
        assert user("--root", store, "run", container, "sh", "-c", "echo ran") == "ran"
    finally:
        subprocess.run(["umount", "-l", store], check=True)


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_an_oci_runtime_runs_commands_too(user: Rootless, busybox: Path, runtime: str) -> None:
    if shutil.which(runtime, path="/usr/bin:/usr/sbin") is None:
        pytest.skip(f"{runtime} is not installed")
    with_image(user, readable(busybox, user), "busybox")
    container = user("from", "localhost/busybox:busybox")
    script = "touch /file && chown 5:6 /file && stat -c %u:%g /file && ls -d /proc/[0-9]* | wc -l"
    said = user("run", "--isolation", "oci", "--runtime", runtime, container, "sh", "-c", script)
    assert said.split()[0] == "5:6"
    assert int(said.split()[1]) <= 4
