"""Many builds at once in the stand-in for a cluster: which Jobs there are, and that shared stages are built once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from builda.cluster.frames import Closed, Ended, Frame, to_line
from builda.events import BuildStarted, ImageBuilt
from builda.oci.digest import Digest
from tests.conftest import Builda
from tests.integration.test_cluster import BUD, base_there, far, names, there  # noqa: F401  # fixtures
from tests.support import needs
from tests.support.cluster import IMAGE, Cluster, Object, Simulated, cluster
from tests.support.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.network, needs.program("crun", "runc")]

BAKE = ("bake", "--tls-verify=false", "--progress=plain")


@pytest.fixture
def context(tmp_path: Path, base_there: str, there: Cluster) -> Path:  # noqa: F811
    there.objects.clear()
    made = tmp_path / "context"
    made.mkdir()
    (made / "given").write_text("some text\n")
    (made / "Dockerfile").write_text(
        f"""FROM {base_there} AS base
COPY given /
RUN echo ran-base; head -c 8 /dev/urandom | od -An -tx1 > /base
FROM base AS app
ARG V
RUN echo ran-app $V
FROM base AS tool
COPY --from=base /base /again
RUN echo ran-tool
"""
    )
    return made


def write(context: Path, value: object) -> None:
    (context / "docker-bake.json").write_text(json.dumps(value))


def logs(there: Cluster) -> str:  # noqa: F811
    pods = set(there.of("pods"))
    return b"".join(line for name, run in there.running.items() if name in pods for _, line in run.lines).decode()


def test_a_stage_of_many_targets_is_a_job_of_its_own_and_built_once(
    far: Builda,  # noqa: F811
    builda: Builda,
    there: Cluster,  # noqa: F811
    context: Path,
    server: Registry,
) -> None:
    write(
        context,
        {
            "group": {"default": {"targets": ["app", "on"]}},
            "target": {
                "app": {
                    "matrix": {"v": ["1", "2", "3"]},
                    "name": "app-${v}",
                    "target": "app",
                    "args": {"V": "${v}"},
                    "tags": [server.name("bake/app:${v}")],
                },
                "tool": {"target": "tool"},
                "on": {
                    "contexts": {"below": "target:tool"},
                    "dockerfile-inline": "FROM below\nRUN cat /again\n",
                    "tags": [server.name("bake/on:1")],
                },
            },
        },
    )
    done = far.run(*BAKE, cwd=context)
    assert len(there.of("jobs")) == 6  # of the base stage, three apps, the tool and what builds on it
    assert len(re.findall(r"^\[stage:base.*\] ran-base$", done.stdout, re.M)) == 1
    assert done.stdout.count("] ran-base\n") == 1
    assert "not consumed" not in done.stderr  # the base stage has no use for V, but the targets have
    assert [line.split("\t")[0] for line in done.stdout.splitlines() if "\t" in line] == [
        "app-1",
        "app-2",
        "app-3",
        "on",
    ]
    config = builda("image", "inspect", "--tls-verify=false", "--config", f"docker://{server.name('bake/app:2')}")
    assert "ran-app" in config


@pytest.mark.long
def test_independent_stages_of_one_build_are_jobs_of_their_own(
    far: Builda,  # noqa: F811
    there: Cluster,  # noqa: F811
    context: Path,
    server: Registry,
    base_there: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    (context / "Dockerfile").write_text(
        f"""FROM {base_there} AS a
