"""GuardedSource: nothing that a manifest lists is read before the manifest was accepted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from builda.errors import BuildaError, CorruptContent, PolicyRejected
from builda.oci.digest import Digest
from builda.oci.manifest import Index
from builda.transfer.converting import Chosen
from builda.transfer.copyimage import copy_image, read_blob
from builda.trust.guard import GuardedSource
from tests.support.memory import AMD64, ARM64, MemoryImage, index_of, random_image


class Watched(MemoryImage):
    """Notes the blobs that are asked for."""

    def __init__(self, image: MemoryImage) -> None:
        super().__init__(image.blobs, image.top)
        self.asked: list[Digest] = []

    def _blob(self, descriptor: object) -> bytes:
        self.asked.append(descriptor.digest)  # type: ignore[attr-defined]  # a descriptor
        return super()._blob(descriptor)  # type: ignore[arg-type]


def accepting(*digests: Digest) -> Callable[[bytes], None]:
    """A check that accepts manifests with these digests."""

    def check(data: bytes) -> None:
        if Digest.of(data) not in digests:
            raise PolicyRejected("rejected")

    return check


def platforms() -> tuple[MemoryImage, dict[str, Digest]]:
    """An index of two images, with the digests of all three."""
    index = index_of(random_image(1), random_image(2, platform=ARM64))
    document = index.document
    assert isinstance(document, Index)
    amd64, arm64 = (entry.digest for entry in document.manifests)
    return index, {"index": index.descriptor.digest, "amd64": amd64, "arm64": arm64}


def test_an_image_that_is_not_accepted_gives_nothing() -> None:
    image = Watched(random_image(1))
    guarded = GuardedSource(image, accepting())
    for _ in range(2):
        for ask in (
            guarded.manifest,
            guarded.outline,
            lambda: read_blob(guarded, image.image.config),
            lambda: guarded.local_path(image.image.layers[0]),
            lambda: copy_image(guarded, MemoryImage()),
            lambda: copy_image(guarded, MemoryImage(), platform=AMD64),
        ):
            with pytest.raises(PolicyRejected):
                ask()
    assert image.asked == []


def test_an_accepted_image_is_copied_whole() -> None:
    image, sink = random_image(1), MemoryImage()
    copy_image(GuardedSource(image, accepting(image.descriptor.digest)), sink)
    assert sink.blobs == image.blobs


def test_an_accepted_list_vouches_for_all() -> None:
    index, digests = platforms()
    for options in ({"select": "all"}, {"platform": ARM64}):
        sink = MemoryImage()
        copy_image(GuardedSource(index, accepting(digests["index"])), sink, **options)
        assert sink.top is not None


def test_of_other_lists_an_image_has_to_be_accepted() -> None:
    index, digests = platforms()
    only = accepting(digests["arm64"])
    sink = MemoryImage()
    copy_image(GuardedSource(index, only), sink, platform=ARM64)
    assert sink.descriptor.digest == digests["arm64"]
    assert Chosen(GuardedSource(index, only), ARM64).top.digest == digests["arm64"]
    watched = Watched(index)
    for options in ({"platform": AMD64}, {"select": "all"}, {"select": "index-only"}, {}):
        with pytest.raises(PolicyRejected):
            copy_image(GuardedSource(watched, only), MemoryImage(), **options)
    assert set(watched.asked) <= {digests["amd64"], digests["arm64"]}


def test_blobs_of_the_image_beside_it_stay_closed() -> None:
    index, digests = platforms()
    document = index.document
    assert isinstance(document, Index)
    guarded = GuardedSource(index, accepting(digests["arm64"]))
    amd64, arm64 = document.manifests
    ours, theirs = random_image(2, platform=ARM64).image, random_image(1).image
    with pytest.raises(PolicyRejected):
        read_blob(guarded, ours.layers[0])
    guarded.child(arm64)
    assert read_blob(guarded, ours.layers[0])
    with pytest.raises(PolicyRejected):
        read_blob(guarded, theirs.layers[0])
    with pytest.raises(PolicyRejected):
        guarded.child(amd64)
    with pytest.raises(PolicyRejected):
        read_blob(guarded, theirs.layers[0])


def test_an_accepted_list_in_a_list() -> None:
    inner, digests = platforms()
    outer = index_of(inner)
    guarded = GuardedSource(outer, accepting(digests["index"]))
    document = outer.document
    assert isinstance(document, Index)
    guarded.child(document.manifests[0])
    inside = inner.document
    assert isinstance(inside, Index)
    guarded.child(inside.manifests[0])
    assert read_blob(guarded, random_image(1).image.layers[0])


def test_a_manifest_that_is_not_what_the_list_names_is_never_accepted() -> None:
    index, digests = platforms()
    index.blobs[digests["amd64"]] = index.blobs[digests["arm64"]]
    guarded = GuardedSource(index, accepting(digests["arm64"]))
    with pytest.raises(CorruptContent):
        copy_image(guarded, MemoryImage(), platform=AMD64)


def test_what_cannot_be_asked_is_no_acceptance() -> None:
    image, answers = random_image(1), iter([BuildaError("the storage cannot be read"), None])

    def check(data: bytes) -> None:
        if (answer := next(answers)) is not None:
            raise answer

    guarded = GuardedSource(image, check)
    with pytest.raises(BuildaError, match="storage"):
        guarded.manifest()
    assert guarded.manifest()[0] == image.descriptor
