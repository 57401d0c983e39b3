"""Containerfiles, contexts and options that cannot be built: the message, the place, the status, nothing published."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Builda
from tests.support import needs
from tests.support.rootless import rootless

pytestmark = pytest.mark.root


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A context with a few files, some hidden, and links that lead out of it."""
    place = tmp_path / "c"
    (place / "app").mkdir(parents=True)
    for name in ("readme.txt", "secret.txt", "x.log", "app/main.sh"):
        (place / name).write_text("x")
    (place / ".dockerignore").write_text("# what is not sent\n\n*.log\nsecret*\n")
    (place / "out").symlink_to("/etc")
    (place / "passwd").symlink_to("/etc/passwd")
    (place / "gone").symlink_to("nowhere")
    return place


@contextmanager
def nothing_published(builda: Builda) -> Iterator[None]:
    """The block makes no image, name or working container."""
    before = builda("images", "-a", "--no-trunc", "--format", "{{.ID}} {{.Name}}:{{.Tag}}")
    yield
    assert builda("images", "-a", "--no-trunc", "--format", "{{.ID}} {{.Name}}:{{.Tag}}") == before
    assert builda("containers", "-q") == ""


def refused(builda: Builda, base: str, context: Path, text: str, *args: str, status: int = 125) -> str:
    """What builda says of this Containerfile, below its name; BASE is a busybox image."""
    (context / "Containerfile").write_text(text.replace("BASE", base))
    with nothing_published(builda):
        said = builda.fails("bud", "-q", "-t", "bad", *args, context, status=status)
    assert "Traceback" not in said
    return said.replace(f"{context}/", "")


# Syntax: (text, line, message, hint)

