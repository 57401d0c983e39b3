"""Collects facts for provenance from the events of a build, and attaches attestations to its images."""

from __future__ import annotations

import os

from builda.attestations.provenance import BUILDER, CONTAINERFILE, Build, Step, Used, image_uri
from builda.builder.image.attest import attested, invocation
from builda.builder.image.pull import machine_platform
from builda.errors import Unsupported
from builda.events import LayerStored, SourceUsed, StepFinished, StepStarted
from builda.oci.digest import CONTENT, Digest
from builda.plan import PROXIES
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from builda.builder.execution.buildoptions import Built, ExecuteOptions
    from builda.builder.imageoptions import Attest
    from builda.cli.building.contexts import BuildContext
    from builda.cli.core.verbsession import Session
    from builda.containerfile import BuildRequest
    from builda.events import Event

_LEVELS = 40
"""Directories above a context in which its repository is looked for."""


class BuildLog:
    """The steps that a build took, and what it used from outside."""

    def __init__(self) -> None:
        self._steps: dict[tuple[str | None, int], Step] = {}
        self._used: dict[Used, None] = {}

    def show(self, event: Event) -> None:
        """Note what an event says."""
        match event:
            case StepStarted():
                self._steps[event.stage, event.index] = Step(event.text, event.stage or "")
            case StepFinished():
                digest = "" if event.digest is None else str(event.digest)
                self._change(event.stage, event.index, layer=digest, is_cached=event.cached)
            case LayerStored() if event.digest is not None:
                self._change(event.stage, event.index, layer=str(event.digest), diff_id=str(event.diff_id or ""))
            case SourceUsed():
                uri = image_uri(event.name, event.platform or "") if event.kind == "image" else event.name
                self._used[Used(uri, event.algorithm, event.digest)] = None
            case _:
                pass

    def take(self) -> tuple[tuple[Step, ...], tuple[Used, ...]]:
        """The steps and inputs that were noted since the last call."""
        found = tuple(self._steps.values()), tuple(self._used)
        self._steps.clear()
        self._used.clear()
        return found

    def _change(self, stage: str | None, index: int, **said: Any) -> None:
        if (stage, index) in self._steps:
            self._steps[stage, index] = self._steps[stage, index]._replace(**said)


class Attesting:
    """The attestations to make for the images of one `build`, and the facts for them."""

    def __init__(self, session: Session, attest: Attest) -> None:
        self._session = session
        self._attest = attest
        self._log = BuildLog()
        self._began = session.builder.context.now()
        self._source: dict[str, Any] = {}
        self._fetched: tuple[Used, ...] = ()
        self._name = "image"
        if attest.provenance is not None:
            session.record(self._log)

    def opened(self, where: str | None, context: BuildContext) -> None:
        """Note where the context is; what was fetched until now is the context."""
        self._fetched = self._log.take()[1]
        path, data = context.files[0]
        self._source["path"] = _beside(path, str(context.directory))
        if context.fetched:
            self._source["source"] = where or ""
            self._source["source_digest"] = {one.algorithm: one.digest for one in self._fetched}
        else:
            self._source["source_digest"] = {"sha256": Digest.of(data).encoded}
            self._source["revision"] = revision_of(str(context.directory))

    def _is_fetched(self, used: Used) -> bool:
        """Whether these are files of a context whose commit or archive is named as a whole."""
        return bool(self._fetched) and used.algorithm == CONTENT and used.uri.startswith("context:")

    def check(self, values: Mapping[str, Any]) -> None:
        """Refuse, before anything is built, places that hold no index."""
        from builda.cli.building import outputs
        from builda.transfer.locate import parse_location

        self._name = (values["tag"] or ("image",))[0]
        if not self._attest.is_attached:
            return
        locations = (parse_location(tag) for tag in values["tag"])
        single = [one.transport for one in locations if one and one.row is not None and not one.row.has_indexes]
        single += ["docker-archive" for one in outputs.parse(values["output"]) if one.kind == "docker"]
        if single:
            raise Unsupported(
                f"{single[0]} holds single images, and attestations are kept in a list",
                hint="leave out --sbom, --provenance and --attest, or write oci-archive",
            )

    def has_files(self) -> bool:
        """Whether the build writes SBOM files on this machine, which there can be only one set of."""
        return bool(self._attest.output or self._attest.purl_output)

    def begin(self) -> None:
        """The build for the next platform begins: what was noted until now is not about it."""
        self._log.take()

    def done(self, built: Built, request: BuildRequest, options: ExecuteOptions) -> Built:
        """The result with the image as it is with all that is asked for, which the store has without a name."""
        ctx, commit = self._session.builder.context, options.commit
        steps, used = self._log.take()

        def build() -> Build:
            return Build(
                type=CONTAINERFILE,
                platform=str(built.image.config.platform),
                builder_platform=str(machine_platform()),
                version=ctx.version,
                started=self._began if commit.epoch is None else commit.epoch,
                finished=ctx.now() if commit.epoch is None else commit.epoch,
                invocation=invocation(built.image.digest, commit),
                builder=self._attest.builder or BUILDER,
                target=request.target or "",
                arguments={key: value for key, value in request.build_args.items() if key not in PROXIES},
                labels=dict(request.labels),
                secrets=tuple(sorted(options.inputs.secrets)),
                agents=tuple(sorted(options.inputs.ssh)),
                used=(*self._fetched, *(one for one in used if not self._is_fetched(one))),
                steps=steps,
                **self._source,
            )

        made = attested(ctx, built.image, self._attest, build, commit, self._name)
        if made.digest == built.image.digest:
            return built
        return replace(built, image=self._session.store.put_image(made))


def revision_of(directory: str) -> str:
    """The commit that the repository around a directory is at, by its files; "" if there is none or it cannot be read.

    No git is run: what a repository configures is not to be trusted.
    """
    place = os.path.realpath(directory)
    for _ in range(_LEVELS):
        head = _line(os.path.join(place, ".git", "HEAD"))
        if head:
            return _commit(os.path.join(place, ".git"), head)
        place, name = os.path.split(place)
        if not name:
            break
    return ""


def _commit(git: str, head: str) -> str:
    if not head.startswith("ref: "):
        return head if _is_commit(head) else ""
    name = head.removeprefix("ref: ")
    if not name.startswith("refs/") or ".." in name:
        return ""
    found = _line(os.path.join(git, name))
    if not found:
        try:
            with open(os.path.join(git, "packed-refs"), encoding="utf-8", errors="replace") as file:
                found = next((line.split()[0] for line in file if line.rstrip("\n").endswith(f" {name}")), "")
        except OSError:
            return ""
    return found if _is_commit(found) else ""


def _line(path: str) -> str:
    """The first line of a regular file; "" without one."""
    if not os.path.isfile(path):
        return ""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline(1000).strip()
    except OSError:
        return ""


def _is_commit(text: str) -> bool:
    return len(text) in (40, 64) and not text.strip("0123456789abcdef")


def _beside(path: str, directory: str) -> str:
    """The path of a Containerfile inside its context; else its name."""
    inside = os.path.relpath(os.path.abspath(path), os.path.abspath(directory))
    return os.path.basename(path) if inside.startswith("..") else inside