RUN echo ran-a > /a; cat /a
FROM {base_there} AS b
RUN echo ran-b > /b; cat /b
FROM {base_there}
COPY --from=a /a /
COPY --from=b /b /
RUN cat /a /b
"""
    )
    options = ("--jobs", "2", "-t", server.name("stages/app:1"), "--iidfile", tmp_path / "id")
    done = far.run(*BUD, *options, context)
    assert len(there.of("jobs")) == 3
    for name in ("a", "b"):
        assert len(re.findall(rf"^\[stage:{name} [12]/3\] ran-{name}$", done.stdout, re.M)) == 1
        assert len(re.findall(rf"ran-{name}$", done.stdout, re.M)) == 2  # and once in the last stage
    assert (tmp_path / "id").read_text().startswith("sha256:")


def test_a_failing_target_takes_the_jobs_of_the_others_along(
    far: Builda,  # noqa: F811
    there: Cluster,  # noqa: F811
    context: Path,
    server: Registry,
    base_there: str,  # noqa: F811
) -> None:
    (context / "Dockerfile").write_text(
        f"FROM {base_there} AS long\nRUN sleep 100\nFROM {base_there} AS bad\nRUN exit 7\n"
    )
    write(
        context,
        {
            "group": {"default": {"targets": ["long", "bad"]}},
            "target": {name: {"target": name, "tags": [server.name(f"fails/{name}:1")]} for name in ("long", "bad")},
        },
    )
    done = far.run(*BAKE, cwd=context, check=False)
    assert done.returncode == 7
    assert "Error: Dockerfile:4: target bad: command failed with exit status 7: RUN exit 7" in done.stderr
    assert not there.of("jobs")
    assert not there.of("secrets")


@pytest.mark.long
def test_a_matrix_is_built_in_the_cluster_and_a_target_for_two_platforms(
    far: Builda,  # noqa: F811
    builda: Builda,
    there: Cluster,  # noqa: F811
    context: Path,
    server: Registry,
) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nARG V\nCOPY given /\nENV V=$V\n")
    (context / "matrix.yaml").write_text("axes: {V: [1, 2]}\n")
    name = server.name("matrix/app")
    options = ("-q", "--matrix", "matrix.yaml", "--platform", "linux/amd64,linux/arm64", "-t", f"{name}:${{V}}", ".")
    done = far.run(*BUD, *options, cwd=context)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["1", "2"]
    index = builda("image", "inspect", "--tls-verify=false", f"docker://{name}:2", "--raw")
    assert len(json.loads(index)["manifests"]) == 2
    nodes = {pod["spec"]["nodeName"] for pod in there.of("pods").values()}
    assert nodes == {"node-amd64", "node-arm64"}


def test_what_a_pod_cannot_have_is_refused_before_any_job(
    far: Builda,  # noqa: F811
    there: Cluster,  # noqa: F811
    context: Path,
) -> None:
    write(context, {"target": {"default": {"tags": ["local"]}}})
    assert "pushed to a registry, which the name lacks: local" in far.run(*BAKE, cwd=context, check=False).stderr
    write(context, {"target": {"default": {"output": ["out"]}}})
    assert "--output cannot be used with --on" in far.run(*BAKE, cwd=context, check=False).stderr
    assert not there.of("jobs")


@pytest.fixture
def simulated() -> Iterator[Simulated]:
    """A cluster whose pods only write that they have built."""
    digest = Digest.of(b"image")
    image = ImageBuilt(id=digest, digest=digest, names=(), cached=False, seconds=0.0)
    frames: tuple[Frame, ...] = (BuildStarted(stages=1, steps=1), image, Closed("built"), Ended(None))
    with cluster(Simulated) as made:
        assert isinstance(made, Simulated)
        made.lines = tuple(to_line(number, frame).encode() + b"\n" for number, frame in enumerate(frames, 1))
        yield made


def many(builda: Builda, there: Cluster, directory: Path, server: Registry, count: int) -> Builda:  # noqa: F811
    """builda for a bake of so many targets that share a stage."""
    (directory / "Dockerfile").write_text("FROM scratch AS base\nCOPY given /\nFROM base\nARG V\nENV V=$V\n")
    (directory / "given").write_text("")
    app = {"matrix": {"v": [f"{n}" for n in range(count)]}, "name": "app-${v}", "args": {"V": "${v}"}}
    app["tags"] = [f"{server.name('many/app')}:${{v}}"]
    write(directory, {"target": {"app": app}})
    environ = {"KUBECONFIG": str(there.directory / "kubeconfig"), "BUILDA_ON": "kubernetes"}
    return replace(builda, environ={**environ, "BUILDA_BUILDER_IMAGE": IMAGE})


def test_requests_do_not_grow_with_the_time_that_builds_wait(
    builda: Builda, simulated: Simulated, tmp_path: Path, server: Registry
) -> None:
    simulated.slots, simulated.seconds = 5, 0.2
    done = many(builda, simulated, tmp_path, server, 30).run(*BAKE, "-q", "app", cwd=tmp_path)
    assert len(done.stdout.splitlines()) == 30
    jobs = sum(request.endswith("/jobs") and request.startswith("POST") for request in simulated.requests)
    assert jobs == 31  # and one of the base stage
    own = [request for request in simulated.requests if not request.endswith(("/events", "/pods", "/jobs"))]
    assert len(own) == 2 * jobs + 2  # a Secret and a log for each, the version and the namespace for all


@pytest.mark.long
def test_watches_that_break_are_begun_again_for_all(
    builda: Builda, simulated: Simulated, tmp_path: Path, server: Registry
) -> None:
    simulated.faults.gone, simulated.faults.refusals, simulated.seconds = 3, 5, 0.2
    done = many(builda, simulated, tmp_path, server, 8).run(*BAKE, "-q", "app", cwd=tmp_path)
    assert len(done.stdout.splitlines()) == 8


def test_a_job_that_somebody_deletes_ends_the_bake(
    builda: Builda, simulated: Simulated, tmp_path: Path, server: Registry
) -> None:
    simulated.seconds = 5.0

    def delete(pod: Object) -> None:
        simulated.delete("jobs", "default", pod["metadata"]["labels"]["batch.kubernetes.io/job-name"])

    simulated.faults.on_log = (b"build_started", delete)
    done = many(builda, simulated, tmp_path, server, 2).run(*BAKE, "app", cwd=tmp_path, check=False)
    assert "Job is gone, somebody deleted it" in done.stderr
    assert not simulated.of("jobs")


def test_the_role_of_the_example_allows_what_was_asked(there: Cluster) -> None:  # noqa: F811
    """After the builds above; a request for a list may be a watch, so that the role has both."""
    path = Path(__file__).parents[2] / "examples/kubernetes/cluster-rbac.yaml"
    role = next(one for one in yaml.safe_load_all(path.read_text()) if one["kind"] == "Role")
    allowed = {(name, verb) for rule in role["rules"] for name in rule["resources"] for verb in rule["verbs"]}
    asked = set()
    for request in there.requests:
        method, _, path_ = request.partition(" ")
        found = re.search(r"/namespaces/[^/]+(?:/([a-z]+)(?:/([^/]+)(?:/([a-z]+))?)?)?$", path_)
        if found is None:
            continue
        kind, name, part = found.groups()
        verbs = {"POST": ["create"], "DELETE": ["delete"], "GET": ["get"] if name or not kind else ["list", "watch"]}
        resource = f"{kind}/{part}" if part else kind or "namespaces"
        asked |= {(resource, verb) for verb in verbs[method]}
    assert asked - {("events", "watch")} <= allowed
    assert {("jobs", "watch"), ("pods", "watch"), ("secrets", "create"), ("pods/log", "get")} <= asked
