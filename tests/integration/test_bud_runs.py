"""What every RUN of a build gets: mounts, standard input, a log; and stages that run side by side."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.conftest import Builda

pytestmark = pytest.mark.root


@pytest.fixture
def context(tmp_path: Path) -> Path:
    made = tmp_path / "context"
    made.mkdir()
    return made


def write(context: Path, text: str) -> Path:
    (context / "Containerfile").write_text(text)
    return context


def test_a_mount_is_there_for_every_run(builda: Builda, base: str, context: Path, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host/file").write_text("of the host\n")
    write(context, f"FROM {base}\nRUN cat /h/file && touch /t/x\nRUN test ! -e /t/x && ! touch /h/y\n")
    mounts = ("--mount", f"type=bind,source={tmp_path}/host,target=/h", "--mount", "type=tmpfs,target=/t")
    assert "of the host" in builda("bud", *mounts, context)
    assert builda.fails("bud", context, status=1)  # another key without them


@pytest.mark.parametrize("mount", ["type=secret,id=x", "type=bind,source=x,target=/x", "type=cache,target=/x,from=y"])
def test_other_mounts_are_refused(builda: Builda, base: str, context: Path, mount: str) -> None:
    assert "--mount" in builda.fails("bud", "--mount", mount, write(context, f"FROM {base}\n"))


def test_commands_read_standard_input_only_when_told(builda: Builda, base: str, context: Path) -> None:
    write(context, f"FROM {base}\nRUN echo got:$(cat)\n")
    assert "got:\n" in builda.run("bud", "--no-cache", context, given="x").stdout
    assert "got:x\n" in builda.run("bud", "--no-cache", "--stdin", context, given="x").stdout


def test_a_log_takes_all_but_errors(builda: Builda, base: str, context: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    write(context, f"FROM {base}\nRUN echo hello; echo there >&2\n")
    done = builda.run("bud", "--logfile", log, context)
    assert (done.stdout, done.stderr) == ("", "")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    text = log.read_text()
    for said in ("STEP 2/2", "hello\n", "there\n"):
        assert said in text
    assert len(text.splitlines()[-1]) == 64
    write(context, f"FROM {base}\nRUN exit 3\n")
    assert "exit 3" in builda.fails("bud", "--logfile", log, context, status=3)


def test_side_by_side_each_line_has_its_stage(builda: Builda, base: str, context: Path) -> None:
    stages = "".join(f"FROM {base} AS {n}\nRUN for i in 1 2 3; do echo {n}$i; done; echo {n} > /{n}\n" for n in "ab")
    write(context, f"{stages}FROM {base}\nCOPY --from=a /a /\nCOPY --from=b /b /\n")
    lines = builda("bud", "--jobs", "2", context).splitlines()
    for number, name in enumerate("ab", start=1):
        said = [
            line
            for line in lines
            if line.endswith((f"{name}1", f"{name}2", f"{name}3")) and line.startswith("[") and "STEP" not in line
        ]
        assert said == [f"[{number}/3] {name}{i}" for i in (1, 2, 3)]


def test_a_stage_that_fails_stops_the_others_and_leaves_nothing(builda: Builda, base: str, context: Path) -> None:
    slow = (
        f"FROM {base} AS slow\nRUN until test -e /never || test $((i=i+1)) -gt 3; do sleep 0.2; done\nRUN echo late\n"
    )
    write(
        context,
        f"{slow}FROM {base} AS bad\nRUN exit 9\nFROM {base}\nCOPY --from=slow /etc /a\nCOPY --from=bad /etc /b\n",
    )
    done = builda.run("bud", "--jobs", "2", "-t", "never", context, check=False)
    assert done.returncode == 9
    assert "echo late" not in done.stdout
    assert builda("containers", "-q") == ""
    assert builda("images", "-q", "localhost/never", check=False) == ""
    assert builda("fsck") == ""
