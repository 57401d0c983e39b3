"""`builda session`: what a script makes is gone when the script is, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import PROGRAM, Builda, clean_environ
from tests.support import needs
from tests.support.rootless import Rootless, rootless

SCRIPT = """\
set -e
c=$(builda from scratch)
m=$(builda mount $c)
echo hello > $m/file
builda commit -q $c > /dev/null
builda commit -q $c kept:1 > /dev/null
"""
SLEEP = f"sleep 600.{os.getpid()}"
"""A command that runs until it is killed, and that no other test run has."""


def sleeping() -> bool:
    """Whether such a command runs."""
    return subprocess.run(["pgrep", "-xf", SLEEP], stdout=subprocess.DEVNULL).returncode == 0


def until_sleeping(number: int = 1) -> str:
    """A line of a script that waits until so many such commands run."""
    return f'until [ "$(pgrep -xcf "{SLEEP}")" = {number} ]; do sleep 0.02; done'


def environ_of(builda: Builda) -> dict[str, str]:
    """The environment of a script that finds this `builda`."""
    path = f"{Path(PROGRAM).parent}:{os.environ['PATH']}"
    return {**clean_environ(), **builda.environ, "PATH": path}


def session(builda: Builda, script: str, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a bash script in a session."""
    command = [*builda.command, "session", *options, "bash", "-c", script]
    environ = {**environ_of(builda), **more}
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=240, stdin=subprocess.DEVNULL)


def started(builda: Builda, script: str, *options: str, until: Path) -> subprocess.Popen[bytes]:
    """A session that runs until the script has made a file."""
    command = [*builda.command, "session", *options, "bash", "-c", script]
    process = subprocess.Popen(command, env=environ_of(builda), stdout=subprocess.DEVNULL)
    while not until.exists():
        assert process.poll() is None
        time.sleep(0.02)
    return process


def until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait for a condition; AssertionError says `what` if it is not met."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def left(builda: Builda) -> list[str]:
    """What of sessions is in the store and the run root: containers, their names and trees, unnamed images, notes."""
    found = [
        str(path)
        for directory in ("containers", "names", "sessions", "leases", "mounts")
        for path in (builda.root / directory).glob("*")
    ]
    found += [str(path) for directory in ("s", "mounts") for path in (builda.runroot / directory).glob("*")]
    found += builda("images", "-q", "--filter", "dangling=true").split()
    return found + [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(builda.runroot) in line]


def names(builda: Builda) -> str:
    return builda("images", "--format", "{{.Name}}:{{.Tag}}")


@pytest.mark.root
def test_nothing_but_named_images_stays_of_a_script(builda: Builda) -> None:
    result = session(builda, f"{SCRIPT} builda containers -q; cat $m/file")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("\nhello\n")
    assert names(builda) == "localhost/kept:1"
    assert left(builda) == []


@pytest.mark.root
@pytest.mark.parametrize(
    ("end", "status"), [("exit 7", 7), ("false", 1), ("kill -9 $$", 137), ("exec sh -c 'exit 3'", 3)]
)
def test_the_status_is_the_scripts_and_nothing_stays(builda: Builda, end: str, status: int) -> None:
    assert session(builda, f"{SCRIPT}{end}").returncode == status
    assert left(builda) == []


