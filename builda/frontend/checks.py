"""Build checks: what a Containerfile does that its author probably did not mean. Names are BuildKit's.

Each check is a small generator over instructions; none stops a build unless `# check=error=true` says so.
"""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import NamedTuple

from builda.errors import InvalidReference, InvalidValue
from builda.frontend import words
from builda.frontend.check_settings import settings_of
from builda.frontend.compile import PROXIES, global_platforms
from builda.frontend.heredoc import split_raw
from builda.frontend.instructions import Arg, Assign, Command, From, Text, Transfer, Typed, Words, typed
from builda.frontend.parse import Instruction, Parsed
from builda.oci.config import ImageConfig
from builda.oci.descriptor import Platform
from builda.oci.reference import parse_short
from builda.plan import Location
from builda.values import dataclass


class Finding(NamedTuple):
    """One warning with its place."""

    check: str
    message: str
    at: Location


_SECRET = re.compile(r"(^|_)(apikey|auth|credentials?|key|password|pword|passwd|secret|token)(_|$)", re.IGNORECASE)
_PUBLIC = re.compile(r"public|_keyring|key_?(id|name|file|path)$", re.IGNORECASE)
_VARIABLE = re.compile(r"\\.|\$(?:\{([A-Za-z_][A-Za-z0-9_]*)(.?)|([A-Za-z_][A-Za-z0-9_]*))")
_BUILTIN = frozenset({"PATH", "HOME", "HOSTNAME", "TERM", "SOURCE_DATE_EPOCH", *PROXIES})
_PLATFORM_ARGS = frozenset(global_platforms(Platform(os="", architecture=""), Platform(os="", architecture="")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a Containerfile alone does not say. Where something is not known, what depends on it is not checked."""

    platform: Platform | None = None  # that the build is for
    build_platform: Platform | None = None  # of the machine
    build_args: Mapping[str, str] = field(default_factory=dict)
    ignored: Callable[[str], bool] = lambda path: False  # whether an ignore file hides a path of the context
    config_of: Callable[[str], ImageConfig | None] = lambda name: None  # of a base image


def check(parsed: Parsed, facts: Facts | None = None) -> tuple[Finding, ...]:
    """Everything that looks wrong, in the order of the file, without what the settings of the checks skip."""
    known = facts or Facts()
    settings = settings_of(parsed, known.build_args)
    if "all" in settings.skip:
        return ()
    listed = [(instruction, typed(instruction, parsed.escape)) for instruction in parsed.instructions]
    found = [
        *_text_checks(parsed),
        *_stage_checks(listed),
        *_instruction_checks(listed, known.ignored),
        *_variables(listed, known),
        *_base_platforms(listed, known),
        *_descriptions(parsed, listed),
    ]
    order = {instruction.at: index for index, (instruction, _) in enumerate(listed)}
    kept = [finding for finding in dict.fromkeys(found) if settings.wants(finding.check)]
    return tuple(sorted(kept, key=lambda finding: order.get(finding.at, -1)))


def _text_checks(parsed: Parsed) -> Iterator[Finding]:
    for at in parsed.empty_continuations:
        yield Finding("NoEmptyContinuation", "empty line inside a continuation", at)
    upper = sum(item.written.isupper() for item in parsed.instructions)
    lower = sum(item.written.islower() for item in parsed.instructions)
    for item in parsed.instructions:
        mixed = not (item.written.isupper() or item.written.islower())
        if mixed or (item.written.islower() and upper >= lower) or (item.written.isupper() and lower > upper):
            wanted = "upper" if upper >= lower else "lower"
            yield Finding(
                "ConsistentInstructionCasing", f"{item.written} does not match the {wanted} case of the others", item.at
            )


def _stage_checks(listed: list[tuple[Instruction, Typed]]) -> Iterator[Finding]:
    seen: set[str] = set()
    for instruction, item in listed:
        if not isinstance(item, From):
            continue
        raw = instruction.value.split()[-1]
        if item.name is not None:
            if raw != raw.lower():
                yield Finding("StageNameCasing", f"stage name should be lower case: {raw}", item.at)
            if item.as_written and item.as_written.isupper() != instruction.written.isupper():
                yield Finding(
                    "FromAsCasing", f"'{item.as_written}' and '{instruction.written}' differ in case", item.at
                )
            if item.name in seen:
                yield Finding("DuplicateStageName", f"stage name is used twice: {item.name}", item.at)
            if item.name in ("scratch", "context"):
                yield Finding("ReservedStageName", f"stage name is reserved: {item.name}", item.at)
            seen.add(item.name)
        yield from _platform_checks(item)


def _platform_checks(item: From) -> Iterator[Finding]:
    if item.platform is None:
        return
    if item.platform in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
        yield Finding("RedundantTargetPlatform", f"--platform={item.platform} is the default", item.at)
    elif "$" not in item.platform:
        yield Finding("FromPlatformFlagConstDisallowed", f"--platform has a constant value: {item.platform}", item.at)


def _instruction_checks(listed: list[tuple[Instruction, Typed]], ignored: Callable[[str], bool]) -> Iterator[Finding]:
    absolute = False
    single: dict[str, Location] = {}
    for instruction, item in listed:
        match item:
            case From():
                absolute, single = False, {}
            case Command(keyword="CMD" | "ENTRYPOINT") | Text(keyword="MAINTAINER"):
                yield from _command_checks(item, single)
            case Text(keyword="WORKDIR", text=text):
                if not absolute and not text.startswith(("/", "$", '"/', "'/")):
                    yield Finding(
                        "WorkdirRelativePath", f"relative WORKDIR without an absolute one before: {text}", item.at
                    )
                absolute = absolute or text.startswith("/")
            case Assign():
                yield from _assign_checks(item)
            case Arg():
                yield from _secrets([name for name, _ in item.pairs], item.at, "ARG")
            case Words(keyword="EXPOSE"):
                yield from _expose_checks(item)
            case Transfer() if not any(name == "from" for name, _ in item.flags):
                yield from _ignored(item, ignored)
            case _:
                if instruction.keyword == "HEALTHCHECK":
                    yield from _repeated("HEALTHCHECK", item.at, single)


def _command_checks(item: Command | Text, single: dict[str, Location]) -> Iterator[Finding]:
    if isinstance(item, Text):
        yield Finding("MaintainerDeprecated", "MAINTAINER is deprecated; use a label", item.at)
        return
    if item.args is None and item.text:
        message = f"JSON arguments are recommended for {item.keyword}: a shell does not pass signals on"
        if item.text.startswith("["):
            message = f"{item.keyword} is no JSON array of strings, so a shell gets it as it stands: {item.text[:80]}"
        yield Finding("JSONArgsRecommended", message, item.at)
    yield from _repeated(item.keyword, item.at, single)


def _repeated(keyword: str, at: Location, single: dict[str, Location]) -> Iterator[Finding]:
    if keyword in single:
        yield Finding(
            "MultipleInstructionsDisallowed", f"only the last {keyword} of a stage has an effect", single[keyword]
        )
    single[keyword] = at


def _assign_checks(item: Assign) -> Iterator[Finding]:
    if item.legacy:
        message = f'"{item.keyword} key=value" should be used instead of "{item.keyword} key value"'
        yield Finding("LegacyKeyValueFormat", message, item.at)
    if item.keyword == "ENV":
        yield from _secrets([name for name, _ in item.pairs], item.at, "ENV")


def _secrets(names: list[str], at: Location, keyword: str) -> Iterator[Finding]:
    for name in names:
        if _SECRET.search(name) and not _PUBLIC.search(name):
            yield Finding(
                "SecretsUsedInArgOrEnv", f"do not keep secrets in {keyword}: {name}; use RUN --mount=type=secret", at
            )


def _expose_checks(item: Words) -> Iterator[Finding]:
    for word in item.words:
        port, _, protocol = word.partition("/")
        if protocol != protocol.lower() and "$" not in protocol:
            yield Finding("ExposeProtoCasing", f"protocol should be lower case: {word}", item.at)
        if ":" in port and "$" not in port:
            yield Finding("ExposeInvalidFormat", f"EXPOSE takes no address and no host port: {word}", item.at)


def _ignored(item: Transfer, ignored: Callable[[str], bool]) -> Iterator[Finding]:
    for source in item.sources:
        path = posixpath.normpath(source).lstrip("/")
        if not re.search(r"[*?\[$]|://", source) and path not in (".", "") and ignored(path):
            yield Finding("CopyIgnoredFile", f"an ignore file excludes this source: {source}", item.at)


def _base_platforms(listed: list[tuple[Instruction, Typed]], facts: Facts) -> Iterator[Finding]:
    """InvalidBaseImagePlatform: an image that is for another platform than its stage."""
    top = _top_values(listed, facts)
    names: set[str] = set()
    for _, item in listed:
        if not isinstance(item, From):
            continue
        wanted = _platform(item, top, facts)
        image = _expanded(item.image, top)
        if wanted is not None and image is not None and image.lower() not in names | {"scratch"}:
            config = facts.config_of(image)
            if config is not None and not wanted.runs(config.platform):
                message = f"base image is for {config.platform}, and the stage for {wanted}: {image}"
                yield Finding("InvalidBaseImagePlatform", message, item.at)
        names |= {item.name} if item.name else set()


def _top_values(listed: list[tuple[Instruction, Typed]], facts: Facts) -> dict[str, str | None]:
    """The ARGs above the first FROM, and the platform args."""
    target = facts.platform
    found: dict[str, str | None] = (
        {} if target is None else dict(global_platforms(target, facts.build_platform or target))
    )
    for _, item in listed:
        if isinstance(item, From):
            break
        if isinstance(item, Arg):
            found.update((name, facts.build_args.get(name, default)) for name, default in item.pairs)
    return found


def _platform(item: From, top: Mapping[str, str | None], facts: Facts) -> Platform | None:
    if item.platform is None:
        return facts.platform
    text = _expanded(item.platform, top)
    try:
        return Platform.parse(text) if text else facts.platform
    except InvalidValue:
        return None  # the compiler says so


def _expanded(text: str, values: Mapping[str, str | None]) -> str | None:
    try:
        return words.expand(text, values.get)
    except InvalidValue:
        return None


def _descriptions(parsed: Parsed, listed: list[tuple[Instruction, Typed]]) -> Iterator[Finding]:
    """InvalidDefinitionDescription: a comment right above an ARG or a named FROM describes it, its name first."""
    for instruction, item in listed:
        comment = parsed.comments.get(instruction.at)
        names = [pair[0] for pair in item.pairs] if isinstance(item, Arg) else []
        if isinstance(item, From) and item.name is not None:
            names = [instruction.value.split()[-1], item.name]
        if comment is None or not names or comment.partition(" ")[0] in names:
            continue
        message = f"comment above {instruction.keyword} should begin with its name: # {names[0]} DESCRIPTION"
        yield Finding("InvalidDefinitionDescription", message, item.at)


def _variables(listed: list[tuple[Instruction, Typed]], facts: Facts) -> Iterator[Finding]:
    """UndefinedVar, UndefinedArgInFrom and InvalidDefaultArgInFrom."""
    top: dict[str, str | None] = {}
    known: set[str] | None = None
    stages: dict[str, set[str] | None] = {}
    name: str | None = None
    for instruction, item in listed:
        if isinstance(item, From):
            yield from _from_variables(item, top)
            known = _inherited(item, stages, _expanded(item.image, _top_values(listed, facts)), facts)
            name = item.name
        elif isinstance(item, Arg) and not stages and known is None and name is None:
            top.update(item.pairs)
            continue
        elif known is not None:
            yield from _undefined(instruction, item, known)
            if isinstance(item, Arg) or (isinstance(item, Assign) and item.keyword == "ENV"):
                known.update(pair[0] for pair in item.pairs)
        if name is not None:
            stages[name] = known


def _inherited(item: From, stages: dict[str, set[str] | None], image: str | None, facts: Facts) -> set[str] | None:
    """The variables a stage starts with; None when they cannot be known."""
    if item.image == "scratch":
        return set(_BUILTIN)
    if item.image.lower() in stages:
        parent = stages[item.image.lower()]
        return None if parent is None else set(parent)
    config = None if image is None else facts.config_of(image)
    return None if config is None else set(_BUILTIN | config.environ().keys())


def _from_variables(item: From, top: dict[str, str | None]) -> Iterator[Finding]:
    for text in (item.image, item.platform or ""):
        for name in _referenced(text):
            if name not in top and name not in _PLATFORM_ARGS:
                yield Finding("UndefinedArgInFrom", f"FROM uses an ARG that nothing declares: {name}", item.at)
    if any(name in top for name in _referenced(item.image)):
        image = words.expand(item.image, top.get)
        try:
            parse_short(image)
        except InvalidReference:
            message = f"default values of ARGs give an invalid image name: {item.image} is {image!r}"
            yield Finding("InvalidDefaultArgInFrom", message, item.at)


def _undefined(instruction: Instruction, item: Typed, known: set[str]) -> Iterator[Finding]:
    if isinstance(item, Command) or instruction.keyword in ("HEALTHCHECK", "ONBUILD", "ARG"):
        return
    words_ = split_raw(instruction.value)
    plain = " ".join(word if '"' in word else re.sub("'[^']*'", "", word) for word in words_)
    for name in _referenced(plain):
        if name not in known and name not in _PLATFORM_ARGS:
            near = difflib.get_close_matches(name, known - _BUILTIN, 1)
            meant = f" (did you mean ${near[0]}?)" if near else ""
            yield Finding("UndefinedVar", f"variable is never defined: ${name}{meant}", item.at)


def _referenced(text: str) -> list[str]:
    """Variables used without a default."""
    return [
        match[1] or match[3]
        for match in _VARIABLE.finditer(text)
        if (match[1] and match[2] not in (":", "-", "+", "?")) or match[3]
    ]
