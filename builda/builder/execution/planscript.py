"""A plan as a bash script of `builda` commands that makes the same image. Pure: a plan and how it is built to text.

Each step that changes files is a layer (`--layer`), and each instruction an entry of the history, as the executor
makes them: with the same times to record, the script's image has the digest of the build's.
"""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Iterator, Mapping

from builda.errors import Unsupported
from builda.mounts import mount_text
from builda.oci import edits
from builda.oci.config import empty_config
from builda.plan import (
    COPY_FLAGS,
    Configure,
    Context,
    Copy,
    FromContainer,
    FromImage,
    FromStage,
    MakeDirectory,
    NamedContext,
    Run,
)
from builda.values import dataclass, values_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.execution.buildoptions import ExecuteOptions
    from builda.builder.imageoptions import CommitOptions
    from builda.oci.config import Healthcheck
    from builda.plan import Location, Plan, RunMount, RunOptions, Source, Stage, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptRequest:
    """What a script takes over as it was written: where the context is, what secrets and agents are, and the names."""

    context: str
    ignore_file: str | None = None
    named: Mapping[str, str] | None = None
    secrets: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


def script(plan: Plan, options: ExecuteOptions, request: ScriptRequest) -> str:
    """The text of the script. It takes the context's directory as its argument, by default the one of the build.

    Unsupported for what a script cannot do alike: one layer for a whole stage, and mounts for all commands.
    """
    if not options.layers or options.commit.squash:
        raise Unsupported("a script makes a layer of each step", hint="leave out --layers=false and --squash")
    if options.mounts:
        raise Unsupported("a script has no --mount for all commands", hint="write it at each RUN")
    writer = _Writer(plan, options, request)
    return "\n".join(writer.lines()) + "\n"


class _Writer:
    def __init__(self, plan: Plan, options: ExecuteOptions, request: ScriptRequest) -> None:
        self.plan = plan
        self.options = options
        self.request = request

    def lines(self) -> Iterator[str]:
        yield "#!/usr/bin/env bash"
        yield "# Builds what the Containerfile builds, in the context that is its argument."
        yield "set -euo pipefail"
        yield f"context=${{1:-{_quoted(self.request.context)}}}"
        yield "containers=()"
        yield """trap '[[ ${#containers[@]} = 0 ]] || builda rm "${containers[@]}" >/dev/null' EXIT"""
        for index in self.plan.needed():
            stage = self.plan.stages[index]
            yield ""
            yield f"# {_place(stage.at)}stage {index + 1}{f', {stage.name}' if stage.name else ''}"
            yield from self.base(index, stage)
            for step in stage.steps:
                if step.at is not None and step.text:
                    yield f"# {_place(step.at)}{_one_line(step.text)}"
                yield _joined(self.step(index, step))
        yield ""
        yield from self.commit()

    def base(self, index: int, stage: Stage) -> Iterator[str]:
        words = ["builda", "from"]
        name = "scratch"
        if isinstance(stage.base, FromStage):
            name = f'container:"${_variable(stage.base.index)}"'
        elif stage.base is not None:
            name = _quoted(stage.base.name)
        platform = stage.platform or self.options.pull.platform
        if platform is not None and not isinstance(stage.base, FromStage):
            words += ["--platform", _quoted(str(platform))]
        if self.options.pull.policy != "missing" and isinstance(stage.base, FromImage):
            words.append(f"--pull={self.options.pull.policy}")
        words += [*_run_options(self.options.run), name]
        yield f"{_variable(index)}=$({' '.join(words)})"
        yield f'containers+=("${_variable(index)}")'
        if stage.base is None and platform is not None:  # `from scratch` knows no PATH, FROM scratch does
            said = [
                word for name_, value in empty_config(platform).env for word in ("--env", _quoted(f"{name_}={value}"))
            ]
            yield _joined(["builda", "config", "--literal", *said, f'"${_variable(index)}"'])

    def step(self, index: int, step: Step) -> list[str]:
        container = f'"${_variable(index)}"'
        match step:
            case Configure():
                return _config(step, container)
            case MakeDirectory():
                made_by = _option("--created-by", step.created_by)
                return ["builda", "workdir", "--layer", *made_by, container, _quoted(step.path)]
            case Copy():
                return self.copy(step, container)
            case Run():
                return self.run(step, container)

    def copy(self, step: Copy, container: str) -> list[str]:
        words = ["builda", "add" if step.extract else "copy", "--quiet", "--layer"]
        words += _option("--created-by", step.created_by)
        words += self.where(step.source)
        words += _flags(step)
        words += _option("--timestamp", None if step.timestamp is None else str(step.timestamp))
        words += ["--as-containerfile"] if step.as_containerfile else []
        for file in step.inline:
            words += ["--inline", _quoted_bytes(f"{file.name}=".encode() + file.data)]
        return [*words, "--", container, *map(_quoted, step.sources), _quoted(step.destination)]

    def where(self, source: Source) -> list[str]:
        """The options that say where the sources of a copy are."""
        match source:
            case Context():
                ignored = self.request.ignore_file
                return ["--contextdir", '"$context"', *_option("--ignorefile", ignored)]
            case NamedContext(name):
                return ["--contextdir", _quoted(self.directory(name))]
            case FromStage(index):
                return ["--from", f'"${_variable(index)}"']
            case FromImage(name) | FromContainer(name):
                return ["--from", _quoted(name)]

    def directory(self, name: str) -> str:
        return (self.request.named or {})[name]

    def run(self, step: Run, container: str) -> list[str]:
        words = ["builda", "run", "--layer", *_option("--created-by", step.created_by)]
        words += [*_option("--user", step.user), *_option("--workingdir", step.working_dir)]
        words += [word for name, value in step.env for word in ("--env", _quoted(f"{name}={value}"))]
        words += _run_options(step.options)
        for mount in step.mounts:
            words += ["--mount", _mount(mount)]
        words += self.inputs(step)
        if step.script is not None:
            words += ["--inline", _quoted_bytes(step.script)]
        words += [container, "--", *map(_quoted, step.args)]
        if step.stdin is None:
            return [*words, "</dev/null"]
        return ["printf", "%s", _quoted_bytes(step.stdin), "|", *words]

    def inputs(self, step: Run) -> Iterator[str]:
        """The options that say what the mounts of a run mean."""
        kinds = {mount.type for mount in step.mounts}
        names = {mount.from_.name for mount in step.mounts if isinstance(mount.from_, NamedContext)}
        if any(mount.type == "bind" and mount.from_ == Context() for mount in step.mounts):
            yield from ("--contextdir", '"$context"')
        for name in sorted(names):
            yield from ("--build-context", _quoted(f"{name}={self.directory(name)}"))
        for secret in self.request.secrets if "secret" in kinds else ():
            yield from ("--secret", _quoted(secret))
        for agent in self.request.agents if "ssh" in kinds else ():
            yield from ("--ssh", _quoted(agent))

    def commit(self) -> Iterator[str]:
        words = ["builda", "commit", "--quiet", *_commit(self.options.commit, self.options.format)]
        first, *others = self.request.tags or ("",)
        named = [_quoted(first)] if first else []
        yield _joined(["image=$(" + " ".join([*words, f'"${_variable(self.plan.target)}"', *named]) + ")"])
        if others:
            yield _joined(["builda", "tag", '"$image"', *map(_quoted, others)])
        yield 'echo "$image"'


