"""What a build prints where programs read it: line for line what Debian's buildah prints of the same file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Builda

pytestmark = pytest.mark.root

ONE = """\
FROM localhost/busybox
RUN echo hi && \\
    # why
    echo more; sleep 0.1
ENV A=b C="d e"
ENV X=$A
LABEL x="y z"
EXPOSE 80
WORKDIR /w
USER 1
COPY --chown=1:1 file /x/
CMD ["x", "y"]
ENTRYPOINT foo bar
"""
SEVERAL = """\
ARG V=latest
FROM localhost/busybox:$V AS a
ARG V
RUN echo hi; sleep 0.1
FROM localhost/busybox AS unused
RUN echo unused
FROM localhost/busybox AS b
COPY --from=a /etc/passwd /
RUN --mount=type=tmpfs,target=/t echo two; sleep 0.1
"""


def peers(context: Path, busybox: Path, root: Path, *args: str) -> list[str]:
    """The lines of Debian's buildah. Under load it loses what a command prints just before it ends: it tries again."""
    if shutil.which("buildah") is None:
        pytest.skip("buildah is not installed")
    command = ["buildah", "--root", str(root / "s"), "--runroot", str(root / "r"), "--storage-driver", "vfs"]
    environ = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
    name = subprocess.check_output([*command, "pull", "-q", f"oci-archive:{busybox}:busybox"], text=True).strip()
    subprocess.run([*command, "tag", name, "localhost/busybox:latest"], check=True)
    words = re.findall(r"echo (\w+)", (context / "Containerfile").read_text())
    printed: set[str] = set() if "-q" in args else set(words) - {"unused"}
    lines: list[str] = []
    for _ in range(30):
        bud = [*command, "bud", *args, str(context)]
        lines = subprocess.run(bud, check=True, capture_output=True, text=True, env=environ).stdout.splitlines()
        if printed <= set(lines):
            break
    return lines


def comparable(lines: list[str]) -> list[str]:
    """IDs as X, which differ, the short one by its length too."""
    return [re.sub(r"^(--> )?[0-9a-f]{11,64}$", r"\1X", line) for line in lines]


@pytest.mark.parametrize("text", [ONE, SEVERAL], ids=["one stage", "several"])
@pytest.mark.parametrize("args", [(), ("-t", "named"), ("-t", "one", "-t", "two:3", "-q")], ids=["", "named", "quiet"])
def test_the_lines_are_buildahs(
    builda: Builda, base: str, busybox: Path, tmp_path: Path, text: str, args: tuple[str, ...]
) -> None:
    context = tmp_path / "c"
    context.mkdir()
    (context / "file").write_text("x")
    (context / "Containerfile").write_text(text)
    theirs = peers(context, busybox, tmp_path / "peer", *args)
    mine = builda("bud", *args, context).splitlines()
    assert base == "localhost/busybox:latest"
    assert comparable(mine) == comparable(theirs)


def test_the_output_of_stages_side_by_side_is_not_mixed_within_a_line(
    builda: Builda, base: str, tmp_path: Path
) -> None:
    loop = "i=0; while [ $i -lt 50 ]; do printf half; sleep 0.005; echo -{0}; i=$((i+1)); done; printf {0}-end"
    text = "".join(f"FROM {base} AS {name}\nRUN {loop.replace('{0}', name)}\n" for name in "ab")
    (tmp_path / "Containerfile").write_text(f"{text}FROM scratch\nCOPY --from=a /etc /\nCOPY --from=b /etc /\n")
    lines = builda("bud", "--jobs", "2", tmp_path).splitlines()
    for number, name in enumerate("ab", 1):
        assert lines.count(f"[{number}/3] half-{name}") == 50
        assert lines.count(f"[{number}/3] {name}-end") == 1
    assert not [line for line in lines if "half" in line and "STEP" not in line and len(line) != 12]
