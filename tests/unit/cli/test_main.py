"""How errors and ends look from outside, without a store."""

from __future__ import annotations

import pytest

from builda.cli.core.reports import report_of
from builda.cli.main import BROKEN_PIPE, INTERRUPTED, each, status_of
from builda.errors import BuildaError, CommandFailed, ContainerfileError, NotFound, StepFailed


def test_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(["--version"]) == 0
    assert capsys.readouterr().out.startswith("builda version ")
    assert status_of(["--root", "/nowhere", "--version"]) == 0
    assert "image-spec" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (["--bogus"], "unknown flag: --bogus", "see builda --help"),
        (["bogus"], "unknown command: bogus", "builda --help lists the commands"),
        (["imags"], "unknown command: imags", "did you mean images?"),
        (["from"], "missing argument: IMAGE", "see builda from --help"),
        (["version", "x"], "got unexpected extra argument (x)", "see builda version --help"),
        (["from", "--shm-size", "huge", "x"], "not a size: huge", "write a number with b, k, m or g"),
        (["images", "--root"], "flag needs an argument: --root", "see builda images --help"),
        (["--log-level=loud", "info"], "unknown log level: loud", None),
    ],
)
def test_a_usage_error_ends_with_125_and_a_way_out(
    args: list[str], message: str, hint: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(args) == 125
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[0] == f"Error: {message}"
    if hint is not None:
        assert said.err.splitlines()[1] == f"hint: {hint}"


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"], ["run", "--help"], ["from", "-h"]])
def test_help_goes_to_stdout(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(args) == 0
    said = capsys.readouterr()
    assert "Usage: builda" in said.out
    assert said.err == ""


def test_an_error_in_a_containerfile_shows_the_place() -> None:
    error = ContainerfileError("unknown instruction: RUNN", file="a/Containerfile", line=3, excerpt="RUNN x\n^")
    assert report_of(error) == "Error: a/Containerfile:3: unknown instruction: RUNN\nRUNN x\n^\n"


def test_a_failed_step_has_the_status_of_its_cause() -> None:
    error = StepFailed("step failed", cause=CommandFailed("it ended with 7", status=7, hint="look"))
    assert error.exit_status == 7
    assert report_of(error) == "Error: step failed\nhint: look\n"


def test_each_goes_on_after_a_failure_and_raises_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    done: list[int] = []

    def act(item: int) -> None:
        if item < 3:
            raise NotFound(f"no such thing: {item}")
        done.append(item)

    with pytest.raises(BuildaError, match="no such thing: 2"):
        each([1, 3, 2, 4], act)
    assert done == [3, 4]
    assert capsys.readouterr().err == "Error: no such thing: 1\n"


def test_statuses_of_signals_are_the_shells() -> None:
    assert (INTERRUPTED, BROKEN_PIPE) == (130, 141)
