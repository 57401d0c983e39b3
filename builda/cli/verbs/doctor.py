"""`doctor`: what builda can do here, why it cannot do more, and the change that would help."""

from __future__ import annotations

from builda.cli.core.options import switch
from builda.cli.core.output import print_json, print_line
from builda.cli.core.verb import verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.cli.core.verbsession import Session
    from builda.host.doctor import Facts, Finding

_MARKS = {"good": "+", "note": " ", "lack": "-", "wrong": "!"}


@verb(
    switch("--json", "as_json", help="Print the findings as JSON."),
    switch("--pod", help="Print the manifest of a Pod to build in, for the mode of --mode or the best one."),
    example="builda doctor",
)
def doctor(session: Session, *, as_json: bool, pod: bool) -> None:
    """Say what builda can do here, and what keeps it from doing more.

    Each finding is a line: + is good, - could be better, ! does not work, and a line without a sign is a fact, such as
    the mode. Its cause follows, and what to change: lines for a Pod manifest, a package, a setting of the node. Nothing
    is changed. The exit status is 0 where commands can be run, and 1 where they cannot.
    """
    if pod:
        from builda.host.podmanifest import manifest

        print_line(manifest(session.settings.mode).rstrip("\n"))
        return
    from builda.errors import BuildaError
    from builda.host.doctor import examine, findings

    facts = examine(session.settings.mode, session.settings.root, session.settings.runroot)
    found = findings(facts)
    if as_json:
        print_json(_as_json(facts, found))
    else:
        for finding in found:
            _print(finding)
    if not facts.runs:
        error = BuildaError(f"no command can be run here, only builds without RUN work: mode {facts.mode}")
        error.exit_status = 1
        raise error
    if facts.libseccomp is not None:
        facts.libseccomp.exit_status = 1
        raise facts.libseccomp


def _print(finding: Finding) -> None:
    print_line(f"{_MARKS[finding.kind]} {finding.text}")
    if finding.cause:
        print_line(f"    because {finding.cause}")
    if finding.change:
        print_line(f"    to change it{f', for mode {finding.gives}' if finding.gives else ''}:")
    for line in finding.change:
        print_line(f"        {line}")


def _as_json(facts: Facts, found: tuple[Finding, ...]) -> dict[str, Any]:
    return {
        "mode": facts.mode,
        "findings": [
            {
                "kind": finding.kind,
                "text": finding.text,
                "cause": finding.cause,
                "change": list(finding.change),
                "gives": finding.gives,
            }
            for finding in found
        ],
    }
