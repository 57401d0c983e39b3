"""What is decided about builds in clusters: objects, kinds of pods, lines of logs, groups of files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from builda import events
from builda.cli.building.clusteroptions import OF_JOB, job_options, template_of
from builda.cli.building.clusterrequest import HERE, REFUSED, RETURNED, SENT
from builda.cli.core.options import Option
from builda.cli.verbs.build import build
from builda.cluster import chunks, frames, objects, podkinds, state
from builda.cluster.where import Where, parse_where
from builda.errors import ContainerfileError, InvalidValue, Unsupported
from builda.events import CommandOutput, ImageBuilt, StepStarted
from builda.fs.ignore import Matcher
from builda.oci.digest import Digest
from tests.support.schemas import check_kubernetes

BUILD_NOTHING = {"check", "print_plan", "print_script"}


OF_SESSIONS = {"trace"}


def test_every_option_of_build_is_dealt_with_once() -> None:
    names = {row.name for row in build.rows if isinstance(row, Option) and row.refusal is None}
    assert names == SENT | HERE | set(REFUSED) | (set(RETURNED) - OF_SESSIONS) | BUILD_NOTHING
    assert len(names) == len(SENT) + len(HERE) + len(REFUSED) + len(set(RETURNED) - OF_SESSIONS) + len(BUILD_NOTHING)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("kubernetes", Where()),
        ("kubernetes/ci", Where(None, "ci")),
        ("kubernetes:prod", Where("prod")),
        ("kubernetes:arn:aws:eks:eu:1:cluster/x/ci", Where("arn:aws:eks:eu:1:cluster/x", "ci")),
    ],
)
def test_a_place_is_a_context_and_a_namespace(text: str, where: Where) -> None:
    assert parse_where(text) == where


@pytest.mark.parametrize("text", ["docker", "kubernetes:", "kubernetes/", "kubernetes/A_b", "kubernetes:/x", ""])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_where(text)


@pytest.mark.parametrize("kind", podkinds.KINDS, ids=lambda kind: kind.mode)
def test_the_objects_are_those_of_the_schemas(kind: podkinds.Kind) -> None:
    options = objects.JobOptions(
        image="x",
        labels={"kueue.x-k8s.io/queue-name": "builds"},
        requests={"cpu": "1"},
        limits={"memory": "1Gi"},
        node_selector={"a": "b"},
        tolerations=tuple(map(objects.toleration, ("a=b:NoSchedule", "c", "d:NoExecute"))),
        priority_class="low",
        template={"spec": {"containers": [{"name": "build", "env": [{"name": "A", "value": "b"}]}, {"name": "other"}]}},
    )
    job = objects.job("builda-x", kind, options, {"a": "b"})
    check_kubernetes(job)
    assert [one["name"] for one in job["spec"]["template"]["spec"]["containers"]] == ["build", "other"]
    owner = {"metadata": {"uid": "u"}}
    check_kubernetes(objects.secret("builda-x", owner, {"a": b"\xff"}))
    with pytest.raises(InvalidValue, match="a Secret holds less"):
        objects.secret("builda-x", owner, {"a": bytes(1 << 20)})


TRACED = podkinds.KINDS[-1]


def pod_of_template(template: dict[str, object], **more: Any) -> dict[str, Any]:
    """The spec of the pod that is made of a template."""
    job = objects.job("builda-x", TRACED, objects.JobOptions(image="x", template=template, **more), {})
    check_kubernetes(job)
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


def test_a_template_may_bring_the_volume_that_the_build_works_in() -> None:
    own = {"name": "builda-work", "emptyDir": {"sizeLimit": "10Gi"}}
    spec = pod_of_template({"spec": {"volumes": [own, {"name": "other", "emptyDir": {}}]}})
    assert [one for one in spec["volumes"] if one["name"] == "builda-work"] == [own]
    assert {"name": "builda-work", "mountPath": "/builda/work"} in spec["containers"][0]["volumeMounts"]
    assert spec["securityContext"]["fsGroup"] == 1000


@pytest.mark.parametrize(
    ("option", "variable", "image"), [("a", "b", "a"), (None, "b", "own"), (None, None, "own"), ("a", None, "a")]
)
def test_a_template_may_name_the_image(option: str | None, variable: str | None, image: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("spec: {containers: [{name: other, image: x}, {name: build, image: own}]}")
    values: dict[str, Any] = {row.name: row.default for row in OF_JOB if isinstance(row, Option)} | {
        "builder_image": option,
        "pod_template": str(tmp_path / "t"),
    }
    environ = {} if variable is None else {"BUILDA_BUILDER_IMAGE": variable}
    found = job_options(values, environ)
    assert found.image == image
    assert not values


def test_a_template_may_leave_the_user_to_the_cluster() -> None:
    own = {"name": "build", "securityContext": {"runAsUser": None, "runAsGroup": None, "readOnlyRootFilesystem": True}}
    context = pod_of_template({"spec": {"containers": [own]}})["containers"][0]["securityContext"]
    assert not {"runAsUser", "runAsGroup"} & context.keys()
    assert (context["runAsNonRoot"], context["readOnlyRootFilesystem"]) == (True, True)


def test_options_stand_before_a_template_and_a_template_before_what_builda_sets() -> None:
    spec = pod_of_template({"spec": {}})
    assert (spec["nodeSelector"], spec["enableServiceLinks"]) == ({"kubernetes.io/os": "linux"}, False)
    own = {"nodeSelector": {"kubernetes.io/os": "other", "disk": "fast"}, "enableServiceLinks": True}
    spec = pod_of_template({"spec": own}, node_selector={"disk": "slow"})
    assert spec["nodeSelector"] == {"kubernetes.io/os": "other", "disk": "slow"}
    assert spec["enableServiceLinks"] is True


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "is not YAML"),
        ("3", "has no spec"),
        ("spec: 3", "has no spec"),
        ("spec: {containers: 3}", "spec.containers is no list"),
        ("spec: {containers: [3]}", r"spec.containers\[0\] is no map"),
        ("spec: {containers: [{name: build, env: {A: b}}]}", r"spec.containers\[0\].env is no list"),
        ("spec: {containers: [{resources: {limits: 3}}]}", r"spec.containers\[0\].resources.limits is no map"),
        ("spec: {volumes: [x]}", r"spec.volumes\[0\] is no map"),
        ("spec: {nodeSelector: [x]}", "spec.nodeSelector is no map"),
        ("metadata: {labels: x}\nspec: {}", "metadata.labels is no map"),
        ("spec: &a {x: *a}", "is not YAML"),
    ],
)
def test_a_template_that_is_no_pod_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_text(text)
    with pytest.raises(InvalidValue, match=f"pod template .*{words}"):
        template_of(str(tmp_path / "t"))


def test_a_date_in_a_template_is_a_text(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("metadata: {annotations: {since: 2026-01-02}}\nspec: {}")
    assert template_of(str(tmp_path / "t"))["metadata"] == {"annotations": {"since": "2026-01-02"}}


@pytest.mark.parametrize(
    ("level", "version", "mode"),
    [
        (None, (1, 34), "direct"),
        ("privileged", (1, 30), "subid"),
        ("baseline", (1, 34), "chroot"),
        ("restricted", (1, 34), "traced"),
        ("misspelt", (1, 34), "traced"),
    ],
)
def test_the_best_pod_is_the_one_that_the_namespace_admits(
    level: str | None, version: tuple[int, int], mode: str
) -> None:
    assert podkinds.best(level, version).mode == mode


def test_a_pod_that_the_namespace_does_not_admit_is_refused() -> None:
    with pytest.raises(Unsupported, match="admits no pod for mode direct"):
        podkinds.best("restricted", (1, 34), "direct")


@pytest.mark.parametrize(
    "frame",
    [
        StepStarted(index=1, total=2, text="RUN x", needs=("1/2", "2/2")),
        CommandOutput(data=b"\xff\xfe half \xc3", stream="stderr"),
        CommandOutput(data="grün\n".encode(), stream="stdout"),
        ImageBuilt(id=Digest.of(b"a"), digest=Digest.of(b"b"), names=("x",), cached=True, seconds=0.5),
        events.LayerStored(index=1, total=1, digest=None, bytes=0),
        frames.Printed("text\n"),
        frames.Closed("built"),
        frames.Ended(None),
        frames.Awaiting(),
        frames.Wrote("stderr", b"half \xc3"),
        frames.Returned("report", b"<html>", True),
        frames.Exited(7),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_a_frame_is_read_as_it_was_written(frame: frames.Frame) -> None:
    assert frames.from_line(frames.to_line(7, frame).encode()) == (7, frame)


def test_an_error_keeps_its_place() -> None:
    error = ContainerfileError("no", file="f", line=3, excerpt="> 3", hint="h")
    found = frames.from_line(frames.to_line(1, frames.Ended(error)).encode())
    assert found is not None
    assert isinstance(found[1], frames.Ended)
    read = found[1].error
    assert isinstance(read, ContainerfileError)
    assert (str(read), read.file, read.line, read.excerpt, read.hint) == ("no", "f", 3, "> 3", "h")


def test_a_reader_gives_each_frame_once_wherever_streams_break() -> None:
    lines = [frames.to_line(number, frames.Printed(str(number))).encode() + b"\n" for number in range(1, 30)]
    log = b"Traceback\n" + b"".join(lines)
    for broken in range(0, len(log), 37):
        reader = frames.Reader()
        found = list(reader.take(log[:broken]))
        reader.again()
        again = log[log.rindex(b"\n", 0, broken) + 1 if broken > 700 else 0 :]
        found += [frame for at in range(0, len(again), 11) for frame in reader.take(again[at : at + 11])]
        assert found == [frames.Printed(str(number)) for number in range(1, 30)]
        assert reader.lost == 0


def test_a_reader_counts_what_the_node_rotated_away() -> None:
    reader = frames.Reader()
    list(reader.take(frames.to_line(1, frames.Printed("a")).encode() + b"\n"))
    list(reader.take(frames.to_line(5, frames.Printed("b")).encode() + b"\n"))
    assert reader.lost == 3


def make(top: Path, count: int) -> None:
    for number in range(count):
        path = top / f"d{number % 7}" / f"f{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{number}\n")


def test_one_changed_file_changes_one_chunk(tmp_path: Path) -> None:
    make(tmp_path, 2000)
    later = chunks.now() + 10
    before = chunks.grouped(chunks.listing(str(tmp_path), Matcher.parse("")), later)
    (tmp_path / "d6/f1700").write_text("other\n")
    after = chunks.grouped(chunks.listing(str(tmp_path), Matcher.parse("")), later)
    assert len(before) == len(after) > 5
    assert all(chunk.settled for chunk in after)
    assert len({chunk.key for chunk in after} - {chunk.key for chunk in before}) == 1


def test_a_listing_has_what_the_ignore_file_leaves(tmp_path: Path) -> None:
    make(tmp_path, 14)
    (tmp_path / "link").symlink_to("d1")
    found = [file.path for file in chunks.listing(str(tmp_path), Matcher.parse("d*\n!d2/f9\n"))]
    assert found == ["d2", "link", "d2/f9"]


def test_a_context_has_no_directory_of_the_store(tmp_path: Path) -> None:
    make(tmp_path, 3)
    (tmp_path / "d1/below").mkdir()
    never = frozenset((info.st_dev, info.st_ino) for info in (os.stat(tmp_path / name) for name in ("d0", "d1/below")))
    found = [file.path for file in chunks.listing(str(tmp_path), Matcher.parse(""), never)]
    assert found == ["d1", "d2", "d1/f1", "d2/f2"]
    with pytest.raises(InvalidValue, match="a directory of the store cannot be copied: "):
        list(chunks.listing(str(tmp_path / "d0"), Matcher.parse(""), never))


def test_what_is_waited_for_is_told_from_what_is_hopeless() -> None:
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off"}
    pod = {
        "metadata": {"name": "p"},
        "status": {"containerStatuses": [{"name": "build", "state": {"waiting": waiting}}]},
    }
    found = state.pod_of(pod)
    assert (found.waiting, found.no_image, found.hopeless) == ("ImagePullBackOff: Back-off", True, False)
    assert not state.is_patient(61)
    evicted = {"metadata": {"name": "p"}, "status": {"phase": "Failed", "reason": "Evicted", "message": "disk"}}
    assert state.pod_of(evicted).cause == "Evicted: disk"


@pytest.mark.parametrize(
    ("metadata", "reason", "cause"),
    [
        ({}, "Error", "Error (exit status 137)"),
        ({"deletionTimestamp": "2026-01-01T00:00:00Z"}, "Error", "it was deleted"),
        ({"deletionTimestamp": "2026-01-01T00:00:00Z"}, "OOMKilled", "OOMKilled (exit status 137)"),
    ],
)
def test_a_pod_that_was_deleted_is_not_said_to_have_failed(metadata: dict[str, str], reason: str, cause: str) -> None:
    ended = {"name": "build", "state": {"terminated": {"reason": reason, "exitCode": 137}}}
    pod = {"metadata": {"name": "p", **metadata}, "status": {"phase": "Failed", "containerStatuses": [ended]}}
    assert state.pod_of(pod).cause == cause


def test_files_that_change_meanwhile_are_not_remembered(tmp_path: Path) -> None:
    make(tmp_path, 3)
    (chunk, _) = chunks.grouped(chunks.listing(str(tmp_path), Matcher.parse("")), os.stat(tmp_path / "d0").st_ctime)
    assert not chunk.settled
    with chunks.packed(str(tmp_path), chunk) as (layer, _):
        assert chunks.KEY not in layer.annotations
