"""Prints instead of building: the warnings of the build checks, the plan, or a script."""

from __future__ import annotations

from builda.cli.building.buildinput import execute_options
from builda.cli.core.output import print_line, print_words
from builda.errors import InvalidValue, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.builder.imageoptions import Inputs
    from builda.cli.core.verbsession import Session
    from builda.containerfile import BuildRequest


def print_findings(findings: Any) -> None:
    for finding in findings:
        print_words(f"{finding.at.file}:{finding.at.line}: {finding.check}: {finding.message}")
    if findings:
        raise InvalidValue(f"{len(findings)} warning{'s' * (len(findings) > 1)}", hint="# check=skip=NAME skips one")


def print_script(session: Session, request: BuildRequest, inputs: Inputs, values: dict[str, Any]) -> None:
    from builda import containerfile
    from builda.builder.execution.planscript import ScriptRequest, script

    if request.fetched:
        raise Unsupported("a script needs a context that stays", hint="fetch it, and name the directory")
    taken = {name: values[name] for name in ("secret", "ssh", "tag", "output", "manifest")}
    for name in ("output", "manifest"):
        if taken[name]:
            raise Unsupported(f"--{name} cannot be used with --print-script", hint="do it with the script's image")
    if values["attesting"] is not None:
        raise Unsupported(
            "--sbom, --provenance and --attest cannot be used with --print-script",
            hint="give --sbom and --provenance to the commit in the script",
        )
    options = execute_options(session, request, inputs, values, live=False)
    if not options.commit.inherit_annotations:
        raise Unsupported("--inherit-annotations=false cannot be used with --print-script")
    if options.stage_images is not None:
        raise Unsupported("--save-stages cannot be used with --print-script", hint="commit the script's containers")
    plan = containerfile.compile_plan(session.builder, request, options.pull).plan
    written = ScriptRequest(
        context=str(request.context),
        ignore_file=None if inputs.ignore_file is None else str(inputs.ignore_file),
        named={name: str(path) for name, path in request.named_contexts.items()},
        secrets=taken["secret"],
        agents=taken["ssh"],
        tags=taken["tag"],
    )
    print_line(script(plan, options, written).rstrip("\n"))


def print_plan(plan: Any, plan_format: str) -> None:
    if plan_format == "text":
        from builda.builder.execution.plantext import plan_text

        print_words(plan_text(plan))
        return
    if plan_format != "json":
        raise InvalidValue(f"unknown format of a plan: {plan_format}", hint="it is text or json")
    import json

    from builda.builder.execution.keys import canonical
    from builda.cli.core.output import print_json

    print_json(json.loads(canonical(plan)))
