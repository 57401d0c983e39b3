"""Containerfiles in the shapes that the real world writes them, small enough to be built in a second.

`BASE` stands for a busybox image. `peer` is False where Debian's buildah cannot build the case; `why` says so.
"""
# ruff: noqa: E501  # a Containerfile is one string

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from tests.conftest import Builda


class Case(NamedTuple):
    """One Containerfile and its context: path to content; a trailing slash makes a directory."""

    name: str
    text: str
    files: Mapping[str, str] = MappingProxyType({})
    args: tuple[str, ...] = ()
    peer: bool = True
    why: str = ""


APP = {
    "app/main.sh": "#!/bin/sh\necho app\n",
    "app/lib/util.sh": "x=1\n",
    "app/README.md": "# app\n",
    "VERSION": "1.2\n",
}

CASES: tuple[Case, ...] = (
    Case("run-only", "FROM BASE\nRUN echo hello > /hello\n"),
    Case("env-arg", "ARG V=1\nFROM BASE\nARG V\nENV VERSION=$V\nRUN echo $VERSION > /version\n"),
    Case("arg-cli", "FROM BASE\nARG V=1\nRUN echo $V > /v\n", args=("--build-arg", "V=7")),
    Case("copy-file", "FROM BASE\nCOPY VERSION /VERSION\n", APP),
    Case("copy-directory", "FROM BASE\nCOPY app /srv/app\n", APP),
    Case("copy-directory-slash", "FROM BASE\nCOPY app/ /srv/app/\n", APP),
    Case("copy-dot", "FROM BASE\nWORKDIR /srv\nCOPY . .\n", APP),
    Case("copy-wildcard", "FROM BASE\nCOPY app/*.sh /srv/\n", APP),
    Case("copy-several", "FROM BASE\nCOPY VERSION app/main.sh /srv/\n", APP),
    Case("copy-json", 'FROM BASE\nCOPY ["VERSION", "/srv/with space/"]\n', APP),
    Case("copy-chown", "FROM BASE\nCOPY --chown=1000:1001 app /srv/app\n", APP),
    Case(
        "copy-chown-name",
        "FROM BASE\nRUN echo u:x:1234:4321::/:/bin/sh >> /etc/passwd\nCOPY --chown=u:4321 VERSION /\n",
        APP,
    ),
    Case("copy-chmod", "FROM BASE\nCOPY --chmod=0755 VERSION /bin/version\n", APP),
    Case("ignore", "FROM BASE\nCOPY . /srv/\n", {**APP, ".dockerignore": "*.md\n**/*.md\n!app/main.sh\n"}),
    Case("ignore-all-but", "FROM BASE\nCOPY . /srv/\n", {**APP, ".dockerignore": "*\n!VERSION\n!app\n"}),
    Case("workdir-relative", "FROM BASE\nWORKDIR /a\nWORKDIR b/c\nRUN pwd > where\n"),
    Case("workdir-user", "FROM BASE\nUSER 1000\nWORKDIR /tmp/mine\nRUN touch here\n"),
    Case("user-run", "FROM BASE\nUSER 1000:1000\nRUN id -u > /tmp/id\n"),
    Case("entrypoint-cmd", 'FROM BASE\nENTRYPOINT ["/bin/sh", "-c"]\nCMD ["echo hi"]\n'),
    Case("shell-form-cmd", "FROM BASE\nCMD echo $HOME\n"),
    Case("entrypoint-resets-cmd", 'FROM BASE\nCMD ["a"]\nENTRYPOINT ["b"]\n'),
    Case("labels", 'FROM BASE\nLABEL a=b "c d"=\'e f\' g="h\\"i"\nLABEL a=z\n'),
    Case(
        "env-quotes", "FROM BASE\nENV A=1 B=\"two words\" C='$A' D=x\\ y\nRUN env | grep -E '^[ABCD]=' | sort > /env\n"
    ),
    Case("env-legacy", "FROM BASE\nENV greeting hello  world\n"),
    Case("expose-volume", 'FROM BASE\nEXPOSE 80 443/tcp 53/udp\nVOLUME /data ["/x"]\nVOLUME ["/with space"]\n'),
    Case("stopsignal", "FROM BASE\nSTOPSIGNAL SIGINT\n"),
    Case(
        "multi-stage",
        "FROM BASE AS build\nRUN mkdir /out && echo bin > /out/app\nFROM BASE\nCOPY --from=build /out/app /usr/bin/app\n",
    ),
    Case("multi-stage-index", "FROM BASE\nRUN echo 1 > /one\nFROM BASE\nCOPY --from=0 /one /two\n"),
    Case("from-stage", "FROM BASE AS base\nENV A=1\nRUN echo $A > /a\nFROM base\nRUN cat /a > /b\n"),
    Case("unused-stage", "FROM BASE AS unused\nRUN false\nFROM BASE\nRUN true\n"),
    Case("target", "FROM BASE AS one\nRUN echo 1 > /1\nFROM BASE AS two\nRUN false\n", args=("--target", "one")),
    Case(
        "scratch-copy", 'FROM BASE AS b\nFROM scratch\nCOPY --from=b /bin/busybox /bin/busybox\nCMD ["/bin/busybox"]\n'
    ),
    Case("scratch-context", "FROM scratch\nCOPY app /app\nCOPY VERSION /\n", APP),
    Case("continuations", "FROM BASE\nRUN echo a && \\\n  # comment\n  echo b > /b && \\\n  echo c > /c\n"),
    Case(
        "heredoc-run",
        "FROM BASE\nRUN <<EOF\nset -e\necho one > /one\necho two > /two\nEOF\n",
        peer=False,
        why="buildah 1.28 has no heredocs",
    ),
    Case(
        "heredoc-copy",
        "FROM BASE\nENV A=1\nCOPY <<EOF /conf\na=$A\nEOF\n",
        peer=False,
        why="buildah 1.28 has no heredocs",
    ),
    Case(
        "heredoc-copy-raw",
        "FROM BASE\nCOPY <<'A' <<\"B\" /dir/\n$raw\nA\nb\nB\n",
        peer=False,
        why="buildah 1.28 has no heredocs",
    ),
    Case(
        "heredoc-shebang",
        "FROM BASE\nRUN <<EOF\n#!/bin/sh -e\necho $0 > /dev/null; echo script > /s\nEOF\n",
        peer=False,
        why="buildah 1.28 has no heredocs",
    ),
    Case(
        "heredoc-to-program",
        "FROM BASE\nRUN cat <<EOF > /f\nhello\nEOF\n",
        peer=False,
        why="buildah 1.28 has no heredocs",
    ),
    Case(
        "heredoc-forms",
        'FROM BASE\nENV V=v\nCOPY << A <<E"O"F /d/\n\\$V $V \\\\ \\n\nA\n$V\nEOF\n'
        "RUN cat <<\\B > /b\n$V\nB\nRUN << C\ntouch /c\nC\n",
        peer=False,
        why="buildah 1.28 has no heredocs",
    ),
    Case(
        "arg-again",
        "FROM BASE AS a\nARG X=1\nARG X\nENV n=Y\nARG ${n}=2\nFROM a\nARG X\nRUN echo $X $Y > /x\n",
        peer=False,
        why="buildah 1.28 forgets the values",
    ),
    Case(
        "mount-forms",
        "FROM BASE\nWORKDIR /w\nRUN --mount=type=bind cat VERSION > /v\nUSER 7\nWORKDIR /tmp/x\n"
        "RUN --mount=type=bind,target=/c,U ls -ln /c | wc -l > lines\nRUN --mount=type=cache,src=,target=/k ls /k > kept\n",
        APP,
        peer=False,
        why="buildah 1.28 needs a target",
    ),
    Case(
        "users-without-entry",
        "FROM BASE\nARG E\nUSER $E\nWORKDIR $E\nUSER ghost\nWORKDIR /g\nUSER 7:ghosts\nWORKDIR /h\n",
        peer=False,
        why="buildah 1.28 gives such directories to root, and takes an empty USER for one",
    ),
    Case("run-json", 'FROM BASE\nRUN ["/bin/sh", "-c", "echo json > /json"]\n'),
    Case("run-cache-mount", "FROM BASE\nRUN --mount=type=cache,target=/cache touch /cache/x && ls /cache > /listing\n"),
    Case(
        "run-bind-mount",
        "FROM BASE\nRUN --mount=type=bind,source=app,target=/mnt/app cat /mnt/app/main.sh > /copied\n",
        APP,
    ),
    Case(
        "run-bind-stage",
        "FROM BASE AS b\nRUN echo s > /s\nFROM BASE\nRUN --mount=type=bind,from=b,source=/s,target=/mnt/s cat /mnt/s > /t\n",
    ),
    Case("run-tmpfs", "FROM BASE\nRUN --mount=type=tmpfs,target=/scratch echo x > /scratch/x && test -f /scratch/x\n"),
    Case(
        "run-network-none",
        "FROM BASE\nRUN --network=none ls /sys/class/net | tr -d '\\n' > /net\n",
        peer=False,
        why="chroot isolation",
    ),
    Case("run-secret", "FROM BASE\nRUN --mount=type=secret,id=s test ! -e /run/secrets/s\n"),
    Case("delete-file", "FROM BASE\nRUN echo x > /x && echo y > /y\nRUN rm /x\n"),
    Case("replace-directory", "FROM BASE\nRUN mkdir /d && echo a > /d/a\nRUN rm -r /d && mkdir /d && echo b > /d/b\n"),
    Case("symlinks", "FROM BASE\nRUN mkdir /real && ln -s real /link\nCOPY VERSION /link/\n", APP),
    Case("hard-links", "FROM BASE\nRUN echo x > /x && ln /x /y && chmod 600 /y\n"),
    Case("modes", "FROM BASE\nRUN mkdir -m 1777 /sticky && touch /suid && chmod 4755 /suid && mkfifo /fifo\n"),
    Case("owners", "FROM BASE\nRUN touch /f && chown 12:34 /f && mkdir /d && chown 56 /d\n"),
    Case(
        "add-archive",
        "FROM BASE\nRUN mkdir /t && cd /t && echo x > x && touch -d '2020-01-01 00:00:00' x && tar -cf /a.tar x\nFROM BASE\nCOPY --from=0 /a.tar /a.tar\n",
    ),
    Case("add-file", "FROM BASE\nADD VERSION /srv/\nADD app /srv/app\n", APP),
    Case("shell", 'FROM BASE\nSHELL ["/bin/sh", "-ec"]\nRUN echo $- > /flags\n'),
    Case("onbuild-text", "FROM BASE\nONBUILD RUN echo later\n"),
    Case("healthcheck", "FROM BASE\nHEALTHCHECK --interval=5s CMD true\n"),
    Case("maintainer", "FROM BASE\nMAINTAINER someone <s@example.org>\n"),
    Case("lower-case", 'from BASE\nrun echo x > /x\ncmd ["x"]\n'),
    Case("arg-in-copy", "FROM BASE\nARG DIR=app\nCOPY ${DIR}/main.sh /srv/${DIR}.sh\n", APP),
    Case("arg-default-chain", "FROM BASE\nARG A=1\nARG B=${A}2\nENV C=${B:-none} D=${E:-none}\n"),
    Case("global-arg-from", "ARG IMAGE=BASE\nFROM ${IMAGE}\nRUN true\n"),
    Case("platform-args", "FROM BASE\nARG TARGETARCH\nARG TARGETOS\nRUN echo $TARGETOS/$TARGETARCH > /platform\n"),
    Case(
        "service-image",
        'FROM BASE AS build\nWORKDIR /src\nCOPY app .\nRUN chmod +x main.sh && mkdir -p /out/bin && cp main.sh /out/bin/app\nFROM BASE\nLABEL org.example.role=web\nRUN echo app:x:1000:1000::/srv:/bin/sh >> /etc/passwd && mkdir -p /srv && chown 1000:1000 /srv\nCOPY --from=build --chown=1000:1000 /out/bin/app /srv/app\nUSER app\nWORKDIR /srv\nENV PORT=8080\nEXPOSE 8080\nENTRYPOINT ["/srv/app"]\nCMD ["--port", "8080"]\n',
        APP,
    ),
    Case(
        "dependency-first",
        'FROM BASE\nWORKDIR /srv\nCOPY VERSION ./\nRUN cp VERSION installed\nCOPY app ./app\nCMD ["sh", "app/main.sh"]\n',
        APP,
    ),
    Case("empty-directory", "FROM BASE\nCOPY empty /srv/empty\n", {"empty/": ""}),
    Case("dots-in-source", "FROM BASE\nCOPY ./app/./lib/../main.sh /srv/\n", APP),
    Case("overwrite", "FROM BASE\nRUN mkdir /srv && echo old > /srv/VERSION\nCOPY VERSION /srv/VERSION\n", APP),
    Case(
        "nested-from-copy",
        "FROM BASE AS a\nRUN echo a > /a\nFROM BASE AS b\nCOPY --from=a /a /b\nFROM BASE\nCOPY --from=b /b /c\nCOPY --from=a /a /a\n",
    ),
)

