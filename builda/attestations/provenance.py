"""How an image was made: a predicate of SLSA provenance v1 (slsa.dev/spec/v1.0/provenance).

With `min` it names the source, the platform, what was used with its digests, and when; `max` adds build arguments,
labels, names of secrets and all steps. Values of secrets are never in it, nor passwords of URLs.
"""

from __future__ import annotations

from builda.attestations.statement import PROVENANCE, Predicate
from builda.display import without_passwords
from builda.oci.digest import CONTENT
from builda.values import NamedTuple, dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal, TypeAlias

Mode: TypeAlias = 'Literal["min", "max"]'
CONTAINERFILE, SCRIPT = "urn:builda:build-type:containerfile:v1", "urn:builda:build-type:script:v1"
"""What a build was made by, as `buildType`; docs/attestations.md says what their parameters mean."""
BUILDER = "urn:builda:builder"
"""The builder's id where the user names none."""


class Used(NamedTuple):
    """Something that a build took from outside: its URI, of files a name, and its digest by algorithm."""

    uri: str
    algorithm: str
    digest: str


class Step(NamedTuple):
    """A step and the layer that it made; `layer` and `diff_id` are "" where it made none or that is not known."""

    text: str
    stage: str = ""
    layer: str = ""
    diff_id: str = ""
    is_cached: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """The facts about a build that provenance states. Times are seconds since the epoch."""

    type: str
    platform: str
    builder_platform: str
    version: str  # of builda
    started: float
    finished: float
    invocation: str
    builder: str = BUILDER
    source: str = ""  # where the context is, "" for one of this machine
    path: str = ""  # of the Containerfile
    source_digest: Mapping[str, str] = field(default_factory=dict)
    revision: str = ""  # the commit that a context of this machine says it is at; nothing verifies it
    target: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()  # their ids
    agents: tuple[str, ...] = ()  # ids of SSH agents
    used: tuple[Used, ...] = ()
    steps: tuple[Step, ...] = ()
    is_complete: bool = False  # whether `used` is all that was used


def predicate(build: Build, mode: Mode) -> Predicate:
    """The provenance of the build; the mode decides how much of it."""
    metadata = {
        "invocationId": build.invocation,
        "startedOn": _moment(build.started),
        "finishedOn": _moment(build.finished),
        "builda_completeness": {"request": mode == "max", "resolvedDependencies": build.is_complete},
    }
    if build.revision:
        metadata["builda_vcs"] = {"revision": build.revision}
    value = {
        "buildDefinition": {
            "buildType": build.type,
            "externalParameters": _external(build, mode),
            "internalParameters": _internal(build, mode),
            "resolvedDependencies": [
                {
                    "name" if one.algorithm == CONTENT else "uri": without_passwords(one.uri),
                    "digest": {one.algorithm: one.digest},
                }
                for one in sorted(set(build.used))
            ],
        },
        "runDetails": {"builder": {"id": build.builder, "version": {"builda": build.version}}, "metadata": metadata},
    }
    return Predicate(PROVENANCE, value)


def _external(build: Build, mode: Mode) -> dict[str, Any]:
    source: dict[str, Any] = {}
    if build.source:
        source["uri"] = without_passwords(build.source)
    if build.source_digest:
        source["digest"] = dict(build.source_digest)
    if build.path:
        source["path"] = build.path
    request: dict[str, Any] = {"platform": build.platform}
    if build.target:
        request["target"] = build.target
    if mode == "max":
        said = {
            "buildArgs": {name: without_passwords(value) for name, value in sorted(build.arguments.items())},
            "labels": {name: without_passwords(value) for name, value in sorted(build.labels.items())},
            "secrets": [{"id": name} for name in build.secrets],
            "ssh": [{"id": name} for name in build.agents],
        }
        request |= {name: value for name, value in said.items() if value}
    return {"configSource": source, "request": request} if source else {"request": request}


def _internal(build: Build, mode: Mode) -> dict[str, Any]:
    found: dict[str, Any] = {"builderPlatform": build.builder_platform}
    if mode == "max":
        found["buildConfig"] = {"steps": [_step(step) for step in build.steps]}
    return found


def _step(step: Step) -> dict[str, Any]:
    said = {
        "stage": step.stage,
        "text": without_passwords(step.text),
        "layer": step.layer,
        "diffId": step.diff_id,
        "cached": step.is_cached,
    }
    return {name: value for name, value in said.items() if value not in ("", None)}


def _moment(seconds: float) -> str:
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(seconds)))


def image_uri(name: str, platform: str) -> str:
    """The package URL of an image by its full name, of the type that BuildKit writes."""
    from urllib.parse import quote

    body, at, digest = name.partition("@")
    head, slash, last = body.removeprefix("docker.io/library/").removeprefix("docker.io/").rpartition("/")
    short, colon, tag = last.partition(":")
    version = f"@{quote(tag, safe='')}" if colon else ""
    qualifiers = {"digest": digest if at else "", "platform": platform}
    said = "&".join(f"{key}={quote(value, safe=':')}" for key, value in qualifiers.items() if value)
    return f"pkg:docker/{quote(head, safe='/')}{slash}{quote(short)}{version}{'?' if said else ''}{said}"
