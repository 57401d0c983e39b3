"""`bud --interactive-on-failure`: a shell where a command failed, on a real terminal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import Builda
from tests.support.screen import Shown, on_terminal

pytestmark = pytest.mark.root


@pytest.fixture
def context(builda: Builda, base: str, tmp_path: Path) -> Path:
    context = tmp_path / "c"
    context.mkdir()
    (context / "given").write_text("of the context")
    (context / "Containerfile").write_text(
        f"FROM {base}\nENV A=b\nWORKDIR /here\nUSER 7:8\n"
        "RUN --mount=type=bind,target=/m --mount=type=secret,id=s,mode=0444 USER=x sh -c 'exit 5'\n"
    )
    (tmp_path / "secret").write_text("word")
    return context


def typed(builda: Builda, *words: str | Path, lines: list[str]) -> Shown:
    """What is shown where each line is typed once the prompt before it is there."""
    left = list(lines)

    def act(_pid: int, terminal: int, text: str) -> None:
        if left and text.count("$ ") + text.count("# ") > len(lines) - len(left):
            os.write(terminal, f"{left.pop(0)}\n".encode())

    command = [*builda.command, "bud", "--interactive-on-failure", *map(str, words)]
    return on_terminal(command, act=act, PS1="$ ")


def test_the_shell_has_what_the_command_had(builda: Builda, context: Path) -> None:
    script = "echo $A in $(pwd) as $(id -u):$(id -g); cat /m/given /run/secrets/s; exit 0"
    shown = typed(builda, "--secret", f"id=s,src={context.parent}/secret", context, lines=[script])
    assert "b in /here as 7:8" in shown.text
    assert "of the contextword" in shown.text
    assert "a shell begins where it failed" in shown.text
    assert shown.status == 5  # of the command, whatever the shell ends with
    assert builda("containers", "-q") == ""


def test_the_build_goes_on_as_ever_where_nothing_fails(builda: Builda, context: Path) -> None:
    (context / "Containerfile").write_text((context / "Containerfile").read_text().replace("exit 5", "exit 0"))
    shown = typed(builda, "--secret", f"id=s,src={context.parent}/secret", context, lines=[])
    assert shown.status == 0
    assert "shell begins" not in shown.text


def test_a_container_without_a_shell_is_told(builda: Builda, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text('FROM scratch\nCOPY Containerfile /x\nRUN ["/none"]\n')
    shown = typed(builda, tmp_path, lines=[])
    assert "the shell: no such command in the container: /bin/sh" in shown.text
    assert shown.status == 127


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--interactive-on-failure needs a terminal on standard input and output"),
    ],
)
def test_without_a_terminal_it_is_refused(builda: Builda, context: Path, words: tuple[str, ...], said: str) -> None:
    assert said in builda.fails("bud", "--interactive-on-failure", *words, context)


@pytest.mark.parametrize("words", [("--jobs", "2"), ("--report", "/dev/null"), ("--stdin",)])
def test_options_that_need_the_terminal_too_are_refused(builda: Builda, context: Path, words: tuple[str, ...]) -> None:
    shown = typed(builda, *words, context, lines=[])
    assert f"--interactive-on-failure cannot be used with {words[0]}" in shown.text
    assert shown.status == 125