OWN: tuple[Case, ...] = (
    Case("into-root-home", "FROM BASE\nCOPY VERSION /root/deep/er/\n", APP),
    Case("replaces-a-file", "FROM BASE\nCOPY VERSION /etc/passwd\nCOPY --chown=1 app /etc\n", APP),
    Case("replaces-a-link", "FROM BASE\nCOPY VERSION /bin/ls\n", APP),
    Case("parents", "FROM BASE\nCOPY --parents app/lib/util.sh /srv/\n", APP),
    Case("exclude", "FROM BASE\nCOPY --exclude=*.md app /srv/\n", APP),
    Case("link", "FROM BASE\nCOPY --link app /etc/app\nCOPY --link VERSION /etc/app/VERSION\n", APP),
    Case("link-excluded", "FROM BASE\nCOPY VERSION /a/b/c\nCOPY --link --exclude=app app/main.sh /a/b\n", APP),
    Case("names", "FROM BASE\nCOPY --chown=nobody:nogroup app /tmp/app\n", APP),
    Case("modes", "FROM BASE\nCOPY --chmod=u=rwX,go= app /tmp/app\n", APP),
    Case("over-stage", "FROM BASE AS a\nCOPY app /a\nFROM a\nCOPY VERSION /a/lib/\nCOPY app/lib /a\n", APP),
    Case("add-tar", "FROM BASE\nADD given.tar /srv/\nADD given.tar /\n", APP),
    Case("add-tar-owned", "FROM BASE\nADD --chown=7:8 given.tar /new/place/\n", APP),
    Case("workdir-deep", "FROM BASE\nUSER nobody\nWORKDIR /a/b\nWORKDIR c\nCOPY . .\n", APP),
    Case("linked-files", "FROM BASE\nCOPY linked /srv\n", APP),
    Case("special", "FROM BASE\nCOPY special /srv\nCOPY app/main.sh /srv/lnk\n", APP),
    Case(
        "from-stage-all",
        "FROM BASE AS a\nCOPY --chown=3:4 app /a\nCOPY linked special large sparse /b/\n"
        "FROM BASE\nCOPY --from=a / /all\nCOPY --from=a --chown=9 /a/*.sh /b/null /b/fifo /tmp/\n"
        "COPY --from=a --parents --exclude=*.md /a /p/\n",
        APP,
    ),
    Case("from-image", "FROM scratch\nCOPY --from=BASE /bin /bin\nCOPY --from=BASE /etc/passwd /bin/ls /\n", APP),
    Case("from-scratch-stage", "FROM scratch AS a\nCOPY large /l\nFROM BASE\nCOPY --from=a / /x/\n", APP),
    Case("large", "FROM BASE\nCOPY large sparse /srv/\n", APP),
)
"""Cases with files of every kind in the context (`context_of`)."""


