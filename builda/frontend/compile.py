"""Typed instructions to a Plan: variables expanded, ONBUILD inlined, stages resolved.

Pure: the one question it asks of the world is `config_of`, the configuration of a base image. Stages are compiled on
demand from the target, so what the target does not need is checked but never asked about.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from builda.errors import BuildaError, ContainerfileError
from builda.frontend import words
from builda.frontend.compileoptions import CompileOptions, global_platforms, unchecked
from builda.frontend.heredoc import marks_in
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
    check_arg_name,
    fail,
    flag_true,
    typed,
)
from builda.frontend.parse import Heredoc, Parsed, parse_line
from builda.frontend.stages import StageNames, Stages, split_stages
from builda.mounts import parse_mount
from builda.oci import edits
from builda.oci.config import Healthcheck, ImageConfig, check_hostname, empty_config
from builda.oci.descriptor import Platform
from builda.plan import (
    COPY_FLAGS,
    PROXIES,
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
from builda.values import dataclass, field, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

ConfigOf: TypeAlias = Callable[[str, Platform], ImageConfig]

HOSTNAME = "BUILDKIT_SANDBOX_HOSTNAME"
"""The build argument that gives commands a host name, without being declared."""
_SYSTEMS = frozenset("aix android darwin dragonfly freebsd linux netbsd openbsd plan9 solaris windows".split())
_DEPTH = 100
# Not compiled here: re does that at the first use and remembers it, and most Containerfiles need few of them.
_REMOTE = r"[A-Za-z][A-Za-z0-9+.-]*://|[\w.-]+@[\w.-]+:"
DEFAULT_SHELL = ("/bin/sh", "-c")
_LOCAL_PLACE = re.compile(r"(oci|oci-archive|docker-archive|dir|docker-daemon|containers-storage|container):")
"""Names of images at places of this machine: a trigger of a stranger's image may not look there."""
NOP = "/bin/sh -c #(nop) "


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """The plan, the build args that nothing declared, and each stage's resulting configuration by index."""

    plan: Plan
    unused_args: tuple[str, ...]
    configs: Mapping[int, ImageConfig]


def to_plan(parsed: Parsed, options: CompileOptions, config_of: ConfigOf) -> Compiled:
    """The plan of a parsed Containerfile; ContainerfileError with its place for everything that is wrong with it."""
    check_hostname(options.build_args.get(HOSTNAME, ""), f"build argument {HOSTNAME}")
    listed = tuple(typed(instruction, parsed.escape) for instruction in parsed.instructions)
    compiler = _Compiler(split_stages(listed), options, config_of, parsed.escape)
    target = compiler.names.target()
    for index in compiler.names.needed(target):
        compiler.stage(index)
    stages = tuple(
        compiler.compiled.get(index) or Stage(name=head.name, base=None, steps=(), at=head.at)
        for index, (head, _) in enumerate(compiler.stages.bodies)
    )
    plan = Plan(stages=stages, target=target, unused=options.unused_stages)
    unused = tuple(sorted(set(options.build_args) - compiler.used - set(PROXIES) - {"SOURCE_DATE_EPOCH", HOSTNAME}))
    return Compiled(plan=plan, unused_args=unused, configs={i: state.config for i, state in compiler.states.items()})


@dataclass(slots=True)
class _State:
    """The compiler's state inside one stage."""

    edited: edits.Edited
    platform: Platform
    args: dict[str, str | None] = field(default_factory=dict)  # declared in this stage, None while without a value
    steps: list[Step] = field(default_factory=list)
    cmd_set: bool = False
    env: dict[str, str] = field(default_factory=dict)  # that of `config`

    def __post_init__(self) -> None:
        self.env = self.config.environ()

    @property
    def config(self) -> ImageConfig:
        """The configuration so far."""
        return self.edited.read()

    def lookup(self, name: str) -> str | None:
        """The value of a variable; ENV has precedence over ARG."""
        return self.env[name] if name in self.env else self.args.get(name)

    def change(self, changes: tuple[edits.ConfigEdit, ...]) -> None:
        """Edit the configuration."""
        self.edited.change(changes)
        self.env.update((edit.name, edit.value) for edit in changes if isinstance(edit, edits.SetEnv))

    @property
    def working_dir(self) -> str:
        return self.config.working_dir or "/"