def _variable(index: int) -> str:
    return f"stage_{index + 1}"


def _place(at: Location | None) -> str:
    return "" if at is None else f"{_one_line(at.file)}:{at.line}: "


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _quoted(text: str) -> str:
    return shlex.quote(text)


def _quoted_bytes(data: bytes) -> str:
    """A word of any bytes but NUL, which no argument can hold."""
    if b"\0" in data:
        raise Unsupported("a script cannot hold a heredoc with a NUL byte")
    try:
        return shlex.quote(data.decode())
    except UnicodeDecodeError:
        return "$'" + "".join(chr(byte) if chr(byte).isalnum() else f"\\x{byte:02x}" for byte in data) + "'"


def _flags(step: Copy) -> list[str]:
    """The flags of COPY that differ from their defaults."""
    words = []
    plain = Copy(sources=(), destination="")
    for name, flag in COPY_FLAGS.items():
        value = getattr(step, flag.field)
        if value == getattr(plain, flag.field):
            continue
        match flag.kind:
            case "text":
                words += _option(f"--{name}", value)
            case "switch":
                words.append(f"--{name}" if value else f"--{name}=false")
            case "list":
                words += [word for each in value for word in _option(f"--{name}", _csv(each))]
    return words


def _option(name: str, value: str | None) -> list[str]:
    return [] if value is None else [name, _quoted(value)]


def _csv(value: str) -> str:
    """One value of an option that is split at commas."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow([value])
    return out.getvalue() if "," in value or '"' in value else value


def _joined(words: list[str]) -> str:
    return " ".join(words)


def _mount(mount: RunMount) -> str:
    """The text of `--mount`; a stage's container is a variable of the script."""
    match mount.from_:
        case FromStage(index):
            return f'{_quoted(mount_text(mount))},from="{_variable(index)}"'
        case FromImage(name) | FromContainer(name) | NamedContext(name):
            return _quoted(mount_text(mount, name))
        case Context():
            return _quoted(mount_text(mount))


