"""Turns the options of `build` into values: the request to compile, the inputs of its steps, the options to execute."""

from __future__ import annotations

import sys

from builda.cli.building import buildcache, buildmounts, outputs
from builda.cli.building.secrets import agents_of, secrets_of
from builda.cli.core import shared_options
from builda.cli.core.output import check_files
from builda.errors import InvalidValue
from builda.inputfile import read_input

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack
    from typing import Any

    from builda.builder.execution.buildoptions import ExecuteOptions
    from builda.builder.execution.stageimages import StageImages
    from builda.builder.imageoptions import Inputs, RegistryAccess
    from builda.builder.run.cachetravel import CacheTravel
    from builda.cli.building.contexts import BuildContext, NamedContexts
    from builda.cli.core.verbsession import Session
    from builda.containerfile import BuildRequest

RUSAGE = "builda says how long each step took; /usr/bin/time measures the whole of a build"


def request_of(session: Session, context: BuildContext, named: NamedContexts, values: dict[str, Any]) -> BuildRequest:
    from builda.containerfile import BuildRequest, source_policy
    from builda.permissions import parse_permissions

    policy_file = values.pop("source_policy_file")
    run = shared_options.run_options(values, session.environ)
    values["platforms"] = shared_options.platforms(values)
    return BuildRequest(
        files=context.files,
        context=context.directory,
        fetched=context.fetched,
        preprocess=values.pop("preprocess"),
        cpp_flags=values.pop("cpp_flag"),
        build_args=with_epoch(
            build_args(values.pop("build_arg_file"), values.pop("build_arg"), session.environ), session.environ, values
        ),
        target=values.pop("target"),
        unused_stages=not values.pop("skip_unused_stages"),
        named_contexts=named.directories,
        named_images=named.images,
        base=values.pop("from_"),
        env=tuple(_variables(values.pop("env"), session.environ).items()),
        labels=tuple(_label(item) for item in values.pop("label")),
        inherits_labels=values.pop("inherit_labels"),
        policy=None if policy_file is None else source_policy(policy_file),
        platform=values["platforms"][0],
        permissions=parse_permissions(values.pop("allow"), run.network),
        run=run,
    )


def with_epoch(arguments: dict[str, str], environ: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, str]:
    """The build arguments with SOURCE_DATE_EPOCH, which counts like the variable and before it, as with BuildKit.

    Without an argument of that name it is the option's, else the variable's.
    """
    name, said = "SOURCE_DATE_EPOCH", values["source_date_epoch"]
    epoch = environ.get(name) if said is None else str(said)
    return arguments if name in arguments or not epoch else {**arguments, name: epoch}


def _label(item: str) -> tuple[str, str]:
    name, _, value = item.partition("=")
    if not name:
        raise InvalidValue(f"label has no name: {item!r}")
    return name, value


def build_args(files: tuple[str, ...], items: tuple[str, ...], environ: Mapping[str, str]) -> dict[str, str]:
    lines: list[str] = []
    for path in files:
        lines += _lines(path)
    return _variables((*lines, *filter(None, items)), environ)  # `--build-arg=` is a task's way to say that it has none


def _lines(path: str) -> list[str]:
    """The lines of a file of build arguments that say something."""
    try:
        text = read_input(path, "file of build arguments").decode()
    except UnicodeDecodeError as error:
        raise InvalidValue(f"file of build arguments is not UTF-8: {path}") from error
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _variables(items: tuple[str, ...], environ: Mapping[str, str]) -> dict[str, str]:
    """`K=V`, or `K` of the caller's environment when it is set there."""
    found: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not name:
            raise InvalidValue(f"argument has no name: {item!r}")
        if equals:
            found[name] = value
        elif name in environ:
            found[name] = environ[name]
        else:
            found.pop(name, None)
    return found


def check_rest(session: Session, values: dict[str, Any]) -> None:
    for name in ("rm", "force_rm", "compress", "disable_content_trust", "force_compression"):
        values.pop(name)
    if values["layer_label"] and not values["save_stages"]:
        from builda.events import Warned

        message = "--layer-label has no effect without --save-stages: no images are made that could have the labels"
        session.emit(Warned(message=message, hint="--label labels the result"))
    if values.pop("log_rusage"):
        from builda.events import Warned

        session.emit(Warned(message=f"--log-rusage has no effect: {RUSAGE}"))
    if values["iidfile"] and values["iidfile_raw"]:
        raise InvalidValue("--iidfile cannot be used with --iidfile-raw")
    if values["jobs"] < 0:
        raise InvalidValue(f"--jobs is 0 or more: {values['jobs']}")
    outputs.check(outputs.parse(values["output"]))
    check_names((*values["tag"], *filter(None, (values["manifest"],))))
    check_files(values["iidfile"], values["iidfile_raw"], values["metadata_file"])