class _Compiler:
    def __init__(self, stages: Stages, options: CompileOptions, config_of: ConfigOf, escape: str) -> None:
        self.stages = stages
        self.options = options
        self.config_of = config_of
        self.escape = escape
        self.used: set[str] = set()
        self.names = StageNames(stages, options, escape, self._global)
        self.compiled: dict[int, Stage] = {}
        self.states: dict[int, _State] = {}
        self.depth = 0
        name = options.target or stages.bodies[-1][0].name or ""
        given = global_platforms(options.platform, options.build_platform, name)
        self.platform_args = {arg: options.build_args.get(arg, value) for arg, value in given.items()}
        self.globals = self._globals()

    def stage(self, index: int) -> _State:
        """The state after the stage's last instruction, compiling it (and what it needs) the first time."""
        if index in self.states:
            return self.states[index]
        head, body = self.stages.bodies[index]
        if self.depth == _DEPTH:  # only names in variables lead here: `needed` has seen the others
            fail(head.at, f"more than {_DEPTH} stages stand on each other by names in variables")
        self.depth += 1
        try:
            return self._compile(index, head, body)
        finally:
            self.depth -= 1

    def _compile(self, index: int, head: From, body: tuple[Typed, ...]) -> _State:
        with _placed(head.at):
            platform = self._platform(head)
            base, state = self._base(index, head, platform)
        if state.config.labels and not self.options.inherits_labels:
            state.change((edits.UnsetLabel(None),))
            state.steps.append(Configure(edits=(edits.UnsetLabel(None),), at=head.at))
        for name, value in self.options.env:
            self._configure(state, (edits.SetEnv(name, value),), f"ENV {name}={value}", head.at)
        self._inline_onbuild(index, state, head)
        for item in body:
            self._instruction(index, state, item)
        if index == self.names.target():
            for name, value in self.options.labels:
                self._configure(state, (edits.SetLabel(name, value),), f'LABEL "{name}"="{value}"', head.at)
            self._set_platform(state, head)
        self.states[index] = state
        self.compiled[index] = Stage(
            name=head.name, base=base, steps=tuple(state.steps), platform=state.platform, at=head.at
        )
        return state

    def _set_platform(self, state: _State, head: From) -> None:
        """Give the image the platform that was asked for, whatever its last FROM says."""
        wanted, made = self.options.platform, state.config.platform
        same = (wanted.os, wanted.architecture) == (made.os, made.architecture)
        if self.options.platform_asked and not (same and wanted.variant in (None, made.variant)):
            change = edits.SetPlatform(wanted)
            state.change((change,))
            state.steps.append(Configure(edits=(change,), at=head.at))

    def _globals(self) -> dict[str, str | None]:
        found: dict[str, str | None] = dict(self.platform_args)
        for item in self.stages.arguments:
            with _placed(item.at):
                for written, default in item.pairs:
                    name = self._arg_name(written, found.get, item.at)
                    self.used.add(name)
                    if name in self.options.build_args:
                        found[name] = self.options.build_args[name]
                    elif default is not None:
                        found[name] = words.expand(default, found.get, self.escape)
                    else:
                        found.setdefault(name, None)
        return found

    def _arg_name(self, written: str, lookup: words.Lookup, at: Location) -> str:
        if "$" not in written:
            return written
        name = words.expand(written, lookup, self.escape)
        check_arg_name(name, at)
        return name

    def _global(self, name: str) -> str | None:
        return self.globals.get(name)

    def _platform(self, head: From) -> Platform:
        if head.platform is None:
            return self.options.platform
        text = words.expand(head.platform, self._global, self.escape)
        if not text:
            fail(head.at, f"--platform is empty: {head.platform}", "give the ARG a default, or --build-arg a value")
        if text.lower() in _SYSTEMS:
            text = f"{text}/{self.options.build_platform.architecture}"
        platform = Platform.parse(text)
        if not platform.is_known:
            hint = "it is written os/arch[/variant], as in linux/arm64"
            fail(head.at, f"unknown platform: {text}" if "/" in text else f"not a platform: {text!r}", hint)
        return platform

    def _base(self, index: int, head: From, platform: Platform) -> tuple[FromImage | FromStage | None, _State]:
        name = words.expand(head.image, self._global, self.escape)
        if index == 0 and self.options.base is not None:
            name = self.options.base
        if not name:
            fail(head.at, f"base name is empty: {head.image}", "give the ARG a default, or --build-arg a value")
        name = self.names.given_for(name, index)
        name = self.options.images.get(name, name)
        if name in self.options.contexts:
            return None, self._of_directory(name, platform, head)
        if name == "scratch":
            return None, _State(edits.Edited(empty_config(platform)), platform)
        earlier = self.names.stage_named(name, index)
        if earlier is not None:
            parent = self.stage(earlier)
            return FromStage(earlier), _State(edits.Edited(parent.config), parent.platform, args=dict(parent.args))
        name = self.options.image_for(name, platform)
        return FromImage(name), _State(edits.Edited(self._config(index, name, platform, head.at)), platform)

    def _config(self, index: int, name: str, platform: Platform, at: Location) -> ImageConfig:
        """The configuration of an image. If it cannot be had, the hint may name a stage that was meant."""
        try:
            return self.config_of(name, platform)
        except ContainerfileError:
            raise
        except BuildaError as error:
            message = str(error) if str(error).endswith(name) else f"cannot get the image {name}: {error}"
            hint = self.names.meant(index, name) or error.hint
            raise ContainerfileError(message, file=at.file, line=at.line, hint=hint) from error

    def _of_directory(self, name: str, platform: Platform, head: From) -> _State:
        """A base that is a named context: its files, and an empty configuration."""
        state = _State(edits.Edited(empty_config(platform)), platform)
        text = f"COPY --from={name} . /"
        files = Copy(
            sources=(".",), destination="/", source=NamedContext(name), created_by=NOP + text, text=text, at=head.at
        )
        state.steps.append(files)
        return state

    def _inline_onbuild(self, index: int, state: _State, head: From) -> None:
        triggers = state.config.onbuild
        if not triggers:
            return
        state.change((edits.ClearOnbuild(),))
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
                case From():  # pragma: no cover  # split_stages has taken them all
                    raise AssertionError(item)

    def _expand(self, state: _State, text: str) -> str:
        return words.expand(text, state.lookup, self.escape)

    def _configure(
        self, state: _State, changes: tuple[edits.ConfigEdit, ...], text: str, at: Location, history: str | None = None
    ) -> None:
        state.change(changes)
        state.steps.append(Configure(edits=changes, created_by=NOP + (history or text), text=text, at=at))

    def _arg(self, state: _State, item: Arg) -> None:
        shown = []
        for written, default in item.pairs:
            name = self._arg_name(written, state.lookup, item.at)
            self.used.add(name)
            if name in self.options.build_args:
                state.args[name] = self.options.build_args[name]
            elif default is not None:
                state.args[name] = self._expand(state, default)
            elif self.globals.get(name) is not None:
                state.args[name] = self.globals[name]
            else:  # it keeps the value that it has from above, or from the stage below
                state.args.setdefault(name, None)
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
        env = tuple((name, value) for name, value in values.items() if name not in state.env)
        proxies = tuple((name, value) for name, value in self.options.build_args.items() if name in PROXIES)
        mounts = tuple(
            parse_mount(
                self._expand(state, value),
                lambda name: self._source(index, name, item.at),
                state.working_dir,
                default_target=True,
            )
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
            hostname=None if self.options.hostname else self.options.build_args.get(HOSTNAME) or None,
            network=None if network == "default" else network,
            cap_add=("ALL",) if insecure else (),
            security_opts=("seccomp=unconfined", "unmask=ALL") if insecure else (),
            devices=tuple(self._expand(state, value) for name, value in item.flags if name == "device"),
        )
        self.options.permissions.check(options, host_is_default=self.options.host_network)
        return options

    def _source(self, index: int, name: str, at: Location) -> Source:
        """The source that `--from=name` means: a named context, an earlier stage, else an image."""
        name = self.names.given_for(name, index)
        if name in self.options.images:
            return FromImage(self._admitted(self.options.images[name], at))
        if name in self.options.contexts:
            return NamedContext(name)
        earlier = self.names.stage_named(name, index)
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
        try:
            self._config(index, name, self.options.platform, at)  # a typing error is better found now than steps later
        except ContainerfileError as error:
            error.hint = _no_stage(name, error.hint)
            raise
        return FromImage(name)

    def _admitted(self, name: str, at: Location) -> str:
        with _placed(at):
            return self.options.image_for(name, self.options.platform)

    def _transfer(self, index: int, state: _State, item: Transfer) -> None:
        flags = {name: self._expand(state, value) for name, value in item.flags}
        source: Source = Context()
        if "from" in flags:
            source = self._source(index, flags["from"], item.at)
        sources = tuple(self._expand(state, text) for text in item.sources)
        destination = self._expand(state, item.destination)
        if item.keyword == "COPY" and (remote := next((one for one in sources if re.match(_REMOTE, one)), None)):
            fail(item.at, f"COPY does not fetch: {remote}", "use ADD")
        if "chmod" in flags:
            from builda.frontend.instructionvalues import check_mode

            check_mode(flags["chmod"], item.at)
        if "checksum" in flags:
            if len(sources) != 1 or item.heredocs or not re.match(_REMOTE, sources[0]):
                fail(item.at, "checksum needs exactly one source, a URL or a git repository")
            from builda.frontend.instructionvalues import check_checksum

            check_checksum(flags["checksum"], item.at)
        fields = self._copy_fields(state, item)
        if item.keyword == "ADD" and "checksum" not in fields:
            sources, fields["checksum"] = self._remote(sources, item)
        text = _transfer_text(item)
        state.steps.append(
            Copy(
                sources=sources,
                destination=_destination(destination, state.working_dir),
                source=source,
                inline=tuple(self._inline(state, heredoc) for heredoc in item.heredocs),
                extract=item.keyword == "ADD",
                as_containerfile=True,
                created_by=NOP + text,
                text=text,
                at=item.at,
                **fields,
            )
        )

    def _remote(self, sources: tuple[str, ...], item: Transfer) -> tuple[tuple[str, ...], str | None]:
        """The sources of an ADD as they are to be fetched, and the checksum of the only one."""
        if self.options.remote_for is unchecked:
            return sources, None
        if len(sources) + len(item.heredocs) > 1 and any(re.match(_REMOTE, source) for source in sources):
            fail(item.at, "an ADD of several sources cannot be locked", "write an ADD of its own for each URL")
        found = [self.options.remote_for(source) if re.match(_REMOTE, source) else (source, None) for source in sources]
        return tuple(source for source, _ in found), found[0][1] if found else None

    def _copy_fields(self, state: _State, item: Transfer) -> dict[str, Any]:
        """The fields of the Copy that its flags set."""
        fields: dict[str, Any] = {}
        for name, text in item.flags:
            flag, value = COPY_FLAGS.get(name), self._expand(state, text)
            if flag is None:  # --from
                continue
            match flag.kind:
                case "text":
                    fields[flag.field] = value
                case "switch":
                    fields[flag.field] = flag_true(value, name, item.at)
                case "list":
                    fields[flag.field] = (*fields.get(flag.field, ()), value)
        return fields

    def _inline(self, state: _State, heredoc: Heredoc) -> InlineFile:
        body = words.keep_quotes(heredoc.body, state.lookup) if heredoc.expand else heredoc.body
        return InlineFile(heredoc.name, body.encode())

    def _words(self, state: _State, item: Words) -> None:
        text = f"{item.keyword} {' '.join(item.words)}"
        if item.keyword == "VOLUME":
            paths = tuple(self._expand(state, word) for word in item.words)
            if not all(paths):
                fail(item.at, "VOLUME path is empty")
            self._configure(state, tuple(edits.AddVolume(path) for path in paths), text, item.at)
            return
        from builda.frontend.instructionvalues import ports_of

        expanded = tuple(word for text in item.words for word in words.split(text, state.lookup, self.escape))
        ports = tuple(port for word in expanded for port in ports_of(word, item.at))
        self._configure(state, tuple(edits.AddPort(port) for port in ports), text, item.at)

    def _text(self, state: _State, item: Text) -> None:
        value = item.text if item.keyword == "MAINTAINER" else self._expand(state, item.text)
        text = f"{item.keyword} {item.text}"
        if not value and item.keyword in ("USER", "WORKDIR"):
            self._configure(state, (), text, item.at)
            return
        if not value:
            fail(item.at, f"{item.keyword} is empty: {item.text}")
        match item.keyword:
            case "USER":
                self._configure(state, (edits.SetText("user", value),), text, item.at)
            case "MAINTAINER":
                self._configure(state, (edits.SetText("author", value),), text, item.at)
            case "STOPSIGNAL":
                from builda.frontend.instructionvalues import is_signal

                if not is_signal(value):
                    fail(item.at, f"invalid signal: {value}", "it is a name such as SIGTERM or TERM, or a number")
                self._configure(state, (edits.SetText("stop_signal", value),), text, item.at)
            case "WORKDIR":
                path = _destination(value, state.working_dir)
                path = posixpath.normpath(path)
                path = "/" + path.lstrip("/")
                made_by = f"{NOP}WORKDIR {path}"
                user = state.config.user or None
                state.steps.append(MakeDirectory(path=path, user=user, created_by=made_by, at=item.at))
                edit = edits.SetText("working_dir", path)
                state.change((edit,))
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


