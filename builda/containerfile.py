"""build: a Containerfile to an image. The frontend compiles it, the builder performs the plan."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from builda.builder.image.pull import machine_platform, pull_for_build
from builda.builder.imageoptions import PullOptions
from builda.errors import ContainerfileError, InvalidValue, NotFound, StepFailed
from builda.events import Warned
from builda.frontend.sourcetext import SIZE_LIMIT, SourceText, decode
from builda.inputfile import read_input
from builda.permissions import NO_PERMISSIONS, Permissions
from builda.plan import NO_OPTIONS, Location, RunOptions
from builda.values import dataclass, field, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from builda.builder.builder import Builder
    from builda.builder.execution.buildoptions import Built, ExecuteOptions
    from builda.builder.locking import Pins
    from builda.events import Emit
    from builda.frontend.checks import Facts, Finding
    from builda.frontend.compile import Compiled
    from builda.frontend.parse import Parsed
    from builda.frontend.sourcepolicy import SourcePolicy
    from builda.frontend.stagemarks import StageMark
    from builda.oci.config import ImageConfig
    from builda.oci.descriptor import Platform
    from builda.oci.edits import ConfigEdit
    from builda.plan import Plan
    from builda.store.containers import WorkingContainer
    from builda.store.store import Image

__all__ = [
    "SIZE_LIMIT",
    "BuildRequest",
    "build",
    "build_directory",
    "check",
    "compile_plan",
    "edits_of",
    "find_containerfile",
    "find_ignore_file",
    "read_containerfile",
]

UNUSED_ARGS = "one or more build args were not consumed"
"""The beginning of the warning about build arguments that no instruction reads."""
CONTAINERFILES = ("Containerfile", "Dockerfile", "Containerfile.in", "Dockerfile.in")
_DOCKERFILE = r"(docker\.io/)?docker/dockerfile(-upstream)?([:@]|$)"
"""The frontend whose language builda reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """The input of `build`: a Containerfile (or several, one below the other) and the options to compile it."""

    files: tuple[tuple[str, bytes], ...]  # names as shown in errors, and their bytes
    context: Path | str | None = None
    fetched: bool = False  # the context is a copy: places are told relative to it
    preprocess: bool = False  # also files that do not end in .in
    cpp_flags: tuple[str, ...] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    unused_stages: bool = False  # also build the stages before it that it does not depend on
    named_contexts: Mapping[str, Path | str] = field(default_factory=dict)
    named_images: Mapping[str, str] = field(default_factory=dict)
    base: str | None = None  # replaces the image of the first FROM
    env: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    inherits_labels: bool = True  # of base images and base stages
    policy: SourcePolicy | None = None  # which images may be used, and what is taken for them
    pins: Pins | None = None  # which content names mean, after the policy; None: what they mean now
    platform: Platform | None = None
    permissions: Permissions = NO_PERMISSIONS
    run: RunOptions = NO_OPTIONS  # how commands are run where they do not say


def build(builder: Builder, request: BuildRequest, options: ExecuteOptions | None = None) -> Built:
    """The image that a Containerfile describes, in the store and without a name.

    Raises ContainerfileError with the place and an excerpt for what cannot be built, StepFailed for a step that fails.
    """
    from builda.builder.execution.buildoptions import ExecuteOptions
    from builda.builder.execution.execute import execute
    from builda.frontend.parse import parse

    chosen = options or ExecuteOptions()
    source = read(builder, request)
    with _excerpts(source):
        parsed = parse(source)
        configs: dict[str, ImageConfig] = {}
        compiled = _compiled(builder, request, parsed, chosen.pull, configs)
        _warn(builder, parsed, _facts(request, chosen.inputs.ignore_file, configs.get), request)
        pull = replace(chosen.pull, platform=request.platform or chosen.pull.platform)
        return execute(builder.context, compiled.plan, replace(chosen, pull=pull))


def stop_before(builder: Builder, request: BuildRequest, options: ExecuteOptions, where: str) -> WorkingContainer:
    """The working container of a build that stopped before the step that `where` names (`found_step`).

    It is noted like one of a failed step, and the caller's to remove. Raises what `build` raises, and InvalidValue for
    a step that is not there.
    """
    from builda.builder.debug.stepsearch import found_step
    from builda.builder.execution.execute import stop_before
    from builda.frontend.parse import parse

    source = read(builder, request)
    with _excerpts(source):
        pull = replace(options.pull, platform=request.platform or options.pull.platform)
        plan = _compiled(builder, request, parse(source), pull, {}).plan
        lines = {place.file: place.line for place in sorted(source.places, key=lambda place: place.line)}
        plan, step = found_step(plan, where, lines)
        return stop_before(builder.context, plan, replace(options, pull=pull, stops_before=step))


