"""Contexts that are fetched: repositories, archives behind URLs and on standard input, and directories as bases."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from tests.conftest import Builda, clean_environ

pytestmark = pytest.mark.root

CONTAINERFILE = "FROM {base}\nCOPY . /ctx\nRUN ls -A /ctx > /list\n"


def git(directory: Path, *arguments: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    return subprocess.run(["git", *who, *arguments], cwd=directory, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def tree(tmp_path: Path, base: str) -> Path:
    """The work tree of a repository with a tag, a branch and a subdirectory."""
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    (work / "Containerfile").write_text(CONTAINERFILE.format(base=base))
    (work / "sub/Containerfile").write_text(CONTAINERFILE.format(base=base))
    (work / "sub/inner").write_text("inner")
    (work / "secret").write_text("ignored")
    (work / ".dockerignore").write_text("secret\n")
    (work / "Bad.in").write_text(f'FROM {base}\n#include "nowhere"\n')
    (work / "out").symlink_to("/etc")
    git(work, "init", "--quiet", "--initial-branch=main")
    git(work, "add", "--all")
    git(work, "commit", "--quiet", "--message=first")
    git(work, "tag", "v1")
    (work / "later").write_text("later")
    git(work, "add", "--all")
    git(work, "commit", "--quiet", "--message=second")
    return work


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name
        """Nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The URL of a web server over `tmp_path`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


@pytest.fixture
def repository(tree: Path, tmp_path: Path, server: str) -> str:
    """Its URL, as any web server may serve it."""
    git(tmp_path, "clone", "--quiet", "--bare", str(tree), "r.git")
    git(tmp_path / "r.git", "update-server-info")
    return f"{server}/r.git"


def listed(builda: Builda, *arguments: str, **options: str) -> list[str]:
    """The files that a build found in its context."""
    image = builda("bud", "--quiet", *arguments, **options)
    return builda("run", builda("from", image), "cat", "/list").split()


def leftovers(builda: Builda) -> list[Path]:
    return list((builda.root / "ingest").iterdir())


@pytest.mark.parametrize("where", ["", "#main", "#v1", "?branch=main", "?tag=v1", "?ref=v1"])
def test_a_repository_is_a_context(builda: Builda, repository: str, where: str) -> None:
    found = listed(builda, repository + where)
    assert {"Containerfile", "sub"} <= set(found)
    assert ("later" in found) == ("v1" not in where)
    assert not {"secret", ".git"} & set(found)
    assert leftovers(builda) == []


@pytest.mark.parametrize("where", ["#v1:sub", "#:sub", "?subdir=sub", "?tag=v1&subdir=/sub"])
def test_a_subdirectory_of_a_repository_is_a_context(builda: Builda, repository: str, where: str) -> None:
    assert listed(builda, repository + where) == ["Containerfile", "inner"]


def test_a_commit_is_built_from_the_cache_the_second_time(builda: Builda, repository: str, tree: Path) -> None:
    where = f"{repository}#{git(tree, 'rev-parse', 'HEAD').strip()}"
    first = builda("bud", "--quiet", where)
    said = builda("bud", where)
    assert said.count("--> Using cache") == 2
    assert said.endswith(first)


def test_the_git_directory_is_kept_when_asked_for(builda: Builda, repository: str) -> None:
    assert ".git" in listed(builda, f"{repository}?keep-git-dir=true")


def test_a_git_server_is_asked_for_one_commit(builda: Builda, tree: Path, tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    git(tmp_path, "clone", "--quiet", "--bare", str(tree), "d.git")
    command = ["git", "daemon", "--export-all", f"--base-path={tmp_path}", "--listen=127.0.0.1", f"--port={port}"]
    with subprocess.Popen([*command, "--reuseaddr", "--verbose"], stderr=subprocess.PIPE, text=True) as daemon:
        assert daemon.stderr is not None
        assert "Ready" in daemon.stderr.readline()
        try:
            assert "later" in listed(builda, f"git://127.0.0.1:{port}/d.git")
        finally:
            daemon.terminate()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("#nope", "no such reference in the repository"),
        ("#--upload-pack=x", "not a git reference: --upload-pack=x"),
        ("#v1:nodir", "no such file or directory in"),
        ("#v1:out", "no such file or directory in"),
        ("?commit=abcdef0123", "no such reference in the repository"),
        ("?branch=main&commit=abcdef0123", "commit does not match the checksum"),
        ("?commit=xyz", "not the digest of a commit: xyz"),
        ("?nope=1", "unknown parameter of a git URL: nope"),
        ("?branch=main&tag=v1", "names more than one reference"),
    ],
)
def test_what_a_repository_does_not_have_is_named(builda: Builda, repository: str, where: str, message: str) -> None:
    assert message in builda.fails("bud", repository + where)
    assert leftovers(builda) == []


