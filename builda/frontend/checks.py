"""Build checks: find what the author of a Containerfile probably did not mean. Names are BuildKit's.

Each check is a small generator over instructions; none stops a build unless `# check=error=true` says so.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from builda.errors import InvalidReference, InvalidValue
from builda.frontend import words
from builda.frontend.check_settings import settings_of
from builda.frontend.compileoptions import global_platforms
from builda.frontend.instructions import Arg, Assign, Command, From, Health, Text, Transfer, Typed, Words, typed
from builda.frontend.parse import Instruction, Parsed
from builda.frontend.secretnames import names_a_secret
from builda.oci.config import ImageConfig
from builda.oci.descriptor import Platform
from builda.oci.reference import parse_short
from builda.plan import Location
from builda.values import NamedTuple, dataclass, field


class Finding(NamedTuple):
    """One warning with its place."""

    check: str
    message: str
    at: Location
    under: Location | None = None  # the instruction whose comments count, where it is not the one at `at`


_PATTERN_OR_URL = re.compile(r"[*?\[$]|://")
_SUGGESTED_FROM = 200
"""Names among which a near one is looked for, which is slow."""
_PLATFORM_ARGS = frozenset(global_platforms(Platform(os="", architecture=""), Platform(os="", architecture="")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts that the Containerfile does not contain. Checks that need an unknown one are left out."""

    platform: Platform | None = None  # that the build is for
    build_platform: Platform | None = None  # of the machine
    build_args: Mapping[str, str] = field(default_factory=dict)
    ignored: Callable[[str], bool] = lambda path: False  # whether an ignore file hides a path of the context
    config_of: Callable[[str], ImageConfig | None] = lambda name: None  # of a base image


def check(parsed: Parsed, facts: Facts | None = None) -> tuple[Finding, ...]:
    """All findings in the order of the file, without those that the settings skip."""
    known = facts or Facts()
    settings = settings_of(parsed, known.build_args)
    if "all" in settings.skip:
        return ()
    listed = [(instruction, typed(instruction, parsed.escape)) for instruction in parsed.instructions]
    found = [
        *_text_checks(parsed),
        *_stage_checks(listed),
        *_Walk(known, parsed.escape).findings(listed),
        *_descriptions(parsed, listed),
    ]
    order = {instruction.at: index for index, (instruction, _) in enumerate(listed)}
    at_each = {at: settings.with_comments(comments) for at, comments in parsed.comments.items()}
    kept = [
        finding
        for finding in dict.fromkeys(found)
        if at_each.get(finding.under or finding.at, settings).wants(finding.check)
    ]
    return tuple(sorted(kept, key=lambda finding: order.get(finding.at, -1)))


def _text_checks(parsed: Parsed) -> Iterator[Finding]:
    for at in parsed.empty_continuations:
        yield Finding("NoEmptyContinuation", "empty line inside a continuation", at)
    first = next((i for i, item in enumerate(parsed.instructions) if item.keyword == "FROM"), 0)
    staged = parsed.instructions[first:]  # ARGs above the first stage do not count
    upper = sum(item.written.isupper() for item in staged)
    lower = sum(item.written.islower() for item in staged)
    for item in staged:
        if not (item.written.islower() if lower > upper else item.written.isupper()):
            wanted = "lower" if lower > upper else "upper"
            yield Finding(
                "ConsistentInstructionCasing", f"{item.written} does not match the {wanted} case of the others", item.at
            )


def _stage_checks(listed: list[tuple[Instruction, Typed]]) -> Iterator[Finding]:
    seen: set[str] = set()
    for instruction, item in listed:
        if not isinstance(item, From):
            continue
        raw = words.last(instruction.value)
        if item.name is not None:
            if raw != raw.lower():
                yield Finding("StageNameCasing", f"stage name should be lower case: {raw}", item.at)
            if item.as_written and _other_case(item.as_written, instruction.written):
                yield Finding(
                    "FromAsCasing", f"'{item.as_written}' and '{instruction.written}' differ in case", item.at
                )
            if item.name in seen:
                yield Finding("DuplicateStageName", f"stage name is used twice: {item.name}", item.at)
            if item.name in ("scratch", "context"):
                yield Finding("ReservedStageName", f"stage name is reserved: {item.name}", item.at)
            seen.add(item.name)


