"""`build` for several platforms: one build after the other, and an index of what came out."""

from __future__ import annotations

from builda.cli.building import buildcache
from builda.cli.core.output import print_line, print_words
from builda.cli.progress.buildview import stage_prefix
from builda.errors import InvalidValue, Unsupported
from builda.events import ImageBuilt
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Any

    from builda.builder.execution.buildoptions import Built, ExecuteOptions
    from builda.cli.building.buildlog import Attesting
    from builda.cli.core.verbsession import Session
    from builda.containerfile import BuildRequest
    from builda.oci.descriptor import Platform
    from builda.store.store import Image

Platforms = tuple["Platform | None", ...]
_OF_ONE = ("iidfile", "iidfile_raw", "metadata_file", "output")


def check_one(wanted: Platforms, option: str) -> None:
    """Only one platform is wanted; InvalidValue naming the option that cannot stand for several."""
    if len(wanted) > 1:
        raise InvalidValue(f"{option} is for one platform, not for {len(wanted)}", hint="build them one by one")


def check(values: dict[str, Any]) -> None:
    """No option is given that stands for one image."""
    for name in _OF_ONE:
        if values[name]:
            check_one((None, None), f"--{name.replace('_', '-')}")


def all_of(session: Session, request: BuildRequest, options: ExecuteOptions, wanted: Platforms) -> Platforms:
    """The platforms that all base images have."""
    from builda.builder.image.platforms import common_platforms
    from builda.containerfile import compile_plan

    if wanted != (None,):
        raise InvalidValue("--all-platforms cannot be used with --platform, --os, --arch or --variant")
    plan = compile_plan(session.builder, request, options.pull).plan
    return common_platforms(session.builder.context, plan, options.pull)


def build(
    session: Session,
    request: BuildRequest,
    options: ExecuteOptions,
    wanted: Platforms,
    log_of: Callable[[Platform | None], AbstractContextManager[None]],
    attesting: Attesting | None = None,
    check: Callable[[Image], None] | None = None,
) -> tuple[Built, ...]:
    """Build for each platform; the results in the same order. Before, check that commands can run on all of them."""
    from builda import containerfile
    from builda.builder.execution.plan_needs import check_runs
    from builda.builder.image.pull import machine_platform

    platforms = [platform or machine_platform() for platform in wanted]
    for platform in platforms:
        if platform.architecture != machine_platform().architecture:
            containerfile.checked(session.builder, replace(request, platform=platform), options.pull, check_runs)
    each = []
    for platform in platforms:
        with log_of(platform):
            above = None if session.relay is None else session.relay.platform
            labelled = _for(options, platform, f"{above} {platform}" if above else str(platform))
            own = replace(request, platform=platform)
            if attesting is not None:
                attesting.begin()
            built = containerfile.build(session.builder, own, labelled)
            if check is not None:
                check(built.image)
            each.append(built if attesting is None else attesting.done(built, own, labelled))
            if labelled.inputs.caches is not None:
                labelled.inputs.caches.leave()
    return tuple(each)


def _for(options: ExecuteOptions, platform: Platform, label: str) -> ExecuteOptions:
    """The options for one of several platforms, which has cache mounts of its own elsewhere."""
    inputs = options.inputs
    if inputs.caches is not None:
        inputs = replace(inputs, caches=inputs.caches.of(str(platform)))
    return replace(options, inputs=inputs, platform_label=label)


def publish(
    session: Session, each: tuple[Built, ...], options: ExecuteOptions, values: dict[str, Any], began: float
) -> None:
    """Lists, caches and the last lines on stdout; the ID that is printed is the list's."""
    from builda.builder.image import manifestlist
    from builda.builder.image.push import local_name, write_to
    from builda.transfer.locate import parse_location

    tags, manifest = values.pop("tag"), values.pop("manifest")
    for built in each:
        _tell(session, built, (*tags, manifest)[0])
    images = tuple(built.image for built in each)
    index = manifestlist.made_of(session.store, images)
    names: list[str] = []
    for tag in tags:
        location = parse_location(tag)
        if location is not None and not location.in_store:
            if location.row is not None and not location.row.has_indexes:
                raise Unsupported(f"{location.transport}: holds no list of images: {tag}")
            write_to(session.builder.context, index, location, options.inputs.access)
            names.append(tag)
            continue
        names.append(local_name(tag if location is None else location.where))
        session.store.images.tag(index, names[-1])
        if not session.quiet:
            print_words(f"Successfully tagged {names[-1]}")
    if manifest is not None:
        for image in images:
            index = manifestlist.appended(session.store, local_name(manifest), image)
        names.append(local_name(manifest))
    for built in each:
        buildcache.push(session, built, values["cache_to"], options.inputs.access)
    print_line(index.id.encoded)
    _end(session, each, index.digest, tuple(names), began)


def _tell(session: Session, built: Built, name: str | None) -> None:
    if session.quiet:
        return
    print_words(f"{stage_prefix(built.stage)}COMMIT {name or ''}".rstrip())
    print_line(f"--> {built.image.id.encoded[:12]}")


def _end(session: Session, each: tuple[Built, ...], digest: Any, names: tuple[str, ...], began: float) -> None:
    import time

    cached, seconds = all(built.cached for built in each), time.monotonic() - began
    session.emit(ImageBuilt(id=digest, digest=digest, names=names, cached=cached, seconds=seconds))
