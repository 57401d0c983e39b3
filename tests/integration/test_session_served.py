"""Commands in a session are served by its warm process, and behave as if they had been started by themselves."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import Builda
from tests.integration.test_session import SLEEP, environ_of, left, session, sleeping, until_sleeping

pytestmark = pytest.mark.root

ALIKE = {
    "status": "$B run $c sh -c 'exit 7'",
    "streams": "echo given | $B run $c sh -c 'cat; echo wrong >&2'",
    "error": "$B nosuch",
    "umask": "umask 027; $B run $c sh -c umask",
    "limit": "ulimit -n 100; $B run $c sh -c 'ulimit -n'",
    "priority": "nice -n 5 $B run $c cut -d ' ' -f 19 /proc/self/stat",
    "events": "$B --events 7 from scratch 7>&1 > /dev/null | wc -l",
    "substitution": "$B commit -q --iidfile /dev/fd/9 $c 9>&1 > /dev/null | wc -c",
    "no-input": "exec <&-; $B images -q",
    "no-directory": "mkdir gone; cd gone; rmdir ../gone; $B images -q; $B copy $c file /",
    "locale": "LC_ALL=C $B images -q; LC_ALL=de_DE.ISO-8859-1 $B images -q",
    "variables": "export HTTP_PROXY=http://p:1; $B run $c sh -c 'echo $HTTP_PROXY $BUILDA_SESSION'",
    "namespace": "unshare -n $B images -q",
    "group": "setsid -w $B images -q",
    "pipe": "rm -f pipe; mkfifo pipe; exec 8<>pipe 7>pipe 8<&-; $B images >&7",
    "ignored-pipe": "trap '' PIPE; rm -f pipe; mkfifo pipe; exec 8<>pipe 7>pipe 8<&-; $B images >&7",
    "signal": "$B run $c sh -c 'kill -TERM $$'",
    "ignored": "trap '' INT HUP; $B run $c sh -c 'trap; grep SigIgn /proc/self/status'",
    "score": "echo 300 > /proc/$BASHPID/oom_score_adj; $B run $c cat /proc/self/oom_score_adj",
    "cgroup": "(mkdir $G; echo $BASHPID > $G/cgroup.procs) 2>&-; $B run $c cat /proc/self/cgroup",
    "descriptors": "for n in $(seq 20 240); do eval exec $n\\< /dev/null; done; $B images -q",
    "long": "$B config --label long=$(head -c 100000 /dev/zero | tr '\\0' x) $c; $B inspect $c | wc -c",
    "bytes": "$B from --name $'n\\xff' scratch; $B config --label l=$'\\xff\\xfe' $c",
    "directory": "mkdir -p d/e; cd d; $B copy -q $c . /here; $B run $c ls /here",
}


def test_a_served_command_behaves_as_a_started_one(builda: Builda, base: str, tmp_path: Path) -> None:
    script = [f"c=$(builda from --pull=never {base}) || exit; cd {tmp_path}"]
    for name, snippet in ALIKE.items():
        for way, program in (("served", "builda"), ("started", "env PYTHONHASHSEED=0 builda")):
            script.append(f"(B='{program}'; {snippet}) > {name}.{way} 2>&1; echo $? >> {name}.{way}")
    group = f"/sys/fs/cgroup/builda-test-{os.getpid()}"
    result = session(builda, "\n".join([*script, f"rmdir {group} 2> /dev/null || true"]), G=group)
    assert (result.returncode, result.stderr) == (0, "")
    for name in ALIKE:
        assert (tmp_path / f"{name}.served").read_text() == (tmp_path / f"{name}.started").read_text(), name
    assert (tmp_path / "variables.served").read_text() == "http://p:1\n0\n"
    assert left(builda) == []


def test_commands_are_children_of_the_sessions_process(builda: Builda, base: str) -> None:
    script = f"c=$(builda from {base}); builda run $c {SLEEP} & {until_sleeping()}; pgrep -P $PPID | wc -l"
    result = session(builda, script)
    assert result.stdout in ("2\n", "3\n")  # the script, its command, and the process that waits for the next one
    assert "the script left processes running" in result.stderr
    assert not sleeping()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_ends_with_its_client(builda: Builda, base: str, number: signal.Signals) -> None:
    script = f"c=$(builda from {base}); builda run $c {SLEEP} & {until_sleeping()}; kill -{number} $!; wait $!; echo $?"
    result = session(builda, f"{script}; {until_sleeping(0)}")
    assert result.stdout.splitlines() == [str(128 + number)]
    assert left(builda) == []


def test_a_command_whose_process_is_killed_ends_so(builda: Builda, base: str) -> None:
    script = f"c=$(builda from {base}); builda run $c {SLEEP} & {until_sleeping()}"
    kill = "for p in $(pgrep -P $PPID); do [ $p = $$ ] || kill -9 $p; done"
    assert session(builda, f"{script}; {kill}; wait $!; echo $?").stdout == "137\n"


def test_where_memory_lacks_the_process_that_waits_for_a_command_ends_first(builda: Builda) -> None:
    waiting = "$(pgrep -P $PPID | grep -vx $$)"
    script = f"builda from scratch > /dev/null; until grep -x 1000 /proc/{waiting}/oom_score_adj; do sleep 0.01; done"
    result = session(builda, f"{script} 2> /dev/null; builda containers -q")
    assert (result.returncode, len(result.stdout.split()), result.stderr) == (0, 2, "")


@pytest.mark.parametrize("number", ["KILL", "STOP", "TERM", "INT"])
def test_a_signal_to_the_process_that_waits_for_a_command_harms_no_command(builda: Builda, number: str) -> None:
    send = f"for p in $(pgrep -P $PPID); do [ $p = $$ ] || kill -{number} $p 2> /dev/null; done"
    script = f"for i in 1 2 3 4 5 6; do builda from scratch > /dev/null || exit; {send}; done; builda containers -q"
    result = session(builda, script)
    assert (result.returncode, len(result.stdout.split()), result.stderr) == (0, 6, "")
    assert left(builda) == []


@pytest.mark.parametrize("number", ["KILL", "STOP"])
def test_a_process_that_is_given_a_client_but_never_answers_is_not_the_scripts(builda: Builda, number: str) -> None:
    # while the session's process is stopped it cannot learn that the waiting process was: it gives that one the client
    hold = "kill -STOP $PPID; until grep -q '^State:.T' /proc/$PPID/status; do sleep 0.01; done"
    waiting = f"until {hold}; w=$(pgrep -P $PPID | grep -vx $$); do kill -CONT $PPID; sleep 0.02; done"
    asked = f"kill -{number} $w; builda containers -q & sleep 0.2; kill -CONT $PPID; wait $!"
    result = session(builda, f"builda from scratch > /dev/null; sleep 0.3; {waiting}; {asked}")
    assert (result.returncode, len(result.stdout.split()), result.stderr) == (0, 1, "")
    assert left(builda) == []


def test_a_command_that_goes_on_without_its_client_is_not_the_scripts(builda: Builda, base: str) -> None:
    run = f"c=$(builda from {base}); builda run $c {SLEEP} & {until_sleeping()}"
    served = "for p in $(pgrep -P $PPID); do [ $p = $$ ] || kill -STOP $p; done"
    result = session(builda, f"{run}; {served}; kill -KILL $!; wait $! 2> /dev/null; true")
    assert (result.returncode, result.stderr) == (0, f"Error: command was ended by signal 15 (SIGTERM): {SLEEP}\n")
    assert not sleeping()
    assert left(builda) == []


def test_many_commands_at_once(builda: Builda) -> None:
    script = (
        "for i in $(seq 40); do builda from --name c$i scratch > /dev/null & done; wait; builda containers -q | wc -l"
    )
    result = session(builda, script)
    assert (result.stdout, result.stderr) == ("40\n", "")
    assert left(builda) == []


def test_without_descriptors_clients_wait_or_start_by_themselves(builda: Builda) -> None:
    script = "for i in $(seq 20); do builda from scratch > /dev/null & done; wait; builda containers -q | wc -l"
    command = f"ulimit -n 24; exec {' '.join(builda.command)} session bash -c '{script}'"
    result = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environ_of(builda), timeout=240
    )
    assert (result.stdout, result.stderr) == ("20\n", "")


@pytest.mark.parametrize("limit", [16, 20])
def test_a_warm_process_that_can_open_nothing_more_serves_on(builda: Builda, limit: int) -> None:
    script = "sleep 0.7; builda from scratch > /dev/null; builda containers -q | wc -l"  # time to import in advance
    command = f"ulimit -n {limit}; exec {' '.join(builda.command)} session bash -c '{script}'"
    result = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environ_of(builda), timeout=240
    )
    assert (result.returncode, result.stdout) == (0, "1\n"), result.stderr


def test_a_stopped_client_goes_on_when_it_is_continued(builda: Builda, base: str) -> None:
    script = f"c=$(builda from {base}); builda run $c sleep 1 & sleep 0.2; kill -STOP $!; sleep 1.5; kill -CONT $!"
    assert session(builda, f"{script}; wait $!; echo $?").stdout == "0\n"


def test_another_builda_starts_by_itself_and_belongs_to_the_session(builda: Builda, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "builda").symlink_to(Path(__file__).parents[2] / "builda")
    code = "import sys; sys.dont_write_bytecode = True; from builda.cli.main import main; main()"
    script = f"cd {other}; $(head -1 $(which builda) | cut -c 3- | cut -d ' ' -f 1) -c '{code}' from --name o scratch"
    result = session(builda, f"{script}; builda containers --format '{{{{.ContainerName}}}}'")
    assert result.stdout.split() == ["o", "o"], result.stderr
    assert left(builda) == []


def test_the_terminals_interrupt_reaches_a_command_once(builda: Builda, base: str) -> None:
    script = f"c=$(builda from {base}); builda run $c sh -c 'echo ready; sleep 60'; echo status $?"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(builda.command[0], [*builda.command, "session", "bash", "-c", script], environ_of(builda))
    output = b""
    sent = False
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and select.select([terminal], [], [], 60)[0]:
        try:
            output += os.read(terminal, 4096)
        except OSError:  # the last process of the terminal has ended
            break
        if b"ready" in output and not sent:
            sent = True
            os.write(terminal, b"\x03")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, 130)
    os.close(terminal)
    assert b"signal 2" in output
    assert b"Traceback" not in output
    assert left(builda) == []