SYNTAX = [
    ("FROM BASE\nRUNN x\n", 2, "unknown instruction: RUNN", "did you mean RUN?"),
    ("RUN x\n", 1, "no build stage yet: the first instruction must be FROM (or ARG)", None),
    ("ARG X=1\n", 1, "no build stage: there is no FROM", None),
    ("", 1, "Containerfile has no instructions", None),
    ("\n# only a comment\n\n", 1, "Containerfile has no instructions", None),
    ("FROM\n", 1, "FROM needs an argument", None),
    ("FROM BASE OF x\n", 1, "FROM takes an image, or an image AS a name: BASE OF x", None),
    ("FROM BASE AS 9x\n", 1, "invalid stage name: 9x", "it begins with a letter; then letters, digits, - _ . /"),
    ("ARG X\nFROM $X\n", 2, "base name is empty: $X", "give the ARG a default, or --build-arg a value"),
    ("FROM --plat=x BASE\n", 1, "unknown flag of FROM: --plat", "did you mean --platform?"),
    ("FROM --platform=a/b/c/d BASE\n", 1, "not a platform, which is written os/arch[/variant]: 'a/b/c/d'", None),
    ("FROM BASE\n\nRUN <<EOF\necho\n", 3, "heredoc is not terminated: EOF", "a line that holds only EOF ends it"),
    ("FROM BASE\nCOPY <<A <<B /x/\na\nA\n", 2, "heredoc is not terminated: B", "a line that holds only B ends it"),
    ('FROM BASE\nCMD ["a", 1]\n', 2, "only strings may stand in the JSON array of CMD", None),
    ("FROM BASE\nSHELL /bin/sh\n", 2, "SHELL takes a JSON array: /bin/sh", 'for example SHELL ["/bin/bash", "-c"]'),
    ("FROM BASE\nRUN []\n", 2, "RUN needs a command", None),
    ("FROM BASE\nRUN\n", 2, "RUN needs an argument", None),
    ('FROM BASE\nENV A="x y\n', 2, 'quote is not closed: "x y', "a quote that is meant as a character"),
    ("FROM BASE\nLABEL a='x\n", 2, "quote is not closed: 'x", "a quote that is meant as a character"),
    ("FROM BASE\nENV A\n", 2, "ENV needs a value: A", "write A=VALUE"),
    ("FROM BASE\nENV A=b c\n", 2, "ENV word has no '=': c", "quote values that hold white space"),
    ("FROM BASE\nENV =x\n", 2, "ENV name is blank: =x", None),
    ("FROM BASE\nENV A=${x\n", 2, "substitution lacks its }: ${x", None),
    ("FROM BASE\nENV A=${}\n", 2, "bad substitution, it needs a name: ${}", None),
    ("FROM BASE\nENV A=${x!y}\n", 2, "unsupported modifier in a substitution: ${x!y}", "after the name comes one of"),
    ("FROM BASE\nARG 1x=2\n", 2, "invalid ARG name: '1x'", None),
    ("FROM BASE\nCOPY a\n", 2, "COPY needs at least one source and a destination: a", None),
    ("FROM BASE\nCOPY --chwon=1 a /\n", 2, "unknown flag of COPY: --chwon", "did you mean --chown?"),
    ("FROM BASE\nCOPY --chmod a /\n", 2, "flag needs a value: --chmod", None),
    ("FROM BASE\nCOPY --chown=1 --chown=2 a /\n", 2, "flag is given twice: --chown", None),
    ("FROM BASE\nCOPY --link=maybe a /\n", 2, "invalid value of --link: maybe", "it is true or false"),
    ("FROM BASE\nCOPY http://x/y /\n", 2, "COPY does not fetch: http://x/y", "use ADD"),
    ("FROM BASE\nADD --from=x a /\n", 2, "unknown flag of ADD: --from", "ADD takes --chown"),
    ("FROM BASE\nRUN --muont=type=cache x\n", 2, "unknown flag of RUN: --muont", "did you mean --mount?"),
    (
        "FROM BASE\nRUN --mount=type=cash,target=/x x\n",
        2,
        "unsupported mount type 'cash': type=cash,target=/x",
        "there are bind, cache, tmpfs, secret, ssh",
    ),
    (
        "FROM BASE\nRUN --mount=type=cache x\n",
        2,
        "mount cannot have the target /: type=cache",
        "write target=DIRECTORY",
    ),
    (
        "FROM BASE\nRUN --mount=type=cache,target=/x,sharing=maybe x\n",
        2,
        "unsupported sharing value: maybe",
        "it is shared, private or locked",
    ),
    ("FROM BASE\nRUN --network=foo x\n", 2, "unsupported network: foo", "it is default, none or host"),
    (
        "FROM BASE\nRUN --security=insecure x\n",
        2,
        "RUN --security=insecure is not allowed",
        "allow it with --allow security.insecure",
    ),
    ("FROM BASE\nEXPOSE 99999\n", 2, "invalid port: 99999", "ports are 0 to 65535"),
    ("FROM BASE\nEXPOSE http\n", 2, "invalid port: http", "it is N, N-M, N/tcp or N/udp"),
    ("FROM BASE\nSTOPSIGNAL foo\n", 2, "invalid signal: foo", "it is a name such as SIGTERM"),
    ("FROM BASE\nHEALTHCHECK x\n", 2, "HEALTHCHECK takes CMD or NONE: x", None),
    ("FROM BASE\nHEALTHCHECK --interval=x CMD y\n", 2, "invalid --interval: x", "it is a duration of at least 1ms"),
    ("FROM BASE\nHEALTHCHECK --retries=x CMD y\n", 2, "invalid --retries: x", None),
    ("FROM BASE\nONBUILD FROM x\n", 2, "FROM is not allowed as an ONBUILD trigger", None),
    ("FROM BASE\nONBUILD RUNN x\n", 2, "unknown instruction: RUNN", "did you mean RUN?"),
    ("# escape=x\nFROM BASE\n", 1, "invalid escape character: x", "it is \\ or `"),
    ("# escape=`\n# escape=`\nFROM BASE\n", 2, "only one escape parser directive can be used", None),
    ("# check=foo=1\nFROM BASE\n", 1, "unknown setting of the build checks: foo", None),
]


