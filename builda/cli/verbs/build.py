"""`build` (`bud`): a Containerfile to an image, with the lines on stdout that scripts know from Buildah."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager

from builda.cli.core import shared_options
from builda.cli.core.options import argument, duration, listed, many, number, refused, switch, text
from builda.cli.core.output import check_files, print_line, print_words, write_file
from builda.cli.core.verb import verb
from builda.cli.progress.buildview import build_view, ended, failed, stage_prefix, wants_live
from builda.cli.verbs import buildcache, buildmounts, clusteroptions, lockfiles, multiplatform, outputs, scanning
from builda.cli.verbs.contexts import BuildContext, NamedContexts, is_fetched, open_context, open_named
from builda.cli.verbs.logfile import logging_to, platform_logs
from builda.cli.verbs.secrets import agents_of, secrets_of
from builda.errors import BuildaError, InvalidValue, Unsupported
from builda.inputfile import read_input
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from builda.builder.build.buildoptions import Built, ExecuteOptions
    from builda.builder.build.stageimages import StageImages
    from builda.builder.imageoptions import Inputs, RegistryAccess
    from builda.builder.locking import Locked, Locking
    from builda.cli.core.verbsession import Session
    from builda.cli.progress.buildview import BuildView
    from builda.cli.progress.observer import Observer
    from builda.cli.verbs.buildlog import Attesting
    from builda.containerfile import BuildRequest


_RUSAGE = "builda says how long each step took; /usr/bin/time measures the whole of a build"
_OF_DOCKER = (
    refused(
        "--push",
        reason="give the destination as the name (-t docker://NAME) or as an output (-o type=registry,name=NAME), "
        "or run builda push afterwards",
        takes_value=False,
    ),
    refused(
        "--load",
        reason="the image is in builda's store; to hand it to docker or podman: builda push NAME docker-archive:FILE, "
        "then docker load -i FILE",
        takes_value=False,
    ),
    refused("--builder", reason="there is no daemon to choose: builda builds where it is called"),
    refused("--call", reason="--check prints the build checks, --print-plan=json the steps"),
    refused("--no-cache-filter", reason="--no-cache is for all stages; build the stages before with --target first"),
)


@verb(
    argument("context", required=False),
    listed("--file", "-f", metavar="FILE", help="The Containerfile; - is standard input. Several are joined."),
    many("--tag", "-t", metavar="NAME", help="Name the image; the first may carry a transport."),
    many("--build-arg", metavar="NAME[=VALUE]", help="Set a build argument; a bare name takes the caller's variable."),
    many("--build-arg-file", metavar="FILE", help="Set the build arguments in the lines of this file."),
    many(
        "--build-context",
        metavar="NAME=WHERE",
        help="A further context: a directory, a URL, docker-image://IMAGE, oci-layout://PATH.",
    ),
    text("--target", metavar="STAGE", help="Build this stage, by name or number, instead of the last."),
    switch("--skip-unused-stages", default=True, help="Leave out stages that the target does not need (default)."),
    text("--from", "from_", metavar="IMAGE", help="Replace the image of the first FROM."),
    text("--ignorefile", metavar="FILE", help="The ignore file of the context."),
    many("--label", metavar="NAME=VALUE", help="Add a label."),
    many("--annotation", metavar="NAME=VALUE", help="Set an annotation of the manifest."),
    many("--env", metavar="NAME[=VALUE]", help="Set a variable in every stage."),
    listed("--unsetenv", metavar="NAME,…", help="Drop variables from the result."),
    listed("--unsetlabel", metavar="NAME,…", help="Drop labels from the result."),
    listed("--unsetannotation", metavar="NAME,…", help="Drop annotations of the base."),
    switch("--identity-label", default=True, help="Write the label io.builda.version (default)."),
    switch("--omit-history", help="Write no history."),
    text("--format", metavar="FORMAT", help="oci or docker.  [env: BUILDA_FORMAT, BUILDAH_FORMAT]"),
    switch("--layers", default=None, is_on=True, help="Make a layer of each step, and remember its result (default)."),
    switch("--no-cache", help="Do every step again."),
    duration("--cache-ttl", help="Do a step again if its result is older than this."),
    many("--cache-from", metavar="REPO", help="Look for results of steps in this repository, too."),
    many("--cache-to", metavar="REPO", help="Push the results of steps to this repository after the build."),
    switch(
        "--explain-cache",
        help="Say for the first step of a stage that is done again what differs from the remembered ones.",
    ),
    switch("--rm", default=None, help="Remove working containers (always done; accepted for scripts)."),
    switch("--force-rm", default=None, help="The same when the build fails (always done; accepted for scripts)."),
    switch("--squash", help="Make one layer of everything, the base included."),
    switch("--all-platforms", help="Build for every platform that all base images have."),
    number("--jobs", default=1, help="Build this many stages at a time; 0 is no limit.  [default: 1]"),
    many(
        "--output",
        "-o",
        metavar="DIR|type=TYPE,…",
        help="Also write the root file system (local, tar), an archive (oci, docker) or an image (image, registry).",
    ),
    text("--iidfile", metavar="FILE", help="Write the image ID into this file instead of printing it."),
    text("--iidfile-raw", "--raw-iidfile", metavar="FILE", help="The same without sha256:."),
    text("--metadata-file", metavar="FILE", help="Write the digests as JSON into this file."),
    text("--report", metavar="FILE", help="Write a page about the build: times, what was done again and why, layers."),
    text("--manifest", metavar="LIST", help="Append the image to this list, which is made when missing."),
    text("--pull", metavar="POLICY", bare="true", help="missing (default), always, never or newer."),
    switch("--quiet", "-q", help="Print the image ID only."),
    text(
        "--progress",
        metavar="HOW",
        help="auto (default): a live view where stderr is a terminal; plain: lines; tty.  [env: BUILDA_PROGRESS]",
    ),
    many("--secret", metavar="id=ID[,src=FILE|,env=NAME]", help="A secret for RUN --mount=type=secret."),
    many("--ssh", metavar="default|ID[=SOCKET|KEY]", help="An agent, or key files for one, for RUN --mount=type=ssh."),
    many(
        "--allow",
        metavar="PERMISSION",
        help="Let RUN instructions have what they ask for: device[=PATH], network.host or security.insecure.",
    ),
    many("--cpp-flag", metavar="FLAG", help="-DNAME[=VALUE], -UNAME or -IDIR for .in files."),
    switch("--preprocess", help="Preprocess the Containerfile whatever its name."),
    text("--print-plan", metavar="FORMAT", bare="text", help="Print the steps as text or json, and build nothing."),
    switch("--print-script", help="Print a bash script that builds the same image, and build nothing."),
    switch("--check", help="Print the build checks' warnings, and build nothing."),
    switch("--compress", hidden=True, help="Accepted and without meaning, as in Buildah."),
    switch("--disable-content-trust", hidden=True, help="Accepted and without meaning, as in Buildah."),
    many("--mount", metavar="type=TYPE,…", help="Mount this for every RUN: bind (of the host), cache or tmpfs."),
    switch(
        "--interactive-on-failure",
        help="After a command that fails, open a shell with its files, variables, mounts and user; needs a terminal.",
    ),
    switch("--keep-failed", help="Keep the working container of a step that fails, for builda debug."),
    switch("--stdin", help="Let commands read standard input, which is empty for them otherwise."),
    text("--logfile", metavar="FILE", help="Print to this file, mode 0600, instead of stdout and stderr."),
    switch("--logsplit", help="Of each platform, print to FILE_OS_ARCH instead, FILE being that of --logfile."),
    switch("--save-stages", help="Keep each stage below the target as an image without a name."),
    switch("--stage-labels", help="With --save-stages: say in labels of all images the name and base of their stage."),
    many("--layer-label", metavar="NAME=VALUE", help="Add a label to the images that --save-stages makes."),
    refused(
        "--compat-volumes",
        reason="what RUN changes below a VOLUME stays; mount --mount type=tmpfs there to lose it",
        takes_value=False,
    ),
    refused("--os-version", reason="only images of Windows need one, and builda builds none"),
    refused("--os-feature", reason="only images of Windows need one, and builda builds none"),
    text(
        "--source-policy-file",
        metavar="FILE",
        help="Allow, deny or replace base images by the rules in this file.",
    ),
    text(
        "--lock",
        metavar="FILE",
        bare="",
        help="Write the digests that all images, URLs and repositories have now into builda.lock beside the "
        "Containerfile, or into FILE.  [env: BUILDA_LOCK]",
    ),
    text(
        "--locked",
        metavar="FILE",
        bare="",
        help="Build from what builda.lock, or FILE, says, and ask no tag.  [env: BUILDA_LOCKED]",
    ),
    scanning.OPTIONS,
    switch("--inherit-labels", default=True, help="Keep the labels of base images and stages (default)."),
    switch("--inherit-annotations", default=True, help="Keep the annotations of the base image (default)."),
    switch("--force-compression", hidden=True, help="Taken: new layers always have the compression asked for."),
    switch("--log-rusage", "--rusage", hidden=True, help="Taken: each step says how long it took."),
    refused("--rusage-logfile", reason=_RUSAGE),
    _OF_DOCKER,
    refused("--hooks-dir", reason="builda runs no hooks; do what they do in a RUN, or with --volume and --device"),
    refused("--sign-by", reason="images are signed when they are pushed: builda push --sign-by"),
    shared_options.COMPRESSION,
    shared_options.TIME,
    shared_options.PULL_FLAGS,
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.PLATFORMS,
    shared_options.NAMESPACES,
    shared_options.USERNS,
    shared_options.RESOURCES,
    shared_options.HOST,
    shared_options.RUNTIME,
    shared_options.PROCESS,
    shared_options.SECURITY,
    shared_options.DECRYPTION,
    shared_options.CONFIDENTIAL,
    shared_options.SBOM,
    shared_options.HIDDEN,
    clusteroptions.CLUSTER,
    name="build",
    example="builda bud -t app:1 -f Containerfile .",
)
def build(session: Session, *, context: str | BuildContext | None, quiet: bool, **values: Any) -> None:
    """Build an image from a Containerfile and print its ID.

    CONTEXT is what COPY and ADD take files from: a directory, by default the current one, a git repository
    (URL#ref:subdirectory), an archive behind an http URL, or - for an archive or a Containerfile on standard input. A
    Containerfile whose name ends in .in is preprocessed. Steps are remembered and not done again while nothing that
    they read differs.

    Standard output has Buildah's lines, the ID being the last; what steps took, warnings of the build checks and the
    live view of a terminal go to standard error. A command that fails ends the build with its own status, and nothing
    is named then.
    """
    session.builds = True
    session.quiet = quiet or outputs.to_stdout(values["output"])
    if _builds_elsewhere(session, context, quiet, values):
        return
    logfile = values.pop("logfile")
    if logfile is not None and outputs.to_stdout(values["output"]):
        raise InvalidValue("--logfile cannot be used with an --output to standard output")
    values["log_of"] = platform_logs(logfile, split=values.pop("logsplit"))
    report = values["report"]
    check_files(report)
    nothing = next((name for name in ("check", "print_plan", "print_script") if values[name]), None)
    if report is not None and nothing is not None:
        raise InvalidValue(f"--report cannot be used with --{nothing.replace('_', '-')}, which builds nothing")
    with logging_to(logfile), _recorded(session, report, context), _reported(session) as began, ExitStack() as stack:
        values["attesting"] = attesting = _attesting(session, values)
        access = shared_options.registry_access(values, session.environ)
        opened, lock, pins = _opened(session, context, values, access, stack)
        named = open_named(session.builder, values.pop("build_context"), access, stack, pins)
        request = _request(session, opened, named, values)
        if attesting is not None:
            attesting.opened(_shown(context), opened)
        inputs = _inputs(session, opened, named, access, values, stack)
        if pins is not None:
            request = replace(request, pins=lockfiles.of_containerfile(pins, inputs))
        _build(session, request, inputs, values, began)
        if lock is not None and pins is not None:
            lock.save(session, pins)


def prepared(
    session: Session, context: str | None, values: dict[str, Any], stack: ExitStack
) -> tuple[BuildRequest, ExecuteOptions]:
    """The request and the options of a build with these values of `build`, for a verb that performs a part of one."""
    values["attesting"] = None
    access = shared_options.registry_access(values, session.environ)
    opened, _, _ = _opened(session, context, values, access, stack)
    named = open_named(session.builder, values.pop("build_context"), access, stack)
    request = _request(session, opened, named, values)
    _check_rest(session, values)
    inputs = _inputs(session, opened, named, access, values, stack)
    (platform, *others) = values["platforms"]
    if others:
        multiplatform.check_one(values["platforms"], "--step")
    request = replace(request, platform=platform)
    return request, _execute_options(session, request, inputs, values, live=False)


def _builds_elsewhere(
    session: Session, context: str | BuildContext | None, quiet: bool, values: dict[str, Any]
) -> bool:
    """Whether the build is for a cluster, where it is done then. What builds nothing is done here."""
    on = clusteroptions.cluster_of(session.environ, values)
    if on is None or session.relay is not None or values["check"] or values["print_plan"] or values["print_script"]:
        clusteroptions.drop(values, is_used=on is not None)
        return False
    from builda.cli.verbs.clusterbuild import build_on

    assert not isinstance(context, BuildContext), "a relayed build is done where it is"
    arguments = _build_args(values["build_arg_file"], values["build_arg"], session.environ)
    arguments = _with_epoch(arguments, session.environ, values)
    with logging_to(values["logfile"]), _reported(session):
        build_on(session, context, build.rows, {**values, "quiet": quiet}, arguments, on)
    return True


def _opened(
    session: Session,
    context: str | BuildContext | None,
    values: dict[str, Any],
    access: RegistryAccess,
    stack: ExitStack,
) -> tuple[BuildContext, lockfiles.LockFile | None, Locked | Locking | None]:
    """The context, the lock file that is named for the build, and its pins."""
    prepared = context if isinstance(context, BuildContext) else None
    context = context if not isinstance(context, BuildContext) else str(context.directory)
    lock = lockfiles.named(session.environ, values.pop("lock"), values.pop("locked"))
    if lock is not None and lock.written and values["check"]:
        raise InvalidValue("--lock cannot be used with --check", hint="--print-plan finds digests and builds nothing")
    files, ignore_file = values.pop("file"), values.pop("ignorefile")
    if lock is None or not is_fetched(context):
        opened = prepared or open_context(session.builder, context, files, ignore_file, access, stack)
        lock = lock and lock.beside(opened.files[0][0], opened.directory)
        return opened, lock, lock and lock.pins(session, access)
    lock = lock.beside("", None)
    pins = lock.pins(session, access)
    return open_context(session.builder, context, files, ignore_file, access, stack, pins), lock, pins


def _attesting(session: Session, values: dict[str, Any]) -> Attesting | None:
    """What is to be said of the image besides itself; None for nothing."""
    from builda.cli.verbs.attesting import attest_of

    attest = attest_of(values)
    if attest is None:
        return None
    from builda.cli.verbs.buildlog import Attesting

    return Attesting(session, attest)


def _build(session: Session, request: BuildRequest, inputs: Inputs, values: dict[str, Any], began: float) -> None:
    from builda import containerfile

    wanted = values.pop("platforms")
    if values.pop("check"):
        _print_findings(containerfile.check(session.builder, request, inputs.ignore_file))
        return
    plan_format, wants_script = values.pop("print_plan"), values.pop("print_script")
    if plan_format is not None:
        multiplatform.check_one(wanted, "--print-plan")
        _print_plan(containerfile.compile_plan(session.builder, request).plan, plan_format)
        return
    if wants_script:
        multiplatform.check_one(wanted, "--print-script")
        _print_script(session, replace(request, platform=wanted[0]), inputs, values)
        return
    progress = values.pop("progress") or session.environ.get("BUILDA_PROGRESS") or "auto"
    if values["interactive_on_failure"]:
        _check_interactive(values)
        progress = "plain"
    live = wants_live(progress, sys.stderr, session.environ, quiet=session.quiet, verbose=session.settings.verbose)
    if session.relay is not None:
        live = session.relay.live
    _check_rest(session, values)
    check = scanning.check(session, values)
    log_of = values.pop("log_of")
    options = _execute_options(session, request, inputs, values, live=live)
    if values.pop("all_platforms"):
        wanted = multiplatform.all_of(session, request, options, wanted)
    attesting: Attesting | None = values.pop("attesting")
    if attesting is not None:
        attesting.check(values)
    if len(wanted) > 1:
        multiplatform.check(values)
        if attesting is not None and attesting.has_files():
            multiplatform.check_one(wanted, "--sbom-output")
        with _watched(session, options, live=live):
            each = multiplatform.build(session, request, options, wanted, log_of, attesting, check)
        multiplatform.publish(session, each, options, values, began)
        return
    request = replace(request, platform=wanted[0])
    if session.relay is not None:
        options = replace(options, platform_label=session.relay.platform)
    with log_of(wanted[0]), _watched(session, options, live=live):
        built = containerfile.build(session.builder, request, options)
        if check is not None:
            check(built.image)
        if attesting is not None:
            built = attesting.done(built, request, options)
    names = _publish(session, built, options, values)
    session.emit(ended(built, names, began))


@contextmanager
def _recorded(session: Session, path: str | None, context: str | BuildContext | None) -> Iterator[None]:
    """Write a page about the build that goes on inside to the file `path`, however it ends."""
    if path is None:
        yield
        return
    from builda.cli.report.imagelayers import layers_of
    from builda.cli.report.page import page
    from builda.cli.report.recording import ImageLayers, Recorder

    recorder = Recorder()
    session.record(recorder)
    try:
        yield
        if recorder.image is not None:
            layers = layers_of(session.builder.context, recorder.image.id.encoded)
            recorder.build.images = (ImageLayers("", layers),)
    finally:
        write_file(path, page(recorder.build, _shown(context)))


def _shown(context: str | BuildContext | None) -> str:
    return str(context.directory) if isinstance(context, BuildContext) else context or "."


@contextmanager
def _reported(session: Session) -> Iterator[float]:
    """Emit an event if the build fails; gives the time at which the build began."""
    import time

    began = time.monotonic()
    try:
        yield began
    except BuildaError as error:
        session.emit(failed(error, began))
        raise


@contextmanager
def _watched(session: Session, options: ExecuteOptions, *, live: bool) -> Iterator[None]:
    """Shows the build that goes on inside."""
    if session.relay is not None:
        with session.relay.watching():
            yield
        return
    views: list[BuildView] = []

    def make(others: Observer) -> BuildView:
        views.append(
            build_view(
                others,
                live=live,
                quiet=session.quiet,
                mixed=options.jobs != 1,
                remembers=options.layers,
                warnings=session.settings.warnings,
                environ=session.environ,
            )
        )
        return views[0]

    session.watch(make)
    outcome = "failed"
    try:
        yield
        outcome = "built"
    except (KeyboardInterrupt, SystemExit):
        outcome = "interrupted"
        raise
    finally:
        views[0].close(outcome)


def _line(session: Session, text_: str) -> None:
    """One of Buildah's lines, unless quiet."""
    if not session.quiet:
        print_words(text_)


def _request(session: Session, context: BuildContext, named: NamedContexts, values: dict[str, Any]) -> BuildRequest:
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
        build_args=_with_epoch(
            _build_args(values.pop("build_arg_file"), values.pop("build_arg"), session.environ), session.environ, values
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


def _with_epoch(arguments: dict[str, str], environ: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, str]:
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


def _build_args(files: tuple[str, ...], items: tuple[str, ...], environ: Mapping[str, str]) -> dict[str, str]:
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


def _check_rest(session: Session, values: dict[str, Any]) -> None:
    for name in ("rm", "force_rm", "compress", "disable_content_trust", "force_compression"):
        values.pop(name)
    if values["layer_label"] and not values["save_stages"]:
        from builda.events import Warned

        message = "--layer-label has no effect without --save-stages: no images are made that could have the labels"
        session.emit(Warned(message=message, hint="--label labels the result"))
    if values.pop("log_rusage"):
        from builda.events import Warned

        session.emit(Warned(message=f"--log-rusage has no effect: {_RUSAGE}"))
    if values["iidfile"] and values["iidfile_raw"]:
        raise InvalidValue("--iidfile cannot be used with --iidfile-raw")
    if values["jobs"] < 0:
        raise InvalidValue(f"--jobs is 0 or more: {values['jobs']}")
    outputs.check(outputs.parse(values["output"]))
    _check_names((*values["tag"], *filter(None, (values["manifest"],))))
    check_files(values["iidfile"], values["iidfile_raw"], values["metadata_file"])


def _check_interactive(values: dict[str, Any]) -> None:
    """InvalidValue where --interactive-on-failure could show no shell."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidValue("--interactive-on-failure needs a terminal on standard input and output")
    said = {"jobs": values["jobs"] != 1, "report": values["report"] is not None, "stdin": values["stdin"]}
    for name in filter(said.get, said):
        raise InvalidValue(f"--interactive-on-failure cannot be used with --{name}")


def _check_names(names: tuple[str, ...]) -> None:
    """Refuse, before anything is built, names that its image could not have."""
    from builda.builder.image.push import local_name
    from builda.transfer.locate import parse_location

    for name in names:
        location = parse_location(name)
        if location is None or location.in_store:
            local_name(name if location is None else location.where)


def _inputs(
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
    )


def _execute_options(
    session: Session, request: BuildRequest, inputs: Inputs, values: dict[str, Any], *, live: bool
) -> ExecuteOptions:
    from builda.builder.build.buildoptions import ExecuteOptions
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
    from builda.builder.build.stageimages import StageImages

    return StageImages(labelled=labelled, labels=further)


def _layers(said: str) -> bool:
    if said.lower() not in ("1", "true", "0", "false"):
        raise InvalidValue(f"BUILDAH_LAYERS is true or false: {said}")
    return said.lower() in ("1", "true")


def _publish(session: Session, built: Built, options: ExecuteOptions, values: dict[str, Any]) -> tuple[str, ...]:
    """Names (which are returned), lists, files and the last lines on stdout."""
    from builda.builder.image.push import local_name, write_to
    from builda.transfer.locate import parse_location

    image, store = built.image, session.store
    names: list[str] = []
    for miss in built.misses:
        _line(session, f"--> not remembered: {miss.text}: {miss.reason}")
    tags = values.pop("tag")
    _line(session, f"{stage_prefix(built.stage)}COMMIT {tags[0] if tags else ''}".rstrip())
    _line(session, f"--> {image.id.encoded[:12]}")
    for tag in tags:
        location = parse_location(tag)
        if location is not None and not location.in_store:
            write_to(session.builder.context, image, location, options.inputs.access)
            names.append(tag)
            continue
        name = local_name(tag if location is None else location.where)
        store.images.tag(image, name)
        names.append(name)
        _line(session, f"Successfully tagged {name}")
    if (manifest := values.pop("manifest")) is not None:
        from builda.builder.image import manifestlist

        manifestlist.appended(store, local_name(manifest), image)
    buildcache.push(session, built, values.pop("cache_to"), options.inputs.access)
    for output in outputs.parse(values["output"]):
        outputs.write(session, image, output, names[0] if names else None, options.inputs.access)
    _write_ids(session, built, values)
    return tuple(names)


def _write_ids(session: Session, built: Built, values: dict[str, Any]) -> None:
    if values["metadata_file"] is not None:
        from builda.cli.verbs.commit import metadata

        write_file(values["metadata_file"], metadata(session.store, built.image))
    if values["iidfile"] is not None:
        write_file(values["iidfile"], str(built.image.id))
    elif values["iidfile_raw"] is not None:
        write_file(values["iidfile_raw"], built.image.id.encoded)
    elif not outputs.to_stdout(values["output"]):
        print_line(built.image.id.encoded)


def _print_findings(findings: Any) -> None:
    for finding in findings:
        print_words(f"{finding.at.file}:{finding.at.line}: {finding.check}: {finding.message}")
    if findings:
        raise InvalidValue(f"{len(findings)} warning{'s' * (len(findings) > 1)}", hint="# check=skip=NAME skips one")


def _print_script(session: Session, request: BuildRequest, inputs: Inputs, values: dict[str, Any]) -> None:
    from builda import containerfile
    from builda.builder.build.planscript import ScriptRequest, script

    if request.fetched:
        raise Unsupported("a script needs a context that stays", hint="fetch it, and name the directory")
    taken = {name: values[name] for name in ("secret", "ssh", "tag", "output", "manifest")}
    for name in ("output", "manifest"):
        if taken[name]:
            raise Unsupported(f"--{name} cannot be used with --print-script", hint="do it with the script's image")
    if values["attesting"] is not None:
        raise Unsupported(
            "--sbom, --provenance and --attest cannot be used with --print-script",
            hint="give --sbom and --provenance to the commit in the script",
        )
    options = _execute_options(session, request, inputs, values, live=False)
    if not options.commit.inherit_annotations:
        raise Unsupported("--inherit-annotations=false cannot be used with --print-script")
    if options.stage_images is not None:
        raise Unsupported("--save-stages cannot be used with --print-script", hint="commit the script's containers")
    plan = containerfile.compile_plan(session.builder, request, options.pull).plan
    written = ScriptRequest(
        context=str(request.context),
        ignore_file=None if inputs.ignore_file is None else str(inputs.ignore_file),
        named={name: str(path) for name, path in request.named_contexts.items()},
        secrets=taken["secret"],
        agents=taken["ssh"],
        tags=taken["tag"],
    )
    print_line(script(plan, options, written).rstrip("\n"))


def _print_plan(plan: Any, plan_format: str) -> None:
    if plan_format == "text":
        from builda.builder.build.plantext import plan_text

        print_words(plan_text(plan))
        return
    if plan_format != "json":
        raise InvalidValue(f"unknown format of a plan: {plan_format}", hint="it is text or json")
    import json

    from builda.builder.build.keys import canonical
    from builda.cli.core.output import print_json

    print_json(json.loads(canonical(plan)))