def test_a_subdirectory_does_not_lead_out_of_the_repository(builda: Builda, repository: str) -> None:
    assert {"Containerfile", "sub"} <= set(listed(builda, f"{repository}#v1:../.."))


def test_errors_in_a_fetched_context_have_its_own_paths(builda: Builda, repository: str) -> None:
    said = builda.fails("bud", "-f", "Bad.in", repository)
    assert "Error: Bad.in:2: no such include file: nowhere" in said


def test_a_containerfile_of_this_machine_can_be_named_for_a_fetched_context(
    builda: Builda, repository: str, tmp_path: Path
) -> None:
    (tmp_path / "Own").write_text("FROM scratch\nCOPY secret later /\nLABEL own=1\n")
    (tmp_path / "Other").write_text("FROM scratch\nCOPY later /\nLABEL own=1\n")
    said = builda.fails("bud", "-f", tmp_path / "Own", repository)
    assert f"Error: {tmp_path}/Own:2: " in said
    image = builda("bud", "-q", "-f", tmp_path / "Other", repository)
    assert builda("inspect", "--format", "{{.OCIv1.Config.Labels.own}}", image) == "1"
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/Containerfile").write_text("wrong\n")  # the context's own wins
    assert builda("bud", "-q", "-f", "sub/Containerfile", repository, cwd=tmp_path)
    for wrong in ("out/passwd", tmp_path / "none"):
        said = builda.fails("bud", "-f", wrong, repository)
        assert "no such file or directory for the Containerfile in" in said


def archive(tree: Path, mode: str = "w:gz") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as tar:  # type: ignore[call-overload]  # the test's modes
        tar.add(tree, ".", filter=lambda info: None if info.name.startswith("./.git") else info)
    return data.getvalue()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_behind_a_url_is_a_context(
    builda: Builda, tree: Path, tmp_path: Path, server: str, mode: str
) -> None:
    (tmp_path / "context").write_bytes(archive(tree, mode))
    assert "later" in listed(builda, f"{server}/context")
    assert leftovers(builda) == []


def test_a_containerfile_behind_a_url_has_an_empty_context(builda: Builda, tree: Path, server: str) -> None:
    assert listed(builda, f"{server}/work/Containerfile") == []


def test_a_url_that_is_not_there_is_named(builda: Builda, server: str) -> None:
    assert f"cannot download {server}/none: 404" in builda.fails("bud", f"{server}/none")


def piped(builda: Builda, data: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*builda.command, "bud", *arguments], input=data, capture_output=True, env=clean_environ())


def test_standard_input_is_an_archive_or_a_containerfile(builda: Builda, tree: Path, base: str) -> None:
    built = piped(builda, archive(tree), "--quiet", "-")
    assert built.returncode == 0, built.stderr
    listing = builda("run", builda("from", built.stdout.decode().strip()), "cat", "/list")
    assert {"Containerfile", "later"} <= set(listing.split())
    assert piped(builda, f"FROM {base}\nRUN true\n".encode(), "-").returncode == 0
    inner = piped(builda, archive(tree), "--quiet", "-f", "sub/Containerfile", "-")
    assert inner.returncode == 0, inner.stderr


@pytest.mark.parametrize(
    ("data", "arguments", "message"),
    [
        (b"", (), b"context is empty: standard input"),
        (os.urandom(4096) + b"\0", (), b"neither an archive nor a Containerfile"),
        (b"FROM x\n", ("-f", "other"), b"context is a Containerfile itself"),
        (b"FROM x\n", ("-f", "-"), b"standard input cannot be the context and the Containerfile"),
    ],
)
def test_standard_input_that_is_no_context_is_refused(
    builda: Builda, data: bytes, arguments: tuple[str, ...], message: bytes
) -> None:
    built = piped(builda, data, *arguments, "-")
    assert built.returncode == 125
    assert message in built.stderr


def test_a_damaged_archive_is_refused(builda: Builda, tree: Path) -> None:
    built = piped(builda, archive(tree)[:-200], "-")
    assert built.returncode == 125
    assert b"Traceback" not in built.stderr
    assert leftovers(builda) == []