def build_directory(
    builder: Builder,
    context: str | Path = ".",
    *,
    file: str | Path | None = None,
    names: tuple[str, ...] = (),
    build_args: Mapping[str, str] | None = None,
    target: str | None = None,
    options: ExecuteOptions | None = None,
) -> Image:
    """Build the Containerfile `file` (default: that of `context`) and return its image, which gets `names`.

    Raises what `build` raises, and NotFound where there is no Containerfile. No name is given when the build fails.
    """
    from builda.builder.execution.buildoptions import ExecuteOptions
    from builda.builder.image.push import local_name

    full_names = [local_name(name) for name in names]
    path = str(file) if file is not None else find_containerfile(context)
    request = BuildRequest(
        files=((path, read_containerfile(context, path)),),
        context=context,
        build_args=build_args or {},
        target=target,
    )
    chosen = options or ExecuteOptions()
    inputs = replace(chosen.inputs, context=context, ignore_file=find_ignore_file(context, path))
    image = build(builder, request, replace(chosen, inputs=inputs)).image
    for name in full_names:
        builder.store.images.tag(image, name)
    return builder.store.image(str(image.digest))


def source_policy(path: str) -> SourcePolicy:
    """The rules in a file of --source-policy-file; NotFound, InvalidValue or Unsupported naming it."""
    from builda.frontend.sourcepolicy import parse

    try:
        return parse(read_input(path, "source policy"), path)
    except FileNotFoundError as error:
        raise NotFound(f"no such source policy: {path}") from error


def compile_plan(builder: Builder, request: BuildRequest, pull: PullOptions | None = None) -> Compiled:
    """The plan of a Containerfile; base images are pulled for their configurations, and nothing is built."""
    from builda.frontend.parse import parse

    source = read(builder, request)
    with _excerpts(source):
        return _compiled(builder, request, parse(source), pull or PullOptions(), {})


def marks_of(
    files: tuple[tuple[str, bytes], ...],
    build_args: Mapping[str, str],
    *,
    target: str | None,
    platform: Platform | None,
    contexts: frozenset[str],
    others: str,
) -> tuple[StageMark, ...]:
    """What tells the stages that a build needs from others', without asking for base images; the target is the last.

    `contexts` are the names of further contexts; `others` is what else counts for all stages.
    """
    from builda.frontend.compileoptions import CompileOptions
    from builda.frontend.parse import parse
    from builda.frontend.stagemarks import stage_marks

    source = SourceText((), ())
    for name, data in files:
        source = source + SourceText.of(decode(data, name), name)
    with _excerpts(source):
        options = CompileOptions(
            platform=platform or machine_platform(),
            build_platform=machine_platform(),
            build_args=build_args,
            target=target,
            contexts=contexts,
        )
        return stage_marks(parse(source), options, others)


def checked(builder: Builder, request: BuildRequest, pull: PullOptions, look: Callable[[Plan], None]) -> None:
    """`look` has seen the plan; a ContainerfileError of it gets the lines around its place."""
    from builda.frontend.parse import parse

    source = read(builder, request)
    with _excerpts(source):
        look(_compiled(builder, request, parse(source), pull, {}).plan)


def check(builder: Builder, request: BuildRequest, ignore_file: Path | str | None = None) -> tuple[Finding, ...]:
    """The findings of the build checks. Nothing is built or fetched: base images are read if they are stored."""
    from builda.frontend.checks import check
    from builda.frontend.parse import parse

    def stored(name: str) -> ImageConfig | None:
        image = builder.store.find_image(name)
        return None if image is None else image.config

    source = read(builder, request)
    with _excerpts(source):
        return check(parse(source), _facts(request, ignore_file, stored))


def _facts(
    request: BuildRequest, ignore_file: Path | str | None, config_of: Callable[[str], ImageConfig | None]
) -> Facts:
    from builda.builder.copy.ignored import ignored_by
    from builda.frontend.checks import Facts

    return Facts(
        platform=request.platform or machine_platform(),
        build_platform=machine_platform(),
        build_args=request.build_args,
        ignored=ignored_by(ignore_file, request.context),
        config_of=config_of,
    )


def _warn(builder: Builder, parsed: Parsed, facts: Facts, request: BuildRequest) -> None:
    """Tell what the checks find; a ContainerfileError where they are to fail the build."""
    from builda.frontend.check_settings import settings_of
    from builda.frontend.checks import check

    for key, value, at in parsed.directives:
        if key == "syntax" and re.match(_DOCKERFILE, value) is None:
            message = f"{at.file}:{at.line}: frontend is not loaded, builda reads the file itself: {value}"
            builder.emit(Warned(message=message))
    found = check(parsed, facts)
    for finding in found:
        at = finding.at
        builder.emit(Warned(message=finding.message, check=finding.check, file=at.file, line=at.line))
    if found and settings_of(parsed, request.build_args).error:
        names = " ".join(dict.fromkeys(finding.check for finding in found))
        at = found[0].at
        hint = "the checks are set to error=true; skip=NAME leaves one out"
        raise ContainerfileError(f"build checks failed: {names}", file=at.file, line=at.line, hint=hint)


