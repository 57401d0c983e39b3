"""Builds as Jobs, in a stand-in for a cluster whose pods podsim runs: what they print, and what is left of them."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from tests.conftest import Builda, clean_environ
from tests.support import needs
from tests.support.cluster import IMAGE, Cluster, Object, cluster
from tests.support.realcluster import real_cluster
from tests.support.registry import Answer, Registry, free_port, scripted

pytestmark = [
    pytest.mark.root,
    pytest.mark.network,
    needs.program("crun", "runc"),
]


class Names(Protocol):
    """A registry that builds push to."""

    def name(self, path: str) -> str:
        """The name of an image in it."""


@pytest.fixture(scope="module")
def there() -> Iterator[Cluster]:
    """The stand-in, for tests that look into it or have it fail."""
    if real_cluster() is not None:
        pytest.skip("faults are the stand-in's, not a real cluster's")
    with cluster() as made:
        yield made


@pytest.fixture(scope="module")
def names(request: pytest.FixtureRequest) -> Names:
    """The registry that the cluster and this machine share."""
    found: Names = real_cluster() or request.getfixturevalue("server")
    return found


@pytest.fixture(scope="module")
def base_there(tmp_path_factory: pytest.TempPathFactory, busybox: Path, names: Names) -> str:
    """The name of busybox in the registry."""
    work = tmp_path_factory.mktemp("pushed")
    name = names.name("base/busybox:latest")
    Builda(work / "store", work / "run")(
        "image", "copy", "--dest-tls-verify=false", f"oci-archive:{busybox}:busybox", f"docker://{name}"
    )
    return name


@pytest.fixture
def far(builda: Builda, request: pytest.FixtureRequest) -> Builda:
    """builda whose builds are in the cluster: the stand-in, or the one that BUILDA_TEST_KUBECONFIG names."""
    real = real_cluster()
    if real is not None:
        return replace(builda, environ=dict(real.environ))
    there: Cluster = request.getfixturevalue("there")
    environ = {
        "KUBECONFIG": str(there.directory / "kubeconfig"),
        "BUILDA_ON": "kubernetes",
        "BUILDA_BUILDER_IMAGE": IMAGE,
    }
    return replace(builda, environ=environ)


BUD = ("bud", "--tls-verify=false")


@pytest.fixture
def context(tmp_path: Path, base_there: str) -> Path:
    made = tmp_path / "context"
    made.mkdir()
    (made / "given").write_text("some text\n")
    (made / ".dockerignore").write_text("left-out\n")
    (made / "left-out").write_text("nothing\n")
    (made / "Containerfile").write_text(
        f'FROM {base_there}\nCOPY . /srv/\nRUN cat /srv/given; echo err >&2; test ! -e /srv/left-out\nCMD ["sh"]\n'
    )
    return made


# Builds that are to be seen as local ones: Containerfile and options. `{base}` is an image.
SAMPLE: dict[str, tuple[str, tuple[str, ...]]] = {
    "plain": ('FROM {base}\nCOPY . /srv/\nRUN cat /srv/given; test ! -e /srv/left-out\nCMD ["sh"]\n', ()),
    "stages": (
        "ARG V=1\nFROM {base} AS a\nARG V\nRUN echo $V > /a\nFROM scratch AS b\nCOPY given /b\n"
        "FROM {base}\nCOPY --from=a /a /a\nCOPY --from=b /b /b\nRUN <<EOF\ncat /a /b\nEOF\n",
        ("--build-arg", "V=two", "--label", "l=a,b c", "--env", "E=x"),
    ),
    "fails": ("FROM {base}\nRUN echo last words; exit 7\n", ()),
    "syntax": ("FROM {base}\nRUN true\nRUNN false\n", ()),
    "no-source": ("FROM scratch\nCOPY missing /\n", ()),
    "no-base": ("FROM {base}-of-nobody\nRUN true\n", ("--retry", "0")),
    "no-stage": ("FROM {base} AS a\n", ("--target", "b")),
    "quiet": ("FROM {base}\nRUN echo said\n", ("--quiet",)),
    "squashed": ("FROM {base}\nRUN touch /x\n", ("--squash", "--annotation", "a=b", "--format", "docker")),
    "warned": ("FROM {base} as a\nARG UNSET\nRUN echo $UNKNOWN ${UNSET:-}\n", ()),
    "output": ("FROM scratch\nCOPY given /\n", ("-o", "type=registry,name={name}-too")),
    "secret": (
        "FROM {base}\nRUN --mount=type=secret,id=s,env=S echo ${#S}\nRUN --mount=type=tmpfs,target=/t df /t | wc -l\n",
        ("--secret", "id=s,src={context}/given"),
    ),
    "named": (
        "FROM {base}\nCOPY --from=more given /m\nADD --chown=7:8 given /n\nRUN stat -c %u:%g /n\n",
        ("--build-context", "more={context}"),
    ),
    "config": (
        "FROM {base}\nUSER 7:8\nWORKDIR /w\nVOLUME /v\nEXPOSE 80/tcp\nSTOPSIGNAL 9\nHEALTHCHECK CMD true\n"
        'SHELL ["sh", "-e", "-c"]\nENTRYPOINT ["a"]\nCMD ["b"]\nLABEL a="b c"\nMAINTAINER me\n',
        ("--format", "docker"),
    ),
    "copies": (
        "FROM {base} AS a\nRUN mkdir -p /d/e && echo x > /d/e/f && ln -s f /d/e/l\nFROM {base}\n"
        "COPY --chmod=600 --chown=7:8 given /g\nCOPY --from=a --exclude=l /d /d\nCOPY --link given /h/\n"
        "COPY <<EOF /i\ntext\nEOF\nRUN stat -c '%a %u %g' /g; find /d /h; cat /i\n",
        (),
    ),
    "mounts": (
        "FROM {base} AS a\nRUN echo x > /x\nFROM {base}\nRUN --mount=type=bind,from=a,source=/x,target=/x cat /x\n"
        "RUN --mount=type=bind,source=given,target=/g cat /g\n",
        (),
    ),
    "target": ("FROM {base} AS a\nRUN echo a\nFROM {base} AS b\nRUN false\n", ("--target", "a")),
    "tags": ("FROM scratch\nCOPY given /\n", ("-t", "{name}-b", "--label", "x=y", "--unsetlabel", "z")),
    "fails-later": ("FROM {base}\nRUN echo one\nRUN <<EOF\necho two\nexit 3\nEOF\nRUN echo three\n", ()),
    "from-arg": ("ARG BASE={base}\nFROM $BASE\nARG X=1\nENV Y=$X\nRUN echo $Y\n", ("--build-arg", "X=2")),
    "no-layers": ("FROM {base}\nRUN echo a > /a\nRUN cat /a\n", ("--layers=false",)),
    "no-network": (
        "FROM {base}\nRUN --network=none ls /sys/class/net\nRUN --network=host true\n",
        ("--allow", "network.host"),
    ),
    "caches": (
        "FROM {base}\nWORKDIR /w\nRUN --mount=type=bind cat given\nRUN --mount=type=cache touch kept\n"
        "RUN --mount=type=cache ls\nRUN --mount=type=cache,target=/u,uid=7,gid=8,mode=0750 stat -c '%u %g %a' /u\n",
        (),
    ),
    "own-copy": (
        "FROM {base}\nUSER 77:88\nRUN --mount=type=bind,target=/x,U stat -c '%u:%g %n' /x /x/given\n"
        "RUN --mount=type=bind,target=/x,U=true,rw touch /x/new && stat -c '%u %n' /x/new\n",
        (),
    ),
    "heredocs": (
        "FROM {base}\nENV V=v\nRUN cat << EOF > /x\nblank $V\nEOF\nRUN cat <<\\EOF > /y\nraw $V\nEOF\n"
        'RUN <<E"O"F\necho quoted $V\nEOF\nCOPY <<A <<"B" /d/\none $V\nA\ntwo $V\nB\n'
        "RUN cat /x /y /d/A /d/B; echo $((1 << 2))\n",
        (),
    ),
    "users": (
        "FROM scratch AS made\nUSER root\nWORKDIR /root-made\nUSER ghost\nWORKDIR /ghost\n"
        "COPY --chown=root:root given /f\nCOPY --chown=9:root given /g\n"
        "FROM {base}\nUSER root\nRUN --mount=from=made,target=/m stat -c '%u:%g %n' /m/*\n",
        (),
    ),
    "no-user": ("FROM {base}\nUSER ghost\nRUN true\n", ()),
    "between": (
        'FROM {base} AS a\nRUN true\nUSER 7\nENV A=a\nARG B=b\nRUN echo "$A $B of $(id -u)"\n'
        'FROM a\nWORKDIR /w\nENV C=c\nRUN echo "$A $B $C of $(id -u) in $PWD"\n',
        (),
    ),
    "many-stages": (
        "FROM {base} AS s0\nEXPOSE 1-500/udp\n"
        + "".join(f"FROM s{n} AS s{n + 1}\nENV V{n}=1\n" for n in range(40))
        + "LABEL last=1\n",
        ("--quiet",),
    ),
    "platform": ("FROM --platform=$BUILDPLATFORM {base}\nCOPY given /\n", ("--platform", "linux/arm64")),
    "epoch": (
        "FROM {base}\nARG SOURCE_DATE_EPOCH\nRUN echo epoch=$SOURCE_DATE_EPOCH. > /e; cat /e\n",
        ("--build-arg", "SOURCE_DATE_EPOCH=7", "--rewrite-timestamp"),
    ),
    "secret-forms": (
        "FROM {base}\nRUN --mount=type=secret,target=/run/secrets/s,required cat /run/secrets/s\n"
        "RUN --mount=type=secret,id=s,uid=7,gid=8,mode=0440 stat -c '%u %g %a' /run/secrets/s\n"
        "RUN --mount=type=secret,id=none,required true\n",
        ("--secret", "id=s,src={context}/given"),
    ),
    "triggers": (
        "FROM {base} AS a\nONBUILD RUN echo triggered\nONBUILD COPY given /g\nFROM a\nRUN cat /g\n",
        ("--format", "docker"),
    ),
    "limits": (
        "FROM {base}\nRUN ulimit -n; grep named /etc/hosts; df -k /dev/shm | tail -n 1 | awk '{print $2}'\n",
        ("--ulimit", "nofile=100:200", "--add-host", "named:10.1.2.3", "--shm-size", "1m"),
    ),
    "unused": (
        "FROM {base} AS a\nRUN echo unused\nFROM {base} AS b\nRUN echo used\n",
        ("--skip-unused-stages=false", "--jobs", "1"),
    ),
    "ignored": ("FROM scratch\nCOPY . /\n", ("--ignorefile", "{context}/.dockerignore")),
    "sbom": ("FROM {base}\nCOPY given /\n", ("--sbom", "true", "--sbom-image-output", "/sbom.json")),
    "provenance": ("FROM {base}\nCOPY given /\n", ("--provenance", "mode=max")),
    "other-base": ("FROM nowhere/none\nRUN echo $A\n", ("--from", "{base}", "--env", "A=a")),
    "unset": (
        "FROM {base}\nENV A=1 B=2\nLABEL c=3 d=4\nENTRYPOINT a\nCMD b c\nARG X\nRUN echo $A${X-unset}\n",
        ("--unsetenv", "A", "--unsetlabel", "c", "--env", "E=f", "--identity-label=false"),
    ),
}
IN_CI = frozenset({"plain", "stages", "fails", "syntax", "output"})


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in IN_CI else pytest.mark.long) for case in sorted(SAMPLE)]
)
def test_a_build_is_seen_as_a_local_one(
    builda: Builda, far: Builda, context: Path, base_there: str, names: Names, tmp_path: Path, case: str
) -> None:
    """Output, status, error with its place, identity and events of a build on this machine and in the cluster."""
    text, options = SAMPLE[case]
    name = names.name(f"app/{case}:1")
    (context / "Containerfile").write_text(text.replace("{base}", base_there))
    meant = {"{name}": name, "{context}": str(context), "{base}": base_there}
    given = [re.sub(r"\{\w+\}", lambda found: meant[found[0]], option) for option in options]

    def seen(one: Builda, called: str) -> tuple[object, ...]:
        files = {"iidfile": tmp_path / f"{called}.id", "metadata": tmp_path / f"{called}.json"}
        events = tmp_path / f"{called}.events"
        with events.open("wb") as file:
            done = one.run(
                *("--events", str(file.fileno()), *BUD, "--timestamp", "0", "-t", name, *given),
                *("--iidfile", files["iidfile"], "--metadata-file", files["metadata"], context),
                check=False,
                pass_fds=(file.fileno(),),
            )
        error = done.stderr[done.stderr.index("Error:") :] if "Error:" in done.stderr else ""
        written = {called: path.read_text() if path.exists() else None for called, path in files.items()}
        return done.returncode, done.stdout, error, written, what_happened(events)

    here, away = seen(builda, "here"), seen(far, "away")
    assert away == here, away[2]


def what_happened(events: Path) -> list[tuple[object, ...]]:
    """The events of a build but for bytes that move, which differ by the places that have them already."""
    found = [json.loads(line) for line in events.read_text().splitlines()]
    moved = ("blob_progress", "image_moved", "work_progress")
    kept = [one for one in found if one["event"] not in moved and not one.get("cached")]
    output = "".join(one["data"] for one in kept if one["event"] == "command_output")  # in pieces as they were read
    layers = [one for one in kept if one["event"] == "layer_stored"]  # which others do not wait for
    rest = [one for one in kept if one["event"] not in ("command_output", "layer_stored")]
    said = [(one["event"], one.get("text"), one.get("line"), one.get("message")) for one in rest]
    return [*said, ("command_output", output), ("layer_stored", len(layers))]


def jobs(there: Cluster) -> list[str]:
    return list(there.of("jobs"))


def steps(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("STEP")]


def test_streams_break_while_the_server_is_away_and_no_line_is_lost_or_shown_twice(
    far: Builda, there: Cluster, context: Path, server: Registry
) -> None:
    file = context / "Containerfile"
    file.write_text(file.read_text() + "RUN for i in $(seq 200); do echo line $i; done\n")
    there.faults.cuts, there.faults.refusals, there.faults.gone = 3, 4, 2
    done = far.run(*BUD, "-t", server.name("app/cut:1"), context)
    assert (there.faults.cuts, there.faults.refusals) == (0, 0)
    assert re.findall(r"^line (\d+)$", done.stdout, re.M) == [str(number) for number in range(1, 201)]


def remove(there: Cluster, pod: Object) -> None:
    """Somebody deletes the pod."""
    there.delete("pods", "default", pod["metadata"]["name"])


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Cluster.evict, "TerminationByKubelet: The node was low on resource"),
        (remove, "it was deleted"),
        (Cluster.lose_node, "DeletionBy(TaintManager: Taint manager|PodGC: PodGC: node no longer exists)"),
        (Cluster.kill_for_memory, r"OOMKilled \(exit status 137\)"),
    ],
    ids=["evicted", "deleted", "node", "memory"],
)
def test_a_pod_that_is_lost_is_built_again_by_another(
    far: Builda,
    there: Cluster,
    context: Path,
    server: Registry,
    fault: Callable[[Cluster, Object], None],
    words: str,
) -> None:
    file = context / "Containerfile"
    file.write_text(file.read_text() + "RUN echo reached; sleep 8\n")  # longer than the 3 s of grace
    there.faults.on_log = (b'"reached', lambda pod: fault(there, pod))
    done = far.run(*BUD, "-t", server.name("app/lost:1"), context)
    assert re.search(f"did not finish: {words}", done.stderr)
    assert ("is lost: DeletionByTaintManager: Taint manager" in done.stderr) == (fault is Cluster.lose_node)
    assert len(steps(done.stdout)) == 10
    assert "Successfully tagged" in done.stdout


def test_a_registry_that_is_away_has_the_job_try_again_and_fails_as_it_does_here(
    builda: Builda, far: Builda, there: Cluster, context: Path, server: Registry
) -> None:
    (context / "Containerfile").write_text(f"FROM 127.0.0.1:{free_port()}/base\n")
    options = ("--retry", "0", "--context-via", server.name("app/context"))
    here = builda.run(*BUD, *options[:2], context, check=False)
    away = far.run(*BUD, *options, "--job-retries", "1", "--job-label", "case=away", context, check=False)
    assert away.stderr[away.stderr.index("Error:") :] == here.stderr[here.stderr.index("Error:") :]
    assert away.stderr.count("did not finish") == 2
    pods = [pod for pod in there.of("pods").values() if pod["metadata"]["labels"].get("case") == "away"]
    ended = [pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] for pod in pods]
    assert ended == [75, 75]


def test_a_registry_that_is_busy_or_broken_has_the_job_try_again(
    builda: Builda, far: Builda, there: Cluster, context: Path, server: Registry
) -> None:
    def pods() -> int:
        return sum(pod["metadata"]["labels"].get("case") == "busy" for pod in there.of("pods").values())

    with scripted(lambda asked: Answer(429 if pods() == 1 else 500)) as broken:
        (context / "Containerfile").write_text(f"FROM {broken.address}/base\n")
        options = ("--retry", "0", "--context-via", server.name("app/context"))
        here = builda.run(*BUD, *options[:2], context, check=False)
        away = far.run(*BUD, *options, "--job-retries", "1", "--job-label", "case=busy", context, check=False)
    first, second = (line for line in away.stderr.splitlines() if "did not finish" in line)
    assert "429" in first
    assert "500" in second
    assert away.stderr[away.stderr.index("Error:") :] == here.stderr[here.stderr.index("Error:") :]


def test_a_build_waits_while_a_quota_is_used_up(
    far: Builda, there: Cluster, context: Path, server: Registry, tmp_path: Path
) -> None:
    words = 'pods "x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=3, limited: pods=3'
    there.faults.quota = words
    command = [*far.command, *BUD, "-t", server.name("app/quota:1"), str(context)]
    said = tmp_path / "said"
    with said.open("wb") as error:
        process = subprocess.Popen(
            command, env={**clean_environ(), **far.environ}, stdout=subprocess.PIPE, stderr=error, text=True
        )
    try:
        deadline = time.monotonic() + 100
        while (
            f"cluster makes no pod for now: Error creating: {words}" not in said.read_text()
            and time.monotonic() < deadline
        ):
            time.sleep(0.05)
    finally:
        there.faults.quota = None
        printed, _ = process.communicate(timeout=120)
    assert f"cluster makes no pod for now: Error creating: {words}" in said.read_text()
    assert "Successfully tagged" in printed


def test_a_job_that_somebody_deletes_ends_the_build(
    far: Builda, there: Cluster, context: Path, server: Registry
) -> None:
    file = context / "Containerfile"
    file.write_text(file.read_text() + "RUN echo reached; sleep 60\n")

    def delete(pod: dict[str, object]) -> None:
        there.delete("jobs", "default", jobs(there)[-1])

    there.faults.on_log = (b'"reached', delete)
    said = far.fails(*BUD, "-t", server.name("app/deleted:1"), context)
    assert "Job is gone, somebody deleted it: builda-deleted-" in said
    assert not there.left("deleted")


def test_policies_refuse_pods_in_their_own_words(far: Builda, there: Cluster, context: Path, server: Registry) -> None:
    there.faults.quota = 'pods "x" is forbidden: denied by policy.example.org: no builds on Fridays'
    try:
        said = far.fails(*BUD, "-t", server.name("app/refused:1"), context)
    finally:
        there.faults.quota = None
    assert "cluster refuses the pod of the build: " in said
    assert "no builds on Fridays" in said
    assert not any("refused" in name for name in jobs(there))


def test_an_image_that_cannot_be_pulled_ends_the_build(
    far: Builda, there: Cluster, context: Path, server: Registry
) -> None:
    said = far.fails(*BUD, "--builder-image", "registry.example.org/none", "-t", server.name("app/none:1"), context)
    assert 'pod of the build does not begin: ErrImagePull: failed to pull image "registry.example.org/none"' in said
    assert "hint: --builder-image" in said
    assert not any("none" in name for name in jobs(there))


def test_a_detached_build_is_watched_later_and_leaves_nothing(
    far: Builda, there: Cluster, context: Path, server: Registry, tmp_path: Path
) -> None:
    files = ("--metadata-file", tmp_path / "meant-for-attach")
    name = far(*BUD, "--detach", *files, "-t", server.name("app/later:1"), context)
    assert name in far("cluster", "ls", "-q").split()
    assert there.of("secrets")[name]["metadata"]["ownerReferences"][0]["name"] == name
    done = far.run(
        "bud",
        "--attach",
        name,
        "--iidfile",
        tmp_path / "id",
        "--metadata-file",
        tmp_path / "m",
        "--report",
        tmp_path / "r",
    )
    assert json.loads((tmp_path / "m").read_text())
    assert (
        f"--report was not among the options when the Job was made, so it is not written: {tmp_path}/r" in done.stderr
    )
    assert len(steps(done.stdout)) == 4
    assert (tmp_path / "id").read_text().startswith("sha256:")
    there.of("jobs")[name]["spec"]["ttlSecondsAfterFinished"] = 0
    with there.changed:
        assert there.changed.wait_for(lambda: name not in there.of("jobs"), 60)
    assert not there.left(name)


def test_a_restricted_namespace_gets_the_pod_that_it_admits(
    far: Builda, there: Cluster, context: Path, server: Registry
) -> None:
    labels = there.namespaces["default"]["metadata"]["labels"]
    labels["pod-security.kubernetes.io/enforce"] = "restricted"
    try:
        found = far("cluster", "check")
        assert "PodSecurity: restricted\n" in found
        assert "rights: all that builds need\n" in found
        assert "best kind of pod: traced\n" in found
        assert re.search(r"a build of three lines: \d+\.\d\ds", found)
        assert not there.left("builda-check")
        (context / "Containerfile").write_text("FROM scratch\nCOPY given /\n")
        done = far.run(*BUD, "-t", server.name("app/restricted:1"), context)
    finally:
        labels.clear()
    assert "Successfully tagged" in done.stdout


def test_a_level_that_no_label_says_is_learnt_from_the_first_pod(
    far: Builda, there: Cluster, context: Path, server: Registry
) -> None:
    (context / "Containerfile").write_text("FROM scratch\nCOPY given /\n")
    there.enforced = "baseline"
    try:
        found = far("cluster", "check")
        done = far.run(*BUD, "-t", server.name("app/enforced:1"), context)
    finally:
        there.enforced = "privileged"
    assert "PodSecurity: baseline, which the namespace's labels do not say; best kind of pod: chroot\n" in found
    assert "Successfully tagged" in done.stdout
    assert "refuse" not in done.stderr
    assert len([name for name in jobs(there) if "enforced" in name]) == 1
    assert not there.left("builda-check")


def test_a_check_says_which_rights_and_quotas_there_are(far: Builda, there: Cluster) -> None:
    near = replace(far, environ={name: value for name, value in far.environ.items() if "IMAGE" not in name})
    state = {"hard": {"pods": "10"}, "used": {"pods": "3"}}
    there.of("resourcequotas")["small"] = {"metadata": {"name": "small"}, "status": state}
    there.faults.forbidden = "/pods/exec"
    try:
        said = near("cluster", "check")
        there.faults.forbidden = "/jobs"
        missing = near.fails("cluster", "check")
    finally:
        there.faults.forbidden = ""
        del there.of("resourcequotas")["small"]
    assert "no right to get pods/exec: --context-via api is not possible\n" in said
    assert "no right to create pods/exec: --context-via api is not possible from Kubernetes 1.35 on\n" in said
    assert "quota small: pods 3 of 10\n" in said
    assert "--builder-image tries a build, too" in said
    assert "namespace default: create jobs, get jobs, list jobs, watch jobs, delete jobs" in missing


def test_secrets_are_in_no_argument_and_no_log(
    far: Builda, there: Cluster, context: Path, server: Registry, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("swordfish\n")
    file = context / "Containerfile"
    file.write_text(file.read_text() + "RUN --mount=type=secret,id=s grep -c fish /run/secrets/s\n")
    done = far.run(*BUD, "--secret", f"id=s,src={tmp_path}/secret", "-t", server.name("app/secret:1"), context)
    assert "\n1\n" in done.stdout
    job = next(found for name, found in there.of("jobs").items() if "secret" in name)
    pods = [found for name, found in there.of("pods").items() if "secret" in name]
    logs = b"".join(line for name, run in there.running.items() if "secret" in name for _, line in run.lines)
    assert "swordfish" not in json.dumps([job, pods]) + logs.decode()


def begun_and_signalled(far: Builda, there: Cluster, arguments: Sequence[object], number: int) -> tuple[int, str]:
    """Send the client a signal when its work is under way; its status, and the name of the Job."""
    found: list[str] = []
    process = subprocess.Popen(
        [*far.command, *map(str, arguments)],
        env={**clean_environ(), **far.environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def signalled(pod: Object) -> None:
        found.append(pod["metadata"]["labels"]["batch.kubernetes.io/job-name"])
        process.send_signal(number)

    there.faults.on_log = (b'"reached', signalled)
    return process.wait(120), found[0]


def test_an_interrupted_build_takes_its_job_along(far: Builda, there: Cluster, context: Path, server: Registry) -> None:
    file = context / "Containerfile"
    file.write_text(file.read_text() + "RUN echo reached; sleep 60\n")
    status, job = begun_and_signalled(
        far, there, (*BUD, "-t", server.name("app/interrupted:1"), context), signal.SIGTERM
    )
    assert status == 143
    assert not there.left(job)


@pytest.mark.parametrize("kind", ["jobs", "secrets"])
def test_a_build_that_is_interrupted_before_its_job_is_whole_leaves_none(
    far: Builda, there: Cluster, context: Path, server: Registry, kind: str
) -> None:
    command = [*far.command, *BUD, "-t", server.name("app/early:1"), str(context)]
    process = subprocess.Popen(command, env={**clean_environ(), **far.environ}, stderr=subprocess.DEVNULL)

    def signalled(made: Object) -> None:
        process.send_signal(signal.SIGTERM)
        time.sleep(1)

    there.faults.on_create = (kind, signalled)
    assert process.wait(60) == 143
    assert not there.left("builda-early")


def test_a_build_goes_on_without_its_client_and_is_watched_by_another(
    far: Builda, there: Cluster, context: Path, server: Registry
) -> None:
    file = context / "Containerfile"
    file.write_text(file.read_text() + "RUN echo reached; sleep 1; echo later\n")
    status, job = begun_and_signalled(far, there, (*BUD, "-t", server.name("app/killed:1"), context), signal.SIGKILL)
    assert status == -signal.SIGKILL
    done = far.run("bud", "--attach", job)
    assert done.stdout.count("later\n") == 2  # the step's line, and what it wrote
    assert "Successfully tagged" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--volume", "/x:/y"), "--volume cannot be used with --on"),
        (("--device", "/dev/fuse"), "--device cannot be used with --on"),
        (("--platform", "linux/amd64,linux/arm64", "-o", "out"), "--output cannot be used with --on but for"),
        (("--detach", "-o", "out"), "--output cannot be used with --detach"),
        (("--detach", "--iidfile", "id"), "--iidfile cannot be used with --detach"),
        (("--attach", "x"), "--tag cannot be used with --attach"),
        (("-o", "/proc/x"), "--output cannot be written"),
        (("-t", "local"), "pushed to a registry, which the name lacks: local"),
        (("--cache-mounts-to", "type=local,dir=x"), "directory of this machine cannot be used with --on"),
        (("--cache-mounts-to", "type=claim"), "--cache-mounts-to names no claim: type=claim"),
        (("--mount", "type=bind,src=/,target=/x"), "--mount cannot be used with --on"),
        (("--signature-policy", "policy.json"), "--signature-policy cannot be used with --on: the pod obeys"),
        (("--registries-conf-dir", "/x"), "--registries-conf-dir cannot be used with --on"),
        (("--ssh", "default"), "agent cannot be used with --on, only a key file can"),
    ],
)
def test_what_a_pod_cannot_have_is_refused(
    far: Builda, context: Path, server: Registry, options: tuple[str, ...], words: str
) -> None:
    assert words in far.fails("bud", "-t", server.name("app/no:1"), *options, context)


def test_the_pod_has_the_registries_that_an_option_says(
    builda: Builda, far: Builda, context: Path, names: Names, base_there: str, tmp_path: Path
) -> None:
    host, _, path = base_there.partition("/")
    conf = f'[[registry]]\nlocation = "{host}"\ninsecure = true\n'
    conf += f'[[registry]]\nprefix = "nowhere.example.org"\nlocation = "{host}"\ninsecure = true\n'
    (tmp_path / "registries.conf").write_text(conf)
    (context / "Containerfile").write_text(f"FROM nowhere.example.org/{path}\nRUN echo built\n")
    words = (
        "--registries-conf",
        tmp_path / "registries.conf",
        "bud",
        "--no-cache",
        "--timestamp=0",
        "-t",
        names.name("app/conf:1"),
        context,
    )
    assert far(*words) == builda(*words)
    (context / "s.sh").write_text(
        f"#!/bin/sh -e\nc=$(builda from nowhere.example.org/{path})\nbuilda run $c echo built\n"
    )
    (context / "s.sh").chmod(0o755)
    said = far(*words[:2], "session", "--context-via", names.name("app/conf"), "./s.sh", cwd=context)
    assert said == "built"


def test_options_of_the_cluster_mean_nothing_here(builda: Builda, context: Path) -> None:
    assert "--job-ttl is for builds in a cluster" in builda.fails("bud", "--job-ttl", "1s", context)


def test_two_platforms_are_built_on_their_nodes_and_give_the_index_of_a_local_build(
    builda: Builda, far: Builda, there: Cluster, context: Path, server: Registry
) -> None:
    (context / "Containerfile").write_text("FROM scratch\nCOPY given /\nENV A=b\n")
    options = ("--timestamp", "0", "--platform", "linux/amd64,linux/arm64")
    here = builda.run(*BUD, *options, "-t", server.name("app/two:1"), context)
    away = far.run(*BUD, *options, "-t", server.name("app/two:1"), context)
    assert set(away.stdout.splitlines()) == set(here.stdout.splitlines())
    assert away.stdout.splitlines()[-6:] == here.stdout.splitlines()[-6:]  # the last is the digest of the index
    nodes = {pod["spec"]["nodeName"] for name, pod in there.of("pods").items() if "builda-two" in name}
    assert nodes == {"node-amd64", "node-arm64"}
    pulled = builda("image", "inspect", "--tls-verify=false", f"docker://{server.name('app/two:1')}", "--raw")
    assert len(json.loads(pulled)["manifests"]) == 2


@pytest.mark.parametrize("platforms", ["linux/amd64,linux/riscv64", "linux/riscv64,linux/amd64"])
def test_a_platform_that_fails_takes_a_job_along_that_waits_for_a_node(
    far: Builda, there: Cluster, context: Path, server: Registry, platforms: str
) -> None:
    """No node is of that architecture, so that its pod never begins."""
    (context / "Containerfile").write_text(f"{context.joinpath('Containerfile').read_text()}RUN exit 7\n")
    done = far.run(*BUD, "--platform", platforms, "-t", server.name("app/waiting:1"), context, check=False)
    assert done.returncode == 7
    assert "command failed with exit status 7" in done.stderr
    assert "deleted" not in done.stderr
    assert not there.left("builda-waiting")


def test_an_interrupted_build_for_two_platforms_takes_both_jobs_along(
    far: Builda, there: Cluster, context: Path, server: Registry
) -> None:
    file = context / "Containerfile"
    file.write_text(file.read_text() + "RUN echo reached; sleep 60\n")
    words = (*BUD, "--platform", "linux/amd64,linux/riscv64", "-t", server.name("app/both:1"), context)
    status, _ = begun_and_signalled(far, there, words, signal.SIGINT)
    assert status == 130
    assert not there.left("builda-both")


def test_a_context_goes_through_the_api_again_if_the_stream_breaks(
    far: Builda, there: Cluster, context: Path, server: Registry
) -> None:
    there.faults.cut_execs = 6
    (context / "dir").mkdir()
    (context / "dir/link").symlink_to("../given")
    file = context / "Containerfile"
    file.write_text(file.read_text() + "RUN cat /srv/dir/link\n")
    done = far.run(*BUD, "--context-via", "api", "-t", server.name("app/api:1"), context)
    assert there.faults.cut_execs == 0
    assert "context did not reach pod builda-api-" in done.stderr
    assert done.stdout.count("some text\n") == 2


def test_several_contexts_go_through_the_api_once_each(
    far: Builda, there: Cluster, context: Path, server: Registry
) -> None:
    (context / "Containerfile").write_text("FROM scratch\nCOPY given /a\nCOPY --from=n given /b\n")
    before = len(there.requests)
    words = ("--context-via", "api", "--build-context", f"n={context}", "-t", server.name("app/several:1"))
    far.run(*BUD, *words, context)
    assert len([one for one in there.requests[before:] if one.endswith("/exec")]) == 2


def test_a_file_of_a_context_for_the_api_that_cannot_be_read_ends_the_build(
    far: Builda, there: Cluster, context: Path, server: Registry
) -> None:
    (context / "private").write_text("text\n")
    (context / "private").chmod(0)
    os.chown(context / "private", 7, 7)
    words = (*BUD, "--context-via", "api", "-t", server.name("app/unread:1"), str(context))
    command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *far.command, *words]
    done = subprocess.run(
        command, env={**clean_environ(), **far.environ}, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == f"Error: permission denied: {context}/private\n"
    assert not there.left("builda-unread")


def test_a_pod_that_replaces_another_gets_the_context_again(
    far: Builda, there: Cluster, context: Path, server: Registry
) -> None:
    file = context / "Containerfile"
    file.write_text(file.read_text() + "RUN echo reached; sleep 1\n")
    there.faults.on_log = (b'"reached', lambda pod: there.evict(pod))
    done = far.run(*BUD, "--context-via", "api", "-t", server.name("app/again:1"), context)
    assert done.stdout.count("some text\n") == 2
    assert "Successfully tagged" in done.stdout


def test_a_detached_build_leaves_when_its_pod_has_the_context(
    far: Builda, there: Cluster, context: Path, server: Registry
) -> None:
    name = far(*BUD, "--detach", "--context-via", "api", "-t", server.name("app/left:1"), context)
    assert "some text" in far("cluster", "logs", name)


def test_a_context_through_the_api_needs_the_right_to_it(
    far: Builda, there: Cluster, context: Path, server: Registry
) -> None:
    there.faults.forbidden = "/exec"
    try:
        said = far.fails(*BUD, "--context-via", "api", "-t", server.name("app/no:1"), context)
    finally:
        there.faults.forbidden = ""
    assert re.search(
        r'cluster refuses: pods "builda-no-\S+" is forbidden: User "alice" cannot get resource "pods/exec" in API', said
    )
    assert "the right to create and get pods/exec" in said
    assert not any("builda-no-" in name for name in jobs(there))


@pytest.fixture
def script(context: Path, base_there: str) -> Path:
    """A script in a directory; its arguments are the name of an image to push, and the status to end with."""
    path = context / "build.sh"
    path.write_text(
        f"""#!/bin/sh -e
