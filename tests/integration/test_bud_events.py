"""The events of a build as lines of JSON, and their documentation."""

from __future__ import annotations

import json
import os
import re
import subprocess
import typing
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from builda import events
from tests.conftest import Builda, clean_environ

DOCUMENT = Path(__file__).parents[2] / "docs/events.md"

Watched = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def watched(builda: Builda, base: str, tmp_path: Path) -> Watched:
    """Builds a Containerfile of this text: the exit status and the events. BASE is a busybox image."""
    context = tmp_path / "c"
    context.mkdir()

    def run(text: str, *args: str) -> tuple[int, list[dict[str, Any]]]:
        (context / "Containerfile").write_text(text.replace("BASE", base))
        path = tmp_path / "events"
        with path.open("wb") as file:
            command = [*builda.command, "--events", str(file.fileno()), "bud", *args, str(context)]
            done = subprocess.run(command, pass_fds=[file.fileno()], capture_output=True, env=clean_environ())
        return done.returncode, [json.loads(line) for line in path.read_text().splitlines()]

    return run


def of(kind: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in found if event["event"] == kind]


@pytest.mark.root
def test_a_build_tells_of_its_steps_layers_and_image(builda: Builda, watched: Watched, tmp_path: Path) -> None:
    text = "FROM BASE AS first\nRUN echo hello > /f; echo out; echo err >&2\nFROM first\nENV A=b\n"
    status, found = watched(text, "-t", "made", "-t", "other:2")
    assert status == 0
    started = of("step_started", found)
    file = f"{tmp_path}/c/Containerfile"
    assert [(e["stage"], e["stage_name"], e["index"], e["total"], e["file"], e["line"]) for e in started] == [
        ("1/2", "first", 1, 2, file, 1),
        ("1/2", "first", 2, 2, file, 2),
        ("2/2", None, 1, 2, file, 3),
        ("2/2", None, 2, 2, file, 4),
    ]
    finished = of("step_finished", found)
    assert [(e["stage"], e["index"], e["line"], e["cached"], e["pending"]) for e in finished] == [
        ("1/2", 1, 1, True, False),
        ("1/2", 2, 2, False, True),
        ("2/2", 1, 3, True, False),
        ("2/2", 2, 4, False, False),
    ]
    assert 0 < finished[1]["seconds"] < 60
    (layer,) = of("layer_stored", found)
    assert (layer["stage"], layer["index"]) == ("1/2", 2)
    blob = builda.root / "blobs/sha256" / layer["digest"].removeprefix("sha256:")
    assert blob.stat().st_size == layer["bytes"]
    assert {e["stream"]: e["data"] for e in of("command_output", found)} == {"stdout": "out\n", "stderr": "err\n"}
    last = found[-1]
    assert last["event"] == "image_built"
    assert last["names"] == ["localhost/made:latest", "localhost/other:2"]
    assert last["id"] == builda("images", "--no-trunc", "-q", "made")
    times = [event["time"] for event in found]
    assert times == sorted(times)

    _, again = watched(text)
    cached = of("step_finished", again)[1]
    assert (cached["cached"], cached["digest"], cached["bytes"]) == (True, layer["digest"], layer["bytes"])
    assert again[-1]["cached"]


@pytest.mark.root
def test_a_build_says_first_what_it_has_to_do(watched: Watched) -> None:
    _, found = watched("FROM BASE AS unused\nRUN false\nFROM BASE AS used\nENV A=1\nFROM used\nENV B=1\nENV C=1\n")
    begun = of("build_started", found)
    assert [(event["stages"], event["steps"], event["platform"]) for event in begun] == [(2, 5, None)]
    first_step = of("step_started", found)[0]
    assert found.index(begun[0]) < found.index(first_step)


@pytest.mark.root
def test_a_step_that_fails_says_so_at_once_and_those_beside_it_are_stopped(watched: Watched) -> None:
    text = "FROM BASE AS a\nRUN exit 7\nFROM BASE AS b\nRUN sleep 2\nRUN true\nFROM a\nCOPY --from=b /etc /b\n"
    _, found = watched(text, "--jobs", "2", "--no-cache")
    failures = of("step_failure", found)
    assert (failures[0]["stage"], failures[0]["index"], failures[0]["line"]) == ("1/3", 2, 2)
    assert "command failed with exit status 7" in failures[0]["message"]
    assert all(failure["message"] is None for failure in failures[1:])
    assert found.index(failures[0]) < found.index(of("build_failed", found)[0])


@pytest.mark.root
def test_a_failure_is_the_last_event(watched: Watched, tmp_path: Path) -> None:
    status, found = watched("FROM BASE\nRUN exit 7\n")
    last = found[-1]
    assert (status, last["event"], last["status"]) == (7, "build_failed", 7)
    assert (last["file"], last["line"]) == (f"{tmp_path}/c/Containerfile", 2)
    assert last["message"] == "command failed with exit status 7: RUN exit 7"
    status, found = watched("FROM BASE\nRUM x\n")
    assert (status, [event["event"] for event in found]) == (125, ["build_failed"])
    assert (found[0]["line"], found[0]["hint"]) == (2, "did you mean RUN?")


@pytest.mark.root
def test_warnings_have_their_check_and_place(watched: Watched) -> None:
    _, found = watched("FROM BASE\nMAINTAINER me\n")
    (warning,) = of("warned", found)
    assert (warning["check"], warning["line"]) == ("MaintainerDeprecated", 2)


@pytest.mark.root
def test_commands_do_not_inherit_the_descriptor(watched: Watched) -> None:
    _, found = watched("FROM BASE\nRUN ls -l /proc/self/fd\n")
    said = "".join(event["data"] for event in of("command_output", found))
    assert " 1 -> " in said
    assert "events" not in said


@pytest.mark.root
def test_a_descriptor_that_is_not_open_is_refused(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text(f"FROM {base}\n")
    said = builda.fails("--events", "77", "bud", tmp_path)
    assert "descriptor of --events is not open: 77\nhint: open one in the shell" in said
    assert "--events names no descriptor that is open for writing: 0" in builda.fails(
        "--events", "0", "bud", tmp_path, given="x"
    )


@pytest.mark.root
def test_a_reader_that_goes_away_does_not_end_the_build(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text(f"FROM {base}\nRUN true\n")
    reader, writer = os.pipe()
    os.close(reader)
    command = [*builda.command, "--events", str(writer), "bud", "-q", str(tmp_path)]
    done = subprocess.run(command, pass_fds=[writer], capture_output=True, env=clean_environ())
    os.close(writer)
    assert done.returncode == 0


def test_every_event_and_member_is_documented() -> None:
    documented = {}
    for section in re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)[1:]:
        names = [cell for row in re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE) for cell in row.split(", ")]
        documented[section.split("`")[1]] = {name.strip("`") for name in names}
    kinds = {
        re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower(): {field.name for field in fields(kind)}
        for kind in typing.get_args(events.Event)
    }
    assert documented == kinds