def read(builder: Builder, request: BuildRequest) -> SourceText:
    """The text of the request's files, preprocessed where they ask for it; places in a copy are relative to it."""
    source = SourceText((), ())
    if request.cpp_flags:
        from builda.frontend.cppflags import parse_flags

        parse_flags("", request.cpp_flags)  # a wrong one is wrong where no file is preprocessed, too
    prefix = f"{request.context}/" if request.fetched else ""
    with _relative_to(prefix):
        for name, data in request.files:
            if request.preprocess or name.endswith(".in"):
                source = source + _preprocessed(builder, request, name, data)
            else:
                source = source + SourceText.of(decode(data, name), name)
    if not prefix:
        return source
    return source._replace(places=tuple(replace(at, file=at.file.removeprefix(prefix)) for at in source.places))


@contextmanager
def _relative_to(prefix: str) -> Iterator[None]:
    """Errors tell of places below `prefix` without it."""
    try:
        yield
    except ContainerfileError as error:
        error.file = None if error.file is None else error.file.removeprefix(prefix)
        raise


def _preprocessed(builder: Builder, request: BuildRequest, name: str, data: bytes) -> SourceText:
    return preprocessed(data, name, request.context, request.cpp_flags, builder.environ, builder.emit)


def preprocessed(
    data: bytes, name: str, context: Path | str | None, flags: tuple[str, ...], environ: Mapping[str, str], emit: Emit
) -> SourceText:
    """The plain text of a `.in` file, each line with its place; ContainerfileError where it cannot be had."""
    from builda.frontend.cppflags import parse_flags
    from builda.frontend.preprocess import preprocess

    chosen = parse_flags(environ.get("BUILDAH_CPPFLAGS", ""), flags)
    try:
        done = preprocess(data, name, context=None if context is None else str(context), flags=chosen)
    except ContainerfileError as error:
        error.excerpt = _written(error, name, data)
        raise
    for at, message in done.warnings:
        emit(Warned(message=f"{at.file}:{at.line}: {message}"))
    return done.source


def _written(error: ContainerfileError, name: str, data: bytes) -> str | None:
    """The lines around an error, as they stand in this file or in the included one."""
    from builda.frontend.parse import excerpt
    from builda.frontend.preprocess import read_include

    try:
        if error.file != name:
            data = read_include(error.file)
        source = SourceText.of(decode(data, error.file), error.file)
    except (ContainerfileError, InvalidValue, OSError):  # there is no text, and the error says so
        return None
    return excerpt(source, Location(error.file, error.line))


def _compiled(
    builder: Builder, request: BuildRequest, parsed: Parsed, pull: PullOptions, configs: dict[str, ImageConfig]
) -> Compiled:
    """The plan; `configs` gets those of the base images, by name."""
    from builda.frontend.check_settings import ARGUMENT
    from builda.frontend.compile import to_plan
    from builda.frontend.compileoptions import CompileOptions

    def config_of(name: str, platform: Platform) -> ImageConfig:
        configs[name] = pull_for_build(builder.context, name, replace(pull, platform=platform)).config
        return configs[name]

    options = CompileOptions(
        platform=request.platform or machine_platform(),
        build_platform=machine_platform(),
        platform_asked=request.platform is not None,
        build_args=request.build_args,
        target=request.target,
        contexts=frozenset(request.named_contexts),
        images=request.named_images,
        base=request.base,
        env=request.env,
        labels=request.labels,
        unused_stages=request.unused_stages,
        inherits_labels=request.inherits_labels,
        **_sources(request),
        permissions=request.permissions,
        host_network=builder.default_network(request.run) == "host",
        hostname=request.run.hostname,
    )
    compiled = to_plan(parsed, options, config_of)
    if unused := [name for name in compiled.unused_args if name != ARGUMENT]:
        names = " ".join(unused)
        builder.emit(Warned(message=f"{UNUSED_ARGS}: [{names}]"))
    return compiled


def _sources(request: BuildRequest) -> dict[str, Any]:
    """The compile options that decide about images, URLs and repositories."""
    policy, pins = request.policy, request.pins
    if pins is None:
        return {} if policy is None else {"image_for": lambda name, _: policy.decide(name)}
    decide = str if policy is None else policy.decide
    return {"image_for": lambda name, platform: pins.image(decide(name), platform), "remote_for": pins.remote}


