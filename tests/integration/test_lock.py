"""builda.lock: written by --lock, obeyed by --locked, renewed by lock update; on command lines and in scripts."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from builda import lockfile
from tests.conftest import Builda
from tests.support.registry import Registry

pytestmark = pytest.mark.root
INSECURE = "--tls-verify=false"
SAME_TIME = "--timestamp=0"
HERE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
OTHER = "arm64" if HERE == "amd64" else "amd64"
BOTH = f"linux/{HERE},linux/{OTHER}"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name
        """Nothing."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The URL of a web server over `tmp_path`/web."""
    (tmp_path / "web").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "web"))) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()


@pytest.fixture
def push(tmp_path: Path, server: Registry) -> Any:
    """Push an index for two platforms, whose images have a file of this content; its name."""
    maker = Builda(tmp_path / "maker/store", tmp_path / "maker/run")
    repository = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]

    def make(content: str, name: str = "base", platforms: str = BOTH) -> str:
        full = server.name(f"{repository}/{name}:1")
        (tmp_path / "maker").mkdir(exist_ok=True)
        (tmp_path / "maker/Containerfile").write_text(f"FROM scratch\nCOPY <<E /content\n{content}\nE\n")
        maker("bud", "-q", SAME_TIME, "--platform", platforms, INSECURE, "-t", f"docker://{full}", tmp_path / "maker")
        return full

    return make


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "ctx").mkdir()
    return tmp_path / "ctx"


def content_of(builda: Builda, image: str) -> str:
    container = builda("from", "--pull=never", image)
    place = Path(builda("mount", container))
    text = (place / "content").read_text()
    builda("rm", container)
    return text.strip()


def requests(server: Registry, before: int) -> list[str]:
    """The paths of manifests that the registry was asked for since its log had `before` characters."""
    lines = [line for line in server.log()[before:].splitlines() if "/manifests/" in line and "HTTP/1.1" in line]
    return [line.partition("/manifests/")[2].split()[0] for line in lines]


def test_a_locked_build_takes_the_old_image_and_asks_no_tag(
    builda: Builda, push: Any, context: Path, server: Registry, tmp_path: Path
) -> None:
    name = push("old")
    (context / "Containerfile").write_text(
        f"ARG BASE={name}\nFROM $BASE AS a\nFROM scratch\nCOPY --from=a /content /\n"
    )
    unlocked = builda("bud", "-q", SAME_TIME, INSECURE, context)
    assert builda("bud", "-q", SAME_TIME, "--lock", INSECURE, context) == unlocked
    written = (context / "builda.lock").read_text()
    entry = json.loads(written)["images"][name]
    assert entry["name"] == name
    assert entry["platforms"] == sorted(BOTH.split(","))

    push("new")
    other = Builda(tmp_path / "other/store", tmp_path / "other/run")
    before = len(server.log())
    assert other("bud", "-q", SAME_TIME, "--locked", INSECURE, context) == unlocked
    asked = requests(server, before)
    assert entry["digest"] in asked
    assert all(name.startswith("sha256:") for name in asked)
    before = len(server.log())
    other("bud", "-q", SAME_TIME, "--locked", "--no-cache", INSECURE, context)  # all of it is in the store now
    assert requests(server, before) == []
    assert (
        other("bud", "-q", SAME_TIME, INSECURE, "--pull", context) != unlocked
    )  # without the option the file counts for nothing
    assert (context / "builda.lock").read_text() == written

    said = builda.run("bud", "-q", SAME_TIME, "--lock", INSECURE, context).stderr
    assert f"changed since {context}/builda.lock was written: {name}: {entry['digest']} → sha256:" in said


def test_every_platform_builds_from_one_entry(builda: Builda, push: Any, context: Path) -> None:
    name = push("old")
    (context / "Containerfile.in").write_text(f"#define BASE {name}\nFROM BASE\nLABEL a=b\n")
    builda("bud", "-q", SAME_TIME, "--lock", INSECURE, "--platform", BOTH, context)
    push("new")
    index = builda("bud", "-q", SAME_TIME, "--locked", INSECURE, "--platform", BOTH, "-t", "both", context)
    assert index
    for platform in BOTH.split(","):
        builda("bud", "-q", SAME_TIME, "--locked", INSECURE, "--platform", platform, "-t", "one", context)
        assert content_of(builda, "one") == "old"
    said = builda.fails("bud", "--locked", INSECURE, "--platform", "linux/s390x", context)
    assert f"{context}/Containerfile.in:2" in said
    assert f"has no image for linux/s390x: {name}" in said
    assert f"it has {', '.join(sorted(BOTH.split(',')))}" in said


