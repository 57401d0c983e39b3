"""Completion: what can stand at the end of a command line, for the scripts of `shells`.

The line is read by the rules of `line`. Where no answer is known the shell completes file names.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from builda.cli.core.line import Given, by_flag
from builda.cli.core.options import Argument, Option
from builda.cli.core.verb import GLOBAL_OPTIONS, HELP, Verb, session_for
from builda.cli.core.verbsession import Session
from builda.cli.guide.complete import containers, images
from builda.cli.verbs import ALIASES, GROUPS, OWN, VERBS, member_named, verb_named
from builda.values import NamedTuple

_SAFE = re.compile(r"[\w@%+=:,./!-]+")
"""Words that mean themselves to every shell; others, as from a hostile Containerfile, are not offered."""
_AFTER_REDIRECTION = re.compile(r"(\d*|&)(>>?|>\||<)")
_STAGE = re.compile(rb"^\s*FROM\s.*\sAS\s+(\S+)\s*$", re.IGNORECASE | re.MULTILINE)
_LARGEST_FILE = 1 << 20  # bytes of a Containerfile that is looked at

CHOICES: Mapping[str, str] = {
    "--allow": "security.insecure",
    "--cgroupns": "host private",
    "--compression-format": "gzip zstd",
    "--ipc": "host private",
    "--isolation": "native oci rootless chroot traced",
    "--log-level": "trace debug info warn error fatal panic",
    "--dest-compress-format": "gzip zstd",
    "--mode": "auto direct userns subid single chroot traced",
    "--multi-arch": "system all index-only",
    "--network": "host none private",
    "--pid": "host private",
    "--platform": "linux/amd64 linux/arm64 linux/386 linux/arm/v7 linux/ppc64le linux/riscv64 linux/s390x local",
    "--policy": "always missing never newer",
    "--print-plan": "text json",
    "--progress": "auto plain tty",
    "--pull": "always missing never newer",
    "--storage-driver": "overlay fuse-overlayfs plain composed",
    "--userns": "auto host private",
    "--uts": "host private",
}
"""The values of options that have a few, whatever the verb."""
OF_VERB: Mapping[tuple[str, str], str] = {
    ("build", "--format"): "oci docker",
    ("build", "--output"): "type=local type=tar type=oci type=docker type=image type=registry",
    ("commit", "--format"): "oci docker",
    ("containers", "--filter"): "ancestor= id= name=",
    ("from", "--format"): "oci docker",
    ("image-copy", "--format"): "oci v2s2",
    ("image-sbom", "--format"): "spdx-json cyclonedx-json purl table",
    ("image-sync", "--dest"): "docker dir",
    ("image-sync", "--format"): "oci v2s2",
    ("image-sync", "--src"): "docker dir yaml",
    ("images", "--filter"): (
        "after= before= containers= dangling= digest= id= intermediate= label= manifest= readonly= reference= since= "
        "until="
    ),
    ("inspect", "--type"): "container image manifest",
    ("manifest-push", "--format"): "oci v2s2",
    ("prune", "--filter"): "until=",
    ("push", "--format"): "oci docker",
}
"""Those that mean something else with another verb."""
_BOOLEAN = "true false"


class Word(NamedTuple):
    """A possible word, and its description ("" if the word explains itself)."""

    value: str
    help: str = ""


class Answer(NamedTuple):
    """The words; without any, `files` or `dirs` of the shell's own. A word that ends in `=` goes on after it."""

    words: Sequence[Word] = ()
    kind: str = "files"


class _Line(NamedTuple):
    """The words before the one to be completed, taken apart."""

    group: str | None
    """The group of verbs, if the line names one."""
    verb: Verb | None
    options: Mapping[str, Option]
    given: Given
    """The texts of all options, by name."""
    arguments: Sequence[str]
    waiting: Option | None
    """The option whose value comes next."""
    ended: bool
    """Whether an argument or `--` has ended the options."""


