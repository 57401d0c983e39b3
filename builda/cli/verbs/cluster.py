"""`cluster`: builds in a cluster as their clients and their pods see them."""

from __future__ import annotations

from builda.cli.building import clusteroptions
from builda.cli.core.options import argument, switch
from builda.cli.core.output import print_line, print_table
from builda.cli.core.verb import verb
from builda.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.cli.core.verbsession import Session
    from builda.cluster.connection import Cluster


def _connected(session: Session, on: str | None) -> Cluster:
    from builda.cluster.connection import connect
    from builda.cluster.where import parse_where

    where = parse_where(on or session.environ.get("BUILDA_ON") or "kubernetes")
    return connect(where, session.environ, session.warn)


@verb(
    clusteroptions.ON,
    switch("--quiet", "-q", help="Print the names only."),
    name="cluster-ls",
    example="builda cluster ls",
)
def listing(session: Session, *, on: str | None, quiet: bool) -> None:
    """List the Jobs of builds that the namespace has: name, state, time of creation, and names of the images."""
    from builda.cluster import objects, state

    found = _connected(session, on).list("jobs", label_selector=objects.SELECTOR)["items"]
    if quiet:
        for job in found:
            print_line(job["metadata"]["name"])
        return
    lines = ["NAME\tSTATE\tCREATED\tIMAGES"]
    for job in found:
        ended = state.finished(job)
        about = "running" if ended is None else f"failed: {ended.reason}" if ended.failed else "done"
        about = "queued" if state.is_suspended(job) else about
        metadata = job["metadata"]
        names = (metadata.get("annotations") or {}).get("builda.io/names", "")
        lines.append(f"{metadata['name']}\t{about}\t{metadata.get('creationTimestamp', '')}\t{names}")
    print_table(lines)


@verb(
    argument("job"),
    clusteroptions.ON,
    name="cluster-logs",
    interspersed=True,
    example="builda cluster logs builda-app-1f2e3d4c",
)
def logs(session: Session, *, job: str, on: str | None) -> None:
    """Show the build of JOB from its beginning on, and follow it: as builda build --attach JOB, but with status 0."""
    from builda.cli.jobs.clusterview import show_again

    show_again(session, _connected(session, on), job)


@verb(
    argument("job", nargs=-1, required=True),
    clusteroptions.ON,
    name="cluster-rm",
    interspersed=True,
    example="builda cluster rm builda-app-1f2e3d4c",
)
def rm(session: Session, *, job: tuple[str, ...], on: str | None) -> None:
    """Delete Jobs of builds, with their pods and Secrets. A build that is under way ends."""
    from builda.cli.main import each
    from builda.cluster import objects

    cluster = _connected(session, on)

    def remove(name: str) -> None:
        labels = cluster.get("jobs", name)["metadata"].get("labels") or {}
        if any(labels.get(label) != value for label, value in objects.MANAGED.items()):
            raise InvalidValue(f"Job is not one of builda's: {name}")
        cluster.delete("jobs", name)
        print_line(name)

    each(job, remove)


def _print_rights(cluster: Cluster) -> None:
    """Which rights the client lacks; an error if a build is not possible without one of them."""
    from builda.cluster.connection import Forbidden
    from builda.cluster.objects import FURTHER_RIGHTS, RIGHTS

    missing = [
        f"{action} {resource.partition('/')[2]}" for resource, action in RIGHTS if not cluster.may(action, resource)
    ]
    if missing:
        raise Forbidden(
            f"rights that builds need are missing in namespace {cluster.namespace}: {', '.join(missing)}",
            hint="docs/cluster.md has the Role that builds need",
        )
    print_line("rights: all that builds need")
    for resource, action, without in FURTHER_RIGHTS:
        if not cluster.may(action, resource):
            print_line(f"no right to {action} {resource.partition('/')[2]}: {without}")


def _print_quotas(cluster: Cluster) -> None:
    found = cluster.quotas()
    for quota in () if found is None else found["items"]:
        state = quota.get("status") or {}
        used = state.get("used") or {}
        rest = ", ".join(f"{name} {used.get(name, 0)} of {limit}" for name, limit in (state.get("hard") or {}).items())
        print_line(f"quota {quota['metadata']['name']}: {rest}")


@verb(
    clusteroptions.ON,
    clusteroptions.OF_JOB,
    name="cluster-check",
    example="builda cluster check",
)
def check(session: Session, *, on: str | None, **values: Any) -> None:
    """Say what the namespace allows: version, PodSecurity, rights, quotas, the best kind of pod; and try a build.

    The build is of three lines and leaves nothing. Without --builder-image no pod is started. If a right is missing
    that every build needs, the exit status is 1.
    """
    import time

    from builda.cli.core.settings import environment
    from builda.cluster import podkinds

    began = time.monotonic()
    cluster = _connected(session, on)
    version, level = cluster.version(), cluster.level(podkinds.ENFORCE)
    print_line(f"version: {version[0]}.{version[1]}")
    print_line(f"namespace: {cluster.namespace}")
    print_line(f"PodSecurity: {level or 'nothing is enforced, or the labels may not be read'}")
    _print_rights(cluster)
    _print_quotas(cluster)
    kind = podkinds.best(level, version, session.settings.mode)
    print_line(f"best kind of pod: {kind.mode}")
    said = (values["builder_image"], values["pod_template"], environment(session.environ, "BUILDA_BUILDER_IMAGE"))
    if not any(said):
        print_line(f"answered in {time.monotonic() - began:.2f}s; --builder-image tries a build, too")
        return
    from builda.cli.jobs.clusterjob import try_build

    steps = time.monotonic()
    try_build(session, cluster, clusteroptions.job_options(values, session.environ))
    found = cluster.level(podkinds.ENFORCE)
    if found != level:
        better = podkinds.best(found, version, session.settings.mode)
        print_line(f"PodSecurity: {found}, which the namespace's labels do not say; best kind of pod: {better.mode}")
    print_line(f"a build of three lines: {time.monotonic() - steps:.2f}s")