def test_a_build_obeys_the_lock_for_mounts_copies_and_named_contexts(
    builda: Builda, push: Any, context: Path, base: str
) -> None:
    first, second, third = push("old", "a"), push("old", "b"), push("old", "c")
    (context / "Containerfile").write_text(
        f"FROM {base}\nCOPY --from={first} /content /one\nCOPY --from=named /content /two\n"
        f"RUN --mount=from={third},target=/m cat /m/content /one /two > /content\n"
    )
    named = f"--build-context=named=docker-image://{second}"
    builda("bud", "-q", SAME_TIME, "--lock", named, INSECURE, context)
    assert sorted(json.loads((context / "builda.lock").read_text())["images"]) == sorted([first, second, third, base])
    for name in ("a", "b", "c"):
        push("new", name)
    builda("bud", "-q", SAME_TIME, "--locked", "--no-cache", named, INSECURE, "-t", "made", context)
    assert content_of(builda, "made") == "old\nold\nold"


def test_what_the_lock_lacks_is_an_error_with_its_place(builda: Builda, push: Any, context: Path) -> None:
    name = push("old")
    file = context / "Containerfile"
    file.write_text(f"FROM {name}\n")
    assert "no such lock file: " in builda.fails("bud", "--locked", INSECURE, context)
    builda("bud", "-q", SAME_TIME, "--lock", INSECURE, context)
    file.write_text(f"FROM {name}\n\nADD http://127.0.0.1:1/x /x\n")
    before = (context / "builda.lock").read_bytes()
    said = builda.fails("bud", "-t", "made", "--locked", INSECURE, context)
    assert f"{file}:3" in said
    assert "has no entry for the URL http://127.0.0.1:1/x" in said
    assert "hint: --lock instead of --locked adds it" in said
    builda.fails("exists", "made", status=1)
    assert (context / "builda.lock").read_bytes() == before
    file.write_text("FROM other.example/image\n")
    assert f"{file}:1" in builda.fails("bud", "--locked", context)
    builda.fails("bud", "--lock", "-t", "made", "--retry=0", context)  # what it names is not there
    assert (context / "builda.lock").read_bytes() == before


def test_urls_and_repositories_are_locked(builda: Builda, web: str, context: Path, tmp_path: Path) -> None:
    git_of = partial(git, tmp_path / "web/r.git")
    (tmp_path / "web/r.git").mkdir()
    git_of("init", "--quiet", "--initial-branch=main")
    (tmp_path / "web/r.git/sub").mkdir()
    first = commit(tmp_path / "web/r.git", "old")
    (tmp_path / "web/file").write_text("old")
    (context / "Containerfile").write_text(
        f"FROM scratch\nADD {web}/file /file\nADD {web}/r.git/.git#main:sub /r\n"
        f"ADD {web}/r.git/.git#{first} /s\nCOPY --from=more /content /content\n"
    )
    more = f"--build-context=more={web}/r.git/.git?branch=main&subdir=sub"
    unlocked = builda("bud", "-q", SAME_TIME, more, context)
    assert builda("bud", "-q", SAME_TIME, "--lock", more, context) == unlocked
    lock = json.loads((context / "builda.lock").read_text())
    assert lock["urls"] == {f"{web}/file": f"sha256:{hashlib.sha256(b'old').hexdigest()}"}
    assert set(lock["repositories"].values()) == {first}
    assert len(lock["repositories"]) == 2

    second = commit(tmp_path / "web/r.git", "new")
    other = Builda(tmp_path / "other/store", tmp_path / "other/run")
    assert other("bud", "-q", SAME_TIME, "--locked", more, context) == unlocked
    (tmp_path / "web/file").write_text("new")
    builda("bud", "-q", SAME_TIME, "--locked", more, context)  # what it has already it need not fetch
    said = other.fails("bud", "-q", SAME_TIME, "--locked", "--no-cache", more, context)
    assert "checksum does not match" in said
    file = context / "builda.lock"
    changed = builda("lock", "update", "-f", file)
    assert sorted(line.split(" → ")[1] for line in changed.splitlines()) == sorted(
        [f"sha256:{hashlib.sha256(b'new').hexdigest()}", second, second]
    )
    assert other("bud", "-q", SAME_TIME, "--locked", "--no-cache", more, context) != unlocked


