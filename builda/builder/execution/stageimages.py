"""Images of the stages below the target: what `--save-stages`, `--stage-labels` and `--layer-label` ask for."""

from __future__ import annotations

from builda.oci.edits import SetLabel
from builda.plan import Configure
from builda.values import dataclass, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.imageoptions import CommitOptions
    from builda.oci.config import ImageConfig

NAME_LABEL = "io.buildah.stage.name"
BASE_LABEL = "io.buildah.stage.base"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageImages:
    """The options for keeping intermediate stages as images without names. The target's image is not affected."""

    labelled: bool = False  # every stage with instructions, the target too, says its name and its base in labels
    labels: tuple[tuple[str, str], ...] = ()  # of the kept images only; those of the stage win


def stage_labels(name: str, base: str) -> Configure:
    """A LABEL instruction with the name and base of a stage, to put before its other instructions."""
    return Configure(
        edits=(SetLabel(NAME_LABEL, name), SetLabel(BASE_LABEL, base)),
        created_by=f'LABEL "{NAME_LABEL}"="{name}" "{BASE_LABEL}"="{base}"',
    )


def stage_commit(wanted: StageImages, options: CommitOptions, config: ImageConfig) -> CommitOptions:
    """The commit options of an intermediate stage with `config`, from those of the target."""
    labels = tuple(SetLabel(name, value) for name, value in wanted.labels if name not in config.labels)
    return replace(options, destination=None, changes=(*options.changes, *labels))
