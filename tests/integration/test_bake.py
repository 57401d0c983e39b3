"""`bake` and `build --matrix`: many builds at once on this machine, what they share, and what is refused."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from builda.bake.documents import Place
from builda.bake.fields import Target
from builda.cli.building import outputs
from builda.cli.building.bakewords import planned
from tests.conftest import Builda, clean_environ

pytestmark = [pytest.mark.root]

FILE = """FROM localhost/busybox:busybox AS base
RUN echo ran-base; head -c 8 /dev/urandom | od -An -tx1 > /base
FROM base AS app
ARG V
RUN echo ran-app $V > /v
FROM base AS tool
COPY --from=base /base /again
"""


@pytest.fixture
def context(builda: Builda, busybox: Path, tmp_path: Path) -> Path:
    builda("pull", f"oci-archive:{busybox}:busybox")
    made = tmp_path / "context"
    made.mkdir()
    (made / "Dockerfile").write_text(FILE)
    return made


def write(context: Path, value: object) -> Path:
    file = context / "docker-bake.json"
    file.write_text(json.dumps(value))
    return file


MANY = {
    "group": {"default": {"targets": ["app", "tool", "on"]}},
    "target": {
        "app": {
            "matrix": {"v": [str(number) for number in range(6)]},
            "name": "app-${v}",
            "target": "app",
            "args": {"V": "${v}"},
            "tags": ["app:${v}"],
        },
        "tool": {"target": "tool", "tags": ["tool"]},
        "on": {"contexts": {"below": "target:tool"}, "dockerfile-inline": "FROM below\nRUN cat /again\n"},
    },
}


def ids(output: str) -> dict[str, str]:
    return dict(line.split("\t") for line in output.splitlines() if "\t" in line)


def test_a_stage_of_many_targets_is_built_once(builda: Builda, context: Path, tmp_path: Path) -> None:
    write(context, MANY)
    metadata = tmp_path / "metadata"
    done = builda.run("bake", "--jobs", "4", "--metadata-file", metadata, cwd=context)
    assert len(re.findall(r"^\[.* 1/3\] ran-base$", done.stdout, re.M)) == 1
    names = [*(f"app-{number}" for number in range(6)), "tool", "on"]
    assert list(ids(done.stdout)) == names
    written = json.loads(metadata.read_text())
    assert {name: f"sha256:{one}" for name, one in ids(done.stdout).items()} == {
        name: one["containerimage.config.digest"] for name, one in written.items()
    }
    again = builda.run("bake", "-q", cwd=context)
    assert ids(again.stdout) == ids(done.stdout)
    anew = builda.run("bake", "--no-cache", "--jobs", "4", cwd=context)
    assert len(re.findall(r"^\[.* 1/3\] ran-base$", anew.stdout, re.M)) == 1
    assert not set(ids(anew.stdout).values()) & set(ids(done.stdout).values())


def test_builds_that_run_at_once_wait_for_the_steps_of_each_other(builda: Builda, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM localhost/busybox:busybox\nRUN sleep 1; echo ran\nRUN echo and more\n")
    command = [*builda.command, "bud", "--timestamp", "0", str(context)]
    environ = {**clean_environ(), **builda.environ}
    both = [
        subprocess.Popen(command, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert sum(len(re.findall("^ran$", output, re.M)) for output in outputs) == 1
    assert sum(len(re.findall("^and more$", output, re.M)) for output in outputs) == 1
    assert outputs[0].splitlines()[-1] == outputs[1].splitlines()[-1]


def test_a_failing_target_ends_the_others_with_its_place_and_status(builda: Builda, context: Path) -> None:
    (context / "Dockerfile").write_text(
        "FROM localhost/busybox:busybox AS long\nRUN sleep 60\nFROM localhost/busybox:busybox AS bad\nRUN exit 7\n"
    )
    write(
        context,
        {"group": {"default": {"targets": ["long", "bad"]}}, "target": {n: {"target": n} for n in ("long", "bad")}},
    )
    done = builda.run("bake", "--jobs", "2", cwd=context, check=False)
    assert done.returncode == 7
    assert "Error: Dockerfile:4: target bad: command failed with exit status 7: RUN exit 7" in done.stderr
    assert "Traceback" not in done.stderr
    assert not builda("containers", "-q")


def test_an_interrupted_bake_leaves_nothing(builda: Builda, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM localhost/busybox:busybox\nRUN echo reached; sleep 60\n")
    write(context, {"target": {"default": {}}})
    environ = {**clean_environ(), **builda.environ}
    command = [*builda.command, "bake", "--progress=plain"]
    with subprocess.Popen(
        command, env=environ, cwd=context, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert any("reached" in line and "STEP" not in line for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    assert not builda("containers", "-q")


def test_a_compose_file_is_built(builda: Builda, context: Path) -> None:
    (context / "compose.yaml").write_text(
        """services:
  web:
    image: "localhost/web:${TAG:-1}"
    build: {context: ., target: app, args: [V=x], labels: {a: b}}
  run: {image: nginx}
