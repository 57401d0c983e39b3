"""`builda.session()`: what a Python script makes is gone when its block is left. Names count if no error left it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import builda as api
from builda import CommitOptions, Copy, FromOptions, Inputs, PullOptions, PushOptions, RegistryAccess, Run, edits
from builda.errors import CommandFailed, InvalidValue
from tests.conftest import PROGRAM, Builda, clean_environ
from tests.integration.test_session import environ_of, left, names, session, started
from tests.support import needs
from tests.support.registry import Registry
from tests.support.rootless import as_user, interpreter, rootless

pytestmark = pytest.mark.root
OPEN = "builda.session(mode=None)"


@pytest.fixture
def variables(builda: Builda, base: str) -> dict[str, str]:
    """The environment in which the store of `builda` is the one that is meant."""
    return {**clean_environ(), "BUILDA_ROOT": str(builda.root), "BUILDA_RUNROOT": str(builda.runroot)}


def made(builda: Builda) -> list[str]:
    """The names in the store, but that of the base."""
    return [name for name in names(builda).splitlines() if name.startswith(("localhost/made", "localhost/other"))]


def pushed(server: Registry) -> list[str]:
    """The repositories of a registry."""
    with urllib.request.urlopen(f"http://{server.name('')}".rstrip("/") + "/v2/_catalog") as answer:
        found: list[str] = json.load(answer)["repositories"]
    return found


def started_python(variables: dict[str, str], script: str, there: Path) -> subprocess.Popen[bytes]:
    """A Python process that runs until its script has made a file."""
    process = subprocess.Popen([sys.executable, "-c", script], env=variables, stderr=subprocess.DEVNULL)
    while not there.exists():
        assert process.poll() is None
    return process


def test_a_script_leaves_nothing_but_its_image(
    builda: Builda, base: str, variables: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("content")
    with api.session(environ=variables) as s:
        container = s.from_(base)
        s.run(container, "sh", "-c", "echo made > /made")
        s.run(container, Run(args=("test", "-e", "/made")))
        s.copy(container, tmp_path / "file", "/copied")
        s.copy(container, Copy(sources=("file",), destination="/srv/"), inputs=Inputs(context=tmp_path))
        s.config(container, edits.SetEnv("A", "b"))
        (s.mount(container) / "mounted").write_text("here")
        image = s.commit(container, "made:1")
        s.tag(image, "made:2", "other")
        assert made(builda) == []
        assert s.builder.store.image("made:1").id == image.id
    assert sorted(made(builda)) == ["localhost/made:1", "localhost/made:2", "localhost/other:latest"]
    assert left(builda) == []
    container_ = builda("from", "made:2")
    assert builda("run", container_, "cat", "/made", "/copied", "/srv/file", "/mounted").split() == [
        "made",
        "contentcontenthere",
    ]


def test_steps_are_looked_up_as_in_a_script(
    base: str, variables: dict[str, str], tmp_path: Path, server: Registry
) -> None:
    cache = api.CacheChoice(targets=(server.name("steps"),))
    plain = FromOptions(pull=PullOptions(access=RegistryAccess(tls_verify=False)))

    def step() -> str:
        file = tmp_path / "file"
        with api.session(environ=variables, cache=cache) as s:
            container = s.from_(base, plain)
            s.copy(container, file, "/copied")
            s.run(container, "sh", "-c", "cat /copied /proc/sys/kernel/random/uuid > /made")
            made = (s.mount(container) / "made").read_text()
            s.umount(container)
            s.commit(container, "made:1")
        return made

    (tmp_path / "file").write_text("one")
    first = step()
    assert step() == first
    assert "steps" in pushed(server)
    (tmp_path / "file").write_text("two")
    assert step() != first


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_drops_everything(
    builda: Builda, base: str, variables: dict[str, str], error: type[BaseException]
) -> None:
    def script() -> None:
        with api.session(environ=variables) as s:
            container = s.from_(base)
            s.mount(container)
            s.commit(container, "made:1")
            raise error

    with pytest.raises(error):
        script()
    assert made(builda) == []
    assert left(builda) == []


def test_a_command_that_fails_is_an_exception(builda: Builda, base: str, variables: dict[str, str]) -> None:
    def script() -> None:
        with api.session(environ=variables) as s:
            s.run(s.from_(base), "sh", "-c", "exit 7", valid_statuses=frozenset({0, 3}))

    with pytest.raises(CommandFailed) as failed:
        script()
    assert failed.value.exit_status == 7
    assert left(builda) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_what_a_killed_process_left_is_removed_by_the_next_command(
    builda: Builda, base: str, variables: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    script = f"""
