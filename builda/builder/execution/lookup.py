"""Which steps need not be performed: those that this store or a registry remembers under their key.

`usable` decides and is pure; `Lookup` asks the store and the registries. A stage stops looking at its first miss, so
what is found is always the beginning of the stage.
"""

from __future__ import annotations

from builda.builder.execution.keys import explained
from builda.store.steps import Blob, Empty, Remote, StepResult, Told, Tree, snapshot_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from builda.builder.context import Context
    from builda.builder.execution.cachefrom import ImportedSteps
    from builda.builder.execution.tip import Tip
    from builda.oci.digest import Digest
    from builda.store.drivers import Driver
    from builda.store.steps import Content


def usable(
    result: StepResult | None, *, oldest: float, on_snapshot: bool, own_kind: bool, blobs: bool
) -> Content | None:
    """The content of a remembered result that a build can use; None if the step has to be performed.

    Results from before `oldest` (seconds since the epoch) count as forgotten. `on_snapshot`: the layer below is a
    snapshot of this store. `own_kind`: the snapshot of the result is of the kind that this build makes (trees, or
    lists). Where either is false, the bytes of the layer are used, and unpacked when a later step needs files; not with
    `blobs=False`, because then a promised layer could not be had.
    """
    if result is None or result.created < oldest:
        return None
    fits = on_snapshot and own_kind
    match result.content:
        case Empty():
            return result.content if fits else Empty()
        case Tree() if fits:
            return result.content
        case Tree(_, diff_id, blob):
            return Blob(diff_id, blob) if blobs and diff_id is not None and blob is not None else None
        case Blob() | Remote():
            return result.content if blobs else None


class Lookup:
    """The remembered steps that a build may use. Threads may share it."""

    def __init__(
        self,
        ctx: Context,
        imported: ImportedSteps | None,
        driver: Driver,
        ttl: float | None,
        *,
        blobs: bool,
        since: float = 0.0,
    ) -> None:
        """`driver` makes the snapshots of the build; `ttl` is in seconds, None for no limit; `since` is a time.

        Without `blobs` only snapshots of this store are found, and no registry is asked.
        """
        self._ctx = ctx
        self._imported = imported if blobs else None
        self._blobs = blobs
        self._driver = driver
        self._ttl = ttl
        self._since = since

    def find(self, key: Digest, tip: Tip, explanation: bytes) -> StepResult | None:
        """The remembered result of the step with this key on `tip`, from this store or else from a registry."""
        oldest = self._since if self._ttl is None else max(self._since, self._ctx.now() - self._ttl)
        result = self._ctx.store.steps.find(key)
        if result is not None and not self._stands_on(result.content, tip):
            result = None
        content = usable(
            result,
            oldest=oldest,
            on_snapshot=not isinstance(tip.above, Blob | Remote),
            own_kind=result is not None and self._is_own(result.content),
            blobs=self._blobs,
        )
        if result is not None and content is not None:
            return result._replace(content=content)
        return self._elsewhere(key, tip, oldest, explanation)

    def _is_own(self, content: Content) -> bool:
        snapshot = snapshot_of(content)
        return snapshot is None or self._ctx.store.snapshots.kind_of(snapshot).driver is self._driver

    def _stands_on(self, content: Content, tip: Tip) -> bool:
        """Whether a result was made on the snapshot of the tip.

        It was not if the step below was performed again since then: the result is a difference from the old snapshot.
        """
        if not tip.layers or tip.top is None or (snapshot := snapshot_of(content)) is None:
            return True
        if isinstance(content, Empty):
            return snapshot == tip.top
        return self._ctx.store.snapshots.kind_of(snapshot).info(snapshot).parent in (None, tip.top)

    def _elsewhere(self, key: Digest, tip: Tip, oldest: float, explanation: bytes) -> StepResult | None:
        step = None if self._imported is None else self._imported.find(key, tip.diff_ids, oldest)
        if step is None:
            return None
        content: Content
        if step.layer is None or step.diff_id is None:
            content = Empty(None if tip.above is None else snapshot_of(tip.above))
        else:
            content = Remote(step.diff_id, step.layer)
        return StepResult(content, readable(explanation), step.created)

    def remember(
        self,
        key: Digest,
        parent: Digest,
        step: object,
        inputs: Mapping[str, object],
        content: Content,
        told: Told,
    ) -> StepResult:
        """Remember what a step led to; what was remembered."""
        result = StepResult(content, readable(explained(parent, step, inputs)), self._ctx.now(), told)
        self._ctx.store.steps.put(key, result)
        return result


def readable(explanation: bytes) -> str:
    """The inputs of a key as text, from the bytes that the key is the digest of."""
    return explanation.decode("utf-8", "surrogateescape")