def complete(shell: str, args: Sequence[str]) -> int:
    """Answer the script of `shell`, which has put its name into _BUILDA_COMPLETE and the line into `args`."""
    print(reply(shell, args))
    return 0


def reply(shell: str, args: Sequence[str]) -> str:
    """The answer to the completion script of `shell`, which passed `args`."""
    from builda.cli.guide.shells import SHELLS

    typed = ""  # what stands before the part of the word that bash lets a completion replace
    if shell == "bash":
        line, part = args
        *words, incomplete = _split(line)[1:] or [""]
        typed = incomplete.removesuffix(part) if incomplete.endswith(part) else ""
    else:
        *words, incomplete = args
    answer = answered(words, incomplete, describe=SHELLS[shell].describes)
    words_ = [word for word in answer.words if _SAFE.fullmatch(word.value)]
    kind = answer.kind
    if words_:
        kind = "nospace" if all(word.value.endswith("=") for word in words_) else "words"
    lines = [word.value.removeprefix(typed) + (f"\t{word.help}" if SHELLS[shell].describes else "") for word in words_]
    return "\n".join([kind, *lines])


def answered(words: Sequence[str], incomplete: str, *, describe: bool = False) -> Answer:
    """The completions of `incomplete` after `words`."""
    if words and _AFTER_REDIRECTION.fullmatch(words[-1]):
        return Answer()
    line = _read(words)
    if line.waiting is not None:
        return _value_of(line, line.waiting, incomplete)
    if not line.ended and incomplete.startswith("-"):
        return _options(line, incomplete)
    if line.verb is None:
        return Answer() if line.ended else Answer(_starting(_verbs(line.group, describe=describe), incomplete))
    return _argument(line, incomplete)


def _split(line: str) -> list[str]:
    """The words of a line of bash; the last is the one at its end, "" after a blank."""
    from click.shell_completion import split_arg_string

    words = split_arg_string(line)
    return [*words, ""] if not words or (line[-1:].isspace() and not line[:-1].endswith("\\")) else words


def _read(words: Sequence[str]) -> _Line:
    options = by_flag((*GLOBAL_OPTIONS, *OWN))
    given: Given = {}
    group: str | None = None
    verb: Verb | None = None
    arguments: list[str] = []
    ended = False
    queue = deque(words)
    while queue:
        word = queue.popleft()
        if ended or not word.startswith("-") or word == "-":
            if verb is not None:
                arguments.append(word)
                ended = ended or not verb.interspersed
                continue
            if group is None and word in GROUPS:
                group = word
                continue
            if word not in (GROUPS[group].verbs if group is not None else {*VERBS, *ALIASES}):
                return _Line(group, None, {}, given, (), None, True)
            verb = verb_named(word) if group is None else member_named(group, word)
            options = {**options, **by_flag((*verb.rows, HELP))}
        elif word == "--":
            ended = True
        else:
            option, value = _option(word, options)
            if option is None:
                continue
            if value is None and not queue:
                return _Line(group, verb, options, given, arguments, option, ended)
            given[option.name] = (*given.get(option.name, ()), queue.popleft() if value is None else value)
    return _Line(group, verb, options, given, arguments, None, ended)