@contextmanager
def _placed(at: Location) -> Iterator[None]:
    """Add this place to errors that have none."""
    try:
        yield
    except ContainerfileError:
        raise
    except BuildaError as error:  # a value, or an image that is not there
        raise ContainerfileError(str(error), file=at.file, line=at.line, hint=error.hint) from error


def _typed_trigger(trigger: str, at: Location) -> Typed:
    """An ONBUILD trigger of a base image; the lines below the first are its heredocs' bodies."""
    from builda.frontend.parse import parse
    from builda.frontend.sourcetext import SourceText

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
    found = tuple(marks_in(words.parts(item.text)))
    alone = len(found) == 1 and found[0][0] is not None
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
    """`path` joined to the working directory. A trailing slash (or `.`), which means a directory, stays a slash."""
    joined = posixpath.join(working_dir, path)
    is_directory = path.endswith(("/", "/.")) or path in (".", "")
    clean = posixpath.normpath(joined)
    clean = "/" + clean.lstrip("/")
    return clean if not is_directory or clean == "/" else clean + "/"


def _no_stage(name: str, hint: str | None) -> str | None:
    """The hint for a source of a copy or a mount that is no image, where its name may have been meant for a stage."""
    if re.search("[/.:@]", name) or (hint is not None and hint.startswith("did you mean")):
        return hint
    taken = f"no stage above and no --build-context is called {name}, so an image is meant"
    return f"{taken}; {hint}" if hint else taken


def _shown(value: str) -> str:
    return value if re.fullmatch(r"[^\s\"'\\]*", value) else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
