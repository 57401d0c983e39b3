"""The interface to what is outside the store: images in registries and files, and URLs.

`api.Registries` implements it for builda, tests implement their own.
"""

from __future__ import annotations

from builda.values import NamedTuple, Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from builda.builder.imageoptions import RegistryAccess
    from builda.oci.descriptor import Descriptor, Platform
    from builda.oci.digest import Digest
    from builda.oci.reference import Reference
    from builda.transfer.copyimage import ImageSink, ImageSource
    from builda.transfer.locate import Location


class Download(Protocol):
    """A file behind a URL, read once. `filename` is what the server or the URL calls it, never a path."""

    filename: str | None

    @property
    def last_modified(self) -> float | None:
        """When it last changed, in seconds since the epoch, if the server says so."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, b"" at the end."""


class SignOptions(NamedTuple):
    """`image sign`: whether the images of a list are signed, too, and the directory that gets GPG's signatures."""

    every: bool = False
    directory: str | None = None  # None: as registries.d says


class VerifyOptions(NamedTuple):
    """`image verify`: what counts instead of policy.json, and the image of a list that will do."""

    platform: Platform
    key: str | None = None  # a file with GPG keys, or with a public key in PEM
    identity: str | None = None  # the name that signatures have to have


class Proof(NamedTuple):
    """An accepted signature: the rule of policy.json that it fulfils, its key, and the image name that it names."""

    type: str
    key: str
    identity: str


class Verified(NamedTuple):
    """The signed image, and the signatures by which it is accepted."""

    descriptor: Descriptor
    proofs: tuple[Proof, ...]


class Carrier(Protocol):
    """The signatures of one image, which go where it is copied to. They are not verified."""

    def over(self, sink: ImageSink, place: Reference | Location, access: RegistryAccess) -> ImageSink | None:
        """A sink that gives each manifest its signatures, at `place`; None for a place that holds none."""

    def has(self, digest: Digest) -> bool:
        """Whether the manifest with this digest has signatures."""


class Remote(Protocol):
    """Images in registries and files, and URLs."""

    def candidates(self, name: str) -> tuple[Reference, ...]:
        """The references that `name` may mean, best first: one for a full name, several for a short one."""

    def tags(self, reference: Reference, access: RegistryAccess) -> tuple[str, ...]:
        """All tags of the repository that `reference` names."""

    def repositories(self, registry: str, access: RegistryAccess) -> tuple[str, ...]:
        """The repositories of a registry, as far as it shows them."""

    def source(self, place: Reference | Location, access: RegistryAccess) -> ImageSource:
        """The image that `place` names in its registry, layout or archive; PolicyRejected if policy.json says no.

        Every image that comes from outside the store is opened here.
        """

    def sink(self, reference: Reference, access: RegistryAccess, mount_from: tuple[Reference, ...] = ()) -> ImageSink:
        """A sink that pushes an image as `reference`. Layers that the registry has under `mount_from` are not sent."""

    def signing(self, place: Reference | Location, access: RegistryAccess) -> Callable[[ImageSink], ImageSink]:
        """Make of the sink for `place` one that signs each manifest by the keys of `access` before it is published.

        Unsupported for a place that has no signatures, NotFound or InvalidValue for keys that cannot sign.
        """

    def carrier(self, source: Reference | Location, access: RegistryAccess) -> Carrier:
        """An object that copies the signatures of the image at `source` to where the image is copied."""

    def attached(
        self, source: Reference, access: RegistryAccess, destination: Reference, there: RegistryAccess
    ) -> Callable[[Digest], int]:
        """Make a function that copies what is attached to the manifest with a digest, from one repository to another.

        It returns the number of manifests found. What is attached is not verified.
        """

    def sign(self, place: Reference | Location, access: RegistryAccess, how: SignOptions) -> tuple[Descriptor, ...]:
        """The image that is at `place` has signatures by the keys of `access`; what was signed."""

    def verified(self, place: Reference | Location, access: RegistryAccess, how: VerifyOptions) -> Verified:
        """The signatures by which the image counts; PolicyRejected if it lacks some that are wanted."""

    def delete(self, reference: Reference, access: RegistryAccess) -> Descriptor | None:
        """Delete what the reference names from the registry; its descriptor, None if there was nothing."""

    def fetch(self, url: str, access: RegistryAccess) -> AbstractContextManager[Download]:
        """The body of `url`, read once."""