@pytest.mark.parametrize(("text", "line", "message", "hint"), SYNTAX, ids=[message for _, _, message, _ in SYNTAX])
def test_a_syntax_error_is_found_before_anything_runs(
    builda: Builda, base: str, context: Path, text: str, line: int, message: str, hint: str | None
) -> None:
    stage = "\nFROM BASE\nRUN echo never\n" if "FROM" in text and "<<" not in text else ""
    said = refused(builda, base, context, text + stage if message.startswith("unknown") else text)
    assert said.startswith(f"Error: Containerfile:{line}: {message.replace('BASE', base)}\n"), said
    if text.strip():
        assert f">{line:5} |" in said
    assert (f"\nhint: {hint}" in said) if hint else ("hint: " not in said)


def test_an_error_far_down_or_in_a_stage_nobody_needs_is_found_first(builda: Builda, base: str, context: Path) -> None:
    said = refused(builda, base, context, "FROM BASE AS unused\nRUNN x\nFROM BASE\nRUN echo ran > /dev/stderr\n")
    assert "Containerfile:2: unknown instruction" in said
    said = refused(builda, base, context, "FROM BASE\nRUN echo ran > /dev/stderr\nUSER ${X:?who}\n")
    assert "Containerfile:3: X: who\n" in said
    assert "ran\n" not in said.split("\n", 1)[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('ENV A="${X:?set me}"', "X: set me"),
        ("ENV A=${X?}", "X: not allowed to be unset"),
        ("COPY ${X:?} /", "X: not allowed to be empty"),
        ("RUN --mount=type=cache,target=${X:?where} x", "X: where"),
    ],
)
def test_a_variable_that_must_be_set(builda: Builda, base: str, context: Path, text: str, message: str) -> None:
    assert f"Containerfile:2: {message}\n" in refused(builda, base, context, f"FROM BASE\n{text}\n")


# Stages, images, contexts, secrets


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("FROM BASE AS a\nCOPY --from=a /x /\n", 2, "stage copies from itself: a", None),
        ("FROM BASE AS a\nCOPY --from=b /x /\nFROM a AS b\n", 2, "stage is defined below: b", "only those above it"),
        ("FROM BASE\nCOPY --from=7 /x /\n", 2, "no such stage: 7", None),
        ("FROM localhost/two AS a\nFROM a AS localhost.two\n", 1, "image not known: localhost/two", None),
        ("FROM localhost/x:1\n", 1, "image not known: localhost/x:1", None),
        ("FROM localhost/busibox\n", 1, "image not known: localhost/busibox", "did you mean localhost/busybox:latest?"),
        ("FROM Wrong:a:b\n", 1, "image not known: Wrong:a:b", "invalid image name"),
        ("FROM BASE\nCOPY --from=unknown /x /\n", 2, "the image unknown: ", "no stage above and no --build-context"),
        ("FROM BASE AS build\nFROM BASE\nCOPY --from=biuld /x /\n", 3, "the image biuld: ", "did you mean build?"),
        (
            "FROM BASE\nRUN --mount=type=bind,from=localhost/no,target=/x true\n",
            2,
            "image not known: localhost/no",
            None,
        ),
        ("FROM BASE AS build\nFROM biuld\n", 2, "cannot get the image biuld: ", "did you mean build?"),
    ],
)
def test_a_source_that_is_not_there_is_found_before_anything_runs(
    builda: Builda, base: str, context: Path, text: str, line: int, message: str, hint: str | None
) -> None:
    (context / "registries.conf").write_text('unqualified-search-registries = ["127.0.0.1:1"]\n')
    said = refused(builda, base, context, text, "--registries-conf", f"{context}/registries.conf", "--retry", "0")
    assert f"Containerfile:{line}: " in said
    assert message in said
    assert hint is None or hint in said.split("\nhint: ")[1]


