"""Mode chroot, end to end: what commands find that nothing could mount, and what kills leave."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import tarfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Builda, clean_environ
from tests.support.pods import in_pod

pytestmark = pytest.mark.root

CONTAINERFILE = """
FROM localhost/busybox AS one
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=token --mount=type=bind,target=/src \\
    cat /run/secrets/token > /root/.cache/token; cp /src/file /copied
FROM localhost/busybox
RUN --mount=from=one,target=/one --mount=type=cache,target=/root/.cache --mount=type=tmpfs,target=/tmp/x \\
    cp /one/copied /root/.cache/token /tmp/x; cat /tmp/x/* > /both; grep -q localhost /etc/hosts; echo > /dev/null
"""


class InMode:
    """builda in one mode, on a store of its own, with a busybox image."""

    def __init__(self, place: Path, mode: str, image: Path) -> None:
        self.builda = Builda(place / mode, place / f"run-{mode}", {"BUILDA_MODE": mode})
        self("pull", "-q", f"oci-archive:{image}:busybox")
        self("tag", self("images", "-q").split()[0], "localhost/busybox")

    def __call__(self, *arguments: str | Path, **options: Any) -> str:
        return self.builda(*arguments, **options)

    def build(self, context: Path) -> str:
        options = ("-q", "--layers=false", "--timestamp", "1700000000", "--secret", f"id=token,src={context}/token")
        return self("bud", *options, "-f", "-", context, given=CONTAINERFILE)


@pytest.fixture
def chroot(tmp_path: Path, busybox: Path) -> InMode:
    return InMode(tmp_path, "chroot", busybox)


def test_the_image_is_the_one_that_is_built_with_mounts(chroot: InMode, tmp_path: Path, busybox: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "file").write_text("content\n")
    (context / "token").write_text("secret\n")
    image = chroot.build(context)
    assert image == InMode(tmp_path, "direct", busybox).build(context)
    assert chroot("run", chroot("from", image), "--", "cat", "/both") == "content\nsecret"


def test_a_killed_command_leaves_no_trace_and_its_cache(chroot: InMode) -> None:
    container = chroot("from", "localhost/busybox")
    cache = "type=cache,target=/cache"
    command = ["run", "--mount", cache, container, "--", "sh", "-c", "echo kept > /cache/file; echo ready; sleep 100"]
    with subprocess.Popen(
        [*chroot.builda.command, *command],
        env={**clean_environ(), **chroot.builda.environ},
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        os.killpg(running.pid, signal.SIGKILL)
    other = chroot("from", "localhost/busybox")
    assert chroot("run", "--mount", cache, other, "--", "cat", "/cache/file") == "kept"
    image = chroot("commit", "-q", container)
    assert chroot("run", chroot("from", image), "--", "sh", "-c", "ls -d /cache || echo none").endswith("none")


@pytest.mark.parametrize("user", ["root", "77"])
def test_a_killed_builda_leaves_no_secret(chroot: InMode, tmp_path: Path, user: str) -> None:
    """Here it has to lie in the tree: the command's supervisor takes it out when builda is killed."""
    (tmp_path / "token").write_text("hunter2\n")
    (tmp_path / "Containerfile").write_text(
        f"FROM localhost/busybox\nUSER {user}\n"
        "RUN --mount=type=secret,id=token,uid=77 cat /run/secrets/token; cat /proc/self/comm && sleep 100\n"
    )
    command = ["bud", "--secret", f"id=token,src={tmp_path}/token", str(tmp_path)]
    environ = {**clean_environ(), **chroot.builda.environ}
    with subprocess.Popen([*chroot.builda.command, *command], env=environ, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        while b"hunter2" not in running.stdout.readline():
            pass
        running.kill()
    deadline = time.monotonic() + 10
    while found := files_with(b"hunter2", chroot.builda.root, chroot.builda.runroot):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_nodes_open_no_device(chroot: InMode, tmp_path: Path) -> None:
    """No mount keeps them shut. Nodes of an image are kept as files that stand in for them."""
    with tarfile.open(tmp_path / "node.tar", "w") as archive:
        node = tarfile.TarInfo("brought")
        node.type, node.mode, node.devmajor, node.devminor = tarfile.CHRTYPE, 0o666, 1, 5
        archive.addfile(node)
    container = chroot("from", "localhost/busybox")
    chroot("add", container, tmp_path / "node.tar", "/")
    image = chroot("commit", "-q", container)
    other = chroot("from", image)
    script = "mknod /made c 1 5 2>/dev/null || echo refused; mkfifo /pipe; head -c 1 /brought | wc -c; echo > /dev/null"
    assert chroot("run", other, "--", "sh", "-c", script).split() == ["refused", "0"]
    assert (
        chroot("run", "--cap-add", "mknod", other, "--", "sh", "-c", "mknod /made c 1 5; rm /made; echo made") == "made"
    )
    chroot("push", "-q", image, f"oci:{tmp_path}/layout")
    types = set()
    for blob in (tmp_path / "layout/blobs/sha256").iterdir():
        with suppress(tarfile.ReadError), tarfile.open(blob) as layer:
            types |= {member.type for member in layer if member.name == "brought"}
    assert types == {tarfile.CHRTYPE}


def files_with(content: bytes, *places: Path) -> list[Path]:
    """Those below the places that have it; what is removed meanwhile has not."""
    found = []
    for path in (path for place in places for path in place.rglob("*")):
        with suppress(FileNotFoundError):
            if stat.S_ISREG(path.lstat().st_mode) and content in path.read_bytes():
                found.append(path)
    return found


def test_a_volume_to_write_to_is_refused(chroot: InMode, tmp_path: Path) -> None:
    container = chroot("from", "localhost/busybox")
    (tmp_path / "file").write_text("content")
    error = chroot.builda.fails("run", "-v", f"{tmp_path}:/v", container, "--", "true")
    assert f"cannot write to the host: {tmp_path} at /v" in error
    assert chroot("run", "-v", f"{tmp_path}:/v:ro", container, "--", "cat", "/v/file") == "content"


@pytest.mark.parametrize(
    "words", [("--pid", "private"), ("--ipc=private",), ("--uts", "private"), ("--cgroupns=private",)]
)
def test_a_namespace_that_a_command_cannot_have_is_refused(words: tuple[str, ...], chroot: InMode) -> None:
    container = chroot("from", "localhost/busybox")
    told = chroot.builda.run("run", *words, container, "--", "true", check=False)
    assert told.returncode == 125
    assert f"namespace of this process with --isolation chroot: {words[0].partition('=')[0]} private" in told.stderr
    assert chroot("run", words[0].partition("=")[0], "host", container, "--", "echo", "shared") == "shared"


def test_a_namespace_that_commands_cannot_have_is_refused_before_the_build(chroot: InMode, tmp_path: Path) -> None:
    text = "FROM localhost/busybox\nRUN echo begun\n"
    told = chroot.builda.run("bud", "--pid", "private", "-f", "-", tmp_path, given=text, check=False)
    assert (told.returncode, "begun" in told.stdout) == (125, False)
    assert "--pid private" in told.stderr


def test_a_store_of_overlays_is_refused(tmp_path: Path, busybox: Path) -> None:
    direct = InMode(tmp_path, "direct", busybox)
    direct("--storage-driver", "overlay", "from", "localhost/busybox")
    error = direct.builda.fails("--mode", "chroot", "--storage-driver", "overlay", "from", "localhost/busybox")
    assert "mode chroot mounts nothing" in error


STORE = r"""
#include <fcntl.h>
#include <sys/mman.h>
int main(void) {
    volatile char *file = mmap(0, 2, PROT_READ | PROT_WRITE, MAP_SHARED, open("/f", O_RDWR), 0);
    if (file == MAP_FAILED) return 1;
    file[0] += 1;
}
"""
MAPPED = """
builda pull -q oci-archive:/given/busybox.tar:busybox
printf 'FROM localhost/busybox:busybox\\nCOPY store /bin/\\nRUN echo a > /f; chown 7 /f; chmod 666 /f\\n' > /tmp/one
builda bud -q -f /tmp/one -t one /given
for user in 0 8; do
    printf 'FROM localhost/one\\nUSER %s\\nRUN store\\n' $user > /tmp/two
    builda bud -q -f /tmp/two -t two /given
    builda run $(builda from localhost/two) -- cat /f
done
"""


@pytest.mark.parametrize("pod", ["root-default", "restricted"])
def test_a_file_that_a_program_changes_in_memory_is_in_the_layer(pod: str, tmp_path: Path, busybox: Path) -> None:
    """On tmpfs a store to a page that was read before changes none of the file's times."""
    given = tmp_path / "given"
    given.mkdir()
    given.chmod(0o755)
    (given / "busybox.tar").hardlink_to(busybox)
    (given / "store.c").write_text(STORE)
    subprocess.run(["cc", "-static", "-o", given / "store", given / "store.c"], check=True)
    done = in_pod(pod, MAPPED, "--tmpfs", "/memory", given=given, environ={"BUILDA_ROOT": "/memory/store"})
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.split() if len(line) == 1] == ["b", "b"]
