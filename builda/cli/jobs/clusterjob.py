"""The Job of a build, and the Secret that it owns: made, named, and removed when its client gives it up."""

from __future__ import annotations

from contextlib import contextmanager

from builda.errors import BuildaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from builda.cli.building.clusterrequest import Request
    from builda.cli.core.verbsession import Session
    from builda.cli.jobs.clustergiven import Prepared
    from builda.cluster.connection import Cluster
    from builda.cluster.objects import JobOptions
    from builda.cluster.podkinds import Kind

_ARCHITECTURE = "kubernetes.io/arch"
_UNDER_WAY = 1.0
"""Seconds after which a server has made a Job that it was asked for."""


def made(
    cluster: Cluster,
    session: Session,
    options: JobOptions,
    request: Request,
    prepared: Prepared,
    values: Mapping[str, Any],
    platform_label: str | None = None,
) -> dict[str, Any]:
    """The Job of a build is there, and its Secret. With a label, events name the platform, as where several are."""
    architecture = _architecture(values)
    said = options.template.get("spec", {}).get("nodeSelector") or {}
    if architecture is not None and _ARCHITECTURE not in said:
        options = options._replace(node_selector={_ARCHITECTURE: architecture, **options.node_selector})
    options = options._replace(claims=request.claims)
    subject = request.names[0].rpartition(":")[0] if request.names else platform_label or ""
    asked = {**prepared.asked, "words": [*request.words, *prepared.asked["words"]], "platform": platform_label}
    return made_for(cluster, session, options, prepared._replace(asked=asked), subject, request.names)


def made_for(
    cluster: Cluster, session: Session, options: JobOptions, prepared: Prepared, subject: str, names: Sequence[str]
) -> dict[str, Any]:
    """Create the Job for this request, named after its subject, and its Secret; `names` are the names of its images.

    Where no label says what the namespace enforces, a cluster may have a level for all of them: if the first pod is
    refused by it, the Job is made again with the best kind of that level.
    """
    from builda.cluster import podkinds
    from builda.cluster.follow import refusal

    def make() -> dict[str, Any]:
        kind = podkinds.best(cluster.level(podkinds.ENFORCE), cluster.version(), session.settings.mode)
        return _made(cluster, kind, options, prepared, subject, names)

    if cluster.level(podkinds.ENFORCE) is not None or session.settings.mode is not None:
        return make()
    with cluster.learning(podkinds.ENFORCE) as is_to_learn:
        if is_to_learn:
            job = make()
            name = job["metadata"]["name"]
            try:
                level = podkinds.level_in(refusal(cluster, name) or "")
            except BaseException:
                cluster.delete("jobs", name)
                raise
            cluster.learn(podkinds.ENFORCE, level)
            if level is None:
                return job
            cluster.delete("jobs", name)
    return make()


def _made(
    cluster: Cluster, kind: Kind, options: JobOptions, prepared: Prepared, subject: str, names: Sequence[str]
) -> dict[str, Any]:
    import json
    import secrets

    from builda.cluster import objects

    name = objects.job_name(subject, secrets.token_hex(4))
    annotations = {"builda.io/names": " ".join(names), "builda.io/local": json.dumps(dict(prepared.local))}
    try:
        job = cluster.create("jobs", objects.job(name, kind, options, annotations))
    except (KeyboardInterrupt, SystemExit):  # whose answer is lost: the server has the Job, or is about to make it
        if not cluster.delete("jobs", name):
            cluster.sleep(_UNDER_WAY)
            cluster.delete("jobs", name)
        raise
    try:
        given = {**prepared.given, objects.REQUEST: json.dumps(dict(prepared.asked)).encode()}
        cluster.create("secrets", objects.secret(name, job, given))
    except BaseException:
        cluster.delete("jobs", name)
        raise
    return job


def _architecture(values: Mapping[str, Any]) -> str | None:
    """The architecture of the nodes that fit a build for one platform."""
    from builda.cli.core import shared_options

    (platform,) = shared_options.platforms({name: values[name] for name in ("platform", "os", "arch", "variant")})
    return None if platform is None else platform.architecture


@contextmanager
def removed_if_left(cluster: Cluster, job: str) -> Iterator[None]:
    """Delete the Job when its client is interrupted, or gives it up."""
    from builda.cluster.follow import JobFailed

    try:
        yield
    except (KeyboardInterrupt, SystemExit, BrokenPipeError, JobFailed):
        cluster.delete("jobs", job)
        raise


class RunningJobs:
    """The Jobs of one command line that threads follow; all are deleted when one of them fails or the user ends it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._names: set[str] = set()
        self.have_ended = False

    @contextmanager
    def following(self, job: str) -> Iterator[None]:
        """A thread follows a Job, which is deleted if the block ends by an error. BuildaError if all have ended."""
        self._names.add(job)
        try:
            self.check()  # `end` sees the name, or this thread sees that it was called
            yield
        except BaseException:
            self._cluster.delete("jobs", job)
            raise
        finally:
            self._names.discard(job)

    def check(self) -> None:
        """BuildaError if all have ended."""
        if self.have_ended:
            raise BuildaError("stopped, as another build failed")

    def end(self) -> None:
        """Delete all: the threads that follow them end, too."""
        self.have_ended = True
        for job in list(self._names):
            self._cluster.delete("jobs", job)


def try_build(session: Session, cluster: Cluster, options: JobOptions) -> None:
    """Build an image of three lines, from nothing, in the best kind of pod, and leave nothing of it."""
    from builda.builder.imageoptions import RegistryAccess
    from builda.cli.building.clusterrequest import NO_VALUES
    from builda.cli.jobs.clustergiven import Prepared
    from builda.cli.jobs.clusterview import show

    asked = {
        "version": 1,
        "words": ["--quiet"],
        "live": False,
        "contexts": [],
        "environ": {},
        "files": [{"name": "Containerfile", "key": "file-0"}],
    }
    given = {"file-0": b'FROM scratch\nENV CHECKED=1\nCMD ["true"]\n'}
    job = made_for(cluster, session, options, Prepared(given, asked, {}, RegistryAccess()), "check", ())
    try:
        show(session, cluster, job["metadata"]["name"], {}, NO_VALUES, live=False)
    finally:
        cluster.delete("jobs", job["metadata"]["name"])