def test_stages_that_need_each_other_are_refused(builda: Builda, base: str, context: Path) -> None:
    (context / "registries.conf").write_text('unqualified-search-registries = ["127.0.0.1:1"]\n')
    args = ("--registries-conf", f"{context}/registries.conf", "--retry", "0")
    said = refused(builda, base, context, "FROM two AS one\nRUN true\nFROM one AS two\nRUN true\n", *args)
    assert "Containerfile:1: cannot get the image two: " in said
    assert "hint: the stage in line 3 is called two, and a stage can use only those above it\n" in said
    said = refused(builda, base, context, "FROM self AS self\n", *args)
    assert "hint: this stage itself is called self" in said


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (("--target", "biuld"), "no such target stage: biuld", "did you mean build?"),
        (("--target", "9"), "no such target stage: 9", "stages: build"),
        (("--build-arg", "=x"), "argument has no name: '=x'", None),
        (("--build-arg-file", "/nope"), "no such file or directory: /nope", None),
        (("--build-context", "x"), "build context is written NAME=DIR: x", None),
        (("--build-context", "x=/nope"), "/nope", None),
        (("--secret", "x"), "secret has an unknown key x: x", "write --secret id=NAME"),
        (("--secret", "id=x,srcc=y"), "secret has an unknown key srcc: id=x,srcc=y", "write --secret id=NAME"),
        (("--secret", "id=x,src=/nope"), "no such file or directory for the secret x: /nope", None),
        (("--secret", "id=x,env=NOT_SET_HERE"), "variable of the secret x is not set: NOT_SET_HERE", None),
        (("--label", "=x"), "label has no name: '=x'", None),
        (("--jobs", "-1"), "--jobs is 0 or more: -1", None),
        (("--format", "zip"), "unknown image format: zip", "it is oci or docker"),
        (("--platform", "a/b/c/d"), "not a platform", None),
        (("--cpp-flag", "-O2"), "preprocessor flag is not supported: -O2", "use -D, -U and -I"),
        (
            ("--allow", "x"),
            "unknown permission: x",
            "there are device, device=PATH, network.host",
        ),
        (("-f", "nope"), "no such file or directory for the Containerfile: nope", None),
        (("--ignorefile", "/nope"), "no such file or directory: /nope", None),
        (
            ("--tag", "UPPER"),
            "invalid image name, repository name must be lowercase: 'UPPER'",
            "image names are lower case: upper",
        ),
        (("--manifest", "a b"), "invalid image name: 'a b'", None),
        (("--iidfile", "/nope/iid"), "no such file or directory: /nope/iid", None),
        (("--metadata-file", "/nope/m"), "no such file or directory: /nope/m", None),
        (("--iidfile", "a", "--iidfile-raw", "b"), "--iidfile cannot be used with --iidfile-raw", None),
    ],
)
def test_options_that_cannot_mean_anything_are_refused_before_anything_runs(
    builda: Builda, base: str, context: Path, args: tuple[str, ...], message: str, hint: str | None
) -> None:
    said = refused(builda, base, context, "FROM BASE AS build\nRUN echo ran >&2\nFROM build\n", *args)
    assert message in said
    assert hint is None or hint in said.split("\nhint: ")[1]
    assert not said.startswith("ran")


@pytest.mark.parametrize(
    ("flag", "message", "hint"),
    [
        ("secret,id=s,required", "no such secret: s", "give it with --secret id=s,src=FILE"),
        ("ssh,required", "no such ssh agent: default", "give it with --ssh default or --ssh ID=SOCKET"),
    ],
)
def test_a_secret_or_agent_that_was_not_given(
    builda: Builda, base: str, context: Path, flag: str, message: str, hint: str
) -> None:
    said = refused(builda, base, context, f"FROM BASE\nRUN --mount=type={flag} true\n")
    assert f"Containerfile:2: {message}\n" in said
    assert f"hint: {hint}\n" in said


