"""copy and add: what sources and destinations mean to scripts."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import socket
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from builda.builder.imageoptions import Inputs
from builda.errors import CorruptContent, InvalidValue, NotFound
from builda.oci.edits import SetText
from builda.plan import Configure, Copy, FromContainer, FromImage, FromStage, InlineFile, MakeDirectory, NamedContext
from builda.store.containers import WorkingContainer
from builda.store.store import Image
from tests.support import needs
from tests.unit.builder.conftest import Bench

pytestmark = pytest.mark.root


@pytest.fixture
def context(bench: Bench) -> Path:
    path = bench.path / "context"
    (path / "app/lib").mkdir(parents=True)
    (path / "app/main.sh").write_text("main")
    (path / "app/lib/util.sh").write_text("util")
    (path / "app/notes.md").write_text("notes")
    (path / "one").write_text("1")
    return path


def tree(bench: Bench, container: WorkingContainer, path: str) -> list[str]:
    return bench.shell(container, f"cd {path} && find . | sort").split()


def test_relative_paths_start_where_the_caller_is(bench: Bench, container: WorkingContainer, context: Path) -> None:
    bench.enter(context / "app")
    bench.builder.copy(container, Copy(sources=("main.sh", "../one"), destination="/srv/"))
    assert tree(bench, container, "/srv") == [".", "./main.sh", "./one"]


def test_a_script_may_follow_links_anywhere(
    bench: Bench, container: WorkingContainer, context: Path, tmp_path: Path
) -> None:
    (tmp_path / "outside").write_text("out")
    (context / "link").symlink_to(tmp_path / "outside")
    bench.enter(context)
    bench.builder.copy(container, Copy(sources=("link",), destination="/x"))
    assert bench.shell(container, "cat /x") == "out"


def test_a_context_cannot_be_left(bench: Bench, container: WorkingContainer, context: Path) -> None:
    (context / "link").symlink_to("/etc/passwd")
    inputs = Inputs(context=context)
    with pytest.raises(NotFound):
        bench.builder.copy(container, Copy(sources=("link",), destination="/x"), inputs=inputs)
    bench.builder.copy(container, Copy(sources=("../../one",), destination="/x"), inputs=inputs)
    assert bench.shell(container, "cat /x") == "1"


def test_patterns_in_the_callers_directory_are_names(bench: Bench, container: WorkingContainer, context: Path) -> None:
    odd = context / "[a]*"
    odd.mkdir()
    (odd / "f1").write_text("")
    (odd / "f2").write_text("")
    bench.enter(odd)
    bench.builder.copy(container, Copy(sources=("f*",), destination="/srv/"))
    assert tree(bench, container, "/srv") == [".", "./f1", "./f2"]


def test_the_destination_starts_at_the_working_directory(
    bench: Bench, container: WorkingContainer, context: Path
) -> None:
    bench.builder.config(container, Configure(edits=(SetText("working_dir", "/srv/app"),)))
    bench.enter(context)
    bench.builder.copy(container, Copy(sources=("one",), destination="."))
    bench.builder.copy(container, Copy(sources=("one",), destination="two"))
    bench.builder.copy(container, Copy(sources=("one",), destination="../"))
    assert tree(bench, container, "/srv") == [".", "./app", "./app/one", "./app/two", "./one"]


def test_owners_and_modes(bench: Bench, container: WorkingContainer, context: Path) -> None:
    bench.shell(container, "echo bob:x:7:8::/:/bin/sh >> /etc/passwd; echo staff:x:50: >> /etc/group")
    os.chown(context / "one", 1234, 1234)
    bench.enter(context)
    step = Copy(sources=("one",), destination="/")
    seen = []
    for chown, chmod in ((None, None), ("bob", "0600"), ("bob:staff", "u=rwx,go="), ("5", None), ("5:6", None)):
        bench.builder.copy(container, replace(step, chown=chown, chmod=chmod))
        seen.append(bench.shell(container, "stat -c %u:%g:%a /one").strip())
    assert seen == ["0:0:644", "7:8:600", "7:50:700", "5:5:644", "5:6:644"]


def test_an_unknown_owner_copies_nothing(bench: Bench, container: WorkingContainer, context: Path) -> None:
    bench.enter(context)
    with pytest.raises(NotFound, match="unknown user"):
        bench.builder.copy(container, Copy(sources=("one",), destination="/x", chown="nobodie"))
    assert bench.upper(container) == []


def test_a_missing_source_copies_nothing_and_hints(bench: Bench, container: WorkingContainer, context: Path) -> None:
    inputs = Inputs(context=context)
    with pytest.raises(NotFound, match=r"no such file or directory in the context: app/mian\.sh") as caught:
        bench.builder.copy(container, Copy(sources=("one", "app/mian.sh"), destination="/x/"), inputs=inputs)
    assert caught.value.hint == "did you mean app/main.sh?"
    with pytest.raises(NotFound, match="no such file or directory") as caught:
        bench.builder.copy(container, Copy(sources=(f"{context}/noe",), destination="/x"))
    assert caught.value.hint == f"did you mean {context}/one?"
    assert bench.upper(container) == []


def test_excludes_and_ignore_file(bench: Bench, container: WorkingContainer, context: Path) -> None:
    (context / "rules").write_text("**/*.md\n")
    inputs = Inputs(context=context, ignore_file=context / "rules")
    step = Copy(sources=("app",), destination="/a/", excludes=("lib",))
    bench.builder.copy(container, step, inputs=inputs)
    assert tree(bench, container, "/a") == [".", "./main.sh"]


def test_parents_keep_the_path_that_was_written(bench: Bench, container: WorkingContainer, context: Path) -> None:
    bench.enter(context)
    bench.builder.copy(container, Copy(sources=("app/lib/util.sh",), destination="/a/", parents=True))
    bench.builder.copy(container, Copy(sources=("app/./lib/util.sh",), destination="/b/", parents=True))
    assert tree(bench, container, "/a") == [".", "./app", "./app/lib", "./app/lib/util.sh"]
    assert tree(bench, container, "/b") == [".", "./lib", "./lib/util.sh"]


def test_timestamps(bench: Bench, container: WorkingContainer, context: Path) -> None:
    bench.enter(context)
    bench.builder.copy(container, Copy(sources=("app",), destination="/a", timestamp=12345))
    assert set(bench.shell(container, "stat -c %Y /a/main.sh /a/lib").split()) == {"12345"}


def test_the_digest_is_of_the_content(bench: Bench, container: WorkingContainer, context: Path) -> None:
    bench.enter(context)
    step = Copy(sources=("app",), destination="/a")
    first = bench.builder.copy(container, step)[1]
    os.utime(context / "app/main.sh", (1, 1))
    assert bench.builder.copy(container, replace(step, destination="/b", chown="5"))[1] == first
    (context / "app/main.sh").write_text("changed")
    assert bench.builder.copy(container, step)[1] != first


def test_an_empty_pattern_has_no_digest(bench: Bench, container: WorkingContainer, context: Path) -> None:
    step = Copy(sources=("*.none",), destination="/", allow_empty_wildcard=True)
    assert bench.builder.copy(container, step, inputs=Inputs(context=context))[1] is None
    with pytest.raises(NotFound, match="no file matches"):
        bench.builder.copy(container, replace(step, allow_empty_wildcard=False), inputs=Inputs(context=context))


def test_from_an_image_owners_are_kept(bench: Bench, container: WorkingContainer, box: Image) -> None:
    bench.builder.copy(container, Copy(sources=("/bin/busybox",), destination="/copy", source=FromImage("box")))
    assert bench.shell(container, "cmp /copy /bin/busybox && echo same") == "same\n"


def test_from_a_container_at_work(bench: Bench, container: WorkingContainer) -> None:
    bench.shell(container, "mkdir /out; echo built > /out/app; chown 7:8 /out/app")
    other = bench.builder.from_image("scratch")
    step = Copy(sources=("/out/app",), destination="/usr/bin/", source=FromContainer(container.name))
    bench.builder.copy(other, step)
    with bench.builder.mounted(other) as root:
        info = os.stat("usr/bin/app", dir_fd=root)
    assert (info.st_uid, info.st_gid, info.st_size) == (7, 8, 6)
    bench.builder.copy(other, replace(step, source=FromStage(0)), inputs=Inputs(stages={0: container}))
    bench.builder.copy(container, replace(step, destination="/self/", source=FromContainer(container.name)))
    assert tree(bench, container, "/self") == [".", "./app"]


def test_two_containers_may_copy_from_each_other(bench: Bench, container: WorkingContainer) -> None:
    other = bench.builder.from_image("box")

    def copies(target: WorkingContainer, source: WorkingContainer) -> None:
        for number in range(5):
            step = Copy(sources=("/etc/passwd",), destination=f"/p{number}", source=FromContainer(source.name))
            bench.builder.copy(target, step)

    threads = [threading.Thread(target=copies, args=pair) for pair in ((container, other), (other, container))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert bench.upper(container) == bench.upper(other) == [f"p{number}" for number in range(5)]


def test_named_contexts(bench: Bench, container: WorkingContainer, context: Path) -> None:
    step = Copy(sources=("one",), destination="/", source=NamedContext("ctx"))
    bench.builder.copy(container, step, inputs=Inputs(named={"ctx": context}))
    with pytest.raises(NotFound, match="no such build context: ctx"):
        bench.builder.copy(container, step)


def test_heredocs(bench: Bench, container: WorkingContainer, context: Path) -> None:
    files = (InlineFile("conf", b"a=1\n"), InlineFile("other", b""))
    step = Copy(sources=("one",), destination="/etc/x/", inline=files)
    bench.builder.copy(container, step, inputs=Inputs(context=context))
    assert (
        bench.shell(container, "cat /etc/x/conf; stat -c %a /etc/x/conf; ls /etc/x") == "a=1\n644\nconf\none\nother\n"
    )


def tar_bytes() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("d/file")
        info.size, info.uid, info.gid, info.mtime = 4, 7, 8, 1000
        tar.addfile(info, io.BytesIO(b"data"))
    return buffer.getvalue()


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_add_unpacks_archives_whatever_they_are_called(
    bench: Bench, container: WorkingContainer, context: Path, compress: Callable[[bytes], bytes]
) -> None:
    (context / "archive").write_bytes(compress(tar_bytes()))
    step = Copy(sources=("archive", "one"), destination="/x", extract=True)
    bench.builder.copy(container, step, inputs=Inputs(context=context))
    assert tree(bench, container, "/x") == [".", "./d", "./d/file", "./one"]
    assert bench.shell(container, "stat -c %u:%g:%Y /x/d/file") == "7:8:1000\n"
    bench.builder.copy(container, replace(step, chown="5:6", timestamp=5), inputs=Inputs(context=context))
    assert bench.shell(container, "stat -c %u:%g:%Y /x/d/file") == "5:6:5\n"


def test_copy_never_unpacks(bench: Bench, container: WorkingContainer, context: Path) -> None:
    (context / "a.tar").write_bytes(tar_bytes())
    inputs = Inputs(context=context)
    bench.builder.copy(container, Copy(sources=("a.tar",), destination="/x/"), inputs=inputs)
    bench.builder.copy(
        container, Copy(sources=("a.tar",), destination="/y/", extract=True, unpack=False), inputs=inputs
    )
    assert tree(bench, container, "/x") == tree(bench, container, "/y") == [".", "./a.tar"]


def test_modes_do_not_reach_into_archives(bench: Bench, container: WorkingContainer, context: Path) -> None:
    (context / "a.tar").write_bytes(tar_bytes())
    step = Copy(sources=("a.tar", "one"), destination="/x", extract=True, chmod="0640")
    bench.builder.copy(container, step, inputs=Inputs(context=context))
    assert "chmod does not reach into an archive: a.tar" in str(bench.events)
    assert bench.shell(container, "stat -c %a /x/one /x/d/file") == "640\n644\n"


def test_add_fetches_urls(bench: Bench, container: WorkingContainer) -> None:
    bench.remote.urls["https://x.test/tool"] = b"tool"
    step = Copy(sources=("https://x.test/tool",), destination="/opt/", extract=True)
    bench.builder.copy(container, step)
    assert bench.shell(container, "cat /opt/tool; stat -c ' %a %Y' /opt/tool") == "tool 600 1234567890\n"
    right = f"sha256:{hashlib.sha256(b'tool').hexdigest()}"
    bench.builder.copy(container, replace(step, destination="/named", checksum=right))
    assert bench.shell(container, "cat /named") == "tool"
    with pytest.raises(CorruptContent, match="checksum does not match"):
        bench.builder.copy(container, replace(step, destination="/bad", checksum="sha256:" + "0" * 64))
    with pytest.raises(InvalidValue, match="checksum"):
        bench.builder.copy(container, replace(step, checksum="md5:0"))
    assert "bad" not in bench.upper(container)
    assert os.listdir(bench.store.layout.path("ingest")) == []


def test_an_archive_from_a_url_is_unpacked_only_when_asked(bench: Bench, container: WorkingContainer) -> None:
    bench.remote.urls["https://x.test/a.tar"] = tar_bytes()
    step = Copy(sources=("https://x.test/a.tar",), destination="/x/", extract=True)
    bench.builder.copy(container, step)
    assert tree(bench, container, "/x") == [".", "./a.tar"]
    bench.builder.copy(container, replace(step, destination="/y/", unpack=True))
    assert tree(bench, container, "/y") == [".", "./d", "./d/file"]


def test_a_checksum_is_for_one_remote_file(bench: Bench, container: WorkingContainer, context: Path) -> None:
    step = Copy(sources=("one",), destination="/", checksum="sha256:" + "0" * 64)
    with pytest.raises(InvalidValue, match="exactly one source"):
        bench.builder.copy(container, step, inputs=Inputs(context=context))


@needs.program("git")
def test_add_fetches_repositories(bench: Bench, container: WorkingContainer, context: Path, tmp_path: Path) -> None:
    with git_daemon(tmp_path) as (url, commit):
        step = Copy(sources=(f"{url}#main:sub",), destination="/r/", extract=True, checksum=commit[:12])
        bench.builder.copy(container, step)
        assert tree(bench, container, "/r") == [".", "./file"]
        bench.builder.copy(container, Copy(sources=(url,), destination="/whole/", keep_git_dir=True))
        assert "HEAD" in bench.shell(container, "ls /whole/.git")
        with pytest.raises(CorruptContent, match="commit does not match"):
            bench.builder.copy(container, replace(step, checksum="abc"))
        with pytest.raises(NotFound, match="git"):
            bench.builder.copy(container, replace(step, sources=(f"{url}#nowhere",), checksum=None))


@contextmanager
def git_daemon(path: Path) -> Iterator[tuple[str, str]]:
    """A repository served on the loopback: its URL, and the commit of its branch main."""
    work = path / "repositories/r.git"
    (work / "sub").mkdir(parents=True)
    (work / "sub/file").write_text("x")
    git = ["git", "-C", str(work), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["git", "daemon", "--export-all", "--listen=127.0.0.1", f"--port={port}", f"--base-path={path}"]
    server = subprocess.Popen([*command, str(path)], stderr=subprocess.PIPE)
    try:
        _wait_for(port)
        yield f"git://127.0.0.1:{port}/repositories/r.git", commit
    finally:
        server.terminate()
        server.communicate()


def _wait_for(port: int) -> None:
    for _ in range(200):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError("git daemon does not answer")


def test_a_directory_for_workdir(bench: Bench, container: WorkingContainer) -> None:
    bench.builder.config(container, Configure(edits=(SetText("working_dir", "/srv"),)))
    bench.builder.make_directory(container, MakeDirectory(path="a/b", user="7:8", created_by="WORKDIR a/b"))
    assert bench.shell(container, "stat -c %u:%g:%a /srv/a/b") == "7:8:755\n"
    assert bench.store.container(container.id).history[0].created_by == "WORKDIR a/b"
    with pytest.raises(InvalidValue, match="not a directory"):
        bench.builder.make_directory(container, MakeDirectory(path="/etc/passwd/x"))


def test_links_in_the_container_never_lead_out(bench: Bench, container: WorkingContainer, context: Path) -> None:
    bench.shell(container, "ln -s /../../../../tmp/escape /out; ln -s / /root-link")
    inputs = Inputs(context=context)
    bench.builder.copy(container, Copy(sources=("one",), destination="/out/x/"), inputs=inputs)
    bench.builder.copy(container, Copy(sources=("one",), destination="/root-link/y/"), inputs=inputs)
    assert not Path("/tmp/escape").exists()
    assert bench.shell(container, "ls /tmp/escape/x /y") == "/tmp/escape/x:\none\n\n/y:\none\n"


@pytest.mark.parametrize("kind", ["device", "pipe", "directory"])
def test_what_became_something_else_meanwhile_is_not_opened(context: Path, kind: str) -> None:
    """A source that was a file when it was looked at; to open a device can be an act."""
    from builda.builder.copy.copysources import is_archive
    from builda.fs.sources import Source, Top

    (context / "data").write_text("x")
    root = os.open(context, os.O_PATH | os.O_DIRECTORY)
    try:
        top = Top(Source(root, "data"), "data", os.stat(context / "data"), "")
        (context / "data").unlink()
        match kind:
            case "device":
                os.mknod(context / "data", stat.S_IFCHR | 0o600, os.makedev(60, 7))  # which no driver has
            case "pipe":
                os.mkfifo(context / "data")
            case _:
                (context / "data").mkdir()
        with pytest.raises(OSError, match="not a regular file"):
            is_archive(top)
    finally:
        os.close(root)
