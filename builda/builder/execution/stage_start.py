"""A stage before its first step: its base image, pulled, or the stage that it begins with."""

from __future__ import annotations

from builda.builder.execution.keys import base_key
from builda.builder.execution.tip import Tip
from builda.builder.from_image import base_annotations, image_name
from builda.builder.image.pull import machine_platform, pull
from builda.oci.config import empty_config
from builda.oci.docker import without_bookkeeping
from builda.oci.edits import Edited
from builda.plan import FromImage, FromStage
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from builda.builder.context import Context
    from builda.builder.execution.buildoptions import ExecuteOptions
    from builda.oci.digest import Digest
    from builda.plan import Plan, Stage
    from builda.store.drivers import Driver
    from builda.store.store import Image


def first_tip(ctx: Context, stage: Stage, options: ExecuteOptions, tips: Mapping[int, Tip], driver: Driver) -> Tip:
    """The tip of a stage before its first step; `tips` has the finished stages, `driver` makes the snapshots."""
    if isinstance(stage.base, FromStage):
        below = tips[stage.base.index]
        return replace(below, edited=Edited(below.config))
    said = ctx.run_options(options.run)
    image: Image | None = None
    asked = name = ""
    if isinstance(stage.base, FromImage):
        asked = stage.base.name
        image = pull(ctx, asked, replace(options.pull, platform=stage.platform or options.pull.platform))
        name = image_name(asked, image)
    start = empty_config(stage.platform or machine_platform())
    config = start if image is None else without_bookkeeping(image.config)
    base = "scratch" if image is None else str(image.digest)
    key = base_key(base, config.platform, options, said, driver)
    return Tip(image=image, key=key, edited=Edited(config), name=name, annotations=base_annotations(asked, image))


def base_text(plan: Plan, stage: Stage, tips: Mapping[int, Tip], images: Mapping[int, Digest]) -> str:
    """The base of a stage as its label names it: an image's name, or the ID of the image that a stage became."""
    base = stage.base
    if isinstance(base, FromImage):
        return base.name
    while isinstance(base, FromStage):
        if base.index in images:
            return images[base.index].encoded
        image, base = tips[base.index].image, plan.stages[base.index].base
        if image is not None and not isinstance(base, FromStage):
            return image.id.encoded
    return "scratch"
