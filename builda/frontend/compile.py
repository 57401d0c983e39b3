"""Typed instructions to a Plan: variables expanded, ONBUILD inlined, stages resolved.

Pure: the one question it asks of the world is `config_of`, the configuration of a base image. Stages are compiled on
demand from the target, so what the target does not need is checked but never asked about.
"""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field, replace
from functools import reduce
from typing import TypeAlias

from builda.errors import BuildaError, ContainerfileError
from builda.frontend import words
from builda.frontend.instructions import (
    Arg,
    Assign,
    Command,
    From,
    Health,
    Onbuild,
    Text,
    Transfer,
    Typed,
    Words,
    fail,
    flag_true,
    typed,
)
from builda.frontend.parse import Heredoc, Parsed, parse_line
from builda.mounts import parse_mount
from builda.oci import edits
from builda.oci.config import Healthcheck, ImageConfig, empty_config
from builda.oci.descriptor import Platform
from builda.permissions import NO_PERMISSIONS, Permissions
from builda.plan import (
    Configure,
    Context,
    Copy,
    FromImage,
    FromStage,
    InlineFile,
    Location,
    MakeDirectory,
    NamedContext,
    Plan,
    Run,
    RunOptions,
    Source,
    Stage,
    Step,
)
from builda.values import dataclass

ConfigOf: TypeAlias = Callable[[str, Platform], ImageConfig]

