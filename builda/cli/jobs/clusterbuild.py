"""`build --on`: from the command line to the Job, or the Jobs, and back."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from builda.cli.building import clusterrequest
from builda.cli.building.clusteroptions import ClusterValues, check_attach, check_detach, job_options
from builda.cli.core.output import check_files, print_line
from builda.cli.jobs import clustergiven, clusterjob, clusteroutputs, clusterplatforms, clusterview
from builda.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from builda.cli.core.options import Row
    from builda.cli.core.verbsession import Session
    from builda.cli.jobs.clustergiven import Prepared
    from builda.cluster.connection import Cluster
    from builda.events import ImageBuilt


def build_on(
    session: Session, context: str | None, rows: Sequence[Row], values: dict[str, Any], args: dict[str, str], on: str
) -> None:
    """Build in the cluster, and show it as a build on this machine."""
    from builda.cli.progress.buildview import wants_live
    from builda.cluster.where import parse_where

    where = parse_where(on)
    said = ClusterValues(on, values["context_via"], values["detach"], values["attach"])
    check_files(values["iidfile"], values["iidfile_raw"])
    progress = values["progress"] or session.environ.get("BUILDA_PROGRESS") or "auto"
    live = wants_live(progress, sys.stderr, session.environ, quiet=session.quiet, verbose=session.settings.verbose)
    from builda.cluster.connection import connect

    if said.attach is not None:
        check_attach(rows, values, context)
        attach(session, connect(where, session.environ, session.warn), said.attach, values, live=live)
        return
    if said.detach:
        check_detach(values)
    options = job_options(values, session.environ)
    outputs = clusteroutputs.taken(values)
    request = clusterrequest.request_of(rows, values, args, session.environ)
    request = request._replace(words=(*request.words, *clusteroutputs.words_for(outputs)))
    with ExitStack() as stack:
        cluster = connect(where, session.environ, session.warn)
        prepared = clustergiven.prepared_for(session, context, request, values, said, stack, live=live)
        if len(values["platform"]) > 1:
            if said.detach:
                raise Unsupported("--detach is for one platform", hint="build them one by one")
            clusterplatforms.build_each(session, cluster, options, prepared, rows, values, args, live=live)
            return
        if values["jobs"] != 1 and not said.detach and not values["no_cache"]:
            from builda.cli.jobs.bakecluster import build_stages

            found = build_stages(session, cluster, options, prepared, rows, values, args, live=live)
            request = request._replace(words=(*request.words, *found))
        job = clusterjob.made(cluster, session, options, request, prepared, values)
        image = watch(session, cluster, job, prepared, values, live=live, leaves=said.detach)
        if image is not None:
            clusteroutputs.write(session, outputs, image, values, prepared.access)


def attach(session: Session, cluster: Cluster, name: str, values: Mapping[str, Any], *, live: bool) -> None:
    """Show what a Job that was made before does, from its beginning on, and end as it does."""
    job = cluster.get("jobs", name)
    status, _ = clusterview.show(session, cluster, name, clusterview.local_names(job), values, live=live)
    if status:
        raise SystemExit(status)


def watch(
    session: Session,
    cluster: Cluster,
    job: Mapping[str, Any],
    prepared: Prepared,
    values: Mapping[str, Any],
    *,
    live: bool,
    leaves: bool,
) -> ImageBuilt | None:
    """Show what a Job does, and end with its status; or, once the Job has its files, print its name and leave."""
    name = job["metadata"]["name"]
    feed = clustergiven.feeder(session, cluster, prepared.streams)
    with clusterjob.removed_if_left(cluster, name):
        if leaves:
            if feed is not None:
                clusterview.feed_only(session, cluster, name, feed)
            print_line(name)
            return None
        status, image = clusterview.show(session, cluster, name, prepared.local, values, live=live, feed=feed)
    if status:  # of a script; its Job stays
        raise SystemExit(status)
    return image
