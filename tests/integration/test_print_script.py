"""--print-script: a bash script of builda's verbs that makes the image which the build makes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Builda, clean_environ
from tests.integration.test_bud import make_context
from tests.support.corpus import CASES, Case

pytestmark = pytest.mark.root

EPOCH = "1700000000"
NAMES = Case(
    "names", "FROM BASE\nRUN (hostname; cat /etc/hosts /etc/hostname /run/.containerenv; env | sort) > /names\n"
)


def run_script(builda: Builda, script: str, context: Path) -> subprocess.CompletedProcess[str]:
    """Run it as a user would: in its context, builda on the path."""
    environ = {
        **clean_environ(),
        "PATH": f"{Path(builda.command[0]).parent}:{os.environ['PATH']}",
        "BUILDA_ROOT": str(builda.root),
        "BUILDA_RUNROOT": str(builda.runroot),
    }
    return subprocess.run(
        ["bash", "-c", script], cwd=context, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def digest(builda: Builda, image: str) -> str:
    return builda("inspect", "--type", "image", "--format", "{{.FromImageDigest}}", image)


SAMPLED = [
    pytest.param(case, id=case.name, marks=() if number % 4 == 0 else pytest.mark.long)
    for number, case in enumerate([NAMES, *CASES])
]


@pytest.mark.parametrize("case", SAMPLED)
def test_the_script_of_a_build_makes_the_same_image(builda: Builda, base: str, tmp_path: Path, case: Case) -> None:
    context = make_context(case, tmp_path / "context", base)
    options = [*case.args, "--source-date-epoch", EPOCH]
    built = builda("bud", "--quiet", *options, ".", cwd=context)
    script = builda("bud", "--print-script", *options, ".", cwd=context)
    done = run_script(builda, script, context)
    assert done.returncode == 0, done.stderr
    image = done.stdout.splitlines()[-1]
    assert digest(builda, image) == digest(builda, built)
    assert builda("containers", "--quiet") == ""


def test_the_script_names_its_image(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text(f"FROM {base}\nENV A=b\n")
    script = builda("bud", "--print-script", "-t", "one", "-t", "two:2", ".", cwd=tmp_path)
    assert run_script(builda, script, tmp_path).returncode == 0
    assert digest(builda, "one") == digest(builda, "two:2")


def test_a_failing_script_leaves_no_container(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text(f"FROM {base}\nRUN exit 7\nRUN touch /never\n")
    done = run_script(builda, builda("bud", "--print-script", ".", cwd=tmp_path), tmp_path)
    assert done.returncode == 7
    assert builda("containers", "--quiet") == ""


def test_secrets_are_read_where_the_build_reads_them(builda: Builda, base: str, tmp_path: Path) -> None:
    text = f"FROM {base}\nRUN --mount=type=secret,id=s,target=/s cp /s /copy\n"
    (tmp_path / "Containerfile").write_text(text)
    (tmp_path / "word").write_text("hidden")
    script = builda("bud", "--print-script", "--secret", "id=s,src=word", "-t", "out", ".", cwd=tmp_path)
    assert "hidden" not in script
    assert run_script(builda, script, tmp_path).returncode == 0
    assert builda("run", builda("from", "out"), "cat", "/copy") == "hidden"


def test_options_of_commands_are_taken_over(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text(f"FROM {base}\nRUN ulimit -n > /n; grep -c peer /etc/hosts >> /n\n")
    options = ["--ulimit", "nofile=123:123", "--add-host", "peer:192.0.2.1"]
    script = builda("bud", "--print-script", *options, "-t", "out", ".", cwd=tmp_path)
    assert run_script(builda, script, tmp_path).returncode == 0
    assert builda("run", builda("from", "out"), "cat", "/n").split() == ["123", "1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layers=false"], "a script makes a layer of each step"),
        (["--squash"], "a script makes a layer of each step"),
        (["--output", "out"], "--output cannot be used with --print-script"),
        (["--manifest", "list"], "--manifest cannot be used with --print-script"),
        (["--platform", "linux/amd64,linux/arm64"], "--print-script is for one platform"),
    ],
)
def test_what_a_script_cannot_do_is_refused(
    builda: Builda, base: str, tmp_path: Path, options: list[str], message: str
) -> None:
    (tmp_path / "Containerfile").write_text(f"FROM {base}\nRUN true\n")
    assert message in builda.fails("bud", "--print-script", *options, tmp_path)


def test_the_plan_is_printed_for_people_and_for_programs(builda: Builda, base: str, tmp_path: Path) -> None:
    text = f"FROM {base} AS one\nWORKDIR /w\nRUN --mount=type=cache,target=/c true\n"
    (tmp_path / "Containerfile").write_text(f"{text}FROM {base}\nCOPY --from=one /w /x\nENV A=b\n")
    said = builda("bud", "--print-plan", "-f", "Containerfile", ".", cwd=tmp_path)
    platform = said.splitlines()[0].partition("(")[2]
    assert said == "\n".join(
        [
            f"stage 1 one: from {base} ({platform}",
            "  Containerfile:2  workdir /w",
            "  Containerfile:2  config  WORKDIR /w",
            "  Containerfile:3  run     [cache /c] /bin/sh -c true",
            f"stage 2, the target: from {base} ({platform}",
            "  Containerfile:5  copy    /w -> /x (from one)",
            "  Containerfile:6  config  ENV A=b",
        ]
    )
    assert '"target": 1' in builda("bud", "--print-plan=json", tmp_path)
    assert "unknown format of a plan: xml" in builda.fails("bud", "--print-plan=xml", tmp_path)