def _option(word: str, options: Mapping[str, Option]) -> tuple[Option | None, str | None]:
    """The option that takes a value, and that value if `word` has it; (None, None) for a switch or no option."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        option = options.get(name)
        if option is None or (not equals and option.takes_none):
            return None, None
        return option, value if equals else None
    for at, letter in enumerate(word[1:], start=2):
        option = options.get(f"-{letter}")
        if option is None:
            return None, None
        if not option.takes_none:
            return option, word[at:].removeprefix("=") or None
    return None, None


def _options(line: _Line, incomplete: str) -> Answer:
    name, equals, value = incomplete.partition("=")
    if equals:
        option = line.options.get(name)
        if option is None:
            return Answer()
        answer = _value_of(line, option, value)
        return Answer([word._replace(value=f"{name}={word.value}") for word in answer.words], answer.kind)
    own = by_flag((*line.verb.rows, HELP)) if line.verb is not None else {}
    names = dict.fromkeys([*own, *line.options])  # those of the verb first
    found = [Word(name, _sentence(option)) for name in names if not (option := line.options[name]).hidden]
    return Answer(_starting(found, incomplete))


def _sentence(option: Option) -> str:
    return " ".join((option.help or "").split())


def _value_of(line: _Line, option: Option, incomplete: str) -> Answer:
    """Values of an option; of a list those of its last part."""
    if option.kind == "switch":
        return Answer(_starting(map(Word, _BOOLEAN.split()), incomplete))
    named = option.long
    verb = line.verb.name if line.verb is not None else ""
    metavar = option.metavar or ""
    before, comma, last = incomplete.rpartition(",") if metavar.endswith("…") else ("", "", incomplete)
    choices = OF_VERB.get((verb, named)) or CHOICES.get(named)
    if choices is not None:
        found = [Word(before + comma + choice) for choice in choices.split()]
        return Answer(_starting(found, before + comma + last))
    if named == "--target" and verb == "build":
        return Answer(_starting(map(Word, _stages(line)), incomplete))
    for kind, completer in _NAMED.items():
        if kind in metavar.split("|"):
            return Answer([Word(value) for value in _names(line, completer, incomplete)])
    return Answer(kind="dirs" if metavar == "DIR" else "files")


_NAMED: Mapping[str, Callable[[Session, str], list[str]]] = {
    "CONTAINER": containers,
    "IMAGE": images,
}
"""What options take a name of, by their metavars."""


def _names(line: _Line, completer: Callable[[Session, str], list[str]], incomplete: str) -> list[str]:
    with session_for(line.given) as session:
        return completer(session, incomplete)


def _argument(line: _Line, incomplete: str) -> Answer:
    assert line.verb is not None
    rows = [row for row in line.verb.rows if isinstance(row, Argument)]
    at = len(line.arguments)
    if at >= len(rows) and rows and rows[-1].repeats:
        at = len(rows) - 1
    if at >= len(rows):
        return Answer()
    row, taken = rows[at], set(line.arguments)
    if line.verb.name == "help" and line.arguments and line.arguments[0] in GROUPS:
        return Answer(_starting(map(Word, sorted(GROUPS[line.arguments[0]].verbs)), incomplete))
    if row.complete is not None:
        return Answer([Word(name) for name in _names(line, row.complete, incomplete) if name not in taken])
    return Answer(_starting(map(Word, row.choices), incomplete))


def _verbs(within: str | None, *, describe: bool) -> list[Word]:
    """The verbs, or those of a group."""
    aliases = ALIASES if within is None else {}
    names = sorted([*VERBS, *GROUPS, *ALIASES] if within is None else GROUPS[within].verbs)
    if not describe:
        return [Word(name) for name in names]
    from builda.cli.core.commands import GroupOfVerbs, make_group, root_context

    group, context = make_group() if within is None else GroupOfVerbs(within), root_context()
    words = []
    for name in names:
        short = group.get_command(context, name).get_short_help_str(100)
        words.append(Word(name, f"as {aliases[name]}" if name in aliases else short))
    return words


def _starting(words: Iterable[Word], incomplete: str) -> list[Word]:
    return [word for word in words if word.value.startswith(incomplete)]


def _stages(line: _Line) -> list[str]:
    """The names of the stages of the Containerfile that the line builds, as far as no preprocessor makes them."""
    import os

    directory = line.arguments[0] if line.arguments else "."
    names = line.given.get("file") or [os.path.join(directory, name) for name in ("Containerfile", "Dockerfile")]
    for name in names:
        text = _content(name)
        if text is not None:
            return list(dict.fromkeys(stage.decode(errors="replace") for stage in _STAGE.findall(text)))
    return []


def _content(path: str) -> bytes | None:
    """The beginning of a regular file; None where none can be read."""
    import os
    import stat

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return os.read(descriptor, _LARGEST_FILE) if regular else None
    finally:
        os.close(descriptor)
