"""RUN --mount=type=ssh and its like of `run`: an agent's socket, and key files for which an agent is started."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Builda

pytestmark = pytest.mark.root

LIST = (
    "perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un($ENV{SSH_AUTH_SOCK})) or die;"
    ' syswrite(S, "\\0\\0\\0\\1\\13"); sysread(S, $answer, 4096); print $answer\' | tr -dc a-z@ > /answer; '
    "stat -c '%u:%g:%a' $SSH_AUTH_SOCK >> /answer"
)
"""Asks the agent for its identities (SSH_AGENTC_REQUEST_IDENTITIES); the answer holds the keys' comments."""


@pytest.fixture
def base(builda: Builda, debian: Path) -> str:
    """An image with perl in it."""
    builda("pull", "--quiet", f"oci-archive:{debian}:debian")
    return "localhost/debian:debian"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "first@example", "-f", path], check=True)
    return path


@pytest.fixture
def agent(tmp_path: Path, key: Path) -> Iterator[Path]:
    """The socket of an agent that knows the key."""
    place = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", place], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        environ = {"SSH_AUTH_SOCK": str(place)}
        subprocess.run(["ssh-add", "-q", key], check=True, env=environ)
        yield place
        running.terminate()


def agents_running() -> int:
    found = subprocess.run(["pgrep", "-c", "-f", "ssh-agent -D -a .*builda-ssh-"], capture_output=True, text=True)
    return int(found.stdout)


def answer(builda: Builda, base: str, context: Path, mount: str, *options: str, **environ: str) -> str:
    """What a command of a build got from the agent."""
    (context / "Containerfile").write_text(f"FROM {base}\nRUN --mount=type=ssh{mount} {LIST}\n")
    image = builda("bud", "--quiet", "--no-cache", *options, context, **environ)
    return builda("run", builda("from", image), "cat", "/answer")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    place = tmp_path / "context"
    place.mkdir()
    return place


def test_an_agent_answers_a_command(builda: Builda, base: str, context: Path, agent: Path) -> None:
    assert "first@example" in answer(builda, base, context, "", "--ssh", f"default={agent}")
    assert "first@example" in answer(builda, base, context, "", "--ssh", "default", SSH_AUTH_SOCK=str(agent))


def test_key_files_get_an_agent_that_ends_with_the_build(builda: Builda, base: str, context: Path, key: Path) -> None:
    assert "first@example" in answer(builda, base, context, ",id=k", "--ssh", f"k={key}")
    assert agents_running() == 0


def test_the_socket_has_the_owner_and_mode_that_are_asked_for(
    builda: Builda, base: str, context: Path, agent: Path
) -> None:
    assert "0:0:600" in answer(builda, base, context, "", "--ssh", f"default={agent}")
    said = answer(builda, base, context, ",uid=12,gid=34,mode=0620", "--ssh", f"default={agent}")
    assert "12:34:620" in said


def test_run_mounts_an_agent_too(builda: Builda, base: str, agent: Path) -> None:
    container = builda("from", base)
    builda("run", "--ssh", f"default={agent}", "--mount", "type=ssh", container, "--", "sh", "-c", LIST)
    assert "first@example" in builda("run", container, "cat", "/answer")


def test_keys_and_sockets_that_do_not_do_are_named(builda: Builda, base: str, context: Path, tmp_path: Path) -> None:
    (context / "Containerfile").write_text(f"FROM {base}\nRUN --mount=type=ssh true\n")
    (tmp_path / "nokey").write_text("no key\n")
    (tmp_path / "nokey").chmod(0o600)
    assert "no such file or directory (a socket or key) for --ssh default" in builda.fails(
        "bud", "--ssh", "default=/no/where", context
    )
    assert "ssh-add does not take the key file" in builda.fails("bud", "--ssh", f"default={tmp_path}/nokey", context)
    assert agents_running() == 0
