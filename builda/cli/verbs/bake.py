"""`bake`: all targets of a bake file or compose file at once, in the words of docker buildx."""

from __future__ import annotations

import os
import sys

from builda.cli.building import clusteroptions
from builda.cli.core import shared_options
from builda.cli.core.options import argument, many, number, refused, switch, text
from builda.cli.core.output import check_files, print_table, write_file
from builda.cli.core.verb import verb
from builda.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from builda.bake.declared import Declared
    from builda.bake.resolving import Chosen
    from builda.cli.building.bakerun import Result
    from builda.cli.building.bakewords import Planned
    from builda.cli.core.verbsession import Session

_COMMON = ("authfile", "creds", "cert_dir", "tls_verify", "retry", "retry_delay")
"""Options that go to every build as they are."""


@verb(
    argument("targets", nargs=-1),
    many("--file", "-f", metavar="FILE", help="Read this file; the last of several counts most."),
    many("--set", "set_", metavar="TARGET.KEY=VALUE", help="Set an attribute of targets, or with += add to a list."),
    many("--var", metavar="NAME=VALUE", help="Set a variable of the file; variables of the environment do, too."),
    switch("--print", "print_", help="Print the targets as JSON with everything in it, and build nothing."),
    text("--list", "list_", metavar="KIND", bare="targets", help="List targets or variables, and build nothing."),
    switch("--push", help="Push the image of each target to the registries that its tags name."),
    switch("--load", help="Keep the images in the store (always done here; accepted for scripts)."),
    switch("--no-cache", help="Do every step again; one that several targets have is done once."),
    switch("--pull", help="Ask the registries for newer base images."),
    many("--allow", metavar="PERMISSION", help="Let targets have network.host, ssh, fs.read=PATH, … (see build)."),
    text("--provenance", metavar="MODE", bare="min", help="Attach provenance to every image: min, max or false."),
    text("--sbom", metavar="true|false", bare="true", help="Attach an SBOM to every image."),
    number("--jobs", help="Build so many targets at once.  [default: one for each processor; in a cluster all]"),
    text("--metadata-file", metavar="FILE", help="Write the IDs and digests of all images as JSON into this file."),
    switch("--quiet", "-q", help="Print names and image IDs only."),
    text(
        "--progress",
        metavar="HOW",
        help="auto (default): a live view where stderr is a terminal; plain: lines; tty.  [env: BUILDA_PROGRESS]",
    ),
    refused("--builder", reason="there is no daemon to choose: builda builds where it is called"),
    refused("--call", reason="--print shows the targets; builda build --check has the checks of a Containerfile"),
    refused("--check", reason="builda build --check has the checks of a Containerfile", takes_value=False),
    refused("--policy", reason="builda has no policies in Rego"),
    shared_options.REGISTRY,
    shared_options.RETRY,
    clusteroptions.ON,
    clusteroptions.OF_JOB,
    clusteroptions.VIA,
    name="bake",
    interspersed=True,
    example="builda bake -f docker-bake.json --push app",
)
def bake(session: Session, *, targets: tuple[str, ...], quiet: bool, **values: Any) -> None:
    """Build the targets of a bake file or the services of a compose file at once.

    Without -f the files compose.yaml, docker-compose.yml, docker-bake.json and docker-bake.override.json of the current
    directory are read. TARGET is a target, a group or a pattern; without one it is the group or target `default`.
    Stages that several targets have are built once.

    Standard output has Buildah's lines, each with its target in front, and in the end a line for each target: its name,
    a tab, and the ID of its image. If a target fails, those that are not done are ended.
    """
    from builda.bake.reading import declared_in
    from builda.bake.resolving import choose

    progress = values.pop("progress") or session.environ.get("BUILDA_PROGRESS") or "auto"
    session.quiet = quiet or progress == "quiet"
    check_files(values["metadata_file"])
    variables = _variables(values.pop("var"))
    declared = declared_in(values.pop("file"), session.environ, variables)
    _warn(session, declared)
    if (listed_ := values.pop("list_")) is not None:
        _list(declared, listed_)
        return
    settings = (*_shorthands(values), *values.pop("set_"))
    chosen = choose(declared, targets, settings, session.environ)
    if values.pop("print_"):
        _print(chosen)
        return
    _build(session, chosen, values, "plain" if progress == "quiet" else progress)


def _variables(items: Sequence[str]) -> dict[str, str]:
    found = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not name or not equals:
            raise InvalidValue(f"--var is written NAME=VALUE: {item}")
        found[name] = value
    return found


def _warn(session: Session, declared: Declared) -> None:
    from builda.events import Warned

    for message in declared.warnings:
        session.emit(Warned(message=message))