_LISTS: Mapping[str, str] = {
    "runtime_flags": "--runtime-flag",
    "cap_add": "--cap-add",
    "cap_drop": "--cap-drop",
    "devices": "--device",
    "volumes": "--volume",
    "ulimits": "--ulimit",
    "security_opts": "--security-opt",
    "add_hosts": "--add-host",
    "dns": "--dns",
    "dns_options": "--dns-option",
    "dns_search": "--dns-search",
    "group_add": "--group-add",
}
"""Options of commands that are repeated, by the name of their field in RunOptions; the others are called as theirs."""


def _run_options(options: RunOptions) -> Iterator[str]:
    for field, value in values_of(options).items():
        if value is None or value == ():
            continue
        name = _LISTS.get(field, f"--{field.replace('_', '-')}")
        if isinstance(value, tuple):
            for item in value:
                yield from (name, _quoted(_csv(item)))
        elif isinstance(value, bool):
            yield f"{name}={str(value).lower()}"
        else:
            yield from (name, _quoted(str(value)))


def _config(step: Configure, container: str) -> list[str]:
    words = ["builda", "config", "--literal"]
    if step.created_by is not None:
        words += ["--empty-layer", "--created-by", _quoted(step.created_by)]
    words += _option("--history-comment", step.history_comment)
    for edit in step.edits:
        words += _edit(edit)
    for name, value in step.set_annotations.items():
        words += ["--annotation", _quoted(f"{name}={value}")]
    for name in step.unset_annotations:
        words += ["--unsetannotation", _quoted(_csv(name))]
    return [*words, container]


_TEXTS: Mapping[str, str] = {"working_dir": "--workingdir", "stop_signal": "--stop-signal"}


def _edit(edit: edits.ConfigEdit) -> list[str]:
    """The option of `config` that makes an edit."""
    match edit:
        case edits.SetEnv(name, value):
            return ["--env", _quoted(f"{name}={value}")]
        case edits.SetLabel(name, value):
            return ["--label", _quoted(f"{name}={value}")]
        case edits.SetEntrypoint(args):
            return ["--entrypoint", _array(args)]
        case edits.SetCmd(args):
            return ["--cmd", _array(args)]
        case edits.SetShell(args):
            return ["--shell", _array(args)]
        case edits.SetText(field, value):
            return [_TEXTS.get(field, f"--{field}"), _quoted(value)]
        case edits.AddPort(port):
            return ["--port", _quoted(_csv(port))]
        case edits.AddVolume(path):
            return ["--volume", _quoted(_csv(path))]
        case edits.AddOnbuild(text):
            return ["--onbuild", _quoted(_csv(text))]
        case edits.ClearOnbuild():
            return ["--onbuild", "-"]
        case edits.SetHealthcheck(check):
            return _healthcheck(check)
        case _:
            raise Unsupported(f"a script has no command for this change: {edit}")


def _array(args: tuple[str, ...] | None) -> str:
    return "''" if args is None else _quoted(json.dumps(args, ensure_ascii=False))


def _healthcheck(check: Healthcheck | None) -> list[str]:
    if check is None:
        return ["--healthcheck", "''"]
    kind, *args = check.test
    text = {"CMD": f"CMD {json.dumps(args, ensure_ascii=False)}", "CMD-SHELL": f"CMD-SHELL {''.join(args)}"}
    words = ["--healthcheck", _quoted(text.get(kind, kind))]
    for name in ("interval", "timeout", "start_period", "start_interval"):
        if value := getattr(check, name):
            words += [f"--healthcheck-{name.replace('_', '-')}", f"{value}ns"]
    return [*words, *(("--healthcheck-retries", str(check.retries)) if check.retries else ())]


def _commit(options: CommitOptions, image_format: str) -> Iterator[str]:
    yield from ("--format", image_format)
    if options.timestamp is not None:
        yield from ("--timestamp", str(options.timestamp))
    elif options.source_date_epoch is not None:
        yield from ("--source-date-epoch", str(options.source_date_epoch))
    if options.rewrite_timestamp is not None:
        yield f"--rewrite-timestamp={str(options.rewrite_timestamp).lower()}"
    if not options.identity_label:
        yield "--identity-label=false"
    if options.omit_history:
        yield "--omit-history"
    if not options.created_annotation:
        yield "--created-annotation=false"
    for name, value in options.annotations:
        yield from ("--annotation", _quoted(f"{name}={value}"))
    for option, names in (
        ("--unsetannotation", options.unset_annotations),
        ("--unsetenv", options.unset_env),
        ("--unsetlabel", options.unset_labels),
    ):
        for name in names:
            yield from (option, _quoted(_csv(name)))
    if options.compression == "none":
        yield "--disable-compression"
    elif options.compression != "gzip":
        yield from ("--compression-format", options.compression)
    if options.compression_level is not None:
        yield from ("--compression-level", str(options.compression_level))
