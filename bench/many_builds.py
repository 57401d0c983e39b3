"""Many builds at once: how often a shared stage is built, how long it takes, and how many requests each build makes.

    python -m bench.many_builds cluster [TARGETS]      builds by podsim on the stand-in for a cluster
    python -m bench.many_builds simulated TARGETS ...  same client and API server; pods write what such a pod wrote
    python -m bench.many_builds local [TARGETS]        on this machine, without a cluster

The targets have a base stage in common that takes two seconds, and a stage of their own that takes a fifth of one. The
two nodes run one pod each at a time. The bound is what the pods themselves take: the base stage's pod, then the others
side by side. A simulated pod lasts for the time that is written in SECONDS.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import Builda, clean_environ
from tests.support import cluster as standin
from tests.support.base_images import busybox_tree
from tests.support.registry import Registry, registry

FILE = """FROM BASE AS base
RUN sleep 2; echo ran-base | tee /base
FROM base
ARG V
RUN sleep 0.2; echo $V > /v
"""
SECONDS = 5.0
SIMULATED_SLOTS = 50


def main() -> None:
    """Print one table."""
    kind, *numbers = sys.argv[1:] or ["cluster"]
    counts = [int(number) for number in numbers] or [50]
    with world() as (server, builda, work):
        if kind == "local":
            _local(builda, work, counts[0])
        elif kind == "cluster":
            _cluster(server, builda, work, counts[0])
        else:
            lines = _cluster(server, builda, work, 3, quiet=True)
            for count in counts:
                _simulated(server, builda, work, count, lines)


@contextmanager
def world() -> Iterator[tuple[Registry, Builda, Path]]:
    """A registry with the base image `base/busybox:1`, builda with a store of its own, and a directory."""
    scratch = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=scratch) as place:
        work = Path(place)
        with registry() as server:
            builda = Builda(work / "store", work / "run")
            container = builda("from", "scratch")
            builda("add", "--quiet", container, busybox_tree(work / "tree"), "/")
            builda("config", "--env", "PATH=/bin", container)
            builda("commit", "-q", "--rm", container, "localhost/base:1")
            builda("push", "-q", "--tls-verify=false", "localhost/base:1", f"docker://{server.name('base/busybox:1')}")
            yield server, builda, work


def _written(work: Path, base: str, count: int, name: str) -> Path:
    context = work / f"context-{count}"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(FILE.replace("BASE", base))
    app = {
        "matrix": {"v": [str(number) for number in range(count)]},
        "name": "app-${v}",
        "args": {"V": "${v}"},
        "tags": [f"{name}:${{v}}"],
    }
    (context / "docker-bake.json").write_text(json.dumps({"target": {"app": app}}))
    return context


def _baked(builda: Builda, context: Path, options: tuple[str, ...], **environ: str) -> tuple[float, str]:
    began = time.monotonic()
    command = [*builda.command, "bake", "--tls-verify=false", "--progress=plain", *options, "app"]
    done = subprocess.run(
        command, cwd=context, env={**clean_environ(), **environ}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.monotonic() - began, done.stdout


def _local(builda: Builda, work: Path, count: int) -> None:
    context = _written(work, "localhost/base:1", count, "localhost/app")
    seconds, output = _baked(builda, context, ())
    bases = output.count("] ran-base\n")
    print(f"{count} targets on this machine: {seconds:.1f} s, the base stage built {bases} times")
    again, _ = _baked(builda, context, ())
    print(f"once more, with all of them remembered: {again:.1f} s")


def cluster_environ(there: standin.Cluster) -> dict[str, str]:
    """The variables with which builda builds in this cluster."""
    return {
        "KUBECONFIG": str(there.directory / "kubeconfig"),
        "BUILDA_ON": "kubernetes",
        "BUILDA_BUILDER_IMAGE": standin.IMAGE,
    }


def _cluster(server: Registry, builda: Builda, work: Path, count: int, *, quiet: bool = False) -> list[bytes]:
    """Build by podsim; the lines that the pod of a target wrote."""
    context = _written(work, server.name("base/busybox:1"), count, server.name(f"many-{count}/app"))
    before = _requests(server)
    with standin.cluster() as there:
        there.slots = 1
        seconds, _ = _baked(builda, context, (), **cluster_environ(there))
        requests = _kinds(there.requests)
        pods = {name: there.running[name] for name in there.of("pods")}
        stage = next(run for run in pods.values() if any(b"stage:" in line for _, line in run.lines))
        others = [run for run in pods.values() if run is not stage]
        bases = sum(
            b'"command_output"' in line and b"ran-base" in line for run in pods.values() for _, line in run.lines
        )
    after = _requests(server)
    if not quiet:
        base, rest = _time(stage), sum(map(_time, others))
        bound = base + rest / len(standin.NODES)
        print(
            f"{count} targets in a cluster of two nodes, one pod on each at a time: {len(pods)} pods, {seconds:.1f} s"
        )
        print(f"  the base stage: {base:.1f} s, built {bases} times; the others {rest / len(others):.1f} s each")
        print(f"  bound {bound:.1f} s, the time is {seconds / bound:.2f} of it")
        print(f"  API server: {sum(requests.values())} requests, {sum(requests.values()) / count:.1f} for each target")
        for kind, number in requests.most_common():
            print(f"    {number:5}  {kind}")
        print(f"  registry: {after - before} requests, {(after - before) / count:.1f} for each target")
    return [line for _, line in others[0].lines]


def _time(run: standin.Running) -> float:
    return run.times[1] - run.times[0]


def _requests(server: Registry) -> int:
    """How many requests the registry has answered."""
    return server.log().count("http.request.method")


def _kinds(requests: list[str]) -> Counter[str]:
    """Requests by method and kind of object."""
    found: Counter[str] = Counter()
    for request in requests:
        method, path = request.split(" ", 1)
        words = path.strip("/").split("/")
        at = words.index("namespaces") if "namespaces" in words else None
        kind = words[0] if at is None else "/".join(words[at + 2 : at + 3]) or "namespace"
        if words[-1] == "log":
            kind = "log"
        elif at is not None and len(words) > at + 3:
            kind += " (one)"
        found[f"{method} {kind}"] += 1
    return found


def _simulated(server: Registry, builda: Builda, work: Path, count: int, lines: list[bytes]) -> None:
    context = _written(work, server.name("base/busybox:1"), count, server.name(f"many-{count}/app"))
    before = _requests(server)
    with standin.cluster(standin.Simulated) as there:
        assert isinstance(there, standin.Simulated)
        there.lines, there.seconds, there.slots = tuple(lines), SECONDS, SIMULATED_SLOTS
        seconds, output = _baked(builda, context, (), **cluster_environ(there))
        requests = _kinds(there.requests)
    after = _requests(server)
    done = sum("\t" in line for line in output.splitlines())
    rows = ", ".join(f"{number} {kind}" for kind, number in requests.most_common())
    print(
        f"{count} targets, simulated, {2 * SIMULATED_SLOTS} pods at a time: {done} built, {seconds:.1f} s, API server "
        f"{sum(requests.values()) / count:.2f} requests for each ({rows}), registry {after - before} by the client"
    )


if __name__ == "__main__":
    main()
