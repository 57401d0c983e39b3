"""Pushing remembered steps: builds that push to one tag at the same time keep each other's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from builda.builder.execution.cachefrom import CachePlace, read_steps
from builda.builder.execution.cacheto import Export, Remembered, push_cache
from builda.builder.execution.tip import Layer
from builda.builder.image.layers import LayerOptions
from builda.builder.imageoptions import RegistryAccess
from builda.errors import RegistryError
from builda.events import Warned
from builda.oci.config import History
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.reference import Reference
from builda.store.steps import Empty
from builda.transfer.copyimage import ImageSource
from tests.unit.builder.conftest import Bench, FakeRemote

PLACE = CachePlace(registry="registry.example.org", repository="cache")
ACCESS = RegistryAccess()


@dataclass
class Tag:
    """A registry with one tag. `at` has what another build does right before a request, which happens once."""

    named: tuple[Descriptor, bytes] | None = None
    requests: list[str] = field(default_factory=list)
    at: dict[str, list[Callable[[], None]]] = field(default_factory=dict)
    answers_head: bool = True

    def asked(self, request: str) -> None:
        self.requests.append(request)
        if self.at.get(request):
            self.at[request].pop(0)()

    def manifest(self) -> tuple[Descriptor, bytes]:
        if self.named is None:
            raise RegistryError("no such tag", status=404)
        return self.named

    def has_image(self, descriptor: Descriptor) -> bool:
        self.asked("head")
        return self.answers_head and self.named is not None and self.named[0] == descriptor

    def has_child(self, descriptor: Descriptor) -> bool:
        return False

    def has_blob(self, descriptor: Descriptor) -> bool:
        return False

    def put_blob(self, descriptor: Descriptor, source: ImageSource, progress: Callable[[int], None]) -> None:
        self.asked("blob")

    def put_manifest(self, descriptor: Descriptor, data: bytes, *, top: bool) -> None:
        self.asked("put")
        self.named = descriptor, data
        self.asked("is put")

    @property
    def keys(self) -> set[Digest]:
        return {step.key for step in read_steps(self)}  # type: ignore[arg-type]  # a part of one


class TagRemote(FakeRemote):
    tag: Tag

    def source(self, place: object, access: RegistryAccess) -> ImageSource:
        self.tag.asked("get")  # what a source has found, it keeps
        return replace(self.tag)  # type: ignore[return-value]  # a part of one

    def sink(self, reference: Reference, access: RegistryAccess, mount_from: tuple[Reference, ...] = ()) -> Tag:
        return self.tag


@pytest.fixture
def tag(bench: Bench) -> Tag:
    remote = TagRemote(bench.path / "registry")
    remote.tag = Tag()
    bench.change(remote=remote)
    return remote.tag


def push(bench: Bench, name: str) -> Digest:
    """Push one step of a build; its key."""
    key = Digest.of(name.encode())
    step = Remembered(key, 1.0, (Layer(History(), Empty()),), ())
    push_cache(bench.builder.context, Export("", (step,), LayerOptions(), None), PLACE, ACCESS)
    return key


def test_a_push_looks_at_the_tag_before_and_after_it(bench: Bench, tag: Tag) -> None:
    first, second = push(bench, "first"), push(bench, "second")
    assert tag.keys == {first, second}
    assert tag.requests[:6] == ["get", "blob", "get", "put", "is put", "head"]
    assert tag.requests[6:12] == ["get", "blob", "head", "put", "is put", "head"]


def test_a_push_of_what_is_there_puts_nothing(bench: Bench, tag: Tag) -> None:
    push(bench, "first")
    tag.requests.clear()
    push(bench, "first")
    assert tag.requests == ["get"]


@pytest.mark.parametrize("moment", ["blob", "head", "put", "is put"])
def test_what_another_build_pushes_meanwhile_is_kept(bench: Bench, tag: Tag, moment: str) -> None:
    """Whenever it pushes: when it comes between look and put, its own second look finds that its steps are gone."""
    others: list[Digest] = []
    push(bench, "before")
    tag.at = {moment: [lambda: others.append(push(bench, "other"))]}
    mine = push(bench, "mine")
    if moment == "put":  # the other build was done before this one's put, which is the window that remains
        assert tag.keys == {Digest.of(b"before"), mine}
    else:
        assert tag.keys == {Digest.of(b"before"), mine, *others}


def test_a_build_whose_steps_were_overwritten_adds_them_again(bench: Bench, tag: Tag) -> None:
    """The other one looked before this one's put, and puts after it."""
    push(bench, "before")
    stale = tag.named
    assert stale is not None
    tag.at = {"is put": [lambda: setattr(tag, "named", stale)]}
    mine = push(bench, "mine")
    assert mine in tag.keys


def test_a_registry_that_answers_no_head_gets_the_steps(bench: Bench, tag: Tag) -> None:
    tag.answers_head = False
    first, second = push(bench, "first"), push(bench, "second")
    assert tag.keys == {first, second}


def test_tries_are_bounded_and_then_a_warning_says_so(bench: Bench, tag: Tag) -> None:
    push(bench, "before")
    stale = tag.named
    tag.at = {"is put": [lambda: setattr(tag, "named", stale)] * 100}
    push(bench, "mine")
    assert tag.requests.count("put") == 6
    (warned,) = [event for event in bench.events if isinstance(event, Warned)]
    assert warned.message.startswith("other builds push to the build cache all the time")
