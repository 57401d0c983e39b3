"""Cache mounts that one machine leaves in a registry or directory, and another finds there."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import Builda, clean_environ
from tests.support import needs
from tests.support.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.network, needs.program("crun", "runc")]
STEP = "RUN --mount=type=cache,id=words,target=/cache"


@pytest.fixture
def machine(tmp_path: Path, builda: Builda, busybox: Path) -> Callable[[str], Builda]:
    """builda with a store of its own, by name."""

    def made(name: str) -> Builda:
        other = replace(builda, root=tmp_path / name / "store", runroot=tmp_path / name / "run")
        other("pull", f"oci-archive:{busybox}:busybox")
        other("tag", "localhost/busybox:busybox", "base")
        return other

    return made


def built(machine: Builda, work: Path, command: str, *options: str) -> str:
    (work / "Containerfile").write_text(f"FROM base\n{STEP} {command}\n")
    return machine.run("bud", "--tls-verify=false", "--no-cache", *options, work).stdout


def both(place: str) -> Sequence[str]:
    return "--cache-mounts-from", place, "--cache-mounts-to", place


@pytest.fixture(params=["registry", "local"])
def place(request: pytest.FixtureRequest, server: Registry, tmp_path: Path) -> str:
    if request.param == "local":
        return f"type=local,dir={tmp_path}/mounts"
    return server.name(f"app/mounts-{tmp_path.name}")


def test_another_machine_finds_a_cache_as_it_was_left(
    machine: Callable[[str], Builda], tmp_path: Path, place: str
) -> None:
    first, second = machine("first"), machine("second")
    command = "cd /cache && mkdir -p d && echo one > d/f && chmod 640 d/f && chown 7:8 d/f && ln -s d/f l && ln d/f h"
    built(first, tmp_path, command, *both(place))
    said = built(
        second, tmp_path, "stat -c '%a %u %g %h' /cache/d/f && cat /cache/l && echo two > /cache/d/f", *both(place)
    )
    assert "640 7 8 2\none\n" in said
    assert "two\n" in built(machine("third"), tmp_path, "cat /cache/h", *both(place))


def test_a_cache_that_is_here_stays_as_it_is(machine: Callable[[str], Builda], tmp_path: Path, place: str) -> None:
    first, second = machine("first"), machine("second")
    built(first, tmp_path, "echo one > /cache/f", *both(place))
    built(second, tmp_path, "echo mine > /cache/f")
    assert "mine\n" in built(second, tmp_path, "cat /cache/f", *both(place))


def test_builds_that_put_a_cache_at_the_same_time_leave_one_of_theirs(
    machine: Callable[[str], Builda], tmp_path: Path, place: str
) -> None:
    names = ("first", "second", "third")
    machines = {name: machine(name) for name in names}

    def one(name: str) -> None:
        work = tmp_path / f"work-{name}"
        work.mkdir()
        command = f"for n in $(seq 50); do echo {name} > /cache/$n; done"
        built(machines[name], work, command, *both(place))

    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(one, names))
    said = built(machine("last"), tmp_path, "cat /cache/* | sort | uniq -c", *both(place))
    assert any(f"50 {name}\n" in said for name in names)


@pytest.mark.parametrize("sharing", ["locked", "shared"])
def test_an_update_of_a_locked_cache_that_is_lost_in_a_registry_is_told_of(
    machine: Callable[[str], Builda], tmp_path: Path, server: Registry, sharing: str
) -> None:
    place = server.name(f"app/lost-{sharing}")
    first, second = machine("first"), machine("second")
    step = f"RUN --mount=type=cache,id=words,target=/cache,sharing={sharing}"
    (tmp_path / "wait").mkdir()

    def begin(one: Builda, name: str) -> subprocess.Popen[str]:
        work = tmp_path / f"work-{name}"
        work.mkdir()
        command = f"echo {name} > /cache/f; touch /wait/{name}; until test -e /wait/go-{name}; do sleep 0.05; done"
        (work / "Containerfile").write_text(f"FROM base\n{step} {command}\n")
        options = ("--tls-verify=false", "--no-cache", "-v", f"{tmp_path}/wait:/wait", *both(place))
        return subprocess.Popen(
            [*one.command, "bud", *options, str(work)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environ(),
        )

    begun = {name: begin(one, name) for name, one in (("a", first), ("b", second))}
    deadline = time.monotonic() + 120
    while not all((tmp_path / "wait" / name).exists() for name in begun) and time.monotonic() < deadline:
        time.sleep(0.05)
    said = {}
    for name, process in begun.items():
        (tmp_path / f"wait/go-{name}").touch()
        said[name] = process.communicate(timeout=120)[1]
        assert process.returncode == 0, said[name]
    words = "cache mount words was put to "
    assert words not in said["a"]
    assert (words in said["b"]) == (sharing == "locked"), said["b"]
    assert "b\n" in built(machine("last"), tmp_path, "cat /cache/f", *both(place))


def test_locked_caches_in_a_directory_have_one_user_at_a_time(machine: Callable[[str], Builda], tmp_path: Path) -> None:
    place = f"type=local,dir={tmp_path}/mounts"
    mounts = [f"--mount=type=cache,sharing=locked,id={name},target=/{name}" for name in "ab"]
    machines = {"first": machine("first"), "second": machine("second")}

    def one(name: str) -> None:
        work = tmp_path / f"work-{name}"
        work.mkdir()
        ordered = " ".join(mounts if name == "first" else reversed(mounts))
        steps = [
            f"RUN {ordered} for c in a b; do mkdir /$c/held && echo {name}{step} >> /$c/f && rmdir /$c/held; done\n"
            for step in range(3)
        ]
        (work / "Containerfile").write_text("FROM base\n" + "".join(steps))
        machines[name].run("bud", "--no-cache", *both(place), work)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(one, machines))
    (tmp_path / "Containerfile").write_text(f"FROM base\nRUN {mounts[0]} {mounts[1]} sort /a/f; cmp /a/f /b/f\n")
    said = machine("last").run("bud", *both(place), tmp_path).stdout.splitlines()
    assert [line for line in said if line.startswith(("first", "second"))] == [
        f"{name}{step}" for name in machines for step in range(3)
    ]


def test_a_locked_cache_waits_for_the_build_that_has_it(machine: Callable[[str], Builda], tmp_path: Path) -> None:
    place = f"type=local,dir={tmp_path}/mounts"
    locked = STEP.replace("id=", "sharing=locked,id=")
    (tmp_path / "Containerfile").write_text(f"FROM base\n{locked} echo one > /cache/f\n")
    first = machine("first")
    first.run("bud", *both(place), tmp_path)
    (lock,) = (tmp_path / "mounts").glob("*.lock")
    (tmp_path / "Containerfile").write_text(f"FROM base\n{locked} cat /cache/f\n")
    second = machine("second")
    events, pipe = tmp_path / "events", subprocess.PIPE
    with lock.open("rb+") as held, events.open("w") as file:
        fcntl.flock(held, fcntl.LOCK_EX)
        number = file.fileno()
        command = [*second.command, "--events", str(number), "bud", *both(place), str(tmp_path)]
        with subprocess.Popen(
            command, env=clean_environ(), text=True, stdout=pipe, stderr=pipe, pass_fds=[number]
        ) as waiting:
            assert waiting.stderr is not None
            assert any("cache mount words is used by another build: waiting for it" in line for line in waiting.stderr)
            fcntl.flock(held, fcntl.LOCK_UN)
            assert "one\n" in waiting.communicate()[0]
    told = [event for event in map(json.loads, events.read_text().splitlines()) if event["event"] == "lock_waited"]
    assert [(event["what"], event["done"], event["pid"]) for event in told] == [
        ("cache mount words", done, os.getpid()) for done in (False, True)
    ]
    (tmp_path / "Containerfile").write_text(f"FROM base\n{locked} echo two > /cache/f; false\n")
    assert second.run("bud", "--no-cache", *both(place), tmp_path, check=False).returncode == 1
    assert "\ntwo\n" in built(machine("third"), tmp_path, "cat /cache/f", *both(place))  # as on one machine


def test_platforms_have_caches_of_their_own(machine: Callable[[str], Builda], tmp_path: Path, server: Registry) -> None:
    place = server.name(f"app/mounts-{tmp_path.name}")
    first = machine("first")
    built(first, tmp_path, "echo one > /cache/f", *both(place))
    tags = json.loads(first("image", "list-tags", "--tls-verify=false", f"docker://{place}"))["Tags"]
    (tag,) = tags
    found = json.loads(first("image", "inspect", "--raw", "--tls-verify=false", f"docker://{place}:{tag}"))
    assert found["artifactType"] == "application/vnd.builda.cachemount.v1+json"
    assert found["layers"][0]["annotations"]["io.builda.cachemount"] in (
        "words 0 0 linux/amd64",
        "words 0 0 linux/arm64",
    )


def test_a_damaged_cache_is_a_warning(machine: Callable[[str], Builda], tmp_path: Path) -> None:
    place = f"type=local,dir={tmp_path}/mounts"
    built(machine("first"), tmp_path, "echo one > /cache/f", *both(place))
    (file,) = (tmp_path / "mounts").iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    (tmp_path / "Containerfile").write_text(f"FROM base\n{STEP} ls /cache; echo done\n")
    done = machine("second").run("bud", *both(place), tmp_path)
    assert "warning: cache mount words starts empty: " in done.stderr
    assert "\nf\n" not in done.stdout


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("type=claim,name=x", "of type claim is for builds in a cluster"),
        ("type=s3,bucket=x", "cannot hold cache mounts: type=s3,bucket=x"),
        ("example.org/x:1", "takes a repository, without tag or digest: example.org/x:1"),
    ],
)
def test_a_place_that_is_none_is_refused(builda: Builda, tmp_path: Path, place: str, words: str) -> None:
    (tmp_path / "Containerfile").write_text("FROM scratch\n")
    assert f"--cache-mounts-to {words}" in builda.fails("bud", "--cache-mounts-to", place, tmp_path)