# COPY


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("raedme.txt", "no such file or directory in the context: raedme.txt", "did you mean readme.txt?"),
        ("README.TXT", "no such file or directory in the context: README.TXT", "did you mean readme.txt?"),
        ("app/mian.sh", "no such file or directory in the context: app/mian.sh", "did you mean app/main.sh?"),
        ("ap/main.sh", "no such file or directory in the context: ap/main.sh", "did you mean app?"),
        ("[", "malformed pattern: [", "a literal [ or \\ is written"),
        (
            "secret.txt",
            "no such file or directory in the context: secret.txt",
            "it exists, but c/.dockerignore:4 leaves it out: secret*",
        ),
        (
            "../../../etc/shadow",
            "no such file or directory in the context: ../../../etc/shadow",
            "it was looked for as etc/shadow",
        ),
        (
            "/etc/hostname",
            "no such file or directory in the context: /etc/hostname",
            "it was looked for as etc/hostname",
        ),
        ("passwd", "but a link that leads nowhere: passwd", "passwd is a link to /etc/passwd"),
        (
            "out/hostname",
            "no such file or directory in the context: out/hostname",
            "out is a link to /etc, and links are followed",
        ),
        ("gone", "but a link that leads nowhere: gone", "gone is a link to nowhere"),
    ],
)
def test_a_source_that_cannot_be_copied_says_why(
    builda: Builda, base: str, context: Path, source: str, message: str, hint: str | None
) -> None:
    for keyword in ("COPY", "ADD"):
        text = f"FROM BASE\n{keyword} readme.txt {source} /x/\n"
        (context / "Containerfile").write_text(text.replace("BASE", base))
        with nothing_published(builda):
            said = builda.fails("bud", "-q", "-t", "bad", "c", cwd=context.parent)
        assert (
            f"c/Containerfile:2: {message}" in said
            or f"c/Containerfile:2: no such file or directory in the context, {message}" in said
        )
        assert f">    2 | {keyword} readme.txt {source} /x/" in said
        assert hint is None or hint in said.split("\nhint: ")[1]


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        (
            "COPY --chown=nobodyy readme.txt /",
            2,
            "unknown user, not in the container's /etc/passwd: nobodyy",
            "did you mean",
        ),
        ("COPY --chmod=999 readme.txt /", 2, "not a mode: 999", "modes are octal (0755) or symbolic"),
        ("COPY app /etc/passwd", 2, "cannot make a directory where a file is: /etc/passwd", None),
        ("COPY readme.txt /etc/passwd/", 2, "cannot make a directory where a file is: /etc/passwd", None),
        ("WORKDIR /etc/passwd", 2, "not a directory in the container: /etc/passwd", None),
        (
            "USER nobodyy\nRUN true",
            3,
            "unknown user, not in the container's /etc/passwd: nobodyy",
            "did you mean nobody?",
        ),
        ("RUN --mount=type=bind,source=nope,target=/x true", 2, "no such file or directory in the context: nope", None),
    ],
)
def test_a_step_that_cannot_be_done_is_placed(
    builda: Builda, base: str, context: Path, text: str, line: int, message: str, hint: str | None
) -> None:
    said = refused(builda, base, context, f"FROM BASE\n{text}\n")
    assert f"Containerfile:{line}: {message}\n" in said
    assert hint is None or hint in said.split("\nhint: ")[1]


def test_a_file_of_another_stage_is_missing_there(builda: Builda, base: str, context: Path) -> None:
    said = refused(builda, base, context, "FROM BASE AS a\nFROM BASE\nCOPY --from=a /etc/passwdd /\n")
    assert "Containerfile:3: no such file or directory in the stage: /etc/passwdd\n" in said
    assert "hint: did you mean etc/passwd?\n" in said