def context_of(case: Case, path: Path) -> Path:
    for name, text in case.files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (path / name).mkdir(exist_ok=True)
        else:
            (path / name).write_text(text)
    (path / "Containerfile").write_text(case.text.replace("BASE", "localhost/busybox"))
    if case in OWN:
        special_files(path)
    return path


def special_files(path: Path) -> None:
    with tarfile.open(path / "given.tar", "w") as archive:
        archive.add(path / "app", "app")
        archive.add(path / "VERSION", "etc/deep/VERSION")
        link = tarfile.TarInfo("etc/hard")
        link.type, link.linkname = tarfile.LNKTYPE, "etc/deep/VERSION"
        archive.addfile(link)
    (path / "linked/z").mkdir(parents=True)
    (path / "linked/z/b").write_text("same")
    os.link(path / "linked/z/b", path / "linked/a")
    (path / "special").mkdir()
    (path / "special/lnk").symlink_to("/nowhere")
    os.mkfifo(path / "special/fifo", 0o640)
    os.mknod(path / "special/null", 0o20666, os.makedev(1, 3))
    (path / "large").write_bytes(os.urandom(3 << 20))
    with open(path / "sparse", "wb") as file:
        file.seek(5 << 20)
        file.write(b"end")
    os.setxattr(path / "large", "user.note", b"\xff\x00")


def both(
    tmp_path: Path, base_store: Path, other: str, context: Path, *options: str
) -> tuple[dict[str, object], dict[str, object]]:
    """What the image is when root builds it with overlay, and with the `other` driver."""
    found = []
    for driver in ("overlay", other):
        builda = Builda(tmp_path / driver, tmp_path / f"{driver}-run")
        shutil.copytree(base_store, builda.root, symlinks=True)
        builda("--storage-driver", driver, "bud", "-q", "--timestamp", "0", "-t", "built", *options, context)
        found.append(json.loads(builda("inspect", "--type", "image", "built")))
    return found[0], found[1]