import builda, pathlib, time
with {OPEN} as s:
    c = s.from_({base!r})
    s.mount(c)
    s.commit(c, "made:1")
    pathlib.Path({str(tmp_path / "there")!r}).touch()
    s.run(c, "sleep", "61.7")
"""
    process = started_python(variables, script, tmp_path / "there")
    process.send_signal(number)
    assert process.wait(30) != 0
    assert builda("containers", "-q") == ""
    assert made(builda) == []
    assert left(builda) == []
    assert subprocess.run(["pgrep", "-f", "sleep 61.7"], stdout=subprocess.DEVNULL).returncode == 1


def test_the_next_python_session_reclaims_too(
    builda: Builda, base: str, variables: dict[str, str], tmp_path: Path
) -> None:
    there = tmp_path / "there"
    script = f"""
import builda, pathlib, time
with {OPEN} as s:
    s.from_("scratch")
    pathlib.Path({str(there)!r}).touch()
    time.sleep(60)
"""
    process = started_python(variables, script, there)
    process.kill()
    process.wait()
    with api.session(environ=variables) as s:
        assert list(s.builder.store.containers.iter()) == []


def test_a_traced_session_that_was_killed_is_left_to_the_command_line(
    builda: Builda, base: str, variables: dict[str, str], tmp_path: Path
) -> None:
    there, file = tmp_path / "there", tmp_path / "trace"
    process = started(builda, f"touch {there}; sleep 60", "--trace", str(file), until=there)
    process.kill()
    process.wait()
    with api.session(environ=variables):
        pass
    assert not file.exists()
    builda("containers")
    assert file.exists()


def test_threads_share_a_session(builda: Builda, base: str, variables: dict[str, str]) -> None:
    with api.session(environ=variables) as s, ThreadPoolExecutor(3) as pool:

        def build(number: int) -> None:
            container = s.from_(base)
            s.run(container, "sh", "-c", f"echo {number} > /number")
            s.commit(container, CommitOptions(destination=f"made:{number}"))

        list(pool.map(build, range(3)))
    assert [f"localhost/made:{number}" in names(builda) for number in range(3)] == [True] * 3
    assert left(builda) == []


def test_sessions_of_two_threads_are_two(builda: Builda, base: str, variables: dict[str, str]) -> None:
    def script(number: int) -> None:
        with api.session(environ=variables) as s:
            s.commit(s.from_(base), f"made:{number}")
            if number:
                raise ValueError

    with ThreadPoolExecutor(2) as pool:
        ended = [pool.submit(script, number) for number in range(2)]
        assert [type(one.exception()) for one in ended] == [type(None), ValueError]
    assert made(builda) == ["localhost/made:0"]


def test_a_session_inside_another_is_part_of_it(builda: Builda, base: str, variables: dict[str, str]) -> None:
    def outer() -> None:
        with api.session(environ=variables) as s:
            with api.session(environ=variables) as inner:
                container = inner.from_(base)
                inner.commit(container, "made:1")
            assert s.builder.store.container(container.name).id == container.id
            assert made(builda) == []
            raise LookupError

    with pytest.raises(LookupError):
        outer()
    assert made(builda) == []
    assert left(builda) == []


def test_a_session_of_another_store_is_its_own(
    builda: Builda, base: str, variables: dict[str, str], tmp_path: Path
) -> None:
    with (
        api.session(environ=variables) as s,
        api.session(tmp_path / "other", tmp_path / "other-run", environ=variables) as inner,
    ):
        assert inner.builder.store.root != s.builder.store.root


def test_commands_that_the_script_starts_are_part_of_it(builda: Builda, base: str, variables: dict[str, str]) -> None:
    with api.session(environ=variables) as s:
        name = subprocess.check_output([PROGRAM, "from", base], env=s.environ, text=True).strip()
        subprocess.check_call([PROGRAM, "commit", "-q", name, "made:1"], env=s.environ, stdout=subprocess.DEVNULL)
        assert made(builda) == []
        assert s.builder.store.container(name).name == name
    assert "localhost/made:1" in names(builda)
    assert left(builda) == []


def test_a_python_script_in_a_session_of_the_shell_is_part_of_that(
    builda: Builda, base: str, server: Registry, tmp_path: Path
) -> None:
    name = server.name("python:1")
    script = tmp_path / "build.py"
    script.write_text(f"""
