"""`version`, `info` and `completion`: what builda is and where it works."""

from __future__ import annotations

from builda.cli.core.options import argument, switch, text
from builda.cli.core.output import print_json, print_line, print_template
from builda.cli.core.verb import verb
from builda.cli.core.versions import IMAGE_SPEC, RUNTIME_SPEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from builda.cli.core.verbsession import Session


@verb(
    switch("--json", help="Print JSON."),
    interspersed=True,
    example="builda version --json",
)
def version(session: Session, *, json: bool) -> None:
    """Print the versions of builda and of what it follows."""
    facts = _versions()
    if json:
        print_json(facts)
        return
    titles = {"version": "Version", "goVersion": "Go Version", "imageSpec": "Image Spec", "runtimeSpec": "Runtime Spec"}
    titles |= {"imageVersion": "image Version", "gitCommit": "Git Commit", "built": "Built", "osArch": "OS/Arch"}
    for key, value in facts.items():
        print_line(f"{titles.get(key, 'BuildPlatform') + ':':<16} {value}".rstrip())


def _versions() -> Mapping[str, str]:
    import os
    import platform

    from builda import __version__
    from builda.oci.descriptor import Platform

    here = Platform.of_machine(os.uname().machine)
    return {
        "version": __version__,
        "goVersion": f"none (Python {platform.python_version()})",
        "imageSpec": IMAGE_SPEC,
        "runtimeSpec": RUNTIME_SPEC,
        "imageVersion": "",
        "gitCommit": "",
        "built": "",
        "osArch": f"{here.os}/{here.architecture}",
        "buildPlatform": str(here),
    }


@verb(
    switch("--debug", "-d", help="Add a block about builda itself."),
    text("--format", "template", metavar="TEMPLATE", help="Print through a Go template, as in '{{.store.GraphRoot}}'."),
    interspersed=True,
    example="builda info --format '{{.store.GraphRoot}}'",
)
def info(session: Session, *, debug: bool, template: str | None) -> None:
    """Print facts about this machine and the store."""
    from builda.cli.verbs.info import facts

    found: Mapping[str, Any] = facts(session, debug=debug)
    if template is None:
        print_json(found)
    else:
        print_template(template, found, example="{{.store.GraphRoot}}")


@verb(
    argument("shell", required=False, choices=("bash", "zsh", "fish")),
    interspersed=True,
    example='eval "$(builda completion bash)"     # in ~/.bashrc; zsh and fish work alike',
)
def completion(session: Session, *, shell: str | None) -> None:
    """Print the script that makes a shell complete.

    It completes verbs, options and their values, containers, images, and file names elsewhere.
    Without SHELL it is for the shell that SHELL names in the environment.
    """
    from builda.cli.guide.shells import SHELLS
    from builda.errors import InvalidValue

    name = shell or session.environ.get("SHELL", "").rpartition("/")[2]
    if name not in SHELLS:
        raise InvalidValue(f"no completion for this shell: {name or 'unknown'}", hint="say bash, zsh or fish")
    print_line(SHELLS[name].script.rstrip())
