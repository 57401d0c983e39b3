"""`build` (`bud`): a Containerfile to an image, with the lines on stdout that scripts know from Buildah."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager

from builda.cli.building import clusteroptions, lockfiles, multiplatform, outputs, scanning
from builda.cli.building.buildinput import (
    RUSAGE,
    build_args,
    check_interactive,
    check_rest,
    execute_options,
    inputs_of,
    request_of,
    with_epoch,
)
from builda.cli.building.contexts import BuildContext, ContextAt, is_fetched, open_context, open_named
from builda.cli.building.logfile import logging_to, platform_logs
from builda.cli.core import shared_options
from builda.cli.core.options import argument, duration, listed, many, number, refused, switch, text
from builda.cli.core.output import check_files, write_file
from builda.cli.core.verb import verb
from builda.cli.progress.buildview import build_view, ended, failed, wants_live
from builda.errors import BuildaError, InvalidValue
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from builda.builder.execution.buildoptions import ExecuteOptions
    from builda.builder.imageoptions import Inputs, RegistryAccess
    from builda.builder.locking import Locked, Locking
    from builda.cli.building.buildlog import Attesting
    from builda.cli.core.verbsession import Session
    from builda.cli.progress.buildview import BuildView
    from builda.cli.progress.observer import Observer
    from builda.containerfile import BuildRequest


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
    text("--cache-since", hidden=True, help="Do a step again if its result is from before this second of the epoch."),
    many("--cache-from", metavar="REPO", help="Look for results of steps in this repository, too."),
    many("--cache-to", metavar="REPO", help="Push the results of steps to this repository after the build."),
    many(
        "--cache-mounts-from",
        metavar="REPO",
        help="Fetch cache mounts that this machine has not from this repository, or type=local,dir=DIR.",
    ),
    many(
        "--cache-mounts-to",
        metavar="REPO",
        help="Push the cache mounts that the build used to this repository, or type=local,dir=DIR.",
    ),
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
    text(
        "--matrix",
        metavar="FILE",
        help="Build once for each combination of the build arguments in this file; tags name them: -t 'app:${NAME}'.",
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
    refused("--rusage-logfile", reason=RUSAGE),
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
def build(session: Session, *, context: str | BuildContext | ContextAt | None, quiet: bool, **values: Any) -> None:
    """Build an image from a Containerfile and print its ID.

    CONTEXT is what COPY and ADD take files from: a directory, by default the current one, a git repository
    (URL#ref:subdirectory), an archive behind an http URL, or - for an archive or a Containerfile on standard input. A
    Containerfile whose name ends in .in is preprocessed. Steps are remembered and not done again while nothing that
    they read differs.

    Standard output has Buildah's lines, the ID being the last; what steps took, warnings of the build checks and the
    live view of a terminal go to standard error. A command that fails ends the build with its own status, and nothing
    is named then.
    """
    if values["matrix"] is not None:
        from builda.cli.verbs.matrixbuild import build_matrix

        assert not isinstance(context, BuildContext | ContextAt), "a build of a matrix has none"
        build_matrix(session, context, build.rows, {**values, "quiet": quiet})
        return
    values.pop("matrix")
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
        request = request_of(session, opened, named, values)
        if attesting is not None:
            attesting.opened(_shown(context), opened)
        inputs = inputs_of(session, opened, named, access, values, stack)
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
    request = request_of(session, opened, named, values)
    check_rest(session, values)
    inputs = inputs_of(session, opened, named, access, values, stack)
    (platform, *others) = values["platforms"]
    if others:
        multiplatform.check_one(values["platforms"], "--step")
    request = replace(request, platform=platform)
    return request, execute_options(session, request, inputs, values, live=False)


def _builds_elsewhere(
    session: Session, context: str | BuildContext | ContextAt | None, quiet: bool, values: dict[str, Any]
) -> bool:
    """Whether the build is for a cluster, where it is done then. What builds nothing is done here."""
    on = clusteroptions.cluster_of(session.environ, values)
    if on is None or session.relay is not None or values["check"] or values["print_plan"] or values["print_script"]:
        clusteroptions.drop(values, is_used=on is not None)
        return False
    from builda.cli.jobs.clusterbuild import build_on

    assert not isinstance(context, BuildContext | ContextAt), "a relayed build is done where it is"
    arguments = build_args(values["build_arg_file"], values["build_arg"], session.environ)
    arguments = with_epoch(arguments, session.environ, values)
    with logging_to(values["logfile"]), _reported(session):
        build_on(session, context, build.rows, {**values, "quiet": quiet}, arguments, on)
    return True


def _opened(
    session: Session,
    context: str | BuildContext | ContextAt | None,
    values: dict[str, Any],
    access: RegistryAccess,
    stack: ExitStack,
) -> tuple[BuildContext, lockfiles.LockFile | None, Locked | Locking | None]:
    """The context, the lock file that is named for the build, and its pins."""
    prepared = context if isinstance(context, BuildContext) else None
    callers = context.files if isinstance(context, ContextAt) else None
    context = context if context is None else _shown(context)
    lock = lockfiles.named(session.environ, values.pop("lock"), values.pop("locked"))
    if lock is not None and lock.written and values["check"]:
        raise InvalidValue("--lock cannot be used with --check", hint="--print-plan finds digests and builds nothing")
    files, ignore_file = values.pop("file"), values.pop("ignorefile")
    if lock is None or not is_fetched(context):
        opened = prepared or open_context(session.builder, context, files, ignore_file, access, stack, None, callers)
        lock = lock and lock.beside(opened.files[0][0], opened.directory)
        return opened, lock, lock and lock.pins(session, access)
    lock = lock.beside("", None)
    pins = lock.pins(session, access)
    return open_context(session.builder, context, files, ignore_file, access, stack, pins, callers), lock, pins


def _attesting(session: Session, values: dict[str, Any]) -> Attesting | None:
    """The attestations that the options ask for; None without any."""
    from builda.cli.building.attesting import attest_of

    attest = attest_of(values)
    if attest is None:
        return None
    from builda.cli.building.buildlog import Attesting

    return Attesting(session, attest)


def _build(session: Session, request: BuildRequest, inputs: Inputs, values: dict[str, Any], began: float) -> None:
    from builda import containerfile

    wanted = values.pop("platforms")
    if values.pop("check"):
        from builda.cli.building.buildprints import print_findings

        print_findings(containerfile.check(session.builder, request, inputs.ignore_file))
        return
    plan_format, wants_script = values.pop("print_plan"), values.pop("print_script")
    if plan_format is not None:
        from builda.cli.building.buildprints import print_plan

        multiplatform.check_one(wanted, "--print-plan")
        print_plan(containerfile.compile_plan(session.builder, request).plan, plan_format)
        return
    if wants_script:
        from builda.cli.building.buildprints import print_script

        multiplatform.check_one(wanted, "--print-script")
        print_script(session, replace(request, platform=wanted[0]), inputs, values)
        return
    progress = values.pop("progress") or session.environ.get("BUILDA_PROGRESS") or "auto"
    if values["interactive_on_failure"]:
        check_interactive(values)
        progress = "plain"
    live = wants_live(progress, sys.stderr, session.environ, quiet=session.quiet, verbose=session.settings.verbose)
    if session.relay is not None:
        live = session.relay.live
    check_rest(session, values)
    check = scanning.check(session, values)
    log_of = values.pop("log_of")
    options = execute_options(session, request, inputs, values, live=live)
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
    from builda.cli.verbs.buildresult import publish

    names = publish(session, built, options, values)
    session.emit(ended(built, names, began))


@contextmanager
def _recorded(session: Session, path: str | None, context: str | BuildContext | ContextAt | None) -> Iterator[None]:
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


def _shown(context: str | BuildContext | ContextAt | None) -> str:
    match context:
        case BuildContext():
            return str(context.directory)
        case ContextAt():
            return context.where
        case _:
            return context or "."


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