"""
    )
    builda.run("bake", "-q", cwd=context)
    assert json.loads(builda("inspect", "--type", "image", "localhost/web:1"))["OCIv1"]["config"]["Labels"]["a"] == "b"


def test_a_matrix_builds_each_combination(builda: Builda, context: Path) -> None:
    (context / "matrix.yaml").write_text("axes: {V: [1.0, two]}\n")
    done = builda.run(
        "build", "-q", "--matrix", "matrix.yaml", "--target", "app", "-t", "m:${V}", "--label", "l=1", ".", cwd=context
    )
    assert list(ids(done.stdout)) == ["1.0", "two"]
    names = builda("images", "--format", "{{.Name}}:{{.Tag}}").split()
    assert {"localhost/m:1.0", "localhost/m:two"} <= set(names)


def test_targets_are_printed_and_listed(builda: Builda, context: Path) -> None:
    write(
        context,
        {"variable": {"V": {"default": "1"}}, "target": {"default": {"tags": ["a:${V}"], "description": "all"}}},
    )
    printed = json.loads(builda.run("bake", "--print", "--var", "V=2", "--set", "*.args.A=b", cwd=context).stdout)
    assert printed["target"]["default"] == {"context": ".", "description": "all", "tags": ["a:2"], "args": {"A": "b"}}
    assert builda.run("bake", "--list", cwd=context).stdout.split() == ["TARGET", "DESCRIPTION", "default", "all"]
    assert builda.run("bake", "--list=variables", cwd=context).stdout.split()[3:] == ["V", "1"]


@pytest.mark.parametrize(
    ("said", "options", "words"),
    [
        ({"network": "host"}, (), "asks for the host's network, which is not allowed"),
        ({"entitlements": ["security.insecure"]}, (), "hint: allow it with --allow security.insecure"),
        ({"ssh": ["default"]}, (), "hint: allow it with --allow ssh"),
        ({"context": ".."}, (), "leave to read .., outside of the current directory"),
        ({"secret": ["id=a,src=/etc/shadow"]}, (), "hint: allow it with --allow fs.read=/etc/shadow"),
        ({"output": ["type=tar,dest=/x.tar"]}, (), "hint: allow it with --allow fs.write=/x.tar"),
        ({"network": "ns:/proc/self/ns/net"}, (), "hint: allow it with --allow network.host"),
        ({"network": "/proc/self/ns/net"}, (), "hint: allow it with --allow network.host"),
        ({"secret": ["id=a, src=/etc/shadow"]}, (), "hint: allow it with --allow fs.read=/etc/shadow"),
        ({"secret": ["id=a,SOURCE=/etc/shadow"]}, (), "hint: allow it with --allow fs.read=/etc/shadow"),
        ({"secret": ["id=a,env=/etc/shadow,type=file"]}, (), "hint: allow it with --allow fs.read=/etc/shadow"),
        ({"secret": ["id=/etc/shadow"]}, (), "hint: allow it with --allow fs.read=/etc/shadow"),
        ({"secret": ["id=a,sources=x"]}, (), "docker-bake.json:1: target default: secret has an unknown key sources"),
        ({"ssh": ["default=/run/d.sock"]}, ("--allow=ssh",), "hint: allow it with --allow fs.read=/run/d.sock"),
        ({"output": ['type=tar,"dest=/x.tar"']}, (), "hint: allow it with --allow fs.write=/x.tar"),
        ({"contexts": {"l": "oci-layout:///x:1"}}, (), "hint: allow it with --allow fs.read=/x"),
        ({"contexts": {"l": f"oci-layout:///x@sha256:{64 * '0'}"}}, (), "hint: allow it with --allow fs.read=/x"),
        ({"output": ["/x"]}, (), "hint: allow it with --allow fs.write=/x"),
        ({"tags": ["oci-archive:/x.tar"]}, (), "hint: allow it with --allow fs.write=/x.tar"),
        ({"tags": ["dir:../x"]}, (), "hint: allow it with --allow fs.write=../x"),
        ({"shm-size": "many"}, (), "docker-bake.json:1: target default: "),
        ({"tags": ["A:b:c"]}, (), "docker-bake.json:1: target default: "),
        ({"cache-to": ["type=gha"]}, (), "docker-bake.json:1: target default: --cache-to supports type=registry only"),
        ({"output": ["type=tar,dest=-"]}, (), "writes its result to standard output"),
        ({}, ("--push",), "docker-bake.json:1: target default has no tags"),
        ({}, ("--job-ttl", "1s"), "--job-ttl is for builds in a cluster"),
        ({"no-cache-filter": ["x"]}, (), "no-cache-filter is not supported"),
    ],
)
def test_what_a_target_may_not_have_is_refused_before_anything_is_built(
    builda: Builda, tmp_path: Path, said: object, options: tuple[str, ...], words: str
) -> None:
    write(tmp_path, {"target": {"default": said, "other": {}}, "group": {}})
    assert words in builda.run("bake", *options, "default", cwd=tmp_path, check=False).stderr


def test_a_tag_stays_a_name_where_it_is_pushed_to() -> None:
    target = Target(name="t", place=Place("f"), said={"tags": ["oci:a,type=oci,dest=/x"]})
    words = planned(target, push=True, is_linked=False).words
    (output,) = outputs.parse(tuple(word.removeprefix("--output=") for word in words if word.startswith("--output=")))
    assert (output.kind, output.dest) == ("registry", "")


def test_what_the_command_line_allows_a_target_has(builda: Builda, context: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("swordfish")
    (context / "Dockerfile").write_text(
        "FROM localhost/busybox:busybox\nRUN --network=host --mount=type=secret,id=s grep -c fish /run/secrets/s\n"
    )
    write(context, {"target": {"default": {"secret": [{"id": "s", "src": "../secret"}], "network": "host"}}})
    builda.run("bake", "--allow", "network.host", "--allow", f"fs.read={tmp_path}", cwd=context)