def _other_case(word: str, keyword: str) -> bool:
    """Whether AS is written in another case than its FROM; mixed case is another check."""
    if keyword.isupper():
        return not word.isupper()
    return keyword.islower() and not word.islower()


def _descriptions(parsed: Parsed, listed: list[tuple[Instruction, Typed]]) -> Iterator[Finding]:
    """InvalidDefinitionDescription: a comment right above an ARG or a named FROM describes it, its name first."""
    for instruction, item in listed:
        comment = next(iter(parsed.comments.get(instruction.at, ())[-1:]), "")
        names = [pair[0] for pair in item.pairs] if isinstance(item, Arg) else []
        if isinstance(item, From) and item.name is not None:
            names = [words.last(instruction.value), item.name]
        if not comment or not names or comment.partition(" ")[0] in names:
            continue
        message = f"comment above {instruction.keyword} should begin with its name: # {names[0]} DESCRIPTION"
        yield Finding("InvalidDefinitionDescription", message, item.at)


class _Scope:
    """The variables at one place of a stage: their values, and the ARGs that are declared without one."""

    def __init__(self, values: Mapping[str, str], escape: str, *, known: bool = True) -> None:
        self.values = dict(values)
        self.known = known  # False: the base image is not here, and what it sets neither
        self.declared: set[str] = set()
        self.escape = escape
        self.shell = False  # SHELL was used, here or below
        self.working_dir = False  # a WORKDIR of the file was

    def child(self) -> _Scope:
        """The scope in which a stage based on this one begins."""
        made = _Scope(self.values, self.escape, known=self.known)
        made.declared, made.shell, made.working_dir = set(self.declared), self.shell, self.working_dir
        return made

    def expand(self, text: str, *, heredoc: bool = False) -> tuple[str | None, list[str]]:
        """The text expanded (None where that fails), and the names in it that nothing sets."""
        missing: list[str] = []

        def lookup(name: str) -> str | None:
            if name not in self.values and name not in self.declared:
                missing.append(name)
            return self.values.get(name)

        try:
            if heredoc:
                return words.keep_quotes(text, lookup), missing
            return words.expand(text, lookup, self.escape), missing
        except InvalidValue:
            return None, missing


