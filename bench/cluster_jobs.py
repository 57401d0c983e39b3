"""What a build in a cluster costs beside a pod made by hand, and how long a large context takes to be sent again.

    python -m bench.cluster_jobs one [TIMES]        a build of one Job, and a Job by hand whose pod builds and pushes
    python -m bench.cluster_jobs context [FILES]    a context of which one file changed, through a registry

Both are on the tests' stand-in for a cluster, and its registry. The seconds are medians of five builds, or TIMES. A
context is timed with `--detach`, beside a context of one file: the difference is what its files cost.
"""

from __future__ import annotations

import base64
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.many_builds import cluster_environ, world
from tests.conftest import Builda, clean_environ
from tests.support import cluster as standin
from tests.support.registry import Registry

SETTLED = 3.0
"""Seconds after which a file that was written is not read again."""


def main() -> None:
    """Print one comparison."""
    kind, *numbers = sys.argv[1:] or ["one"]
    with world() as (server, builda, work):
        if kind == "one":
            _one(server, builda, work, int(numbers[0]) if numbers else 5)
        else:
            _context(server, builda, work, int(numbers[0]) if numbers else 20_000)


def _one(server: Registry, builda: Builda, work: Path, times: int) -> None:
    text = f"FROM {server.name('base/busybox:1')}\nRUN echo text > /file\nRUN cat /file\n"
    context = work / "context"
    context.mkdir()
    (context / "Containerfile").write_text(text)
    with standin.cluster() as there:
        ours, theirs = [], []
        for number in range(times + 1):
            ours.append(_built(builda, there, context, server.name(f"one/ours:{number}")))
            theirs.append(_by_hand(there, text, server.name(f"one/hand:{number}"), number))
    ours, theirs = ours[1:], theirs[1:]  # the first fills caches of files
    print(f"a build of one Job: {_range(ours)}; the same pod by hand: {_range(theirs)}")
    print(f"  the build costs {statistics.median(ours) - statistics.median(theirs):+.2f} s; the budget is 1.0 s")


def _range(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


def _built(builda: Builda, there: standin.Cluster, context: Path, name: str, *options: str) -> float:
    command = [*builda.command, "build", "--tls-verify=false", "--no-cache", *options, "-t", name, str(context)]
    began = time.monotonic()
    done = subprocess.run(
        command, env={**clean_environ(), **cluster_environ(there)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.monotonic() - began


def _by_hand(there: standin.Cluster, text: str, name: str, number: int) -> float:
    """Make the last build's Job with a command of its own, and its Secret with the context; wait for its end."""
    job = json.loads(json.dumps(list(there.of("jobs").values())[-1]))
    called = f"by-hand-{number}"
    job["metadata"], job["status"] = {"name": called, "labels": job["metadata"]["labels"]}, {}
    spec = job["spec"]["template"]["spec"]
    for volume in spec["volumes"]:
        if "secret" in volume:
            volume["secret"]["secretName"] = called
    words = f"builda bud --tls-verify=false --no-cache -t {name} /builda/given"
    spec["containers"][0]["command"] = ["sh", "-c", f"{words} && builda push --tls-verify=false {name}"]
    data = {"Containerfile": base64.b64encode(text.encode()).decode()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": called}, "type": "Opaque", "data": data}
    began = time.monotonic()
    for kind, one in (("jobs", job), ("secrets", secret)):
        code, said = there.create(kind, "default", one)
        if code != 201:
            raise SystemExit(str(said))
    while not there.of("jobs")[called]["status"].get("conditions"):
        time.sleep(0.01)
    seconds = time.monotonic() - began
    pod = next(pod for pod in there.of("pods") if pod.startswith(called))
    if not there.of("jobs")[called]["status"].get("succeeded"):
        raise SystemExit(b"".join(line for _, line in there.running[pod].lines).decode())
    return seconds


def _context(server: Registry, builda: Builda, work: Path, files: int) -> None:
    for name, count in (("small", 1), ("large", files)):
        for number in range(count):
            path = work / name / f"d{number // 200}" / f"f{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"text {number}\n" * 200)
        (work / name / "Containerfile").write_text("FROM scratch\nCOPY . /\n")
    with standin.cluster(standin.Simulated) as there:
        seconds: dict[str, list[float]] = {"small": [], "large": []}
        for turn in range(6):
            time.sleep(SETTLED)
            for name, found in seconds.items():
                (work / name / "d0/f0").write_text(f"turn {turn}\n")
                found.append(_built(builda, there, work / name, server.name(f"context/{name}:1"), "--detach"))
    small, large = (statistics.median(found[1:]) for found in seconds.values())
    print(f"{files} files sent at first: {seconds['large'][0]:.2f} s with start and Job")
    print(f"one of them changed: {large:.2f} s with start and Job; a context of one file {small:.2f} s")
    print(f"  the files cost {large - small:+.2f} s; the budget is 0.5 s")


if __name__ == "__main__":
    main()