def test_a_malformed_ignore_file_is_placed(builda: Builda, base: str, context: Path) -> None:
    (context / ".dockerignore").write_text("a\n[\n")
    said = refused(builda, base, context, "FROM BASE\nCOPY readme.txt /\n")
    assert ".dockerignore:2: malformed pattern: [" in said


def test_a_context_with_sockets_and_pipes_warns_and_leaves_sockets_out(
    builda: Builda, base: str, context: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(context / "sock"))
    os.mkfifo(context / "pipe")
    (context / "Containerfile").write_text(f"FROM {base}\nCOPY . /x/\n")
    said = builda.run("bud", "-t", "ok", context).stderr
    assert "warning: socket is not copied: sock\n" in said
    assert "no file matches" not in said


@needs.program("newuidmap")
def test_a_file_that_may_not_be_read_is_named(busybox: Path) -> None:
    with rootless() as user:
        place = user.home / "c"
        (place / "app").mkdir(parents=True)
        (place / "app/secret").write_text("x")
        (place / "app/secret").chmod(0o600)
        (place / "Containerfile").write_text("FROM localhost/busybox:busybox\nCOPY app /x/\n")
        archive = user.home / "busybox.tar"
        shutil.copy(busybox, archive)
        archive.chmod(0o644)
        user("tag", user("pull", f"oci-archive:{archive}:busybox"), "localhost/busybox:busybox")
        with nothing_published(user):
            said = user.fails("bud", "-q", "-t", "bad", "c", cwd=user.home)
    assert "c/Containerfile:2: permission denied: app/secret\n" in said
    assert ">    2 | COPY app /x/" in said


@pytest.mark.long
def test_a_context_of_a_million_entries(builda: Builda, base: str, context: Path) -> None:
    for number in range(1000):
        directory = context / f"many/{number}"
        directory.mkdir(parents=True)
        for name in range(1000):
            os.close(os.open(directory / str(name), os.O_CREAT | os.O_WRONLY, 0o644))
    (context / "Containerfile").write_text(f"FROM {base}\nCOPY readme.txt /\n")
    builda("bud", "-q", context)
    (context / "Containerfile").write_text(f"FROM {base}\nCOPY . /x/\nRUN ls /x/many | wc -l > /n\n")
    builda("bud", "-q", context)


# Files that are no Containerfile


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        (b"\x7fELF\x02\x01\0\0", ":1: Containerfile is a binary file", "is this the file you meant?"),
        ("FROM x\n".encode("utf-16"), ":1: Containerfile is UTF-16", "save it as UTF-8"),
        (b"FROM x\n# caf\xe9\n", ":2: Containerfile is not UTF-8", "save it as UTF-8"),
        (b"FROM x\rRUN y\r", ":1: lines of the Containerfile end in carriage returns", "end them in line feeds"),
        (b"# x\n" * (50 << 18), ":1: Containerfile has more bytes than the limit", "is this the file you meant?"),
        (b"", ":1: Containerfile has no instructions", None),
        (b"FROM x\nRUN \x1b[2J\x07 <<\n\x1b]0;title\n", ":3: unknown instruction", None),
    ],
    ids=["binary", "UTF-16", "Latin-1", "carriage returns", "50 MB", "empty", "escapes"],
)
def test_a_file_that_is_no_containerfile(
    builda: Builda, base: str, context: Path, data: bytes, message: str, hint: str | None
) -> None:
    (context / "odd").write_bytes(data)
    with nothing_published(builda):
        said = builda.fails("bud", "-t", "bad", "-f", context / "odd", context)
    assert f"Error: {context}/odd{message}" in said
    assert hint is None or f"hint: {hint}" in said