class _Walk:
    """The file from its first to its last instruction, as BuildKit's frontend goes through it."""

    def __init__(self, facts: Facts, escape: str) -> None:
        self.facts = facts
        self.escape = escape
        target = facts.platform
        self.platforms = {} if target is None else global_platforms(target, facts.build_platform or target)
        self.top = _Scope(self.platforms, escape)  # ARGs above the first FROM, with build args
        self.defaults: _Scope | None = _Scope(self.platforms, escape)  # and without; None where one cannot be expanded
        self.stages: dict[str, _Scope] = {}
        self.scope = self.top
        self.single: dict[str, Location] = {}

    def findings(self, listed: list[tuple[Instruction, Typed]]) -> Iterator[Finding]:
        begun, name = False, None
        for instruction, item in listed:
            if isinstance(item, From):
                begun, name = True, item.name
                yield from self._from(item)
                yield from self._base_platform(item)
                self.scope = self._inherited(item)
                self.single = {}
            elif not begun:
                self._top_arg(item)
            else:
                yield from self._instruction(instruction, item)
            if begun and name is not None:
                self.stages[name] = self.scope

    def _top_arg(self, item: Typed) -> None:
        for name, default in item.pairs if isinstance(item, Arg) else ():
            self.top.declared.add(name)
            if name in self.facts.build_args:
                self.top.values[name] = self.facts.build_args[name]
            elif default is not None:
                self.top.values[name] = self.top.expand(default)[0] or ""
            if self.defaults is not None and default is not None:
                value = self.defaults.expand(default)[0]
                if value is None:
                    self.defaults = None
                else:
                    self.defaults.values[name] = value

    def _from(self, item: From) -> Iterator[Finding]:
        missing = self.top.expand(item.image)[1]
        for name in dict.fromkeys(missing):
            yield Finding("UndefinedArgInFrom", f"FROM uses an ARG that nothing declares: {name}", item.at)
        if self.defaults is not None and "$" in item.image and not missing:
            default = self.defaults.expand(item.image)[0]
            if default is not None and not _is_image_name(default):
                message = f"default values of ARGs give an invalid image name: {item.image} is {default!r}"
                yield Finding("InvalidDefaultArgInFrom", message, item.at)
        if item.platform is not None:
            yield from self._from_platform(item, item.platform)

    def _from_platform(self, item: From, platform: str) -> Iterator[Finding]:
        used: list[str] = []
        value = ""

        def lookup(name: str) -> str | None:
            used.append(name)
            return self.top.values.get(name)

        with suppress(InvalidValue):
            value = words.expand(platform, lookup, self.escape)
        for name in dict.fromkeys(used):
            if name not in self.top.values and name not in self.top.declared and name not in _PLATFORM_ARGS:
                yield Finding("UndefinedArgInFrom", f"FROM uses an ARG that nothing declares: {name}", item.at)
        if set(used) == {"TARGETPLATFORM"} and value in ("", self.platforms.get("TARGETPLATFORM", "")):
            yield Finding("RedundantTargetPlatform", f"--platform={platform} is the default", item.at)
        elif not used and not _names_platform(item.name or "", value):
            yield Finding("FromPlatformFlagConstDisallowed", f"--platform has a constant value: {platform}", item.at)

    def _base_platform(self, item: From) -> Iterator[Finding]:
        """InvalidBaseImagePlatform: an image that is for another platform than its stage."""
        wanted, image = self._platform(item), self.top.expand(item.image)[0]
        if wanted is None or not image or image.lower() in self.stages or image == "scratch":
            return
        config = self.facts.config_of(image)
        if config is not None and not wanted.runs(config.platform):
            message = f"base image is for {config.platform}, and the stage for {wanted}: {image}"
            yield Finding("InvalidBaseImagePlatform", message, item.at)

    def _platform(self, item: From) -> Platform | None:
        text = None if item.platform is None else self.top.expand(item.platform)[0]
        try:
            return Platform.parse(text) if text else self.facts.platform
        except InvalidValue:
            return None  # the compiler says so

    def _inherited(self, item: From) -> _Scope:
        """The scope in which a stage begins."""
        image = self.top.expand(item.image)[0]
        if image == "scratch":
            return _Scope({"PATH": ""}, self.escape)
        if image and image.lower() in self.stages:
            return self.stages[image.lower()].child()
        config = self.facts.config_of(image) if image else None
        if config is None:
            return _Scope({}, self.escape, known=False)
        scope = _Scope(config.environ(), self.escape)
        scope.shell = bool(config.shell)
        return scope

    def _instruction(self, instruction: Instruction, item: Typed) -> Iterator[Finding]:
        scope = self.scope
        expanded: dict[str, str | None] = {}
        for text in _expanded_texts(item):
            value, missing = scope.expand(text)
            expanded[text] = None if missing and not scope.known else value  # the base may set them
            yield from self._undefined(missing, item.at)
        if isinstance(item, Transfer):
            for heredoc in item.heredocs:
                if heredoc.expand:
                    yield from self._undefined(scope.expand(heredoc.body, heredoc=True)[1], item.at)
        match item:
            case Command(keyword="CMD" | "ENTRYPOINT"):
                yield from self._command(item, scope)
            case Command(keyword="SHELL"):
                scope.shell = True
            case Text(keyword="MAINTAINER"):
                yield Finding("MaintainerDeprecated", "MAINTAINER is deprecated; use a label", item.at)
            case Text(keyword="WORKDIR", text=text):
                path = expanded[text]
                if not scope.working_dir and path is not None and not path.startswith("/"):
                    message = f"relative WORKDIR without an absolute one before it: {text}"
                    yield Finding("WorkdirRelativePath", message, item.at)
                scope.working_dir = True
            case Assign():
                yield from _assign_checks(item, expanded)
                if item.keyword == "ENV":
                    scope.values.update((expanded[n] or n, expanded[v] or "") for n, v in item.pairs)
            case Arg():
                yield from self._arg(item, scope)
            case Words(keyword="EXPOSE"):
                yield from _expose_checks(item, expanded)
            case Transfer() if not any(name == "from" for name, _ in item.flags):
                yield from _ignored([expanded[source] or source for source in item.sources], item, self.facts.ignored)
            case Health():
                yield from self._repeated("HEALTHCHECK", item.at)
            case _:
                pass

    def _undefined(self, missing: list[str], at: Location) -> Iterator[Finding]:
        if not self.scope.known:
            return
        known = [*self.scope.values, *self.scope.declared]
        for name in dict.fromkeys(missing):
            from difflib import get_close_matches  # which is for errors only

            near = get_close_matches(name, known, 1) if len(known) <= _SUGGESTED_FROM else []
            meant = f" (did you mean ${near[0]}?)" if near else ""
            yield Finding("UndefinedVar", f"variable is never defined: ${name}{meant}", at)

    def _arg(self, item: Arg, scope: _Scope) -> Iterator[Finding]:
        for name, default in item.pairs:
            yield from _secret(name, item.at, "ARG")
            value = self.facts.build_args.get(name)
            if value is None and default is not None:
                value, missing = scope.expand(default)
                yield from self._undefined(missing, item.at)
            elif value is None:
                value = self.top.values.get(name)
            if value is not None:
                scope.values[name] = value
            scope.declared.add(name)

    def _command(self, item: Command, scope: _Scope) -> Iterator[Finding]:
        if item.args is None and not scope.shell:
            message = f"JSON arguments are recommended for {item.keyword}: a shell does not pass signals on"
            if item.text.startswith("["):
                message = (
                    f"{item.keyword} is no JSON array of strings, so a shell gets it as it stands: {item.text[:80]}"
                )
            yield Finding("JSONArgsRecommended", message, item.at)
        yield from self._repeated(item.keyword, item.at)

    def _repeated(self, keyword: str, at: Location) -> Iterator[Finding]:
        if keyword in self.single:
            message = f"only the last {keyword} of a stage has an effect"
            yield Finding("MultipleInstructionsDisallowed", message, self.single[keyword], under=at)
        self.single[keyword] = at