def check_interactive(values: dict[str, Any]) -> None:
    """InvalidValue where --interactive-on-failure could show no shell."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidValue("--interactive-on-failure needs a terminal on standard input and output")
    said = {"jobs": values["jobs"] != 1, "report": values["report"] is not None, "stdin": values["stdin"]}
    for name in filter(said.get, said):
        raise InvalidValue(f"--interactive-on-failure cannot be used with --{name}")


def check_names(names: tuple[str, ...]) -> None:
    """Refuse, before anything is built, names that its image could not have."""
    from builda.builder.image.push import local_name
    from builda.transfer.locate import parse_location

    for name in names:
        location = parse_location(name)
        if location is None or location.in_store:
            local_name(name if location is None else location.where)


def inputs_of(
    session: Session,
    context: BuildContext,
    named: NamedContexts,
    access: RegistryAccess,
    values: dict[str, Any],
    stack: ExitStack,
) -> Inputs:
    from builda.builder.imageoptions import Inputs

    return Inputs(
        context=context.directory,
        ignore_file=context.ignore_file,
        named=named.directories,
        secrets=secrets_of(values["secret"], session.environ),
        ssh=agents_of(values["ssh"], session.environ, stack),
        discard_writes=True,
        access=access,
        caches=_travel(session, access, values),
    )


def _travel(session: Session, access: RegistryAccess, values: dict[str, Any]) -> CacheTravel | None:
    """An object that fetches and stores the build's cache mounts elsewhere; None if they stay on this machine."""
    sources, targets = values.pop("cache_mounts_from"), values.pop("cache_mounts_to")
    if not sources and not targets:
        return None
    from builda.builder.image.pull import machine_platform
    from builda.builder.run.cachetravel import CacheTravel, places

    return CacheTravel(
        session.builder.context,
        places(sources, "--cache-mounts-from"),
        places(targets, "--cache-mounts-to"),
        access,
        str(values["platforms"][0] or machine_platform()),
    )


def execute_options(
    session: Session, request: BuildRequest, inputs: Inputs, values: dict[str, Any], *, live: bool
) -> ExecuteOptions:
    from builda.builder.execution.buildoptions import ExecuteOptions
    from builda.builder.imageoptions import CommitOptions, PullOptions

    timestamp = values.pop("timestamp")
    kind, level = shared_options.configured_compression(values, session)
    image_format = shared_options.image_format(values.pop("format"), session.environ) or "oci"
    layers = values.pop("layers")
    cache_from = buildcache.places(values.pop("cache_from"), "--cache-from")
    cache_to = buildcache.places(values["cache_to"], "--cache-to")
    if layers is None:
        layers = _layers(session.environ.get("BUILDAH_LAYERS") or "true")
    policy = shared_options.pull_policy(values, values.pop("pull"))
    said = shared_options.with_maps(request.run, session.settings)
    run, mounts = buildmounts.split(said, buildmounts.mounts(values.pop("mount")))
    shared_options.check_commands(run)
    ttl = values.pop("cache_ttl")
    commit = CommitOptions(
        format=image_format,
        squash=values.pop("squash"),
        timestamp=timestamp,
        source_date_epoch=shared_options.epoch(values.pop("source_date_epoch"), timestamp, request.build_args),
        rewrite_timestamp=values.pop("rewrite_timestamp"),
        created_annotation=values.pop("created_annotation"),
        identity_label=values.pop("identity_label"),
        annotations=tuple(map(shared_options.annotation, values.pop("annotation"))),
        inherit_annotations=values.pop("inherit_annotations"),
        unset_annotations=values.pop("unsetannotation"),
        unset_env=values.pop("unsetenv"),
        unset_labels=values.pop("unsetlabel"),
        omit_history=values.pop("omit_history"),
        compression=kind or "gzip",
        compression_level=level,
    )
    since = values.pop("cache_since")
    buildcache.check_layers(session, cache_from, cache_to, layers=layers)
    recorded, looks_around = values.pop("report") is not None, values.pop("interactive_on_failure")
    return ExecuteOptions(
        inputs=inputs,
        pull=PullOptions(policy=policy, platform=request.platform, access=inputs.access),
        run=run,
        permissions=request.permissions,
        format=image_format,
        layers=layers,
        mounts=mounts,
        stdin=values.pop("stdin"),
        looks_around=looks_around,
        keeps_failed=values.pop("keep_failed") or session.keeps_failed,
        cache_from=cache_from,
        export=bool(cache_to),
        cache=not values.pop("no_cache") and ttl != 0,
        cache_ttl=None if ttl is None else ttl / 10**9,
        cache_since=0.0 if since is None else float(since),
        commit=commit,
        stage_images=_stage_images(values.pop("save_stages"), values.pop("stage_labels"), values.pop("layer_label")),
        jobs=values.pop("jobs"),
        explain=values.pop("explain_cache"),
        tells_misses=recorded,
        capture=not looks_around
        and (session.quiet or live or recorded or session.relay is not None or session.settings.events is not None),
        hidden=frozenset(("stdout", "stderr") if live else ("stdout",) if session.quiet else ()),
    )


def _stage_images(save: bool, labelled: bool, labels: tuple[str, ...]) -> StageImages | None:
    further = tuple(map(_label, labels))
    if labelled and not save:
        raise InvalidValue('"--stage-labels" requires "--save-stages"')
    if not save:
        return None
    from builda.builder.execution.stageimages import StageImages

    return StageImages(labelled=labelled, labels=further)


def _layers(said: str) -> bool:
    if said.lower() not in ("1", "true", "0", "false"):
        raise InvalidValue(f"BUILDAH_LAYERS must be true or false: {said}")
    return said.lower() in ("1", "true")
