"""The findings of shellcheck in a script, if it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess

from builda.errors import BuildaError
from builda.scriptlint.calls import Place
from builda.scriptlint.rules import Finding

_PATIENCE = 60
"""Seconds for one script."""
_SAME = {"SC2086": "UnquotedVariable"}
"""Findings of ShellCheck that a rule of scriptlint replaces at the same place."""


def findings(source: bytes, environ: dict[str, str]) -> list[Finding] | None:
    """Its findings; None if it is not installed. BuildaError if it fails."""
    program = shutil.which("shellcheck", path=environ.get("PATH"))
    if program is None:
        return None
    command = [program, "--format=json1", "--shell=bash", "-"]
    try:
        done = subprocess.run(command, input=source, capture_output=True, timeout=_PATIENCE, env=environ)
    except subprocess.TimeoutExpired as error:
        raise BuildaError(f"shellcheck did not end within {_PATIENCE} seconds") from error
    try:
        comments = json.loads(done.stdout)["comments"]
        return [
            Finding(f"SC{one['code']}", Place(one["line"], one["column"]), " ".join(one["message"].split()))
            for one in comments
        ]
    except (ValueError, KeyError, TypeError) as error:
        said = done.stderr.decode("utf-8", "replace").strip() or f"status {done.returncode}"
        raise BuildaError(f"shellcheck fails: {said}") from error


def merged(ours: list[Finding], theirs: list[Finding]) -> list[Finding]:
    """Both, in the order of the script; what both say is said once, in our words."""
    said = {(finding.name, finding.at.line) for finding in ours}
    others = [one for one in theirs if (_SAME.get(one.name), one.at.line) not in said]
    return sorted([*ours, *others], key=lambda finding: (finding.at, finding.name))