def git(directory: Path, *arguments: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    return subprocess.run(["git", *who, *arguments], cwd=directory, check=True, capture_output=True, text=True).stdout


def commit(work: Path, content: str) -> str:
    """A commit with this content in sub/content, served by any web server; its digest."""
    (work / "sub/content").write_text(content)
    (work / "Containerfile").write_text(f"FROM scratch\nCOPY sub/content /content\nLABEL is={content}\n")
    git(work, "add", "--all")
    git(work, "commit", "--quiet", f"--message={content}")
    git(work, "update-server-info")
    return git(work, "rev-parse", "HEAD").strip()


def test_a_repository_as_the_context_is_locked(builda: Builda, web: str, tmp_path: Path) -> None:
    work, here = tmp_path / "web/r.git", tmp_path / "here"
    work.mkdir()
    here.mkdir()
    (work / "sub").mkdir()
    git(work, "init", "--quiet", "--initial-branch=main")
    first = commit(work, "old")
    url = f"{web}/r.git/.git#main"
    made = builda("bud", "-q", SAME_TIME, "--lock", url, cwd=here)
    assert json.loads((here / "builda.lock").read_text())["repositories"] == {url: first}
    commit(work, "new")
    assert builda("bud", "-q", SAME_TIME, "--locked", url, cwd=here) == made
    assert builda("bud", "-q", SAME_TIME, url, cwd=here) != made


def test_an_archive_as_the_context_is_locked(builda: Builda, web: str, tmp_path: Path) -> None:
    archive = tmp_path / "web/context.tar"
    (tmp_path / "Containerfile").write_text("FROM scratch\nLABEL a=b\n")
    subprocess.run(["tar", "-C", tmp_path, "-cf", archive, "Containerfile"], check=True)
    made = builda("bud", "-q", SAME_TIME, "--lock=own.lock", f"{web}/context.tar", cwd=tmp_path)
    assert builda("bud", "-q", SAME_TIME, "--locked=own.lock", f"{web}/context.tar", cwd=tmp_path) == made
    archive.write_bytes(archive.read_bytes() + bytes(1024))
    said = builda.fails("bud", "-q", SAME_TIME, "--locked=own.lock", f"{web}/context.tar", cwd=tmp_path)
    assert "context is not the locked one, sha256:" in said


def test_lock_update_renews_some_or_all(builda: Builda, push: Any, context: Path) -> None:
    first, second = push("old", "a"), push("old", "b")
    (context / "Containerfile").write_text(f"FROM {first} AS a\nFROM {second}\nCOPY --from=a /content /a\n")
    builda("bud", "-q", SAME_TIME, "--lock", INSECURE, context)
    file = context / "builda.lock"
    old = lockfile.read(str(file))
    update = ("lock", "update", INSECURE, "-f", file)
    assert builda(*update) == ""
    before = file.stat()
    push("new", "a")
    push("new", "b")
    planned = json.loads(builda(*update, "--dry-run", "--json"))
    assert [change["name"] for change in planned] == [first, second]
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert builda(*update, first).startswith(f"{first}: {old.images[first].digest} → sha256:")
    now = lockfile.read(str(file))
    assert now.images[first].digest == planned[0]["new"]
    assert now.images[second] == old.images[second]
    assert "has no entry: nothing" in builda.fails(*update, "nothing")
    builda("bud", "-q", SAME_TIME, "--locked", INSECURE, "-t", "made", context)
    assert content_of(builda, "made") == "old"


def test_an_image_of_the_store_is_locked_by_its_digest(builda: Builda, base: str, context: Path) -> None:
    (context / "Containerfile").write_text("FROM busybox\n")
    builda("bud", "-q", SAME_TIME, "--lock", context)
    assert "name" not in json.loads((context / "builda.lock").read_text())["images"]["busybox"]
    made = builda("bud", "-q", SAME_TIME, "--locked", context)
    assert made
    container = builda("from", base)
    builda("config", "--label", "a=b", container)
    builda("commit", "--rm", container, base)
    said = builda.fails("bud", "-q", SAME_TIME, "--locked", context)
    assert f"{context}/Containerfile:1" in said
    assert "image is not the one in" in said


def test_scripts_write_and_obey_a_lock(builda: Builda, push: Any, web: str, tmp_path: Path) -> None:
    name, other = push("old", "a"), push("old", "b")
    (tmp_path / "web/file").write_text("old")
    file = str(tmp_path / "script.lock")

    def script(**environ: str) -> str:
        container = builda("from", INSECURE, name, **environ)
        builda("copy", "-q", INSECURE, "--from", other, container, "/content", "/other", **environ)
        builda("add", "-q", container, f"{web}/file", "/file", **environ)
        place = Path(builda("mount", container))
        found = "".join((place / part).read_text().strip() + " " for part in ("content", "other", "file"))
        builda("rm", container)
        return found

    assert script(BUILDA_LOCK=file) == "old old old "
    assert sorted(lockfile.read(file).images) == sorted([name, other])
    push("new", "a")
    push("new", "b")
    builda("rmi", "--all", "--force")
    assert "old old" in script(BUILDA_LOCKED=file)
    (tmp_path / "web/file").write_text("new")
    container = builda("from", "scratch", BUILDA_LOCKED=file)
    assert "checksum does not match" in builda.fails("add", container, f"{web}/file", "/", BUILDA_LOCKED=file)
    assert "no entry for the image busybox" in builda.fails("from", "busybox", BUILDA_LOCKED=file)
    assert "both set" in builda.fails("from", "busybox", BUILDA_LOCKED=file, BUILDA_LOCK=file)


def test_only_whole_sense_is_accepted(builda: Builda, context: Path, web: str, tmp_path: Path) -> None:
    (context / "Containerfile").write_text(f"FROM scratch\n\nADD {web}/a {web}/b /\n")
    (tmp_path / "web/a").write_text("a")
    said = builda.fails("bud", "--lock", context)
    assert f"{context}/Containerfile:3" in said
    assert "an ADD of several sources cannot be locked" in said
    assert "--lock cannot be used with --locked" in builda.fails("bud", "--lock", "--locked", context)
    assert "--lock cannot be used with --check" in builda.fails("bud", "--lock", "--check", context)
    assert not (context / "builda.lock").exists()
    (context / "Containerfile").write_text(f"FROM scratch\nADD {web}/a /\n")
    builda("bud", "--lock", "--print-plan", context)
    assert f"{web}/a" in (context / "builda.lock").read_text()
    (context / "builda.lock").write_text("{")
    for option in ("--lock", "--locked"):
        assert "lock file is not JSON" in builda.fails("bud", option, context)
    assert (context / "builda.lock").read_text() == "{"


def test_the_lock_decides_after_the_source_policy(builda: Builda, push: Any, context: Path, tmp_path: Path) -> None:
    name = push("old")
    policy = tmp_path / "policy.json"
    updates = {"identifier": f"docker-image://{name}"}
    rule = {"action": "CONVERT", "selector": {"identifier": "docker-image://r.example/x:1"}, "updates": updates}
    policy.write_text(json.dumps({"rules": [rule]}))
    (context / "Containerfile").write_text("FROM r.example/x:1\nLABEL a=b\n")
    options = ("--source-policy-file", policy, INSECURE, context)
    builda("bud", "-q", "--lock", *options)
    assert list(lockfile.read(f"{context}/builda.lock").images) == [name]
    push("new")
    builda("bud", "-q", "--locked", "--pull", "-t", "made", *options)
    assert content_of(builda, "made") == "old"


def test_a_script_that_is_printed_names_the_locked_content(
    builda: Builda, push: Any, context: Path, web: str, tmp_path: Path
) -> None:
    name = push("old")
    (tmp_path / "web/file").write_text("old")
    (context / "Containerfile").write_text(f"FROM {name}\nADD {web}/file /file\n")
    builda("bud", "-q", "--lock", INSECURE, context)
    lock = lockfile.read(f"{context}/builda.lock")
    script = builda("bud", "--locked", "--print-script", INSECURE, context)
    assert f"{name}@{lock.images[name].digest}" in script
    assert f"--checksum {lock.urls[f'{web}/file']}" in script.replace("--checksum=", "--checksum ")
