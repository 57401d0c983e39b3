"""builda as a process: start-up, signals, pipes, completion, and what a verb may import."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Builda, clean_environ

# What a light verb must not load: each costs milliseconds that the promises of start-up do not have.
HEAVY = frozenset(
    "pyroute2 tqdm zstandard isal filelock subprocess tempfile asyncio "
    "click gettext dataclasses inspect typing pathlib ipaddress logging threading".split()
)


def imported(builda: Builda, *args: str) -> frozenset[str]:
    """The modules that a command line loads."""
    code = "import sys; from builda.cli.main import status_of; status_of(sys.argv[1:])"
    code += "; print(*sys.modules, file=sys.stderr)"
    result = subprocess.run(
        [sys.executable, "-c", code, *builda.command[1:], *args],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=clean_environ(),
    )
    return frozenset(result.stderr.splitlines()[-1].split())


def test_version_loads_next_to_nothing(builda: Builda) -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "builda", "--version"], capture_output=True, text=True
    )
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert not loaded & {"click", "typing", "dataclasses", "json", "builda.store"}
    assert result.stdout.startswith("builda version ")


@pytest.mark.parametrize(
    "args", [["images"], ["containers"], ["inspect", "x"], ["config", "x"], ["tag", "x", "y"], ["rmi", "x"]]
)
def test_light_verbs_load_nothing_heavy(builda: Builda, args: list[str]) -> None:
    imported(builda, "rmi", "y")  # makes the store, which reads storage.conf once
    loaded = {name.partition(".")[0] for name in imported(builda, *args)}
    assert not loaded & HEAVY


@pytest.mark.parametrize("args", [["images"], ["containers"], ["tag", "x", "y"]])
def test_the_lightest_verbs_need_no_regular_expressions(builda: Builda, base: str, args: list[str]) -> None:
    builda("tag", base, "x")
    loaded = imported(builda, *args)
    assert "builda.store.store" in loaded
    assert not loaded & {"re", "json"}


def test_images_loads_no_other_verb(builda: Builda) -> None:
    loaded = imported(builda, "images")
    assert "builda.cli.verbs.images" in loaded
    assert not loaded & {
        "builda.cli.verbs.run",
        "builda.cli.verbs.config",
        "builda.builder.builder",
        "builda.plan",
        "dataclasses",
    }


def test_module_and_script_are_the_same(builda: Builda) -> None:
    module = subprocess.run([sys.executable, "-m", "builda", "--version"], capture_output=True, text=True)
    assert module.stdout.rstrip("\n") == builda("--version")


def test_a_closed_pipe_ends_quietly(builda: Builda) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        result = subprocess.run([*builda.command, "--help"], stdout=pipe, stderr=subprocess.PIPE)
    assert result.returncode == 141
    assert result.stderr == b""


def test_a_full_disk_under_stdout_is_an_error(builda: Builda) -> None:
    with open("/dev/full", "wb") as full:
        result = subprocess.run([*builda.command, "images"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 125
    assert "no space left on device" in result.stderr


@pytest.mark.parametrize("arguments", [["images"], ["rm", "nothing"], ["bud", "--help"], ["--version"]])
def test_where_no_stream_takes_anything_the_status_tells(builda: Builda, arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        assert subprocess.run([*builda.command, *arguments], stdout=full, stderr=full).returncode == 125


NAMING_FILES = (
    "bud --secret id=a,src={} .",
    "bud --build-arg-file {} .",
    "bud --ignorefile {} .",
    "bud -f {} .",
    "bud --source-policy-file {} .",
    "bud --authfile {} .",
    "bud --ssh default={} .",
    "pull --authfile {} docker://localhost:1/a",
    "pull --signature-policy {} docker://localhost:1/a",
    "pull oci-archive:{}",
    "pull docker-archive:{}",
    "--registries-conf {} pull a",
    "copy --ignorefile {} --contextdir . CONTAINER Containerfile /",
    "commit --config {} CONTAINER",
    "run --secret id=a,src={} CONTAINER true",
    "--default-mounts-file {} run CONTAINER true",
    "preprocess {}",
    "login --username me --password-stdin localhost:1 < {}",
)


@pytest.mark.root
@pytest.mark.parametrize("line", NAMING_FILES)
def test_every_option_that_names_a_file_reads_it_up_to_a_limit(builda: Builda, line: str, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text("FROM scratch\nLABEL a=b\n")
    words = line.replace("CONTAINER", builda("from", "scratch")).format("/dev/zero")
    command = f"ulimit -v 3000000; exec {shlex.join(builda.command)} {words}"
    ended = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 125
    assert any(said in ended.stderr for said in ("than the limit", "not a tar archive", "regular files")), ended.stderr


@pytest.mark.root
def test_an_endless_context_is_refused(builda: Builda) -> None:
    with open("/dev/zero", "rb") as zeros:
        ended = subprocess.run([*builda.command, "bud", "-"], stdin=zeros, capture_output=True, text=True, timeout=30)
    assert "context is neither an archive nor a Containerfile" in ended.stderr


@pytest.mark.root
def test_pipes_of_commands_are_files(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    text = f"FROM {base}\nARG A\nLABEL a=$A\nRUN --mount=type=secret,id=s [ $(cat /run/secrets/s) = hidden ]\n"
    (tmp_path / "Containerfile").write_text(text)
    words = (
        f"{shlex.join(builda.command)} bud -q --build-arg-file <(echo A=5) --secret id=s,src=<(echo hidden) "
        "--authfile <(echo '{}') -f <(cat Containerfile) ."
    )
    built = subprocess.run(["bash", "-c", words], cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert builda("inspect", "-f", '{{index .OCIv1.Config.Labels "a"}}', built.stdout.strip()) == "5"


@pytest.mark.root
@pytest.mark.parametrize(
    "line",
    [
        "from --cidfile {} scratch",
        "commit --iidfile {} CONTAINER x",
        "push --digestfile {} x",
        "bud --iidfile {} .",
        "manifest push --digestfile {} list dir:made",
        "image copy --digestfile {} x dir:made",
        "image sync --src dir --dest docker --digestfile {} . registry.example.org",
    ],
)
def test_a_result_that_cannot_be_written_is_refused_first(builda: Builda, line: str, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text("FROM scratch\nLABEL a=b\n")
    words = line.replace("CONTAINER", builda("from", "scratch")).split()
    builda("manifest", "create", "list")
    for place, said in ((tmp_path, "is a directory"), (tmp_path / "missing/file", "no such file or directory")):
        before = builda("containers", "-q"), builda("images", "-q")
        assert said in builda.fails(*(word.format(place) for word in words), cwd=tmp_path)
        assert (builda("containers", "-q"), builda("images", "-q")) == before
    assert not (tmp_path / "made").exists()


@pytest.mark.root
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_waiting_command(builda: Builda, number: signal.Signals, status: int, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(
        [*builda.command, "commit", "--config", str(pipe), builda("from", "scratch")], stderr=subprocess.PIPE, text=True
    ) as process:
        with open(pipe, "wb"):  # opened when builda has opened its end, and is about to read
            process.send_signal(number)
            process.wait(timeout=20)
        _, said = process.communicate(timeout=20)
    assert process.returncode == status
    assert said == ""


@pytest.mark.root
def test_a_signal_to_run_ends_the_command_and_builda(builda: Builda, base: str) -> None:
    container = builda("from", base)
    with subprocess.Popen(
        [
            *builda.command,
            "run",
            container,
            "sh",
            "-c",
            "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.1; done",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    assert out == "got\n"
    assert process.returncode in (9, 143)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(builda: Builda, shell: str) -> None:
    script = builda("completion", shell)
    assert "_BUILDA_COMPLETE" in script
    assert builda("completion", SHELL=f"/usr/bin/{shell}") == script


def completed(builda: Builda, words: str) -> list[str]:
    """What a shell that completes the last of `words` is offered."""
    places = {"BUILDA_ROOT": str(builda.root), "BUILDA_RUNROOT": str(builda.runroot)}
    result = subprocess.run(
        [builda.command[0], *words.split(" ")[1:]],
        capture_output=True,
        text=True,
        env={**clean_environ(), **places, "_BUILDA_COMPLETE": "fish"},
    )
    assert result.stderr == ""
    return [line.partition("\t")[0] for line in result.stdout.splitlines()[1:]]


def test_verbs_and_options_complete(builda: Builda) -> None:
    assert completed(builda, "builda comm") == ["commit"]
    assert "--squash" in completed(builda, "builda commit --sq")
    assert "--encryption-key" not in completed(builda, "builda commit --en")


@pytest.mark.root
def test_containers_and_images_complete(builda: Builda, base: str) -> None:
    container = builda("from", base)
    assert completed(builda, "builda run busy") == [container]
    assert completed(builda, "builda run -e A=1 --tty busy") == [container]
    assert base in completed(builda, "builda from localhost/")
    assert "busybox:latest" in completed(builda, "builda push busy")
    assert {container, "busybox:latest"} <= set(completed(builda, "builda inspect busy"))


@pytest.mark.root
def test_without_the_right_to_a_network_commands_have_the_hosts_and_builda_says_so(builda: Builda, base: str) -> None:
    container = builda("from", base)
    limited = ["setpriv", "--bounding-set=-net_admin", *builda.command]

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [*limited, "run", *options, container, "--", "readlink", "/proc/self/ns/net"]
        return subprocess.run(command, capture_output=True, text=True, env=clean_environ())

    default, private = run(), run("--network", "private")
    assert default.stdout.strip() == os.readlink("/proc/self/ns/net")
    assert default.stderr.count("host's network") == 1
    assert private.returncode == 125
    assert "cannot make a private network: Operation not permitted" in private.stderr
    assert builda("run", container, "--", "readlink", "/proc/self/ns/net") != os.readlink("/proc/self/ns/net")
