"""Contexts, named contexts and sources of builds in a cluster, each compared with a build on this machine."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Builda, clean_environ
from tests.integration.test_bud_contexts import git
from tests.integration.test_cluster import BUD, Names, base_there, far, names, there  # noqa: F401  # fixtures
from tests.integration.test_ssh_mounts import LIST
from tests.support import needs
from tests.support.registry import PASSWORD, USER, Answer, free_port, registry, scripted

pytestmark = [
    pytest.mark.root,
    pytest.mark.network,
    needs.program("crun", "runc"),
]


@dataclass(frozen=True)
class World:
    """What contexts come from: a directory, and servers on loopback for it."""

    context: Path
    """A directory with `given`, `sub/inner`, a Containerfile and an ignore file that leaves out `left-out`."""
    base: str
    web: str
    """The URL of a server that has `r.git`, `context.tar` and `file`, a Containerfile."""
    daemon: str
    """The URL of a git server with `d.git`."""
    packed: bytes
    """The directory as an archive."""
    beside: Path
    """A directory for what is no part of the context."""


@pytest.fixture
def world(tmp_path: Path, base_there: str) -> Iterator[World]:  # noqa: F811
    context, beside = tmp_path / "context", tmp_path / "beside"
    (context / "sub").mkdir(parents=True)
    beside.mkdir()
    text = f"FROM {base_there}\nCOPY . /c\nRUN cd /c && find . -type f | sort && cat given; test ! -e left-out\n"
    (context / "Containerfile").write_text(text)
    (context / "given").write_text("some text\n")
    (context / "left-out").write_text("nothing\n")
    (context / ".dockerignore").write_text("left-out\n*ignore\n")
    (context / "sub/inner").write_text("inner\n")
    (context / "sub/Containerfile").write_text(f"FROM {base_there}\nCOPY inner /\nRUN cat /inner\n")
    (context / "sub/Other").write_text(f"FROM {base_there}\nCOPY sub/inner /\nRUN echo other; cat /inner\n")
    git(context, "init", "--quiet", "--initial-branch=main")
    git(context, "add", "--all")
    git(context, "commit", "--quiet", "--message=first")
    for name in ("r.git", "d.git"):
        git(tmp_path, "clone", "--quiet", "--bare", str(context), name)
    git(tmp_path / "r.git", "update-server-info")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in sorted(path for path in context.rglob("*") if ".git" not in path.parts):
            archive.add(path, path.relative_to(context), recursive=False, filter=by_nobody)
    data = packed.getvalue()

    def served(path: str) -> Answer:
        file = tmp_path / path.lstrip("/").partition("?")[0]
        if path == "/context.tar":
            return Answer(body=data)
        if path == "/file":
            return Answer(body=f"FROM {base_there}\nRUN echo text > /t\n".encode())
        return Answer(body=file.read_bytes()) if path.startswith("/r.git/") and file.is_file() else Answer(404)

    port = free_port()
    command = ["git", "daemon", "--export-all", f"--base-path={tmp_path}", "--listen=127.0.0.1", f"--port={port}"]
    with scripted(lambda asked: served(asked.path)) as server, subprocess.Popen(command) as daemon:
        yield World(context, base_there, f"http://{server.address}", f"git://127.0.0.1:{port}/d.git", data, beside)
        daemon.terminate()


def by_nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    return member.replace(uid=0, gid=0, uname="", gname="", mtime=0)


def containerfile(world: World, text: str) -> bytes:
    return text.replace("{base}", world.base).replace("{web}", world.web).encode()


def directory(world: World, text: str) -> tuple[str | Path, ...]:
    """The words for a build of the directory with this Containerfile."""
    (world.beside / "File").write_bytes(containerfile(world, text))
    return "-f", world.beside / "File", world.context


def own_image(world: World, builda: Builda) -> Path:
    """A layout with the base image, under the name `x`."""
    builda("image", "copy", "--src-tls-verify=false", f"docker://{world.base}", f"oci:{world.beside}/layout:x")
    return world.beside / "layout"


Words = tuple[str | Path, ...]
Case = Callable[[World, Builda], tuple[Words, bytes]]
NAMED = "FROM {base}\nCOPY --from=n sub/inner /i\nRUN --mount=from=n,target=/n cat /i /n/given\n"
CASES: dict[str, Case] = {
    # The context
    "archive": lambda world, _: (("-",), world.packed),
    "text": lambda world, _: (("-f", "-", world.context), containerfile(world, "FROM {base}\nCOPY given /\nRUN ls\n")),
    "text-alone": lambda world, _: (("-",), containerfile(world, "FROM {base}\nRUN echo text > /t\n")),
    "url": lambda world, _: ((f"{world.web}/context.tar",), b""),
    "text-at-url": lambda world, _: ((f"{world.web}/file",), b""),
    "git": lambda world, _: ((f"{world.web}/r.git",), b""),
    "git-branch": lambda world, _: ((f"{world.daemon}#main",), b""),
    "git-subdirectory": lambda world, _: ((f"{world.web}/r.git#:sub",), b""),
    "git-file": lambda world, _: (("-f", "sub/Other", f"{world.web}/r.git"), b""),
    "git-own-file": lambda world, _: (
        (*directory(world, "FROM {base}\nCOPY sub /s\nRUN ls /s\n")[:2], f"{world.web}/r.git"),
        b"",
    ),
    "git-own-text": lambda world, _: (("-f", "-", f"{world.web}/r.git"), containerfile(world, "FROM {base}\nRUN ls\n")),
    "git-no-file": lambda world, _: (("-f", "nowhere", f"{world.web}/r.git"), b""),
    "git-ignore": lambda world, _: (
        ("--ignorefile", world.context / "sub/inner", "-f", "sub/Other", f"{world.web}/r.git"),
        b"",
    ),
    "no-git": lambda world, _: ((f"{world.web}/none.git",), b""),
    "no-branch": lambda world, _: ((f"{world.web}/r.git#nowhere",), b""),
    # Named contexts
    "named-directory": lambda world, _: (("--build-context", f"n={world.context}", *directory(world, NAMED)), b""),
    "named-git": lambda world, _: (("--build-context", f"n={world.web}/r.git", *directory(world, NAMED)), b""),
    "named-url": lambda world, _: (("--build-context", f"n={world.web}/context.tar", *directory(world, NAMED)), b""),
    "named-image": lambda world, _: (
        ("--build-context", f"n=docker://{world.base}", *directory(world, "FROM n\nRUN echo n\n")),
        b"",
    ),
    "named-docker-image": lambda world, _: (
        ("--build-context", f"n=docker-image://{world.base}", *directory(world, "FROM n\nRUN echo n\n")),
        b"",
    ),
    "named-layout": lambda world, builda: (
        ("--build-context", f"n=oci-layout://{own_image(world, builda)}:x", *directory(world, "FROM n\nRUN echo n\n")),
        b"",
    ),
    "named-no-layout": lambda world, _: (
        ("--build-context", "n=oci-layout:///nowhere:x", *directory(world, "FROM n\nRUN echo n\n")),
        b"",
    ),
    "named-nothing": lambda world, _: (("--build-context", "n=nowhere", *directory(world, NAMED)), b""),
    "named-kind": lambda world, _: (("--build-context", "n=ftp://x/y", *directory(world, NAMED)), b""),
    "no-name": lambda world, _: (("--build-context", "nowhere", *directory(world, NAMED)), b""),
    # Sources of ADD
    "add-url": lambda world, _: (directory(world, "FROM {base}\nADD {web}/context.tar /a/\nRUN ls /a\n"), b""),
    "add-checked": lambda world, _: (
        directory(world, f"FROM {{base}}\nADD --checksum=sha256:{'0' * 64} {{web}}/file /a/\n"),
        b"",
    ),
    "add-git": lambda world, _: (directory(world, "FROM {base}\nADD {web}/r.git /a\nRUN cat /a/sub/inner\n"), b""),
    "add-no-url": lambda world, _: (directory(world, "FROM {base}\nADD {web}/none /a\n"), b""),
}
IN_CI = frozenset({"git"})


def seen(one: Builda, world: World, words: Words, given: bytes, name: str) -> tuple[object, ...]:
    """Status, standard output, and the error of a build, without ports and the places of what was fetched."""
    done = subprocess.run(
        [*one.command, *BUD, "--timestamp", "0", "--retry", "0", "-t", name, *map(str, words)],
        input=given,
        env={**clean_environ(), **one.environ},
        cwd=world.beside,
        capture_output=True,
        timeout=120,
        check=False,
    )
    error = done.stderr[done.stderr.index(b"Error:") :] if b"Error:" in done.stderr else b""
    return done.returncode, re.sub(rb":\d+/", b"/", done.stdout), error


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in IN_CI else pytest.mark.long) for case in CASES]
)
def test_a_context_is_what_it_is_here(
    builda: Builda,
    far: Builda,  # noqa: F811
    world: World,
    names: Names,  # noqa: F811
    case: str,
) -> None:
    words, given = CASES[case](world, builda)
    name = names.name(f"app/context-{case}:1")
    here = seen(builda, world, words, given, name)
    away = seen(far, world, words, given, name)
    assert away == here, away[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--build-context", "nowhere"), "build context is written NAME=DIR: nowhere"),
        (("--build-context", "n=nowhere"), "no such file or directory for the build context n: nowhere"),
        (("--build-context", "n=-"), "no such file or directory for the build context n: -"),
        (("--build-context", "n=oci-layout:///nowhere:x"), "build context n: /nowhere"),
        (("--build-context", "n=ftp://x/y"), "unknown kind of build context n: ftp://x/y"),
        (("--authfile", "no-json"), "no-json"),
        (("--secret", "id=x,src=big"), "and a Secret holds less than 1048576"),
    ],
)
def test_what_is_wrong_is_said_before_a_context_is_sent(
    far: Builda,  # noqa: F811
    tmp_path: Path,
    words: tuple[str, str],
    said: str,
) -> None:
    """Nothing answers where the registry is said to be."""
    (tmp_path / "no-json").write_text("{")
    (tmp_path / "big").write_bytes(bytes(1 << 20))
    (tmp_path / "c").mkdir()
    (tmp_path / "c/Containerfile").write_text("FROM scratch\nCOPY . /\n")
    name = f"127.0.0.1:{free_port()}/app/image:1"
    error = far.fails(*BUD, "--retry", "0", *words, "-t", name, "c", cwd=tmp_path)
    assert said in error


@pytest.mark.long
@pytest.mark.timeout(900)
def test_key_files_get_an_agent_in_the_pod(
    builda: Builda,
    far: Builda,  # noqa: F811
    world: World,
    debian: Path,
    names: Names,  # noqa: F811
) -> None:
    """RUN --mount=type=ssh uses the key; the key is in no log."""
    image = names.name("base/debian:1")
    builda("image", "copy", "--dest-tls-verify=false", f"oci-archive:{debian}:debian", f"docker://{image}")
    key = world.beside / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "first@example", "-f", key], check=True)
    text = f"FROM {image}\nRUN --mount=type=ssh,id=k,uid=7 {LIST}; cat /answer\nRUN test ! -e /run/buildkit/ssh*\n"
    words = ("--ssh", f"k={key}", *directory(world, text))
    here = seen(builda, world, words, b"", names.name("app/ssh:1"))
    away = seen(far, world, words, b"", names.name("app/ssh:1"))
    assert away == here, away[2]
    assert b"first@example7:0:600" in bytes(str(away[1]), "ascii")


@pytest.mark.long
def test_the_pod_has_credentials_for_all_registries_that_are_named(
    builda: Builda,
    far: Builda,  # noqa: F811
    world: World,
    names: Names,  # noqa: F811
) -> None:
    """By an argument of FROM, by from= of a mount, by a named context, and as the way of the context."""
    with registry(basic=True) as own, registry(basic=True) as other:
        auth = world.beside / "auth.json"
        for one in (own, other):
            login = ("login", "--authfile", auth, "--tls-verify=false", "--username", USER, "--password", PASSWORD)
            builda(*login, one.address)
        there_too = [one.name(f"base/{name}:1") for one, name in ((own, "arg"), (own, "mount"), (other, "context"))]
        for name in there_too:
            copy = ("image", "copy", "--dest-authfile", auth, "--src-tls-verify=false", "--dest-tls-verify=false")
            builda(*copy, f"docker://{world.base}", f"docker://{name}")
        arg, mount, context = there_too
        text = f"ARG H=nowhere\nFROM ${{H}}/base/arg:1\nRUN --mount=type=bind,from={mount},target=/m ls /m/bin/sh\n"
        (world.context / "Containerfile").write_text(f"{text}COPY --from=c /bin/sh /copied\n")
        options = ("--authfile", auth, "--build-arg", f"H={arg.partition('/')[0]}")
        words = (*options, "--build-context", f"c=docker://{context}", "--context-via", other.name("via/context"))
        done = far.run(*BUD, *words, "-t", names.name("app/credentials:1"), world.context)
    assert "/m/bin/sh\n" in done.stdout
    assert PASSWORD not in done.stdout + done.stderr