@pytest.mark.root
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_ends_the_script_and_nothing_stays(
    builda: Builda, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    process = started(builda, f"{SCRIPT} : > {tmp_path}/there; exec sleep 60", until=tmp_path / "there")
    process.send_signal(number)
    assert process.wait(60) == status
    assert left(builda) == []


@pytest.mark.root
@pytest.mark.parametrize("verb", ["containers", "prune"])
def test_the_next_command_removes_what_a_killed_session_left(builda: Builda, tmp_path: Path, verb: str) -> None:
    script = f"{SCRIPT} (trap '' TERM; touch {tmp_path}/there; {SLEEP}) & {SLEEP}"
    process = started(builda, script, until=tmp_path / "there")
    process.kill()
    process.wait()
    assert builda(verb) in ("", builda("containers"))
    assert left(builda) == []
    assert not sleeping()


@pytest.mark.root
def test_a_script_that_kills_its_own_session_leaves_nothing(builda: Builda) -> None:
    assert session(builda, f"{SCRIPT} kill -9 $PPID; sleep 60").returncode == -signal.SIGKILL
    assert names(builda) == ""
    assert left(builda) == []


@pytest.mark.root
def test_keep_leaves_what_the_script_made(builda: Builda) -> None:
    assert session(builda, SCRIPT, "--keep").returncode == 0
    assert builda("containers", "--format", "{{.ContainerName}}") == "working-container"
    assert "<none>:<none>" in names(builda)
    builda("rm", "--all")
    builda("prune")
    assert left(builda) == []


def test_processes_that_a_script_leaves_are_ended_and_named(builda: Builda) -> None:
    result = session(builda, f"{SLEEP} & (trap '' TERM; exec setsid {SLEEP}) & {until_sleeping(2)}")
    assert result.returncode == 0
    assert result.stderr.startswith("warning: the script left processes running, which were ended: sleep (")
    assert not sleeping()


def test_a_child_from_before_the_session_lives_on(builda: Builda, tmp_path: Path) -> None:
    shell = f"(sleep 0.3; sleep 1.5; touch {tmp_path}/done) & exec {' '.join(builda.command)} session true"
    result = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, env=environ_of(builda), timeout=30)
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "done").exists()  # capture_output waited for it


def test_a_session_in_a_session_is_part_of_it(builda: Builda) -> None:
    inner = "builda session bash -c 'builda from --name inner scratch; exit 4'; echo $?; builda containers -q | wc -l"
    result = session(builda, inner)
    assert result.stdout.split() == ["inner", "4", "1"]
    assert left(builda) == []
    assert "the outer session" in session(builda, "builda session --keep true").stderr


def test_a_container_of_another_session_can_be_used_while_it_lives(builda: Builda, tmp_path: Path) -> None:
    script = f"builda from --name shared scratch; touch {tmp_path}/there; read _ < {tmp_path}/go; builda containers -q"
    os.mkfifo(tmp_path / "go")
    process = started(builda, script, until=tmp_path / "there")
    assert session(builda, "builda config --env A=b shared").returncode == 0
    assert builda("inspect", "--format", "{{.OCIv1.Config.Env}}", "shared") == "[A=b]"
    (tmp_path / "go").write_text("\n")
    assert process.wait(60) == 0
    assert left(builda) == []
    assert "container not known" in session(builda, "builda config --env A=b shared").stderr