import builda
with builda.session() as s:
    c = s.from_({base!r})
    image = s.commit(c, "made:1")
    s.push(image, "docker://{name}", builda.PushOptions(access=builda.RegistryAccess(tls_verify=False)))
    try:
        s.push(image, "docker://{name}", builda.PushOptions(format="docker"))
    except builda.BuildaError as error:
        print(error)
""")
    run = f"{sys.executable} {script}; builda images --format '{{{{.Name}}}}' made; builda containers -q | wc -l"
    result = session(builda, f"{run}; exit 3")
    assert result.returncode == 3, result.stderr
    assert "can have options of the registry only" in result.stdout
    assert result.stdout.split()[-2:] == ["localhost/made", "1"]
    assert made(builda) == []
    assert "python" not in pushed(server)
    assert session(builda, run).returncode == 0
    assert "localhost/made:1" in names(builda)
    assert "python" in pushed(server)


def test_pushes_are_performed_when_the_block_has_succeeded(
    builda: Builda, base: str, variables: dict[str, str], server: Registry
) -> None:
    plain = PushOptions(access=RegistryAccess(tls_verify=False))
    with api.session(environ=variables) as s:
        image = s.commit(s.from_(base), "made:1")
        s.push(image, f"docker://{server.name('late:1')}", plain)
        command = [PROGRAM, "push", "--tls-verify=false", "made:1", f"docker://{server.name('later:1')}"]
        subprocess.check_call(command, env=s.environ)
        assert "late" not in pushed(server)
    assert {"late", "later"} <= set(pushed(server))


def test_a_push_that_fails_changes_no_name(builda: Builda, base: str, variables: dict[str, str]) -> None:
    def script() -> None:
        with api.session(environ=variables) as s:
            image = s.commit(s.from_(base), "made:1")
            s.push(image, "docker://127.0.0.1:1/x:1", PushOptions(access=RegistryAccess(tls_verify=False, retry=0)))

    with pytest.raises(api.BuildaError) as failed:
        script()
    assert "no name was changed" in failed.value.__notes__[0]
    assert made(builda) == []


def test_without_transaction_names_count_at_once(builda: Builda, base: str, variables: dict[str, str]) -> None:
    def script() -> None:
        with api.session(environ=variables, transaction=False) as s:
            s.commit(s.from_(base), "made:1")
            assert "made" in names(builda)
            raise LookupError

    with pytest.raises(LookupError):
        script()
    assert "made" in names(builda)
    assert left(builda) == []


def test_keep_leaves_containers(builda: Builda, base: str, variables: dict[str, str]) -> None:
    with api.session(environ=variables, keep=True) as s:
        kept = s.from_(base)
    assert builda("containers", "-q", "--notruncate") == kept.id


def test_a_session_that_has_ended_makes_nothing(builda: Builda, base: str, variables: dict[str, str]) -> None:
    with api.session(environ=variables) as s:
        pass
    with pytest.raises(InvalidValue, match="session has ended"):
        s.from_("scratch")
    assert left(builda) == []


@pytest.mark.parametrize("words", [(), (1,), (Run(args=("true",)), "x")])
def test_what_is_no_command_is_refused(base: str, variables: dict[str, str], words: tuple[str, ...]) -> None:
    with api.session(environ=variables) as s:
        container = s.from_(base)
        with pytest.raises(TypeError, match="run takes the words"):
            s.run(container, *words)
        with pytest.raises(TypeError, match="copy takes sources"):
            s.copy(container, *words)


def test_the_module_of_that_name_can_be_called() -> None:
    script = "import builda.session.lease, builda; print(callable(builda.session), builda.session.__name__)"
    environ = environ_of(Builda(Path("/nowhere"), Path("/nowhere")))
    assert subprocess.check_output([sys.executable, "-c", script], env=environ, text=True).split() == [
        "True",
        "builda.session",
    ]


@needs.program("newuidmap")
def test_a_user_without_rights_has_sessions_too(tmp_path: Path) -> None:
    script = """
import builda, os
with builda.session(mode="auto") as s:
    c = s.from_("scratch")
    (s.mount(c) / "file").write_text("content")
    os.chown(s.mount(c) / "file", 7, 7)
    s.commit(c, "made:1")
"""
    with rootless() as user:
        command = [*as_user(user.user), *interpreter(), "-c", script]
        done = subprocess.run(command, env={**clean_environ(), **user.environ}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert user("images", "--format", "{{.Name}}:{{.Tag}}") == "localhost/made:1"
        assert user("containers", "-q") == ""