def _expanded_texts(item: Typed) -> tuple[str, ...]:
    """The texts of an instruction in which BuildKit replaces variables, each as one word. Defaults of ARGs are not
    among them, as they may not count.
    """
    match item:
        case Assign():
            return tuple(text for pair in item.pairs for text in pair)
        case Transfer():
            flags = [value for name, value in item.flags if name in ("chown", "chmod", "checksum")]
            return (*flags, *item.sources, item.destination)
        case Command(keyword="RUN"):
            return tuple(value for name, value in item.flags if name == "mount")
        case Text(keyword="USER" | "WORKDIR" | "STOPSIGNAL"):
            return (item.text,)
        case Words():
            return item.words
        case _:
            return ()


def _is_image_name(text: str) -> bool:
    try:
        parse_short(text)
    except InvalidReference:
        return False
    return True


def _names_platform(stage: str, text: str) -> bool:
    """Whether a stage's name contains its platform, or the platform is malformed."""
    try:
        platform = Platform.parse(text)
    except InvalidValue:
        return True
    return bool(stage) and (platform.os in stage or platform.architecture in stage)


def _assign_checks(item: Assign, expanded: Mapping[str, str | None]) -> Iterator[Finding]:
    if item.legacy:
        message = f'"{item.keyword} key=value" should be used instead of "{item.keyword} key value"'
        yield Finding("LegacyKeyValueFormat", message, item.at)
    for name, _ in item.pairs if item.keyword == "ENV" else ():
        yield from _secret(expanded[name] or name, item.at, "ENV")


def _secret(name: str, at: Location, keyword: str) -> Iterator[Finding]:
    if names_a_secret(name):
        yield Finding(
            "SecretsUsedInArgOrEnv", f"do not keep secrets in {keyword}: {name}; use RUN --mount=type=secret", at
        )


def _expose_checks(item: Words, expanded: Mapping[str, str | None]) -> Iterator[Finding]:
    for word in (word for text in item.words for word in (expanded[text] or "").split()):
        *before, ports = word.split(":")
        protocol = ports.partition("/")[2]
        if protocol != protocol.lower():
            yield Finding("ExposeProtoCasing", f"protocol should be lower case: {word}", item.at)
        if any(before):
            yield Finding("ExposeInvalidFormat", f"EXPOSE takes no address and no host port: {word}", item.at)


def _ignored(sources: list[str], item: Transfer, ignored: Callable[[str], bool]) -> Iterator[Finding]:
    for source in sources:
        path = posixpath.normpath(source).lstrip("/")
        if not _PATTERN_OR_URL.search(source) and path not in (".", "") and ignored(path):
            yield Finding("CopyIgnoredFile", f"an ignore file excludes this source: {source}", item.at)