PROXIES = tuple(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
"""Build args that need no ARG and are kept out of history and step keys."""
DEFAULT_SHELL = ("/bin/sh", "-c")
_LOCAL_PLACE = re.compile(r"(oci|oci-archive|docker-archive|dir|docker-daemon|containers-storage|container):")
"""Names of images at places of this machine: a trigger of a stranger's image may not look there."""
NOP = "/bin/sh -c #(nop) "


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileOptions:
    """What the command line adds to a Containerfile."""

    platform: Platform
    build_platform: Platform
    build_args: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    contexts: frozenset[str] = frozenset()  # names of --build-context that are directories
    images: Mapping[str, str] = field(default_factory=dict)  # and those that stand for images
    base: str | None = None  # --from: replaces the image of the first FROM
    env: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    inherits_labels: bool = True  # stages keep the labels of what they start from
    policy: Callable[[str], str] = str  # the image to take for an image; PolicyRejected if it may not be used
    permissions: Permissions = NO_PERMISSIONS
    host_network: bool = False  # commands have the host's network unless something else is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """The plan, the build args that nothing declared, and each stage's resulting configuration by index."""

    plan: Plan
    unused_args: tuple[str, ...]
    configs: Mapping[int, ImageConfig]


def to_plan(parsed: Parsed, options: CompileOptions, config_of: ConfigOf) -> Compiled:
    """The plan of a parsed Containerfile; ContainerfileError with its place for everything that is wrong with it."""
    listed = tuple(typed(instruction, parsed.escape) for instruction in parsed.instructions)
    compiler = _Compiler(_split_stages(listed), options, config_of, parsed.escape)
    target = compiler.target()
    compiler.stage(target)
    stages = tuple(
        compiler.compiled.get(index) or Stage(name=head.name, base=None, steps=(), at=head.at)
        for index, (head, _) in enumerate(compiler.stages.bodies)
    )
    plan = Plan(stages=stages, target=target)
    unused = tuple(sorted(set(options.build_args) - compiler.used - set(PROXIES) - {"SOURCE_DATE_EPOCH"}))
    return Compiled(plan=plan, unused_args=unused, configs={i: state.config for i, state in compiler.states.items()})


def global_platforms(platform: Platform, build: Platform) -> dict[str, str]:
    """The predefined platform args (Dockerfile reference, "Automatic platform ARGs in the global scope")."""
    values: dict[str, str] = {}
    for prefix, value in (("TARGET", platform), ("BUILD", build)):
        values[f"{prefix}PLATFORM"] = str(value)
        values[f"{prefix}OS"] = value.os
        values[f"{prefix}ARCH"] = value.architecture
        values[f"{prefix}VARIANT"] = value.variant or ""
    return values


@dataclass(frozen=True, slots=True)
class _Stages:
    """A Containerfile cut at its FROMs."""

    arguments: tuple[Arg, ...]
    bodies: tuple[tuple[From, tuple[Typed, ...]], ...]


def _split_stages(listed: tuple[Typed, ...]) -> _Stages:
    starts = [index for index, item in enumerate(listed) if isinstance(item, From)]
    before = listed[: starts[0]] if starts else listed
    for item in before:
        if not isinstance(item, Arg):
            fail(item.at, "no build stage yet: the first instruction must be FROM (or ARG)")
    if not starts:
        fail(listed[-1].at, "no build stage: there is no FROM")
    bodies = []
    for start, end in zip(starts, [*starts[1:], len(listed)], strict=True):
        head = listed[start]
        assert isinstance(head, From)
        bodies.append((head, listed[start + 1 : end]))
    return _Stages(tuple(item for item in before if isinstance(item, Arg)), tuple(bodies))


@dataclass(slots=True)
class _State:
    """Where the compiler stands inside one stage."""

    config: ImageConfig
    platform: Platform
    args: dict[str, str | None] = field(default_factory=dict)  # declared in this stage, None while without a value
    steps: list[Step] = field(default_factory=list)
    cmd_set: bool = False

    def lookup(self, name: str) -> str | None:
        """ENV wins over ARG."""
        env = self.config.environ()
        return env[name] if name in env else self.args.get(name)

    @property
    def working_dir(self) -> str:
        return self.config.working_dir or "/"


class _Compiler:
    def __init__(self, stages: _Stages, options: CompileOptions, config_of: ConfigOf, escape: str) -> None:
        self.stages = stages
        self.options = options
        self.config_of = config_of
        self.escape = escape
        self.used: set[str] = set()
        self.compiled: dict[int, Stage] = {}
        self.states: dict[int, _State] = {}
        self.platform_args = global_platforms(options.platform, options.build_platform)
        self.globals = self._globals()

    def target(self) -> int:
        """The index that `--target` names: a stage's name, else its number; the last stage without one."""
        wanted, bodies = self.options.target, self.stages.bodies
        if wanted is None:
            return len(bodies) - 1
        found = self._stage_named(wanted, len(bodies))
        if found is None:
            names = [head.name for head, _ in bodies if head.name]
            near = difflib.get_close_matches(wanted.lower(), names, 1)
            hint = f"did you mean {near[0]}?" if near else f"stages: {', '.join(names) or len(bodies)}"
            fail(bodies[-1][0].at, f"no such target stage: {wanted}", hint)
        return found

    def stage(self, index: int) -> _State:
        """The state after the stage's last instruction, compiling it (and what it needs) the first time."""
        if index in self.states:
            return self.states[index]
        head, body = self.stages.bodies[index]
        with _placed(head.at):
            platform = self._platform(head)
            base, state = self._base(index, head, platform)
        if state.config.labels and not self.options.inherits_labels:
            state.config = edits.apply(state.config, edits.UnsetLabel(None))
            state.steps.append(Configure(edits=(edits.UnsetLabel(None),), at=head.at))
        for name, value in self.options.env:
            self._configure(state, (edits.SetEnv(name, value),), f"ENV {name}={value}", head.at)
        self._inline_onbuild(index, state, head)
        for item in body:
            self._instruction(index, state, item)
        if index == self.target():
            for name, value in self.options.labels:
                self._configure(state, (edits.SetLabel(name, value),), f'LABEL "{name}"="{value}"', head.at)
        self.states[index] = state
        self.compiled[index] = Stage(
            name=head.name, base=base, steps=tuple(state.steps), platform=state.platform, at=head.at
        )
        return state

    def _globals(self) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for item in self.stages.arguments:
            with _placed(item.at):
                for name, default in item.pairs:
                    lookup = lambda key: found.get(key, self.platform_args.get(key))  # noqa: E731
                    self.used.add(name)
                    expanded = None if default is None else words.expand(default, lookup, self.escape)
                    found[name] = self.options.build_args.get(name, expanded or self.platform_args.get(name))
                    if expanded is not None and name not in self.options.build_args:
                        found[name] = expanded
        return found

    def _global(self, name: str) -> str | None:
        value = self.globals.get(name)
        return value if value is not None else self.options.build_args.get(name, self.platform_args.get(name))

    def _platform(self, head: From) -> Platform:
        if head.platform is None:
            return self.options.platform
        text = words.expand(head.platform, self._global, self.escape)
        return Platform.parse(text) if text else self.options.platform

    def _base(self, index: int, head: From, platform: Platform) -> tuple[FromImage | FromStage | None, _State]:
        name = words.expand(head.image, self._global, self.escape)
        if index == 0 and self.options.base is not None:
            name = self.options.base
        if not name:
            fail(head.at, f"base name is empty: {head.image}", "give the ARG a default, or --build-arg a value")
        name = self.options.images.get(name, name)
        if name in self.options.contexts:
            return None, self._of_directory(name, platform, head)
        if name == "scratch":
            return None, _State(empty_config(platform), platform)
        earlier = self._stage_named(name, index, numbers=False)
        if earlier is not None:
            parent = self.stage(earlier)
            return FromStage(earlier), _State(parent.config, parent.platform, args=dict(parent.args))
        name = self.options.policy(name)
        return FromImage(name), _State(self._config(index, name, platform, head.at), platform)

    def _config(self, index: int, name: str, platform: Platform, at: Location) -> ImageConfig:
        """The configuration of an image; the error for one that cannot be had says what else may have been meant."""
        try:
            return self.config_of(name, platform)
        except ContainerfileError:
            raise
        except BuildaError as error:
            message = str(error) if str(error).endswith(name) else f"cannot get the image {name}: {error}"
            hint = self._meant(index, name) or error.hint
            raise ContainerfileError(message, file=at.file, line=at.line, hint=hint) from error

    def _meant(self, index: int, name: str) -> str | None:
        """A stage that a name may have been meant for."""
        heads = [head for head, _ in self.stages.bodies]
        for head in heads[index:]:
            if head.name == name.lower():
                where = "this stage itself" if head is heads[index] else f"the stage in line {head.at.line}"
                return f"{where} is called {head.name}, and a stage can use only those above it"
        known = [head.name for head in heads[:index] if head.name] + [*self.options.contexts, *self.options.images]
        near = difflib.get_close_matches(name.lower(), known, 1, cutoff=0.7)
        return f"did you mean {near[0]}?" if near else None

    def _of_directory(self, name: str, platform: Platform, head: From) -> _State:
        """A base that is a named context: its files, and an empty configuration."""
        state = _State(empty_config(platform), platform)
        text = f"COPY --from={name} . /"
        files = Copy(
            sources=(".",), destination="/", source=NamedContext(name), created_by=NOP + text, text=text, at=head.at
        )
        state.steps.append(files)
        return state

    def _stage_named(self, name: str, before: int, *, numbers: bool = True) -> int | None:
        """The last earlier stage of this name; a number names it by position."""
        for index in reversed(range(before)):
            if self.stages.bodies[index][0].name == name.lower():
                return index
        return int(name) if numbers and name.isdigit() and int(name) < before else None

    def _inline_onbuild(self, index: int, state: _State, head: From) -> None:
        triggers = state.config.onbuild
        if not triggers:
            return
        state.config = replace(state.config, onbuild=())
        state.steps.append(Configure(edits=(edits.ClearOnbuild(),), at=head.at))
        for trigger in triggers:
            at = replace(head.at, origin=f"ONBUILD of {head.image}")
            try:
                self._instruction(index, state, _typed_trigger(trigger, at))
            except ContainerfileError as error:
                fail(head.at, f"{error} (in ONBUILD {trigger} of {head.image})", error.hint)

    def _instruction(self, index: int, state: _State, item: Typed) -> None:
        with _placed(item.at):
            match item:
                case Arg():
                    self._arg(state, item)
                case Assign():
                    self._assign(state, item)
                case Command(keyword="RUN"):
                    self._run(index, state, item)
                case Command():
                    self._command(state, item)
                case Transfer():
                    self._transfer(index, state, item)
                case Words():
                    self._words(state, item)
                case Text():
                    self._text(state, item)
                case Health():
                    self._health(state, item)
                case Onbuild():
                    self._configure(state, (edits.AddOnbuild(item.text),), f"ONBUILD {item.text}", item.at)
                case From():  # pragma: no cover  # _split_stages has taken them all
                    raise AssertionError(item)

    def _expand(self, state: _State, text: str) -> str:
        return words.expand(text, state.lookup, self.escape)

    def _configure(
        self, state: _State, changes: tuple[edits.ConfigEdit, ...], text: str, at: Location, history: str | None = None
    ) -> None:
        state.config = reduce(edits.apply, changes, state.config)
        state.steps.append(Configure(edits=changes, created_by=NOP + (history or text), text=text, at=at))

    def _arg(self, state: _State, item: Arg) -> None:
        shown = []
        for name, default in item.pairs:
            self.used.add(name)
            value = None if default is None else self._expand(state, default)
            if name in self.options.build_args:
                value = self.options.build_args[name]
            elif default is None:
                value = self._global(name) if name in self.globals or name in self.platform_args else None
            state.args[name] = value
            shown.append(name if default is None else f"{name}={default}")
        self._configure(state, (), f"ARG {' '.join(shown)}", item.at)

    def _assign(self, state: _State, item: Assign) -> None:
        pairs = [(self._expand(state, name), self._expand(state, value)) for name, value in item.pairs]
        make = edits.SetEnv if item.keyword == "ENV" else edits.SetLabel
        text = " ".join(f"{name}={_shown(value)}" for name, value in pairs)
        raw = " ".join(f"{name}{' ' if item.legacy else '='}{value}" for name, value in item.pairs)
        changes = tuple(make(name, value) for name, value in pairs)
        self._configure(state, changes, f"{item.keyword} {raw}", item.at, history=f"{item.keyword} {text}")

    def _shell(self, state: _State) -> tuple[str, ...]:
        return state.config.shell or DEFAULT_SHELL

    def _command(self, state: _State, item: Command) -> None:
        text = f"{item.keyword} {item.text}"
        if item.keyword == "SHELL":
            self._configure(state, (edits.SetShell(item.args),), text, item.at)
            return
        args = item.args if item.args is not None else (*self._shell(state), item.text)
        if item.args is None and not item.text:
            args = ()
        if item.keyword == "CMD":
            state.cmd_set = True
            self._configure(state, (edits.SetCmd(args),), text, item.at)
            return
        entrypoint = edits.SetEntrypoint(args or None)
        changes = (entrypoint,) if state.cmd_set else (entrypoint, edits.SetCmd(None))
        self._configure(state, changes, text, item.at)

    def _run(self, index: int, state: _State, item: Command) -> None:
        args, script, shown = _run_args(item, self._shell(state))
        values = {name: value for name, value in state.args.items() if value is not None and name not in PROXIES}
        env = tuple((name, value) for name, value in values.items() if name not in state.config.environ())
        proxies = tuple((name, value) for name, value in self.options.build_args.items() if name in PROXIES)
        mounts = tuple(
            parse_mount(self._expand(state, value), lambda name: self._source(index, name, item.at), state.working_dir)
            for name, value in item.flags
            if name == "mount"
        )
        prefix = f"|{len(env)} {' '.join(f'{name}={value}' for name, value in env)} " if env else ""
        state.steps.append(
            Run(
                args=args,
                env=(*env, *proxies),
                user=state.config.user or None,
                working_dir=state.config.working_dir or None,
                mounts=mounts,
                options=self._run_options(state, item),
                script=script,
                created_by=prefix + " ".join(shown),
                text=f"RUN {''.join(f'--{name}={value} ' for name, value in item.flags)}{item.text}",
                at=item.at,
            )
        )

    def _run_options(self, state: _State, item: Command) -> RunOptions:
        given = {name: self._expand(state, value) for name, value in item.flags if name != "mount"}
        network = given.get("network", "default")
        if network not in ("default", "none", "host"):
            fail(item.at, f"unsupported network: {network}", "it is default, none or host")
        security = given.get("security", "sandbox")
        if security not in ("sandbox", "insecure"):
            fail(item.at, f"unsupported security mode: {security}", "it is sandbox or insecure")
        insecure = security == "insecure"
        options = RunOptions(
            network=None if network == "default" else network,
            cap_add=("ALL",) if insecure else (),
            security_opts=("seccomp=unconfined", "unmask=ALL") if insecure else (),
            devices=tuple(self._expand(state, value) for name, value in item.flags if name == "device"),
        )
        self.options.permissions.check(options, host_is_default=self.options.host_network)
        return options

    def _source(self, index: int, name: str, at: Location) -> Source:
        """What `--from=name` means: a named context, an earlier stage, else an image."""
        if name in self.options.images:
            return FromImage(self._admitted(self.options.images[name], at))
        if name in self.options.contexts:
            return NamedContext(name)
        earlier = self._stage_named(name, index)
        if earlier is not None:
            self.stage(earlier)
            return FromStage(earlier)
        if name.lower() == self.stages.bodies[index][0].name:
            fail(at, f"stage copies from itself: {name}")
        later = [head.name for head, _ in self.stages.bodies[index + 1 :]]
        if name.lower() in later:
            fail(at, f"stage is defined below: {name}", "a stage can use only those above it")
        if name.isdigit():
            fail(at, f"no such stage: {name}", f"stages above this one: 0 to {index - 1}" if index else None)
        if at.origin and _LOCAL_PLACE.match(name):
            fail(at, f"image of this machine is not for ONBUILD triggers of another image: {name}")
        name = self._admitted(name, at)
        self._config(index, name, self.options.platform, at)  # a typing error is better found now than steps later
        return FromImage(name)

    def _admitted(self, name: str, at: Location) -> str:
        with _placed(at):
            return self.options.policy(name)

    def _transfer(self, index: int, state: _State, item: Transfer) -> None:
        flags = {name: self._expand(state, value) for name, value in item.flags}
        source: Source = Context()
        if "from" in flags:
            source = self._source(index, flags["from"], item.at)
        if item.keyword == "COPY" and item.heredocs and "from" in flags:
            fail(item.at, "COPY --from cannot have a heredoc")
        sources = tuple(self._expand(state, text) for text in item.sources)
        destination = self._expand(state, item.destination)
        if item.keyword == "COPY" and (remote := next((s for s in sources if "://" in s), None)):
            fail(item.at, f"COPY does not fetch: {remote}", "use ADD")
        text = _transfer_text(item)
        boolean = {name: flag_true(flags[name], name, item.at) for name in _BOOLEAN_FLAGS & flags.keys()}
        state.steps.append(
            Copy(
                sources=sources,
                destination=_destination(destination, state.working_dir),
                source=source,
                inline=tuple(self._inline(state, heredoc) for heredoc in item.heredocs),
                chown=flags.get("chown"),
                chmod=flags.get("chmod"),
                excludes=tuple(self._expand(state, value) for name, value in item.flags if name == "exclude"),
                extract=item.keyword == "ADD",
                unpack=boolean.get("unpack"),
                parents=boolean.get("parents", False),
                link=boolean.get("link", False),
                checksum=flags.get("checksum"),
                keep_git_dir=boolean.get("keep-git-dir", False),
                created_by=NOP + text,
                text=text,
                at=item.at,
            )
        )

    def _inline(self, state: _State, heredoc: Heredoc) -> InlineFile:
        body = words.keep_quotes(heredoc.body, state.lookup, self.escape) if heredoc.expand else heredoc.body
        return InlineFile(heredoc.name, body.encode())

    def _words(self, state: _State, item: Words) -> None:
        text = f"{item.keyword} {' '.join(item.words)}"
        if item.keyword == "VOLUME":
            paths = tuple(self._expand(state, word) for word in item.words)
            if not all(paths):
                fail(item.at, "VOLUME path is empty")
            self._configure(state, tuple(edits.AddVolume(path) for path in paths), text, item.at)
            return
        expanded = tuple(word for text in item.words for word in words.split(text, state.lookup, self.escape))
        ports = tuple(port for word in expanded for port in _ports(word, item.at))
        self._configure(state, tuple(edits.AddPort(port) for port in ports), text, item.at)

    def _text(self, state: _State, item: Text) -> None:
        value = item.text if item.keyword == "MAINTAINER" else self._expand(state, item.text)
        if not value:
            fail(item.at, f"{item.keyword} is empty: {item.text}")
        text = f"{item.keyword} {item.text}"
        match item.keyword:
            case "USER":
                self._configure(state, (edits.SetText("user", value),), text, item.at)
            case "MAINTAINER":
                self._configure(state, (edits.SetText("author", value),), text, item.at)
            case "STOPSIGNAL":
                if not re.fullmatch(r"[0-9]+|(SIG)?[A-Z][A-Z0-9]*([+-][0-9]+)?", value):
                    fail(item.at, f"invalid signal: {value}")
                self._configure(state, (edits.SetText("stop_signal", value),), text, item.at)
            case "WORKDIR":
                path = _destination(value, state.working_dir)
                path = posixpath.normpath(path)
                path = "/" + path.lstrip("/")
                made_by = f"{NOP}WORKDIR {path}"
                user = state.config.user or None
                state.steps.append(MakeDirectory(path=path, user=user, created_by=made_by, at=item.at))
                edit = edits.SetText("working_dir", path)
                state.config = edits.apply(state.config, edit)
                state.steps.append(Configure(edits=(edit,), text=text, at=item.at))

    def _health(self, state: _State, item: Health) -> None:
        if item.command is None:
            test: tuple[str, ...] = ("NONE",)
        elif item.command.args is not None:
            test = ("CMD", *item.command.args)
        else:
            test = ("CMD-SHELL", item.command.text)
        check = Healthcheck(
            test=test,
            interval=item.interval,
            timeout=item.timeout,
            start_period=item.start_period,
            start_interval=item.start_interval,
            retries=item.retries,
        )
        said = [f"--{name}={value}" for name, value in item.flags]
        said.append("NONE" if item.command is None else f"CMD {item.command.text}")
        self._configure(state, (edits.SetHealthcheck(check),), f"HEALTHCHECK {' '.join(said)}", item.at)


_BOOLEAN_FLAGS = frozenset({"link", "parents", "keep-git-dir", "unpack"})


@contextmanager
def _placed(at: Location) -> Iterator[None]:
    """Gives errors that know no place this one."""
    try:
        yield
    except ContainerfileError:
        raise
    except BuildaError as error:  # a value, or an image that is not there
        raise ContainerfileError(str(error), file=at.file, line=at.line, hint=error.hint) from error


def _typed_trigger(trigger: str, at: Location) -> Typed:
    """An ONBUILD trigger of a base image; the lines below the first are its heredocs' bodies."""
    from builda.frontend.parse import parse
    from builda.frontend.source import SourceText

    if "\n" in trigger:
        source = SourceText.of(trigger, at.file)
        return typed(parse(source._replace(places=(at,) * len(source.lines))).instructions[0])
    return typed(parse_line(trigger, at))


def _run_args(item: Command, shell: tuple[str, ...]) -> tuple[tuple[str, ...], bytes | None, tuple[str, ...]]:
    """Arguments, script file and history text of a RUN."""
    if item.args is not None:
        return item.args, None, item.args
    if not item.heredocs:
        return (*shell, item.text), None, (*shell, item.text)
    first = item.heredocs[0]
    alone = len(item.heredocs) == 1 and re.fullmatch(r"\d*<<-?[\"']?[^\s\"']+[\"']?", item.text)
    if alone and first.body.startswith("#!"):
        interpreter = first.body.split("\n", 1)[0][2:].strip().split(None, 1)
        return tuple(interpreter), first.body.encode(), (*interpreter, first.body)
    if alone:
        return (*shell, first.body), None, (*shell, first.body)
    text = item.text + "\n" + "".join(f"{heredoc.body}{heredoc.name}\n" for heredoc in item.heredocs)
    return (*shell, text), None, (*shell, text)


def _transfer_text(item: Transfer) -> str:
    flags = [f"--{name}={value}" if value else f"--{name}" for name, value in item.flags]
    inline = [f"<<{heredoc.name}" for heredoc in item.heredocs]
    return " ".join([item.keyword, *flags, *item.sources, *inline, item.destination])


def _destination(path: str, working_dir: str) -> str:
    """`path` from the working directory, a trailing slash (or `.`) kept as the sign of a directory."""
    joined = posixpath.join(working_dir, path)
    is_directory = path.endswith(("/", "/.")) or path in (".", "")
    clean = posixpath.normpath(joined)
    clean = "/" + clean.lstrip("/")
    return clean if not is_directory or clean == "/" else clean + "/"


def _ports(word: str, at: Location) -> list[str]:
    """`N[/proto]` of one EXPOSE word, ranges spelt out; a host part is dropped, as it means nothing in an image."""
    ports, _, protocol = word.partition("/")
    protocol = protocol.lower() or "tcp"
    match = re.fullmatch(r"(?:.*:)?([0-9]+)(?:-([0-9]+))?", ports)
    if match is None or protocol not in ("tcp", "udp", "sctp"):
        fail(at, f"invalid port: {word}", "it is N, N-M, N/tcp or N/udp")
    first, last = int(match[1]), int(match[2] or match[1])
    if not 0 < first <= last <= 65535:
        fail(at, f"invalid port: {word}", "ports are 1 to 65535")
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def _shown(value: str) -> str:
    return value if re.fullmatch(r"[^\s\"'\\]*", value) else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
