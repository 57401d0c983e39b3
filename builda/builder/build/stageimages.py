"""Images of the stages below the target: what `--save-stages`, `--stage-labels` and `--layer-label` ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builda.oci.edits import SetLabel
from builda.plan import Configure
from builda.values import dataclass, replace

if TYPE_CHECKING:
    from builda.builder.options import CommitOptions
    from builda.oci.config import ImageConfig

NAME_LABEL = "io.buildah.stage.name"
BASE_LABEL = "io.buildah.stage.base"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageImages:
    """How the stages that a build needs are kept as images. These have no names; the target's is as ever."""

    labelled: bool = False  # every stage with instructions, the target too, says its name and its base in labels
    labels: tuple[tuple[str, str], ...] = ()  # of the kept images only; those of the stage win


def stage_labels(name: str, base: str) -> Configure:
    """The LABEL instruction, as the first of a stage, that says the stage's name and its base."""
    return Configure(
        edits=(SetLabel(NAME_LABEL, name), SetLabel(BASE_LABEL, base)),
        created_by=f'LABEL "{NAME_LABEL}"="{name}" "{BASE_LABEL}"="{base}"',
    )


def stage_commit(wanted: StageImages, options: CommitOptions, config: ImageConfig) -> CommitOptions:
    """The options of the commit of a stage with `config`, where `options` are those of the target."""
    labels = tuple(SetLabel(name, value) for name, value in wanted.labels if name not in config.labels)
    return replace(options, destination=None, changes=(*options.changes, *labels))