def test_an_excerpt_moves_no_cursor(builda: Builda, context: Path) -> None:
    (context / "odd").write_bytes(b"FROM x\nRUN \x1b[2J\x07\nBAD\n")
    assert "\x1b" not in builda.fails("bud", "-f", context / "odd", context)


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_carriage_returns_and_a_byte_order_mark_are_no_error(
    builda: Builda, base: str, context: Path, start: bytes
) -> None:
    text = f"# escape=`\r\nFROM {base}\r\nRUN echo a `\r\n  b > /f\r\nCOPY <<E /g\r\nx\r\nE\r\n"
    (context / "Containerfile").write_bytes(start + text.encode())
    builda("bud", "-q", "-t", "made", context)
    container = builda("from", "made")
    assert builda("run", container, "--", "cat", "/f", "/g") == "a b\nx"


def test_places_that_hold_no_containerfile(builda: Builda, base: str, context: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    with nothing_published(builda):
        assert f"Containerfile is a directory: {context}" in builda.fails("bud", "-f", context, context)
        said = builda.fails("bud", tmp_path / "empty")
        assert f"no such file or directory: {tmp_path}/empty\nhint: name one with -f" in said
        assert "no such file or directory for the context: /no/such" in builda.fails("bud", "/no/such")
        assert "symbolic links" in builda.fails("bud", "-f", tmp_path / "loop", context)


# Preprocessing


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ('FROM BASE\n#include "nope.in"\n', "Containerfile.in:2", "nope.in"),
        ('FROM BASE\n#include "a.in"\n', "a.in:2", "unknown instruction: RUNN"),
        ("#ifdef X\nFROM BASE\n", "Containerfile.in:1", "#endif"),
        ("#error no platform\nFROM BASE\n", "Containerfile.in:1", "no platform"),
        ('#include "self.in"\n', "self.in:1", "self.in"),
    ],
)
def test_an_error_of_preprocessing_has_the_place_that_was_written(
    builda: Builda, base: str, context: Path, text: str, place: str, message: str
) -> None:
    (context / "a.in").write_text("# first\nRUNN x\n")
    (context / "self.in").write_text('#include "self.in"\n')
    (context / "Containerfile.in").write_text(text.replace("BASE", base))
    with nothing_published(builda):
        said = builda.fails("bud", "-t", "bad", "-f", context / "Containerfile.in", context)
    assert f"Error: {context}/{place}: " in said
    assert message in said
    assert "\n>    " in said


@pytest.mark.parametrize("name", [".dockerignore", ".containerignore", "Containerfile.dockerignore"])
def test_an_ignore_file_of_any_size_is_refused(builda: Builda, base: str, context: Path, name: str) -> None:
    with (context / name).open("wb") as file:
        file.truncate(1 << 34)
    said = refused(builda, base, context, "FROM BASE\nCOPY readme.txt /\n")
    assert "ignore file has more bytes than the limit, 8388608: " in said
    assert f"{name}\n" in said


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "link to a pipe", "large"])
def test_only_regular_files_are_included(builda: Builda, base: str, context: Path, kind: str) -> None:
    place = context / "part"
    if kind == "device":
        os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    elif kind == "directory":
        place.mkdir()
    elif kind == "large":
        with place.open("wb") as file:
            file.truncate(1 << 34)
    else:
        os.mkfifo(place.with_name("pipe"))
        place.symlink_to("pipe") if "link" in kind else place.with_name("pipe").rename(place)
    (context / "Containerfile.in").write_text(f'FROM {base}\n#include "part"\n')
    said = builda.fails("bud", "-f", context / "Containerfile.in", context)
    # cpp passes over directories
    reasons = {"large": "has more bytes than the limit", "directory": "no such include file"}
    assert reasons.get(kind, "include file is not a regular file") in said


def test_what_lies_outside_is_not_opened_to_be_included(builda: Builda, base: str, context: Path) -> None:
    pipe = context.with_name("pipe")
    os.mkfifo(pipe)  # who opens it waits for ever
    (context / "Containerfile.in").write_text(f'FROM {base}\n#include "{pipe}"\n')
    said = builda.fails("bud", "-f", context / "Containerfile.in", context)
    assert f"include file lies outside the context: {pipe}" in said