def test_a_container_that_another_session_uses_stays_until_that_ends(builda: Builda, base: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    own = f"builda from --name shared {base}; touch {tmp_path}/there; read _ < {tmp_path}/go; exit 3"
    owner = started(builda, own, until=tmp_path / "there")
    other = f"builda run shared -- sh -c 'echo runs; read x; echo $x' | {{ read _; echo > {tmp_path}/go; cat; }}"
    reads, writes = os.pipe()
    used = subprocess.Popen(
        [*builda.command, "session", "bash", "-c", other],
        env=environ_of(builda),
        stdin=reads,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.close(reads)
    assert owner.wait(60) == 3  # with a warning: the container is running
    assert builda("containers", "--format", "{{.ContainerName}}") == "shared"
    os.write(writes, b"done\n")
    os.close(writes)
    assert (used.communicate(timeout=60)[0], used.returncode) == ("done\n", 0)
    builda("images")  # the next command removes it
    assert left(builda) == []


def test_a_command_behind_the_end_of_its_session_says_so(builda: Builda, tmp_path: Path) -> None:
    place = session(builda, "echo $BUILDA_SESSION; builda from scratch").stdout.split()[0]
    said = builda.fails("from", "scratch", BUILDA_SESSION=place)
    assert f"session has ended, and what it made is gone: {Path(place).name}" in said
    assert "unset BUILDA_SESSION" in said
    assert left(builda) == []


def test_another_store_is_not_part_of_the_session(builda: Builda, tmp_path: Path) -> None:
    other = f"--root {tmp_path}/other --runroot {builda.runroot}"
    assert session(builda, f"builda {other} from --name mine scratch").returncode == 0
    assert Builda(tmp_path / "other", builda.runroot)("containers", "--format", "{{.ContainerName}}") == "mine"


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (["no-such-command"], 127, "no such command: no-such-command"),
        (["build.sh"], 127, "hint: a file of this directory is written ./build.sh"),
        (["./build.sh"], 126, "chmod +x ./build.sh"),
        (["./plain"], 126, "begin it with #!/bin/bash"),
        (["./foreign"], 127, "the interpreter in the first line does not exist: ./foreign"),
        (["--no-such-option", "true"], 125, "--no-such-option"),
    ],
)
def test_a_script_that_cannot_be_started(
    builda: Builda, tmp_path: Path, command: list[str], status: int, words: str
) -> None:
    (tmp_path / "build.sh").write_text("#!/bin/sh\n")
    for name, text in (("plain", "true\n"), ("foreign", "#!/no/such/shell\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    assert words in builda.fails("session", *command, status=status, cwd=tmp_path)
    assert left(builda) == []


def test_a_script_may_close_its_descriptors_and_leave_its_directory(builda: Builda, tmp_path: Path) -> None:
    script = f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir ../gone; builda from scratch > /dev/null"
    result = session(builda, f"{script}; exec 0<&- 1>&- 2>&-; builda containers; builda from scratch; exit 5")
    assert (result.returncode, result.stderr) == (5, "")
    assert left(builda) == []


def test_a_long_run_root_is_no_obstacle(builda: Builda, tmp_path: Path) -> None:
    long = Builda(builda.root, tmp_path / ("long-" * 30) / ("path-" * 30))
    assert session(long, "builda from scratch").stdout == "working-container\n"
    assert left(long) == []


@pytest.fixture
def user() -> Iterator[Rootless]:
    with rootless() as made:
        yield made


@pytest.mark.root
@needs.program("newuidmap")
def test_a_user_writes_below_a_mount_in_a_session_only(user: Rootless, tmp_path: Path) -> None:
    script = user.home / "script"
    builda = " ".join(user.command[user.command.index("--inh-caps=-all") + 1 :])
    script.write_text(f'#!/bin/bash\nbuilda() {{ {builda} "$@"; }}\n{SCRIPT} chown 33:33 $m/file; id -u; ls -n $m\n')
    script.chmod(0o755)
    said = user("session", script)
    assert said.startswith("0\n")
    assert "1 33 33 6 " in said
    assert user("images", "--format", "{{.Name}}:{{.Tag}}") == "localhost/kept:1"
    assert user("containers", "-q") == ""
    container = user("from", "scratch")
    assert "only inside builda session" in user.fails("mount", container)


@pytest.mark.root
@pytest.mark.parametrize("mode", ["auto", "chroot"])
@pytest.mark.parametrize("end", ["true", "kill -9 $PPID; sleep 9"])
def test_mounts_of_images_end_with_the_session(builda: Builda, mode: str, end: str) -> None:
    environ = {"BUILDA_MODE": mode}
    made = "set -e; cd $(mktemp -d); echo hello > file; c=$(builda from scratch); builda copy -q $c file /"
    assert session(builda, f"{made}; builda commit -q $c kept:1", **environ).returncode == 0
    script = "builda image mount kept:1 > /dev/null; test -f $(builda image mount kept:1)/file && echo there"
    result = session(builda, f"{script}; {end}", **environ)
    assert result.stdout == "there\n", result.stderr
    builda("containers", **environ)
    assert [*(builda.root / "mounts").glob("*"), *(builda.runroot / "mounts").glob("*")] == []
    assert builda("image", "mount", **environ) == ""
    builda("rmi", "kept:1", **environ)
    builda("prune", **environ)
    assert [*(builda.root / "snapshots").glob("*")] == []
    assert left(builda) == []


@pytest.mark.root
def test_what_the_machine_allows_is_known_in_a_session_before_its_first_command(builda: Builda) -> None:
    remembered = builda.runroot / f"abilities-{os.geteuid()}"
    for _ in range(5):  # more than are remembered
        counted = session(builda, f'grep -cF "$(readlink /proc/self/ns/mnt)" {remembered}')
        assert counted.stdout == "1\n"
        assert os.readlink("/proc/self/ns/mnt") in remembered.read_text()
