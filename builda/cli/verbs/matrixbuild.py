"""`build --matrix`: the build of a command line once for each combination of a matrix, all at once."""

from __future__ import annotations

import sys

from builda.cli.building.bakewords import Planned
from builda.cli.building.clusterrequest import words_of
from builda.cli.core.options import Option
from builda.cli.verbs import bake
from builda.errors import InvalidValue, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from builda.bake.axes import Combination
    from builda.cli.core.options import Row
    from builda.cli.core.verbsession import Session

_OF_ONE = (
    "iidfile iidfile_raw manifest report logfile logsplit check print_plan print_script interactive_on_failure stdin "
    "detach attach lock".split()
)
"""Options that stand for one build."""
_DROPPED = frozenset({"matrix", "tag", "metadata_file", "quiet", "progress", "on", "context_via", "jobs", "context"})


def build_matrix(session: Session, context: str | None, rows: Sequence[Row], values: dict[str, Any]) -> None:
    """Build each combination, and print a line for each: its name, a tab, and the ID of its image."""
    from builda.bake.axes import read_matrix
    from builda.cli.progress.buildview import wants_live

    session.quiet = values["quiet"]
    options = [row for row in rows if isinstance(row, Option) and row.refusal is None]
    for row in options:
        if row.name in _OF_ONE and values[row.name] != row.default:
            raise InvalidValue(f"{row.long} is for one build and cannot be used with --matrix")
    if context == "-" or "-" in values["file"]:
        raise Unsupported("standard input cannot be read by each build of a matrix", hint="write it into a file")
    if values["output"]:
        _check_outputs(values["output"])
    from builda.cli.building.clusteroptions import OF_JOB

    dropped = _DROPPED | {row.name for row in OF_JOB}
    common = [
        word for row in options if row.name not in dropped for word in words_of(row, values.get(row.name, row.default))
    ]
    found = read_matrix(values["matrix"], values["tag"])
    builds = [_planned(one, context or ".", values) for one in found]
    progress = values["progress"] or session.environ.get("BUILDA_PROGRESS") or "auto"
    live = wants_live(progress, sys.stderr, session.environ, quiet=session.quiet, verbose=session.settings.verbose)
    own = {**values, "jobs": None if values["jobs"] == 1 else values["jobs"]}
    results = bake.run_builds(session, builds, common, own, live=live)
    bake.finish(results, {build.name for build in builds}, values["metadata_file"])


def _check_outputs(items: Sequence[str]) -> None:
    from builda.cli.building import outputs

    for output, item in zip(outputs.parse(tuple(items)), items, strict=True):
        if not (output.kind == "registry" and output.name is None):
            raise Unsupported(
                f"--output cannot be used with --matrix, whose builds would all write there: {item}",
                hint="name the image of each with -t 'HOST/app:${NAME}', which pushes with docker:// before it",
            )


def _planned(one: Combination, context: str, values: dict[str, Any]) -> Planned:
    words = [f"--build-arg={name}={value}" for name, value in one.args.items()]
    words += [f"--tag={tag}" for tag in one.tags]
    return Planned(one.name, context, tuple(words), None, values["matrix"])
