"""The image of a finished stage: the one of an earlier build if nothing differs, else a new one."""

from __future__ import annotations

from builda.builder.execution.keys import config_key, image_key
from builda.builder.imageoptions import CommitOptions
from builda.plan import FromImage
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from builda.builder.context import Context
    from builda.builder.execution.buildoptions import ExecuteOptions
    from builda.builder.execution.perform import Performer
    from builda.builder.execution.tip import Tip
    from builda.oci.digest import Digest
    from builda.plan import Plan
    from builda.store.store import Image


class StageCommits:
    """Makes images of the stages of one build."""

    def __init__(
        self,
        ctx: Context,
        plan: Plan,
        options: ExecuteOptions,
        tips: Mapping[int, Tip],
        performer: Callable[[], Performer],
        is_changed: Callable[[int], bool],
    ) -> None:
        """`is_changed` says of a stage whether something was performed in it."""
        self._ctx = ctx
        self._plan = plan
        self._options = options
        self._tips = tips
        self._performer = performer
        self._is_changed = is_changed

    def target(self) -> tuple[Image, bool]:
        """The target's image, and whether it is that of an earlier build, or the base itself."""
        index = self._plan.target
        tip = self._tips[index]
        if tip.image is not None and self._is_base():
            return tip.image, True
        return self.image_of(index, self._options.commit)

    def image_of(self, index: int, options: CommitOptions) -> tuple[Image, bool]:
        """The image of a stage, and whether it is that of an earlier build."""
        tip, store = self._tips[index], self._ctx.store
        key = self._key(tip, options)
        if self._options.cache and not self._is_changed(index):
            digest = store.steps.find_image(key)
            known = None if digest is None else store.find_image(str(digest))
            if known is not None:
                return known, True
        from builda.builder.image.commit import commit

        self._performer().update(index)
        image = commit(self._ctx, self._performer().container(index), replace(options, destination=None))
        store.steps.put_image(key, image.digest)
        return image, False

    def _is_base(self) -> bool:
        """Whether the result is the base image itself, as in Buildah: no step, and no option changes the image."""
        stage = self._plan.stages[self._plan.target]
        options = self._options.commit
        plain = CommitOptions(
            format=options.format,
            compression=options.compression,
            compression_level=options.compression_level,
            access=options.access,
        )
        return isinstance(stage.base, FromImage) and not stage.steps and options == plain

    def _key(self, tip: Tip, options: CommitOptions) -> Digest:
        """The key of the image: of the last step, the options of the commit, and what only the history contains."""
        history = (*(layer.history for layer in tip.layers), *tip.history)
        said = {
            "format": self._options.format,
            "layers": self._options.layers,
            "base": tip.name,
            "config": config_key(tip.config),
            "history": [entry.created_by for entry in history],
            "version": self._ctx.version,
        }
        return image_key(tip.key, options, said)