def _shorthands(values: dict[str, Any]) -> list[str]:
    """Options that stand for a --set of all targets."""
    found = []
    if values.pop("no_cache"):
        found.append("*.no-cache=true")
    if values.pop("pull"):
        found.append("*.pull=true")
    provenance, sbom = values.pop("provenance"), values.pop("sbom")
    if provenance not in (None, "false"):
        mode = provenance if "=" in provenance else f"mode={'min' if provenance == 'true' else provenance}"
        found.append(f"*.attest+=type=provenance,{mode}")
    if sbom not in (None, "false"):
        found.append("*.attest+=type=sbom")
    return found


def _list(declared: Declared, what: str) -> None:
    kind = what.rpartition("=")[2].partition(",")[0] if what.startswith("type=") else what
    if kind == "targets":
        rows = [f"{name}\t{one.said.get('description', '')}" for name, one in sorted(declared.targets.items())]
        rows += [
            f"{name}\t{', '.join(group.targets)}"
            for name, group in sorted(declared.groups.items())
            if name not in declared.targets
        ]
        print_table([line.rstrip() for line in ("TARGET\tDESCRIPTION", *rows)])
    elif kind == "variables":
        lines = [
            f"{name}\t{'' if one.value is None else one.value}\t{one.description or ''}"
            for name, one in sorted(declared.variables.items())
        ]
        print_table(["VARIABLE\tVALUE\tDESCRIPTION", *lines])
    else:
        raise InvalidValue(f"unknown kind of --list: {what}", hint="it is targets or variables")


def _print(chosen: Chosen) -> None:
    from builda.cli.core.output import print_json

    print_json(
        {
            "group": {name: {"targets": list(members)} for name, members in sorted(chosen.groups.items())},
            "target": {
                target.name: {"context": ".", **dict(sorted(target.said.items()))}
                for target in sorted(chosen.targets, key=lambda target: target.name)
            },
        }
    )


def _build(session: Session, chosen: Chosen, values: dict[str, Any], progress: str) -> None:
    from builda.cli.building import bakewords
    from builda.cli.progress.buildview import wants_live

    values.pop("load")
    push = values.pop("push")
    allow = bakewords.check_allowed(chosen.targets, values.pop("allow"), os.path.realpath("."), session.environ)
    builds = [bakewords.planned(target, push=push, is_linked=target.name in chosen.linked) for target in chosen.targets]
    live = wants_live(progress, sys.stderr, session.environ, quiet=session.quiet, verbose=session.settings.verbose)
    common = [*common_words({name: values[name] for name in _COMMON}), *(f"--allow={name}" for name in allow)]
    results = run_builds(session, builds, common, values, live=live)
    names = {target.name for target in chosen.targets} - chosen.linked
    finish(results, names, values["metadata_file"])


def common_words(values: Mapping[str, Any]) -> list[str]:
    """The options of `build` with these values as words."""
    from builda.cli.building.clusterrequest import words_of

    rows = [row for row in (*shared_options.REGISTRY, *shared_options.RETRY) if row.name in values]
    return [word for row in rows for word in words_of(row, values[row.name])]  # type: ignore[arg-type]  # all options


def run_builds(
    session: Session, builds: Sequence[Planned], common: Sequence[str], values: dict[str, Any], *, live: bool
) -> Mapping[str, Result]:
    """Build all where --on says, and give what they made. Nothing is built if one of them cannot be asked for."""
    import time

    from builda.cli.building import bakewords

    for build in builds:
        bakewords.check_words(build)
    jobs = values["jobs"]
    if jobs is not None and jobs < 0:
        raise InvalidValue(f"--jobs is 0 or more: {jobs}")
    on = clusteroptions.cluster_of(session.environ, values)
    if on is not None:
        from builda.cli.jobs.bakecluster import build_in_cluster

        return build_in_cluster(session, builds, common, values, on, live=live)
    clusteroptions.check_unused(values)
    from builda.cli.building.bakerun import build_all

    count = len(os.sched_getaffinity(0)) if jobs is None else jobs or len(builds)
    found = build_all(session, builds, max(1, count), common, time.time(), live=live)
    return {build.name: found[build.name] for build in builds}


def finish(results: Mapping[str, Result], names: set[str], metadata_file: str | None) -> None:
    """Print and write what was built."""
    from builda.cli.core.output import print_line

    if metadata_file is not None:
        import json

        found = {
            name: {
                "containerimage.config.digest": str(result.image.id),
                "containerimage.digest": str(result.image.digest),
                "image.name": ",".join(result.image.names),
            }
            for name, result in results.items()
            if name in names
        }
        write_file(metadata_file, json.dumps(found, indent=2) + "\n")
    for name, result in results.items():
        if name in names:
            print_line(f"{name}\t{result.image.id.encoded}")
