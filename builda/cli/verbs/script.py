"""`script lint`: faults of bash scripts that call builda; `script trace`: what one of them does, and how long."""

from __future__ import annotations

from collections.abc import Sequence

from builda.cli.core.options import argument, switch, text
from builda.cli.core.output import print_json, print_words
from builda.cli.core.verb import verb
from builda.errors import BuildaError, InvalidValue, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.cli.core.verbsession import Session
    from builda.scriptlint.rules import Complaint, Finding


@verb(
    argument("files", nargs=-1, required=True),
    switch("--json", help="Print the findings as JSON."),
    switch("--shellcheck", default=True, is_on=True, help="Add what shellcheck finds, where it is installed."),
    name="script-lint",
    interspersed=True,
    example="builda script lint build.sh",
)
def lint(session: Session, *, files: tuple[str, ...], json: bool, shellcheck: bool) -> None:
    """Name the faults of bash scripts that call builda; - is standard input. Nothing is run.

    UnquotedVariable: a container or mount point that the shell may split. ContainerIsLeft, MountIsLeft: a script that
    fails leaves them. SecretInArgument: every user can read it in the list of processes. UnknownCommand, UnknownOption,
    RefusedOption: builda would refuse the line. NotUnderstood: it is no bash. The status is 1 if there are any.
    """
    found = [(file, finding) for file in files for finding in _found(session, file, shellcheck)]
    if json:
        print_json([{"file": file, **_fields(finding)} for file, finding in found])
    else:
        for file, finding in found:
            hint = f"; {finding.hint}" if finding.hint else ""
            named = file.replace("\n", "\\n")
            print_words(f"{named}:{finding.at.line}:{finding.at.column}: {finding.name}: {finding.message}{hint}")
    if found:
        raise SystemExit(1)


@verb(
    argument("script", nargs=-1, required=True),
    text("--format", metavar="FORM", help="text (default), json or html."),
    text("--output", "-o", metavar="FILE", help="Write here instead of to standard error."),
    switch("--keep", help="Leave working containers and images that the script did not remove."),
    switch("--no-transaction", help="Change each name, and push, at once, whether the script fails or not."),
    name="script-trace",
    checks_order=False,
    example="builda script trace ./build.sh 1.2",
)
def trace(
    session: Session, *, script: tuple[str, ...], output: str | None, keep: bool, no_transaction: bool, **values: Any
) -> None:
    """Run a script in a session, and tell what each of its builda commands took when it has ended.

    Of each: when it began, its seconds and exit status, whether its result was remembered, bytes of blobs that it
    wrote here and moved from or to other places, and its words, without secrets. A page (html) has what commands
    printed, too; their output goes through pipes then. The exit status is the script's.
    """
    from builda.cli.verbs import tracing
    from builda.cli.verbs.session import run_session

    form = values["format"] or (tracing.form_of(output) if output else "text")
    if form not in tracing.FORMS:
        raise InvalidValue(f"unknown format of a trace: {form}", hint="it is text, json or html")
    files = {output or tracing.STDERR: form}
    run_session(session, script, keep=keep, no_transaction=no_transaction, files=files)


def _found(session: Session, file: str, shellcheck: bool) -> list[Finding]:
    from builda.inputfile import read_input
    from builda.scriptlint import shellcheck as program
    from builda.scriptlint.calls import read_script
    from builda.scriptlint.rules import find

    source = read_input("/dev/stdin" if file == "-" else file, "script")
    found = find(read_script(source, _with_value()), _complaint)
    theirs = program.findings(source, dict(session.environ)) if shellcheck else None
    return found if theirs is None else program.merged(found, theirs)


def _with_value() -> frozenset[str]:
    """The options that stand before the verb and have their value in the next word."""
    from builda.cli.core.line import by_flag
    from builda.cli.core.verb import GLOBAL_OPTIONS

    return frozenset(flag for flag, option in by_flag(GLOBAL_OPTIONS).items() if not option.takes_none)


def _complaint(words: Sequence[str]) -> Complaint | None:
    """The error that builda would report for these words, as far as it needs no run; None if there is none."""
    from builda.cli.core.invoke import choose
    from builda.scriptlint.rules import Complaint

    try:
        choose(words, {})
    except Unsupported as error:
        return Complaint("RefusedOption", str(error), error.hint)
    except InvalidValue as error:
        if str(error).startswith("unknown command"):
            return Complaint("UnknownCommand", str(error), error.hint)
        return Complaint("UnknownOption", str(error), error.hint)
    except BuildaError as error:
        return Complaint("UnknownOption", str(error), error.hint)
    return None


def _fields(finding: Finding) -> dict[str, object]:
    line, column = finding.at
    return {"line": line, "column": column, "name": finding.name, "message": finding.message, "hint": finding.hint}
