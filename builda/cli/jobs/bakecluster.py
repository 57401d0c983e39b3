"""Many builds at once in a cluster: a Job for each, and one for each stage that several of them have.

What a stage's Job led to is found by the others in the registry's step cache, under a tag of its own.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing

from builda.bake.jobgraph import Graph, Need, StageJob, graph
from builda.cli.building import clusterrequest
from builda.cli.building.bakerun import Result, Shown, named
from builda.cli.building.clusteroptions import ClusterValues, job_options
from builda.cli.jobs import clustergiven, clusterjob, clusterplatforms
from builda.errors import BuildaError, Unsupported
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future
    from typing import Any

    from builda.cli.building.bakewords import Planned
    from builda.cli.core.options import Row
    from builda.cli.core.verbsession import Session
    from builda.cli.jobs.clustergiven import Prepared
    from builda.cluster.connection import Cluster
    from builda.cluster.manyjobs import ManyJobs
    from builda.cluster.objects import JobOptions
    from builda.events import ImageBuilt

AT_ONCE = 256
"""Jobs that one client watches at a time, where --jobs says no less."""


class _Part(NamedTuple):
    """A build for one platform: its name, its options, the files for its pod, and its stages."""

    name: str
    build: str
    platform: str | None
    values: dict[str, Any]
    args: Mapping[str, str]
    prepared: Prepared
    needs: tuple[Need, ...]
    images: Mapping[str, str]
    """Names of contexts, and the builds whose images they are."""


class _Node(NamedTuple):
    """One node of the graph: what it does, and the names of the nodes that must be done before."""

    name: str
    after: tuple[str, ...]
    work: Callable[[], Any]


def build_in_cluster(
    session: Session, builds: Sequence[Planned], common: Sequence[str], values: dict[str, Any], on: str, *, live: bool
) -> Mapping[str, Result]:
    """Build all, the stages that several have once; the first failure ends the others."""
    from builda.cli.verbs import verb_named
    from builda.cluster.connection import connect
    from builda.cluster.where import parse_where

    rows = verb_named("build").rows
    options = job_options(values, session.environ)
    since = time.time()
    with ExitStack() as stack:
        preparing = _Preparing(session, rows, common, ClusterValues(on, values["context_via"], False, None), since)
        parts = [part for build in builds for part in preparing.parts(build, stack, live=live)]
        cluster, options = together(connect(parse_where(on), session.environ, session.warn), options)
        stack.callback(cluster.close)
        made = graph({part.name: part.needs for part in parts}, side_by_side=False)
        with Shown(session, live=live) as shown:
            work = _Work(session, cluster, options, rows, parts, made, preparing.place, shown)
            results = _run(work.nodes(builds), values["jobs"] or AT_ONCE, work.end)
    return {build.name: results[build.name] for build in builds}


def build_stages(
    session: Session,
    cluster: Cluster,
    options: JobOptions,
    prepared: Prepared,
    rows: Sequence[Row],
    values: dict[str, Any],
    args: Mapping[str, str],
    *,
    live: bool,
) -> list[str]:
    """Build the stages of one build, those side by side that need not wait for each other, each in a Job.

    The words by which the build's own Job finds what they led to; none if there is nothing to do side by side.
    """
    needs = _needs(values, args, prepared)
    made = graph({"": needs}, side_by_side=True)
    if not made.stages:
        return []
    place = clustergiven.repository_of(values, [tag.removeprefix("docker://") for tag in values["tag"]])
    if place is None:  # then the one pod does them side by side
        return []
    cluster, options = together(cluster, options)
    part = _Part("", "", None, values, args, prepared, needs, {})
    with closing(cluster), Shown(session, live=live) as shown:
        work = _Work(session, cluster, options, rows, [part], made, place, shown)
        _run(work.stage_nodes(), values["jobs"] or AT_ONCE, work.end)
    return [f"--cache-from={_cache(place, mark)}" for mark in made.reads[""]]


def together(cluster: Cluster, options: JobOptions) -> tuple[ManyJobs, JobOptions]:
    """The cluster and the options for Jobs that are followed together."""
    import secrets

    from builda.cluster.manyjobs import RUN, ManyJobs

    run = secrets.token_hex(6)
    return ManyJobs(cluster, run), options._replace(labels={**options.labels, RUN: run})


class _Preparing:
    """Sends contexts, each once, and makes of each build its parts, one for each platform."""

    def __init__(
        self, session: Session, rows: Sequence[Row], common: Sequence[str], said: ClusterValues, since: float
    ) -> None:
        self._session = session
        self._rows = rows
        self._common = common
        self._said = said
        self._since = since
        self._sent: dict[object, dict[str, str]] = {}
        self.place: str | None = None
        """The repository in which stages meet; None without any."""

    def parts(self, build: Planned, stack: ExitStack, *, live: bool) -> list[_Part]:
        """The build for each of its platforms."""
        from builda.cli.core import shared_options

        values = self._values(build)
        platforms = [str(one) for one in shared_options.platforms(dict(values)) if one is not None]
        if len(platforms) < 2:
            return [self._part(build, values, platforms[0] if platforms else None, build.name, stack, live=live)]
        return [
            self._part(
                build,
                {
                    **values,
                    "platform": (platform,),
                    "tag": tuple(clusterplatforms.variant(tag, platform) for tag in values["tag"]),
                },
                platform,
                f"{build.name} {platform}",
                stack,
                live=live,
            )
            for platform in platforms
        ]

    def _values(self, build: Planned) -> dict[str, Any]:
        from builda.cli.verbs import verb_named

        own = [f"--cache-since={self._since}" if word == "--no-cache" else word for word in build.words]
        words = [word for word in (*self._common, *own) if not word.startswith("--output=type=registry,name=")]
        return verb_named("build").read(words, {}, path="builda build").values(self._rows)

    def _part(
        self, build: Planned, values: dict[str, Any], platform: str | None, name: str, stack: ExitStack, *, live: bool
    ) -> _Part:
        from builda.cli.building import buildinput
        from builda.cli.building.bakerun import inline_context

        arguments = buildinput.build_args(values["build_arg_file"], values["build_arg"], self._session.environ)
        arguments = buildinput.with_epoch(arguments, self._session.environ, values)
        request = clusterrequest.request_of(self._rows, values, arguments, self._session.environ)
        context: Any = build.context if build.inline is None else inline_context(build)
        try:
            if self.place is None:
                self.place = clustergiven.repository_of(values, request.names)
            said = self._said
            if said.context_via is None and self.place is not None:
                said = said._replace(context_via=self.place)
            prepared = clustergiven.prepared_for(
                self._session, context, request, values, said, stack, live=live, sent=self._sent
            )
            needs = _needs(values, arguments, prepared, frozenset(build.needs))
        except BuildaError as error:
            raise named(error, build.name) from error
        return _Part(name, build.name, platform, values, arguments, prepared, needs, build.needs)


def _needs(
    values: Mapping[str, Any], args: Mapping[str, str], prepared: Prepared, images: frozenset[str] = frozenset()
) -> tuple[Need, ...]:
    """The stages of a build; none where its Containerfile is only known to the pod."""
    from builda.cli.core import shared_options
    from builda.containerfile import marks_of

    if "where" in prepared.asked:
        return ()
    (platform,) = shared_options.platforms({name: values[name] for name in ("platform", "os", "arch", "variant")})
    others = {name: values[name] for name in _OF_STEPS if name in values}
    found = marks_of(
        tuple((one["name"], prepared.given[one["key"]]) for one in prepared.asked["files"]),
        args,
        target=values["target"],
        platform=platform,
        contexts=images | {item.partition("=")[0] for item in values["build_context"]},
        others=repr((others, prepared.asked["contexts"], prepared.asked["words"], sorted(images), str(platform))),
    )
    marks = {one.number: one.mark for one in found}
    return tuple(
        Need(
            one.mark,
            one.name,
            tuple(marks[other] for other in one.below),
            None if one.base is None else marks[one.base],
            one.works,
        )
        for one in found
    )


_OF_STEPS = (
    "secret ssh network allow add_host shm_size ulimit memory env from_ timestamp source_date_epoch mount cap_add "
    "cap_drop isolation locked source_policy_file compression_format compression_level layers squash"
).split()
"""Options that may change what steps lead to."""


def _cache(place: str, mark: str) -> str:
    return f"type=registry,ref={place}:builda-stage-{mark[:24]}"


class _Work:
    """The Jobs of some builds: made, followed, and deleted together when one fails."""

    def __init__(
        self,
        session: Session,
        cluster: Cluster,
        options: JobOptions,
        rows: Sequence[Row],
        parts: Sequence[_Part],
        made: Graph,
        place: str | None,
        shown: Shown,
    ) -> None:
        self._session = session
        self._cluster = cluster
        self._options = options
        self._rows = rows
        self._parts = {part.name: part for part in parts}
        self._graph = made if place is not None else Graph((), {part.name: () for part in parts})
        self._place = place
        self._shown = shown
        self._running = clusterjob.RunningJobs(cluster)
        self._made: dict[str, ImageBuilt] = {}
        self._images: dict[str, str] = {}
        """Where images are, by build."""

    def nodes(self, builds: Sequence[Planned]) -> list[_Node]:
        """All that is to be done."""
        nodes = self.stage_nodes()
        for build in builds:
            parts = [part for part in self._parts.values() if part.build == build.name]
            for part in parts:
                after = (*(f"stage {mark}" for mark in self._graph.reads[part.name]), *build.needs.values())
                nodes.append(_Node(f"part {part.name}", after, lambda part=part: self._built(part)))  # type: ignore[misc]
            names = tuple(f"part {part.name}" for part in parts)
            nodes.append(_Node(build.name, names, lambda parts=parts: self._joined(parts)))  # type: ignore[misc]
        return nodes

    def stage_nodes(self) -> list[_Node]:
        """The Jobs of stages."""
        return [
            _Node(
                f"stage {stage.mark}",
                (
                    *(f"stage {mark}" for mark in stage.reads),
                    *self._parts[stage.build].images.values(),
                ),
                lambda stage=stage: self._stage(stage),  # type: ignore[misc]
            )
            for stage in self._graph.stages
        ]

    def end(self) -> None:
        """Delete the Jobs that run: what follows them ends, too."""
        self._running.end()

    def _stage(self, stage: StageJob) -> None:
        part = self._parts[stage.build]
        assert self._place is not None, "stages are Jobs only where there is a registry"
        values = {
            **part.values,
            "target": stage.name,
            "tag": (),
            "output": (),
            "label": (),
            "annotation": (),
            "attest": (),
            "jobs": 1,
            "iidfile": None,
            "iidfile_raw": None,
            **dict.fromkeys(clusterrequest.RETURNED),
            "cache_from": (*part.values["cache_from"], *(_cache(self._place, mark) for mark in stage.reads)),
            "cache_to": (_cache(self._place, stage.mark),),
        }
        self._done(part, values, f"stage:{stage.name}")

    def _built(self, part: _Part) -> ImageBuilt:
        reads = [_cache(self._place, mark) for mark in self._graph.reads[part.name]] if self._place else []
        values = {**part.values, "cache_from": (*part.values["cache_from"], *reads)}
        if not values["tag"] and self._is_needed(part.build):
            if self._place is None:
                raise Unsupported("image that other targets build on needs a name", hint=f"give {part.build} a tag")
            values["tag"] = (f"{self._place}:builda-target-{part.name.replace('/', '-').replace(' ', '-')}",)
        image = self._made[part.name] = self._done(part, values, part.name)
        if values["tag"]:
            from builda.oci.reference import Reference

            reference = Reference.parse(values["tag"][0].removeprefix("docker://"))
            self._images[part.name] = str(reference._replace(tag=None, digest=image.digest))
        return image

    def _is_needed(self, name: str) -> bool:
        return any(name in part.images.values() for part in self._parts.values())

    def _joined(self, parts: Sequence[_Part]) -> Result:
        """The image of a build; for several platforms an index of their images."""
        from builda.events import ImageBuilt

        build = parts[0].build
        if len(parts) == 1:
            self._images[build] = self._images.get(parts[0].name, "")
            return Result(build, self._made[parts[0].name])
        tags = [tag.removesuffix("-" + str(parts[0].platform).replace("/", "-")) for tag in parts[0].values["tag"]]
        images = [self._made[part.name] for part in parts]
        index = clusterplatforms.joined(self._session, images, tags, parts[0].prepared.access)
        if tags:
            from builda.oci.reference import Reference

            reference = Reference.parse(tags[0].removeprefix("docker://"))
            self._images[build] = str(reference._replace(tag=None, digest=index.digest))
        cached = all(image.cached for image in images)
        seconds = max(image.seconds for image in images)
        event = ImageBuilt(id=index.digest, digest=index.digest, names=tuple(tags), cached=cached, seconds=seconds)
        self._session.emit(event)
        return Result(build, event)

    def _done(self, part: _Part, values: dict[str, Any], label: str) -> ImageBuilt:
        """Make the Job, and follow it to its end."""
        images = [f"--build-context={name}=docker-image://{self._images[other]}" for name, other in part.images.items()]
        request = clusterrequest.request_of(self._rows, values, part.args, self._session.environ)
        request = request._replace(words=(*request.words, *images))
        self._running.check()
        job = clusterjob.made(self._cluster, self._session, self._options, request, part.prepared, values, label)
        name = job["metadata"]["name"]
        with self._running.following(name):
            return self._followed(name, part, label)

    def _followed(self, job: str, part: _Part, label: str) -> ImageBuilt:
        from builda.cli.jobs.clusterview import localized_error, localizing
        from builda.cli.progress.observer import with_texts
        from builda.cluster.follow import follow
        from builda.cluster.frames import Awaiting, Closed, Ended, Exited, Printed, Returned, Wrote
        from builda.containerfile import UNUSED_ARGS
        from builda.events import ImageBuilt, Warned

        change = localizing(part.prepared.local)
        is_stage = label.startswith("stage:")
        feed = clustergiven.feeder(self._session, self._cluster, part.prepared.streams)
        image: ImageBuilt | None = None

        def tell(text: str) -> None:
            if not self._running.have_ended:  # what was deleted here is no news
                self._session.emit(Warned(message=f"{label}: {text}"))

        for frame in follow(self._cluster, job, tell, feed):
            match frame:
                case Printed(text):
                    self._shown.show(label, Printed(change(text)))
                case Ended(error):
                    if error is not None:
                        raise named(localized_error(error, change), part.build or label)
                case Awaiting() | Closed() | Exited() | Returned() | Wrote():
                    pass
                case ImageBuilt():
                    image = frame
                    if not is_stage:
                        self._shown.show(label, frame)
                case Warned(message=message) if is_stage and message.startswith(UNUSED_ARGS):
                    pass  # of arguments for other stages: a target that has no use for one says so itself
                case event:
                    self._shown.show(label, with_texts(event, change))
        assert image is not None, "a build that ended well has made an image"
        return image


def _run(nodes: Sequence[_Node], limit: int, end: Callable[[], None]) -> dict[str, Any]:
    """Do all that `nodes` say, at most `limit` at a time, each after those that it names; what each gave.

    The first failure is raised when all that runs has ended, which `end` asks for.
    """
    from concurrent.futures import ThreadPoolExecutor

    from builda.threads import wait_for_threads

    waiting = list(nodes)
    found: dict[str, Any] = {}
    running: dict[Future[Any], str] = {}
    with ThreadPoolExecutor(max(1, min(limit, len(nodes) or 1))) as threads:
        try:
            while waiting or running:
                ready = [node for node in waiting if all(name in found for name in node.after)]
                waiting = [node for node in waiting if node not in ready]
                running.update({threads.submit(node.work): node.name for node in ready})
                for future in wait_for_threads(running, all_of_them=False):
                    found[running.pop(future)] = future.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            end()
            raise
    return found