def test_an_archive_cannot_write_outside(builda: Builda, base: str, tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, link in (("Containerfile", None), ("up", str(tmp_path)), ("up/escaped", None)):
            info = tarfile.TarInfo(name)
            content = f"FROM {base}\n".encode() if link is None else b""
            info.type, info.linkname, info.size = (tarfile.SYMTYPE, link, 0) if link else (b"0", "", len(content))
            tar.addfile(info, io.BytesIO(content))
    built = piped(builda, data.getvalue(), "-")
    assert not (tmp_path / "escaped").exists()
    assert b"Traceback" not in built.stderr


def test_named_contexts_of_every_kind(
    builda: Builda, base: str, repository: str, tree: Path, tmp_path: Path, server: str
) -> None:
    (tmp_path / "context.tar").write_bytes(archive(tree, "w"))
    builda("push", base, f"oci:{tmp_path}/layout:x")
    text = """FROM layout
COPY --from=repo sub/inner /from-repo
COPY --from=url sub/inner /from-url
COPY --from=dir sub/inner /from-dir
RUN --mount=type=bind,from=repo,target=/m cat /m/later > /list
"""
    (tmp_path / "own").mkdir()
    (tmp_path / "own/Containerfile").write_text(text)
    contexts = {"repo": repository, "url": f"{server}/context.tar", "dir": str(tree)}
    contexts["layout"] = f"oci-layout://{tmp_path}/layout:x"
    options = [word for name, where in contexts.items() for word in ("--build-context", f"{name}={where}")]
    assert listed(builda, *options, str(tmp_path / "own")) == ["later"]
    said = builda.fails("bud", "--build-context", "a=ftp://x/y", str(tmp_path / "own"))
    assert "unknown kind of build context a: ftp://x/y" in said


def test_a_context_stands_for_a_stage_also_where_its_number_is_said(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given/file").write_text("given\n")
    builda("tag", base, "localhost/other")
    (tmp_path / "own").mkdir()
    text = f"FROM {base} AS first\nRUN echo built > /file\nFROM {base}\nCOPY --from=WHICH /file /list\n"
    for which in ("first", "0"):
        (tmp_path / "own/Containerfile").write_text(text.replace("WHICH", which))
        assert listed(builda, str(tmp_path / "own")) == ["built"]
        assert listed(builda, "--build-context", f"first={tmp_path}/given", str(tmp_path / "own")) == ["given"]
    (tmp_path / "own/Containerfile").write_text(f"FROM {base} AS first\nRUN false\nFROM 0\nRUN echo x > /list\n")
    given = ("--build-context", "first=docker-image://localhost/other")
    assert listed(builda, *given, str(tmp_path / "own")) == ["x"]


def test_a_directory_may_be_a_base(builda: Builda, busybox: Path, base: str, tmp_path: Path) -> None:
    """Its files are the root file system; they are root's, as those of COPY are."""
    root = Path(builda("mount", builda("from", base)))
    (tmp_path / "own").mkdir()
    (tmp_path / "own/Containerfile").write_text('FROM tree\nRUN ["/bin/sh", "-c", "ls / > /list"]\n')
    assert "bin" in listed(builda, "--build-context", f"tree={root}", str(tmp_path / "own"))


class Guarded(Quiet):
    """Asks for a password, and writes down what it is shown."""

    shown: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        if "Authorization" not in self.headers:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="guarded"')
            self.end_headers()
            return
        self.shown.append(self.headers["Authorization"])
        super().do_GET()


def test_add_shows_servers_no_credentials_but_those_that_are_given(
    builda: Builda, base: str, tree: Path, tmp_path: Path
) -> None:
    """A Containerfile names the server; what the caller has for others is none of its business."""
    git(tmp_path, "clone", "--quiet", "--bare", str(tree), "r.git")
    git(tmp_path / "r.git", "update-server-info")
    home = tmp_path / "home"
    home.mkdir()
    (home / ".netrc").write_text("machine 127.0.0.1 login me password callers-own\n")
    (home / ".gitconfig").write_text('[credential]\n\thelper = "!echo username=me; echo password=callers-own; :"\n')
    Guarded.shown.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Guarded, directory=str(tmp_path))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        context = tmp_path / "c"
        context.mkdir()
        url = f"http://127.0.0.1:{httpd.server_port}/r.git"
        (context / "Containerfile").write_text(f"FROM {base}\nADD {url} /r/\nRUN cat /r/sub/inner\n")
        try:
            said = builda.fails("bud", context, HOME=str(home))
            assert "hint: ADD uses no credentials of the caller" in said
            token = ("--secret", "id=GIT_AUTH_TOKEN.127.0.0.1,env=TOKEN")
            assert "inner" in builda("bud", *token, context, HOME=str(home), TOKEN="given\n")
            other = ("--secret", "id=GIT_AUTH_TOKEN.example.org,env=TOKEN")
            builda.fails("bud", "--no-cache", *other, context, HOME=str(home), TOKEN="given")
            assert set(Guarded.shown) == {f"Basic {base64.b64encode(b'x-access-token:given').decode()}"}
            builda("bud", "--quiet", f"{url}", HOME=str(home))  # a context is named by the caller
        finally:
            httpd.shutdown()
            thread.join()
