"""`run --script`: a script that runs inside a container, and in which the caller's shell expands nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import Builda

pytestmark = pytest.mark.root


@pytest.fixture
def container(builda: Builda, base: str) -> str:
    return builda("from", base)


@pytest.mark.parametrize("words", [("{}", "--script", "-"), ("{}", "--script=-"), ("--script", "-", "{}")])
def test_standard_input_is_a_script(builda: Builda, container: str, words: tuple[str, ...]) -> None:
    script = "me=inside\necho $me > /said\nwc -c < /said\n"
    arguments = [word.format(container) for word in words]
    assert builda("run", *arguments, given=script) == "7"
    assert builda("run", container, "cat", "/said") == "inside"


def test_a_shell_expands_nothing_of_a_quoted_script(builda: Builda, container: str) -> None:
    text = f"{' '.join(builda.command)} run --env WORD=two {container} --script - << 'END'\necho $WORD $(echo 3)\nEND\n"
    given = {**builda.environ, "WORD": "outside", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    said = subprocess.run(["bash", "-c", text], capture_output=True, text=True, env=given, check=True)
    assert said.stdout == "two 3\n"


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("false\ntouch /reached\n", 1),
        ("(exit 7)\ntouch /reached\n", 7),
        ("echo $NEVER_SET\ntouch /reached\n", 2),
        ("false | true\ntouch /reached\n", 1),
        ("if then\ntouch /reached\n", 2),
        ("no-such-command\ntouch /reached\n", 127),
    ],
)
def test_the_first_failure_ends_it(builda: Builda, container: str, script: str, status: int) -> None:
    said = builda.fails("run", "--script", "-", container, given=script, status=status)
    assert f"exit status {status}" in said
    assert builda.fails("run", container, "test", "-e", "/reached", status=1)


def test_a_file_with_its_own_interpreter_is_run_as_a_program(builda: Builda, container: str, tmp_path: Path) -> None:
    (tmp_path / "program").write_text("#!/bin/sh\nfalse\necho $# goes on; exit 3\n")
    done = builda.run("run", "--script", tmp_path / "program", container, check=False)
    assert (done.stdout, done.returncode) == ("0 goes on\n", 3)


def test_a_script_may_be_longer_than_an_argument(builda: Builda, container: str) -> None:
    script = f"x='{'a' * 200_000}'\necho ${{#x}}\n"
    assert builda("run", "--script", "-", container, given=script) == "200000"


def test_the_history_tells_the_script(builda: Builda, container: str) -> None:
    builda("run", "--add-history", "--script", "-", container, given="echo a > /a\n")
    builda("commit", "-q", container, "made")
    assert "/bin/sh -c echo a > /a" in builda("inspect", "--type", "image", "--format", "{{.OCIv1.History}}", "made")


@pytest.mark.parametrize(
    ("words", "given", "expected"),
    [
        (("--script", "-", "{}"), "", "script is empty: standard input"),
        (("--script", "-", "{}"), " \n\n", "script is empty: standard input"),
        (("--script", "/no/such", "{}"), "", "no such file or directory: /no/such"),
        (("--script", "/dev/zero", "{}"), "", "script has more bytes than the limit"),
        (("--script", "-", "{}", "ls"), "true", "--script stands in place of a command: ls"),
        (("{}", "--script"), "true", "option --script needs a file, or - for standard input"),
    ],
)
def test_what_is_no_script_is_refused(
    builda: Builda, container: str, words: tuple[str, ...], given: str, expected: str
) -> None:
    assert expected in builda.fails("run", *(word.format(container) for word in words), given=given)