@contextmanager
def _excerpts(source: SourceText) -> Iterator[None]:
    """Shows the lines around the place of an error."""
    from builda.frontend.parse import excerpt

    try:
        yield
    except (ContainerfileError, StepFailed) as error:
        if error.excerpt is None and error.file is not None:
            shown = [excerpt(source, Location(error.file, error.line)) or ""]
            shown += [f"included in {at.file}:{at.line}" for at in source.includers(error.file)]
            error.excerpt = "\n".join(filter(None, shown))
        raise


def edits_of(config: ImageConfig, texts: tuple[str, ...]) -> tuple[ConfigEdit, ...]:
    """Parse instructions that touch no files (ENV, LABEL …) as edits, for CommitOptions.changes."""
    from builda.frontend.change import edits_of

    return edits_of(config, texts)


def find_containerfile(context: Path | str) -> str:
    """`Containerfile`, else `Dockerfile`, in a context; their `.in` forms where neither is there."""
    for name in CONTAINERFILES:
        path = _inside(context, name)
        if os.path.lexists(path) and not os.path.isdir(path):
            return path
    raise NotFound(
        f"no Containerfile or Dockerfile in the context, no such file or directory: {context}", hint="name one with -f"
    )


def _inside(context: Path | str, name: str) -> str:
    """The path of a file in a context, as messages show it."""
    return os.path.join(context, name).removeprefix("./")


def read_containerfile(context: Path | str, name: str) -> bytes:
    """The bytes of a Containerfile. A name inside the context is a regular file there; others may be pipes."""
    try:
        if lies_in(context, name):
            check_stays(context, name, "Containerfile", "name the file that it leads to: -f FILE")
            return _read_regular(name)
        return read_input(name, "Containerfile", SIZE_LIMIT)
    except FileNotFoundError as error:
        raise NotFound(f"no such file or directory for the Containerfile: {name}") from error
    except IsADirectoryError as error:
        raise InvalidValue(f"Containerfile is a directory: {name}", hint="name the file in it") from error


def _read_regular(name: str) -> bytes:
    """The bytes of a file of the context; nothing else is opened for reading, as a pipe or a device may do harm."""
    import stat

    handle = os.open(name, os.O_PATH | os.O_CLOEXEC)
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(name)
        if not stat.S_ISREG(mode):
            raise InvalidValue(f"Containerfile is not a regular file: {name}")
        with open(f"/proc/self/fd/{handle}", "rb") as file:
            return file.read(SIZE_LIMIT + 1)
    finally:
        os.close(handle)


def find_ignore_file(context: Path | str, containerfile: str) -> str | None:
    """The ignore file of a context: one beside the Containerfile and named after it, else the context's own.

    InvalidValue for one that is a link out of the context, or no regular file.
    """
    from builda.builder.copy.ignored import IGNORE_FILES

    beside = [f"{containerfile}{name}" for name in IGNORE_FILES]
    for found in (*beside, *(_inside(context, name) for name in IGNORE_FILES)):
        if lies_in(context, found):
            check_stays(context, found, "ignore file", "put the file itself there, or name it with --ignorefile")
            if os.path.exists(found):
                if not os.path.isfile(found):
                    raise InvalidValue(f"ignore file is not a regular file: {found}")
                return found
        elif os.path.isfile(found):
            return found
    return None


def lies_in(context: Path | str, path: Path | str) -> bool:
    """Whether `path` is a name inside the context, wherever links on it lead."""
    name = os.path.abspath(path)
    if name.startswith(
        ("/dev/stdin", "/dev/fd/", "/proc/")
    ):  # standard input and the like, where the context is the whole machine
        return False
    return any(_is_below(name, top) for top in (os.path.abspath(context), os.path.realpath(context)))


def _is_below(path: str, top: str) -> bool:
    """Whether an absolute path is `top` or below it, by name."""
    return path == top or path.startswith(f"{top.rstrip('/')}/")


def check_stays(context: Path | str, path: Path | str, what: str, hint: str) -> None:
    """Raise InvalidValue where links lead `path`, a name inside the context, out of it."""
    if not _is_below(os.path.realpath(path), os.path.realpath(context)):
        raise InvalidValue(f"{what} is a link out of the context: {path}", hint=hint)


def rehearse() -> None:
    """Plan a small Containerfile, and forget the plan.

    This makes what is made at its first use, such as regular expressions. Processes that are forked later have it then.
    """
    from builda.frontend.compile import to_plan
    from builda.frontend.compileoptions import CompileOptions
    from builda.frontend.parse import parse

    def config_of(name: str, platform: Platform) -> ImageConfig:
        raise NotFound(f"no such image: {name}")  # scratch is none

    text = 'FROM scratch\nENV A=b C="$A"\nCOPY a /b\nWORKDIR /c\nRUN echo ${A}\n'
    platform = machine_platform()
    options = CompileOptions(platform=platform, build_platform=platform)
    to_plan(parse(SourceText.of(text, "Containerfile")), options, config_of)
