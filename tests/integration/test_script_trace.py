"""`script trace`, `session --trace` and `session --report`: what a script's commands did, and how long it took."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Builda
from tests.integration.test_bud_report import Page
from tests.integration.test_session import environ_of, session, started
from tests.support.registry import Registry

pytestmark = pytest.mark.root

SCRIPT = """\
set -e
c=$(builda from localhost/busybox)
builda run $c -- sh -c 'echo printed; echo "<b>told</b>" >&2; head -c 5000 /dev/zero > /five'
builda config --env API_TOKEN=opensesame --label a=b $c
builda commit -q $c made:1
"""


def traced(builda: Builda, tmp_path: Path, script: str, *options: str, status: int = 0) -> dict[str, Any]:
    """The trace of a session, as JSON."""
    file = tmp_path / "trace.json"
    result = session(builda, script, "--trace", str(file), *options)
    assert result.returncode == status, result.stderr
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def report(builda: Builda, tmp_path: Path, script: str, *, status: int = 0) -> Page:
    file = tmp_path / "report.html"
    result = session(builda, script, "--report", str(file))
    assert result.returncode == status, result.stderr
    return Page(file.read_text())


def test_each_command_has_its_times_status_bytes_and_words(builda: Builda, base: str, tmp_path: Path) -> None:
    found = traced(builda, tmp_path, f"{SCRIPT} builda run $c false || builda nonsense || true")
    verbs = found["commands"]
    assert [verb["arguments"][0] for verb in verbs] == ["from", "run", "config", "commit", "run", "nonsense"]
    assert [verb["status"] for verb in verbs] == [0, 0, 0, 0, 1, 125]
    starts = [verb["start"] for verb in verbs]
    assert starts == sorted(starts)
    assert all(0 < verb["seconds"] < found["seconds"] for verb in verbs)
    assert verbs[3]["bytes_written"] > 0
    assert [verb["cached"] for verb in verbs] == [None, False, None, None, False, None]
    again = traced(builda, tmp_path, SCRIPT)["commands"]
    assert [verb["cached"] for verb in again] == [None, True, None, None]
    assert verbs[1]["reason"] == "no result is remembered"
    assert again[1]["reason"] is None
    assert "unknown command: nonsense" in verbs[5]["error"]
    assert (found["status"], found["script"][0]) == (0, "bash")


def test_secrets_are_masked(builda: Builda, base: str, tmp_path: Path) -> None:
    script = (
        f"{SCRIPT} builda login --password sesame-2 -u me 127.0.0.1:1 || builda pull https://me:sesame-3@host/x || true"
    )
    text = json.dumps(traced(builda, tmp_path, script))
    assert "API_TOKEN=***" in text
    assert "sesame" not in text


def test_a_session_that_is_not_traced_writes_nothing(builda: Builda, base: str, tmp_path: Path) -> None:
    result = session(builda, "ls $BUILDA_SESSION")
    assert "trace" not in result.stdout.split()


def test_what_pushes_moved_is_told_when_they_are_performed(
    builda: Builda, base: str, server: Registry, tmp_path: Path
) -> None:
    name = server.name("traced:1")
    script = f"{SCRIPT} builda push --tls-verify=false made:1 docker://{name}; builda images >/dev/null"
    verbs = traced(builda, tmp_path, script)["commands"]
    assert [verb["arguments"][0] for verb in verbs][-3:] == ["push", "images", "push"]
    noted, performed = verbs[-3], verbs[-1]
    assert (noted["put_off"], noted["bytes_transferred"]) == (False, 0)
    assert performed["put_off"]
    assert performed["bytes_transferred"] > 1000


def test_a_command_that_is_killed_is_told(builda: Builda, base: str, tmp_path: Path) -> None:
    script = f"""
    c=$(builda from {base})
    builda run $c -- sh -c 'echo up; sleep 60' > {tmp_path}/out & p=$!
    while ! grep -q up {tmp_path}/out; do :; done
    kill -9 $p
    wait $p || exit 7
    """
    verb = traced(builda, tmp_path, script, status=7)["commands"][-1]
    assert verb["status"] not in (0, None)
    assert verb["seconds"] > 0


def test_a_command_that_starts_by_itself_is_told(builda: Builda, base: str, tmp_path: Path) -> None:
    verbs = traced(builda, tmp_path, "PYTHONHASHSEED=1 builda images > /dev/null; setsid builda info > /dev/null")
    assert [verb["arguments"] for verb in verbs["commands"]] == [["images"], ["info"]]


def test_the_trace_of_a_killed_session_is_written_by_the_next_command(
    builda: Builda, base: str, tmp_path: Path
) -> None:
    there, file = tmp_path / "there", tmp_path / "trace.json"
    process = started(builda, f"{SCRIPT} touch {there}; sleep 60", "--trace", str(file), until=there)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not file.exists()
    builda("images")
    found = json.loads(file.read_text())
    assert found["status"] is None
    assert [verb["arguments"][0] for verb in found["commands"]] == ["from", "run", "config", "commit"]


@pytest.mark.parametrize(("name", "start"), [("t", "START "), ("t.json", "{"), ("t.HTML", "<!doctype html>")])
def test_the_name_of_the_file_says_the_form(builda: Builda, base: str, tmp_path: Path, name: str, start: str) -> None:
    assert session(builda, "builda images", "--trace", str(tmp_path / name)).returncode == 0
    assert (tmp_path / name).read_text().startswith(start)


def test_script_trace_tells_on_standard_error_and_ends_as_the_script(builda: Builda, base: str) -> None:
    command = [*builda.command, "script", "trace", "bash", "-c", f"{SCRIPT} exit 3"]
    result = subprocess.run(command, capture_output=True, text=True, env=environ_of(builda), timeout=60)
    assert result.returncode == 3
    assert result.stdout.startswith("printed\n")
    lines = result.stderr.splitlines()
    assert lines[-1].startswith("4 commands in ")
    assert lines[-1].endswith("ended with status 3")
    assert "not cached" in lines[-2]
    assert "commit -q busybox-working-container made:1" in lines[-2]


def test_commands_that_ran_at_once_are_in_different_rows_of_the_page(builda: Builda, base: str, tmp_path: Path) -> None:
    script = f"""
    set -e
    c=$(builda from {base}) d=$(builda from {base})
    mkfifo {tmp_path}/a {tmp_path}/b
    builda run -v {tmp_path}:/f $c -- sh -c 'echo > /f/a; read x < /f/b' &
    builda run -v {tmp_path}:/f $d -- sh -c 'read x < /f/a; echo > /f/b'
    wait
    """
    page = report(builda, tmp_path, script)
    assert "one after the other" in page.text
    assert "at the same time" in page.text


def test_what_a_command_waited_for_is_told(builda: Builda, base: str, tmp_path: Path) -> None:
    script = f"""
    set -e
    c=$(builda from {base})
    mkfifo {tmp_path}/a {tmp_path}/b
    builda run -v {tmp_path}:/f $c -- sh -c 'echo > /f/a; read x < /f/b' &
    read _ < {tmp_path}/a
    inode=$(stat -c %i {builda.root}/containers/*/tree.lock)
    waiting() {{ sed -n "s/.*-> FLOCK .* \\([0-9]*\\) [^ ]*:$inode .*/\\1/p" /proc/locks; }}
    builda run $c -- true &
    until [ "$(waiting)" ]; do sleep 0.02; done
    sleep 0.05
    kill -9 $(waiting)
    wait $! || [ $? = 137 ]
    builda run $c -- true &
    until [ "$(waiting)" ]; do sleep 0.02; done
    sleep 0.05
    echo > {tmp_path}/b
    wait
    """
    page = tmp_path / "page.html"
    waited = traced(builda, tmp_path, script, "--report", str(page))
    first, killed, last = waited["commands"][1:]
    assert (killed["status"], last["status"]) == (-9, 0)
    waits = [*killed["waits"], *last["waits"]]
    assert len(waits) == 2
    for wait in waits:
        assert (wait["what"], wait["command"]) == ("container busybox-working-container", 2)
        assert wait["start"] > first["start"]
        assert wait["seconds"] >= 0.05
    text = f"waited {waits[1]['seconds']:.2f} s for container busybox-working-container, used by command 2"
    alike = sum(f"{wait['seconds']:.2f}" == f"{waits[1]['seconds']:.2f}" for wait in waits)
    assert Page(page.read_text()).attributes["title"].count(text) == alike
    assert text in Page(page.read_text()).text
    assert waited["commands"][0]["waits"] == []


def test_the_page_has_output_layers_and_their_files(builda: Builda, base: str, tmp_path: Path) -> None:
    page = report(builda, tmp_path, SCRIPT)
    assert "succeeded" in page.text
    assert "printed" in page.text
    assert "<b>told</b>" in page.text
    assert "localhost/made:1, " in page.text
    assert "/five" in page.text
    assert page.tags.count("a") == 4
    assert page.tags.count("script") == 1
    assert not {"src", "link", "import"} & {*page.attributes, *page.tags}
    assert all(target.startswith("#") for target in page.attributes["href"])


def test_a_build_in_a_session_shows_its_steps(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text(f"FROM {base}\nRUN echo from-the-build\n")
    page = report(builda, tmp_path, f"builda bud {tmp_path}; builda bud {tmp_path}; exit 4", status=4)
    assert "failed" in page.text
    assert "from-the-build" in page.text
    assert "2/2 RUN echo from-the-build: remembered" in page.text
    assert "1 remembered" in page.text


def test_a_report_changes_nothing_of_what_commands_print(builda: Builda, base: str, tmp_path: Path) -> None:
    script = f"{SCRIPT} echo given | builda run $c cat; builda run $c sh -c 'echo 1; echo 2 >&2; echo 3' 2>&1 | cat"
    plain = session(builda, script, "--no-cache")
    told = session(builda, script, "--no-cache", "--report", str(tmp_path / "r.html"))
    assert told.stdout.splitlines()[2:] == plain.stdout.splitlines()[2:] == ["given", "1", "2", "3"]
    assert told.stderr == plain.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--trace", "/no/such/dir/t"), "no such file or directory: /no/such/dir/t"),
        (("--report", "/"), "file to write is a directory: /"),
    ],
)
def test_files_that_cannot_be_written_are_refused_first(
    builda: Builda, base: str, options: tuple[str, str], said: str
) -> None:
    result = session(builda, "echo ran", *options)
    assert (result.returncode, result.stdout) == (125, "")
    assert said in result.stderr


def test_a_session_inside_takes_no_trace(builda: Builda, base: str) -> None:
    result = session(builda, "builda session --trace /dev/null true")
    assert "belongs on the outer session" in result.stderr
    assert result.returncode == 125


def test_only_the_newest_output_of_a_command_is_kept(builda: Builda, base: str, tmp_path: Path) -> None:
    script = f"c=$(builda from {base}); builda run $c -- sh -c 'seq 1 150000; echo the-end' > /dev/null"
    page = report(builda, tmp_path, script)
    assert "the-end" in page.text
    assert "bytes of output before this are not kept" in page.text
    assert len(page.text) < 400_000