echo "begun in $(basename "$PWD") with $GREETING"
echo to errors >&2
printf 'ümlaut without an end'
c=$(builda from --pull --tls-verify=false {base_there})
builda copy "$c" given /srv/
builda run "$c" cat /srv/given
test ! -e left-out
builda commit "$c" "$1"
builda push --tls-verify=false "$1" "docker://$1"
exit "$2"
"""
    )
    path.chmod(0o755)
    return path


SESSION = ("session", "--tls-verify=false", "--env", "GREETING=hello", "--trace")


def test_a_script_runs_in_a_session_there_and_pushes(
    far: Builda, there: Cluster, script: Path, server: Registry, tmp_path: Path
) -> None:
    name = server.name("app/scripted:1")
    options = (tmp_path / "trace.json", "--report", tmp_path / "report.html", "--context-via", server.name("app/c"))
    done = far.run(*SESSION, *options, "./build.sh", name, "0", cwd=script.parent)
    assert "begun in context with hello\n" in done.stdout
    assert "ümlaut without an end" in done.stdout
    assert "some text\n" in done.stdout
    assert "to errors\n" in done.stderr
    assert json.loads((tmp_path / "trace.json").read_text())
    assert "<title>build.sh" in (tmp_path / "report.html").read_text()
    assert far("image", "inspect", "--tls-verify=false", f"docker://{name}", "--raw")


def test_a_script_that_fails_pushes_nothing_and_its_status_is_ours(
    far: Builda, there: Cluster, script: Path, server: Registry, tmp_path: Path
) -> None:
    name = server.name("app/scripted:2")
    options = (tmp_path / "trace.json", "--context-via", "api", "--contextdir", script.parent)
    outside = tmp_path / "outside.sh"
    script.rename(outside)
    done = far.run(*SESSION, *options, outside, name, "7", check=False)
    assert done.returncode == 7
    assert "some text\n" in done.stdout
    assert (tmp_path / "trace.json").exists()
    assert "Error" not in done.stderr
    assert far.run("image", "inspect", "--tls-verify=false", f"docker://{name}", check=False).returncode != 0


def test_an_interrupted_session_takes_its_job_along(
    far: Builda, there: Cluster, script: Path, server: Registry
) -> None:
    script.write_text("#!/bin/sh\necho reached\nsleep 60\n")
    status, job = begun_and_signalled(
        far, there, (*SESSION[:-1], "--context-via", "api", "--contextdir", script.parent, script), signal.SIGTERM
    )
    assert status == 143
    assert not there.left(job)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--keep", "true"), "--keep cannot be used with --on"),
        ((), "no script is named, and a pod has no terminal"),
        (("./none.sh",), "no such script: ./none.sh"),
        (("true",), "no registry is named through which the context could go"),
        (("--attach", "x", "true"), "--attach takes no context and no script"),
        (("--contextdir", "none", "true"), "no such directory for the script: none"),
    ],
)
def test_what_a_session_there_cannot_have_is_refused(
    far: Builda, context: Path, options: tuple[str, ...], words: str
) -> None:
    assert words in far.fails("session", *options)


def test_options_of_a_session_in_the_cluster_mean_nothing_here(builda: Builda) -> None:
    assert "--contextdir is for builds in a cluster" in builda.fails("session", "--contextdir", "/", "true")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "tar" else pytest.mark.long) for kind in ("tar", "oci", "docker")]
)
def test_a_file_of_an_image_is_that_of_a_local_build(
    builda: Builda, far: Builda, context: Path, names: Names, tmp_path: Path, kind: str
) -> None:
    (context / "Containerfile").write_text("FROM scratch\nCOPY given /d/\nENV A=b\n")
    written = []
    for one in (builda, far):
        (tmp_path / "x").mkdir(exist_ok=True)
        options = ("--timestamp", "0", "-t", names.name("app/o:1"), "-o", f"type={kind},dest={tmp_path}/x/file")
        done = one.run(*BUD, *options, "-o", str(tmp_path / "x/tree"), context)
        assert (tmp_path / "x/tree/d/given").read_text() == "some text\n"
        written.append((done.stdout, (tmp_path / "x/file").read_bytes()))
        shutil.rmtree(tmp_path / "x")
    assert written[0] == written[1]


def test_an_output_can_be_standard_output(far: Builda, context: Path, names: Names) -> None:
    (context / "Containerfile").write_text("FROM scratch\nCOPY given /\n")
    command = [*far.command, *BUD, "-t", names.name("app/o:2"), "-o", "-", str(context)]
    done = subprocess.run(command, env={**clean_environ(), **far.environ}, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert archive.getnames() == ["given"]


def test_cache_mounts_are_kept_in_a_volume_claim_and_locked(
    far: Builda, there: Cluster, context: Path, server: Registry, base_there: str
) -> None:
    place = "type=claim,name=mounts"
    options = ("--no-cache", "--cache-mounts-from", place, "--cache-mounts-to", place)
    (context / "Containerfile").write_text(
        f"FROM {base_there}\n"
        "RUN --mount=type=cache,sharing=locked,id=c,target=/c echo one >> /c/f; echo $(wc -l < /c/f) lines\n"
    )

    def built(name: str) -> str:
        return far.run(*BUD, *options, "-t", server.name(f"app/{name}:1"), context).stdout

    with ThreadPoolExecutor(2) as threads:
        said = "".join(threads.map(built, ("m", "n")))
    assert "\n1 lines\n" in said
    assert "\n2 lines\n" in said
    pod = next(found for name, found in there.of("pods").items() if "builda-m-" in name)
    assert {"name": "builda-claim-0", "persistentVolumeClaim": {"claimName": "mounts"}} in pod["spec"]["volumes"]
